//! What a leader knows of one follower, and what it may send it next.
//!
//! Invariants: `matched < next`; `matched` moves only on an accepted append; each state carries exactly the data that
//! it needs.

use std::time::Duration;

use super::lease::Grant;
use super::pipeline::{Pipeline, SentAppend};
use super::witness::Reach;
use super::{DiskHealth, FeatureLevel, FetchId, Index, PeerState};
use crate::time::Instant;

/// How entries reach the follower.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Where the logs agree is not known: one append at a time.
    Probe {
        /// Whether an append is under way; an answered heartbeat that left after it shows whether it was lost.
        waiting: bool,
    },
    /// The logs agree up to `next - 1` if nothing was lost: appends are sent ahead of their answers.
    Replicate {
        /// Those under way.
        pipeline: Pipeline,
    },
    /// The follower needs what the log no longer holds.
    Snapshot {
        /// When the last byte left; the follower's answer counts, not this.
        sent: Option<Instant>,
    },
}

/// What an answered heartbeat shows of the appends that left before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Nothing is waited for, or nothing can be said yet.
    Unknown,
    /// The follower has not seen one.
    Lost,
    /// The follower has the last one; the acceptance waits for its disk, or was lost.
    Arrived,
}

#[derive(Clone, Debug)]
pub(super) struct Progress {
    /// The last index known to agree, durably, with the leader's log.
    pub(super) matched: Index,
    /// The first index to send.
    pub(super) next: Index,
    pub(super) state: State,
    /// The read of the entries at `next` from disk that is under way; nothing else is sent meanwhile.
    pub(super) fetch: Option<FetchId>,
    /// The highest heartbeat round that it answered.
    pub(super) round: u64,
    pub(super) last_append: SentAppend,
    /// The commit index that it was told.
    pub(super) commit_sent: Index,
    /// When it was last heard of in this term.
    pub(super) heard: Instant,
    /// What it last said of its disk.
    pub(super) disk: DiskHealth,
    /// Whether it is sent entries without their commands.
    pub(super) witness: bool,
    /// Whether witnesses wait for it.
    pub(super) reach: Reach,
    /// What its binary supports; none when it did not say since the link to it changed.
    pub(super) features: Option<FeatureLevel>,
    /// Its promise, and its clock.
    pub(super) grant: Grant,
}

impl State {
    /// What others call it.
    pub(super) fn name(&self) -> PeerState {
        match self {
            State::Probe { .. } => PeerState::Probe,
            State::Replicate { .. } => PeerState::Replicate,
            State::Snapshot { .. } => PeerState::Snapshot,
        }
    }
}

impl Progress {
    /// A follower of which nothing is known, with everything after `last` to send.
    pub(super) fn new(last: Index, now: Instant, witness: bool, within_reach: bool) -> Progress {
        Progress {
            matched: Index(0),
            next: last.next(),
            state: State::Probe { waiting: false },
            fetch: None,
            round: 0,
            last_append: SentAppend {
                index: last,
                round: 0,
                at: now,
            },
            commit_sent: Index(0),
            heard: now,
            disk: DiskHealth::default(),
            witness,
            reach: Reach::new(within_reach, last, now),
            features: None,
            grant: Grant::default(),
        }
    }

    /// Whether the appends reached the follower, which agrees up to `matched` and answered heartbeat `round`.
    pub(super) fn judge_appends(
        &mut self,
        round: u64,
        matched: Index,
        now: Instant,
        patience: Duration,
    ) -> Fate {
        let last = self.last_append;
        match &mut self.state {
            State::Probe { waiting: true } if round <= last.round => Fate::Unknown,
            State::Probe { waiting: true } if matched < last.index => Fate::Lost,
            State::Probe { waiting: true } => Fate::Arrived,
            State::Replicate { pipeline } => {
                let sent = self.next.previous();
                if self.matched >= sent {
                    Fate::Unknown
                } else if pipeline.has_lost(round, matched, last, now, patience) {
                    Fate::Lost
                } else if round > last.round && sent <= matched {
                    Fate::Arrived
                } else {
                    Fate::Unknown
                }
            }
            State::Probe { waiting: false } | State::Snapshot { .. } => Fate::Unknown,
        }
    }

