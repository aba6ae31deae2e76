//! What a key was at every revision that can still be read.
//!
//! Most keys have one version only. So a map of keys has that as its key, and what came later, which is mostly nothing, as
//! its value.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};

use super::Revision;
use super::version::Version;

/// Keys with their versions.
pub(super) type Histories = BTreeMap<First, Later>;

/// The oldest version of a key that is kept. It stands for the key, and compares like it.
#[derive(Clone, Debug)]
pub(super) struct First(Version);

impl Borrow<[u8]> for First {
    fn borrow(&self) -> &[u8] {
        self.0.key()
    }
}

impl PartialEq for First {
    fn eq(&self, other: &First) -> bool {
        self.0.key() == other.0.key()
    }
}

impl Eq for First {}

impl PartialOrd for First {
    fn partial_cmp(&self, other: &First) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for First {
    fn cmp(&self, other: &First) -> Ordering {
        self.0.key().cmp(other.0.key())
    }
}

/// The versions after the first one, ascending.
#[derive(Clone, Debug, Default)]
#[expect(
    clippy::box_collection,
    reason = "most keys have nothing here, which takes 8 bytes instead of 32"
)]
pub(super) struct Later(Option<Box<VecDeque<Version>>>);

impl Later {
    fn pop_first(&mut self) -> Option<Version> {
        let version = self.0.as_mut()?.pop_front();
        if self.0.as_ref().is_some_and(|versions| versions.is_empty()) {
            self.0 = None;
        }
        version
    }
}

/// The versions of a key, at least one, ascending.
#[derive(Clone, Copy, Debug)]
pub(super) struct History<'a> {
    first: &'a Version,
    later: &'a Later,
}

impl<'a> History<'a> {
    pub(super) fn of(entry: (&'a First, &'a Later)) -> History<'a> {
        let (First(first), later) = entry;
        History { first, later }
    }

    /// The history of a key, if there is one.
    pub(super) fn find(histories: &'a Histories, key: &[u8]) -> Option<History<'a>> {
        histories.get_key_value(key).map(History::of)
    }

    /// The oldest version.
    pub(super) fn first(self) -> &'a Version {
        self.first
    }

    pub(super) fn latest(self) -> &'a Version {
        self.later().last().unwrap_or(self.first)
    }

    /// What the key was at `revision`; none when it had not been changed by then.
    pub(super) fn at(self, revision: Revision) -> Option<&'a Version> {
        let latest = self.latest();
        if latest.revision() <= revision {
            return Some(latest);
        }
        let Later(Some(later)) = self.later else {
            return None;
        };
        let after = later.partition_point(|version| version.revision() <= revision);
        match after.checked_sub(1) {
            Some(place) => later.get(place),
            None => (self.first.revision() <= revision).then_some(self.first),
        }
    }

    fn later(self) -> impl DoubleEndedIterator<Item = &'a Version> {
        self.later.0.iter().flat_map(|versions| versions.iter())
    }

    /// All versions, ascending.
    pub(super) fn versions(self) -> impl DoubleEndedIterator<Item = &'a Version> {
        std::iter::once(self.first).chain(self.later())
    }
}

/// Adds a version of a key, which comes after all others of it.
pub(super) fn push(histories: &mut Histories, version: Version) {
    let mut entry = match histories.entry(First(version.clone())) {
        Entry::Vacant(entry) => {
            entry.insert(Later::default());
            return;
        }
        Entry::Occupied(entry) => entry,
    };
    let first = entry.key().0.place();
    let later = entry.get_mut().0.get_or_insert_default();
    let latest = later.back().map_or(first, Version::place);
    assert!(version.place() > latest, "changes come in their order");
    later.push_back(version);
}

/// Forgets the oldest version of a key, and the key with its last one.
pub(super) fn forget_first(histories: &mut Histories, key: &[u8]) {
    if let Some(mut later) = histories.remove(key)
        && let Some(first) = later.pop_first()
    {
        histories.insert(First(first), later);
    }
}
