//! Transactions: what they see, what they refuse, and that they are one change.

use quorate_core::state::{
    Block, Command, Compare, DEPTH_MAX, DeleteRange, KeyRange, Malformed, OPERATIONS_MAX, Operand, Operation,
    Put, Query, READ_BYTES_MAX, Refusal, Relation, Reply, Response, Revision, StateMachine, Transacted,
    Transaction,
};

use super::{bytes, pair, put, refused, reply};

fn put_of(key: &str, value: &str) -> Operation {
    Operation::Put(Put::new(bytes(key), bytes(value)))
}

fn delete_of(range: KeyRange) -> Operation {
    let previous = false;
    Operation::Delete(DeleteRange { range, previous })
}

fn all() -> Operation {
    Operation::Read(Query::new(KeyRange::all()))
}

fn transact(state: &mut StateMachine, transaction: Transaction) -> Transacted {
    match reply(state, Command::Transact(transaction)) {
        Reply::Transacted(transacted) => transacted,
        reply => panic!("{reply:?}"),
    }
}

fn always(operations: Vec<Operation>) -> Transaction {
    Transaction::new(Vec::new(), operations, Vec::new())
}

fn why(transaction: Transaction) -> Malformed {
    let mut state = StateMachine::new();
    match refused(&mut state, Command::Transact(transaction)) {
        Refusal::Malformed(malformed) => malformed,
        refusal => panic!("{refusal:?}"),
    }
}

#[test]
fn compare_and_set_changes_a_key_only_at_the_expected_revision() {
    let mut state = StateMachine::new();
    let mut set = |value: &str, expected| {
        let transaction = Transaction::guarded(bytes("k"), Revision(expected), put_of("k", value));
        let done = transact(&mut state, transaction);
        (
            done.revision.0,
            done.blocks[0].succeeded,
            done.blocks[0].responses.clone(),
        )
    };
    let read = |items| {
        vec![Response::Read(quorate_core::state::Found {
            items,
            ..Default::default()
        })]
    };
    assert_eq!(
        set("a", 1),
        (0, false, read(vec![])),
        "a key that does not exist has no revision"
    );
    assert_eq!(set("a", 0).0, 1);
    assert_eq!(
        set("b", 0),
        (1, false, read(vec![pair("k", "a", 1, 1, 1)])),
        "revision 0 demands that the key does not exist"
    );
    assert_eq!(set("b", 1).0, 2);
    assert_eq!(set("c", 1).0, 2, "a conflict changes nothing");
}

#[test]
fn all_changes_have_one_revision_and_later_operations_see_earlier_ones() {
    let mut state = StateMachine::new();
    reply(&mut state, put("old", "0"));
    let before = Query {
        revision: Some(Revision(1)),
        ..Query::new(KeyRange::all())
    };
    let done = transact(
        &mut state,
        always(vec![
            put_of("a", "1"),
            all(),
            delete_of(KeyRange::only("old")),
            put_of("b", "2"),
            all(),
            Operation::Read(before),
        ]),
    );
    assert_eq!(done.revision, Revision(2));
    let seen = |place: usize| match &done.blocks[0].responses[place] {
        Response::Read(found) => found.items.clone(),
        response => panic!("{response:?}"),
    };
    let (a, old) = (pair("a", "1", 2, 2, 1), pair("old", "0", 1, 1, 1));
    assert_eq!(seen(1), [a.clone(), old.clone()]);
    assert_eq!(seen(4), [a, pair("b", "2", 2, 2, 1)]);
    assert_eq!(seen(5), [old], "an old revision is what it was");
}

#[test]
fn a_transaction_that_changes_nothing_has_no_revision_of_its_own() {
    let mut state = StateMachine::new();
    reply(&mut state, put("k", "v"));
    let done = transact(
        &mut state,
        always(vec![all(), delete_of(KeyRange::only("absent"))]),
    );
    assert_eq!((done.revision, state.revision()), (Revision(1), Revision(1)));
}

#[test]
fn nested_comparisons_look_at_the_state_before_the_transaction() {
    let mut state = StateMachine::new();
    let absent = Compare::unchanged_since("k", Revision::ABSENT);
    let outer = Block {
        compare: vec![absent.clone()],
        then: vec![put_of("k", "v"), Operation::Nested(1)],
        otherwise: vec![],
    };
    let inner = Block {
        compare: vec![absent],
        then: vec![put_of("inner", "v")],
        otherwise: vec![],
    };
    let done = transact(
        &mut state,
        Transaction {
            blocks: vec![outer, inner],
        },
    );
    assert!(done.blocks[1].succeeded);
    assert_eq!(state.len(), 2);
}

#[test]
fn a_comparison_of_a_range_holds_when_it_holds_for_every_key() {
    let mut state = StateMachine::new();
    reply(&mut state, put("a", "1"));
    reply(&mut state, put("b", "2"));
    let mut holds = |range, relation, with| {
        let compare = Compare {
            range,
            relation,
            with,
        };
        transact(&mut state, Transaction::new(vec![compare], vec![], vec![])).blocks[0].succeeded
    };
    let all = KeyRange::all;
    assert!(holds(all(), Relation::Greater, Operand::Value(bytes("0"))));
    assert!(!holds(all(), Relation::Greater, Operand::Value(bytes("1"))));
    let none = || KeyRange::prefix("none");
    assert!(
        holds(none(), Relation::Equal, Operand::Version(0)),
        "no key is a key of version 0"
    );
    assert!(
        !holds(none(), Relation::Equal, Operand::Value(bytes(""))),
        "but it has no value"
    );
    assert!(!holds(none(), Relation::NotEqual, Operand::Value(bytes("x"))));
}

