//! Many runs: seeds in ascending order on some threads, and what came of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::consensus::{Durations, Engine, Mark, Measurements, Outcome, Plan, Statistics, Violation};

/// A range of seeds with both ends.
#[derive(Clone, Copy, Debug)]
pub struct Seeds {
    /// The first one.
    pub first: u64,
    /// The last one.
    pub last: u64,
}

impl Seeds {
    /// All of them.
    pub fn iter(self) -> RangeInclusive<u64> {
        self.first..=self.last
    }
}

impl fmt::Display for Seeds {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}..{}", self.first, self.last)
    }
}

impl FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Seeds, String> {
        let number = |number: &str| {
            number.parse::<u64>().map_err(|_| {
                format!("`{text}` is neither a seed, as in 17, nor the first and the last, as in 1..1000")
            })
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

/// The few seeds for which something took longest.
#[derive(Debug, Default)]
pub struct Longest(BTreeSet<(u64, u64)>);

impl Longest {
    const COUNT: usize = 15;

    /// Takes in a seed and how long it took.
    pub fn record(&mut self, seed: u64, took: u64) {
        self.0.insert((took, seed));
        if self.0.len() > Self::COUNT {
            self.0.pop_first();
        }
    }

    /// Seeds and how long they took, the longest first.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter().rev().map(|(took, seed)| (*seed, *took))
    }
}

/// What came of many runs.
#[derive(Debug, Default)]
pub struct Batch {
    /// Runs that ended well.
    pub done: u64,
    /// What happened in them.
    pub statistics: Statistics,
    /// In how many runs each mark came about, and the first seed of them.
    pub marks: BTreeMap<Mark, (u64, u64)>,
    /// Hundredths of the time that the checkers took, when it was measured.
    pub checker_share: Option<u64>,
    /// What was measured in them.
    pub measurements: Measurements,
    /// How long each took from healing to full agreement.
    pub recoveries: Durations,
    /// Those that took longest, in nanoseconds of wall time.
    pub slowest: Longest,
    /// Those that took longest from healing to full agreement, in nanoseconds of simulated time.
    pub slowest_to_recover: Longest,
    /// The hash over each of them, by seed.
    pub hashes: BTreeMap<u64, u64>,
    /// The lowest seed that was found to end badly.
    pub violation: Option<(Plan, Violation)>,
}

impl Batch {
    /// Runs seeds on `jobs` threads until one ends badly or `stop` says so.
    ///
    /// # Errors
    /// With the first error of `simulate`.
    pub fn run(
        seeds: &[u64],
        jobs: usize,
        stop: impl Fn() -> bool + Sync,
        simulate: impl Fn(u64) -> io::Result<(Plan, Result<Outcome, Violation>)> + Sync,
    ) -> io::Result<Batch> {
        let next = AtomicUsize::new(0);
        let ended = AtomicBool::new(false);
        let batch = Mutex::new(Ok(Batch::default()));
        let work = || {
            while !ended.load(Ordering::Relaxed) && !stop() {
                let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) else {
                    return;
                };
                let began = Instant::now();
                let result = simulate(*seed);
                let took = began.elapsed();
                let goes_on = matches!(result, Ok((_, Ok(_))));
                let mut batch = batch.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                match (batch.as_mut(), result) {
                    (Ok(batch), Ok((plan, result))) => batch.add(plan, result, took),
                    (Ok(_), Err(error)) => *batch = Err(error),
                    (Err(_), _) => {}
                }
                if !goes_on {
                    ended.store(true, Ordering::Relaxed);
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..jobs {
                scope.spawn(work);
            }
        });
        batch
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The marks that came about in none of the runs, and could have with so many nodes.
    pub fn missing_marks(&self, engine: Engine, nodes: u64) -> Vec<Mark> {
        let possible = Mark::of(engine).filter(|mark| mark.nodes_min() <= nodes);
        possible.filter(|mark| !self.marks.contains_key(mark)).collect()
    }

    /// Takes in one run, and how long it took by the clock on the wall.
    pub fn add(&mut self, plan: Plan, result: Result<Outcome, Violation>, took: Duration) {
        match result {
            Ok(outcome) => {
                self.done += 1;
                self.statistics.add(&outcome.statistics);
                for mark in Mark::ALL.iter().filter(|mark| outcome.marks.has(**mark)) {
                    let (seeds, first) = self.marks.entry(*mark).or_insert((0, plan.seed()));
                    *seeds += 1;
                    *first = plan.seed().min(*first);
                }
                self.measurements.add(&outcome.measurements);
                let recovery = outcome.statistics.recovery;
                self.recoveries.record(recovery);
                self.slowest_to_recover.record(plan.seed(), recovery);
                let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
                self.slowest.record(plan.seed(), took);
                self.hashes.insert(plan.seed(), outcome.trace);
            }
            Err(violation) => {
                let lowest = self
                    .violation
                    .as_ref()
                    .is_none_or(|(known, _)| plan.seed() < known.seed());
                if lowest {
                    self.violation = Some((plan, violation));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mark_that_never_came_about_is_missing_where_it_could_have() {
        let mut batch = Batch::default();
        for mark in Mark::of(Engine::Core) {
            batch.marks.insert(mark, (1, 7));
        }
        let nodes = || Mark::of(Engine::Core).map(Mark::nodes_min);
        let (least, most) = (nodes().min(), nodes().max());
        let (least, most) = (least.expect("there are marks"), most.expect("there are marks"));
        assert!(least < most, "some need more nodes than others");
        let missing = |batch: &Batch, nodes| batch.missing_marks(Engine::Core, nodes);
        assert_eq!(missing(&batch, most), []);
        let with = |count| Mark::of(Engine::Core).find(|mark| mark.nodes_min() == count);
        let (wants_few, wants_many) = (with(least).expect("one"), with(most).expect("one"));
        batch.marks.remove(&wants_few);
        batch.marks.remove(&wants_many);
        assert_eq!(missing(&batch, most - 1), [wants_few]);
        assert_eq!(missing(&batch, most).len(), 2);
    }
}
