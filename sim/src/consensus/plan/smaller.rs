//! Plans with less in them, to find out what a violation needs.

use std::ops::Range;
use std::time::Duration;

use quorate_core::raft::{self, Member};

use super::{Knobs, Plan};
use crate::consensus::schedule::{MILLISECOND, Time};

impl Plan {
    /// The plan without some events; faults come first, then operations.
    pub(crate) fn without(&self, places: Range<usize>) -> Plan {
        let mut smaller = self.clone();
        let mut place = 0;
        let mut stays = || {
            place += 1;
            !places.contains(&(place - 1))
        };
        smaller.faults.retain(|_| stays());
        smaller.operations.retain(|_| stays());
        smaller
    }

    /// The plan of the last events alone: those of the last `window`, which begin when the cluster has a leader.
    pub(crate) fn only_last(&self, window: Time) -> Plan {
        let from = self.duration.saturating_sub(window);
        let earlier = from.saturating_sub(BEGINNING);
        let mut smaller = self.clone();
        smaller.duration -= earlier;
        smaller.faults.retain(|fault| fault.at >= from);
        smaller.operations.retain(|operation| operation.at >= from);
        smaller.faults.iter_mut().for_each(|fault| fault.at -= earlier);
        let operations = smaller.operations.iter_mut();
        operations.for_each(|operation| operation.at -= earlier);
        smaller
    }

    /// The plan with fewer voters at the beginning, the smallest first.
    pub(crate) fn with_fewer_nodes(&self) -> Vec<Plan> {
        let with = |nodes| Plan {
            nodes,
            ..self.clone()
        };
        (1..self.nodes).map(with).collect()
    }

    /// The plan with other noise; with its own when `more` is 0.
    pub(crate) fn with_noise(&self, more: u64) -> Plan {
        Plan {
            noise: self.noise.wrapping_add(more),
            ..self.clone()
        }
    }

    /// How many places [`Plan::with_calmer_knobs`] knows.
    pub(crate) const CALMER: usize = CALM.len() + 1;

    /// The plan with all knobs at rest at place 0, and with one of them at the places after it.
    pub(crate) fn with_calmer_knobs(&self, place: usize) -> Plan {
        let mut calmer = self.clone();
        let calm = match place {
            0 => &CALM[..],
            _ => &CALM[place - 1..place],
        };
        calm.iter().for_each(|calm| calm(&mut calmer.knobs));
        calmer
    }

    /// The phase with faults ends right after `time`, unless it ends before.
    pub(crate) fn end_faults_at(&mut self, time: Time) {
        self.duration = self.duration.min(time + MILLISECOND);
        self.settle();
    }
}

/// Within this a cluster has a leader when nothing breaks.
const BEGINNING: Time = 500 * MILLISECOND;

/// Brings one knob to rest.
type Calm = fn(&mut Knobs);

const CALM: [Calm; 14] = [
    |knobs| (knobs.loss, knobs.duplication, knobs.latency_spike) = (0, 0, 0),
    |knobs| knobs.ordered_links = true,
    |knobs| knobs.encode_messages = false,
    |knobs| knobs.batching = 0,
    |knobs| knobs.snapshot_failure = 0,
    |knobs| knobs.clock_skew = 0,
    |knobs| knobs.keys = 1,
    |knobs| knobs.clients_over_quic = 0,
    |knobs| knobs.request_mean = 50 * MILLISECOND,
    |knobs| knobs.features_max = 1,
    |knobs| knobs.evenly_slow_disks = false,
    |knobs| knobs.priorities = vec![Member::PRIORITY],
    |knobs| knobs.boot_tail_max = 10_000,
    |knobs| {
        knobs.raft = raft::Config {
            election_timeout_min: Duration::from_millis(150),
            election_timeout_max: Duration::from_millis(300),
            heartbeat_interval: Duration::from_millis(50),
            ..raft::Config::default()
        }
    },
];
