//! Leases: keys that go when their owner no longer says that it is there.
//!
//! The state knows which leases there are, for how long each was granted, and which keys are attached. It knows no
//! time: when a lease ends is decided by the leader ([`duties::Leases`](crate::duties::Leases)) and told by a command.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::NonZeroU64;
use std::ops::Bound;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::raft::Index;

/// Names a lease. Clients may choose it; it may be used again when the lease is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LeaseId(NonZeroU64);

impl LeaseId {
    /// The id of this number; 0 names no lease.
    pub const fn new(number: u64) -> Option<LeaseId> {
        match NonZeroU64::new(number) {
            Some(number) => Some(LeaseId(number)),
            None => None,
        }
    }

    /// Its number, which is not 0.
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// What was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// How long the lease lasts without a keep-alive.
    pub ttl: Duration,
    /// The entry that granted it, which tells it from an earlier lease of the same id.
    pub granted: Index,
}

/// A lease as a reader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// What was granted.
    pub grant: Grant,
    /// The keys that go with it, ascending.
    pub keys: Vec<Bytes>,
}

/// What became of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseEvent {
    /// It was granted.
    Granted(LeaseId, Grant),
    /// It was revoked, or ran out; it had been granted so.
    Gone(LeaseId, Grant),
}

/// The longest time to live: the one of etcd, about 285 years.
pub const TTL_MAX: Duration = Duration::from_secs(9_000_000_000);
/// How many leases there may be at once.
pub const LEASES_MAX: usize = 1 << 20;

/// All leases.
#[derive(Clone, Debug, Default)]
pub(super) struct LeaseTable {
    leases: BTreeMap<LeaseId, Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    grant: Grant,
    keys: BTreeSet<Bytes>,
}

impl LeaseTable {
    pub(super) fn contains(&self, lease: LeaseId) -> bool {
        self.leases.contains_key(&lease)
    }

    pub(super) fn len(&self) -> usize {
        self.leases.len()
    }

    pub(super) fn grant_of(&self, lease: LeaseId) -> Option<Grant> {
        self.leases.get(&lease).map(|entry| entry.grant)
    }

    pub(super) fn get(&self, lease: LeaseId) -> Option<Lease> {
        self.leases.get(&lease).map(|entry| Lease {
            grant: entry.grant,
            keys: entry.keys.iter().cloned().collect(),
        })
    }

    pub(super) fn grants(&self) -> impl Iterator<Item = (LeaseId, Grant)> {
        self.leases.iter().map(|(id, entry)| (*id, entry.grant))
    }

    pub(super) fn grants_after(&self, lease: Option<LeaseId>) -> impl Iterator<Item = (LeaseId, Grant)> {
        let start = lease.map_or(Bound::Unbounded, Bound::Excluded);
        let found = self.leases.range((start, Bound::Unbounded));
        found.map(|(id, entry)| (*id, entry.grant))
    }

    /// The first id from `number` on that is not taken.
    pub(super) fn free_from(&self, number: u64) -> Option<LeaseId> {
        (number.max(1)..=u64::MAX)
            .filter_map(LeaseId::new)
            .find(|id| !self.contains(*id))
    }

    pub(super) fn insert(&mut self, lease: LeaseId, grant: Grant) {
        let entry = Entry {
            grant,
            keys: BTreeSet::new(),
        };
        assert!(
            self.leases.insert(lease, entry).is_none(),
            "lease {lease} is granted once"
        );
    }

    /// The lease goes; its keys are left to the caller.
    pub(super) fn remove(&mut self, lease: LeaseId) -> Option<(Grant, BTreeSet<Bytes>)> {
        self.leases.remove(&lease).map(|entry| (entry.grant, entry.keys))
    }

    /// `key` goes with `lease` from now on. False when there is no such lease.
    pub(super) fn attach(&mut self, lease: LeaseId, key: &Bytes) -> bool {
        match self.leases.get_mut(&lease) {
            Some(entry) => {
                entry.keys.insert(key.clone());
                true
            }
            None => false,
        }
    }

    pub(super) fn detach(&mut self, lease: LeaseId, key: &[u8]) {
        if let Some(entry) = self.leases.get_mut(&lease) {
            entry.keys.remove(key);
        }
    }
}
