//! The state as rows of a table on disk or in a snapshot.
//!
//! A row's key is one byte that names the table, then the key within it. A row's value is a value of
//! [`Kind::Row`]; the table says of which type. The numbers of tables are part of the format.
//!
//! The versions of keys are in the order of their revisions, so that new ones come at the end of their table.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::keys::Counters;
use super::once::{Answer, ClientRow};
use super::session;
use super::space::Space;
use super::stream::{
    GroupRow, IdsRow, Mark, PartitionRow, StreamRow, TABLE_RECORDS, is_record_key, split_record_key,
};
use super::version::{Pair, Place, Version, as_bytes};
use super::{ClientId, Grant, KeyValue, LeaseId, Offset, Reply, Revision, StreamId};
use crate::raft::{Index, NodeId};
use crate::wire::{self, DecodeError, Kind};

/// One row: a piece of the state that was written, or removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// One byte of table, then the key within it. Later rows of the same key replace earlier ones.
    pub key: Vec<u8>,
    /// What became of it.
    pub change: RowChange,
}

/// What became of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowChange {
    /// It has this encoded value.
    Written(Bytes),
    /// It is gone.
    Gone,
    /// It is gone, if there was one, and all after it up to the row of this key, which goes as well.
    RangeGone {
        /// The key of the last row.
        last: Vec<u8>,
    },
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
/// One row a stream: its id, big-endian.
const TABLE_STREAMS: u8 = 20;
/// One row a partition: the stream's id and the partition's number, big-endian.
const TABLE_PARTITIONS: u8 = 21;
/// One row a mark: the stream's id, the partition's number and the offset at which the mark begins, big-endian.
const TABLE_MARKS: u8 = 22;
/// One row an append with message ids: the stream's id and the index of the entry, big-endian.
const TABLE_MESSAGE_IDS: u8 = 23;
/// One row a consumer group: the stream's id, big-endian, and the group's name.
const TABLE_GROUPS: u8 = 24;

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
struct VersionRow<'a> {
    space: Space,
    #[serde(serialize_with = "as_bytes")]
    key: &'a [u8],
    #[serde(borrow)]
    pair: Option<Pair<'a>>,
}

/// A row as the state machine understands it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decoded {
    Summary(Summary),
    Version(Version),
    Lease(LeaseId, Grant),
    RequestKey(Bytes, Answer),
    Client(ClientId, ClientRow),
    ClientAnswer(ClientId, u64, Answer),
    Rebalancing,
    Place(NodeId, session::Place),
    Stream(StreamId, StreamRow),
    Partition(StreamId, u32, PartitionRow),
    Mark(StreamId, u32, Offset, Mark),
    MessageIds(StreamId, Index, IdsRow),
    Group(StreamId, String, GroupRow),
    /// Records that end with an offset; the records themselves are not read.
    Records(StreamId, u32, Offset),
    /// The number of a table that this build does not know.
    UnknownTable(u8),
    /// The key is none of its table.
    BadKey,
}

impl Row {
    /// A row of this value.
    pub fn written(key: impl Into<Vec<u8>>, value: impl Into<Bytes>) -> Row {
        Row {
            key: key.into(),
            change: RowChange::Written(value.into()),
        }
    }

    /// A row that is gone.
    pub fn gone(key: impl Into<Vec<u8>>) -> Row {
        Row {
            key: key.into(),
            change: RowChange::Gone,
        }
    }

    /// All rows from one key to another are gone.
    pub fn range_gone(first: impl Into<Vec<u8>>, last: impl Into<Vec<u8>>) -> Row {
        Row {
            key: first.into(),
            change: RowChange::RangeGone { last: last.into() },
        }
    }

    /// The key from which on rows hold the records of streams, and up to which rows are the state in memory.
    pub const RECORDS_FROM: &'static [u8] = &[TABLE_RECORDS];

    /// Whether a row of this key holds records of a stream, which are not part of the state in memory.
    pub fn holds_records(key: &[u8]) -> bool {
        is_record_key(key)
    }

    /// The value that was written, if one was.
    pub fn value(&self) -> Option<&Bytes> {
        match &self.change {
            RowChange::Written(value) => Some(value),
            RowChange::Gone | RowChange::RangeGone { .. } => None,
        }
    }

    fn new<T: Serialize>(key: Vec<u8>, value: &T) -> Row {
        Row::written(key, wire::encode(Kind::Row, value))
    }

    pub(super) fn summary(summary: Summary) -> Row {
        Row::new(vec![TABLE_SUMMARY], &summary)
    }

