//! What was measured over all runs of a scenario, beside what is allowed.

use std::fmt;
use std::time::Duration;

use super::check::{Scenario, Step};
use super::format::{Limit, Percentiles};
use super::play::{Run, Until};
use crate::consensus::Violation;

/// With fewer runs a percentile is a matter of chance: it is shown, and held against nothing.
const RUNS_MIN: usize = 20;

/// Something that was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// Milliseconds; none when it did not come about by the end of the run.
    Time(Option<u64>),
    /// A count.
    Count(u64),
}

impl fmt::Display for Figure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Figure::Time(Some(milliseconds)) => write!(formatter, "{milliseconds} ms"),
            Figure::Time(None) => formatter.write_str("never"),
            Figure::Count(count) => write!(formatter, "{count}"),
        }
    }
}

impl Figure {
    /// Its value; none when it never came about.
    pub fn value(self) -> Option<u64> {
        match self {
            Figure::Time(time) => time,
            Figure::Count(count) => Some(count),
        }
    }

    fn is_at_most(self, allowed: Figure) -> bool {
        match (self.value(), allowed.value()) {
            (Some(measured), Some(allowed)) => measured <= allowed,
            (None, _) => false,
            (_, None) => true,
        }
    }
}

/// One line of the table: a figure, and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// What was measured.
    pub measure: String,
    /// Over all runs: `p50`, `p90`, `p99` or `max`; empty for counts.
    pub statistic: &'static str,
    /// What it was.
    pub measured: Figure,
    /// The most that it may be; none when it is shown only.
    pub allowed: Option<Figure>,
    /// What was seen instead, when it is too much, and with which seed.
    pub seen: Option<String>,
}

impl Row {
    /// Whether it is what is allowed.
    pub fn is_met(&self) -> bool {
        self.allowed
            .is_none_or(|allowed| self.measured.is_at_most(allowed))
    }

    fn count(measure: impl Into<String>, measured: u64, allowed: u64, seen: Option<String>) -> Row {
        Row {
            measure: measure.into(),
            statistic: "",
            measured: Figure::Count(measured),
            allowed: Some(Figure::Count(allowed)),
            seen,
        }
    }
}

/// A run with its seed: what was measured, or the property that was broken.
pub(super) type Played = (u64, Result<Run, Violation>);

/// The rows of a scenario.
pub(super) fn judge(scenario: &Scenario, played: &[Played]) -> Vec<Row> {
    let runs: Vec<(u64, &Run)> = played
        .iter()
        .filter_map(|(seed, result)| Some((*seed, result.as_ref().ok()?)))
        .collect();
    let mut rows = vec![properties(played)];
    for (number, step) in scenario.steps.iter().enumerate() {
        rows.extend(step_rows(number, step, &runs));
    }
    rows.extend(whole_rows(scenario, &runs));
    rows
}

/// Runs in which a property was broken.
fn properties(played: &[Played]) -> Row {
    let broken: Vec<(u64, &Violation)> = played
        .iter()
        .filter_map(|(seed, result)| Some((*seed, result.as_ref().err()?)))
        .collect();
    let seen = broken.first().map(|(_, violation)| violation.to_string());
    Row::count(
        "runs that lose a write or break another property",
        broken.len() as u64,
        0,
        seen,
    )
}

fn step_rows(number: usize, step: &Step, runs: &[(u64, &Run)]) -> Vec<Row> {
    let limits = [
        (step.leader, Until::Leader, "leader"),
        (step.writes, Until::Writes, "writes"),
        (step.agreement, Until::Agreement, "agreement"),
        (step.answer_time, Until::Answer, "answer"),
    ];
    let mut rows = Vec::new();
    let fails: Vec<(u64, &String)> = runs
        .iter()
        .filter_map(|(seed, run)| Some((*seed, run.met.get(&number)?.as_ref().err()?)))
        .collect();
    let judged = runs.iter().any(|(_, run)| run.met.contains_key(&number));
    if judged {
        let wanted = step.answer.map(|wanted| wanted.word());
        let what = match (wanted, &step.leads) {
            (Some(wanted), _) => format!("{}: not {wanted}", step.words),
            (None, Some(leads)) => format!("{}: somebody else leads than {leads}", step.words),
            (None, None) => format!("{}: not as expected", step.words),
        };
        let seen = fails.first().map(|(seed, what)| format!("seed {seed}: {what}"));
        rows.push(Row::count(what, fails.len() as u64, 0, seen));
    }
    for (limit, until, what) in limits {
        if let Some(limit) = limit {
            let times = runs.iter().map(|(seed, run)| {
                let took = run.took.get(&(number, until)).copied().flatten();
                (*seed, took)
            });
            rows.extend(times_rows(
                &format!("{}: {what}", step.words),
                limit,
                times.collect(),
            ));
        }
    }
    rows
}

