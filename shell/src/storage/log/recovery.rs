//! Reads a log back, without changing anything.
//!
//! See the module above for what is assumed of the medium and how a torn tail is told from damage. Segments are read
//! in order and their records replayed; what the log knew before its oldest segment is in that segment's checkpoint.

use std::path::{Path, PathBuf};

use quorate_core::raft::HardState;

use super::super::StorageError;
use super::files::{self, SegmentFile};
use super::format::{
    self, FormatError, GROUP_HEADER_BYTES, GroupHeader, Part, Record, SECTOR_BYTES, Sector, SegmentHeader,
};
use super::index::Location;
use super::replay::Replay;
use super::salvage::{self, Remains, Rotten};
use super::window::{Window, offset, sector_count};
use crate::planted::PlantedBug;
use crate::port::{File, OpenMode, Ports};

/// Everything that the log says, and what has to be tidied up before it is written to.
pub(super) struct Found {
    pub(super) replay: Replay,
    /// The segments that hold the log, oldest first; the last one is written to.
    pub(super) segments: Vec<(SegmentHeader, PathBuf)>,
    /// Where the next group goes in the last segment.
    pub(super) next_sector: u32,
    /// Whether the last segment is closed, so that the log goes on in the prepared one.
    pub(super) sealed: bool,
    /// The chain after the last group.
    pub(super) chain: u32,
    /// The next segment, when it is there.
    pub(super) prepared: Option<PathBuf>,
    /// Sectors of a torn group, which must be zeros before the next group is written.
    pub(super) scrub: Option<Scrub>,
    /// Files that nothing refers to.
    pub(super) leftovers: Vec<PathBuf>,
    /// Whether entries are missing between the base and the first entry, since damage took the record of a purge.
    pub(super) incomplete: bool,
}

impl Found {
    /// Whether nothing was ever written to the log.
    pub(super) fn is_blank(&self) -> bool {
        self.replay.base.is_none() && self.replay.hard_state == HardState::default()
    }
}

/// What there is to say of a log.
pub(super) enum Recovery {
    /// All of it verifies.
    Whole(Found),
    /// It is damaged, and it is known what it promised.
    Rotten(Rotten),
}

/// Why a segment cannot be read on.
enum Trouble {
    /// Nothing can be made of it.
    Refused(StorageError),
    /// A sector is not what was written.
    Rot { sector: u32, what: String },
}

impl From<StorageError> for Trouble {
    fn from(error: StorageError) -> Trouble {
        Trouble::Refused(error)
    }
}

fn rot(sector: u32, what: impl Into<String>) -> Trouble {
    Trouble::Rot {
        sector,
        what: what.into(),
    }
}

/// A range of sectors that was never acknowledged.
pub(super) struct Scrub {
    pub(super) path: PathBuf,
    pub(super) first: u32,
    pub(super) end: u32,
}

/// How the records of a segment end.
enum End {
    /// Sectors from `next` on were never written.
    Open { next: u32 },
    /// A group at `next` was cut by a crash; nothing was written from sector `end` on.
    Torn { next: u32, end: u32 },
    /// The log goes on in the next segment.
    Sealed,
}

