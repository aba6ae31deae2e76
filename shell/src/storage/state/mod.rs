//! The state machine's rows on disk (`state.redb`), written behind the log.
//!
//! The state machine lives in memory. What it changes is committed here later, in large transactions, each with the
//! last entry that it contains; after a restart the log is replayed from there. The log is purged only up to what is
//! committed here, so that a commit may come late but never be lost.
//!
//! Invariants:
//! - A transaction holds exactly the state after its `applied` entry, the records of streams included: they are rows of
//!   the same table, after all others, so that no crash and no snapshot can tear state and records apart. They alone are
//!   not loaded when the node starts, but [read](records) when somebody asks.
//! - Every row carries a checksum that covers its key; the manifest carries the number of rows and a digest of them.
//!   Both are verified whenever rows are read, so that no row is wrong, missing, left over or of another commit.
//! - Commits are two-phase: redb's single-phase commits can lose the last commits silently.
//! - When a snapshot replaces the state, a new database is built beside the old one and renamed over it when it is
//!   durable. Until then the old one is whole.

mod engine;
mod lane;
mod records;
pub(super) mod row;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use quorate_core::raft::{Base, Membership, Position};
use redb::{ReadOnlyTable, ReadTransaction, ReadableDatabase, Table, TableDefinition, TableError};

use self::engine::{Failure, Handle, Place};
pub(super) use self::row::feed;
use self::row::{Manifest, Sum};
use super::snapshot::{Snapshot, SnapshotHeader, Snapshots};
use super::{KeyValue, StorageError};
use crate::port::Ports;

pub use self::lane::{StateLane, StateSender, run_state_lane, state_lane};
pub use self::records::Unwritten;
pub use quorate_core::state::{Row, RowChange};

type Bytes = &'static [u8];
const ROWS: TableDefinition<'static, Bytes, Bytes> = TableDefinition::new("rows");
const MANIFEST: TableDefinition<'static, Bytes, Bytes> = TableDefinition::new("manifest");
const MANIFEST_KEY: &[u8] = b"manifest";

/// What applying some entries changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowBatch {
    /// The last of these entries.
    pub applied: Position,
    /// The membership in force at `applied`, when it is not that of the batch before. The first batch of a new store
    /// must have it.
    pub membership: Option<Membership>,
    /// The changes, in order.
    pub rows: Vec<Row>,
}

impl RowBatch {
    /// What the batch costs in memory, in bytes; a close estimate that bounds queues.
    pub fn size(&self) -> u64 {
        const OVERHEAD: usize = 64;
        let rows = self.rows.iter();
        let bytes: usize = rows
            .map(|row| OVERHEAD + row.key.len() + row.value().map_or(0, |value| value.len()))
            .sum();
        (OVERHEAD + bytes) as u64
    }
}

/// The changes of several batches, with only the last change of each row.
#[derive(Default)]
struct Changes {
    applied: Position,
    membership: Option<Membership>,
    rows: Rows,
    /// Ranges of rows that are gone, by their first and last keys; `rows` come after them.
    gone: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Rows by their keys; none for those that are gone.
type Rows = BTreeMap<Vec<u8>, Option<bytes::Bytes>>;

impl Changes {
    fn add(&mut self, batch: RowBatch) {
        self.applied = batch.applied;
        if batch.membership.is_some() {
            self.membership = batch.membership;
        }
        for Row { key, change } in batch.rows {
            match change {
                RowChange::Written(value) => drop(self.rows.insert(key, Some(value))),
                RowChange::Gone => drop(self.rows.insert(key, None)),
                RowChange::RangeGone { last } => {
                    remove_range(&mut self.rows, &key, &last);
                    self.gone.push((key, last));
                }
            }
        }
    }
}

/// Removes what is between two keys, which are removed as well.
fn remove_range<T>(rows: &mut BTreeMap<Vec<u8>, T>, first: &[u8], last: &[u8]) {
    let range = (Bound::Included(first), Bound::Included(last));
    if first <= last {
        let keys: Vec<Vec<u8>> = rows.range::<[u8], _>(range).map(|(key, _)| key.clone()).collect();
        for key in keys {
            rows.remove(&key);
        }
    }
}

/// What a store holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The last entry that is in it.
    pub applied: Position,
    /// The membership in force at that entry; nothing in a new store.
    pub membership: Option<Membership>,
    /// How many rows there are, not counting the records of streams.
    pub rows: u64,
}

