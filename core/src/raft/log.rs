//! The log as consensus sees it: where it begins and ends, the terms and memberships in it, and its last entries.
//!
//! The whole log lives on disk with the driver; this keeps what decisions need. Older entries come back through
//! fetches. Invariants: `base <= durable <= last`; every entry that is not durable is in `tail`, which ends at
//! `last`; `terms` and `memberships` ascend.

use std::collections::VecDeque;

use super::tail::Tail;
use super::{
    Base, Boot, Entries, Entry, Index, Membership, Outline, Payload, Planted, PlantedBug, Position, Term,
};

#[derive(Clone, Debug)]
pub(super) struct Log {
    base: Base,
    /// Positions at which a term begins. The first may lie before the base.
    terms: Vec<Position>,
    memberships: VecDeque<(Position, Membership)>,
    last: Position,
    tail: Tail,
    durable: Index,
    /// The first entry that was not handed to a write.
    unwritten: Index,
    planted: Planted,
    /// What is committed, for a planted mistake.
    #[cfg(feature = "planted-bugs")]
    committed: Index,
}

impl Log {
    /// The log that `boot` tells of, which was checked.
    pub(super) fn new(boot: &Boot, planted: Planted) -> Log {
        let mut log = Log {
            base: boot.base.clone(),
            terms: boot.terms.clone(),
            memberships: boot.memberships.iter().cloned().collect(),
            last: boot.base.position,
            tail: Tail::default(),
            durable: boot.last,
            unwritten: boot.last.next(),
            planted,
            #[cfg(feature = "planted-bugs")]
            committed: boot.applied,
        };
        log.last.index = boot.last;
        log.last.term = log
            .term_at(boot.last)
            .expect("the term of the last entry is known");
        boot.tail.iter().cloned().for_each(|entry| log.tail.push(entry));
        log.tail.seal();
        log.committed(boot.applied);
        log
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
        // What is not on this disk stays in memory, however many others hold it.
        self.tail.settled(index.min(self.durable));
    }

    /// Where the membership in force stands.
    pub(super) fn membership_position(&self) -> Position {
        self.memberships
            .back()
            .map_or(self.base.position, |(position, _)| *position)
    }

    /// Where the lineage of this log begins, while entries of an earlier one are before it.
    pub(super) fn fork(&self) -> Option<Index> {
        let lineage = self.membership().lineage();
        let first = self
            .memberships
            .iter()
            .find(|(_, membership)| membership.lineage() == lineage);
        let (position, _) = first.filter(|_| self.base.membership.lineage() != lineage)?;
        Some(position.index)
    }

    /// What it looks like from afar.
    pub(super) fn outline(&self) -> Outline {
        Outline::new(self.base.position, &self.terms, self.last)
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

    /// Adds one entry of this leader's own at the end.
    pub(super) fn append(&mut self, entry: Entry) {
        self.follow_on(&entry);
        self.tail.push(entry);
    }

    /// Adds entries at the end, as they are.
    pub(super) fn append_shared(&mut self, entries: Entries) {
        for entry in &entries {
            self.follow_on(entry);
        }
        self.tail.extend(entries);
    }

    /// The log ends with `entry` from here on.
    fn follow_on(&mut self, entry: &Entry) {
        let position = entry.position;
        assert_eq!(position.index, self.last.index.next(), "an append leaves no gap");
        assert!(position.term >= self.last.term, "terms never go down along a log");
        if position.term > self.last.term || self.terms.is_empty() {
            self.terms.push(position);
        }
        if let Payload::Membership(membership) = &entry.payload {
            self.memberships.push_back((position, (**membership).clone()));
        }
        self.last = position;
    }

    /// Removes every entry from `from` on; a write that is under way for them counts no more.
    pub(super) fn truncate(&mut self, from: Index) {
        assert!(
            from > self.base.position.index,
            "what a snapshot covers is never truncated"
        );
        let before = from.previous();
        self.tail.truncate(from);
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
        self.tail.forget(index);
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

    /// Takes entries that no write carries yet, as they came; none when there are no more.
    pub(super) fn take_unwritten(&mut self) -> Entries {
        if !self.has_unwritten() {
            return Entries::default();
        }
        let entries = self.tail.joined(self.unwritten);
        self.unwritten = Index(self.unwritten.0 + entries.len() as u64);
        entries
    }

    pub(super) fn has_unwritten(&self) -> bool {
        self.unwritten <= self.last.index
    }

    /// A write that ends with the entry at `index` is on disk, when everything up to `commit` is committed.
    pub(super) fn persisted(&mut self, index: Index, commit: Index) {
        assert!(
            index <= self.last.index,
            "a write that was truncated away does not count"
        );
        self.durable = self.durable.max(index);
        self.tail.settled(commit.min(self.durable));
    }

    /// The last entries, in memory.
    pub(super) fn tail(&self) -> &Tail {
        &self.tail
    }

    /// Puts what was appended into the form in which it is shared.
    pub(super) fn seal(&mut self) {
        self.tail.seal();
    }

    /// Lets go of durable, committed entries, the oldest first, while more than `bytes_max` are in memory: the disk has
    /// them for a state machine or a follower that lags. Those that are not committed stay, since their bytes count.
    pub(super) fn shrink(&mut self, commit: Index, bytes_max: u64) {
        self.tail.shrink(commit.min(self.durable), bytes_max);
    }
}
