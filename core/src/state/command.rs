//! What the log asks of the state machine.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Revision;
use crate::wire::{self, DecodeError, Kind};

/// A change of the replicated state, carried by an entry of the log.
///
/// The order of the variants is part of the format: new ones go to the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Give a key a value.
    Put {
        /// The key; not empty.
        key: Bytes,
        /// Its new value.
        value: Bytes,
        /// When given, the key is changed only if its [`mod_revision`](super::KeyValue::mod_revision) is this one;
        /// [`Revision::ABSENT`] demands that the key does not exist.
        expected: Option<Revision>,
    },
    /// Remove a key.
    Delete {
        /// The key; not empty.
        key: Bytes,
        /// When given, the key is removed only if its [`mod_revision`](super::KeyValue::mod_revision) is this one.
        expected: Option<Revision>,
    },
}

impl Command {
    /// The bytes that go into the log.
    pub fn encode(&self) -> Bytes {
        wire::encode(Kind::Command, self).into()
    }

    /// Reads the bytes of a log entry.
    ///
    /// # Errors
    /// When the bytes are not a command that this build knows.
    pub fn decode(input: &[u8]) -> Result<Command, DecodeError> {
        wire::decode(Kind::Command, input)
    }
}
