//! `quorate-sim explore`: visits every state of a small cluster.

use std::process::ExitCode;

use quorate_core::raft::Planted;
#[cfg(feature = "planted-bugs")]
use quorate_sim::consensus::Mistake;
use quorate_sim::exploration::{Bounds, explore};

use super::CommandResult;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Nodes, all of them voters.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=5))]
    nodes: u64,
    /// The last term that is looked at.
    #[arg(long, default_value_t = 2)]
    terms: u64,
    /// Commands that clients propose.
    #[arg(long, default_value_t = 1)]
    entries: u8,
    /// Timers that fire.
    #[arg(long, default_value_t = 2)]
    timeouts: u8,
    /// Crashes, each followed by a start.
    #[arg(long, default_value_t = 0)]
    crashes: u8,
    /// Followers that are asked for their vote when their leader has been silent for long, and their own timer has not fired.
    #[arg(long, default_value_t = 0)]
    silences: u8,
    /// Nodes whose writes become durable at any later moment, and are lost with a crash until then.
    #[arg(long, default_value_t = 0)]
    slow_disks: u8,
    /// States after which the search ends; a state takes about 300 bytes of memory.
    #[arg(long, default_value_t = 10_000_000)]
    states: usize,
    /// Plant a mistake in consensus, to see what a violation looks like.
    #[cfg(feature = "planted-bugs")]
    #[arg(long, value_name = "NAME")]
    plant: Option<Mistake>,
}

impl Arguments {
    fn planted(&self) -> Result<Planted, String> {
        #[cfg(feature = "planted-bugs")]
        match self.plant {
            None => {}
            Some(Mistake::Consensus(bug)) => return Ok(Planted::with(bug)),
            Some(other) => {
                return Err(format!(
                    "{other} is no mistake of consensus, and there is nothing else here; `core` and `run` plant it"
                ));
            }
        }
        Ok(Planted::default())
    }
}

pub(super) fn run(arguments: &Arguments) -> CommandResult {
    let bounds = Bounds {
        nodes: arguments.nodes,
        terms: arguments.terms,
        entries: arguments.entries,
        timeouts: arguments.timeouts,
        crashes: arguments.crashes,
        silences: arguments.silences,
        slow_disks: arguments.slow_disks,
        states_max: arguments.states,
        planted: arguments.planted()?,
    };
    outln!("{bounds}");
    let report = explore(&bounds);
    out!("{report}");
    Ok(if report.violation.is_none() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
