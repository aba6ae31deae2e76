//! What happened on a node, for logs, metrics and checkers.

use super::{BootError, Index, NodeId, Position, Quarantine, Term};

/// Something that an operator, a metric or a checker wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TraceEvent {
    /// This node asks for votes, or for the promise of votes.
    Campaign {
        /// The term that it campaigns in.
        term: Term,
        /// Whether it only asks for promises.
        pre_vote: bool,
    },
    /// A vote for this node came in.
    VoteReceived {
        /// Who voted.
        from: NodeId,
        /// Whether it was granted.
        granted: bool,
    },
    /// This node leads.
    Elected {
        /// In this term.
        term: Term,
    },
    /// This node follows a leader that it did not follow before.
    Following {
        /// The leader.
        leader: NodeId,
        /// Its term.
        term: Term,
    },
    /// This node knows no leader any more.
    LeaderLost {
        /// The one it followed.
        leader: NodeId,
        /// The term.
        term: Term,
    },
    /// This node leads no longer.
    SteppedDown {
        /// The term that it led.
        term: Term,
        /// Why.
        reason: StepDown,
    },
    /// This leader begins to hand the leadership over of its own accord.
    HandsOver {
        /// To this voter.
        to: NodeId,
        /// Why.
        reason: HandoverReason,
    },
    /// A follower's clock runs faster or slower than the settings say that clocks do: its promises count for no lease.
    ClockDrifts {
        /// The follower.
        peer: NodeId,
    },
    /// Entries at the end of the log were replaced by a leader's.
    Truncated {
        /// The first index that was replaced.
        from: Index,
    },
    /// A membership took effect.
    MembershipChanged {
        /// The entry that holds it.
        position: Position,
    },
    /// This node has known no leader for so long that nothing can be written through it.
    QuorumLost,
    /// This node knows a leader again.
    QuorumRegained,
    /// A follower needs a snapshot.
    SnapshotNeeded {
        /// The follower.
        to: NodeId,
    },
    /// A snapshot replaced this node's log.
    SnapshotAccepted {
        /// Where it ends.
        position: Position,
    },
    /// A candidate gets no vote of this node, whose damaged log is being repaired.
    VoteWithheld {
        /// Who asked for the vote, or for the promise of it.
        candidate: NodeId,
        /// Where the log must end before this node votes again.
        until: Position,
    },
    /// The damaged log of this node is whole again; the node votes.
    Repaired {
        /// Where it ends.
        reached: Position,
    },
    /// The node does not fit into the cluster, which uses features that its binary lacks, or knows it for what it is
    /// not; it must stop.
    Unfit(BootError),
    /// The node takes no part any more, until its operator has decided what becomes of what only it has.
    Quarantined(Box<Quarantine>),
    /// The disk failed; the node must stop.
    DiskFailed {
        /// What the disk said.
        error: String,
    },
}

/// Why a leader stopped leading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepDown {
    /// A newer term was seen.
    NewerTerm,
    /// No majority answered for the largest election time-out.
    QuorumLost,
    /// The membership that was committed has no part for this node.
    Removed,
    /// Its disk failed.
    DiskFailed,
    /// A write to its disk is stuck, and others can go on.
    DiskStalled,
}

/// Why a leader hands over of its own accord.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandoverReason {
    /// Its disk has been much slower than what a majority manages without it.
    SlowDisk,
    /// A preferred node has caught up and works.
    Preferred,
}

impl HandoverReason {
    /// The reason in words for operators.
    pub fn explain(self) -> &'static str {
        match self {
            HandoverReason::SlowDisk => "its disk is much slower than the others'",
            HandoverReason::Preferred => "the other node is preferred",
        }
    }
}

impl StepDown {
    /// The reason in words for operators.
    pub fn explain(self) -> &'static str {
        match self {
            StepDown::NewerTerm => "another node began a newer term",
            StepDown::QuorumLost => "no majority answered for the largest election time-out",
            StepDown::Removed => "it is no voter any more",
            StepDown::DiskFailed => "its disk failed",
            StepDown::DiskStalled => "a write to its disk is stuck",
        }
    }
}
