//! `quorate-sim plan`: prints the plan of a seed. Plans from files, for the commands that run them.

use std::fmt::Display;
use std::path::Path;
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
    #[arg(long, default_value_t = 20, value_parser = super::seconds)]
    seconds: u64,
    /// Print the events for people, one a line, instead of what `core --plan` reads.
    #[arg(long)]
    brief: bool,
}

/// Reads a plan that was written down.
pub(super) fn read(file: &Path) -> Result<Plan, String> {
    let of_file = |error: &dyn Display| format!("{}: {error}", file.display());
    let text = std::fs::read_to_string(file).map_err(|error| of_file(&error))?;
    Plan::parse(&text).map_err(|error| of_file(&error))
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
