//! The cluster in JSON: health, status, nodes, and changes of the membership.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::NodeName;

/// What part a node plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Orders the writes of its term.
    Leader,
    /// Votes, and follows the leader.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Follows without a vote.
    Learner,
    /// Votes and holds no data.
    Witness,
}

impl Role {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Leader => "leader",
            Role::Follower => "follower",
            Role::Candidate => "candidate",
            Role::Learner => "learner",
            Role::Witness => "witness",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

/// Whether a node serves all it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// It serves reads and writes.
    Healthy,
    /// It runs, but the cluster has no leader that it knows.
    Degraded,
}

/// What can be done through a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Everything.
    ReadWrite,
    /// It has lost the quorum: only serializable reads.
    ReadOnly,
}

/// The answer to `GET /health`; always 200.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Health {
    /// Healthy or degraded.
    pub status: HealthStatus,
    /// This node's view of the cluster.
    pub cluster: ClusterBrief,
    /// What can be done through it.
    pub mode: Mode,
    /// Why it is degraded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A cluster in four fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ClusterBrief {
    /// The node that answers.
    pub node_id: NodeName,
    /// Its part.
    pub role: Role,
    /// The leader it knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<NodeName>,
    /// The term it is in.
    pub term: u64,
}

/// The answer to `GET /readyz`: 200 when ready, else 503.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Readiness {
    /// Whether the node serves linearizable reads and writes.
    pub ready: bool,
    /// What it waits for, one entry each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
}

/// How the cluster as a whole does, as one node sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum ClusterHealth {
    /// There is a leader and every voter is in reach.
    Healthy,
    /// There is a leader, and a voter is out of reach.
    Degraded,
    /// There is no leader: nothing can be written.
    Unavailable,
}

impl fmt::Display for ClusterHealth {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            ClusterHealth::Healthy => "healthy",
            ClusterHealth::Degraded => "degraded",
            ClusterHealth::Unavailable => "unavailable",
        })
    }
}

/// The answer to `GET /cluster/status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ClusterStatus {
    /// The cluster's name.
    pub cluster: String,
    /// The node that answers.
    pub node_id: NodeName,
    /// Its part.
    pub state: Role,
    /// Its part again, under the name that other documents use.
    pub role: Role,
    /// The leader it knows.
    pub leader: Option<NodeName>,
    /// The term it is in.
    pub term: u64,
    /// The last index known to be committed.
    pub commit_index: u64,
    /// The last index applied to this node's state.
    pub applied_index: u64,
    /// The last index in this node's log.
    pub last_index: u64,
    /// How the cluster does.
    pub health: ClusterHealth,
    /// What can be done through the node that answers.
    pub mode: Mode,
    /// How many voters there are.
    pub voters: u64,
    /// How many voters are a majority.
    pub quorum: u64,
    /// The feature level that the cluster uses: it rises when every member's program supports more. 0 in no cluster.
    pub feature_level: u16,
    /// Whether damage took the end of this node's log, and its peers repair it: until then it does not vote.
    #[serde(default)]
    pub repairing: bool,
    /// Whether a write is synced to the disk before it is acknowledged; false risks acknowledged writes.
    pub wal_sync: bool,
    /// The version of the node's program.
    pub version: String,
    /// Why the node is in no cluster: it has not joined one yet, was removed, or was set aside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What only this node has, when it was set aside for having what the cluster lacks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only_here: Option<OnlyHere>,
    /// Every other member.
    pub peers: Vec<PeerStatus>,
    /// Every member, as in `GET /cluster/nodes`.
    pub nodes: Vec<NodeView>,
}

/// Entries at the end of a node's log that its cluster does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct OnlyHere {
    /// The index of the first of them.
    pub first_index: u64,
    /// The term of the first of them.
    pub first_term: u64,
    /// The index of the last of them, with which the log ends.
    pub last_index: u64,
    /// The term of the last of them.
    pub last_term: u64,
    /// How many they are.
    pub entries: u64,
    /// Whether there may be more before them: the logs do not go back far enough to tell.
    pub at_least: bool,
    /// How many keys they put; absent when that is not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<u64>,
}

/// Another member, as the answering node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct PeerStatus {
    /// Its name.
    pub id: NodeName,
    /// Its part, as far as the answering node can know.
    pub state: Role,
    /// The last index known to be on its disk; only a leader knows it.
    pub match_index: Option<u64>,
    /// `host:port` for other nodes.
    pub address: String,
    /// Whether a connection to it stands.
    pub connected: bool,
    /// Milliseconds since it was last heard of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_contact_ms: Option<u64>,
}

