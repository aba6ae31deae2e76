//! How well the cluster serves those who write to it all the time: since when, and how long it did not.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::consensus::schedule::Time;

#[derive(Debug, Default)]
struct Inner {
    /// When acknowledged writes were asked for and answered, in the order of their answers.
    served: Vec<(Time, Time)>,
    /// The longest time between two of them, and the time at which it began.
    gap: (Time, Time),
}

/// Acknowledged writes of probes, of which every node has one.
#[derive(Debug, Default)]
pub(super) struct Service(Mutex<Inner>);

impl Service {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A write was acknowledged.
    pub(super) fn served(&self, invoked: Time, returned: Time) {
        let mut inner = self.inner();
        if let Some((_, last)) = inner.served.last().copied() {
            let gap = returned.saturating_sub(last);
            if gap > inner.gap.0 {
                inner.gap = (gap, last);
            }
        }
        inner.served.push((invoked, returned));
    }

    /// When the first write was acknowledged that was asked for at `since` or later.
    pub(super) fn first_since(&self, since: Time) -> Option<Time> {
        let inner = self.inner();
        let recent = inner.served.iter().rev();
        recent
            .take_while(|(_, returned)| *returned >= since)
            .filter(|(invoked, _)| *invoked >= since)
            .map(|(_, returned)| *returned)
            .last()
    }

    /// The longest time without an acknowledged write until `now`.
    pub(super) fn longest_gap(&self, now: Time) -> Time {
        let inner = self.inner();
        let last = inner.served.last().map_or(0, |(_, returned)| *returned);
        inner.gap.0.max(now.saturating_sub(last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_was_asked_for_before_says_nothing_of_after() {
        let service = Service::default();
        service.served(10, 20);
        service.served(15, 200);
        service.served(210, 230);
        service.served(220, 240);
        assert_eq!(service.first_since(100), Some(230));
        assert_eq!(service.first_since(12), Some(200));
        assert_eq!(service.first_since(230), None);
        assert_eq!(service.longest_gap(250), 180);
        assert_eq!(service.longest_gap(1_000), 760);
    }
}
