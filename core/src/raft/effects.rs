//! What a driver has to do for the core.
//!
//! Each field is a lane. Lanes may run in parallel with each other; within a lane the order counts.

use super::{
    Base, BootError, ChangeError, Entries, Entry, FetchId, HardState, Index, Message, NodeId, Position,
    Quarantine, Term, Token, WriteId,
};

/// Collected by [`Raft::drain`](super::Raft::drain).
#[derive(Clone, Debug, Default)]
pub struct Effects {
    /// Messages to send. A message may be dropped, never reordered on purpose.
    pub send: Vec<(NodeId, Message)>,
    /// Writes to make durable, in order. A driver may make several durable with one sync and acknowledge the last.
    pub write: Vec<Write>,
    /// What to apply to the state machine, in order.
    pub apply: Vec<Apply>,
    /// Older entries that the core needs.
    pub fetch: Vec<Fetch>,
    /// What to do about snapshots and the purging of the log.
    pub snapshot: Vec<SnapshotOp>,
    /// Answers of consensus. A token is answered here or with the reply of its applied command, once in all.
    pub outcome: Vec<(Token, Outcome)>,
    /// What happened, for logs, metrics and checkers.
    pub trace: Vec<TraceEvent>,
}

impl Effects {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.send.is_empty()
            && self.write.is_empty()
            && self.apply.is_empty()
            && self.fetch.is_empty()
            && self.snapshot.is_empty()
            && self.outcome.is_empty()
            && self.trace.is_empty()
    }

    /// Moves everything to the end of `other`.
    pub(super) fn move_to(&mut self, other: &mut Effects) {
        move_lane(&mut self.send, &mut other.send);
        move_lane(&mut self.write, &mut other.write);
        move_lane(&mut self.apply, &mut other.apply);
        move_lane(&mut self.fetch, &mut other.fetch);
        move_lane(&mut self.snapshot, &mut other.snapshot);
        move_lane(&mut self.outcome, &mut other.outcome);
        move_lane(&mut self.trace, &mut other.trace);
    }
}

/// Moves one lane. A driver that has carried out everything gets the lane as it is, and leaves its own, with the room
/// in it, for the next one.
fn move_lane<T>(from: &mut Vec<T>, to: &mut Vec<T>) {
    if from.is_empty() {
        return;
    }
    if to.is_empty() {
        std::mem::swap(from, to);
    } else {
        to.append(from);
    }
}

/// One write to the log. After a crash all of it is there or none of it, but for its last entries: some of them may be
/// lost, the last ones first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Named in the acknowledgement.
    pub id: WriteId,
    /// The term and the vote, when they changed.
    pub hard_state: Option<HardState>,
    /// The log begins anew after an installed snapshot; everything in it is gone. Comes before `entries`.
    pub reset: Option<Box<Base>>,
    /// Entries without a gap. Whatever the log holds at or after the first one's index is replaced.
    pub entries: Entries,
}

/// One step of the state machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Apply {
    /// Apply committed entries.
    Committed(Committed),
    /// Replace the state by that of the received snapshot, then report
    /// [`SnapshotEvent::Installed`](super::SnapshotEvent::Installed).
    Install(Box<Base>),
}

/// Committed entries without a gap, and whom their replies go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The entries, at least one.
    pub entries: Entries,
    /// The requests of this node's clients among them, ascending.
    pub tokens: Vec<(Index, Token)>,
}

impl Committed {
    /// Each entry, with the request that it came from when this node took it from a client.
    pub fn iter(&self) -> impl Iterator<Item = (&Entry, Option<Token>)> {
        let mut tokens = self.tokens.iter().peekable();
        self.entries.iter().map(move |entry| {
            let token = tokens.next_if(|(index, _)| *index == entry.position.index);
            (entry, token.map(|(_, token)| *token))
        })
    }
}

