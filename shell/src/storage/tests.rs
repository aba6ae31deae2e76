//! A whole data directory under damage, as a starting node finds it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use quorate_core::raft::{
    Base, DirectoryId, Entry, HardState, Index, Lineage, Member, Membership, NodeId, Payload, Position, Term,
    Write, WriteId,
};

use super::testing::{Disk, Random, ports, run};
use super::*;

const HOME: &str = "/data";
const ENTRIES: u64 = 120;
const SNAPSHOT_AT: u64 = 60;
const STATE_AT: u64 = 100;

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

fn owner(name: &str) -> Owner {
    Owner {
        name: name.to_owned(),
        cluster: "test".to_owned(),
    }
}

fn membership() -> Membership {
    let member =
        |name: &str, directory| Member::new(name, DirectoryId(directory), "127.0.0.1:9100", "127.0.0.1:9000");
    Membership::bootstrap(
        Lineage(9),
        [(NodeId(1), member("a", 1)), (NodeId(2), member("b", 2))].into(),
    )
}

fn position(index: u64) -> Position {
    Position {
        term: Term(1 + index / 50),
        index: Index(index),
    }
}

fn entry(index: u64) -> Entry {
    let payload = match index % 10 {
        0 => Payload::Empty,
        5 => Payload::Membership(Box::new(membership())),
        _ => Payload::Command(Bytes::from(vec![index as u8; 100 + index as usize])),
    };
    Entry {
        position: position(index),
        payload,
    }
}

const SEGMENT_BYTES: u64 = 16 << 10;

fn options() -> LogOptions {
    LogOptions {
        segment_bytes: SEGMENT_BYTES,
        tail_bytes_max: 2_000,
        ..LogOptions::default()
    }
}

/// Everything that a node finds when it starts, down to the last row.
#[derive(Clone, Debug, PartialEq)]
struct Found {
    identity: Identity,
    hard_state: HardState,
    entries: Vec<Entry>,
    applied: Position,
    rows: Rows,
    snapshots: Vec<(Position, Rows)>,
    repair: Option<Position>,
    damaged: bool,
}

impl Found {
    /// Whether nothing acknowledged is missing: a state that is behind is brought up by the log.
    fn is_whole(&self, expected: &Found) -> bool {
        let rows: Rows = rows_up_to(self.applied.index.0)
            .into_iter()
            .filter_map(|row| Some((row.key.clone(), row.value()?.to_vec())))
            .collect();
        let begins = self.entries.first().map_or(0, |entry| entry.position.index.0);
        let log = if let Some(until) = self.repair {
            let (own, kept) = (expected.hard_state, self.hard_state);
            until >= position(ENTRIES)
                && (kept == own || (kept.term > own.term && kept.vote.is_none()))
                && self.entries.iter().all(|entry| expected.entries.contains(entry))
        } else {
            let begins = self
                .entries
                .first()
                .map_or(ENTRIES + 1, |entry| entry.position.index.0);
            let kept = expected
                .entries
                .iter()
                .filter(|entry| entry.position.index.0 >= begins);
            self.hard_state == expected.hard_state && kept.eq(&self.entries)
        };
        self.identity == expected.identity
            && log
            && self.applied.index.0 + 1 >= begins
            && self.rows == rows
            && self
                .snapshots
                .iter()
                .all(|snapshot| expected.snapshots.contains(snapshot))
    }
}

