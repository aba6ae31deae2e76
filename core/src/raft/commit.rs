//! What is committed, and handing it to the state machine.
//!
//! Invariants: a leader commits by counting only entries of its own term (Raft paper, section 5.4.2, figure 8); an
//! entry is handed over once, in order, and only when it is committed and on this node's disk, so that the durable
//! state never runs ahead of the durable log; what is handed over and not applied is bounded in bytes.

use std::collections::VecDeque;

use super::quorum::reached_by_majority;
use super::role::Owed;
use super::{
    Apply, Base, Committed, Config, Entries, Entry, FetchId, FetchReason, Index, PlantedBug, Raft, Token,
};

/// How far the state machine is.
#[derive(Clone, Debug)]
pub(super) struct ApplyCursor {
    handed: Index,
    applied: Index,
    /// What is handed over and not applied: the last index and the bytes of each hand-over.
    under_way: VecDeque<(Index, u64)>,
    bytes: u64,
    fetch: Option<FetchId>,
    installing: Option<Installing>,
}

/// A snapshot replaces the state: nothing is handed over until the log has switched to it.
#[derive(Clone, Copy, Debug)]
struct Installing {
    index: Index,
    handed: bool,
}

impl ApplyCursor {
    pub(super) fn new(applied: Index) -> ApplyCursor {
        ApplyCursor {
            handed: applied,
            applied,
            under_way: VecDeque::new(),
            bytes: 0,
            fetch: None,
            installing: None,
        }
    }

    pub(super) fn handed(&self) -> Index {
        self.handed
    }

    pub(super) fn applied(&self) -> Index {
        self.applied
    }

    pub(super) fn is_installing(&self) -> bool {
        self.installing.is_some()
    }

    pub(super) fn is_full(&self, config: &Config) -> bool {
        self.bytes >= config.apply_bytes_max
    }

    /// A snapshot that ends at `index` was accepted.
    pub(super) fn begin_install(&mut self, index: Index) {
        self.installing = Some(Installing { index, handed: false });
        self.handed = index;
        self.under_way.clear();
        self.bytes = 0;
        self.fetch = None;
    }

    /// Whether the state machine is to load the snapshot at `index`, to which the log has switched.
    pub(super) fn hand_over_install(&mut self, index: Index) -> bool {
        match &mut self.installing {
            Some(installing) if installing.index == index => {
                installing.handed = true;
                true
            }
            _ => false,
        }
    }

    /// Everything up to `index` is settled, and no state takes it in.
    pub(super) fn passed(&mut self, index: Index) {
        self.handed = index;
        self.applied = index;
    }

    pub(super) fn installed(&mut self, index: Index) {
        if self
            .installing
            .is_some_and(|installing| installing.index == index && installing.handed)
        {
            self.installing = None;
            self.applied = self.applied.max(index);
        }
    }

    fn applied_to(&mut self, index: Index) {
        self.applied = self.applied.max(index);
        while self.under_way.front().is_some_and(|(last, _)| *last <= index) {
            if let Some((_, bytes)) = self.under_way.pop_front() {
                self.bytes -= bytes;
            }
        }
    }
}

impl Raft {
    /// Commits what a majority holds, when it is of this leader's term.
    pub(super) fn advance_commit(&mut self) {
        let Some(leader) = self.leading() else { return };
        let one_majority;
        let mut membership = self.log.membership();
        if membership.is_joint() && self.planted(PlantedBug::JointCommitsByOneMajority) {
            one_majority = membership.left_joint();
            membership = &one_majority;
        }
        let reached = reached_by_majority(membership, |id| {
            if id == self.id && self.planted(PlantedBug::LeaderCountsFromMemory) {
                self.log.last().index
            } else if id == self.id {
                self.log.durable()
            } else {
                leader.peers.get(&id).map_or(Index(0), |peer| peer.matched)
            }
        });
        let own_term = self.log.term_at(reached) == Some(self.hard_state.term)
            || self.planted(PlantedBug::CommitsEarlierTerm);
        if reached > self.commit && own_term {
            self.commit_to(reached);
            self.membership_committed();
        }
    }

    /// Everything up to `index` is committed.
    pub(super) fn commit_to(&mut self, index: Index) {
        assert!(
            index <= self.log.last().index,
            "only what is in the log is committed"
        );
        if index > self.commit {
            self.commit = index;
            self.log.committed(index);
        }
    }

    /// Hands committed entries to the state machine, as many as it may have under way.
    pub(super) fn hand_over_committed(&mut self) {
        if self
            .cursor
            .installing
            .is_some_and(|installing| !installing.handed)
        {
            return;
        }
        let limit = self.commit.min(self.log.durable());
        if self.config.witness {
            self.pass_over(limit);
            return;
        }
        while self.cursor.handed < limit && !self.cursor.is_full(&self.config) && self.cursor.fetch.is_none()
        {
            let first = self.cursor.handed.next();
            let bytes_max = self.config.apply_bytes_max - self.cursor.bytes;
            if self.log.tail().holds(first) {
                let (entries, bytes) = self.log.tail().piece(first, limit, bytes_max);
                self.hand_over(entries, bytes);
            } else {
                let id = self.request_fetch(first, limit, bytes_max, FetchReason::Apply);
                self.cursor.fetch = Some(id);
            }
        }
    }

    pub(super) fn fetched_to_apply(&mut self, fetch: FetchId, entries: Option<Entries>) {
        if self.cursor.fetch != Some(fetch) {
            return;
        }
        self.cursor.fetch = None;
        // Nothing is purged before it was applied, so a purged answer is of a log that a snapshot has replaced.
        let Some(entries) = entries else { return };
        let first = entries.first().map(|entry| entry.position.index);
        assert_eq!(
            first,
            Some(self.cursor.handed.next()),
            "the driver reads what it was asked"
        );
        let limit = self.commit.min(self.log.durable());
        let entries = entries.slice(0..entries.partition_point(|entry| entry.position.index <= limit));
        let bytes = entries.iter().map(Entry::size).sum();
        self.hand_over(entries, bytes);
    }

    fn hand_over(&mut self, entries: Entries, bytes: u64) {
        let Some(last) = entries.last().map(|entry| entry.position.index) else {
            return;
        };
        let tokens = self.owed_for(&entries);
        self.output
            .apply
            .push(Apply::Committed(Committed { entries, tokens }));
        self.cursor.handed = last;
        self.cursor.bytes += bytes;
        self.cursor.under_way.push_back((last, bytes));
    }

    /// The clients that wait for some of `entries`.
    fn owed_for(&mut self, entries: &Entries) -> Vec<(Index, Token)> {
        let first = entries[0].position.index;
        let is_of = |owed: &mut Owed| {
            let place = owed.position.index.0.checked_sub(first.0);
            let entry = place.and_then(|place| entries.get(usize::try_from(place).ok()?));
            entry.is_some_and(|entry| entry.position == owed.position)
        };
        let mut tokens = Vec::new();
        while let Some(owed) = self.owed.pop_front_if(is_of) {
            tokens.push((owed.position.index, owed.token));
        }
        tokens
    }

    pub(super) fn applied(&mut self, index: Index) {
        assert!(
            index <= self.cursor.handed,
            "only what was handed over can be applied"
        );
        self.cursor.applied_to(index);
    }

    /// The log has switched to a snapshot, durably: the state follows.
    pub(super) fn install(&mut self, base: Box<Base>) {
        let index = base.position.index;
        if !self.cursor.hand_over_install(index) {
            return;
        }
        if self.config.witness {
            self.cursor.installed(index);
        } else {
            self.output.apply.push(Apply::Install(base));
        }
    }
}
