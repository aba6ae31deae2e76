//! The settings of consensus.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{BootError, FeatureLevel, LeaseReads, Planted};

/// Settings of consensus. Members may differ in them; safety depends on none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The shortest silence of a leader after which a follower asks for an election.
    pub election_timeout_min: Duration,
    /// The longest. Each wait is drawn evenly between the two (Raft paper, section 5.2). A leader that a majority has
    /// not answered for this long steps down (Raft dissertation, section 6.2).
    pub election_timeout_max: Duration,
    /// How often a leader says that it lives.
    pub heartbeat_interval: Duration,
    /// The longest random wait before an election after the transport reported the link to the leader as cut.
    pub link_lost_wait_max: Duration,
    /// How long followers may be left without word of a commit that no append carried to them.
    pub commit_notice_delay: Duration,
    /// How long a follower waits for its leader's answer to a read before the read is answered
    /// [`Outcome::NotLeader`](super::Outcome::NotLeader) and may be tried again.
    pub read_timeout: Duration,
    /// Bytes of entries in one append, beyond its first entry.
    pub append_bytes_max: u64,
    /// Bytes of entries sent to one peer and not acknowledged.
    pub in_flight_bytes_max: u64,
    /// Bytes of entries that are not committed, or not on this node's own disk, however many others hold them; more are
    /// answered [`Outcome::Busy`](super::Outcome::Busy).
    pub uncommitted_bytes_max: u64,
    /// Bytes of entries kept in memory for followers and a state machine that lag; beyond these, committed entries are
    /// read back from disk.
    pub tail_bytes_max: u64,
    /// Bytes of entries handed to the state machine and not reported as applied.
    pub apply_bytes_max: u64,
    /// Reads that wait for a confirmation; more are answered [`Outcome::Busy`](super::Outcome::Busy).
    pub reads_max: usize,
    /// Entries kept in the log behind the durable state, so that a follower that lags needs no snapshot.
    pub retained_entries: u64,
    /// Entries kept beyond those for a follower that is in touch and lags, or receives a snapshot: else the log would be
    /// purged past the snapshot before it has arrived, and the next one after it, as long as the load lasts.
    pub lagging_entries_max: u64,
    /// The log is purged in steps of at least this many entries.
    pub purge_step: u64,
    /// Whether this node is a witness, which keeps the log without its commands and no state. What a node is never
    /// changes: its log is good for nothing else.
    pub witness: bool,
    /// What this node's binary supports.
    pub features: FeatureLevel,
    /// How long a leader leads at the least, and its reason lasts, before it hands over of its own accord; no less than
    /// the largest election time-out.
    pub handover_interval: Duration,
    /// A disk whose smoothed write latency is below this is fast enough, however fast the others' are.
    pub slow_disk_latency_min: Duration,
    /// Whether leases are used, and what they may rely on. A leader asks for leases of the smallest election time-out. With
    /// leases a node that starts again votes only after the largest election time-out, and followers of a leader that
    /// dies wait for the smallest one, however fast they noticed.
    pub lease_reads: Option<LeaseReads>,
    /// The mistake that the node makes: none, but in simulations that look for it.
    #[serde(skip)]
    pub planted: Planted,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            election_timeout_min: Duration::from_millis(150),
            election_timeout_max: Duration::from_millis(300),
            heartbeat_interval: Duration::from_millis(50),
            link_lost_wait_max: Duration::from_millis(30),
            commit_notice_delay: Duration::from_millis(2),
            read_timeout: Duration::from_millis(100),
            append_bytes_max: 512 << 10,
            in_flight_bytes_max: 4 << 20,
            uncommitted_bytes_max: 32 << 20,
            tail_bytes_max: 16 << 20,
            apply_bytes_max: 8 << 20,
            reads_max: 100_000,
            retained_entries: 20_000,
            lagging_entries_max: 200_000,
            purge_step: 5_000,
            witness: false,
            features: FeatureLevel::CURRENT,
            handover_interval: Duration::from_secs(10),
            slow_disk_latency_min: Duration::from_millis(2),
            lease_reads: None,
            planted: Planted::default(),
        }
    }
}

impl Config {
    /// Checks that the settings make sense together.
    ///
    /// # Errors
    /// With the first contradiction.
    pub fn validate(&self) -> Result<(), BootError> {
        let wrong = |reason| Err(BootError::Configuration(reason));
        if self.heartbeat_interval.is_zero() {
            return wrong("the heartbeat interval is zero");
        }
        if self.election_timeout_min <= self.heartbeat_interval {
            return wrong("the election time-out is not longer than the heartbeat interval");
        }
        if self.election_timeout_max < self.election_timeout_min {
            return wrong("the largest election time-out is shorter than the smallest");
        }
        if self.link_lost_wait_max.is_zero() {
            return wrong("the wait after a lost link is zero");
        }
        if self.append_bytes_max == 0 || self.in_flight_bytes_max == 0 || self.apply_bytes_max == 0 {
            return wrong("a limit in bytes is zero");
        }
        let drift = self.lease_reads.map_or(0, |lease| lease.clock_drift_max);
        if drift > LeaseReads::CLOCK_DRIFT_LIMIT {
            return wrong("clocks that drift by more than half leave nothing of a lease");
        }
        Ok(())
    }
}
