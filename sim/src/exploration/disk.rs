//! The log of a node on its disk: what is durable, and the writes that are under way.
//!
//! A crash keeps any number of the writes under way, from the oldest on; one write is never torn.

use std::collections::VecDeque;

use quorate_core::raft::{Base, Boot, Entry, HardState, Index, Membership, NodeId, Payload, Position, Write};

/// A log as a node finds it when it starts.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) hard_state: HardState,
    base: Base,
    pub(super) entries: Vec<Entry>,
}

/// A disk.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    pub(super) durable: Stored,
    pub(super) under_way: VecDeque<Write>,
}

impl Disk {
    pub(super) fn new(membership: Membership) -> Disk {
        Disk {
            durable: Stored {
                hard_state: HardState::default(),
                base: Base {
                    position: Position::default(),
                    membership,
                },
                entries: Vec::new(),
            },
            under_way: VecDeque::new(),
        }
    }

    /// The oldest write under way becomes durable.
    pub(super) fn sync(&mut self) -> Option<Write> {
        let write = self.under_way.pop_front()?;
        self.durable.write(&write);
        Some(write)
    }

    /// The node stops; `kept` of the writes under way are there afterwards.
    pub(super) fn crash(&mut self, kept: usize) {
        for _ in 0..kept {
            self.sync();
        }
        self.under_way.clear();
    }
}

impl Stored {
    fn write(&mut self, write: &Write) {
        if let Some(hard_state) = write.hard_state {
            self.hard_state = hard_state;
        }
        assert!(write.reset.is_none(), "no snapshot is within the bounds");
        if let Some(first) = write.entries.first() {
            let kept = usize::try_from(first.position.index.0 - 1).expect("logs are short");
            assert!(kept <= self.entries.len(), "a write leaves no gap in the log");
            self.entries.truncate(kept);
            self.entries.extend(write.entries.iter().cloned());
        }
    }

    /// Where the log ends.
    pub(super) fn last(&self) -> Position {
        self.entries
            .last()
            .map_or(self.base.position, |entry| entry.position)
    }

    /// The position of the entry at `index`, if it is there.
    pub(super) fn position(&self, index: Index) -> Option<Position> {
        let place = usize::try_from(index.0.checked_sub(1)?).ok()?;
        self.entries.get(place).map(|entry| entry.position)
    }

    /// What a node starts with whose state machine begins anew.
    pub(super) fn boot(&self, id: NodeId) -> Boot {
        let mut boot = Boot::blank(id, self.base.membership.clone());
        boot.hard_state = self.hard_state;
        for entry in &self.entries {
            if boot
                .terms
                .last()
                .is_none_or(|start| start.term != entry.position.term)
            {
                boot.terms.push(entry.position);
            }
            if let Payload::Membership(membership) = &entry.payload {
                boot.memberships.push((entry.position, (**membership).clone()));
            }
            boot.last = entry.position.index;
        }
        boot.tail.clone_from(&self.entries);
        boot
    }
}
