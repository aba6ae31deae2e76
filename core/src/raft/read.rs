//! Linearizable reads through a read index (Raft dissertation, section 6.4).
//!
//! Invariants: a leader answers no read before it has committed an entry of its own term; a read index is taken when
//! its heartbeat round begins, and a majority answers that round before the read is answered, but for reads that a
//! [`lease`](super::lease) answers; a follower's request
//! has a number that no earlier life of the node used, so that a late answer fits no later request.

use std::collections::VecDeque;

use super::quorum::reached_by_majority;
use super::role::{Part, ReadOrigin, ReadRound};
use super::{Body, Index, NodeId, Outcome, PlantedBug, Raft, ReadMode, Token};
use crate::time::Instant;
use rand_chacha::rand_core::Rng;

/// Reads of this node's clients that its leader is asked about.
#[derive(Clone, Debug, Default)]
pub(super) struct PendingReads {
    /// Waiting for the next request.
    waiting: Vec<Token>,
    /// Whether one of these does not do with a lease.
    by_index: bool,
    /// Asked, oldest first; the numbers of the requests follow each other.
    asked: VecDeque<Asked>,
    /// Tokens in `asked`.
    asked_count: usize,
    next_request: Option<u64>,
}

#[derive(Clone, Debug)]
struct Asked {
    request: u64,
    /// None when the request was answered before an older one.
    tokens: Vec<Token>,
    until: Instant,
}

impl PendingReads {
    /// When the oldest request is given up.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.asked.front().map(|asked| asked.until)
    }

    pub(super) fn count(&self) -> usize {
        self.waiting.len() + self.asked_count
    }

    fn ask(&mut self, request: u64, until: Instant) {
        let tokens = std::mem::take(&mut self.waiting);
        self.asked_count += tokens.len();
        self.next_request = Some(request.wrapping_add(1));
        self.asked.push_back(Asked {
            request,
            tokens,
            until,
        });
    }

    /// The reads of `request`; none when it was answered or given up.
    fn answered(&mut self, request: u64) -> Vec<Token> {
        let Some(oldest) = self.asked.front() else {
            return Vec::new();
        };
        let place = usize::try_from(request.wrapping_sub(oldest.request)).unwrap_or(usize::MAX);
        let tokens = self
            .asked
            .get_mut(place)
            .map(|asked| std::mem::take(&mut asked.tokens))
            .unwrap_or_default();
        self.asked_count -= tokens.len();
        while self.asked.pop_front_if(|asked| asked.tokens.is_empty()).is_some() {}
        tokens
    }

    /// The reads of the oldest request, when it is overdue.
    fn expired(&mut self, now: Instant) -> Option<Vec<Token>> {
        let asked = self.asked.pop_front_if(|asked| asked.until <= now)?;
        self.asked_count -= asked.tokens.len();
        Some(asked.tokens)
    }

    /// All reads, which are given up.
    fn take(&mut self) -> impl Iterator<Item = Token> + use<> {
        (self.asked_count, self.by_index) = (0, false);
        let (waiting, asked) = (std::mem::take(&mut self.waiting), std::mem::take(&mut self.asked));
        waiting
            .into_iter()
            .chain(asked.into_iter().flat_map(|asked| asked.tokens))
    }
}

impl Raft {
    pub(super) fn read(&mut self, token: Token, mode: ReadMode) {
        if mode == ReadMode::Lease && self.holds_lease() {
            let index = self.commit;
            self.answer(token, Outcome::ReadReady { index });
            return;
        }
        let reads_max = self.config.reads_max;
        match &mut self.part {
            Part::Leader(leader) if leader.reads_under_way() >= reads_max => {
                self.answer(token, Outcome::Busy)
            }
            Part::Leader(leader) => leader.reads_waiting.push(ReadOrigin::Local(token)),
            // Its client is to ask where the state is.
            Part::Follower(follower) if self.config.witness => {
                let leader = follower.leader;
                self.answer(token, Outcome::NotLeader { leader });
            }
            Part::Follower(follower) if follower.leader.is_some() => {
                if self.reads.count() >= reads_max {
                    self.answer(token, Outcome::Busy);
                } else {
                    self.reads.waiting.push(token);
                    self.reads.by_index |= mode == ReadMode::ReadIndex;
                }
            }
            Part::Follower(_) | Part::Candidate(_) => self.answer(token, Outcome::NotLeader { leader: None }),
        }
    }

