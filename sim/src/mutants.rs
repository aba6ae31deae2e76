//! Mistakes planted in consensus, and in the node around it: what the simulation notices, and how soon.
//!
//! Each mistake runs seed after seed until a checker sees it or so many runs have gone by: the same on a fast machine and
//! on a slow one. A mistake that is not seen is a hole in the faults or in the checkers. Seeds without what the mistake is made in (no leases, no
//! witness, no small files) are passed over, and [`focus`] knows how many nodes show a mistake soonest; nothing else is
//! known of it beforehand, least of all a seed.

use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use quorate::planted::PlantedBug as ShellBug;
use quorate_core::raft::PlantedBug;
use serde::Serialize;

use crate::consensus::{Conditions, Engine, Mistake, Plan, Violation, run};
use crate::report;
use crate::share::processor_time;

/// How mistakes are looked for.
#[derive(Clone, Debug)]
pub struct Search {
    /// What runs with them.
    pub engine: Engine,
    /// The mistakes.
    pub bugs: Vec<Mistake>,
    /// The first seed that is tried.
    pub first_seed: u64,
    /// Simulated seconds with faults in each run.
    pub seconds: u64,
    /// Runs for each mistake, at the most.
    pub runs_max: u64,
    /// Threads.
    pub jobs: usize,
}

/// What came of one mistake.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The mistake.
    pub bug: Mistake,
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
    let bar = report::progress(search.bugs.len() as u64, "mistakes");
    let next = AtomicUsize::new(0);
    let findings = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..search.jobs {
            scope.spawn(|| {
                loop {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    let Some(bug) = search.bugs.get(place) else {
                        return;
                    };
                    let finding = look_for(*bug, search);
                    bar.inc(1);
                    bar.suspend(|| each(&finding));
                    findings
                        .lock()
                        .unwrap_or_else(std::sync::PoisonError::into_inner)
                        .push((place, finding));
                }
            });
        }
    });
    bar.finish_and_clear();
    drop(quiet);
    let mut findings = findings
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    findings.sort_by_key(|(place, _)| *place);
    findings.into_iter().map(|(_, finding)| finding).collect()
}

/// The mistakes that are looked for when nobody says which.
pub fn mistakes(engine: Engine) -> Vec<Mistake> {
    match engine {
        Engine::Core => PlantedBug::ALL.iter().copied().map(Mistake::Consensus).collect(),
        Engine::Nodes => {
            let shell = ShellBug::ALL.iter().copied().map(Mistake::Shell);
            shell.chain(IN_NODES.map(Mistake::Consensus)).collect()
        }
    }
}

/// Mistakes in consensus that production nodes show as well: in durability, elections, reads and snapshots, which the
/// shell has a part in. Those that need messages out of order do not show on QUIC.
const IN_NODES: [PlantedBug; 6] = [
    PlantedBug::VoteLeavesBeforeSync,
    PlantedBug::FollowerAcceptsFromMemory,
    PlantedBug::RefusedVoteCounts,
    PlantedBug::PreviousIsNotCompared,
    PlantedBug::ReadBeforeFirstCommit,
    PlantedBug::InFlightLeak,
];