/// Reads the log of the data directory `directory`, of which the beginning may be missing when it is `in_repair`.
///
/// # Errors
/// When it is damaged beyond what its peers can repair, of a newer version, or the disk fails.
pub(super) fn recover(
    ports: &Ports,
    directory: &Path,
    tail_bytes_max: u64,
    in_repair: bool,
) -> Result<Recovery, StorageError> {
    let listing = files::list(ports, directory)?;
    let mut reader = Reader {
        ports,
        directory,
        replay: Replay::new(tail_bytes_max),
        chain: 0,
    };
    let (mut run, blank, older) = reader.arrange(listing.segments)?;
    let mut leftovers = listing.temporary;
    leftovers.extend(older);

    let mut end = End::Sealed;
    let mut scrub = None;
    let mut prepared = blank.as_ref().map(|segment| segment.path.clone());
    let count = run.len();
    for ordinal in 0..count {
        let (header, segment) = &run[ordinal];
        if ordinal == 0 {
            reader.chain = header.chain;
        } else if let End::Open { next: sector } | End::Torn { next: sector, .. } = end {
            let before = &run[ordinal - 1].1.path;
            return Err(reader.damaged(
                before,
                offset(sector),
                "it ends, but the log goes on in the next segment",
            ));
        } else if (header.log, header.chain) != (run[0].0.log, reader.chain) {
            return Err(reader.damaged(&segment.path, 0, "it does not continue the segment before it"));
        }
        let mut next = 1;
        end = match reader.segment(header, segment, ordinal == 0, &mut next) {
            Ok(end) => end,
            Err(Trouble::Refused(error)) => return Err(error),
            Err(Trouble::Rot { sector, what }) => {
                let error = reader.damaged(&segment.path, offset(sector), what);
                let remains = Remains {
                    segments: &run[ordinal..],
                    from: next,
                    unused: false,
                };
                return salvage::salvage(ports, &reader.replay, &remains, error).map(Recovery::Rotten);
            }
        };
    }
    // The last segment was cut while its first group was written: it counts as prepared, not as begun.
    if count > 1
        && let End::Open { next: 1 } | End::Torn { next: 1, .. } = end
    {
        let (header, segment) = run.pop().expect("there is more than one");
        if prepared.is_some() {
            return Err(reader.damaged(&segment.path, 512, "it is empty, but the next one was prepared"));
        }
        scrub = Some(Scrub {
            path: segment.path.clone(),
            first: 0,
            end: sector_count(header.length),
        });
        prepared = Some(segment.path);
        end = End::Sealed;
    } else if let End::Open { next: 1 } | End::Torn { next: 1, .. } = end {
        return Err(reader.damaged(&run[0].1.path, 512, "its first group is missing"));
    }

    let (last, segment) = run.last().expect("a log has a segment");
    let sealed = matches!(end, End::Sealed);
    let next_sector = match end {
        End::Open { next } | End::Torn { next, .. } => next,
        End::Sealed => sector_count(last.length),
    };
    if let End::Torn { next, end } = end {
        scrub = Some(Scrub {
            path: segment.path.clone(),
            first: next,
            end,
        });
    }
    if let Some(blank) = &blank {
        let expected = reader.expected(blank, last)?;
        match reader.prepared(blank, &expected, sealed) {
            Ok(Some(range)) => scrub = Some(range),
            Ok(None) => {}
            Err(Trouble::Refused(error)) => return Err(error),
            Err(Trouble::Rot { sector, what }) => {
                let error = reader.damaged(&blank.path, offset(sector), what);
                let remains = Remains {
                    segments: &[(expected, blank.clone())],
                    from: 1,
                    unused: true,
                };
                return salvage::salvage(ports, &reader.replay, &remains, error).map(Recovery::Rotten);
            }
        }
    }
    if sealed && prepared.is_none() {
        let missing = files::segment_path(directory, last.sequence + 1);
        return Err(reader.damaged(&missing, 0, "the segment is missing"));
    }
    let incomplete = !reader.is_complete();
    if incomplete && !in_repair {
        return Err(reader.missing_before(&run[0]));
    }
    Ok(Recovery::Whole(Found {
        incomplete,
        next_sector,
        sealed,
        chain: reader.chain,
        prepared,
        scrub,
        leftovers,
        segments: run
            .into_iter()
            .map(|(header, segment)| (header, segment.path))
            .collect(),
        replay: reader.replay,
    }))
}

type Run = Vec<(SegmentHeader, SegmentFile)>;

struct Reader<'a> {
    ports: &'a Ports,
    directory: &'a Path,
    replay: Replay,
    chain: u32,
}

