//! One state of the explored cluster, the ways on from it, and what must hold in it.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;

use quorate_core::Instant;
use quorate_core::raft::{
    Apply, Body, Boot, Config, DirectoryId, Effects, Index, Input, Lineage, Member, Membership, Message,
    NodeId, Position, Raft, Role, Term, Token, TraceEvent,
};

use super::Bounds;
use super::disk::Disk;

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// The disk of a node is slow from the beginning on.
    Slow(usize),
    /// A message arrives, and may arrive again.
    Deliver(usize),
    /// The next timer of a node fires.
    Timeout(usize),
    /// The oldest write of a node with a slow disk becomes durable, and the node hears of it.
    Persist(usize),
    /// A client proposes a command to a leader.
    Propose(usize),
    /// A node crashes, keeps some of the writes under way, and starts again.
    Crash(usize, usize),
}

/// A node with its disk.
#[derive(Clone, Debug)]
struct Node {
    raft: Raft,
    disk: Disk,
    now: Instant,
    /// What its state machine has applied, in this life.
    applied: Vec<Position>,
    /// Whether its writes become durable at any later moment, and not before it goes on.
    slow: bool,
    fingerprint: u64,
}

/// A message that was sent.
#[derive(Debug)]
struct Envelope {
    from: NodeId,
    to: NodeId,
    message: Message,
    fingerprint: u64,
}

/// Everything there is at one moment. Parts that a step does not touch are shared with the state before it.
#[derive(Clone, Debug)]
pub(super) struct State {
    nodes: Vec<Arc<Node>>,
    /// What was sent and may arrive, by fingerprint.
    messages: Vec<Arc<Envelope>>,
    /// Who led which term.
    leaders: BTreeMap<Term, NodeId>,
    /// What is committed anywhere.
    committed: Vec<Position>,
    timeouts: u8,
    crashes: u8,
    proposed: u8,
}

impl State {
    pub(super) fn new(bounds: &Bounds) -> State {
        let ids = (1..=bounds.nodes).map(NodeId);
        let member = |id: NodeId| Member::named(id.to_string(), DirectoryId(id.0.into()));
        let membership = Membership::bootstrap(Lineage(1), ids.clone().map(|id| (id, member(id))).collect());
        let node = |id| {
            let boot = Boot::blank(id, membership.clone());
            let mut node = Node {
                raft: raft(boot, Instant::ORIGIN, bounds),
                disk: Disk::new(membership.clone()),
                now: Instant::ORIGIN,
                applied: Vec::new(),
                slow: false,
                fingerprint: 0,
            };
            node.take_fingerprint();
            Arc::new(node)
        };
        State {
            nodes: ids.map(node).collect(),
            messages: Vec::new(),
            leaders: BTreeMap::new(),
            committed: Vec::new(),
            timeouts: 0,
            crashes: 0,
            proposed: 0,
        }
    }

    pub(super) fn fingerprint(&self) -> u64 {
        let mut hash = DefaultHasher::new();
        for node in &self.nodes {
            node.fingerprint.hash(&mut hash);
        }
        for message in &self.messages {
            message.fingerprint.hash(&mut hash);
        }
        self.leaders.hash(&mut hash);
        self.committed.hash(&mut hash);
        (self.timeouts, self.crashes, self.proposed).hash(&mut hash);
        hash.finish()
    }

    /// Whether it lies outside of what is looked at.
    pub(super) fn is_beyond(&self, bounds: &Bounds) -> bool {
        self.nodes
            .iter()
            .any(|node| node.raft.progress().term.0 > bounds.terms)
    }

    /// All steps that can be taken, in an order that depends on the state alone.
    pub(super) fn actions(&self, bounds: &Bounds) -> Vec<Action> {
        let mut actions: Vec<Action> = (0..self.messages.len()).map(Action::Deliver).collect();
        let slow = self.nodes.iter().filter(|node| node.slow).count();
        for (place, node) in self.nodes.iter().enumerate() {
            let first = self.timeouts == 0 && place > 0;
            if self.timeouts < bounds.timeouts && !first && node.raft.deadline().is_some() {
                actions.push(Action::Timeout(place));
            }
            if self.timeouts == 0 && !node.slow && slow < usize::from(bounds.slow_disks) {
                actions.push(Action::Slow(place));
            }
            if !node.disk.under_way.is_empty() {
                actions.push(Action::Persist(place));
            }
            if self.proposed < bounds.entries && node.raft.status().role == Role::Leader {
                actions.push(Action::Propose(place));
            }
            if self.crashes < bounds.crashes {
                actions.extend((0..=node.disk.under_way.len()).map(|kept| Action::Crash(place, kept)));
            }
        }
        actions
    }