/// Opens a directory as a starting node does, and reads all of it.
async fn start(disk: &Disk) -> Result<Found, String> {
    let ports = ports(disk);
    let text = |error: StorageError| error.to_string();
    let directory = DataDirectory::open(&ports, Path::new(HOME), &owner("a"))
        .await
        .map_err(text)?;
    let (mut log, mut recovered) = Log::open(&ports, directory.path(), options())
        .await
        .map_err(text)?;
    let snapshots = Snapshots::open(&ports, &directory.snapshots_path()).map_err(text)?;
    let base = recovered.base.as_ref();
    let store = StateStore::open_behind(&ports, &directory.state_path(), &snapshots, base)
        .await
        .map_err(text)?;
    let mut rows = Rows::new();
    let loaded = store
        .load(|key, value| drop(rows.insert(key.to_vec(), value.to_vec())))
        .map_err(text)?;
    let behind = Base {
        position: loaded.applied,
        membership: membership(),
    };
    log.fit_to(&behind, &mut recovered)
        .await
        .map_err(|error| error.to_string())?;
    let base = recovered.base.as_ref();
    let first = base.map_or(Index(1), |base| base.position.index.next());
    let mut entries = Vec::new();
    while first.0 + entries.len() as u64 <= recovered.last.0 {
        let next = Index(first.0 + entries.len() as u64);
        entries.extend(
            log.reader()
                .read(next, recovered.last, u64::MAX)
                .map_err(|error| error.to_string())?,
        );
    }
    let mut kept = Vec::new();
    for position in snapshots.list().map_err(text)? {
        let mut rows = Rows::new();
        let found = snapshots.find(position).map_err(text)?;
        let snapshot = found.ok_or_else(|| format!("the snapshot up to {position} is gone"))?;
        snapshot
            .for_each_row(|key, value| drop(rows.insert(key, value)))
            .map_err(text)?;
        kept.push((position, rows));
    }
    Ok(Found {
        identity: directory.identity().clone(),
        hard_state: recovered.hard_state,
        entries,
        applied: loaded.applied,
        rows,
        snapshots: kept,
        repair: recovered.repair,
        damaged: recovered.damage.is_some(),
    })
}

fn rows_up_to(index: u64) -> Vec<Row> {
    let row = |key: u64| Row::written(format!("key {key:05}"), vec![key as u8; 60]);
    (1..=index).map(row).collect()
}

/// The directory of a node that has taken part in a cluster for a while.
async fn lived_in() -> Disk {
    let disk = Disk::default();
    let ports = ports(&disk);
    let home = Path::new(HOME);
    ports.files.create_directory(home).expect("a directory");
    super::log::create_with(&ports, home, SEGMENT_BYTES)
        .await
        .expect("a blank log of short segments");
    let mut directory = DataDirectory::open(&ports, Path::new(HOME), &owner("a"))
        .await
        .expect("a new directory");
    let (mut log, _) = Log::open(&ports, directory.path(), options())
        .await
        .expect("a blank log");
    let base = Base {
        position: Position::default(),
        membership: membership(),
    };
    let begin = Write {
        id: WriteId(1),
        hard_state: None,
        reset: Some(Box::new(base)),
        entries: Vec::new().into(),
    };
    log.append(&[begin]).await.expect("the log begins");
    let assignment = Assignment {
        lineage: Lineage(9),
        node: NodeId(1),
    };
    directory
        .assign(assignment)
        .await
        .expect("the node gets its part");
    for index in 1..=ENTRIES {
        let position = position(index);
        let hard_state = (index % 50 == 1).then_some(HardState {
            term: position.term,
            vote: Some(NodeId(2)),
        });
        let write = Write {
            id: WriteId(1 + index),
            hard_state,
            reset: None,
            entries: vec![entry(index)].into(),
        };
        log.append(&[write]).await.expect("entries are appended");
    }
    let snapshots = Snapshots::open(&ports, &directory.snapshots_path()).expect("snapshots");
    let mut store = StateStore::open(&ports, &directory.state_path()).expect("a new store");
    for at in [SNAPSHOT_AT, STATE_AT] {
        let batch = RowBatch {
            applied: position(at),
            membership: Some(membership()),
            rows: rows_up_to(at),
        };
        store.write(batch).expect("rows are written");
        if at == SNAPSHOT_AT {
            store
                .reader()
                .snapshot(&snapshots)
                .await
                .expect("it is made")
                .expect("it is not empty");
        }
    }
    let purge = Base {
        position: position(30),
        membership: membership(),
    };
    log.purge(purge).await.expect("the log is purged");
    drop((log, store, directory));
    tokio::task::yield_now().await;
    disk
}

