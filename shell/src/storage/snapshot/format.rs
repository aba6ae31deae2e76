//! The bytes of a snapshot file.
//!
//! ```text
//! file      magic (8); pieces: a header, chunks, a trailer
//! piece     kind (1), version (1), zeros (2), length of the body (4); SHA-256 of number, these 8 bytes and body (32);
//!           body
//! header    an encoded SnapshotHeader
//! chunk     rows by key: length of the key (4), length of the value (4), key, value
//! trailer   number of chunks, number of rows, SHA-256 of the hashes of all pieces before it
//! ```
//!
//! Pieces are numbered from 0. They are what is transferred: a receiver verifies and stores one by one.

use quorate_core::raft::Base;
use quorate_core::wire::{self, DecodeError, Kind};
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use super::super::KeyValue;

/// The version of snapshot files that this build writes.
pub(super) const VERSION: u8 = 1;
pub(super) const MAGIC: [u8; 8] = *b"QUORSNAP";
const HEAD_BYTES: usize = 8;
pub(super) const HASH_BYTES: usize = 32;
/// What precedes the body of a piece.
pub(super) const PREFIX_BYTES: usize = HEAD_BYTES + HASH_BYTES;

/// What a snapshot is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotHeader {
    /// The last entry whose effect is in it, and the membership at that entry, which knows the lineage.
    pub base: Base,
}

/// What ends a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Trailer {
    pub(super) chunks: u64,
    pub(super) rows: u64,
    pub(super) digest: [u8; HASH_BYTES],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PieceKind {
    Header,
    Chunk,
    Trailer,
}

impl PieceKind {
    fn number(self) -> u8 {
        match self {
            PieceKind::Header => 1,
            PieceKind::Chunk => 2,
            PieceKind::Trailer => 3,
        }
    }
}

/// Why bytes are no piece of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FormatError {
    /// Written by a newer version.
    Newer(u8),
    /// Not what was written.
    Damaged(String),
}

fn damaged(what: &str) -> FormatError {
    FormatError::Damaged(what.to_owned())
}

/// What precedes a piece's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prefix {
    pub(super) kind: PieceKind,
    pub(super) length: usize,
    pub(super) hash: [u8; HASH_BYTES],
    head: [u8; HEAD_BYTES],
}

impl Prefix {
    pub(super) fn decode(bytes: &[u8; PREFIX_BYTES]) -> Result<Prefix, FormatError> {
        let (head, hash): (&[u8; HEAD_BYTES], _) =
            bytes.split_first_chunk().expect("a prefix begins with a head");
        let kind = match head[0] {
            1 => PieceKind::Header,
            2 => PieceKind::Chunk,
            3 => PieceKind::Trailer,
            _ => return Err(damaged("a piece of unknown kind")),
        };
        Ok(Prefix {
            kind,
            length: u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize,
            hash: hash.try_into().expect("the rest of the prefix is the hash"),
            head: *head,
        })
    }

    /// Whether `body` is that of piece `number` with this prefix. Only then can the version be believed.
    pub(super) fn verify(&self, number: u64, body: &[u8]) -> Result<(), FormatError> {
        if hash(number, &self.head, body) != self.hash {
            return Err(damaged("the hash of the piece does not match"));
        }
        match self.head[1] {
            0 => Err(damaged("a piece without a version")),
            version if version > VERSION => Err(FormatError::Newer(version)),
            _ => Ok(()),
        }
    }
}

fn hash(number: u64, head: &[u8; HEAD_BYTES], body: &[u8]) -> [u8; HASH_BYTES] {
    let mut context = Context::new(&SHA256);
    context.update(&number.to_le_bytes());
    context.update(head);
    context.update(body);
    context
        .finish()
        .as_ref()
        .try_into()
        .expect("SHA-256 has 32 bytes")
}

/// The hash over the hashes of all pieces.
#[derive(Clone)]
pub(super) struct Digest(Context);

impl Digest {
    pub(super) fn new() -> Digest {
        Digest(Context::new(&SHA256))
    }

