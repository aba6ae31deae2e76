//! Elections: who asks, who is asked, who wins (Raft paper, section 5.2; dissertation, sections 4.2.3 and 9.6).
//!
//! Invariants: a node votes for at most one candidate a term, and its vote leaves only when it is on disk; a
//! candidate asks for votes only when its own vote, and with it the log that it asks them for, is on disk, since it would
//! otherwise forget after a crash that it campaigned, and could count them in the same term for a shorter log;
//! a witness never campaigns; a learner neither, but it votes when asked, since it may be a voter that does not know it
//! yet; a voter that leaves campaigns until it knows that the membership without it is committed; a promise (see
//! [`lease`](super::lease)) that holds is kept, whatever else speaks for an election.

use std::collections::BTreeMap;
use std::time::Duration;

use super::handover::Watch;
use super::progress::Progress;
use super::quorum::{Tally, tally};
use super::role::{Candidate, Follower, Leader, Part};
use super::{
    Body, HardState, Message, NodeId, Outcome, Payload, PlantedBug, Position, PreVote, Raft, StepDown, Term,
    TraceEvent,
};

impl Raft {
    /// Draws the next election time-out.
    pub(super) fn wait_for_election(&mut self) {
        let wait = self.random_between(self.config.election_timeout_min, self.config.election_timeout_max);
        self.election_due = self.now + wait;
    }

    /// Waits only a moment: others may not have noticed yet what this node knows.
    pub(super) fn wait_eagerly(&mut self) {
        let longest = self.config.link_lost_wait_max;
        let wait = self.random_between(longest / 10, longest);
        self.election_due = self.election_due.min(self.now + wait);
    }

    /// Whether this node may ask for votes.
    pub(super) fn can_campaign(&self) -> bool {
        let votes = self.log.membership().is_voter(self.id) || self.is_leaving_voter();
        let leads = !self.config.witness || self.planted(PlantedBug::WitnessCampaigns);
        votes && leads && !self.cursor.is_installing() && !self.is_disk_stalled() && !self.must_not_vote()
    }

    /// Whether this node was a voter up to a membership that may not be committed. The others may lack that membership
    /// and still need this node, whose longer log nobody else can bring them; its own vote does not count
    /// (Raft dissertation, section 4.2.2).
    fn is_leaving_voter(&self) -> bool {
        let position = self.log.membership_position().index;
        position > self.commit && self.log.membership_at(position.previous()).is_voter(self.id)
    }

    /// Whether a leader was heard of within the smallest election time-out, so that votes are refused.
    pub(super) fn is_undisturbed(&self) -> bool {
        match &self.part {
            Part::Leader(_) => true,
            Part::Candidate(_) => self.planted(PlantedBug::PreCandidateRefusesPeers),
            Part::Follower(follower) => follower
                .contact
                .is_some_and(|contact| self.now.since(contact) < self.config.election_timeout_min),
        }
    }

    /// Takes over a later term. Whoever led or campaigned in an earlier one stops.
    pub(super) fn enter_term(&mut self, term: Term) {
        assert!(term > self.hard_state.term, "terms never go down");
        if self.leading().is_some() {
            self.step_down(StepDown::NewerTerm);
        }
        self.set_hard_state(HardState { term, vote: None });
        self.become_follower();
    }

    fn set_hard_state(&mut self, hard_state: HardState) {
        let before = self.hard_state;
        assert!(
            hard_state.term > before.term || (hard_state.term == before.term && before.vote.is_none()),
            "a vote never changes within a term"
        );
        self.hard_state = hard_state;
        self.durability.hard_state_changed();
    }

    /// Follows nobody; the election timer runs on.
    pub(super) fn become_follower(&mut self) {
        if let Part::Follower(Follower {
            leader: Some(leader), ..
        }) = self.part
        {
            self.output.trace.push(TraceEvent::LeaderLost {
                leader,
                term: self.hard_state.term,
            });
        }
        self.part = Part::Follower(Follower::default());
        self.give_up_reads();
        if self.election_due <= self.now {
            self.wait_for_election();
        }
    }

