//! A forced start: every node but one is lost, an operator lets that one go on alone, and the lost ones come back.
//!
//! What only lost nodes had is lost, also when it was acknowledged. The checkers are told exactly from which index on:
//! the first at which the log of the node that goes on differs from what was committed. Up to it nothing may change,
//! and from it on the new lineage is held to everything that the old one was.
//!
//! A node of an ended lineage is talked to by nobody, so it does not run here. It is asked what a real one would find
//! out: that its lineage has ended, and which entries only it has, which is compared with the logs themselves. Where a
//! planted mistake keeps the lineage, it takes part again.

use quorate_core::raft::{self, Comparison, Index, Input, Lineage, Membership, NodeId, Payload, Raft, Term};

use super::checker::{Breach, Verdict, demand};
use super::log::DiskLog;
use super::node::Run;
use super::plan::nth;
use super::schedule::{MILLISECOND, Time};
use super::world::{Event, World};

/// The voters and learners that operators want to have again after a forced start.
const WANTED: usize = 3;

/// The lineages of a run that ended.
#[derive(Debug, Default)]
pub(super) struct Ended(Vec<(Lineage, DiskLog)>);

impl World {
    /// All nodes are lost but one, which is forced to start; the others come back after `back`.
    pub(super) fn force_start(&mut self, survivor: u64, back: Time) -> Verdict {
        let present = self.present();
        let with_data: Vec<NodeId> = present
            .iter()
            .copied()
            .filter(|id| !self.is_witness(*id))
            .collect();
        let Some(survivor) = nth(&with_data, survivor) else {
            return Ok(());
        };
        for id in &present {
            self.crash(*id)?;
        }
        if !self.force(survivor)? {
            // It cannot go on alone; the others were not lost after all.
            for id in present {
                self.schedule.after(MILLISECOND, Event::Start(id));
            }
            return Ok(());
        }
        // What was said before is of connections that have ended, and what a membership spared, of a lineage that has.
        self.schedule
            .retain(|event| !matches!(event, Event::Deliver { .. } | Event::SwitchOff(_)));
        for node in self.nodes.iter_mut().filter(|node| node.id != survivor) {
            if !std::mem::replace(&mut node.gone, true) {
                self.schedule.after(back, Event::ComesBack(node.run()));
            }
        }
        self.schedule.after(MILLISECOND, Event::Start(survivor));
        Ok(())
    }

    /// Writes the forced start of a node that is down. False when the node cannot be forced.
    fn force(&mut self, id: NodeId) -> Result<bool, Breach> {
        let lineage = Lineage(self.membership.lineage().0 + (1 << 64));
        let Some(node) = self.nodes.get_mut(id) else {
            return Ok(false);
        };
        let log = node.disk.durable.clone();
        if !node.store.recover(log.base.position) {
            return Ok(false);
        }
        let config = raft::Config {
            features: node.features,
            witness: false,
            ..self.knobs.raft.clone()
        };
        let applied = node.store.applied.index;
        let Ok(forced) = log.boot(id, applied, 0).forced(lineage, &config) else {
            return Ok(false);
        };
        node.disk.force(&forced.write).map_err(|error| Breach {
            checker: "writes make sense",
            seen: format!("the forced start of node {id}: {error}"),
        })?;
        let next = node.disk.durable.membership().clone();
        let hard_state = node.disk.durable.hard_state;
        self.log(|_| format!("node {id} is forced to start in {:?}", next.lineage()));
        self.statistics.forced_starts += 1;
        self.lineage_ends(&log, hard_state.term);
        self.checkers.promises.durable(id, hard_state)?;
        self.ended.0.push((self.membership.lineage(), log));
        self.first_membership = next.clone();
        self.membership = next;
        self.leader = Some(id);
        self.operator.wanted = WANTED;
        Ok(true)
    }

