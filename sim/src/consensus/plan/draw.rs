//! How a seed expands to a plan.
//!
//! Every draw has calm and wild outcomes, so that seeds differ in character: some runs hammer the network, some the
//! disks, some the operators, and some are quiet. A run leaves out many kinds of faults (swarm testing: Groce et al.,
//! 2012), and some have few kinds and many of them. What breaks one thing in production breaks more at the same time,
//! so there are moments in which several things happen to the same few nodes.

use super::fault::{Alarm, Boundary};
use super::{
    FORMAT, Fault, FaultKind, Knobs, Operation, OperationKind, Plan, Shape, Who, forced, moments,
    surroundings,
};
use crate::consensus::schedule::{MILLISECOND, SECOND, Time};
use crate::random::{Concern, Stream};

/// Nothing breaks and no operator comes before this, but for a disk that is stuck from the beginning.
pub(super) const CALM_BEGINNING: Time = SECOND / 2;

pub(super) fn plan(seed: u64, nodes: u64, seconds: u64) -> Plan {
    let mut random = Stream::new(seed, Concern::Plan);
    let mut knobs = Knobs::draw(&mut random);
    let habits = Habits::draw(&mut random, nodes, &mut knobs);
    knobs.clients_over_quic = surroundings::clients_over_quic(seed);
    let duration = seconds * SECOND;
    let mut plan = Plan {
        format: FORMAT,
        seed,
        noise: seed,
        nodes,
        duration,
        faults: faults(seed, &habits, duration),
        operations: operations(seed, &habits, &knobs, duration),
        knobs,
    };
    moments::add(&mut plan, &habits);
    plan.operations.extend(forced::draw(seed, nodes));
    plan.faults.extend(surroundings::draw(seed, duration));
    plan.settle();
    plan
}

/// What kinds of events a run has, and how often.
#[derive(Clone, Debug)]
pub(super) struct Habits {
    /// The mean time between two faults; none when nothing breaks.
    fault_mean: Option<Time>,
    pub(super) faults: Vec<Breaks>,
    /// The mean time between two operations; none when no operator comes.
    operation_mean: Option<Time>,
    membership_changes: bool,
    pub(super) transfers: bool,
    compactions: bool,
    /// Whether clients have bursts and quiet windows.
    moods: bool,
    /// The mean time between two moments in which several things happen; none when there are none.
    pub(super) moment_mean: Option<Time>,
}

/// The kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Breaks {
    Crash,
    CrashAt,
    CrashLoop,
    PowerCut,
    Partition,
    Flap,
    Clog,
    OldNews,
    FalseAlarm,
    Storm,
    Pause,
    ClockStep,
    SlowDisk,
    StalledDisk,
    FailedSync,
    Rot,
    Wipe,
}

impl Habits {
    fn draw(random: &mut Stream, nodes: u64, knobs: &mut Knobs) -> Habits {
        let mut faults = vec![Breaks::Storm];
        let mut add = |chance, kinds: &[Breaks]| {
            if random.chance(chance) {
                faults.extend(kinds);
            }
        };
        use Breaks::{ClockStep, Clog, Crash, CrashLoop, FailedSync, FalseAlarm, Flap, Partition};
        add(
            700_000,
            &[Crash, Crash, Crash, Crash, Breaks::CrashAt, Breaks::PowerCut],
        );
        add(200_000, &[CrashLoop]);
        add(700_000, &[Partition; 4]);
        add(400_000, &[Breaks::Pause; 2]);
        add(400_000, &[Breaks::SlowDisk; 2]);
        add(400_000, &[Breaks::StalledDisk; 2]);
        add(200_000, &[FailedSync]);
        add(400_000, &[FalseAlarm, FalseAlarm, Flap]);
        add(300_000, &[Clog; 2]);
        add(300_000, &[Breaks::OldNews; 2]);
        add(300_000, &[ClockStep]);
        add(300_000, &[Breaks::Wipe]);
        add(400_000, &[Breaks::Rot]);
        if nodes < 3 {
            faults.retain(|kind| !matches!(kind, Breaks::Wipe | Breaks::Rot));
        }
        if knobs.raft.lease_reads.is_some() {
            // What leases rely on; without it they may break.
            faults.retain(|kind| *kind != ClockStep);
        }
        if knobs.evenly_slow_disks {
            let alone = [Breaks::SlowDisk, Breaks::StalledDisk, Breaks::Pause, ClockStep];
            faults.retain(|kind| !alone.contains(kind));
        }
        let mut fault_mean = *random.pick(&[
            None,
            Some(300 * MILLISECOND),
            Some(SECOND),
            Some(SECOND),
            Some(3 * SECOND),
        ]);
        if random.chance(250_000) {
            // Few kinds, and many of them.
            faults = (0..random.between(1, 3)).map(|_| *random.pick(&faults)).collect();
            fault_mean = fault_mean.map(|mean| mean.min(SECOND) / 2);
        }
        Habits {
            fault_mean,
            faults,
            operation_mean: *random.pick(&[None, Some(200 * MILLISECOND), Some(SECOND), Some(2 * SECOND)]),
            membership_changes: random.chance(700_000),
            transfers: random.chance(700_000),
            compactions: random.chance(300_000),
            moods: random.chance(300_000),
            moment_mean: *random.pick(&[None, Some(SECOND), Some(2 * SECOND), Some(4 * SECOND)]),
        }
    }
}

