//! Many runs as a page: how long failovers and recoveries took, what broke, what happened, and the slowest seeds.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::page::Page;
use crate::batch::{Batch, Longest};
use crate::consensus::{Durations, Engine, Mark};
use crate::failure;

/// How the runs were made.
#[derive(Clone, Debug, Serialize)]
pub struct Setting {
    /// What was simulated.
    pub engine: Engine,
    /// Voters at the beginning of a run.
    pub nodes: u64,
    /// The seeds, as they were asked for.
    pub seeds: String,
    /// Simulated seconds with faults in each run.
    pub seconds: u64,
    /// Runs at a time.
    pub jobs: usize,
}

/// What the page shows.
#[derive(Debug, Serialize)]
struct Summary<'a> {
    setting: &'a Setting,
    commit: String,
    runs: u64,
    wall_ms: u128,
    /// Milliseconds and how often.
    failovers: Vec<(u64, u64)>,
    recoveries: Vec<(u64, u64)>,
    faults: Vec<(&'a str, u64)>,
    statistics: Vec<(&'static str, u64)>,
    /// Name, what it says, seeds in which it came about, and the first of them; none that needs more nodes, and none of
    /// production nodes, of which nobody looks for them.
    marks: Vec<(&'static str, &'static str, u64, Option<u64>)>,
    /// Seeds and milliseconds.
    slowest: Vec<(u64, u64)>,
    slowest_to_recover: Vec<(u64, u64)>,
    violation: Option<String>,
}

/// Writes the page of many runs to a file.
///
/// # Errors
/// When the file cannot be written.
pub fn write(batch: &Batch, setting: &Setting, elapsed: Duration, file: &Path) -> io::Result<()> {
    let counts = |durations: &Durations| durations.counts().collect();
    let faults = batch.measurements.faults.iter();
    let milliseconds = |longest: &Longest| {
        let longest = longest.iter().map(|(seed, took)| (seed, took / 1_000_000));
        longest.collect()
    };
    let summary = Summary {
        setting,
        commit: failure::commit(),
        runs: batch.done,
        wall_ms: elapsed.as_millis(),
        failovers: counts(&batch.measurements.failovers),
        recoveries: counts(&batch.recoveries),
        faults: faults.map(|(kind, count)| (kind.as_str(), *count)).collect(),
        statistics: batch.statistics.named(),
        marks: marks(batch, setting),
        slowest: milliseconds(&batch.slowest),
        slowest_to_recover: milliseconds(&batch.slowest_to_recover),
        violation: batch
            .violation
            .as_ref()
            .map(|(_, violation)| violation.to_string()),
    };
    let page = Page {
        title: &format!("{} nodes, seeds {}", setting.nodes, setting.seeds),
        body: include_str!("summary.html"),
        scripts: &[include_str!("summary.js")],
        data: &summary,
    };
    fs::write(file, page.text()?)
}

fn marks(batch: &Batch, setting: &Setting) -> Vec<(&'static str, &'static str, u64, Option<u64>)> {
    let looked_for = setting.engine == Engine::Core;
    let possible = Mark::ALL
        .iter()
        .filter(|mark| looked_for && mark.nodes_min() <= setting.nodes);
    possible
        .map(|mark| {
            let seen = batch.marks.get(mark);
            let (seeds, first) = (seen.map_or(0, |(seeds, _)| *seeds), seen.map(|(_, first)| *first));
            (mark.name(), mark.sentence(), seeds, first)
        })
        .collect()
}
