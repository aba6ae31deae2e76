//! Progress of one node: within a run its indexes only rise, and they keep their order.

use quorate_core::raft::{HardState, Index, Status, Term};

use super::{Verdict, demand};

/// What was last seen of a run of a node.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    hard_state: HardState,
    commit: Index,
    applied: Index,
    base: Index,
}

impl Progress {
    /// A run that starts from a disk.
    pub(crate) fn starting(hard_state: HardState) -> Progress {
        Progress {
            hard_state,
            ..Progress::default()
        }
    }

    /// The commit index that was last seen.
    pub(crate) fn commit(&self) -> Index {
        self.commit
    }

    /// Up to where the log was purged when it was last seen.
    pub(crate) fn base(&self) -> Index {
        self.base
    }

    /// The term that was last seen.
    pub(crate) fn term(&self) -> Term {
        self.hard_state.term
    }

    /// A look at the node after a step.
    pub(crate) fn see(&mut self, status: &Status<'_>) -> Verdict {
        let before = *self;
        let (term, vote) = (status.term, status.vote);
        *self = Progress {
            hard_state: HardState { term, vote },
            commit: status.commit,
            applied: status.applied,
            base: status.base.position.index,
        };
        let rises = before.hard_state.term <= term
            && before.commit <= self.commit
            && before.applied <= self.applied
            && before.base <= self.base;
        demand(rises, "progress never goes back", || {
            format!("{before:?} becomes {self:?}")
        })?;
        let keeps_vote = term > before.hard_state.term
            || before
                .hard_state
                .vote
                .is_none_or(|_| vote == before.hard_state.vote);
        demand(keeps_vote, "votes never change", || {
            format!(
                "in term {term} a vote for {:?} becomes {vote:?}",
                before.hard_state.vote
            )
        })?;
        let last = status.last.index;
        let ordered = self.commit <= last
            && status.durable <= last
            && self.applied <= self.commit
            && self.base <= self.commit;
        demand(ordered, "indexes keep their order", || {
            format!("{self:?}, durable {}, last {last}", status.durable)
        })
    }
}
