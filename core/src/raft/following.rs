//! The follower's side of the log (AppendEntries, Raft paper, figure 2).
//!
//! Invariants: a committed entry is never replaced; an entry is replaced only when the leader's has another term; an
//! acceptance leaves only when everything that it speaks of is on disk.

use super::role::{Follower, Part};
use super::{Body, Entries, Entry, Index, NodeId, Payload, PlantedBug, Position, Raft, TraceEvent};

impl Raft {
    /// The last index known to agree with the log of this term's leader; what is committed agrees with every leader.
    pub(super) fn matched_with_leader(&self) -> Index {
        match &self.part {
            Part::Follower(follower) => follower.matched.max(self.commit),
            Part::Candidate(_) | Part::Leader(_) => self.commit,
        }
    }

    pub(super) fn append_received(
        &mut self,
        from: NodeId,
        previous: Position,
        entries: Entries,
        commit: Index,
    ) {
        if !self.is_well_formed(previous, &entries)
            || !self.follow(from)
            || !self.fits_entries(&entries)
            || !self.agrees_with_commits(from, previous, &entries)
        {
            return;
        }
        let last = entries
            .last()
            .map_or(previous.index, |entry| entry.position.index);
        let agrees = match self.log.term_at(previous.index) {
            Some(_) if self.planted(PlantedBug::PreviousIsNotCompared) => true,
            term => term == Some(previous.term),
        };
        if previous.index >= self.commit && !agrees {
            let hint = self.rejection_hint(previous);
            self.send(
                from,
                Body::AppendRejected {
                    previous: previous.index,
                    hint,
                },
            );
            return;
        }
        if !self.take_in(entries) {
            return;
        }
        if self.planted(PlantedBug::LateAppendTruncates)
            && last >= self.commit
            && last < self.log.last().index
        {
            self.truncate(last.next());
        }
        let matched = last.max(self.commit);
        if let Part::Follower(Follower { matched: known, .. }) = &mut self.part {
            *known = (*known).max(matched);
        }
        let compared = if self.planted(PlantedBug::AppendCommitsBeyondMatch) {
            self.log.last().index
        } else {
            matched
        };
        self.commit_to(commit.min(compared));
        if self.planted(PlantedBug::FollowerAcceptsFromMemory) {
            self.send(from, Body::AppendAccepted { matched });
        } else {
            self.send_when_durable(from, Body::AppendAccepted { matched });
        }
    }

    /// Whether the entries follow `previous` without a gap and in order of terms, none of them of a later term than
    /// the message, with memberships of this lineage that can be.
    fn is_well_formed(&self, previous: Position, entries: &[Entry]) -> bool {
        let mut before = previous;
        entries.iter().all(|entry| {
            let fits = before.index.0.checked_add(1) == Some(entry.position.index.0)
                && entry.position.term >= before.term
                && entry.position.term <= self.hard_state.term
                && entry.position.index.is_credible();
            before = entry.position;
            fits && self.holds_such(&entry.payload)
                && match &entry.payload {
                    Payload::Membership(membership) => {
                        membership.is_sound() && membership.lineage() == self.log.membership().lineage()
                    }
                    Payload::Empty | Payload::Omitted | Payload::Command(_) => true,
                }
        })
    }

    /// Where the logs may agree, for a leader whose `previous` does not (the follower's half of the search by terms).
    fn rejection_hint(&self, previous: Position) -> Position {
        let below = Position {
            term: previous.term,
            index: previous.index.previous(),
        };
        self.log.last_possible_match(below)
    }

    /// Takes over the entries of the leader that are news. False when no leader can have sent them.
    fn take_in(&mut self, entries: Entries) -> bool {
        // A late append may speak of what is long settled.
        let is_known = |entry: &Entry| {
            let position = entry.position;
            position.index <= self.commit || self.log.term_at(position.index) == Some(position.term)
        };
        let Some(place) = entries.iter().position(|entry| !is_known(entry)) else {
            return true;
        };
        let position = entries[place].position;
        let known = match &self.part {
            Part::Follower(follower) => follower.matched,
            Part::Candidate(_) | Part::Leader(_) => unreachable!("a follower takes entries in"),
        };
        let before = self.log.term_at(position.index.previous());
        // No leader contradicts itself, and terms never go down along a log.
        if position.index <= known || before.is_none_or(|before| before > position.term) {
            return false;
        }
        if position.index <= self.log.last().index {
            self.truncate(position.index);
        }
        let news = entries.slice(place..entries.len());
        for entry in &news {
            if let (Payload::Membership(_), position) = (&entry.payload, entry.position) {
                self.output.trace.push(TraceEvent::MembershipChanged { position });
            }
        }
        self.log.append_shared(news);
        true
    }

    fn truncate(&mut self, from: Index) {
        assert!(from > self.commit, "a committed entry is never replaced");
        self.log.truncate(from);
        if !self.planted(PlantedBug::LateAcknowledgementCounts) {
            self.durability.truncated(from);
        }
        self.output.trace.push(TraceEvent::Truncated { from });
        self.give_up_owed(|position| position.index >= from);
    }
}
