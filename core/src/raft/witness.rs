//! Witnesses: voters that keep the log without its commands, and hold no state.
//!
//! A witness lets two machines with data and a small third one outlive the loss of any of the three. It votes, and
//! counts for elections, commits and confirmations like any voter. Its leader sends it entries whose commands are left
//! out; a leader that has purged what it lacks sends it the base of the log instead of a snapshot. It never
//! campaigns, since it could lead nobody to what it lacks, is never handed the leadership, and answers no read.
//!
//! **Safety** needs nothing new. A witness holds the positions of entries, and positions are all that elections and
//! commits compare. A committed entry is on a majority; any majority that elects meets it, and whoever is in both
//! refuses a candidate that lacks the entry, witness or not. So a witness never helps to lose an entry, but at most to
//! wait for one: a cluster whose last machine with a committed command is down has no leader until it is back.
//!
//! **Data and progress** need two rules more:
//! 1. Witnesses are at most half of the voters, so that every majority contains a voter with data, and every committed
//!    command is on at least one of their disks ([`Membership`]).
//! 2. A witness is sent an entry only when the entry is on the disks of as many data voters as there are within reach,
//!    up to a majority. Then no witness is ahead of them: (a) when a leader dies with entries that are not committed,
//!    some data voter that was within reach has whatever a witness has, so that the witness refuses nobody whom the
//!    cluster needs; (b) with all data voters within reach, and a majority of the voters holding data, a commit does
//!    not count on a witness at all, and every command that a client was promised survives the loss of any minority.
//!    A witness stands in for data voters that are out of reach, and for no others.
//!
//! A data voter is out of reach when the link to it was cut, when it was silent for the largest election time-out, or
//! when it did not take in within that time what the leader had at its beginning; it is within reach again when entries
//! flow and it does. So no entry waits for one that lags for much longer than that time-out. This is the leader's
//! judgement and may be wrong, which costs (a) and (b) until the leader is right again, and never safety.

use std::collections::BTreeSet;

use super::progress::{Progress, State};
use super::role::{Leader, Part};
use super::{Base, Body, Entries, Entry, Index, NodeId, Payload, PlantedBug, Raft};
use crate::time::Instant;

/// Whether witnesses wait for a data voter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reach {
    pub(super) within: bool,
    /// What it has to take in, and since when.
    due: Index,
    since: Instant,
}

impl Reach {
    pub(super) fn new(within: bool, last: Index, now: Instant) -> Reach {
        Reach {
            within,
            due: last,
            since: now,
        }
    }
}

impl Entry {
    /// The entry as a witness keeps it.
    #[must_use]
    fn without_command(&self) -> Entry {
        let payload = match &self.payload {
            Payload::Command(_) => Payload::Omitted,
            payload => payload.clone(),
        };
        Entry {
            position: self.position,
            payload,
        }
    }
}

impl Raft {
    /// What a follower is sent of `entries` of so many bytes, which its log may hold up to [`Raft::limit_for`], and the
    /// bytes of that.
    pub(super) fn fit_for(&self, id: NodeId, entries: Entries, bytes: u64) -> (Entries, u64) {
        let Some(leader) = self.leading() else {
            return (entries, bytes);
        };
        let Some(peer) = leader.peers.get(&id).filter(|peer| peer.witness) else {
            return (entries, bytes);
        };
        let limit = self.limit_for(leader, id, peer);
        let held = entries.iter().take_while(|entry| entry.position.index <= limit);
        let entries: Entries = held.map(Entry::without_command).collect();
        let bytes = entries.iter().map(Entry::size).sum();
        (entries, bytes)
    }

    /// The last index that a follower may be sent: everything, but to a witness only what is committed, and to one
    /// that votes also what enough data voters hold.
    pub(super) fn limit_for(&self, leader: &Leader, id: NodeId, peer: &Progress) -> Index {
        if !peer.witness || self.planted(PlantedBug::WitnessIsAheadOfData) {
            return self.log.last().index;
        }
        let membership = self.log.membership();
        let halves = [membership.voters(), membership.outgoing()];
        let votes_in = halves.into_iter().filter(|half| half.contains(&id));
        let held = votes_in.map(|half| self.held_by_data_voters(leader, half)).min();
        held.map_or(self.commit, |held| held.max(self.commit))
    }

    /// The last index that is on the disks of as many data voters of `half` as are within reach, up to a majority.
    fn held_by_data_voters(&self, leader: &Leader, half: &BTreeSet<NodeId>) -> Index {
        let membership = self.log.membership();
        let mut held = Vec::with_capacity(half.len());
        let mut within_reach = 0;
        for id in half.iter().filter(|id| !membership.is_witness(**id)) {
            if *id == self.id {
                held.push(self.log.durable());
                within_reach += 1;
            } else if let Some(peer) = leader.peers.get(id) {
                held.push(peer.matched);
                within_reach += usize::from(peer.reach.within);
            }
        }
        held.sort_unstable();
        let needed = within_reach.clamp(1, half.len() / 2 + 1);
        held.len()
            .checked_sub(needed)
            .map_or(Index(0), |place| held[place])
    }

    /// Judges anew who is within reach. Called with every heartbeat.
    pub(super) fn judge_reach(&mut self) {
        let (now, patience) = (self.now, self.config.election_timeout_max);
        let last = self.log.last().index;
        let Part::Leader(leader) = &mut self.part else {
            return;
        };
        if !leader.peers.values().any(|peer| peer.witness) {
            return;
        }
        for peer in leader.peers.values_mut() {
            let late = now.since(peer.reach.since) >= patience;
            let reached = peer.matched >= peer.reach.due;
            if late || now.since(peer.heard) >= patience {
                peer.reach.within = false;
            } else if reached && matches!(peer.state, State::Replicate { .. }) {
                peer.reach.within = true;
            }
            if reached {
                peer.reach = Reach::new(peer.reach.within, last, now);
            }
        }
    }

    /// Tells a witness where the log begins: it lacks what was purged, and needs no state.
    pub(super) fn send_base(&mut self, to: NodeId) {
        let base = Box::new(self.log.base().clone());
        let (index, at) = (base.position.index, self.now);
        let Some(round) = self.leading().map(|leader| leader.round) else {
            return;
        };
        self.peer_mut(to, |peer| peer.base_sent(index, round, at));
        self.send(to, Body::Begin { base });
    }

    /// The leader has purged what this witness lacks: its log begins anew.
    pub(super) fn begin_received(&mut self, from: NodeId, base: Box<Base>) {
        let sound = self.is_sound_base(&base) && base.position.term <= self.hard_state.term;
        if self.config.witness && sound && self.follow(from) {
            self.take_in_base(from, base);
        }
    }

    /// Everything up to `index` is settled for a node that has no state to apply it to.
    pub(super) fn pass_over(&mut self, index: Index) {
        if index > self.cursor.applied() {
            self.cursor.passed(index);
            self.purge_behind(index);
        }
    }

    /// Whether this node's log holds such entries: a witness's no commands, any other's no gaps in place of them.
    pub(super) fn holds_such(&self, payload: &Payload) -> bool {
        match payload {
            Payload::Command(_) => !self.config.witness,
            Payload::Omitted => self.config.witness,
            Payload::Empty | Payload::Membership(_) => true,
        }
    }
}

impl Leader {
    pub(super) fn is_witness(&self, id: NodeId) -> bool {
        self.peers.get(&id).is_some_and(|peer| peer.witness)
    }
}
