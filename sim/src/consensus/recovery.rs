//! After the phase with faults the cluster must work again, within bounded times and in two halves.
//!
//! 1. A quorum is healed, and what ails the others is permanent (see [`survivors`](super::survivors)): the quorum must
//!    find a leader, leave a joint phase that was begun, commit fresh writes, answer reads and every request put to it,
//!    and bring its members to the same state.
//! 2. Everything is healed: all members must, and the leader that they prefer leads, and they use all features that
//!    they have in common.

use std::collections::BTreeSet;

use quorate_core::raft::{FeatureLevel, LinkEvent, Membership, NodeId, Position, Role};

use super::checker::client::{RequestKind, Serial};
use super::checker::{Breach, Verdict, demand, flood};
use super::marks::Mark;
use super::node::{Node, Run};
use super::schedule::{MILLISECOND, Time};
use super::world::{Event, World};
use crate::trace;

/// How far the recovery is.
#[derive(Debug)]
pub(super) struct Recovery {
    /// The nodes that are healed; none when all are.
    healed: Option<BTreeSet<NodeId>>,
    since: Time,
    /// What the member that is furthest behind needs to take in what it lacks.
    catching_up: Time,
    fresh: Vec<Serial>,
    acknowledged: usize,
    /// Who answered a read since.
    readers: BTreeSet<NodeId>,
    /// Whether there has been a leader since.
    led: bool,
    pub(super) done: bool,
}

/// Largest election time-outs, by the slowest clock, within which a healed cluster has a leader. A leader that fell
/// silent is missed after one; what was promised to it, or to anybody before a restart, holds for no longer. A node of
/// the lowest priority waits for three. That leaves two for candidates that got into each other's way.
const LEADER_WITHIN_TIMEOUTS: u64 = 6;
/// More of them within which a healed quorum has one while the others' faults last. A leader outside of it that is
/// still heard writes within a poll (a thirtieth of a time-out), knows three later that its disk is stalled and says so
/// with its next heartbeat; one that hears nobody has stepped down by then. It may have handed over to a node that
/// nobody hears: another one.
const LEADER_OUTSIDE_TIMEOUTS: u64 = 5;
/// Largest election time-outs within which everything must have recovered, beside the time in which a member
/// that lags far behind catches up. With a leader after eleven, requests that were accepted by an earlier one are
/// given up after four more, and a hand-over to a preferred node is tried up to three times: each needs the interval
/// between two (at most seven time-outs) and may take one.
const RECOVERED_WITHIN_TIMEOUTS: u64 = 40;
/// Writes that must be acknowledged.
const FRESH_WRITES: usize = 10;

impl World {
    /// Ends the phase with faults: a quorum is healed, or everything at once.
    pub(super) fn recover(&mut self) -> Verdict {
        match self.draw_survivors() {
            Some(healed) => {
                self.tell(|_| trace::Event::Healed {
                    nodes: Some(healed.iter().map(|id| id.0).collect()),
                });
                self.statistics.quorums += 1;
                self.begin_recovery(Some(healed.clone()));
                self.make_faults_permanent(&healed)?;
                self.repair(|id| healed.contains(&id));
            }
            None => self.recover_everyone(),
        }
        self.schedule.after(MILLISECOND, Event::Poll);
        Ok(())
    }

    /// Everything is repaired, started and connected.
    fn recover_everyone(&mut self) {
        self.tell(|_| trace::Event::Healed { nodes: None });
        self.begin_recovery(None);
        // A member may have been taken in just now, by a leader that nobody heard of since. Who is elected will tell.
        let mut memberships: Vec<(Position, Membership)> = self
            .nodes
            .iter()
            .map(|node| {
                let log = &node.disk.written;
                (log.last(), log.membership().clone())
            })
            .filter(|(_, membership)| membership.lineage() == self.membership.lineage())
            .collect();
        memberships.sort_by_key(|(last, _)| std::cmp::Reverse(*last));
        for (_, membership) in memberships {
            let newcomers = membership.members().iter();
            for (id, member) in newcomers {
                if self.nodes.get(*id).is_none() {
                    self.create_member(*id, member);
                }
            }
        }
        self.repair(|_| true);
    }