fn whole_rows(scenario: &Scenario, runs: &[(u64, &Run)]) -> Vec<Row> {
    let expect = &scenario.expect;
    let mut rows = Vec::new();
    let mut times = |what: &str, limit: Option<Limit>, of: fn(&Run) -> Duration| {
        if let Some(limit) = limit {
            let times = runs.iter().map(|(seed, run)| (*seed, Some(of(run))));
            rows.extend(times_rows(what, limit, times.collect()));
        }
    };
    times("longest outage", expect.outage, |run| run.outage);
    times("recovery at the end", expect.recovery, |run| run.recovery);
    let mut most = |what: &str, allowed: Option<u64>, of: fn(&Run) -> u64| {
        if let Some(allowed) = allowed {
            let worst = runs.iter().max_by_key(|(_, run)| of(run));
            let measured = worst.map_or(0, |(_, run)| of(run));
            let seen = worst.map(|(seed, _)| format!("seed {seed}: {measured}"));
            rows.push(Row::count(what, measured, allowed, seen));
        }
    };
    most("elections, most in a run", expect.elections, |run| run.elections);
    most("unknown answers, most in a run", expect.unknown_answers, |run| {
        run.unknown_answers
    });
    if runs.iter().any(|(_, run)| run.undecided > 0) {
        most("histories that were not judged in time", Some(0), |run| {
            run.undecided
        });
    }
    for node in &scenario.never_leads {
        let led = |run: &Run| run.elected.get(node).copied().unwrap_or_default();
        let first = runs.iter().find(|(_, run)| led(run) > 0);
        let seen = first.map(|(seed, _)| format!("seed {seed}"));
        let sum = runs.iter().map(|(_, run)| led(run)).sum();
        rows.push(Row::count(format!("elections of node {node}"), sum, 0, seen));
    }
    rows
}

/// A row for every percentile with a limit, and the median anyway.
fn times_rows(measure: &str, limit: Limit, mut times: Vec<(u64, Option<Duration>)>) -> Vec<Row> {
    let Percentiles { p50, p90, p99, max } = limit.0;
    times.sort_by_key(|(seed, time)| (time.unwrap_or(Duration::MAX), *seed));
    let statistics = [
        ("p50", 50, p50),
        ("p90", 90, p90),
        ("p99", 99, p99),
        ("max", 100, max),
    ];
    let mut rows = Vec::new();
    for (statistic, percent, allowed) in statistics {
        if allowed.is_none() && statistic != "p50" {
            continue;
        }
        let found = percentile(&times, percent);
        let measured = Figure::Time(found.and_then(|(_, time)| time.map(milliseconds)));
        let counts = percent == 100 || times.len() >= RUNS_MIN || measured == Figure::Time(None);
        let allowed = allowed.filter(|_| counts);
        rows.push(Row {
            measure: measure.to_owned(),
            statistic,
            measured,
            allowed: allowed.map(|allowed| Figure::Time(Some(milliseconds(Duration::from_nanos(allowed.0))))),
            seen: found.map(|(seed, _)| format!("seed {seed}: {measured}")),
        });
    }
    rows
}

/// The least of sorted values that so many of a hundred do not exceed (nearest rank).
fn percentile<T: Copy>(sorted: &[T], percent: usize) -> Option<T> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.checked_sub(1)?).copied()
}

/// Rounded up: what is allowed is not exceeded by less than a millisecond.
fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_nearest_rank() {
        let values: Vec<u64> = (1..=20).collect();
        assert_eq!(percentile(&values, 50), Some(10));
        assert_eq!(percentile(&values, 90), Some(18));
        assert_eq!(percentile(&values, 99), Some(20));
        assert_eq!(percentile(&values, 100), Some(20));
        assert_eq!(percentile(&[7], 50), Some(7));
        assert_eq!(percentile::<u64>(&[], 50), None);
    }

    #[test]
    fn a_percentile_of_few_runs_is_held_against_nothing() {
        let limit = Limit(Percentiles {
            p90: Some(super::super::format::Span(5_000_000)),
            ..Percentiles::default()
        });
        let met = |runs: u64| {
            let slow = (1..=runs)
                .map(|seed| (seed, Some(Duration::from_secs(1))))
                .collect();
            times_rows("it", limit, slow).iter().all(Row::is_met)
        };
        assert!(met(RUNS_MIN as u64 - 1));
        assert!(!met(RUNS_MIN as u64));
    }

    #[test]
    fn what_never_came_about_is_over_every_limit() {
        let limit = Limit(Percentiles {
            p50: None,
            p90: None,
            p99: None,
            max: Some(super::super::format::Span(5_000_000)),
        });
        let millisecond = |count| Some(Duration::from_millis(count));
        let rows = times_rows(
            "it",
            limit,
            vec![(1, millisecond(3)), (2, None), (3, millisecond(4))],
        );
        let [median, max] = &rows[..] else {
            panic!("{rows:?}");
        };
        assert!(median.is_met() && median.measured == Figure::Time(Some(4)));
        assert!(!max.is_met() && max.measured == Figure::Time(None));
        assert_eq!(max.seen.as_deref(), Some("seed 2: never"));
    }
}
