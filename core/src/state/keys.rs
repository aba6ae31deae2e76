//! The key space: what every key was at every revision that can still be read, in each [`Space`].
//!
//! Invariants: `scavenged <= compacted <= revision`; the versions with a revision above `scavenged` are exactly
//! `changes`, in order; of a revision up to `scavenged` a key has at most one version, and that one did not remove it;
//! every key has at least one version; `live` counts the keys that exist in each space, and `bytes` what all versions take.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use bytes::Bytes;

use super::history::{History, Pair, Place, Version};
use super::row::Row;
use super::space::Space;
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
    spaces: [BTreeMap<Bytes, History>; Space::COUNT],
    /// Which key changed when, ascending; what was scavenged is left out.
    changes: VecDeque<Changed>,
    live: [usize; Space::COUNT],
    bytes: u64,
    counters: Counters,
}

/// That a key changed: its place and its space with no room wasted between them.
#[derive(Clone, Debug)]
struct Changed {
    revision: Revision,
    order: u32,
    space: Space,
    key: Bytes,
}

impl Changed {
    fn new(place: Place, space: Space, key: &Bytes) -> Changed {
        Changed {
            revision: place.revision,
            order: place.order,
            space,
            key: key.clone(),
        }
    }

    fn place(&self) -> Place {
        Place {
            revision: self.revision,
            order: self.order,
        }
    }
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
            .partition_point(|changed| changed.revision <= compacted)
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
        let (key, history) = self.spaces[space.number()].get_key_value(key)?;
        history.latest().with_key(key)
    }

    /// The pair of a key that exists.
    pub(super) fn pair(&self, space: Space, key: &[u8]) -> Option<&Pair> {
        self.spaces[space.number()].get(key)?.latest().pair.as_ref()
    }

    /// Gives a key a value; returns what it was.
    pub(super) fn put(
        &mut self,
        change: &mut Change,
        space: Space,
        key: &Bytes,
        value: Bytes,
        lease: Option<LeaseId>,
    ) -> Option<KeyValue> {
        let place = change.next_place();
        let keys = &mut self.spaces[space.number()];
        let Some(history) = keys.get_mut(key) else {
            let version = Version {
                place,
                pair: Some(Pair::first(value, place.revision, lease)),
            };
            change.rows.push(Row::version(space, key, &version));
            self.bytes += size(key, &version);
            self.changes.push_back(Changed::new(place, space, key));
            keys.insert(key.clone(), History::new(version));
            self.live[space.number()] += 1;
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
        change.rows.push(Row::version(space, key, &version));
        self.bytes += size(key, &version);
        self.changes.push_back(Changed::new(place, space, key));
        let previous = history.latest().with_key(key);
        self.live[space.number()] += usize::from(previous.is_none());
        history.push(version);
        previous
    }

    /// Removes a key; returns what it was, if it existed.
    pub(super) fn delete(&mut self, change: &mut Change, space: Space, key: &[u8]) -> Option<KeyValue> {
        let keys = &mut self.spaces[space.number()];
        let (key, _) = keys.get_key_value(key)?;
        let key = key.clone();
        let history = keys.get_mut(&key)?;
        let previous = history.latest().with_key(&key)?;
        let place = change.next_place();
        let version = Version { place, pair: None };
        change.rows.push(Row::version(space, &key, &version));
        self.bytes += size(&key, &version);
        history.push(version);
        self.changes.push_back(Changed::new(place, space, &key));
        self.live[space.number()] -= 1;
        Some(previous)
    }

    /// The keys of a range that exist.
    pub(super) fn keys_in(&self, space: Space, range: &KeyRange) -> Vec<Bytes> {
        self.histories(space, range)
            .filter(|(_, history)| history.latest().pair.is_some())
            .map(|(key, _)| key.clone())
            .collect()
    }

    /// The keys of a range as they are now. Shares the bytes.
    pub(super) fn pairs_in(&self, space: Space, range: &KeyRange) -> impl Iterator<Item = KeyValue> {
        self.histories(space, range)
            .filter_map(|(key, history)| history.latest().with_key(key))
    }

    /// The keys of a space after one, or all, as they are now. Shares the bytes.
    pub(super) fn pairs_after(&self, space: Space, key: Option<&[u8]>) -> impl Iterator<Item = KeyValue> {
        let start = key.map_or(Bound::Unbounded, Bound::Excluded);
        self.spaces[space.number()]
            .range::<[u8], _>((start, Bound::Unbounded))
            .filter_map(|(key, history)| history.latest().with_key(key))
    }

    /// Reads, and answers about `bytes_max` bytes.
    pub(super) fn read(&self, space: Space, query: &Query, bytes_max: usize) -> Result<Found, ReadError> {
        let histories = self.histories(space, &query.range);
        let exists = |version: &Version| version.pair.is_some();
        let Some(revision) = query.revision else {
            let versions = histories.map(|(key, history)| (key, history.latest()));
            return Ok(query.choose(versions.filter(|(_, version)| exists(version)), bytes_max));
        };
        self.check_readable(revision)?;
        let versions = histories.filter_map(|(key, history)| Some((key, history.at(revision)?)));
        Ok(query.choose(versions.filter(|(_, version)| exists(version)), bytes_max))
    }

    /// What a key was at the revisions that can be read, the latest first; none where it was removed.
    pub(super) fn versions_of<'a>(
        &'a self,
        space: Space,
        key: &[u8],
    ) -> impl Iterator<Item = (Revision, Option<&'a Pair>)> + use<'a> {
        let compacted = self.counters.compacted;
        let history = self.spaces[space.number()].get(key);
        let mut ended = false;
        history
            .into_iter()
            .flat_map(History::versions_back)
            .take_while(move |version| {
                // What a key was at the compacted revision may be older than that, unless it was removed by then.
                if ended {
                    return false;
                }
                ended = version.place.revision <= compacted;
                version.pair.is_some() || !ended
            })
            .map(|version| (version.place.revision, version.pair.as_ref()))
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

    fn histories(&self, space: Space, range: &KeyRange) -> impl Iterator<Item = (&Bytes, &History)> {
        let keys = &self.spaces[space.number()];
        range
            .bounds()
            .into_iter()
            .flat_map(|bounds| keys.range::<[u8], _>(bounds))
    }

    /// The changes from a place on that are still known, ascending.
    pub(super) fn changes_from(&self, from: Place) -> impl Iterator<Item = (Place, Space, &Bytes)> {
        let first = self.changes.partition_point(|changed| changed.place() < from);
        let changes = self.changes.range(first..);
        changes.map(|changed| (changed.place(), changed.space, &changed.key))
    }

    /// The changes of the latest revision or one that is not compacted, and whether each gave the key a value.
    pub(super) fn changes_of(
        &self,
        revision: Revision,
    ) -> impl Iterator<Item = (Place, Space, &Bytes, bool)> {
        self.changes_from(Place::first_of(revision))
            .take_while(move |(place, ..)| place.revision == revision)
            .map(|(place, space, key)| (place, space, key, self.is_put(place, space, key)))
    }

    /// Whether a change that is still known gave the key a value.
    pub(super) fn is_put(&self, place: Place, space: Space, key: &Bytes) -> bool {
        self.version(place, space, key).pair.is_some()
    }

    /// What a change that is not compacted did. Shares the bytes.
    pub(super) fn event(&self, place: Place, space: Space, key: &Bytes) -> Event {
        assert!(
            place.revision > self.counters.compacted,
            "what was before a compacted change is not known"
        );
        let history = &self.spaces[space.number()][key];
        let before = history.at(Revision(place.revision.0 - 1));
        Event {
            revision: place.revision,
            order: place.order,
            space,
            key: key.clone(),
            current: self.version(place, space, key).with_key(key),
            previous: before.and_then(|before| before.with_key(key)),
        }
    }

    fn version(&self, place: Place, space: Space, key: &Bytes) -> &Version {
        let history = self.spaces[space.number()]
            .get(key)
            .expect("a key that changed has a version");
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
        while let Some(revision) = self.changes.front().map(|changed| changed.revision)
            && revision <= counters.compacted
        {
            if looked_at >= most {
                return;
            }
            while let Some(changed) = self.changes.pop_front_if(|changed| changed.revision == revision) {
                self.drop_superseded(&changed, rows);
                looked_at += 1;
            }
            self.counters.scavenged = revision;
        }
        self.counters.scavenged = counters.compacted;
    }

    /// Removes what a compacted change superseded, and the change itself when it removed the key.
    fn drop_superseded(&mut self, changed: &Changed, rows: &mut Vec<Row>) {
        let (place, key) = (changed.place(), &changed.key);
        let keys = &mut self.spaces[changed.space.number()];
        let history = keys.get_mut(key).expect("a key that changed has a version");
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
                keys.remove(key);
            }
        }
    }

    /// A version that was stored; they come ascending. False when it cannot be a version of this key.
    pub(super) fn load(&mut self, space: Space, key: Bytes, version: Version) -> bool {
        let place = version.place;
        let exists = version.pair.is_some();
        let existed = self.pair(space, &key).is_some();
        let keys = &mut self.spaces[space.number()];
        if place.revision > self.counters.scavenged {
            self.changes.push_back(Changed::new(place, space, &key));
        } else if !exists || keys.contains_key(&key) {
            return false;
        }
        let bytes = size(&key, &version);
        match keys.get_mut(&key) {
            Some(history) if history.latest().place.revision == place.revision => return false,
            Some(history) => history.push(version),
            None => {
                keys.insert(key, History::new(version));
            }
        }
        self.bytes += bytes;
        let live = &mut self.live[space.number()];
        *live = *live + usize::from(exists) - usize::from(existed);
        true
    }

    /// The keys that go with a lease.
    pub(super) fn attached(&self) -> impl Iterator<Item = (&Bytes, LeaseId)> {
        self.spaces[Space::Keys.number()]
            .iter()
            .filter_map(|(key, history)| {
                let pair = history.latest().pair.as_ref()?;
                Some((key, pair.lease?))
            })
    }

    /// How far the stored key space is; known before any of its versions.
    pub(super) fn load_counters(&mut self, counters: Counters) {
        self.counters = counters;
    }

    /// All versions with their spaces and keys, in the order of those.
    pub(super) fn versions(&self) -> impl Iterator<Item = (Space, &Bytes, &Version)> {
        Space::ALL.into_iter().flat_map(|space| {
            let keys = self.spaces[space.number()].iter();
            keys.flat_map(move |(key, history)| history.versions().map(move |version| (space, key, version)))
        })
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
