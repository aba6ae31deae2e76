//! Keys, their values and their revisions, with the meaning that etcd's v3 API gives them.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::LeaseId;

/// The count of commands that changed a key. All changes of one command have the same revision, so it orders the
/// changes of all keys, and a reader of a revision sees all of a command or nothing.
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
    /// The lease with which the key goes, if any.
    pub lease: Option<LeaseId>,
}
