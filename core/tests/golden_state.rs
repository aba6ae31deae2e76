//! The bytes of commands, replies and rows never change: files in `golden/` were written by the first version.
//!
//! Each file holds one format, each line a name and the bytes in hexadecimal. A decoder must understand every line,
//! and today's encoder must write it again byte for byte. A new version of a format gets a new file; the old file stays.

use std::fmt::Debug;

use bytes::Bytes;
use quorate_core::raft::{Index, Position, Term};
use quorate_core::state::{Command, KeyValue, Malformed, Reply, Revision, StateMachine};
use quorate_core::wire::DecodeError;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal digits"))
        .collect()
}

fn lines(file: &str) -> Vec<(String, Vec<u8>)> {
    file.lines()
        .map(|line| {
            let (name, bytes) = line.split_once(": ").expect("a name and bytes");
            (name.to_owned(), unhex(bytes))
        })
        .collect()
}

fn check<T: Debug + PartialEq>(
    file: &str,
    values: &[(&str, T)],
    encode: impl Fn(&T) -> Bytes,
    decode: impl Fn(&[u8]) -> Result<T, DecodeError>,
) {
    let today: String = values
        .iter()
        .map(|(name, value)| format!("{name}: {}\n", hex(&encode(value))))
        .collect();
    assert_eq!(file, today, "today's encoder writes:\n{today}");
    for ((name, bytes), (_, value)) in lines(file).iter().zip(values) {
        assert_eq!(decode(bytes).as_ref(), Ok(value), "{name}");
    }
}

fn pair() -> KeyValue {
    KeyValue {
        key: Bytes::from_static(b"key"),
        value: Bytes::from_static(b"value"),
        create_revision: Revision(3),
        mod_revision: Revision(300),
        version: 2,
    }
}

#[test]
fn commands() {
    let key = Bytes::from_static(b"key");
    let value = Bytes::from_static(b"\x00\xffvalue");
    let values = [
        (
            "put",
            Command::Put {
                key: key.clone(),
                value: value.clone(),
                expected: None,
            },
        ),
        (
            "put-new",
            Command::Put {
                key: key.clone(),
                value,
                expected: Some(Revision::ABSENT),
            },
        ),
        (
            "put-empty",
            Command::Put {
                key: key.clone(),
                value: Bytes::new(),
                expected: Some(Revision(300)),
            },
        ),
        (
            "delete",
            Command::Delete {
                key: key.clone(),
                expected: None,
            },
        ),
        (
            "delete-at",
            Command::Delete {
                key,
                expected: Some(Revision(u64::MAX)),
            },
        ),
    ];
    check(
        include_str!("golden/command.v1.hex"),
        &values,
        Command::encode,
        Command::decode,
    );
}

#[test]
fn replies() {
    let values = [
        (
            "put-new",
            Reply::Put {
                revision: Revision(1),
                previous: None,
            },
        ),
        (
            "put",
            Reply::Put {
                revision: Revision(301),
                previous: Some(pair()),
            },
        ),
        (
            "deleted",
            Reply::Deleted {
                revision: Revision(301),
                previous: pair(),
            },
        ),
        (
            "conflict",
            Reply::Conflict {
                current: Some(pair()),
            },
        ),
        ("conflict-absent", Reply::Conflict { current: None }),
        ("not-found", Reply::NotFound),
        ("malformed-empty-key", Reply::Malformed(Malformed::EmptyKey)),
    ];
    check(
        include_str!("golden/reply.v1.hex"),
        &values,
        Reply::encode,
        Reply::decode,
    );
}

/// The lines are the rows that these commands write, in order; the summary rows pin down the fingerprint as well.
#[test]
fn rows() {
    let key = Bytes::from_static(b"key");
    let commands = [
        Command::Put {
            key: key.clone(),
            value: Bytes::from_static(b"one"),
            expected: None,
        },
        Command::Put {
            key: key.clone(),
            value: Bytes::from_static(b"two"),
            expected: None,
        },
        Command::Delete {
            key: Bytes::from_static(b"absent"),
            expected: None,
        },
        Command::Put {
            key: Bytes::from_static(b"other"),
            value: Bytes::new(),
            expected: Some(Revision(0)),
        },
        Command::Delete { key, expected: None },
    ];
    let mut state = StateMachine::new();
    let mut today = String::new();
    for (index, command) in (1..).zip(&commands) {
        let position = Position {
            term: Term(1),
            index: Index(index),
        };
        let applied = state.apply(position, &command.encode()).expect("a known command");
        for row in applied.rows {
            let value = row.value.map_or("gone".to_owned(), |value| hex(&value));
            today.push_str(&format!("{} {value}\n", hex(&row.key)));
        }
    }
    let file = include_str!("golden/row.v1.hex");
    assert_eq!(file, today, "today's encoder writes:\n{today}");

    let mut stored = std::collections::BTreeMap::new();
    for line in file.lines() {
        let (key, value) = line.split_once(' ').expect("a key and a value");
        match value {
            "gone" => stored.remove(&unhex(key)),
            value => stored.insert(unhex(key), unhex(value)),
        };
    }
    let restored = StateMachine::restore(stored.into_iter(), state.applied()).expect("golden rows");
    assert_eq!(restored.fingerprint(), state.fingerprint());
    assert_eq!(restored.revision(), Revision(4));
    assert_eq!(restored.get(b"other"), state.get(b"other"));
    assert_eq!(restored.len(), 1);
}