    fn begin_recovery(&mut self, healed: Option<BTreeSet<NodeId>>) {
        self.recovery = Some(Recovery {
            healed,
            since: self.schedule.now(),
            catching_up: 0,
            fresh: Vec::new(),
            acknowledged: 0,
            readers: BTreeSet::new(),
            led: false,
            done: false,
        });
        self.network.calm();
        self.knobs.calm();
    }

    /// Ends the faults of some nodes, and starts those that are down.
    fn repair(&mut self, chosen: impl Fn(NodeId) -> bool) {
        let now = self.schedule.now();
        let mut stalled = Vec::new();
        for node in self.nodes.iter_mut().filter(|node| chosen(node.id)) {
            node.paused_until = 0;
            node.slow_until = 0;
            node.disk_fails = false;
            node.crash_at = None;
            if std::mem::take(&mut node.stalled_until) > now {
                stalled.push(node.run());
            }
        }
        for run in stalled {
            self.schedule.after(MILLISECOND, Event::Sync(run));
        }
        for id in self.present().into_iter().filter(|id| chosen(*id)) {
            self.resume(id);
            self.links_change(id, LinkEvent::Connected);
            let delay = self.random.drivers.around(20 * MILLISECOND);
            self.schedule.after(delay, Event::Start(id));
        }
        let catching_up = self.time_to_catch_up(chosen);
        if let Some(recovery) = &mut self.recovery {
            recovery.catching_up = catching_up;
        }
    }

    /// Twice the mean time in which the log and the state machine that are furthest behind take in what they lack: a run
    /// with small limits brings and hands over one entry at a time.
    fn time_to_catch_up(&self, chosen: impl Fn(NodeId) -> bool) -> Time {
        let end = |node: &Node| node.disk.written.last().index.0;
        let longest = self.nodes.iter().map(end).max().unwrap_or_default();
        let healed = || self.nodes.iter().filter(|node| !node.gone && chosen(node.id));
        let log_behind = longest - healed().map(end).min().unwrap_or_default();
        let state_behind = healed()
            .filter(|node| !node.witness)
            .map(|node| longest.saturating_sub(node.store.applied.index.0))
            .max();
        let replicated = self.knobs.time_to_replicate(log_behind);
        let applied = self.knobs.time_to_apply(state_behind.unwrap_or_default());
        2 * replicated.max(applied)
    }

    /// Whether only a quorum is healed now.
    pub(super) fn only_quorum_is_healed(&self) -> bool {
        let recovery = self.recovery.as_ref();
        recovery.is_some_and(|recovery| recovery.healed.is_some())
    }

    /// Whether a node is healed.
    pub(super) fn is_healed(&self, id: NodeId) -> bool {
        let recovery = self.recovery.as_ref();
        recovery.is_some_and(|recovery| match &recovery.healed {
            Some(healed) => healed.contains(&id),
            None => true,
        })
    }

    /// Whether a node that is down may start: what is down for good does not.
    pub(super) fn may_run(&self, id: NodeId) -> bool {
        self.recovery.is_none() || self.is_healed(id)
    }

    /// Whether all that is healed has recovered; asks for something until enough was answered.
    pub(super) fn poll(&mut self) -> Verdict {
        let now = self.schedule.now();
        let wanting = self.what_is_wanting();
        let leads = self.healed_leader().is_some();
        let quorum_only = self.only_quorum_is_healed();
        let Some(recovery) = &mut self.recovery else {
            return Ok(());
        };
        let took = now - recovery.since;
        recovery.led |= leads;
        let (led, catching_up) = (recovery.led, recovery.catching_up);
        let Some(wanting) = wanting else {
            return self.recovered(took);
        };
        let outside = if quorum_only { LEADER_OUTSIDE_TIMEOUTS } else { 0 };
        let timeouts = if led {
            RECOVERED_WITHIN_TIMEOUTS
        } else {
            LEADER_WITHIN_TIMEOUTS + outside
        };
        let limit = timeouts * self.knobs.election_timeout() + if led { catching_up } else { 0 };
        demand(took < limit, "liveness", || {
            let healed = match &self.recovery {
                Some(Recovery {
                    healed: Some(healed), ..
                }) => format!("a quorum, {healed:?},"),
                _ => "everything".to_owned(),
            };
            format!(
                "{wanting}, {} ms after {healed} was healed: {}",
                took / MILLISECOND,
                self.picture()
            )
        })?;
        self.schedule.after(10 * MILLISECOND, Event::Poll);
        self.ask_something_fresh()
    }

