//! The core simulation: consensus and the replicated state on simulated time, networks, disks and clocks.
//!
//! A seed expands to a [`Plan`], and a run is a pure function of its plan: one heap of events, one stream of chance a
//! concern, no thread and no clock. While faults come, clients and operators work; then a random quorum is healed, the
//! faults of all others become permanent, and the quorum must find a leader, commit, answer and agree within a bounded
//! time; at last everything is healed, and everyone must. Checkers watch every step (see the module `checker`).

mod carry;
pub(crate) mod checker;
pub(crate) mod clock;
mod data;
mod disk;
mod faults;
mod forced;
mod lanes;
mod lifecycle;
mod log;
mod marks;
mod measured;
mod mistake;
pub(crate) mod network;
pub(crate) mod node;
mod operator;
pub(crate) mod plan;
mod recovery;
pub(crate) mod schedule;
mod sessions;
mod sightings;
mod statistics;
mod store;
mod streams;
mod survivors;
pub(crate) mod telling;
mod told;
pub(crate) mod trace;
mod transfer;
mod words;
mod workload;
mod world;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use quorate_core::raft;
use serde::{Deserialize, Serialize};

pub use marks::{Mark, Marks, enough_seeds};
pub use measured::{Durations, Measurements};
pub use mistake::{Mistake, PlantedBug};
pub use plan::{NODES_MAX, Plan, PlanError};
pub use statistics::Statistics;

pub(crate) use mistake::planted;
use world::World;

use crate::trace::{Event, Header, Journal};

/// What a run is made under; it is no part of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// What is run.
    pub engine: Engine,
    /// A mistake to be found.
    pub mistake: Option<Mistake>,
    /// Whether the checkers look. A run without them goes the same way, faster, and finds nothing.
    pub checks: bool,
}

impl Default for Conditions {
    /// The core simulation; nothing is planted, and everything is checked.
    fn default() -> Conditions {
        Conditions {
            engine: Engine::Core,
            mistake: None,
            checks: true,
        }
    }
}

impl Conditions {
    fn driver(&self) -> Option<PlantedBug> {
        match self.mistake {
            Some(Mistake::Driver(bug)) => Some(bug),
            _ => None,
        }
    }

    fn planted(&self) -> raft::Planted {
        planted(self.mistake)
    }
}

/// What a plan is run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Engine {
    /// Consensus and the replicated state alone.
    Core,
    /// Production nodes ([`crate::full`]).
    Nodes,
}

/// A run that ended well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What happened in it.
    pub statistics: Statistics,
    /// The situations that came about in it.
    pub marks: Marks,
    /// What was measured in it.
    pub measurements: Measurements,
    /// A hash over everything that happened: the same for the same plan and conditions, on every machine.
    pub trace: u64,
}

/// A run in which a property was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The seed of the run.
    pub seed: u64,
    /// Nanoseconds of simulated time since the run began.
    pub time: u64,
    /// Steps of consensus since the run began.
    pub steps: u64,
    /// The property.
    pub checker: &'static str,
    /// What was seen, in words.
    pub seen: String,
    /// The hash over everything that happened until then.
    pub trace: u64,
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, nanoseconds) = (self.time / 1_000_000_000, self.time % 1_000_000_000);
        write!(
            formatter,
            "seed {} at {seconds}.{nanoseconds:09} s, step {}: {}: {}",
            self.seed, self.steps, self.checker, self.seen
        )
    }
}

impl std::error::Error for Violation {}

impl Violation {
    /// What a journal is told of it.
    pub(crate) fn event(&self) -> Event {
        Event::Violation {
            checker: self.checker.into(),
            seen: self.seen.clone().into(),
            steps: Some(self.steps),
        }
    }
}

/// Runs a plan.
///
/// # Errors
/// With the first property that does not hold. A panic of consensus counts as one.
pub fn run(plan: &Plan, conditions: &Conditions) -> Result<Outcome, Violation> {
    run_with_journal(plan, conditions, Journal::none()).0
}

/// Runs the phase with faults of a plan, and nothing after it. The outcome of a run that ends well is of no use.
///
/// # Errors
/// With the first property that does not hold until then.
pub(crate) fn run_faults(plan: &Plan, conditions: &Conditions) -> Result<Outcome, Violation> {
    match conditions.engine {
        Engine::Core => simulate(plan, conditions, Journal::none(), false).0,
        Engine::Nodes => crate::full::run(plan, conditions.mistake),
    }
}

/// Runs a plan and tells what happens.
pub fn run_with_journal(
    plan: &Plan,
    conditions: &Conditions,
    journal: Journal,
) -> (Result<Outcome, Violation>, Journal) {
    if conditions.engine == Engine::Nodes {
        return crate::full::run_with_journal(plan, conditions.mistake, journal);
    }
    simulate(plan, conditions, journal, true)
}

fn simulate(
    plan: &Plan,
    conditions: &Conditions,
    journal: Journal,
    recovers: bool,
) -> (Result<Outcome, Violation>, Journal) {
    journal.begin(&Header::new("core", plan.seed, plan.nodes));
    let mut world = World::new(plan, conditions, journal);
    let result = catch_unwind(AssertUnwindSafe(|| world.run(recovers)));
    let violation = |checker, seen| {
        let (time, steps, trace) = world.moment();
        Violation {
            seed: plan.seed,
            time,
            steps,
            checker,
            seen,
            trace,
        }
    };
    let result = match result {
        Ok(Ok(outcome)) => Ok(outcome),
        Ok(Err(breach)) => Err(violation(breach.checker, breach.seen)),
        Err(panic) => {
            let message = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                .unwrap_or_else(|| "a panic without a message".to_owned());
            Err(violation("invariants inside consensus", message))
        }
    };
    if let Err(violation) = &result {
        world.tell(|_| violation.event());
    }
    (result, world.into_journal())
}
