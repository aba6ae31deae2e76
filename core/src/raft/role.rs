//! What a node keeps for the part that it plays; it is gone when the part ends.

use std::collections::{BTreeMap, VecDeque};

use super::handover::Watch;
use super::progress::Progress;
use super::{Index, NodeId, Position, Token};
use crate::time::Instant;

#[derive(Clone, Debug)]
pub(super) enum Part {
    Follower(Follower),
    Candidate(Candidate),
    Leader(Box<Leader>),
}

/// Follows a leader, or waits for one.
#[derive(Clone, Debug, Default)]
pub(super) struct Follower {
    pub(super) leader: Option<NodeId>,
    /// When the leader was last heard of; none when the link to it was reported as cut.
    pub(super) contact: Option<Instant>,
    /// The last index known to agree with this leader's log, durable or not.
    pub(super) matched: Index,
}

/// Asks for votes, or for promises of votes.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) pre_vote: bool,
    /// Answers by voter. The own vote enters when it is durable.
    pub(super) votes: BTreeMap<NodeId, bool>,
    /// Set when the leader asked for this election: its last heartbeat round whose promises it waived.
    pub(super) transfer: Option<u64>,
}

/// Leads a term.
#[derive(Clone, Debug)]
pub(super) struct Leader {
    pub(super) peers: BTreeMap<NodeId, Progress>,
    /// The index of the entry that opened the term. Nothing is read, and no membership changed, before it commits.
    pub(super) opened_at: Index,
    /// The number of the last heartbeat round.
    pub(super) round: u64,
    /// The last round whose promises were waived.
    pub(super) released: u64,
    pub(super) heartbeat_due: Instant,
    /// Until then a majority was heard of recently enough.
    pub(super) quorum_due: Instant,
    /// When followers are told of a commit that no append carried to them.
    pub(super) commit_notice_due: Option<Instant>,
    /// Reads that wait for the next heartbeat round.
    pub(super) reads_waiting: Vec<ReadOrigin>,
    /// Reads whose round is under way, oldest first.
    pub(super) reads_asked: VecDeque<ReadRound>,
    /// Reads in `reads_asked`.
    pub(super) reads_asked_count: usize,
    pub(super) transfer: Option<Transfer>,
    /// The operator's change that is being committed.
    pub(super) change: Option<Token>,
    pub(super) elected: Instant,
    /// Whether it should give the leadership up.
    pub(super) handover: Watch,
}

/// Who wants to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadOrigin {
    /// A client of this node.
    Local(Token),
    /// A follower, with its own number for the request.
    Follower(NodeId, u64),
}

/// Reads that one heartbeat round confirms together.
#[derive(Clone, Debug)]
pub(super) struct ReadRound {
    pub(super) round: u64,
    /// The commit index when the round began.
    pub(super) index: Index,
    pub(super) reads: Vec<ReadOrigin>,
}

/// The leadership is being handed over (Raft dissertation, section 3.10).
#[derive(Clone, Debug)]
pub(super) struct Transfer {
    pub(super) target: NodeId,
    /// Who asked for it; none when the leader decided itself.
    pub(super) token: Option<Token>,
    /// After this the leader leads on.
    pub(super) deadline: Instant,
}

/// A command that this node appended for a client and whose reply is owed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owed {
    pub(super) position: Position,
    pub(super) token: Token,
}

impl Leader {
    /// Reads that wait for a confirmation.
    pub(super) fn reads_under_way(&self) -> usize {
        self.reads_waiting.len() + self.reads_asked_count
    }
}
