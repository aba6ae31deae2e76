//! Smaller plans with the same violation.
//!
//! Nodes, events, time and unruly knobs are taken away as long as the same checker still objects. What is taken away
//! shifts what happens later, so that a violation may hide: a smaller plan is then tried with other noise, first with
//! little and then with more of it. What happened right before a violation matters most, and short runs are cheap to
//! try: so the last events are first tried alone. Time is limited; what was reached by then counts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::consensus::{Conditions, Plan, Violation, run, run_faults};
use crate::failure::Failure;

/// What came of it.
#[derive(Debug)]
pub struct Shrunk {
    /// The smaller failure.
    pub failure: Failure,
    /// Runs that were made for it.
    pub runs: u64,
    /// Whether nothing more could be taken away; otherwise the time was up.
    pub complete: bool,
}

/// Kinds of noise that a smaller plan is tried with, from round to round.
const NOISES: [u64; 4] = [1, 8, 32, 128];

/// Milliseconds before the violation whose events are tried alone.
const WINDOWS_MS: [u64; 6] = [150, 400, 800, 1_500, 3_000, 6_000];

/// Simulated milliseconds that the last events alone are tried for in each round, on each thread: many kinds of noise where
/// a run is short, since what they leave is the smallest.
const WINDOW_ROUND_MS: u64 = 60_000;

/// Milliseconds that a run takes besides its window: until it has its first leader.
const BEFORE_WINDOW_MS: u64 = 500;

/// The share of the time that may go by with the last events alone: a violation that needs a rare coincidence shows in few
/// kinds of noise, but those runs are short, and what they leave is small.
const WINDOW_SHARE: f64 = 0.5;

/// Makes a failure smaller for as long as `limit`. None when it does not show the violation any more.
pub fn shrink(failure: &Failure, limit: Duration, jobs: usize) -> Option<Shrunk> {
    let plan = failure.plan.clone();
    let violation = run(&plan, &failure.conditions).err()?;
    if violation.checker != failure.recorded.checker {
        return None;
    }
    let began = Instant::now();
    let mut search = Search {
        conditions: failure.conditions,
        checker: violation.checker,
        deadline: began + limit,
        jobs: jobs.max(1),
        runs: AtomicU64::new(1),
        plan,
        violation,
    };
    search.cut_time();
    search.keep_last_events(began + limit.mul_f64(WINDOW_SHARE));
    for noises in NOISES {
        search.noises(noises);
    }
    Some(Shrunk {
        complete: !search.is_late(),
        runs: search.runs.into_inner(),
        failure: Failure::new(search.plan, search.conditions, &search.violation),
    })
}

struct Search {
    conditions: Conditions,
    checker: &'static str,
    deadline: Instant,
    jobs: usize,
    runs: AtomicU64,
    /// The smallest plan so far, and what it shows.
    plan: Plan,
    violation: Violation,
}

impl Search {
    fn is_late(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Goes on with the events right before the violation, when those alone lead to one before `give_up`.
    fn keep_last_events(&mut self, give_up: Instant) {
        let mut windows: Vec<(u64, Plan)> = WINDOWS_MS
            .map(|window| (window, self.plan.only_last(window * 1_000_000)))
            .into();
        windows.retain(|(_, last)| last.event_count() < self.plan.event_count());
        let mut round = 0;
        while !windows.is_empty() && Instant::now() < give_up {
            for (window, last) in &windows {
                let noises = WINDOW_ROUND_MS / (BEFORE_WINDOW_MS + window);
                let plans: Vec<Plan> = (0..self.jobs as u64)
                    .map(|thread| last.with_noise((thread << 32) | (round * noises)))
                    .collect();
                if self.take_first(&plans, noises).is_some() {
                    return;
                }
            }
            round += 1;
        }
    }

    /// Takes away what can be taken away, until nothing can.
    fn noises(&mut self, noises: u64) {
        loop {
            let before = self.plan.clone();
            self.take_first(&self.plan.with_fewer_nodes(), noises);
            self.drop_events(noises);
            self.calm_knobs(noises);
            if self.plan == before || self.is_late() {
                return;
            }
        }
    }

    /// Drops half of the events at a time, then a quarter, and in the end single ones.
    fn drop_events(&mut self, noises: u64) {
        let mut size = self.plan.event_count().div_ceil(2);
        while size > 0 {
            let mut start = 0;
            while start < self.plan.event_count() && !self.is_late() {
                let smaller: Vec<Plan> = (0..self.jobs)
                    .map(|place| start + place * size)
                    .filter(|start| *start < self.plan.event_count())
                    .map(|start| self.plan.without(start..start + size))
                    .collect();
                start += match self.take_first(&smaller, noises) {
                    Some(place) => place * size,
                    None => smaller.len() * size,
                };
            }
            size = if size == 1 { 0 } else { size.div_ceil(2) };
        }
    }

    /// Brings all knobs to rest, or else those that can be, one after the other.
    fn calm_knobs(&mut self, noises: u64) {
        for place in 0..Plan::CALMER {
            let calmer = self.plan.with_calmer_knobs(place);
            if calmer != self.plan {
                self.take_first(&[calmer], noises);
            }
        }
    }

    /// Goes on with the first of some smaller plans that shows the violation; returns which one.
    fn take_first(&mut self, smaller: &[Plan], noises: u64) -> Option<usize> {
        for (round, plans) in smaller.chunks(self.jobs).enumerate() {
            if self.is_late() {
                return None;
            }
            let results: Vec<_> = std::thread::scope(|scope| {
                let search = &*self;
                let threads: Vec<_> = plans
                    .iter()
                    .map(|plan| scope.spawn(move || search.shows(plan, noises)))
                    .collect();
                threads
                    .into_iter()
                    .map(|thread| thread.join().ok().flatten())
                    .collect()
            });
            let found = results
                .into_iter()
                .enumerate()
                .find_map(|(place, result)| Some((place, result?)));
            if let Some((place, (plan, violation))) = found {
                (self.plan, self.violation) = (plan, violation);
                self.cut_time();
                return Some(round * self.jobs + place);
            }
        }
        None
    }

    /// The plan, with some noise, that shows the violation.
    fn shows(&self, plan: &Plan, noises: u64) -> Option<(Plan, Violation)> {
        (0..noises).find_map(|more| {
            if more > 0 && self.is_late() {
                return None;
            }
            let plan = plan.with_noise(more);
            self.runs.fetch_add(1, Ordering::Relaxed);
            let before_recovery = self.violation.time < self.plan.duration;
            let result = if before_recovery {
                run_faults(&plan, &self.conditions)
            } else {
                run(&plan, &self.conditions)
            };
            let violation = result.err()?;
            (violation.checker == self.checker).then_some((plan, violation))
        })
    }

    /// Ends the phase with faults where the violation shows: nothing before that changes.
    fn cut_time(&mut self) {
        self.plan.end_faults_at(self.violation.time);
    }
}
