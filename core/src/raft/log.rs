//! The log as consensus sees it: where it begins and ends, the terms and memberships in it, and its last entries.
//!
//! The whole log lives on disk with the driver; this keeps what decisions need. Older entries come back through
//! fetches. Invariants: `base <= durable <= last`; every entry that is not durable is in `tail`; `tail` ends at
//! `last`; `terms` and `memberships` ascend.

use std::collections::VecDeque;

use super::{Base, Boot, BootError, Entry, Index, Membership, Payload, Planted, PlantedBug, Position, Term};

#[derive(Clone, Debug)]
struct Cached {
    entry: Entry,
    /// Bytes of all entries that were ever cached up to and including this one: differences give sizes of ranges.
    end: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Log {
    base: Base,
    /// Positions at which a term begins. The first may lie before the base.
    terms: Vec<Position>,
    memberships: VecDeque<(Position, Membership)>,
    last: Position,
    tail: VecDeque<Cached>,
    /// Bytes that were ever cached, up to the entry before the tail.
    tail_start: u64,
    durable: Index,
    /// The first entry that was not handed to a write.
    unwritten: Index,
    planted: Planted,
    /// What is committed, for a planted mistake.
    #[cfg(feature = "planted-bugs")]
    committed: Index,
}

impl Log {
    pub(super) fn new(boot: &Boot, planted: Planted) -> Result<Log, BootError> {
        let wrong = |reason| Err(BootError::Inconsistent(reason));
        if boot.last < boot.base.position.index {
            return wrong("the log ends before its base");
        }
        if boot
            .terms
            .windows(2)
            .any(|pair| pair[0] >= pair[1] || pair[0].index >= pair[1].index)
        {
            return wrong("terms do not ascend");
        }
        let mut log = Log {
            base: boot.base.clone(),
            terms: boot.terms.clone(),
            memberships: boot.memberships.iter().cloned().collect(),
            last: boot.base.position,
            tail: VecDeque::new(),
            tail_start: 0,
            durable: boot.last,
            unwritten: boot.last.next(),
            planted,
            #[cfg(feature = "planted-bugs")]
            committed: boot.applied,
        };
        log.last.index = boot.last;
        match log.term_at(boot.last) {
            Some(term) => log.last.term = term,
            None => return wrong("the term of the last entry is not known"),
        }
        for entry in &boot.tail {
            if log
                .tail
                .back()
                .is_some_and(|before| before.entry.position.index.next() != entry.position.index)
            {
                return wrong("the last entries have a gap");
            }
            if log.term_at(entry.position.index) != Some(entry.position.term) {
                return wrong("an entry is not of the term that the log has at its index");
            }
            log.cache(entry.clone());
        }
        if log.tail.back().is_some_and(|end| end.entry.position != log.last) {
            return wrong("the last entries do not reach the end of the log");
        }
        Ok(log)
    }

    pub(super) fn base(&self) -> &Base {
        &self.base
    }

    pub(super) fn last(&self) -> Position {
        self.last
    }

    /// The last entry that this node's disk holds.
    pub(super) fn durable(&self) -> Index {
        self.durable
    }

    /// The end of what this node's disk holds.
    pub(super) fn durable_position(&self) -> Position {
        let term = self.term_at(self.durable);
        Position {
            term: term.expect("what is durable is in the log"),
            index: self.durable,
        }
    }

    /// The membership in force: the last one in the log, committed or not (Raft dissertation, section 4.1).
    pub(super) fn membership(&self) -> &Membership {
        #[cfg(feature = "planted-bugs")]
        if self.planted.is(PlantedBug::MembershipInForceWhenCommitted) {
            return self.membership_at(self.committed);
        }
        self.memberships
            .back()
            .map_or(&self.base.membership, |(_, membership)| membership)
    }

    /// Everything up to `index` is committed.
    pub(super) fn committed(&mut self, index: Index) {
        #[cfg(feature = "planted-bugs")]
        {
            self.committed = index;
        }
        let _ = index;
    }

    /// Where the membership in force stands.
    pub(super) fn membership_position(&self) -> Position {
        self.memberships
            .back()
            .map_or(self.base.position, |(position, _)| *position)
    }

    /// The term of the entry at `index`; none before the base and after the end.
    pub(super) fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.base.position.index {
            return Some(self.base.position.term);
        }
        if index < self.base.position.index || index > self.last.index {
            return None;
        }
        let after = self.terms.partition_point(|start| start.index <= index);
        after.checked_sub(1).map(|run| self.terms[run].term)
    }

    /// The last position at or before `hint` where a log that has `hint` may agree with this one: the last entry not
    /// beyond its index and not of a later term. The base when there is none after it.
    pub(super) fn last_possible_match(&self, hint: Position) -> Position {
        let mut index = hint.index.min(self.last.index);
        while index > self.base.position.index {
            let run = self.terms.partition_point(|start| start.index <= index) - 1;
            let start = self.terms[run];
            if start.term <= hint.term {
                return Position {
                    term: start.term,
                    index,
                };
            }
            index = start.index.previous();
        }
        self.base.position
    }

    /// Adds one entry at the end.
    pub(super) fn append(&mut self, entry: Entry) {
        let position = entry.position;
        assert_eq!(position.index, self.last.index.next(), "an append leaves no gap");
        assert!(position.term >= self.last.term, "terms never go down along a log");
        if position.term > self.last.term || self.terms.is_empty() {
            self.terms.push(position);
        }
        if let Payload::Membership(membership) = &entry.payload {
            self.memberships.push_back((position, membership.clone()));
        }
        self.last = position;
        self.cache(entry);
    }

