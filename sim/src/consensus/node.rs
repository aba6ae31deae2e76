//! A simulated machine: a disk, a state store, a clock, and at times a process that runs on them.

use std::collections::VecDeque;
use std::fmt;

use quorate_core::raft::{Apply, DirectoryId, FeatureLevel, Index, Member, Membership, NodeId, Raft};
use quorate_core::state::StateMachine;

use super::checker::contact::Contact;
use super::checker::membership::Voters;
use super::checker::progress::Progress;
use super::clock::Clock;
use super::data::DataDuties;
use super::disk::Disk;
use super::log::DiskLog;
use super::plan::Boundary;
use super::schedule::Time;
use super::sightings::Seen;
use super::store::Store;
use super::transfer::Transfers;
use super::world::Event;

/// One life of a node: what was set in motion in one does not reach the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Run {
    pub(crate) node: NodeId,
    pub(crate) life: u32,
}

impl fmt::Display for Run {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "node {} (life {})", self.node, self.life)
    }
}

/// A machine.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) id: NodeId,
    /// What its member record says of its disk.
    pub(super) directory: DirectoryId,
    pub(super) disk: Disk,
    pub(super) store: Store,
    pub(super) clock: Clock,
    pub(super) life: u32,
    pub(super) process: Option<Process>,
    /// It never starts again: its disk was wiped, or it was let go and switched off.
    pub(super) gone: bool,
    /// Until then nothing moves on it.
    pub(super) paused_until: Time,
    /// What came while nothing moved, in order.
    pub(super) waiting: Vec<Event>,
    /// Until then its syncs take many times as long,
    pub(super) slow_until: Time,
    /// by so much on average.
    pub(super) slow_by: Time,
    /// Until then no sync ends.
    pub(super) stalled_until: Time,
    /// The next sync fails.
    pub(super) disk_fails: bool,
    /// Where its process is killed, and for how long.
    pub(super) crash_at: Option<(Boundary, Time)>,
    /// It is a witness: its log has no commands, and it holds no state.
    pub(super) witness: bool,
    /// What its binary supports.
    pub(super) features: FeatureLevel,
    /// The most that any of its binaries supported.
    pub(super) features_max: FeatureLevel,
}

/// What a running node keeps in memory.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) raft: Raft,
    pub(super) machine: StateMachine,
    /// The membership in force at what the state machine has applied.
    pub(super) membership: Membership,
    pub(super) to_apply: VecDeque<Apply>,
    /// Indexes that reads wait for.
    pub(super) reads: Vec<Index>,
    pub(super) data: DataDuties,
    pub(super) transfers: Transfers,
    pub(super) progress: Progress,
    pub(super) voters: Voters,
    pub(super) contact: Contact,
    pub(super) seen: Seen,
    /// The next wake-up that is scheduled.
    pub(super) timer: Option<Time>,
    pub(super) drain_scheduled: bool,
    pub(super) apply_scheduled: bool,
    pub(super) flush_scheduled: bool,
}

/// The parts of a node whose process runs.
pub(super) struct Live<'a> {
    pub(super) process: &'a mut Process,
    pub(super) disk: &'a mut Disk,
    pub(super) store: &'a mut Store,
    pub(super) clock: Clock,
    pub(super) slow_until: Time,
    pub(super) slow_by: Time,
    pub(super) stalled_until: Time,
    pub(super) disk_fails: &'a mut bool,
    pub(super) crash_at: &'a mut Option<(Boundary, Time)>,
    pub(super) witness: bool,
}

impl Node {
    pub(super) fn new(id: NodeId, membership: Membership, clock: Clock, member: &Member) -> Node {
        let features = member.features;
        Node {
            id,
            directory: member.directory,
            disk: Disk::new(DiskLog::new(membership)),
            store: Store::default(),
            clock,
            life: 0,
            process: None,
            gone: false,
            paused_until: 0,
            waiting: Vec::new(),
            slow_until: 0,
            slow_by: 0,
            stalled_until: 0,
            disk_fails: false,
            crash_at: None,
            witness: member.witness,
            features,
            features_max: features,
        }
    }

    /// Whether some of what it held is lost, for good or until its peers have repaired its log.
    pub(super) fn is_lost(&self) -> bool {
        self.gone || self.is_repairing()
    }

    /// Whether damage took the end of its log, which its peers have not repaired yet.
    pub(super) fn is_repairing(&self) -> bool {
        self.disk.durable.repairing().is_some()
    }

    /// From its next start on it runs another binary.
    pub(super) fn runs_binary(&mut self, features: FeatureLevel) {
        self.features = features;
        self.features_max = self.features_max.max(features);
    }

    /// The life that the node is in.
    pub(super) fn run(&self) -> Run {
        Run {
            node: self.id,
            life: self.life,
        }
    }
}

/// All machines that ever were, by id.
#[derive(Debug, Default)]
pub(super) struct Nodes(Vec<Option<Node>>);

impl Nodes {
    pub(super) fn insert(&mut self, node: Node) {
        let place = place(node.id);
        if self.0.len() <= place {
            self.0.resize_with(place + 1, || None);
        }
        self.0[place] = Some(node);
    }

    pub(super) fn get(&self, id: NodeId) -> Option<&Node> {
        self.0.get(place(id))?.as_ref()
    }

    pub(super) fn get_mut(&mut self, id: NodeId) -> Option<&mut Node> {
        self.0.get_mut(place(id))?.as_mut()
    }

    /// The parts of a node, if it is in this life and its process runs.
    pub(super) fn live(&mut self, run: Run) -> Option<Live<'_>> {
        let node = self.get_mut(run.node).filter(|node| node.life == run.life)?;
        Some(Live {
            process: node.process.as_mut()?,
            disk: &mut node.disk,
            store: &mut node.store,
            clock: node.clock,
            slow_until: node.slow_until,
            slow_by: node.slow_by,
            stalled_until: node.stalled_until,
            disk_fails: &mut node.disk_fails,
            crash_at: &mut node.crash_at,
            witness: node.witness,
        })
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Node> {
        self.0.iter().flatten()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Node> {
        self.0.iter_mut().flatten()
    }

    /// Nodes whose process runs and moves at `now`.
    pub(super) fn moving(&self, now: Time) -> impl Iterator<Item = (&Node, &Process)> {
        self.processes().filter(move |(node, _)| node.paused_until <= now)
    }

    /// Nodes whose process runs.
    pub(super) fn processes(&self) -> impl Iterator<Item = (&Node, &Process)> {
        self.iter()
            .filter_map(|node| node.process.as_ref().map(|process| (node, process)))
    }
}

fn place(id: NodeId) -> usize {
    usize::try_from(id.0).expect("a run has few nodes")
}