/// A request for entries that are no longer in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// Named in the answer.
    pub id: FetchId,
    /// The first entry.
    pub first: Index,
    /// The last entry; fewer may be answered.
    pub last: Index,
    /// About how many bytes of entries to answer at the most, but at least one entry.
    pub bytes_max: u64,
}

/// What to do about snapshots and old log entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotOp {
    /// Send a snapshot of the applied state to a node that is too far behind, then report
    /// [`SnapshotEvent::Sent`](super::SnapshotEvent::Sent).
    Send {
        /// The receiver.
        to: NodeId,
        /// The sender's term, which the receiver needs to judge it.
        term: Term,
    },
    /// Remove the log up to and including the base. Needs no acknowledgement.
    Purge(Base),
}

/// How consensus answers a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing was appended, since this node is not the leader. The request may be repeated elsewhere.
    NotLeader {
        /// The leader to try, when one is known.
        leader: Option<NodeId>,
    },
    /// Nothing was appended, since too much is under way. The request may be repeated later.
    Busy,
    /// The command was appended and its fate is not known: it may be applied, or not, or twice if repeated.
    Unknown,
    /// A read sees everything acknowledged before it once the state machine has applied `index`.
    ReadReady {
        /// The read index.
        index: Index,
    },
    /// The operation is done; a change of the membership is committed, a new leader follows.
    Done,
    /// The operation was refused, and nothing changed.
    Refused(Refusal),
}

/// Why an operation was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The change does not fit the membership.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// The leader has not committed an entry of its own term yet, or another change is not committed; try again.
    #[error("another change is being committed; try again")]
    ChangePending,
    /// A learner that is to vote lacks too much of the log: others would wait for it.
    #[error(
        "node {learner} is not known to hold {entries} entries of the log and would hold up the others as a voter; wait \
         until it has caught up, and try again"
    )]
    LearnerBehind {
        /// The learner.
        learner: NodeId,
        /// How many entries of the leader's log its disk is not known to hold.
        entries: u64,
    },
    /// A learner that is to vote did not answer this leader for the largest election time-out.
    #[error(
        "node {0} does not answer, and would hold up the others as a voter; start it, wait until it has caught up, and try again"
    )]
    LearnerSilent(NodeId),
    /// The target of a transfer is no voter.
    #[error("node {0} is not a voter and cannot lead")]
    NotAVoter(NodeId),
    /// No voter was in reach to hand over to.
    #[error("no other voter is in reach")]
    NoTarget,
    /// The target did not take over within an election time-out; this node leads on.
    #[error("node {0} did not take over in time")]
    TransferTimedOut(NodeId),
    /// Another node than the target of a transfer was elected.
    #[error("node {0} was elected instead")]
    AnotherLeads(NodeId),
    /// A write to the target's disk is stuck.
    #[error("a write to the disk of node {0} is stuck, it cannot lead")]
    DiskStalled(NodeId),
    /// This node's disk failed.
    #[error("this node's disk failed")]
    DiskFailed,
    /// The target of a transfer is a witness.
    #[error("node {0} is a witness and cannot lead")]
    Witness(NodeId),
    /// This node does not fit into the cluster.
    #[error(transparent)]
    Unfit(BootError),
    /// This node was set aside.
    #[error("this node was set aside, since it has entries that the cluster does not have")]
    Quarantined,
}

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

#[cfg(test)]
mod tests {
    use super::super::Input;
    use super::*;

    /// Each is moved several times for every command. What is hardly ever there, such as the base of a log, is behind a
    /// pointer: by value, it makes copying a quarter of the work for single commands.
    #[test]
    fn what_is_moved_for_every_command_is_small() {
        assert!(size_of::<(NodeId, Message)>() <= 72);
        assert!(size_of::<Input>() <= 72);
        assert!(size_of::<Write>() <= 64);
        assert!(size_of::<Apply>() <= 48);
        assert!(size_of::<(Token, Outcome)>() <= 32);
        assert!(size_of::<TraceEvent>() <= 32);
    }
}
