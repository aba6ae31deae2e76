//! What a run of production nodes tells its journal, for who looks at it afterwards. Without a journal it costs a look at
//! an option.
//!
//! Machines run one after the other, each to the end of a tick, so what they tell is put in order before it is written.
//! Between two machines messages of consensus travel on one stream: what arrives shows that everything sent before it on
//! the same way, and not seen to arrive, was lost with a connection.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use quorate_core::raft::{Effects, Index, Message, NodeId, Role, Status, Term};

use super::client;
use crate::consensus::schedule::Time;
use crate::consensus::telling;
use crate::trace::{Answer, Event, Journal, Loss, Operation, Record, name_of};

/// The journal of a run, if it has one.
#[derive(Debug, Default)]
pub(super) struct Told(Option<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    journal: Journal,
    /// What was told in this tick.
    tick: Vec<Record>,
    /// What was told last of the nodes whose processes run, by machine.
    seen: BTreeMap<NodeId, Seen>,
    /// The machines of members.
    machines: BTreeMap<NodeId, NodeId>,
    paused: BTreeSet<NodeId>,
    /// The last committed membership that was told.
    membership: Option<Index>,
    messages: u64,
    /// What was sent from one machine to another and not seen to arrive.
    under_way: BTreeMap<(NodeId, NodeId), VecDeque<(u64, Message)>>,
    requests: u64,
}

/// What was seen of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    part: (Role, Term, Option<NodeId>),
    positions: [Index; 4],
}

impl Told {
    /// A run that tells `journal`, when anybody reads that.
    pub(super) fn new(journal: Journal) -> Told {
        Told(journal.is_on().then(|| {
            Mutex::new(Inner {
                journal,
                ..Inner::default()
            })
        }))
    }

    fn inner(&self) -> Option<MutexGuard<'_, Inner>> {
        let inner = self.0.as_ref()?;
        Some(inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Ends the journal.
    pub(super) fn take_journal(&self) -> Journal {
        self.end_tick();
        self.inner()
            .map(|mut inner| std::mem::take(&mut inner.journal))
            .unwrap_or_default()
    }

    /// Writes what was told in this tick, in order.
    pub(super) fn end_tick(&self) {
        if let Some(mut inner) = self.inner() {
            inner.end_tick();
        }
    }

    /// Tells something.
    pub(super) fn tell(&self, at: Time, event: impl FnOnce() -> Event) {
        if let Some(mut inner) = self.inner() {
            inner.note(at, event());
        }
    }

    /// Tells that a process has started.
    pub(super) fn started(&self, at: Time, node: NodeId, life: u64) {
        let life = u32::try_from(life).unwrap_or(u32::MAX);
        self.tell(at, || Event::Started { node: node.0, life });
    }

    /// Tells that a process has ended: what is on its way to it reaches nobody.
    pub(super) fn stopped(&self, at: Time, node: NodeId) {
        let Some(mut inner) = self.inner() else { return };
        inner.seen.remove(&node);
        inner.paused.remove(&node);
        inner.note(at, Event::Stopped { node: node.0 });
        let ways: Vec<_> = inner
            .under_way
            .keys()
            .filter(|(_, to)| *to == node)
            .copied()
            .collect();
        for way in ways {
            for (message, _) in inner.under_way.remove(&way).unwrap_or_default() {
                let why = Loss::Down;
                inner.note(at, Event::Lost { message, why });
            }
        }
    }

    /// Tells which processes stand still, when that has changed.
    pub(super) fn stands(&self, at: Time, node: NodeId, still: bool) {
        let Some(mut inner) = self.inner() else { return };
        if still && inner.paused.insert(node) {
            inner.note(at, Event::Paused { node: node.0 });
        } else if !still && inner.paused.remove(&node) {
            inner.note(at, Event::Resumed { node: node.0 });
        }
    }

    /// Tells what a round of consensus has made of a node, and what it sends.
    pub(super) fn stepped(&self, at: Time, node: NodeId, status: &Status<'_>, effects: &Effects) {
        let Some(mut inner) = self.inner() else { return };
        inner.machines.insert(status.id, node);
        for event in &effects.trace {
            let told = Event::Told {
                node: node.0,
                kind: name_of(event).into(),
                about: format!("{event:?}").into(),
            };
            inner.note(at, told);
        }
        inner.state(at, node, status);
        for (to, message) in &effects.send {
            inner.sent(at, node, *to, message);
        }
    }

    /// Tells that a message from a member has reached a node.
    pub(super) fn received(&self, at: Time, node: NodeId, from: NodeId, message: &Message) {
        let Some(mut inner) = self.inner() else { return };
        let Some(from) = inner.machines.get(&from).copied() else {
            return;
        };
        let way = inner.under_way.entry((from, node)).or_default();
        let Some(place) = way.iter().position(|(_, sent)| sent == message) else {
            return;
        };
        let arrived: Vec<u64> = way.drain(..=place).map(|(number, _)| number).collect();
        let (last, lost) = arrived.split_last().expect("the one that arrived is among them");
        for message in lost {
            let (message, why) = (*message, Loss::Dropped);
            inner.note(at, Event::Lost { message, why });
        }
        inner.note(at, Event::Arrived { message: *last });
    }

    /// Tells that something is asked of a node; returns the number for [`Told::answered`].
    pub(super) fn asked(
        &self,
        at: Time,
        node: NodeId,
        operation: Operation,
        about: impl FnOnce() -> String,
    ) -> u64 {
        let Some(mut inner) = self.inner() else { return 0 };
        inner.requests += 1;
        let request = inner.requests;
        let event = Event::Asked {
            request,
            node: node.0,
            operation,
            about: about().into(),
        };
        inner.note(at, event);
        request
    }

    /// Tells what came of it.
    pub(super) fn answered(&self, at: Time, request: u64, answer: &client::Answer) {
        self.tell(at, || {
            let (answer, about): (Answer, Cow<'static, str>) = match answer {
                client::Answer::Done(_) => (Answer::Acknowledged, "".into()),
                client::Answer::Other(code) => (Answer::Refused, code.to_string().into()),
                client::Answer::Nothing(reason) => (Answer::Refused, reason.clone().into()),
                client::Answer::Unknown(reason) => (Answer::Unknown, reason.clone().into()),
            };
            Event::Answered {
                request,
                answer,
                about,
            }
        });
    }
}

impl Inner {
    fn note(&mut self, at: Time, event: Event) {
        self.tick.push(Record { at, event });
    }

