//! Records as rows: one row holds what one append put into one partition.
//!
//! The key of a row is its table, the stream, the partition and the offset of its last record, big-endian: the row that
//! holds an offset is the first one from that offset's key on. The table's number is the greatest of all, so that a
//! reader who wants the state without the records stops where they begin.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::super::row::Row;
use super::{NewRecord, Offset, StreamId};
use crate::raft::Index;
use crate::time::WallTime;
use crate::wire::{self, DecodeError, Kind};

/// The table of records; beyond every other table.
pub(in crate::state) const TABLE_RECORDS: u8 = 240;
const KEY_BYTES: usize = 1 + 8 + 4 + 8;

/// A record as it is kept.
pub type Record = NewRecord;

/// Records of one partition that were appended together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordBatch {
    /// The stream.
    pub stream: StreamId,
    /// The partition.
    pub partition: u32,
    /// The offset of the first record.
    pub first: Offset,
    /// When they were appended, never before the batch before them.
    pub time: WallTime,
    /// The records, at least one.
    pub records: Vec<Record>,
}

/// The value of a row.
#[derive(Serialize, Deserialize)]
struct BatchRow {
    first: Offset,
    time: WallTime,
    records: Vec<Record>,
}

/// The key from which on to look for an offset of a partition: that of a row that ends with it.
pub fn record_key(stream: StreamId, partition: u32, offset: Offset) -> Vec<u8> {
    let mut key = Vec::with_capacity(KEY_BYTES);
    key.push(TABLE_RECORDS);
    key.extend_from_slice(&stream.0.0.to_be_bytes());
    key.extend_from_slice(&partition.to_be_bytes());
    key.extend_from_slice(&offset.0.to_be_bytes());
    key
}

/// Whether a row of this key holds records.
pub(in crate::state) fn is_record_key(key: &[u8]) -> bool {
    key.first() == Some(&TABLE_RECORDS)
}

/// The stream, the partition and the last offset of a row of records, without its table.
pub(in crate::state) fn split_record_key(key: &[u8]) -> Option<(StreamId, u32, Offset)> {
    let (stream, rest) = key.split_first_chunk::<8>()?;
    let (partition, last) = rest.split_first_chunk::<4>()?;
    Some((
        StreamId(Index(u64::from_be_bytes(*stream))),
        u32::from_be_bytes(*partition),
        Offset(u64::from_be_bytes(last.try_into().ok()?)),
    ))
}

impl RecordBatch {
    /// The offset after the last record.
    pub fn next(&self) -> Offset {
        self.first.plus(self.records.len() as u64)
    }

    /// The records from an offset on, with their offsets.
    pub fn records_from(&self, offset: Offset) -> impl Iterator<Item = (Offset, &Record)> {
        let numbered = (0..).map(|number| self.first.plus(number)).zip(&self.records);
        numbered.skip_while(move |(found, _)| *found < offset)
    }

    pub(super) fn row(self) -> Row {
        let last = Offset(self.next().0 - 1);
        let key = record_key(self.stream, self.partition, last);
        let bytes: u64 = self.records.iter().map(|record| record.bytes() + 16).sum();
        let mut value = Vec::with_capacity(usize::try_from(bytes).unwrap_or_default() + 32);
        let row = BatchRow {
            first: self.first,
            time: self.time,
            records: self.records,
        };
        wire::encode_into(Kind::Row, &row, &mut value);
        Row::written(key, value)
    }

    /// Reads a row; none when it holds no records.
    ///
    /// # Errors
    /// When the value cannot be read, or is not that of its key.
    pub fn of_row(key: &[u8], value: &[u8]) -> Result<Option<RecordBatch>, DecodeError> {
        let Some((stream, partition, last)) = key.strip_prefix(&[TABLE_RECORDS]).and_then(split_record_key)
        else {
            return Ok(None);
        };
        let BatchRow { first, time, records } = wire::decode(Kind::Row, value)?;
        let batch = RecordBatch {
            stream,
            partition,
            first,
            time,
            records,
        };
        if batch.records.is_empty() || batch.next() != last.plus(1) {
            return Err(DecodeError::Malformed {
                kind: Kind::Row,
                reason: format!(
                    "{} records from {first} do not end with {last}",
                    batch.records.len()
                ),
            });
        }
        Ok(Some(batch))
    }

    /// What the values, keys and ids of the records take, in bytes.
    pub fn bytes(&self) -> u64 {
        self.records.iter().map(NewRecord::bytes).sum()
    }
}

/// The row that says that a partition's records up to `last` are gone.
pub(super) fn records_gone(stream: StreamId, partition: u32, first: Offset, last: Offset) -> Row {
    Row::range_gone(
        record_key(stream, partition, first),
        record_key(stream, partition, last),
    )
}

/// The part of a value that is kept shares no memory with the request it came in.
pub(super) fn owned(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}
