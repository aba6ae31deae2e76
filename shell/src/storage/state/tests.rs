mod records;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use quorate_core::raft::{DirectoryId, Index, Lineage, Member, NodeId, Term};

use super::super::testing::{Disk, Random, ports, run};
use super::super::{SnapshotHeader, Snapshots};
use super::*;

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

fn path() -> PathBuf {
    PathBuf::from("/data/state.redb")
}

fn membership() -> Membership {
    let member = Member::new("a", DirectoryId(7), "127.0.0.1:1", "127.0.0.1:2");
    Membership::bootstrap(Lineage(9), [(NodeId(1), member)].into())
}

fn position(index: u64) -> Position {
    Position {
        term: Term(1),
        index: Index(index),
    }
}

fn put(key: &str, value: &str) -> Row {
    Row::written(key, value.as_bytes().to_vec())
}

fn batch(index: u64, rows: Vec<Row>) -> RowBatch {
    RowBatch {
        applied: position(index),
        membership: Some(membership()),
        rows,
    }
}

fn open(disk: &Disk) -> Result<StateStore, StorageError> {
    StateStore::open(&ports(disk), &path())
}

fn snapshots(disk: &Disk) -> Snapshots {
    Snapshots::open(&ports(disk), &PathBuf::from("/data/snapshots")).expect("snapshots open")
}

fn load(store: &StateStore) -> Result<(Position, Rows), StorageError> {
    let mut rows = Rows::new();
    let loaded = store.load(|key, value| {
        rows.insert(key.to_vec(), value.to_vec());
    })?;
    assert_eq!(loaded.rows, rows.len() as u64);
    Ok((loaded.applied, rows))
}

fn apply(rows: &mut Rows, batch: &RowBatch) {
    for row in &batch.rows {
        match &row.change {
            RowChange::Written(value) => drop(rows.insert(row.key.clone(), value.to_vec())),
            RowChange::Gone => drop(rows.remove(&row.key)),
            RowChange::RangeGone { last } => remove_range(rows, &row.key, last),
        }
    }
}

fn random_batch(random: &mut Random, index: u64) -> RowBatch {
    let mut rows = Vec::new();
    for _ in 0..random.below(30) {
        let length = [0, 10, 200, 6_000][random.below(4) as usize];
        let key = format!("key-{}", random.below(60));
        rows.push(match random.chance(75) {
            true => Row::written(key, random.bytes(length)),
            false => Row::gone(key),
        });
    }
    batch(index, rows)
}

/// A store with several commits behind it.
fn sample(disk: &Disk, seed: u64) -> (StateStore, (Position, Rows)) {
    let mut random = Random::new(seed);
    let mut store = open(disk).expect("a new store");
    let mut rows = Rows::new();
    for index in 1..=12 {
        let next = random_batch(&mut random, index);
        apply(&mut rows, &next);
        store.write(next).expect("there is room");
    }
    (store, (position(12), rows))
}

#[test]
fn rows_come_back_as_they_were_written() {
    let disk = Disk::default();
    let mut store = open(&disk).expect("a new store");
    assert_eq!(
        load(&store).expect("it is empty"),
        (Position::default(), Rows::new())
    );
    store
        .write(batch(3, vec![put("a", "1"), put("b", "2"), put("a", "3")]))
        .expect("written");
    let mut last = batch(5, vec![]);
    last.membership = None;
    last.rows.push(Row::gone("b"));
    store.write(last).expect("written");
    drop(store);
    let store = open(&disk).expect("it opens again");
    assert_eq!(store.loaded().membership, Some(membership()));
    let expected: Rows = [(b"a".to_vec(), b"3".to_vec())].into();
    assert_eq!(load(&store).expect("it is whole"), (position(5), expected));
}

