//! The versioned encoding of everything that crosses a socket or reaches a disk.
//!
//! Every encoded value opens with one byte of kind and one byte of version, and its decoder refuses a kind or a
//! version that it does not know: nothing unknown is ever skipped. The body is postcard, whose format is specified
//! and does not depend on the machine. Lengths and checksums belong to the container (a log record, a stream frame),
//! which knows how many bytes a value has.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What an encoded value is. The numbers are part of the format and never change their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A [`raft::Message`](crate::raft::Message) between nodes.
    Message = 1,
    /// A [`raft::Entry`](crate::raft::Entry) of the log.
    Entry = 2,
    /// A [`raft::HardState`](crate::raft::HardState).
    HardState = 3,
    /// A [`raft::Base`](crate::raft::Base): where a log begins after a purge or an installed snapshot.
    Base = 4,
    /// A [`state::Command`](crate::state::Command).
    Command = 5,
    /// A [`state::Reply`](crate::state::Reply).
    Reply = 6,
    /// A row of the state machine.
    Row = 7,
    /// A frame of the transport that is not a consensus message.
    Frame = 8,
    /// The header of a snapshot file.
    SnapshotHeader = 9,
    /// The identity of a data directory.
    Identity = 10,
    /// The note of a damaged log's repair.
    Repair = 11,
}

/// The version of every format that this build writes. A build reads its own version and older ones.
pub const VERSION: u8 = 1;

/// Why bytes could not be decoded.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Fewer bytes than the two of kind and version.
    #[error("{length} bytes are too short for an encoded value")]
    TooShort {
        /// How many bytes there were.
        length: usize,
    },
    /// Another kind than the caller expected.
    #[error("expected a value of kind {expected:?}, found kind number {found}")]
    Kind {
        /// The kind that the caller wanted.
        expected: Kind,
        /// The number found in the first byte.
        found: u8,
    },
    /// Written by a newer version of Quorate.
    #[error(
        "a {kind:?} of version {found} is newer than version {VERSION}, the newest that this build reads: upgrade this node"
    )]
    Newer {
        /// The kind of the value.
        kind: Kind,
        /// The version found in the second byte.
        found: u8,
    },
    /// The body does not decode to the expected type, or has bytes left over.
    #[error("the body of a {kind:?} is malformed: {reason}")]
    Malformed {
        /// The kind of the value.
        kind: Kind,
        /// What the decoder says.
        reason: String,
    },
}

/// Appends the encoding of `value` to `output`.
pub fn encode_into<T: Serialize>(kind: Kind, value: &T, output: &mut Vec<u8>) {
    output.push(kind as u8);
    output.push(VERSION);
    postcard::to_io(value, output)
        .expect("writing to memory fails only for types that postcard cannot express");
}

/// The encoding of `value`.
pub fn encode<T: Serialize>(kind: Kind, value: &T) -> Vec<u8> {
    let mut output = Vec::with_capacity(64);
    encode_into(kind, value, &mut output);
    output
}

/// Decodes a value of `kind` from exactly `input`.
///
/// # Errors
/// When `input` is of another kind, of a newer version, malformed, or longer than the value.
pub fn decode<'a, T: Deserialize<'a>>(kind: Kind, input: &'a [u8]) -> Result<T, DecodeError> {
    let [found_kind, version, body @ ..] = input else {
        return Err(DecodeError::TooShort { length: input.len() });
    };
    if *found_kind != kind as u8 {
        return Err(DecodeError::Kind {
            expected: kind,
            found: *found_kind,
        });
    }
    if *version > VERSION {
        return Err(DecodeError::Newer {
            kind,
            found: *version,
        });
    }
    let malformed = |reason: String| DecodeError::Malformed { kind, reason };
    let (value, rest) = postcard::take_from_bytes(body).map_err(|error| malformed(error.to_string()))?;
    if !rest.is_empty() {
        return Err(malformed(format!("{} bytes are left over", rest.len())));
    }
    Ok(value)
}
