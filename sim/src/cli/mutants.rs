//! `quorate-sim mutants`: plants known mistakes in consensus, or in production nodes.

use std::process::ExitCode;

use quorate_sim::consensus::{Engine, Mistake};
use quorate_sim::mutants::{Search, json, markdown, mistakes, search, table};

use super::CommandResult;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Run production nodes, with mistakes in the shell around consensus, and some in consensus.
    #[arg(long)]
    full: bool,
    /// The mistakes to plant, by name; by default all.
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    only: Vec<Mistake>,
    /// The first seed that is tried on each.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Simulated seconds with faults in each run.
    #[arg(long, default_value_t = 20, value_parser = super::seconds)]
    seconds: u64,
    /// Runs for each mistake, at the most; by default 1500, and 150 of production nodes.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    runs: Option<u64>,
    /// Print the findings as JSON.
    #[arg(long)]
    json: bool,
    /// Print the findings as a table for the documentation.
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
    /// Runs at a time; by default one a processor.
    #[arg(long)]
    jobs: Option<usize>,
}

pub(super) fn run(arguments: &Arguments) -> CommandResult {
    let (engine, runs_max) = if arguments.full {
        (Engine::Nodes, 150)
    } else {
        (Engine::Core, 1_500)
    };
    let bugs = if arguments.only.is_empty() {
        mistakes(engine)
    } else {
        arguments.only.clone()
    };
    let wanted = Search {
        engine,
        bugs,
        first_seed: arguments.seed,
        seconds: arguments.seconds,
        runs_max: arguments.runs.unwrap_or(runs_max),
        jobs: super::jobs(arguments.jobs),
    };
    let findings = search(&wanted, |finding| match &finding.found {
        Some((nodes, violation)) => eprintln!("{}: {nodes} nodes, {violation}", finding.bug),
        None => eprintln!("{}: not found", finding.bug),
    });
    if arguments.json {
        outln!("{}", json(&findings));
    } else if arguments.markdown {
        out!("{}", markdown(&findings));
    } else {
        out!("{}", table(&findings));
    }
    Ok(if findings.iter().all(|finding| finding.found.is_some()) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
