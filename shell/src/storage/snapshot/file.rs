//! Reads a snapshot file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use quorate_core::raft::Position;

use super::super::{KeyValue, StorageError};
use super::format::{
    self, Digest, FormatError, MAGIC, PREFIX_BYTES, PieceKind, Prefix, SnapshotHeader, Trailer,
};
use super::position_of;
use crate::port::{File, OpenMode, Ports};

/// A whole snapshot. Cheap to clone; reading blocks the thread on the disk.
#[derive(Clone)]
pub struct Snapshot(Arc<Content>);

struct Content {
    directory: PathBuf,
    path: PathBuf,
    file: Box<dyn File>,
    header: SnapshotHeader,
    trailer: Trailer,
    /// Where each piece begins, and after the last one the end.
    offsets: Vec<u64>,
}

impl Snapshot {
    /// Opens a file and checks that it is complete; its chunks are verified when they are read.
    pub(super) fn open(ports: &Ports, directory: &Path, path: &Path) -> Result<Snapshot, StorageError> {
        let file = ports
            .files
            .open(path, OpenMode::Read)
            .map_err(StorageError::io("open", path))?;
        let mut scan = Scan::new(&*file, directory, path)?;
        let body = scan.piece(PieceKind::Header)?;
        let header = format::decode_header(&body).map_err(|error| scan.unusable(error))?;
        while scan.skip_chunk()? {}
        let digest = scan.digest.finish();
        let chunks = scan.offsets.len() as u64 - 2;
        let body = scan.piece(PieceKind::Trailer)?;
        let trailer = format::decode_trailer(&body).map_err(|error| scan.unusable(error))?;
        if scan.offset() != scan.length {
            return Err(scan.damaged("something follows the trailer"));
        }
        if trailer.chunks != chunks || trailer.digest != digest {
            return Err(scan.damaged("the trailer does not fit the chunks"));
        }
        if position_of(path) != Some(header.base.position) {
            return Err(scan.damaged("it is another snapshot than its name says"));
        }
        let offsets = scan.offsets;
        Ok(Snapshot(Arc::new(Content {
            directory: directory.to_owned(),
            path: path.to_owned(),
            file,
            header,
            trailer,
            offsets,
        })))
    }

    /// What it is of.
    pub fn header(&self) -> &SnapshotHeader {
        &self.0.header
    }

    /// The last entry whose effect is in it.
    pub fn position(&self) -> Position {
        self.0.header.base.position
    }

    /// Its size in bytes.
    pub fn length(&self) -> u64 {
        self.0.offsets.last().copied().unwrap_or_default()
    }

    /// How many rows it has.
    pub fn rows(&self) -> u64 {
        self.0.trailer.rows
    }

    /// How many chunks of rows it has.
    pub fn chunks(&self) -> u64 {
        self.0.trailer.chunks
    }

    /// How many pieces a transfer has: a header, the chunks, a trailer.
    pub fn pieces(&self) -> u64 {
        self.0.trailer.chunks + 2
    }

    /// One piece as it is transferred, verified.
    ///
    /// # Errors
    /// When it is damaged, or the disk fails.
    ///
    /// # Panics
    /// When there is no such piece.
    pub fn read_piece(&self, number: u64) -> Result<Vec<u8>, StorageError> {
        assert!(
            number < self.pieces(),
            "a snapshot has a piece for each chunk and two more"
        );
        let content = &self.0;
        let ordinal = usize::try_from(number).expect("the offsets are in memory");
        let (begin, end) = (content.offsets[ordinal], content.offsets[ordinal + 1]);
        let mut piece = vec![0; usize::try_from(end - begin).expect("a piece is bounded")];
        content
            .file
            .read_exact_at(&mut piece, begin)
            .map_err(StorageError::io("read", &content.path))?;
        format::decode_piece(number, &piece)
            .map_err(|error| unusable(&content.directory, &content.path, begin, error))?;
        Ok(piece)
    }

    /// The rows of one chunk, verified. Chunks are numbered from 0.
    ///
    /// # Errors
    /// When it is damaged, or the disk fails.
    ///
    /// # Panics
    /// When there is no such chunk.
    pub fn read_chunk(&self, chunk: u64) -> Result<Vec<KeyValue>, StorageError> {
        assert!(chunk < self.chunks(), "the chunk is in the snapshot");
        let piece = self.read_piece(chunk + 1)?;
        format::read_rows(&piece[PREFIX_BYTES..])
            .map_err(|error| unusable(&self.0.directory, &self.0.path, 0, error))
    }

