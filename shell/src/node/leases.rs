//! Keep-alives, and how long leases still last: what the leader answers from the deadlines that it keeps in memory.
//!
//! A keep-alive costs no entry of the log. It counts when the leader was confirmed as such after it came, and its state
//! has caught up with the index that was confirmed ([`quorate_core::duties::Leases`]); many share one confirmation. A
//! node that does not lead passes it on.

use std::collections::VecDeque;
use std::time::Duration;

use quorate_core::Instant;
use quorate_core::duties::{Leases, NotRenewed};
use quorate_core::raft::{Index, Input, NodeId, Outcome, ReadMode, Role, Term};
use quorate_core::state::LeaseId;
use tokio::sync::oneshot;

use super::clients::{Pending, Reply};
use super::consensus::Consensus;
use super::inbox::LeaseOutcome;
use crate::transport::{Frame, LeaseResult};

/// Leases that somebody wants to know of, or to keep alive.
#[derive(Debug)]
pub(super) struct LeaseAsk {
    leases: Vec<LeaseId>,
    renew: bool,
    /// When it came.
    received: Instant,
    /// The term in which this node led then.
    term: Term,
    asker: Asker,
}

/// Who waits for the answer.
#[derive(Debug)]
pub(super) enum Asker {
    /// A client of this node.
    Local(oneshot::Sender<LeaseOutcome>),
    /// A client of another node, which passed it on under this number.
    Node { node: NodeId, request: u64 },
}

/// What is confirmed and waits for the state to catch up, in the order of the confirmations.
#[derive(Debug, Default)]
pub(super) struct Confirmed(VecDeque<(Index, LeaseAsk)>);

impl Confirmed {
    fn next(&mut self, applied: Index) -> Option<LeaseAsk> {
        self.0
            .pop_front_if(|(index, _)| *index <= applied)
            .map(|(_, ask)| ask)
    }
}

impl Consensus {
    /// A client of this node asks; the leader answers.
    pub(super) fn ask_of_leases(
        &mut self,
        leases: Vec<LeaseId>,
        renew: bool,
        deadline: Instant,
        reply: oneshot::Sender<LeaseOutcome>,
    ) {
        let status = self.raft.status();
        if status.role == Role::Leader {
            self.confirm_for_leases(leases, renew, Asker::Local(reply));
            return;
        }
        let Some(leader) = status.leader else {
            let _ = reply.send(LeaseOutcome::NoLeader);
            return;
        };
        let now = self.ports.clock.now();
        let Some(request) = self.clients.forward(now, leader, deadline, Reply::Leases(reply)) else {
            return;
        };
        let frame = Frame::Leases {
            request,
            renew,
            leases,
        };
        if self.transport.send(leader, &frame).is_err() {
            self.clients.not_forwarded(request);
        }
    }

    /// Has this node confirmed as leader, for an answer about leases.
    pub(super) fn confirm_for_leases(&mut self, leases: Vec<LeaseId>, renew: bool, asker: Asker) {
        let ask = LeaseAsk {
            leases,
            renew,
            received: self.ports.clock.now(),
            term: self.raft.status().term,
            asker,
        };
        if self.raft.status().role != Role::Leader {
            self.answer_of_leases(ask.asker, LeaseResult::NotLeader);
            return;
        }
        let token = self.clients.expect(Pending::Leases(ask));
        self.step(Input::Read {
            token,
            mode: ReadMode::ReadIndex,
        });
    }

    /// Consensus has answered whether this node leads.
    pub(super) fn leases_confirmed(&mut self, ask: LeaseAsk, outcome: Outcome) {
        match outcome {
            Outcome::ReadReady { index } => {
                self.confirmed.0.push_back((index, ask));
                self.settle_leases();
            }
            Outcome::Busy => self.answer_of_leases(ask.asker, LeaseResult::Busy),
            _ => self.answer_of_leases(ask.asker, LeaseResult::NotLeader),
        }
    }

