//! What a run tells its journal, for who looks at it afterwards. Without a journal it costs a look at a flag.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use quorate_core::raft::{
    Index, Membership, Message, NodeId, Outcome, Role, Status, Term, Token, TraceEvent,
};

use super::checker::client::RequestKind;
use super::node::Run;
use super::plan::FaultKind;
use super::telling;
use super::world::World;
use crate::trace::{Answer, Event, Loss, Operation, name_of};

/// What was told last.
#[derive(Debug, Default)]
pub(super) struct Told {
    seen: BTreeMap<NodeId, Seen>,
    paused: BTreeSet<NodeId>,
    /// Requests without an answer, and whom they were put to.
    open: BTreeMap<Token, NodeId>,
    /// Messages and snapshots that were sent.
    messages: u64,
}

/// What was seen of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    part: (Role, Term, Option<NodeId>),
    positions: [Index; 4],
}

impl Seen {
    fn of(status: &Status<'_>) -> Seen {
        Seen {
            part: (status.role, status.term, status.leader),
            positions: [status.commit, status.applied, status.durable, status.last.index],
        }
    }
}

impl World {
    /// Tells what happens, when anybody wants to know.
    pub(super) fn tell(&self, event: impl FnOnce(&World) -> Event) {
        self.journal.note(self.schedule.now(), || event(self));
    }

    /// Tells something that there is no event for.
    pub(super) fn log(&self, line: impl FnOnce(&World) -> String) {
        self.tell(|world| Event::Note {
            about: line(world).into(),
        });
    }

    /// Tells what a step has made of a node.
    pub(super) fn tell_state(&mut self, run: Run) {
        if !self.journal.is_on() {
            return;
        }
        let id = run.node;
        let Some(live) = self.nodes.live(run) else { return };
        let now = Seen::of(&live.process.raft.status());
        let before = self.told.seen.insert(id, now);
        if before.is_none_or(|before| before.part != now.part) {
            let (role, term, leader) = now.part;
            self.tell(|_| Event::Role {
                node: id.0,
                role: telling::role(role),
                term: term.0,
                leader: leader.map(|leader| leader.0),
            });
        }
        if before.is_none_or(|before| before.positions != now.positions) {
            let [commit, applied, durable, last] = now.positions.map(|index| index.0);
            self.tell(|_| Event::Log {
                node: id.0,
                commit,
                applied,
                durable,
                last,
            });
        }
    }

    /// Tells that a process has started.
    pub(super) fn tell_started(&mut self, run: Run) {
        let (node, life) = (run.node.0, run.life);
        self.tell(|_| Event::Started { node, life });
        self.tell_state(run);
    }

    /// Tells that a process has ended: nobody answers what it was asked.
    pub(super) fn tell_stopped(&mut self, run: Run) {
        if !self.journal.is_on() {
            return;
        }
        self.told.seen.remove(&run.node);
        self.told.paused.remove(&run.node);
        let unanswered: Vec<Token> = self
            .told
            .open
            .iter()
            .filter(|(_, node)| **node == run.node)
            .map(|(token, _)| *token)
            .collect();
        self.tell(|_| Event::Stopped { node: run.node.0 });
        for token in unanswered {
            self.tell_answer(token, Answer::Unknown, || "the node stopped".into());
        }
    }

    /// Tells that a node stands still.
    pub(super) fn tell_paused(&mut self, id: NodeId) {
        if self.journal.is_on() && self.told.paused.insert(id) {
            self.tell(|_| Event::Paused { node: id.0 });
        }
    }

    /// Tells that a node moves, if it was told that it does not.
    pub(super) fn tell_resumed(&mut self, id: NodeId) {
        if self.told.paused.remove(&id) {
            self.tell(|_| Event::Resumed { node: id.0 });
        }
    }

    /// Tells what is sent; returns its number.
    pub(super) fn tell_sent(&mut self, from: NodeId, to: NodeId, message: &Message) -> u64 {
        self.tell_sent_as(
            from,
            to,
            message.term,
            || name_of(&message.body),
            || telling::about(&message.body),
        )
    }

