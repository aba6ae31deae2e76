//! `quorate-sim mutants`: plants known mistakes in consensus.

use std::process::ExitCode;
use std::time::Duration;

use quorate_core::raft::PlantedBug;
use quorate_sim::mutants::{Search, search, table};

use super::CommandResult;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The mistakes to plant; by default all.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Simulated seconds with faults in each run.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Seconds of processor time for each mistake.
    #[arg(long, default_value_t = 120)]
    budget: u64,
    /// Runs at a time; by default one a processor.
    #[arg(long)]
    jobs: Option<usize>,
}

pub(super) fn run(arguments: &Arguments) -> CommandResult {
    let chosen =
        |bug: &&PlantedBug| arguments.only.is_empty() || arguments.only.iter().any(|name| name == bug.name());
    let bugs: Vec<PlantedBug> = PlantedBug::ALL.iter().filter(chosen).copied().collect();
    if bugs.is_empty() {
        let names: Vec<&str> = PlantedBug::ALL.iter().map(|bug| bug.name()).collect();
        return Err(format!("no planted bug has such a name; they are: {}", names.join(", ")).into());
    }
    let wanted = Search {
        bugs,
        seconds: arguments.seconds,
        budget: Duration::from_secs(arguments.budget),
        jobs: super::jobs(arguments.jobs),
    };
    let findings = search(&wanted, |finding| match &finding.found {
        Some((nodes, violation)) => eprintln!("{}: {nodes} nodes, {violation}", finding.bug.name()),
        None => eprintln!("{}: not found", finding.bug.name()),
    });
    print!("{}", table(&findings));
    Ok(if findings.iter().all(|finding| finding.found.is_some()) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
