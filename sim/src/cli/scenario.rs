//! `quorate-sim scenario`: runs stories of failure from files, and holds what it measures against what they allow.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use quorate_sim::batch::Seeds;
use quorate_sim::scenario::{self, Document, Scenario, ScenarioResult};
use quorate_sim::{full, report};

use super::{CommandResult, interrupt};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Files, or folders of them.
    #[arg(default_value = "sim/scenarios")]
    paths: Vec<PathBuf>,
    /// Only the scenarios with this in their name; may be given more than once.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Seeds to run each scenario with, as in 1..5; by default as many as its file says.
    #[arg(long)]
    seeds: Option<Seeds>,
    /// Runs at a time; by default one a processor.
    #[arg(long)]
    jobs: Option<usize>,
    /// Write the results as JUnit XML.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Write the results as JSON, which can be a baseline later.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Compare with earlier results: a median that is more than 20 % and more than 20 ms slower is a failure.
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Print what the scenarios are, and run none.
    #[arg(long)]
    list: bool,
    /// Show what the nodes log, on simulated time: a level, or levels for targets; best with one seed of one scenario.
    #[arg(long, value_name = "LEVEL")]
    log: Option<String>,
}

pub(super) fn run(arguments: &Arguments) -> CommandResult {
    interrupt::listen()?;
    if let Some(level) = &arguments.log {
        full::show_log(level)?;
    }
    let scenarios = load(arguments)?;
    if arguments.list {
        for scenario in &scenarios {
            outln!("{}: {}", scenario.name, scenario.story);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let baseline = arguments.baseline.as_deref().map(read_baseline).transpose()?;
    let bar = report::progress(scenario::runs(&scenarios, arguments.seeds), "runs");
    let mut results = {
        let _quiet = report::without_panic_messages();
        scenario::run(
            &scenarios,
            arguments.seeds,
            super::jobs(arguments.jobs),
            interrupt::is_interrupted,
            || bar.inc(1),
        )
    };
    bar.finish_and_clear();
    if let Some(baseline) = &baseline {
        results.iter_mut().for_each(|result| baseline.compare(result));
    }
    out!("{}", scenario::table(&results));
    if let Some(baseline) = &baseline {
        let changes = baseline.changes(&results);
        if !changes.is_empty() {
            outln!("\nOther medians than in the baseline:");
            out!("{changes}");
        }
    }
    if let Some(file) = &arguments.junit {
        write(file, &scenario::junit(&results))?;
    }
    if let Some(file) = &arguments.json {
        write(file, &Document::new(&results).text())?;
    }
    if interrupt::is_interrupted() {
        eprintln!(
            "interrupted: {} of {} scenarios were run",
            results.len(),
            scenarios.len()
        );
        return Ok(ExitCode::from(130));
    }
    let missed: Vec<&ScenarioResult> = results.iter().filter(|result| !result.is_met()).collect();
    outln!(
        "\n{} of {} scenarios are met",
        results.len() - missed.len(),
        results.len()
    );
    for result in &missed {
        eprintln!("\nMISSED: {}", result.name);
        for miss in result.misses() {
            eprintln!("  {miss}");
        }
        let file = result.file.display();
        eprintln!("  see one run: quorate-sim scenario {file} --seeds SEED --log info");
    }
    Ok(if missed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn load(arguments: &Arguments) -> Result<Vec<Scenario>, Box<dyn std::error::Error>> {
    let mut scenarios = Vec::new();
    for path in &arguments.paths {
        scenarios.extend(scenario::load(path)?);
    }
    if !arguments.only.is_empty() {
        let wanted = |scenario: &Scenario| arguments.only.iter().any(|only| scenario.name.contains(only));
        let names: Vec<String> = scenarios.iter().map(|scenario| scenario.name.clone()).collect();
        scenarios.retain(wanted);
        if scenarios.is_empty() {
            return Err(format!(
                "no scenario has {} in its name; there are {}",
                arguments.only.join(" or "),
                names.join(", ")
            )
            .into());
        }
    }
    Ok(scenarios)
}

fn read_baseline(file: &Path) -> Result<Document, String> {
    let shown = file.display();
    let text = std::fs::read_to_string(file).map_err(|error| format!("{shown}: {error}"))?;
    Document::parse(&text).map_err(|error| format!("{shown}: {error}"))
}

fn write(file: &Path, text: &str) -> Result<(), String> {
    std::fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))
}
