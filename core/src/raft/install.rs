//! Snapshots and the purging of the log (Raft paper, section 7). Their bytes never enter the core.
//!
//! Invariants: the log is purged only behind what the state store holds durably, and at once up to where its lineage
//! begins; an older snapshot never replaces a newer state; the state follows only when the log has durably switched to the snapshot.

use super::progress::State;
use super::role::Part;
use super::{Base, Body, Index, NodeId, PlantedBug, Raft, SnapshotEvent, SnapshotOp, Term, TraceEvent};

impl Raft {
    pub(super) fn snapshot_event(&mut self, event: SnapshotEvent) {
        match event {
            SnapshotEvent::StateDurable { index } => self.purge_behind(index),
            SnapshotEvent::Received { from, term, base } => self.snapshot_received(from, term, base),
            SnapshotEvent::Installed { index } => self.cursor.installed(index),
            SnapshotEvent::Sent { to, complete } => self.snapshot_sent(to, complete),
        }
    }

    pub(super) fn purge_behind(&mut self, durable_state: Index) {
        if self.cursor.is_installing() {
            return;
        }
        let settled = durable_state.min(self.cursor.applied());
        if let Some(fork) = self.log.fork().filter(|fork| *fork <= settled) {
            // Entries of an earlier lineage are never sent.
            let base = self.log.purge(fork);
            self.output.snapshot.push(SnapshotOp::Purge(base));
            return;
        }
        let retained = settled.0.saturating_sub(self.config.retained_entries);
        let least = retained.saturating_sub(self.config.lagging_entries_max);
        let target = Index(self.needed_by_followers().0.clamp(least, retained));
        let step = target.0.saturating_sub(self.log.base().position.index.0);
        if step > 0 && step >= self.config.purge_step {
            let base = self.log.purge(target);
            self.output.snapshot.push(SnapshotOp::Purge(base));
        }
    }

    /// The last index that every follower in touch has; the end of all indexes when nobody is led.
    fn needed_by_followers(&self) -> Index {
        let peers = self
            .leading()
            .into_iter()
            .flat_map(|leader| leader.peers.values());
        peers
            .filter(|peer| self.now.since(peer.heard) < self.config.election_timeout_max)
            .map(|peer| peer.matched)
            .min()
            .unwrap_or(Index(u64::MAX))
    }

    fn snapshot_received(&mut self, from: NodeId, term: Term, base: Box<Base>) {
        let sound = base.position.term <= term
            && term.is_credible_after(self.hard_state.term)
            && self.is_sound_base(&base);
        if !sound || self.config.witness {
            return;
        }
        if term > self.hard_state.term {
            self.enter_term(term);
        }
        // A leader holds everything that is committed, and so everything that a snapshot covers.
        if self.leading().is_some() || (term == self.hard_state.term && !self.follow(from)) {
            return;
        }
        self.take_in_base(from, base);
    }

    /// Whether a leader of this lineage can have a log that begins there.
    pub(super) fn is_sound_base(&self, base: &Base) -> bool {
        base.position.index.is_credible()
            && base.membership.is_sound()
            && base.membership.lineage() == self.log.membership().lineage()
    }

    /// Lets the log of this follower begin where its leader says, unless it goes as far already.
    pub(super) fn take_in_base(&mut self, from: NodeId, base: Box<Base>) {
        if !self.fits(&base.membership) || !self.agrees_with_base(from, &base) {
            return;
        }
        let index = base.position.index;
        if self.planted(PlantedBug::OldSnapshotIsInstalled) && index < self.commit {
            self.switch_to(base);
        } else if index > self.commit {
            if self.log.term_at(index) == Some(base.position.term) {
                // The log has all of it: a snapshot is of committed entries.
                self.commit_to(index);
            } else if index <= self.matched_with_leader() {
                // What is committed is in every leader's log, and this contradicts it.
                return;
            } else {
                self.switch_to(base);
            }
        }
        let matched = self.matched_with_leader();
        self.send_when_durable(from, Body::AppendAccepted { matched });
    }

    fn switch_to(&mut self, base: Box<Base>) {
        let position = base.position;
        if matches!(self.part, Part::Candidate(_)) {
            // The snapshot is a late one of an earlier term. Nobody may elect this node for the log that it had.
            self.become_follower();
        }
        self.output.trace.push(TraceEvent::SnapshotAccepted { position });
        // The fate of what this node had appended is not known from a snapshot.
        if !self.planted(PlantedBug::InstallStrandsClients) {
            self.give_up_owed(|_| true);
        }
        self.fetches.clear();
        self.log.reset((*base).clone());
        self.durability.reset(base);
        self.commit = position.index;
        self.cursor.begin_install(position.index);
        if let Part::Follower(follower) = &mut self.part {
            follower.matched = position.index;
        }
        self.output.trace.push(TraceEvent::MembershipChanged { position });
    }

    fn snapshot_sent(&mut self, to: NodeId, complete: bool) {
        let Some(round) = self.leading().map(|leader| leader.round) else {
            return;
        };
        let now = self.now;
        let last = self.log.last().index;
        self.peer_mut(to, |peer| {
            if let State::Snapshot { sent } = &mut peer.state {
                if complete {
                    *sent = Some(now);
                } else {
                    // Asked where it is with the next heartbeat that it answers, and sent another one then.
                    peer.probe(last.next());
                    peer.state = State::Probe { waiting: true };
                    peer.last_append.round = round;
                }
            }
        });
    }
}
