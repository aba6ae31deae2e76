//! `quorate-sim plan`: prints the plan of a seed.

use std::process::ExitCode;

use quorate_sim::consensus::{NODES_MAX, Plan};

use super::CommandResult;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The seed.
    #[arg(long)]
    seed: u64,
    /// Voters at the beginning.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=NODES_MAX))]
    nodes: u64,
    /// Simulated seconds with faults.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Print the events for people, one a line, instead of what `core --plan` reads.
    #[arg(long)]
    brief: bool,
}

pub(super) fn run(arguments: &Arguments) -> CommandResult {
    let plan = Plan::draw(arguments.seed, arguments.nodes, arguments.seconds);
    if arguments.brief {
        out!("{plan}");
    } else {
        out!("{}", plan.text());
    }
    Ok(ExitCode::SUCCESS)
}
