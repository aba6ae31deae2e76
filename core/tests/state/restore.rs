//! A state that cannot have been stored is refused, with the row named.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_core::raft::Position;
use quorate_core::state::{Command, RequestId, RestoreError, StateMachine};
use quorate_core::wire::{self, DecodeError};

use super::{apply, at, delete, put, put_with, reply, stored_rows};

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

fn restore(rows: Rows, applied: Position) -> Result<u64, RestoreError> {
    StateMachine::restore(rows.into_iter(), applied).map(|state| state.fingerprint())
}

/// The row of the only change of a revision.
fn version_row(revision: u8) -> Vec<u8> {
    vec![1, 0, 0, 0, 0, 0, 0, 0, revision, 0, 0, 0, 0]
}

#[test]
fn damaged_or_contradictory_rows_are_refused_with_the_row_named() {
    let mut state = StateMachine::new();
    apply(&mut state, &put("k", "v"));
    apply(&mut state, &put("k", "w"));
    let rows = stored_rows(&state);
    let key_row = version_row(2);
    assert_eq!(restore(rows.clone(), at(2)), Ok(state.fingerprint()));

    let mut cut = rows.clone();
    cut.get_mut(&key_row).expect("the key's row").pop();
    let error = restore(cut, at(2)).expect_err("a cut value");
    assert!(matches!(error, RestoreError::Undecodable { .. }), "{error}");
    assert!(error.to_string().contains("010000000000000002"), "{error}");

    let mut newer = rows.clone();
    newer.get_mut(&key_row).expect("the key's row")[1] = wire::VERSION + 1;
    assert!(matches!(
        restore(newer, at(2)),
        Err(RestoreError::Undecodable {
            source: DecodeError::Newer { .. },
            ..
        })
    ));

    let mut foreign = rows.clone();
    foreign.insert(vec![200, 1], vec![1, 2, 3]);
    assert!(matches!(
        restore(foreign, at(2)),
        Err(RestoreError::UnknownTable { table: 200, .. })
    ));

    let mut headless = rows.clone();
    headless.remove(&vec![0]);
    assert_eq!(restore(headless, at(2)), Err(RestoreError::NoSummary));

    assert!(matches!(
        restore(rows.clone(), at(1)),
        Err(RestoreError::RowsAhead { .. })
    ));

    let mut early = StateMachine::new();
    let old_summary = apply(&mut early, &put("k", "v"))
        .rows
        .pop()
        .expect("the summary row");
    let mut torn = rows;
    let value = old_summary.value().expect("a summary").to_vec();
    torn.insert(old_summary.key, value);
    assert!(matches!(
        restore(torn, at(2)),
        Err(RestoreError::RevisionAhead { .. })
    ));
}

#[test]
fn rows_that_tell_of_something_that_is_missing_are_refused() {
    let mut state = StateMachine::new();
    let lease = Command::Grant {
        lease: Some(super::lease_id(7)),
        ttl: std::time::Duration::from_secs(1),
    };
    apply(&mut state, &lease);
    apply(&mut state, &put_with("k", "v", 7));
    let rows = stored_rows(&state);
    let mut no_lease = rows.clone();
    no_lease.retain(|key, _| key[0] != 2);
    assert!(matches!(
        restore(no_lease, at(2)),
        Err(RestoreError::Contradiction { .. })
    ));

    let mut bad_key = rows.clone();
    bad_key.insert(vec![1, 2, 3], Vec::new());
    assert!(matches!(
        restore(bad_key, at(2)),
        Err(RestoreError::BadKey { .. })
    ));

    let backwards: Vec<_> = rows.into_iter().rev().collect();
    let result = StateMachine::restore(backwards.into_iter(), at(2)).map(drop);
    assert!(matches!(
        result,
        Err(RestoreError::NoSummary | RestoreError::OutOfOrder { .. })
    ));
}

#[test]
fn the_rows_of_a_removed_key_that_is_compacted_are_refused() {
    let mut state = StateMachine::new();
    apply(&mut state, &put("k", "v"));
    let removal = apply(&mut state, &delete("k")).rows;
    let compact = Command::Compact {
        revision: state.revision(),
    };
    apply(&mut state, &compact);
    let mut rows = stored_rows(&state);
    super::merge(&mut rows, removal.into_iter().take(1).collect());
    assert!(matches!(
        restore(rows, at(3)),
        Err(RestoreError::Contradiction { .. })
    ));
}

#[test]
fn kept_answer_that_cannot_be_given_again_is_refused_with_its_row() {
    let mut state = StateMachine::new();
    let reply = reply(
        &mut state,
        Command::Once {
            request: RequestId::Key(Bytes::from_static(b"once")),
            command: put("k", "v").encode(),
        },
    );
    let encoded = reply.encode();
    let mut rows = stored_rows(&state);
    let (_, row) = rows
        .iter_mut()
        .find(|(_, value)| value.ends_with(&encoded))
        .expect("the answer is kept");
    let version = row.len() - encoded.len() + 1;
    row[version] = wire::VERSION + 1;
    assert!(matches!(
        restore(rows, at(1)),
        Err(RestoreError::Undecodable {
            source: DecodeError::Newer { .. },
            ..
        })
    ));
}
