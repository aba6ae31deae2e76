//! `quorate-sim run`: runs seeds on production nodes, or one plan.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use quorate_sim::batch::{Batch, Seeds};
use quorate_sim::consensus::{Conditions, Engine, Mistake, Plan};
use quorate_sim::full;
use quorate_sim::report::{self, summary, summary::Setting};

use super::core::report_violation;
use super::shard::Shard;
use super::{CommandResult, interrupt, marks};

/// The most nodes of a full simulation.
const NODES_MAX: u64 = 9;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Nodes of the cluster.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=NODES_MAX))]
    nodes: u64,
    /// Seeds to run: one, or the first and the last as in 1..200.
    #[arg(long, default_value = "1..20")]
    seeds: Seeds,
    /// Only every N-th seed, beginning with the I-th, as in 2/4: the rest is for other machines.
    #[arg(long, value_name = "I/N", default_value = "1/1")]
    shard: Shard,
    /// Simulated seconds with faults in each run, before everything is healed.
    #[arg(long, default_value_t = 20, value_parser = super::seconds)]
    seconds: u64,
    /// Runs at a time; by default one a processor.
    #[arg(long)]
    workers: Option<usize>,
    /// Nothing breaks: no fault of the plan happens, and no packet is lost.
    #[arg(long)]
    calm: bool,
    /// Run a plan that was written down instead of seeds.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["nodes", "seeds", "shard", "seconds", "report"])]
    plan: Option<PathBuf>,
    /// Where a violation is written to, in a folder of its own.
    #[arg(long, value_name = "FOLDER", default_value = "simulation-failures")]
    failures: PathBuf,
    /// Write a page for a browser: how long failovers took, what broke, which seeds were slowest.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Print every seed with the hash over its run, and the summary as an error: two builds must print the same.
    #[arg(long)]
    hashes: bool,
    /// Plant a mistake, to see what a violation looks like; a wrong name lists them.
    #[arg(long, value_name = "NAME")]
    plant: Option<Mistake>,
    /// Show what the nodes log, on simulated time: a level, or levels for targets; best with one seed, or a plan.
    #[arg(long, value_name = "LEVEL")]
    log: Option<String>,
}

pub(super) fn run(arguments: &Arguments) -> CommandResult {
    interrupt::listen()?;
    if let Some(level) = &arguments.log {
        full::show_log(level)?;
    }
    let began = Instant::now();
    let workers = super::jobs(arguments.workers);
    let draw = |seed| {
        let plan = Plan::draw(seed, arguments.nodes, arguments.seconds);
        if arguments.calm { plan.calm() } else { plan }
    };
    let batch = match &arguments.plan {
        Some(file) => {
            let plan = super::plan::read(file)?;
            let result = full::run(&plan, arguments.plant);
            let mut batch = Batch::default();
            batch.add(plan, result, began.elapsed());
            batch
        }
        None => {
            let seeds = arguments.shard.of(arguments.seeds);
            let bar = report::progress(seeds.len() as u64, "seeds");
            let batch = Batch::run(&seeds, workers, interrupt::is_interrupted, |seed| {
                let plan = draw(seed);
                let result = full::run(&plan, arguments.plant);
                bar.inc(1);
                Ok((plan, result))
            })?;
            bar.finish_and_clear();
            batch
        }
    };
    let summary = report::summary(&batch, Engine::Nodes, began.elapsed(), workers);
    if arguments.hashes {
        for (seed, hash) in &batch.hashes {
            outln!("{seed} {hash:016x}");
        }
        eprint!("{summary}");
    } else {
        out!("{summary}");
        if arguments.plan.is_none() && batch.done > 0 {
            out!("\n{}", report::marks(&batch, Engine::Nodes, arguments.nodes));
        }
    }
    if let Some(file) = &arguments.report {
        let setting = Setting {
            engine: Engine::Nodes,
            nodes: arguments.nodes,
            seeds: arguments.seeds.to_string(),
            seconds: arguments.seconds,
            jobs: workers,
        };
        summary::write(&batch, &setting, began.elapsed(), file)
            .map_err(|error| format!("{}: {error}", file.display()))?;
    }
    let verdict = report::verdict(&batch);
    let tell_verdict = || {
        if arguments.hashes {
            eprintln!("{verdict}");
        } else {
            outln!("{verdict}");
        }
    };
    let Some((plan, violation)) = batch.violation else {
        tell_verdict();
        return Ok(judge_marks(arguments, &batch));
    };
    let conditions = Conditions {
        engine: Engine::Nodes,
        mistake: arguments.plant,
        ..Conditions::default()
    };
    report_violation(&arguments.failures, plan, conditions, &violation)?;
    tell_verdict();
    Ok(ExitCode::FAILURE)
}

/// A mark that never came about, in so many seeds that each should have, is a failure.
fn judge_marks(arguments: &Arguments, batch: &Batch) -> ExitCode {
    let representative = arguments.nodes >= marks::NODES
        && arguments.seconds >= marks::SECONDS
        && !arguments.calm
        && arguments.plan.is_none()
        && arguments.plant.is_none();
    let judged = representative && !interrupt::is_interrupted();
    if !judged || marks::came_about(batch, Engine::Nodes, arguments.nodes) {
        return interrupt::ended(batch.done);
    }
    ExitCode::FAILURE
}
