//! What must be on disk before it may be promised.
//!
//! A write carries what changed since the last one. A message that promises durability is held back until
//! the write that covers it, and every write before, was acknowledged. Invariants: held messages and writes are in
//! order; an acknowledgement counts for a log index only if that index was not rewritten since the write left (A-B-A:
//! truncation clips the writes under way).

use std::collections::VecDeque;

use super::disk::WriteLatency;
use super::role::Part;
use super::{
    Base, Body, DiskError, HardState, Index, Message, NodeId, PlantedBug, Raft, Term, Write, WriteId,
};
use crate::time::Instant;

#[derive(Clone, Debug, Default)]
pub(super) struct Durability {
    last_write: WriteId,
    under_way: VecDeque<UnderWay>,
    held: VecDeque<Held>,
    hard_state_changed: bool,
    reset: Option<Box<Base>>,
    /// The term and vote that the disk holds.
    durable: Option<HardState>,
    latency: WriteLatency,
}

#[derive(Clone, Debug)]
struct UnderWay {
    id: WriteId,
    /// When it was handed out.
    since: Instant,
    /// The last index that its acknowledgement makes durable; none when it carries no entries.
    last: Option<Index>,
    hard_state: Option<HardState>,
    /// The snapshot that the log switches to with this write.
    reset: Option<Box<Base>>,
}

#[derive(Clone, Debug)]
struct Held {
    after: WriteId,
    to: NodeId,
    message: Message,
}

impl Durability {
    /// Forgets everything promised: the disk failed.
    pub(super) fn abandon(&mut self) {
        self.held.clear();
        self.under_way.clear();
    }

    /// Whether the vote of this node in `term` is on disk.
    pub(super) fn holds_vote(&self, term: Term, vote: NodeId) -> bool {
        self.durable
            == Some(HardState {
                term,
                vote: Some(vote),
            })
    }

    /// When the oldest write that is not acknowledged was handed out.
    pub(super) fn oldest_write(&self) -> Option<Instant> {
        self.under_way.front().map(|write| write.since)
    }

    /// Messages that wait, and writes that are not acknowledged.
    pub(super) fn count(&self) -> (usize, usize) {
        (self.held.len(), self.under_way.len())
    }

    /// How long writes take.
    pub(super) fn latency(&self) -> &WriteLatency {
        &self.latency
    }

    pub(super) fn hard_state_changed(&mut self) {
        self.hard_state_changed = true;
    }

    pub(super) fn reset(&mut self, base: Box<Base>) {
        // What writes under way carried is superseded.
        for write in &mut self.under_way {
            write.last = None;
        }
        self.reset = Some(base);
    }

    pub(super) fn truncated(&mut self, from: Index) {
        for write in &mut self.under_way {
            write.last = write.last.map(|last| last.min(from.previous()));
        }
    }
}

impl Raft {
    /// Sends `body` when everything that this node has taken in so far is on disk.
    pub(super) fn send_when_durable(&mut self, to: NodeId, body: Body) {
        let message = Message {
            term: self.hard_state.term,
            body,
        };
        let durability = &mut self.durability;
        let unwritten =
            durability.hard_state_changed || durability.reset.is_some() || self.log.has_unwritten();
        let after = if unwritten {
            durability.last_write.next()
        } else if let Some(write) = durability.under_way.back() {
            write.id
        } else {
            self.output.send.push((to, message));
            return;
        };
        let mut released_together = durability
            .held
            .iter_mut()
            .rev()
            .take_while(|held| held.after == after)
            .filter(|held| held.to == to && held.message.term == message.term);
        if !released_together.any(|held| held.absorbs(&message.body)) {
            durability.held.push_back(Held { after, to, message });
        }
    }

