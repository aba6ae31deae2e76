//! What a simulated cluster is like before anything happens to it.

use std::time::Duration;

use quorate_core::raft::{self, LeaseReads, NodeId};

use crate::consensus::NODES_MAX;
use crate::consensus::plan::{Knobs, Plan};
use crate::consensus::schedule::Time;
use crate::random::PartsPerMillion;

/// How clients read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reads {
    /// Confirmed by a majority each time.
    #[default]
    Linearizable,
    /// From the leader alone, while it holds a lease.
    Lease,
}

/// What a simulated cluster is like: its machines, its clocks, its network and its clients. Machines are numbered from
/// 1: first those that found the cluster, then learners, then spares.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Nodes that found the cluster together and vote.
    pub nodes: u64,
    /// Nodes that join as followers for good: they never vote and never lead.
    pub learners: u64,
    /// Machines that belong to no cluster until they are taken in.
    pub spares: u64,
    /// The shortest and the longest wait for a leader.
    pub election_timeout: (Duration, Duration),
    /// How often a leader says that it is there.
    pub heartbeat: Duration,
    /// Whether leaders keep leases, and by how many parts of a million clocks may drift apart for them.
    pub lease_drift: Option<PartsPerMillion>,
    /// Entries that stay in the log behind a snapshot; few of them, and who was away for long needs a snapshot.
    pub retained_entries: u64,
    /// The mean time of a packet between two machines.
    pub latency: Duration,
    /// How many of a million packets are lost, all the time.
    pub loss: PartsPerMillion,
    /// The mean time of a sync of the log.
    pub sync: Duration,
    /// By how many parts of a million clocks run fast or slow; each is drawn from the seed.
    pub clock_skew: PartsPerMillion,
    /// How often clients ask, all together, in a second.
    pub requests: u64,
    /// How they read.
    pub reads: Reads,
}

impl Default for Setup {
    /// Three nodes with the timings that production has, on good machines, and 50 requests a second.
    fn default() -> Setup {
        let raft = raft::Config::default();
        Setup {
            nodes: 3,
            learners: 0,
            spares: 0,
            election_timeout: (raft.election_timeout_min, raft.election_timeout_max),
            heartbeat: raft.heartbeat_interval,
            lease_drift: None,
            retained_entries: raft.retained_entries,
            latency: Duration::from_micros(300),
            loss: 0,
            sync: Duration::from_micros(300),
            clock_skew: 0,
            requests: 50,
            reads: Reads::Linearizable,
        }
    }
}

/// Why a cluster cannot be simulated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// Too few or too many machines.
    #[error("a cluster has 1 to {NODES_MAX} nodes, and 1 to {NODES_MAX} machines with learners and spares")]
    Machines,
    /// No client ever asks.
    #[error("clients ask at least once a second")]
    Requests,
    /// A clock that runs backwards, or a network that carries nothing.
    #[error("{0} is a share, less than 100 %")]
    Share(&'static str),
    /// The timings contradict each other.
    #[error("{0}")]
    Timing(String),
}

impl Setup {
    /// # Errors
    /// When a cluster like this cannot be.
    pub fn check(&self) -> Result<(), SetupError> {
        let machines = self
            .nodes
            .saturating_add(self.learners)
            .saturating_add(self.spares);
        if self.nodes == 0 || machines > NODES_MAX {
            return Err(SetupError::Machines);
        }
        if self.requests == 0 {
            return Err(SetupError::Requests);
        }
        for (share, what) in [(self.loss, "the loss"), (self.clock_skew, "the clock skew")] {
            if share >= 1_000_000 {
                return Err(SetupError::Share(what));
            }
        }
        let timing = self.raft().validate();
        timing.map_err(|error| SetupError::Timing(error.to_string()))
    }

    fn raft(&self) -> raft::Config {
        raft::Config {
            election_timeout_min: self.election_timeout.0,
            election_timeout_max: self.election_timeout.1,
            heartbeat_interval: self.heartbeat,
            retained_entries: self.retained_entries,
            lease_reads: self
                .lease_drift
                .map(|clock_drift_max| LeaseReads { clock_drift_max }),
            ..raft::Config::default()
        }
    }

    /// A run in which nothing happens by itself.
    pub(super) fn plan(&self, seed: u64) -> Plan {
        let knobs = Knobs {
            latency_mean: nanoseconds(self.latency),
            loss: self.loss,
            sync_mean: nanoseconds(self.sync),
            clock_skew: u64::from(self.clock_skew),
            ..Knobs::steady(self.raft())
        };
        Plan::blank(seed, self.nodes, knobs)
    }
}

/// Which machine is what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Topology {
    pub(super) voters: Vec<NodeId>,
    /// Voters without data.
    pub(super) witnesses: Vec<NodeId>,
    pub(super) learners: Vec<NodeId>,
    pub(super) spares: Vec<NodeId>,
    /// Nodes that were configured for another cluster, and by mistake try to join this one; the last of all.
    pub(super) strangers: Vec<NodeId>,
}

impl Topology {
    pub(super) fn new(nodes: u64, learners: u64, spares: u64) -> Topology {
        let ids = |from: u64, count: u64| (from + 1..=from + count).map(NodeId).collect();
        Topology {
            voters: ids(0, nodes),
            witnesses: Vec::new(),
            learners: ids(nodes, learners),
            spares: ids(nodes + learners, spares),
            strangers: Vec::new(),
        }
    }

    /// The last voters, so many, are witnesses: fewer than half of them at the most.
    pub(super) fn with_witnesses(mut self, count: u64) -> Topology {
        let voters = self.voters.len();
        let most = voters.saturating_sub(1) / 2;
        let count = usize::try_from(count).unwrap_or(most).min(most);
        self.witnesses = self.voters[voters - count..].to_vec();
        self
    }

    /// All machines, in the order of their numbers.
    pub(super) fn machines(&self) -> impl Iterator<Item = NodeId> {
        let Topology {
            voters,
            learners,
            spares,
            strangers,
            witnesses: _,
        } = self;
        let own = voters.iter().chain(learners).chain(spares);
        own.chain(strangers).copied()
    }
}

pub(super) fn nanoseconds(duration: Duration) -> Time {
    Time::try_from(duration.as_nanos()).unwrap_or(Time::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_that_cannot_be_is_refused() {
        let setup = Setup::default();
        assert_eq!(setup.check(), Ok(()));
        let refusal = |setup: Setup| setup.check().expect_err("it cannot be");
        let crowd = Setup {
            spares: NODES_MAX,
            ..setup.clone()
        };
        assert_eq!(refusal(crowd), SetupError::Machines);
        let idle = Setup {
            requests: 0,
            ..setup.clone()
        };
        assert_eq!(refusal(idle), SetupError::Requests);
        let silent = Setup {
            loss: 1_000_000,
            ..setup.clone()
        };
        assert_eq!(refusal(silent), SetupError::Share("the loss"));
        let hasty = Setup {
            heartbeat: Duration::from_secs(1),
            ..setup
        };
        assert!(matches!(refusal(hasty), SetupError::Timing(_)));
    }
}