    /// Stops leading. What clients wait for is settled by the next leader's commits, or given up after a while.
    pub(super) fn step_down(&mut self, reason: StepDown) {
        let Part::Leader(leader) = std::mem::replace(&mut self.part, Part::Follower(Follower::default()))
        else {
            unreachable!("only a leader steps down");
        };
        self.output.trace.push(TraceEvent::SteppedDown {
            term: self.hard_state.term,
            reason,
        });
        self.precedence.led(self.id, self.now);
        if let Some(token) = leader.transfer.and_then(|transfer| transfer.token) {
            let outcome = match reason {
                StepDown::NewerTerm | StepDown::Removed => Outcome::Done,
                StepDown::QuorumLost | StepDown::DiskFailed | StepDown::DiskStalled => Outcome::Unknown,
            };
            self.answer(token, outcome);
        }
        if let Some(token) = leader.change {
            self.answer(token, Outcome::Unknown);
        }
        self.refuse_reads(leader.reads_waiting);
        for round in leader.reads_asked {
            self.refuse_reads(round.reads);
        }
        self.fetches
            .retain(|_, reason| *reason == super::FetchReason::Apply);
        if !self.owed.is_empty() {
            self.owed_until = Some(self.now + 4 * self.config.election_timeout_max);
        }
        self.wait_for_election();
    }

    pub(super) fn run_election_timer(&mut self) {
        if self.now < self.election_due {
            return;
        }
        if let Some(until) = self.promised_until() {
            self.election_due = until + self.random_between(Duration::ZERO, self.config.link_lost_wait_max);
            return;
        }
        if self.lets_preferred_go_first() {
            return;
        }
        self.wait_for_election();
        if self.now < self.eager_until {
            self.wait_eagerly();
        }
        if !self.can_campaign() {
            return;
        }
        match &self.part {
            // Asking again keeps the answers already given: on a slow network others are still on their way.
            Part::Candidate(candidate) if candidate.pre_vote && self.now < self.eager_until => {
                self.ask_for_votes()
            }
            _ => self.campaign(true, None),
        }
    }

    /// Asks for promises (`pre_vote`) or, in a new term, for votes.
    pub(super) fn campaign(&mut self, pre_vote: bool, transfer: Option<u64>) {
        assert!(
            !self.promise_forbids(self.hard_state.term.next(), transfer),
            "nobody campaigns against a promise"
        );
        if let Part::Follower(Follower {
            leader: Some(leader), ..
        }) = self.part
        {
            self.output.trace.push(TraceEvent::LeaderLost {
                leader,
                term: self.hard_state.term,
            });
        }
        self.give_up_reads();
        if !pre_vote {
            self.set_hard_state(HardState {
                term: self.hard_state.term.next(),
                vote: Some(self.id),
            });
            self.wait_for_election();
        }
        let mut votes = BTreeMap::new();
        if pre_vote || self.planted(PlantedBug::OwnVoteFromMemory) {
            votes.insert(self.id, true);
        }
        self.part = Part::Candidate(Candidate {
            pre_vote,
            votes,
            transfer,
        });
        let term = if pre_vote {
            self.hard_state.term.next()
        } else {
            self.hard_state.term
        };
        self.output.trace.push(TraceEvent::Campaign { term, pre_vote });
        self.ask_for_votes();
        self.count_votes();
    }

    fn ask_for_votes(&mut self) {
        let Part::Candidate(candidate) = &self.part else {
            return;
        };
        let last = self.log.last();
        let (term, body) = if candidate.pre_vote {
            (self.hard_state.term.next(), Body::PreVoteRequest { last })
        } else {
            (
                self.hard_state.term,
                Body::VoteRequest {
                    last,
                    transfer: candidate.transfer,
                },
            )
        };
        let membership = self.log.membership();
        let asked = membership.voters().union(membership.outgoing()).copied();
        let asked = asked.filter(|voter| *voter != self.id && candidate.votes.get(voter) != Some(&true));
        let asked: Vec<NodeId> = asked.collect();
        let at_once = candidate.pre_vote
            || self.planted(PlantedBug::CandidateAsksBeforeSync)
            || self.planted(PlantedBug::OwnVoteFromMemory);
        for voter in asked {
            let body = body.clone();
            if at_once {
                self.output.send.push((voter, Message { term, body }));
            } else {
                self.send_when_durable(voter, body);
            }
        }
    }

