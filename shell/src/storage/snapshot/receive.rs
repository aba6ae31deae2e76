//! Takes in a snapshot piece by piece, and goes on where it was broken off.

use thiserror::Error;

use super::file::{Scan, Snapshot};
use super::format::{self, FormatError, PREFIX_BYTES, PieceKind};
use super::{Output, RECEIVED, SnapshotHeader, Snapshots, StorageError};
use crate::port::OpenMode;

/// Why a piece was not taken.
#[derive(Debug, Error)]
pub enum ReceiveError {
    /// The piece is not what the sender's file says, or the sender is broken.
    #[error("piece {number} of the snapshot was refused: {what}")]
    Malformed {
        /// Which piece.
        number: u64,
        /// What is wrong with it.
        what: String,
    },
    /// A piece is missing before this one.
    #[error("piece {found} of the snapshot came before piece {expected}")]
    Gap {
        /// The piece that is needed next.
        expected: u64,
        /// The one that came.
        found: u64,
    },
    /// All pieces are there, and they do not make one snapshot: they came from different ones. The transfer has to
    /// begin anew.
    #[error("the pieces of the snapshot do not belong together; the transfer begins anew")]
    Mixed,
    /// The disk failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// A snapshot that is being received.
pub struct Receiver {
    snapshots: Snapshots,
    header: SnapshotHeader,
    output: Output,
    unsynced_bytes: usize,
}

/// How much is written between two syncs, in bytes.
const SYNC_BYTES: usize = 8 << 20;

fn malformed(number: u64) -> impl FnOnce(FormatError) -> ReceiveError {
    move |error| ReceiveError::Malformed {
        number,
        what: match error {
            FormatError::Newer(version) => {
                format!("its version {version} is newer than what this build reads: upgrade this node")
            }
            FormatError::Damaged(what) => what,
        },
    }
}

impl Snapshots {
    /// What a sender's piece 0 announces.
    ///
    /// # Errors
    /// When it is no such piece.
    pub fn announced(piece: &[u8]) -> Result<SnapshotHeader, ReceiveError> {
        let (prefix, body) = format::decode_piece(0, piece).map_err(malformed(0))?;
        if prefix.kind != PieceKind::Header {
            return Err(ReceiveError::Malformed {
                number: 0,
                what: "it is no header".to_owned(),
            });
        }
        format::decode_header(body).map_err(malformed(0))
    }

