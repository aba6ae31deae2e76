//! What a node keeps over a crash: its log, its state store and the snapshot files that it received.

use std::collections::BTreeMap;

use quorate_core::raft::{Base, Boot, Entry, HardState, Index, Membership, NodeId, Payload, Position, Write};

/// The replicated state of the scripts: a map that commands of the form `key=value` write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct State {
    pub(super) position: Position,
    pub(super) membership: Membership,
    pub(super) values: BTreeMap<String, String>,
}

impl State {
    pub(super) fn empty(membership: Membership) -> State {
        State {
            position: Position::default(),
            membership,
            values: BTreeMap::new(),
        }
    }

    pub(super) fn apply(&mut self, entry: &Entry) {
        assert_eq!(
            self.position.index.next(),
            entry.position.index,
            "entries are applied in order"
        );
        self.position = entry.position;
        match &entry.payload {
            Payload::Empty => {}
            Payload::Omitted => panic!("a state needs its commands"),
            Payload::Command(command) => {
                let text = String::from_utf8_lossy(command).into_owned();
                let (key, value) = text.split_once('=').unwrap_or((text.as_str(), ""));
                self.values.insert(key.to_owned(), value.to_owned());
            }
            Payload::Membership(membership) => self.membership = (**membership).clone(),
        }
    }

    pub(super) fn base(&self) -> Base {
        Base {
            position: self.position,
            membership: self.membership.clone(),
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Disk {
    pub(super) hard_state: HardState,
    pub(super) base: Base,
    pub(super) entries: Vec<Entry>,
    /// Where the log ended before damage took its end.
    pub(super) damaged: Option<Position>,
    /// What the state store holds durably.
    pub(super) state: State,
    /// Snapshots that arrived whole.
    pub(super) files: Vec<State>,
    /// Whether it is a witness's, which holds no state.
    pub(super) witness: bool,
}

impl Disk {
    pub(super) fn blank(membership: Membership, witness: bool) -> Disk {
        Disk {
            hard_state: HardState::default(),
            base: Base {
                position: Position::default(),
                membership: membership.clone(),
            },
            entries: Vec::new(),
            damaged: None,
            state: State::empty(membership),
            files: Vec::new(),
            witness,
        }
    }

    pub(super) fn last(&self) -> Position {
        self.entries
            .last()
            .map_or(self.base.position, |entry| entry.position)
    }

    /// Makes a write durable.
    pub(super) fn write(&mut self, write: &Write) {
        if let Some(hard_state) = write.hard_state {
            self.hard_state = hard_state;
        }
        if let Some(base) = &write.reset {
            self.base = (**base).clone();
            self.entries.clear();
        }
        let command = |entry: &Entry| matches!(entry.payload, Payload::Command(_));
        let omitted = |entry: &Entry| matches!(entry.payload, Payload::Omitted);
        assert!(
            !write
                .entries
                .iter()
                .any(if self.witness { command } else { omitted }),
            "a witness's log has no commands, and any other's has them"
        );
        if let Some(first) = write.entries.first() {
            assert!(
                first.position.index <= self.last().index.next(),
                "a write leaves no gap in the log"
            );
            self.entries
                .retain(|entry| entry.position.index < first.position.index);
            self.entries.extend(write.entries.iter().cloned());
        }
    }

    pub(super) fn entry(&self, index: Index) -> Option<&Entry> {
        let offset = index.0.checked_sub(self.base.position.index.0 + 1)?;
        self.entries.get(usize::try_from(offset).unwrap())
    }

    /// Whether the disk holds the entry at `position`, in its log or behind the log's beginning; or held it, and the
    /// node will not vote without it.
    pub(super) fn holds(&self, position: Position) -> bool {
        self.damaged.is_some_and(|until| until >= position)
            || position.index <= self.base.position.index
            || self
                .entry(position.index)
                .is_some_and(|entry| entry.position == position)
    }

    pub(super) fn purge(&mut self, base: &Base) {
        self.entries
            .retain(|entry| entry.position.index > base.position.index);
        self.base = base.clone();
    }

    /// Makes the state up to `index` durable, from the log.
    pub(super) fn store_state(&mut self, index: Index) {
        while self.state.position.index < index {
            let next = self.state.position.index.next();
            let entry = self.entry(next).expect("what is applied is in the log").clone();
            self.state.apply(&entry);
        }
    }

    /// Replaces the state by that of the received snapshot at `base`.
    pub(super) fn load(&mut self, base: &Base) {
        let file = self.files.iter().find(|file| file.position == base.position);
        self.state = file.expect("the snapshot arrived before").clone();
    }

    /// The log is not readable from `from` on. Its term and vote are found, and, when it is `sure`, where it ended;
    /// else the node enters a term in which it can have promised nothing.
    pub(super) fn damage(&mut self, from: Index, sure: bool) {
        let last = self.last();
        self.entries.retain(|entry| entry.position.index < from);
        if self.state.position.index > self.last().index {
            self.base = self.state.base();
            self.entries.clear();
        }
        let mut until = last;
        if !sure {
            let term = self.hard_state.term.next();
            self.hard_state = HardState { term, vote: None };
            until = Position {
                term,
                index: Index(0),
            };
        }
        self.damaged = self.damaged.max(Some(until));
    }

    /// What the node finds when it starts. Its last `tail` entries are in memory.
    pub(super) fn boot(&mut self, id: NodeId, tail: usize) -> Boot {
        if !self.witness && self.state.position.index < self.base.position.index {
            let base = self.base.clone();
            self.load(&base);
        }
        let mut terms: Vec<Position> = Vec::new();
        let mut memberships = Vec::new();
        for entry in &self.entries {
            if terms.last().is_none_or(|run| run.term < entry.position.term) {
                terms.push(entry.position);
            }
            if let Payload::Membership(membership) = &entry.payload {
                memberships.push((entry.position, (**membership).clone()));
            }
        }
        Boot {
            id,
            hard_state: self.hard_state,
            base: self.base.clone(),
            terms,
            memberships,
            last: self.last().index,
            tail: self.entries[self.entries.len().saturating_sub(tail)..].to_vec(),
            applied: self.state.position.index.max(self.base.position.index),
            repair: self.damaged.filter(|until| self.last() < *until),
        }
    }
}
