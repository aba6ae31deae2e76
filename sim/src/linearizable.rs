//! Whether what clients saw of one key can be explained by operations that took effect one after the other, each at
//! some moment between its call and its answer (Herlihy and Wing, 1990).
//!
//! The search is that of Wing and Gong (1993) with the memory of Lowe (2017): it tries orders depth first, and gives up
//! a branch when the same operations led to the same value before. An operation with an unknown outcome may take effect
//! at any moment after its call, or never. Three facts keep the search short and lose no order that explains the
//! history:
//! - what changes nothing (a read, a conflict) is ordered as soon as it may be and fits;
//! - every value is written once, so a value that somebody has yet to see is not overwritten by others;
//! - a write with an unknown outcome whose value nobody saw explains nothing but a conflict right after it.
//!
//! A search that takes too long ends with [`Verdict::Undecided`], which is no success.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

/// What was asked of one key. Every write of a history writes another value, and 0 stands for no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Write a value whatever was there.
    Put(u64),
    /// Read.
    Get,
    /// Write a value if another is still there, whose revision the client read before.
    CompareAndSet {
        /// What has to be there.
        expected: u64,
        /// What is to be there.
        value: u64,
    },
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done: a put or compare-and-set with success.
    Done,
    /// A read that found this value.
    Found(u64),
    /// A compare-and-set that found something else.
    Conflict,
    /// Certainly nothing happened.
    Failed,
    /// It may have happened, may yet happen, or never.
    Unknown,
}

/// One operation of one client on one key.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    /// What was asked.
    pub action: Action,
    /// How it ended.
    pub outcome: Outcome,
    /// When it began, since the history began.
    pub invoked: Duration,
    /// When its answer was there.
    pub returned: Duration,
}

/// What the search came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order that explains the history.
    Linearizable,
    /// There is none; how far the longest attempt came: so many operations were explained, of so many that have to be.
    Violation {
        /// Explained by the longest attempt.
        explained: usize,
        /// All that have to be.
        of: usize,
    },
    /// The time was over first.
    Undecided,
}

/// Judges the operations on one key, which has no value at first; the search takes about `budget` at the most.
pub fn check(operations: &[Operation], budget: Duration) -> Verdict {
    let Some(mut search) = Search::new(operations) else {
        return Verdict::Violation {
            explained: 0,
            of: operations.len(),
        };
    };
    search.run(Instant::now() + budget)
}

/// What an operation needs of the value and does to it.
#[derive(Clone, Copy, Debug)]
enum Step {
    Write(u64),
    Replace { expected: u64, value: u64 },
    See(u64),
    SeeOther(u64),
}

impl Step {
    fn fits(self, value: u64) -> bool {
        match self {
            Step::Write(_) => true,
            Step::Replace { expected, .. } | Step::See(expected) => value == expected,
            Step::SeeOther(expected) => value != expected,
        }
    }

    fn after(self, before: u64) -> u64 {
        match self {
            Step::Write(value) | Step::Replace { value, .. } => value,
            Step::See(_) | Step::SeeOther(_) => before,
        }
    }

    fn changes(self) -> bool {
        matches!(self, Step::Write(_) | Step::Replace { .. })
    }

    /// The value that has to be there for it.
    fn sees(self) -> Option<u64> {
        match self {
            Step::Replace { expected, .. } | Step::See(expected) => Some(expected),
            Step::Write(_) | Step::SeeOther(_) => None,
        }
    }
}

struct Call {
    step: Step,
    invoked: Duration,
    /// None when it may take effect at any later time, or never.
    returned: Option<Duration>,
}

/// A point of the search where one of several changes was tried.
struct Branch {
    /// What was ordered there: the change, then everything that follows by itself.
    ordered: Vec<usize>,
    value_before: u64,
    /// Changes that are still to be tried there.
    untried: Vec<usize>,
}

struct Search {
    /// By the time of the call.
    calls: Vec<Call>,
    ordered: Vec<u64>,
    /// How many calls that need a value, and certainly took place, are not ordered yet.
    seers: HashMap<u64, usize>,
    /// Values that some call needs, whether it took place or not.
    wanted: HashSet<u64>,
    value: u64,
    required_left: usize,
    required: usize,
    first_required: usize,
}