/// Whom faults hit.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cast {
    /// Any node, often the leader.
    Any,
    /// The leader and these two places.
    Few(Who, Who),
}

impl Cast {
    /// A leader and two others, so that things happen to the same nodes.
    pub(super) fn few(random: &mut Stream) -> Cast {
        Cast::Few(Who::Place(random.below(64)), Who::Place(random.below(64)))
    }

    /// A node to hit.
    pub(super) fn who(self, random: &mut Stream) -> Who {
        match self {
            Cast::Any if random.chance(400_000) => Who::Leader,
            Cast::Any => Who::Place(random.below(64)),
            Cast::Few(one, other) => *random.pick(&[Who::Leader, one, other]),
        }
    }

    /// A node, named by its place where a plan wants one.
    pub(super) fn place(self, random: &mut Stream) -> u64 {
        match self.who(random) {
            Who::Place(place) | Who::Follower(place) => place,
            Who::Leader => random.below(64),
        }
    }
}

fn faults(seed: u64, habits: &Habits, duration: Time) -> Vec<Fault> {
    let Some(mean) = habits.fault_mean else {
        return Vec::new();
    };
    let mut random = Stream::new(seed, Concern::Faults);
    let mut faults = Vec::new();
    let mut at = CALM_BEGINNING;
    while at < duration {
        let kind = *random.pick(&habits.faults);
        faults.extend(faults_of(&mut random, kind, Cast::Any, at));
        at += random.around(mean);
    }
    faults
}

/// One fault, or several that make one.
pub(super) fn faults_of(random: &mut Stream, kind: Breaks, cast: Cast, at: Time) -> Vec<Fault> {
    match kind {
        Breaks::CrashLoop => crash_loop(random, cast, at),
        Breaks::OldNews if random.chance(500_000) => old_news(random, at),
        _ => vec![Fault {
            at,
            kind: fault(random, kind, cast),
        }],
    }
}

/// A process that is killed soon after every start.
fn crash_loop(random: &mut Stream, cast: Cast, at: Time) -> Vec<Fault> {
    let victim = Who::Place(cast.place(random));
    let (times, apart) = (
        random.between(3, 6),
        50 * MILLISECOND + random.around(150 * MILLISECOND),
    );
    let down = random.between(MILLISECOND, apart / 2);
    (0..times)
        .map(|time| Fault {
            at: at + time * apart,
            kind: FaultKind::Crash { victim, down },
        })
        .collect()
}

/// What was said to a leader reaches it when the world has moved on: it was not heard meanwhile, or only by one other
/// node, and may even lead again.
fn old_news(random: &mut Stream, at: Time) -> Vec<Fault> {
    let fault = |at, kind| Fault { at, kind };
    if random.chance(500_000) {
        let held = 150 * MILLISECOND + random.around(150 * MILLISECOND);
        let shape = Shape::Deaf(Who::Leader);
        let unheard = Shape::Unheard(Who::Leader);
        let duration = held + random.around(200 * MILLISECOND);
        return vec![
            fault(
                at,
                FaultKind::Hold {
                    shape,
                    duration: held,
                },
            ),
            fault(
                at,
                FaultKind::Partition {
                    shape: unheard,
                    duration,
                },
            ),
        ];
    }
    let friend = Who::Place(random.below(64));
    let alone = Shape::Two(Who::Leader, friend);
    let apart = 300 * MILLISECOND + random.around(200 * MILLISECOND);
    let end = at + apart + 500 * MILLISECOND + random.around(SECOND);
    // Only its answers are late, or everything that it says and hears.
    let (shape, hold) = if random.chance(500_000) {
        (Shape::Link(friend, Who::Leader), at)
    } else {
        let hold = at + random.between(20 * MILLISECOND, 200 * MILLISECOND);
        (Shape::Alone(friend), hold)
    };
    let mut faults = vec![
        fault(
            hold,
            FaultKind::Hold {
                shape,
                duration: end - hold,
            },
        ),
        fault(
            at,
            FaultKind::Partition {
                shape: alone,
                duration: apart,
            },
        ),
    ];
    let mut crash = at + apart;
    for _ in 0..random.between(1, 4) {
        crash += 20 * MILLISECOND + random.around(150 * MILLISECOND);
        let (victim, down) = (Who::Leader, random.around(200 * MILLISECOND));
        faults.push(fault(crash, FaultKind::Crash { victim, down }));
    }
    faults
}

