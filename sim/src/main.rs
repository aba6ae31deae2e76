//! The simulator's command line.

use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use clap::{Parser, Subcommand};
use quorate_sim::consensus::{Options, PlantedBug, Statistics, Violation, simulate};
use quorate_sim::report;

/// Deterministic simulation of Quorate: the same seed gives the same run, on every machine.
#[derive(Debug, Parser)]
#[command(name = "quorate-sim", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Simulate consensus and the replicated state with faulty networks, disks, clocks and operators.
    ///
    /// Every seed is one run. Exits with 1 and a command that replays the run when a checker finds a violation.
    #[command(
        after_help = "Examples:\n  quorate-sim core --nodes 5 --seeds 1..1000\n  quorate-sim core --seeds 17 --verbose"
    )]
    Core(CoreArguments),
    /// Visit every state of a small cluster that bounded faults can lead to.
    ///
    /// Exits with 1 and the shortest way to a violation when a property is broken.
    #[command(
        after_help = "Examples:\n  quorate-sim explore --terms 2 --timeouts 2\n  quorate-sim explore --crashes 1 --states 5000000"
    )]
    Explore(ExploreArguments),
    /// Plant known mistakes in consensus, one at a time, and see whether and how soon a checker notices.
    ///
    /// Exits with 1 when one is not noticed.
    #[cfg(feature = "planted-bugs")]
    Mutants(MutantsArguments),
}

#[derive(Debug, clap::Args)]
struct ExploreArguments {
    /// Nodes, all of them voters.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=5))]
    nodes: u64,
    /// The last term that is looked at.
    #[arg(long, default_value_t = 2)]
    terms: u64,
    /// Commands that clients propose.
    #[arg(long, default_value_t = 1)]
    entries: u8,
    /// Timers that fire.
    #[arg(long, default_value_t = 2)]
    timeouts: u8,
    /// Crashes, each followed by a start.
    #[arg(long, default_value_t = 0)]
    crashes: u8,
    /// Messages that are lost. A message that never arrives within the bounds need not be lost.
    #[arg(long, default_value_t = 0)]
    losses: u8,
    /// Messages that arrive twice.
    #[arg(long, default_value_t = 0)]
    duplicates: u8,
    /// States after which the search ends; a state takes about 3 KB of memory.
    #[arg(long, default_value_t = 1_000_000)]
    states: usize,
    /// A mistake to plant in consensus, by name.
    #[cfg(feature = "planted-bugs")]
    #[arg(long)]
    plant: Option<String>,
}

impl ExploreArguments {
    fn planted(&self) -> Result<quorate_core::raft::Planted, String> {
        #[cfg(feature = "planted-bugs")]
        if let Some(name) = &self.plant {
            use quorate_core::raft::{Planted, PlantedBug};
            let bug = PlantedBug::ALL.iter().find(|bug| bug.name() == name);
            return bug
                .map(|bug| Planted::with(*bug))
                .ok_or_else(|| format!("there is no planted bug called {name}"));
        }
        Ok(quorate_core::raft::Planted::default())
    }
}

#[cfg(feature = "planted-bugs")]
#[derive(Debug, clap::Args)]
struct MutantsArguments {
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

#[derive(Debug, clap::Args)]
struct CoreArguments {
    /// Voters at the beginning of a run.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=9))]
    nodes: u64,
    /// Seeds to run: one, or the first and the last as in 1..1000.
    #[arg(long, default_value = "1..100")]
    seeds: Seeds,
    /// Simulated seconds with faults in each run, before everything is healed.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Runs at a time; by default one a processor.
    #[arg(long)]
    jobs: Option<usize>,
    /// Print everything that happens; best with one seed.
    #[arg(long)]
    verbose: bool,
    /// Plant a mistake in the simulated driver, to see what a violation looks like.
    #[arg(long, value_enum, hide = true)]
    plant: Option<PlantedBug>,
}

/// A range of seeds with both ends.
#[derive(Clone, Copy, Debug)]
struct Seeds {
    first: u64,
    last: u64,
}

impl FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Seeds, String> {
        let number = |text: &str| {
            text.parse::<u64>()
                .map_err(|error| format!("`{text}` is no seed: {error}"))
        };
        let (first, last) = match text.split_once("..") {
            Some((first, last)) => (number(first)?, number(last.trim_start_matches('='))?),
            None => (number(text)?, number(text)?),
        };
        if first > last {
            return Err(format!("the first seed, {first}, comes after the last, {last}"));
        }
        Ok(Seeds { first, last })
    }
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Core(arguments) => core(&arguments),
        Command::Explore(arguments) => explore(&arguments),
        #[cfg(feature = "planted-bugs")]
        Command::Mutants(arguments) => mutants(&arguments),
    }
}

