//! Scenarios: stories of failure and recovery in files, run on production nodes and measured.
//!
//! A file (`sim/scenarios/*.toml`) tells one story: a cluster, steps at which things happen to it, and what is expected
//! of them. It is run with many seeds, in each of which packets, syncs, election time-outs and clients fare otherwise,
//! and all runs together are held against what is allowed. Whatever a file expects, the checkers of the simulation look
//! on: in no run may an acknowledged write be lost, a read be stale or two nodes lead one term, and after each run
//! everything is healed and must agree.
//!
//! Simulated times depend on the file, the seeds and the code alone, so what one machine measures every machine does.

mod check;
mod format;
mod judge;
mod play;
mod results;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

pub use check::{Scenario, ScenarioError};
pub use judge::{Figure, Row};
pub use results::{Document, ScenarioResult, junit, table};

use crate::batch::Seeds;
use crate::share::processor_time;
use judge::Played;

/// What keeps scenarios from being read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A folder or file cannot be read.
    #[error("{0}: {1}")]
    File(PathBuf, io::Error),
    /// A file is no scenario.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// There is nothing to run.
    #[error("{0}: there is no scenario (*.toml) in it")]
    None(PathBuf),
}

/// The scenarios of a file, or of all files in a folder, by name.
///
/// # Errors
/// When one cannot be read.
pub fn load(path: &Path) -> Result<Vec<Scenario>, LoadError> {
    let unreadable = |error| LoadError::File(path.to_owned(), error);
    if !path.is_dir() {
        return Ok(vec![Scenario::load(path)?]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(unreadable)? {
        let file = entry.map_err(unreadable)?.path();
        if file.extension().is_some_and(|extension| extension == "toml") {
            files.push(file);
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(LoadError::None(path.to_owned()));
    }
    files
        .iter()
        .map(|file| Scenario::load(file).map_err(LoadError::from))
        .collect()
}

/// Runs scenarios with some seeds, or with as many as each wants, on `jobs` threads. Each run that ends is told to
/// `progress`; no further one begins when `stop` says so, and scenarios without all their runs have no result.
pub fn run(
    scenarios: &[Scenario],
    seeds: Option<Seeds>,
    jobs: usize,
    stop: impl Fn() -> bool + Sync,
    progress: impl Fn() + Sync,
) -> Vec<ScenarioResult> {
    let seeds_of = |scenario: &Scenario| {
        seeds.unwrap_or(Seeds {
            first: 1,
            last: scenario.seeds,
        })
    };
    let work: Vec<(usize, u64)> = scenarios
        .iter()
        .enumerate()
        .flat_map(|(place, scenario)| seeds_of(scenario).iter().map(move |seed| (place, seed)))
        .collect();
    let next = AtomicUsize::new(0);
    let played: Vec<Mutex<(Vec<Played>, Duration)>> = scenarios.iter().map(|_| Mutex::default()).collect();
    let worker = || {
        while let Some((place, seed)) = work.get(next.fetch_add(1, Ordering::Relaxed))
            && !stop()
        {
            let began = processor_time();
            let result = play::play(&scenarios[*place], *seed);
            let took = processor_time().saturating_sub(began);
            let mut played = played[*place].lock().unwrap_or_else(PoisonError::into_inner);
            played.0.push((*seed, result));
            played.1 += took;
            progress();
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(worker);
        }
    });
    let mut results = Vec::new();
    for (scenario, played) in scenarios.iter().zip(played) {
        let (mut played, took) = played.into_inner().unwrap_or_else(PoisonError::into_inner);
        let seeds = seeds_of(scenario);
        if played.len() as u64 == seeds.last - seeds.first + 1 {
            played.sort_by_key(|(seed, _)| *seed);
            results.push(ScenarioResult {
                name: scenario.name.clone(),
                file: scenario.file.clone(),
                story: scenario.story.clone(),
                seeds: seeds.to_string(),
                took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
                rows: judge::judge(scenario, &played),
                regressions: Vec::new(),
            });
        }
    }
    results
}

/// How many runs [`run`] makes of scenarios.
pub fn runs(scenarios: &[Scenario], seeds: Option<Seeds>) -> u64 {
    let of = |scenario: &Scenario| seeds.map_or(scenario.seeds, |seeds| seeds.last - seeds.first + 1);
    scenarios.iter().map(of).sum()
}