/// About one of `means`.
fn about(random: &mut Stream, means: &[Time]) -> Time {
    let mean = *random.pick(means);
    random.around(mean)
}

fn fault(random: &mut Stream, kind: Breaks, cast: Cast) -> FaultKind {
    match kind {
        Breaks::Crash | Breaks::CrashLoop => FaultKind::Crash {
            victim: cast.who(random),
            down: about(random, &[MILLISECOND, 100 * MILLISECOND, SECOND, 5 * SECOND]),
        },
        Breaks::PowerCut => FaultKind::PowerCut {
            down: random.around(200 * MILLISECOND),
            apart: about(random, &[0, 5 * MILLISECOND, 100 * MILLISECOND]),
        },
        Breaks::Partition => FaultKind::Partition {
            shape: shape(random, cast),
            duration: about(random, &[50 * MILLISECOND, 600 * MILLISECOND, 4 * SECOND]),
        },
        Breaks::Flap => FaultKind::Flap {
            one: cast.who(random),
            other: cast.who(random),
            times: *random.pick(&[3, 8, 20]),
            period: 5 * MILLISECOND + about(random, &[20 * MILLISECOND, 150 * MILLISECOND]),
        },
        Breaks::Clog => FaultKind::Clog {
            from: cast.who(random),
            to: cast.who(random),
            each: *random.pick(&[MILLISECOND, 10 * MILLISECOND, 50 * MILLISECOND]),
            duration: about(random, &[300 * MILLISECOND, 2 * SECOND]),
        },
        Breaks::OldNews => FaultKind::Hold {
            shape: shape(random, cast),
            duration: about(random, &[300 * MILLISECOND, 2 * SECOND]),
        },
        Breaks::CrashAt => FaultKind::CrashAt {
            victim: cast.who(random),
            boundary: *random.pick(&[Boundary::BeforeSync, Boundary::AfterSync, Boundary::AfterVote]),
            down: about(random, &[MILLISECOND, 100 * MILLISECOND]),
        },
        Breaks::FalseAlarm => FaultKind::FalseAlarm {
            at_node: cast.who(random),
            peer: cast.who(random),
            alarm: *random.pick(&[Alarm::Lost, Alarm::Refused, Alarm::Connected]),
            duration: random.around(50 * MILLISECOND),
        },
        Breaks::Storm => FaultKind::Storm {
            loss: *random.pick(&[50_000, 300_000, 600_000]),
            duplication: *random.pick(&[0, 50_000, 300_000]),
            spike: *random.pick(&[0, 20_000, 200_000]),
            duration: random.around(500 * MILLISECOND),
        },
        Breaks::Pause => FaultKind::Pause {
            victim: cast.who(random),
            duration: about(random, &[50 * MILLISECOND, 500 * MILLISECOND, 2 * SECOND]),
        },
        Breaks::ClockStep => FaultKind::ClockStep {
            victim: cast.who(random),
            by: about(random, &[20 * MILLISECOND, 300 * MILLISECOND, 20 * SECOND]),
        },
        Breaks::SlowDisk | Breaks::StalledDisk | Breaks::FailedSync | Breaks::Rot | Breaks::Wipe => {
            disk_fault(random, kind, cast)
        }
    }
}

