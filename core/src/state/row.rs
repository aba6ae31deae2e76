//! The state as rows of a table on disk or in a snapshot.
//!
//! A row's key is one byte that names the table, then the key within it. A row's value is a value of
//! [`Kind::Row`]; the table says of which type. The numbers of tables are part of the format.
//!
//! The versions of keys are in the order of their revisions, so that new ones come at the end of their table.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::history::{Pair, Place, Version};
use super::keys::Counters;
use super::once::{Answer, ClientRow};
use super::session;
use super::space::Space;
use super::{ClientId, Grant, KeyValue, LeaseId, Reply, Revision};
use crate::raft::{Index, NodeId};
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
/// One row a version of a key: revision and order, big-endian.
const TABLE_VERSIONS: u8 = 1;
/// One row a lease: its id, big-endian.
const TABLE_LEASES: u8 = 2;
/// One row a request with a key.
const TABLE_REQUEST_KEYS: u8 = 3;
/// One row a registered client: its id, big-endian.
const TABLE_CLIENTS: u8 = 4;
/// One row an answer to a client: the client's id and the number of the request, big-endian.
const TABLE_CLIENT_ANSWERS: u8 = 5;

/// One row a node that sessions are placed on: its id, big-endian. The row without an id exists while sessions are being
/// rebalanced.
const TABLE_PLACES: u8 = 6;

/// The counters of the whole state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Summary {
    /// The last change.
    pub(super) revision: Revision,
    /// The oldest revision that can be read.
    pub(super) compacted: Revision,
    /// Up to where superseded versions were removed.
    pub(super) scavenged: Revision,
    /// The running hash.
    pub(super) fingerprint: u64,
    /// The index of the command that wrote this row.
    pub(super) index: Index,
}

impl Summary {
    pub(super) fn counters(&self) -> Counters {
        Counters {
            revision: self.revision,
            compacted: self.compacted,
            scavenged: self.scavenged,
        }
    }
}

/// A version of a key as its row tells.
#[derive(Serialize, Deserialize)]
struct VersionRow {
    space: Space,
    key: Bytes,
    pair: Option<Pair>,
}

/// A row as the state machine understands it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decoded {
    Summary(Summary),
    Version(Space, Bytes, Version),
    Lease(LeaseId, Grant),
    RequestKey(Bytes, Answer),
    Client(ClientId, ClientRow),
    ClientAnswer(ClientId, u64, Answer),
    Rebalancing,
    Place(NodeId, session::Place),
    /// The number of a table that this build does not know.
    UnknownTable(u8),
    /// The key is none of its table.
    BadKey,
}

impl Row {
    fn new<T: Serialize>(key: Vec<u8>, value: &T) -> Row {
        Row {
            key,
            value: Some(wire::encode(Kind::Row, value)),
        }
    }

    fn gone(key: Vec<u8>) -> Row {
        Row { key, value: None }
    }

    pub(super) fn summary(summary: Summary) -> Row {
        Row::new(vec![TABLE_SUMMARY], &summary)
    }

    pub(super) fn version(space: Space, key: &Bytes, version: &Version) -> Row {
        let pair = version.pair.as_ref();
        let bytes = key.len() + pair.map_or(0, |pair| pair.value.len());
        let row = VersionRow {
            space,
            key: key.clone(),
            pair: pair.cloned(),
        };
        let mut value = Vec::with_capacity(bytes + 32);
        wire::encode_into(Kind::Row, &row, &mut value);
        Row {
            key: version_key(version.place),
            value: Some(value),
        }
    }

    pub(super) fn version_gone(place: Place) -> Row {
        Row::gone(version_key(place))
    }

    pub(super) fn lease(id: LeaseId, grant: Grant) -> Row {
        Row::new(number_key(TABLE_LEASES, id.get()), &grant)
    }

    pub(super) fn lease_gone(id: LeaseId) -> Row {
        Row::gone(number_key(TABLE_LEASES, id.get()))
    }

    pub(super) fn request_key(key: &[u8], answer: &Answer) -> Row {
        Row::new(request_key(key), answer)
    }

    pub(super) fn request_key_gone(key: &[u8]) -> Row {
        Row::gone(request_key(key))
    }

    pub(super) fn client(id: ClientId, row: ClientRow) -> Row {
        Row::new(number_key(TABLE_CLIENTS, id.0.0), &row)
    }

    pub(super) fn client_gone(id: ClientId) -> Row {
        Row::gone(number_key(TABLE_CLIENTS, id.0.0))
    }

    pub(super) fn client_answer(id: ClientId, number: u64, answer: &Answer) -> Row {
        Row::new(answer_key(id, number), answer)
    }

