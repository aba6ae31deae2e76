//! The core simulation: consensus and the replicated state on simulated time, networks, disks and clocks.
//!
//! A run is a pure function of its seed: one heap of events, one stream of chance a concern, no thread and no clock.
//! Its first phase injects faults while clients and operators work; then everything is healed and the cluster must
//! find a leader, commit and agree within a bounded time. Checkers watch every step (see the module `checker`).

mod carry;
mod checker;
mod clock;
mod disk;
mod faults;
mod lanes;
mod lifecycle;
mod log;
mod network;
mod node;
mod operator;
mod plan;
mod recovery;
mod rot;
mod schedule;
mod statistics;
mod store;
mod trace;
mod workload;
mod world;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use quorate_core::raft;

pub use statistics::Statistics;

use world::World;

/// What to simulate.
#[derive(Clone, Debug)]
pub struct Options {
    /// Voters at the beginning.
    pub nodes: u64,
    /// Simulated seconds of the phase with faults.
    pub seconds: u64,
    /// Whether everything that happens is printed.
    pub verbose: bool,
    /// A mistake planted in the simulated driver, to see whether the checkers notice.
    pub planted: Option<PlantedBug>,
    /// A mistake planted in consensus itself.
    pub consensus: raft::Planted,
}

/// Mistakes that drivers and disks make; the checkers are tested with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum PlantedBug {
    /// Writes are acknowledged before they are durable.
    AcknowledgeBeforeDurable,
    /// A disk says that it synced, and forgets its last entries when the node crashes.
    LyingDisk,
    /// A disk forgets the vote when the node crashes.
    ForgottenVote,
    /// One node's state machine gives another result than the others.
    DivergentApply,
    /// Reads are answered from what the node happens to know.
    UnconfirmedRead,
    /// The reply to a command is sent twice.
    DoubleReply,
}

/// A run that ended well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What happened in it.
    pub statistics: Statistics,
    /// A hash over everything that happened: the same for the same seed and options, on every machine.
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

/// Simulates one seed.
///
/// # Errors
/// With the first property that does not hold. A panic of consensus counts as one.
pub fn simulate(seed: u64, options: &Options) -> Result<Outcome, Violation> {
    let mut world = World::new(seed, options);
    let result = catch_unwind(AssertUnwindSafe(|| world.run()));
    let violation = |checker, seen| {
        let (time, steps) = world.moment();
        Violation {
            seed,
            time,
            steps,
            checker,
            seen,
        }
    };
    match result {
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
    }
}
