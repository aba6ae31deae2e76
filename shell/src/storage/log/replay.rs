//! What the records of a log amount to, replayed one by one.

use std::collections::VecDeque;

use quorate_core::raft::{Base, Entry, HardState, Index, Membership, Payload, Position, Term};

use super::format::{Checkpoint, Mark};
use super::index::Location;

/// What the records amount to.
#[derive(Default)]
pub(super) struct Replay {
    pub(super) hard_state: HardState,
    pub(super) base: Option<Base>,
    pub(super) last: Position,
    /// The first entry of each term, from `first` on.
    terms: Vec<Position>,
    memberships: Vec<(Position, Membership)>,
    tail: VecDeque<Entry>,
    tail_bytes: u64,
    tail_bytes_max: u64,
    /// The index of the first entry in `locations`.
    pub(super) first: u64,
    pub(super) locations: VecDeque<Location>,
}

impl Replay {
    pub(super) fn new(tail_bytes_max: u64) -> Replay {
        Replay {
            first: 1,
            tail_bytes_max,
            ..Replay::default()
        }
    }

    /// The term starts after the base, the first of them cut to begin there.
    pub(super) fn terms(&self) -> Vec<Position> {
        let base = self.base_index();
        let ends = self.terms.iter().skip(1).map(|next| next.index.0);
        self.terms
            .iter()
            .zip(ends.chain([self.last.index.0 + 1]))
            .filter(|(_, end)| *end > base + 1)
            .map(|(start, _)| {
                let mut start = *start;
                start.index.0 = start.index.0.max(base + 1);
                start
            })
            .collect()
    }

    /// The membership entries after the base.
    pub(super) fn memberships(&self) -> Vec<(Position, Membership)> {
        let base = self.base_index();
        self.memberships
            .iter()
            .filter(|(position, _)| position.index.0 > base)
            .cloned()
            .collect()
    }

    /// The last entries after the base.
    pub(super) fn take_tail(&mut self) -> Vec<Entry> {
        let base = self.base_index();
        let mut tail = std::mem::take(&mut self.tail);
        tail.retain(|entry| entry.position.index.0 > base);
        tail.into()
    }

    pub(super) fn base_index(&self) -> u64 {
        self.base.as_ref().map_or(0, |base| base.position.index.0)
    }

    /// What the log promises.
    pub(super) fn mark(&self) -> Mark {
        Mark {
            hard_state: self.hard_state,
            last: self.last,
        }
    }

    pub(super) fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            hard_state: self.hard_state,
            base: self.base.clone(),
            last: self.last,
        }
    }

    pub(super) fn begin_at(&mut self, checkpoint: Checkpoint) {
        self.hard_state = checkpoint.hard_state;
        self.base = checkpoint.base;
        self.forget_entries(checkpoint.last);
    }

    fn forget_entries(&mut self, last: Position) {
        self.last = last;
        self.first = last.index.0 + 1;
        self.terms.clear();
        self.memberships.clear();
        self.tail.clear();
        self.tail_bytes = 0;
        self.locations.clear();
    }

    pub(super) fn reset(&mut self, base: Base) {
        self.forget_entries(base.position);
        self.base = Some(base);
    }

    pub(super) fn purge(&mut self, base: Base) -> Result<(), String> {
        if base.position.index > self.last.index || base.position.index.0 < self.base_index() {
            return Err(format!(
                "it was purged up to {}, outside of the log from {} to {}",
                base.position,
                self.base_index(),
                self.last
            ));
        }
        self.base = Some(base);
        Ok(())
    }

    pub(super) fn entry(&mut self, entry: Entry, location: Location) -> Result<(), String> {
        let Position { term, index } = entry.position;
        if self.base.is_none() {
            return Err(format!("entry {index} stands in a log that never began"));
        }
        if index.0 > self.last.index.0 + 1 || index.0 <= self.base_index() {
            return Err(format!(
                "entry {index} does not fit into the log from {} to {}",
                self.base_index(),
                self.last
            ));
        }
        if index <= self.last.index {
            self.truncate(index.0);
        }
        if self.terms.last().is_none_or(|start| start.term != term) {
            if self.terms.last().is_some_and(|start| start.term > term) {
                return Err(format!("the term goes back to {term} at entry {index}"));
            }
            self.terms.push(entry.position);
        }
        if let Payload::Membership(membership) = &entry.payload {
            self.memberships.push((entry.position, (**membership).clone()));
        }
        self.last = entry.position;
        self.locations.push_back(location);
        self.tail_bytes += entry.size();
        self.tail.push_back(entry);
        while self.tail_bytes > self.tail_bytes_max && self.tail.len() > 1 {
            self.tail_bytes -= self.tail.pop_front().map_or(0, |entry| entry.size());
        }
        Ok(())
    }

    /// Forgets the entries from `index` on.
    fn truncate(&mut self, index: u64) {
        if index < self.first {
            self.forget_entries(Position {
                term: Term(0),
                index: Index(index - 1),
            });
            return;
        }
        self.locations
            .truncate(usize::try_from(index - self.first).expect("the entries are in memory"));
        self.terms.retain(|start| start.index.0 < index);
        self.memberships.retain(|(position, _)| position.index.0 < index);
        while self
            .tail
            .back()
            .is_some_and(|entry| entry.position.index.0 >= index)
        {
            self.tail_bytes -= self.tail.pop_back().map_or(0, |entry| entry.size());
        }
    }
}