    /// What is healed works: the rest is healed too, or the run is over.
    fn recovered(&mut self, took: Time) -> Verdict {
        if self.only_quorum_is_healed() {
            self.statistics.quorum_recovery += took;
            self.marks.note(Mark::QuorumHealedAlone);
            self.recover_everyone();
            self.schedule.after(MILLISECOND, Event::Poll);
            return Ok(());
        }
        self.statistics.recovery += took;
        if let Some(recovery) = &mut self.recovery {
            recovery.done = true;
        }
        Ok(())
    }

    fn ask_something_fresh(&mut self) -> Verdict {
        let now = self.schedule.now();
        let clients = &self.checkers.clients;
        let Some(recovery) = &mut self.recovery else {
            return Ok(());
        };
        recovery.acknowledged = recovery
            .fresh
            .iter()
            .filter(|serial| clients.is_acknowledged(**serial))
            .count();
        let enough = recovery.acknowledged >= FRESH_WRITES;
        // What replicates slowly works off its backlog first.
        let healed = |id| recovery.healed.as_ref().is_none_or(|healed| healed.contains(&id));
        let open = clients.open().filter(|(_, request)| healed(request.run.node));
        let idle = open.count() <= FRESH_WRITES;
        // A leader that is not healed finds out by what it is asked that it cannot go on.
        let moves = |id| self.nodes.get(id).is_some_and(|node| node.paused_until <= now);
        let leader = self.healed_leader().or_else(|| self.leader_among(moves));
        let leader = leader.and_then(|id| self.nodes.get(id)).map(Node::run);
        // Whose disk is fast is found out by writing.
        let prefers = !self.only_quorum_is_healed() && self.preferred_over_leader().is_some();
        let wanted = idle && (!enough || prefers);
        if let Some(run) = leader.filter(|_| wanted) {
            let serial = self.write_fresh(run)?;
            if let Some(recovery) = &mut self.recovery {
                recovery.fresh.push(serial);
            }
        }
        self.silent_readers()
            .into_iter()
            .try_for_each(|run| self.read(run))
    }

    /// A node answers a read.
    pub(super) fn note_answered_read(&mut self, node: NodeId) {
        if let Some(recovery) = &mut self.recovery {
            recovery.readers.insert(node);
        }
    }

    /// The healed members that have answered no read yet, and are asked none.
    fn silent_readers(&self) -> Vec<Run> {
        let Some(recovery) = &self.recovery else {
            return Vec::new();
        };
        let asked: BTreeSet<NodeId> = self
            .checkers
            .clients
            .open()
            .filter(|(_, request)| matches!(request.kind, RequestKind::Read { .. }))
            .map(|(_, request)| request.run.node)
            .collect();
        self.nodes
            .processes()
            .map(|(node, _)| node)
            .filter(|node| self.is_healed(node.id) && self.has_state(node))
            .filter(|node| !recovery.readers.contains(&node.id) && !asked.contains(&node.id))
            .map(Node::run)
            .collect()
    }

    /// Whether a node is a member that can be read from.
    fn has_state(&self, node: &Node) -> bool {
        !node.gone && !node.witness && self.membership.members().contains_key(&node.id)
    }

    /// The healed node that leads the latest term.
    fn healed_leader(&self) -> Option<NodeId> {
        self.leader_among(|id| self.is_healed(id))
    }

    /// What keeps the cluster from having recovered.
    fn what_is_wanting(&self) -> Option<String> {
        let recovery = self.recovery.as_ref()?;
        let Some(leader) = self.healed_leader() else {
            return Some("there is no leader".to_owned());
        };
        let node = self.nodes.get(leader)?;
        let status = node.process.as_ref()?.raft.status();
        if status.membership.is_joint() {
            return Some("the joint phase is not over".to_owned());
        }
        if recovery.acknowledged < FRESH_WRITES {
            return Some(format!(
                "{} of {FRESH_WRITES} fresh writes are acknowledged",
                recovery.acknowledged
            ));
        }
        let asked = || self.checkers.clients.open();
        let mut open = asked().filter(|(_, request)| self.is_healed(request.run.node));
        if let Some((token, request)) = open.next() {
            let open = 1 + open.count();
            return Some(format!(
                "{open} requests have no answer, such as {token:?}: {request:?}"
            ));
        }
        if recovery.healed.is_none()
            && let Some(wanting) = self.what_the_whole_wants(status.membership, leader)
        {
            return Some(wanting);
        }
        if recovery.healed.is_some()
            && let Some(forsaken) = self.forsaken_session(leader)
        {
            return Some(forsaken);
        }
        if status.commit != status.last.index {
            return Some(format!("{} of {} is committed", status.commit, status.last.index));
        }
        status
            .membership
            .members()
            .keys()
            .filter(|member| self.is_healed(**member))
            .find_map(|member| self.what_a_member_lacks(*member, leader))
    }