/// Whether a node can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum NodeHealth {
    /// In reach, and caught up or nearly so.
    Healthy,
    /// In reach, but far behind or unwell.
    Degraded,
    /// Out of reach.
    Unhealthy,
    /// The answering node cannot tell.
    Unknown,
}

impl fmt::Display for NodeHealth {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            NodeHealth::Healthy => "healthy",
            NodeHealth::Degraded => "degraded",
            NodeHealth::Unhealthy => "unhealthy",
            NodeHealth::Unknown => "unknown",
        })
    }
}

/// The answer to `GET /cluster/nodes`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct NodesAnswer {
    /// Every member, by name.
    pub nodes: Vec<NodeView>,
    /// The leader that the answering node knows.
    pub leader_id: Option<NodeName>,
}

/// One member. Numbers that the answering node does not know are null.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct NodeView {
    /// Its name.
    pub node_id: NodeName,
    /// `host:port` for clients.
    pub api_address: String,
    /// `host:port` for other nodes.
    pub raft_address: String,
    /// Whether it can be reached.
    pub health: NodeHealth,
    /// Its part.
    pub role: Role,
    /// Processor use of its machine, 0 to 100.
    pub cpu_percent: Option<f64>,
    /// Memory use of its machine, 0 to 100.
    pub memory_percent: Option<f64>,
    /// Sessions placed on it.
    pub active_sessions: u64,
    /// How many sessions it takes.
    pub max_sessions: u64,
    /// How many more sessions it takes.
    pub available_capacity: u64,
    /// Whether it gives its sessions away, and takes no new ones.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub draining: bool,
    /// How loaded it is: its sessions by how many it takes; what placement compares.
    pub load_score: Option<f64>,
    /// When it was last heard of, RFC 3339.
    pub last_heartbeat: Option<String>,
    /// When it joined, RFC 3339.
    pub joined_at: Option<String>,
    /// What its operator says of it.
    pub metadata: BTreeMap<String, String>,
}

/// The body of `POST /cluster/members`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct AddMember {
    /// The new member's name.
    #[serde(alias = "node_id")]
    pub id: NodeName,
    /// Where other nodes reach it.
    pub host: String,
    /// Its port for other nodes.
    #[serde(alias = "cluster_port", alias = "raft_port")]
    pub port: u16,
    /// Whether it stays a learner for good: it follows, and never votes.
    #[serde(default)]
    pub learner: bool,
}

/// The answer to a change of the membership.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct MemberChanged {
    /// Always true; a failure is a problem.
    pub success: bool,
    /// The member.
    pub id: NodeName,
    /// What happened and what follows.
    pub message: String,
}

/// The body of `POST /cluster/step-down`; may be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct StepDownRequest {
    /// Who shall lead; without it the node that is furthest along.
    #[serde(default, alias = "target", skip_serializing_if = "Option::is_none")]
    pub target_node: Option<NodeName>,
}

/// The answer to `POST /cluster/step-down`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Leadership {
    /// Always true; a failure is a problem.
    pub success: bool,
    /// Who led.
    pub previous_leader: Option<NodeName>,
    /// Who leads now, when the answering node knows it already.
    pub leader: Option<NodeName>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_body_of_an_added_node_is_read() {
        let body = r#"{"id": 4, "host": "10.0.0.4", "port": 9100}"#;
        let request: AddMember = serde_json::from_str(body).unwrap();
        assert_eq!(request.id.as_str(), "4");
        assert_eq!((request.host.as_str(), request.port), ("10.0.0.4", 9100));
        assert!(!request.learner);
    }

    #[test]
    fn health_has_the_documented_shape() {
        let health = Health {
            status: HealthStatus::Healthy,
            cluster: ClusterBrief {
                node_id: NodeName::new("node2").unwrap(),
                role: Role::Follower,
                leader: Some(NodeName::new("node1").unwrap()),
                term: 1,
            },
            mode: Mode::ReadWrite,
            reason: None,
        };
        assert_eq!(
            serde_json::to_value(health).unwrap(),
            serde_json::json!({
                "status": "healthy",
                "cluster": {"node_id": "node2", "role": "follower", "leader": "node1", "term": 1},
                "mode": "read-write"
            })
        );
    }
}