    pub(super) fn pre_vote_requested(&mut self, from: NodeId, proposed: Term, last: Position) {
        // A promise that a stalled disk keeps it from holding would raise terms in vain.
        let granted = proposed > self.hard_state.term
            && self.is_up_to_date(last)
            && !self.is_undisturbed()
            && self.promised_until().is_none()
            && !self.is_disk_stalled();
        let answer = if granted && self.withholds_vote(from) {
            PreVote::Repairing
        } else if !granted {
            PreVote::Refused
        } else if self.vetoes(from, last) {
            PreVote::Vetoed
        } else {
            PreVote::Granted
        };
        if answer == PreVote::Granted && self.now < self.eager_until {
            // A courtesy, not a promise: two that noticed the same loss should not get into each other's way.
            self.election_due = self.election_due.max(self.now + self.config.link_lost_wait_max);
        }
        self.send(from, Body::PreVoteResponse { proposed, answer });
    }

    pub(super) fn pre_vote_answered(&mut self, from: NodeId, proposed: Term, answer: PreVote) {
        let current = self.hard_state.term.next();
        match &mut self.part {
            Part::Candidate(candidate) if candidate.pre_vote && proposed == current => {
                candidate.votes.insert(from, answer == PreVote::Granted);
            }
            _ => return,
        }
        if answer == PreVote::Vetoed {
            self.vetoed(from);
        }
        self.count_votes();
    }

    pub(super) fn vote_requested(&mut self, from: NodeId, last: Position, transfer: Option<u64>) {
        let free = match self.hard_state.vote {
            None => self.leader().is_none(),
            Some(vote) => vote == from,
        };
        let promised = self.promise_forbids(self.hard_state.term, transfer);
        if !free || promised || !self.is_up_to_date(last) || self.withholds_vote(from) {
            self.send(from, Body::VoteResponse { granted: false });
            return;
        }
        if self.hard_state.vote.is_none() {
            self.set_hard_state(HardState {
                term: self.hard_state.term,
                vote: Some(from),
            });
            self.become_follower();
        }
        self.wait_for_election();
        if self.planted(PlantedBug::VoteLeavesBeforeSync) {
            self.send(from, Body::VoteResponse { granted: true });
        } else {
            self.send_when_durable(from, Body::VoteResponse { granted: true });
        }
    }

    /// Whether a log that ends at `last` holds at least as much as this one (Raft paper, section 5.4.1).
    fn is_up_to_date(&self, last: Position) -> bool {
        if self.config.witness && self.planted(PlantedBug::WitnessVotesBlindly) {
            return true;
        }
        if self.planted(PlantedBug::LongerLogWins) {
            return last.index >= self.log.last().index;
        }
        last >= self.log.last()
    }

    /// Forgets the vote of this term, when that mistake is planted.
    #[inline(always)]
    pub(super) fn clear_vote_if_planted(&mut self) {
        if self.planted(PlantedBug::SteppingDownClearsVote) {
            self.hard_state.vote = None;
            self.durability.hard_state_changed();
        }
    }

    pub(super) fn vote_answered(&mut self, from: NodeId, granted: bool) {
        let granted = granted || self.planted(PlantedBug::RefusedVoteCounts);
        match &mut self.part {
            Part::Candidate(candidate) if !candidate.pre_vote => {
                candidate.votes.insert(from, granted);
            }
            _ => return,
        }
        self.output.trace.push(TraceEvent::VoteReceived { from, granted });
        self.count_votes();
    }

    /// The own vote counts from here on.
    pub(super) fn own_vote_persisted(&mut self) {
        let Part::Candidate(candidate) = &mut self.part else {
            return;
        };
        if candidate.pre_vote || !self.durability.holds_vote(self.hard_state.term, self.id) {
            return;
        }
        candidate.votes.insert(self.id, true);
        self.count_votes();
    }

