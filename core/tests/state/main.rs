//! The state machine against a plain model, through restarts, and rule by rule.

mod compaction;
mod draws;
mod keys;
mod leases;
mod model;
mod once;
mod restore;
mod rules;
mod sessions;
mod settings;
mod streams;
mod transactions;
mod watches;

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_core::raft::{Index, Position, Term};
use quorate_core::state::{
    Applied, Attach, Command, DeleteRange, KeyRange, KeyValue, LeaseId, Put, Refusal, Reply, Revision, Row,
    RowChange, StateMachine,
};

/// The position of an entry in term 1.
fn at(index: u64) -> Position {
    Position {
        term: Term(1),
        index: Index(index),
    }
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn put(key: &str, value: &str) -> Command {
    Command::put(bytes(key), bytes(value))
}

fn put_with(key: &str, value: &str, lease: u64) -> Command {
    Command::Put(Put {
        lease: Attach::Lease(lease_id(lease)),
        ..Put::new(bytes(key), bytes(value))
    })
}

fn delete(key: &str) -> Command {
    Command::Delete(DeleteRange {
        range: KeyRange::only(bytes(key)),
        previous: true,
    })
}

fn lease_id(number: u64) -> LeaseId {
    LeaseId::new(number).expect("a number that is not 0")
}

fn pair(key: &str, value: &str, create: u64, modified: u64, version: u64) -> KeyValue {
    KeyValue {
        key: bytes(key),
        value: bytes(value),
        create_revision: Revision(create),
        mod_revision: Revision(modified),
        version,
        lease: None,
    }
}

fn apply(state: &mut StateMachine, command: &Command) -> Applied {
    let position = at(state.applied().index.0 + 1);
    state
        .apply(position, &command.encode())
        .expect("a known command at the next index")
}

fn reply(state: &mut StateMachine, command: Command) -> Reply {
    apply(state, &command).reply
}

fn refused(state: &mut StateMachine, command: Command) -> Refusal {
    match reply(state, command) {
        Reply::Refused(refusal) => refusal,
        reply => panic!("{reply:?} is no refusal"),
    }
}

fn stored_rows(state: &StateMachine) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut last = Vec::new();
    state
        .rows()
        .map(|row| {
            assert!(last < row.key, "rows come in the order of their keys");
            last = row.key.clone();
            let value = row.value().expect("a row of the state has a value").to_vec();
            (row.key, value)
        })
        .collect()
}

fn merge(rows: &mut BTreeMap<Vec<u8>, Vec<u8>>, changed: Vec<Row>) {
    for row in changed {
        match row.change {
            RowChange::Written(value) => drop(rows.insert(row.key, value.to_vec())),
            RowChange::Gone => drop(rows.remove(&row.key)),
            RowChange::RangeGone { last } => rows.retain(|key, _| *key < row.key || *key > last),
        }
    }
}

fn restored(state: &StateMachine) -> StateMachine {
    StateMachine::restore(stored_rows(state).into_iter(), state.applied()).expect("rows of a state")
}
