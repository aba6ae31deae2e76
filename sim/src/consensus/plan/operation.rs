//! What operators and clients do beside the usual.

use serde::{Deserialize, Serialize};

use super::{Who, duration};
use crate::consensus::schedule::Time;

/// An operator does something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Operation {
    /// When, since the run began.
    #[serde(with = "duration")]
    pub(crate) at: Time,
    /// Whom it is asked of.
    pub(crate) asked: Who,
    /// What.
    #[serde(flatten)]
    pub(crate) kind: OperationKind,
}

/// What is asked. Voters and learners are named by their places in the membership that the asked node knows, counted
/// round; what a membership has no one for becomes the nearest thing to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "operation", rename_all = "kebab-case")]
pub(crate) enum OperationKind {
    /// Hand the leadership over, to the best node or to one of those there are.
    Transfer { to: Option<u64> },
    /// Take in a learner with a machine of its own.
    AddLearner { promote: bool },
    /// Let a voter go.
    Remove { voter: u64 },
    /// Let a voter go and take in a learner, in one step.
    Replace { voter: u64, promote: bool },
    /// Make a voter a learner.
    Demote { voter: u64 },
    /// Make a learner a voter.
    Promote { learner: u64 },
    /// Make a learner a voter and let a voter go, in one step.
    PromoteAndRemove { learner: u64, voter: u64 },
    /// Make a learner a voter and a voter a learner, in one step.
    Swap { learner: u64, voter: u64 },
    /// Make all learners voters and as many voters learners as make a majority, in one step.
    ReplaceMajority { voter: u64 },
    /// Let a learner go.
    RemoveLearner { learner: u64 },
    /// Prefer a voter more or less as a leader.
    Prioritise { voter: u64, priority: u8 },
    /// Record another address of a voter.
    Update { voter: u64 },
    /// Store the state at once, so that the log can be purged up to its end.
    Compact,
    /// All nodes are lost but one with data, which is forced to start; the others come back later.
    ForceStart {
        survivor: u64,
        #[serde(with = "duration")]
        back: Time,
    },
    /// Clients ask several times as often.
    Burst {
        times: u64,
        #[serde(with = "duration")]
        duration: Time,
    },
    /// Clients ask nothing.
    Quiet {
        #[serde(with = "duration")]
        duration: Time,
    },
}
