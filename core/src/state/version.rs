//! What one change made of a key, in one piece of memory.
//!
//! There are as many versions as keys and more, so they take as little memory as they can: a version is made once, never
//! changes, and is shared by the key space, the list of changes, readers and watchers.
//!
//! ```text
//! revision (8) | order (4) | space (1) | whether the key exists (1) | length of the key (4)
//! | create revision (8) | version (8) | lease, or 0 (8) | key | value
//! ```
//!
//! Numbers are little-endian. This is no format: what is stored is a [row](super::row).

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize, Serializer};

use super::space::Space;
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

/// A key that exists, without the key. Its encoding is part of the format of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pair<'a> {
    #[serde(serialize_with = "as_bytes")]
    pub(super) value: &'a [u8],
    pub(super) create_revision: Revision,
    /// Changes since the key exists.
    pub(super) version: u64,
    pub(super) lease: Option<LeaseId>,
}

impl<'a> Pair<'a> {
    /// A key that did not exist before.
    pub(super) fn first(value: &'a [u8], revision: Revision, lease: Option<LeaseId>) -> Pair<'a> {
        Pair {
            value,
            create_revision: revision,
            version: 1,
            lease,
        }
    }
}

/// Bytes at once, where a slice would be encoded byte by byte; to the same result.
pub(super) fn as_bytes<S: Serializer>(bytes: &&[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

/// What one change made of a key. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Version(Arc<[u8]>);

const REVISION: usize = 0;
const ORDER: usize = 8;
const SPACE: usize = 12;
const EXISTS: usize = 13;
const KEY_LENGTH: usize = 14;
const CREATE_REVISION: usize = 18;
const CHANGES: usize = 26;
const LEASE: usize = 34;
const KEY: usize = 42;

impl Version {
    /// `pair` is none when the change removed the key.
    pub(super) fn new(place: Place, space: Space, key: &[u8], pair: Option<Pair<'_>>) -> Version {
        let value = pair.map_or(&[][..], |pair| pair.value);
        let key_length = u32::try_from(key.len()).expect("a key has less than four gigabytes");
        let (created, version, lease) = pair.map_or((0, 0, 0), |pair| {
            let lease = pair.lease.map_or(0, LeaseId::get);
            (pair.create_revision.0, pair.version, lease)
        });
        let mut bytes = Vec::with_capacity(KEY + key.len() + value.len());
        bytes.extend_from_slice(&place.revision.0.to_le_bytes());
        bytes.extend_from_slice(&place.order.to_le_bytes());
        bytes.extend_from_slice(&[space as u8, pair.is_some().into()]);
        bytes.extend_from_slice(&key_length.to_le_bytes());
        for number in [created, version, lease] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(value);
        Version(bytes.into())
    }

    fn number(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.array(at))
    }

    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        *self.0[at..].first_chunk().expect("a version has all its fields")
    }

    fn key_length(&self) -> usize {
        u32::from_le_bytes(self.array(KEY_LENGTH)) as usize
    }

    pub(super) fn revision(&self) -> Revision {
        Revision(self.number(REVISION))
    }

    pub(super) fn place(&self) -> Place {
        Place {
            revision: self.revision(),
            order: u32::from_le_bytes(self.array(ORDER)),
        }
    }

    pub(super) fn space(&self) -> Space {
        Space::ALL[usize::from(self.0[SPACE])]
    }

    pub(super) fn key(&self) -> &[u8] {
        &self.0[KEY..KEY + self.key_length()]
    }

    /// The key and what else there is, for as long as anyone wants it: it keeps the whole version in memory.
    pub(super) fn key_bytes(&self) -> Bytes {
        Bytes::from_owner(self.clone()).slice(KEY..KEY + self.key_length())
    }

    /// Whether the key exists after the change.
    pub(super) fn exists(&self) -> bool {
        self.0[EXISTS] != 0
    }

    /// What the key is after the change, if it exists.
    pub(super) fn pair(&self) -> Option<Pair<'_>> {
        self.exists().then(|| Pair {
            value: &self.0[KEY + self.key_length()..],
            create_revision: Revision(self.number(CREATE_REVISION)),
            version: self.number(CHANGES),
            lease: LeaseId::new(self.number(LEASE)),
        })
    }

    /// The pair as a reader sees it, if the key exists. Shares the bytes.
    pub(super) fn key_value(&self) -> Option<KeyValue> {
        let pair = self.pair()?;
        let bytes = Bytes::from_owner(self.clone());
        let value = KEY + self.key_length();
        Some(KeyValue {
            key: bytes.slice(KEY..value),
            value: bytes.slice(value..),
            create_revision: pair.create_revision,
            mod_revision: self.revision(),
            version: pair.version,
            lease: pair.lease,
        })
    }

    /// What the version takes in memory with all that refers to it, about, in bytes.
    pub(super) fn size(&self) -> u64 {
        /// An entry of the key space and one of the list of changes, and what an allocation takes.
        const OVERHEAD: usize = 96;
        (OVERHEAD + self.0.len()) as u64
    }
}

impl AsRef<[u8]> for Version {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Version")
            .field("place", &self.place())
            .field("space", &self.space())
            .field("key", &self.key())
            .field("pair", &self.pair())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_what_it_was_made_of() {
        let place = Place {
            revision: Revision(7),
            order: 3,
        };
        let pair = Pair {
            value: b"value",
            create_revision: Revision(5),
            version: 2,
            lease: LeaseId::new(9),
        };
        for (key, value) in [
            (&b"key"[..], &b"value"[..]),
            (b"", b"value"),
            (b"key", b""),
            (b"", b""),
        ] {
            for space in Space::ALL {
                let pair = Pair { value, ..pair };
                let version = Version::new(place, space, key, Some(pair));
                assert_eq!(
                    (version.place(), version.space(), version.key()),
                    (place, space, key)
                );
                assert_eq!(version.pair(), Some(pair));
                assert_eq!(version.key_bytes(), key);
                let expected = KeyValue {
                    key: Bytes::copy_from_slice(key),
                    value: Bytes::copy_from_slice(value),
                    create_revision: Revision(5),
                    mod_revision: Revision(7),
                    version: 2,
                    lease: LeaseId::new(9),
                };
                assert_eq!(version.key_value(), Some(expected));
                let removed = Version::new(place, space, key, None);
                assert_eq!(
                    (removed.key(), removed.pair(), removed.key_value()),
                    (key, None, None)
                );
                assert!(!removed.exists());
            }
        }
    }
}
