//! Preferred nodes: who gets the first try when a leader is lost.
//!
//! A member has a priority. A less preferred node lets the preferred ones go first, once, for about the spread of the
//! election time-outs; and a preferred node may veto its PRE-vote. A leader hands over to a preferred node that is ready
//! (see `handover`). With equal priorities nothing of this happens.
//!
//! Invariants:
//! - priorities never touch a vote: a candidate that asks for votes gets them by the rules of Raft alone;
//! - waiting and vetoes are over when no leader was heard of for [`PATIENCE`] of the longest election time-outs, in the
//!   eyes of whoever waits, vetoes or is vetoed; then anybody may win (NuRaft#30: a veto that never decays leaves a
//!   cluster without a leader when its preferred node cannot win);
//! - the leader that was just lost counts for nothing: its heirs do not wait for it;
//! - a veto comes only from a node that could lead as well: it votes, holds the same log, and its disk is not slow.

use super::role::{Follower, Part};
use super::{NodeId, Position, Raft};
use crate::time::Instant;

/// Longest election time-outs without a leader after which priorities count no more.
const PATIENCE: u32 = 3;

/// What a node without a leader remembers of the last one.
#[derive(Clone, Debug)]
pub(super) struct Precedence {
    /// When a leader was last heard of, or this node started.
    since: Instant,
    /// Who led; none when this life has seen no leader.
    lost: Option<NodeId>,
    /// Whether this node has let preferred ones go first since.
    waited: bool,
}

impl Precedence {
    pub(super) fn new(now: Instant) -> Precedence {
        Precedence {
            since: now,
            lost: None,
            waited: false,
        }
    }

    /// Who led last, as far as this node has seen.
    pub(super) fn lost(&self) -> Option<NodeId> {
        self.lost
    }

    /// `leader` leads, as of now.
    pub(super) fn led(&mut self, leader: NodeId, now: Instant) {
        *self = Precedence {
            since: now,
            lost: Some(leader),
            waited: false,
        };
    }
}

impl Raft {
    pub(super) fn priority_of(&self, id: NodeId) -> u8 {
        let member = self.log.membership().members().get(&id);
        member.map_or(0, |member| member.priority)
    }

    /// Whether priorities still count, so long after the last leader.
    fn priorities_count(&self) -> bool {
        self.now.since(self.precedence.since) < PATIENCE * self.config.election_timeout_max
    }

    /// Lets a preferred node go first, when there is one that may be alive: the election waits a little longer. A node
    /// of priority 0 waits until priorities count no more.
    pub(super) fn lets_preferred_go_first(&mut self) -> bool {
        if !self.priorities_count() || !self.can_campaign() {
            return false;
        }
        let own = self.priority_of(self.id);
        let (lost, membership) = (self.precedence.lost, self.log.membership());
        let preferred =
            |id: &NodeId| Some(*id) != lost && self.priority_of(*id) > own && !membership.is_witness(*id);
        if !membership.voters().iter().any(preferred) {
            return false;
        }
        if own == 0 {
            self.election_due = self.precedence.since + PATIENCE * self.config.election_timeout_max;
            return true;
        }
        if std::mem::replace(&mut self.precedence.waited, true) {
            return false;
        }
        let (shortest, longest) = (self.config.election_timeout_min, self.config.election_timeout_max);
        let moment = self.config.link_lost_wait_max;
        let spread = if self.now < self.eager_until {
            moment
        } else {
            longest.saturating_sub(shortest)
        };
        self.election_due = self.now + spread + moment;
        true
    }

    /// Whether this node, which would promise its vote to `candidate`, would rather lead itself; it tries soon then.
    pub(super) fn vetoes(&mut self, candidate: NodeId, last: Position) -> bool {
        let vetoes = self.precedence.lost.is_some()
            && self.priorities_count()
            && self.priority_of(self.id) > self.priority_of(candidate)
            && self.log.membership().is_voter(self.id)
            && self.can_campaign()
            && last == self.log.last()
            && !self.is_disk_sluggish();
        if vetoes {
            self.wait_eagerly();
        }
        vetoes
    }

    /// A preferred node wants to go first. Nobody else's veto counts, nor one that comes too late.
    pub(super) fn vetoed(&mut self, by: NodeId) {
        let membership = self.log.membership();
        let preferred = membership.is_voter(by) && self.priority_of(by) > self.priority_of(self.id);
        if preferred && self.priorities_count() {
            self.part = Part::Follower(Follower::default());
            self.wait_for_election();
        }
    }
}
