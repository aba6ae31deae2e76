//! The key space: what every key was at every revision that can still be read.
//!
//! Invariants: `scavenged <= compacted <= revision`; the versions with a revision above `scavenged` are exactly
//! `changes`, in order; of a revision up to `scavenged` a key has at most one version, and that one did not remove it;
//! every key has at least one version; `live` counts the keys that exist, and `bytes` what all versions take.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::history::{History, Pair, Place, Version};
use super::row::Row;
use super::{Event, Found, KeyRange, KeyValue, LeaseId, Query, ReadError, Revision};

/// Superseded versions that a compaction removes at once; the rest goes with the commands after it.
const SCAVENGED_BY_COMPACTION: usize = 10_000;
/// Superseded versions that any other command removes: more than most commands make.
const SCAVENGED_BY_COMMAND: usize = 16;

/// What a version takes in memory beside the bytes of key and value, about.
const VERSION_BYTES: u64 = 128;

/// All keys.
#[derive(Clone, Debug, Default)]
pub(super) struct KeySpace {
    keys: BTreeMap<Bytes, History>,
    /// Which key changed when, ascending; what was scavenged is left out.
    changes: VecDeque<(Place, Bytes)>,
    live: usize,
    bytes: u64,
    counters: Counters,
}

/// What a version takes, about.
fn size(key: &[u8], version: &Version) -> u64 {
    let value = version.pair.as_ref().map_or(0, |pair| pair.value.len());
    VERSION_BYTES + (key.len() + value) as u64
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

    /// How many keys exist.
    pub(super) fn live(&self) -> usize {
        self.live
    }

    /// What all versions take in memory, about.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many changes wait to be looked at for superseded versions, although they are compacted.
    pub(super) fn backlog(&self) -> usize {
        let compacted = self.counters.compacted;
        self.changes
            .partition_point(|(place, _)| place.revision <= compacted)
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
    pub(super) fn get(&self, key: &[u8]) -> Option<KeyValue> {
        let (key, history) = self.keys.get_key_value(key)?;
        history.latest().with_key(key)
    }

    /// The pair of a key that exists.
    pub(super) fn pair(&self, key: &[u8]) -> Option<&Pair> {
        self.keys.get(key)?.latest().pair.as_ref()
    }

    /// Gives a key a value; returns what it was.
    pub(super) fn put(
        &mut self,
        change: &mut Change,
        key: &Bytes,
        value: Bytes,
        lease: Option<LeaseId>,
    ) -> Option<KeyValue> {
        let place = change.next_place();
        let Some(history) = self.keys.get_mut(key) else {
            let version = Version {
                place,
                pair: Some(Pair::first(value, place.revision, lease)),
            };
            change.rows.push(Row::version(key, &version));
            self.bytes += size(key, &version);
            self.changes.push_back((place, key.clone()));
            self.keys.insert(key.clone(), History::new(version));
            self.live += 1;
            return None;
        };
        let pair = match &history.latest().pair {
            Some(pair) => Pair {
                value,
                lease,
                create_revision: pair.create_revision,
                version: pair.version + 1,
            },
            None => Pair::first(value, place.revision, lease),
        };
        let pair = Some(pair);
        let version = Version { place, pair };
        change.rows.push(Row::version(key, &version));
        self.bytes += size(key, &version);
        self.changes.push_back((place, key.clone()));
        let previous = history.latest().with_key(key);
        self.live += usize::from(previous.is_none());
        history.push(version);
        previous
    }

    /// Removes a key; returns what it was, if it existed.
    pub(super) fn delete(&mut self, change: &mut Change, key: &[u8]) -> Option<KeyValue> {
        let (key, _) = self.keys.get_key_value(key)?;
        let key = key.clone();
        let history = self.keys.get_mut(&key)?;
        let previous = history.latest().with_key(&key)?;
        let place = change.next_place();
        let version = Version { place, pair: None };
        change.rows.push(Row::version(&key, &version));
        self.bytes += size(&key, &version);
        history.push(version);
        self.changes.push_back((place, key));
        self.live -= 1;
        Some(previous)
    }

    /// The keys of a range that exist.
    pub(super) fn keys_in(&self, range: &KeyRange) -> Vec<Bytes> {
        self.histories(range)
            .filter(|(_, history)| history.latest().pair.is_some())
            .map(|(key, _)| key.clone())
            .collect()
    }

    /// The keys of a range as they are now. Shares the bytes.
    pub(super) fn pairs_in(&self, range: &KeyRange) -> impl Iterator<Item = KeyValue> {
        self.histories(range)
            .filter_map(|(key, history)| history.latest().with_key(key))
    }

    /// Reads, and answers about `bytes_max` bytes.
    pub(super) fn read(&self, query: &Query, bytes_max: usize) -> Result<Found, ReadError> {
        let histories = self.histories(&query.range);
        let exists = |version: &Version| version.pair.is_some();
        let Some(revision) = query.revision else {
            let versions = histories.map(|(key, history)| (key, history.latest()));
            return Ok(query.choose(versions.filter(|(_, version)| exists(version)), bytes_max));
        };
        self.check_readable(revision)?;
        let versions = histories.filter_map(|(key, history)| Some((key, history.at(revision)?)));
        Ok(query.choose(versions.filter(|(_, version)| exists(version)), bytes_max))
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

    fn histories(&self, range: &KeyRange) -> impl Iterator<Item = (&Bytes, &History)> {
        range
            .bounds()
            .into_iter()
            .flat_map(|bounds| self.keys.range::<[u8], _>(bounds))
    }

    /// The changes from a place on that are still known, ascending.
    pub(super) fn changes_from(&self, from: Place) -> impl Iterator<Item = (Place, &Bytes)> {
        let first = self.changes.partition_point(|(place, _)| *place < from);
        self.changes.range(first..).map(|(place, key)| (*place, key))
    }

    /// The changes of the latest revision or one that is not compacted, and whether each gave the key a value.
    pub(super) fn changes_of(&self, revision: Revision) -> impl Iterator<Item = (Place, &Bytes, bool)> {
        self.changes_from(Place::first_of(revision))
            .take_while(move |(place, _)| place.revision == revision)
            .map(|(place, key)| (place, key, self.is_put(place, key)))
    }

    /// Whether a change that is still known gave the key a value.
    pub(super) fn is_put(&self, place: Place, key: &Bytes) -> bool {
        self.version(place, key).pair.is_some()
    }

    /// What a change that is not compacted did. Shares the bytes.
    pub(super) fn event(&self, place: Place, key: &Bytes) -> Event {
        assert!(
            place.revision > self.counters.compacted,
            "what was before a compacted change is not known"
        );
        let history = &self.keys[key];
        let before = history.at(Revision(place.revision.0 - 1));
        Event {
            revision: place.revision,
            order: place.order,
            key: key.clone(),
            current: self.version(place, key).with_key(key),
            previous: before.and_then(|before| before.with_key(key)),
        }
    }

    fn version(&self, place: Place, key: &Bytes) -> &Version {
        let history = self.keys.get(key).expect("a key that changed has a version");
        let version = history.at(place.revision);
        version
            .filter(|version| version.place == place)
            .expect("a change that is known made a version")
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
        while let Some(revision) = self.changes.front().map(|(place, _)| place.revision)
            && revision <= counters.compacted
        {
            if looked_at >= most {
                return;
            }
            while let Some((place, key)) = self.changes.pop_front_if(|(place, _)| place.revision == revision)
            {
                self.drop_superseded(place, &key, rows);
                looked_at += 1;
            }
            self.counters.scavenged = revision;
        }
        self.counters.scavenged = counters.compacted;
    }

    /// Removes what a compacted change superseded, and the change itself when it removed the key.
    fn drop_superseded(&mut self, place: Place, key: &Bytes, rows: &mut Vec<Row>) {
        let history = self.keys.get_mut(key).expect("a key that changed has a version");
        if history.first().place < place {
            rows.push(Row::version_gone(history.first().place));
            self.bytes -= size(key, history.first());
            history.forget_first();
        }
        let first = history.first();
        assert!(
            first.place == place,
            "a change supersedes one version that is still kept"
        );
        if first.pair.is_none() {
            rows.push(Row::version_gone(place));
            self.bytes -= size(key, first);
            if !history.forget_first() {
                self.keys.remove(key);
            }
        }
    }

    /// A version that was stored; they come ascending. False when it cannot be a version of this key.
    pub(super) fn load(&mut self, key: Bytes, version: Version) -> bool {
        let place = version.place;
        let exists = version.pair.is_some();
        let existed = self.pair(&key).is_some();
        if place.revision > self.counters.scavenged {
            self.changes.push_back((place, key.clone()));
        } else if !exists || self.keys.contains_key(&key) {
            return false;
        }
        let bytes = size(&key, &version);
        match self.keys.get_mut(&key) {
            Some(history) if history.latest().place.revision == place.revision => return false,
            Some(history) => history.push(version),
            None => {
                self.keys.insert(key, History::new(version));
            }
        }
        self.bytes += bytes;
        self.live = self.live + usize::from(exists) - usize::from(existed);
        true
    }

    /// The keys that go with a lease.
    pub(super) fn attached(&self) -> impl Iterator<Item = (&Bytes, LeaseId)> {
        self.keys.iter().filter_map(|(key, history)| {
            let pair = history.latest().pair.as_ref()?;
            Some((key, pair.lease?))
        })
    }

    /// How far the stored key space is; known before any of its versions.
    pub(super) fn load_counters(&mut self, counters: Counters) {
        self.counters = counters;
    }

    /// All versions with their keys, in the order of their keys.
    pub(super) fn versions(&self) -> impl Iterator<Item = (&Bytes, &Version)> {
        self.keys
            .iter()
            .flat_map(|(key, history)| history.versions().map(move |version| (key, version)))
    }
}

impl Pair {
    fn first(value: Bytes, revision: Revision, lease: Option<LeaseId>) -> Pair {
        Pair {
            value,
            create_revision: revision,
            version: 1,
            lease,
        }
    }
}
