//! What checkers see of the running nodes, and what they demand of it.
//!
//! A node's observer port tells of every round of consensus before its effects leave the node, and of every state
//! that its state machine reaches. The checkers of the core simulation look at that across nodes and lives; what only
//! they can know of a disk (what a write made durable) is concluded from what a node promised to others before it was
//! killed, and finds when it starts again.

mod judging;
mod witnesses;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quorate::port::Observer;
use quorate_core::raft::{Effects, FeatureLevel, Index, Message, NodeId, Raft, Role, Term};
use quorate_core::state::StateMachine;

use super::clock::MachineClock;
use super::links::Links;
use super::told::Told;
use super::watchers::Truth;
use crate::consensus::Statistics;
use crate::consensus::checker::commit::CommittedLog;
use crate::consensus::checker::election::Elections;
use crate::consensus::checker::progress::Progress;
use crate::consensus::checker::state::States;
use crate::consensus::checker::{Breach, Verdict};
use crate::consensus::node::Run;
use crate::consensus::trace::Trace;

/// What a node has promised to others, which its disk must keep.
#[derive(Clone, Copy, Debug, Default)]
struct Promised {
    /// The latest term in which it promised anything.
    term: Term,
    /// The last entry that it said its disk holds, as far as no leader replaced it since.
    matched: Index,
    /// Whether its log was damaged behind its back.
    rotten: bool,
}

/// When a power cut does harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Moment {
    /// A node is about to be sent a snapshot, or has accepted one.
    Snapshot,
    /// A node has given its vote.
    Vote,
}

/// A node as it was last seen.
#[derive(Clone, Debug, Default)]
struct Seen {
    life: u64,
    /// What it is called as a member.
    id: NodeId,
    /// Nothing was seen of this life yet.
    fresh: bool,
    progress: Progress,
    promised: Promised,
    role: Option<Role>,
    /// The leader that it knows, by its id as a member.
    leader: Option<NodeId>,
    last: Index,
    /// The features that its cluster uses.
    level: Option<FeatureLevel>,
    repairing: bool,
    /// Whether it is a witness, whose state machine stays empty.
    witness: bool,
    /// The last entry that its disk holds.
    durable: Index,
    /// The state machine's last entry and fingerprint.
    applied: (Index, u64),
}

struct Inner {
    elections: Elections,
    committed: CommittedLog,
    states: States,
    truth: Truth,
    votes: BTreeMap<(NodeId, Term), NodeId>,
    seen: BTreeMap<NodeId, Seen>,
    /// The leader of the latest term: its machine, and its id as a member.
    leader: Option<(Term, NodeId, NodeId)>,
    elected: BTreeMap<NodeId, u64>,
    reigns: u64,
    breach: Option<Breach>,
    links: Links,
    /// The names of nodes that belong to another cluster.
    strangers: Vec<String>,
    /// Moments that nobody took note of yet, and whose they are, by machine.
    moments: Vec<(Moment, NodeId)>,
    trace: Trace,
    statistics: Statistics,
}

/// All that was seen in a run.
pub(super) struct Sight(Mutex<Inner>);

