//! How the disk under the log fares: how long its writes take, and whether one is stuck.
//!
//! A write is timed from when it was handed out until it was acknowledged, with the driver's `now`, without the time for
//! which it waited behind the write before it: a busy leader's writes queue, those of a follower that is sent one entry
//! at a time do not, and equal disks are to compare as equal. Members tell their leader in the answers to its heartbeats,
//! which wait for no disk, so that a stuck disk is told of too.
//!
//! Invariant: a node whose disk is stalled neither campaigns, nor promises a vote, nor is handed the leadership; its
//! vote, and whatever it would append, could not become durable (hashicorp/raft#503: healthy heartbeats, useless
//! leader).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Config, Raft};
use crate::time::Instant;

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
    /// When the last one that counted was acknowledged.
    counted: Option<Instant>,
    /// When the last one of all was acknowledged.
    acknowledged: Option<Instant>,
}

impl WriteLatency {
    /// A write that was handed out at `since` is acknowledged. Acknowledgements that follow each other within a quarter
    /// of what a write takes are of one sync, and count once. None counts for more than `longest`: a machine that slept
    /// for an hour during a write does not have a slow disk for the next thousand.
    pub(super) fn acknowledged(&mut self, since: Instant, now: Instant, longest: Duration) {
        let begun = self.begun(since);
        self.acknowledged = Some(now);
        let quarter = Duration::from_nanos(self.nanoseconds / 4);
        if self.counted.is_none_or(|counted| now.since(counted) > quarter) {
            self.counted = Some(now);
            self.measured(now.since(begun).min(longest));
        }
    }

    /// When the disk began with a write that was handed out at `since`: not before it had ended the one before.
    fn begun(&self, since: Instant) -> Instant {
        self.acknowledged.map_or(since, |before| since.max(before))
    }

    fn measured(&mut self, latency: Duration) {
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

    /// What it is at the least when a write that has been under way for `waited` ends.
    fn with(&self, waited: Duration) -> WriteLatency {
        let mut latency = self.clone();
        if waited.as_nanos() > u128::from(self.nanoseconds) {
            latency.measured(waited);
        }
        latency
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

    /// Whether writes take so long that this node should not insist on leading: a heartbeat interval or more.
    pub(super) fn is_disk_sluggish(&self) -> bool {
        let interval = self.config.heartbeat_interval.as_micros();
        self.disk_health()
            .write_latency_us
            .is_some_and(|latency| u128::from(latency) >= interval)
    }

    /// What this node says of its disk. A write under way counts for as long as it has taken so far.
    pub(super) fn disk_health(&self) -> DiskHealth {
        let oldest = self.durability.oldest_write();
        let latency = self.durability.latency();
        let waited = oldest.map_or(Duration::ZERO, |since| self.now.since(latency.begun(since)));
        DiskHealth {
            write_latency_us: latency.with(waited).microseconds(),
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
    fn the_writes_of_one_sync_count_once() {
        let at = |milliseconds: u64| Instant::from_nanoseconds(milliseconds * 1_000_000);
        let mut latency = WriteLatency::default();
        for sync in 0..40 {
            for write in 0..10 {
                let longest = Duration::from_secs(1);
                latency.acknowledged(at(100 * sync + write), at(100 * sync + 50), longest);
            }
        }
        assert_eq!(latency.writes(), 40);
        let smoothed = latency.microseconds().unwrap_or_default();
        assert!((49_990..=50_000).contains(&smoothed), "{smoothed}");
    }

    #[test]
    fn a_machine_that_slept_during_a_write_has_no_slow_disk_for_long() {
        let at = |milliseconds: u64| Instant::from_nanoseconds(milliseconds * 1_000_000);
        let longest = Duration::from_millis(900);
        let mut latency = WriteLatency::default();
        let mut now = 0;
        for write in 0..120 {
            let since = now;
            now += if write == 40 { 3_600_000 } else { 1 };
            latency.acknowledged(at(since), at(now), longest);
            now += 50;
        }
        let smoothed = latency.microseconds().unwrap_or_default();
        assert!(smoothed < 2_000, "{smoothed}");
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
