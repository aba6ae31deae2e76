//! The key space: what every key was at every revision that can still be read, in each [`Space`].
//!
//! Invariants: `scavenged <= compacted <= revision`; the versions with a revision above `scavenged` are exactly
//! `changes`, in order; of a revision up to `scavenged` a key has at most one version, and that one did not remove it;
//! every key has at least one version; `live` counts the keys that exist in each space, and `bytes` what all versions take.

use std::collections::VecDeque;
use std::ops::Bound;

use bytes::Bytes;

use super::history::{self, Histories, History};
use super::row::Row;
use super::space::Space;
use super::version::{Pair, Place, Version};
use super::{Event, Found, KeyRange, KeyValue, LeaseId, Query, ReadError, Revision};

/// Superseded versions that a compaction removes at once; the rest goes with the commands after it.
const SCAVENGED_BY_COMPACTION: usize = 10_000;
/// Superseded versions that any other command removes: more than most commands make.
const SCAVENGED_BY_COMMAND: usize = 16;

/// All keys.
#[derive(Clone, Debug, Default)]
pub(super) struct KeySpace {
    spaces: [Histories; Space::COUNT],
    /// All versions of all keys, ascending; what was scavenged is left out.
    changes: VecDeque<Version>,
    live: [usize; Space::COUNT],
    bytes: u64,
    counters: Counters,
}

/// How far the key space is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    /// The last change.
    pub(super) revision: Revision,
    /// The oldest revision that can be read.
    pub(super) compacted: Revision,
    /// Up to where superseded versions were removed.
    pub(super) scavenged: Revision,
}

/// A change that is being made: all that one command does to keys.
#[derive(Debug)]
pub(super) struct Change {
    /// Its revision; the state's own when nothing was changed.
    revision: Revision,
    changes: u32,
    pub(super) rows: Vec<Row>,
}

impl Change {
    pub(super) fn is_empty(&self) -> bool {
        self.changes == 0
    }

    /// The revision that what is changed gets.
    pub(super) fn revision(&self) -> Revision {
        self.revision
    }

    fn next_place(&mut self) -> Place {
        let order = self.changes;
        self.changes += 1;
        Place {
            revision: self.revision,
            order,
        }
    }
}

impl KeySpace {
    pub(super) fn counters(&self) -> Counters {
        self.counters
    }

    pub(super) fn revision(&self) -> Revision {
        self.counters.revision
    }

    /// How many keys exist in a space.
    pub(super) fn live(&self, space: Space) -> usize {
        self.live[space.number()]
    }

    /// What all versions take in memory, about.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many changes wait to be looked at for superseded versions, although they are compacted.
    pub(super) fn backlog(&self) -> usize {
        let compacted = self.counters.compacted;
        self.changes
            .partition_point(|version| version.revision() <= compacted)
    }

    pub(super) fn begin(&self) -> Change {
        Change {
            revision: self.counters.revision.next(),
            changes: 0,
            rows: Vec::new(),
        }
    }

    /// Ends a change, and returns its rows.
    pub(super) fn end(&mut self, change: Change) -> Vec<Row> {
        if !change.is_empty() {
            self.counters.revision = change.revision;
        }
        change.rows
    }

    /// What a key is, if it exists.
    pub(super) fn get(&self, space: Space, key: &[u8]) -> Option<KeyValue> {
        self.latest(space, key)?.key_value()
    }

