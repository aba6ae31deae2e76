//! Whether this node has lost the quorum: it has not known a leader that a majority follows for so long that nobody
//! should wait for one. Nothing can be written through such a node until it finds a leader again; what it holds can be
//! read.
//!
//! This is for those who ask ([`Status::read_only`](super::Status::read_only)). Consensus itself decides nothing by it:
//! a node without a leader takes nothing on in any case, and campaigns as before.
//!
//! Invariants: a leader is never read-only, and one that steps down since no majority answers counts from the last
//! answer of one; a node that does not campaign finds out as well, since the loss has a deadline of its own.

use super::role::Part;
use super::{Raft, TraceEvent};
use crate::time::Instant;

/// Largest election time-outs without a leader: one to notice that it is gone, one to elect another.
const PATIENCE: u32 = 2;

/// What a node knows of the quorum.
#[derive(Clone, Copy, Debug)]
pub(super) struct QuorumWatch {
    /// When a leader with a majority was last heard of, or this node started.
    contact: Instant,
    lost: bool,
}

impl QuorumWatch {
    pub(super) fn new(now: Instant) -> QuorumWatch {
        QuorumWatch {
            contact: now,
            lost: false,
        }
    }

    pub(super) fn is_lost(&self) -> bool {
        self.lost
    }

    /// A leader steps down that heard of a majority at `contact`.
    pub(super) fn led_until(&mut self, contact: Instant) {
        self.contact = contact;
    }
}

impl Raft {
    /// When this node will have lost the quorum, unless it hears of a leader.
    pub(super) fn quorum_deadline(&self) -> Option<Instant> {
        let waits = self.leading().is_none() && !self.quorum.lost;
        waits.then(|| self.quorum.contact + PATIENCE * self.config.election_timeout_max)
    }

    /// Takes note of who leads. Called with every step.
    pub(super) fn watch_quorum(&mut self) {
        let contact = match &self.part {
            Part::Leader(_) => Some(self.now),
            Part::Follower(follower) => follower.contact.filter(|_| follower.leader.is_some()),
            Part::Candidate(_) => None,
        };
        if let Some(contact) = contact {
            self.quorum.contact = self.quorum.contact.max(contact);
        }
        if self.quorum.contact == self.now && !self.quorum.lost {
            return;
        }
        let lost = self.now.since(self.quorum.contact) >= PATIENCE * self.config.election_timeout_max;
        if lost != self.quorum.lost {
            self.quorum.lost = lost;
            self.output.trace.push(if lost {
                TraceEvent::QuorumLost
            } else {
                TraceEvent::QuorumRegained
            });
        }
    }
}
