//! Requests under way: what waits for consensus or for another node.
//!
//! Invariants: every request is answered exactly once and within its deadline; everything that waits is bounded in
//! number. A request that finds no leader is answered at once that nothing was appended: whether to wait for one is
//! for the client port to decide.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_core::Instant;
use quorate_core::raft::{NodeId, Token};
use quorate_core::state::{self, Revision};
use tokio::sync::oneshot;

use super::inbox::{AdminOutcome, LeaseOutcome, ReadOutcome, WriteOutcome};
use super::lanes::apply::Waiter;
use super::leases::LeaseAsk;
use crate::planted::{Planted, PlantedBug};
use crate::transport::{ForwardResult, LeaseResult, Responder};

/// Requests that may wait for another node; more are answered that the node is busy.
const FORWARDED_MAX: usize = 50_000;
/// How many keep-alives may wait besides.
const FORWARDED_KEEP_ALIVES: usize = 10_000;
/// How often forwarded requests are looked at for their deadlines.
const TICK: Duration = Duration::from_millis(50);

/// What a token of consensus stands for.
#[derive(Debug)]
pub(super) enum Pending {
    /// A write of a client.
    Write {
        waiter: Waiter,
        /// What goes to the leader when this node does not lead; none when the client does not want that.
        forward: Option<Forwardable>,
        /// When it was taken on.
        begun: Instant,
    },
    Read(oneshot::Sender<ReadOutcome>),
    /// A question about leases, or a keep-alive, until this node is confirmed as leader.
    Leases(LeaseAsk),
    Admin(oneshot::Sender<AdminOutcome>),
    /// The leadership goes to another node, so that this one can be removed.
    HandOver(oneshot::Sender<AdminOutcome>),
    /// Another node asked to be taken in.
    Join {
        name: String,
        responder: Responder,
    },
    /// A duty of the leader about the membership; nobody waits.
    Duty,
    /// A duty of the leader about the state; it comes again when nothing came of it.
    StateDuty,
}

/// A command that may go to the leader.
#[derive(Debug)]
pub(super) struct Forwardable {
    pub(super) command: bytes::Bytes,
    pub(super) deadline: Instant,
}

struct Forwarded {
    to: NodeId,
    deadline: Instant,
    reply: Reply,
}

/// Takes the answer to what was forwarded.
pub(super) enum Reply {
    Write(oneshot::Sender<WriteOutcome>),
    Leases(oneshot::Sender<LeaseOutcome>),
}

impl Reply {
    fn busy(self) {
        match self {
            Reply::Write(reply) => drop(reply.send(WriteOutcome::Busy)),
            Reply::Leases(reply) => drop(reply.send(LeaseOutcome::Busy)),
        }
    }

    fn not_sent(self) {
        match self {
            Reply::Write(reply) => drop(reply.send(WriteOutcome::NoLeader)),
            Reply::Leases(reply) => drop(reply.send(LeaseOutcome::NoLeader)),
        }
    }

    /// No answer came.
    fn lost(self, planted: Planted) {
        match self {
            Reply::Write(reply) if planted.is(PlantedBug::LostForwardCountsAsDone) => {
                let (revision, previous) = (Revision(1), None);
                let done = state::Reply::Put { revision, previous };
                drop(reply.send(WriteOutcome::Applied(done.encode())));
            }
            Reply::Write(reply) => drop(reply.send(WriteOutcome::Unknown)),
            Reply::Leases(reply) => drop(reply.send(LeaseOutcome::NoLeader)),
        }
    }
}

/// All requests under way at one node.
pub(super) struct Clients {
    next_token: Token,
    pending: BTreeMap<Token, Pending>,
    next_request: u64,
    forwarded: BTreeMap<u64, Forwarded>,
    tick_due: Option<Instant>,
    planted: Planted,
}

impl Clients {
    /// `first_request` begins the numbers of forwarded requests: drawn at random, so that a late answer to a former
    /// life of this node fits no request of this one.
    pub(super) fn new(first_request: u64, planted: Planted) -> Clients {
        Clients {
            next_token: Token(1),
            pending: BTreeMap::new(),
            next_request: first_request,
            forwarded: BTreeMap::new(),
            tick_due: None,
            planted,
        }
    }

