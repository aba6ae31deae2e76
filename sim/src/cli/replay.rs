//! `quorate-sim replay`: runs what a failure folder holds once more.

use std::path::PathBuf;
use std::process::ExitCode;

use quorate_sim::failure::{Failure, Replay};
use quorate_sim::trace::Journal;

use super::CommandResult;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The folder that a violation was written to.
    folder: PathBuf,
    /// Print everything that happens.
    #[arg(long)]
    verbose: bool,
    /// Show what production nodes log, on simulated time: a level, or levels for targets.
    #[arg(long, value_name = "LEVEL")]
    log: Option<String>,
}

pub(super) fn run(arguments: &Arguments) -> CommandResult {
    if let Some(level) = &arguments.log {
        quorate_sim::full::show_log(level)?;
    }
    let failure = Failure::load(&arguments.folder)?;
    outln!("recorded: {}", failure.recorded);
    if let Some(warning) = failure.other_commit() {
        outln!("WARNING: {warning}");
    }
    let journal = if arguments.verbose {
        Journal::lines(std::io::stdout())
    } else {
        Journal::none()
    };
    let (replay, journal) = failure.replay(journal);
    journal.finish()?;
    match replay {
        Replay::Same => {
            outln!("REPRODUCED: the same violation at the same step, and the same trace hash");
            Ok(ExitCode::FAILURE)
        }
        Replay::Other(found) => {
            outln!("found:    {found}");
            outln!(
                "DIFFERS: the run does not end as it did. Either the code is another, or a run depends on more than its plan."
            );
            Ok(ExitCode::from(super::DIFFERS))
        }
        Replay::EndsWell => {
            outln!("NOT REPRODUCED: the run ends well now");
            Ok(ExitCode::SUCCESS)
        }
    }
}