impl Reader<'_> {
    fn damaged(&self, path: &Path, offset: u64, what: impl Into<String>) -> StorageError {
        StorageError::damaged(self.directory, path, offset, what)
    }

    fn unusable(&self, path: &Path, offset: u64, error: FormatError) -> StorageError {
        match error {
            FormatError::Newer(found) => StorageError::Newer {
                path: path.to_owned(),
                found,
                supported: format::VERSION,
            },
            FormatError::Damaged(what) => self.damaged(path, offset, what),
        }
    }

    /// Sorts segments into the run that holds the log, the prepared one after it, and older ones that a purge left.
    fn arrange(
        &self,
        segments: Vec<SegmentFile>,
    ) -> Result<(Run, Option<SegmentFile>, Vec<PathBuf>), StorageError> {
        let mut run = Run::new();
        let mut blank = None;
        let mut older = Vec::new();
        for segment in segments {
            if let Some(SegmentFile { path, .. }) = &blank {
                return Err(self.damaged(
                    path,
                    0,
                    "the segment header is missing, but a later segment exists",
                ));
            }
            let Some(header) = self.header(&segment)? else {
                blank = Some(segment);
                continue;
            };
            if run
                .last()
                .is_some_and(|(before, _): &(SegmentHeader, _)| before.sequence + 1 != header.sequence)
            {
                // Whether they can be missed shows when the rest was replayed.
                older.extend(run.drain(..).map(|(_, segment)| segment.path));
            }
            run.push((header, segment));
        }
        match (run.last(), &blank) {
            (None, _) => {
                let path = files::log_path(self.directory);
                Err(self.damaged(&path, 0, "there is no segment of the log in it"))
            }
            (Some((last, _)), Some(blank)) if last.sequence + 1 != blank.sequence => {
                let missing = files::segment_path(self.directory, last.sequence + 1);
                Err(self.damaged(&missing, 0, "the segment is missing"))
            }
            _ => Ok((run, blank, older)),
        }
    }

    /// The header of a segment, or nothing when it was never written.
    fn header(&self, segment: &SegmentFile) -> Result<Option<SegmentHeader>, StorageError> {
        let path = &segment.path;
        let file = self.open(path)?;
        let length = file.length().map_err(StorageError::io("measure", path))?;
        if length < 2 * SECTOR_BYTES as u64 {
            return Err(self.damaged(path, length, "it ends too early"));
        }
        let mut sector = [0; SECTOR_BYTES];
        file.read_exact_at(&mut sector, 0)
            .map_err(StorageError::io("read", path))?;
        if format::is_blank(&sector) {
            return Ok(None);
        }
        let header = SegmentHeader::decode(&sector).map_err(|error| self.unusable(path, 0, error))?;
        if header.sequence != segment.sequence {
            let what = format!("it is segment {}, under another's name", header.sequence);
            return Err(self.damaged(path, 0, what));
        }
        if header.length != length {
            let what = format!("it has {length} bytes instead of {}", header.length);
            return Err(self.damaged(path, length, what));
        }
        Ok(Some(header))
    }

    fn open(&self, path: &Path) -> Result<Box<dyn File>, StorageError> {
        self.ports
            .files
            .open(path, OpenMode::Read)
            .map_err(StorageError::io("open", path))
    }

    /// Replays one segment. `next` is where the group begins that is read; on trouble, all before it stands.
    fn segment(
        &mut self,
        header: &SegmentHeader,
        segment: &SegmentFile,
        first: bool,
        next: &mut u32,
    ) -> Result<End, Trouble> {
        let path = &segment.path;
        let mut window = Window::new(self.open(path)?, path, sector_count(header.length));
        let seed = header.seed();
        let mut group = Vec::new();
        loop {
            let start = *next;
            if start >= window.sectors {
                return Err(self
                    .damaged(path, offset(start), "it is full, but not sealed")
                    .into());
            }
            let data = match format::read_sector(seed, start, window.sector(start)?) {
                Sector::Blank => {
                    let end = rest(&mut window, seed, start, Some(start))?;
                    return Ok(match end {
                        Some(end) => End::Torn { next: start, end },
                        None => End::Open { next: start },
                    });
                }
                Sector::Damaged(_) if self.ports.planted.is(PlantedBug::DamageCountsAsTorn) => {
                    let end = window.sectors;
                    return Ok(End::Torn { next: start, end });
                }
                Sector::Damaged(what) => return Err(rot(start, what)),
                Sector::Written { start: of, .. } if of != start => {
                    return Err(rot(start, "a group does not begin where the one before ends"));
                }
                Sector::Written { data, .. } => data,
            };
            let group_header =
                GroupHeader::decode(data).map_err(|error| self.unusable(path, offset(start), error))?;
            group.clear();
            group.extend_from_slice(data);
            let sectors = group_extent(&group_header, &window, start)?;
            if !gather(&mut window, seed, start, sectors, &mut group)? {
                if let Some(end) = rest(&mut window, seed, start + sectors, None)? {
                    return Err(rot(end - 1, "a group follows one that is cut"));
                }
                return Ok(End::Torn {
                    next: start,
                    end: start + sectors,
                });
            }
            let records = &group[GROUP_HEADER_BYTES..GROUP_HEADER_BYTES + group_header.length as usize];
            if GroupHeader::of(self.chain, records, group_header.mark, group_header.echo) != group_header {
                return Err(rot(start, "the checksum of a group does not match"));
            }
            let begins = start == 1;
            let sealed = self.group(path, header.sequence, start, records, begins, begins && first)?;
            if self.replay.mark() != group_header.mark {
                return Err(self
                    .damaged(path, offset(start), "a group says otherwise than its records")
                    .into());
            }
            self.chain = group_header.after;
            if sealed {
                return match rest(&mut window, seed, start + sectors, None)? {
                    Some(end) => Err(rot(end - 1, "a group follows the seal")),
                    None => Ok(End::Sealed),
                };
            }
            *next += sectors;
        }
    }

    /// Replays the records of a group that starts at sector `start`, and says whether they seal the segment.
    fn group(
        &mut self,
        path: &Path,
        sequence: u64,
        start: u32,
        records: &[u8],
        begins_segment: bool,
        begins_log: bool,
    ) -> Result<bool, StorageError> {
        let mut at = 0;
        let mut sealed = false;
        while at < records.len() {
            let (record, length) = format::read_record(&records[at..])
                .map_err(|error| self.unusable(path, offset(start), error))?;
            let is_checkpoint = matches!(record, Record::Checkpoint(_));
            if is_checkpoint != (begins_segment && at == 0) {
                return Err(self.damaged(path, offset(start), "a checkpoint is not where a segment begins"));
            }
            let outcome = match record {
                Record::Entry(entry) => self.replay.entry(entry, Location::new(sequence, start, at)),
                Record::Purge(base) => self.replay.purge(base),
                Record::Checkpoint(checkpoint) if begins_log => {
                    self.replay.begin_at(checkpoint);
                    Ok(())
                }
                Record::Checkpoint(checkpoint) if checkpoint == self.replay.checkpoint() => Ok(()),
                Record::Checkpoint(_) => Err("the checkpoint differs from the segment before".to_owned()),
                Record::HardState(hard_state) => {
                    self.replay.hard_state = hard_state;
                    Ok(())
                }
                Record::Reset(base) => {
                    self.replay.reset(base);
                    Ok(())
                }
                Record::Seal => {
                    sealed = true;
                    Ok(())
                }
            };
            outcome.map_err(|what| self.damaged(path, offset(start), what))?;
            at += length;
        }
        Ok(sealed)
    }

    /// The header that the segment after the last one gets when it is written to.
    fn expected(&self, segment: &SegmentFile, before: &SegmentHeader) -> Result<SegmentHeader, StorageError> {
        let path = &segment.path;
        let length = self
            .open(path)?
            .length()
            .map_err(StorageError::io("measure", path))?;
        Ok(SegmentHeader {
            log: before.log,
            sequence: segment.sequence,
            length,
            chain: self.chain,
        })
    }

    /// Judges the segment after the last one: it is blank, or its first group was cut before its header was written.
    fn prepared(
        &self,
        segment: &SegmentFile,
        expected: &SegmentHeader,
        sealed: bool,
    ) -> Result<Option<Scrub>, Trouble> {
        let path = &segment.path;
        let mut window = Window::new(self.open(path)?, path, sector_count(expected.length));
        let torn = sealed.then_some(1);
        let end = rest(&mut window, expected.seed(), 1, torn)?;
        Ok(end.map(|end| Scrub {
            path: path.clone(),
            first: 0,
            end,
        }))
    }

    /// Whether no segment is missing before the oldest.
    fn is_complete(&self) -> bool {
        self.replay.first <= self.replay.base_index() + 1
    }

    fn missing_before(&self, oldest: &(SegmentHeader, SegmentFile)) -> StorageError {
        let missing = files::segment_path(self.directory, oldest.0.sequence.saturating_sub(1));
        let what = format!(
            "the segment is missing, and with it entries from {} to {}",
            self.replay.base_index() + 1,
            self.replay.first - 1
        );
        self.damaged(&missing, 0, what)
    }
}