/// The way out stands in the message, and so does what is damaged.
fn explains(message: &str, path: &Path) -> bool {
    let named = message.contains(&path.display().to_string()) || message.contains(HOME);
    let way_out = [
        "rejoin",
        "back from a copy",
        "run the version of",
        "start it with the right",
        "a data directory of its own",
    ];
    named && way_out.iter().any(|way| message.contains(way))
}

/// Flips `rounds` bytes of each file, one at a time; returns how often that was noticed, by file.
async fn flip_each_file(disk: &Disk, rounds: u64) -> BTreeMap<PathBuf, u64> {
    let expected = start(&disk.copy()).await.expect("it is whole");
    assert!(
        expected.entries[0].position.index > Index(1),
        "the log was purged"
    );
    assert_eq!(
        expected.entries.last().map(|entry| entry.position),
        Some(position(ENTRIES))
    );
    assert_eq!(
        (expected.applied, expected.rows.len() as u64),
        (position(STATE_AT), STATE_AT)
    );
    let mut random = Random::new(42);
    let mut noticed = BTreeMap::new();
    for path in disk.paths() {
        let length = disk.content(&path).len() as u64;
        for _ in 0..if length == 0 { 0 } else { rounds } {
            let copy = disk.copy();
            let (offset, flip) = (random.below(length) as usize, 1 + random.below(255) as u8);
            copy.tamper(&path, |content| content[offset] ^= flip);
            match start(&copy).await {
                Ok(found) => {
                    assert!(
                        found.is_whole(&expected),
                        "{} at {offset}: {found:?}",
                        path.display()
                    );
                    *noticed.entry(path.clone()).or_default() += u64::from(found.damaged);
                }
                Err(message) => {
                    assert!(
                        explains(&message, &path),
                        "{} at {offset}: {message}",
                        path.display()
                    );
                    *noticed.entry(path.clone()).or_default() += 1;
                }
            }
        }
    }
    noticed
}

fn assert_noticed(noticed: &BTreeMap<PathBuf, u64>, rounds: u64) {
    let of = |part: &str| {
        let found = noticed
            .iter()
            .filter(|(path, _)| path.to_string_lossy().contains(part));
        found.map(|(_, count)| *count).max().unwrap_or_default()
    };
    // Whatever is written all over notices every flip; databases and preallocated segments have unused room.
    assert_eq!(of("identity"), rounds, "{noticed:?}");
    assert_eq!(of("snapshots"), rounds, "{noticed:?}");
    assert!(of("log/") > rounds / 2, "{noticed:?}");
    assert!(of("state.redb") > rounds / 50, "{noticed:?}");
}

#[test]
fn a_flipped_byte_in_any_file_of_a_cleanly_stopped_node_is_noticed_or_harmless() {
    run(async {
        let disk = lived_in().await;
        disk.kill();
        assert_noticed(&flip_each_file(&disk, 1_000).await, 1_000);
    });
}

#[test]
fn a_flipped_byte_in_any_file_of_a_killed_node_is_noticed_or_harmless() {
    run(async {
        let disk = lived_in().await;
        // The next process is killed while it holds everything open and has written more.
        disk.kill();
        let ports = ports(&disk);
        let (mut log, _) = Log::open(&ports, Path::new(HOME), options())
            .await
            .expect("it opens");
        let store = StateStore::open(&ports, &Path::new(HOME).join("state.redb")).expect("it opens");
        let hard_state = Some(HardState {
            term: Term(9),
            vote: Some(NodeId(1)),
        });
        let write = Write {
            id: WriteId(1),
            hard_state,
            reset: None,
            entries: Vec::new().into(),
        };
        log.append(&[write]).await.expect("the vote is written");
        disk.kill();
        drop((log, store));
        let expected = start(&disk.copy()).await.expect("it is whole");
        assert_eq!(
            expected.hard_state,
            HardState {
                term: Term(9),
                vote: Some(NodeId(1))
            }
        );
        assert_noticed(&flip_each_file(&disk, 1_000).await, 1_000);
    });
}