    /// Emits writes with everything that changed: one, but for entries that came in several batches.
    pub(super) fn write_what_changed(&mut self) {
        let first = self.durability.last_write.next();
        self.write_next();
        while self.log.has_unwritten() {
            self.write_next();
        }
        // What waits for the first of them waits for all.
        let last = self.durability.last_write;
        let held = self.durability.held.iter_mut().rev();
        held.take_while(|held| held.after == first)
            .for_each(|held| held.after = held.after.max(last));
    }

    /// Emits a write with what changed and the next unwritten entries.
    fn write_next(&mut self) {
        let entries = self.log.take_unwritten();
        let apart = self.planted(PlantedBug::VoteIsWrittenApart);
        let entries_first = self.planted(PlantedBug::EntriesBeforeTerm) && !entries.is_empty();
        let durability = &mut self.durability;
        let mut hard_state = durability.hard_state_changed.then_some(self.hard_state);
        if entries_first {
            hard_state = None;
        } else if apart && let Some(hard_state) = &mut hard_state {
            let term_known = durability
                .durable
                .is_some_and(|durable| durable.term == hard_state.term);
            hard_state.vote = hard_state.vote.filter(|_| term_known);
        }
        let reset = durability.reset.take();
        if entries.is_empty() && hard_state.is_none() && reset.is_none() {
            return;
        }
        durability.hard_state_changed =
            entries_first || (apart && hard_state.is_some_and(|written| written != self.hard_state));
        let id = durability.last_write.next();
        durability.last_write = id;
        let last = entries.last().map(|entry| entry.position.index);
        durability.under_way.push_back(UnderWay {
            id,
            since: self.now,
            last,
            hard_state,
            reset: reset.clone(),
        });
        self.output.write.push(Write {
            id,
            hard_state,
            reset,
            entries,
        });
    }

    pub(super) fn persisted(&mut self, write: WriteId, result: Result<(), DiskError>) {
        if let Err(error) = result {
            self.fail(error);
            return;
        }
        assert!(
            write <= self.durability.last_write,
            "only a write that was asked for is acknowledged"
        );
        if let Some(oldest) = self
            .durability
            .under_way
            .front()
            .filter(|oldest| oldest.id <= write)
        {
            let longest = self.config.disk_stall_bound();
            self.durability
                .latency
                .acknowledged(oldest.since, self.now, longest);
        }
        while self
            .durability
            .under_way
            .front()
            .is_some_and(|front| front.id <= write)
        {
            let Some(done) = self.durability.under_way.pop_front() else {
                break;
            };
            if let Some(last) = done.last {
                self.log.persisted(last);
            }
            if done.hard_state.is_some() {
                self.durability.durable = done.hard_state;
            }
            if let Some(base) = done.reset {
                self.install(base);
            }
        }
        while self
            .durability
            .held
            .front()
            .is_some_and(|held| held.after <= write)
        {
            let Some(held) = self.durability.held.pop_front() else {
                break;
            };
            if !self.is_of_an_ended_campaign(&held.message) {
                self.output.send.push((held.to, held.message));
            }
        }
        match &self.part {
            Part::Candidate(_) => self.own_vote_persisted(),
            Part::Leader(_) => self.advance_commit(),
            Part::Follower(_) => {}
        }
    }

    /// Whether a message asks for votes that this node counts no more. It may speak of entries that a leader has
    /// replaced meanwhile, and would only disturb.
    fn is_of_an_ended_campaign(&self, message: &Message) -> bool {
        let campaigns = matches!(self.part, Part::Candidate(_)) && message.term == self.hard_state.term;
        matches!(message.body, Body::VoteRequest { .. }) && !campaigns
    }
}

impl Held {
    /// Whether this message says what `body` says too, once it is raised to the further of two acceptances: a late
    /// append is accepted with less than what is known already.
    fn absorbs(&mut self, body: &Body) -> bool {
        match (&mut self.message.body, body) {
            (Body::AppendAccepted { matched: held }, Body::AppendAccepted { matched }) => {
                *held = (*held).max(*matched);
                true
            }
            (held, body) => held == body,
        }
    }
}
