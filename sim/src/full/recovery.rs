//! The second phase: everything is healed, and the cluster must work again within a bounded time.
//!
//! It must have one leader, take fresh writes, and bring every node to the same state; then what clients saw is judged.

use std::time::Duration;

use super::watchers::Truth;
use super::world::{Event, Phase, World};
use crate::consensus::checker::{Breach, Verdict, demand};
use crate::consensus::schedule::{SECOND, Time};
use crate::linearizable::{self, Verdict as Judgement};
use crate::trace;

/// After this time fresh writes have been acknowledged.
const WRITES_WITHIN: Time = 10 * SECOND;
/// Fresh writes that must be acknowledged.
const FRESH_WRITES: u64 = 10;
/// How long the nodes may take to agree once no client asks any more, and to say what they hold.
const AGREED_WITHIN: Time = 15 * SECOND;
/// How long the search for an order of one key's operations may take, in wall time.
const BUDGET: Duration = Duration::from_secs(5);

/// How far the recovery is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Clients wait for fresh writes.
    Writing { since: Time, before: u64 },
    /// Clients have ended; the nodes come to the same state.
    Agreeing { since: Time },
    /// A client asks for everything that is there.
    Listing { since: Time },
}

impl World {
    /// Ends the phase with faults: everything is repaired, started and connected.
    pub(super) fn recover(&mut self) {
        self.tell(|| trace::Event::Healed { nodes: None });
        while let Some(event) = self.schedule.next() {
            if let Event::Start(_) = event {
                self.happen(event);
            }
        }
        self.wires.with_network(|network| network.calm());
        let mut knobs = self.plan.knobs.clone();
        knobs.calm();
        for id in self.nodes() {
            self.host(id).disk.heal(knobs.sync_mean);
            self.host(id).gate.open();
            if self.members.contains(&id) {
                self.start(id);
            }
        }
        self.phase = Phase::Recovery(Progress::Writing {
            since: self.now,
            before: self.clients.counts().acknowledged,
        });
    }

    pub(super) fn recovering(&mut self) -> Verdict {
        let Phase::Recovery(progress) = self.phase else {
            return Ok(());
        };
        match progress {
            Progress::Writing { since, before } => {
                let fresh = self.clients.counts().acknowledged - before;
                if fresh >= FRESH_WRITES {
                    self.clients.end();
                    self.statistics.recovery = self.now - since;
                    self.phase = Phase::Recovery(Progress::Agreeing { since: self.now });
                }
                demand(
                    self.now - since < WRITES_WITHIN,
                    "a healed cluster takes writes in time",
                    || format!("{fresh} writes were acknowledged; {}", self.sight.describe()),
                )
            }
            Progress::Agreeing { since } => {
                if self.clients.are_quiet() && self.sight.agreed(&self.members()).is_some() {
                    let asked = self.sight.leader().map_or(self.hosts[0].id, |(_, leader)| leader);
                    self.clients.list(self.host(asked).client_address());
                    self.phase = Phase::Recovery(Progress::Listing { since: self.now });
                }
                demand(
                    self.now - since < AGREED_WITHIN,
                    "a healed cluster agrees in time",
                    || self.sight.describe(),
                )
            }
            Progress::Listing { since } => {
                let last = self.sight.with_truth(Truth::last);
                if self.clients.listed().is_some() && self.clients.watchers.have_heard_of(last) {
                    self.phase = Phase::Done;
                }
                demand(
                    self.now - since < AGREED_WITHIN,
                    "a healed cluster answers in time",
                    || {
                        let watchers = self.clients.watchers.describe();
                        format!("{watchers}, of {last} revisions; {}", self.sight.describe())
                    },
                )
            }
        }
    }

    /// Judges what clients saw.
    pub(super) fn judge(&mut self) -> Verdict {
        let surprises = self.clients.surprises();
        demand(surprises.is_empty(), "answers are what they should be", || {
            surprises.join("; ")
        })?;
        let found = self.clients.listed().unwrap_or_default();
        self.statistics.lost_writes += self.clients.lost(&found);
        for (key, (value, revision)) in self.clients.acknowledged() {
            let there = found.get(&key);
            demand(
                there == Some(&(value, revision)),
                "no acknowledged write is lost",
                || {
                    format!(
                        "{key} = {value} was acknowledged with revision {revision}; in the end it is {there:?}"
                    )
                },
            )?;
        }
        self.sight
            .with_truth(|truth| self.clients.watchers.judge(truth))?;
        for (key, operations) in self.clients.histories() {
            match linearizable::check(&operations, BUDGET) {
                Judgement::Linearizable => {}
                Judgement::Undecided => self.statistics.undecided += 1,
                Judgement::Violation { explained, of } => {
                    return Err(Breach {
                        checker: "linearizability",
                        seen: format!(
                            "of {of} operations on {key}, {explained} are explained by the longest order that fits"
                        ),
                    });
                }
            }
        }
        Ok(())
    }
}