fn explore(arguments: &ExploreArguments) -> ExitCode {
    use quorate_sim::exploration::{Bounds, explore};

    let planted = match arguments.planted() {
        Ok(planted) => planted,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::from(2);
        }
    };
    let bounds = Bounds {
        nodes: arguments.nodes,
        terms: arguments.terms,
        entries: arguments.entries,
        timeouts: arguments.timeouts,
        crashes: arguments.crashes,
        losses: arguments.losses,
        duplicates: arguments.duplicates,
        states_max: arguments.states,
        planted,
    };
    println!("{bounds}");
    let report = explore(&bounds);
    print!("{report}");
    if report.violation.is_none() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

#[cfg(feature = "planted-bugs")]
fn mutants(arguments: &MutantsArguments) -> ExitCode {
    use quorate_core::raft::PlantedBug;
    use quorate_sim::mutants::{Search, search, table};

    let wanted =
        |bug: &&PlantedBug| arguments.only.is_empty() || arguments.only.iter().any(|name| name == bug.name());
    let bugs: Vec<PlantedBug> = PlantedBug::ALL.iter().filter(wanted).copied().collect();
    if bugs.is_empty() {
        let names: Vec<&str> = PlantedBug::ALL.iter().map(|bug| bug.name()).collect();
        eprintln!("no planted bug has such a name; they are: {}", names.join(", "));
        return ExitCode::from(2);
    }
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let findings = search(&Search {
        bugs,
        seconds: arguments.seconds,
        budget: std::time::Duration::from_secs(arguments.budget),
        jobs: arguments.jobs.unwrap_or(processors).max(1),
    });
    print!("{}", table(&findings));
    if findings.iter().all(|finding| finding.found.is_some()) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn core(arguments: &CoreArguments) -> ExitCode {
    let options = Options {
        nodes: arguments.nodes,
        seconds: arguments.seconds,
        verbose: arguments.verbose,
        planted: arguments.plant,
        consensus: quorate_core::raft::Planted::default(),
    };
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = if arguments.verbose {
        1
    } else {
        arguments.jobs.unwrap_or(processors).max(1)
    };
    let began = Instant::now();
    let batch = run_batch(&options, arguments.seeds, jobs);
    print!(
        "{}",
        report::summary(batch.done, &batch.statistics, began.elapsed(), jobs)
    );
    match batch.violation {
        None => ExitCode::SUCCESS,
        Some(violation) => {
            eprintln!("\nVIOLATION: {violation}");
            eprintln!("replay: {}", report::replay_command(&options, &violation));
            ExitCode::FAILURE
        }
    }
}

/// What came of many seeds.
#[derive(Debug, Default)]
struct Batch {
    done: u64,
    statistics: Statistics,
    /// Of the lowest seed that has one.
    violation: Option<Violation>,
}

/// Runs seeds in ascending order on some threads; stops at the first violation.
fn run_batch(options: &Options, seeds: Seeds, jobs: usize) -> Batch {
    let bar = report::progress(seeds.last - seeds.first + 1);
    let next = AtomicU64::new(seeds.first);
    let stop = AtomicBool::new(false);
    let batch = Mutex::new(Batch::default());
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > seeds.last || stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let result = simulate(seed, options);
                    let mut batch = batch.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    bar.inc(1);
                    match result {
                        Ok(outcome) => {
                            batch.done += 1;
                            batch.statistics.add(&outcome.statistics);
                        }
                        Err(violation) => {
                            stop.store(true, Ordering::Relaxed);
                            if batch
                                .violation
                                .as_ref()
                                .is_none_or(|known| violation.seed < known.seed)
                            {
                                batch.violation = Some(violation);
                            }
                        }
                    }
                }
            });
        }
    });
    bar.finish_and_clear();
    batch
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