#[test]
fn power_cuts_and_kills_leave_a_whole_commit() {
    for seed in 0..150 {
        let mut random = Random::new(seed);
        let disk = Disk::default();
        disk.stop_after(10_000);
        let mut possible = vec![(Position::default(), Rows::new())];
        for round in 0..6 {
            let mut store = open(&disk).unwrap_or_else(|error| panic!("seed {seed}, round {round}: {error}"));
            let found = load(&store).unwrap_or_else(|error| panic!("seed {seed}, round {round}: {error}"));
            assert!(
                possible.contains(&found),
                "seed {seed}, round {round}: at {}",
                found.0
            );
            possible = vec![found];
            disk.stop_after(random.below(120));
            for _ in 0..8 {
                let (applied, mut rows) = possible[0].clone();
                let next = random_batch(&mut random, applied.index.0 + 1);
                apply(&mut rows, &next);
                let after = (next.applied, rows);
                if store.write(next).is_err() {
                    possible.push(after);
                    break;
                }
                possible = vec![after];
            }
            if random.chance(40) {
                disk.kill();
            } else {
                disk.power_cut(&mut random);
            }
            drop(store);
        }
    }
}

/// Flips bytes of the database; it is refused, or holds exactly what it held.
fn flip(disk: &Disk, expected: &(Position, Rows), rounds: u64, seed: u64) -> u64 {
    let mut random = Random::new(seed);
    let length = disk.content(&path()).len() as u64;
    let mut refused = 0;
    for round in 0..rounds {
        let copy = disk.copy();
        let offset = random.below(length);
        let bit = 1 << random.below(8);
        copy.tamper(&path(), |content| content[offset as usize] ^= bit);
        let opened = open(&copy).and_then(|store| load(&store).map(|found| (store, found)));
        match opened {
            Ok((_store, found)) => {
                assert_eq!(&found, expected, "seed {seed}, round {round}, offset {offset}")
            }
            Err(error @ (StorageError::Damaged { .. } | StorageError::Newer { .. })) => {
                let text = error.to_string();
                assert!(
                    text.contains("/data/state.redb") && text.contains("move /data aside"),
                    "{text}"
                );
                refused += 1;
            }
            Err(error) => panic!("seed {seed}, round {round}, offset {offset}: {error}"),
        }
    }
    refused
}

#[test]
fn a_flipped_byte_in_a_closed_database_is_noticed_or_harmless() {
    let disk = Disk::default();
    let (store, expected) = sample(&disk, 1);
    drop(store);
    let refused = flip(&disk, &expected, 1_500, 2);
    assert!(refused > 20, "damage was noticed {refused} times");
}

#[test]
fn a_flipped_byte_in_the_database_of_a_killed_process_is_noticed_or_harmless() {
    let disk = Disk::default();
    let (store, expected) = sample(&disk, 3);
    disk.kill();
    drop(store);
    let refused = flip(&disk, &expected, 1_500, 4);
    assert!(refused > 20, "damage was noticed {refused} times");
}

#[test]
fn a_row_of_another_key_or_of_an_older_commit_is_noticed() {
    let disk = Disk::default();
    let (mut store, _) = sample(&disk, 5);
    // What the engine would show if a page of an older commit came back.
    let handle = current(&store.shared);
    let transaction = handle.database().begin_write().expect("a transaction");
    {
        let mut table = transaction.open_table(ROWS).expect("rows");
        let stale = row::encode_row(b"key-1", b"an older value");
        table
            .insert(b"key-1".as_slice(), stale.as_slice())
            .expect("written");
    }
    transaction.commit().expect("committed");
    let error = load(&store).expect_err("the digest differs");
    assert!(error.to_string().contains("rows"), "{error}");

    let transaction = handle.database().begin_write().expect("a transaction");
    {
        let mut table = transaction.open_table(ROWS).expect("rows");
        let foreign = row::encode_row(b"key-2", b"x");
        table
            .insert(b"key-1".as_slice(), foreign.as_slice())
            .expect("written");
    }
    transaction.commit().expect("committed");
    let error = load(&store).expect_err("the checksum covers the key");
    assert!(
        error.to_string().contains("checksum of the row \"key-1\""),
        "{error}"
    );
    drop(handle);
    assert!(store.write(batch(99, vec![])).is_ok());
}

