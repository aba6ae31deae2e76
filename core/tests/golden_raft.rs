//! The bytes of what consensus sends and stores: today's writer makes them, and they are read back.
//!
//! A line of the golden file is a name and the bytes in hexadecimal. `UPDATE_GOLDEN=1` writes it anew, for review: a
//! difference means that the format changed, and that it needs a new version.
#![allow(clippy::unwrap_used)]

use std::fmt::Debug;
use std::path::Path;

use bytes::Bytes;
use quorate_core::raft::*;
use quorate_core::wire::{self, DecodeError, Kind};
use serde::Serialize;
use serde::de::DeserializeOwned;

fn position(term: u64, index: u64) -> Position {
    Position {
        term: Term(term),
        index: Index(index),
    }
}

fn membership() -> Membership {
    let member = |name: &str| Member {
        name: name.to_owned(),
        directory: DirectoryId(0x1234_5678_9abc_def0),
        cluster_address: "10.0.0.1:9100".to_owned(),
        client_address: "10.0.0.1:9000".to_owned(),
        promote: true,
    };
    let first = Membership::bootstrap(
        Lineage(42),
        [(NodeId(1), member("1")), (NodeId(2), member("2"))].into(),
    );
    let learner = first.changed(&[Change::AddLearner(member("node3"))]).unwrap();
    learner
        .changed(&[Change::Promote(NodeId(3)), Change::Remove(NodeId(1))])
        .unwrap()
}

fn entries() -> Vec<Entry> {
    vec![
        Entry {
            position: position(3, 7),
            payload: Payload::Empty,
        },
        Entry {
            position: position(3, 8),
            payload: Payload::Command(Bytes::from_static(b"command")),
        },
        Entry {
            position: position(4, 9),
            payload: Payload::Membership(membership()),
        },
    ]
}

fn bodies() -> Vec<Body> {
    vec![
        Body::PreVoteRequest {
            last: position(3, 300),
        },
        Body::PreVoteResponse {
            proposed: Term(5),
            granted: true,
        },
        Body::VoteRequest {
            last: position(3, 300),
            transfer: true,
        },
        Body::VoteResponse { granted: false },
        Body::Append {
            previous: position(2, 6),
            entries: entries(),
            commit: Index(5),
        },
        Body::AppendAccepted { matched: Index(9) },
        Body::AppendRejected {
            previous: Index(6),
            hint: position(1, 4),
        },
        Body::Heartbeat {
            commit: Index(5),
            round: 1_000,
        },
        Body::HeartbeatResponse {
            round: 1_000,
            matched: Index(9),
        },
        Body::TimeoutNow,
        Body::ReadRequest { request: u64::MAX },
        Body::ReadResponse {
            request: 7,
            index: Some(Index(9)),
        },
    ]
}

/// Adds a line, after reading the bytes back and refusing them as of a newer version.
fn line<T: Serialize + DeserializeOwned + PartialEq + Debug>(
    lines: &mut String,
    name: &str,
    kind: Kind,
    value: &T,
) {
    let mut bytes = wire::encode(kind, value);
    let hexadecimal: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    lines.push_str(&format!("{name} {hexadecimal}\n"));
    assert_eq!(&wire::decode::<T>(kind, &bytes).unwrap(), value);
    bytes[1] = wire::VERSION + 1;
    assert!(
        matches!(wire::decode::<T>(kind, &bytes), Err(DecodeError::Newer { .. })),
        "{name}"
    );
}

#[test]
fn what_consensus_sends_and_stores_is_written_as_it_always_was_and_read_back() {
    let mut lines = String::new();
    for body in bodies() {
        let name = format!("{body:?}");
        let name = name.split([' ', '{']).next().unwrap().to_owned();
        line(&mut lines, &name, Kind::Message, &Message { term: Term(4), body });
    }
    for (number, entry) in entries().iter().enumerate() {
        line(&mut lines, &format!("Entry{number}"), Kind::Entry, entry);
    }
    line(
        &mut lines,
        "HardState",
        Kind::HardState,
        &HardState {
            term: Term(9),
            vote: Some(NodeId(2)),
        },
    );
    line(
        &mut lines,
        "Base",
        Kind::Base,
        &Base {
            position: position(4, 9),
            membership: membership(),
        },
    );
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/raft.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &lines).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap();
    for (kept, written) in kept.lines().zip(lines.lines()) {
        assert_eq!(kept, written);
    }
    assert_eq!(kept.lines().count(), lines.lines().count());
}