    /// Which of the snapshots that open with these pieces is here already, whole or in part: the first of them.
    ///
    /// # Errors
    /// When a piece is no header, or the disk fails.
    pub fn begun(&self, firsts: &[&[u8]]) -> Result<Option<usize>, ReceiveError> {
        for (place, first) in firsts.iter().enumerate() {
            let path = self.file(Snapshots::announced(first)?.base.position, RECEIVED);
            let partly = self.ports.files.exists(&path);
            if partly.map_err(StorageError::io("look for", &path))? || self.has(first)? {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    /// Whether the snapshot that opens with `first` is here and whole: the node stopped before it could use it.
    ///
    /// # Errors
    /// When the piece is no header, or the disk fails.
    pub fn has(&self, first: &[u8]) -> Result<bool, ReceiveError> {
        let header = Snapshots::announced(first)?;
        match self.find(header.base.position) {
            Ok(found) => Ok(found.is_some_and(|found| *found.header() == header)),
            // It is received again, and takes the place of this one.
            Err(StorageError::Damaged { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Begins to receive the snapshot that opens with `piece`, or goes on where it was broken off. Other unfinished
    /// ones are given up.
    ///
    /// # Errors
    /// When the piece is no header, or the disk fails.
    pub fn receive(&self, piece: &[u8]) -> Result<Receiver, ReceiveError> {
        let header = Snapshots::announced(piece)?;
        let path = self.file(header.base.position, RECEIVED);
        let files = &self.ports.files;
        for other in self.paths(RECEIVED)? {
            if other != path {
                files.remove(&other).map_err(StorageError::io("remove", &other))?;
            }
        }
        if files.exists(&path).map_err(StorageError::io("look for", &path))?
            && let Some(output) = self.resume(&path, piece)?
        {
            return Ok(Receiver {
                snapshots: self.clone(),
                header,
                output,
                unsynced_bytes: 0,
            });
        }
        let mut receiver = Receiver {
            snapshots: self.clone(),
            header,
            output: Output::create(self, path)?,
            unsynced_bytes: 0,
        };
        let (prefix, _) = format::decode_piece(0, piece).map_err(malformed(0))?;
        receiver.output.add(piece, &prefix.hash)?;
        Ok(receiver)
    }

    /// What was received of the same snapshot before, up to the first piece that is not whole.
    fn resume(&self, path: &std::path::Path, first: &[u8]) -> Result<Option<Output>, StorageError> {
        let file = self
            .ports
            .files
            .open(path, OpenMode::ReadWrite)
            .map_err(StorageError::io("open", path))?;
        let Ok(mut scan) = Scan::new(&*file, &self.directory, path) else {
            return Ok(None);
        };
        let Ok(header) = scan.piece(PieceKind::Header) else {
            return Ok(None);
        };
        if header != first[PREFIX_BYTES..] {
            return Ok(None);
        }
        loop {
            match scan.piece(PieceKind::Chunk) {
                Ok(_) => (),
                // What a power cut left of a piece is received again.
                Err(StorageError::Damaged { .. }) => break,
                Err(error) => return Err(error),
            }
        }
        let (length, pieces, digest) = (scan.offset(), scan.offsets.len() as u64 - 1, scan.digest);
        file.set_length(length)
            .map_err(StorageError::io("shorten", path))?;
        Ok(Some(Output {
            path: path.to_owned(),
            file,
            length,
            pieces,
            digest,
        }))
    }
}

impl Receiver {
    /// What is being received.
    pub fn header(&self) -> &SnapshotHeader {
        &self.header
    }

    /// The number of the piece that is needed next.
    pub fn next_piece(&self) -> u64 {
        self.output.pieces
    }

    /// Takes piece `number`. A piece that is there already is passed over. The whole snapshot comes back with the last
    /// one, verified and durable.
    ///
    /// # Errors
    /// When the piece is not right or comes too early, or the disk fails. A wrong piece changes nothing. After
    /// [`ReceiveError::Mixed`] and errors of the disk this receiver is not to be used any more.
    pub async fn accept(&mut self, number: u64, piece: &[u8]) -> Result<Option<Snapshot>, ReceiveError> {
        let expected = self.next_piece();
        if number < expected {
            return Ok(None);
        }
        if number > expected {
            return Err(ReceiveError::Gap {
                expected,
                found: number,
            });
        }
        let (prefix, body) = format::decode_piece(number, piece).map_err(malformed(number))?;
        match prefix.kind {
            PieceKind::Header => Err(ReceiveError::Malformed {
                number,
                what: "it is a second header".to_owned(),
            }),
            PieceKind::Chunk => {
                format::read_rows(body).map_err(malformed(number))?;
                self.output.add(piece, &prefix.hash)?;
                self.unsynced_bytes += piece.len();
                if self.unsynced_bytes >= SYNC_BYTES {
                    self.sync().await?;
                }
                Ok(None)
            }
            PieceKind::Trailer => {
                let trailer = format::decode_trailer(body).map_err(malformed(number))?;
                if trailer.chunks != expected - 1 || trailer.digest != self.output.digest.finish() {
                    self.give_up()?;
                    return Err(ReceiveError::Mixed);
                }
                self.output.add(piece, &prefix.hash)?;
                let position = self.header.base.position;
                Ok(Some(self.output.publish(&self.snapshots, position).await?))
            }
        }
    }

    /// Makes what was received durable, so that a transfer can go on there after a power cut. Done by itself now and
    /// then.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn sync(&mut self) -> Result<(), StorageError> {
        self.output.sync().await?;
        self.unsynced_bytes = 0;
        let path = &self.snapshots.path;
        self.snapshots
            .ports
            .files
            .sync_directory(path)
            .map_err(StorageError::io("sync", path))
    }

    fn give_up(&self) -> Result<(), StorageError> {
        let path = &self.output.path;
        self.snapshots
            .ports
            .files
            .remove(path)
            .map_err(StorageError::io("remove", path))
    }
}
