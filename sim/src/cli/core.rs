//! `quorate-sim core`: runs seeds, or one plan.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use quorate_sim::batch::{Batch, Seeds};
use quorate_sim::consensus::{
    Conditions, Engine, Mistake, NODES_MAX, Outcome, Plan, Violation, enough_seeds, run as simulate,
    run_with_journal,
};
use quorate_sim::failure::Failure;
use quorate_sim::report::{self, summary, summary::Setting};
use quorate_sim::share::CheckerShare;
use quorate_sim::trace::Journal;

use super::marks::SECONDS;
use super::shard::Shard;
use super::{CommandResult, interrupt, marks};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Voters at the beginning of a run.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=NODES_MAX))]
    nodes: u64,
    /// Seeds to run: one, or the first and the last as in 1..1000.
    #[arg(long, default_value = "1..100")]
    seeds: Seeds,
    /// Only every N-th seed, beginning with the I-th, as in 2/4: the rest is for other machines.
    #[arg(long, value_name = "I/N", default_value = "1/1")]
    shard: Shard,
    /// Simulated seconds with faults in each run, before everything is healed.
    #[arg(long, default_value_t = SECONDS, value_parser = super::seconds)]
    seconds: u64,
    /// Runs at a time; by default one a processor.
    #[arg(long)]
    jobs: Option<usize>,
    /// Begin no further run after this many seconds, however many seeds are left.
    #[arg(long = "for", value_name = "SECONDS", value_parser = super::seconds)]
    time: Option<u64>,
    /// Run a plan that was written down instead of seeds.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["nodes", "seeds", "shard", "seconds", "time", "report"])]
    plan: Option<PathBuf>,
    /// Where a violation is written to, in a folder of its own.
    #[arg(long, value_name = "FOLDER", default_value = "simulation-failures")]
    failures: PathBuf,
    /// Write a page for a browser: how long failovers took, what broke, which seeds were slowest.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Print every seed with the hash over its run, and the summary as an error: two builds must print the same.
    #[arg(long, conflicts_with = "verbose")]
    hashes: bool,
    /// Print everything that happens; best with one seed.
    #[arg(long)]
    verbose: bool,
    /// Plant a mistake, to see what a violation looks like; a wrong name lists them.
    #[arg(long, value_name = "NAME")]
    plant: Option<Mistake>,
}

pub(super) fn run(arguments: &Arguments) -> CommandResult {
    let conditions = Conditions {
        mistake: arguments.plant,
        ..Conditions::default()
    };
    interrupt::listen()?;
    let began = Instant::now();
    let jobs = if arguments.verbose {
        1
    } else {
        super::jobs(arguments.jobs)
    };
    let batch = match &arguments.plan {
        Some(file) => run_plan(file, &conditions, arguments.verbose)?,
        None => run_seeds(arguments, &conditions, jobs, began)?,
    };
    let summary = report::summary(&batch, Engine::Core, began.elapsed(), jobs);
    if arguments.hashes {
        for (seed, hash) in &batch.hashes {
            outln!("{seed} {hash:016x}");
        }
        eprint!("{summary}");
    } else {
        out!("{summary}");
        if arguments.plan.is_none() && batch.done > 0 {
            out!("\n{}", report::marks(&batch, Engine::Core, arguments.nodes));
        }
    }
    if let Some(file) = &arguments.report {
        let setting = Setting {
            engine: Engine::Core,
            nodes: arguments.nodes,
            seeds: arguments.seeds.to_string(),
            seconds: arguments.seconds,
            jobs,
        };
        summary::write(&batch, &setting, began.elapsed(), file)
            .map_err(|error| format!("{}: {error}", file.display()))?;
    }
    match batch.violation {
        None if interrupt::is_interrupted() => Ok(interrupt::ended(batch.done)),
        None => Ok(judge_marks(arguments, &batch)),
        Some((plan, violation)) => {
            report_violation(&arguments.failures, plan, conditions, &violation)?;
            Ok(ExitCode::FAILURE)
        }
    }
}

