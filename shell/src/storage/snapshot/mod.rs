//! Snapshots: the rows of the state machine at one index, as immutable files.
//!
//! A snapshot is what a node gets that is too far behind for the log, and what a backup is. It is copied from the
//! state database at disk speed when it is needed, and read and sent from the file for as long as that takes.
//!
//! Invariants:
//! - A file has its final name only when it is whole and durable; it never changes afterwards.
//! - Two nodes with the same state write the same bytes, so that a transfer broken off with one sender can be resumed
//!   with another.
//! - Every piece is verified when it is written, received and read.

mod file;
mod format;
mod receive;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use quorate_core::raft::{Index, Position, Term};
use quorate_core::wire::{self, Kind};

pub(super) use self::format::feed;
use self::format::{Digest, MAGIC, PieceKind, Trailer};
use super::StorageError;
use crate::planted::{Planted, PlantedBug};
use crate::port::{File, OpenMode, Ports};

pub use self::file::Snapshot;
pub use self::format::SnapshotHeader;
pub use self::receive::{ReceiveError, Receiver};

/// About how many bytes of rows a chunk holds.
pub const SNAPSHOT_PIECE_BYTES: usize = 256 << 10;
const FINAL: &str = "snapshot";
const WRITTEN: &str = "tmp";
const RECEIVED: &str = "partial";

/// The snapshots of one data directory.
#[derive(Clone)]
pub struct Snapshots {
    ports: Ports,
    directory: PathBuf,
    path: PathBuf,
    chunk_bytes: usize,
}

impl Snapshots {
    /// Opens the snapshots at `path`, and removes what a crash left half written.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn open(ports: &Ports, path: &Path) -> Result<Snapshots, StorageError> {
        let files = &ports.files;
        files
            .create_directory(path)
            .map_err(StorageError::io("create", path))?;
        let snapshots = Snapshots {
            ports: ports.clone(),
            directory: path.parent().unwrap_or(path).to_owned(),
            path: path.to_owned(),
            chunk_bytes: SNAPSHOT_PIECE_BYTES,
        };
        for path in snapshots.paths(WRITTEN)? {
            files.remove(&path).map_err(StorageError::io("remove", &path))?;
        }
        Ok(snapshots)
    }

    /// The mistake that the node makes.
    pub(crate) fn planted(&self) -> Planted {
        self.ports.planted
    }

    /// With chunks of about so many bytes of rows.
    pub fn with_pieces_of(self, chunk_bytes: usize) -> Snapshots {
        Snapshots { chunk_bytes, ..self }
    }

    /// Where the whole snapshots are up to, ascending by index.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn list(&self) -> Result<Vec<Position>, StorageError> {
        let paths = self.paths(FINAL)?;
        let mut positions: Vec<Position> = paths.iter().filter_map(|path| position_of(path)).collect();
        positions.sort_by_key(|position| (position.index, position.term));
        Ok(positions)
    }

    /// The snapshot up to `position`, when there is one.
    ///
    /// # Errors
    /// When it is damaged, or the disk fails.
    pub fn find(&self, position: Position) -> Result<Option<Snapshot>, StorageError> {
        let path = self.file(position, FINAL);
        let files = &self.ports.files;
        if !files.exists(&path).map_err(StorageError::io("look for", &path))? {
            return Ok(None);
        }
        Snapshot::open(&self.ports, &self.directory, &path).map(Some)
    }

    /// The snapshot with the greatest index, when there is one. A damaged one is passed over when an older one is whole.
    ///
    /// # Errors
    /// When all are damaged, or the disk fails.
    pub fn newest(&self) -> Result<Option<Snapshot>, StorageError> {
        let mut first = None;
        for position in self.list()?.into_iter().rev() {
            match self.find(position) {
                Ok(Some(snapshot)) => return Ok(Some(snapshot)),
                Ok(None) => (),
                Err(error @ StorageError::Damaged { .. }) => {
                    tracing::warn!(%error, "a snapshot is passed over");
                    first.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        first.map_or(Ok(None), Err)
    }

    /// Removes a snapshot, such as one that turned out to be damaged when it was read.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn remove(&self, position: Position) -> Result<(), StorageError> {
        let path = self.file(position, FINAL);
        self.ports
            .files
            .remove(&path)
            .map_err(StorageError::io("remove", &path))
    }

    /// Removes all but the newest `keep` snapshots and those that end where one is wanted.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn retain(&self, keep: usize, is_wanted: impl Fn(&Position) -> bool) -> Result<(), StorageError> {
        let positions = self.list()?;
        let older = &positions[..positions.len().saturating_sub(keep)];
        for position in older.iter().filter(|position| !is_wanted(position)) {
            self.remove(*position)?;
        }
        Ok(())
    }

    /// Removes what was received of snapshots that end at `index` or before, and never became whole.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn forget_received(&self, index: Index) -> Result<(), StorageError> {
        for path in self.paths(RECEIVED)? {
            if position_of(&path).is_some_and(|position| position.index <= index) {
                let removed = self.ports.files.remove(&path);
                removed.map_err(StorageError::io("remove", &path))?;
            }
        }
        Ok(())
    }

    /// Begins to write a snapshot.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn create(&self, header: SnapshotHeader) -> Result<SnapshotWriter, StorageError> {
        let path = self.file(header.base.position, WRITTEN);
        let output = Output::create(self, path)?;
        let mut writer = SnapshotWriter {
            snapshots: self.clone(),
            header,
            output,
            chunk: Vec::new(),
            rows: 0,
        };
        let body = wire::encode(Kind::SnapshotHeader, &writer.header);
        writer.output.write_piece(PieceKind::Header, &body)?;
        Ok(writer)
    }

    fn file(&self, position: Position, extension: &str) -> PathBuf {
        let name = format!("{:020}-{:020}.{extension}", position.index.0, position.term.0);
        self.path.join(name)
    }

    fn paths(&self, extension: &str) -> Result<Vec<PathBuf>, StorageError> {
        let mut paths = self
            .ports
            .files
            .list(&self.path)
            .map_err(StorageError::io("list", &self.path))?;
        paths.retain(|path| path.extension().is_some_and(|found| found == extension));
        Ok(paths)
    }
}

