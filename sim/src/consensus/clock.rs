//! The clock of a node: it starts anywhere, runs a little fast or slow, and may go ahead at once.

use quorate_core::Instant;

use super::schedule::Time;

/// What a node's monotonic clock shows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    offset: u64,
    /// Nanoseconds that the clock shows for a million of simulated time.
    rate: u64,
}

const MILLION: u128 = 1_000_000;

impl Clock {
    pub(crate) fn new(offset: u64, rate: u64) -> Clock {
        Clock { offset, rate }
    }

    /// The clock goes ahead at once; it never goes back.
    pub(crate) fn step(&mut self, by: Time) {
        self.offset += by;
    }

    /// What the clock shows at a simulated time.
    pub(crate) fn shows(&self, time: Time) -> Instant {
        let elapsed = u128::from(time) * u128::from(self.rate) / MILLION;
        Instant::from_nanoseconds(self.offset + narrow(elapsed))
    }

    /// The first simulated time at which the clock shows `instant` or later.
    pub(crate) fn when(&self, instant: Instant) -> Time {
        let elapsed = u128::from(instant.as_nanoseconds().saturating_sub(self.offset));
        narrow((elapsed * MILLION).div_ceil(u128::from(self.rate)))
    }
}

fn narrow(nanoseconds: u128) -> u64 {
    u64::try_from(nanoseconds).expect("a run lasts less than 500 years")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_has_come_when_the_clock_says_so_and_not_before() {
        for rate in [950_000, 1_000_000, 1_049_999] {
            let clock = Clock::new(77, rate);
            for deadline in [77, 78, 1_000_003, 123_456_789_123] {
                let deadline = Instant::from_nanoseconds(deadline);
                let time = clock.when(deadline);
                assert!(clock.shows(time) >= deadline);
                assert!(time == 0 || clock.shows(time - 1) < deadline);
            }
        }
    }
}
