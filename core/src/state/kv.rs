//! Keys, their values and their revisions, with the meaning that etcd's v3 API gives them.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The count of changes to the whole state. Every change raises it by one, so it orders changes to all keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Revision(pub u64);

impl Revision {
    /// The revision of a key that does not exist, and of a state without any change.
    pub const ABSENT: Revision = Revision(0);

    /// The revision after this one.
    #[must_use]
    pub const fn next(self) -> Revision {
        Revision(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// A key with its value and history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// Its value.
    pub value: Bytes,
    /// The change that made the key exist; a key that was removed and comes back gets a new one.
    pub create_revision: Revision,
    /// The latest change of the key.
    pub mod_revision: Revision,
    /// How many changes the key has seen since it exists; 1 for a new key.
    pub version: u64,
}

/// What the state keeps for a key, beside the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stored {
    pub(super) value: Bytes,
    pub(super) create_revision: Revision,
    pub(super) mod_revision: Revision,
    pub(super) version: u64,
}

impl Stored {
    /// The value of a key at `revision`, which replaces `previous`.
    pub(super) fn after(previous: Option<&Stored>, value: Bytes, revision: Revision) -> Stored {
        Stored {
            value,
            create_revision: previous.map_or(revision, |stored| stored.create_revision),
            mod_revision: revision,
            version: previous.map_or(0, |stored| stored.version) + 1,
        }
    }

    /// The pair as a reader sees it. Shares the bytes.
    pub(super) fn with_key(&self, key: &Bytes) -> KeyValue {
        KeyValue {
            key: key.clone(),
            value: self.value.clone(),
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
            version: self.version,
        }
    }
}
