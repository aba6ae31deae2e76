//! Knobs: what holds from the beginning of a run to its end. Each has calm and wild settings.

use std::time::Duration;

use quorate_core::raft::{self, LeaseReads, Member};
use serde::{Deserialize, Serialize};

use super::duration;
use crate::consensus::schedule::{MICROSECOND, MILLISECOND, SECOND, Time};
use crate::random::{PartsPerMillion, Stream};

/// The mean time between two requests at the most: over all clients, at least a hundred a second.
const REQUEST_MEAN_MAX: Time = 9 * MILLISECOND;

/// About what a client's command takes in a log.
const ENTRY_BYTES: u64 = 80;

/// The knobs of one run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Knobs {
    pub(crate) raft: raft::Config,
    // The network.
    #[serde(with = "duration")]
    pub(crate) latency_mean: Time,
    pub(crate) latency_spike: PartsPerMillion,
    pub(crate) loss: PartsPerMillion,
    pub(crate) duplication: PartsPerMillion,
    /// Whether messages between two nodes keep their order.
    pub(crate) ordered_links: bool,
    /// Whether nodes hear of links that come and go.
    pub(crate) link_events: bool,
    /// Whether messages pass through their encoding.
    pub(crate) encode_messages: bool,
    // The drivers.
    /// How often a driver waits for further inputs before it drains.
    pub(crate) batching: PartsPerMillion,
    /// How long it waits then.
    #[serde(with = "duration")]
    pub(crate) batch_mean: Time,
    #[serde(with = "duration")]
    pub(crate) sync_mean: Time,
    #[serde(with = "duration")]
    pub(crate) apply_mean: Time,
    #[serde(with = "duration")]
    pub(crate) flush_mean: Time,
    #[serde(with = "duration")]
    pub(crate) fetch_mean: Time,
    #[serde(with = "duration")]
    pub(crate) snapshot_mean: Time,
    pub(crate) snapshot_failure: PartsPerMillion,
    /// How many of the last entries a restarted node finds in memory at the most.
    pub(crate) boot_tail_max: u64,
    /// How many parts of a million a clock may run fast or slow.
    pub(crate) clock_skew: u64,
    // The clients.
    #[serde(with = "duration")]
    pub(crate) request_mean: Time,
    pub(crate) keys: u64,
    /// How many of the clients of production nodes speak QUIC; the others speak HTTP.
    #[serde(default)]
    pub(crate) clients_over_quic: u64,
    // Operators.
    /// How many voters operators leave at the least.
    pub(crate) voters_min: usize,
    /// All disks are slow, and nothing happens to one of them alone: no leader is worse than another.
    pub(crate) evenly_slow_disks: bool,
    /// The features that the newest binary supports.
    pub(crate) features_max: u16,
    /// How many of the first members are witnesses, if there are enough others; when any, newcomers may be too.
    pub(crate) witnesses: u64,
    /// What members prefer: the priorities that they get in turn.
    pub(crate) priorities: Vec<u8>,
}

