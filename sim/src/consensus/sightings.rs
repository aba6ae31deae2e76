//! Where marks are recognised: looks at inputs, messages, writes, answers and what consensus says of itself.
//!
//! Looking changes nothing: no stream of chance is drawn from, and no node is spoken to.

use quorate_core::Instant;
use quorate_core::raft::{
    Body, BootError, ChangeError, FetchError, HandoverReason, Index, Input, Membership, Message, NodeId,
    Outcome, Position, PreVote, Refusal, Role, SnapshotEvent, StepDown, Term, TraceEvent, Write,
};

use super::checker::client::RequestKind;
use super::marks::Mark;
use super::node::{Node, Run};
use super::world::World;

/// What was seen of one life of a node.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The last that asked for a vote without a hand-over, in which term, and where its log ended.
    asked: Option<(NodeId, Term, Position)>,
    /// Until when it promised, by its clock, to vote for nobody.
    promised_until: Option<Instant>,
    /// When it lost its leader, by its clock.
    leader_lost: Option<Instant>,
}

impl Seen {
    /// A life begins that may have promised something in an earlier one.
    pub(super) fn starting(promised_until: Option<Instant>) -> Seen {
        Seen {
            promised_until,
            ..Seen::default()
        }
    }
}

impl World {
    /// An input is put to a node.
    pub(super) fn sight_input(&mut self, run: Run, input: &Input) {
        if !self.conditions.checks {
            return;
        }
        match input {
            Input::Receive { from, message } => self.sight_delivery(run, *from, message),
            Input::Snapshot(SnapshotEvent::Received { base, .. }) => {
                let commit = self.nodes.live(run).map(|live| live.process.progress.commit());
                let late = commit >= Some(base.position.index);
                self.marks.note_if(late, Mark::SnapshotLate);
            }
            Input::Snapshot(SnapshotEvent::Sent { complete, .. }) => {
                self.marks.note_if(!complete, Mark::SnapshotLost);
            }
            Input::Fetched { result, .. } => {
                let purged = matches!(result, Err(FetchError::Purged));
                self.marks.note_if(purged, Mark::FetchPurged);
            }
            _ => {}
        }
    }

    fn sight_delivery(&mut self, run: Run, from: NodeId, message: &Message) {
        let now = self.schedule.now();
        let Some(live) = self.nodes.live(run) else {
            return;
        };
        match &message.body {
            Body::Append { entries, .. } => {
                let Some(last) = entries.last().map(|entry| entry.position) else {
                    return;
                };
                let past = message.term < live.process.progress.term();
                let held = live.disk.written.term_at(last.index);
                let replaced = held.is_some_and(|term| term > last.term);
                self.marks.note_if(held == Some(last.term), Mark::RepeatedAppend);
                self.marks
                    .note_if(past && replaced, Mark::OldAppendAfterTruncation);
            }
            Body::VoteRequest { last, transfer } => {
                let shown = live.clock.shows(now);
                let status = live.process.raft.status();
                // Who has heard a leader just now ignores the request for that alone.
                let free = status.term < message.term && status.leader.is_none();
                let good =
                    status.role == Role::Follower && *last >= status.last && status.repairing.is_none();
                let seen = &mut live.process.seen;
                seen.asked = transfer.is_none().then_some((from, message.term, *last));
                let promised = seen.promised_until.is_some_and(|until| shown < until);
                let refuses = transfer.is_none() && free && good && promised;
                self.marks.note_if(refuses, Mark::PromiseRefusesVote);
            }
            _ => {}
        }
    }

