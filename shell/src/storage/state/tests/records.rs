//! Records of streams: read from the disk and from what is not written yet, carried by snapshots, and never loaded.

use quorate_core::WallTime;
use quorate_core::raft::{Index, Position, Term};
use quorate_core::state::{
    Append, Command, NewRecord, Offset, Policy, RecordBatch, Row, StateMachine, StreamCommand, StreamId,
    StreamSettings,
};

use super::super::super::testing::{Disk, Random, run};
use super::super::*;
use super::{Rows, batch, load, membership, open, path, snapshots, start};

/// A state machine whose rows go to a store, and every value that was appended.
struct Writer {
    state: StateMachine,
    appended: Vec<Vec<u8>>,
}

const STREAM: StreamId = StreamId(Index(1));

impl Writer {
    fn new() -> (Writer, RowBatch) {
        let mut writer = Writer {
            state: StateMachine::new(),
            appended: Vec::new(),
        };
        let create = StreamCommand::Create {
            name: "s".to_owned(),
            settings: StreamSettings::new(),
        };
        let batch = writer.apply(create);
        (writer, batch)
    }

    fn apply(&mut self, command: StreamCommand) -> RowBatch {
        let position = Position {
            term: Term(1),
            index: self.state.applied().index.next(),
        };
        let applied = self.state.apply(position, &Command::Stream(command).encode());
        batch(position.index.0, applied.expect("a known command").rows)
    }

    fn append(&mut self, random: &mut Random) -> RowBatch {
        let records: Vec<NewRecord> = (0..=random.below(3))
            .map(|_| {
                let length = [10, 300, 5_000][random.below(3) as usize];
                NewRecord::new(random.bytes(length))
            })
            .collect();
        self.appended
            .extend(records.iter().map(|record| record.value.to_vec()));
        self.apply(StreamCommand::Append(Append {
            stream: "s".to_owned(),
            partition: None,
            time: WallTime(self.state.applied().index.0),
            records,
        }))
    }

    /// Drops about the first half of what is kept.
    fn trim(&mut self) -> RowBatch {
        let partition = self.state.stream("s").expect("it exists").partitions[0];
        let half = Offset((partition.first.0 + partition.next.0) / 2);
        self.apply(StreamCommand::Trim {
            term: Term(1),
            cuts: vec![quorate_core::state::Cut {
                stream: STREAM,
                partition: 0,
                before: half,
                policy: Policy::Records,
            }],
            forget: Vec::new(),
        })
    }

    fn first(&self) -> Offset {
        self.state.stream("s").expect("it exists").partitions[0].first
    }

    /// What a reader finds from an offset on, page by page.
    fn check(&self, reader: &StateReader, from: Offset, bytes_max: usize) {
        let mut next = from;
        loop {
            let batches = reader.records(STREAM, 0, next, bytes_max).expect("readable");
            let Some(last) = batches.last() else {
                break;
            };
            let begin = next;
            let found = batches.iter().flat_map(|batch| batch.records_from(begin));
            for (offset, record) in found {
                assert_eq!(offset, next);
                assert_eq!(record.value, self.appended[offset.0 as usize], "offset {offset}");
                next = next.plus(1);
            }
            assert_eq!(next, last.next());
        }
        assert_eq!(next.0, self.appended.len() as u64, "all of it was found");
    }
}

#[test]
fn records_are_found_wherever_they_are_and_are_no_part_of_what_is_loaded() {
    let disk = Disk::default();
    let mut store = open(&disk).expect("a new store");
    let (reader, unwritten) = (store.reader(), store.unwritten());
    let mut random = Random::new(1);
    let (mut writer, created) = Writer::new();
    store.write(created).expect("there is room");
    for round in 0..30 {
        let batches: Vec<RowBatch> = (0..random.below(6)).map(|_| writer.append(&mut random)).collect();
        for batch in &batches {
            assert!(unwritten.announce(&batch.rows));
        }
        writer.check(&reader, writer.first(), 3_000);
        for batch in batches {
            store.write(batch).expect("there is room");
        }
        writer.check(&reader, writer.first(), 3_000);
        if round % 7 == 6 {
            let trimmed = writer.trim();
            unwritten.announce(&trimmed.rows);
            writer.check(&reader, writer.first(), 20_000);
            store.write(trimmed).expect("there is room");
            let batches = reader.records(STREAM, 0, Offset(0), 100).expect("readable");
            assert_eq!(batches[0].first, writer.first(), "nothing before it is left");
        }
    }
    assert!(writer.first() > Offset(20));
    let (_, rows) = load(&store).expect("it is whole");
    assert!(rows.keys().all(|key| !Row::holds_records(key)));
    drop(store);
    let store = open(&disk).expect("it opens again");
    writer.check(&store.reader(), writer.first(), 3_000);
}

#[test]
fn what_is_dropped_before_it_was_written_is_never_written() {
    let disk = Disk::default();
    let mut store = open(&disk).expect("a new store");
    let mut random = Random::new(2);
    let (mut writer, created) = Writer::new();
    let mut changes = Changes::default();
    changes.add(created);
    for _ in 0..10 {
        changes.add(writer.append(&mut random));
    }
    changes.add(writer.trim());
    changes.add(writer.append(&mut random));
    store.commit(&changes).expect("there is room");
    assert_eq!(
        store.reader().records(STREAM, 0, Offset(0), 1).expect("readable")[0].first,
        writer.first()
    );
    writer.check(&store.reader(), writer.first(), 100_000);
    let gone = store.manifest.records.rows;
    assert!(gone < 11, "{gone} rows");
    store
        .write(writer.apply(StreamCommand::Delete { name: "s".to_owned() }))
        .expect("there is room");
    assert_eq!(
        store.manifest.records,
        Sum::default(),
        "nothing is left of a deleted stream"
    );
}

