//! Requests at a fixed rate, and values that tell when they were sent.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::spawn_local;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// How many requests may be under way, so that one writer keeps its rate.
const UNDER_WAY_MAX: usize = 256;
/// How many connections they share at an endpoint.
pub(super) const CONNECTIONS_MAX: u32 = 64;

/// Begins `request` every so often from `begin` until before `end`, with its number, and returns when all have ended. When
/// too many are under way, the next ones begin late, as soon as there is room.
pub(super) async fn run<F, R>(begin: Instant, every: Duration, end: Instant, request: F)
where
    F: Fn(u64) -> R + 'static,
    R: Future<Output = ()> + 'static,
{
    let request = Rc::new(request);
    let room = Arc::new(Semaphore::new(UNDER_WAY_MAX));
    let mut ticks = interval_at(begin, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut number = 0;
    while ticks.tick().await < end {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        let request = Rc::clone(&request);
        spawn_local(async move {
            request(number).await;
            drop(permit);
        });
        number += 1;
    }
    // Those that are under way have a time-out of their own.
    let _ = room.acquire_many(UNDER_WAY_MAX as u32).await;
}

/// A value of at least `size` bytes that says how many nanoseconds have passed: digits, with zeroes before them.
pub(super) fn stamp(since: Instant, size: u32) -> String {
    format!("{:0width$}", since.elapsed().as_nanos(), width = size as usize)
}

/// What a value says; none when it is of another kind.
pub(super) fn stamped(value: &[u8]) -> Option<Duration> {
    let text = std::str::from_utf8(value).ok()?;
    text.parse().ok().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use tokio::task::LocalSet;

    use super::*;

    #[test]
    fn a_stamp_tells_its_time_at_any_size() {
        let since = Instant::now();
        for size in [0, 1, 256] {
            let value = stamp(since, size);
            assert!(value.len() >= size as usize);
            assert!(stamped(value.as_bytes()).is_some_and(|time| time <= since.elapsed()));
        }
        assert_eq!(stamped(b"paid"), None);
    }

    #[tokio::test]
    async fn as_many_requests_as_fit_are_begun_and_have_ended_at_the_end() {
        let ended = Rc::new(RefCell::new(Vec::new()));
        let numbers = Rc::clone(&ended);
        let request = move |number| {
            let numbers = Rc::clone(&numbers);
            async move {
                tokio::task::yield_now().await;
                numbers.borrow_mut().push(number);
            }
        };
        // Late ones begin all the same.
        let begin = Instant::now();
        let end = begin + Duration::from_millis(45);
        LocalSet::new()
            .run_until(run(begin, Duration::from_millis(10), end, request))
            .await;
        let mut ended = ended.take();
        ended.sort_unstable();
        assert_eq!(ended, [0, 1, 2, 3, 4]);
    }
}