/// How many sectors a group takes, which must lie inside of the segment.
fn group_extent(header: &GroupHeader, window: &Window<'_>, start: u32) -> Result<u32, Trouble> {
    u32::try_from(header.sectors())
        .ok()
        .filter(|sectors| *sectors <= window.sectors - start)
        .ok_or_else(|| rot(start, "a group is longer than its segment"))
}

/// Joins the data of a group's further sectors. False when one of them was never written.
fn gather(
    window: &mut Window<'_>,
    seed: u32,
    start: u32,
    sectors: u32,
    group: &mut Vec<u8>,
) -> Result<bool, Trouble> {
    let mut whole = true;
    for number in start + 1..start + sectors {
        match format::read_sector(seed, number, window.sector(number)?) {
            Sector::Blank => whole = false,
            Sector::Written { start: of, .. } if of != start => {
                return Err(rot(number, "a group begins inside of another"));
            }
            Sector::Written { part: Part::Echo, .. } => {}
            Sector::Written { data, .. } => group.extend_from_slice(data),
            Sector::Damaged(what) => return Err(rot(number, what)),
        }
    }
    Ok(whole)
}

/// Checks that no sector from `from` on was written, except by the group that begins at `torn`, and returns the end of
/// what was written.
fn rest(window: &mut Window<'_>, seed: u32, from: u32, torn: Option<u32>) -> Result<Option<u32>, Trouble> {
    let mut end = None;
    for number in from..window.sectors {
        match format::read_sector(seed, number, window.sector(number)?) {
            Sector::Blank => (),
            Sector::Written { start, .. } if torn == Some(start) => end = Some(number + 1),
            // A group is written only after the one before it is durable, which therefore was lost.
            Sector::Written { .. } => return Err(rot(number, "the group before this one is missing")),
            Sector::Damaged(what) => return Err(rot(number, what)),
        }
    }
    Ok(end)
}