    /// What can be asked only when all members are well.
    fn what_the_whole_wants(&self, membership: &Membership, leader: NodeId) -> Option<String> {
        if let Some(level) = self.unused_features(membership) {
            return Some(format!("the feature level is not raised to {level}"));
        }
        if let Some(wanting) = self.what_sessions_want(leader) {
            return Some(wanting);
        }
        if let Some(lease) = self.lasting_lease() {
            return Some(format!("lease {lease}, which nobody keeps alive, is not over"));
        }
        let preferred = self.preferred_over_leader()?;
        Some(format!(
            "{preferred}, which is preferred to {leader}, does not lead"
        ))
    }

    /// The features that all members support and the cluster does not use.
    fn unused_features(&self, membership: &Membership) -> Option<FeatureLevel> {
        let binaries = membership.members().keys().map(|id| {
            let node = self.nodes.get(*id)?;
            node.process.as_ref().map(|_| node.features)
        });
        let common = binaries.min().flatten();
        common.filter(|common| *common > membership.level())
    }

    /// The voter that should lead, and does not: a leader hands over to whom the members prefer.
    fn preferred_over_leader(&self) -> Option<NodeId> {
        let leader = self.nodes.get(self.healed_leader()?)?;
        let membership = leader.process.as_ref()?.raft.status().membership;
        let priority = |id: &NodeId| membership.members().get(id).map(|member| member.priority);
        membership
            .voters()
            .iter()
            .filter(|id| self.nodes.get(**id).is_some_and(|node| node.process.is_some()))
            .find(|id| priority(id) > priority(&leader.id) && !membership.is_witness(**id))
            .copied()
    }

    fn what_a_member_lacks(&self, id: NodeId, leader: NodeId) -> Option<String> {
        let wanted = self.checkers.committed.last();
        let Some(node) = self.nodes.get(id) else {
            return Some(format!("member {id} has no machine"));
        };
        if node.gone {
            return None;
        }
        let Some(process) = &node.process else {
            return Some(format!("member {id} does not run"));
        };
        let status = process.raft.status();
        let applied = if node.witness {
            status.applied
        } else {
            process.machine.applied().index
        };
        let follows = id == leader || matches!(status.role, Role::Follower | Role::Learner | Role::Witness);
        if status.read_only {
            return Some(format!("member {id} is read-only"));
        }
        if applied != wanted || !process.reads.is_empty() || !follows {
            return Some(format!("member {id} has applied {applied} of {wanted}"));
        }
        let recovery = self.recovery.as_ref()?;
        if self.has_state(node) && !recovery.readers.contains(&id) {
            return Some(format!("member {id} has answered no read"));
        }
        None
    }

    /// At the end: all members have the same state. The checkers compared each index as it was applied.
    pub(super) fn check_end(&self) -> Verdict {
        for (node, _) in self.nodes.processes() {
            self.check_records(node.run())?;
        }
        if self.conditions.checks {
            let followers = (self.nodes.iter().count() as u64).saturating_sub(1);
            let entries = self.checkers.committed.last().0;
            flood::none(self.statistics.appends, followers, entries, self.schedule.now())?;
        }
        let mut states = self
            .nodes
            .processes()
            .filter(|(node, _)| !node.witness && self.membership.members().contains_key(&node.id))
            .map(|(_, process)| process.machine.fingerprint());
        let first = states.next();
        if states.all(|state| Some(state) == first) {
            Ok(())
        } else {
            Err(Breach {
                checker: "equal states",
                seen: format!("members differ at the end: {}", self.picture()),
            })
        }
    }
}
