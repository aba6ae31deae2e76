//! Requests that are carried out once, and what is forgotten.

use bytes::Bytes;
use quorate_core::raft::Index;
use quorate_core::state::{
    ANSWERS_MAX, ClientId, Command, HOLDERS_MAX, Malformed, Put, REQUEST_KEY_BYTES_MAX, Refusal, Reply,
    RequestId, Revision, StateMachine,
};

use super::{pair, put, refused, reply, restored};

fn keyed(key: &str, command: &Command) -> Command {
    Command::Once {
        request: RequestId::Key(Bytes::copy_from_slice(key.as_bytes())),
        command: command.encode(),
    }
}

fn numbered(client: ClientId, number: u64, acknowledged: u64, command: &Command) -> Command {
    Command::Once {
        request: RequestId::Numbered {
            client,
            number,
            acknowledged,
        },
        command: command.encode(),
    }
}

fn register(state: &mut StateMachine) -> ClientId {
    match reply(state, Command::Register) {
        Reply::Registered { client } => client,
        reply => panic!("{reply:?}"),
    }
}

fn revision_of(reply: &Reply) -> u64 {
    match reply {
        Reply::Put { revision, .. } => revision.0,
        reply => panic!("{reply:?}"),
    }
}

fn forget(before: u64) -> Command {
    Command::Forget {
        before: Index(before),
    }
}

#[test]
fn a_request_made_again_has_the_first_answer_and_is_not_carried_out() {
    let mut state = StateMachine::new();
    let first = reply(&mut state, keyed("r", &put("k", "v")));
    reply(&mut state, put("k", "changed since"));
    assert_eq!(reply(&mut state, keyed("r", &put("k", "v"))), first);
    assert_eq!(state.get(b"k"), Some(pair("k", "changed since", 1, 2, 2)));
}

#[test]
fn a_refusal_is_an_answer_too() {
    let mut state = StateMachine::new();
    let compact = Command::Compact {
        revision: Revision(1),
    };
    let first = reply(&mut state, keyed("r", &compact));
    reply(&mut state, put("k", "v"));
    assert_eq!(
        reply(&mut state, keyed("r", &compact)),
        first,
        "although it could be done now"
    );
}

#[test]
fn another_command_under_the_same_key_or_number_conflicts() {
    let mut state = StateMachine::new();
    let client = register(&mut state);
    reply(&mut state, keyed("r", &put("k", "v")));
    reply(&mut state, numbered(client, 1, 0, &put("k", "v")));
    let other = put("k", "w");
    assert_eq!(refused(&mut state, keyed("r", &other)), Refusal::DifferentRequest);
    assert_eq!(
        refused(&mut state, numbered(client, 1, 0, &other)),
        Refusal::DifferentRequest
    );
    assert_eq!(state.revision(), Revision(2));
}

#[test]
fn a_client_tells_which_answers_it_has() {
    let mut state = StateMachine::new();
    let client = register(&mut state);
    let first = reply(&mut state, numbered(client, 1, 0, &put("k", "1")));
    assert_eq!(reply(&mut state, numbered(client, 1, 1, &put("k", "1"))), first);
    reply(&mut state, numbered(client, 2, 2, &put("k", "2")));
    let late = numbered(client, 1, 0, &put("k", "1"));
    assert_eq!(
        refused(&mut state, late),
        Refusal::AnswerForgotten,
        "a late copy is not carried out"
    );
}

#[test]
fn a_client_that_acknowledges_nothing_is_stopped() {
    let mut state = StateMachine::new();
    let client = register(&mut state);
    for number in 0..ANSWERS_MAX as u64 {
        reply(&mut state, numbered(client, number, 0, &put("k", "v")));
    }
    let next = ANSWERS_MAX as u64;
    assert_eq!(
        refused(&mut state, numbered(client, next, 0, &put("k", "v"))),
        Refusal::TooManyAnswers
    );
    assert_eq!(
        revision_of(&reply(&mut state, numbered(client, 5, 0, &put("k", "v")))),
        6,
        "a repetition is answered"
    );
    reply(&mut state, numbered(client, next, 1, &put("k", "v")));
}

