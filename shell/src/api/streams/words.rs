//! Streams as the API writes them.

use quorate_api::{
    CommitCursor, Deleted, DeletedByPolicy, DuplicateWindow, GroupChanged, GroupCursor, GroupInfo, NewRecord,
    PartitionInfo, Placed, StreamInfo, StreamRecord, StreamRetention,
};
use quorate_core::WallTime;
use quorate_core::state::{
    Dropped, GroupView, Offset, PartitionView, Policy, Record, RecordBatch, Run, StreamView,
};

use super::super::words::milliseconds;

/// A partition that nothing was appended to.
pub(super) fn new_partition() -> PartitionView {
    PartitionView {
        first: Offset(0),
        next: Offset(0),
        bytes: 0,
        bytes_in: 0,
        time: WallTime::default(),
        dropped: [Dropped::default(); 3],
    }
}

pub(super) fn info(view: StreamView, bytes_out: u64) -> StreamInfo {
    let sum = |of: fn(&PartitionView) -> u64| view.partitions.iter().map(of).sum();
    let retention = &view.settings.retention;
    let duplicates = &view.settings.duplicates;
    StreamInfo {
        id: view.id.0.0,
        retention: StreamRetention {
            age_ms: retention.age.map(milliseconds),
            bytes: retention.bytes,
            records: retention.records,
        },
        duplicates: DuplicateWindow {
            count: duplicates.count,
            age_ms: milliseconds(duplicates.age),
        },
        records: sum(|partition| partition.next.since(partition.first)),
        bytes: sum(|partition| partition.bytes),
        bytes_in: sum(|partition| partition.bytes_in),
        bytes_out,
        deleted: deleted(&view.partitions),
        partitions: (0..).zip(&view.partitions).map(partition).collect(),
        groups: view.groups,
        name: view.name,
    }
}

fn deleted(partitions: &[PartitionView]) -> DeletedByPolicy {
    let sum = |policy: Policy| {
        let place = Policy::ALL
            .iter()
            .position(|other| *other == policy)
            .unwrap_or_default();
        let dropped = partitions.iter().map(|partition| partition.dropped[place]);
        dropped.fold(Deleted::default(), |sum, dropped| Deleted {
            records: sum.records + dropped.records,
            bytes: sum.bytes + dropped.bytes,
        })
    };
    DeletedByPolicy {
        age: sum(Policy::Age),
        bytes: sum(Policy::Bytes),
        records: sum(Policy::Records),
    }
}

fn partition((number, view): (u32, &PartitionView)) -> PartitionInfo {
    PartitionInfo {
        partition: number,
        first_offset: view.first.0,
        next_offset: view.next.0,
        bytes: view.bytes,
        last_time_ms: view.time.0,
    }
}

pub(super) fn placed(run: &Run) -> Placed {
    Placed {
        partition: run.partition,
        first_offset: run.first.0,
        count: run.count,
        duplicate: run.duplicate,
    }
}

pub(super) fn record(batch: &RecordBatch, offset: Offset, record: &Record) -> StreamRecord {
    StreamRecord {
        offset: offset.0,
        time_ms: batch.time.0,
        record: NewRecord {
            value: record.value.clone(),
            key: record.key.clone(),
            id: record.id.clone(),
            priority: Some(record.priority),
        },
    }
}

pub(super) fn group(view: &StreamView, group: GroupView) -> GroupInfo {
    let numbered = (0..).zip(group.cursors.iter().zip(&view.partitions));
    GroupInfo {
        cursors: numbered
            .map(|(partition, (cursor, ends))| GroupCursor {
                partition,
                next_offset: cursor.0,
                behind: ends.next.since(ends.first.max(*cursor)),
            })
            .collect(),
        name: group.name,
        paused: group.paused,
    }
}

pub(super) fn group_changed(cursors: &[Offset], paused: bool) -> GroupChanged {
    let numbered = (0..).zip(cursors);
    GroupChanged {
        cursors: numbered
            .map(|(partition, cursor)| CommitCursor {
                partition,
                next_offset: cursor.0,
            })
            .collect(),
        paused,
    }
}
