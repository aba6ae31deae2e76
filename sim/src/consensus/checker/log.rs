//! Log matching: two logs with an entry at the same position agree on it and on everything before.
//!
//! Every written entry is noted with the term of its predecessor. When each position has one content and one
//! predecessor, equal positions have equal prefixes by induction.

use quorate_core::raft::{Entry, Index, Payload, Term, Write};

use super::{Breach, Verdict, demand};
use crate::consensus::log::DiskLog;
use crate::consensus::trace::hash;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    term: Term,
    /// None from a witness, whose log does without it.
    content: Option<u64>,
    predecessor: Option<Term>,
}

impl Known {
    /// Whether two logs that have this and `other` at one index agree.
    fn agrees(&self, other: &Known) -> bool {
        let same = match (self.content, other.content) {
            (Some(one), Some(another)) => one == another,
            _ => true,
        };
        same && self.term == other.term && self.predecessor == other.predecessor
    }
}

/// Every entry that was ever written by anyone, by index.
#[derive(Debug, Default)]
pub(in crate::consensus) struct Entries {
    known: Vec<Vec<Known>>,
}

impl Entries {
    /// A node writes entries to its log, which is `before` so far.
    pub(in crate::consensus) fn written(
        &mut self,
        write: &Write,
        before: &DiskLog,
        own_term: Option<Term>,
    ) -> Verdict {
        let Some(first) = write.entries.first() else {
            return Ok(());
        };
        let start = first.position.index.previous();
        let mut predecessor = match &write.reset {
            Some(base) => (base.position.index == start).then_some(base.position.term),
            None => before.term_at(start),
        };
        if write.reset.is_none() {
            // A leader never overwrites or deletes entries in its log, it only appends.
            let overwritten = before.term_at(first.position.index);
            demand(
                overwritten.is_none() || overwritten != own_term,
                "leader append-only",
                || {
                    format!(
                        "the leader of term {own_term:?} overwrites its entry {}",
                        first.position
                    )
                },
            )?;
        }
        for entry in &write.entries {
            self.check(entry, predecessor)?;
            predecessor = Some(entry.position.term);
        }
        Ok(())
    }

    /// A forced start begins a lineage after `last`, which may write at positions that the one before used.
    pub(in crate::consensus) fn end_after(&mut self, last: Index) {
        self.known.truncate(place(last) + 1);
    }

    fn check(&mut self, entry: &Entry, predecessor: Option<Term>) -> Verdict {
        let position = entry.position;
        let place = place(position.index);
        if self.known.len() <= place {
            self.known.resize_with(place + 1, Vec::new);
        }
        let seen = Known {
            term: position.term,
            content: content(entry),
            predecessor,
        };
        let mut known = self.known[place].iter_mut();
        match known.find(|known| known.term == position.term) {
            Some(known) if known.agrees(&seen) => {
                known.content = known.content.or(seen.content);
                Ok(())
            }
            Some(known) => Err(Breach {
                checker: "log matching",
                seen: format!("entry {position} is {seen:?} here and {known:?} elsewhere: {entry:?}"),
            }),
            None => {
                self.known[place].push(seen);
                Ok(())
            }
        }
    }
}

fn place(index: Index) -> usize {
    usize::try_from(index.0).expect("a run has few entries")
}

/// A hash of what an entry says; none when that is left out.
pub(super) fn content(entry: &Entry) -> Option<u64> {
    match &entry.payload {
        Payload::Empty => Some(1),
        Payload::Command(command) => Some(hash(2, command)),
        Payload::Membership(membership) => Some(hash(3, format!("{membership:?}").as_bytes())),
        Payload::Omitted => None,
    }
}
