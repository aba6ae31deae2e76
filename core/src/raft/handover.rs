//! When a leader gives the leadership up although it could lead on.
//!
//! - Its disk is stalled: nothing more is committed through it. It steps down at once, if a majority of the others
//!   is in touch and works; else nobody could do better (hashicorp/raft#503).
//! - Its disk is three times slower than what a majority of the voters manages without it: everybody waits for it. It
//!   hands over to a voter with a fast disk that holds what is committed.
//! - A voter that is preferred to it (see `priority`) is ready: in touch, caught up, with a disk that is not slow.
//!
//! Invariants, which keep the leadership from going to and fro: a reason to hand over must last for
//! [`Config::handover_interval`](super::Config::handover_interval) and for a number of writes, and a leader leads
//! for at least that long, so that the cluster hands over no oftener; a disk that was slow is so until it is clearly
//! better (less than twice as slow); a disk that is slow in company is no reason.

use std::cmp::Reverse;

use super::quorum::reached_by_majority;
use super::role::Leader;
use super::{Body, DiskHealth, HandoverReason, NodeId, PeerState, Raft, StepDown, TraceEvent};
use crate::time::Instant;

/// A disk so many times slower than others' is slow.
const SLOW_FACTOR: u64 = 3;
/// A slow disk stays slow until it is less than so many times slower.
const RECOVERED_FACTOR: u64 = 2;
/// Committed entries that a voter may lack when it is to take over: about what is on its way under load.
const BEHIND_MAX: u64 = 64;
/// Writes that must be measured while a disk is slow.
const SLOW_WRITES_MIN: u64 = 32;

/// What a leader remembers of its reasons to hand over.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch {
    /// Since when its own disk has been slow.
    slow: Option<Slow>,
    /// The preferred voter that is ready, and since when.
    preferred: Option<(NodeId, Instant)>,
    /// When it tried to hand over last.
    tried: Option<Instant>,
}

/// When a disk became slow.
#[derive(Clone, Copy, Debug)]
struct Slow {
    since: Instant,
    /// Writes that had been measured by then.
    writes: u64,
}

/// What a leader knows of a voter's disk; the least is the worst.
type Pace = Reverse<u32>;

/// It did not say, or is out of touch.
const UNKNOWN: Pace = Reverse(u32::MAX);

impl Raft {
    /// Looks for a reason to give the leadership up. Called with every heartbeat.
    pub(super) fn consider_handover(&mut self) {
        if self.is_disk_stalled() {
            self.leave_stalled_disk();
            return;
        }
        let slow = self.slow_disk();
        let preferred = self.preferred_voter();
        let writes = self.durability.latency().writes();
        let interval = self
            .config
            .handover_interval
            .max(self.config.election_timeout_max);
        let now = self.now;
        let Some(leader) = self.leading_mut() else { return };
        leader.handover.slow = slow;
        leader.handover.preferred = preferred;
        let last_change = leader
            .handover
            .tried
            .unwrap_or(leader.elected)
            .max(leader.elected);
        let busy = leader.transfer.is_some() || leader.change.is_some();
        if busy || now.since(last_change) < interval {
            return;
        }
        let lasts = |slow: Slow| now.since(slow.since) >= interval && writes - slow.writes >= SLOW_WRITES_MIN;
        if slow.is_some_and(lasts)
            && let Some(target) = self.voter_with_fast_disk()
        {
            self.give_up_to(target, HandoverReason::SlowDisk);
        } else if let Some((target, since)) = preferred
            && now.since(since) >= interval
        {
            self.give_up_to(target, HandoverReason::Preferred);
        }
    }

    fn give_up_to(&mut self, to: NodeId, reason: HandoverReason) {
        let now = self.now;
        if let Some(leader) = self.leading_mut() {
            leader.handover.tried = Some(now);
        }
        self.output.trace.push(TraceEvent::HandsOver { to, reason });
        self.begin_transfer(to, None);
    }

    /// Leaves the leadership to others when a majority of the voters can go on without this one.
    fn leave_stalled_disk(&mut self) {
        let Some(leader) = self.leading() else { return };
        let others_work = reached_by_majority(self.log.membership(), |id| {
            id != self.id && self.disk_in_touch(leader, id).is_some_and(|disk| !disk.stalled)
        });
        if !others_work {
            return;
        }
        if let Some(successor) = self.best_successor() {
            let released = self.release_lease();
            self.send(successor, Body::TimeoutNow { released });
        }
        self.step_down(StepDown::DiskStalled);
    }

