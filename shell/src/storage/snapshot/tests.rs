use std::path::PathBuf;

use quorate_core::raft::{Base, DirectoryId, Lineage, Member, Membership, NodeId};

use super::super::KeyValue;
use super::super::testing::{Disk, Random, ports, run};
use super::*;

fn home() -> PathBuf {
    PathBuf::from("/data/snapshots")
}

fn open(disk: &Disk) -> Snapshots {
    Snapshots::open(&ports(disk), &home()).expect("snapshots open")
}

fn position(index: u64) -> Position {
    Position {
        term: Term(3),
        index: Index(index),
    }
}

fn header(index: u64) -> SnapshotHeader {
    let member = Member::new("a", DirectoryId(7), "127.0.0.1:1", "127.0.0.1:2");
    SnapshotHeader {
        base: Base {
            position: position(index),
            membership: Membership::bootstrap(Lineage(9), [(NodeId(1), member)].into()),
        },
    }
}

fn rows(count: u64, seed: u64) -> Vec<KeyValue> {
    let mut random = Random::new(seed);
    (0..count)
        .map(|number| {
            let length = random.below(2_000) as usize;
            (format!("key-{number:06}").into_bytes(), random.bytes(length))
        })
        .collect()
}

async fn write(snapshots: &Snapshots, index: u64, rows: &[KeyValue]) -> Result<Snapshot, StorageError> {
    let mut writer = snapshots.create(header(index))?;
    for (key, value) in rows {
        writer.push(key, value)?;
    }
    writer.finish().await
}

fn read(snapshot: &Snapshot) -> Result<Vec<KeyValue>, StorageError> {
    let mut rows = Vec::new();
    snapshot.for_each_row(|key, value| rows.push((key, value)))?;
    assert_eq!(rows.len() as u64, snapshot.rows());
    Ok(rows)
}

#[test]
fn rows_come_back_as_they_were_written() {
    run(async {
        let disk = Disk::default();
        let snapshots = open(&disk);
        for (index, count) in [(1, 0), (2, 1), (3, 2_000)] {
            let rows = rows(count, index);
            let written = write(&snapshots, index, &rows).await.expect("written");
            assert_eq!(written.header(), &header(index));
            let found = snapshots.find(position(index)).expect("readable").expect("there");
            assert_eq!(read(&found).expect("whole"), rows);
            assert_eq!(
                found.length(),
                disk.content(&snapshots.file(position(index), FINAL)).len() as u64
            );
        }
        let newest = snapshots.newest().expect("readable").expect("there");
        assert_eq!(newest.position(), position(3));
        assert!(newest.chunks() > 4);
        snapshots.retain(2, |_| false).expect("removed");
        assert_eq!(snapshots.list().expect("listed"), [position(2), position(3)]);
    });
}

#[test]
fn a_snapshot_cut_while_it_is_written_is_none() {
    run(async {
        let rows = rows(600, 1);
        for fuel in 0..20 {
            let disk = Disk::default();
            open(&disk);
            disk.stop_after(fuel);
            let snapshots = Snapshots::open(&ports(&disk), &home()).expect("it opens");
            let written = write(&snapshots, 1, &rows).await.is_ok();
            disk.power_cut(&mut Random::new(fuel));
            let newest = open(&disk).newest().expect("readable");
            assert!(!written || newest.is_some(), "cut after {fuel}");
            if let Some(snapshot) = newest {
                assert_eq!(read(&snapshot).expect("whole"), rows);
            }
            assert!(
                disk.paths()
                    .iter()
                    .all(|path| path.extension().is_some_and(|found| found == FINAL))
            );
        }
    });
}

#[test]
fn every_flipped_byte_of_a_snapshot_is_noticed() {
    run(async {
        let disk = Disk::default();
        let expected = rows(600, 4);
        write(&open(&disk), 1, &expected).await.expect("written");
        let path = disk.paths().pop().expect("the snapshot");
        let length = disk.content(&path).len() as u64;
        let mut random = Random::new(5);
        // All of the header and the trailer, and some of the rows.
        let ends = (0..300).chain(length - 120..length);
        let middle: Vec<u64> = (0..1_200).map(|_| random.below(length)).collect();
        for offset in ends.chain(middle) {
            let copy = disk.copy();
            copy.tamper(&path, |content| content[offset as usize] ^= 1 << random.below(8));
            let found = open(&copy)
                .newest()
                .and_then(|found| found.map(|found| read(&found)).transpose());
            match found {
                Err(error @ (StorageError::Damaged { .. } | StorageError::Newer { .. })) => {
                    assert!(
                        error.to_string().contains("/data/snapshots/"),
                        "offset {offset}: {error}"
                    );
                }
                other => panic!(
                    "offset {offset}: {} rows",
                    other.expect("typed").map_or(0, |rows| rows.len())
                ),
            }
        }
        for length in [0, 3, 40, 200, length / 2, length - 1] {
            let copy = disk.copy();
            copy.tamper(&path, |content| content.truncate(length as usize));
            assert!(open(&copy).newest().is_err(), "cut to {length}");
        }
    });
}

