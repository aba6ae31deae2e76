//! All streams, and the commands at work on them.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::super::Refusal;
use super::super::row::Row;
use super::duplicates::Duplicates;
use super::partition::Partition;
use super::record::{owned, records_gone};
use super::{
    ALL_PARTITIONS_MAX, APPEND_RECORDS_MAX, Append, Cut, DUPLICATES_MAX, Dropped, GROUPS_MAX,
    MESSAGE_ID_BYTES_MAX, Mark, NewRecord, Offset, PARTITIONS_MAX, PRIORITY_MAX, RECORD_KEY_BYTES_MAX,
    RecordBatch, Run, STREAMS_MAX, Start, StreamCommand, StreamId, StreamMalformed, StreamRefusal,
    StreamReply, StreamSettings, is_stream_name,
};
use crate::raft::{Index, Position};
use crate::time::WallTime;

/// How many appends one command forgets the ids of, for each stream.
const FORGOTTEN_AT_ONCE: usize = 10_000;
/// What a stream, a partition, a mark or a group takes in memory, about.
const OVERHEAD: u64 = 96;

/// What the row of a stream says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::state) struct StreamRow {
    pub(in crate::state) name: String,
    pub(in crate::state) settings: StreamSettings,
}

/// The message ids of one append, with the partitions and offsets of their messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::state) struct IdsRow {
    /// When they were appended.
    pub(in crate::state) time: WallTime,
    pub(in crate::state) ids: Vec<(Bytes, u32, Offset)>,
}

/// What the row of a group says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::state) struct GroupRow {
    /// The next offset to consume of each partition.
    pub(in crate::state) cursors: Vec<Offset>,
    pub(in crate::state) paused: bool,
}

/// One stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stream {
    pub(super) row: StreamRow,
    pub(super) partitions: Vec<Partition>,
    pub(super) duplicates: Duplicates,
    pub(super) groups: BTreeMap<String, GroupRow>,
}

/// All streams.
#[derive(Clone, Debug, Default)]
pub(in crate::state) struct StreamTable {
    pub(super) streams: BTreeMap<StreamId, Stream>,
    pub(super) names: BTreeMap<String, StreamId>,
    /// How many partitions all of them have.
    pub(super) partitions: usize,
    /// How many marks the partitions have.
    pub(super) marks: usize,
    /// What message ids take in memory.
    pub(super) id_bytes: u64,
}

/// Where a record of an append goes.
struct Placed {
    partition: u32,
    offset: Offset,
    duplicate: bool,
}

impl StreamTable {
    /// What all of it takes in memory, in bytes and about.
    pub(in crate::state) fn bytes(&self) -> u64 {
        let things = self.streams.len() + self.partitions + self.marks;
        self.id_bytes + OVERHEAD * things as u64
    }

    /// Carries out a command of the entry at `position`, whose trim was found to be of the entry's own term.
    pub(in crate::state) fn carry_out(
        &mut self,
        position: Position,
        command: StreamCommand,
        rows: &mut Vec<Row>,
    ) -> Result<StreamReply, Refusal> {
        match command {
            StreamCommand::Create { name, settings } => {
                self.create(StreamId(position.index), name, settings, rows)
            }
            StreamCommand::Delete { name } => Ok(self.delete(&name, rows)?),
            StreamCommand::Append(append) => self.append(position.index, append, rows),
            StreamCommand::Trim { term, cuts, forget } => {
                if term != position.term {
                    return Err(Refusal::StaleTerm);
                }
                Ok(self.trim(&cuts, &forget, rows))
            }
            StreamCommand::CreateGroup { stream, group, start } => {
                Ok(self.create_group(&stream, group, start, rows)?)
            }
            StreamCommand::DeleteGroup { stream, group } => {
                let (id, stream) = self.named(&stream)?;
                stream.groups.remove(&group).ok_or(StreamRefusal::NoSuchGroup)?;
                rows.push(Row::stream_group_gone(id, &group));
                Ok(StreamReply::GroupDeleted)
            }
            StreamCommand::Commit {
                stream,
                group,
                cursors,
            } => Ok(self.commit(&stream, &group, &cursors, rows)?),
            StreamCommand::Pause {
                stream,
                group,
                paused,
            } => {
                let (id, stream) = self.named(&stream)?;
                let row = stream.groups.get_mut(&group).ok_or(StreamRefusal::NoSuchGroup)?;
                row.paused = paused;
                rows.push(Row::stream_group(id, &group, row));
                Ok(row.reply())
            }
        }
    }

