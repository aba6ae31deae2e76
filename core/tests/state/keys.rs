//! Puts, removals and reads of keys.

use bytes::Bytes;
use quorate_core::state::{
    Command, Detail, KeyRange, Malformed, Put, Query, ReadError, Refusal, Reply, Revision, StateMachine,
};

use super::{apply, bytes, delete, pair, put, refused, reply};

#[test]
fn versions_count_from_creation_and_a_key_that_comes_back_is_new() {
    let mut state = StateMachine::new();
    reply(&mut state, put("k", "one"));
    reply(&mut state, put("other", "x"));
    let again = Command::Put(Put {
        previous: true,
        ..Put::new("k", "two")
    });
    assert_eq!(
        reply(&mut state, again),
        Reply::Put {
            revision: Revision(3),
            previous: Some(pair("k", "one", 1, 1, 1)),
        }
    );
    assert_eq!(state.get(b"k"), Some(pair("k", "two", 1, 3, 2)));
    assert_eq!(
        reply(&mut state, delete("k")),
        Reply::Deleted {
            revision: Revision(4),
            deleted: 1,
            previous: vec![pair("k", "two", 1, 3, 2)],
        }
    );
    assert_eq!(state.get(b"k"), None);
    reply(&mut state, put("k", "three"));
    assert_eq!(state.get(b"k"), Some(pair("k", "three", 5, 5, 1)));
}

#[test]
fn an_empty_key_is_answered_and_changes_nothing() {
    let mut state = StateMachine::new();
    assert_eq!(
        refused(&mut state, put("", "v")),
        Refusal::Malformed(Malformed::EmptyKey)
    );
    assert!(state.is_empty());
    assert_eq!(state.revision(), Revision::ABSENT);
}

#[test]
fn a_value_that_is_kept_must_be_there() {
    let mut state = StateMachine::new();
    let keep = Command::Put(Put {
        value: None,
        ..Put::new("k", "")
    });
    assert_eq!(refused(&mut state, keep.clone()), Refusal::NothingToKeep);
    reply(&mut state, put("k", "v"));
    reply(&mut state, keep);
    assert_eq!(state.get(b"k"), Some(pair("k", "v", 1, 2, 2)));
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
        apply(&mut state, &Command::put(key, key));
    }
    let keys = |range: &KeyRange, limit| {
        let query = Query {
            limit: Some(limit),
            ..Query::new(range.clone())
        };
        let page = state.read(&query, usize::MAX).expect("the latest revision");
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
    assert_eq!(keys(&KeyRange::only(&b"a0"[..]), 2), (list(&[b"a0"]), false));
}

#[test]
fn an_answer_is_cut_at_the_bytes_that_it_may_have_but_holds_one_key() {
    let mut state = StateMachine::new();
    for key in ["a", "b", "c"] {
        reply(&mut state, put(key, "0123456789"));
    }
    let query = Query::new(KeyRange::all());
    for (bytes_max, items) in [(0, 1), (11, 1), (21, 1), (22, 2), (33, 3)] {
        let found = state.read(&query, bytes_max).expect("the latest revision");
        assert_eq!(
            (found.items.len(), found.more),
            (items, items < 3),
            "{bytes_max} bytes"
        );
    }
    let names = Query {
        detail: Detail::WithoutValue,
        ..query
    };
    assert_eq!(state.read(&names, 3).expect("the latest revision").items.len(), 3);
}

#[test]
fn a_revision_in_the_future_is_refused() {
    let mut state = StateMachine::new();
    reply(&mut state, put("k", "v"));
    let query = Query {
        revision: Some(Revision(2)),
        ..Query::new(KeyRange::all())
    };
    let error = state.read(&query, 100).expect_err("revision 2 does not exist");
    let (revision, latest) = (Revision(2), Revision(1));
    assert_eq!(error, ReadError::Future { revision, latest });
}

#[test]
fn a_row_tells_its_key_and_value() {
    let mut state = StateMachine::new();
    let applied = apply(&mut state, &Command::put(bytes("k"), Bytes::from_static(b"v")));
    let seen: Vec<_> = applied
        .rows
        .iter()
        .map(|row| row.key_value().expect("a readable row"))
        .collect();
    assert_eq!(seen, [Some(pair("k", "v", 1, 1, 1)), None]);
}
