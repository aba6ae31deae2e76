//! Where each entry is, and how older ones are read back while the log is written.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quorate_core::raft::{DiskError, Entry, FetchError, Index};

use super::super::StorageError;
use super::format::{
    self, DATA_BYTES, FormatError, GROUP_HEADER_BYTES, RECORD_HEADER_BYTES, Record, SECTOR_BYTES, Sector,
};
use crate::port::{File, OpenMode, Ports};

/// Where the record of an entry begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Location {
    /// The sequence number of the segment.
    segment: u32,
    /// The place in the segment's data, which leaves out what sectors hold besides data.
    position: u32,
}

impl Location {
    /// The record at `offset` of the records of the group that starts at `sector`.
    pub(super) fn new(sequence: u64, sector: u32, offset: usize) -> Location {
        let position = sector as usize * DATA_BYTES + GROUP_HEADER_BYTES + offset;
        Location {
            segment: u32::try_from(sequence).expect("fewer than four thousand million segments"),
            position: u32::try_from(position).expect("a segment has less than four gigabytes"),
        }
    }

    pub(super) fn sequence(self) -> u64 {
        u64::from(self.segment)
    }
}

/// What is needed to read a segment.
#[derive(Clone, Debug)]
pub(super) struct Readable {
    pub(super) path: PathBuf,
    pub(super) seed: u32,
}

/// The places of all entries of the log.
pub(super) struct Entries {
    /// The index of the first one in `locations`.
    pub(super) first: u64,
    pub(super) locations: VecDeque<Location>,
    pub(super) segments: BTreeMap<u64, Readable>,
}

impl Entries {
    /// The index after the last entry.
    fn end(&self) -> u64 {
        self.first + self.locations.len() as u64
    }

    /// Adds the entry at `index`, in place of everything at and after it.
    pub(super) fn put(&mut self, index: u64, location: Location) {
        assert!(
            index >= self.first && index <= self.end(),
            "entries come without a gap"
        );
        self.locations
            .truncate(usize::try_from(index - self.first).expect("the entries are in memory"));
        self.locations.push_back(location);
    }

    /// Begins anew after `base`.
    pub(super) fn reset(&mut self, base: u64) {
        self.first = base + 1;
        self.locations = VecDeque::new();
    }

    /// The oldest segment that an entry after `base` is in.
    pub(super) fn oldest_after(&self, base: u64) -> Option<u64> {
        let ordinal = (base + 1).saturating_sub(self.first);
        let location = self.locations.get(usize::try_from(ordinal).ok()?)?;
        Some(location.sequence())
    }

    /// Forgets the entries up to `base`.
    pub(super) fn purge(&mut self, base: u64) {
        let count = (base + 1)
            .saturating_sub(self.first)
            .min(self.locations.len() as u64);
        self.locations
            .drain(..usize::try_from(count).expect("the entries are in memory"));
        self.first += count;
        if self.locations.capacity() > 4 * self.locations.len() {
            self.locations.shrink_to(2 * self.locations.len());
        }
    }
}

/// Reads entries of a log beside its writer. Cheap to clone.
#[derive(Clone)]
pub struct LogReader {
    ports: Ports,
    directory: PathBuf,
    entries: Arc<Mutex<Entries>>,
}

/// Entries that one read looks up at most.
const READ_ENTRIES_MAX: u64 = 4096;
/// What is read ahead of an entry at the most, in sectors.
const READ_AHEAD_SECTORS: u32 = 128;

impl LogReader {
    pub(super) fn new(ports: &Ports, directory: &Path, entries: Entries) -> LogReader {
        LogReader {
            ports: ports.clone(),
            directory: directory.to_owned(),
            entries: Arc::new(Mutex::new(entries)),
        }
    }

    pub(super) fn entries(&self) -> MutexGuard<'_, Entries> {
        // A panic elsewhere cannot leave the index half changed in a way that a sector's checksum would not show.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The entries from `first` to `last`, without a gap; fewer when they would exceed `bytes_max` bytes or a bound on
    /// their count, but at least one. Blocks its thread on the disk.
    ///
    /// # Errors
    /// When the first one was purged, is not in the log, is damaged, or cannot be read.
    pub fn read(&self, first: Index, last: Index, bytes_max: u64) -> Result<Vec<Entry>, FetchError> {
        let wanted = self.locate(first, last)?;
        let mut window: Option<Window> = None;
        let mut entries = Vec::new();
        let mut bytes = 0;
        for (index, location) in wanted {
            let entry = match self.entry(&mut window, index, location) {
                Ok(entry) => entry,
                // The segment may have been purged and overwritten since.
                Err(_) if !self.entries().segments.contains_key(&location.sequence()) => break,
                Err(error) => return Err(DiskError::from(error).into()),
            };
            bytes += entry.size();
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(entry);
        }
        if entries.is_empty() {
            return Err(FetchError::Purged);
        }
        Ok(entries)
    }