    /// The pair of a key that exists.
    pub(super) fn pair(&self, space: Space, key: &[u8]) -> Option<Pair<'_>> {
        self.latest(space, key)?.pair()
    }

    fn latest(&self, space: Space, key: &[u8]) -> Option<&Version> {
        History::find(&self.spaces[space.number()], key).map(History::latest)
    }

    /// Gives a key a value; returns what it was.
    pub(super) fn put(
        &mut self,
        change: &mut Change,
        space: Space,
        key: &[u8],
        value: &[u8],
        lease: Option<LeaseId>,
    ) -> Option<KeyValue> {
        let place = change.next_place();
        let before = self.latest(space, key);
        let pair = match before.and_then(Version::pair) {
            Some(pair) => Pair {
                value,
                lease,
                create_revision: pair.create_revision,
                version: pair.version + 1,
            },
            None => Pair::first(value, place.revision, lease),
        };
        let previous = before.and_then(Version::key_value);
        self.live[space.number()] += usize::from(previous.is_none());
        self.add(change, Version::new(place, space, key, Some(pair)));
        previous
    }

    fn add(&mut self, change: &mut Change, version: Version) {
        change.rows.push(Row::version(&version));
        self.bytes += version.size();
        self.changes.push_back(version.clone());
        history::push(&mut self.spaces[version.space().number()], version);
    }

    /// Removes a key; returns what it was, if it existed.
    pub(super) fn delete(&mut self, change: &mut Change, space: Space, key: &[u8]) -> Option<KeyValue> {
        let previous = self.get(space, key)?;
        let place = change.next_place();
        self.live[space.number()] -= 1;
        self.add(change, Version::new(place, space, key, None));
        Some(previous)
    }

    /// The keys of a range that exist.
    pub(super) fn keys_in(&self, space: Space, range: &KeyRange) -> Vec<Bytes> {
        self.histories(space, range)
            .map(History::latest)
            .filter(|version| version.exists())
            .map(Version::key_bytes)
            .collect()
    }

    /// The keys of a range as they are now. Shares the bytes.
    pub(super) fn pairs_in(&self, space: Space, range: &KeyRange) -> impl Iterator<Item = KeyValue> {
        self.histories(space, range)
            .filter_map(|history| history.latest().key_value())
    }

    /// The keys of a space after one, or all, as they are now. Shares the bytes.
    pub(super) fn pairs_after(&self, space: Space, key: Option<&[u8]>) -> impl Iterator<Item = KeyValue> {
        let start = key.map_or(Bound::Unbounded, Bound::Excluded);
        self.spaces[space.number()]
            .range::<[u8], _>((start, Bound::Unbounded))
            .filter_map(|entry| History::of(entry).latest().key_value())
    }

    /// Reads, and answers about `bytes_max` bytes.
    pub(super) fn read(&self, space: Space, query: &Query, bytes_max: usize) -> Result<Found, ReadError> {
        let histories = self.histories(space, &query.range);
        let Some(revision) = query.revision else {
            let versions = histories.map(History::latest);
            return Ok(query.choose(versions.filter(|version| version.exists()), bytes_max));
        };
        self.check_readable(revision)?;
        let versions = histories.filter_map(|history| history.at(revision));
        Ok(query.choose(versions.filter(|version| version.exists()), bytes_max))
    }

    /// What a key was at the revisions that can be read, the latest first; none where it was removed.
    pub(super) fn versions_of<'a>(
        &'a self,
        space: Space,
        key: &[u8],
    ) -> impl Iterator<Item = &'a Version> + use<'a> {
        let compacted = self.counters.compacted;
        let history = History::find(&self.spaces[space.number()], key);
        let mut ended = false;
        history
            .into_iter()
            .flat_map(|history| history.versions().rev())
            .take_while(move |version| {
                // What a key was at the compacted revision may be older than that, unless it was removed by then.
                if ended {
                    return false;
                }
                ended = version.revision() <= compacted;
                version.exists() || !ended
            })
    }

    /// Whether it is known what the keys were at `revision`.
    pub(super) fn check_readable(&self, revision: Revision) -> Result<(), ReadError> {
        let Counters {
            revision: latest,
            compacted: oldest,
            ..
        } = self.counters;
        if revision > latest {
            Err(ReadError::Future { revision, latest })
        } else if revision < oldest {
            Err(ReadError::Compacted { revision, oldest })
        } else {
            Ok(())
        }
    }

    fn histories(&self, space: Space, range: &KeyRange) -> impl Iterator<Item = History<'_>> {
        let keys = &self.spaces[space.number()];
        range
            .bounds()
            .into_iter()
            .flat_map(|bounds| keys.range::<[u8], _>(bounds))
            .map(History::of)
    }

    /// The changes from a place on that are still known, ascending.
    pub(super) fn changes_from(&self, from: Place) -> impl Iterator<Item = &Version> {
        let first = self.changes.partition_point(|version| version.place() < from);
        self.changes.range(first..)
    }

    /// The changes of the latest revision or one that is not compacted.
    pub(super) fn changes_of(&self, revision: Revision) -> impl Iterator<Item = &Version> {
        self.changes_from(Place::first_of(revision))
            .take_while(move |version| version.revision() == revision)
    }

    /// What a change that is not compacted did. Shares the bytes.
    pub(super) fn event(&self, version: &Version) -> Event {
        let Place { revision, order } = version.place();
        assert!(
            revision > self.counters.compacted,
            "what was before a compacted change is not known"
        );
        let space = version.space();
        let history = History::find(&self.spaces[space.number()], version.key());
        let history = history.expect("a key that changed has a version");
        let before = history.at(Revision(revision.0 - 1));
        Event {
            revision,
            order,
            space,
            key: version.key_bytes(),
            current: version.key_value(),
            previous: before.and_then(Version::key_value),
        }
    }

    /// Forgets what keys were before `revision`.
    pub(super) fn compact(&mut self, revision: Revision) -> Result<(), ReadError> {
        if revision <= self.counters.compacted {
            let oldest = self.counters.compacted;
            return Err(ReadError::Compacted { revision, oldest });
        }
        self.check_readable(revision)?;
        self.counters.compacted = revision;
        Ok(())
    }

    /// Removes versions that are compacted and superseded: many for a compaction, a few otherwise, so that no command
    /// takes long.
    pub(super) fn scavenge(&mut self, compaction: bool, rows: &mut Vec<Row>) {
        let counters = self.counters;
        if counters.scavenged == counters.compacted {
            return;
        }
        let most = if compaction {
            SCAVENGED_BY_COMPACTION
        } else {
            SCAVENGED_BY_COMMAND
        };
        let mut looked_at = 0;
        // All changes of a revision go together.
        while let Some(revision) = self.changes.front().map(Version::revision)
            && revision <= counters.compacted
        {
            if looked_at >= most {
                return;
            }
            while let Some(version) = self
                .changes
                .pop_front_if(|version| version.revision() == revision)
            {
                self.drop_superseded(&version, rows);
                looked_at += 1;
            }
            self.counters.scavenged = revision;
        }
        self.counters.scavenged = counters.compacted;
    }

    /// Removes what a compacted change superseded, and the change itself when it removed the key.
    fn drop_superseded(&mut self, version: &Version, rows: &mut Vec<Row>) {
        let (place, space) = (version.place(), version.space());
        let history = History::find(&self.spaces[space.number()], version.key());
        let history = history.expect("a key that changed has a version");
        let mut first = history.first().clone();
        if first.place() < place {
            let second = history.versions().nth(1).cloned();
            self.forget(&first, rows);
            first = second.expect("what comes after an older version is there");
        }
        assert!(
            first.place() == place,
            "a change supersedes one version that is still kept"
        );
        if !first.exists() {
            self.forget(&first, rows);
        }
    }

    /// Forgets a version, which is the oldest one of its key.
    fn forget(&mut self, first: &Version, rows: &mut Vec<Row>) {
        rows.push(Row::version_gone(first.place()));
        self.bytes -= first.size();
        history::forget_first(&mut self.spaces[first.space().number()], first.key());
    }

    /// A version that was stored; they come ascending. False when it cannot be one of its key.
    pub(super) fn load(&mut self, version: Version) -> bool {
        let space = version.space();
        let before = self.latest(space, version.key());
        let existed = before.is_some_and(Version::exists);
        if before.is_some_and(|before| before.revision() == version.revision()) {
            return false;
        }
        if version.revision() > self.counters.scavenged {
            self.changes.push_back(version.clone());
        } else if !version.exists() || before.is_some() {
            return false;
        }
        self.bytes += version.size();
        let live = &mut self.live[space.number()];
        *live = *live + usize::from(version.exists()) - usize::from(existed);
        history::push(&mut self.spaces[space.number()], version);
        true
    }

    /// The keys that go with a lease. Whoever keeps them keeps nothing else in memory.
    pub(super) fn attached(&self) -> impl Iterator<Item = (Bytes, LeaseId)> {
        self.spaces[Space::Keys.number()].iter().filter_map(|entry| {
            let version = History::of(entry).latest();
            let lease = version.pair()?.lease?;
            Some((Bytes::copy_from_slice(version.key()), lease))
        })
    }

    /// How far the stored key space is; known before any of its versions.
    pub(super) fn load_counters(&mut self, counters: Counters) {
        self.counters = counters;
    }

    /// All versions, by space and key.
    pub(super) fn versions(&self) -> impl Iterator<Item = &Version> {
        let histories = self.spaces.iter().flatten();
        histories.flat_map(|entry| History::of(entry).versions())
    }
}
