//! A log as a disk holds it.

use std::collections::VecDeque;

use quorate_core::raft::{
    Base, Boot, Entry, HardState, Index, Membership, NodeId, Payload, Position, Term, Write,
};

use crate::random::PartsPerMillion;

/// Hard state, base and entries.
#[derive(Clone, Debug)]
pub(super) struct DiskLog {
    pub(super) hard_state: HardState,
    pub(super) base: Base,
    /// Where the log ended, at the most, before rot took its end.
    pub(super) rotten: Option<Position>,
    entries: VecDeque<Entry>,
}

impl DiskLog {
    /// An empty log of a node that takes `membership` for the first one.
    pub(super) fn new(membership: Membership) -> DiskLog {
        DiskLog {
            hard_state: HardState::default(),
            base: Base {
                position: Position::default(),
                membership,
            },
            rotten: None,
            entries: VecDeque::new(),
        }
    }

    /// The last entry, or the base.
    pub(super) fn last(&self) -> Position {
        self.entries
            .back()
            .map_or(self.base.position, |entry| entry.position)
    }

    /// The term of the entry at `index`, or of the base.
    pub(super) fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.base.position.index {
            return Some(self.base.position.term);
        }
        self.entry(index).map(|entry| entry.position.term)
    }

    /// The entry at `index`.
    pub(super) fn entry(&self, index: Index) -> Option<&Entry> {
        let place = index.0.checked_sub(self.base.position.index.0 + 1)?;
        self.entries.get(usize::try_from(place).ok()?)
    }

    /// The last membership in the log.
    pub(super) fn membership(&self) -> &Membership {
        self.membership_at(self.last().index)
    }

    /// The membership in force at `index`.
    fn membership_at(&self, index: Index) -> &Membership {
        self.entries
            .iter()
            .rev()
            .filter(|entry| entry.position.index <= index)
            .find_map(|entry| match &entry.payload {
                Payload::Membership(membership) => Some(&**membership),
                Payload::Empty | Payload::Command(_) | Payload::Omitted => None,
            })
            .unwrap_or(&self.base.membership)
    }

    /// The last membership before `index`, and where it stands.
    pub(super) fn membership_before(&self, index: Index) -> (Index, &Membership) {
        let entries = self.entries.iter().rev();
        entries
            .filter(|entry| entry.position.index < index)
            .find_map(|entry| match &entry.payload {
                Payload::Membership(membership) => Some((entry.position.index, &**membership)),
                Payload::Empty | Payload::Command(_) | Payload::Omitted => None,
            })
            .unwrap_or((self.base.position.index, &self.base.membership))
    }

    /// Carries out a write; says what is wrong with one that makes no sense.
    pub(super) fn write(&mut self, write: &Write) -> Result<(), String> {
        if let Some(hard_state) = write.hard_state {
            self.hard_state = hard_state;
        }
        if let Some(base) = &write.reset {
            self.base = (**base).clone();
            self.entries.clear();
        }
        let Some(first) = write.entries.first().map(|entry| entry.position.index) else {
            return Ok(());
        };
        let (base, last) = (self.base.position.index, self.last().index);
        if first <= base || first > last.next() {
            return Err(format!(
                "entries from {first} on do not fit a log from {base} to {last}"
            ));
        }
        let keep = usize::try_from(first.0 - base.0 - 1).unwrap_or(usize::MAX);
        self.entries.truncate(keep);
        for entry in &write.entries {
            if entry.position.index != self.last().index.next() || entry.position.term < self.last().term {
                return Err(format!(
                    "entry {} does not follow {}",
                    entry.position,
                    self.last()
                ));
            }
            self.entries.push_back(entry.clone());
        }
        Ok(())
    }

    /// Removes everything up to and including `base`; says what is wrong with a base that makes no sense.
    pub(super) fn purge(&mut self, base: &Base) -> Result<(), String> {
        let index = base.position.index;
        if index <= self.base.position.index {
            return Ok(());
        }
        if self.term_at(index) != Some(base.position.term) {
            let (from, last) = (self.base.position, self.last());
            return Err(format!(
                "{} is no entry of a log from {from} to {last}",
                base.position
            ));
        }
        let count = usize::try_from(index.0 - self.base.position.index.0).unwrap_or(usize::MAX);
        self.entries.drain(..count);
        self.base = base.clone();
        Ok(())
    }

    /// Entries from `first` to `last`, of about so many bytes; none when they were purged.
    pub(super) fn read(&self, first: Index, last: Index, bytes_max: u64) -> Option<Vec<Entry>> {
        let mut bytes = 0;
        let mut entries = Vec::new();
        let mut index = first;
        while let Some(entry) = self.entry(index) {
            bytes += entry.size();
            if index > last || (!entries.is_empty() && bytes > bytes_max) {
                break;
            }
            entries.push(entry.clone());
            index = index.next();
        }
        (!entries.is_empty()).then_some(entries)
    }

    /// What a node that starts from this log is told.
    pub(super) fn boot(&self, id: NodeId, applied: Index, tail_length: usize) -> Boot {
        let mut terms: Vec<Position> = Vec::new();
        let mut memberships = Vec::new();
        for entry in &self.entries {
            if terms.last().is_none_or(|start| start.term < entry.position.term) {
                terms.push(entry.position);
            }
            if let Payload::Membership(membership) = &entry.payload {
                memberships.push((entry.position, (**membership).clone()));
            }
        }
        let skip = self.entries.len().saturating_sub(tail_length);
        Boot {
            id,
            hard_state: self.hard_state,
            base: self.base.clone(),
            terms,
            memberships,
            last: self.last().index,
            tail: self.entries.iter().skip(skip).cloned().collect(),
            applied,
            repair: self.repairing(),
        }
    }

    /// Where the log must end again before it is whole.
    pub(super) fn repairing(&self) -> Option<Position> {
        self.rotten.filter(|until| self.last() < *until)
    }

    /// Only the first so many parts of a million of the entries are readable; the log goes on behind a state that holds everything up to `applied` when it
    /// ends before that. When it is not known where it ended, the node enters a term in which it can have promised
    /// nothing. Returns the first index that is not readable, unless there is no entry to rot.
    pub(super) fn rot(
        &mut self,
        readable: PartsPerMillion,
        end_is_known: bool,
        applied: Position,
    ) -> Option<Index> {
        if self.entries.is_empty() {
            return None;
        }
        let kept = self.entries.len() as u64 * u64::from(readable) / 1_000_000;
        let from = Index(self.base.position.index.0 + kept + 1);
        let mut until = self.last();
        if !end_is_known {
            let term = self.hard_state.term.next();
            self.hard_state = HardState { term, vote: None };
            until = Position {
                term,
                index: Index(0),
            };
        }
        self.rotten = self.rotten.max(Some(until));
        if applied.index >= from {
            let membership = self.membership_at(applied.index).clone();
            self.entries.clear();
            self.base = Base {
                position: applied,
                membership,
            };
        } else {
            self.entries.truncate(usize::try_from(kept).unwrap_or(usize::MAX));
        }
        Some(from)
    }

    /// Forgets the last entries.
    pub(super) fn lose_entries(&mut self, count: usize) {
        let kept = self.entries.len().saturating_sub(count);
        self.entries.truncate(kept);
    }

    /// How many entries the log holds.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}
