//! What consensus answered: to the client, to the node that forwarded, or to nobody.

use std::collections::BTreeSet;

use bytes::Bytes;
use quorate_core::raft::{Change, NodeId, Operation, Outcome, Refusal, Token, TraceEvent};
use quorate_core::state::Command;
use tokio::sync::oneshot;

use super::clients::{Forwardable, Pending, Reply};
use super::consensus::Consensus;
use super::inbox::{AdminOutcome, ReadOutcome, WriteOutcome};
use super::lanes::apply::Waiter;
use crate::planted::PlantedBug;
use crate::transport::{Answer, ForwardResult, Frame};

impl Consensus {
    /// Passes the answer of consensus on to whoever waits for `token`.
    pub(super) fn resolve(&mut self, token: Token, outcome: Outcome) {
        match self.clients.take(token) {
            // The reply of an applied command has settled it; or nobody waits.
            None | Some(Pending::StateDuty) => {}
            Some(Pending::Write { waiter, forward, .. }) => self.resolve_write(waiter, forward, outcome),
            Some(Pending::Read(reply)) => {
                let outcome = match outcome {
                    Outcome::ReadReady { index } => ReadOutcome::Ready(index),
                    Outcome::Busy => ReadOutcome::Busy,
                    _ => ReadOutcome::NoLeader,
                };
                let _ = reply.send(outcome);
            }
            Some(Pending::Leases(ask)) => self.leases_confirmed(ask, outcome),
            Some(Pending::Admin(reply)) => drop(reply.send(self.admin_outcome(outcome))),
            Some(Pending::Join { name, responder }) => {
                let answer = self.join_answer(&name, outcome);
                responder.answer(answer);
            }
            Some(Pending::HandOver(reply)) => drop(reply.send(self.handed_over(outcome))),
            Some(Pending::Duty) => self.duty_pending = false,
        }
    }

    fn resolve_write(&mut self, waiter: Waiter, forward: Option<Forwardable>, outcome: Outcome) {
        match (waiter, outcome) {
            (Waiter::Local(reply), Outcome::NotLeader { leader: Some(leader) }) => {
                self.pass_to_leader(leader, forward, reply);
            }
            (Waiter::Local(reply), outcome) => {
                let outcome = match outcome {
                    Outcome::NotLeader { .. } => WriteOutcome::NoLeader,
                    Outcome::Busy => WriteOutcome::Busy,
                    _ => WriteOutcome::Unknown,
                };
                let _ = reply.send(outcome);
            }
            (Waiter::Forwarded { node, request }, outcome) => {
                let answer = match outcome {
                    Outcome::NotLeader { leader } => ForwardResult::NotLeader { leader },
                    Outcome::Busy => ForwardResult::Busy,
                    _ => ForwardResult::Unknown,
                };
                self.answer_forward(node, request, answer);
            }
        }
    }

    /// Forwards a write, or names the leader to a client that does not want that.
    fn pass_to_leader(
        &mut self,
        leader: NodeId,
        write: Option<Forwardable>,
        reply: oneshot::Sender<WriteOutcome>,
    ) {
        let now = self.ports.clock.now();
        let Some(Forwardable { command, deadline }) = write else {
            let _ = reply.send(
                self.client_address(leader)
                    .map_or(WriteOutcome::NoLeader, WriteOutcome::NotLeader),
            );
            return;
        };
        let command = if self.ports.planted.is(PlantedBug::ForwardDropsRequestKey) {
            without_request_key(command)
        } else {
            command
        };
        let deadline_ms = u32::try_from(deadline.since(now).as_millis()).unwrap_or(u32::MAX);
        let Some(request) = self.clients.forward(now, leader, deadline, Reply::Write(reply)) else {
            return;
        };
        if self
            .transport
            .send(
                leader,
                &Frame::Forward {
                    request,
                    deadline_ms,
                    command,
                },
            )
            .is_err()
        {
            self.clients.not_forwarded(request);
        }
    }

    fn client_address(&self, id: NodeId) -> Option<String> {
        self.raft
            .status()
            .membership
            .members()
            .get(&id)
            .map(|member| member.client_address.clone())
    }

    /// Answers a node that forwarded a command. When it cannot be reached, it learns nothing, and says so.
    pub(super) fn answer_forward(&mut self, node: NodeId, request: u64, answer: ForwardResult) {
        let _ = self
            .transport
            .send(node, &Frame::ForwardAnswer { request, answer });
    }

    pub(super) fn admin_outcome(&self, outcome: Outcome) -> AdminOutcome {
        match outcome {
            Outcome::Done => AdminOutcome::Done,
            Outcome::NotLeader { leader } => {
                AdminOutcome::NotLeader(leader.and_then(|leader| self.client_address(leader)))
            }
            Outcome::Refused(refusal @ Refusal::ChangePending) => AdminOutcome::Pending(refusal.to_string()),
            Outcome::Refused(refusal) => AdminOutcome::Refused(refusal.to_string()),
            Outcome::Busy | Outcome::Unknown | Outcome::ReadReady { .. } => AdminOutcome::Unknown,
        }
    }

    fn join_answer(&self, name: &str, outcome: Outcome) -> Answer {
        let status = self.raft.status();
        let refused = |message: &str| Answer::Refused {
            message: message.to_owned(),
        };
        match outcome {
            // Of two members with one name, the later id is the node that came back without its data.
            Outcome::Done => match status
                .membership
                .members()
                .iter()
                .rev()
                .find(|(_, member)| member.name == name)
            {
                Some((id, _)) => Answer::Joined {
                    id: *id,
                    membership: status.membership.clone(),
                },
                None => refused("the membership changed again; try again"),
            },
            Outcome::NotLeader { .. } => self.try_leader(),
            Outcome::Refused(refusal) => refused(&refusal.to_string()),
            Outcome::Busy | Outcome::Unknown | Outcome::ReadReady { .. } => {
                refused("whether the membership changed is not known; try again")
            }
        }
    }

