//! What one node knows of the cluster at one moment, for the client port.

use std::time::Duration;

use quorate_core::raft::{Index, Membership, NodeId, PeerStatus, Role, Term};

use crate::transport::NodeReport;
use crate::watch::WatchEnd;

/// Of a node that has no part in a cluster.
pub(super) const NO_CLUSTER: &str = "this node belongs to no cluster yet";

/// A node's knowledge of the cluster.
#[derive(Clone, Debug)]
pub(super) struct View {
    /// This node's id; none while it belongs to no cluster.
    pub(super) id: Option<NodeId>,
    /// Its part.
    pub(super) role: Role,
    /// Its term.
    pub(super) term: Term,
    /// The leader that it knows.
    pub(super) leader: Option<NodeId>,
    /// The last index known to be committed.
    pub(super) commit: Index,
    /// The last index applied to its state.
    pub(super) applied: Index,
    /// The last index of its log.
    pub(super) last: Index,
    /// The membership in force; none while it belongs to no cluster.
    pub(super) membership: Option<Membership>,
    /// On a leader, how far the others are.
    pub(super) progress: Vec<PeerStatus>,
    /// What the other members said of themselves lately.
    pub(super) peers: Vec<PeerView>,
    /// What this node says of itself.
    pub(super) own: NodeReport,
    /// Whether its damaged log is being repaired.
    pub(super) repairing: bool,
    /// Whether it has lost the quorum.
    pub(super) read_only: bool,
    /// Why it is not ready, when it waits for something.
    pub(super) waiting_for: Option<String>,
    /// Why it is in no cluster, when it is in none.
    pub(super) outside: Option<String>,
    /// Why it serves nothing, when it was set aside.
    pub(super) aside: Option<String>,
    /// What only it has, when it was set aside for that.
    pub(super) only_here: Option<quorate_api::OnlyHere>,
}

/// What a node knows of another member.
#[derive(Clone, Debug)]
pub(super) struct PeerView {
    pub(super) id: NodeId,
    pub(super) connected: bool,
    /// How long ago its last report came.
    pub(super) heard: Option<Duration>,
    /// Whether this node has only just started and has yet to meet it.
    pub(super) awaited: bool,
    pub(super) report: Option<NodeReport>,
}

impl View {
    /// Why the node hears of no changes, and so serves no watches.
    pub(super) fn end_of_watches(&self) -> Option<WatchEnd> {
        let outside = self.outside.clone().map(WatchEnd::SetAside);
        outside.or_else(|| self.read_only.then_some(WatchEnd::QuorumLost))
    }

    /// What a node knows that belongs to no cluster yet.
    pub(super) fn blank() -> View {
        View {
            id: None,
            role: Role::Learner,
            term: Term(0),
            leader: None,
            commit: Index(0),
            applied: Index(0),
            last: Index(0),
            membership: None,
            progress: Vec::new(),
            peers: Vec::new(),
            own: NodeReport::default(),
            repairing: false,
            waiting_for: Some(NO_CLUSTER.to_owned()),
            outside: Some(NO_CLUSTER.to_owned()),
            aside: None,
            only_here: None,
            read_only: false,
        }
    }
}