    /// Begins one heartbeat round, or sends one request, for all reads that came since the last drain.
    pub(super) fn ask_reads(&mut self) {
        let commit = self.commit;
        let early = self.planted(PlantedBug::ReadBeforeFirstCommit);
        let joins = self.planted(PlantedBug::ReadJoinsEarlierRound);
        match &mut self.part {
            Part::Leader(leader)
                if !leader.reads_waiting.is_empty() && (commit >= leader.opened_at || early) =>
            {
                let reads = std::mem::take(&mut leader.reads_waiting);
                let round = if joins { leader.round } else { self.start_round() };
                if let Some(leader) = self.leading_mut() {
                    leader.reads_asked_count += reads.len();
                    leader.reads_asked.push_back(ReadRound {
                        round,
                        index: commit,
                        reads,
                    });
                }
                self.confirm_reads();
            }
            Part::Follower(follower) if !self.reads.waiting.is_empty() => {
                let Some(leader) = follower.leader else { return };
                let request = match self.reads.next_request {
                    Some(request) => request,
                    None => self.random.next_u64(),
                };
                let lease = !std::mem::take(&mut self.reads.by_index);
                self.reads.ask(request, self.now + self.config.read_timeout);
                self.send(leader, Body::ReadRequest { request, lease });
            }
            _ => {}
        }
    }

    /// Answers the reads whose round a majority has answered.
    pub(super) fn confirm_reads(&mut self) {
        let Part::Leader(leader) = &mut self.part else {
            return;
        };
        if leader.reads_asked.is_empty() {
            return;
        }
        let (own, unasked) = (self.id, self.config.planted.is(PlantedBug::ReadWithoutQuorum));
        let confirmed = reached_by_majority(self.log.membership(), |id| {
            if id == own || unasked {
                u64::MAX
            } else {
                leader.peers.get(&id).map_or(0, |peer| peer.round)
            }
        });
        let mut ready = Vec::new();
        while let Some(asked) = leader.reads_asked.pop_front_if(|asked| asked.round <= confirmed) {
            leader.reads_asked_count -= asked.reads.len();
            ready.push(asked);
        }
        for ReadRound { index, reads, .. } in ready {
            for read in reads {
                match read {
                    ReadOrigin::Local(token) => self.answer(token, Outcome::ReadReady { index }),
                    ReadOrigin::Follower(follower, request) => self.answer_follower(follower, request, index),
                }
            }
        }
    }

    fn answer_follower(&mut self, follower: NodeId, request: u64, index: Index) {
        let told = self
            .leading()
            .and_then(|leader| leader.peers.get(&follower))
            .map(|peer| peer.commit_sent);
        if told.is_some_and(|commit| commit < index) {
            // It waits for this commit: it should not wait for the next heartbeat too.
            self.send_heartbeat(follower);
        }
        self.send(
            follower,
            Body::ReadResponse {
                request,
                index: Some(index),
            },
        );
    }

    pub(super) fn read_requested(&mut self, from: NodeId, request: u64, lease: bool) {
        if lease && self.holds_lease() {
            self.answer_follower(from, request, self.commit);
            return;
        }
        let reads_max = self.config.reads_max;
        match &mut self.part {
            Part::Leader(leader) if leader.reads_under_way() < reads_max => {
                leader.reads_waiting.push(ReadOrigin::Follower(from, request));
            }
            _ => self.send(from, Body::ReadResponse { request, index: None }),
        }
    }

    pub(super) fn read_answered(&mut self, from: NodeId, request: u64, index: Option<Index>) {
        if self.leader() != Some(from) {
            return;
        }
        let outcome = match index {
            Some(index) => Outcome::ReadReady { index },
            None => Outcome::NotLeader { leader: None },
        };
        for token in self.reads.answered(request) {
            self.answer(token, outcome.clone());
        }
    }

    /// Refuses the reads that wait on a leader: it is no longer known. The client may try again.
    pub(super) fn give_up_reads(&mut self) {
        for token in self.reads.take() {
            self.answer(token, Outcome::NotLeader { leader: None });
        }
    }

    pub(super) fn expire_reads(&mut self) {
        let leader = self.leader();
        while let Some(tokens) = self.reads.expired(self.now) {
            for token in tokens {
                self.answer(token, Outcome::NotLeader { leader });
            }
        }
    }

    /// Refuses reads that a leader had taken on.
    pub(super) fn refuse_reads(&mut self, reads: Vec<ReadOrigin>) {
        for read in reads {
            match read {
                ReadOrigin::Local(token) => self.answer(token, Outcome::NotLeader { leader: None }),
                ReadOrigin::Follower(follower, request) => {
                    self.send(follower, Body::ReadResponse { request, index: None });
                }
            }
        }
    }
}
