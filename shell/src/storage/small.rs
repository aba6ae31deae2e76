//! Small files that are written whole: after a crash there is the new one or the old one.
//!
//! Magic (8), length of the body (4), body, CRC32C of all of it (4). Numbers are little endian; the body is a value of
//! one kind in the versioned encoding.

use std::path::Path;

use quorate_core::wire::{self, DecodeError, Kind};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::StorageError;
use crate::port::{OpenMode, Ports};

/// What a file of this kind begins with.
pub(super) struct Format {
    pub(super) magic: [u8; 8],
    pub(super) kind: Kind,
    /// What such a file is, in words.
    pub(super) what: &'static str,
}

pub(super) const HEADER_BYTES: usize = 8 + 4;
pub(super) const CHECKSUM_BYTES: usize = 4;
/// No such file is near this size; a bound for what is read from a damaged one.
const BYTES_MAX: u64 = 64 << 10;

/// The bytes of a file.
pub(super) fn encode<T: Serialize>(format: &Format, value: &T) -> Vec<u8> {
    let body = wire::encode(format.kind, value);
    let length = u32::try_from(body.len()).expect("it is small");
    let mut bytes = format.magic.to_vec();
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&body);
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    bytes
}

/// Writes a file, atomically and durably.
///
/// # Errors
/// When the disk fails.
pub(super) async fn write<T: Serialize>(
    ports: &Ports,
    path: &Path,
    format: &Format,
    value: &T,
) -> Result<(), StorageError> {
    let bytes = encode(format, value);
    let files = &ports.files;
    let temporary = path.with_extension("tmp");
    if files
        .exists(&temporary)
        .map_err(StorageError::io("look for", &temporary))?
    {
        files
            .remove(&temporary)
            .map_err(StorageError::io("remove", &temporary))?;
    }
    let file = files
        .open(&temporary, OpenMode::CreateNew)
        .map_err(StorageError::io("create", &temporary))?;
    file.write_all_at(&bytes, 0)
        .map_err(StorageError::io("write", &temporary))?;
    file.sync().await.map_err(StorageError::io("sync", &temporary))?;
    files
        .rename(&temporary, path)
        .map_err(StorageError::io("rename", &temporary))?;
    sync_parent(ports, path)
}

/// Removes a file, durably.
///
/// # Errors
/// When the disk fails.
pub(super) fn remove(ports: &Ports, path: &Path) -> Result<(), StorageError> {
    ports
        .files
        .remove(path)
        .map_err(StorageError::io("remove", path))?;
    sync_parent(ports, path)
}

fn sync_parent(ports: &Ports, path: &Path) -> Result<(), StorageError> {
    let directory = path.parent().unwrap_or(Path::new("."));
    ports
        .files
        .sync_directory(directory)
        .map_err(StorageError::io("sync", directory))
}

/// Reads a file of the data directory `directory`; nothing where there is none.
///
/// # Errors
/// When it is damaged, of a newer version, or the disk fails.
pub(super) fn read<T: DeserializeOwned>(
    ports: &Ports,
    directory: &Path,
    path: &Path,
    format: &Format,
) -> Result<Option<T>, StorageError> {
    if !ports
        .files
        .exists(path)
        .map_err(StorageError::io("look for", path))?
    {
        return Ok(None);
    }
    let file = ports
        .files
        .open(path, OpenMode::Read)
        .map_err(StorageError::io("open", path))?;
    let length = file.length().map_err(StorageError::io("measure", path))?;
    let damaged = |offset: u64, what: &str| StorageError::damaged(directory, path, offset, what);
    if length > BYTES_MAX {
        return Err(damaged(0, &format!("it is too long for {}", format.what)));
    }
    let mut bytes = vec![0; usize::try_from(length).expect("bounded above")];
    file.read_exact_at(&mut bytes, 0)
        .map_err(StorageError::io("read", path))?;
    match decode(format, &bytes) {
        Ok(value) => Ok(Some(value)),
        Err(Undecoded::Newer(found)) => Err(StorageError::Newer {
            path: path.to_owned(),
            found,
            supported: wire::VERSION,
        }),
        Err(Undecoded::Damaged(offset, what)) => Err(damaged(offset, &what)),
    }
}

enum Undecoded {
    Newer(u8),
    Damaged(u64, String),
}

fn decode<T: DeserializeOwned>(format: &Format, bytes: &[u8]) -> Result<T, Undecoded> {
    let damaged = |offset: usize, what: &str| Undecoded::Damaged(offset as u64, what.to_owned());
    if !bytes.starts_with(&format.magic) {
        return Err(damaged(0, &format!("it does not begin like {}", format.what)));
    }
    if bytes.len() < HEADER_BYTES + CHECKSUM_BYTES {
        return Err(damaged(bytes.len(), "it ends too early"));
    }
    let (covered, checksum) = bytes.split_at(bytes.len() - CHECKSUM_BYTES);
    if crc32c::crc32c(covered).to_le_bytes() != checksum {
        return Err(damaged(covered.len(), "the checksum does not match"));
    }
    let (header, body) = covered.split_at(HEADER_BYTES);
    if header[8..] != u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes() {
        return Err(damaged(8, "the length does not match"));
    }
    wire::decode(format.kind, body).map_err(|error| match error {
        DecodeError::Newer { found, .. } => Undecoded::Newer(found),
        other => Undecoded::Damaged(HEADER_BYTES as u64, other.to_string()),
    })
}

/// Decodes arbitrary bytes as a file of this kind, as they are and as the body of one that verifies.
pub(super) fn feed<T: DeserializeOwned>(format: &Format, input: &[u8]) {
    let _ = decode::<T>(format, input);
    let mut bytes = format.magic.to_vec();
    bytes.extend_from_slice(&u32::try_from(input.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend_from_slice(input);
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    let _ = decode::<T>(format, &bytes);
}
