//! The second phase: everything is healed, and the cluster must work again within a bounded time.
//!
//! It must have one leader, take fresh writes, and bring every node to the same state; then what clients saw is judged.

use std::time::Duration;

use super::holdings::{self, Around};
use super::watchers::{Truth, WATCHERS};
use super::world::{Event, Phase, World};
use crate::consensus::checker::{Breach, Verdict, demand};
use crate::consensus::schedule::{SECOND, Time};
use crate::linearizable::{self, Verdict as Judgement};
use crate::serializable;
use crate::trace;

/// After this time fresh writes have been acknowledged.
const WRITES_WITHIN: Time = 10 * SECOND;
/// Fresh writes that must be acknowledged.
const FRESH_WRITES: u64 = 10;
/// How long the nodes may take to agree once no client asks any more, and to say what they hold.
const AGREED_WITHIN: Time = 15 * SECOND;
/// How long nodes may take to let go of what they do not need any more. QUIC keeps a connection that was closed for three
/// probe time-outs (RFC 9000, section 10.2), each up to three times the round trip; and to a process that stood still for
/// ten seconds a packet that waited meanwhile took that long.
const RESTED_WITHIN: Time = 120 * SECOND;
/// Connections of clients that asked last, and have not been closed yet.
const LATE_CLIENTS: usize = 2;
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
    /// Nobody asks any more; the nodes let go of what they do not need.
    Resting { since: Time },
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
        self.restarts.values_mut().for_each(|down| *down = 0);
        self.wires.with_network(|network| network.calm());
        self.wires.mend();
        let mut knobs = self.plan.knobs.clone();
        knobs.calm();
        for id in self.nodes() {
            self.host(id).disk.heal(knobs.sync_mean);
            self.host(id).gate.open();
            self.host(id).clock.set_date(0);
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
                    self.phase = Phase::Recovery(Progress::Resting { since: self.now });
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
            Progress::Resting { since } => {
                let excess = self.excess();
                if excess.is_none() {
                    self.phase = Phase::Done;
                }
                demand(
                    self.now - since < RESTED_WITHIN,
                    "nodes let go of what they do not need",
                    || excess.unwrap_or_default(),
                )
            }
        }
    }

    /// The first member that holds more than one that rests needs, in words.
    fn excess(&self) -> Option<String> {
        let members = self.members();
        let guests = self
            .hosts
            .iter()
            .filter(|host| !members.contains(&host.id) && host.runs());
        let allowed = holdings::allowed(Around {
            members: members.len() - 1,
            guests: guests.count(),
            clients: WATCHERS + LATE_CLIENTS,
            over_quic: self.clients.watchers.over_quic(),
        });
        let held = members.iter().map(|id| (id, self.host(*id).holdings()));
        let (id, held) = held.into_iter().find(|(_, held)| !held.are_within(&allowed))?;
        Some(format!("node {id} holds {held}, and needs {allowed} at the most"))
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
        self.sight.judge_links()?;
        self.sight
            .with_truth(|truth| self.clients.watchers.judge(truth))?;
        let transactions = self.clients.transactions();
        self.statistics.transactions += transactions.len() as u64;
        serializable::check(&transactions).map_err(|anomaly| Breach {
            checker: "strict serializability",
            seen: anomaly.to_string(),
        })?;
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
