//! `quorate-sim shrink`: finds a smaller plan with the same violation.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use quorate_sim::failure::Failure;
use quorate_sim::report;
use quorate_sim::shrink::{Shrunk, shrink};

use super::CommandResult;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The folder that a violation was written to.
    folder: PathBuf,
    /// Where the smaller failure is written to; by default a folder `shrunk` in it.
    #[arg(long, value_name = "FOLDER")]
    into: Option<PathBuf>,
    /// Seconds after which the smallest plan so far will do.
    #[arg(long, value_name = "SECONDS", default_value_t = 25, value_parser = super::seconds)]
    limit: u64,
    /// Runs at a time; by default one a processor.
    #[arg(long)]
    jobs: Option<usize>,
}

pub(super) fn run(arguments: &Arguments) -> CommandResult {
    let failure = Failure::load(&arguments.folder)?;
    outln!("recorded: {}", failure.recorded);
    if let Some(warning) = failure.other_commit() {
        outln!("WARNING: {warning}");
    }
    let began = Instant::now();
    let limit = Duration::from_secs(arguments.limit);
    let quiet = report::without_panic_messages();
    let shrunk = shrink(&failure, limit, super::jobs(arguments.jobs));
    drop(quiet);
    let Some(Shrunk {
        failure: smaller,
        runs,
        complete,
    }) = shrunk
    else {
        outln!("NOT REPRODUCED: the run does not break that property now");
        return Ok(ExitCode::from(super::DIFFERS));
    };
    let into = arguments
        .into
        .clone()
        .unwrap_or_else(|| arguments.folder.join("shrunk"));
    smaller
        .save(&into)
        .map_err(|error| format!("{}: {error}", into.display()))?;
    let how = if complete {
        "nothing more can go"
    } else {
        "the time was up"
    };
    outln!("{runs} runs in {:.1} s; {how}", began.elapsed().as_secs_f64());
    outln!("before:   {}", failure.plan.size());
    outln!("after:    {}", smaller.plan);
    outln!("found:    {}", smaller.recorded);
    outln!("written to {}", into.display());
    outln!("page:     {}", super::report::write_beside(&into)?.display());
    outln!(
        "replay: {}",
        report::command(&smaller.conditions, "replay", &into)
    );
    Ok(ExitCode::SUCCESS)
}