#[test]
fn a_client_that_acknowledges_no_large_answer_is_stopped() {
    let mut state = StateMachine::new();
    let client = register(&mut state);
    reply(&mut state, put("k", &"v".repeat(1 << 20)));
    let large = |number: u64, acknowledged: u64| {
        let value = Bytes::from(vec![number as u8; 1 << 20]);
        let put = Put {
            previous: true,
            ..Put::new(Bytes::from_static(b"k"), value)
        };
        numbered(client, number, acknowledged, &Command::Put(put))
    };
    for number in 0..4 {
        reply(&mut state, large(number, 0));
    }
    assert_eq!(refused(&mut state, large(4, 0)), Refusal::TooManyAnswers);
    reply(&mut state, large(3, 0));
    reply(&mut state, large(4, 4));
}

#[test]
fn what_was_used_before_an_entry_is_forgotten_and_a_client_in_use_is_not() {
    let mut state = StateMachine::new();
    let (idle, active) = (register(&mut state), register(&mut state));
    reply(&mut state, keyed("old", &put("k", "1")));
    reply(&mut state, numbered(active, 1, 0, &put("k", "2")));
    reply(&mut state, keyed("new", &put("k", "3")));
    assert_eq!(
        reply(&mut state, forget(4)),
        Reply::Forgotten {
            answers: 1,
            clients: 1
        }
    );
    assert_eq!(
        refused(&mut state, numbered(idle, 1, 0, &put("k", "x"))),
        Refusal::NoSuchClient(idle)
    );
    assert_eq!(
        revision_of(&reply(&mut state, numbered(active, 1, 0, &put("k", "2")))),
        2
    );
    assert_eq!(revision_of(&reply(&mut state, keyed("new", &put("k", "3")))), 3);
    assert_eq!(
        revision_of(&reply(&mut state, keyed("old", &put("k", "1")))),
        4,
        "carried out anew"
    );
}

/// Pitfall: the duplicate table is missing from the snapshot.
#[test]
fn duplicates_are_in_the_snapshot() {
    let mut state = StateMachine::new();
    let client = register(&mut state);
    let keyed_first = reply(&mut state, keyed("r", &put("k", "1")));
    let numbered_first = reply(&mut state, numbered(client, 1, 0, &put("k", "2")));
    let mut copy = restored(&state);
    assert_eq!(reply(&mut copy, keyed("r", &put("k", "1"))), keyed_first);
    assert_eq!(
        reply(&mut copy, numbered(client, 1, 0, &put("k", "2"))),
        numbered_first
    );
    assert_eq!(copy.revision(), Revision(2));
}

#[test]
fn the_table_is_bounded_and_what_was_used_least_lately_gives_way() {
    let mut state = StateMachine::new();
    let client = register(&mut state);
    for number in 0..HOLDERS_MAX as u64 + 10 {
        if number == 100 {
            reply(&mut state, numbered(client, 1, 0, &put("k", "v")));
        }
        reply(&mut state, keyed(&format!("{number}"), &put("k", "v")));
    }
    assert_eq!(state.requests_kept(), HOLDERS_MAX);
    let before = state.revision();
    reply(&mut state, keyed("20", &put("k", "v")));
    assert_eq!(state.revision(), before, "the oldest eleven made room");
    reply(&mut state, numbered(client, 1, 0, &put("k", "v")));
    assert_eq!(state.revision(), before, "the client was in use");
    reply(&mut state, keyed("3", &put("k", "v")));
    assert_eq!(state.revision(), before.next(), "forgotten, so carried out anew");
}

#[test]
fn a_request_that_makes_no_sense_is_refused() {
    let mut state = StateMachine::new();
    for key in [String::new(), "k".repeat(REQUEST_KEY_BYTES_MAX + 1)] {
        let command = keyed(&key, &put("k", "v"));
        assert_eq!(
            refused(&mut state, command),
            Refusal::Malformed(Malformed::RequestKey)
        );
    }
    for inner in [Command::Register, keyed("inner", &put("k", "v"))] {
        assert_eq!(
            refused(&mut state, keyed("r", &inner)),
            Refusal::Malformed(Malformed::NotOnce)
        );
    }
    assert_eq!(state.requests_kept(), 0);
}
