//! What the rows and the manifest of the state database look like.
//!
//! ```text
//! row        key -> CRC32C of the key's length, the key and the value (4); value
//! manifest   kind (1), version (1), body; CRC32C of all of it (4)
//! ```
//!
//! The database engine verifies nothing that it reads. A row shows by itself that it is whole and belongs to its key;
//! the manifest, committed with the rows, shows that none is missing, left over or of another commit.

use quorate_core::raft::{Membership, Position};
use quorate_core::state::Row;
use serde::{Deserialize, Serialize};

/// The version of the manifest and the rows that this build writes.
pub(super) const VERSION: u8 = 1;
const MANIFEST: u8 = b'M';
const CHECKSUM_BYTES: usize = 4;

/// What a state database holds, in sum.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::storage) struct Manifest {
    /// The last entry of the log that is in it.
    pub(in crate::storage) applied: Position,
    /// The membership in force at that entry, once it is known.
    pub(in crate::storage) membership: Option<Membership>,
    /// What the rows amount to that are the state in memory.
    pub(in crate::storage) sum: Sum,
    /// What the rows amount to that hold the records of streams. They are too many to be read when the node starts: each
    /// is verified when it is read, and all of them when a snapshot is made.
    pub(in crate::storage) records: Sum,
}

impl Manifest {
    /// The sum that a row of this key belongs to.
    pub(in crate::storage) fn sum_of(&mut self, key: &[u8]) -> &mut Sum {
        if Row::holds_records(key) {
            &mut self.records
        } else {
            &mut self.sum
        }
    }
}

/// How many rows there are, and a digest that does not depend on their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::storage) struct Sum {
    pub(in crate::storage) rows: u64,
    pub(in crate::storage) digest: u64,
}

impl Sum {
    /// Counts an encoded row in.
    pub(in crate::storage) fn add(&mut self, key: &[u8], stored: &[u8]) {
        self.rows += 1;
        self.digest = self.digest.wrapping_add(digest(key, stored));
    }

    /// The sum of both.
    pub(in crate::storage) fn and(self, other: Sum) -> Sum {
        Sum {
            rows: self.rows.wrapping_add(other.rows),
            digest: self.digest.wrapping_add(other.digest),
        }
    }

    /// Counts an encoded row out. One more than were counted in shows when the database is loaded.
    pub(in crate::storage) fn remove(&mut self, key: &[u8], stored: &[u8]) {
        self.rows = self.rows.wrapping_sub(1);
        self.digest = self.digest.wrapping_sub(digest(key, stored));
    }
}

/// Spreads a row's checksum and lengths over 64 bits (the finalizer of SplitMix64), so that sums of them differ.
fn digest(key: &[u8], stored: &[u8]) -> u64 {
    let lengths = ((key.len() as u64) << 20) ^ stored.len() as u64;
    let mut mixed = (u64::from(checksum_of(stored)) << 32) ^ lengths.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn checksum_of(stored: &[u8]) -> u32 {
    stored
        .first_chunk()
        .map_or(0, |bytes: &[u8; CHECKSUM_BYTES]| u32::from_le_bytes(*bytes))
}

fn checksum(key: &[u8], value: &[u8]) -> u32 {
    let seed = crc32c::crc32c(&(key.len() as u64).to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(seed, key), value)
}

/// The stored form of a row.
pub(in crate::storage) fn encode_row(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(CHECKSUM_BYTES + value.len());
    stored.extend_from_slice(&checksum(key, value).to_le_bytes());
    stored.extend_from_slice(value);
    stored
}

/// The value of a stored row; nothing when it is not what was written under `key`.
pub(in crate::storage) fn decode_row<'a>(key: &[u8], stored: &'a [u8]) -> Option<&'a [u8]> {
    let (found, value) = stored.split_first_chunk::<CHECKSUM_BYTES>()?;
    (u32::from_le_bytes(*found) == checksum(key, value)).then_some(value)
}

/// Why a manifest cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::storage) enum ManifestError {
    /// Written by a newer version.
    Newer(u8),
    /// Not what was written.
    Damaged(String),
}

pub(in crate::storage) fn encode_manifest(manifest: &Manifest) -> Vec<u8> {
    let mut bytes = vec![MANIFEST, VERSION];
    postcard::to_io(manifest, &mut bytes)
        .expect("writing to memory fails only for types that postcard cannot express");
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    bytes
}

pub(in crate::storage) fn decode_manifest(bytes: &[u8]) -> Result<Manifest, ManifestError> {
    let damaged = |what: &str| ManifestError::Damaged(what.to_owned());
    let Some((covered, found)) = bytes.split_last_chunk::<CHECKSUM_BYTES>() else {
        return Err(damaged("the manifest is too short"));
    };
    if crc32c::crc32c(covered) != u32::from_le_bytes(*found) {
        return Err(damaged("the checksum of the manifest does not match"));
    }
    match covered {
        [MANIFEST, version, _body @ ..] if *version > VERSION => Err(ManifestError::Newer(*version)),
        [MANIFEST, _, body @ ..] => match postcard::take_from_bytes(body) {
            Ok((manifest, [])) => Ok(manifest),
            _ => Err(damaged("the manifest is malformed")),
        },
        _ => Err(damaged("there is something else in the manifest's place")),
    }
}

/// Decodes arbitrary bytes as a row and as a manifest, as they are and as such that verify.
pub(in crate::storage) fn feed(input: &[u8]) {
    let (key, value) = input.split_at(input.len() / 4);
    let _ = decode_row(key, value);
    let _ = decode_manifest(input);
    let mut bytes = vec![MANIFEST, VERSION];
    bytes.extend_from_slice(input);
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    let _ = decode_manifest(&bytes);
}
