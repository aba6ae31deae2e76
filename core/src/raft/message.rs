//! What nodes say to each other.
//!
//! A message may be lost, repeated, delayed or reordered; none of that breaks a promise. A message that promises
//! something durable (a granted vote, an accepted append) leaves the core only when the write behind it is on disk.

use serde::{Deserialize, Serialize};

use super::{Base, DiskHealth, Entries, FeatureLevel, Index, LeaseGrant, LeaseRequest, Position, Term};

/// A message between two members, with the sender's term.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The sender's term; in a pre-vote request the term that it would campaign in.
    pub term: Term,
    /// What is said.
    pub body: Body,
}

/// Whether a node would vote for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PreVote {
    /// It would.
    Granted,
    /// It would not.
    Refused,
    /// It would, and asks to go first, since it is preferred. This holds off questions, never votes.
    Vetoed,
    /// It must not: its log is being repaired.
    Repairing,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// "Would you vote for me in this term?" Asking binds nobody (Raft dissertation, section 9.6).
    PreVoteRequest {
        /// The end of the sender's log.
        last: Position,
    },
    /// The answer to a pre-vote request.
    PreVoteResponse {
        /// The term that the request proposed.
        proposed: Term,
        /// What the sender would do.
        answer: PreVote,
    },
    /// "Vote for me" (RequestVote, Raft paper, section 5.2).
    VoteRequest {
        /// The end of the sender's log.
        last: Position,
        /// Set when the leader of the term before asked for this election, which then overrides its claim to be
        /// undisturbed: its last heartbeat round whose promises it waives.
        transfer: Option<u64>,
    },
    /// The answer to a vote request; a granted vote is durable.
    VoteResponse {
        /// Whether the vote was granted.
        granted: bool,
    },
    /// Entries for a follower (AppendEntries, Raft paper, section 5.3).
    Append {
        /// The position just before the first entry.
        previous: Position,
        /// The entries, without a gap; none to probe where two logs agree.
        entries: Entries,
        /// The leader's commit index.
        commit: Index,
    },
    /// The follower's log agrees with the leader's up to `matched`, durably.
    AppendAccepted {
        /// The last index known to agree.
        matched: Index,
    },
    /// The follower has no entry at `previous`.
    AppendRejected {
        /// The index of the refused `previous`, so that a late refusal is told from a current one.
        previous: Index,
        /// The latest position in the follower's log at which the two logs may agree.
        hint: Position,
    },
    /// "I am still the leader." Promises nothing about the log.
    Heartbeat {
        /// The leader's commit index; a follower takes no more of it than it knows to agree with.
        commit: Index,
        /// Number of the round, rising within a term, which read index and check-quorum count answers by.
        round: u64,
        /// The promise that the leader asks for.
        lease: Option<LeaseRequest>,
    },
    /// The answer to a heartbeat; waits for no disk.
    HeartbeatResponse {
        /// The round that it answers.
        round: u64,
        /// The last index that the follower knows to agree with this leader's log, durable or not: it shows the
        /// leader that an append was lost, and counts for nothing else.
        matched: Index,
        /// How the sender's disk fares.
        disk: DiskHealth,
        /// What the sender's binary supports.
        features: FeatureLevel,
        /// The promise that the leader asked for, when it is given.
        lease: Option<LeaseGrant>,
    },
    /// "The log that you keep begins here": to a witness that lacks what was purged, and needs no state.
    Begin {
        /// Where the sender's log begins.
        base: Box<Base>,
    },
    /// "Campaign at once": ends a leadership transfer (Raft dissertation, section 3.10).
    TimeoutNow {
        /// The last heartbeat round whose promises the leader waives: it uses them no more.
        released: u64,
    },
    /// A follower asks up to where it must have applied before it may answer a linearizable read.
    ReadRequest {
        /// The follower's number of the request.
        request: u64,
        /// Whether the leader may answer by its lease.
        lease: bool,
    },
    /// The answer: the index to wait for, or nothing from a node that is no confirmed leader.
    ReadResponse {
        /// The follower's number of the request.
        request: u64,
        /// The read index (Raft dissertation, section 6.4).
        index: Option<Index>,
    },
}
