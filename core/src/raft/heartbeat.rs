//! Heartbeats: how a leader stays one, and how it learns that it no longer is.
//!
//! Invariants: a heartbeat says nothing about the log, and its answer moves no match index; a leader that a majority
//! has not answered for the largest election time-out steps down (check-quorum, Raft dissertation, section 6.2).

use super::progress::{Fate, State};
use super::quorum::reached_by_majority;
use super::role::{Follower, Leader, Part};
use super::{Body, Index, LeaseRequest, NodeId, PeerStatus, PlantedBug, Raft, StepDown, TraceEvent};
use crate::time::Instant;

/// Heartbeat intervals that a follower may leave the last byte of a snapshot unanswered before it is asked where it is.
const SNAPSHOT_PATIENCE: u32 = 20;

impl Raft {
    pub(super) fn leader_deadline(&self, leader: &Leader) -> Instant {
        let quorum = self.quorum_contact(leader) + self.config.election_timeout_max;
        let transfer = leader.transfer.as_ref().map(|transfer| transfer.deadline);
        let stays = self.planted(PlantedBug::LeaderWithoutQuorumStays);
        [
            Some(leader.heartbeat_due),
            Some(quorum).filter(|_| !stays),
            leader.commit_notice_due,
            transfer,
        ]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or(leader.heartbeat_due)
    }

    /// When a majority was last heard of.
    pub(super) fn quorum_contact(&self, leader: &Leader) -> Instant {
        reached_by_majority(self.log.membership(), |id| {
            if id == self.id {
                self.now
            } else {
                leader.peers.get(&id).map_or(leader.elected, |peer| peer.heard)
            }
        })
    }

    /// When a majority was last heard of, if that is the largest election time-out ago. Contacts only come later, so
    /// there is nothing to count before the time at which the last count would be overdue.
    fn quorum_lost_since(&mut self) -> Option<Instant> {
        let leader = self.leading().filter(|leader| self.now >= leader.quorum_due)?;
        let contact = self.quorum_contact(leader);
        let due = contact + self.config.election_timeout_max;
        if let Some(leader) = self.leading_mut() {
            leader.quorum_due = due;
        }
        (self.now >= due).then_some(contact)
    }

    pub(super) fn run_leader_timers(&mut self) {
        if let Some(contact) = self.quorum_lost_since()
            && !self.planted(PlantedBug::LeaderWithoutQuorumStays)
        {
            self.quorum.led_until(contact);
            self.step_down(StepDown::QuorumLost);
            return;
        }
        self.run_transfer_timer();
        let Some(leader) = self.leading() else { return };
        if self.now >= leader.heartbeat_due {
            self.start_round();
            self.judge_reach();
            self.consider_features();
            self.consider_handover();
        } else if leader.commit_notice_due.is_some_and(|due| self.now >= due) {
            self.notify_commit();
        }
    }

    /// Sends a heartbeat to everybody and returns its number.
    pub(super) fn start_round(&mut self) -> u64 {
        let due = self.now + self.config.heartbeat_interval;
        let Part::Leader(leader) = &mut self.part else {
            unreachable!("only a leader sends heartbeats")
        };
        leader.round += 1;
        leader.heartbeat_due = due;
        leader.commit_notice_due = None;
        let round = leader.round;
        let peers: Vec<NodeId> = leader.peers.keys().copied().collect();
        for peer in peers {
            self.send_heartbeat(peer);
        }
        round
    }

    /// Tells those who have not heard of the last commit.
    fn notify_commit(&mut self) {
        let commit = self.commit;
        let Part::Leader(leader) = &mut self.part else {
            return;
        };
        leader.commit_notice_due = None;
        let uninformed: Vec<NodeId> = leader
            .peers
            .iter()
            .filter(|(_, peer)| peer.commit_sent < commit)
            .map(|(id, _)| *id)
            .collect();
        for peer in uninformed {
            self.send_heartbeat(peer);
        }
    }

    pub(super) fn send_heartbeat(&mut self, to: NodeId) {
        let commit = self.commit;
        let lease = self.lease_request();
        let Part::Leader(leader) = &mut self.part else {
            return;
        };
        let round = leader.round;
        if let Some(peer) = leader.peers.get_mut(&to) {
            peer.commit_sent = commit;
            self.send(to, Body::Heartbeat { commit, round, lease });
        }
    }