#[test]
fn a_full_disk_is_named() {
    let disk = Disk::default();
    let (mut store, expected) = sample(&disk, 6);
    disk.set_room(Some(4_096));
    let big = "x".repeat(3_000_000);
    let error = store
        .write(batch(13, vec![put("big", &big)]))
        .expect_err("no room");
    assert!(
        error.is_full() && error.to_string().contains("free some space"),
        "{error}"
    );
    disk.kill();
    drop(store);
    disk.set_room(None);
    let store = open(&disk).expect("there is room again");
    assert_eq!(load(&store).expect("it is whole"), expected);
}

#[test]
fn a_snapshot_holds_what_is_committed_and_is_installed_elsewhere() {
    run(async {
        let disk = Disk::default();
        let (store, expected) = sample(&disk, 7);
        let snapshot = store.reader().snapshot(&snapshots(&disk)).await.expect("written");
        let snapshot = snapshot.expect("it is not empty");
        assert_eq!(snapshot.position(), position(12));

        let other = Disk::default();
        let (mut target, _) = sample(&other, 8);
        let old = target.reader();
        target.install(&snapshot).await.expect("installed");
        assert_eq!(load(&target).expect("it is whole"), expected);
        assert_eq!(
            View::open(&old.place, &current(&old.shared))
                .expect("a view")
                .manifest
                .applied,
            position(12)
        );
        let mut rows = expected.1.clone();
        let next = random_batch(&mut Random::new(1), 13);
        apply(&mut rows, &next);
        target.write(next).expect("it goes on");
        drop(target);
        assert_eq!(
            load(&open(&other).expect("it opens")).expect("whole"),
            (position(13), rows)
        );
    });
}

#[test]
fn an_install_cut_anywhere_leaves_the_old_state_or_the_new_one_and_is_repeated() {
    run(async {
        let disk = Disk::default();
        let (mut store, old) = sample(&disk, 9);
        let kept = snapshots(&disk);
        let mut rows = Rows::new();
        let header = SnapshotHeader {
            base: Base {
                position: position(40),
                membership: membership(),
            },
        };
        let mut writer = kept.create(header.clone()).expect("created");
        for number in 0..200 {
            let (key, value) = (format!("new-{number:03}").into_bytes(), vec![number as u8; 100]);
            writer.push(&key, &value).expect("written");
            rows.insert(key, value);
        }
        let snapshot = writer.finish().await.expect("written");
        let new = (position(40), rows);
        store.write(batch(12, vec![])).expect("still there");
        disk.kill();
        drop((store, snapshot));

        let mut finished = false;
        for fuel in 0..400 {
            let copy = disk.copy();
            let kept = snapshots(&copy);
            let snapshot = kept.newest().expect("readable").expect("there");
            let mut store = open(&copy).expect("it opens");
            copy.stop_after(fuel);
            finished = store.install(&snapshot).await.is_ok();
            copy.power_cut(&mut Random::new(fuel));
            drop((store, snapshot));
            let found = load(&open(&copy).expect("it opens")).expect("it is whole");
            assert!(found == new || (!finished && found == old), "cut after {fuel}");
            let again =
                StateStore::open_behind(&ports(&copy), &path(), &snapshots(&copy), Some(&header.base))
                    .await
                    .expect("the snapshot is there");
            assert_eq!(load(&again).expect("it is whole"), new);
            if finished {
                break;
            }
        }
        assert!(finished, "the install came to its end");
    });
}

#[test]
fn a_state_behind_the_log_without_a_snapshot_is_refused() {
    run(async {
        let disk = Disk::default();
        drop(sample(&disk, 10));
        let base = Base {
            position: position(50),
            membership: membership(),
        };
        let opened = StateStore::open_behind(&ports(&disk), &path(), &snapshots(&disk), Some(&base)).await;
        let error = opened.err().expect("entries are missing");
        assert!(
            error
                .to_string()
                .contains("up to index 12, but the log begins after 50"),
            "{error}"
        );
    });
}