    /// Remembers a request and names it.
    pub(super) fn expect(&mut self, pending: Pending) -> Token {
        let token = self.next_token;
        self.next_token = token.next();
        self.pending.insert(token, pending);
        token
    }

    /// Takes out the request that `token` names.
    pub(super) fn take(&mut self, token: Token) -> Option<Pending> {
        self.pending.remove(&token)
    }

    /// Remembers a request that goes to the leader; returns its number, or none when too many do already.
    pub(super) fn forward(
        &mut self,
        now: Instant,
        to: NodeId,
        deadline: Instant,
        reply: Reply,
    ) -> Option<u64> {
        let most = match reply {
            Reply::Write(_) => FORWARDED_MAX,
            Reply::Leases(_) => FORWARDED_MAX + FORWARDED_KEEP_ALIVES,
        };
        if self.forwarded.len() >= most {
            reply.busy();
            return None;
        }
        let request = self.next_request;
        self.next_request = request.wrapping_add(1);
        self.forwarded.insert(request, Forwarded { to, deadline, reply });
        self.tick_due.get_or_insert(now + TICK);
        Some(request)
    }

    /// The request did not leave this node.
    pub(super) fn not_forwarded(&mut self, request: u64) {
        if let Some(forwarded) = self.forwarded.remove(&request) {
            forwarded.reply.not_sent();
        }
    }

    /// Takes out the request that `from` has answered, if it is one that it was asked.
    fn take_forwarded(&mut self, from: NodeId, request: u64) -> Option<Reply> {
        let request = if self.planted.is(PlantedBug::ForwardAnswersMixedUp) {
            *self.forwarded.first_key_value()?.0
        } else {
            request
        };
        let asked = self.forwarded.get(&request)?.to == from;
        asked
            .then(|| self.forwarded.remove(&request))
            .flatten()
            .map(|forwarded| forwarded.reply)
    }

    /// The leader answered a forwarded write.
    pub(super) fn forward_answered(&mut self, from: NodeId, request: u64, answer: ForwardResult) {
        let Some(Reply::Write(reply)) = self.take_forwarded(from, request) else {
            return;
        };
        let outcome = match answer {
            ForwardResult::Reply(reply) => WriteOutcome::Applied(reply),
            ForwardResult::NotLeader { .. } => WriteOutcome::NoLeader,
            ForwardResult::Busy => WriteOutcome::Busy,
            ForwardResult::Unknown => WriteOutcome::Unknown,
            ForwardResult::Refused(reason) => WriteOutcome::Refused(reason),
        };
        let _ = reply.send(outcome);
    }

    /// The leader answered a forwarded question about leases.
    pub(super) fn leases_answered(&mut self, from: NodeId, request: u64, answer: LeaseResult) {
        let Some(Reply::Leases(reply)) = self.take_forwarded(from, request) else {
            return;
        };
        let _ = reply.send(match answer {
            LeaseResult::Times(times) => LeaseOutcome::Times(times),
            LeaseResult::NotLeader => LeaseOutcome::NoLeader,
            LeaseResult::Busy => LeaseOutcome::Busy,
        });
    }

    /// The connection to `peer` is gone, and with it the answers that it owed.
    pub(super) fn peer_lost(&mut self, peer: NodeId) {
        self.give_up(|forwarded| forwarded.to == peer);
    }

    /// When [`Clients::tick`] is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.tick_due
    }

    /// Gives up forwarded requests whose time is over.
    pub(super) fn tick(&mut self, now: Instant) {
        if self.tick_due.is_none_or(|due| now < due) {
            return;
        }
        self.give_up(|forwarded| now >= forwarded.deadline);
        self.tick_due = (!self.forwarded.is_empty()).then_some(now + TICK);
    }

    fn give_up(&mut self, lost: impl Fn(&Forwarded) -> bool) {
        let planted = self.planted;
        let lost = self.forwarded.extract_if(.., |_, forwarded| lost(forwarded));
        for (_, forwarded) in lost {
            forwarded.reply.lost(planted);
        }
    }
}
