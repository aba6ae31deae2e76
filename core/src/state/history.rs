//! What a key was at every revision that can still be read.

use std::collections::VecDeque;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{KeyValue, LeaseId, Revision};

/// Where a change stands among all changes: its revision, and its place among the changes of that revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) revision: Revision,
    pub(super) order: u32,
}

impl Place {
    /// Where the changes of a revision begin.
    pub(super) fn first_of(revision: Revision) -> Place {
        Place { revision, order: 0 }
    }

    /// Where the changes after a revision begin.
    pub(super) fn first_after(revision: Revision) -> Place {
        Place::first_of(revision.next())
    }
}

/// What one change made of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) place: Place,
    /// None when the change removed the key.
    pub(super) pair: Option<Pair>,
}

/// A key that exists, without the key. Its encoding is part of the format of rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pair {
    pub(super) value: Bytes,
    pub(super) create_revision: Revision,
    /// Changes since the key exists.
    pub(super) version: u64,
    pub(super) lease: Option<LeaseId>,
}

impl Version {
    /// The pair as a reader sees it, unless the key was removed. Shares the bytes.
    pub(super) fn with_key(&self, key: &Bytes) -> Option<KeyValue> {
        let pair = self.pair.as_ref()?;
        Some(KeyValue {
            key: key.clone(),
            value: pair.value.clone(),
            create_revision: pair.create_revision,
            mod_revision: self.place.revision,
            version: pair.version,
            lease: pair.lease,
        })
    }
}

/// The versions of a key, at least one, ascending. Most keys have one only, which stands by itself.
#[derive(Clone, Debug)]
pub(super) struct History {
    latest: Version,
    earlier: VecDeque<Version>,
}

impl History {
    pub(super) fn new(first: Version) -> History {
        History {
            latest: first,
            earlier: VecDeque::new(),
        }
    }

    /// A change, which comes after all others.
    pub(super) fn push(&mut self, version: Version) {
        assert!(version.place > self.latest.place, "changes come in their order");
        let replaced = std::mem::replace(&mut self.latest, version);
        self.earlier.push_back(replaced);
    }

    pub(super) fn latest(&self) -> &Version {
        &self.latest
    }

    /// What the key was at `revision`; none when it had not been changed by then.
    pub(super) fn at(&self, revision: Revision) -> Option<&Version> {
        if self.latest.place.revision <= revision {
            return Some(&self.latest);
        }
        let after = self
            .earlier
            .partition_point(|version| version.place.revision <= revision);
        self.earlier.get(after.checked_sub(1)?)
    }

    /// The oldest version.
    pub(super) fn first(&self) -> &Version {
        self.earlier.front().unwrap_or(&self.latest)
    }

    /// Forgets the oldest version. False when it is the only one, which stays.
    pub(super) fn forget_first(&mut self) -> bool {
        let forgotten = self.earlier.pop_front().is_some();
        if self.earlier.is_empty() {
            self.earlier = VecDeque::new();
        }
        forgotten
    }

    /// All versions, the latest first.
    pub(super) fn versions_back(&self) -> impl Iterator<Item = &Version> {
        std::iter::once(&self.latest).chain(self.earlier.iter().rev())
    }

    /// All versions, ascending.
    pub(super) fn versions(&self) -> impl Iterator<Item = &Version> {
        self.earlier.iter().chain(std::iter::once(&self.latest))
    }
}
