//! Formats do not change by accident: files from the first day, in `tests/golden`, decode to exactly what was put into
//! them, and this build writes them byte for byte.
//!
//! A new format gets its file by running these tests once with `QUORATE_WRITE_GOLDEN=1`; a file that is there is never
//! written again. A format that changes gets a new version and a new file, and the old file stays readable.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use quorate_core::raft::{
    Base, Body, Change, DirectoryId, DiskHealth, Entry, FeatureLevel, HardState, Index, LeaseGrant,
    LeaseRequest, Lineage, Member, Membership, Message, NodeId, Payload, Position, PreVote, Term, Write,
    WriteId,
};
use quorate_core::wire::{self, Kind};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::log::create_with;
use super::state::row::{self, Manifest, Sum};
use super::testing::{Disk, ports, run};
use super::{
    Assignment, DataDirectory, Identity, Log, LogOptions, Owner, SnapshotHeader, Snapshots, directory, small,
};

/// The content of a golden file, which `written` must equal.
fn golden(name: &str, written: &[u8]) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if std::env::var_os("QUORATE_WRITE_GOLDEN").is_some() && !path.exists() {
        fs::write(&path, written).expect("the golden file is written");
    }
    let expected = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(
        expected == written,
        "this build writes {} otherwise",
        path.display()
    );
    expected
}

fn position(term: u64, index: u64) -> Position {
    Position {
        term: Term(term),
        index: Index(index),
    }
}

fn member(name: &str) -> Member {
    Member::new(
        name,
        DirectoryId(0x0123_4567_89ab_cdef_0011_2233_4455_6677),
        "10.0.0.1:7400",
        "10.0.0.1:8080",
    )
}

/// A joint membership, so that every field has a value.
fn membership() -> Membership {
    let founders = [(NodeId(1), member("alpha")), (NodeId(2), member("beta"))];
    let founded = Membership::bootstrap(Lineage(0xfeed), founders.into());
    let mut learner = member("gamma");
    learner.promote = true;
    learner.witness = true;
    let grown = founded.changed(&[Change::AddLearner(learner)]).expect("it fits");
    grown
        .changed(&[Change::Promote(NodeId(3)), Change::Demote(NodeId(1))])
        .expect("it fits")
}

fn base() -> Base {
    Base {
        position: position(3, 300),
        membership: membership(),
    }
}

fn hard_state() -> HardState {
    HardState {
        term: Term(4),
        vote: Some(NodeId(2)),
    }
}

fn entries() -> Vec<Entry> {
    let payloads = [
        Payload::Empty,
        Payload::Command(Bytes::from_static(b"put \x00 something")),
        Payload::Membership(Box::new(membership())),
        Payload::Command(Bytes::from(vec![0; 700])),
        Payload::Omitted,
    ];
    let entry = |(index, payload)| Entry {
        position: position(4, index),
        payload,
    };
    (301..).zip(payloads).map(entry).collect()
}

