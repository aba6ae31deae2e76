//! What a node knows of the cluster, in the words of the client API.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use quorate_api::{
    ClusterHealth, ClusterStatus, Mode, NodeHealth, NodeName, NodeView, NodesAnswer, PeerStatus,
    Role as ApiRole,
};
use quorate_core::raft::{Member, Membership, NodeId, Role};
use quorate_core::state::NodeLoad;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::view::{PeerView, View};
use crate::config::Config;
use crate::transport::NodeReport;

/// A report older than this says nothing of now.
const REPORT_STALE: Duration = Duration::from_secs(5);
/// Committed entries that a healthy member may lack.
const LAG_HEALTHY: u64 = 1_000;

/// What is needed to show a view.
pub(super) struct Shown<'a> {
    pub(super) config: &'a Config,
    pub(super) now: SystemTime,
}

impl Shown<'_> {
    pub(super) fn status(&self, view: &View) -> ClusterStatus {
        let role = api_role(view.role);
        let voters = view
            .membership
            .as_ref()
            .map_or(0, |membership| membership.voters().len() as u64);
        ClusterStatus {
            cluster: self.config.cluster_name.clone(),
            node_id: self.config.node_name.clone(),
            state: role,
            role,
            leader: leader(view),
            term: view.term.0,
            commit_index: view.commit.0,
            applied_index: view.applied.0,
            last_index: view.last.0,
            health: health(view),
            mode: if view.read_only {
                Mode::ReadOnly
            } else {
                Mode::ReadWrite
            },
            voters,
            quorum: if voters == 0 { 0 } else { voters / 2 + 1 },
            feature_level: view
                .membership
                .as_ref()
                .map_or(0, |membership| membership.level().0),
            repairing: view.repairing,
            wal_sync: self.config.storage.wal_sync,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            reason: view.outside.clone(),
            only_here: view.only_here,
            peers: view
                .peers
                .iter()
                .filter_map(|peer| peer_status(view, peer))
                .collect(),
            nodes: self.nodes(view).nodes,
        }
    }

    pub(super) fn nodes(&self, view: &View) -> NodesAnswer {
        let members = view.membership.iter().flat_map(|membership| membership.members());
        let mut nodes: Vec<NodeView> = members
            .filter_map(|(id, member)| self.node(view, *id, member))
            .collect();
        nodes.sort_by(|a, b| a.node_id.cmp(&b.node_id));
        NodesAnswer {
            nodes,
            leader_id: leader(view),
        }
    }

    fn node(&self, view: &View, id: NodeId, member: &Member) -> Option<NodeView> {
        let own = view.id == Some(id);
        let peer = view.peers.iter().find(|peer| peer.id == id);
        let report = if own {
            Some(&view.own)
        } else {
            peer.and_then(fresh_report)
        };
        let heard = if own {
            Some(Duration::ZERO)
        } else {
            peer.and_then(|peer| peer.heard)
        };
        Some(NodeView {
            node_id: NodeName::new(member.name.clone()).ok()?,
            api_address: member.client_address.clone(),
            raft_address: member.cluster_address.clone(),
            health: node_health(view, own, peer),
            role: member_role(view, id),
            cpu_percent: report.map(|report| f64::from(report.cpu_percent)),
            memory_percent: report.map(|report| f64::from(report.memory_percent)),
            active_sessions: 0,
            max_sessions: 0,
            available_capacity: 0,
            draining: false,
            load_score: None,
            last_heartbeat: heard.and_then(|heard| rfc3339(self.now.checked_sub(heard)?)),
            joined_at: None,
            metadata: BTreeMap::new(),
        })
    }
}

impl View {
    /// The name of the leader that the node knows.
    pub(super) fn leader_name(&self) -> Option<&str> {
        let members = self.membership.as_ref()?.members();
        Some(&members.get(&self.leader?)?.name)
    }
}

