//! The leader's side of the log: what each follower is sent, and what its answers mean
//! (Raft paper, section 5.3; pipelining, dissertation, section 10.2.1).
//!
//! Invariants: a follower's match index rises only on its own acceptance in this term; it falls only when the follower
//! refuses what it had accepted, and what is committed stays so; what is in flight to one follower is bounded in bytes.

use std::ops::Bound;

use super::pipeline::SentAppend;
use super::progress::{Progress, State};
use super::role::Part;
use super::{
    Body, Entries, Entry, FetchId, FetchReason, Index, NodeId, PlantedBug, Position, Raft, SnapshotOp,
    TraceEvent,
};

/// What to do for one follower next.
enum Step {
    Nothing,
    Send {
        previous: Position,
        entries: Entries,
        bytes: u64,
        again: bool,
    },
    Fetch {
        first: Index,
        last: Index,
    },
    /// The log begins after what the follower lacks.
    BeginAnew,
}

impl Raft {
    /// Sends every follower what it lacks and may be sent.
    pub(super) fn replicate(&mut self) {
        let last = self.log.last().index;
        let mut after = Bound::Unbounded;
        while let Some(leader) = self.leading()
            && let Some((peer, _)) = leader
                .peers
                .range((after, Bound::Unbounded))
                .find(|(_, peer)| peer.may_be_sent(last))
        {
            let peer = *peer;
            self.replicate_to(peer);
            after = Bound::Excluded(peer);
        }
        self.schedule_commit_notice();
    }

    fn replicate_to(&mut self, to: NodeId) {
        loop {
            let Some(peer) = self.leading().and_then(|leader| leader.peers.get(&to)) else {
                return;
            };
            match self.next_step(to, peer) {
                Step::Nothing => return,
                Step::Send {
                    previous,
                    entries,
                    bytes,
                    again,
                } => {
                    self.send_append(to, previous, entries, bytes);
                    if !again {
                        return;
                    }
                }
                Step::Fetch { first, last } => {
                    let bytes_max = self.config.append_bytes_max;
                    let id = self.request_fetch(first, last, bytes_max, FetchReason::Replicate(to));
                    self.peer_mut(to, |peer| peer.fetch = Some(id));
                    return;
                }
                Step::BeginAnew => {
                    self.begin_anew(to);
                    return;
                }
            }
        }
    }

    fn next_step(&self, to: NodeId, peer: &Progress) -> Step {
        let last = self
            .leading()
            .map_or(Index(0), |leader| self.limit_for(leader, to, peer));
        let pipelined = matches!(peer.state, State::Replicate { .. });
        if peer.is_full(self.config.in_flight_bytes_max) || !peer.may_be_sent(last) {
            return Step::Nothing;
        }
        let index = peer.next.previous();
        let Some(term) = self.log.term_at(index) else {
            return Step::BeginAnew;
        };
        let (entries, bytes) = if peer.next > last {
            (Entries::default(), 0)
        } else if self.log.tail().holds(peer.next) {
            self.log
                .tail()
                .batch(peer.next, last, self.config.append_bytes_max)
        } else if self.is_read_for(to) {
            // What a broken link made needless is still being read: one at a time, however often that happens.
            return Step::Nothing;
        } else {
            return Step::Fetch {
                first: peer.next,
                last,
            };
        };
        Step::Send {
            previous: Position { term, index },
            entries,
            bytes,
            again: pipelined,
        }
    }

    /// Whether entries for this follower are being read back.
    fn is_read_for(&self, to: NodeId) -> bool {
        self.fetches
            .values()
            .any(|reason| *reason == FetchReason::Replicate(to))
    }

    fn send_append(&mut self, to: NodeId, previous: Position, entries: Entries, bytes: u64) {
        let (entries, bytes) = self.fit_for(to, entries, bytes);
        let commit = self.commit;
        let last = entries
            .last()
            .map_or(previous.index, |entry| entry.position.index);
        let Part::Leader(leader) = &mut self.part else {
            unreachable!("only a leader replicates")
        };
        let append = SentAppend {
            index: last,
            round: leader.round,
            at: self.now,
        };
        let Some(peer) = leader.peers.get_mut(&to) else {
            return;
        };
        peer.appended(append, bytes);
        peer.commit_sent = commit;
        self.send(
            to,
            Body::Append {
                previous,
                entries,
                commit,
            },
        );
    }

    /// Asks a follower once more up to where its disk agrees: it has what was sent, and its answer is overdue.
    pub(super) fn ask_for_acceptance(&mut self, to: NodeId) {
        let Some(index) = self
            .leading()
            .and_then(|leader| leader.peers.get(&to))
            .map(|peer| peer.last_append.index)
        else {
            return;
        };
        match self.log.term_at(index) {
            Some(term) => self.send_append(to, Position { term, index }, Entries::default(), 0),
            // Purged: the follower starts over from what it is known to have.
            None => self.peer_mut(to, |peer| peer.probe(peer.matched.next())),
        }
    }