    fn count_votes(&mut self) {
        let Part::Candidate(candidate) = &self.part else {
            return;
        };
        let (pre_vote, transfer) = (candidate.pre_vote, candidate.transfer);
        let own = candidate.votes.get(&self.id) == Some(&true);
        let one_majority;
        let mut membership = self.log.membership();
        if membership.is_joint() && self.planted(PlantedBug::JointElectsByOneMajority) {
            one_majority = membership.left_joint();
            membership = &one_majority;
        }
        let counted = self.with_the_lost_leader(candidate);
        match tally(membership, counted.as_ref().unwrap_or(&candidate.votes)) {
            // Between the question and the promise the disk may have stalled, or the vote may be gone.
            Tally::Won if pre_vote && !self.can_campaign() => self.become_follower(),
            Tally::Won if pre_vote => self.campaign(false, transfer),
            // A candidate that did not remember its own vote could lead the same term twice.
            Tally::Won if own => self.become_leader(transfer.is_some()),
            Tally::Won | Tally::Pending => {}
            // While the loss of the leader spreads, the same question is asked again soon.
            Tally::Lost if pre_vote && self.now < self.eager_until => {}
            Tally::Lost => {
                self.clear_vote_if_planted();
                self.become_follower();
                if self.now < self.eager_until {
                    self.wait_eagerly();
                }
            }
        }
    }

    /// The votes with a refusal of the leader whose loss was reported: it will not answer. So those who asked at the
    /// same moment see that the vote is split when they have each other's answers, and a short wait of chance decides
    /// between them. Without this they wait for its vote until their time-outs.
    fn with_the_lost_leader(&self, candidate: &Candidate) -> Option<BTreeMap<NodeId, bool>> {
        let lost = self.precedence.lost().filter(|_| self.now < self.eager_until)?;
        if candidate.pre_vote || candidate.votes.contains_key(&lost) {
            return None;
        }
        let mut votes = candidate.votes.clone();
        votes.insert(lost, false);
        Some(votes)
    }

    fn become_leader(&mut self, transfer: bool) {
        let (last, now) = (self.log.last().index, self.now);
        // Who led before is gone, unless it handed over.
        let gone = self.precedence.lost().filter(|_| !transfer);
        let members = self.log.membership().members().iter();
        let others = members.filter(|(id, _)| **id != self.id);
        let peers = others.map(|(id, member)| {
            let within_reach = Some(*id) != gone;
            (*id, Progress::new(last, now, member.witness, within_reach))
        });
        self.part = Part::Leader(Box::new(Leader {
            peers: peers.collect(),
            opened_at: last.next(),
            round: 0,
            released: 0,
            heartbeat_due: self.now,
            quorum_due: self.now,
            commit_notice_due: None,
            reads_waiting: Vec::new(),
            reads_asked: std::collections::VecDeque::new(),
            reads_asked_count: 0,
            transfer: None,
            change: None,
            elected: self.now,
            handover: Watch::default(),
        }));
        self.output.trace.push(TraceEvent::Elected {
            term: self.hard_state.term,
        });
        // What an earlier term left in the log commits with the first entry of this one (Raft paper, 5.4.2).
        self.append_own(Payload::Empty);
        if self.planted(PlantedBug::JointIsLeftUncommitted) && self.log.membership().is_joint() {
            let left = self.log.membership().left_joint();
            self.append_membership(left);
        }
        self.owed_until = None;
    }

    /// The transport reports that the leader cannot be reached: an election is tried soon, and pre-vote decides.
    pub(super) fn link_cut(&mut self, peer: NodeId) {
        match &mut self.part {
            Part::Follower(follower) if follower.leader == Some(peer) => {
                let silence_allowed = self.config.election_timeout_max;
                self.output.trace.push(TraceEvent::LeaderLost {
                    leader: peer,
                    term: self.hard_state.term,
                });
                follower.leader = None;
                follower.contact = None;
                if self.config.planted.is(PlantedBug::LinkLossBreaksPromise) {
                    self.promise = None;
                }
                self.eager_until = self.now + silence_allowed;
                self.wait_eagerly();
                self.give_up_reads();
            }
            Part::Leader(_) => self.link_to_follower_cut(peer),
            Part::Follower(_) | Part::Candidate(_) => {}
        }
    }
}
