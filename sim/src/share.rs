//! What share of the time the checkers take.
//!
//! One seed in [`EVERY`] is run twice, with the checkers and without, one run right after the other on the same thread,
//! and the processor time of both is summed up. A run without checkers takes the same steps, so the difference is theirs;
//! looking for marks counts as checking.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::consensus::{Conditions, Outcome, Plan, Violation, run};

/// One seed in so many is measured, which costs at most a thirtieth of the time.
const EVERY: u64 = 32;

/// The processor time of runs with and without checkers, in nanoseconds.
#[derive(Debug, Default)]
pub struct CheckerShare {
    with: AtomicU64,
    without: AtomicU64,
}

impl CheckerShare {
    /// Runs a plan; now and then once more without checkers.
    ///
    /// # Errors
    /// With the first property that does not hold.
    pub fn run(&self, plan: &Plan, conditions: &Conditions) -> Result<Outcome, Violation> {
        let began = processor_time();
        let result = run(plan, conditions);
        if result.is_ok() && plan.seed().is_multiple_of(EVERY) {
            let ended = processor_time();
            let blind = Conditions {
                checks: false,
                ..*conditions
            };
            // It takes the same steps, and finds nothing.
            let _ = run(plan, &blind);
            add(&self.with, ended.saturating_sub(began));
            add(&self.without, processor_time().saturating_sub(ended));
        }
        result
    }

    /// Hundredths of the time of a run that the checkers take; none when no run was measured.
    pub fn percent(&self) -> Option<u64> {
        let (with, without) = (
            self.with.load(Ordering::Relaxed),
            self.without.load(Ordering::Relaxed),
        );
        (100 * with.saturating_sub(without)).checked_div(with)
    }
}

fn add(sum: &AtomicU64, time: Duration) {
    let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    sum.fetch_add(nanoseconds, Ordering::Relaxed);
}

/// The processor time of this thread.
pub(crate) fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or_default();
    Duration::new(seconds, nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_that_of_the_measured_seeds_only() {
        let share = CheckerShare::default();
        let conditions = Conditions::default();
        assert!(share.run(&Plan::draw(EVERY + 1, 3, 1), &conditions).is_ok());
        assert_eq!(share.percent(), None);
        assert!(share.run(&Plan::draw(EVERY, 3, 1), &conditions).is_ok());
        assert!(share.percent().is_some_and(|percent| percent < 100));
    }
}