    fn named(&mut self, name: &str) -> Result<(StreamId, &mut Stream), StreamRefusal> {
        let id = *self.names.get(name).ok_or(StreamRefusal::NoSuchStream)?;
        let stream = self.streams.get_mut(&id).expect("a name is that of a stream");
        Ok((id, stream))
    }

    fn create(
        &mut self,
        id: StreamId,
        name: String,
        settings: StreamSettings,
        rows: &mut Vec<Row>,
    ) -> Result<StreamReply, Refusal> {
        if !is_stream_name(&name) {
            return Err(StreamMalformed::Name.into());
        }
        check_settings(&settings)?;
        if self.names.contains_key(&name) {
            return Err(StreamRefusal::StreamExists.into());
        }
        let partitions = settings.partitions as usize;
        if self.streams.len() >= STREAMS_MAX || self.partitions + partitions > ALL_PARTITIONS_MAX {
            return Err(StreamRefusal::TooManyStreams.into());
        }
        let stream = Stream {
            row: StreamRow { name, settings },
            partitions: vec![Partition::default(); partitions],
            duplicates: Duplicates::default(),
            groups: BTreeMap::new(),
        };
        rows.push(Row::stream(id, &stream.row));
        for (number, partition) in (0..).zip(&stream.partitions) {
            rows.push(Row::stream_partition(id, number, &partition.row));
        }
        self.partitions += partitions;
        self.names.insert(stream.row.name.clone(), id);
        self.streams.insert(id, stream);
        Ok(StreamReply::Created { id })
    }

    fn delete(&mut self, name: &str, rows: &mut Vec<Row>) -> Result<StreamReply, StreamRefusal> {
        let id = self.names.remove(name).ok_or(StreamRefusal::NoSuchStream)?;
        let stream = self.streams.remove(&id).expect("a name is that of a stream");
        let (mut records, mut bytes) = (0, 0);
        rows.push(Row::stream_gone(id));
        for (number, partition) in (0..).zip(&stream.partitions) {
            rows.push(Row::stream_partition_gone(id, number));
            for (begins, _) in partition.marks() {
                rows.push(Row::stream_mark_gone(id, number, begins));
            }
            records += partition.row.records();
            bytes += partition.row.bytes();
            if partition.row.records() > 0 {
                let last = Offset(partition.row.next.0 - 1);
                rows.push(records_gone(id, number, partition.row.first, last));
            }
            self.marks -= partition.marks.len();
        }
        for (index, _) in stream.duplicates.appends() {
            rows.push(Row::stream_ids_gone(id, index));
        }
        for group in stream.groups.keys() {
            rows.push(Row::stream_group_gone(id, group));
        }
        self.partitions -= stream.partitions.len();
        self.id_bytes -= stream.duplicates.bytes();
        Ok(StreamReply::Deleted { records, bytes })
    }

    fn append(&mut self, index: Index, append: Append, rows: &mut Vec<Row>) -> Result<StreamReply, Refusal> {
        check_records(&append.records)?;
        let (id, stream) = self.named(&append.stream)?;
        let partitions = stream.row.settings.partitions;
        if let Some(partition) = append.partition.filter(|partition| *partition >= partitions) {
            return Err(StreamRefusal::NoSuchPartition {
                partition,
                partitions,
            }
            .into());
        }
        let (placed, ids) = stream.place(&append);
        let runs = runs(&placed);
        let mut batches: BTreeMap<u32, Vec<NewRecord>> = BTreeMap::new();
        for (record, place) in append.records.into_iter().zip(&placed) {
            if !place.duplicate {
                batches.entry(place.partition).or_default().push(record);
            }
        }
        let (marks_before, ids_before) = (stream.marks(), stream.duplicates.bytes());
        for (number, records) in batches {
            stream.take_in(id, number, append.time, records, rows);
        }
        stream.remember(id, index, append.time, ids, rows);
        let (marks_after, ids_after) = (stream.marks(), stream.duplicates.bytes());
        self.marks = self.marks + marks_after - marks_before;
        self.id_bytes = self.id_bytes + ids_after - ids_before;
        Ok(StreamReply::Appended { runs })
    }