    /// The state after one step, or what is wrong with it.
    pub(super) fn after(&self, action: Action, bounds: &Bounds) -> Result<State, String> {
        let mut next = self.clone();
        match action {
            Action::Slow(place) => {
                let node = next.node(place);
                node.slow = true;
                node.take_fingerprint();
            }
            Action::Deliver(place) => {
                let envelope = Arc::clone(&next.messages[place]);
                next.deliver(&envelope)?;
            }
            Action::Timeout(place) => {
                next.timeouts += 1;
                let node = next.node(place);
                let due = node.raft.deadline().expect("a timer is armed");
                node.now = node.now.max(due);
                next.step(place, Input::Timeout)?;
            }
            Action::Persist(place) => {
                let persisted = next.node(place).persisted().expect("a write is under way");
                next.step(place, persisted)?;
            }
            Action::Propose(place) => {
                next.proposed += 1;
                let token = Token(u64::from(next.proposed));
                let command = vec![next.proposed].into();
                next.step(place, Input::Propose { token, command })?;
            }
            Action::Crash(place, kept) => {
                next.crashes += 1;
                let node = next.node(place);
                node.disk.crash(kept);
                let boot = node.disk.durable.boot(NodeId(place as u64 + 1));
                node.raft = raft(boot, node.now, bounds);
                node.applied.clear();
                node.take_fingerprint();
            }
        }
        next.check_logs()?;
        next.forget_what_means_nothing();
        Ok(next)
    }

    fn node(&mut self, place: usize) -> &mut Node {
        Arc::make_mut(&mut self.nodes[place])
    }

    fn deliver(&mut self, envelope: &Envelope) -> Result<(), String> {
        let place = usize::try_from(envelope.to.0 - 1).expect("few nodes");
        let (from, message) = (envelope.from, envelope.message.clone());
        self.step(place, Input::Receive { from, message })
    }

    /// Removes answers to what a node asked in a term that it has left for good: they are ignored whenever they come,
    /// and states that differ only in them are the same.
    fn forget_what_means_nothing(&mut self) {
        let nodes = &self.nodes;
        self.messages.retain(|envelope| {
            let receiver = &nodes[usize::try_from(envelope.to.0 - 1).expect("few nodes")];
            let left = receiver.disk.durable.hard_state.term;
            match envelope.message.body {
                // A promise names the term that it is for; whoever gives it may teach a later one.
                Body::PreVoteResponse { proposed, .. } => proposed > left || envelope.message.term > left,
                Body::VoteResponse { .. }
                | Body::AppendAccepted { .. }
                | Body::AppendRejected { .. }
                | Body::HeartbeatResponse { .. } => envelope.message.term >= left,
                _ => true,
            }
        });
    }

    /// Steps a node, and carries out everything that needs no time. A disk that is not slow is done at once.
    fn step(&mut self, place: usize, input: Input) -> Result<(), String> {
        self.step_once(place, input)?;
        while !self.nodes[place].slow
            && let Some(persisted) = self.node(place).persisted()
        {
            self.step_once(place, persisted)?;
        }
        self.note_committed(place)?;
        self.node(place).take_fingerprint();
        Ok(())
    }

    fn step_once(&mut self, place: usize, input: Input) -> Result<(), String> {
        let id = NodeId(place as u64 + 1);
        let node = self.node(place);
        node.raft.step(node.now, input);
        let mut effects = Effects::default();
        loop {
            let node = self.node(place);
            node.raft.drain(&mut effects);
            if effects.is_empty() {
                break;
            }
            node.disk.under_way.extend(effects.write.drain(..));
            for apply in effects.apply.drain(..) {
                let Apply::Committed(committed) = apply else {
                    return Err("a snapshot is installed, and there is none".to_owned());
                };
                for entry in &committed.entries {
                    node.applied.push(entry.position);
                    let index = entry.position.index;
                    node.raft.step(node.now, Input::Applied { index });
                }
            }
            for (to, message) in effects.send.drain(..) {
                self.check_promise(place, &message)?;
                self.send(id, to, message);
            }
            for event in effects.trace.drain(..) {
                if let TraceEvent::Elected { term } = event {
                    self.elected(place, term)?;
                }
            }
            effects.outcome.clear();
            if !effects.fetch.is_empty() || !effects.snapshot.is_empty() {
                return Err("entries are missing in memory, and everything is small".to_owned());
            }
        }
        Ok(())
    }

    fn send(&mut self, from: NodeId, to: NodeId, message: Message) {
        let mut hash = DefaultHasher::new();
        format!("{from:?} {to:?} {message:?}").hash(&mut hash);
        let envelope = Arc::new(Envelope {
            from,
            to,
            message,
            fingerprint: hash.finish(),
        });
        let place = self
            .messages
            .partition_point(|other| other.fingerprint < envelope.fingerprint);
        let known = self.messages.get(place);
        if known.is_none_or(|other| other.fingerprint != envelope.fingerprint) {
            self.messages.insert(place, envelope);
        }
    }

