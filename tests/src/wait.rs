//! Waiting for a condition, with a deadline.

use std::time::{Duration, Instant};

/// The pause between two looks at the condition.
const PAUSE: Duration = Duration::from_millis(10);

/// Returns once `condition` holds.
///
/// # Panics
/// When it does not hold within `limit`, naming `what` was waited for.
#[track_caller]
pub fn wait_until(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(limit, what, || condition().then_some(()));
}

/// Returns what `look` finds, once it finds something.
///
/// # Panics
/// When it finds nothing within `limit`, naming `what` was waited for.
#[track_caller]
pub fn wait_for<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "after {limit:?}: not yet: {what}");
        std::thread::sleep(PAUSE);
    }
}