impl Knobs {
    pub(super) fn draw(random: &mut Stream) -> Knobs {
        let mut knobs = Knobs {
            raft: raft_config(random),
            latency_mean: *random.pick(&[100 * MICROSECOND, MILLISECOND, MILLISECOND, 8 * MILLISECOND]),
            latency_spike: *random.pick(&[0, 0, 2_000, 20_000]),
            loss: *random.pick(&[0, 0, 5_000, 20_000, 100_000]),
            duplication: *random.pick(&[0, 5_000, 50_000]),
            ordered_links: random.chance(500_000),
            link_events: random.chance(700_000),
            encode_messages: random.chance(150_000),
            batching: *random.pick(&[0, 200_000, 800_000]),
            batch_mean: *random.pick(&[50 * MICROSECOND, MILLISECOND, 10 * MILLISECOND]),
            sync_mean: *random.pick(&[150 * MICROSECOND, MILLISECOND, 5 * MILLISECOND, 25 * MILLISECOND]),
            apply_mean: *random.pick(&[10 * MICROSECOND, MILLISECOND, 20 * MILLISECOND]),
            flush_mean: *random.pick(&[10 * MILLISECOND, 300 * MILLISECOND, 2 * SECOND]),
            fetch_mean: *random.pick(&[100 * MICROSECOND, 5 * MILLISECOND]),
            snapshot_mean: *random.pick(&[MILLISECOND, 50 * MILLISECOND, 600 * MILLISECOND]),
            snapshot_failure: *random.pick(&[0, 100_000, 400_000]),
            boot_tail_max: *random.pick(&[0, 5, 10_000]),
            clock_skew: *random.pick(&[0, 1_000, 50_000, 200_000]),
            request_mean: *random.pick(&[
                2 * MILLISECOND,
                5 * MILLISECOND,
                REQUEST_MEAN_MAX,
                REQUEST_MEAN_MAX,
            ]),
            keys: *random.pick(&[1, 5, 50]),
            clients_over_quic: 0,
            voters_min: if random.chance(100_000) { 1 } else { 2 },
            evenly_slow_disks: random.chance(80_000),
            features_max: *random.pick(&[1, 2, 4]),
            priorities: priorities(random),
            witnesses: *random.pick(&[0, 0, 0, 1, 2]),
        };
        if random.chance(300_000) {
            knobs.clock_skew = *random.pick(&[1_000, 50_000, 200_000, 200_000]);
            knobs.raft.lease_reads = Some(lease_reads(random, knobs.clock_skew));
        }
        if knobs.evenly_slow_disks {
            knobs.sync_mean = 60 * MILLISECOND;
        }
        if knobs.entries_under_way() == 1 {
            // An entry a round trip is less than what the clients of other runs ask for.
            knobs.request_mean = REQUEST_MEAN_MAX;
        }
        knobs
    }

    /// Good machines, and a network that loses nothing.
    pub(crate) fn steady(raft: raft::Config) -> Knobs {
        Knobs {
            raft,
            latency_mean: 300 * MICROSECOND,
            latency_spike: 0,
            loss: 0,
            duplication: 0,
            ordered_links: true,
            link_events: true,
            encode_messages: false,
            batching: 0,
            batch_mean: 50 * MICROSECOND,
            sync_mean: 300 * MICROSECOND,
            apply_mean: 10 * MICROSECOND,
            flush_mean: 10 * MILLISECOND,
            fetch_mean: 100 * MICROSECOND,
            snapshot_mean: MILLISECOND,
            snapshot_failure: 0,
            boot_tail_max: 10_000,
            clock_skew: 0,
            request_mean: REQUEST_MEAN_MAX,
            keys: 5,
            clients_over_quic: 2,
            voters_min: 1,
            evenly_slow_disks: false,
            features_max: 1,
            witnesses: 0,
            priorities: vec![Member::PRIORITY],
        }
    }

    /// Healthy machines from now on: what is small stays small, what is slow gets faster.
    pub(crate) fn calm(&mut self) {
        self.latency_mean = self.latency_mean.min(MILLISECOND);
        self.batch_mean = self.batch_mean.min(200 * MICROSECOND);
        self.sync_mean = self.sync_mean.min(2 * MILLISECOND);
        self.apply_mean = self.apply_mean.min(MILLISECOND);
        self.fetch_mean = self.fetch_mean.min(MILLISECOND);
        self.flush_mean = self.flush_mean.min(300 * MILLISECOND);
        self.snapshot_mean = self.snapshot_mean.min(50 * MILLISECOND);
        self.snapshot_failure = 0;
        // What was measured before differs for a while.
        self.evenly_slow_disks = false;
    }

    /// How many commands one append holds, at the least.
    fn entries_an_append(&self) -> u64 {
        1 + self.raft.append_bytes_max / ENTRY_BYTES
    }

    /// How many commands are on their way to a follower at a time, at the least.
    fn entries_under_way(&self) -> u64 {
        (self.raft.in_flight_bytes_max / ENTRY_BYTES).max(self.entries_an_append())
    }

    /// The mean time in which a leader brings a follower so many entries, reading each from its disk, when nothing is
    /// lost: with the smallest limits every entry takes a round trip, and no less than a sync.
    pub(crate) fn time_to_replicate(&self, entries: u64) -> Time {
        let round_trip = 2 * (self.latency_mean + self.batch_mean) + self.sync_mean;
        let read = self.fetch_mean + self.batch_mean;
        entries.div_ceil(self.entries_an_append()) * read
            + entries.div_ceil(self.entries_under_way()) * round_trip
    }