    /// A message leaves a node.
    pub(super) fn sight_message(&mut self, run: Run, to: NodeId, message: &Message) {
        let (now, promise) = (self.schedule.now(), self.knobs.raft.election_timeout_min);
        match &message.body {
            Body::PreVoteResponse { answer, .. } => {
                let refused = *answer == PreVote::Refused;
                self.marks.note_if(refused, Mark::PreVoteRefused);
                let vetoed = *answer == PreVote::Vetoed;
                self.marks.note_if(vetoed, Mark::PreVoteVetoed);
            }
            Body::HeartbeatResponse { lease: Some(_), .. } => {
                if let Some(live) = self.nodes.live(run) {
                    let until = live.clock.shows(now) + promise;
                    let seen = &mut live.process.seen;
                    seen.promised_until = seen.promised_until.max(Some(until));
                }
            }
            Body::VoteResponse { granted } => self.sight_vote(run, to, message.term, *granted),
            _ => {}
        }
    }

    fn sight_vote(&mut self, run: Run, to: NodeId, term: Term, granted: bool) {
        let Some(live) = self.nodes.live(run) else {
            return;
        };
        let status = live.process.raft.status();
        let learner = granted && status.role == Role::Learner;
        let free = status.vote.is_none() && status.leader.is_none() && status.repairing.is_none();
        let request = live.process.seen.asked;
        let request = request.filter(|(from, asked, _)| (*from, *asked) == (to, term));
        let loses = request.is_some_and(|(_, _, last)| last < status.last);
        let refused = !granted && free && term == status.term;
        self.marks.note_if(learner, Mark::LearnerVotes);
        self.marks.note_if(refused && loses, Mark::VoteLosesToLog);
    }

    /// A node is about to write.
    pub(super) fn sight_write(&mut self, run: Run, write: &Write) {
        let Some(live) = self.nodes.live(run) else {
            return;
        };
        let (log, witness) = (&live.disk.written, live.witness);
        let last = log.last().index;
        if let Some(base) = &write.reset {
            let mut index = log.base.position.index.next();
            let mut diverged = false;
            while !witness && index <= last.min(base.position.index) {
                let committed = self.checkers.committed.term_at(index);
                diverged |= committed.is_some() && committed != log.term_at(index);
                index = index.next();
            }
            self.marks.note_if(diverged, Mark::SnapshotOverDiverged);
            return;
        }
        let Some(first) = write.entries.first().map(|entry| entry.position.index) else {
            return;
        };
        if first <= last {
            let (membership, _) = log.membership_before(last.next());
            self.marks.note_if(first < last, Mark::TruncatesMany);
            self.marks.note_if(first <= membership, Mark::TruncatesMembership);
        }
    }

    /// A leader commits what it had not committed before.
    pub(super) fn sight_commit(&mut self, run: Run, before: Index, commit: Index, term: Term) {
        let Some(node) = self.nodes.get(run.node) else {
            return;
        };
        let first = node.disk.written.term_at(before.next());
        let earlier = first.is_some_and(|first| first < term);
        let decided = self.knobs.witnesses > 0
            && !self.marks.has(Mark::WitnessDecidesCommit)
            && node.process.as_ref().is_some_and(|process| {
                let membership = process.raft.status().membership;
                self.witnesses_decide(membership, |id| {
                    let log = self.nodes.get(id).map(|node| &node.disk.durable);
                    log.is_some_and(|log| log.last().index >= commit && log.term_at(commit) == Some(term))
                })
            });
        self.marks.note_if(earlier, Mark::EarlierTermCommits);
        self.marks.note_if(decided, Mark::WitnessDecidesCommit);
    }

    /// Whether those who say yes are a majority of a half only with its witnesses.
    fn witnesses_decide(&self, membership: &Membership, yes: impl Fn(NodeId) -> bool) -> bool {
        [membership.voters(), membership.outgoing()]
            .into_iter()
            .any(|half| {
                let all = half.iter().filter(|id| yes(**id));
                let (all, data): (Vec<_>, Vec<_>) = (
                    all.clone().collect(),
                    all.filter(|id| !membership.is_witness(**id)).collect(),
                );
                2 * all.len() > half.len() && 2 * data.len() <= half.len()
            })
    }