    /// Whether something can be sent of a log that the follower may have up to `last`, as far as what is in flight
    /// allows.
    pub(super) fn may_be_sent(&self, last: Index) -> bool {
        match &self.state {
            _ if self.fetch.is_some() => false,
            State::Snapshot { .. } | State::Probe { waiting: true } => false,
            State::Probe { waiting: false } => true,
            State::Replicate { .. } => self.next <= last,
        }
    }

    /// Whether nothing more may be sent ahead of answers.
    pub(super) fn is_full(&self, bytes_max: u64) -> bool {
        match &self.state {
            State::Replicate { pipeline } => pipeline.is_full(bytes_max),
            State::Probe { .. } | State::Snapshot { .. } => false,
        }
    }

    /// Bytes sent and not acknowledged.
    pub(super) fn in_flight_bytes(&self) -> u64 {
        match &self.state {
            State::Replicate { pipeline } => pipeline.bytes(),
            State::Probe { .. } | State::Snapshot { .. } => 0,
        }
    }

    /// Counts bytes as under way again: a planted mistake.
    pub(super) fn keep_in_flight(&mut self, under_way: u64) {
        if let State::Replicate { pipeline } = &mut self.state {
            pipeline.keep(under_way);
        }
    }

    /// Starts over from what is certain: appends under way may be lost.
    pub(super) fn probe(&mut self, next: Index) {
        self.next = next.max(self.matched.next());
        self.state = State::Probe { waiting: false };
        self.fetch = None;
    }

    /// The link to the follower broke or is new: what was under way may be lost. A probe goes on from where it was:
    /// that nothing is known of a follower does not mean that it has nothing.
    pub(super) fn link_changed(&mut self, waiting: bool) {
        self.features = None;
        self.grant.begin_anew();
        self.reach.within &= !waiting;
        match self.state {
            State::Probe { .. } => self.state = State::Probe { waiting },
            State::Replicate { .. } => {
                self.probe(self.matched.next());
                self.state = State::Probe { waiting };
            }
            State::Snapshot { .. } => {}
        }
    }

    /// The follower needs a snapshot; nothing else is sent until it has one.
    pub(super) fn needs_snapshot(&mut self) {
        self.state = State::Snapshot { sent: None };
        self.fetch = None;
    }

    /// A witness was told to begin after `index`.
    pub(super) fn base_sent(&mut self, index: Index, round: u64, at: Instant) {
        self.next = index.next();
        self.state = State::Probe { waiting: true };
        self.last_append = SentAppend { index, round, at };
        self.fetch = None;
    }

    /// The follower agrees up to `index`. Returns whether that is news.
    pub(super) fn accepted(&mut self, index: Index) -> bool {
        let news = index > self.matched;
        self.matched = self.matched.max(index);
        if self.next <= self.matched {
            self.next = self.matched.next();
            // What is being read from disk is no longer what comes next.
            self.fetch = None;
        }
        match &mut self.state {
            State::Replicate { pipeline } => pipeline.accepted(index),
            // What was sent before the probe is accepted late, and says nothing of what came after it.
            State::Probe { .. } if self.matched < self.last_append.index => {}
            State::Probe { .. } => {
                self.next = self.matched.next();
                self.fetch = None;
                self.state = State::Replicate {
                    pipeline: Pipeline::default(),
                };
            }
            // The caller knows where the log begins, and so whether entries can follow.
            State::Snapshot { .. } => {}
        }
        news
    }

    /// An append of entries up to `last`, or of none, is on its way.
    pub(super) fn appended(&mut self, append: SentAppend, bytes: u64) {
        self.last_append = append;
        let last = append.index;
        match &mut self.state {
            State::Probe { waiting } => *waiting = true,
            State::Replicate { pipeline } => {
                if last >= self.next {
                    pipeline.sent(append, bytes);
                    self.next = last.next();
                }
            }
            State::Snapshot { .. } => unreachable!("nothing is appended while a snapshot is under way"),
        }
    }
}
