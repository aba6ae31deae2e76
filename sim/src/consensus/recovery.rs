//! The second phase: everything is healed, and the cluster must work again within a bounded time.
//!
//! It must have one leader, the one that its members prefer, leave a joint phase that was begun, commit fresh writes,
//! answer every request, and bring every member to the same state.

use quorate_core::raft::{FeatureLevel, LinkEvent, Membership, NodeId, Position, Role};

use super::checker::client::Serial;
use super::checker::{Breach, Verdict, demand};
use super::schedule::{MILLISECOND, Time};
use super::world::{Event, World};
use crate::trace;

/// How far the recovery is.
#[derive(Debug)]
pub(super) struct Recovery {
    since: Time,
    /// What the member that is furthest behind needs to take in what it lacks.
    catching_up: Time,
    fresh: Vec<Serial>,
    acknowledged: usize,
    /// Whether there has been a leader since.
    led: bool,
    pub(super) done: bool,
}

/// Largest election time-outs within which there must be a leader.
const LEADER_WITHIN_TIMEOUTS: u64 = 6;
/// Largest election time-outs within which everything must have recovered, beside the time in which a member
/// that lags far behind catches up.
const RECOVERED_WITHIN_TIMEOUTS: u64 = 40;
/// Writes that must be acknowledged.
const FRESH_WRITES: usize = 10;

impl World {
    /// Ends the phase with faults: everything is repaired, started and connected.
    pub(super) fn recover(&mut self) -> Verdict {
        self.tell(|_| trace::Event::Healed { nodes: None });
        let now = self.schedule.now();
        self.recovery = Some(Recovery {
            since: now,
            catching_up: 0,
            fresh: Vec::new(),
            acknowledged: 0,
            led: false,
            done: false,
        });
        self.network.calm();
        self.knobs.calm();
        let mut stalled = Vec::new();
        for node in self.nodes.iter_mut() {
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
        for id in self.present() {
            self.resume(id);
            self.links_change(id, LinkEvent::Connected);
            let delay = self.random.drivers.around(20 * MILLISECOND);
            self.schedule.after(delay, Event::Start(id));
        }
        let catching_up = self.time_to_catch_up();
        if let Some(recovery) = &mut self.recovery {
            recovery.catching_up = catching_up;
        }
        self.schedule.after(MILLISECOND, Event::Poll);
        Ok(())
    }

    /// Twice the mean time in which the log and the state machine that are furthest behind take in what they lack: a run
    /// with small limits brings and hands over one entry at a time.
    fn time_to_catch_up(&self) -> Time {
        let stay = || self.nodes.iter().filter(|node| !node.gone);
        let logs = || stay().map(|node| node.disk.written.last().index.0);
        let longest = logs().max().unwrap_or_default();
        let log_behind = longest - logs().min().unwrap_or_default();
        let state_behind = stay()
            .filter(|node| !node.witness)
            .map(|node| longest.saturating_sub(node.store.applied.index.0))
            .max();
        let replicated = self.knobs.time_to_replicate(log_behind);
        let applied = self.knobs.time_to_apply(state_behind.unwrap_or_default());
        2 * replicated.max(applied)
    }

    /// Whether everything has recovered; writes something until enough was acknowledged.
    pub(super) fn poll(&mut self) -> Verdict {
        let now = self.schedule.now();
        let wanting = self.what_is_wanting();
        let leads = self.current_leader().is_some();
        let Some(recovery) = &mut self.recovery else {
            return Ok(());
        };
        let took = now - recovery.since;
        recovery.led |= leads;
        let (led, catching_up) = (recovery.led, recovery.catching_up);
        let Some(wanting) = wanting else {
            recovery.done = true;
            self.statistics.recovery += took;
            return Ok(());
        };
        let limit = if led {
            RECOVERED_WITHIN_TIMEOUTS * self.knobs.election_timeout() + catching_up
        } else {
            LEADER_WITHIN_TIMEOUTS * self.knobs.election_timeout()
        };
        demand(took < limit, "liveness", || {
            format!(
                "{wanting}, {} ms after everything was healed: {}",
                took / MILLISECOND,
                self.picture()
            )
        })?;
        self.schedule.after(10 * MILLISECOND, Event::Poll);
        self.write_something_fresh()
    }

    fn write_something_fresh(&mut self) -> Verdict {
        let Some(recovery) = &mut self.recovery else {
            return Ok(());
        };
        let clients = &self.checkers.clients;
        recovery.acknowledged = recovery
            .fresh
            .iter()
            .filter(|serial| clients.is_acknowledged(**serial))
            .count();
        let enough = recovery.acknowledged >= FRESH_WRITES;
        // What replicates slowly works off its backlog first.
        let idle = clients.open() <= FRESH_WRITES;
        let leader = self.current_leader().and_then(|id| self.nodes.get(id));
        let wanted = idle && (!enough || self.preferred_over_leader().is_some());
        if let Some(run) = leader.map(super::node::Node::run).filter(|_| wanted) {
            let serial = self.write_fresh(run)?;
            if let Some(recovery) = &mut self.recovery {
                recovery.fresh.push(serial);
            }
        }
        Ok(())
    }

    /// What keeps the cluster from having recovered.
    fn what_is_wanting(&self) -> Option<String> {
        let recovery = self.recovery.as_ref()?;
        let Some(leader) = self.current_leader() else {
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
        if let Some((token, request)) = self.checkers.clients.oldest_open() {
            let open = self.checkers.clients.open();
            return Some(format!(
                "{open} requests have no answer, such as {token:?}: {request:?}"
            ));
        }
        if let Some(level) = self.unused_features(status.membership) {
            return Some(format!("the feature level is not raised to {level}"));
        }
        if let Some(lease) = self.lasting_lease() {
            return Some(format!("lease {lease}, which nobody keeps alive, is not over"));
        }
        if let Some(preferred) = self.preferred_over_leader() {
            return Some(format!(
                "{preferred}, which is preferred to {leader}, does not lead"
            ));
        }
        if status.commit != status.last.index {
            return Some(format!("{} of {} is committed", status.commit, status.last.index));
        }
        status
            .membership
            .members()
            .keys()
            .find_map(|member| self.what_a_member_lacks(*member, leader))
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
        let leader = self.nodes.get(self.current_leader()?)?;
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
        None
    }

    /// At the end: all members have the same state. The checkers compared each index as it was applied.
    pub(super) fn check_end(&self) -> Verdict {
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
