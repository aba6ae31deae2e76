//! The writes that become durable together.

use quorate_core::raft::{Entry, Write};

use super::format::{self, Checkpoint};
use super::index::{Entries, Location};

/// Entries of one group at most, unless a single write has more.
pub const GROUP_ENTRIES_MAX: usize = 512;
/// Bytes of entries of one group at most, unless a single write has more.
pub const GROUP_BYTES_MAX: u64 = 1 << 20;

/// How many of the first of `writes` make up the next group; at least one, when there is one.
pub fn group_length(writes: &[Write]) -> usize {
    let (mut entries, mut bytes) = (0, 0);
    for (ordinal, write) in writes.iter().enumerate() {
        entries += write.entries.len();
        bytes += write.entries.iter().map(Entry::size).sum::<u64>();
        if ordinal > 0 && (entries > GROUP_ENTRIES_MAX || bytes > GROUP_BYTES_MAX) {
            return ordinal;
        }
    }
    writes.len()
}

/// A group in the making.
#[derive(Default)]
pub(super) struct Group {
    pub(super) records: Vec<u8>,
    /// Where in `records` each entry begins; a reset stands between those before and after it.
    steps: Vec<Step>,
}

enum Step {
    Entry { index: u64, offset: usize },
    Reset { base: u64 },
}

impl Group {
    pub(super) fn clear(&mut self) {
        self.steps.clear();
        if self.records.capacity() > 4 * (GROUP_BYTES_MAX as usize) {
            self.records = Vec::new();
        }
        self.records.clear();
    }

    /// Encodes `writes`, and returns what the log knows after them.
    pub(super) fn fill(&mut self, mut head: Checkpoint, writes: &[Write]) -> Checkpoint {
        for write in writes {
            if let Some(hard_state) = &write.hard_state {
                format::push_hard_state(hard_state, &mut self.records);
                head.hard_state = *hard_state;
            }
            if let Some(base) = &write.reset {
                format::push_reset(base, &mut self.records);
                self.steps.push(Step::Reset {
                    base: base.position.index.0,
                });
                head.last = base.position;
                head.base = Some((**base).clone());
            }
            for (ordinal, entry) in write.entries.iter().enumerate() {
                let base = head.base.as_ref().expect("a log begins before its entries");
                let index = entry.position.index;
                assert!(
                    index > base.position.index && index <= head.last.index.next(),
                    "entries come without a gap, after the base"
                );
                assert!(
                    ordinal == 0 || index == head.last.index.next(),
                    "the entries of a write follow each other"
                );
                self.steps.push(Step::Entry {
                    index: index.0,
                    offset: format::push_entry(entry, &mut self.records),
                });
                head.last = entry.position;
            }
        }
        head
    }

    /// Puts the opening record of a segment before the others.
    pub(super) fn prepend(&mut self, checkpoint: &Checkpoint) {
        let mut records = Vec::with_capacity(self.records.len() + 512);
        format::push_checkpoint(checkpoint, &mut records);
        let moved = records.len();
        records.append(&mut self.records);
        self.records = records;
        for step in &mut self.steps {
            if let Step::Entry { offset, .. } = step {
                *offset += moved;
            }
        }
    }

    /// Shows the group's entries to readers, and says whether the log began anew in it.
    pub(super) fn publish(&self, entries: &mut Entries, sequence: u64, start: u32) -> bool {
        let mut reset = false;
        for step in &self.steps {
            match *step {
                Step::Entry { index, offset } => entries.put(index, Location::new(sequence, start, offset)),
                Step::Reset { base } => {
                    entries.reset(base);
                    reset = true;
                }
            }
        }
        reset
    }
}