    /// Consensus says something of itself.
    pub(super) fn sight_event(&mut self, run: Run, event: &TraceEvent) {
        if !self.conditions.checks {
            return;
        }
        let mark = match event {
            TraceEvent::Elected { term } => return self.sight_election(run, *term),
            TraceEvent::Campaign { term, pre_vote } => return self.sight_campaign(run, *term, *pre_vote),
            TraceEvent::LeaderLost { .. } => {
                let now = self.schedule.now();
                if let Some(live) = self.nodes.live(run) {
                    live.process.seen.leader_lost = Some(live.clock.shows(now));
                }
                return;
            }
            TraceEvent::MembershipChanged { .. } => return self.sight_membership(run),
            TraceEvent::SteppedDown { reason, .. } => match reason {
                StepDown::QuorumLost => Mark::StepsDownUnheard,
                StepDown::Removed => Mark::StepsDownRemoved,
                StepDown::DiskStalled => Mark::StalledLeader,
                StepDown::DiskFailed => Mark::FailedLeader,
                StepDown::NewerTerm => return,
            },
            TraceEvent::HandsOver { reason, .. } => match reason {
                HandoverReason::SlowDisk => Mark::DiskHandover,
                HandoverReason::Preferred => Mark::PreferredHandover,
            },
            TraceEvent::ClockDrifts { .. } => Mark::ClockDrifts,
            TraceEvent::QuorumLost => Mark::QuorumLost,
            TraceEvent::QuorumRegained => Mark::QuorumRegained,
            TraceEvent::SnapshotAccepted { .. } => Mark::SnapshotInstalled,
            TraceEvent::VoteWithheld { .. } => Mark::RepairWithholdsVote,
            TraceEvent::Repaired { .. } => Mark::RepairFinished,
            TraceEvent::Unfit(BootError::FeaturesLacking { .. }) => Mark::OldBinaryStops,
            _ => return,
        };
        self.marks.note(mark);
    }

    fn sight_election(&mut self, run: Run, term: Term) {
        let others = self
            .nodes
            .processes()
            .filter(|(node, _)| node.id != run.node)
            .any(|(_, process)| process.raft.status().role == Role::Leader);
        self.marks.note_if(others, Mark::TwoLeaders);
        let membership = self
            .nodes
            .get(run.node)
            .and_then(|node| node.process.as_ref())
            .map(|process| process.raft.status().membership);
        let decided = membership.is_some_and(|membership| {
            let promises = &self.checkers.promises;
            self.witnesses_decide(membership, |id| promises.durable_vote(id, term) == Some(run.node))
        });
        self.marks.note_if(decided, Mark::WitnessDecidesElection);
    }

    fn sight_campaign(&mut self, run: Run, term: Term, pre_vote: bool) {
        let (now, moment) = (self.schedule.now(), self.knobs.raft.link_lost_wait_max);
        if let Some(live) = self.nodes.live(run) {
            let shows = live.clock.shows(now);
            let seen = &live.process.seen;
            let (lost, until) = (seen.leader_lost, seen.promised_until);
            // Without the promise it would have campaigned a moment after the loss.
            let waited = lost
                .zip(until)
                .is_some_and(|(lost, until)| lost + moment < until && until <= shows);
            self.marks.note_if(waited, Mark::LeaseWaitedOut);
        }
        if pre_vote {
            return;
        }
        let other = self.campaigned.replace((term, run.node));
        let split = other.is_some_and(|(before, node)| before == term && node != run.node);
        self.marks.note_if(split, Mark::SplitVote);
        let stranger = !self.membership.is_voter(run.node);
        self.marks.note_if(stranger, Mark::StrangerCampaigns);
    }

    fn sight_membership(&mut self, run: Run) {
        let outside = self.nodes.live(run).is_some_and(|live| {
            let status = live.process.raft.status();
            status.role == Role::Leader && !status.membership.voters().contains(&run.node)
        });
        self.marks.note_if(outside, Mark::LeaderOutside);
    }

