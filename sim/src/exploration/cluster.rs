//! The states of the explored cluster, the ways on from each, and what must hold in it.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use quorate_core::raft::{DirectoryId, Lineage, Member, Membership, Message, NodeId, Position, Term};

use super::Bounds;
use super::node::{Consequence, Happening, Node};
use super::table::{Numbers, Table};

/// The most nodes that can be explored.
pub(super) const NODES_MAX: usize = 5;

/// Everything there is at one moment.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) present: Present,
    /// Timers that fired so far.
    timeouts: u8,
    /// Nodes that crashed so far.
    crashes: u8,
    silences: u8,
    /// What was sent and may arrive.
    messages: Numbers,
}

/// What cannot be compared as more or less: the nodes and what happened so far.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Present {
    nodes: [u32; NODES_MAX],
    facts: u32,
    proposed: u8,
}

/// What happened, as far as properties speak of it.
#[derive(Clone, Debug, Default, Hash)]
struct Facts {
    /// Who led which term.
    leaders: BTreeMap<Term, NodeId>,
    /// What is committed anywhere, and a term that is not before the one in which it was committed.
    committed: Vec<(Position, Term)>,
}

/// One step of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Action {
    /// The place of the node that it happens to.
    place: u8,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Slow,
    /// A message arrives, and may arrive again.
    Deliver(u32),
    Timeout,
    /// One that its receiver judges by when it heard of a leader, when it has not for long.
    DeliverLate(u32),
    Persist,
    Propose(u8),
    Crash(u8),
}

/// A message that was sent.
#[derive(Debug)]
struct Envelope {
    from: NodeId,
    to: NodeId,
    message: Message,
}

/// A step of one node, in numbers.
#[derive(Debug)]
struct Played {
    node: u32,
    sent: Vec<u32>,
    elected: Vec<Term>,
}

/// Everything that was met, and the bounds.
#[derive(Debug)]
pub(super) struct Cluster<'a> {
    bounds: &'a Bounds,
    nodes: Table<Node>,
    envelopes: Table<Envelope>,
    facts: Table<Facts>,
    /// What each node did, by its number and what happened. Only looked up and never iterated.
    played: HashMap<(u32, Kind), Arc<Result<Played, String>>>,
}

impl State {
    /// How many messages were sent and may arrive.
    pub(super) fn under_way(&self) -> usize {
        self.messages.len()
    }

    /// Whether whatever can happen in `other` can happen here: the same nodes, at least the same messages under way, and
    /// no fewer timers, crashes and silences left. Nothing that was sent ever goes away, so this stays so step by step.
    pub(super) fn covers(&self, other: &State) -> bool {
        self.present == other.present
            && self.timeouts <= other.timeouts
            && self.crashes <= other.crashes
            && self.silences <= other.silences
            && self.messages.contains_all(&other.messages)
    }
}

