//! The state as rows of a table on disk or in a snapshot.
//!
//! A row's key is one byte that names the table, then the key within it. A row's value is a value of
//! [`Kind::Row`]; the table says of which type. The numbers of tables are part of the format.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::kv::Stored;
use super::{KeyValue, Revision};
use crate::raft::Index;
use crate::wire::{self, DecodeError, Kind};

/// One row: a piece of the state that was written, or removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// One byte of table, then the key within it. Later rows of the same key replace earlier ones.
    pub key: Vec<u8>,
    /// The encoded value; none when the row is gone.
    pub value: Option<Vec<u8>>,
}

/// The single row with the counters of the whole state.
const TABLE_SUMMARY: u8 = 0;
/// One row a key.
const TABLE_KV: u8 = 1;

/// The counters of the whole state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Summary {
    /// The last change.
    pub(super) revision: Revision,
    /// The running hash.
    pub(super) fingerprint: u64,
    /// The index of the command that wrote this row.
    pub(super) index: Index,
}

/// A row as the state machine understands it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decoded {
    Summary(Summary),
    KeyValue(Bytes, Stored),
    /// The number of a table that this build does not know.
    UnknownTable(u8),
}

impl Row {
    pub(super) fn summary(summary: Summary) -> Row {
        Row {
            key: vec![TABLE_SUMMARY],
            value: Some(wire::encode(Kind::Row, &summary)),
        }
    }

    pub(super) fn put(key: &[u8], stored: &Stored) -> Row {
        let mut value = Vec::with_capacity(stored.value.len() + 24);
        wire::encode_into(Kind::Row, stored, &mut value);
        Row {
            key: kv_key(key),
            value: Some(value),
        }
    }

    pub(super) fn delete(key: &[u8]) -> Row {
        Row {
            key: kv_key(key),
            value: None,
        }
    }

    /// The key and value that a row of the key table holds; none for a row of another table or of a removed key.
    ///
    /// # Errors
    /// When the value cannot be decoded.
    pub fn key_value(&self) -> Result<Option<KeyValue>, DecodeError> {
        let Some(value) = &self.value else {
            return Ok(None);
        };
        match decode(&self.key, value)? {
            Decoded::KeyValue(key, stored) => Ok(Some(stored.with_key(&key))),
            Decoded::Summary(_) | Decoded::UnknownTable(_) => Ok(None),
        }
    }
}

fn kv_key(key: &[u8]) -> Vec<u8> {
    let mut row_key = Vec::with_capacity(1 + key.len());
    row_key.push(TABLE_KV);
    row_key.extend_from_slice(key);
    row_key
}

/// Understands a row. A key without a table is reported as table 255, which is never given to one.
pub(super) fn decode(key: &[u8], value: &[u8]) -> Result<Decoded, DecodeError> {
    match key {
        [TABLE_SUMMARY] => Ok(Decoded::Summary(wire::decode(Kind::Row, value)?)),
        [TABLE_KV, key @ ..] => Ok(Decoded::KeyValue(
            Bytes::copy_from_slice(key),
            wire::decode(Kind::Row, value)?,
        )),
        [table, ..] => Ok(Decoded::UnknownTable(*table)),
        [] => Ok(Decoded::UnknownTable(u8::MAX)),
    }
}