fn leader(view: &View) -> Option<NodeName> {
    NodeName::new(view.leader_name()?).ok()
}

/// A failed node follows nobody, but it is still a follower in the eyes of the others until it stops.
pub(super) fn api_role(role: Role) -> ApiRole {
    match role {
        Role::Leader => ApiRole::Leader,
        Role::Follower | Role::Failed => ApiRole::Follower,
        Role::Learner => ApiRole::Learner,
        Role::Witness => ApiRole::Witness,
        Role::PreCandidate | Role::Candidate => ApiRole::Candidate,
    }
}

fn member_role(view: &View, id: NodeId) -> ApiRole {
    if view.id == Some(id) {
        return api_role(view.role);
    }
    let membership = view.membership.as_ref();
    let is = |part: fn(&Membership, NodeId) -> bool| membership.is_some_and(|known| part(known, id));
    match view.leader {
        Some(leader) if leader == id => ApiRole::Leader,
        _ if is(Membership::is_witness) => ApiRole::Witness,
        _ if is(Membership::is_voter) => ApiRole::Follower,
        _ => ApiRole::Learner,
    }
}

fn peer_status(view: &View, peer: &PeerView) -> Option<PeerStatus> {
    let member = view.membership.as_ref()?.members().get(&peer.id)?;
    let progress = view.progress.iter().find(|progress| progress.id == peer.id);
    Some(PeerStatus {
        id: NodeName::new(member.name.clone()).ok()?,
        state: member_role(view, peer.id),
        match_index: progress.map(|progress| progress.matched.0),
        address: member.cluster_address.clone(),
        connected: peer.connected,
        last_contact_ms: peer.heard.and_then(|heard| u64::try_from(heard.as_millis()).ok()),
    })
}

fn fresh_report(peer: &PeerView) -> Option<&NodeReport> {
    peer.report
        .as_ref()
        .filter(|_| peer.heard.is_some_and(|heard| heard < REPORT_STALE))
}

fn node_health(view: &View, own: bool, peer: Option<&PeerView>) -> NodeHealth {
    if own {
        return if view.waiting_for.is_none() {
            NodeHealth::Healthy
        } else {
            NodeHealth::Degraded
        };
    }
    match peer {
        None => NodeHealth::Unknown,
        Some(peer) if !peer.connected && peer.awaited => NodeHealth::Unknown,
        Some(peer) if !peer.connected => NodeHealth::Unhealthy,
        Some(peer) => match fresh_report(peer) {
            Some(report) if report.applied.0 + LAG_HEALTHY < view.commit.0 => NodeHealth::Degraded,
            _ => NodeHealth::Healthy,
        },
    }
}

fn health(view: &View) -> ClusterHealth {
    let Some(membership) = view.membership.as_ref().filter(|_| view.leader.is_some()) else {
        return ClusterHealth::Unavailable;
    };
    let in_reach =
        |id: &NodeId| view.id == Some(*id) || view.peers.iter().any(|peer| peer.id == *id && peer.connected);
    if membership.voters().iter().all(in_reach) {
        ClusterHealth::Healthy
    } else {
        ClusterHealth::Degraded
    }
}

/// What the placement of sessions knows of a node.
pub(super) fn sessions(node: &mut NodeView, load: &NodeLoad) {
    let max = u64::from(load.place.capacity);
    node.active_sessions = load.sessions;
    node.max_sessions = max;
    node.available_capacity = if load.is_open() {
        max.saturating_sub(load.sessions)
    } else {
        0
    };
    node.draining = load.place.drain.is_on();
    // A rounded number for people: placement itself compares without rounding.
    node.load_score = (max > 0).then(|| load.sessions as f64 / max as f64);
}

fn rfc3339(time: SystemTime) -> Option<String> {
    OffsetDateTime::from(time)
        .replace_millisecond(0)
        .ok()?
        .format(&Rfc3339)
        .ok()
}
