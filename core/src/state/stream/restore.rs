//! Streams made of their rows, in the order of their tables.

use super::super::row::Row;
use super::duplicates::Duplicates;
use super::partition::Partition;
use super::table::{GroupRow, IdsRow, Stream, StreamRow, StreamTable};
use super::{Mark, Offset, PartitionRow, StreamId};
use crate::raft::Index;

impl StreamTable {
    /// Takes in a stream. False when its name is taken.
    pub(in crate::state) fn load_stream(&mut self, id: StreamId, row: StreamRow) -> bool {
        if self.names.insert(row.name.clone(), id).is_some() {
            return false;
        }
        let stream = Stream {
            row,
            partitions: Vec::new(),
            duplicates: Duplicates::default(),
            groups: Default::default(),
        };
        self.streams.insert(id, stream).is_none()
    }

    /// Takes in the next partition of a stream. False when it is not the next one.
    pub(in crate::state) fn load_partition(&mut self, id: StreamId, number: u32, row: PartitionRow) -> bool {
        let Some(stream) = self.streams.get_mut(&id) else {
            return false;
        };
        let wanted = stream.partitions.len() == number as usize && number < stream.row.settings.partitions;
        let partition = Partition {
            row,
            marks: Default::default(),
        };
        stream.partitions.push(partition);
        self.partitions += 1;
        wanted
    }

    /// Takes in the next mark of a partition. False when it does not begin where the one before ends.
    pub(in crate::state) fn load_mark(
        &mut self,
        id: StreamId,
        number: u32,
        begins: Offset,
        mark: Mark,
    ) -> bool {
        let stream = self.streams.get_mut(&id);
        let found = stream.and_then(|stream| stream.partitions.get_mut(number as usize));
        let Some(partition) = found else {
            return false;
        };
        let expected = partition
            .marks
            .back()
            .map_or(partition.row.first, |last| last.next);
        partition.marks.push_back(mark);
        self.marks += 1;
        begins == expected
    }

    /// Takes in message ids. False when one of them is known.
    pub(in crate::state) fn load_ids(&mut self, id: StreamId, index: Index, row: IdsRow) -> bool {
        let Some(stream) = self.streams.get_mut(&id) else {
            return false;
        };
        let before = stream.duplicates.bytes();
        let new = stream.duplicates.remember(index, row);
        self.id_bytes += stream.duplicates.bytes() - before;
        new
    }

    /// Takes in a group. False when its cursors are not those of its stream.
    pub(in crate::state) fn load_group(&mut self, id: StreamId, name: String, row: GroupRow) -> bool {
        let Some(stream) = self.streams.get_mut(&id) else {
            return false;
        };
        let ends = stream.partitions.iter().map(|partition| partition.row.next);
        let fits = row.cursors.len() == stream.partitions.len()
            && row.cursors.iter().zip(ends).all(|(cursor, next)| *cursor <= next);
        stream.groups.insert(name, row);
        fits
    }

    /// Whether records of a row that ends with an offset can be there.
    pub(in crate::state) fn expects_records(&self, id: StreamId, number: u32, last: Offset) -> bool {
        let stream = self.streams.get(&id);
        let found = stream.and_then(|stream| stream.partitions.get(number as usize));
        found.is_some_and(|partition| (partition.row.first..partition.row.next).contains(&last))
    }

    /// A stream whose partitions or marks are missing.
    pub(in crate::state) fn inconsistent(&self) -> Option<StreamId> {
        let whole = |stream: &Stream| {
            stream.partitions.len() == stream.row.settings.partitions as usize
                && stream.partitions.iter().all(Partition::is_consistent)
        };
        let found = self.streams.iter().find(|(_, stream)| !whole(stream));
        found.map(|(id, _)| *id)
    }

    /// All of it as rows, in the order of their keys, without the records.
    pub(in crate::state) fn rows(&self) -> impl Iterator<Item = Row> {
        let streams = || self.streams.iter().map(|(id, stream)| (*id, stream));
        let partitions = move || {
            streams().flat_map(|(id, stream)| {
                let numbered = (0_u32..).zip(&stream.partitions);
                numbered.map(move |(number, partition)| (id, number, partition))
            })
        };
        let marks = partitions().flat_map(|(id, number, partition)| {
            let marks = partition.marks();
            marks.map(move |(begins, mark)| Row::stream_mark(id, number, begins, mark))
        });
        let ids = streams().flat_map(|(id, stream)| {
            let appends = stream.duplicates.appends();
            appends.map(move |(index, row)| Row::stream_ids(id, index, row))
        });
        let groups = streams().flat_map(|(id, stream)| {
            let groups = stream.groups.iter();
            groups.map(move |(name, row)| Row::stream_group(id, name, row))
        });
        streams()
            .map(|(id, stream)| Row::stream(id, &stream.row))
            .chain(partitions().map(|(id, number, found)| Row::stream_partition(id, number, &found.row)))
            .chain(marks)
            .chain(ids)
            .chain(groups)
    }
}
