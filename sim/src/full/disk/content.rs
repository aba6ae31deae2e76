//! What one file holds: in memory, on the disk, and on the way between.
//!
//! Content is kept in pages that are shared until they change; a page of zeros takes no room.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::random::{PartsPerMillion, Stream};

const SECTOR_BYTES: usize = 512;
const PAGE_BYTES: usize = 4096;

type Page = [u8; PAGE_BYTES];
/// None stands for zeros.
type Shared = Option<Arc<Page>>;

const ZEROS: Page = [0; PAGE_BYTES];

#[derive(Clone, Debug, Default)]
struct Pages(BTreeMap<u64, Arc<Page>>);

impl Pages {
    fn get(&self, place: u64) -> Shared {
        self.0.get(&place).cloned()
    }

    fn set(&mut self, place: u64, page: Shared) {
        match page {
            Some(page) => self.0.insert(place, page),
            None => self.0.remove(&place),
        };
    }
}

/// What a sync that is under way took along.
#[derive(Debug)]
struct Taken {
    pages: BTreeMap<u64, Shared>,
    length: u64,
}

/// A file.
#[derive(Debug, Default)]
pub(super) struct Content {
    length: u64,
    pages: Pages,
    durable_length: u64,
    durable: Pages,
    /// Pages that were written since a sync last took them along, as they are now.
    dirty: BTreeSet<u64>,
    syncs: BTreeMap<u64, Taken>,
    next_sync: u64,
}

impl Content {
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Fills `buffer` from `offset` on; false when the file ends before.
    pub(super) fn read(&self, mut offset: u64, mut buffer: &mut [u8]) -> bool {
        if offset.saturating_add(buffer.len() as u64) > self.length {
            return false;
        }
        while !buffer.is_empty() {
            let (place, within, count) = part(offset, buffer.len());
            let (now, rest) = buffer.split_at_mut(count);
            match self.pages.0.get(&place) {
                Some(page) => now.copy_from_slice(&page[within..within + count]),
                None => now.fill(0),
            }
            offset += count as u64;
            buffer = rest;
        }
        true
    }

    pub(super) fn write(&mut self, mut offset: u64, mut bytes: &[u8]) {
        self.length = self.length.max(offset + bytes.len() as u64);
        while !bytes.is_empty() {
            let (place, within, count) = part(offset, bytes.len());
            let (now, rest) = bytes.split_at(count);
            self.write_page(place, within, now);
            offset += count as u64;
            bytes = rest;
        }
    }

    fn write_page(&mut self, place: u64, within: usize, bytes: &[u8]) {
        self.dirty.insert(place);
        let zeros = bytes == &ZEROS[..bytes.len()];
        if zeros && bytes.len() == PAGE_BYTES {
            self.pages.set(place, None);
        } else if !zeros || self.pages.0.contains_key(&place) {
            let page = self.pages.0.entry(place).or_insert_with(|| Arc::new(ZEROS));
            Arc::make_mut(page)[within..within + bytes.len()].copy_from_slice(bytes);
        }
    }

    /// Cuts or extends the file; what is new reads as zeros.
    pub(super) fn set_length(&mut self, length: u64) {
        if length < self.length {
            let (last, within) = (length / PAGE_BYTES as u64, (length % PAGE_BYTES as u64) as usize);
            let behind = self.pages.0.split_off(&(last + u64::from(within > 0)));
            self.dirty.extend(behind.keys());
            if let Some(page) = self.pages.0.get_mut(&last) {
                Arc::make_mut(page)[within..].fill(0);
                self.dirty.insert(last);
            }
        }
        self.length = length;
    }

    /// A sync begins: what was written by now will be durable when it ends.
    pub(super) fn begin_sync(&mut self) -> u64 {
        let pages = std::mem::take(&mut self.dirty)
            .into_iter()
            .map(|place| (place, self.pages.get(place)))
            .collect();
        self.next_sync += 1;
        let taken = Taken {
            pages,
            length: self.length,
        };
        self.syncs.insert(self.next_sync, taken);
        self.next_sync
    }

    /// A sync ends.
    pub(super) fn end_sync(&mut self, sync: u64) {
        let Some(taken) = self.syncs.remove(&sync) else {
            return;
        };
        for (place, page) in taken.pages {
            self.durable.set(place, page);
        }
        self.durable_length = taken.length;
    }

    /// Syncs that nobody waits for any more make nothing durable.
    pub(super) fn forget_syncs(&mut self) {
        for taken in std::mem::take(&mut self.syncs).into_values() {
            self.dirty.extend(taken.pages.into_keys());
        }
    }

    /// Whether it holds nothing but zeros.
    pub(super) fn is_blank(&self) -> bool {
        self.durable.0.is_empty()
    }

