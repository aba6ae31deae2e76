//! What the client of a command hears.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{KeyValue, Revision};
use crate::wire::{self, DecodeError, Kind};

/// The result of an applied [`Command`](super::Command), the same on every node.
///
/// The order of the variants is part of the format: new ones go to the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The key has its new value.
    Put {
        /// The revision of this change.
        revision: Revision,
        /// What the key was before, if it existed.
        previous: Option<KeyValue>,
    },
    /// The key is gone.
    Deleted {
        /// The revision of this change.
        revision: Revision,
        /// What the key was before.
        previous: KeyValue,
    },
    /// The key is not at the revision that the command expected; nothing changed.
    Conflict {
        /// What the key is, if it exists.
        current: Option<KeyValue>,
    },
    /// The key to remove does not exist; nothing changed.
    NotFound,
    /// The command can be read but makes no sense; nothing changed.
    Malformed(Malformed),
}

/// Why a command makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum Malformed {
    /// A key has at least one byte.
    #[error("the key is empty")]
    EmptyKey,
}

impl Reply {
    /// The bytes that carry the reply to the node whose client asked.
    pub fn encode(&self) -> Bytes {
        wire::encode(Kind::Reply, self).into()
    }

    /// Reads the bytes of a reply.
    ///
    /// # Errors
    /// When the bytes are not a reply that this build knows.
    pub fn decode(input: &[u8]) -> Result<Reply, DecodeError> {
        wire::decode(Kind::Reply, input)
    }
}
