//! What every message goes through before it reaches the part that it is for: its term.
//!
//! Invariants (Raft paper, section 5.1): a later term is entered before anything else is done, but for requests that must
//! not disturb a cluster whose leader is heard; a message of an earlier term counts for nothing, and its sender learns the
//! current one.

use super::{Body, Index, Message, NodeId, PlantedBug, PreVote, Raft};

impl Raft {
    pub(super) fn receive(&mut self, from: NodeId, message: Message) {
        if from == self.id {
            return;
        }
        let Message { term, body } = message;
        if !term.is_credible_after(self.hard_state.term) {
            return;
        }
        if let Body::PreVoteRequest { last } = body {
            self.pre_vote_requested(from, term, last);
            return;
        }
        if term > self.hard_state.term {
            if let Body::VoteRequest { transfer, .. } = body
                && (transfer.is_none() && self.is_undisturbed() || self.promise_forbids(term, transfer))
            {
                // The leader is alive: a node that cannot hear it must not depose it (Raft dissertation, 4.2.3).
                return;
            }
            let teaches = !matches!(&body, Body::PreVoteResponse { answer, .. } if *answer != PreVote::Granted)
                || !self.planted(PlantedBug::PreVoteTeachesNoTerm);
            if teaches {
                self.enter_term(term);
            }
        }
        if term < self.hard_state.term && !self.counts_though_stale(&body) {
            match body {
                // A promise names the term that it is for; its sender need not have seen the one before.
                Body::PreVoteResponse { proposed, answer } => self.pre_vote_answered(from, proposed, answer),
                _ => self.answer_stale(from, &body),
            }
            return;
        }
        self.heard_from(from);
        match body {
            Body::PreVoteRequest { .. } => unreachable!("handled above"),
            Body::PreVoteResponse { proposed, answer } => self.pre_vote_answered(from, proposed, answer),
            Body::VoteRequest { last, transfer } => self.vote_requested(from, last, transfer),
            Body::VoteResponse { granted } => self.vote_answered(from, granted),
            Body::Append {
                previous,
                entries,
                commit,
            } => self.append_received(from, previous, entries, commit),
            Body::AppendAccepted { matched } => self.append_accepted(from, matched),
            Body::AppendRejected { previous, hint } => self.append_rejected(from, previous, hint),
            Body::Heartbeat { commit, round, lease } => self.heartbeat_received(from, commit, round, lease),
            Body::HeartbeatResponse {
                round,
                matched,
                disk,
                features,
                lease,
            } => {
                self.peer_mut(from, |peer| (peer.disk, peer.features) = (disk, Some(features)));
                if let Some(grant) = lease {
                    self.lease_granted(from, round, grant);
                }
                self.heartbeat_answered(from, round, matched)
            }
            Body::Begin { base } => self.begin_received(from, base),
            Body::TimeoutNow { released } => self.timeout_now(from, released),
            Body::ReadRequest { request, lease } => self.read_requested(from, request, lease),
            Body::ReadResponse { request, index } => self.read_answered(from, request, index),
        }
    }

    /// Whether an answer of an earlier term counts: never, but for planted mistakes.
    #[inline(always)]
    fn counts_though_stale(&self, body: &Body) -> bool {
        match body {
            Body::VoteResponse { .. } => self.planted(PlantedBug::StaleVoteCounts),
            Body::AppendAccepted { .. } => self.planted(PlantedBug::StaleAcceptanceCounts),
            _ => false,
        }
    }

    /// A request of an earlier term: its sender learns the current one, and stops.
    fn answer_stale(&mut self, from: NodeId, body: &Body) {
        let answer = match body {
            Body::VoteRequest { .. } => Body::VoteResponse { granted: false },
            Body::Append { previous, .. } => Body::AppendRejected {
                previous: previous.index,
                hint: self.log.base().position,
            },
            Body::Heartbeat { round, .. } => Body::HeartbeatResponse {
                round: *round,
                matched: Index(0),
                disk: self.disk_health(),
                features: self.config.features,
                lease: None,
            },
            Body::ReadRequest { request, .. } => Body::ReadResponse {
                request: *request,
                index: None,
            },
            _ => return,
        };
        self.send(from, answer);
    }
}