fn position_of(path: &Path) -> Option<Position> {
    let (index, term) = path.file_stem()?.to_str()?.split_once('-')?;
    Some(Position {
        term: Term(term.parse().ok()?),
        index: Index(index.parse().ok()?),
    })
}

/// A file that grows by pieces under a temporary name.
struct Output {
    path: PathBuf,
    file: Box<dyn File>,
    length: u64,
    pieces: u64,
    digest: Digest,
}

impl Output {
    fn create(snapshots: &Snapshots, path: PathBuf) -> Result<Output, StorageError> {
        let files = &snapshots.ports.files;
        if files.exists(&path).map_err(StorageError::io("look for", &path))? {
            files.remove(&path).map_err(StorageError::io("remove", &path))?;
        }
        let file = files
            .open(&path, OpenMode::CreateNew)
            .map_err(StorageError::io("create", &path))?;
        let mut output = Output {
            path,
            file,
            length: 0,
            pieces: 0,
            digest: Digest::new(),
        };
        output.write(&MAGIC)?;
        Ok(output)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        self.file
            .write_all_at(bytes, self.length)
            .map_err(StorageError::io("write", &self.path))?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn write_piece(&mut self, kind: PieceKind, body: &[u8]) -> Result<(), StorageError> {
        let (piece, hash) = format::encode_piece(self.pieces, kind, body);
        self.add(&piece, &hash)
    }

    /// Appends a verified piece.
    fn add(&mut self, piece: &[u8], hash: &[u8; format::HASH_BYTES]) -> Result<(), StorageError> {
        self.write(piece)?;
        self.digest.add(hash);
        self.pieces += 1;
        Ok(())
    }

    async fn sync(&self) -> Result<(), StorageError> {
        self.file
            .sync()
            .await
            .map_err(StorageError::io("sync", &self.path))
    }

    /// Makes the file durable and gives it its final name.
    async fn publish(&self, snapshots: &Snapshots, position: Position) -> Result<Snapshot, StorageError> {
        if !snapshots.ports.planted.is(PlantedBug::SnapshotIsNotSynced) {
            self.sync().await?;
        }
        let path = snapshots.file(position, FINAL);
        let files = &snapshots.ports.files;
        files
            .rename(&self.path, &path)
            .map_err(StorageError::io("rename", &self.path))?;
        files
            .sync_directory(&snapshots.path)
            .map_err(StorageError::io("sync", &snapshots.path))?;
        Snapshot::open(&snapshots.ports, &snapshots.directory, &path)
    }
}

/// A snapshot that is being written. It has no effect until it is finished.
pub struct SnapshotWriter {
    snapshots: Snapshots,
    header: SnapshotHeader,
    output: Output,
    chunk: Vec<u8>,
    rows: u64,
}

impl SnapshotWriter {
    /// Adds a row; rows come in the order of their keys.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn push(&mut self, key: &[u8], value: &[u8]) -> Result<(), StorageError> {
        format::push_row(key, value, &mut self.chunk);
        self.rows += 1;
        if self.chunk.len() >= self.snapshots.chunk_bytes {
            self.end_chunk()?;
        }
        Ok(())
    }

    fn end_chunk(&mut self) -> Result<(), StorageError> {
        let chunk = std::mem::take(&mut self.chunk);
        self.output.write_piece(PieceKind::Chunk, &chunk)
    }

    /// Makes what was written durable, so that not all of it has to be at the end.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn sync(&self) -> Result<(), StorageError> {
        self.output.sync().await
    }

    /// Ends the snapshot and makes it durable.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn finish(mut self) -> Result<Snapshot, StorageError> {
        if !self.chunk.is_empty() {
            self.end_chunk()?;
        }
        let trailer = Trailer {
            chunks: self.output.pieces - 1,
            rows: self.rows,
            digest: self.output.digest.finish(),
        };
        self.output
            .write_piece(PieceKind::Trailer, &format::encode_trailer(&trailer))?;
        self.output
            .publish(&self.snapshots, self.header.base.position)
            .await
    }
}
