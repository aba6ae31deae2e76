//! A limit in bytes a second on what all transfers of a node send together.
//!
//! Invariant: over any time the bytes that left are at most those that the rate allows in it and [`CREDIT`] more.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use quorate_core::Instant;

use crate::port::Clock;

/// How much of the time in which nothing was sent may be made up for: timers are late by a millisecond or two.
const CREDIT: Duration = Duration::from_millis(50);
const NANOSECONDS: u128 = 1_000_000_000;

/// The limit, and when it allows the next byte.
pub(super) struct Pace {
    clock: Arc<dyn Clock>,
    /// Bytes a second; 0 is no limit.
    rate: u64,
    due: Cell<Instant>,
}

impl Pace {
    pub(super) fn new(clock: Arc<dyn Clock>, rate: u64) -> Pace {
        let due = Cell::new(clock.now());
        Pace { clock, rate, due }
    }

    /// Waits until `bytes` more may leave. Transfers that wait at the same time take turns.
    pub(super) async fn take(&self, bytes: usize) {
        if self.rate == 0 {
            return;
        }
        let now = self.clock.now();
        let begin = self.due.get().max(now - CREDIT);
        let nanoseconds = bytes as u128 * NANOSECONDS / u128::from(self.rate);
        let takes = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        self.due.set(begin + takes);
        if begin > now {
            self.clock.sleep_until(begin).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::SystemTime;

    use super::*;
    use crate::port::BoxFuture;

    /// A clock that goes on when somebody sleeps, and always a little too far.
    struct Sleeper(Mutex<Instant>);

    const LATE: Duration = Duration::from_millis(2);

    impl Clock for Sleeper {
        fn now(&self) -> Instant {
            *self.0.lock().unwrap()
        }

        fn wall(&self) -> SystemTime {
            SystemTime::UNIX_EPOCH
        }

        fn sleep_until(&self, deadline: Instant) -> BoxFuture<'static, ()> {
            let mut now = self.0.lock().unwrap();
            *now = (*now).max(deadline + LATE);
            Box::pin(std::future::ready(()))
        }
    }

    fn sleeper() -> Arc<Sleeper> {
        Arc::new(Sleeper(Mutex::new(Instant::ORIGIN + Duration::from_secs(9))))
    }

    /// How long it takes to send so many pieces.
    fn time_for(rate: u64, pieces: usize, bytes: usize) -> Duration {
        let clock = sleeper();
        let pace = Pace::new(clock.clone(), rate);
        let began = clock.now();
        at_once(async {
            for _ in 0..pieces {
                pace.take(bytes).await;
            }
        });
        clock.now().since(began)
    }

    /// Nothing here waits for anything but the clock above, which is ready at once.
    fn at_once(future: impl Future<Output = ()>) {
        let waker = std::task::Waker::noop();
        let mut future = std::pin::pin!(future);
        let state = future.as_mut().poll(&mut std::task::Context::from_waker(waker));
        assert!(state.is_ready());
    }

    #[test]
    fn the_rate_is_kept_though_timers_are_late() {
        for (rate, bytes) in [(1 << 20, 64 << 10), (64 << 20, 64 << 10), (1 << 16, 1_000)] {
            let pieces = usize::try_from(4 * rate).unwrap() / bytes;
            let took = time_for(rate, pieces, bytes);
            let range = Duration::from_millis(3_850)..=Duration::from_millis(4_050);
            assert!(
                range.contains(&took),
                "{rate} bytes a second: {took:?} instead of 4 s"
            );
        }
    }

    #[test]
    fn no_limit_makes_nobody_wait() {
        assert_eq!(time_for(0, 1_000, 1 << 20), Duration::ZERO);
    }

    #[test]
    fn a_long_pause_is_not_made_up_for() {
        let clock = sleeper();
        let pace = Pace::new(clock.clone(), 1_000_000);
        at_once(pace.take(1_000_000));
        *clock.0.lock().unwrap() = clock.now() + Duration::from_secs(60);
        let began = clock.now();
        at_once(async {
            for _ in 0..11 {
                pace.take(100_000).await;
            }
        });
        assert!(clock.now().since(began) >= Duration::from_millis(900));
    }
}
