//! How consensus answers those who asked, and why it refuses.

use super::{BootError, ChangeError, Index, NodeId};

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
    /// Of the voters that the change leaves, fewer than a majority answer: nothing could be committed any more.
    #[error(
        "of the {voters} voters after this change only {in_touch} answer, and nothing could be written any more; start those \
         that are down or remove them first, and try again"
    )]
    MajoritySilent {
        /// How many voters there would be.
        voters: usize,
        /// How many of them have answered this leader within the largest election time-out, itself among them.
        in_touch: usize,
    },
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
