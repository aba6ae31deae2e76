//! Leases: keys go with them, and expiry that a leader decided on counts only for what it knew.

use std::time::Duration;

use quorate_core::raft::{Index, Position, Term};
use quorate_core::state::{
    Attach, Command, Grant, LeaseEvent, Malformed, Put, Refusal, Reply, Revision, StateMachine,
};

use super::{apply, bytes, delete, lease_id, put, put_with, refused, reply};

fn grant(lease: u64) -> Command {
    Command::Grant {
        lease: Some(lease_id(lease)),
        ttl: Duration::from_secs(10),
    }
}

fn revoke(lease: u64) -> Command {
    Command::Revoke {
        lease: lease_id(lease),
    }
}

fn expire(term: u64, lease: u64, granted: u64) -> Command {
    Command::Expire {
        term: Term(term),
        leases: vec![(lease_id(lease), Index(granted))],
    }
}

fn keys_of(state: &StateMachine, lease: u64) -> Vec<String> {
    let lease = state.lease(lease_id(lease)).expect("the lease exists");
    let keys = lease.keys.iter();
    keys.map(|key| String::from_utf8_lossy(key).into_owned())
        .collect()
}

#[test]
fn the_keys_of_a_revoked_lease_go_in_one_revision() {
    let mut state = StateMachine::new();
    let granted = apply(&mut state, &grant(7));
    let (id, ttl) = (lease_id(7), Duration::from_secs(10));
    assert_eq!(granted.reply, Reply::Granted { lease: id, ttl });
    let granted_at = Grant {
        ttl,
        granted: Index(1),
    };
    assert_eq!(granted.leases, [LeaseEvent::Granted(id, granted_at)]);
    reply(&mut state, put_with("a", "1", 7));
    reply(&mut state, put_with("b", "2", 7));
    reply(&mut state, put("other", "3"));
    let gone = apply(&mut state, &revoke(7));
    let expected = Reply::Revoked {
        revision: Revision(4),
        leases: 1,
        deleted: 2,
    };
    assert_eq!(
        (gone.reply, gone.leases),
        (expected, vec![LeaseEvent::Gone(id, granted_at)])
    );
    assert_eq!(state.len(), 1);
    assert_eq!(refused(&mut state, revoke(7)), Refusal::NoSuchLease(id));
}

#[test]
fn a_key_goes_with_the_lease_of_its_last_put() {
    let mut state = StateMachine::new();
    reply(&mut state, grant(1));
    reply(&mut state, grant(2));
    reply(&mut state, put_with("k", "v", 1));
    reply(&mut state, put_with("k", "v", 2));
    assert_eq!(
        (keys_of(&state, 1), keys_of(&state, 2)),
        (vec![], vec!["k".to_owned()])
    );
    let keep = Put {
        lease: Attach::Keep,
        ..Put::new(bytes("k"), bytes("w"))
    };
    reply(&mut state, Command::Put(keep));
    assert_eq!(keys_of(&state, 2), ["k"]);
    reply(&mut state, put("k", "v"));
    assert_eq!(keys_of(&state, 2), [""; 0]);
    reply(&mut state, put_with("k", "v", 1));
    reply(&mut state, delete("k"));
    assert_eq!(keys_of(&state, 1), [""; 0]);
}

#[test]
fn a_lease_that_is_missing_taken_or_endless_is_refused() {
    let mut state = StateMachine::new();
    assert_eq!(
        refused(&mut state, put_with("k", "v", 9)),
        Refusal::NoSuchLease(lease_id(9))
    );
    reply(&mut state, grant(9));
    assert_eq!(refused(&mut state, grant(9)), Refusal::LeaseExists(lease_id(9)));
    for ttl in [Duration::ZERO, Duration::from_secs(9_000_000_001)] {
        let command = Command::Grant { lease: None, ttl };
        assert_eq!(
            refused(&mut state, command),
            Refusal::Malformed(Malformed::TimeToLive)
        );
    }
}

#[test]
fn an_id_that_nobody_chose_is_free() {
    let mut state = StateMachine::new();
    reply(&mut state, grant(3));
    reply(&mut state, grant(2));
    let any = Command::Grant {
        lease: None,
        ttl: Duration::from_secs(1),
    };
    let chosen = reply(&mut state, any);
    assert!(
        matches!(chosen, Reply::Granted { lease, .. } if lease == lease_id(4)),
        "{chosen:?}"
    );
}

/// etcd#12528, etcd#15247: a leader that does not know that it was deposed revokes leases that its successor renewed.
#[test]
fn stale_leader_revokes() {
    let mut state = StateMachine::new();
    reply(&mut state, grant(7));
    reply(&mut state, put_with("k", "v", 7));
    let next_term = Position {
        term: Term(2),
        index: Index(3),
    };
    // Handed on to the leader of term 2, as any client's command would be.
    let applied = state
        .apply(next_term, &expire(1, 7, 1).encode())
        .expect("a known command");
    assert_eq!(applied.reply, Reply::Refused(Refusal::StaleTerm));
    assert!(state.get(b"k").is_some());
    let later = Position {
        term: Term(2),
        index: Index(4),
    };
    let applied = state
        .apply(later, &expire(2, 7, 1).encode())
        .expect("a known command");
    assert!(matches!(
        applied.reply,
        Reply::Revoked {
            leases: 1,
            deleted: 1,
            ..
        }
    ));
}

#[test]
fn a_delayed_expiry_spares_a_lease_that_was_granted_again() {
    let mut state = StateMachine::new();
    reply(&mut state, grant(7));
    reply(&mut state, revoke(7));
    reply(&mut state, grant(7));
    reply(&mut state, put_with("k", "v", 7));
    let late = reply(&mut state, expire(1, 7, 1));
    assert!(
        matches!(
            late,
            Reply::Revoked {
                leases: 0,
                deleted: 0,
                ..
            }
        ),
        "{late:?}"
    );
    assert_eq!(keys_of(&state, 7), ["k"]);
}