fn bodies() -> Vec<Body> {
    vec![
        Body::PreVoteRequest { last: position(1, 2) },
        Body::PreVoteResponse {
            proposed: Term(3),
            answer: PreVote::Vetoed,
        },
        Body::VoteRequest {
            last: position(4, 5),
            transfer: Some(999_999),
        },
        Body::VoteResponse { granted: false },
        Body::Append {
            previous: position(3, 300),
            entries: entries().into(),
            commit: Index(299),
        },
        Body::AppendAccepted { matched: Index(304) },
        Body::AppendRejected {
            previous: Index(300),
            hint: position(2, 200),
        },
        Body::Heartbeat {
            commit: Index(301),
            round: 1_000_000,
            lease: Some(LeaseRequest {
                sent: 5_000_000_000,
                duration: 150_000_000,
            }),
        },
        Body::HeartbeatResponse {
            round: 1_000_000,
            matched: Index(304),
            disk: DiskHealth {
                write_latency_us: Some(140),
                stalled: false,
            },
            features: FeatureLevel(3),
            lease: Some(LeaseGrant {
                sent: 5_000_000_000,
                clock: 7_000_000_000,
            }),
        },
        Body::TimeoutNow { released: 1_000_001 },
        Body::ReadRequest {
            request: 9,
            lease: true,
        },
        Body::Begin {
            base: Box::new(base()),
        },
        Body::ReadResponse {
            request: 9,
            index: Some(Index(301)),
        },
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text.bytes().collect();
    let pairs = digits
        .chunks(2)
        .map(|pair| std::str::from_utf8(pair).expect("digits"));
    pairs
        .map(|pair| u8::from_str_radix(pair, 16).expect("two digits"))
        .collect()
}

/// A golden file with one encoded value a line.
fn golden_values<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(
    name: &str,
    kind: Kind,
    values: &[T],
) {
    let lines: String = values
        .iter()
        .map(|value| hex(&wire::encode(kind, value)) + "\n")
        .collect();
    let text = String::from_utf8(golden(name, lines.as_bytes())).expect("hexadecimal digits");
    let decoded: Vec<T> = text
        .lines()
        .map(|line| wire::decode(kind, &unhex(line)).expect("it decodes"))
        .collect();
    assert_eq!(decoded, values);
}

#[test]
fn what_crosses_the_wire_and_enters_the_log() {
    let message = |body| Message { term: Term(7), body };
    let messages: Vec<_> = bodies().into_iter().map(message).collect();
    golden_values("messages.hex", Kind::Message, &messages);
    golden_values("entries.hex", Kind::Entry, &entries());
    golden_values(
        "hard-states.hex",
        Kind::HardState,
        &[HardState::default(), hard_state()],
    );
    golden_values("bases.hex", Kind::Base, &[base()]);
}

#[test]
fn a_segment_of_the_log() {
    run(async {
        let options = || LogOptions {
            segment_bytes: 8 << 10,
            ..LogOptions::default()
        };
        let home = PathBuf::from("/data");
        let disk = Disk::default();
        let ports = ports(&disk);
        ports.files.create_directory(&home).expect("a directory");
        create_with(&ports, &home, 8 << 10).await.expect("created");
        let (mut log, _) = Log::open(&ports, &home, options()).await.expect("it opens");
        log.initialize(base()).await.expect("written");
        let write = Write {
            id: WriteId(1),
            hard_state: Some(hard_state()),
            reset: None,
            entries: entries().into(),
        };
        log.append(&[write]).await.expect("written");
        drop(log);
        let path = home.join("log/00000000000000000001.log");
        let bytes = golden("log-segment.bin", &disk.content(&path));

        let other = Disk::default();
        let ports = super::testing::ports(&other);
        ports
            .files
            .create_directory(&home.join("log"))
            .expect("a directory");
        other.put(&path, bytes);
        let (_, recovered) = Log::open(&ports, &home, options()).await.expect("it opens");
        assert_eq!(recovered.hard_state, hard_state());
        assert_eq!(recovered.base, Some(base()));
        assert_eq!(recovered.terms, [position(4, 301)]);
        assert_eq!(recovered.memberships, [(position(4, 303), membership())]);
        assert_eq!((recovered.last, recovered.tail), (Index(305), entries()));
    });
}

#[test]
fn an_identity() {
    run(async {
        let identity = Identity {
            directory: DirectoryId(0x0123_4567_89ab_cdef_0011_2233_4455_6677),
            name: "alpha".to_owned(),
            cluster: "site".to_owned(),
            assignment: Some(Assignment {
                lineage: Lineage(0xfeed),
                node: NodeId(1),
            }),
        };
        let bytes = golden("identity.bin", &small::encode(&directory::FORMAT, &identity));
        let disk = Disk::default();
        disk.put(Path::new("/data/identity"), bytes);
        let owner = Owner {
            name: "alpha".to_owned(),
            cluster: "site".to_owned(),
        };
        let directory = DataDirectory::open(&ports(&disk), Path::new("/data"), &owner).await;
        assert_eq!(directory.expect("it opens").identity(), &identity);
    });
}

#[test]
fn a_snapshot() {
    run(async {
        let path = PathBuf::from("/data/snapshots");
        let disk = Disk::default();
        let rows = [
            (b"a".to_vec(), b"1".to_vec()),
            (b"b".to_vec(), vec![0; 300]),
            (b"c".to_vec(), vec![]),
        ];
        let snapshots = Snapshots::open(&ports(&disk), &path).expect("they open");
        let mut writer = snapshots
            .create(SnapshotHeader { base: base() })
            .expect("created");
        for (key, value) in &rows {
            writer.push(key, value).expect("written");
        }
        writer.finish().await.expect("written");
        let file = disk.paths().pop().expect("a file");
        let bytes = golden("snapshot.bin", &disk.content(&file));

        let other = Disk::default();
        let snapshots = Snapshots::open(&ports(&other), &path).expect("they open");
        other.put(&file, bytes);
        let snapshot = snapshots.newest().expect("readable").expect("there");
        assert_eq!(snapshot.header(), &SnapshotHeader { base: base() });
        assert_eq!(snapshot.read_chunk(0).expect("whole"), rows);
    });
}

#[test]
fn a_row_and_a_manifest() {
    let bytes = golden("row.bin", &row::encode_row(b"key", b"value"));
    assert_eq!(row::decode_row(b"key", &bytes), Some(b"value".as_slice()));
    assert_eq!(row::decode_row(b"yek", &bytes), None);
    let mut sum = Sum::default();
    sum.add(b"key", &bytes);
    let manifest = Manifest {
        applied: position(4, 304),
        membership: Some(membership()),
        sum,
        records: Sum { rows: 2, digest: 9 },
    };
    let bytes = golden("manifest.bin", &row::encode_manifest(&manifest));
    assert_eq!(row::decode_manifest(&bytes), Ok(manifest));
}
