//! The bytes of a segment file.
//!
//! ```text
//! sector 0     segment header: magic, version, sequence, length, log id, chain; CRC32C of it all
//! sector 1..   groups, each beginning at a sector of its own; zeros after the last one
//!
//! sector       CRC32C of the rest, seeded by segment and sector number (4 bytes); marker (1);
//!              number of the group's first sector (3); data (504)
//! group        version (1), flags (1), zeros (2), length of the records (4), chain before (4), chain after (4);
//!              what the log is after the group: term (8), vote (8), term and index of the last entry (16); records
//! echo         what precedes the records of a group, once more, in a sector of its own at its end: in groups that
//!              change the term or the vote
//! record       kind (1), version (1), zeros (2), length of the body (4); body
//! ```
//!
//! All numbers are little endian. The data of a group's sectors, joined, is the group, padded with zeros. The chain is
//! the CRC32C of all records since the log began: a group fits only behind the one that it was written behind.
//!
//! A written sector has at least two bytes that are not zero (its marker and its group's first sector), so no flipped
//! byte makes a written sector look like one that was never written.

use quorate_core::raft::{Base, Entry, HardState, Index, NodeId, Position, Term};
use quorate_core::wire::{self, DecodeError, Kind};
use serde::{Deserialize, Serialize};

/// The unit that a disk writes atomically.
pub(super) const SECTOR_BYTES: usize = 512;
const TAG_BYTES: usize = 8;
/// The bytes of a sector that hold data.
pub(super) const DATA_BYTES: usize = SECTOR_BYTES - TAG_BYTES;
/// What precedes the records of a group.
pub(super) const GROUP_HEADER_BYTES: usize = 48;
/// What precedes the body of a record.
pub(super) const RECORD_HEADER_BYTES: usize = 8;
/// The version of segments, groups and records that this build writes.
pub(super) const VERSION: u8 = 1;
/// Sector numbers have three bytes.
pub(super) const SEGMENT_BYTES_MAX: u64 = (1 << 24) * SECTOR_BYTES as u64;

const MAGIC: [u8; 8] = *b"QUORALOG";
const FIRST: u8 = 0xa1;
const CONTINUATION: u8 = 0xa2;
const ECHO: u8 = 0xa3;

/// Why bytes that verify, or should, cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FormatError {
    /// Written by a newer version.
    Newer(u8),
    /// Not what was written.
    Damaged(String),
}