    /// Calls `each` with the key and the value of every row, by key. When it fails, what `each` was given must not be
    /// used.
    ///
    /// # Errors
    /// When the snapshot is damaged, or the disk fails.
    pub fn for_each_row(&self, mut each: impl FnMut(Vec<u8>, Vec<u8>)) -> Result<(), StorageError> {
        for chunk in 0..self.chunks() {
            for (key, value) in self.read_chunk(chunk)? {
                each(key, value);
            }
        }
        Ok(())
    }
}

/// Walks over the pieces of a file.
pub(super) struct Scan<'a> {
    file: &'a dyn File,
    directory: &'a Path,
    path: &'a Path,
    length: u64,
    /// Where the pieces begin; the last one is where the scan is.
    pub(super) offsets: Vec<u64>,
    pub(super) digest: Digest,
}

impl<'a> Scan<'a> {
    pub(super) fn new(
        file: &'a dyn File,
        directory: &'a Path,
        path: &'a Path,
    ) -> Result<Scan<'a>, StorageError> {
        let mut scan = Scan {
            file,
            directory,
            path,
            length: file.length().map_err(StorageError::io("measure", path))?,
            offsets: vec![0],
            digest: Digest::new(),
        };
        if scan.read(MAGIC.len())? != MAGIC {
            return Err(scan.damaged("it does not begin like a snapshot"));
        }
        scan.offsets[0] = MAGIC.len() as u64;
        Ok(scan)
    }

    pub(super) fn offset(&self) -> u64 {
        *self.offsets.last().expect("a scan is somewhere")
    }

    fn damaged(&self, what: &str) -> StorageError {
        StorageError::damaged(self.directory, self.path, self.offset(), what)
    }

    fn unusable(&self, error: FormatError) -> StorageError {
        unusable(self.directory, self.path, self.offset(), error)
    }

    fn read(&self, length: usize) -> Result<Vec<u8>, StorageError> {
        let offset = self.offset();
        if self.length.saturating_sub(offset) < length as u64 {
            return Err(self.damaged("it ends too early"));
        }
        let mut bytes = vec![0; length];
        self.file
            .read_exact_at(&mut bytes, offset)
            .map_err(StorageError::io("read", self.path))?;
        Ok(bytes)
    }

    fn prefix(&self) -> Result<Prefix, StorageError> {
        let bytes = self.read(PREFIX_BYTES)?;
        let bytes = bytes.as_slice().try_into().expect("as long as asked for");
        let prefix = Prefix::decode(bytes).map_err(|error| self.unusable(error))?;
        if self.length - self.offset() < (PREFIX_BYTES + prefix.length) as u64 {
            return Err(self.damaged("a piece is longer than the file"));
        }
        Ok(prefix)
    }

    fn advance(&mut self, prefix: &Prefix) {
        self.digest.add(&prefix.hash);
        self.offsets
            .push(self.offset() + (PREFIX_BYTES + prefix.length) as u64);
    }

    /// The body of the next piece, verified.
    pub(super) fn piece(&mut self, kind: PieceKind) -> Result<Vec<u8>, StorageError> {
        let prefix = self.prefix()?;
        let mut bytes = self.read(PREFIX_BYTES + prefix.length)?;
        let body = bytes.split_off(PREFIX_BYTES);
        let number = self.offsets.len() as u64 - 1;
        prefix
            .verify(number, &body)
            .map_err(|error| self.unusable(error))?;
        if prefix.kind != kind {
            return Err(self.damaged("a piece is not of the kind that belongs here"));
        }
        self.advance(&prefix);
        Ok(body)
    }

    /// Steps over a chunk without reading it; false when the next piece is none.
    fn skip_chunk(&mut self) -> Result<bool, StorageError> {
        let prefix = self.prefix()?;
        if prefix.kind != PieceKind::Chunk {
            return Ok(false);
        }
        self.advance(&prefix);
        Ok(true)
    }
}

fn unusable(directory: &Path, path: &Path, offset: u64, error: FormatError) -> StorageError {
    match error {
        FormatError::Newer(found) => StorageError::Newer {
            path: path.to_owned(),
            found,
            supported: format::VERSION,
        },
        FormatError::Damaged(what) => StorageError::Damaged {
            path: path.to_owned(),
            offset: Some(offset),
            what,
            directory: directory.to_owned(),
        },
    }
}
