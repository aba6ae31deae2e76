//! What runs measure beside counts: how long failovers took, and what broke.

use std::collections::BTreeMap;

use quorate_core::raft::NodeId;

use super::plan::FaultKind;
use super::schedule::{MILLISECOND, Time};
use super::world::World;
use crate::trace::name_of;

/// What was measured in one run or in many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measurements {
    /// From the end of the process that led the latest term to the next election. Other faults may last meanwhile, and
    /// the whole cluster may be down.
    pub failovers: Durations,
    /// Faults that came, by kind.
    pub faults: BTreeMap<String, u64>,
}

impl Measurements {
    /// Adds another run.
    pub fn add(&mut self, other: &Measurements) {
        self.failovers.add(&other.failovers);
        for (kind, count) in &other.faults {
            *self.faults.entry(kind.clone()).or_default() += count;
        }
    }
}

/// How often something took how many milliseconds: exact to one, and small however many runs there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Durations(BTreeMap<u64, u64>);

impl Durations {
    /// Something took so many nanoseconds.
    pub fn record(&mut self, took: Time) {
        *self.0.entry(took / MILLISECOND).or_default() += 1;
    }

    /// Adds others.
    pub fn add(&mut self, other: &Durations) {
        for (milliseconds, count) in &other.0 {
            *self.0.entry(*milliseconds).or_default() += count;
        }
    }

    /// Milliseconds and how often, in ascending order.
    pub fn counts(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter().map(|(milliseconds, count)| (*milliseconds, *count))
    }
}

/// What is measured in a run that goes on.
#[derive(Debug, Default)]
pub(super) struct Measuring {
    pub(super) done: Measurements,
    /// Since when nobody leads who was elected.
    leaderless_since: Option<Time>,
}

impl World {
    /// Notes that a process is about to end.
    pub(super) fn measure_end(&mut self, id: NodeId) {
        if self.current_leader() == Some(id) {
            let since = &mut self.measuring.leaderless_since;
            *since = since.or(Some(self.schedule.now()));
        }
    }

    /// Notes that a node was elected.
    pub(super) fn measure_election(&mut self) {
        if let Some(since) = self.measuring.leaderless_since.take() {
            let took = self.schedule.now() - since;
            self.measuring.done.failovers.record(took);
        }
    }

    /// Notes that something breaks.
    pub(super) fn measure_fault(&mut self, kind: &FaultKind) {
        *self.measuring.done.faults.entry(name_of(kind)).or_default() += 1;
    }
}