fn damaged(what: impl Into<String>) -> FormatError {
    FormatError::Damaged(what.into())
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(bytes[offset..offset + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(bytes[offset..offset + 8].try_into().expect("eight bytes"))
}

/// What sector 0 of a segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    /// Drawn when the log was created.
    pub(super) log: u128,
    /// The place of the segment in the log; the first one has 1.
    pub(super) sequence: u64,
    /// The length of the file in bytes.
    pub(super) length: u64,
    /// The chain before the segment's first group.
    pub(super) chain: u32,
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> [u8; SECTOR_BYTES] {
        let mut sector = [0; SECTOR_BYTES];
        sector[..8].copy_from_slice(&MAGIC);
        sector[8] = VERSION;
        sector[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        sector[24..32].copy_from_slice(&self.length.to_le_bytes());
        sector[32..48].copy_from_slice(&self.log.to_le_bytes());
        sector[48..52].copy_from_slice(&self.chain.to_le_bytes());
        let checksum = crc32c::crc32c(&sector[..SECTOR_BYTES - 4]);
        sector[SECTOR_BYTES - 4..].copy_from_slice(&checksum.to_le_bytes());
        sector
    }

    pub(super) fn decode(sector: &[u8]) -> Result<SegmentHeader, FormatError> {
        if sector[..8] != MAGIC {
            return Err(damaged("it does not begin like a segment of the log"));
        }
        if crc32c::crc32c(&sector[..SECTOR_BYTES - 4]) != u32_at(sector, SECTOR_BYTES - 4) {
            return Err(damaged("the checksum of the segment header does not match"));
        }
        if sector[8] > VERSION {
            return Err(FormatError::Newer(sector[8]));
        }
        Ok(SegmentHeader {
            sequence: u64_at(sector, 16),
            length: u64_at(sector, 24),
            log: u128::from_le_bytes(sector[32..48].try_into().expect("sixteen bytes")),
            chain: u32_at(sector, 48),
        })
    }

    /// What the checksums of this segment's sectors begin with, so that no other sector passes for one of them.
    pub(super) fn seed(&self) -> u32 {
        let mut bytes = [0; 28];
        bytes[..16].copy_from_slice(&self.log.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[24..].copy_from_slice(&self.chain.to_le_bytes());
        crc32c::crc32c(&bytes)
    }
}

/// Which part of its group a sector is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The group's header and its first records.
    First,
    /// Further records.
    Continuation,
    /// The group's header once more.
    Echo,
}

/// What a sector is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sector<'a> {
    /// Never written, or zeroed since.
    Blank,
    /// Part of the group that begins at sector `start`.
    Written { start: u32, part: Part, data: &'a [u8] },
    /// Not what was written.
    Damaged(&'static str),
}

pub(super) fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

fn sector_checksum(seed: u32, number: u32, sector: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(seed, &number.to_le_bytes()), &sector[4..])
}

/// Judges sector `number` of a segment with `seed`.
pub(super) fn read_sector(seed: u32, number: u32, sector: &[u8]) -> Sector<'_> {
    if is_blank(sector) {
        return Sector::Blank;
    }
    if sector_checksum(seed, number, sector) != u32_at(sector, 0) {
        return Sector::Damaged("the checksum of the sector does not match");
    }
    let start = u32::from_le_bytes([sector[5], sector[6], sector[7], 0]);
    let part = match sector[4] {
        FIRST => Part::First,
        CONTINUATION => Part::Continuation,
        ECHO => Part::Echo,
        _ => return Sector::Damaged("the sector belongs to no group"),
    };
    if start == 0 || start > number || (part == Part::First) != (start == number) {
        return Sector::Damaged("the sector belongs to no group");
    }
    Sector::Written {
        start,
        part,
        data: &sector[TAG_BYTES..],
    }
}

/// How many sectors a group with `records` bytes of records takes, with or without an echo.
pub(super) fn group_sectors(records: usize, echo: bool) -> usize {
    (GROUP_HEADER_BYTES + records).div_ceil(DATA_BYTES) + usize::from(echo)
}

/// What the log promises: no other vote in its term, and no entry lost up to its last one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// The term and the vote.
    pub(super) hard_state: HardState,
    /// The last entry.
    pub(super) last: Position,
}

/// What precedes the records of a group.
///
/// Every group says what the log is after it, so that a group which cannot be read is known by the next one. The last
/// group has no next one. So one that changes the term or the vote says it twice, in two sectors: a damaged sector
/// alone hides no vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GroupHeader {
    /// Whether the group ends with an echo.
    pub(super) echo: bool,
    /// Bytes of records.
    pub(super) length: u32,
    /// The chain before the group.
    pub(super) before: u32,
    /// The chain after it.
    pub(super) after: u32,
    /// What the log is after it.
    pub(super) mark: Mark,
}

const HAS_ECHO: u8 = 1;
const HAS_VOTE: u8 = 2;

impl GroupHeader {
    pub(super) fn of(chain: u32, records: &[u8], mark: Mark, echo: bool) -> GroupHeader {
        GroupHeader {
            echo,
            mark,
            length: u32::try_from(records.len()).expect("a group fits into a segment"),
            before: chain,
            after: crc32c::crc32c_append(chain, records),
        }
    }

    /// How many sectors the group takes.
    pub(super) fn sectors(&self) -> usize {
        group_sectors(self.length as usize, self.echo)
    }

    fn encode(&self) -> [u8; GROUP_HEADER_BYTES] {
        let HardState { term, vote } = self.mark.hard_state;
        let mut bytes = [0; GROUP_HEADER_BYTES];
        bytes[0] = VERSION;
        bytes[1] = u8::from(self.echo) * HAS_ECHO + u8::from(vote.is_some()) * HAS_VOTE;
        bytes[4..8].copy_from_slice(&self.length.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.before.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.after.to_le_bytes());
        bytes[16..24].copy_from_slice(&term.0.to_le_bytes());
        bytes[24..32].copy_from_slice(&vote.map_or(0, |vote| vote.0).to_le_bytes());
        bytes[32..40].copy_from_slice(&self.mark.last.term.0.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.mark.last.index.0.to_le_bytes());
        bytes
    }