impl Search {
    /// None when a value was seen that nobody wrote.
    fn new(operations: &[Operation]) -> Option<Search> {
        let mut calls: Vec<Call> = operations.iter().filter_map(call).collect();
        calls.sort_by_key(|call| call.invoked);
        let mut written: HashSet<u64> = HashSet::from([0]);
        let mut seers: HashMap<u64, usize> = HashMap::new();
        for call in &calls {
            if call.step.changes() {
                let fresh = written.insert(call.step.after(0));
                assert!(fresh, "every write of a history writes another value");
            }
            if let (Some(value), Some(_)) = (call.step.sees(), call.returned) {
                *seers.entry(value).or_default() += 1;
            }
        }
        let required = calls.iter().filter(|call| call.returned.is_some()).count();
        let wanted = calls.iter().filter_map(|call| call.step.sees()).collect();
        let all_written = seers.keys().all(|value| written.contains(value));
        all_written.then(|| Search {
            ordered: vec![0; calls.len().div_ceil(64)],
            calls,
            seers,
            wanted,
            value: 0,
            required_left: required,
            required,
            first_required: 0,
        })
    }

    fn run(&mut self, deadline: Instant) -> Verdict {
        let mut seen: HashSet<(Vec<u64>, u64)> = HashSet::new();
        let mut branches: Vec<Branch> = Vec::new();
        let mut root = Vec::new();
        self.order_what_follows(&mut root);
        let mut fewest_left = self.required_left;
        let mut untried = self.possible_changes();
        loop {
            if self.required_left == 0 {
                return Verdict::Linearizable;
            }
            fewest_left = fewest_left.min(self.required_left);
            if Instant::now() >= deadline {
                return Verdict::Undecided;
            }
            if let Some(change) = untried.pop() {
                let value_before = self.value;
                let mut ordered = Vec::new();
                self.order(change, &mut ordered);
                self.order_what_follows(&mut ordered);
                branches.push(Branch {
                    ordered,
                    value_before,
                    untried,
                });
                let is_new = seen.insert((self.ordered.clone(), self.value));
                untried = if is_new {
                    self.possible_changes()
                } else {
                    Vec::new()
                };
                continue;
            }
            let Some(branch) = branches.pop() else {
                return Verdict::Violation {
                    explained: self.required - fewest_left,
                    of: self.required,
                };
            };
            for call in branch.ordered.into_iter().rev() {
                self.take_back(call);
            }
            self.value = branch.value_before;
            untried = branch.untried;
        }
    }

    fn is_ordered(&self, call: usize) -> bool {
        self.ordered[call / 64] & (1 << (call % 64)) != 0
    }

    fn order(&mut self, call: usize, log: &mut Vec<usize>) {
        let Call { step, returned, .. } = self.calls[call];
        self.ordered[call / 64] |= 1 << (call % 64);
        if returned.is_some() {
            self.required_left -= 1;
            if let Some(left) = step.sees().and_then(|value| self.seers.get_mut(&value)) {
                *left -= 1;
            }
        }
        self.value = step.after(self.value);
        log.push(call);
    }

    fn take_back(&mut self, call: usize) {
        let Call { step, returned, .. } = self.calls[call];
        self.ordered[call / 64] &= !(1 << (call % 64));
        if returned.is_some() {
            self.required_left += 1;
            if let Some(left) = step.sees().and_then(|value| self.seers.get_mut(&value)) {
                *left += 1;
            }
        }
        self.first_required = self.first_required.min(call);
    }

    /// The calls that may be next: not ordered, and called before the first answer among those not ordered.
    fn next_calls(&mut self) -> Vec<usize> {
        let is_open = |search: &Search, call: usize| !search.is_ordered(call);
        while self.first_required < self.calls.len() && !is_open(self, self.first_required) {
            self.first_required += 1;
        }
        let mut first_answer = Duration::MAX;
        let mut next = Vec::new();
        for call in self.first_required..self.calls.len() {
            let Call {
                invoked, returned, ..
            } = self.calls[call];
            if invoked > first_answer {
                break;
            }
            if is_open(self, call) {
                first_answer = first_answer.min(returned.unwrap_or(Duration::MAX));
                next.push(call);
            }
        }
        next
    }

    /// Orders every call that changes nothing and fits.
    fn order_what_follows(&mut self, log: &mut Vec<usize>) {
        loop {
            let fitting: Vec<usize> = self
                .next_calls()
                .into_iter()
                .filter(|call| !self.calls[*call].step.changes() && self.calls[*call].step.fits(self.value))
                .collect();
            if fitting.is_empty() {
                return;
            }
            for call in fitting {
                self.order(call, log);
            }
        }
    }