#[test]
fn a_refused_operation_refuses_the_whole_transaction() {
    let mut state = StateMachine::new();
    let future = Query {
        revision: Some(Revision(9)),
        ..Query::new(KeyRange::all())
    };
    let transaction = always(vec![put_of("k", "v"), Operation::Read(future)]);
    let refusal = refused(&mut state, Command::Transact(transaction));
    assert!(matches!(refusal, Refusal::Unreadable(_)), "{refusal:?}");
    assert_eq!((state.len(), state.revision()), (0, Revision::ABSENT));
}

#[test]
fn a_key_cannot_change_twice_but_either_side_may_change_it() {
    assert_eq!(
        why(always(vec![put_of("k", "1"), put_of("k", "2")])),
        Malformed::ChangedTwice
    );
    let range = || delete_of(KeyRange::prefix("k"));
    assert_eq!(
        why(always(vec![put_of("k1", "1"), range()])),
        Malformed::ChangedTwice
    );
    assert_eq!(
        why(always(vec![range(), put_of("k1", "1")])),
        Malformed::ChangedTwice
    );
    let nested = Block {
        then: vec![put_of("k", "1")],
        otherwise: vec![put_of("k", "2")],
        ..Block::default()
    };
    let outer = |then| Block {
        then,
        ..Block::default()
    };
    let twice = vec![
        outer(vec![Operation::Nested(1), put_of("k", "3")]),
        nested.clone(),
    ];
    assert_eq!(why(Transaction { blocks: twice }), Malformed::ChangedTwice);
    let mut state = StateMachine::new();
    let once = vec![
        outer(vec![
            Operation::Nested(1),
            put_of("l", "3"),
            range_of("m"),
            range_of("m"),
        ]),
        nested,
    ];
    transact(&mut state, Transaction { blocks: once });
}

fn range_of(prefix: &'static str) -> Operation {
    delete_of(KeyRange::prefix(prefix))
}

#[test]
fn a_malformed_transaction_is_refused_whatever_is_wrong_with_it() {
    assert_eq!(why(always(vec![put_of("", "v")])), Malformed::EmptyKey);
    assert_eq!(
        why(always(vec![all(); OPERATIONS_MAX + 1])),
        Malformed::TooManyOperations
    );
    assert_eq!(why(Transaction { blocks: vec![] }), Malformed::Nesting);
    assert_eq!(
        why(always(vec![Operation::Nested(1)])),
        Malformed::Nesting,
        "of a block that is missing"
    );
    assert_eq!(
        why(always(vec![Operation::Nested(0)])),
        Malformed::Nesting,
        "of itself"
    );
    let unnamed = vec![Block::default(), Block::default()];
    assert_eq!(why(Transaction { blocks: unnamed }), Malformed::Nesting);
    let mut twice = always(vec![Operation::Nested(1), Operation::Nested(1)]);
    twice.blocks.push(Block::default());
    assert_eq!(why(twice), Malformed::Nesting);
    let chain = |depth: usize| Transaction {
        blocks: (1..=depth)
            .map(|next| Block {
                then: (next < depth)
                    .then(|| Operation::Nested(u16::try_from(next).expect("few")))
                    .into_iter()
                    .collect(),
                ..Block::default()
            })
            .collect(),
    };
    assert_eq!(why(chain(DEPTH_MAX + 1)), Malformed::TooDeep);
    transact(&mut StateMachine::new(), chain(DEPTH_MAX));
}

#[test]
fn the_reads_of_a_transaction_answer_a_bounded_number_of_bytes() {
    let mut state = StateMachine::new();
    let value = "v".repeat(300 << 10);
    for key in ["a", "b", "c", "d"] {
        reply(&mut state, put(key, &value));
    }
    let done = transact(&mut state, always(vec![all(), all()]));
    let seen: Vec<(usize, bool)> = done.blocks[0]
        .responses
        .iter()
        .map(|response| match response {
            Response::Read(found) => (found.items.len(), found.more),
            response => panic!("{response:?}"),
        })
        .collect();
    assert_eq!(seen, [(3, true), (1, true)]);
}

#[test]
fn what_the_operations_of_a_transaction_answer_is_cut_together() {
    let mut state = StateMachine::new();
    let value = "x".repeat(READ_BYTES_MAX * 2 / 3);
    for key in ["a", "b", "c", "d"] {
        reply(&mut state, put(key, &value));
    }
    let with_previous = |key: &str| {
        Operation::Put(Put {
            previous: true,
            ..Put::new(bytes(key), bytes("1"))
        })
    };
    let rest = DeleteRange {
        range: KeyRange::from(bytes("d")),
        previous: true,
    };
    let operations = vec![
        with_previous("a"),
        with_previous("b"),
        with_previous("c"),
        all(),
        Operation::Delete(rest),
    ];
    let done = transact(&mut state, always(operations));
    let responses = &done.blocks[0].responses;
    let had_previous = |response: &Response| matches!(response, Response::Put { previous: Some(_) });
    let told: Vec<bool> = responses[..3].iter().map(had_previous).collect();
    assert_eq!(told, [true, true, false]);
    assert!(
        matches!(&responses[3], Response::Read(found) if found.items.is_empty() && found.more),
        "{:?}",
        responses[3]
    );
    let deleted = Response::Deleted {
        deleted: 1,
        previous: Vec::new(),
    };
    assert_eq!(responses[4], deleted);
}