    /// The checkers go on with what the log of the only survivor has.
    fn lineage_ends(&mut self, log: &DiskLog, term: Term) {
        let now = self.schedule.now();
        let checkers = &mut self.checkers;
        // Requests that were lost may be carried out again.
        checkers.once.clock_steps();
        checkers.streams.lineage_ends();
        let lost_from = checkers.committed.ends_with(log, term);
        checkers.entries.end_after(log.last().index);
        checkers.states.end_before(lost_from);
        checkers.elections.begin_anew();
        checkers.grants.lost_from(now, lost_from);
        checkers.sessions.lost_from(lost_from);
        self.statistics.lost_writes += checkers.clients.lost_from(lost_from);
    }

    /// A node that was lost with a forced start comes back with its disk.
    pub(super) fn comes_back(&mut self, run: Run) -> Verdict {
        let id = run.node;
        let Some(node) = self
            .nodes
            .get_mut(id)
            .filter(|node| node.gone && node.run() == run)
        else {
            return Ok(());
        };
        let log = &node.disk.durable;
        let own = log.membership().lineage();
        if own == self.membership.lineage() {
            node.gone = false;
            return self.start(id);
        }
        let Some((_, kept)) = self.ended.0.iter().find(|(lineage, _)| *lineage == own) else {
            return Ok(());
        };
        self.statistics.came_back += 1;
        check_report(id, log, kept, &self.membership)?;
        let boot = log.boot(id, log.base.position.index, 0);
        let config = raft::Config {
            features: node.features,
            witness: node.witness,
            ..self.knobs.raft.clone()
        };
        let now = node.clock.shows(self.schedule.now());
        let mut raft = Raft::new(config, boot, [0; 32], now).map_err(|error| Breach {
            checker: "a node starts from what it wrote",
            seen: format!("node {id}: {error}"),
        })?;
        let by = self.membership.lineage();
        raft.step(now, Input::Superseded { by: Box::new(by) });
        demand(
            raft.status().quarantine.is_some() && raft.deadline().is_none(),
            "a superseded node is set aside",
            || format!("node {id} of {own:?} takes part although {by:?} followed"),
        )
    }

    /// Operators take in new nodes until there are enough again.
    pub(super) fn grow_again(&mut self) -> Verdict {
        let members = self.membership.members().len();
        if members >= self.operator.wanted {
            self.operator.wanted = 0;
            return Ok(());
        }
        self.take_in_stranger()
    }
}

/// A node with `log` finds out from `membership` that its lineage has ended, and which entries the log that the next
/// lineage began with, `kept`, does not have.
fn check_report(id: NodeId, log: &DiskLog, kept: &DiskLog, membership: &Membership) -> Verdict {
    const CHECKER: &str = "a node from before a forced start knows what only it has";
    let lineage = log.membership().lineage();
    let Some(fork) = membership.fork_of(lineage) else {
        return Err(Breach {
            checker: CHECKER,
            seen: format!("node {id} is of {lineage:?}, which {membership:?} does not remember"),
        });
    };
    let reported = log
        .boot(id, log.base.position.index, 0)
        .outline()
        .compared_with(&fork.log);
    let from = log.base.position.index.max(kept.base.position.index).0 + 1;
    let first = (from..=log.last().index.0)
        .map(Index)
        .find(|index| !agree(log, kept, *index));
    let right = match reported {
        Comparison::OnlyHere(only) if only.at_least => true,
        Comparison::OnlyHere(only) => Some(only.first.index) == first && only.last == log.last(),
        Comparison::Contained => first.is_none(),
        Comparison::Unknown => log.last().index < kept.last().index,
    };
    demand(right, CHECKER, || {
        format!("node {id} reports {reported:?}; the first entry that only it has is {first:?}")
    })
}

/// Whether two logs have the same entry at an index.
fn agree(one: &DiskLog, other: &DiskLog, index: Index) -> bool {
    match (one.entry(index), other.entry(index)) {
        (Some(one), Some(other)) => {
            let omitted = [one, other].iter().any(|entry| entry.payload == Payload::Omitted);
            one.position == other.position && (omitted || one.payload == other.payload)
        }
        (one, other) => one.is_none() && other.is_none(),
    }
}