impl From<&Manifest> for Loaded {
    fn from(manifest: &Manifest) -> Loaded {
        Loaded {
            applied: manifest.applied,
            membership: manifest.membership.clone(),
            rows: manifest.sum.rows,
        }
    }
}

/// The database, which an installed snapshot replaces.
type Shared = Arc<Mutex<Arc<Handle>>>;

fn current(shared: &Shared) -> Arc<Handle> {
    Arc::clone(&shared.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The writer of the state database. Every call blocks its thread on the disk.
pub struct StateStore {
    place: Place,
    shared: Shared,
    manifest: Manifest,
    unwritten: Unwritten,
}

impl StateStore {
    /// Opens the database at `path`, or creates it.
    ///
    /// # Errors
    /// When it is damaged, of a newer version, or the disk fails.
    pub fn open(ports: &Ports, path: &Path) -> Result<StateStore, StorageError> {
        let place = Place::new(ports, path);
        remove_unfinished(&place)?;
        let handle = Arc::new(place.open()?);
        let manifest = View::open(&place, &handle)?.manifest;
        // The file may be new, or a killed process may have renamed it: from here on its name counts.
        ports
            .files
            .sync_directory(&place.directory)
            .map_err(StorageError::io("sync", &place.directory))?;
        Ok(StateStore {
            place,
            shared: Arc::new(Mutex::new(handle)),
            manifest,
            unwritten: Unwritten::default(),
        })
    }

    /// Opens the database at `path`, and brings it up to the base of the log: a crash may have come after the log
    /// began anew behind a received snapshot, and before the snapshot was installed here.
    ///
    /// # Errors
    /// As [`StateStore::open`]; also when no snapshot holds what the log no longer has.
    pub async fn open_behind(
        ports: &Ports,
        path: &Path,
        snapshots: &Snapshots,
        base: Option<&Base>,
    ) -> Result<StateStore, StorageError> {
        let mut store = StateStore::open(ports, path)?;
        let begin = base.map_or(Position::default(), |base| base.position);
        if store.manifest.applied.index >= begin.index {
            return Ok(store);
        }
        let newest = snapshots
            .newest()?
            .filter(|snapshot| snapshot.position().index >= begin.index);
        let Some(snapshot) = newest else {
            let applied = store.manifest.applied.index;
            return Err(store.place.damaged(format!(
                "it holds the state up to index {applied}, but the log begins after {}, and no snapshot covers the \
                 entries between",
                begin.index
            )));
        };
        store.install(&snapshot).await?;
        Ok(store)
    }

    /// What the store holds.
    pub fn loaded(&self) -> Loaded {
        (&self.manifest).into()
    }

    /// Reads beside this writer.
    pub fn reader(&self) -> StateReader {
        StateReader {
            place: self.place.clone(),
            shared: Arc::clone(&self.shared),
            unwritten: self.unwritten.clone(),
        }
    }

    /// The records that are to be written here.
    pub fn unwritten(&self) -> Unwritten {
        self.unwritten.clone()
    }

    /// Calls `each` with the key and the value of every row, by key, but for the records of streams. When it fails, what
    /// `each` was given must not be used.
    ///
    /// # Errors
    /// When a row is damaged, missing or left over, or the disk fails.
    pub fn load(&self, mut each: impl FnMut(&[u8], &[u8])) -> Result<Loaded, StorageError> {
        let handle = current(&self.shared);
        let view = View::open(&self.place, &handle)?;
        let sum = self.place.guard("read", || {
            let mut sum = Sum::default();
            let Some(rows) = &view.rows else {
                return Ok(sum);
            };
            for item in rows.range::<&[u8]>(..Row::RECORDS_FROM)? {
                let (key, stored) = item?;
                let (key, stored) = (key.value(), stored.value());
                let value = row::decode_row(key, stored).ok_or_else(|| damaged_row(key))?;
                sum.add(key, stored);
                each(key, value);
            }
            Ok(sum)
        })?;
        check(&self.place, view.manifest.sum, sum)?;
        Ok((&view.manifest).into())
    }

    /// Commits a batch, durably.
    ///
    /// # Errors
    /// When the disk fails or is full, or damage is met. The store is not to be used any more then.
    pub fn write(&mut self, batch: RowBatch) -> Result<(), StorageError> {
        let mut changes = Changes::default();
        changes.add(batch);
        self.commit(&changes)
    }

    fn commit(&mut self, changes: &Changes) -> Result<(), StorageError> {
        let mut manifest = self.manifest.clone();
        manifest.applied = changes.applied;
        if changes.membership.is_some() {
            manifest.membership.clone_from(&changes.membership);
        }
        let handle = current(&self.shared);
        self.place.guard("write", || {
            commit(&handle, &mut manifest, &changes.gone, &changes.rows)
        })?;
        self.manifest = manifest;
        self.unwritten.written(changes.rows.keys());
        Ok(())
    }

    /// Replaces everything by the state in a snapshot, durably. A crash leaves the old state or the new one.
    ///
    /// # Errors
    /// When the snapshot is damaged or the disk fails.
    pub async fn install(&mut self, snapshot: &Snapshot) -> Result<(), StorageError> {
        let files = &self.place.ports.files;
        let path = remove_unfinished(&self.place)?;
        let new = Place::new(&self.place.ports, &path);
        build(&new, snapshot)?;
        files
            .rename(&path, &self.place.path)
            .map_err(StorageError::io("rename", &path))?;
        files
            .sync_directory(&self.place.directory)
            .map_err(StorageError::io("sync", &self.place.directory))?;
        let handle = Arc::new(self.place.open()?);
        self.manifest = View::open(&self.place, &handle)?.manifest;
        *self.shared.lock().unwrap_or_else(PoisonError::into_inner) = handle;
        self.unwritten.clear();
        Ok(())
    }
}

/// Removes what a crash left of an install, and returns where it was.
fn remove_unfinished(place: &Place) -> Result<PathBuf, StorageError> {
    let files = &place.ports.files;
    let path = place.path.with_extension("redb.new");
    if files.exists(&path).map_err(StorageError::io("look for", &path))? {
        files.remove(&path).map_err(StorageError::io("remove", &path))?;
    }
    Ok(path)
}

fn damaged_row(key: &[u8]) -> Failure {
    Failure::Damaged(format!(
        "the checksum of the row {:?} does not match",
        String::from_utf8_lossy(key)
    ))
}

/// One transaction: `rows`, and the manifest that they lead to.
fn commit(
    handle: &Handle,
    manifest: &mut Manifest,
    gone: &[(Vec<u8>, Vec<u8>)],
    rows: &Rows,
) -> Result<(), Failure> {
    let mut transaction = handle.database().begin_write()?;
    transaction.set_two_phase_commit(true);
    transaction.set_quick_repair(true);
    {
        let mut table: Table<'_, Bytes, Bytes> = transaction.open_table(ROWS)?;
        for (first, last) in gone {
            table.retain_in::<&[u8], _>(first.as_slice()..=last.as_slice(), |key, old| {
                manifest.sum_of(key).remove(key, old);
                false
            })?;
        }
        for (key, value) in rows {
            let key = key.as_slice();
            let sum = manifest.sum_of(key);
            if let Some(value) = value {
                let stored = row::encode_row(key, value);
                if let Some(old) = table.insert(key, stored.as_slice())? {
                    sum.remove(key, old.value());
                }
                sum.add(key, &stored);
            } else if let Some(old) = table.remove(key)? {
                sum.remove(key, old.value());
            }
        }
        let mut table = transaction.open_table(MANIFEST)?;
        table.insert(MANIFEST_KEY, row::encode_manifest(manifest).as_slice())?;
    }
    transaction.commit()?;
    Ok(())
}

/// Rows that one transaction of an install holds at most, in bytes.
const INSTALL_BYTES: usize = 16 << 20;

/// Makes a new database with the rows of a snapshot, durable and closed. Only its last transaction has the manifest's
/// position, but nobody sees it before it has its final name anyway.
fn build(place: &Place, snapshot: &Snapshot) -> Result<(), StorageError> {
    let handle = place.open()?;
    let mut manifest = Manifest::default();
    let mut rows = Rows::new();
    let mut bytes = 0;
    for chunk in 0..snapshot.chunks() {
        let mut chunk = snapshot.read_chunk(chunk)?;
        bytes += chunk
            .iter()
            .map(|(key, value)| key.len() + value.len())
            .sum::<usize>();
        rows.extend(chunk.drain(..).map(|(key, value)| (key, Some(value.into()))));
        if bytes > INSTALL_BYTES {
            place.guard("write", || commit(&handle, &mut manifest, &[], &rows))?;
            rows.clear();
            bytes = 0;
        }
    }
    let base = &snapshot.header().base;
    manifest.applied = base.position;
    manifest.membership = Some(base.membership.clone());
    place.guard("write", || commit(&handle, &mut manifest, &[], &rows))
}

/// A consistent view of the database.
struct View {
    rows: Option<ReadOnlyTable<Bytes, Bytes>>,
    manifest: Manifest,
    _transaction: ReadTransaction,
}

impl View {
    fn open(place: &Place, handle: &Handle) -> Result<View, StorageError> {
        place.guard("read", || {
            let transaction = handle.database().begin_read()?;
            let rows = there(transaction.open_table(ROWS))?;
            let manifest = match there(transaction.open_table(MANIFEST))? {
                Some(table) => match table.get(MANIFEST_KEY)? {
                    Some(bytes) => row::decode_manifest(bytes.value())?,
                    None => return Err(Failure::Damaged("the manifest is missing".to_owned())),
                },
                None if rows.is_some() => return Err(Failure::Damaged("the manifest is missing".to_owned())),
                None => Manifest::default(),
            };
            Ok(View {
                rows,
                manifest,
                _transaction: transaction,
            })
        })
    }

    /// About `bytes_max` bytes of rows after the key `after`, counted into `sum`; none at the end.
    fn slice(
        &self,
        place: &Place,
        after: Option<&[u8]>,
        bytes_max: usize,
        sum: &mut Sum,
    ) -> Result<Vec<KeyValue>, StorageError> {
        place.guard("read", || {
            let mut slice = Vec::new();
            let Some(rows) = &self.rows else {
                return Ok(slice);
            };
            let mut bytes = 0;
            let begin = after.map_or(Bound::Unbounded, Bound::Excluded);
            for item in rows.range::<&[u8]>((begin, Bound::Unbounded))? {
                let (key, stored) = item?;
                let (key, stored) = (key.value(), stored.value());
                let value = row::decode_row(key, stored).ok_or_else(|| damaged_row(key))?;
                sum.add(key, stored);
                bytes += key.len() + value.len();
                slice.push((key.to_vec(), value.to_vec()));
                if bytes >= bytes_max {
                    break;
                }
            }
            Ok(slice)
        })
    }
}

/// Compares what was read with what the manifest says.
fn check(place: &Place, expected: Sum, found: Sum) -> Result<(), StorageError> {
    if found.rows != expected.rows {
        return Err(place.damaged(format!("it has {} rows instead of {}", found.rows, expected.rows)));
    }
    if found.digest != expected.digest {
        return Err(place.damaged("its rows are not those that were committed together"));
    }
    Ok(())
}

/// A table, or nothing when it was never written.
fn there<T>(table: Result<T, TableError>) -> Result<Option<T>, Failure> {
    match table {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Reads the state database beside its writer. Cheap to clone.
#[derive(Clone)]
pub struct StateReader {
    place: Place,
    shared: Shared,
    unwritten: Unwritten,
}

/// How much is read and written between two syncs of a new snapshot, in bytes.
const COPY_BYTES: usize = 4 << 20;

impl StateReader {
    /// Copies what is committed into a new snapshot, which is durable then, and removes older ones. Nothing comes back
    /// from a store that is still empty.
    ///
    /// The transaction is open only as long as the copy takes: one held for a slow receiver lets the database grow.
    ///
    /// # Errors
    /// When damage is met or the disk fails.
    pub async fn snapshot(&self, snapshots: &Snapshots) -> Result<Option<Snapshot>, StorageError> {
        let handle = current(&self.shared);
        let view = View::open(&self.place, &handle)?;
        let Some(membership) = view.manifest.membership.clone() else {
            return Ok(None);
        };
        let base = Base {
            position: view.manifest.applied,
            membership,
        };
        match snapshots.find(base.position) {
            Ok(None) => (),
            Ok(there) => return Ok(there),
            // The new one takes its place.
            Err(error @ StorageError::Damaged { .. }) => tracing::warn!(%error, "a snapshot is written anew"),
            Err(error) => return Err(error),
        }
        let mut writer = snapshots.create(SnapshotHeader { base })?;
        let mut sum = Sum::default();
        let mut slice = view.slice(&self.place, None, COPY_BYTES, &mut sum)?;
        while let Some((last, _)) = slice.last() {
            for (key, value) in &slice {
                writer.push(key, value)?;
            }
            writer.sync().await?;
            slice = view.slice(&self.place, Some(last), COPY_BYTES, &mut sum)?;
        }
        check(&self.place, view.manifest.sum.and(view.manifest.records), sum)?;
        drop(view);
        writer.finish().await.map(Some)
    }
}
