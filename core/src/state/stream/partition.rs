//! A partition: where it begins and ends, and marks that say what lies between.
//!
//! Retention drops whole rows, and must know without reading them which are old and how many bytes they have. A mark
//! sums up some rows that follow each other. It covers at most about a 128th of what the partition holds, and of the
//! time that it keeps records, so that retention is exact to that part; a small partition has a mark for each row. The
//! number of marks grows with the logarithm of what is kept.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Offset, Policy};
use crate::time::WallTime;

/// Into how many marks what is kept is divided, at least.
const MARKS: u64 = 128;
/// Into how many marks the time that records are kept is divided, at least.
const MARKS_OF_AGE: u32 = 64;

/// Records that are gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// How many.
    pub records: u64,
    /// How many bytes they had.
    pub bytes: u64,
}

/// What the row of a partition says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::state) struct PartitionRow {
    /// The first offset that is kept.
    pub(in crate::state) first: Offset,
    /// The offset of the next record.
    pub(in crate::state) next: Offset,
    /// The time of the last record.
    pub(in crate::state) time: WallTime,
    /// The bytes of all records that were ever appended.
    pub(in crate::state) bytes_in: u64,
    /// What was dropped, by [`Policy`].
    pub(in crate::state) dropped: [Dropped; 3],
}

/// Rows of a partition that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::state) struct Mark {
    /// The offset after the last record.
    pub(in crate::state) next: Offset,
    /// The bytes of the records.
    pub(in crate::state) bytes: u64,
    /// The time of the first row.
    pub(in crate::state) begun: WallTime,
    /// The time of the last row.
    pub(in crate::state) time: WallTime,
}

/// A partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Partition {
    pub(super) row: PartitionRow,
    /// From `first` to `next`.
    pub(super) marks: VecDeque<Mark>,
}

impl Policy {
    /// All policies, in the order of their accounts.
    pub const ALL: [Policy; 3] = [Policy::Age, Policy::Bytes, Policy::Records];

    /// Its place among the accounts.
    pub(super) fn place(self) -> usize {
        match self {
            Policy::Age => 0,
            Policy::Bytes => 1,
            Policy::Records => 2,
        }
    }
}

impl PartitionRow {
    /// How many records are kept.
    pub(super) fn records(&self) -> u64 {
        self.next.since(self.first)
    }

    /// How many bytes they have.
    pub(super) fn bytes(&self) -> u64 {
        let dropped: u64 = self.dropped.iter().map(|dropped| dropped.bytes).sum();
        self.bytes_in - dropped
    }
}

impl Partition {
    /// Takes in a row of records; returns where the mark begins that it became part of.
    pub(super) fn append(
        &mut self,
        records: u64,
        bytes: u64,
        time: WallTime,
        age: Option<Duration>,
    ) -> (Offset, Mark) {
        assert!(time >= self.row.time, "a partition's time does not go back");
        let (kept_records, kept_bytes) = (self.row.records(), self.row.bytes());
        let first = self.row.next;
        self.row.next = first.plus(records);
        self.row.time = time;
        self.row.bytes_in += bytes;
        let begins = self.begin_of_last();
        let grows = |mark: &&mut Mark| {
            let span = time.since(mark.begun);
            mark.next.since(begins).saturating_mul(MARKS) < kept_records
                && mark.bytes.saturating_mul(MARKS) < kept_bytes
                && age.is_none_or(|age| span <= age / MARKS_OF_AGE)
        };
        if let Some(mark) = self.marks.back_mut().filter(grows) {
            mark.next = self.row.next;
            mark.bytes += bytes;
            mark.time = time;
            return (begins, *mark);
        }
        let mark = Mark {
            next: self.row.next,
            bytes,
            begun: time,
            time,
        };
        self.marks.push_back(mark);
        (first, mark)
    }

    /// Where the last mark begins.
    fn begin_of_last(&self) -> Offset {
        match self.marks.len() {
            0 => self.row.next,
            1 => self.row.first,
            count => self.marks[count - 2].next,
        }
    }

    /// Drops the marks that end at `before` or earlier, on account of a policy; returns where those marks began, and
    /// what they held.
    pub(super) fn cut(&mut self, before: Offset, policy: Policy) -> (Vec<Offset>, Dropped) {
        let (mut begins, mut dropped) = (Vec::new(), Dropped::default());
        while let Some(mark) = self.marks.front().filter(|mark| mark.next <= before) {
            begins.push(self.row.first);
            dropped.records += mark.next.since(self.row.first);
            dropped.bytes += mark.bytes;
            self.row.first = mark.next;
            self.marks.pop_front();
        }
        let account = &mut self.row.dropped[policy.place()];
        account.records += dropped.records;
        account.bytes += dropped.bytes;
        (begins, dropped)
    }

    /// Marks with the offsets at which they begin.
    pub(super) fn marks(&self) -> impl Iterator<Item = (Offset, &Mark)> {
        let begins = self.marks.iter().map(|mark| mark.next);
        std::iter::once(self.row.first).chain(begins).zip(&self.marks)
    }

    /// Where to look for the first record of `time` or later: it is not before this offset.
    pub(super) fn offset_at(&self, time: WallTime) -> Offset {
        let found = self.marks().find(|(_, mark)| mark.time >= time);
        found.map_or(self.row.next, |(begins, _)| begins)
    }

    /// Whether the marks make the partition.
    pub(super) fn is_consistent(&self) -> bool {
        let mut begins = self.row.first;
        let mut bytes = 0;
        for mark in &self.marks {
            if mark.next <= begins {
                return false;
            }
            begins = mark.next;
            bytes += mark.bytes;
        }
        begins == self.row.next && self.row.first <= self.row.next && bytes == self.row.bytes()
    }
}
