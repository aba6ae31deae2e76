//! A look at a node, for operators, metrics, duties and checkers.

use super::{Base, DiskHealth, FeatureLevel, Index, Membership, NodeId, Position, Quarantine, Term};
use crate::time::Instant;

/// The part that a node plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Receives the log and may vote.
    Follower,
    /// Receives the log and has no vote in the membership that it knows.
    Learner,
    /// Receives the log without its commands, and votes.
    Witness,
    /// Asks whether it would be elected.
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
    /// It takes no part any more: its disk failed, it does not fit into the cluster, or it was set aside.
    Failed,
}

impl Role {
    /// The name that operators see.
    pub fn name(self) -> &'static str {
        match self {
            Role::Follower => "follower",
            Role::Learner => "learner",
            Role::Witness => "witness",
            Role::PreCandidate | Role::Candidate => "candidate",
            Role::Leader => "leader",
            Role::Failed => "failed",
        }
    }
}

/// A node at one moment.
#[derive(Clone, Debug)]
pub struct Status<'a> {
    /// The node.
    pub id: NodeId,
    /// Its term.
    pub term: Term,
    /// Whom it voted for in that term.
    pub vote: Option<NodeId>,
    /// Its part.
    pub role: Role,
    /// The leader that it knows; itself when it leads.
    pub leader: Option<NodeId>,
    /// The last index known to be committed.
    pub commit: Index,
    /// The last index that its state machine reported as applied.
    pub applied: Index,
    /// The end of its log.
    pub last: Position,
    /// The end of what its disk holds of the log.
    pub durable: Index,
    /// Where its log begins.
    pub base: &'a Base,
    /// The membership in force.
    pub membership: &'a Membership,
    /// Where the membership in force stands; it is committed when this is at or before `commit`.
    pub membership_position: Position,
    /// What a leader knows of the other members, by id; empty on others.
    pub peers: Vec<PeerStatus>,
    /// To whom the leadership is being handed.
    pub transfer: Option<NodeId>,
    /// On a leader, when a majority was last known to follow it.
    pub quorum_contact: Option<Instant>,
    /// On a leader with a lease: until when it may answer reads alone.
    pub lease_until: Option<Instant>,
    /// How its disk fares.
    pub disk: DiskHealth,
    /// Where its log must end, at the least, before it votes again: damage took the log's end.
    pub repairing: Option<Position>,
    /// Whether it has lost the quorum: for two of the largest election time-outs it has known no leader that a majority
    /// follows, and nothing can be written through it.
    pub read_only: bool,
    /// Why it takes no part any more until its operator has decided; none for a node that takes part.
    pub quarantine: Option<Quarantine>,
}

/// What a leader knows of one other member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// The member.
    pub id: NodeId,
    /// The last index that its disk is known to hold.
    pub matched: Index,
    /// The next index to send.
    pub next: Index,
    /// How entries reach it.
    pub state: PeerState,
    /// When it was last heard of.
    pub heard: Instant,
    /// What it last said of its disk.
    pub disk: DiskHealth,
    /// What its binary supports; none when it did not say yet.
    pub features: Option<FeatureLevel>,
    /// Whether its clock was seen to drift further than leases allow.
    pub clock_drifts: bool,
    /// Whether it answers and is close behind: a learner that is may be promoted.
    pub caught_up: bool,
}

/// How entries reach a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerState {
    /// Where the logs agree is being found out.
    Probe,
    /// Entries flow.
    Replicate,
    /// It receives a snapshot.
    Snapshot,
}

/// How far a node is; cheap to take after every step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advance {
    /// Its term.
    pub term: Term,
    /// The last index known to be committed.
    pub commit: Index,
    /// The last index that its state machine reported as applied.
    pub applied: Index,
}