    /// The changes that may be next, the most promising last.
    fn possible_changes(&mut self) -> Vec<usize> {
        let waiting = self.seers.get(&self.value).copied().unwrap_or(0);
        let next = self.next_calls();
        let conflict_waits = next
            .iter()
            .any(|call| matches!(self.calls[*call].step, Step::SeeOther(expected) if expected == self.value));
        let mut changes = Vec::new();
        let mut spare_put = false;
        for call in next {
            let Call { step, returned, .. } = self.calls[call];
            // Whoever still has to see this value must not be left behind; a call that sees it itself is one.
            let own = usize::from(returned.is_some() && step.sees() == Some(self.value));
            if !step.changes() || !step.fits(self.value) || waiting != own {
                continue;
            }
            if returned.is_none() && !self.wanted.contains(&step.after(self.value)) {
                // Puts of this kind are all alike: one of them is enough.
                let is_put = matches!(step, Step::Write(_));
                if !conflict_waits || (is_put && spare_put) {
                    continue;
                }
                spare_put |= is_put;
            }
            changes.push(call);
        }
        changes.sort_by_key(|call| {
            std::cmp::Reverse((self.calls[*call].returned.unwrap_or(Duration::MAX), *call))
        });
        changes
    }
}

/// What an operation has to explain; nothing when it certainly did nothing and saw nothing.
fn call(operation: &Operation) -> Option<Call> {
    let Operation {
        action,
        outcome,
        invoked,
        returned,
    } = *operation;
    let returned = (outcome != Outcome::Unknown).then_some(returned);
    let step = match (action, outcome) {
        (_, Outcome::Failed) | (Action::Get, Outcome::Unknown) => return None,
        (Action::Put(value), Outcome::Done | Outcome::Unknown) => Step::Write(value),
        (Action::CompareAndSet { expected, value }, Outcome::Done | Outcome::Unknown) => {
            Step::Replace { expected, value }
        }
        (Action::CompareAndSet { expected, .. }, Outcome::Conflict) => Step::SeeOther(expected),
        (Action::Get, Outcome::Found(value)) => Step::See(value),
        (action, outcome) => panic!("{action:?} cannot end with {outcome:?}"),
    };
    Some(Call {
        step,
        invoked,
        returned,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Concern, Stream};

    fn operation(action: Action, outcome: Outcome, invoked: u64, returned: u64) -> Operation {
        Operation {
            action,
            outcome,
            invoked: Duration::from_millis(invoked),
            returned: Duration::from_millis(returned),
        }
    }

    fn put(value: u64, invoked: u64, returned: u64) -> Operation {
        operation(Action::Put(value), Outcome::Done, invoked, returned)
    }

    fn lost(value: u64, invoked: u64) -> Operation {
        operation(Action::Put(value), Outcome::Unknown, invoked, invoked + 1)
    }

    fn get(found: u64, invoked: u64, returned: u64) -> Operation {
        operation(Action::Get, Outcome::Found(found), invoked, returned)
    }

    fn replace(expected: u64, value: u64, outcome: Outcome, invoked: u64, returned: u64) -> Operation {
        operation(
            Action::CompareAndSet { expected, value },
            outcome,
            invoked,
            returned,
        )
    }

    fn is_linearizable(operations: &[Operation]) -> bool {
        match check(operations, Duration::from_secs(5)) {
            Verdict::Linearizable => true,
            Verdict::Violation { .. } => false,
            Verdict::Undecided => panic!("undecided"),
        }
    }

    #[test]
    fn reads_after_writes_see_them() {
        assert!(is_linearizable(&[get(0, 0, 1), put(1, 2, 3), get(1, 4, 5)]));
    }

    #[test]
    fn stale_read_is_a_violation() {
        assert!(!is_linearizable(&[put(1, 0, 1), put(2, 2, 3), get(1, 4, 5)]));
    }

    #[test]
    fn lost_write_is_a_violation() {
        assert!(!is_linearizable(&[put(1, 0, 1), get(0, 2, 3)]));
    }

    #[test]
    fn concurrent_writes_take_effect_in_either_order() {
        for last in [1, 2] {
            assert!(is_linearizable(&[put(1, 0, 10), put(2, 1, 9), get(last, 11, 12)]));
        }
    }

    #[test]
    fn two_readers_do_not_see_two_orders() {
        let writes = [put(1, 0, 10), put(2, 1, 9)];
        let mut history = writes.to_vec();
        history.extend([get(1, 11, 12), get(2, 13, 14)]);
        assert!(!is_linearizable(&history));
    }

    #[test]
    fn read_beside_a_write_sees_it_or_not_but_never_back_and_forth() {
        for found in [1, 2] {
            assert!(is_linearizable(&[put(1, 0, 1), put(2, 2, 9), get(found, 3, 4)]));
        }
        assert!(!is_linearizable(&[
            put(1, 0, 1),
            put(2, 2, 9),
            get(2, 3, 4),
            get(1, 5, 6)
        ]));
    }

    #[test]
    fn lost_update_is_a_violation() {
        let both = [
            put(1, 0, 1),
            replace(1, 2, Outcome::Done, 2, 5),
            replace(1, 3, Outcome::Done, 3, 6),
        ];
        assert!(!is_linearizable(&both));
        let one = [
            put(1, 0, 1),
            replace(1, 2, Outcome::Done, 2, 5),
            replace(1, 3, Outcome::Conflict, 3, 6),
        ];
        assert!(is_linearizable(&one));
    }

    #[test]
    fn conflict_without_a_cause_is_a_violation() {
        assert!(!is_linearizable(&[
            put(1, 0, 1),
            replace(1, 2, Outcome::Conflict, 2, 3)
        ]));
    }

    #[test]
    fn unknown_write_takes_effect_at_any_later_time_or_never() {
        assert!(is_linearizable(&[put(1, 0, 1), lost(2, 2), get(1, 10, 11)]));
        assert!(is_linearizable(&[
            put(1, 0, 1),
            lost(2, 2),
            get(1, 10, 11),
            get(2, 12, 13)
        ]));
        assert!(is_linearizable(&[
            put(1, 0, 1),
            lost(2, 2),
            replace(1, 3, Outcome::Conflict, 20, 21)
        ]));
    }

    #[test]
    fn unknown_write_takes_effect_at_most_once_and_not_before_its_call() {
        assert!(!is_linearizable(&[
            put(1, 0, 1),
            lost(2, 2),
            get(2, 3, 4),
            put(3, 5, 6),
            get(2, 7, 8)
        ]));
        assert!(!is_linearizable(&[put(1, 0, 1), get(2, 2, 3), lost(2, 4)]));
    }

    #[test]
    fn failed_write_is_never_seen() {
        let failed = operation(Action::Put(2), Outcome::Failed, 2, 3);
        assert!(is_linearizable(&[put(1, 0, 1), failed, get(1, 4, 5)]));
        assert!(!is_linearizable(&[put(1, 0, 1), failed, get(2, 4, 5)]));
    }

    #[test]
    fn search_that_takes_too_long_is_undecided() {
        assert_eq!(check(&[put(1, 0, 1)], Duration::ZERO), Verdict::Undecided);
    }

    /// A register with concurrent clients, whose operations take effect at a moment within each.
    fn simulated(seed: u64, operations: usize) -> Vec<Operation> {
        let mut random = Stream::new(seed, Concern::Clients);
        let mut moments: Vec<(u64, u64, u64, u64)> = (0..operations as u64)
            .map(|number| {
                let invoked = number * 10 + random.below(10);
                let effect = invoked + 1 + random.below(40);
                (effect, invoked, effect + 1 + random.below(40), number + 1)
            })
            .collect();
        moments.sort_unstable();
        let mut value = 0;
        let mut history = Vec::new();
        for (_, invoked, returned, number) in moments {
            history.push(match random.below(8) {
                0..=3 => get(value, invoked, returned),
                4 | 5 => {
                    value = number;
                    put(number, invoked, returned)
                }
                6 => {
                    let expected = value;
                    value = number;
                    replace(expected, number, Outcome::Done, invoked, returned)
                }
                _ => {
                    if random.below(2) == 0 {
                        value = number;
                    }
                    lost(number, invoked)
                }
            });
        }
        history
    }

    #[test]
    fn long_concurrent_histories_are_decided() {
        for seed in 0..20 {
            assert!(is_linearizable(&simulated(seed, 2_000)), "seed {seed}");
        }
    }

    #[test]
    fn one_stale_read_in_a_long_history_is_found() {
        for seed in 0..20 {
            let mut history = simulated(seed, 500);
            let end = history.iter().map(|operation| operation.returned).max().unwrap();
            let end = end.as_millis() as u64;
            history.extend([put(10_001, end + 1, end + 2), put(10_002, end + 3, end + 4)]);
            history.push(get(10_001, end + 5, end + 6));
            assert!(!is_linearizable(&history), "seed {seed}");
        }
    }
}