    /// Removes every entry from `from` on; a write that is under way for them counts no more.
    pub(super) fn truncate(&mut self, from: Index) {
        assert!(
            from > self.base.position.index,
            "what a snapshot covers is never truncated"
        );
        let before = from.previous();
        while self
            .tail
            .back()
            .is_some_and(|cached| cached.entry.position.index >= from)
        {
            self.tail.pop_back();
        }
        self.terms.retain(|start| start.index < from);
        if !self.planted.is(PlantedBug::TruncationKeepsMembership) {
            self.memberships.retain(|(position, _)| position.index < from);
        }
        let term = if before == self.base.position.index {
            self.base.position.term
        } else {
            self.terms
                .last()
                .map_or(self.base.position.term, |start| start.term)
        };
        self.last = Position { term, index: before };
        self.durable = self.durable.min(before);
        if !self.planted.is(PlantedBug::TruncationIsNotRewritten) {
            self.unwritten = self.unwritten.min(from);
        }
    }

    /// Begins anew after a snapshot.
    pub(super) fn reset(&mut self, base: Base) {
        self.tail_start = self.tail.back().map_or(self.tail_start, |cached| cached.end);
        self.tail.clear();
        self.terms.clear();
        let kept = self
            .planted
            .is(PlantedBug::InstallKeepsMembership)
            .then(|| self.membership().clone());
        self.memberships.clear();
        self.last = base.position;
        self.durable = base.position.index;
        self.unwritten = base.position.index.next();
        self.base = base;
        if let Some(membership) = kept {
            self.base.membership = membership;
        }
    }

    /// Forgets everything up to and including `index`, and returns the new base.
    pub(super) fn purge(&mut self, index: Index) -> Base {
        assert!(index <= self.durable, "only durable entries are purged");
        let term = self
            .term_at(index)
            .expect("an entry that is purged is in the log");
        while self
            .memberships
            .front()
            .is_some_and(|(position, _)| position.index <= index)
        {
            let (_, membership) = self.memberships.pop_front().expect("checked above");
            self.base.membership = membership;
        }
        self.base.position = Position { term, index };
        let runs_before = self
            .terms
            .partition_point(|start| start.index <= index.next())
            .saturating_sub(1);
        self.terms.drain(..runs_before);
        while self
            .tail
            .front()
            .is_some_and(|cached| cached.entry.position.index <= index)
        {
            self.forget_first();
        }
        self.base.clone()
    }

    /// The membership in force at `index`, which is at or after the base.
    pub(super) fn membership_at(&self, index: Index) -> &Membership {
        let before = self
            .memberships
            .partition_point(|(position, _)| position.index <= index);
        before
            .checked_sub(1)
            .map_or(&self.base.membership, |place| &self.memberships[place].1)
    }

    /// Takes the entries that no write carries yet.
    pub(super) fn take_unwritten(&mut self) -> Vec<Entry> {
        let first = self.unwritten;
        self.unwritten = self.last.index.next();
        if first > self.last.index {
            Vec::new()
        } else {
            self.cached(first, self.last.index, u64::MAX)
        }
    }

    pub(super) fn has_unwritten(&self) -> bool {
        self.unwritten <= self.last.index
    }

    pub(super) fn persisted(&mut self, index: Index) {
        assert!(
            index <= self.last.index,
            "a write that was truncated away does not count"
        );
        self.durable = self.durable.max(index);
    }

    /// Whether the entry at `index` is in memory.
    pub(super) fn holds(&self, index: Index) -> bool {
        self.tail
            .front()
            .is_some_and(|first| first.entry.position.index <= index)
            && index <= self.last.index
    }

    /// Cached entries from `first` to at most `last`: as many as fit into `bytes_max`, but at least one.
    pub(super) fn cached(&self, first: Index, last: Index, bytes_max: u64) -> Vec<Entry> {
        assert!(self.holds(first), "the range begins in memory");
        let offset = self.offset(first);
        let count = usize::try_from(last.min(self.last.index).0 + 1 - first.0).unwrap_or(usize::MAX);
        let available = self.tail.range(offset..).take(count);
        let before = self.tail[offset].end - self.tail[offset].entry.size();
        let fitting = available
            .clone()
            .take_while(|cached| cached.end - before <= bytes_max)
            .count();
        available
            .take(fitting.max(1))
            .map(|cached| cached.entry.clone())
            .collect()
    }

    /// Bytes of the cached entries after `index`.
    pub(super) fn bytes_after(&self, index: Index) -> u64 {
        let Some(end) = self.tail.back().map(|cached| cached.end) else {
            return 0;
        };
        let start = if index >= self.last.index {
            end
        } else if self.holds(index) {
            self.tail[self.offset(index)].end
        } else {
            self.tail_start
        };
        end - start
    }

    /// Lets go of durable, committed entries, the oldest first, while more than `bytes_max` are cached: the disk has
    /// them for a state machine or a follower that lags. Those that are not committed stay, since their bytes count.
    pub(super) fn shrink(&mut self, commit: Index, bytes_max: u64) {
        let index = commit.min(self.durable);
        while self.tail.back().map_or(self.tail_start, |cached| cached.end) - self.tail_start > bytes_max
            && self
                .tail
                .front()
                .is_some_and(|cached| cached.entry.position.index <= index)
        {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some(cached) = self.tail.pop_front() {
            self.tail_start = cached.end;
        }
    }

    fn cache(&mut self, entry: Entry) {
        let end = self.tail.back().map_or(self.tail_start, |cached| cached.end) + entry.size();
        self.tail.push_back(Cached { entry, end });
    }

    fn offset(&self, index: Index) -> usize {
        let first = self
            .tail
            .front()
            .expect("the caller checked")
            .entry
            .position
            .index;
        usize::try_from(index.0 - first.0).unwrap_or(usize::MAX)
    }
}
