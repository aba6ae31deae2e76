//! Moments: several things happen to the same few nodes before the first of them is over.
//!
//! Either they are of any kind that the run has, or they belong together:
//! - the network splits one way and, as that split ends, another way, while nodes that were on both sides restart and
//!   the leadership is handed over; what cannot pass is lost, or comes late;
//! - a follower that hears nothing of the leader asks for votes just when others have started again;
//! - a leader does not hear that its heir was elected, while clients write there and read here;
//! - the word to take over is on its way for longer than the leader waits for it;
//! - a node that never wrote anything follows a leader, and starts again when another one asks for its vote.
//!
//! Clients may be quiet meanwhile, so that nothing else moves: a message of the load often says what a lost one would
//! have said.

use super::draw::{Breaks, CALM_BEGINNING, Cast, Habits, faults_of, operation, shape};
use super::fault::Alarm;
use super::{Fault, FaultKind, Operation, OperationKind, Plan, Shape, Who};
use crate::consensus::schedule::{MILLISECOND, SECOND, Time};
use crate::random::{Concern, Stream};

/// Adds the moments of a run to its plan.
pub(super) fn add(plan: &mut Plan, habits: &Habits) {
    let Some(mean) = habits.moment_mean else {
        return;
    };
    let splits = habits.faults.contains(&Breaks::Partition);
    let crashes = habits.faults.contains(&Breaks::Crash);
    let mut random = Stream::new(plan.seed, Concern::Moments);
    if splits && crashes && random.chance(300_000) {
        unwritten_beginning(plan, &mut random);
    }
    let mut start = CALM_BEGINNING + random.around(mean);
    while start < plan.duration {
        let transfers = habits.transfers;
        let leases = plan.knobs.raft.lease_reads.is_some();
        let end = match random.below(8) {
            0 if splits && crashes => vote_after_a_restart(plan, &mut random, start),
            1 if splits && transfers => unheard_election(plan, &mut random, start),
            2 if transfers => late_word(plan, &mut random, start),
            // What a lease promises is most easily broken by it.
            3 if transfers && leases => late_word(plan, &mut random, start),
            3..6 if splits => shifting_splits(plan, &mut random, start, crashes, transfers),
            _ => anything(plan, habits, &mut random, start),
        };
        if random.chance(600_000) {
            // What was under way before has arrived when the moment begins, so that logs are equal.
            let earlier = start - CAUGHT_UP;
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

/// A follower that does not hear the leader asks others for their votes, which start again at about that time and
/// remember only what is on their disks. Returns when it is over.
fn vote_after_a_restart(plan: &mut Plan, random: &mut Stream, start: Time) -> Time {
    let lonely = random.below(64);
    let from = start + SETTLED;
    let turn = from + random.between(160 * MILLISECOND, 320 * MILLISECOND);
    let end = turn + 50 * MILLISECOND + random.around(100 * MILLISECOND);
    let mut fault = |at, kind| plan.faults.push(Fault { at, kind });
    let mut cut = |from: Time, shape| {
        let duration = end - from;
        fault(from, FaultKind::Partition { shape, duration });
    };
    cut(from, Shape::Link(Who::Leader, Who::Follower(lonely)));
    cut(turn, Shape::Alone(Who::Leader));
    for other in 1..=(plan.nodes / 2).max(1) {
        let victim = Who::Follower(lonely + other);
        let down = random.around(2 * MILLISECOND);
        fault(turn, FaultKind::Crash { victim, down });
    }
    if random.chance(500_000) {
        // Its transport notices only now.
        let alarm = FaultKind::FalseAlarm {
            at_node: Who::Follower(lonely),
            peer: Who::Leader,
            alarm: Alarm::Lost,
            duration: 50 * MILLISECOND,
        };
        fault(turn + random.around(MILLISECOND), alarm);
    }
    quiet(plan, start, end);
    end
}

/// A disk is stuck from the beginning. Its node follows the first leader, which does not hear the others any more; when one
/// of these asks for votes, the node has just started again and knows nothing.
fn unwritten_beginning(plan: &mut Plan, random: &mut Stream) {
    let blank = random.below(plan.nodes);
    let cut = 320 * MILLISECOND + random.around(60 * MILLISECOND);
    let turn = cut + random.between(150 * MILLISECOND, 300 * MILLISECOND);
    let victim = Who::Place(blank);
    let mut fault = |at, kind| plan.faults.push(Fault { at, kind });
    let stuck = FaultKind::StalledDisk {
        victim,
        duration: turn,
    };
    fault(0, stuck);
    let split = FaultKind::Partition {
        shape: Shape::Bridge(victim),
        duration: 300 * MILLISECOND,
    };
    fault(cut, split);
    // It does not hear from the leader that it has followed it.
    let unheard = FaultKind::Partition {
        shape: Shape::Alone(Who::Leader),
        duration: 200 * MILLISECOND,
    };
    fault(turn, unheard);
    let down = random.around(2 * MILLISECOND);
    fault(turn, FaultKind::Crash { victim, down });
}

/// The leadership is handed over, and who had it hears of it late; clients ask both. Returns when it is over.
fn unheard_election(plan: &mut Plan, random: &mut Stream, start: Time) -> Time {
    let turn = start + CAUGHT_UP;
    quiet(plan, start, turn);
    let to = Some(random.below(64));
    // Until its next round of heartbeats the leader may think that the last one still speaks for it.
    let burst = OperationKind::Burst {
        times: 20,
        duration: 60 * MILLISECOND,
    };
    plan.operations
        .extend([OperationKind::Transfer { to }, burst].map(|kind| asked_of_leader(turn, kind)));
    // What was on its way it hears, but no request for its vote.
    let at = turn + random.around(plan.knobs.latency_mean);
    let duration = 30 * MILLISECOND + random.around(150 * MILLISECOND);
    let shape = Shape::Deaf(Who::Leader);
    plan.faults.push(Fault {
        at,
        kind: FaultKind::Partition { shape, duration },
    });
    at + duration
}

/// The leadership is handed over, and what the leader says to its heir arrives when the leader has given that up.
/// Returns when it is over.
fn late_word(plan: &mut Plan, random: &mut Stream, start: Time) -> Time {
    let heir = random.below(64);
    let from = start + SETTLED;
    // A heartbeat goes before the word: the heir may not know any more whom it follows.
    let turn = from + random.around(30 * MILLISECOND);
    let end = turn + 350 * MILLISECOND + random.around(100 * MILLISECOND);
    let hold = FaultKind::Hold {
        shape: Shape::Link(Who::Leader, Who::Place(heir)),
        duration: end - from,
    };
    plan.faults.push(Fault { at: from, kind: hold });
    // What the heir answers to what came with the word would tell the leader of the next term.
    let unheard = FaultKind::Partition {
        shape: Shape::Link(Who::Place(heir), Who::Leader),
        duration: end - turn + 100 * MILLISECOND,
    };
    let after = turn + 50 * MILLISECOND;
    plan.faults.push(Fault {
        at: after,
        kind: unheard,
    });
    let transfer = OperationKind::Transfer { to: Some(heir) };
    plan.operations.push(asked_of_leader(turn, transfer));
    quiet(plan, start, end);
    end
}

/// Within this followers mostly hold what a leader has, when clients are quiet.
const CAUGHT_UP: Time = 60 * MILLISECOND;

/// Within this leaders have mostly decided what is left to decide, when clients are quiet: leases have run out, and old
/// answers are forgotten. A node that is cut off then lacks nothing.
const SETTLED: Time = 1_600 * MILLISECOND;

/// Clients ask nothing for a while.
fn quiet(plan: &mut Plan, from: Time, until: Time) {
    let kind = OperationKind::Quiet {
        duration: until - from,
    };
    plan.operations.push(asked_of_leader(from, kind));
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