impl Sight {
    /// Nothing was seen yet.
    pub(super) fn new() -> Sight {
        Sight(Mutex::new(Inner {
            elections: Elections::default(),
            // What leaders commit is seen only when a state machine is handed it.
            committed: CommittedLog::new(false),
            states: States::default(),
            truth: Truth::default(),
            votes: BTreeMap::new(),
            seen: BTreeMap::new(),
            leader: None,
            elected: BTreeMap::new(),
            reigns: 0,
            breach: None,
            links: Links::default(),
            strangers: Vec::new(),
            moments: Vec::new(),
            trace: Trace::default(),
            statistics: Statistics::default(),
        }))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These nodes belong to another cluster.
    pub(super) fn keeps_out(&self, strangers: Vec<String>) {
        self.inner().strangers = strangers;
    }

    /// A process starts.
    pub(super) fn starts(&self, node: NodeId, life: u64) {
        let mut inner = self.inner();
        let seen = inner.seen.entry(node).or_default();
        *seen = Seen {
            life,
            fresh: true,
            promised: seen.promised,
            ..Seen::default()
        };
    }

    /// A process is killed: it is nothing any more.
    pub(super) fn ends(&self, node: NodeId) {
        if let Some(seen) = self.inner().seen.get_mut(&node) {
            seen.life = 0;
            seen.role = None;
        }
    }

    /// A part of a node's log is damaged.
    pub(super) fn rots(&self, node: NodeId) {
        self.inner().seen.entry(node).or_default().promised.rotten = true;
    }

    /// Whether a process has come so far as to take part.
    pub(super) fn works(&self, node: NodeId) -> bool {
        let inner = self.inner();
        inner
            .seen
            .get(&node)
            .is_some_and(|seen| seen.life > 0 && !seen.fresh)
    }

    /// A node has lost its disk: its promises are void.
    pub(super) fn loses_disk(&self, node: NodeId) {
        if let Some(seen) = self.inner().seen.get_mut(&node) {
            seen.promised = Promised::default();
        }
    }

    /// The first property that was broken.
    pub(super) fn take_breach(&self) -> Option<Breach> {
        self.inner().breach.take()
    }

    /// What has come about since this was last asked.
    pub(super) fn take_moments(&self) -> Vec<(Moment, NodeId)> {
        std::mem::take(&mut self.inner().moments)
    }

    /// The latest term with a leader, and whose it was.
    pub(super) fn leader(&self) -> Option<(Term, NodeId)> {
        self.inner().leader.map(|(term, node, _)| (term, node))
    }

    /// The node that leads in the latest term with a leader, if it leads still, and the term.
    pub(super) fn leads(&self) -> Option<(Term, NodeId)> {
        let inner = self.inner();
        let (term, node, _) = inner.leader?;
        let role = inner.seen.get(&node)?.role;
        (role == Some(Role::Leader)).then_some((term, node))
    }

    /// How often each node was elected, by machine.
    pub(super) fn elected(&self) -> BTreeMap<NodeId, u64> {
        self.inner().elected.clone()
    }

    /// The state that every node has reached, when it is the same one and none is being repaired; witnesses have the log
    /// that led there.
    pub(super) fn agreed(&self, nodes: &[NodeId]) -> Option<(Index, u64)> {
        let inner = self.inner();
        let leader = inner.leader.map(|(_, _, leader)| leader);
        let follows = |seen: &&Seen| seen.leader == leader && !seen.repairing;
        let seen = nodes.iter().map(|node| inner.seen.get(node).filter(follows));
        let seen = seen.collect::<Option<Vec<&Seen>>>()?;
        let reached = seen.iter().find(|seen| !seen.witness)?.applied;
        let agrees = |seen: &&Seen| seen.last == reached.0 && (seen.witness || seen.applied == reached);
        seen.iter().all(agrees).then_some(reached)
    }

    /// Whether every node follows the leader of the latest term, is not being repaired, and has applied everything up to
    /// `index`, or as a witness knows of it.
    pub(super) fn have_reached(&self, nodes: &[NodeId], index: Index) -> bool {
        let inner = self.inner();
        let leader = inner.leader.map(|(_, _, leader)| leader);
        nodes.iter().all(|node| {
            let seen = inner.seen.get(node);
            seen.is_some_and(|seen| {
                let reached = if seen.witness { seen.last } else { seen.applied.0 };
                seen.leader == leader && !seen.repairing && reached >= index
            })
        })
    }

    /// The last entry that a state machine was handed.
    pub(super) fn committed(&self) -> Index {
        self.inner().committed.last()
    }

    /// A start was forced with a log of which everything up to `committed` is known to be committed: another lineage
    /// begins, whose terms, votes and later entries are its own.
    pub(super) fn lineage_ends(&self, committed: Index) {
        let mut inner = self.inner();
        inner.elections.begin_anew();
        inner.committed.ends_after(committed);
        inner.states.end_before(committed.next());
        inner.votes.clear();
        inner.leader = None;
        inner.statistics.forced_starts += 1;
    }

    /// The features that a node knows its cluster to use.
    pub(super) fn feature_level(&self, node: NodeId) -> FeatureLevel {
        self.inner()
            .seen
            .get(&node)
            .and_then(|seen| seen.level)
            .unwrap_or(FeatureLevel::FIRST)
    }

    /// Judges by which certificates members were known.
    pub(super) fn judge_links(&self) -> Verdict {
        self.inner().links.judge()
    }

    /// How often a node was elected in a term after all before, or as the first of a lineage.
    pub(super) fn reigns(&self) -> u64 {
        self.inner().reigns
    }

    /// What every node was last seen to be, in words.
    pub(super) fn describe(&self) -> String {
        let inner = self.inner();
        let words = inner.seen.iter().map(|(node, seen)| {
            format!(
                "node {node} (life {}): {:?}, leader {:?}, last {}, applied {}",
                seen.life, seen.role, seen.leader, seen.last, seen.applied.0
            )
        });
        words.collect::<Vec<_>>().join("; ")
    }

    /// What became of keys so far.
    pub(super) fn with_truth<T>(&self, look: impl FnOnce(&Truth) -> T) -> T {
        look(&self.inner().truth)
    }

    /// A hash over everything that was seen.
    pub(super) fn trace(&self) -> u64 {
        self.inner().trace.value()
    }

    /// Counts of what was seen.
    pub(super) fn statistics(&self) -> Statistics {
        let inner = self.inner();
        Statistics {
            commits: inner.committed.last().0,
            ..inner.statistics.clone()
        }
    }
}

/// The observer port of one life of a node.
pub(super) struct Watch {
    pub(super) node: NodeId,
    pub(super) life: u64,
    pub(super) sight: Arc<Sight>,
    pub(super) told: Arc<Told>,
    /// That of its machine.
    pub(super) clock: Arc<MachineClock>,
}

impl Observer for Watch {
    fn linked(&self, peer: NodeId, certificate: &[u8]) {
        self.sight.inner().links.linked(self.node, peer, certificate);
    }