    pub(super) fn version(version: &Version) -> Row {
        let row = VersionRow {
            space: version.space(),
            key: version.key(),
            pair: version.pair(),
        };
        // The encoding is seldom longer.
        let mut value = Vec::with_capacity(version.as_ref().len());
        wire::encode_into(Kind::Row, &row, &mut value);
        Row::written(version_key(version.place()), value)
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

    pub(super) fn stream(id: StreamId, row: &StreamRow) -> Row {
        Row::new(number_key(TABLE_STREAMS, id.0.0), row)
    }

    pub(super) fn stream_gone(id: StreamId) -> Row {
        Row::gone(number_key(TABLE_STREAMS, id.0.0))
    }

    pub(super) fn stream_partition(id: StreamId, number: u32, row: &PartitionRow) -> Row {
        Row::new(partition_key(TABLE_PARTITIONS, id, number), row)
    }

    pub(super) fn stream_partition_gone(id: StreamId, number: u32) -> Row {
        Row::gone(partition_key(TABLE_PARTITIONS, id, number))
    }

    pub(super) fn stream_mark(id: StreamId, number: u32, begins: Offset, mark: &Mark) -> Row {
        Row::new(mark_key(id, number, begins), mark)
    }

    pub(super) fn stream_mark_gone(id: StreamId, number: u32, begins: Offset) -> Row {
        Row::gone(mark_key(id, number, begins))
    }

    pub(super) fn stream_ids(id: StreamId, index: Index, row: &IdsRow) -> Row {
        Row::new(two_numbers_key(TABLE_MESSAGE_IDS, id.0.0, index.0), row)
    }

    pub(super) fn stream_ids_gone(id: StreamId, index: Index) -> Row {
        Row::gone(two_numbers_key(TABLE_MESSAGE_IDS, id.0.0, index.0))
    }

    pub(super) fn stream_group(id: StreamId, name: &str, row: &GroupRow) -> Row {
        Row::new(group_key(id, name), row)
    }

    pub(super) fn stream_group_gone(id: StreamId, name: &str) -> Row {
        Row::gone(group_key(id, name))
    }

    /// The key and value that a row holds; none for a row of another table, and when the key was removed.
    ///
    /// # Errors
    /// When the value cannot be decoded.
    pub fn key_value(&self) -> Result<Option<KeyValue>, DecodeError> {
        let Some(value) = self.value() else {
            return Ok(None);
        };
        match decode(&self.key, value)? {
            Decoded::Version(version) if version.space() == Space::Keys => Ok(version.key_value()),
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
    two_numbers_key(TABLE_CLIENT_ANSWERS, id.0.0, number)
}

fn two_numbers_key(table: u8, first: u64, second: u64) -> Vec<u8> {
    let mut key = number_key(table, first);
    key.extend_from_slice(&second.to_be_bytes());
    key
}

fn partition_key(table: u8, id: StreamId, number: u32) -> Vec<u8> {
    let mut key = number_key(table, id.0.0);
    key.extend_from_slice(&number.to_be_bytes());
    key
}

fn mark_key(id: StreamId, number: u32, begins: Offset) -> Vec<u8> {
    let mut key = partition_key(TABLE_MARKS, id, number);
    key.extend_from_slice(&begins.0.to_be_bytes());
    key
}

fn group_key(id: StreamId, name: &str) -> Vec<u8> {
    let mut key = number_key(TABLE_GROUPS, id.0.0);
    key.extend_from_slice(name.as_bytes());
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
                Decoded::Version(Version::new(place, space, key, pair))
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
        (TABLE_STREAMS..=TABLE_GROUPS | TABLE_RECORDS, key) => {
            return Ok(decode_of_stream(*table, key, value)?.unwrap_or(Decoded::BadKey));
        }
        (TABLE_SUMMARY, _) => Decoded::BadKey,
        (table, _) => Decoded::UnknownTable(table),
    })
}

/// Understands a row about streams; none when its key is bad.
fn decode_of_stream(table: u8, key: &[u8], value: &[u8]) -> Result<Option<Decoded>, DecodeError> {
    let Some((stream, rest)) = split_number(key) else {
        return Ok(None);
    };
    let id = StreamId(Index(stream));
    if table == TABLE_GROUPS {
        let name = String::from_utf8(rest.to_vec()).ok();
        return name
            .map(|name| Ok(Decoded::Group(id, name, read(value)?)))
            .transpose();
    }
    Ok(match (table, rest.len()) {
        (TABLE_STREAMS, 0) => Some(Decoded::Stream(id, read(value)?)),
        (TABLE_MESSAGE_IDS, 8) => {
            let index = number(rest).map(Index);
            index
                .map(|index| Ok(Decoded::MessageIds(id, index, read(value)?)))
                .transpose()?
        }
        (TABLE_PARTITIONS, 4) => {
            let partition = partition(rest);
            partition
                .map(|(partition, _)| Ok(Decoded::Partition(id, partition, read(value)?)))
                .transpose()?
        }
        (TABLE_MARKS, 12) => {
            let place = partition(rest).and_then(|(partition, rest)| Some((partition, number(rest)?)));
            place
                .map(|(partition, begins)| Ok(Decoded::Mark(id, partition, Offset(begins), read(value)?)))
                .transpose()?
        }
        (TABLE_RECORDS, _) => {
            split_record_key(key).map(|(id, partition, last)| Decoded::Records(id, partition, last))
        }
        _ => None,
    })
}

fn partition(key: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = key.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*number), rest))
}

fn read<'a, T: Deserialize<'a>>(value: &'a [u8]) -> Result<T, DecodeError> {
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