#[test]
fn a_snapshot_carries_the_records_and_an_install_brings_them() {
    run(async {
        let disk = Disk::default();
        let mut store = open(&disk).expect("a new store");
        let mut random = Random::new(3);
        let (mut writer, created) = Writer::new();
        store.write(created).expect("there is room");
        for _ in 0..200 {
            store.write(writer.append(&mut random)).expect("there is room");
        }
        store.write(writer.trim()).expect("there is room");
        let snapshot = store.reader().snapshot(&snapshots(&disk)).await.expect("written");
        let snapshot = snapshot.expect("it is not empty");
        assert!(snapshot.chunks() > 1);

        let other = Disk::default();
        let mut target = open(&other).expect("a new store");
        let reader = target.reader();
        target.unwritten().announce(&writer.append(&mut random).rows);
        writer.appended.pop();
        target.install(&snapshot).await.expect("installed");
        let mut rows = Rows::new();
        let loaded = target
            .load(|key, value| drop(rows.insert(key.to_vec(), value.to_vec())))
            .expect("whole");
        let restored = StateMachine::restore(rows.into_iter(), loaded.applied).expect("a state");
        let next = restored.stream("s").expect("it exists").partitions[0].next;
        writer.appended.truncate(usize::try_from(next.0).expect("few"));
        writer.check(&reader, writer.first(), 50_000);
        assert_eq!(target.loaded().membership, Some(membership()));
    });
}

#[test]
fn a_flipped_byte_in_a_record_is_noticed_when_it_is_read_or_copied() {
    run(async {
        let disk = Disk::default();
        let mut store = open(&disk).expect("a new store");
        let mut random = Random::new(4);
        let (mut writer, created) = Writer::new();
        store.write(created).expect("there is room");
        for _ in 0..40 {
            store.write(writer.append(&mut random)).expect("there is room");
        }
        drop(store);
        let content = disk.content(&path());
        let mut noticed = 0;
        for value in writer.appended.iter().filter(|value| value.len() == 300).take(8) {
            let place = content
                .windows(300)
                .rposition(|window| window == value.as_slice());
            let Some(place) = place else {
                continue;
            };
            let copy = disk.copy();
            copy.tamper(&path(), |content| content[place + 100] ^= 4);
            let store = open(&copy).expect("the engine looks at no record");
            let read = store.reader().records(STREAM, 0, Offset(0), usize::MAX);
            let copied = store.reader().snapshot(&snapshots(&copy)).await;
            match (read, copied) {
                (Err(StorageError::Damaged { .. }), Err(StorageError::Damaged { .. })) => noticed += 1,
                // What was flipped is a page that is not in use any more.
                (Ok(_), Ok(_)) => {}
                (read, copied) => panic!("{} {}", read.is_ok(), copied.is_ok()),
            }
        }
        assert!(noticed > 0, "no record was damaged");
    });
}

#[test]
fn power_cuts_leave_state_and_records_of_one_commit() {
    for seed in 0..40 {
        let mut random = Random::new(seed);
        let disk = Disk::default();
        let mut store = open(&disk).expect("a new store");
        let (mut writer, created) = Writer::new();
        store.write(created).expect("there is room");
        disk.stop_after(random.below(150));
        loop {
            let next = match random.below(6) {
                0 => writer.trim(),
                _ => writer.append(&mut random),
            };
            if store.write(next).is_err() {
                break;
            }
        }
        disk.power_cut(&mut random);
        drop(store);
        let store = open(&disk).expect("it opens");
        let (applied, rows) = load(&store).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let state = StateMachine::restore(rows.into_iter(), applied).expect("a state");
        let partition = state.stream("s").expect("it was created before").partitions[0];
        writer
            .appended
            .truncate(usize::try_from(partition.next.0).expect("few"));
        writer.check(&store.reader(), partition.first, 4_000);
        let before = store.reader().records(STREAM, 0, Offset(0), 1).expect("readable");
        let first: Option<&RecordBatch> = before.first();
        assert_eq!(
            first.map_or(partition.next, |batch| batch.first),
            partition.first,
            "seed {seed}"
        );
    }
}

#[test]
fn the_lane_lets_go_of_records_that_are_on_disk() {
    run(async {
        let disk = Disk::default();
        let store = open(&disk).expect("a new store");
        let (reader, unwritten) = (store.reader(), store.unwritten());
        let (sender, lane) = state_lane(1 << 20);
        let _reports = start(&disk, store, lane);
        let mut random = Random::new(5);
        let (mut writer, created) = Writer::new();
        sender.send(created).await.expect("taken");
        for _ in 0..50 {
            let batch = writer.append(&mut random);
            unwritten.announce(&batch.rows);
            sender.send(batch).await.expect("taken");
            writer.check(&reader, Offset(0), 10_000);
        }
        sender.flush().await.expect("committed");
        assert!(unwritten.is_empty());
        writer.check(&reader, Offset(0), 10_000);
    });
}
