//! What a run tells its journal, for who looks at it afterwards. Without a journal it costs a look at a flag.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use quorate_core::raft::{
    Body, Index, Membership, Message, NodeId, Outcome, Role, Status, Term, Token, TraceEvent,
};

use super::checker::client::RequestKind;
use super::network::Cut;
use super::node::Run;
use super::plan::{FaultKind, Shape, Who, line_of};
use super::schedule::Time;
use super::world::World;
use crate::trace::{self, Answer, Event, FaultClass, Loss, Operation, name_of};

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
                role: role_of(role),
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
            || about(&message.body),
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
        let numbers = |ids: &BTreeSet<NodeId>| ids.iter().map(|id| id.0).collect::<Vec<_>>();
        self.tell(|_| Event::Membership {
            index: index.0,
            voters: numbers(membership.voters()),
            outgoing: numbers(membership.outgoing()),
            learners: numbers(membership.learners()),
        });
    }

    /// Tells that something breaks, and what it hits.
    pub(super) fn tell_fault(&self, kind: &FaultKind) {
        self.tell(|world| {
            let (class, nodes, links, lasts) = world.extent(kind);
            let at = world.schedule.now();
            Event::Fault {
                fault: name_of(kind).into(),
                class,
                nodes: nodes.into_iter().map(|who| world.find(who).0).collect(),
                links: links.into_iter().map(|(from, to)| (from.0, to.0)).collect(),
                until: lasts.map(|lasts| at + lasts),
                about: line_of(kind).into(),
            }
        });
    }

    /// Where a fault strikes, whom, which links, and for how long where it does not end by itself.
    fn extent(&self, kind: &FaultKind) -> (FaultClass, Vec<Who>, Cut, Option<Time>) {
        use FaultClass::{Clock, Disk, Network, Process};
        let (here, nowhere) = (|who: Who| vec![who], Cut::new);
        match *kind {
            FaultKind::Crash { victim, .. } | FaultKind::CrashAt { victim, .. } => {
                (Process, here(victim), nowhere(), None)
            }
            FaultKind::PowerCut { .. } => (Process, Vec::new(), nowhere(), None),
            FaultKind::Pause { victim, duration } => (Process, here(victim), nowhere(), Some(duration)),
            FaultKind::Partition { shape, duration } | FaultKind::Hold { shape, duration } => {
                (Network, victims(shape), self.cut_of(shape), Some(duration))
            }
            FaultKind::Flap {
                one,
                other,
                times,
                period,
            } => {
                let (from, to) = (self.find(one), self.find(other));
                let lasts = u64::from(times) * period;
                (Network, Vec::new(), vec![(from, to), (to, from)], Some(lasts))
            }
            FaultKind::Clog {
                from, to, duration, ..
            } => {
                let link = vec![(self.find(from), self.find(to))];
                (Network, Vec::new(), link, Some(duration))
            }
            FaultKind::FalseAlarm {
                at_node, duration, ..
            } => (Network, here(at_node), nowhere(), Some(duration)),
            FaultKind::Storm { duration, .. } => (Network, Vec::new(), nowhere(), Some(duration)),
            FaultKind::ClockStep { victim, .. } => (Clock, here(victim), nowhere(), None),
            FaultKind::SlowDisk { victim, duration, .. } | FaultKind::StalledDisk { victim, duration } => {
                (Disk, here(victim), nowhere(), Some(duration))
            }
            FaultKind::FailedSync { victim, .. }
            | FaultKind::Rot { victim, .. }
            | FaultKind::Wipe { victim } => (Disk, here(victim), nowhere(), None),
        }
    }
}

/// The nodes that a partition is about.
fn victims(shape: Shape) -> Vec<Who> {
    match shape {
        Shape::Alone(one) | Shape::Unheard(one) | Shape::Deaf(one) | Shape::Bridge(one) => vec![one],
        Shape::Two(one, other) => vec![one, other],
        Shape::Link(..) | Shape::Sides(_) | Shape::Pairs(_) => Vec::new(),
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

fn role_of(role: Role) -> trace::Role {
    match role {
        Role::Leader => trace::Role::Leader,
        Role::PreCandidate => trace::Role::PreCandidate,
        Role::Candidate => trace::Role::Candidate,
        Role::Follower => trace::Role::Follower,
        Role::Learner => trace::Role::Learner,
        Role::Witness => trace::Role::Witness,
        Role::Failed => trace::Role::Failed,
    }
}

/// A message in few words.
fn about(body: &Body) -> String {
    match body {
        Body::Append {
            previous,
            entries,
            commit,
        } => {
            let last = entries.last().map_or(*previous, |entry| entry.position);
            format!("after {previous} to {last}, commit {commit}")
        }
        other => {
            let text = format!("{other:?}");
            let fields = text.split_once(' ').map_or("", |(_, fields)| fields);
            fields.trim_start_matches("{ ").trim_end_matches(" }").to_owned()
        }
    }
}