    /// Tells that a snapshot is sent; returns its number among the messages.
    pub(super) fn tell_snapshot_sent(&mut self, from: NodeId, to: NodeId, term: Term) -> u64 {
        self.tell_sent_as(from, to, term, || "snapshot".to_owned(), String::new)
    }

    fn tell_sent_as(
        &mut self,
        from: NodeId,
        to: NodeId,
        term: Term,
        kind: impl FnOnce() -> String,
        about: impl FnOnce() -> String,
    ) -> u64 {
        self.told.messages += 1;
        let message = self.told.messages;
        self.tell(|_| Event::Sent {
            message,
            from: from.0,
            to: to.0,
            kind: kind().into(),
            term: term.0,
            about: about().into(),
        });
        message
    }

    /// Tells that a message does not even begin its way.
    pub(super) fn tell_dropped(&mut self, from: NodeId, to: NodeId, message: u64) {
        if self.journal.is_on() {
            let open = self.network.is_open(from, to);
            let why = if open { Loss::Dropped } else { Loss::Cut };
            self.tell(|_| Event::Lost { message, why });
        }
    }

    /// Tells that a request is put to a node.
    pub(super) fn tell_asked(
        &mut self,
        run: Run,
        token: Token,
        operation: Operation,
        about: impl FnOnce() -> String,
    ) {
        if self.journal.is_on() {
            self.told.open.insert(token, run.node);
            self.tell(|_| Event::Asked {
                request: token.0,
                node: run.node.0,
                operation,
                about: about().into(),
            });
        }
    }

    /// Tells what came of a request.
    pub(super) fn tell_answer(
        &mut self,
        token: Token,
        answer: Answer,
        about: impl FnOnce() -> Cow<'static, str>,
    ) {
        if self.journal.is_on() && self.told.open.remove(&token).is_some() {
            self.tell(|_| Event::Answered {
                request: token.0,
                answer,
                about: about(),
            });
        }
    }

    /// Tells what consensus says came of a request.
    pub(super) fn tell_outcome(&mut self, token: Token, outcome: &Outcome) {
        let answer = match outcome {
            Outcome::ReadReady { .. } | Outcome::Done => Answer::Acknowledged,
            Outcome::NotLeader { .. } | Outcome::Busy | Outcome::Refused(_) => Answer::Refused,
            Outcome::Unknown => Answer::Unknown,
        };
        self.tell_answer(token, answer, || match outcome {
            Outcome::NotLeader { leader: Some(leader) } => format!("node {leader} leads").into(),
            Outcome::NotLeader { leader: None } => "no leader is known".into(),
            Outcome::ReadReady { index } => format!("at {index}").into(),
            Outcome::Refused(refusal) => refusal.to_string().into(),
            Outcome::Busy | Outcome::Unknown | Outcome::Done => "".into(),
        });
    }

    /// Tells what a node says of itself.
    pub(super) fn tell_told(&self, node: NodeId, event: &TraceEvent) {
        self.tell(|_| Event::Told {
            node: node.0,
            kind: name_of(event).into(),
            about: format!("{event:?}").into(),
        });
    }

    /// Tells that a membership is committed.
    pub(super) fn tell_membership(&self, index: Index, membership: &Membership) {
        self.tell(|_| telling::membership(index, membership));
    }

    /// Tells that something breaks, and what it hits.
    pub(super) fn tell_fault(&self, kind: &FaultKind) {
        self.tell(|world| {
            let find = |who| world.find(who);
            telling::fault(kind, world.schedule.now(), find, |shape| world.cut_of(shape))
        });
    }
}

/// What kind of request this is.
pub(super) fn operation_of(kind: &RequestKind) -> Operation {
    match kind {
        RequestKind::Command { .. } => Operation::Write,
        RequestKind::Read { .. } => Operation::Read,
        RequestKind::Change => Operation::ChangeMembership,
        RequestKind::Transfer => Operation::Transfer,
    }
}