impl Cluster<'_> {
    pub(super) fn new(bounds: &Bounds) -> (Cluster<'_>, State) {
        let mut cluster = Cluster {
            bounds,
            nodes: Table::default(),
            envelopes: Table::default(),
            facts: Table::default(),
            played: HashMap::new(),
        };
        let ids = (1..=bounds.nodes).map(NodeId);
        let member = |id: NodeId| Member::named(id.to_string(), DirectoryId(id.0.into()));
        let membership = Membership::bootstrap(Lineage(1), ids.clone().map(|id| (id, member(id))).collect());
        let mut nodes = [0; NODES_MAX];
        for (id, number) in ids.zip(&mut nodes) {
            let node = Node::new(id, &membership, bounds.planted);
            *number = cluster.nodes.number(node.fingerprint(), node);
        }
        let facts = cluster.keep_facts(Facts::default());
        let present = Present {
            nodes,
            facts,
            proposed: 0,
        };
        let first = State {
            present,
            timeouts: 0,
            crashes: 0,
            silences: 0,
            messages: Numbers::default(),
        };
        (cluster, first)
    }

    /// All steps that can be taken, those that may cover others first.
    pub(super) fn actions(&self, state: &State) -> Vec<Action> {
        let bounds = self.bounds;
        let deliver = |number| Action {
            place: place(self.envelopes.get(number).to),
            kind: Kind::Deliver(number),
        };
        let mut actions: Vec<Action> = state.messages.iter().map(deliver).collect();
        if state.silences < bounds.silences {
            let late = state.messages.iter().filter(|number| {
                let Envelope { to, message, .. } = self.envelopes.get(*number);
                self.node(state, place(*to)).may_be_late(message)
            });
            actions.extend(late.map(|number| Action {
                place: place(self.envelopes.get(number).to),
                kind: Kind::DeliverLate(number),
            }));
        }
        for place in 0..self.places() {
            let mut add = |kind| actions.push(Action { place, kind });
            let node = self.node(state, place);
            let begins = state.timeouts == 0;
            if state.timeouts < bounds.timeouts && !(begins && place > 0) && node.has_a_timer() {
                add(Kind::Timeout);
            }
            if begins && self.may_be_slow(state, place) {
                add(Kind::Slow);
            }
            let under_way = node.disk.under_way.len();
            if under_way > 0 {
                add(Kind::Persist);
            }
            if state.present.proposed < bounds.entries && node.leads() {
                add(Kind::Propose(state.present.proposed + 1));
            }
            if state.crashes < bounds.crashes {
                (0..=under_way).for_each(|kept| add(Kind::Crash(u8::try_from(kept).expect("few writes"))));
            }
        }
        actions
    }

    /// Nodes other than the first are equal at the beginning, so they become slow in the order of their places.
    fn may_be_slow(&self, state: &State, place: u8) -> bool {
        let slow = |place| self.node(state, place).slow;
        let so_far = (0..self.places()).filter(|place| slow(*place)).count();
        so_far < usize::from(self.bounds.slow_disks) && !slow(place) && (place <= 1 || slow(place - 1))
    }

    /// The state after one step; none when it lies outside the bounds.
    ///
    /// # Errors
    /// With the property that the step breaks.
    pub(super) fn after(&mut self, state: &State, action: Action) -> Result<Option<State>, String> {
        let before = state.present.nodes[usize::from(action.place)];
        let played = self.play(before, action.kind);
        let played = (*played).as_ref().map_err(String::clone)?;
        let mut next = state.clone();
        match action.kind {
            Kind::Timeout => next.timeouts += 1,
            Kind::Crash(_) => next.crashes += 1,
            Kind::Propose(_) => next.present.proposed += 1,
            Kind::DeliverLate(_) => next.silences += 1,
            Kind::Slow | Kind::Deliver(_) | Kind::Persist => {}
        }
        next.present.nodes[usize::from(action.place)] = played.node;
        for number in &played.sent {
            if self.means_something(&next, *number) {
                next.messages.insert(*number);
            }
        }
        if played.node != before {
            if self.nodes.get(played.node).term().0 > self.bounds.terms {
                return Ok(None);
            }
            self.take_note(&mut next, action.place, &played.elected)?;
            self.check_logs(&next, action.place)?;
            let messages = std::mem::take(&mut next.messages);
            let mut kept = messages;
            kept.retain(|number| self.means_something(&next, number));
            next.messages = kept;
        }
        Ok(Some(next))
    }

    /// What a node does, played when it is asked for the first time. A broken assertion of consensus is a violation
    /// like others.
    fn play(&mut self, number: u32, kind: Kind) -> Arc<Result<Played, String>> {
        if let Some(played) = self.played.get(&(number, kind)) {
            return Arc::clone(played);
        }
        let node = self.nodes.get(number);
        let happening = match kind {
            Kind::Slow => Happening::Slow,
            Kind::Deliver(envelope) => {
                let envelope = self.envelopes.get(envelope);
                Happening::Message(envelope.from, envelope.message.clone())
            }
            Kind::DeliverLate(envelope) => {
                let envelope = self.envelopes.get(envelope);
                Happening::LateMessage(envelope.from, envelope.message.clone())
            }
            Kind::Timeout => Happening::Timeout,
            Kind::Persist => Happening::Persist,
            Kind::Propose(number) => Happening::Propose(number),
            Kind::Crash(kept) => Happening::Crash(usize::from(kept)),
        };
        let result = catch_unwind(AssertUnwindSafe(|| node.after(happening))).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err(text.unwrap_or_else(|| "a panic without a message".to_owned()))
        });
        let played = Arc::new(result.map(|consequence| self.keep(consequence)));
        self.played.insert((number, kind), Arc::clone(&played));
        played
    }

    fn keep(&mut self, consequence: Consequence) -> Played {
        let Consequence { node, sent, elected } = consequence;
        let from = node.id;
        let mut numbers = Vec::new();
        for (to, message) in sent {
            let mut hash = DefaultHasher::new();
            format!("{from:?} {to:?} {message:?}").hash(&mut hash);
            let envelope = Envelope { from, to, message };
            numbers.push(self.envelopes.number(hash.finish(), envelope));
        }
        Played {
            node: self.nodes.number(node.fingerprint(), node),
            sent: numbers,
            elected,
        }
    }

    fn keep_facts(&mut self, facts: Facts) -> u32 {
        let mut hash = DefaultHasher::new();
        facts.hash(&mut hash);
        self.facts.number(hash.finish(), facts)
    }

    fn means_something(&self, state: &State, message: u32) -> bool {
        let envelope = self.envelopes.get(message);
        self.node(state, place(envelope.to)).heeds(&envelope.message)
    }

    fn node(&self, state: &State, place: u8) -> &Node {
        self.nodes.get(state.present.nodes[usize::from(place)])
    }

    fn places(&self) -> u8 {
        u8::try_from(self.bounds.nodes).expect("few nodes")
    }

    /// Notes what the node at `place` says of terms led and entries committed.
    fn take_note(&mut self, state: &mut State, place: u8, elected: &[Term]) -> Result<(), String> {
        let node = self.node(state, place);
        let known = self.facts.get(state.present.facts);
        let said_before = node.applied.iter().zip(&known.committed);
        let unchanged = elected.is_empty()
            && node.applied.len() <= known.committed.len()
            && said_before
                .into_iter()
                .all(|(position, (known, _))| position == known);
        if unchanged {
            return Ok(());
        }
        let mut facts = known.clone();
        for term in elected {
            facts.elect(*term, node)?;
        }
        for (number, position) in node.applied.iter().enumerate() {
            if position.index.0 != number as u64 + 1 {
                return Err(format!(
                    "node {} applied {position} as number {}",
                    node.id,
                    number + 1
                ));
            }
            match facts.committed.get(number) {
                None => {
                    self.check_majority(state, *position)?;
                    facts.committed.push((*position, node.term()));
                }
                Some((known, _)) if known == position => {}
                Some((known, _)) => {
                    return Err(format!(
                        "committed entries never change: node {} applied {position}, and {known} was applied elsewhere",
                        node.id
                    ));
                }
            }
        }
        state.present.facts = self.keep_facts(facts);
        Ok(())
    }

    /// What is committed is on the disks of a majority.
    fn check_majority(&self, state: &State, position: Position) -> Result<(), String> {
        let durable = |place: &u8| {
            let disk = &self.node(state, *place).disk;
            disk.durable.position(position.index) == Some(position)
        };
        if 2 * (0..self.places()).filter(durable).count() > usize::from(self.places()) {
            Ok(())
        } else {
            Err(format!(
                "committed entries are on the disks of a majority: {position} is not"
            ))
        }
    }

    /// If two logs have an entry of the same index and term, they are the same up to it (Raft paper, figure 3).
    fn check_logs(&self, state: &State, changed: u8) -> Result<(), String> {
        let ours = &self.node(state, changed).disk.durable.entries;
        for other in (0..self.places()).filter(|other| *other != changed) {
            let theirs = &self.node(state, other).disk.durable.entries;
            let shared = ours.len().min(theirs.len());
            let last = (0..shared).rfind(|at| ours[*at].position == theirs[*at].position);
            if last.is_some_and(|last| ours[..=last] != theirs[..=last]) {
                return Err(format!("log matching: {ours:?} and {theirs:?}"));
            }
        }
        Ok(())
    }

    /// The step in words.
    pub(super) fn describe(&self, action: Action) -> String {
        let node = action.place + 1;
        match action.kind {
            Kind::Slow => format!("the disk of node {node} is slow"),
            Kind::Deliver(number) => {
                let Envelope { from, to, message } = self.envelopes.get(number);
                format!("{from} -> {to}: {message:?}")
            }
            Kind::DeliverLate(number) => {
                let Envelope { from, to, message } = self.envelopes.get(number);
                format!("{from} -> {to}, which has heard of no leader for long: {message:?}")
            }
            Kind::Timeout => format!("a timer of node {node} fires"),
            Kind::Persist => format!("the oldest write of node {node} is durable"),
            Kind::Propose(number) => format!("a client proposes command {number} to node {node}"),
            Kind::Crash(kept) => {
                format!("node {node} crashes, keeps {kept} writes that were under way, and starts again")
            }
        }
    }
}

impl Facts {
    /// At most one leader a term, with everything that was committed in earlier terms (Raft paper, figure 3).
    fn elect(&mut self, term: Term, node: &Node) -> Result<(), String> {
        let id = node.id;
        if let Some(other) = self.leaders.insert(term, id)
            && other != id
        {
            return Err(format!(
                "election safety: nodes {other} and {id} both lead term {term}"
            ));
        }
        let lacks = |(position, by): &&(Position, Term)| *by < term && !node.holds(*position);
        match self.committed.iter().find(lacks) {
            None => Ok(()),
            Some((position, _)) => Err(format!(
                "leader completeness: node {id} leads term {term} without {position}"
            )),
        }
    }
}

fn place(id: NodeId) -> u8 {
    u8::try_from(id.0 - 1).expect("few nodes")
}