    /// The mean time in which a state machine takes in so many entries, reading each from the disk.
    pub(crate) fn time_to_apply(&self, entries: u64) -> Time {
        entries * (self.apply_mean + self.fetch_mean)
    }

    /// The priority of the member with this number.
    pub(crate) fn priority(&self, number: u64) -> u8 {
        let place = number % self.priorities.len() as u64;
        self.priorities[usize::try_from(place).unwrap_or(0)]
    }

    /// The largest election time-out, in nanoseconds.
    pub(crate) fn election_timeout(&self) -> Time {
        nanoseconds(self.raft.election_timeout_max)
    }

    /// How long a write is under way at the most before its node knows that the disk is stalled, in nanoseconds of any
    /// clock, with the time that a driver gathers inputs.
    pub(crate) fn stall_noticed_within(&self) -> Time {
        self.at_most(nanoseconds(self.raft.disk_stall_bound())) + self.election_timeout()
    }

    /// How long a leader that no majority reaches leads on at the most, in nanoseconds of any clock.
    pub(crate) fn silence_endured(&self) -> Time {
        self.at_most(self.election_timeout()) + 10 * MILLISECOND
    }

    /// The simulated time between two hand-overs that leaders begin of their own accord, at the least: a leader whose
    /// time is over may not know it yet.
    pub(crate) fn handover_interval(&self) -> Time {
        let interval = nanoseconds(self.raft.handover_interval);
        (2 * interval - self.at_most(interval)).saturating_sub(self.election_timeout())
    }

    /// The longest simulated time in which a clock shows that `time` has passed.
    fn at_most(&self, time: Time) -> Time {
        time + 2 * time / 1_000_000 * self.clock_skew
    }
}

fn nanoseconds(duration: Duration) -> Time {
    Time::try_from(duration.as_nanos()).unwrap_or(Time::MAX)
}

/// Mostly all alike.
fn priorities(random: &mut Stream) -> Vec<u8> {
    if random.chance(600_000) {
        return vec![Member::PRIORITY];
    }
    (0..4).map(|_| *random.pick(&[0, 50, 100, 200])).collect()
}

/// Leases that rely on what the clocks keep, and mostly on no more.
fn lease_reads(random: &mut Stream, clock_skew: u64) -> LeaseReads {
    // One clock as fast as they get, the other one as slow.
    let apart = (2 * clock_skew * 1_000_000).div_ceil(1_000_000 - clock_skew);
    let stated = *random.pick(&[apart, apart, apart + 1_000, 200_000]);
    LeaseReads {
        clock_drift_max: u32::try_from(stated).map_or(LeaseReads::CLOCK_DRIFT_LIMIT, |stated| {
            stated.min(LeaseReads::CLOCK_DRIFT_LIMIT)
        }),
    }
}

/// Small limits bring about in seconds what production meets in months.
fn raft_config(random: &mut Stream) -> raft::Config {
    raft::Config {
        // A promise may last for more than half of what a node that starts again is silent, or for less.
        election_timeout_min: Duration::from_millis(*random.pick(&[150, 150, 150, 200])),
        election_timeout_max: Duration::from_millis(300),
        heartbeat_interval: Duration::from_millis(*random.pick(&[20, 50, 50])),
        append_bytes_max: *random.pick(&[1, 500, 2_000, 512 << 10]),
        in_flight_bytes_max: *random.pick(&[1, 1_000, 4 << 20]),
        uncommitted_bytes_max: *random.pick(&[1, 2_000, 32 << 20, 32 << 20]),
        tail_bytes_max: *random.pick(&[1, 1_000, 16 << 20]),
        apply_bytes_max: *random.pick(&[1, 1_000, 8 << 20]),
        reads_max: *random.pick(&[4, 100_000]),
        retained_entries: *random.pick(&[0, 10, 100, 20_000]),
        purge_step: *random.pick(&[1, 10, 50]),
        handover_interval: Duration::from_millis(*random.pick(&[500, 1_000, 2_000])),
        ..raft::Config::default()
    }
}