    pub(super) fn add(&mut self, hash: &[u8; HASH_BYTES]) {
        self.0.update(hash);
    }

    pub(super) fn finish(&self) -> [u8; HASH_BYTES] {
        let digest = self.0.clone().finish();
        digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
    }
}

/// A whole piece, and its hash.
pub(super) fn encode_piece(number: u64, kind: PieceKind, body: &[u8]) -> (Vec<u8>, [u8; HASH_BYTES]) {
    let mut head = [kind.number(), VERSION, 0, 0, 0, 0, 0, 0];
    let length = u32::try_from(body.len()).expect("a piece has less than four gigabytes");
    head[4..].copy_from_slice(&length.to_le_bytes());
    let hash = hash(number, &head, body);
    let mut piece = Vec::with_capacity(PREFIX_BYTES + body.len());
    piece.extend_from_slice(&head);
    piece.extend_from_slice(&hash);
    piece.extend_from_slice(body);
    (piece, hash)
}

/// A whole piece `number`, verified: its prefix and its body.
pub(super) fn decode_piece(number: u64, piece: &[u8]) -> Result<(Prefix, &[u8]), FormatError> {
    let (prefix, body) = piece
        .split_first_chunk()
        .ok_or_else(|| damaged("a piece ends too early"))?;
    let prefix = Prefix::decode(prefix)?;
    if prefix.length != body.len() {
        return Err(damaged("a piece is not as long as it says"));
    }
    prefix.verify(number, body)?;
    Ok((prefix, body))
}

pub(super) fn decode_header(body: &[u8]) -> Result<SnapshotHeader, FormatError> {
    wire::decode(Kind::SnapshotHeader, body).map_err(|error| match error {
        DecodeError::Newer { found, .. } => FormatError::Newer(found),
        other => FormatError::Damaged(other.to_string()),
    })
}

pub(super) fn encode_trailer(trailer: &Trailer) -> Vec<u8> {
    postcard::to_stdvec(trailer).expect("writing to memory fails only for types that postcard cannot express")
}

pub(super) fn decode_trailer(body: &[u8]) -> Result<Trailer, FormatError> {
    match postcard::take_from_bytes(body) {
        Ok((trailer, [])) => Ok(trailer),
        _ => Err(damaged("the trailer is malformed")),
    }
}

/// Appends a row to the body of a chunk.
pub(super) fn push_row(key: &[u8], value: &[u8], body: &mut Vec<u8>) {
    for part in [key, value] {
        let length = u32::try_from(part.len()).expect("keys and values have less than four gigabytes");
        body.extend_from_slice(&length.to_le_bytes());
    }
    body.extend_from_slice(key);
    body.extend_from_slice(value);
}

/// The rows in the body of a chunk.
pub(super) fn read_rows(mut body: &[u8]) -> Result<Vec<KeyValue>, FormatError> {
    let short = || damaged("a row is longer than its chunk");
    let mut rows = Vec::new();
    while !body.is_empty() {
        let (key_length, rest) = body.split_first_chunk().ok_or_else(short)?;
        let (value_length, rest) = rest.split_first_chunk().ok_or_else(short)?;
        let key_length = u32::from_le_bytes(*key_length) as usize;
        let value_length = u32::from_le_bytes(*value_length) as usize;
        let (key, rest) = rest.split_at_checked(key_length).ok_or_else(short)?;
        let (value, rest) = rest.split_at_checked(value_length).ok_or_else(short)?;
        rows.push((key.to_vec(), value.to_vec()));
        body = rest;
    }
    Ok(rows)
}

/// Decodes arbitrary bytes as the pieces of a snapshot, with their right hash and without, and as what is in them.
pub(in crate::storage) fn feed(input: &[u8]) {
    let _ = decode_piece(0, input);
    for kind in [PieceKind::Header, PieceKind::Chunk, PieceKind::Trailer] {
        let (piece, _) = encode_piece(0, kind, input);
        assert!(decode_piece(0, &piece).is_ok(), "what was encoded is decoded");
    }
    let _ = decode_header(input);
    let _ = decode_trailer(input);
    let _ = read_rows(input);
}
