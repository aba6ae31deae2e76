//! The full simulation: the production node, unmodified, on simulated networks, disks and clocks.
//!
//! Each machine is a host of a turmoil world with a runtime of its own. On it runs what runs in production: the event
//! loop, QUIC and TLS (quinn, rustls), the log, redb and the client API. Only the ports are others: a [`clock`] that
//! may run fast, slow or ahead; [`entropy`] from the seed; a [`disk`] that loses what was not synced; a [`network`]
//! that loses, repeats and delays packets. Plans are those of the core simulation.
//!
//! A run is a pure function of its plan: the same packets, writes and answers, in every process and build. Its hash
//! covers each of them.

mod client;
mod clock;
mod disk;
mod entropy;
mod faults;
mod gate;
mod holdings;
mod line;
mod links;
mod log;
mod machine;
mod network;
mod operator;
mod ports;
mod processes;
mod quic;
mod recovery;
mod requests;
mod service;
mod setup;
mod simulation;
mod told;
mod watch;
mod watchers;
mod workload;
mod world;

pub use quorate_core::raft::NodeId;

pub use self::holdings::Holdings;
pub use self::log::show_log;
pub use self::setup::{Reads, Setup, SetupError};
pub use self::simulation::{Answer, FoundError, Request, Simulation};

use self::told::Told;
use self::world::World;
use crate::consensus::{Mistake, Outcome, Plan, Violation};
use crate::trace::{Header, Journal};

/// Runs a plan on production nodes, which make a mistake if one is planted.
///
/// # Errors
/// With the first property that does not hold. A panic of a node counts as one.
pub fn run(plan: &Plan, mistake: Option<Mistake>) -> Result<Outcome, Violation> {
    run_with_journal(plan, mistake, Journal::none()).0
}

/// Runs a plan on production nodes and tells what happens.
pub(crate) fn run_with_journal(
    plan: &Plan,
    mistake: Option<Mistake>,
    journal: Journal,
) -> (Result<Outcome, Violation>, Journal) {
    journal.begin(&Header::new("full", plan.seed, plan.nodes));
    let mut world = World::new(plan, mistake, Told::new(journal));
    let result = world.guarded(World::run);
    if let Err(violation) = &result {
        world.tell(|| violation.event());
    }
    (result, world.told.take_journal())
}