    /// A membership is committed that follows another one.
    pub(super) fn sight_committed_membership(&mut self, position: Position, membership: &Membership) {
        let (before, begun) = (&self.membership, self.membership_at);
        let (voters, outgoing) = (membership.voters(), membership.outgoing());
        let replaces = membership.is_joint() && !voters.is_subset(outgoing) && !outgoing.is_subset(voters);
        let leader = |term| self.checkers.elections.leader_of(term).map(|leader| leader.node);
        let another =
            before.is_joint() && !membership.is_joint() && leader(begun.term) != leader(position.term);
        let lost = |id: &NodeId| self.nodes.get(*id).is_some_and(|node| node.gone);
        let wiped = before
            .members()
            .keys()
            .any(|id| lost(id) && !membership.members().contains_key(id));
        let rises = membership.level() > before.level();
        self.marks.note_if(replaces, Mark::JointReplaces);
        self.marks.note_if(another, Mark::JointChangesLeader);
        self.marks.note_if(wiped, Mark::WipedReplaced);
        self.marks.note_if(rises, Mark::FeaturesRise);
    }

    /// A request is answered by consensus.
    pub(super) fn sight_outcome(&mut self, run: Run, request: &RequestKind, outcome: &Outcome) {
        if !self.conditions.checks {
            return;
        }
        let mark = match (request, outcome) {
            (RequestKind::Transfer, Outcome::Done) => Mark::TransferDone,
            (RequestKind::Transfer, Outcome::Refused(Refusal::TransferTimedOut(_))) => Mark::TransferAborted,
            (RequestKind::Transfer, Outcome::Refused(_)) => Mark::TransferRefused,
            (RequestKind::Change, Outcome::Refused(Refusal::ChangePending)) => Mark::ChangePending,
            (RequestKind::Change, Outcome::Refused(Refusal::Change(ChangeError::TooManyWitnesses))) => {
                Mark::WitnessesRefused
            }
            (
                RequestKind::Change,
                Outcome::Refused(Refusal::LearnerBehind { .. } | Refusal::LearnerSilent(_)),
            ) => Mark::LearnerRefused,
            (RequestKind::Read { lease, .. }, Outcome::ReadReady { .. }) => {
                self.marks.note_if(*lease, Mark::LeaseRead);
                let follows = self
                    .nodes
                    .live(run)
                    .is_some_and(|live| live.process.raft.status().role != Role::Leader);
                self.marks.note_if(follows, Mark::FollowerRead);
                return;
            }
            (RequestKind::Read { .. }, Outcome::NotLeader { .. }) => Mark::ReadLosesLeader,
            (RequestKind::Command { .. }, Outcome::Busy) => Mark::Busy,
            (
                RequestKind::Command {
                    serial: Some(serial), ..
                },
                Outcome::Unknown,
            ) => {
                let committed = self.checkers.clients.is_committed(*serial);
                self.marks.note_if(committed, Mark::UnknownCommitted);
                return;
            }
            _ => return,
        };
        self.marks.note(mark);
    }

    /// A process is killed now.
    pub(super) fn sight_crash(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get(id) else { return };
        let uncommitted = node.process.as_ref().is_some_and(|process| {
            let status = process.raft.status();
            status.role == Role::Leader && status.last.index > status.commit
        });
        self.marks.note_if(uncommitted, Mark::LeaderCrashesUncommitted);
        let alone = self.nodes.processes().all(|(node, _)| node.id == id);
        self.marks.note_if(alone, Mark::AllDown);
    }

    /// A node that stood still moves again.
    pub(super) fn sight_resume(&mut self, node: NodeId) {
        let Some(Node {
            process: Some(process),
            ..
        }) = self.nodes.get(node)
        else {
            return;
        };
        let term = process.progress.term();
        let leads = process.raft.status().role == Role::Leader;
        let deposed = leads && self.checkers.elections.after(term).next().is_some();
        self.marks.note_if(deposed, Mark::PauseDeposesLeader);
    }
}
