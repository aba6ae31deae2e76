//! Changes of the membership, by joint consensus (Raft dissertation, section 4.3).
//!
//! Invariants: a membership is in force from the moment it is in the log; one change at a time, and none before the
//! leader has committed an entry of its own term (the single-server bug and its joint relatives); a joint phase is
//! left by whoever leads when it commits.

use super::membership::Membership;
use super::progress::Progress;
use super::role::Part;
use super::{Body, Change, NodeId, Outcome, Payload, PlantedBug, Raft, Refusal, StepDown, Token, TraceEvent};

impl Raft {
    pub(super) fn change_membership(&mut self, token: Token, changes: &[Change]) {
        if !self.is_settled() {
            self.answer(token, Outcome::Refused(Refusal::ChangePending));
            return;
        }
        let planted = self.config.planted;
        match self.log.membership().changed_by(changes, planted) {
            Err(error) => self.answer(token, Outcome::Refused(Refusal::Change(error))),
            Ok(next) if next == *self.log.membership() => self.answer(token, Outcome::Done),
            Ok(next) => {
                let fit = self
                    .check_new_voters(&next)
                    .and_then(|()| self.check_new_majority(&next));
                if let Err(refusal) = fit {
                    self.answer(token, Outcome::Refused(refusal));
                    return;
                }
                if let Some(leader) = self.leading_mut() {
                    leader.change = Some(token);
                }
                self.append_membership(next);
            }
        }
    }

    /// Refuses a membership whose majority does not answer: from the moment it is in the log nothing would commit, not even
    /// another change, and this leader would step down (etcd's strict reconfiguration check).
    fn check_new_majority(&self, next: &Membership) -> Result<(), Refusal> {
        let Some(leader) = self.leading() else {
            return Ok(());
        };
        let voters = next.voters();
        let answers = |id: &&NodeId| {
            **id == self.id || leader.peers.get(*id).is_some_and(|peer| self.is_in_touch(peer))
        };
        let in_touch = voters.iter().filter(answers).count();
        if in_touch * 2 > voters.len() {
            return Ok(());
        }
        Err(Refusal::MajoritySilent {
            voters: voters.len(),
            in_touch,
        })
    }

    /// Whether this leader may change the membership: it has committed an entry of its term, nothing is under way, and
    /// its log begins with its lineage.
    pub(super) fn is_settled(&self) -> bool {
        let Some(leader) = self.leading() else {
            return false;
        };
        let opened = self.commit >= leader.opened_at || self.planted(PlantedBug::ChangeBeforeFirstCommit);
        // Nor more than one that waits for this node's own disk: they are held in memory until then.
        let committed = self.log.membership_position().index <= self.commit.min(self.log.durable());
        let idle = leader.change.is_none() && leader.transfer.is_none();
        let begun = !self.begins_before_its_lineage();
        opened && committed && idle && begun && !self.log.membership().is_joint()
    }

    pub(super) fn append_membership(&mut self, membership: Membership) {
        let position = self.append_own(Payload::Membership(Box::new(membership)));
        self.output.trace.push(TraceEvent::MembershipChanged { position });
        self.follow_membership();
    }

    /// Replicates to the members in force. Whoever leaves is served until the membership without it commits: a node that
    /// has it in its log does not campaign any more.
    fn follow_membership(&mut self) {
        let (last, now, own) = (self.log.last().index, self.now, self.id);
        let members: Vec<(NodeId, bool)> = self
            .log
            .membership()
            .members()
            .iter()
            .map(|(id, member)| (*id, member.witness))
            .collect();
        let Part::Leader(leader) = &mut self.part else {
            return;
        };
        for (id, witness) in members {
            if id != own {
                let newcomer = || Progress::new(last, now, witness, true);
                leader.peers.entry(id).or_insert_with(newcomer);
            }
        }
        leader.quorum_due = now;
        // Reads may have waited for a member that is no longer asked; the only voter left hears no more answers.
        self.confirm_reads();
    }

    /// Goes on with a change when its entry is committed.
    pub(super) fn membership_committed(&mut self) {
        let Some(leader) = self.leading() else { return };
        if self.log.membership_position().index > self.commit || self.commit < leader.opened_at {
            return;
        }
        if self.log.membership().is_joint() {
            if leader.change.is_none() && self.planted(PlantedBug::JointIsLeftByNobodyElse) {
                return;
            }
            let next = self.log.membership().left_joint();
            self.append_membership(next);
            return;
        }
        self.part_from_removed();
        if let Some(token) = self.leading_mut().and_then(|leader| leader.change.take()) {
            self.answer(token, Outcome::Done);
        }
        if !self.log.membership().is_voter(self.id) {
            // The others need not wait for this node's silence.
            if let Some(successor) = self.best_successor() {
                let released = self.release_lease();
                self.send(successor, Body::TimeoutNow { released });
            }
            self.step_down(StepDown::Removed);
        }
    }

    /// Tells whoever left that its removal is committed, which ends its campaigns, and serves it no more. A node that
    /// misses this asks for votes in vain, and learns from the others that it is no member.
    fn part_from_removed(&mut self) {
        let Some(leader) = self.leading() else { return };
        let members = self.log.membership().members();
        let removed: Vec<NodeId> = leader
            .peers
            .keys()
            .filter(|id| !members.contains_key(id))
            .copied()
            .collect();
        for id in removed {
            self.send_heartbeat(id);
            if let Some(leader) = self.leading_mut() {
                leader.peers.remove(&id);
            }
        }
    }
}