    /// Whether the own disk is slow, compared with the pace that a majority keeps without it.
    fn slow_disk(&self) -> Option<Slow> {
        let leader = self.leading()?;
        let before = leader.handover.slow;
        let factor = if before.is_some() {
            RECOVERED_FACTOR
        } else {
            SLOW_FACTOR
        };
        self.is_disk_slow(leader, self.id, factor).then(|| {
            before.unwrap_or(Slow {
                since: self.now,
                writes: self.durability.latency().writes(),
            })
        })
    }

    /// Whether a member's disk is `factor` times slower than what a majority manages without it. One of which nothing
    /// is known is not.
    fn is_disk_slow(&self, leader: &Leader, id: NodeId, factor: u64) -> bool {
        let pace = self.pace(leader, id);
        let Reverse(others) = reached_by_majority(self.log.membership(), |other| {
            if other == id {
                UNKNOWN
            } else {
                self.pace(leader, other)
            }
        });
        let latency = u64::from(pace.0);
        let floor = u64::try_from(self.config.slow_disk_latency_min.as_micros()).unwrap_or(u64::MAX);
        pace != UNKNOWN && latency >= floor && latency >= factor * u64::from(others)
    }

    /// The most preferred voter of those preferred to this leader that are ready, and since when it is.
    fn preferred_voter(&self) -> Option<(NodeId, Instant)> {
        let leader = self.leading()?;
        let own = self.priority_of(self.id);
        let voters = self.log.membership().voters().iter().copied();
        let disk_allows = |id: NodeId| {
            let chosen = leader.handover.preferred.is_some_and(|(before, _)| before == id);
            let factor = if chosen { SLOW_FACTOR } else { RECOVERED_FACTOR };
            !self.is_disk_slow(leader, id, factor)
        };
        let preferred = voters
            .filter(|id| self.priority_of(*id) > own && self.can_take_over(leader, *id))
            .filter(|id| disk_allows(*id))
            .max_by_key(|id| (self.priority_of(*id), Reverse(*id)))?;
        let before = leader.handover.preferred.filter(|(id, _)| *id == preferred);
        Some(before.unwrap_or((preferred, self.now)))
    }

    /// The most preferred voter, and the one furthest along among those, whose disk is much faster than this node's.
    fn voter_with_fast_disk(&self) -> Option<NodeId> {
        let leader = self.leading()?;
        let own = u64::from(self.disk_health().write_latency_us?);
        let voters = self.log.membership().voters().iter();
        voters
            .filter(|id| self.can_take_over(leader, **id))
            .filter(|id| own >= SLOW_FACTOR * u64::from(self.pace(leader, **id).0))
            .max_by_key(|id| {
                let matched = leader.peers.get(id).map(|peer| peer.matched);
                (self.priority_of(**id), matched)
            })
            .copied()
    }

    /// Whether a voter is in touch, caught up but for what is on its way, and has a disk that works.
    fn can_take_over(&self, leader: &Leader, id: NodeId) -> bool {
        let works = self.disk_in_touch(leader, id).is_some_and(|disk| !disk.stalled);
        works
            && leader.peers.get(&id).is_some_and(|peer| {
                let behind = self.commit.0.saturating_sub(peer.matched.0);
                !peer.witness && behind <= BEHIND_MAX && peer.state.name() == PeerState::Replicate
            })
    }

    fn pace(&self, leader: &Leader, id: NodeId) -> Pace {
        let disk = if id == self.id {
            Some(self.disk_health())
        } else {
            self.disk_in_touch(leader, id)
        };
        let latency = disk.and_then(|disk| disk.write_latency_us);
        latency.map_or(UNKNOWN, Reverse)
    }

    /// What a member that was heard of lately said of its disk.
    pub(super) fn disk_in_touch(&self, leader: &Leader, id: NodeId) -> Option<DiskHealth> {
        let peer = leader.peers.get(&id)?;
        (self.now.since(peer.heard) < self.config.election_timeout_min).then_some(peer.disk)
    }
}