/// Runs a lane on `store`, and records what it reports.
fn start(disk: &Disk, store: StateStore, lane: StateLane) -> Arc<Mutex<Vec<Result<u64, String>>>> {
    let reports = Arc::new(Mutex::new(Vec::new()));
    let output = Arc::clone(&reports);
    let ports = ports(disk);
    let report = move |result: Result<Position, quorate_core::raft::DiskError>| {
        let result = result.map(|position| position.index.0).map_err(|error| error.0);
        output.lock().expect("no panic").push(result);
    };
    tokio::task::spawn_local(run_state_lane(ports, store, lane, report));
    reports
}

#[test]
fn the_lane_commits_many_batches_at_once_and_does_nothing_when_idle() {
    run(async {
        let disk = Disk::default();
        let store = open(&disk).expect("a new store");
        let (sender, lane) = state_lane(1 << 20);
        let reports = start(&disk, store, lane);
        let before = disk.syncs();
        for index in 1..=500 {
            sender
                .send(batch(index, vec![put("key", &index.to_string())]))
                .await
                .expect("taken");
        }
        sender.flush().await.expect("committed");
        assert_eq!(*reports.lock().expect("no panic"), [Ok(500)]);
        let after = disk.syncs();
        assert!(after - before <= 4, "{} syncs for one commit", after - before);
        sender.flush().await.expect("nothing to do");
        assert_eq!(disk.syncs(), after);
    });
}

#[test]
fn the_lane_commits_by_itself_after_a_while_and_at_the_end() {
    run(async {
        let disk = Disk::default();
        let store = open(&disk).expect("a new store");
        let (sender, lane) = state_lane(1 << 20);
        let reports = start(&disk, store, lane);
        sender.send(batch(1, vec![put("key", "1")])).await.expect("taken");
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        while reports.lock().expect("no panic").is_empty() {
            assert!(tokio::time::Instant::now() < deadline, "it never committed");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        sender.send(batch(2, vec![put("key", "2")])).await.expect("taken");
        drop(sender);
        while reports.lock().expect("no panic").len() < 2 {
            assert!(
                tokio::time::Instant::now() < deadline,
                "it never committed the rest"
            );
            tokio::task::yield_now().await;
        }
        assert_eq!(*reports.lock().expect("no panic"), [Ok(1), Ok(2)]);
    });
}

#[test]
fn a_full_queue_is_seen_by_the_producer_and_drains() {
    run(async {
        let disk = Disk::default();
        let store = open(&disk).expect("a new store");
        let (sender, lane) = state_lane(8 << 10);
        let value = "x".repeat(1_000);
        let mut index = 0;
        let refused = loop {
            index += 1;
            assert!(index < 100, "the queue is bounded");
            if let Some(refused) = sender
                .offer(batch(index, vec![put("key", &value)]))
                .expect("the lane lives")
            {
                break refused;
            }
        };
        assert_eq!(refused.applied, position(index));
        let reports = start(&disk, store, lane);
        sender.flush().await.expect("drained");
        assert!(sender.offer(refused).expect("the lane lives").is_none());
        // A batch larger than the whole queue is taken as well.
        sender.flush().await.expect("drained");
        sender
            .send(batch(index + 1, vec![put("big", &"x".repeat(100_000))]))
            .await
            .expect("taken");
        sender.flush().await.expect("drained");
        assert_eq!(reports.lock().expect("no panic").last(), Some(&Ok(index + 1)));
    });
}

#[test]
fn an_error_ends_the_lane_and_reaches_both_ends() {
    run(async {
        let disk = Disk::default();
        let store = open(&disk).expect("a new store");
        let (sender, lane) = state_lane(8 << 10);
        let reports = start(&disk, store, lane);
        disk.stop_after(0);
        sender.send(batch(1, vec![put("key", "1")])).await.expect("taken");
        assert!(sender.flush().await.is_err());
        assert!(sender.send(batch(2, vec![])).await.is_err());
        assert!(sender.offer(batch(2, vec![])).is_err());
        let reports = reports.lock().expect("no panic");
        let [Err(error)] = reports.as_slice() else {
            panic!("{reports:?}");
        };
        assert!(error.contains("/data/state.redb"), "{error}");
    });
}