    /// No vote and no acceptance leaves before the disk holds what it promises.
    fn check_promise(&self, place: usize, message: &Message) -> Result<(), String> {
        let node = &self.nodes[place];
        let durable = &node.disk.durable;
        let kept = match &message.body {
            Body::VoteResponse { granted: true } => {
                durable.hard_state.term >= message.term && durable.hard_state.vote.is_some()
            }
            Body::VoteRequest { last, .. } => {
                let hard_state = durable.hard_state;
                let own =
                    hard_state.term == message.term && hard_state.vote == Some(NodeId(place as u64 + 1));
                hard_state.term > message.term || (own && durable.last() >= *last)
            }
            Body::AppendAccepted { matched } => *matched == Index(0) || durable.position(*matched).is_some(),
            _ => true,
        };
        if kept {
            Ok(())
        } else {
            Err(format!(
                "no promise before it is durable: node {} says {message:?}",
                place + 1
            ))
        }
    }

    /// At most one leader a term, with everything that is committed (Raft paper, figure 3).
    fn elected(&mut self, place: usize, term: Term) -> Result<(), String> {
        let id = NodeId(place as u64 + 1);
        if let Some(other) = self.leaders.insert(term, id)
            && other != id
        {
            return Err(format!(
                "election safety: nodes {other} and {id} both lead term {term}"
            ));
        }
        let node = &self.nodes[place];
        for position in &self.committed {
            let durable = node.disk.durable.position(position.index);
            let written = node.disk.under_way.iter().flat_map(|write| &write.entries);
            let held = written.map(|entry| entry.position).any(|held| held == *position);
            if durable != Some(*position) && !held {
                return Err(format!(
                    "leader completeness: node {id} leads term {term} without {position}"
                ));
            }
        }
        Ok(())
    }

    /// What is committed never changes, and every state machine applies just that.
    fn note_committed(&mut self, place: usize) -> Result<(), String> {
        let node = Arc::clone(&self.nodes[place]);
        for (number, position) in node.applied.iter().enumerate() {
            if position.index.0 != number as u64 + 1 {
                return Err(format!(
                    "node {} applied {position} as number {}",
                    place + 1,
                    number + 1
                ));
            }
            match self.committed.get(number) {
                None => {
                    self.check_majority(*position)?;
                    self.committed.push(*position);
                }
                Some(known) if known == position => {}
                Some(known) => {
                    return Err(format!(
                        "committed entries never change: node {} applied {position}, and {known} was applied elsewhere",
                        place + 1
                    ));
                }
            }
        }
        Ok(())
    }

    /// What is committed is on the disks of a majority.
    fn check_majority(&self, position: Position) -> Result<(), String> {
        let holds = |node: &&Arc<Node>| node.disk.durable.position(position.index) == Some(position);
        if 2 * self.nodes.iter().filter(holds).count() > self.nodes.len() {
            Ok(())
        } else {
            Err(format!(
                "committed entries are on the disks of a majority: {position} is not"
            ))
        }
    }

    /// If two logs have an entry of the same index and term, they are the same up to it (Raft paper, figure 3).
    fn check_logs(&self) -> Result<(), String> {
        for (place, node) in self.nodes.iter().enumerate() {
            for other in &self.nodes[place + 1..] {
                let (ours, theirs) = (&node.disk.durable.entries, &other.disk.durable.entries);
                let shared = ours.len().min(theirs.len());
                let last = (0..shared).rfind(|at| ours[*at].position == theirs[*at].position);
                if last.is_some_and(|last| ours[..=last] != theirs[..=last]) {
                    return Err(format!("log matching: {ours:?} and {theirs:?}"));
                }
            }
        }
        Ok(())
    }

    /// The step in words.
    pub(super) fn describe(&self, action: Action) -> String {
        let message = |place: usize| {
            let Envelope {
                from, to, message, ..
            } = &*self.messages[place];
            format!("{from} -> {to}: {message:?}")
        };
        match action {
            Action::Slow(place) => format!("the disk of node {} is slow", place + 1),
            Action::Deliver(place) => message(place),
            Action::Timeout(place) => format!("a timer of node {} fires", place + 1),
            Action::Persist(place) => format!("the oldest write of node {} is durable", place + 1),
            Action::Propose(place) => format!("a client proposes to node {}", place + 1),
            Action::Crash(place, kept) => {
                format!(
                    "node {} crashes, keeps {kept} writes that were under way, and starts again",
                    place + 1
                )
            }
        }
    }
}

impl Node {
    /// The oldest write becomes durable, which the node is to hear of; none when none is under way.
    fn persisted(&mut self) -> Option<Input> {
        let write = self.disk.sync()?;
        Some(Input::Persisted {
            write: write.id,
            result: Ok(()),
        })
    }

    fn take_fingerprint(&mut self) {
        let mut hash = DefaultHasher::new();
        self.raft.fingerprint().hash(&mut hash);
        format!("{:?}", self.disk).hash(&mut hash);
        self.applied.hash(&mut hash);
        self.slow.hash(&mut hash);
        self.fingerprint = hash.finish();
    }
}

fn raft(boot: Boot, now: Instant, bounds: &Bounds) -> Raft {
    let config = Config {
        planted: bounds.planted,
        ..Config::default()
    };
    Raft::new(config, boot, [1; 32], now).expect("the disk is sound")
}
