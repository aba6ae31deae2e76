//! Linearizable reads through a read index (Raft dissertation, section 6.4).
//!
//! Invariants: a leader answers no read before it has committed an entry of its own term; a read index is taken when
//! its heartbeat round begins, and a majority answers that round before the read is answered; a follower's request
//! has a number that no earlier life of the node used, so that a late answer fits no later request.

use std::collections::BTreeMap;

use super::quorum::reached_by_majority;
use super::role::{Part, ReadOrigin, ReadRound};
use super::{Body, Index, NodeId, Outcome, Raft, Token};
use crate::time::Instant;
use rand_chacha::rand_core::Rng;

/// Reads of this node's clients that its leader is asked about.
#[derive(Clone, Debug, Default)]
pub(super) struct PendingReads {
    /// Waiting for the next request.
    waiting: Vec<Token>,
    /// Asked, by number of the request.
    asked: BTreeMap<u64, Asked>,
    next_request: Option<u64>,
}

#[derive(Clone, Debug)]
struct Asked {
    tokens: Vec<Token>,
    until: Instant,
}

impl PendingReads {
    /// When the oldest request is given up.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.asked.values().map(|asked| asked.until).min()
    }

    fn count(&self) -> usize {
        self.waiting.len() + self.asked.values().map(|asked| asked.tokens.len()).sum::<usize>()
    }
}

impl Raft {
    pub(super) fn read(&mut self, token: Token) {
        let reads_max = self.config.reads_max;
        match &mut self.part {
            Part::Leader(leader) if leader.reads_under_way() >= reads_max => {
                self.answer(token, Outcome::Busy)
            }
            Part::Leader(leader) => leader.reads_waiting.push(ReadOrigin::Local(token)),
            Part::Follower(follower) if follower.leader.is_some() => {
                if self.reads.count() >= reads_max {
                    self.answer(token, Outcome::Busy);
                } else {
                    self.reads.waiting.push(token);
                }
            }
            Part::Follower(_) | Part::Candidate(_) => self.answer(token, Outcome::NotLeader { leader: None }),
        }
    }

    /// Begins one heartbeat round, or sends one request, for all reads that came since the last drain.
    pub(super) fn ask_reads(&mut self) {
        let commit = self.commit;
        match &mut self.part {
            Part::Leader(leader) if !leader.reads_waiting.is_empty() && commit >= leader.opened_at => {
                let reads = std::mem::take(&mut leader.reads_waiting);
                let round = self.start_round();
                if let Some(leader) = self.leading_mut() {
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
                let tokens = std::mem::take(&mut self.reads.waiting);
                let request = match self.reads.next_request {
                    Some(request) => request,
                    None => self.random.next_u64(),
                };
                self.reads.next_request = Some(request.wrapping_add(1));
                let until = self.now + self.config.read_timeout;
                self.reads.asked.insert(request, Asked { tokens, until });
                self.send(leader, Body::ReadRequest { request });
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
        let own = self.id;
        let confirmed = reached_by_majority(self.log.membership(), |id| {
            if id == own {
                u64::MAX
            } else {
                leader.peers.get(&id).map_or(0, |peer| peer.round)
            }
        });
        let mut ready = Vec::new();
        while leader
            .reads_asked
            .front()
            .is_some_and(|asked| asked.round <= confirmed)
        {
            ready.extend(leader.reads_asked.pop_front());
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

    pub(super) fn read_requested(&mut self, from: NodeId, request: u64) {
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
        let Some(asked) = self.reads.asked.remove(&request) else {
            return;
        };
        let outcome = match index {
            Some(index) => Outcome::ReadReady { index },
            None => Outcome::NotLeader { leader: None },
        };
        for token in asked.tokens {
            self.answer(token, outcome.clone());
        }
    }

    /// Refuses the reads that wait on a leader: it is no longer known. The client may try again.
    pub(super) fn give_up_reads(&mut self) {
        let asked = std::mem::take(&mut self.reads.asked);
        let waiting = std::mem::take(&mut self.reads.waiting);
        for token in waiting
            .into_iter()
            .chain(asked.into_values().flat_map(|asked| asked.tokens))
        {
            self.answer(token, Outcome::NotLeader { leader: None });
        }
    }

    pub(super) fn expire_reads(&mut self) {
        let now = self.now;
        let expired: Vec<u64> = self
            .reads
            .asked
            .iter()
            .filter(|(_, asked)| asked.until <= now)
            .map(|(request, _)| *request)
            .collect();
        for request in expired {
            let Some(asked) = self.reads.asked.remove(&request) else {
                continue;
            };
            for token in asked.tokens {
                self.answer(
                    token,
                    Outcome::NotLeader {
                        leader: self.leader(),
                    },
                );
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