    pub(super) fn decode(data: &[u8]) -> Result<GroupHeader, FormatError> {
        match data[0] {
            0 => Err(damaged("a group without a version")),
            version if version > VERSION => Err(FormatError::Newer(version)),
            _ => Ok(GroupHeader {
                echo: data[1] & HAS_ECHO != 0,
                mark: Mark {
                    hard_state: HardState {
                        term: Term(u64_at(data, 16)),
                        vote: (data[1] & HAS_VOTE != 0).then(|| NodeId(u64_at(data, 24))),
                    },
                    last: Position {
                        term: Term(u64_at(data, 32)),
                        index: Index(u64_at(data, 40)),
                    },
                },
                length: u32_at(data, 4),
                before: u32_at(data, 8),
                after: u32_at(data, 12),
            }),
        }
    }
}

/// Appends the sectors of a group, the first of which is sector `start`, to `output`.
pub(super) fn frame_group(seed: u32, start: u32, header: &GroupHeader, records: &[u8], output: &mut Vec<u8>) {
    let head = header.encode();
    let sectors = header.sectors();
    output.reserve(sectors * SECTOR_BYTES);
    let mut rest = records;
    for (number, ordinal) in (start..).zip(0..sectors) {
        let begin = output.len();
        let marker = match ordinal {
            0 => FIRST,
            last if header.echo && last + 1 == sectors => ECHO,
            _ => CONTINUATION,
        };
        let group = start.to_le_bytes();
        output.extend_from_slice(&[0, 0, 0, 0, marker, group[0], group[1], group[2]]);
        let mut room = DATA_BYTES;
        if marker != CONTINUATION {
            output.extend_from_slice(&head);
            room -= head.len();
        }
        let (now, later) = rest.split_at(room.min(rest.len()));
        output.extend_from_slice(now);
        rest = later;
        output.resize(begin + SECTOR_BYTES, 0);
        let checksum = sector_checksum(seed, number, &output[begin..]);
        output[begin..begin + 4].copy_from_slice(&checksum.to_le_bytes());
    }
}

/// What a segment opens with: all that the log knew before it, besides its entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Checkpoint {
    pub(super) hard_state: HardState,
    pub(super) base: Option<Base>,
    /// The last entry of the log.
    pub(super) last: Position,
}

impl Checkpoint {
    /// What a log with this opening promises.
    pub(super) fn mark(&self) -> Mark {
        Mark {
            hard_state: self.hard_state,
            last: self.last,
        }
    }
}

/// One thing that the log remembers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// Replaces everything at and after its index.
    Entry(Entry),
    /// Replaces the one before.
    HardState(HardState),
    /// The log begins anew after this base.
    Reset(Base),
    /// Entries up to this base are no longer needed.
    Purge(Base),
    /// The first record of every segment.
    Checkpoint(Checkpoint),
    /// The last record of a segment: the log goes on in the next one.
    Seal,
}

const ENTRY: u8 = 1;
const HARD_STATE: u8 = 2;
const RESET: u8 = 3;
const PURGE: u8 = 4;
const CHECKPOINT: u8 = 5;
const SEAL: u8 = 6;

/// Appends an entry; `output` then holds its record from the returned offset on.
pub(super) fn push_entry(entry: &Entry, output: &mut Vec<u8>) -> usize {
    push(ENTRY, output, |body| wire::encode_into(Kind::Entry, entry, body))
}

/// Appends a term and vote.
pub(super) fn push_hard_state(hard_state: &HardState, output: &mut Vec<u8>) {
    push(HARD_STATE, output, |body| {
        wire::encode_into(Kind::HardState, hard_state, body);
    });
}

/// Appends the beginning of a new log.
pub(super) fn push_reset(base: &Base, output: &mut Vec<u8>) {
    push(RESET, output, |body| wire::encode_into(Kind::Base, base, body));
}

/// Appends a purge point.
pub(super) fn push_purge(base: &Base, output: &mut Vec<u8>) {
    push(PURGE, output, |body| wire::encode_into(Kind::Base, base, body));
}