    fn received(&self, from: NodeId, message: &Message) {
        let mut inner = self.sight.inner();
        if let Err(breach) = inner.links.carried(self.node, from) {
            inner.breach.get_or_insert(breach);
        }
        drop(inner);
        self.told
            .received(self.clock.simulated(), self.node, from, message);
    }

    fn stepped(&self, raft: &Raft, effects: &Effects) {
        let mut inner = self.sight.inner();
        // A process that was killed says nothing any more.
        if inner.seen.get(&self.node).map(|seen| seen.life) != Some(self.life) {
            return;
        }
        self.told
            .stepped(self.clock.simulated(), self.node, &raft.status(), effects);
        let run = Run {
            node: self.node,
            life: u32::try_from(self.life).unwrap_or(u32::MAX),
        };
        if let Err(breach) = inner.stepped(run, &raft.status(), effects) {
            inner.breach.get_or_insert(breach);
        }
    }

    fn applied(&self, state: &StateMachine) {
        let mut inner = self.sight.inner();
        let (node, reached) = (self.node, (state.applied().index, state.fingerprint()));
        inner.trace.note(node.0 << 56 ^ reached.0.0);
        inner.trace.note(reached.1);
        if let Some(seen) = inner.seen.get_mut(&node).filter(|seen| seen.life == self.life) {
            seen.applied = reached;
        }
        if let Err(breach) = inner.states.reached(node, state) {
            inner.breach.get_or_insert(breach);
        }
        inner.truth.learn(state);
    }
}