    fn end_tick(&mut self) {
        // Those of one moment stay in the order in which they were told.
        self.tick.sort_by_key(|record| record.at);
        for Record { at, event } in self.tick.drain(..) {
            self.journal.note(at, || event);
        }
    }

    fn state(&mut self, at: Time, node: NodeId, status: &Status<'_>) {
        let now = Seen {
            part: (status.role, status.term, status.leader),
            positions: [status.commit, status.applied, status.durable, status.last.index],
        };
        let before = self.seen.insert(node, now);
        if before.is_none_or(|before| before.part != now.part) {
            let leader = status
                .leader
                .map(|leader| self.machines.get(&leader).unwrap_or(&leader).0);
            let event = Event::Role {
                node: node.0,
                role: telling::role(status.role),
                term: status.term.0,
                leader,
            };
            self.note(at, event);
        }
        if before.is_none_or(|before| before.positions != now.positions) {
            let [commit, applied, durable, last] = now.positions.map(|index| index.0);
            let event = Event::Log {
                node: node.0,
                commit,
                applied,
                durable,
                last,
            };
            self.note(at, event);
        }
        let position = status.membership_position.index;
        if self.membership < Some(position) && position <= status.commit {
            self.membership = Some(position);
            self.note(at, telling::membership(position, status.membership));
        }
    }

    fn sent(&mut self, at: Time, from: NodeId, to: NodeId, message: &Message) {
        // Of a member that never ran there is no lane to draw on.
        let Some(machine) = self.machines.get(&to).copied() else {
            return;
        };
        self.messages += 1;
        let number = self.messages;
        let event = Event::Sent {
            message: number,
            from: from.0,
            to: machine.0,
            kind: name_of(&message.body).into(),
            term: message.term.0,
            about: telling::about(&message.body).into(),
        };
        self.note(at, event);
        if self.seen.contains_key(&machine) {
            let way = self.under_way.entry((from, machine)).or_default();
            way.push_back((number, message.clone()));
        } else {
            let why = Loss::Down;
            self.note(at, Event::Lost { message: number, why });
        }
    }
}
