//! One file a command.

#[macro_use]
mod output;

mod core;
mod explore;
mod interrupt;
mod marks;
#[cfg(feature = "planted-bugs")]
mod mutants;
mod plan;
mod replay;
mod report;
mod run;
mod scenario;
mod shard;
mod shrink;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Deterministic simulation of Quorate: the same plan gives the same run, on every machine.
#[derive(Debug, Parser)]
#[command(name = "quorate-sim", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Simulate consensus and the replicated state with faulty networks, disks, clocks and operators.
    ///
    /// Every seed is one run. Ends with 1 when a checker finds a violation; its run is then in a folder of its own,
    /// with a command that shows it again.
    #[command(
        after_help = "Examples:\n  quorate-sim core --nodes 5 --seeds 1..1000\n  quorate-sim core --seeds 17 --verbose"
    )]
    Core(core::Arguments),
    /// Simulate the production node: event loop, QUIC, log, database and client API, with faults around it.
    ///
    /// Every seed is one run. Ends with 1 when a checker finds a violation, and says how to see it again.
    #[command(
        after_help = "Examples:\n  quorate-sim run --nodes 3 --seeds 1..200 --seconds 20\n  quorate-sim run --seeds 17 --log info"
    )]
    Run(run::Arguments),
    /// Run stories of failure from files on production nodes, and hold what is measured against what they allow.
    ///
    /// Ends with 1 when a scenario is missed, or is slower than in the baseline.
    #[command(
        after_help = "Examples:\n  quorate-sim scenario sim/scenarios/\n  quorate-sim scenario --only leader-killed --seeds 1..200"
    )]
    Scenario(scenario::Arguments),
    /// Print the plan of a seed: its knobs, and every fault and operation with its time.
    Plan(plan::Arguments),
    /// Run what a failure folder holds once more, and compare.
    ///
    /// Ends with 1 when the same violation shows at the same step of the same run, with 0 when the run ends well, and
    /// with 3 when it ends in another way.
    Replay(replay::Arguments),
    /// Draw what a failure folder holds as a page for a browser: one file that needs no network.
    Report(report::Arguments),
    /// Take nodes, faults, operations and time out of a failure while its violation stays.
    ///
    /// Writes the smaller failure to a folder of its own. Ends with 0, or with 3 when the violation does not show.
    Shrink(shrink::Arguments),
    /// Visit every state of a small cluster that bounded faults can lead to.
    ///
    /// Ends with 1 and the shortest way to a violation when a property is broken.
    #[command(
        after_help = "Examples:\n  quorate-sim explore --terms 2 --timeouts 2\n  quorate-sim explore --crashes 1 --states 5000000"
    )]
    Explore(explore::Arguments),
    /// Plant known mistakes in consensus, one at a time, and see whether and how soon a checker notices.
    ///
    /// Ends with 1 when one is not noticed.
    #[cfg(feature = "planted-bugs")]
    Mutants(mutants::Arguments),
}

/// Runs the command that the process was started with.
pub(crate) fn run() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Core(arguments) => core::run(&arguments),
        Command::Run(arguments) => run::run(&arguments),
        Command::Scenario(arguments) => scenario::run(&arguments),
        Command::Plan(arguments) => plan::run(&arguments),
        Command::Explore(arguments) => explore::run(&arguments),
        Command::Replay(arguments) => replay::run(&arguments),
        Command::Report(arguments) => report::run(&arguments),
        Command::Shrink(arguments) => shrink::run(&arguments),
        #[cfg(feature = "planted-bugs")]
        Command::Mutants(arguments) => mutants::run(&arguments),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::from(2)
    })
}

/// A run ended in another way than recorded.
const DIFFERS: u8 = 3;

/// What keeps a command from doing its work, in words; a violation is no error.
type CommandResult = Result<ExitCode, Box<dyn std::error::Error>>;

/// Reads a number of seconds.
fn seconds(text: &str) -> Result<u64, String> {
    text.parse()
        .map_err(|_| "it takes a whole number of seconds, as in 150".to_owned())
}

/// Runs at a time, when nothing else is wanted: one a processor.
fn jobs(wanted: Option<usize>) -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    wanted.unwrap_or(processors).max(1)
}
