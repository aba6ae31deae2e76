//! `quorate-sim report`: the page of a failure.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use quorate_sim::report::timeline::{self, TimelineError};

use super::CommandResult;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The folder that a violation was written to.
    folder: PathBuf,
    /// Where the page is written to; by default `report.html` in the folder.
    #[arg(long, value_name = "FILE")]
    into: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> CommandResult {
    let into = match &arguments.into {
        Some(file) => file.clone(),
        None => arguments.folder.join(PAGE),
    };
    let page = timeline::write(&arguments.folder, &into)?;
    let [spans, messages, requests] = page.counts();
    let nodes = page.nodes.len();
    outln!("{nodes} nodes, {spans} spans, {messages} messages, {requests} requests");
    outln!("written to {}", into.display());
    Ok(ExitCode::SUCCESS)
}

const PAGE: &str = "report.html";

/// Writes the page of a folder beside what it shows.
///
/// # Errors
/// When the folder has no trace, or cannot be written to.
pub(super) fn write_beside(folder: &Path) -> Result<PathBuf, TimelineError> {
    let page = folder.join(PAGE);
    timeline::write(folder, &page)?;
    Ok(page)
}