    fn trim(&mut self, cuts: &[Cut], forget: &[(StreamId, Index)], rows: &mut Vec<Row>) -> StreamReply {
        let (mut total, mut ids) = (Dropped::default(), 0);
        for cut in cuts {
            let found = self.streams.get_mut(&cut.stream);
            let found = found.and_then(|stream| stream.partitions.get_mut(cut.partition as usize));
            let Some(partition) = found else {
                continue;
            };
            let first = partition.row.first;
            let (begins, dropped) = partition.cut(cut.before, cut.policy);
            if begins.is_empty() {
                continue;
            }
            self.marks -= begins.len();
            total.records += dropped.records;
            total.bytes += dropped.bytes;
            for begin in begins {
                rows.push(Row::stream_mark_gone(cut.stream, cut.partition, begin));
            }
            rows.push(Row::stream_partition(cut.stream, cut.partition, &partition.row));
            let last = Offset(partition.row.first.0 - 1);
            rows.push(records_gone(cut.stream, cut.partition, first, last));
        }
        for (id, before) in forget {
            let Some(stream) = self.streams.get_mut(id) else {
                continue;
            };
            let bytes = stream.duplicates.bytes();
            let (gone, count) = stream.duplicates.forget_before(*before, FORGOTTEN_AT_ONCE);
            self.id_bytes -= bytes - stream.duplicates.bytes();
            ids += count;
            rows.extend(gone.into_iter().map(|index| Row::stream_ids_gone(*id, index)));
        }
        let Dropped { records, bytes } = total;
        StreamReply::Trimmed { records, bytes, ids }
    }

    fn create_group(
        &mut self,
        stream: &str,
        group: String,
        start: Start,
        rows: &mut Vec<Row>,
    ) -> Result<StreamReply, StreamRefusal> {
        if !is_stream_name(&group) {
            return Err(StreamMalformed::Name.into());
        }
        let (id, stream) = self.named(stream)?;
        if stream.groups.contains_key(&group) {
            return Err(StreamRefusal::GroupExists);
        }
        if stream.groups.len() >= GROUPS_MAX {
            return Err(StreamRefusal::TooManyGroups);
        }
        let cursor = |partition: &Partition| match start {
            Start::First => partition.row.first,
            Start::Next => partition.row.next,
        };
        let row = GroupRow {
            cursors: stream.partitions.iter().map(cursor).collect(),
            paused: false,
        };
        rows.push(Row::stream_group(id, &group, &row));
        let reply = row.reply();
        stream.groups.insert(group, row);
        Ok(reply)
    }

    fn commit(
        &mut self,
        stream: &str,
        group: &str,
        cursors: &[(u32, Offset)],
        rows: &mut Vec<Row>,
    ) -> Result<StreamReply, StreamRefusal> {
        let (id, stream) = self.named(stream)?;
        let row = stream.groups.get_mut(group).ok_or(StreamRefusal::NoSuchGroup)?;
        for (partition, offset) in cursors {
            let (partition, offset) = (*partition, *offset);
            let Some(found) = stream.partitions.get(partition as usize) else {
                let partitions = stream.row.settings.partitions;
                return Err(StreamRefusal::NoSuchPartition {
                    partition,
                    partitions,
                });
            };
            let next = found.row.next;
            if offset > next {
                return Err(StreamRefusal::CursorAhead {
                    partition,
                    offset,
                    next,
                });
            }
        }
        for (partition, offset) in cursors {
            row.cursors[*partition as usize] = *offset;
        }
        rows.push(Row::stream_group(id, group, row));
        Ok(row.reply())
    }
}

impl Stream {
    fn marks(&self) -> usize {
        self.partitions
            .iter()
            .map(|partition| partition.marks.len())
            .sum()
    }

    /// Where the records of an append go, and the message ids among those that are new.
    fn place(&self, append: &Append) -> (Vec<Placed>, Vec<(Bytes, u32, Offset)>) {
        let mut next: Vec<Offset> = self.partitions.iter().map(|found| found.row.next).collect();
        let mut new: BTreeMap<&[u8], (u32, Offset)> = BTreeMap::new();
        let mut ids = Vec::new();
        let emptiest = self.emptiest();
        let mut placed = Vec::with_capacity(append.records.len());
        for record in &append.records {
            let id = record.id.as_ref();
            let seen = id.and_then(|id| self.duplicates.place(id).or_else(|| new.get(&id[..]).copied()));
            let (partition, offset) = seen.unwrap_or_else(|| {
                let by_key = |key: &Bytes| partition_of(key, self.row.settings.partitions);
                let chosen = append.partition.or_else(|| record.key.as_ref().map(by_key));
                let partition = chosen.unwrap_or(emptiest);
                let next = &mut next[partition as usize];
                let offset = *next;
                *next = offset.plus(1);
                (partition, offset)
            });
            if let (Some(id), None) = (id, seen) {
                new.insert(id, (partition, offset));
                ids.push((owned(id), partition, offset));
            }
            placed.push(Placed {
                partition,
                offset,
                duplicate: seen.is_some(),
            });
        }
        (placed, ids)
    }