    pub(super) fn client_answer_gone(id: ClientId, number: u64) -> Row {
        Row::gone(answer_key(id, number))
    }

    pub(super) fn place(id: NodeId, place: session::Place) -> Row {
        Row::new(number_key(TABLE_PLACES, id.0), &place)
    }

    pub(super) fn place_gone(id: NodeId) -> Row {
        Row::gone(number_key(TABLE_PLACES, id.0))
    }

    pub(super) fn rebalancing() -> Row {
        Row::new(vec![TABLE_PLACES], &())
    }

    pub(super) fn rebalancing_over() -> Row {
        Row::gone(vec![TABLE_PLACES])
    }

    /// The key and value that a row holds; none for a row of another table, and when the key was removed.
    ///
    /// # Errors
    /// When the value cannot be decoded.
    pub fn key_value(&self) -> Result<Option<KeyValue>, DecodeError> {
        let Some(value) = &self.value else {
            return Ok(None);
        };
        match decode(&self.key, value)? {
            Decoded::Version(Space::Keys, key, version) => Ok(version.with_key(&key)),
            _ => Ok(None),
        }
    }
}

fn version_key(place: Place) -> Vec<u8> {
    let mut key = number_key(TABLE_VERSIONS, place.revision.0);
    key.extend_from_slice(&place.order.to_be_bytes());
    key
}

fn number_key(table: u8, number: u64) -> Vec<u8> {
    let mut key = Vec::with_capacity(17);
    key.push(table);
    key.extend_from_slice(&number.to_be_bytes());
    key
}

fn request_key(key: &[u8]) -> Vec<u8> {
    let mut row_key = Vec::with_capacity(1 + key.len());
    row_key.push(TABLE_REQUEST_KEYS);
    row_key.extend_from_slice(key);
    row_key
}

fn answer_key(id: ClientId, number: u64) -> Vec<u8> {
    let mut key = number_key(TABLE_CLIENT_ANSWERS, id.0.0);
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// Understands a row. A key without a table is reported as table 255, which is never given to one.
pub(super) fn decode(key: &[u8], value: &[u8]) -> Result<Decoded, DecodeError> {
    let Some((table, key)) = key.split_first() else {
        return Ok(Decoded::UnknownTable(u8::MAX));
    };
    Ok(match (*table, key) {
        (TABLE_SUMMARY, []) => Decoded::Summary(read(value)?),
        (TABLE_VERSIONS, key) => match split_number(key) {
            Some((revision, order)) if let Ok(order) = order.try_into() => {
                let place = Place {
                    revision: Revision(revision),
                    order: u32::from_be_bytes(order),
                };
                let VersionRow { space, key, pair } = read(value)?;
                Decoded::Version(space, key, Version { place, pair })
            }
            _ => Decoded::BadKey,
        },
        (TABLE_LEASES, key) => match number(key).and_then(LeaseId::new) {
            Some(id) => Decoded::Lease(id, read(value)?),
            None => Decoded::BadKey,
        },
        (TABLE_REQUEST_KEYS, key) => Decoded::RequestKey(Bytes::copy_from_slice(key), answer(value)?),
        (TABLE_CLIENTS, key) => match number(key) {
            Some(id) => Decoded::Client(ClientId(Index(id)), read(value)?),
            None => Decoded::BadKey,
        },
        (TABLE_CLIENT_ANSWERS, key) => match split_number(key) {
            Some((id, rest)) if let Some(request) = number(rest) => {
                Decoded::ClientAnswer(ClientId(Index(id)), request, answer(value)?)
            }
            _ => Decoded::BadKey,
        },
        (TABLE_PLACES, []) => {
            let () = read(value)?;
            Decoded::Rebalancing
        }
        (TABLE_PLACES, key) => match number(key) {
            Some(id) => Decoded::Place(NodeId(id), read(value)?),
            None => Decoded::BadKey,
        },
        (TABLE_SUMMARY, _) => Decoded::BadKey,
        (table, _) => Decoded::UnknownTable(table),
    })
}

fn read<T: DeserializeOwned>(value: &[u8]) -> Result<T, DecodeError> {
    wire::decode(Kind::Row, value)
}

/// An answer whose reply can be given again: whoever asks for it later is not the one to find out that it cannot.
fn answer(value: &[u8]) -> Result<Answer, DecodeError> {
    let answer: Answer = read(value)?;
    Reply::decode(&answer.reply)?;
    Ok(answer)
}

fn number(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.try_into().ok()?))
}

fn split_number(key: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = key.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*number), rest))
}
