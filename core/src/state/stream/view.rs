//! What a reader sees of streams, and what a leader finds to be dropped.

use std::ops::Bound;

use super::table::{GroupRow, Stream, StreamTable};
use super::{Cut, Dropped, Offset, PartitionRow, Policy, StreamId, StreamSettings};
use crate::raft::Index;
use crate::time::WallTime;

/// A stream as a reader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamView {
    /// Its id.
    pub id: StreamId,
    /// Its name.
    pub name: String,
    /// How it is kept.
    pub settings: StreamSettings,
    /// Its partitions.
    pub partitions: Vec<PartitionView>,
    /// The names of its consumer groups.
    pub groups: Vec<String>,
    /// How many message ids are remembered.
    pub ids: usize,
}

/// A partition as a reader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionView {
    /// The first offset that is kept.
    pub first: Offset,
    /// The offset of the next record.
    pub next: Offset,
    /// The bytes of the records that are kept.
    pub bytes: u64,
    /// The bytes of all records that were ever appended.
    pub bytes_in: u64,
    /// The time of the last record.
    pub time: WallTime,
    /// What was dropped, in the order of [`Policy::ALL`].
    pub dropped: [Dropped; 3],
}

/// Where a partition begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionEnds<'a> {
    /// The stream's name.
    pub name: &'a str,
    /// The stream.
    pub stream: StreamId,
    /// The partition.
    pub partition: u32,
    /// The first offset that is kept.
    pub first: Offset,
    /// The offset of the next record.
    pub next: Offset,
}

/// A consumer group as a reader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupView {
    /// Its name.
    pub name: String,
    /// The next offset to consume of each partition.
    pub cursors: Vec<Offset>,
    /// Whether it is paused.
    pub paused: bool,
}

/// How many cuts one look finds; what is left is found by the next.
const CUTS_AT_ONCE: usize = 1_000;

impl From<&PartitionRow> for PartitionView {
    fn from(row: &PartitionRow) -> PartitionView {
        PartitionView {
            first: row.first,
            next: row.next,
            bytes: row.bytes(),
            bytes_in: row.bytes_in,
            time: row.time,
            dropped: row.dropped,
        }
    }
}

impl Stream {
    fn view(&self, id: StreamId) -> StreamView {
        StreamView {
            id,
            name: self.row.name.clone(),
            settings: self.row.settings,
            partitions: self
                .partitions
                .iter()
                .map(|partition| (&partition.row).into())
                .collect(),
            groups: self.groups.keys().cloned().collect(),
            ids: self.duplicates.len(),
        }
    }

    /// What retention no longer keeps. A cut takes whole marks, and a bound on bytes or records keeps at least as much as
    /// it says when there is as much.
    fn overdue(&self, id: StreamId, now: WallTime, cuts: &mut Vec<Cut>) {
        let retention = &self.row.settings.retention;
        let mut firsts: Vec<usize> = vec![0; self.partitions.len()];
        if let Some(age) = retention.age {
            for (number, partition) in (0..).zip(&self.partitions) {
                let old = |(_, mark): &(usize, &super::Mark)| now.since(mark.time) > age;
                let marks = partition.marks.iter().enumerate();
                if let Some((last, mark)) = marks.take_while(old).last() {
                    firsts[number as usize] = last + 1;
                    cuts.push(cut(id, number, mark.next, Policy::Age));
                }
            }
        }
        if let Some(most) = retention.bytes {
            self.surplus(id, most, &mut firsts, Policy::Bytes, cuts);
        }
        if let Some(most) = retention.records {
            self.surplus(id, most, &mut firsts, Policy::Records, cuts);
        }
    }

