//! The peer: `raft` 0.7 (raft-rs), driven as its documentation says: `ready`, send, apply, append, `advance`.
//!
//! Where its users have a choice, this takes what is fastest here: a batch is one message with all its entries, payloads
//! are `Bytes`, entries are moved and not cloned into the storage, no size is limited, followers learn of a commit with
//! the next append, and nothing is logged.

use std::cell::{Ref, RefCell, RefMut};
use std::collections::VecDeque;
use std::rc::Rc;

use bytes::Bytes;
use quorate_benches::group::{PURGE_EVERY, add};
use raft::eraftpb::{ConfState, Entry, HardState, Message, MessageType, Snapshot};
use raft::{
    Config, GetEntriesContext, INVALID_ID, RaftState, RawNode, Result, StateRole, Storage, StorageError,
};

/// What the disk of a node holds. `MemStorage`, which the crate has for this, takes a lock for every question and a
/// clone of every entry.
#[derive(Clone)]
struct Disk(Rc<RefCell<Held>>);

struct Held {
    conf_state: ConfState,
    hard_state: HardState,
    entries: VecDeque<Entry>,
    /// The entry before the first.
    base: u64,
    base_term: u64,
}

impl Disk {
    fn new(conf_state: ConfState) -> Disk {
        Disk(Rc::new(RefCell::new(Held {
            conf_state,
            hard_state: HardState::default(),
            entries: VecDeque::new(),
            base: 0,
            base_term: 0,
        })))
    }

    fn get(&self) -> Ref<'_, Held> {
        self.0.borrow()
    }

    fn get_mut(&self) -> RefMut<'_, Held> {
        self.0.borrow_mut()
    }
}

impl Held {
    /// The place of the entry at `index`.
    fn place(&self, index: u64) -> usize {
        usize::try_from(index - self.base - 1).unwrap()
    }

    fn purge(&mut self, index: u64) {
        let end = self.place(index) + 1;
        self.base_term = self.entries[end - 1].term;
        self.entries.drain(..end);
        self.base = index;
    }
}

impl Storage for Disk {
    fn initial_state(&self) -> Result<RaftState> {
        let held = self.get();
        Ok(RaftState {
            hard_state: held.hard_state.clone(),
            conf_state: held.conf_state.clone(),
        })
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> Result<Vec<Entry>> {
        let held = self.get();
        if low <= held.base {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        let range = held.place(low)..held.place(high);
        let mut entries: Vec<Entry> = held.entries.range(range).cloned().collect();
        raft::util::limit_size(&mut entries, max_size.into());
        Ok(entries)
    }

    fn term(&self, index: u64) -> Result<u64> {
        let held = self.get();
        if index == held.base {
            return Ok(held.base_term);
        }
        if index < held.base {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        match held.entries.get(held.place(index)) {
            Some(entry) => Ok(entry.term),
            None => Err(raft::Error::Store(StorageError::Unavailable)),
        }
    }

    fn first_index(&self) -> Result<u64> {
        Ok(self.get().base + 1)
    }

    fn last_index(&self) -> Result<u64> {
        let held = self.get();
        Ok(held.base + held.entries.len() as u64)
    }

    fn snapshot(&self, _: u64, _: u64) -> Result<Snapshot> {
        Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable))
    }
}

struct Node {
    raw: RawNode<Disk>,
    disk: Disk,
    inbox: Vec<Message>,
    applied: u64,
    commands: u64,
    sum: u64,
}

/// A group of raft-rs whose first member leads.
pub(crate) struct Peer {
    nodes: Vec<Node>,
}

impl Peer {
    pub(crate) fn new(size: u64) -> Peer {
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let start = |id: u64| {
            let config = Config {
                id,
                check_quorum: true,
                pre_vote: true,
                skip_bcast_commit: true,
                max_size_per_msg: raft::NO_LIMIT,
                ..Config::new(id)
            };
            let disk = Disk::new(ConfState::from(((1..=size).collect::<Vec<_>>(), vec![])));
            let raw = RawNode::new(&config, disk.clone(), &logger).unwrap();
            Node {
                raw,
                disk,
                inbox: Vec::new(),
                applied: 0,
                commands: 0,
                sum: 0,
            }
        };
        let mut peer = Peer {
            nodes: (1..=size).map(start).collect(),
        };
        peer.nodes[0].raw.campaign().unwrap();
        peer.act(0);
        while (0..peer.size()).any(|member| peer.turn(member)) {}
        assert_eq!(peer.nodes[0].raw.raft.state, StateRole::Leader);
        peer
    }

    pub(crate) fn size(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn propose(&mut self, command: &Bytes, batch: u64) {
        let entry = || Entry {
            data: command.clone(),
            ..Entry::default()
        };
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgPropose);
        message.from = self.nodes[0].raw.raft.id;
        message.entries = (0..batch).map(|_| entry()).collect::<Vec<_>>().into();
        self.nodes[0].raw.step(message).unwrap();
        self.act(0);
    }

    pub(crate) fn turn(&mut self, member: usize) -> bool {
        let node = &mut self.nodes[member];
        if node.inbox.is_empty() {
            return false;
        }
        let mut inbox = std::mem::take(&mut node.inbox);
        for message in inbox.drain(..) {
            node.raw.step(message).unwrap();
        }
        node.inbox = inbox;
        self.act(member);
        true
    }

    pub(crate) fn commands(&self, member: usize) -> u64 {
        self.nodes[member].commands
    }

    pub(crate) fn sum(&self, member: usize) -> u64 {
        self.nodes[member].sum
    }

    /// A moment passes: followers hear of what no append told them of.
    pub(crate) fn pass_time(&mut self) {
        self.nodes[0].raw.ping();
        self.act(0);
    }

    fn act(&mut self, member: usize) {
        while self.nodes[member].raw.has_ready() {
            self.handle_ready(member);
        }
    }

    fn handle_ready(&mut self, member: usize) {
        let node = &mut self.nodes[member];
        let mut ready = node.raw.ready();
        let messages = ready.take_messages();
        let committed = ready.take_committed_entries();
        let persisted = ready.take_persisted_messages();
        node.apply(committed);
        {
            let mut held = node.disk.get_mut();
            // The leader never changes here: nothing in the log is ever replaced.
            held.entries.extend(ready.take_entries());
            if let Some(hard_state) = ready.hs() {
                held.hard_state = hard_state.clone();
            }
        }
        let mut light = node.raw.advance(ready);
        if let Some(commit) = light.commit_index() {
            node.disk.get_mut().hard_state.commit = commit;
        }
        node.apply(light.take_committed_entries());
        node.raw.advance_apply();
        node.purge();
        for message in messages.into_iter().chain(persisted).chain(light.take_messages()) {
            assert_ne!(message.to, INVALID_ID);
            let to = usize::try_from(message.to - 1).unwrap();
            self.nodes[to].inbox.push(message);
        }
    }
}

impl Node {
    fn apply(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            self.applied = entry.index;
            if !entry.data.is_empty() {
                self.commands += 1;
                self.sum = add(self.sum, &entry.data);
            }
        }
    }

    fn purge(&mut self) {
        let mut held = self.disk.get_mut();
        if self.applied >= held.base + 2 * PURGE_EVERY {
            let index = self.applied - PURGE_EVERY;
            held.purge(index);
        }
    }
}