/// A mark that never came about, in so many seeds that each should have, is a failure.
fn judge_marks(arguments: &Arguments, batch: &Batch) -> ExitCode {
    let representative = arguments.nodes >= marks::NODES
        && arguments.seconds >= SECONDS
        && arguments.plan.is_none()
        && arguments.plant.is_none();
    let enough = enough_seeds(Engine::Core);
    if representative && batch.done < enough && arguments.time.is_some() {
        eprintln!(
            "the marks are not judged: {} seeds were done of the {enough} that it takes",
            batch.done
        );
    }
    if !representative || marks::came_about(batch, Engine::Core, arguments.nodes) {
        return ExitCode::SUCCESS;
    }
    ExitCode::FAILURE
}

fn run_seeds(
    arguments: &Arguments,
    conditions: &Conditions,
    jobs: usize,
    began: Instant,
) -> std::io::Result<Batch> {
    let seeds = arguments.shard.of(arguments.seeds);
    let bar = report::progress(seeds.len() as u64, "seeds");
    let verbose = arguments.verbose;
    let share = CheckerShare::default();
    let limit = arguments.time.map(Duration::from_secs);
    let is_over = || interrupt::is_interrupted() || limit.is_some_and(|limit| began.elapsed() >= limit);
    let batch = Batch::run(&seeds, jobs, is_over, |seed| {
        let plan = Plan::draw(seed, arguments.nodes, arguments.seconds);
        let result = if verbose {
            loudly(&plan, conditions)
        } else {
            Ok(share.run(&plan, conditions))
        };
        bar.inc(1);
        result.map(|result| (plan, result))
    });
    bar.finish_and_clear();
    batch.map(|batch| Batch {
        checker_share: share.percent(),
        ..batch
    })
}

fn run_plan(
    file: &Path,
    conditions: &Conditions,
    verbose: bool,
) -> Result<Batch, Box<dyn std::error::Error>> {
    let plan = super::plan::read(file)?;
    let began = Instant::now();
    let result = if verbose {
        loudly(&plan, conditions)?
    } else {
        simulate(&plan, conditions)
    };
    let mut batch = Batch::default();
    batch.add(plan, result, began.elapsed());
    Ok(batch)
}

/// Runs a plan and prints what happens.
fn loudly(plan: &Plan, conditions: &Conditions) -> std::io::Result<Result<Outcome, Violation>> {
    outln!("seed {}: {plan}", plan.seed());
    let (result, journal) = run_with_journal(plan, conditions, Journal::lines(std::io::stdout()));
    journal.finish()?;
    Ok(result)
}

/// Writes a violation down, and says how to see it again.
pub(super) fn report_violation(
    failures: &Path,
    plan: Plan,
    conditions: Conditions,
    violation: &Violation,
) -> Result<(), Box<dyn std::error::Error>> {
    eprintln!("\nVIOLATION: {violation}");
    let engine = match conditions.engine {
        Engine::Core => "core",
        Engine::Nodes => "run",
    };
    let folder = failures.join(format!("{engine}-{}-nodes-seed-{}", plan.nodes(), plan.seed()));
    let failure = Failure::new(plan, conditions, violation);
    let same = failure.save(&folder).map_err(|error| {
        format!(
            "the violation could not be written to {}: {error}",
            folder.display()
        )
    })?;
    if !same {
        eprintln!(
            "WARNING: a second run of the same plan went another way: a run depends on more than its plan."
        );
    }
    eprintln!("written to {}", folder.display());
    eprintln!("page: {}", super::report::write_beside(&folder)?.display());
    eprintln!("replay: {}", report::command(&conditions, "replay", &folder));
    eprintln!("shrink: {}", report::command(&conditions, "shrink", &folder));
    Ok(())
}