    /// Damages a byte of what is durable, behind everybody's back; false when there is only zeros.
    pub(super) fn rot(&mut self, random: &mut Stream) -> bool {
        let places: Vec<u64> = self.durable.0.keys().copied().collect();
        if places.is_empty() {
            return false;
        }
        let place = *random.pick(&places);
        let mut page = self.durable.get(place).as_deref().copied().unwrap_or(ZEROS);
        let bytes: Vec<usize> = (0..PAGE_BYTES).filter(|byte| page[*byte] != 0).collect();
        if bytes.is_empty() {
            return false;
        }
        page[*random.pick(&bytes)] ^= 1 << random.below(8);
        self.durable.set(place, Some(Arc::new(page)));
        self.pages.set(place, Some(Arc::new(page)));
        true
    }

    /// What is not durable is lost, but for a share of its sectors. True when some but not all of a page stayed.
    pub(super) fn cut_power(&mut self, random: &mut Stream, share: PartsPerMillion) -> bool {
        if self.length != self.durable_length && random.chance(500_000) {
            self.durable_length = self.length;
        }
        let mut torn = false;
        for place in std::mem::take(&mut self.dirty) {
            let (old, new) = (self.durable.get(place), self.pages.get(place));
            if old == new {
                continue;
            }
            let mut page = old.as_deref().copied().unwrap_or(ZEROS);
            let new = new.as_deref().unwrap_or(&ZEROS);
            let mut kept = 0;
            for sector in (0..PAGE_BYTES).step_by(SECTOR_BYTES) {
                if random.chance(share) {
                    page[sector..sector + SECTOR_BYTES].copy_from_slice(&new[sector..sector + SECTOR_BYTES]);
                    kept += 1;
                }
            }
            torn |= kept > 0 && kept < PAGE_BYTES / SECTOR_BYTES;
            self.durable.set(place, (page != ZEROS).then(|| Arc::new(page)));
        }
        self.pages = self.durable.clone();
        let length = self.durable_length;
        self.length = u64::MAX;
        self.set_length(length);
        self.durable = self.pages.clone();
        self.dirty.clear();
        torn
    }
}

/// The page of an offset, the place in it, and how many of `length` bytes are in that page.
fn part(offset: u64, length: usize) -> (u64, usize, usize) {
    let within = (offset % PAGE_BYTES as u64) as usize;
    (
        offset / PAGE_BYTES as u64,
        within,
        length.min(PAGE_BYTES - within),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Concern;

    fn read(content: &Content, offset: u64, length: usize) -> Vec<u8> {
        let mut buffer = vec![1; length];
        assert!(content.read(offset, &mut buffer));
        buffer
    }

    fn power_cut(content: &mut Content, share: PartsPerMillion) {
        content.cut_power(&mut Stream::new(1, Concern::Disk), share);
    }

    #[test]
    fn what_was_written_is_read_across_pages() {
        let mut content = Content::default();
        let bytes: Vec<u8> = (0..10_000u32).map(|byte| byte as u8).collect();
        content.write(3_000, &bytes);
        assert_eq!(read(&content, 3_000, 10_000), bytes);
        assert_eq!(read(&content, 0, 3_000), vec![0; 3_000]);
        assert!(!content.read(12_999, &mut [0; 2]));
    }

    #[test]
    fn a_power_cut_leaves_what_was_synced_and_nothing_written_during_a_sync() {
        let mut content = Content::default();
        content.write(0, &[1; 100]);
        let sync = content.begin_sync();
        content.write(0, &[2; 50]);
        content.end_sync(sync);
        power_cut(&mut content, 0);
        assert_eq!(read(&content, 0, 100), vec![1; 100]);
    }

    #[test]
    fn a_power_cut_during_a_sync_leaves_what_was_there_before() {
        let mut content = Content::default();
        content.write(0, &[1; 5_000]);
        let sync = content.begin_sync();
        content.end_sync(sync);
        content.write(0, &[2; 5_000]);
        content.begin_sync();
        content.forget_syncs();
        power_cut(&mut content, 0);
        assert_eq!(read(&content, 0, 5_000), vec![1; 5_000]);
    }

    #[test]
    fn what_is_cut_off_reads_as_zeros_when_it_comes_back() {
        let mut content = Content::default();
        content.write(0, &[7; 9_000]);
        content.set_length(10);
        content.set_length(9_000);
        assert_eq!(read(&content, 0, 10), vec![7; 10]);
        assert_eq!(read(&content, 10, 8_990), vec![0; 8_990]);
    }

    #[test]
    fn a_power_cut_can_leave_all_of_what_was_written() {
        let mut content = Content::default();
        content.write(0, &[3; 4_096]);
        let sync = content.begin_sync();
        content.end_sync(sync);
        content.write(0, &[4; 4_096]);
        power_cut(&mut content, 1_000_000);
        assert_eq!(read(&content, 0, 4_096), vec![4; 4_096]);
    }
}