fn disk_fault(random: &mut Stream, kind: Breaks, cast: Cast) -> FaultKind {
    let victim = cast.who(random);
    match kind {
        Breaks::SlowDisk => FaultKind::SlowDisk {
            victim,
            by: *random.pick(&[20 * MILLISECOND, 150 * MILLISECOND]),
            duration: about(random, &[2 * SECOND, 8 * SECOND, 15 * SECOND]),
        },
        Breaks::StalledDisk => FaultKind::StalledDisk {
            victim,
            duration: about(random, &[500 * MILLISECOND, 3 * SECOND]),
        },
        Breaks::FailedSync => FaultKind::FailedSync {
            victim,
            down: 2 * SECOND + random.around(5 * SECOND),
        },
        Breaks::Rot => FaultKind::Rot {
            victim,
            down: random.around(500 * MILLISECOND),
            readable: u32::try_from(random.below(1_000_000)).unwrap_or(0),
            end_is_known: random.chance(700_000),
        },
        _ => FaultKind::Wipe { victim },
    }
}

pub(super) fn shape(random: &mut Stream, cast: Cast) -> Shape {
    let victim = cast.who(random);
    match random.below(8) {
        6 => Shape::Two(victim, Who::Place(cast.place(random))),
        7 => Shape::Link(victim, cast.who(random)),
        0 => Shape::Alone(victim),
        1 => Shape::Unheard(victim),
        2 => Shape::Deaf(victim),
        3 => Shape::Bridge(victim),
        4 => Shape::Sides(bits(random, 500_000)),
        _ => Shape::Pairs(bits(random, 300_000)),
    }
}

/// 64 bits, each set with a probability in parts of a million.
fn bits(random: &mut Stream, probability: u32) -> u64 {
    (0..64).fold(0, |bits, _| bits << 1 | u64::from(random.chance(probability)))
}

fn operations(seed: u64, habits: &Habits, knobs: &Knobs, duration: Time) -> Vec<Operation> {
    let mut random = Stream::new(seed, Concern::Operator);
    let mut operations = Vec::new();
    if let Some(mean) = habits.operation_mean {
        let mut at = CALM_BEGINNING;
        while at < duration {
            let asked = if random.chance(100_000) {
                Who::Place(random.below(64))
            } else {
                Who::Leader
            };
            if let Some(kind) = operation(&mut random, habits, knobs, Cast::Any) {
                operations.push(Operation { at, asked, kind });
            }
            at += random.around(mean);
        }
    }
    if habits.moods {
        operations.extend(moods(&mut Stream::new(seed, Concern::Clients), duration));
    }
    operations
}

pub(super) fn operation(
    random: &mut Stream,
    habits: &Habits,
    knobs: &Knobs,
    cast: Cast,
) -> Option<OperationKind> {
    if habits.compactions && random.chance(150_000) {
        return Some(OperationKind::Compact);
    }
    let transfer = habits.transfers && random.chance(300_000);
    if transfer || (habits.transfers && !habits.membership_changes) {
        let to = random.chance(600_000).then(|| cast.place(random));
        return Some(OperationKind::Transfer { to });
    }
    habits
        .membership_changes
        .then(|| membership_change(random, knobs))
}

fn membership_change(random: &mut Stream, knobs: &Knobs) -> OperationKind {
    let (voter, learner) = (random.below(64), random.below(64));
    let promote = random.chance(800_000);
    match random.below(18) {
        0..=3 => OperationKind::AddLearner { promote },
        4..=5 => OperationKind::Remove { voter },
        6..=7 => OperationKind::Promote { learner },
        8..=9 => OperationKind::PromoteAndRemove { learner, voter },
        10 => OperationKind::Swap { learner, voter },
        11 => OperationKind::Demote { voter },
        12 => OperationKind::RemoveLearner { learner },
        13 => OperationKind::Replace { voter, promote },
        14 if knobs.priorities.len() > 1 => OperationKind::Prioritise {
            voter,
            priority: *random.pick(&knobs.priorities),
        },
        14..=15 => OperationKind::Update { voter },
        _ => OperationKind::ReplaceMajority { voter },
    }
}

/// Quiet windows, each made up for by a burst, and bursts alone.
fn moods(random: &mut Stream, duration: Time) -> Vec<Operation> {
    let mut moods = Vec::new();
    let mut at = random.around(2 * SECOND);
    while at < duration {
        let span = 100 * MILLISECOND + random.around(400 * MILLISECOND);
        let mut add = |at, kind| {
            let asked = Who::Leader;
            moods.push(Operation { at, asked, kind });
        };
        if random.chance(500_000) {
            add(at, OperationKind::Quiet { duration: span });
            at += span;
        }
        let duration = span / 2;
        add(at, OperationKind::Burst { times: 5, duration });
        at += span + random.around(3 * SECOND);
    }
    moods
}
