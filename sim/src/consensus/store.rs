//! The state store of a node: rows on disk, written behind what was applied.
//!
//! A batch of rows and the position that they reach become durable together. Received snapshots are files beside the
//! rows; they are durable when their arrival is reported, and take the place of the rows when the log begins after
//! what the rows hold.

use std::collections::{BTreeMap, VecDeque};

use quorate_core::raft::{Base, Index, Position};
use quorate_core::state::{RestoreError, Row, StateMachine};

/// Rows of a whole state.
pub(super) type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// A copy of a state, on its way to another node or arrived there.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    pub(super) base: Base,
    pub(super) rows: Rows,
}

#[derive(Debug)]
enum Batch {
    Applied { position: Position, rows: Vec<Row> },
    Installed { position: Position, rows: Rows },
}

/// The state store.
#[derive(Debug, Default)]
pub(super) struct Store {
    rows: Rows,
    /// Up to where the durable rows reach.
    pub(super) applied: Position,
    behind: VecDeque<Batch>,
    snapshots: BTreeMap<Index, Snapshot>,
}

/// Snapshot files that are kept; only the newest can be wanted.
const SNAPSHOTS_MAX: usize = 4;

impl Store {
    /// Notes what an applied entry changed, to be written behind.
    pub(super) fn applied(&mut self, position: Position, rows: Vec<Row>) {
        self.behind.push_back(Batch::Applied { position, rows });
    }

    /// Notes that the state was replaced, to be written behind.
    pub(super) fn installed(&mut self, position: Position, rows: Rows) {
        self.behind.push_back(Batch::Installed { position, rows });
    }

    /// Whether anything waits to be written.
    pub(super) fn is_behind(&self) -> bool {
        !self.behind.is_empty()
    }

    /// Makes the first `count` batches durable, all or nothing.
    pub(super) fn flush(&mut self, count: usize) {
        let count = count.min(self.behind.len());
        for batch in self.behind.drain(..count) {
            match batch {
                Batch::Applied { position, rows } => {
                    merge(&mut self.rows, rows);
                    self.applied = position;
                }
                Batch::Installed { position, rows } => {
                    self.rows = rows;
                    self.applied = position;
                }
            }
        }
        self.snapshots = self.snapshots.split_off(&self.applied.index.next());
    }

    /// How many batches wait to be written.
    pub(super) fn batches_behind(&self) -> usize {
        self.behind.len()
    }

    /// A snapshot arrived whole and is durable.
    pub(super) fn receive(&mut self, snapshot: Snapshot) {
        self.snapshots.insert(snapshot.base.position.index, snapshot);
        while self.snapshots.len() > SNAPSHOTS_MAX {
            self.snapshots.pop_first();
        }
    }

    /// The received snapshot that ends at `position`.
    pub(super) fn snapshot(&self, position: Position) -> Option<&Snapshot> {
        self.snapshots
            .get(&position.index)
            .filter(|snapshot| snapshot.base.position == position)
    }

    /// The node stopped: what was not written is lost. When the log begins at `log_base`, beyond the rows, the
    /// snapshot that it begins after takes their place. False when that snapshot is missing.
    pub(super) fn recover(&mut self, log_base: Position) -> bool {
        self.behind.clear();
        if log_base.index <= self.applied.index {
            return true;
        }
        let Some(snapshot) = self.snapshot(log_base) else {
            return false;
        };
        self.rows = snapshot.rows.clone();
        self.applied = log_base;
        true
    }

    /// The state machine that the durable rows make.
    pub(super) fn load(&self) -> Result<StateMachine, RestoreError> {
        restore(&self.rows, self.applied)
    }
}

/// The state machine that `rows` make.
pub(super) fn restore(rows: &Rows, applied: Position) -> Result<StateMachine, RestoreError> {
    StateMachine::restore(
        rows.iter().map(|(key, value)| (key.clone(), value.clone())),
        applied,
    )
}

/// All rows of a state machine.
pub(super) fn rows_of(machine: &StateMachine) -> Rows {
    let mut rows = Rows::new();
    merge(&mut rows, machine.rows());
    rows
}

fn merge(rows: &mut Rows, changed: impl IntoIterator<Item = Row>) {
    for row in changed {
        match row.value {
            Some(value) => rows.insert(row.key, value),
            None => rows.remove(&row.key),
        };
    }
}
