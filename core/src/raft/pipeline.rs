//! The appends that are under way to one follower, and how many more may be sent ahead of their answers (pipelining,
//! dissertation, section 10.2.1).
//!
//! A follower takes appends in order only. Where messages overtake each other most of a burst is refused, so a leader
//! that answers each refusal by sending everything again floods the network with what is refused once more. Hence the
//! window, as TCP has it (slow start, RFC 5681, section 3.1): a pipeline begins with a few appends, and holds one more
//! for every one that is accepted while it is full. Links that keep their order double it with every round trip.
//!
//! Invariants: `bytes` is the sum over what is in flight; the window never shrinks while the pipeline lasts.

use std::collections::VecDeque;
use std::time::Duration;

use super::Index;
use crate::time::Instant;

/// Appends that a new pipeline holds, about as many segments as a new TCP connection (RFC 6928).
const WINDOW_FIRST: usize = 8;

/// One append under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct InFlight {
    last: Index,
    bytes: u64,
}

/// An append that left. Heartbeats use the same way, so one that left after it and was answered tells its fate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SentAppend {
    /// The last index that it spoke of.
    pub(super) index: Index,
    /// The heartbeat round that was under way when it left.
    pub(super) round: u64,
    /// When it left.
    pub(super) at: Instant,
}

/// Appends sent ahead of their answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pipeline {
    /// Oldest first.
    in_flight: VecDeque<InFlight>,
    /// The bytes of all of them.
    bytes: u64,
    /// How many there may be.
    window: usize,
    /// The append by which heartbeats tell whether something was lost. None when the follower had all that was sent.
    timed: Option<SentAppend>,
}

impl Default for Pipeline {
    fn default() -> Pipeline {
        Pipeline {
            in_flight: VecDeque::new(),
            bytes: 0,
            window: WINDOW_FIRST,
            timed: None,
        }
    }
}

impl Pipeline {
    /// Bytes sent and not acknowledged.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether nothing more may be sent before something is accepted.
    pub(super) fn is_full(&self, bytes_max: u64) -> bool {
        self.bytes >= bytes_max || self.in_flight.len() >= self.window
    }

    /// Entries left, the last of them as `append` says.
    pub(super) fn sent(&mut self, append: SentAppend, bytes: u64) {
        let last = append.index;
        self.in_flight.push_back(InFlight { last, bytes });
        self.bytes += bytes;
        self.timed.get_or_insert(append);
    }

    /// The follower agrees up to `index`, durably.
    pub(super) fn accepted(&mut self, index: Index) {
        let was_full = self.in_flight.len() >= self.window;
        while let Some(append) = self.in_flight.pop_front_if(|append| append.last <= index) {
            self.bytes -= append.bytes;
            self.window += usize::from(was_full);
        }
        self.timed = self.timed.filter(|timed| timed.index > index);
    }

    /// Whether something that left before heartbeat `round`, which was answered, is lost: the follower agrees up to
    /// `matched`. One append at a time is watched, as TCP times one segment, so that appends that follow without end
    /// hide no loss; and only after `patience`, since a heartbeat may overtake appends.
    pub(super) fn has_lost(
        &mut self,
        round: u64,
        matched: Index,
        last_append: SentAppend,
        now: Instant,
        patience: Duration,
    ) -> bool {
        if self.timed.is_none_or(|timed| timed.index <= matched) {
            self.timed = (last_append.index > matched).then_some(last_append);
        }
        self.timed
            .is_some_and(|timed| round > timed.round && now.since(timed.at) >= patience)
    }

    /// Counts bytes as under way again: a planted mistake.
    pub(super) fn keep(&mut self, under_way: u64) {
        self.bytes = under_way;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_LIMIT: u64 = u64::MAX;

    fn append(index: u64, round: u64) -> SentAppend {
        SentAppend {
            index: Index(index),
            round,
            at: Instant::ORIGIN,
        }
    }

    #[test]
    fn the_window_doubles_with_a_round_trip_that_filled_it() {
        let mut pipeline = Pipeline::default();
        let mut last = 0;
        for expected in [8, 16, 32, 64] {
            let first = last + 1;
            while !pipeline.is_full(NO_LIMIT) {
                last += 1;
                pipeline.sent(append(last, 1), 1);
            }
            assert_eq!(last + 1 - first, expected);
            pipeline.accepted(Index(last));
            assert_eq!(pipeline.bytes(), 0);
        }
        pipeline.sent(append(last + 1, 1), 1);
        let window = pipeline.window;
        pipeline.accepted(Index(last + 1));
        assert_eq!(pipeline.window, window, "a window that is not used is not tried");
    }

    #[test]
    fn appends_without_end_hide_no_loss() {
        let mut pipeline = Pipeline::default();
        let patience = Duration::from_millis(50);
        let later = Instant::ORIGIN + patience;
        pipeline.sent(append(1, 1), 1);
        pipeline.sent(append(2, 1), 1);
        pipeline.sent(append(3, 2), 1);
        assert!(!pipeline.has_lost(2, Index(0), append(3, 2), Instant::ORIGIN, patience));
        assert!(!pipeline.has_lost(1, Index(0), append(3, 2), later, patience));
        assert!(pipeline.has_lost(2, Index(0), append(3, 2), later, patience));
        // What was watched arrived: the last one is watched next.
        assert!(!pipeline.has_lost(2, Index(2), append(3, 2), later, patience));
        assert!(pipeline.has_lost(3, Index(2), append(3, 2), later, patience));
        assert!(!pipeline.has_lost(3, Index(3), append(3, 2), later, patience));
        // The follower starts again, and knows of less.
        assert!(pipeline.has_lost(3, Index(1), append(3, 2), later, patience));
    }
}
