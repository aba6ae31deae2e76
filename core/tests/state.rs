//! The state machine against a plain model, through restarts, and rule by rule.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_core::raft::{Index, Position, Term};
use quorate_core::state::{
    Applied, ApplyError, Command, KeyRange, KeyValue, Malformed, Reply, RestoreError, Revision, Row,
    StateMachine,
};
use quorate_core::wire::{self, DecodeError, Kind};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

fn at(index: u64) -> Position {
    Position {
        term: Term(1),
        index: Index(index),
    }
}

fn put(key: &str, value: &str, expected: Option<u64>) -> Command {
    Command::Put {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
        expected: expected.map(Revision),
    }
}

fn delete(key: &str, expected: Option<u64>) -> Command {
    Command::Delete {
        key: Bytes::copy_from_slice(key.as_bytes()),
        expected: expected.map(Revision),
    }
}

fn pair(key: &str, value: &str, create: u64, modified: u64, version: u64) -> KeyValue {
    KeyValue {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
        create_revision: Revision(create),
        mod_revision: Revision(modified),
        version,
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

fn stored_rows(state: &StateMachine) -> BTreeMap<Vec<u8>, Vec<u8>> {
    state
        .rows()
        .map(|row| (row.key, row.value.expect("a row of the state has a value")))
        .collect()
}

fn merge(rows: &mut BTreeMap<Vec<u8>, Vec<u8>>, changed: Vec<Row>) {
    for row in changed {
        match row.value {
            Some(value) => rows.insert(row.key, value),
            None => rows.remove(&row.key),
        };
    }
}

fn restored(state: &StateMachine) -> StateMachine {
    StateMachine::restore(stored_rows(state).into_iter(), state.applied()).expect("rows of a state")
}

/// What a key space is, written as plainly as possible.
#[derive(Default)]
struct Model {
    keys: BTreeMap<Vec<u8>, KeyValue>,
    revision: u64,
}

impl Model {
    fn apply(&mut self, command: &Command) -> Reply {
        let (key, expected) = match command {
            Command::Put { key, expected, .. } | Command::Delete { key, expected } => (key, expected),
        };
        if key.is_empty() {
            return Reply::Malformed(Malformed::EmptyKey);
        }
        let current = self.keys.get(key.as_ref()).cloned();
        let found = current.as_ref().map_or(0, |pair| pair.mod_revision.0);
        if expected.is_some_and(|expected| expected.0 != found) {
            return Reply::Conflict { current };
        }
        match command {
            Command::Put { value, .. } => {
                self.revision += 1;
                let next = KeyValue {
                    key: key.clone(),
                    value: value.clone(),
                    create_revision: current
                        .as_ref()
                        .map_or(Revision(self.revision), |pair| pair.create_revision),
                    mod_revision: Revision(self.revision),
                    version: current.as_ref().map_or(1, |pair| pair.version + 1),
                };
                self.keys.insert(key.to_vec(), next);
                Reply::Put {
                    revision: Revision(self.revision),
                    previous: current,
                }
            }
            Command::Delete { .. } => match current {
                Some(previous) => {
                    self.revision += 1;
                    self.keys.remove(key.as_ref());
                    Reply::Deleted {
                        revision: Revision(self.revision),
                        previous,
                    }
                }
                None => Reply::NotFound,
            },
        }
    }
}

fn random_command(random: &mut ChaCha8Rng, model: &Model) -> Command {
    let length = random.next_u32() % 3;
    let key: Vec<u8> = (0..length)
        .map(|_| [0, b'a', 0xff][(random.next_u32() % 3) as usize])
        .collect();
    let expected = match random.next_u32() % 4 {
        0 => Some(Revision(u64::from(random.next_u32() % 4))),
        1 => Some(
            model
                .keys
                .get(&key)
                .map_or(Revision::ABSENT, |pair| pair.mod_revision),
        ),
        _ => None,
    };
    if random.next_u32().is_multiple_of(3) {
        Command::Delete {
            key: key.into(),
            expected,
        }
    } else {
        let mut value = vec![0; (random.next_u32() % 40) as usize];
        random.fill_bytes(&mut value);
        Command::Put {
            key: key.into(),
            value: value.into(),
            expected,
        }
    }
}

#[test]
fn random_commands_give_what_a_plain_model_gives_through_restarts() {
    for seed in 0..60 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut model = Model::default();
        let mut state = StateMachine::new();
        let mut store = BTreeMap::new();
        for index in 1..=400 {
            match random.next_u32() % 20 {
                0 => {
                    state.apply_empty(at(index)).expect("the next index");
                    continue;
                }
                1 => {
                    state = StateMachine::restore(store.clone().into_iter(), state.applied())
                        .expect("stored rows")
                }
                _ => {}
            }
            let before = state.fingerprint();
            let command = random_command(&mut random, &model);
            let applied = state
                .apply(at(index), &command.encode())
                .expect("a known command");
            assert_eq!(
                applied.reply,
                model.apply(&command),
                "seed {seed} index {index} {command:?}"
            );
            assert_ne!(
                state.fingerprint(),
                before,
                "every command shows in the fingerprint"
            );
            merge(&mut store, applied.rows);
            assert_eq!(
                store,
                stored_rows(&state),
                "written rows are the state: seed {seed} index {index}"
            );
            let all = state.range(&KeyRange::all(), usize::MAX);
            assert_eq!(all.items, model.keys.values().cloned().collect::<Vec<_>>());
            assert_eq!(state.revision(), Revision(model.revision));
        }
    }
}

#[test]
fn a_restored_state_goes_on_exactly_like_the_original() {
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let mut original = StateMachine::new();
    let mut model = Model::default();
    for index in 1..=200 {
        let mut copy = restored(&original);
        assert_eq!(copy.fingerprint(), original.fingerprint());
        assert_eq!(copy.revision(), original.revision());
        assert_eq!(copy.applied(), original.applied());
        let command = random_command(&mut random, &model);
        model.apply(&command);
        let expected = original
            .apply(at(index), &command.encode())
            .expect("a known command");
        assert_eq!(copy.apply(at(index), &command.encode()), Ok(expected));
        assert_eq!(copy.fingerprint(), original.fingerprint());
    }
}

#[test]
fn versions_count_from_creation_and_a_key_that_comes_back_is_new() {
    let mut state = StateMachine::new();
    reply(&mut state, put("k", "one", None));
    reply(&mut state, put("other", "x", None));
    assert_eq!(
        reply(&mut state, put("k", "two", None)),
        Reply::Put {
            revision: Revision(3),
            previous: Some(pair("k", "one", 1, 1, 1)),
        }
    );
    assert_eq!(state.get(b"k"), Some(pair("k", "two", 1, 3, 2)));
    assert_eq!(
        reply(&mut state, delete("k", None)),
        Reply::Deleted {
            revision: Revision(4),
            previous: pair("k", "two", 1, 3, 2),
        }
    );
    assert_eq!(state.get(b"k"), None);
    reply(&mut state, put("k", "three", None));
    assert_eq!(state.get(b"k"), Some(pair("k", "three", 5, 5, 1)));
}

#[test]
fn compare_and_set_changes_a_key_only_at_the_expected_revision() {
    let mut state = StateMachine::new();
    assert_eq!(
        reply(&mut state, put("k", "a", Some(1))),
        Reply::Conflict { current: None },
        "a key that does not exist has no revision"
    );
    reply(&mut state, put("k", "a", Some(0)));
    let current = Some(pair("k", "a", 1, 1, 1));
    assert_eq!(
        reply(&mut state, put("k", "b", Some(0))),
        Reply::Conflict {
            current: current.clone()
        },
        "revision 0 demands that the key does not exist"
    );
    assert_eq!(
        reply(&mut state, delete("k", Some(2))),
        Reply::Conflict {
            current: current.clone()
        }
    );
    assert_eq!(state.revision(), Revision(1), "a conflict changes nothing");
    assert_eq!(
        reply(&mut state, put("k", "b", Some(1))),
        Reply::Put {
            revision: Revision(2),
            previous: current
        }
    );
    assert_eq!(
        reply(&mut state, delete("k", Some(2))),
        Reply::Deleted {
            revision: Revision(3),
            previous: pair("k", "b", 1, 2, 2)
        }
    );
    assert_eq!(
        reply(&mut state, delete("k", Some(2))),
        Reply::Conflict { current: None }
    );
    assert_eq!(reply(&mut state, delete("k", None)), Reply::NotFound);
}

#[test]
fn an_empty_key_is_answered_and_changes_nothing() {
    let mut state = StateMachine::new();
    let malformed = Reply::Malformed(Malformed::EmptyKey);
    assert_eq!(reply(&mut state, put("", "v", None)), malformed);
    assert_eq!(reply(&mut state, delete("", None)), malformed);
    assert!(state.is_empty());
    assert_eq!(state.revision(), Revision::ABSENT);
}

#[test]
fn a_command_of_an_unknown_kind_or_a_newer_version_stops_the_state_machine() {
    let mut state = StateMachine::new();
    reply(&mut state, put("k", "a", None));
    let (fingerprint, applied) = (state.fingerprint(), state.applied());
    let known = put("k", "b", None).encode();

    let mut newer = known.to_vec();
    newer[1] = wire::VERSION + 1;
    let mut unknown_variant = known.to_vec();
    unknown_variant[2] = 0x7f;
    let mut too_long = known.to_vec();
    too_long.push(0);
    let reply_instead = wire::encode(Kind::Reply, &Reply::NotFound);

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
    let command = put("k", "a", None).encode();
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
    let base = run(&[put("a", "1", None), put("b", "2", None)]);
    assert_eq!(base, run(&[put("a", "1", None), put("b", "2", None)]));
    assert_ne!(base, run(&[put("b", "2", None), put("a", "1", None)]), "order");
    assert_ne!(base, run(&[put("a", "1", None), put("b", "3", None)]), "values");
    assert_ne!(
        run(&[put("a", "1", None), delete("x", None)]),
        run(&[put("a", "1", None), put("", "", None)]),
        "replies of commands that change nothing"
    );
    let mut shifted = StateMachine::new();
    shifted.apply_empty(at(1)).expect("the next index");
    apply(&mut shifted, &put("a", "1", None));
    apply(&mut shifted, &put("b", "2", None));
    assert_ne!(base, shifted.fingerprint(), "indexes");
}

#[test]
fn an_entry_without_a_command_leaves_state_and_fingerprint_alone() {
    let mut state = StateMachine::new();
    apply(&mut state, &put("a", "1", None));
    let before = (state.fingerprint(), stored_rows(&state));
    state.apply_empty(at(2)).expect("the next index");
    assert_eq!((state.fingerprint(), stored_rows(&state)), before);
    assert_eq!(state.applied(), at(2));
}

#[test]
fn ranges_follow_the_order_of_bytes_and_come_in_pages() {
    let mut state = StateMachine::new();
    for key in [
        &b"a"[..],
        b"a/1",
        b"a/2",
        b"a0",
        b"b",
        b"\xff",
        b"\xff\xff",
        b"\xff\xff1",
    ] {
        let key = Bytes::copy_from_slice(key);
        let value = key.clone();
        apply(
            &mut state,
            &Command::Put {
                key,
                value,
                expected: None,
            },
        );
    }
    let keys = |range: &KeyRange, limit| {
        let page = state.range(range, limit);
        let keys: Vec<Vec<u8>> = page.items.iter().map(|pair| pair.key.to_vec()).collect();
        (keys, page.more)
    };
    let list = |keys: &[&[u8]]| keys.iter().map(|key| key.to_vec()).collect::<Vec<_>>();

    let prefix = KeyRange::prefix(&b"a/"[..]);
    assert_eq!(keys(&prefix, 10), (list(&[b"a/1", b"a/2"]), false));
    assert_eq!(keys(&prefix, 1), (list(&[b"a/1"]), true));
    assert_eq!(keys(&prefix.after(&b"a/1"[..]), 1), (list(&[b"a/2"]), false));
    assert_eq!(keys(&prefix.after(&b"zzz"[..]), 1), (list(&[]), false));
    assert_eq!(
        keys(&KeyRange::prefix(&b"\xff\xff"[..]), 10),
        (list(&[b"\xff\xff", b"\xff\xff1"]), false),
        "a prefix that has no successor ends with the key space"
    );
    assert_eq!(keys(&KeyRange::prefix(&b""[..]), 100).0.len(), 8);
    assert_eq!(keys(&KeyRange::all(), 0), (list(&[]), true));
    assert_eq!(
        keys(&KeyRange::between(&b"a/2"[..], &b"b"[..]), 10),
        (list(&[b"a/2", b"a0"]), false)
    );
    assert_eq!(
        keys(&KeyRange::between(&b"b"[..], &b"a"[..]), 10),
        (list(&[]), false)
    );
    assert_eq!(
        keys(&KeyRange::from(&b"b"[..]), 2),
        (list(&[b"b", b"\xff"]), true)
    );
}

#[test]
fn a_row_tells_its_key_and_value() {
    let mut state = StateMachine::new();
    let applied = apply(&mut state, &put("k", "v", None));
    let seen: Vec<_> = applied
        .rows
        .iter()
        .map(|row| row.key_value().expect("a readable row"))
        .collect();
    assert_eq!(seen, [Some(pair("k", "v", 1, 1, 1)), None]);
}

#[test]
fn damaged_or_contradictory_rows_are_refused_with_the_row_named() {
    let mut state = StateMachine::new();
    apply(&mut state, &put("k", "v", None));
    apply(&mut state, &put("k", "w", None));
    let rows = stored_rows(&state);
    let key_row = vec![1, b'k'];
    let restore = |rows: BTreeMap<Vec<u8>, Vec<u8>>, applied| {
        StateMachine::restore(rows.into_iter(), applied).map(|state| state.fingerprint())
    };
    assert_eq!(restore(rows.clone(), at(2)), Ok(state.fingerprint()));

    let mut cut = rows.clone();
    cut.get_mut(&key_row).expect("the key's row").pop();
    let error = restore(cut, at(2)).expect_err("a cut value");
    assert!(matches!(error, RestoreError::Undecodable { .. }), "{error}");
    assert!(error.to_string().contains("016b"), "{error}");

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
    assert_eq!(restore(headless, at(2)), Err(RestoreError::NoSummary { keys: 1 }));

    assert!(matches!(
        restore(rows.clone(), at(1)),
        Err(RestoreError::RowsAhead { .. })
    ));

    let mut early = StateMachine::new();
    let old_summary = apply(&mut early, &put("k", "v", None))
        .rows
        .pop()
        .expect("the summary row");
    let mut torn = rows;
    torn.insert(old_summary.key, old_summary.value.expect("a summary"));
    assert!(matches!(
        restore(torn, at(2)),
        Err(RestoreError::RevisionAhead { .. })
    ));
}