    /// Takes note of what happened in the core.
    pub(super) fn traced(&mut self, event: &TraceEvent) {
        self.count(event);
        self.log_event(event);
        match event {
            TraceEvent::Elected { .. } => {
                self.transport.watch_closely(None);
                self.show_gauges();
                // What only a leader sees, such as the nodes that sessions can go to, is waited for.
                self.duties_are_due();
            }
            TraceEvent::LeaderLost { .. } => {
                self.transport.watch_closely(None);
                self.show_gauges();
            }
            TraceEvent::Following { leader, .. } => {
                self.transport.watch_closely(Some(*leader));
                self.show_gauges();
            }
            TraceEvent::MembershipChanged { .. } => self.meet_members(),
            TraceEvent::DiskFailed { error } => self.fail(error.clone()),
            TraceEvent::Unfit(error) => self.fail(error.to_string()),
            TraceEvent::Quarantined(why) => self.set_aside(**why),
            _ => {}
        }
    }

    /// The name of a member, or its id when it is none any more.
    pub(super) fn name_of(&self, id: NodeId) -> String {
        let membership = self.raft.status().membership;
        membership
            .members()
            .get(&id)
            .map_or_else(|| format!("(id {id})"), |member| member.name.clone())
    }

    fn log_event(&self, event: &TraceEvent) {
        let name = |id: &NodeId| self.name_of(*id);
        match event {
            TraceEvent::Campaign {
                term,
                pre_vote: false,
            } => tracing::info!(term = term.0, "asking for votes"),
            TraceEvent::Campaign { pre_vote: true, .. } | TraceEvent::VoteReceived { .. } => {
                tracing::debug!(?event, "election");
            }
            TraceEvent::Elected { term } => tracing::info!(term = term.0, "this node was elected leader"),
            TraceEvent::Following { leader, term } => {
                tracing::info!(leader = name(leader), term = term.0, "following")
            }
            TraceEvent::LeaderLost { leader, term } => {
                tracing::warn!(leader = name(leader), term = term.0, "lost the leader");
            }
            TraceEvent::SteppedDown { term, reason } => {
                tracing::warn!(
                    term = term.0,
                    reason = reason.explain(),
                    "this node leads no longer"
                );
            }
            TraceEvent::HandsOver { to, reason } => {
                tracing::warn!(
                    to = name(to),
                    reason = reason.explain(),
                    "handing the leadership over"
                );
            }
            TraceEvent::ClockDrifts { peer } => {
                tracing::warn!(
                    peer = name(peer),
                    "the peer's clock drifts further than clock_drift_ppm: its promises count for no lease, and reads by \
                     lease ask a majority; check its clock"
                );
            }
            TraceEvent::Truncated { from } => {
                tracing::info!(from = from.0, "replaced entries that were never committed")
            }
            // Of several that came at once only the last one is in force.
            TraceEvent::MembershipChanged { position } => {
                let status = self.raft.status();
                if *position != status.membership_position {
                    return;
                }
                let names = |ids: &BTreeSet<NodeId>| {
                    ids.iter()
                        .map(|id| self.name_of(*id))
                        .collect::<Vec<_>>()
                        .join(",")
                };
                tracing::info!(
                    index = position.index.0,
                    voters = names(status.membership.voters()),
                    outgoing = names(status.membership.outgoing()),
                    learners = names(status.membership.learners()),
                    features = %status.membership.level(),
                    "the membership changed"
                );
            }
            TraceEvent::SnapshotNeeded { to } => tracing::info!(to = name(to), "a node needs a snapshot"),
            TraceEvent::SnapshotAccepted { position } => {
                tracing::info!(index = position.index.0, "a snapshot replaces the log");
            }
            TraceEvent::VoteWithheld { candidate, until } => tracing::info!(
                candidate = name(candidate),
                %until,
                "gave no vote, since this node's damaged log is being repaired"
            ),
            TraceEvent::Repaired { reached } => {
                tracing::info!(%reached, "the log is whole again, this node votes");
            }
            TraceEvent::QuorumLost => tracing::warn!(
                "no leader with a majority is known: this node is read-only until there is one again"
            ),
            TraceEvent::QuorumRegained => tracing::info!("a leader is known again: this node takes writes"),
            // What it means is told when more is known.
            TraceEvent::Quarantined(_) => {}
            TraceEvent::Unfit(error) => tracing::error!(%error, "this node does not fit into the cluster"),
            TraceEvent::DiskFailed { error } => tracing::error!(error, "the disk failed"),
        }
    }

    /// Asks consensus to promote the learner that caught up, if there is one.
    pub(super) fn promote_learners(&mut self) {
        if self.duty_pending {
            return;
        }
        if let Some(id) = self.learner_to_promote() {
            tracing::info!(node = self.name_of(id), "promoting a learner that caught up");
            self.duty_pending = true;
            let change = vec![Change::Promote(id)];
            self.administer(Pending::Duty, Operation::ChangeMembership(change));
        }
    }
}

/// What a command does, without what makes it be done once: a mistake that can be planted.
fn without_request_key(command: Bytes) -> Bytes {
    match Command::decode(&command) {
        Ok(Command::Once { command, .. }) => command,
        _ => command,
    }
}
