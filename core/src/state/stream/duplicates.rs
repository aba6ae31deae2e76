//! The message ids that were seen lately: a message that is appended again is answered with where it is.
//!
//! The ids of one append are remembered and forgotten together, under the index of its entry. The window is bounded in
//! count here, and in age by what the leader decides ([`duties::Trimming`](crate::duties::Trimming)).

use std::collections::BTreeMap;

use bytes::Bytes;

use super::Offset;
use super::table::IdsRow;
use crate::raft::Index;

/// What an id takes in memory beside its bytes, about.
const OVERHEAD: u64 = 160;

/// The ids of one stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Duplicates {
    ids: BTreeMap<Bytes, (u32, Offset)>,
    /// By the entry that appended them.
    appends: BTreeMap<Index, IdsRow>,
    bytes: u64,
}

impl Duplicates {
    /// Where the message of an id is.
    pub(super) fn place(&self, id: &[u8]) -> Option<(u32, Offset)> {
        self.ids.get(id).copied()
    }

    /// What the ids take in memory, in bytes and about.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many ids are remembered.
    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// Every append that is remembered, the oldest first.
    pub(super) fn appends(&self) -> impl DoubleEndedIterator<Item = (Index, &IdsRow)> {
        self.appends.iter().map(|(index, row)| (*index, row))
    }

    /// Remembers the ids of an append. False when one of them is known already.
    pub(super) fn remember(&mut self, index: Index, row: IdsRow) -> bool {
        for (id, partition, offset) in &row.ids {
            self.bytes += OVERHEAD + id.len() as u64;
            if self.ids.insert(id.clone(), (*partition, *offset)).is_some() {
                return false;
            }
        }
        self.appends.insert(index, row).is_none()
    }

    /// Forgets the oldest appends as long as `count` ids are left; returns their entries.
    pub(super) fn make_room(&mut self, count: u32) -> Vec<Index> {
        let mut gone = Vec::new();
        while let Some((index, row)) = self.appends.first_key_value()
            && self.ids.len() - row.ids.len() >= count as usize
        {
            let index = *index;
            self.forget(index);
            gone.push(index);
        }
        gone
    }

    /// Forgets at most so many appends before an entry; returns their entries and how many ids they had.
    pub(super) fn forget_before(&mut self, before: Index, most: usize) -> (Vec<Index>, u64) {
        let gone: Vec<Index> = self
            .appends
            .range(..before)
            .take(most)
            .map(|(index, _)| *index)
            .collect();
        let ids = gone.iter().map(|index| self.forget(*index)).sum();
        (gone, ids)
    }

    fn forget(&mut self, index: Index) -> u64 {
        let ids = self.appends.remove(&index).map_or(Vec::new(), |row| row.ids);
        for (id, _, _) in &ids {
            self.bytes -= OVERHEAD + id.len() as u64;
            self.ids.remove(id);
        }
        ids.len() as u64
    }
}