    /// Cuts the oldest marks as long as the others are more than `most`; marks before `firsts` are cut already.
    fn surplus(&self, id: StreamId, most: u64, firsts: &mut [usize], policy: Policy, cuts: &mut Vec<Cut>) {
        let measure = |partition: usize, place: usize| {
            let found = &self.partitions[partition];
            let mark = &found.marks[place];
            let begins = place
                .checked_sub(1)
                .map_or(found.row.first, |last| found.marks[last].next);
            match policy {
                Policy::Bytes => mark.bytes,
                Policy::Age | Policy::Records => mark.next.since(begins),
            }
        };
        let kept = |(partition, first): (usize, &usize)| -> u64 {
            let row = &self.partitions[partition].row;
            let whole = match policy {
                Policy::Bytes => row.bytes(),
                Policy::Age | Policy::Records => row.records(),
            };
            whole - (0..*first).map(|place| measure(partition, place)).sum::<u64>()
        };
        let mut total: u64 = firsts.iter().enumerate().map(kept).sum();
        let begun: Vec<usize> = firsts.to_vec();
        while total > most {
            let oldest = (0..firsts.len())
                .filter(|partition| firsts[*partition] < self.partitions[*partition].marks.len())
                .min_by_key(|partition| self.partitions[*partition].marks[firsts[*partition]].time);
            let Some(oldest) = oldest else {
                break;
            };
            let size = measure(oldest, firsts[oldest]);
            if total - size < most {
                break;
            }
            total -= size;
            firsts[oldest] += 1;
        }
        for (partition, first) in firsts.iter().enumerate() {
            if *first > begun[partition] {
                let number = u32::try_from(partition).expect("partitions are few");
                let before = self.partitions[partition].marks[first - 1].next;
                cuts.push(cut(id, number, before, policy));
            }
        }
    }

    /// Up to which entry message ids are too old.
    fn forgettable(&self, now: WallTime) -> Option<Index> {
        let age = self.row.settings.duplicates.age;
        let old = self
            .duplicates
            .appends()
            .take_while(|(_, row)| now.since(row.time) > age);
        old.last().map(|(index, _)| index.next())
    }
}

fn cut(stream: StreamId, partition: u32, before: Offset, policy: Policy) -> Cut {
    Cut {
        stream,
        partition,
        before,
        policy,
    }
}

impl GroupRow {
    fn view(&self, name: &str) -> GroupView {
        GroupView {
            name: name.to_owned(),
            cursors: self.cursors.clone(),
            paused: self.paused,
        }
    }
}

impl StreamTable {
    fn find(&self, name: &str) -> Option<(StreamId, &Stream)> {
        let id = *self.names.get(name)?;
        Some((id, &self.streams[&id]))
    }

    pub(in crate::state) fn view(&self, name: &str) -> Option<StreamView> {
        self.find(name).map(|(id, stream)| stream.view(id))
    }

    pub(in crate::state) fn views<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
    ) -> impl Iterator<Item = StreamView> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        self.names
            .range::<str, _>((start, Bound::Unbounded))
            .take_while(move |(name, _)| name.starts_with(prefix))
            .map(|(_, id)| self.streams[id].view(*id))
    }

    /// The partitions of streams whose names begin with `prefix`, by name.
    pub(in crate::state) fn ends<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = PartitionEnds<'a>> {
        let named = self
            .names
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        let named = named.take_while(move |(name, _)| name.starts_with(prefix));
        named.flat_map(|(name, id)| {
            let numbered = (0..).zip(&self.streams[id].partitions);
            numbered.map(move |(partition, found)| PartitionEnds {
                name,
                stream: *id,
                partition,
                first: found.row.first,
                next: found.row.next,
            })
        })
    }

    pub(in crate::state) fn offset_at(&self, name: &str, partition: u32, time: WallTime) -> Option<Offset> {
        let (_, stream) = self.find(name)?;
        let partition = stream.partitions.get(partition as usize)?;
        Some(partition.offset_at(time))
    }

    pub(in crate::state) fn group(&self, stream: &str, group: &str) -> Option<GroupView> {
        let (_, stream) = self.find(stream)?;
        stream.groups.get(group).map(|row| row.view(group))
    }

    pub(in crate::state) fn groups(&self, stream: &str) -> Vec<GroupView> {
        let found = self.find(stream).map(|(_, stream)| stream.groups.iter());
        let rows = found.into_iter().flatten();
        rows.map(|(name, row)| row.view(name)).collect()
    }

    /// What is to be dropped and forgotten at this time of a leader's wall clock.
    pub(in crate::state) fn overdue(&self, now: WallTime) -> (Vec<Cut>, Vec<(StreamId, Index)>) {
        let (mut cuts, mut forget) = (Vec::new(), Vec::new());
        for (id, stream) in &self.streams {
            if cuts.len() >= CUTS_AT_ONCE || forget.len() >= CUTS_AT_ONCE {
                break;
            }
            stream.overdue(*id, now, &mut cuts);
            forget.extend(stream.forgettable(now).map(|before| (*id, before)));
        }
        (cuts, forget)
    }
}
