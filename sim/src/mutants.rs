//! Consensus with mistakes planted: what the simulation notices, and how soon.
//!
//! Each mistake runs seed after seed, with three and with five nodes in turn, until a checker sees it or its share of
//! processor time is used up. A mistake that is not seen is a hole in the faults or in the checkers.

use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use quorate_core::raft::PlantedBug;

use crate::consensus::{Conditions, Mistake, Plan, Violation, run};
use crate::report;
use crate::share::processor_time;

/// How mistakes are looked for.
#[derive(Clone, Debug)]
pub struct Search {
    /// The mistakes.
    pub bugs: Vec<PlantedBug>,
    /// Simulated seconds with faults in each run.
    pub seconds: u64,
    /// Processor time for each mistake.
    pub budget: Duration,
    /// Threads.
    pub jobs: usize,
}

/// What came of one mistake.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The mistake.
    pub bug: PlantedBug,
    /// Runs until it was found, or in all.
    pub runs: u64,
    /// Processor time until then.
    pub time: Duration,
    /// The run that shows it: how many nodes, and what was seen.
    pub found: Option<(u64, Violation)>,
}

/// Looks for every mistake, and says so each time that one was found or given up; the findings come in the order of the
/// mistakes.
pub fn search(search: &Search, each: impl Fn(&Finding) + Sync) -> Vec<Finding> {
    let quiet = report::without_panic_messages();
    let bar = report::progress(search.bugs.len() as u64);
    let next = AtomicUsize::new(0);
    let findings = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..search.jobs {
            scope.spawn(|| {
                while let Some(bug) = search.bugs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let finding = look_for(*bug, search);
                    bar.inc(1);
                    bar.suspend(|| each(&finding));
                    findings
                        .lock()
                        .unwrap_or_else(std::sync::PoisonError::into_inner)
                        .push(finding);
                }
            });
        }
    });
    bar.finish_and_clear();
    drop(quiet);
    let mut findings = findings
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    findings.sort_by_key(|finding| finding.bug);
    findings
}

fn look_for(bug: PlantedBug, search: &Search) -> Finding {
    let began = processor_time();
    let mut runs = 0;
    loop {
        let (seed, nodes) = (1 + runs / 2, if runs % 2 == 0 { 3 } else { 5 });
        let conditions = Conditions {
            mistake: Some(Mistake::Consensus(bug)),
            ..Conditions::default()
        };
        runs += 1;
        let found = run(&Plan::draw(seed, nodes, search.seconds), &conditions).err();
        let time = processor_time().saturating_sub(began);
        if found.is_some() || time >= search.budget {
            let found = found.map(|violation| (nodes, violation));
            return Finding {
                bug,
                runs,
                time,
                found,
            };
        }
    }
}

/// The findings as a table.
pub fn table(findings: &[Finding]) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "{:<38}{:<7}{:>6}{:>9}  {:<8}checker",
        "planted bug", "found", "runs", "CPU s", "run"
    );
    for finding in findings {
        let (found, run, checker) = match &finding.found {
            Some((nodes, violation)) => ("yes", format!("{nodes}/{}", violation.seed), violation.checker),
            None => ("NO", String::new(), ""),
        };
        let _ = writeln!(
            text,
            "{:<38}{found:<7}{:>6}{:>9.2}  {run:<8}{checker}",
            finding.bug.name(),
            finding.runs,
            finding.time.as_secs_f64()
        );
    }
    let mut times: Vec<f64> = findings
        .iter()
        .map(|finding| finding.time.as_secs_f64())
        .collect();
    times.sort_by(f64::total_cmp);
    let found = findings.iter().filter(|finding| finding.found.is_some()).count();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    let _ = writeln!(
        text,
        "{found} of {} found; median {median:.2} CPU seconds. A run is nodes/seed.",
        findings.len()
    );
    text
}