/// Where a mistake can show.
#[derive(Clone, Copy, Debug)]
struct Focus {
    /// How many voters a run begins with; in turn, when there are several.
    nodes: &'static [u64],
    /// What a run must have.
    needs: Needs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Needs {
    Nothing,
    Leases,
    Witnesses,
    SmallFiles,
    SlowTransfers,
    Swaps,
    ClientsOverQuic,
}

impl Needs {
    fn are_met(self, plan: &Plan) -> bool {
        match self {
            Needs::Nothing => true,
            Needs::Leases => plan.has_leases(),
            Needs::Witnesses => plan.has_witnesses(),
            Needs::SmallFiles => plan.has_small_files(),
            Needs::Swaps => plan.has_swaps(),
            Needs::ClientsOverQuic => plan.has_clients_over_quic(),
            Needs::SlowTransfers => plan.has_slow_transfers(),
        }
    }
}

fn focus(bug: Mistake, engine: Engine) -> Focus {
    let focus = match bug {
        Mistake::Consensus(bug) => focus_of_consensus(bug),
        Mistake::Shell(bug) => focus_of_shell(bug),
        Mistake::Driver(_) => Focus {
            nodes: &[3],
            needs: Needs::Nothing,
        },
    };
    match engine {
        Engine::Core => focus,
        Engine::Nodes => Focus { nodes: &[3], ..focus },
    }
}

fn focus_of_shell(bug: ShellBug) -> Focus {
    use ShellBug as Bug;
    let needs = match bug {
        Bug::LeaseIsNotChecked => Needs::Leases,
        Bug::SegmentNameIsNotSynced
        | Bug::SpareIsNotBlanked
        | Bug::SegmentIsNotSealed
        | Bug::CheckpointForgetsVote
        | Bug::SegmentStaysOpen
        | Bug::PurgeBeyondState => Needs::SmallFiles,
        Bug::IdentityIsNotChecked => Needs::Swaps,
        Bug::SnapshotSkipsAPiece => Needs::SlowTransfers,
        Bug::PipelineAnswersAreSwapped
        | Bug::PipelinedRequestIsMadeTwice
        | Bug::PipelineDropsRequestKey
        | Bug::PipelineEndsUnanswered => Needs::ClientsOverQuic,
        _ => Needs::Nothing,
    };
    Focus { nodes: &[3], needs }
}

fn focus_of_consensus(bug: PlantedBug) -> Focus {
    use PlantedBug as Bug;
    let (nodes, needs): (&[u64], Needs) = match bug {
        Bug::LinkLossBreaksPromise
        | Bug::RestartForgetsPromise
        | Bug::FirstPromiseIsForgotten
        | Bug::ReleasedLeaseIsUsed
        | Bug::LateReleaseWaivesLaterPromises
        | Bug::LeaseCountsFromReceipt
        | Bug::LeaseIgnoresDrift => (&[3], Needs::Leases),
        Bug::WitnessVotesBlindly | Bug::WitnessCampaigns | Bug::WitnessIsAheadOfData => {
            (&[3], Needs::Witnesses)
        }
        Bug::StaleAcceptanceCounts => (&[5], Needs::Nothing),
        _ => (&[3, 5], Needs::Nothing),
    };
    Focus { nodes, needs }
}

fn look_for(bug: Mistake, search: &Search) -> Finding {
    let began = processor_time();
    let Focus { nodes, needs } = focus(bug, search.engine);
    let conditions = Conditions {
        engine: search.engine,
        mistake: Some(bug),
        ..Conditions::default()
    };
    let plans = (search.first_seed..)
        .flat_map(|seed| nodes.iter().map(move |nodes| (seed, *nodes)))
        .map(|(seed, nodes)| (nodes, Plan::draw(seed, nodes, search.seconds)))
        .filter(|(_, plan)| needs.are_met(plan));
    for (runs, (nodes, plan)) in (1..).zip(plans) {
        let found = run(&plan, &conditions).err();
        let time = processor_time().saturating_sub(began);
        if found.is_some() || runs >= search.runs_max {
            let found = found.map(|violation| (nodes, violation));
            return Finding {
                bug,
                runs,
                time,
                found,
            };
        }
    }
    unreachable!("there are more seeds than runs")
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
            finding.bug.to_string(),
            finding.runs,
            finding.time.as_secs_f64()
        );
    }
    let times = || findings.iter().map(|finding| finding.time.as_secs_f64());
    let _ = writeln!(
        text,
        "{} of {} found; CPU seconds: median {:.2}, longest {:.2}, sum {:.2}. A run is nodes/seed.",
        findings.iter().filter(|finding| finding.found.is_some()).count(),
        findings.len(),
        median(findings).as_secs_f64(),
        times().fold(0.0, f64::max),
        times().sum::<f64>(),
    );
    text
}

/// The findings as the table of a page.
pub fn markdown(findings: &[Finding]) -> String {
    let mut text = String::from(
        "| planted bug | what goes wrong | checker that found it | runs | CPU s |\n|---|---|---|---:|---:|\n",
    );
    for finding in findings {
        let checker = finding
            .found
            .as_ref()
            .map_or("not found", |(_, violation)| violation.checker);
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| `{}` | {} | {checker} | {} | {:.2} |",
            finding.bug.to_string(),
            finding.bug.sentence(),
            finding.runs,
            finding.time.as_secs_f64()
        );
    }
    text
}

/// The median of the processor times.
fn median(findings: &[Finding]) -> Duration {
    let mut times: Vec<Duration> = findings.iter().map(|finding| finding.time).collect();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// The findings as JSON.
pub fn json(findings: &[Finding]) -> String {
    #[derive(Serialize)]
    struct Line<'a> {
        bug: String,
        found: bool,
        checker: Option<&'a str>,
        seen: Option<String>,
        nodes: Option<u64>,
        seed: Option<u64>,
        runs: u64,
        cpu_seconds: f64,
    }
    #[derive(Serialize)]
    struct Report<'a> {
        found: usize,
        bugs: usize,
        median_cpu_seconds: f64,
        findings: Vec<Line<'a>>,
    }
    let line = |finding: &'_ Finding| -> Line<'_> {
        let violation = finding.found.as_ref();
        Line {
            bug: finding.bug.to_string(),
            found: violation.is_some(),
            checker: violation.map(|(_, violation)| violation.checker),
            seen: violation.map(|(_, violation)| violation.seen.clone()),
            nodes: violation.map(|(nodes, _)| *nodes),
            seed: violation.map(|(_, violation)| violation.seed),
            runs: finding.runs,
            cpu_seconds: finding.time.as_secs_f64(),
        }
    };
    let report = Report {
        found: findings.iter().filter(|finding| finding.found.is_some()).count(),
        bugs: findings.len(),
        median_cpu_seconds: median(findings).as_secs_f64(),
        findings: findings.iter().map(line).collect(),
    };
    serde_json::to_string_pretty(&report).expect("names and numbers become JSON")
}