    pub(super) fn fetched_to_replicate(&mut self, to: NodeId, fetch: FetchId, entries: Option<Entries>) {
        let Some(peer) = self.leading().and_then(|leader| leader.peers.get(&to)) else {
            return;
        };
        if peer.fetch != Some(fetch) {
            return;
        }
        let (previous, first) = (peer.next.previous(), peer.next);
        self.peer_mut(to, |peer| peer.fetch = None);
        let Some(entries) = entries else {
            // Purged since. Found out by the next step, which sees the log begin later.
            if first > self.log.base().position.index.next() {
                self.begin_anew(to);
            }
            return;
        };
        assert_eq!(
            entries.first().map(|entry| entry.position.index),
            Some(first),
            "the driver reads what it was asked"
        );
        let bytes = entries.iter().map(Entry::size).sum();
        if let Some(term) = self.log.term_at(previous) {
            self.send_append(
                to,
                Position {
                    term,
                    index: previous,
                },
                entries,
                bytes,
            );
        }
    }

    /// The follower lacks what was purged: only a snapshot helps, or the base for a witness.
    fn begin_anew(&mut self, to: NodeId) {
        if self.leading().is_some_and(|leader| leader.is_witness(to)) {
            self.send_base(to);
            return;
        }
        self.peer_mut(to, Progress::needs_snapshot);
        self.output.trace.push(TraceEvent::SnapshotNeeded { to });
        self.output.snapshot.push(SnapshotOp::Send {
            to,
            term: self.hard_state.term,
        });
    }

    pub(super) fn append_accepted(&mut self, from: NodeId, matched: Index) {
        let base = self.log.base().position.index;
        let last = self.log.last().index;
        if matched > last {
            return;
        }
        let Part::Leader(leader) = &mut self.part else {
            return;
        };
        let Some(peer) = leader.peers.get_mut(&from) else {
            return;
        };
        let planted = self.config.planted;
        let snapshot = matches!(peer.state, State::Snapshot { .. });
        if snapshot && matched < last && planted.is(PlantedBug::AcceptanceBelowSnapshotIsIgnored) {
            return;
        }
        let under_way = peer.in_flight_bytes();
        let news = peer.accepted(matched);
        if planted.is(PlantedBug::InFlightLeak) {
            peer.keep_in_flight(under_way);
        }
        if matches!(peer.state, State::Snapshot { .. }) && peer.matched >= base {
            peer.probe(peer.matched.next());
        }
        if news {
            self.advance_commit();
            self.hand_over_if_ready(from);
        }
    }

    pub(super) fn append_rejected(&mut self, from: NodeId, previous: Index, hint: Position) {
        let Some(peer) = self.leading().and_then(|leader| leader.peers.get(&from)) else {
            return;
        };
        let current = match peer.state {
            State::Probe { .. } => previous == peer.next.previous(),
            // A follower that refused when its log ended before what it has accepted since speaks of the past. When it
            // lost what it had accepted, heartbeats show it.
            State::Replicate { .. } => hint.index >= peer.matched && previous < peer.next,
            State::Snapshot { .. } => false,
        };
        // What was refused cannot agree, whatever the follower believes.
        let hint = Position {
            index: hint.index.min(previous.previous()),
            ..hint
        };
        if !current {
            return;
        }
        let next = if hint.index < self.log.base().position.index {
            hint.index.next()
        } else if self.planted(PlantedBug::AppendCommitsBeyondMatch) {
            self.log.base().position.index.next()
        } else {
            self.log.last_possible_match(hint).index.next()
        };
        self.peer_mut(from, |peer| {
            if previous <= peer.matched {
                // It restarted without what it had accepted, from a damaged log. To believe it costs nothing: what is
                // committed stays so, and a refusal that is merely late is made good by the next acceptance.
                peer.matched = Index(0);
            }
            peer.probe(next);
        });
    }

    /// The transport connected: what was under way may be lost.
    pub(super) fn link_connected(&mut self, peer: NodeId) {
        self.peer_mut(peer, |peer| peer.link_changed(false));
        if self.leading().is_some() {
            self.send_heartbeat(peer);
        }
    }

    /// The transport lost a follower: nothing more is sent ahead of answers that will not come.
    pub(super) fn link_to_follower_cut(&mut self, peer: NodeId) {
        self.peer_mut(peer, |peer| peer.link_changed(true));
    }

    /// Followers hear of a commit with the next append, or a moment later on their own.
    fn schedule_commit_notice(&mut self) {
        let commit = self.commit;
        let Part::Leader(leader) = &mut self.part else {
            return;
        };
        if leader.commit_notice_due.is_none() && leader.peers.values().any(|peer| peer.commit_sent < commit) {
            leader.commit_notice_due = Some(self.now + self.config.commit_notice_delay);
        }
    }

    pub(super) fn peer_mut(&mut self, id: NodeId, change: impl FnOnce(&mut Progress)) {
        if let Part::Leader(leader) = &mut self.part
            && let Some(peer) = leader.peers.get_mut(&id)
        {
            change(peer);
        }
    }
}
