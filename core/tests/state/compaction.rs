//! Old revisions are forgotten, a few at a time.

use quorate_core::state::{Command, KeyRange, Query, ReadError, Refusal, Reply, Revision, StateMachine};

use super::{delete, pair, put, refused, reply, restored, stored_rows};

fn compact(revision: u64) -> Command {
    Command::Compact {
        revision: Revision(revision),
    }
}

#[test]
fn a_compacted_revision_cannot_be_read_and_the_ones_after_it_can() {
    let mut state = StateMachine::new();
    for value in ["1", "2", "3", "4"] {
        reply(&mut state, put("k", value));
    }
    assert_eq!(
        reply(&mut state, compact(3)),
        Reply::Compacted {
            revision: Revision(4)
        }
    );
    let read = |revision| {
        let query = Query {
            revision: Some(Revision(revision)),
            ..Query::new(KeyRange::all())
        };
        state.read(&query, 100).map(|found| found.items)
    };
    let (revision, oldest) = (Revision(2), Revision(3));
    assert_eq!(read(2), Err(ReadError::Compacted { revision, oldest }));
    assert_eq!(read(3), Ok(vec![pair("k", "3", 1, 3, 3)]));
    assert_eq!(read(4), Ok(vec![pair("k", "4", 1, 4, 4)]));
}

#[test]
fn compacting_what_is_compacted_or_in_the_future_is_refused() {
    let mut state = StateMachine::new();
    reply(&mut state, put("k", "1"));
    reply(&mut state, put("k", "2"));
    reply(&mut state, compact(1));
    let (revision, oldest) = (Revision(1), Revision(1));
    assert_eq!(
        refused(&mut state, compact(1)),
        Refusal::Unreadable(ReadError::Compacted { revision, oldest })
    );
    let (revision, latest) = (Revision(3), Revision(2));
    assert_eq!(
        refused(&mut state, compact(3)),
        Refusal::Unreadable(ReadError::Future { revision, latest })
    );
}

#[test]
fn compaction_leaves_one_row_a_key_and_none_of_a_removed_one() {
    let mut state = StateMachine::new();
    for value in ["1", "2", "3"] {
        reply(&mut state, put("kept", value));
        reply(&mut state, put("gone", value));
    }
    reply(&mut state, delete("gone"));
    assert_eq!(stored_rows(&state).len(), 1 + 7);
    reply(&mut state, compact(7));
    assert_eq!(stored_rows(&state).len(), 1 + 1);
    reply(&mut state, put("kept", "4"));
    reply(&mut state, compact(8));
    assert_eq!(
        stored_rows(&state).len(),
        1 + 1,
        "also the version that an earlier compaction kept"
    );
    assert_eq!(state.get(b"kept"), Some(pair("kept", "4", 1, 8, 4)));
}

#[test]
fn a_long_history_is_removed_bit_by_bit_also_after_a_restart() {
    let mut state = StateMachine::new();
    for _ in 0..25_000 {
        reply(&mut state, put("k", "v"));
    }
    reply(&mut state, compact(25_000));
    assert_eq!(state.compaction_backlog(), 15_000);
    reply(&mut state, put("other", "v"));
    assert_eq!(state.compaction_backlog(), 15_000 - 16);
    let mut copy = restored(&state);
    assert_eq!(copy.compaction_backlog(), state.compaction_backlog());
    for state in [&mut state, &mut copy] {
        for _ in 0..2 {
            // Nothing new is compacted, and the work goes on.
            refused(state, compact(25_000));
        }
        assert_eq!(state.compaction_backlog(), 0);
        assert_eq!(stored_rows(state).len(), 1 + 2);
    }
    assert_eq!(copy.fingerprint(), state.fingerprint());
}

#[test]
fn what_versions_take_is_counted_and_given_back_by_compaction() {
    let mut state = StateMachine::new();
    reply(&mut state, put("kept", "1"));
    let one = state.bytes();
    assert!(one > 5, "{one}");
    for _ in 0..9 {
        reply(&mut state, put("kept", "2"));
        reply(&mut state, put("gone", "2"));
    }
    reply(&mut state, delete("gone"));
    assert!(state.bytes() > 15 * one);
    assert_eq!(restored(&state).bytes(), state.bytes());
    reply(&mut state, compact(20));
    assert_eq!((state.bytes(), restored(&state).bytes()), (one, one));
}
