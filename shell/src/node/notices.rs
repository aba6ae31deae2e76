//! What an operator is told now and then and not each time: a node that is kept out asks twice a second.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_core::Instant;

/// How often the operator is told the same.
pub(super) const AGAIN: Duration = Duration::from_secs(60);
/// How many things are remembered as told; beyond, the oldest is forgotten and may be told again.
const REMEMBERED_MAX: usize = 64;

/// What was told lately, and when.
#[derive(Debug, Default)]
pub(super) struct Notices(BTreeMap<String, Instant>);

impl Notices {
    /// Whether `what` is to be told now: it was not within the last `again`.
    pub(super) fn due(&mut self, what: &str, now: Instant, again: Duration) -> bool {
        if self.0.get(what).is_some_and(|told| now.since(*told) < again) {
            return false;
        }
        if self.0.len() >= REMEMBERED_MAX {
            let oldest = self.0.iter().min_by_key(|(_, told)| **told);
            if let Some(oldest) = oldest.map(|(what, _)| what.clone()) {
                self.0.remove(&oldest);
            }
        }
        self.0.insert(what.to_owned(), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::ORIGIN + Duration::from_secs(seconds)
    }

    #[test]
    fn same_thing_is_told_once_in_a_while_and_another_at_once() {
        let mut notices = Notices::default();
        assert!(notices.due("a", at(1), AGAIN));
        assert!(!notices.due("a", at(60), AGAIN));
        assert!(notices.due("b", at(60), AGAIN));
        assert!(notices.due("a", at(61), AGAIN));
    }

    #[test]
    fn flood_of_different_things_is_bounded() {
        let mut notices = Notices::default();
        for number in 0..1_000 {
            notices.due(&number.to_string(), at(number), AGAIN);
        }
        assert_eq!(notices.0.len(), REMEMBERED_MAX);
    }
}
