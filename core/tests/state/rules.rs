//! What holds for every command.

use quorate_core::raft::{Index, Position, Term};
use quorate_core::state::{ApplyError, Command, Reply, Revision, StateMachine};
use quorate_core::wire::{self, Kind};

use super::{apply, at, delete, put, reply, stored_rows};

#[test]
fn a_command_of_an_unknown_kind_or_a_newer_version_stops_the_state_machine() {
    let mut state = StateMachine::new();
    reply(&mut state, put("k", "a"));
    let (fingerprint, applied) = (state.fingerprint(), state.applied());
    let known = put("k", "b").encode();

    let mut newer = known.to_vec();
    newer[1] = wire::VERSION + 1;
    let mut unknown_variant = known.to_vec();
    unknown_variant[2] = 0x7f;
    let mut too_long = known.to_vec();
    too_long.push(0);
    let reply_instead = wire::encode(
        Kind::Reply,
        &Reply::Compacted {
            revision: Revision(1),
        },
    );

    for bytes in [&newer, &unknown_variant, &too_long, &reply_instead, &Vec::new()] {
        let result = state.apply(at(2), bytes);
        assert!(
            matches!(result, Err(ApplyError::Undecodable { .. })),
            "{result:?} for {bytes:02x?}"
        );
        assert_eq!(
            (state.fingerprint(), state.applied()),
            (fingerprint, applied),
            "nothing was skipped"
        );
    }
    let message = state
        .apply(at(2), &newer)
        .expect_err("a newer version")
        .to_string();
    assert!(
        message.contains("2@1") && message.contains("upgrade this node"),
        "{message}"
    );
    assert!(state.apply(at(2), &known).is_ok());
}

#[test]
fn an_entry_out_of_order_is_refused() {
    let mut state = StateMachine::new();
    let command = put("k", "a").encode();
    let refused = |result| matches!(result, Err(ApplyError::OutOfOrder { .. }));
    assert!(refused(state.apply(at(2), &command).map(drop)), "a gap");
    state.apply(at(1), &command).expect("the next index");
    assert!(refused(state.apply(at(1), &command).map(drop)), "a repetition");
    assert!(refused(state.apply_empty(at(3))), "a gap");
    let earlier_term = Position {
        term: Term(0),
        index: Index(2),
    };
    assert!(refused(state.apply_empty(earlier_term)), "terms never fall");
    state.apply_empty(at(2)).expect("the next index");
    assert_eq!(state.applied(), at(2));
}

#[test]
fn the_fingerprint_depends_on_order_replies_and_indexes() {
    let run = |commands: &[Command]| {
        let mut state = StateMachine::new();
        for command in commands {
            apply(&mut state, command);
        }
        state.fingerprint()
    };
    let base = run(&[put("a", "1"), put("b", "2")]);
    assert_eq!(base, run(&[put("a", "1"), put("b", "2")]));
    assert_ne!(base, run(&[put("b", "2"), put("a", "1")]), "order");
    assert_ne!(base, run(&[put("a", "1"), put("b", "3")]), "values");
    assert_ne!(
        run(&[put("a", "1"), delete("x")]),
        run(&[put("a", "1"), put("", "")]),
        "replies of commands that change nothing"
    );
    let mut shifted = StateMachine::new();
    shifted.apply_empty(at(1)).expect("the next index");
    apply(&mut shifted, &put("a", "1"));
    apply(&mut shifted, &put("b", "2"));
    assert_ne!(base, shifted.fingerprint(), "indexes");
}

#[test]
fn an_entry_without_a_command_leaves_state_and_fingerprint_alone() {
    let mut state = StateMachine::new();
    apply(&mut state, &put("a", "1"));
    let before = (state.fingerprint(), stored_rows(&state));
    state.apply_empty(at(2)).expect("the next index");
    assert_eq!((state.fingerprint(), stored_rows(&state)), before);
    assert_eq!(state.applied(), at(2));
}