#[test]
fn a_file_that_is_gone_or_cut_short_is_noticed_or_harmless() {
    run(async {
        let disk = lived_in().await;
        disk.kill();
        let expected = start(&disk.copy()).await.expect("it is whole");
        for path in disk.paths() {
            let length = disk.content(&path).len();
            for keep in [None, Some(0), Some(length / 2), Some(length.saturating_sub(1))] {
                let copy = disk.copy();
                match keep {
                    None => copy.delete(&path),
                    Some(keep) => copy.tamper(&path, |content| content.truncate(keep)),
                }
                let what = format!("{} cut to {keep:?} of {length}", path.display());
                match start(&copy).await {
                    Err(message) => assert!(explains(&message, &path), "{what}: {message}"),
                    Ok(found) => assert!(found.is_whole(&expected), "{what}: {found:?}"),
                }
            }
        }
    });
}

#[test]
fn node_starts_from_a_snapshot_alone() {
    run(async {
        let disk = Disk::default();
        let here = ports(&disk);
        let directory = DataDirectory::open(&here, Path::new(HOME), &owner("a"))
            .await
            .expect("a new directory");
        let (snapshots_path, state_path) = (directory.snapshots_path(), directory.state_path());
        let snapshots = Snapshots::open(&here, &snapshots_path).expect("snapshots");
        // What another node made of its state, after a third one had joined.
        let mut members = membership().members().clone();
        members.insert(NodeId(3), Member::named("c".to_owned(), DirectoryId(3)));
        let base = Base {
            position: position(SNAPSHOT_AT),
            membership: Membership::bootstrap(Lineage(9), members),
        };
        let elsewhere = ports(&Disk::default());
        elsewhere
            .files
            .create_directory(Path::new(HOME))
            .expect("a directory");
        let mut store = StateStore::open(&elsewhere, &state_path).expect("a new store");
        let batch = RowBatch {
            applied: base.position,
            membership: Some(base.membership.clone()),
            rows: rows_up_to(SNAPSHOT_AT),
        };
        store.write(batch).expect("rows are written");
        let made = store.reader().snapshot(&snapshots).await;
        made.expect("it is made").expect("it is not empty");
        // The log begins behind it, and there is no state yet.
        let (mut log, _) = Log::open(&here, directory.path(), options())
            .await
            .expect("a blank log");
        let begin = Write {
            id: WriteId(1),
            hard_state: None,
            reset: Some(Box::new(base.clone())),
            entries: Vec::new().into(),
        };
        log.append(&[begin]).await.expect("the log begins");
        drop((log, directory));
        tokio::task::yield_now().await;
        disk.power_cut(&mut Random::new(1));

        let here = ports(&disk);
        let (_, recovered) = Log::open(&here, Path::new(HOME), options())
            .await
            .expect("the log is whole");
        assert_eq!(recovered.base.as_ref(), Some(&base));
        let snapshots = Snapshots::open(&here, &snapshots_path).expect("snapshots");
        let store = StateStore::open_behind(&here, &state_path, &snapshots, recovered.base.as_ref())
            .await
            .expect("the snapshot is all that it takes");
        let mut rows = Vec::new();
        let loaded = store
            .load(|key, value| rows.push(Row::written(key.to_vec(), value.to_vec())))
            .expect("it is read");
        assert_eq!(
            (loaded.applied, loaded.membership, rows),
            (base.position, Some(base.membership), rows_up_to(SNAPSHOT_AT))
        );
    });
}