    /// Answers what is confirmed, as far as the state has caught up.
    pub(super) fn settle_leases(&mut self) {
        let applied = self.raft.status().applied;
        let now = self.ports.clock.now();
        while let Some(ask) = self.confirmed.next(applied) {
            let times = times(self.state_duties.leases(), now, &ask);
            self.answer_of_leases(
                ask.asker,
                times.map_or(LeaseResult::NotLeader, LeaseResult::Times),
            );
        }
    }

    fn answer_of_leases(&mut self, asker: Asker, answer: LeaseResult) {
        match asker {
            Asker::Local(reply) => {
                let _ = reply.send(match answer {
                    LeaseResult::Times(times) => LeaseOutcome::Times(times),
                    LeaseResult::NotLeader => LeaseOutcome::NoLeader,
                    LeaseResult::Busy => LeaseOutcome::Busy,
                });
            }
            Asker::Node { node, request } => {
                let _ = self
                    .transport
                    .send(node, &Frame::LeasesAnswer { request, answer });
            }
        }
    }
}

/// How long each lease lasts; none when this node no longer leads as it did when it was asked.
fn times(leases: &mut Leases, now: Instant, ask: &LeaseAsk) -> Option<Vec<Option<Duration>>> {
    if leases.term() != Some(ask.term) {
        return None;
    }
    let mut time = |lease: LeaseId| {
        if !ask.renew {
            return Some(leases.remaining(now, lease));
        }
        match leases.renew(ask.term, ask.received, lease) {
            Ok(ttl) => Some(Some(ttl)),
            Err(NotRenewed::Gone) => Some(None),
            Err(NotRenewed::NotLeading) => None,
        }
    };
    ask.leases.iter().map(|lease| time(*lease)).collect()
}

#[cfg(test)]
mod tests {
    use quorate_core::state::Grant;

    use super::*;

    fn id(number: u64) -> LeaseId {
        LeaseId::new(number).expect("a number that is not 0")
    }

    fn at(seconds: u64) -> Instant {
        Instant::ORIGIN + Duration::from_secs(seconds)
    }

    fn ask(term: u64, renew: bool) -> LeaseAsk {
        LeaseAsk {
            leases: vec![id(7), id(8)],
            renew,
            received: at(5),
            term: Term(term),
            asker: Asker::Node {
                node: NodeId(2),
                request: 1,
            },
        }
    }

    fn leading() -> Leases {
        let grant = Grant {
            ttl: Duration::from_secs(10),
            granted: Index(1),
        };
        let mut leases = Leases::default();
        leases.lead(Term(3), at(0), [(id(7), grant)].into_iter());
        leases
    }

    #[test]
    fn a_lease_is_kept_alive_from_when_that_was_asked_and_one_that_is_gone_is_not() {
        let (mut leases, ten) = (leading(), Duration::from_secs(10));
        let asked = times(&mut leases, at(6), &ask(3, false));
        assert_eq!(asked, Some(vec![Some(Duration::from_secs(4)), None]));
        assert_eq!(
            times(&mut leases, at(6), &ask(3, true)),
            Some(vec![Some(ten), None])
        );
        let asked = times(&mut leases, at(6), &ask(3, false));
        assert_eq!(asked, Some(vec![Some(Duration::from_secs(9)), None]));
    }

    #[test]
    fn a_leader_of_another_term_answers_nothing() {
        let mut leases = leading();
        assert_eq!(times(&mut leases, at(6), &ask(2, true)), None);
        leases.follow();
        assert_eq!(times(&mut leases, at(6), &ask(3, false)), None);
    }

    #[test]
    fn nothing_is_answered_before_the_state_has_caught_up() {
        let mut confirmed = Confirmed::default();
        confirmed.0.push_back((Index(4), ask(3, true)));
        assert!(confirmed.next(Index(3)).is_none());
        assert!(confirmed.next(Index(4)).is_some());
        assert!(confirmed.next(Index(5)).is_none());
    }
}
