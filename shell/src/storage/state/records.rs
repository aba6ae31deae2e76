//! The records of streams, which are on disk and not in memory.
//!
//! What was applied can be read at once, although it is written behind: until then it is in [`Unwritten`], which shares
//! its bytes with the queue of the state lane and is bounded by that queue. A reader looks there first and on the disk
//! then, so that a row that is written between the two is found twice, and never missed.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use quorate_core::state::{Offset, RecordBatch, StreamId, record_key};
use redb::ReadableDatabase;

use super::{ROWS, Row, RowChange, StateReader, current, damaged_row, remove_range, row, there};
use crate::storage::StorageError;

type Pending = BTreeMap<Vec<u8>, Bytes>;

/// Records that were applied and are not on disk yet. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Unwritten(Arc<Mutex<Pending>>);

impl Unwritten {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the records among rows readable that will be handed to the state lane. False when there are none.
    pub fn announce(&self, rows: &[Row]) -> bool {
        let mut of_records = rows.iter().filter(|row| Row::holds_records(&row.key)).peekable();
        if of_records.peek().is_none() {
            return false;
        }
        let mut pending = self.lock();
        for row in of_records {
            match &row.change {
                RowChange::Written(value) => drop(pending.insert(row.key.clone(), value.clone())),
                RowChange::Gone => drop(pending.remove(&row.key)),
                RowChange::RangeGone { last } => remove_range(&mut pending, &row.key, last),
            }
        }
        true
    }

    /// Rows of these keys, ascending, are on disk.
    pub(super) fn written<'a>(&self, keys: impl DoubleEndedIterator<Item = &'a Vec<u8>>) {
        // Records come after all other rows.
        let mut of_records = keys.rev().take_while(|key| Row::holds_records(key)).peekable();
        if of_records.peek().is_some() {
            let mut pending = self.lock();
            for key in of_records {
                pending.remove(key);
            }
        }
    }

    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// About `bytes_max` bytes of rows between two keys.
    fn between(&self, first: &[u8], last: &[u8], bytes_max: usize) -> Vec<(Vec<u8>, Bytes)> {
        let pending = self.lock();
        let range = (Bound::Included(first), Bound::Included(last));
        let mut bytes = 0;
        let rows = pending.range::<[u8], _>(range).take_while(|(_, value)| {
            let more = bytes < bytes_max;
            bytes += value.len();
            more
        });
        rows.map(|(key, value)| (key.clone(), value.clone())).collect()
    }
}

impl StateReader {
    /// Reads a partition from the record at `from` on: about `bytes_max` bytes of whole batches, at least one if there is
    /// one. They follow each other without a gap; when the first one begins after `from`, retention dropped what was
    /// before it.
    ///
    /// # Errors
    /// When a row is damaged, or the disk fails.
    pub fn records(
        &self,
        stream: StreamId,
        partition: u32,
        from: Offset,
        bytes_max: usize,
    ) -> Result<Vec<RecordBatch>, StorageError> {
        let (first, last) = (
            record_key(stream, partition, from),
            record_key(stream, partition, Offset(u64::MAX)),
        );
        let pending = self.unwritten.between(&first, &last, bytes_max);
        // Whoever follows a stream finds all that is new here, and does not wait for a disk that is being written to.
        let begins = pending
            .first()
            .map(|(key, value)| RecordBatch::of_row(key, value));
        let written = match begins {
            Some(Ok(Some(batch))) if batch.first <= from => Vec::new(),
            _ => self.written(&first, &last, bytes_max)?,
        };
        let bytes: usize = written.iter().map(|(_, value)| value.len()).sum();
        let mut rows: BTreeMap<Vec<u8>, Bytes> = written.into_iter().collect();
        // What is pending follows what is written, unless there is more of that than was read.
        if bytes < bytes_max || rows.is_empty() {
            rows.extend(pending);
        }
        let mut batches: Vec<RecordBatch> = Vec::with_capacity(rows.len());
        for (key, value) in rows {
            let batch = RecordBatch::of_row(&key, &value).ok().flatten();
            let batch = batch.ok_or_else(|| self.place.damaged("a row of a stream cannot be read"))?;
            if batches.last().is_some_and(|before| before.next() != batch.first) {
                // What is missing was dropped while this was read, and all before it with it.
                batches.clear();
            }
            batches.push(batch);
        }
        Ok(batches)
    }

    /// The same from the disk alone, undecoded.
    fn written(
        &self,
        first: &[u8],
        last: &[u8],
        bytes_max: usize,
    ) -> Result<Vec<(Vec<u8>, Bytes)>, StorageError> {
        let handle = current(&self.shared);
        self.place.guard("read", || {
            let transaction = handle.database().begin_read()?;
            let mut found = Vec::new();
            let Some(table) = there(transaction.open_table(ROWS))? else {
                return Ok(found);
            };
            let mut bytes = 0;
            for item in table.range::<&[u8]>(first..=last)? {
                let (key, stored) = item?;
                let (key, stored) = (key.value(), stored.value());
                let value = row::decode_row(key, stored).ok_or_else(|| damaged_row(key))?;
                bytes += value.len();
                found.push((key.to_vec(), Bytes::copy_from_slice(value)));
                if bytes >= bytes_max {
                    break;
                }
            }
            Ok(found)
        })
    }
}
