//! What is committed stays: the same on every node, on the disks of a majority, in the log of every later leader.

use quorate_core::raft::{Entry, Index, Membership, NodeId, Position, Term};

use super::log::content;
use super::{Verdict, demand};
use crate::consensus::log::DiskLog;

#[derive(Clone, Copy, Debug)]
struct Committed {
    term: Term,
    content: Option<u64>,
}

/// The log that was committed, as first seen on any node.
#[derive(Debug)]
pub(crate) struct CommittedLog {
    /// Whether what leaders commit is noted.
    checks: bool,
    /// The terms of what leaders have committed, whether or not a state machine was handed it.
    decided: Vec<Term>,
    /// What state machines were handed.
    entries: Vec<Committed>,
    /// The latest term that the last entry can have been committed in.
    term: Term,
}

impl CommittedLog {
    /// Nothing is committed yet.
    pub(crate) fn new(checks: bool) -> CommittedLog {
        CommittedLog {
            checks,
            decided: Vec::new(),
            entries: Vec::new(),
            term: Term::default(),
        }
    }

    /// A leader has committed up to `index`; `term_at` tells the terms of its log.
    pub(in crate::consensus) fn decided(
        &mut self,
        index: Index,
        term_at: impl Fn(Index) -> Option<Term>,
    ) -> Verdict {
        while (self.decided.len() as u64) < index.0 {
            let next = Index(self.decided.len() as u64 + 1);
            let Some(term) = term_at(next) else {
                return Err(super::Breach {
                    checker: "commits leave no gap",
                    seen: format!(
                        "a leader commits {index} without {next}, which no leader committed before"
                    ),
                });
            };
            self.decided.push(term);
        }
        Ok(())
    }

    /// A node of `term` hands `entry` to its state machine. True when no node did before.
    pub(crate) fn committed(&mut self, entry: &Entry, term: Term) -> Result<bool, super::Breach> {
        let position = entry.position;
        let seen = Committed {
            term: position.term,
            content: content(entry),
        };
        let last = self.last();
        let decided = place(position.index).and_then(|place| self.decided.get(place).copied());
        demand(
            !self.checks || decided == Some(position.term),
            "nobody commits what no leader has committed",
            || format!("{entry:?} is handed over, and at its index leaders have committed {decided:?}"),
        )?;
        match self.get(position.index) {
            Some(known) => {
                let same = known.term == seen.term && known.content == seen.content;
                demand(same, "committed entries never change", || {
                    format!("{entry:?} is committed, and {known:?} was committed at its index")
                })?;
                Ok(false)
            }
            None => {
                demand(position.index == last.next(), "commits leave no gap", || {
                    format!("{position} is committed by one node while nobody has committed beyond {last}")
                })?;
                self.entries.push(seen);
                self.term = term;
                Ok(true)
            }
        }
    }

    /// The end of a received snapshot, or of a purged log, is a committed entry.
    pub(crate) fn covers(&self, position: Position, what: &str) -> Verdict {
        let known = self.get(position.index).map(|committed| committed.term);
        demand(
            position.index == Index(0) || known == Some(position.term),
            "committed entries never change",
            || format!("{what} ends at {position}, but at that index {known:?} is committed"),
        )
    }

    /// A leader of `term` has this log: everything committed before that term is in it.
    pub(in crate::consensus) fn leader_completeness(
        &self,
        leader: NodeId,
        term: Term,
        log: &DiskLog,
    ) -> Verdict {
        if term <= self.term {
            return Ok(());
        }
        // By log matching, a log that has the last of them has all of them.
        let index = self.last().max(log.base.position.index);
        let has = log.term_at(index);
        let wanted = self.get(index).map(|committed| committed.term);
        demand(index == Index(0) || has == wanted, "leader completeness", || {
            format!(
                "{leader} leads term {term} with {has:?} at index {index}, where {wanted:?} was committed \
                 in term {} or before",
                self.term
            )
        })
    }

    /// A leader has committed `position`: each half of its membership has a majority that holds it on disk.
    pub(in crate::consensus) fn on_a_majority<'a>(
        position: Position,
        membership: &Membership,
        disk: impl Fn(NodeId) -> Option<&'a DiskLog>,
    ) -> Verdict {
        let holds = |id: &NodeId| -> bool {
            disk(*id).is_some_and(|log| {
                log.base.position.index > position.index
                    || log.term_at(position.index) == Some(position.term)
                    // It held it, and has no say in elections without it.
                    || log.repairing().is_some_and(|until| until >= position)
            })
        };
        for half in [membership.voters(), membership.outgoing()] {
            let holders = half.iter().filter(|id| holds(id)).count();
            demand(
                half.is_empty() || holders * 2 > half.len(),
                "committed entries are on the disks of a majority",
                || format!("{position} is committed, and {holders} of {half:?} hold it"),
            )?;
            let with_data = half.iter().filter(|id| !membership.is_witness(**id)).any(holds);
            demand(
                half.is_empty() || with_data,
                "committed commands are on a disk with data",
                || format!("{position} is committed, and of {half:?} only witnesses hold it"),
            )?;
        }
        Ok(())
    }

    /// A forced start in `term` begins a lineage with this log. Returns the first index from which on what was committed
    /// is lost, because the log lacks it or has something else.
    pub(in crate::consensus) fn ends_with(&mut self, log: &DiskLog, term: Term) -> Index {
        let begin = log.base.position.index.0 + 1;
        let end = self.last().0.max(self.decided.len() as u64);
        let known = |index: Index| {
            let decided = place(index).and_then(|place| self.decided.get(place).copied());
            decided.or_else(|| self.get(index).map(|committed| committed.term))
        };
        let lost = (begin..=end)
            .map(Index)
            .find(|index| log.term_at(*index) != known(*index));
        let lost = lost.unwrap_or(Index(end + 1));
        let kept = usize::try_from(lost.0 - 1).unwrap_or(usize::MAX);
        self.entries.truncate(kept);
        self.decided.truncate(kept);
        self.term = term;
        lost
    }

    /// A lineage begins with a log of which only this much is known to be committed: what was committed after it is
    /// committed again, or lost.
    pub(crate) fn ends_after(&mut self, index: Index) {
        let kept = usize::try_from(index.0).unwrap_or(usize::MAX);
        self.entries.truncate(kept);
        self.decided.truncate(kept);
    }

    /// The last committed index.
    pub(crate) fn last(&self) -> Index {
        Index(self.entries.len() as u64)
    }

    /// The latest term that the last entry can have been committed in.
    pub(crate) fn term(&self) -> Term {
        self.term
    }

    /// The term of what was committed at `index`.
    pub(in crate::consensus) fn term_at(&self, index: Index) -> Option<Term> {
        self.get(index).map(|committed| committed.term)
    }

    fn get(&self, index: Index) -> Option<Committed> {
        self.entries.get(place(index)?).copied()
    }
}

fn place(index: Index) -> Option<usize> {
    usize::try_from(index.0.checked_sub(1)?).ok()
}