/// Appends the opening record of a segment.
pub(super) fn push_checkpoint(checkpoint: &Checkpoint, output: &mut Vec<u8>) {
    push(CHECKPOINT, output, |body| {
        postcard::to_io(checkpoint, body)
            .expect("writing to memory fails only for types that postcard cannot express");
    });
}

/// Appends the closing record of a segment.
pub(super) fn push_seal(output: &mut Vec<u8>) {
    push(SEAL, output, |_| ());
}

fn push(kind: u8, output: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) -> usize {
    let begin = output.len();
    output.extend_from_slice(&[kind, VERSION, 0, 0, 0, 0, 0, 0]);
    body(output);
    let length = output.len() - begin - RECORD_HEADER_BYTES;
    let length = u32::try_from(length).expect("a record fits into a segment");
    output[begin + 4..begin + RECORD_HEADER_BYTES].copy_from_slice(&length.to_le_bytes());
    begin
}

/// The kind of a record, and the length of its body in bytes.
pub(super) fn record_header(header: &[u8]) -> Result<(u8, usize), FormatError> {
    match header[1] {
        0 => Err(damaged("a record without a version")),
        version if version > VERSION => Err(FormatError::Newer(version)),
        _ => Ok((header[0], u32_at(header, 4) as usize)),
    }
}

/// Decodes the first record of `input`, and says how many bytes it took.
pub(super) fn read_record(input: &[u8]) -> Result<(Record, usize), FormatError> {
    if input.len() < RECORD_HEADER_BYTES {
        return Err(damaged("a record ends too early"));
    }
    let (kind, length) = record_header(&input[..RECORD_HEADER_BYTES])?;
    let body = input[RECORD_HEADER_BYTES..]
        .get(..length)
        .ok_or_else(|| damaged("a record is longer than its group"))?;
    let record = decode_body(kind, body)?;
    Ok((record, RECORD_HEADER_BYTES + length))
}

/// Decodes the body of a record of `kind`.
pub(super) fn decode_body(kind: u8, body: &[u8]) -> Result<Record, FormatError> {
    let undecoded = |error: DecodeError| match error {
        DecodeError::Newer { found, .. } => FormatError::Newer(found),
        other => damaged(other.to_string()),
    };
    match kind {
        ENTRY => wire::decode(Kind::Entry, body)
            .map(Record::Entry)
            .map_err(undecoded),
        HARD_STATE => wire::decode(Kind::HardState, body)
            .map(Record::HardState)
            .map_err(undecoded),
        RESET => wire::decode(Kind::Base, body)
            .map(Record::Reset)
            .map_err(undecoded),
        PURGE => wire::decode(Kind::Base, body)
            .map(Record::Purge)
            .map_err(undecoded),
        CHECKPOINT => match postcard::take_from_bytes(body) {
            Ok((checkpoint, [])) => Ok(Record::Checkpoint(checkpoint)),
            Ok(_) => Err(damaged("a checkpoint has bytes left over")),
            Err(error) => Err(damaged(format!("a checkpoint is malformed: {error}"))),
        },
        SEAL if body.is_empty() => Ok(Record::Seal),
        SEAL => Err(damaged("a seal has a body")),
        other => Err(damaged(format!("a record of unknown kind {other}"))),
    }
}

/// Decodes arbitrary bytes as records, and as what precedes them.
pub(in crate::storage) fn feed(input: &[u8]) {
    let mut rest = input;
    while let Ok((_, length)) = read_record(rest) {
        rest = &rest[length..];
    }
    for kind in [ENTRY, HARD_STATE, RESET, PURGE, CHECKPOINT, SEAL] {
        let _ = decode_body(kind, input);
    }
    for sector in input.chunks_exact(SECTOR_BYTES) {
        let mut sector = sector.to_vec();
        let _ = SegmentHeader::decode(&sector);
        let checksum = crc32c::crc32c(&sector[..SECTOR_BYTES - 4]);
        sector[SECTOR_BYTES - 4..].copy_from_slice(&checksum.to_le_bytes());
        let _ = SegmentHeader::decode(&sector);
        let checksum = sector_checksum(0, 1, &sector);
        sector[..4].copy_from_slice(&checksum.to_le_bytes());
        if let Sector::Written { data, .. } = read_sector(0, 1, &sector) {
            let _ = GroupHeader::decode(data);
        }
    }
}
