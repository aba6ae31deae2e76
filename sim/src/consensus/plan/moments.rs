//! Moments: several things happen to the same few nodes before the first of them is over.
//!
//! Either they are of any kind that the run has, or the network splits one way and, as that split ends, another way,
//! while nodes that were on both sides restart and the leadership is handed over; what cannot pass is lost, or comes
//! late. Clients may be quiet meanwhile, so
//! that nothing else moves: a message of the load often says what a lost one would have said.

use super::draw::{Breaks, CALM_BEGINNING, Cast, Habits, faults_of, operation, shape};
use super::{Fault, FaultKind, Operation, OperationKind, Plan, Who};
use crate::consensus::schedule::{MILLISECOND, SECOND, Time};
use crate::random::{Concern, Stream};

/// How long clients are quiet before a moment.
const QUIET_BEFORE: Time = 60 * MILLISECOND;

/// Adds the moments of a run to its plan.
pub(super) fn add(plan: &mut Plan, habits: &Habits) {
    let Some(mean) = habits.moment_mean else {
        return;
    };
    let splits = habits.faults.contains(&Breaks::Partition);
    let crashes = habits.faults.contains(&Breaks::Crash);
    let mut random = Stream::new(plan.seed, Concern::Moments);
    let mut start = CALM_BEGINNING + random.around(mean);
    while start < plan.duration {
        let end = if splits && random.chance(500_000) {
            shifting_splits(plan, &mut random, start, crashes, habits.transfers)
        } else {
            anything(plan, habits, &mut random, start)
        };
        if random.chance(600_000) {
            // What was under way before has arrived when the moment begins, so that logs are equal.
            let earlier = start - QUIET_BEFORE;
            plan.operations.extend(quiet_and_burst(earlier, end - earlier));
        }
        start = (start + random.around(mean)).max(end);
    }
}

/// Faults and operations of any kind. Returns when the moment is over.
fn anything(plan: &mut Plan, habits: &Habits, random: &mut Stream, start: Time) -> Time {
    let cast = Cast::few(random);
    let span = *random.pick(&[50 * MILLISECOND, 250 * MILLISECOND, 600 * MILLISECOND]);
    let mut at = start;
    for _ in 0..random.between(2, 6) {
        let kind = *random.pick(&habits.faults);
        plan.faults.extend(faults_of(random, kind, cast, at));
        if random.chance(300_000)
            && let Some(kind) = operation(random, habits, &plan.knobs, cast)
        {
            plan.operations.push(asked_of_leader(at, kind));
        }
        at += random.around(span);
    }
    at
}

/// One split of the network after the other. Returns when the last one ends.
fn shifting_splits(
    plan: &mut Plan,
    random: &mut Stream,
    start: Time,
    crashes: bool,
    transfers: bool,
) -> Time {
    let cast = Cast::few(random);
    let mut at = start;
    for _ in 0..random.between(2, 4) {
        let length = *random.pick(&[40 * MILLISECOND, 200 * MILLISECOND, 500 * MILLISECOND]);
        let duration = length + random.around(length / 4);
        let shape = shape(random, cast);
        let mut fault = |at, kind| plan.faults.push(Fault { at, kind });
        if random.chance(300_000) {
            fault(at, FaultKind::Hold { shape, duration });
        } else {
            fault(at, FaultKind::Partition { shape, duration });
        }
        let turn = at + duration;
        if crashes && random.chance(500_000) {
            let (victim, down) = (cast.who(random), random.around(2 * MILLISECOND));
            let at = turn + random.around(5 * MILLISECOND);
            fault(at, FaultKind::Crash { victim, down });
        }
        if transfers && random.chance(300_000) {
            let to = random.chance(500_000).then(|| cast.place(random));
            // Right after it began, or right before it ends.
            let at = if random.chance(500_000) {
                at + random.around(3 * MILLISECOND)
            } else {
                turn.saturating_sub(random.around(3 * MILLISECOND))
            };
            plan.operations
                .push(asked_of_leader(at, OperationKind::Transfer { to }));
        }
        // The next split begins a moment before this one ends.
        at = turn.saturating_sub(random.around(MILLISECOND));
    }
    at.min(start + 5 * SECOND)
}

fn asked_of_leader(at: Time, kind: OperationKind) -> Operation {
    let asked = Who::Leader;
    Operation { at, asked, kind }
}

/// A quiet window, and a burst that makes up for it.
fn quiet_and_burst(at: Time, span: Time) -> [Operation; 2] {
    let burst = OperationKind::Burst {
        times: 5,
        duration: span / 4,
    };
    [
        asked_of_leader(at, OperationKind::Quiet { duration: span }),
        asked_of_leader(at + span, burst),
    ]
}