    /// The partition that ever got the fewest records.
    fn emptiest(&self) -> u32 {
        let numbered = (0..).zip(&self.partitions);
        let fewest = numbered.min_by_key(|(number, partition)| (partition.row.next, *number));
        fewest.map_or(0, |(number, _)| number)
    }

    fn take_in(
        &mut self,
        id: StreamId,
        number: u32,
        time: WallTime,
        records: Vec<NewRecord>,
        rows: &mut Vec<Row>,
    ) {
        let age = self.row.settings.retention.age;
        let partition = &mut self.partitions[number as usize];
        let batch = RecordBatch {
            stream: id,
            partition: number,
            first: partition.row.next,
            time: time.max(partition.row.time),
            records,
        };
        let (begins, mark): (Offset, Mark) =
            partition.append(batch.records.len() as u64, batch.bytes(), batch.time, age);
        rows.push(Row::stream_partition(id, number, &partition.row));
        rows.push(Row::stream_mark(id, number, begins, &mark));
        rows.push(batch.row());
    }

    fn remember(
        &mut self,
        id: StreamId,
        index: Index,
        time: WallTime,
        ids: Vec<(Bytes, u32, Offset)>,
        rows: &mut Vec<Row>,
    ) {
        let window = self.row.settings.duplicates;
        if ids.is_empty() || window.count == 0 {
            return;
        }
        let latest = self.duplicates.appends().next_back().map(|(_, row)| row.time);
        let time = time.max(latest.unwrap_or_default());
        let row = IdsRow { time, ids };
        rows.push(Row::stream_ids(id, index, &row));
        let new = self.duplicates.remember(index, row);
        assert!(new, "ids that are known are duplicates");
        for gone in self.duplicates.make_room(window.count) {
            rows.push(Row::stream_ids_gone(id, gone));
        }
    }
}

impl GroupRow {
    fn reply(&self) -> StreamReply {
        StreamReply::Group {
            cursors: self.cursors.clone(),
            paused: self.paused,
        }
    }
}

/// The partition of a key. Which one it is, is part of the format.
fn partition_of(key: &[u8], partitions: u32) -> u32 {
    let hash = super::super::fingerprint::digest(key);
    u32::try_from(hash % u64::from(partitions)).expect("less than the number of partitions")
}

fn runs(placed: &[Placed]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for place in placed {
        match runs.last_mut() {
            Some(run)
                if run.partition == place.partition
                    && run.duplicate == place.duplicate
                    && run.first.plus(u64::from(run.count)) == place.offset =>
            {
                run.count += 1;
            }
            _ => runs.push(Run {
                partition: place.partition,
                first: place.offset,
                count: 1,
                duplicate: place.duplicate,
            }),
        }
    }
    runs
}

fn check_settings(settings: &StreamSettings) -> Result<(), StreamMalformed> {
    let retention = &settings.retention;
    let bounds = [
        retention.age.map(|age| u64::from(!age.is_zero())),
        retention.bytes,
        retention.records,
    ];
    if !(1..=PARTITIONS_MAX).contains(&settings.partitions) {
        Err(StreamMalformed::Partitions)
    } else if bounds.contains(&Some(0)) {
        Err(StreamMalformed::Retention)
    } else if settings.duplicates.count > DUPLICATES_MAX {
        Err(StreamMalformed::Duplicates)
    } else {
        Ok(())
    }
}

fn check_records(records: &[NewRecord]) -> Result<(), StreamMalformed> {
    if !(1..=APPEND_RECORDS_MAX).contains(&records.len()) {
        return Err(StreamMalformed::Records);
    }
    let id = |id: &Bytes| !(1..=MESSAGE_ID_BYTES_MAX).contains(&id.len());
    let key = |key: &Bytes| key.len() > RECORD_KEY_BYTES_MAX;
    for record in records {
        if record.priority > PRIORITY_MAX {
            return Err(StreamMalformed::Priority);
        }
        if record.id.as_ref().is_some_and(id) {
            return Err(StreamMalformed::MessageId);
        }
        if record.key.as_ref().is_some_and(key) {
            return Err(StreamMalformed::Key);
        }
    }
    Ok(())
}