#[test]
fn a_damaged_snapshot_is_passed_over_when_an_older_one_is_whole() {
    run(async {
        let disk = Disk::default();
        let snapshots = open(&disk);
        write(&snapshots, 1, &rows(3, 1)).await.expect("written");
        write(&snapshots, 2, &rows(3, 2)).await.expect("written");
        disk.tamper(&snapshots.file(position(2), FINAL), |content| content[60] ^= 1);
        let newest = snapshots.newest().expect("one is whole").expect("there");
        assert_eq!(newest.position(), position(1));
        snapshots.remove(position(1)).expect("removed");
        assert!(
            snapshots.newest().is_err(),
            "the damage is not passed over in silence"
        );
    });
}

#[test]
fn a_transfer_is_resumed_after_a_power_cut_and_with_another_sender() {
    run(async {
        let expected = rows(3_000, 6);
        let (first, second) = (Disk::default(), Disk::default());
        let one = write(&open(&first), 7, &expected).await.expect("written");
        let other = write(&open(&second), 7, &expected).await.expect("written");
        assert!(one.pieces() > 8);

        let disk = Disk::default();
        let mut random = Random::new(7);
        let opening = one.read_piece(0).expect("readable");
        let mut receiver = open(&disk).receive(&opening).expect("it begins");
        for number in 1..5 {
            let piece = one.read_piece(number).expect("readable");
            assert!(receiver.accept(number, &piece).await.expect("taken").is_none());
        }
        receiver.sync().await.expect("synced");
        let piece = one.read_piece(5).expect("readable");
        receiver.accept(5, &piece).await.expect("taken");
        disk.power_cut(&mut random);

        let mut receiver = open(&disk).receive(&opening).expect("it goes on");
        let next = receiver.next_piece();
        assert!((5..=6).contains(&next), "goes on at {next}");
        let mut whole = None;
        for number in next..other.pieces() {
            let piece = other.read_piece(number).expect("readable");
            whole = receiver.accept(number, &piece).await.expect("taken");
        }
        assert_eq!(read(&whole.expect("it is whole")).expect("whole"), expected);
        disk.power_cut(&mut random);
        assert!(open(&disk).newest().expect("readable").is_some(), "it is durable");
    });
}

#[test]
fn wrong_pieces_are_refused_and_change_nothing() {
    run(async {
        let (source, disk) = (Disk::default(), Disk::default());
        let expected = rows(1_000, 8);
        let snapshot = write(&open(&source), 7, &expected).await.expect("written");
        let snapshots = open(&disk);
        let chunk = snapshot.read_piece(1).expect("readable");
        assert!(matches!(
            snapshots.receive(&chunk),
            Err(ReceiveError::Malformed { .. })
        ));
        let mut receiver = snapshots
            .receive(&snapshot.read_piece(0).expect("readable"))
            .expect("it begins");

        let mut flipped = chunk.clone();
        flipped[200] ^= 1;
        assert!(matches!(
            receiver.accept(1, &flipped).await,
            Err(ReceiveError::Malformed { number: 1, .. })
        ));
        assert!(matches!(
            receiver.accept(1, &chunk[..30]).await,
            Err(ReceiveError::Malformed { .. })
        ));
        let second = snapshot.read_piece(2).expect("readable");
        assert!(matches!(
            receiver.accept(2, &second).await,
            Err(ReceiveError::Gap {
                expected: 1,
                found: 2
            })
        ));
        assert!(matches!(
            receiver.accept(1, &second).await,
            Err(ReceiveError::Malformed { .. })
        ));
        let trailer = snapshot.read_piece(snapshot.pieces() - 1).expect("readable");
        assert!(receiver.accept(1, &trailer).await.is_err());
        assert!(receiver.accept(0, &chunk).await.expect("passed over").is_none());
        let mut whole = None;
        for number in 1..snapshot.pieces() {
            whole = receiver
                .accept(number, &snapshot.read_piece(number).expect("readable"))
                .await
                .expect("taken");
        }
        assert_eq!(read(&whole.expect("it is whole")).expect("whole"), expected);
    });
}

#[test]
fn pieces_of_different_snapshots_make_no_snapshot() {
    run(async {
        let (first, second, disk) = (Disk::default(), Disk::default(), Disk::default());
        let one = write(&open(&first), 7, &rows(700, 1)).await.expect("written");
        let other = write(&open(&second), 7, &rows(700, 2)).await.expect("written");
        let snapshots = open(&disk);
        let mut receiver = snapshots
            .receive(&one.read_piece(0).expect("readable"))
            .expect("it begins");
        receiver
            .accept(1, &one.read_piece(1).expect("readable"))
            .await
            .expect("taken");
        let mut last = Ok(None);
        for number in 2..other.pieces() {
            last = receiver
                .accept(number, &other.read_piece(number).expect("readable"))
                .await;
        }
        assert!(matches!(last, Err(ReceiveError::Mixed)));
        assert!(disk.paths().is_empty(), "nothing is kept of it");
    });
}