    fn locate(&self, first: Index, last: Index) -> Result<Vec<(u64, Location)>, FetchError> {
        let entries = self.entries();
        if first.0 < entries.first {
            return Err(FetchError::Purged);
        }
        if first > last || first.0 >= entries.end() {
            let what = format!("entries from {first} to {last} are not in the log");
            return Err(DiskError(what).into());
        }
        let end = entries.end().min(last.0 + 1).min(first.0 + READ_ENTRIES_MAX);
        let ordinals = first.0 - entries.first..end - entries.first;
        let locations =
            ordinals.map(|ordinal| entries.locations[usize::try_from(ordinal).expect("in memory")]);
        Ok((first.0..).zip(locations).collect())
    }

    fn entry(
        &self,
        window: &mut Option<Window>,
        index: u64,
        location: Location,
    ) -> Result<Entry, StorageError> {
        let window = match window {
            Some(window) if window.sequence == location.sequence() => window,
            _ => window.insert(self.open(location.sequence())?),
        };
        let header = window.data(&self.directory, location.position, RECORD_HEADER_BYTES)?;
        let (kind, length) =
            format::record_header(&header).map_err(|error| self.unusable(window, location, error))?;
        let begin = location.position + RECORD_HEADER_BYTES as u32;
        let body = window.data(&self.directory, begin, length)?;
        match format::decode_body(kind, &body) {
            Ok(Record::Entry(entry)) if entry.position.index.0 == index => Ok(entry),
            Ok(_) => {
                let error = FormatError::Damaged(format!("entry {index} is not where it was written"));
                Err(self.unusable(window, location, error))
            }
            Err(error) => Err(self.unusable(window, location, error)),
        }
    }

    fn open(&self, sequence: u64) -> Result<Window, StorageError> {
        let readable = self.entries().segments.get(&sequence).cloned();
        let Some(Readable { path, seed }) = readable else {
            let path = super::files::segment_path(&self.directory, sequence);
            return Err(StorageError::damaged(
                &self.directory,
                &path,
                None,
                "the segment is missing",
            ));
        };
        let file = self
            .ports
            .files
            .open(&path, OpenMode::Read)
            .map_err(StorageError::io("open", &path))?;
        let length = file.length().map_err(StorageError::io("measure", &path))?;
        Ok(Window {
            sequence,
            path,
            seed,
            file,
            sectors: u32::try_from(length / SECTOR_BYTES as u64).unwrap_or(u32::MAX),
            first: 0,
            buffer: Vec::new(),
        })
    }

    fn unusable(&self, window: &Window, location: Location, error: FormatError) -> StorageError {
        let offset = u64::from(location.position) / DATA_BYTES as u64 * SECTOR_BYTES as u64;
        match error {
            FormatError::Newer(found) => StorageError::Newer {
                path: window.path.clone(),
                found,
                supported: format::VERSION,
            },
            FormatError::Damaged(what) => StorageError::damaged(&self.directory, &window.path, offset, what),
        }
    }
}

/// A part of a segment that was read.
struct Window {
    sequence: u64,
    path: PathBuf,
    seed: u32,
    file: Box<dyn File>,
    sectors: u32,
    first: u32,
    buffer: Vec<u8>,
}

impl Window {
    /// `length` bytes of the segment's data from `position` on, verified.
    fn data(&mut self, directory: &Path, position: u32, length: usize) -> Result<Vec<u8>, StorageError> {
        let damaged = |path: &Path, sector: u32, what: &str| {
            StorageError::damaged(directory, path, u64::from(sector) * SECTOR_BYTES as u64, what)
        };
        let begin = position as usize / DATA_BYTES;
        let end = (position as usize + length).div_ceil(DATA_BYTES).max(begin + 1);
        let (Ok(begin), Ok(end)) = (u32::try_from(begin), u32::try_from(end)) else {
            return Err(damaged(&self.path, 0, "a record is longer than its segment"));
        };
        if end > self.sectors {
            return Err(damaged(&self.path, begin, "a record is longer than its segment"));
        }
        self.ensure(begin, end)?;
        let mut output = Vec::with_capacity(length + DATA_BYTES);
        for number in begin..end {
            let offset = (number - self.first) as usize * SECTOR_BYTES;
            match format::read_sector(self.seed, number, &self.buffer[offset..offset + SECTOR_BYTES]) {
                Sector::Written { data, .. } => output.extend_from_slice(data),
                Sector::Blank => return Err(damaged(&self.path, number, "a written sector is blank")),
                Sector::Damaged(what) => return Err(damaged(&self.path, number, what)),
            }
        }
        let skip = position as usize % DATA_BYTES;
        output.drain(..skip);
        output.truncate(length);
        Ok(output)
    }

    fn ensure(&mut self, begin: u32, end: u32) -> Result<(), StorageError> {
        let held =
            u32::try_from(self.buffer.len() / SECTOR_BYTES).expect("a window is smaller than its segment");
        if begin >= self.first && end <= self.first + held {
            return Ok(());
        }
        let until = end.max(begin + READ_AHEAD_SECTORS).min(self.sectors);
        self.buffer.resize((until - begin) as usize * SECTOR_BYTES, 0);
        self.first = begin;
        self.file
            .read_exact_at(&mut self.buffer, u64::from(begin) * SECTOR_BYTES as u64)
            .map_err(StorageError::io("read", &self.path))
    }
}