    /// Notes that a member spoke in this term.
    pub(super) fn heard_from(&mut self, from: NodeId) {
        let now = self.now;
        if let Part::Leader(leader) = &mut self.part
            && let Some(peer) = leader.peers.get_mut(&from)
        {
            peer.heard = now;
        }
    }

    /// Accepts the sender as the leader of this term. False when that cannot be, and the message is to be ignored.
    pub(super) fn follow(&mut self, leader: NodeId) -> bool {
        match &self.part {
            Part::Leader(_) => return false,
            Part::Follower(Follower {
                leader: Some(known), ..
            }) if *known != leader => return false,
            Part::Follower(_) => {}
            Part::Candidate(_) => {
                self.clear_vote_if_planted();
                self.part = Part::Follower(Follower::default());
            }
        }
        let Part::Follower(follower) = &mut self.part else {
            unreachable!("set above")
        };
        follower.contact = Some(self.now);
        if follower.leader.is_none() {
            follower.leader = Some(leader);
            self.output.trace.push(TraceEvent::Following {
                leader,
                term: self.hard_state.term,
            });
            self.settle_handover(leader);
        }
        self.eager_until = self.now;
        self.precedence.led(leader, self.now);
        self.wait_for_election();
        true
    }

    pub(super) fn heartbeat_received(
        &mut self,
        from: NodeId,
        commit: Index,
        round: u64,
        lease: Option<LeaseRequest>,
    ) {
        if !self.follow(from) {
            return;
        }
        let matched = self.matched_with_leader();
        let known = if self.planted(PlantedBug::HeartbeatCommitsBeyondMatch) {
            self.log.last().index
        } else {
            matched
        };
        self.commit_to(commit.min(known));
        let disk = self.disk_health();
        let features = self.config.features;
        let lease = lease.and_then(|request| self.grant_lease(round, request));
        self.send(
            from,
            Body::HeartbeatResponse {
                round,
                matched,
                disk,
                features,
                lease,
            },
        );
    }

    pub(super) fn heartbeat_answered(&mut self, from: NodeId, round: u64, matched: Index) {
        let Part::Leader(leader) = &mut self.part else {
            return;
        };
        let Some(peer) = leader.peers.get_mut(&from) else {
            return;
        };
        if round > leader.round {
            return;
        }
        peer.round = peer.round.max(round);
        if self.planted(PlantedBug::HeartbeatMovesMatch) {
            self.append_accepted(from, self.log.last().index);
        }
        self.resume_after_loss(from, round, matched);
        self.confirm_reads();
        self.hand_over_if_ready(from);
    }

    /// Nobody reports a lost message: the answer to a heartbeat shows what is missing.
    fn resume_after_loss(&mut self, from: NodeId, round: u64, matched: Index) {
        let (now, interval) = (self.now, self.config.heartbeat_interval);
        let last = self.log.last().index;
        let Some(peer) = self.leading().and_then(|leader| leader.peers.get(&from)) else {
            return;
        };
        if let State::Snapshot { sent: Some(sent) } = peer.state
            && !self.planted(PlantedBug::AcceptanceBelowSnapshotIsIgnored)
            && now.since(sent) >= interval * SNAPSHOT_PATIENCE
        {
            self.peer_mut(from, |peer| peer.probe(last.next()));
            return;
        }
        let last_append = peer.last_append.at;
        let mut fate = Fate::Unknown;
        self.peer_mut(from, |peer| {
            fate = peer.judge_appends(round, matched, now, interval)
        });
        match fate {
            Fate::Unknown => {}
            Fate::Lost if self.planted(PlantedBug::LostAppendIsForgotten) => {}
            Fate::Lost => self.peer_mut(from, |peer| match peer.state {
                State::Replicate { .. } => peer.probe(matched.next()),
                _ => peer.state = State::Probe { waiting: false },
            }),
            Fate::Arrived if now.since(last_append) >= interval => self.ask_for_acceptance(from),
            Fate::Arrived => {}
        }
    }

    pub(super) fn peer_statuses(&self) -> Vec<PeerStatus> {
        let Some(leader) = self.leading() else {
            return Vec::new();
        };
        let status = |(id, peer): (&NodeId, &super::progress::Progress)| PeerStatus {
            id: *id,
            matched: peer.matched,
            next: peer.next,
            state: peer.state.name(),
            heard: peer.heard,
            disk: peer.disk,
            features: peer.features,
            clock_drifts: peer.grant.drifts(),
            caught_up: self.is_caught_up(peer),
        };
        leader.peers.iter().map(status).collect()
    }
}
