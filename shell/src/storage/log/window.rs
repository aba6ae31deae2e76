//! Reads a segment sector by sector, with large reads.

use std::path::Path;

use super::super::StorageError;
use super::format::{SECTOR_BYTES, SEGMENT_BYTES_MAX};
use crate::port::File;

/// Where a sector begins, in bytes.
pub(super) fn offset(sector: u32) -> u64 {
    u64::from(sector) * SECTOR_BYTES as u64
}

/// How many sectors a file of `length` bytes has; more than the format allows are not looked at.
pub(super) fn sector_count(length: u64) -> u32 {
    u32::try_from(length.min(SEGMENT_BYTES_MAX) / SECTOR_BYTES as u64).expect("bounded by three bytes")
}

/// A segment, and the part of it that was read last.
pub(super) struct Window<'a> {
    file: Box<dyn File>,
    pub(super) path: &'a Path,
    pub(super) sectors: u32,
    first: u32,
    buffer: Vec<u8>,
}

const WINDOW_SECTORS: u32 = 1024;

impl<'a> Window<'a> {
    pub(super) fn new(file: Box<dyn File>, path: &'a Path, sectors: u32) -> Window<'a> {
        Window {
            file,
            path,
            sectors,
            first: 0,
            buffer: Vec::new(),
        }
    }

    /// One sector, unverified.
    pub(super) fn sector(&mut self, number: u32) -> Result<&[u8], StorageError> {
        let held = u32::try_from(self.buffer.len() / SECTOR_BYTES).expect("a window is small");
        if number < self.first || number >= self.first + held {
            let count = WINDOW_SECTORS.min(self.sectors - number);
            self.buffer.resize(count as usize * SECTOR_BYTES, 0);
            self.first = number;
            self.file
                .read_exact_at(&mut self.buffer, offset(number))
                .map_err(StorageError::io("read", self.path))?;
        }
        let begin = (number - self.first) as usize * SECTOR_BYTES;
        Ok(&self.buffer[begin..begin + SECTOR_BYTES])
    }
}
