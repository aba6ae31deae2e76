//! A group of [`Raft`] in one thread, with a network and disks that take no time.
//!
//! What it costs to run is the work of consensus alone: with real networks and disks this is the processor time that
//! consensus adds. Messages are moved, never encoded.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use quorate_core::Instant;
use quorate_core::raft::{
    Apply, Boot, Config, DirectoryId, Effects, Entries, Index, Input, Lineage, Member, Membership, Message,
    NodeId, Payload, Raft, Role, SnapshotEvent, SnapshotOp, Token,
};

/// Entries between two purges of the log, and entries that a purge leaves.
pub const PURGE_EVERY: u64 = 4_096;

/// One member: consensus, and what a driver keeps for it.
struct Node {
    raft: Raft,
    inbox: Vec<(NodeId, Message)>,
    /// What its disk holds.
    log: VecDeque<Entries>,
    applied: Index,
    purged: Index,
    /// Commands applied, and what they came to.
    commands: u64,
    sum: u64,
}

/// A group whose first member leads.
pub struct Group {
    nodes: Vec<Node>,
    effects: Effects,
    now: Instant,
    next_token: u64,
}

impl Group {
    /// A group of `size` voters.
    pub fn new(size: u64) -> Group {
        let member = |id: u64| Member::named(id.to_string(), DirectoryId(u128::from(id)));
        let members: BTreeMap<NodeId, Member> = (1..=size).map(|id| (NodeId(id), member(id))).collect();
        let membership = Membership::bootstrap(Lineage(1), members);
        let config = Config {
            retained_entries: PURGE_EVERY,
            purge_step: PURGE_EVERY,
            ..Config::default()
        };
        let now = Instant::from_nanoseconds(1);
        let start = |id: u64| {
            let boot = Boot::blank(NodeId(id), membership.clone());
            Raft::new(config.clone(), boot, [id as u8; 32], now).unwrap()
        };
        let mut group = Group {
            nodes: (1..=size).map(|id| Node::new(start(id))).collect(),
            effects: Effects::default(),
            now: now + Duration::from_secs(1),
            next_token: 0,
        };
        group.nodes[0].raft.step(group.now, Input::Timeout);
        group.act(0);
        group.settle();
        assert_eq!(group.nodes[0].raft.status().role, Role::Leader);
        group
    }

    /// How many members there are.
    pub fn size(&self) -> usize {
        self.nodes.len()
    }

    /// The leader takes in a batch of commands, and does what it has to do about it.
    pub fn propose(&mut self, command: &Bytes, batch: u64) {
        for _ in 0..batch {
            self.next_token += 1;
            let token = Token(self.next_token);
            let command = command.clone();
            let input = Input::Propose { token, command };
            self.nodes[0].raft.step(self.now, input);
        }
        self.act(0);
    }

    /// A member takes in all that came, and does what it has to do about it. Whether anything came.
    pub fn turn(&mut self, member: usize) -> bool {
        let node = &mut self.nodes[member];
        if node.inbox.is_empty() {
            return false;
        }
        let mut inbox = std::mem::take(&mut node.inbox);
        for (from, message) in inbox.drain(..) {
            node.raft.step(self.now, Input::Receive { from, message });
        }
        node.inbox = inbox;
        self.act(member);
        true
    }

    /// Commands that a member has applied.
    pub fn commands(&self, member: usize) -> u64 {
        self.nodes[member].commands
    }

    /// What the applied commands of a member come to.
    pub fn sum(&self, member: usize) -> u64 {
        self.nodes[member].sum
    }

    /// A moment passes: followers hear of what no append told them of.
    pub fn pass_time(&mut self) {
        self.now = self.now + Duration::from_millis(3);
        self.nodes[0].raft.step(self.now, Input::Timeout);
        self.act(0);
    }

    /// Runs until nothing is under way.
    pub fn settle(&mut self) {
        while (0..self.size()).any(|member| self.turn(member)) {}
    }

    /// Carries out what a member wants, until it wants nothing.
    fn act(&mut self, member: usize) {
        while self.drain(member) {}
    }

    /// Carries out what a member wants. Whether a write became durable, which it may have waited for.
    fn drain(&mut self, member: usize) -> bool {
        let effects = &mut self.effects;
        self.nodes[member].raft.drain(effects);
        let from = NodeId(member as u64 + 1);
        for (to, message) in effects.send.drain(..) {
            let to = usize::try_from(to.0).unwrap() - 1;
            self.nodes[to].inbox.push((from, message));
        }
        let node = &mut self.nodes[member];
        let mut written = None;
        for write in effects.write.drain(..) {
            node.log.push_back(write.entries);
            written = Some(write.id);
        }
        for apply in effects.apply.drain(..) {
            let Apply::Committed(committed) = apply else {
                unreachable!("nobody needs a snapshot")
            };
            node.apply(&committed.entries);
        }
        for operation in effects.snapshot.drain(..) {
            let SnapshotOp::Purge(base) = operation else {
                unreachable!("nobody needs a snapshot")
            };
            node.purge(base.position.index);
        }
        assert!(effects.fetch.is_empty(), "nobody lags");
        effects.outcome.clear();
        effects.trace.clear();
        if let Some(write) = written {
            let result = Ok(());
            node.raft.step(self.now, Input::Persisted { write, result });
        }
        node.report_applied(self.now);
        written.is_some()
    }
}

impl Node {
    fn new(raft: Raft) -> Node {
        Node {
            raft,
            inbox: Vec::new(),
            log: VecDeque::new(),
            applied: Index(0),
            purged: Index(0),
            commands: 0,
            sum: 0,
        }
    }

    fn apply(&mut self, entries: &Entries) {
        for entry in entries {
            self.applied = entry.position.index;
            if let Payload::Command(command) = &entry.payload {
                self.commands += 1;
                self.sum = add(self.sum, command);
            }
        }
    }

    fn report_applied(&mut self, now: Instant) {
        let index = self.applied;
        if index > self.raft.progress().applied {
            self.raft.step(now, Input::Applied { index });
        }
        if index.0 >= self.purged.0 + 2 * PURGE_EVERY {
            self.raft
                .step(now, Input::Snapshot(SnapshotEvent::StateDurable { index }));
        }
    }

    fn purge(&mut self, index: Index) {
        let is_purged =
            |entries: &mut Entries| entries.last().is_none_or(|last| last.position.index <= index);
        while self.log.pop_front_if(is_purged).is_some() {}
        self.purged = index;
    }
}

/// The state machine of the benchmarks: adds the first byte and the length of a command.
pub fn add(sum: u64, command: &[u8]) -> u64 {
    sum + u64::from(command[0]) + command.len() as u64
}
