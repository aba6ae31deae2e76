//! Handing the leadership over (Raft dissertation, section 3.10).
//!
//! Invariants: while it is handed over nothing new is appended, so that the target can catch up; the target is told
//! to campaign only when it holds the whole log; after an election time-out the leader leads on. Who asked for it is told
//! that it is done when the target leads, and not before.

use super::role::{Part, Transfer};
use super::{Body, NodeId, Outcome, Raft, Refusal, Token};

impl Raft {
    pub(super) fn transfer_leadership(&mut self, token: Token, target: Option<NodeId>) {
        let Some(leader) = self.leading() else {
            unreachable!("checked by the caller")
        };
        if leader.transfer.is_some() || leader.change.is_some() {
            self.answer(token, Outcome::Refused(Refusal::ChangePending));
            return;
        }
        let target = match target.or_else(|| self.best_successor()) {
            None => {
                self.answer(token, Outcome::Refused(Refusal::NoTarget));
                return;
            }
            Some(target) if target == self.id => {
                self.answer(token, Outcome::Done);
                return;
            }
            Some(target) if !self.log.membership().voters().contains(&target) => {
                self.answer(token, Outcome::Refused(Refusal::NotAVoter(target)));
                return;
            }
            Some(target) if self.log.membership().is_witness(target) => {
                self.answer(token, Outcome::Refused(Refusal::Witness(target)));
                return;
            }
            Some(target) if self.is_known_stalled(target) => {
                self.answer(token, Outcome::Refused(Refusal::DiskStalled(target)));
                return;
            }
            Some(target) => target,
        };
        self.begin_transfer(target, Some(token));
    }

    /// Begins to hand over to a voter. `token` is of whoever asked for it.
    pub(super) fn begin_transfer(&mut self, target: NodeId, token: Option<Token>) {
        let deadline = self.now + self.config.election_timeout_max;
        if let Some(leader) = self.leading_mut() {
            leader.transfer = Some(Transfer {
                target,
                token,
                deadline,
            });
        }
        self.hand_over_if_ready(target);
    }

    /// Whether a voter said lately that its disk is stuck.
    fn is_known_stalled(&self, id: NodeId) -> bool {
        self.leading()
            .and_then(|leader| self.disk_in_touch(leader, id))
            .is_some_and(|disk| disk.stalled)
    }

    /// The voter to lead next among those heard of lately, whose disk works: one that holds what is committed, then the
    /// most preferred one, then the one furthest along.
    pub(super) fn best_successor(&self) -> Option<NodeId> {
        let leader = self.leading()?;
        let voters = self.log.membership().voters();
        leader
            .peers
            .iter()
            .filter(|(id, peer)| voters.contains(id) && !peer.witness)
            .filter(|(id, _)| self.disk_in_touch(leader, **id).is_some_and(|disk| !disk.stalled))
            .max_by_key(|(id, peer)| {
                let preference = self.priority_of(**id);
                (peer.matched >= self.commit, preference, peer.matched)
            })
            .map(|(id, _)| *id)
    }

    /// Tells the target to campaign when it holds everything. Told again with later answers: the word may be lost.
    pub(super) fn hand_over_if_ready(&mut self, peer: NodeId) {
        let last = self.log.last().index;
        let Part::Leader(leader) = &mut self.part else {
            return;
        };
        let Some(transfer) = &leader.transfer else {
            return;
        };
        let holds_all = leader
            .peers
            .get(&peer)
            .is_some_and(|progress| progress.matched == last);
        if transfer.target == peer && holds_all {
            let released = self.release_lease();
            self.send(peer, Body::TimeoutNow { released });
        }
    }

    pub(super) fn run_transfer_timer(&mut self) {
        let now = self.now;
        let Part::Leader(leader) = &mut self.part else {
            return;
        };
        let overdue = leader.transfer.take_if(|transfer| now >= transfer.deadline);
        if let Some(Transfer {
            target,
            token: Some(token),
            ..
        }) = overdue
        {
            self.answer(token, Outcome::Refused(Refusal::TransferTimedOut(target)));
        }
    }

    /// Who leads after this node is known: so is what came of its hand-over.
    pub(super) fn settle_handover(&mut self, leads: NodeId) {
        if let Some(Transfer { target, token, .. }) = self.handed_over.take()
            && let Some(token) = token
        {
            let outcome = match leads == target {
                true => Outcome::Done,
                false => Outcome::Refused(Refusal::AnotherLeads(leads)),
            };
            self.answer(token, outcome);
        }
    }

    /// Nobody leads in time.
    pub(super) fn expire_handover(&mut self) {
        let now = self.now;
        if self
            .handed_over
            .as_ref()
            .is_some_and(|transfer| now >= transfer.deadline)
        {
            self.give_up_handover();
        }
    }

    /// What came of a hand-over will not be known here.
    pub(super) fn give_up_handover(&mut self) {
        if let Some(token) = self.handed_over.take().and_then(|transfer| transfer.token) {
            self.answer(token, Outcome::Unknown);
        }
    }

    /// The leader wants this node to take over at once.
    pub(super) fn timeout_now(&mut self, from: NodeId, released: u64) {
        // A late word does not undo promises that were made after it.
        let promised = self.promise_forbids(self.hard_state.term.next(), Some(released));
        let follows = matches!(self.part, Part::Follower(_)) && self.leader() == Some(from);
        if follows && !promised && self.can_campaign() {
            self.campaign(false, Some(released));
        }
    }
}
