//! How the disk under the log fares: how long its writes take, and whether one is stuck.
//!
//! A write is timed from when it was handed out until it was acknowledged, with the driver's `now`: the core measures
//! what its promises really wait for. Members tell their leader in the answers to its heartbeats, which wait for no
//! disk, so that a stuck disk is told of too.
//!
//! Invariant: a node whose disk is stalled neither campaigns, nor promises a vote, nor is handed the leadership; its
//! vote, and whatever it would append, could not become durable (hashicorp/raft#503: healthy heartbeats, useless
//! leader).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Config, Raft};

/// What a node says of the disk under its log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskHealth {
    /// How long a write takes until it is durable, smoothed, in microseconds; none before enough were measured.
    pub write_latency_us: Option<u32>,
    /// Whether a write has been under way for longer than [`Config::disk_stall_bound`].
    pub stalled: bool,
}

/// Writes that must have been measured before their latency says anything.
const WRITES_MIN: u64 = 8;
/// A new measurement counts one part in so many of the smoothed latency.
const SMOOTHING: u64 = 16;

/// The smoothed latency of writes.
#[derive(Clone, Debug, Default)]
pub(super) struct WriteLatency {
    nanoseconds: u64,
    writes: u64,
}

impl WriteLatency {
    /// A write took so long.
    pub(super) fn measured(&mut self, latency: Duration) {
        let sample = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX) / SMOOTHING;
        let kept = match self.writes {
            0 => sample.saturating_mul(SMOOTHING - 1),
            _ => self.nanoseconds - self.nanoseconds / SMOOTHING,
        };
        self.nanoseconds = kept.saturating_add(sample);
        self.writes += 1;
    }

    /// How many were measured.
    pub(super) fn writes(&self) -> u64 {
        self.writes
    }

    /// In microseconds, when enough writes were measured.
    fn microseconds(&self) -> Option<u32> {
        (self.writes >= WRITES_MIN).then(|| u32::try_from(self.nanoseconds / 1_000).unwrap_or(u32::MAX))
    }
}

impl Config {
    /// How long a write may be under way before the disk counts as stalled: three of the longest election time-outs.
    pub fn disk_stall_bound(&self) -> Duration {
        3 * self.election_timeout_max
    }
}

impl Raft {
    /// Whether a write has been under way for too long.
    pub(super) fn is_disk_stalled(&self) -> bool {
        self.durability
            .oldest_write()
            .is_some_and(|since| self.now.since(since) >= self.config.disk_stall_bound())
    }

    /// What this node says of its disk. A write under way counts for as long as it has taken so far.
    pub(super) fn disk_health(&self) -> DiskHealth {
        let waited = self
            .durability
            .oldest_write()
            .map_or(0, |since| self.now.since(since).as_micros());
        let waited = u32::try_from(waited).unwrap_or(u32::MAX);
        let measured = self.durability.latency().microseconds();
        DiskHealth {
            write_latency_us: measured.map(|measured| measured.max(waited)),
            stalled: self.is_disk_stalled(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(samples: impl IntoIterator<Item = u64>) -> Option<u32> {
        let mut latency = WriteLatency::default();
        for milliseconds in samples {
            latency.measured(Duration::from_millis(milliseconds));
        }
        latency.microseconds()
    }

    #[test]
    fn a_few_writes_say_nothing_of_a_disk() {
        assert_eq!(after([5; 7]), None);
        assert!(after([5; 8]).is_some_and(|latency| (4_990..=5_000).contains(&latency)));
    }

    #[test]
    fn one_slow_write_makes_no_slow_disk() {
        let smoothed = after([1; 50].into_iter().chain([17])).unwrap_or_default();
        assert!((1_900..=2_000).contains(&smoothed), "{smoothed}");
    }

    #[test]
    fn a_disk_that_became_slow_is_seen_after_some_writes() {
        let smoothed = after([1; 50].into_iter().chain([9; 24])).unwrap_or_default();
        assert!(smoothed > 7_000, "{smoothed}");
    }

    #[test]
    fn a_latency_beyond_all_bounds_stays_in_its_range() {
        assert_eq!(after([u64::MAX; 20]), Some(u32::MAX));
    }
}
