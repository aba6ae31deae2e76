use super::*;
use crate::random::{Concern, Stream};

fn at(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// A transaction between two moments, in milliseconds: what it read, and what it appended.
fn did(invoked: u64, returned: u64, reads: &[(&str, &[u64])], appends: &[(&str, u64)]) -> Transaction {
    Transaction {
        reads: reads
            .iter()
            .map(|(key, list)| ((*key).to_owned(), list.to_vec()))
            .collect(),
        appends: appends
            .iter()
            .map(|(key, value)| ((*key).to_owned(), *value))
            .collect(),
        outcome: Outcome::Done,
        invoked: at(invoked),
        returned: at(returned),
    }
}

fn ended(outcome: Outcome, transaction: Transaction) -> Transaction {
    Transaction {
        outcome,
        ..transaction
    }
}

/// The places of the transactions that go round in a circle.
fn circle(transactions: &[Transaction]) -> Vec<usize> {
    match check(transactions) {
        Err(Anomaly::Circle(steps)) => {
            let mut places: Vec<usize> = steps.iter().map(|step| step.transaction).collect();
            places.sort_unstable();
            places
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_after_the_other_is_fine() {
    let transactions = [
        did(0, 1, &[("a", &[])], &[("a", 1)]),
        did(2, 3, &[("a", &[1])], &[("b", 2)]),
        did(4, 5, &[("a", &[1]), ("b", &[2])], &[]),
    ];
    assert_eq!(check(&transactions), Ok(()));
}

#[test]
fn what_overlaps_may_go_either_way() {
    let transactions = [
        did(0, 9, &[], &[("a", 1)]),
        did(0, 9, &[("a", &[1])], &[("a", 2)]),
        did(0, 9, &[("a", &[])], &[]),
    ];
    assert_eq!(check(&transactions), Ok(()));
}

#[test]
fn append_that_is_lost_is_found() {
    // Both read the empty list, and the second append is in no list that follows.
    let transactions = [
        did(0, 5, &[("a", &[])], &[("a", 1)]),
        did(0, 5, &[("a", &[])], &[("a", 2)]),
        did(6, 7, &[("a", &[1])], &[]),
    ];
    assert_eq!(circle(&transactions), [0, 1]);
}

#[test]
fn write_skew_is_found() {
    // Each reads what the other is about to append to.
    let transactions = [
        did(0, 5, &[("a", &[]), ("b", &[])], &[("a", 1)]),
        did(0, 5, &[("a", &[]), ("b", &[])], &[("b", 2)]),
        did(6, 7, &[("a", &[1]), ("b", &[2])], &[]),
    ];
    assert_eq!(circle(&transactions), [0, 1]);
}

#[test]
fn half_of_a_transaction_that_is_seen_is_found() {
    let transactions = [
        did(0, 9, &[], &[("a", 1), ("b", 1)]),
        did(0, 9, &[("a", &[1]), ("b", &[])], &[]),
        did(10, 11, &[("a", &[1]), ("b", &[1])], &[]),
    ];
    assert_eq!(circle(&transactions), [0, 1]);
}

#[test]
fn two_who_see_two_appends_in_different_orders_are_found() {
    let transactions = [
        did(0, 9, &[], &[("a", 1)]),
        did(0, 9, &[], &[("b", 2)]),
        did(0, 9, &[("a", &[1]), ("b", &[])], &[]),
        did(0, 9, &[("a", &[]), ("b", &[2])], &[]),
        did(10, 11, &[("a", &[1]), ("b", &[2])], &[]),
    ];
    assert_eq!(circle(&transactions), [0, 1, 2, 3]);
}

#[test]
fn read_of_the_past_is_found() {
    let transactions = [
        did(0, 1, &[], &[("a", 1)]),
        did(2, 3, &[("a", &[])], &[]),
        did(4, 5, &[("a", &[1])], &[]),
    ];
    assert_eq!(circle(&transactions), [0, 1]);
    // Also when nobody ever sees what was appended.
    assert_eq!(circle(&transactions[..2]), [0, 1]);
}

#[test]
fn read_of_the_future_is_found() {
    let transactions = [
        did(0, 1, &[("a", &[1])], &[]),
        did(2, 3, &[("a", &[])], &[("a", 1)]),
    ];
    assert_eq!(circle(&transactions), [0, 1]);
    let own = [did(0, 1, &[("a", &[1])], &[("a", 1)])];
    assert_eq!(circle(&own), [0]);
}

#[test]
fn values_that_nobody_appended_are_found() {
    let append = did(0, 1, &[("a", &[])], &[("a", 1)]);
    let read = did(2, 3, &[("a", &[1])], &[]);
    let unexplained = Err(Anomaly::Unexplained {
        key: "a".to_owned(),
        value: 1,
    });
    assert_eq!(check(std::slice::from_ref(&read)), unexplained);
    let failed = ended(Outcome::Failed, append);
    assert_eq!(check(&[failed, read]), unexplained);
}

#[test]
fn value_that_is_there_twice_is_found() {
    let transactions = [
        did(0, 1, &[("a", &[])], &[("a", 1)]),
        did(2, 3, &[("a", &[1, 1])], &[]),
    ];
    assert!(matches!(
        check(&transactions),
        Err(Anomaly::Twice { value: 1, .. })
    ));
}

#[test]
fn reads_of_two_histories_are_found() {
    let transactions = [
        did(0, 1, &[], &[("a", 1)]),
        did(0, 1, &[], &[("a", 2)]),
        did(2, 3, &[("a", &[1, 2])], &[]),
        did(2, 3, &[("a", &[2])], &[]),
    ];
    assert!(matches!(check(&transactions), Err(Anomaly::Forked { .. })));
}

#[test]
fn unknown_fate_counts_once_somebody_sees_it() {
    let unknown = ended(Outcome::Unknown, did(0, 1, &[("a", &[])], &[("a", 1), ("b", 1)]));
    let neither = did(2, 3, &[("a", &[]), ("b", &[])], &[]);
    let both = did(4, 5, &[("a", &[1]), ("b", &[1])], &[]);
    assert_eq!(check(&[unknown.clone(), neither.clone()]), Ok(()));
    // It was under way longer than its client waited.
    assert_eq!(check(&[unknown.clone(), neither, both]), Ok(()));
    let half = did(2, 3, &[("a", &[1]), ("b", &[])], &[]);
    let rest = did(4, 5, &[("b", &[])], &[]);
    assert_eq!(circle(&[unknown, half, rest]), [0, 1]);
}

/// What a store would answer that does transactions one after the other, or one that lets each read as of when it began
/// and refuses only who appends to what somebody else did (snapshot isolation).
fn history(seed: u64, isolated: bool) -> Vec<Transaction> {
    let mut random = Stream::keyed(seed, Concern::Clients, 0);
    let keys = ["a", "b", "c"];
    let mut state: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let mut earlier: VecDeque<BTreeMap<String, Vec<u64>>> = VecDeque::from([state.clone()]);
    let mut transactions = Vec::new();
    for number in 0..200 {
        let seen = match isolated {
            true => earlier[random.below(earlier.len() as u64) as usize].clone(),
            false => state.clone(),
        };
        let list = |key: &str, from: &BTreeMap<String, Vec<u64>>| from.get(key).cloned().unwrap_or_default();
        let read = [*random.pick(&keys), *random.pick(&keys)];
        let reads = read.map(|key| (key.to_owned(), list(key, &seen))).into();
        let key = read[0];
        let mut appends = BTreeMap::new();
        if random.chance(700_000) && list(key, &seen) == list(key, &state) {
            appends.insert(key.to_owned(), number);
            state.entry(key.to_owned()).or_default().push(number);
        }
        earlier.push_back(state.clone());
        if earlier.len() > 3 {
            earlier.pop_front();
        }
        // It took effect at 10 × its number; those that read the past were asked while that was the present.
        let (before, after) = (random.below(8), random.below(8));
        transactions.push(Transaction {
            reads,
            appends,
            outcome: Outcome::Done,
            invoked: at((10 * number + 100).saturating_sub(if isolated { 40 } else { before })),
            returned: at(10 * number + 100 + after),
        });
    }
    transactions
}

#[test]
fn every_history_of_a_store_that_does_one_after_the_other_is_explained() {
    for seed in 0..100 {
        assert_eq!(check(&history(seed, false)), Ok(()), "seed {seed}");
    }
}

#[test]
fn histories_of_snapshot_isolation_are_found_out() {
    let found = (0..100).filter(|seed| matches!(check(&history(*seed, true)), Err(Anomaly::Circle(_))));
    let found = found.count();
    assert!(found >= 95, "{found} of 100");
}
