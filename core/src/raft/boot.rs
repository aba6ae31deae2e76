//! What a node knows of itself when it starts.

use thiserror::Error;

use super::{Base, Entry, FeatureLevel, HardState, Index, Membership, NodeId, Position};

/// The durable state of a node, as its log recovered it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot {
    /// Who this node is.
    pub id: NodeId,
    /// Its term and vote.
    pub hard_state: HardState,
    /// Where its log begins.
    pub base: Base,
    /// The position of the first entry of each term in the log, ascending.
    pub terms: Vec<Position>,
    /// Every membership entry in the log, ascending.
    pub memberships: Vec<(Position, Membership)>,
    /// The last index of the log; the base's when the log is empty.
    pub last: Index,
    /// The last entries of the log, up to `last`, without a gap; as many as shall be kept in memory.
    pub tail: Vec<Entry>,
    /// The last index that the state machine holds.
    pub applied: Index,
    /// Where the log ended, at the most, before its end was lost to damage; none when it is whole. Until the log
    /// reaches that position again, the node takes part in no election. The term and vote must be those that it had.
    pub repair: Option<Position>,
}

impl Boot {
    /// A node that begins with an empty log, in the part that `membership` gives it.
    pub fn blank(id: NodeId, membership: Membership) -> Boot {
        Boot {
            id,
            hard_state: HardState::default(),
            base: Base {
                position: Position::default(),
                membership,
            },
            terms: Vec::new(),
            memberships: Vec::new(),
            last: Index::default(),
            tail: Vec::new(),
            applied: Index::default(),
            repair: None,
        }
    }
}

/// Why a node cannot start from what it knows.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BootError {
    /// The state machine holds more than the log.
    #[error(
        "the state holds everything up to index {applied}, but the log ends at {last}: the log lost entries"
    )]
    StateAheadOfLog {
        /// What the state machine holds.
        applied: Index,
        /// Where the log ends.
        last: Index,
    },
    /// The log was purged beyond what the state machine holds.
    #[error("the log begins after index {base}, but the state ends at {applied}: the state lost changes")]
    StateBehindLog {
        /// What the state machine holds.
        applied: Index,
        /// The last purged index.
        base: Index,
    },
    /// The log was written by a cluster that uses features which this binary lacks.
    #[error(
        "the cluster uses features of level {needed} and this binary supports level {supported}: start a newer binary"
    )]
    FeaturesLacking {
        /// The highest level in the log.
        needed: FeatureLevel,
        /// What this binary supports.
        supported: FeatureLevel,
    },
    /// The cluster knows this node as a witness and it was started as none, or the other way round.
    #[error(
        "the cluster knows this node as {}, and it was started as {}: what a node is never changes; remove it from \
         the cluster and let it join with an empty data directory",
        part(*.recorded), part(!*.recorded)
    )]
    OtherPart {
        /// Whether the cluster knows it as a witness.
        recorded: bool,
    },
    /// The parts contradict each other.
    #[error("the recovered log contradicts itself: {0}")]
    Inconsistent(&'static str),
    /// A setting makes no sense.
    #[error("the configuration of consensus makes no sense: {0}")]
    Configuration(&'static str),
}

fn part(witness: bool) -> &'static str {
    if witness {
        "a witness"
    } else {
        "one that holds data"
    }
}
