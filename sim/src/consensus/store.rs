//! The state store of a node: rows on disk, written behind what was applied.
//!
//! A batch of rows and the position that they reach become durable together. Received snapshots are files beside the
//! rows; they are durable when their arrival is reported, and take the place of the rows when the log begins after
//! what the rows hold.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use quorate_core::raft::{Base, Index, Lineage, Position};
use quorate_core::state::{RestoreError, Row, RowChange, StateMachine};

/// Rows of a whole state.
pub(super) type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// A copy of a state, on its way to another node or arrived there.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) base: Base,
    pub(super) rows: Rows,
    /// Rows of a piece.
    piece_rows: usize,
}

impl Snapshot {
    /// A copy that is sent in so many pieces at the most.
    pub(super) fn new(base: Base, rows: Rows, pieces_max: u64) -> Snapshot {
        let piece_rows = (rows.len() as u64).div_ceil(pieces_max).max(1);
        Snapshot {
            base,
            rows,
            piece_rows: usize::try_from(piece_rows).unwrap_or(usize::MAX),
        }
    }

    /// How many pieces there are, at least one.
    pub(super) fn pieces(&self) -> u64 {
        (self.rows.len().div_ceil(self.piece_rows) as u64).max(1)
    }

    fn piece(&self, number: u64) -> Vec<(Vec<u8>, Vec<u8>)> {
        let first = usize::try_from(number)
            .unwrap_or(usize::MAX)
            .saturating_mul(self.piece_rows);
        let rows = self.rows.iter().skip(first).take(self.piece_rows);
        rows.map(|(key, value)| (key.clone(), value.clone())).collect()
    }
}

/// A snapshot of which some pieces came. The last of them may not be durable yet.
#[derive(Debug)]
struct Part {
    position: Position,
    /// Another copy of the same state may be cut another way, and is another snapshot.
    piece_rows: usize,
    pieces: Vec<Vec<(Vec<u8>, Vec<u8>)>>,
}

impl Part {
    fn is_of(&self, snapshot: &Snapshot) -> bool {
        (self.position, self.piece_rows) == (snapshot.base.position, snapshot.piece_rows)
    }
}

/// How a transfer begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begun {
    /// With nothing.
    Anew,
    /// The part of another snapshot, which its sender does not have any more, makes room.
    InsteadOfAnother,
    /// Pieces before this one are there.
    Resumed(u64),
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
    /// What came and goes beyond the durable rows: the log may begin after any of them.
    snapshots: BTreeMap<Index, Arc<Snapshot>>,
    /// What was made to be sent, the newest first.
    kept: Vec<Arc<Snapshot>>,
    part: Option<Part>,
}

/// Snapshots that are kept to be sent; the one before the newest may still be on its way.
const KEPT: usize = 2;

impl Store {
    /// Notes what an applied entry changed, to be written behind.
    pub(super) fn applied(&mut self, position: Position, rows: Vec<Row>) {
        self.behind.push_back(Batch::Applied { position, rows });
    }

    /// Notes that the state was replaced, to be written behind.
    pub(super) fn installed(&mut self, position: Position, rows: Rows) {
        self.behind.push_back(Batch::Installed { position, rows });
    }

    /// All rows of the state that `machine` has come to: its own, and the records of streams, of which only the store
    /// knows.
    pub(super) fn rows_of(&self, machine: &StateMachine) -> Rows {
        let mut rows = self.records();
        merge(&mut rows, machine.rows());
        rows
    }

    /// The records of streams, written or not.
    pub(super) fn records(&self) -> Rows {
        let of_records = |rows: &Rows| -> Rows {
            let found = rows.range(Row::RECORDS_FROM.to_vec()..);
            found.map(|(key, value)| (key.clone(), value.clone())).collect()
        };
        let mut records = of_records(&self.rows);
        for batch in &self.behind {
            match batch {
                Batch::Applied { rows, .. } => {
                    merge(
                        &mut records,
                        rows.iter().filter(|row| holds_records(row)).cloned(),
                    );
                }
                Batch::Installed { rows, .. } => records = of_records(rows),
            }
        }
        records
    }

    /// Whether a node that starts with a log that was purged up to there finds what was purged: in its rows, or in a
    /// snapshot that came.
    pub(super) fn reaches(&self, purged: Position) -> bool {
        self.applied.index >= purged.index || self.snapshot(purged).is_some()
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

    /// Whether the newest snapshot that was made ends there.
    pub(super) fn has_kept(&self, position: Position) -> bool {
        self.kept
            .first()
            .is_some_and(|snapshot| snapshot.base.position == position)
    }

    /// Keeps a snapshot, to be sent.
    pub(super) fn keep(&mut self, snapshot: Snapshot) {
        self.kept.insert(0, Arc::new(snapshot));
        self.kept.truncate(KEPT);
    }

    /// What can be sent of a log that begins after `begins`, the newest first.
    pub(super) fn kept(&self, begins: Index, lineage: Lineage) -> Vec<Arc<Snapshot>> {
        let useful = |base: &Base| base.position.index >= begins && base.membership.lineage() == lineage;
        let kept = self.kept.iter().filter(|snapshot| useful(&snapshot.base));
        kept.cloned().collect()
    }

    /// Chooses what to take in: what there is a part of, else the newest.
    pub(super) fn choose(&mut self, offered: &[Arc<Snapshot>]) -> Option<(Arc<Snapshot>, Begun)> {
        let begun = offered
            .iter()
            .find(|snapshot| self.part.as_ref().is_some_and(|part| part.is_of(snapshot)));
        if let (Some(part), Some(snapshot)) = (&self.part, begun) {
            let next = part.pieces.len() as u64;
            let begun = if next > 0 {
                Begun::Resumed(next)
            } else {
                Begun::Anew
            };
            return Some((Arc::clone(snapshot), begun));
        }
        let newest = offered.first()?;
        let before = self.part.replace(Part {
            position: newest.base.position,
            piece_rows: newest.piece_rows,
            pieces: Vec::new(),
        });
        let lost = before.is_some_and(|part| !part.pieces.is_empty());
        let begun = if lost {
            Begun::InsteadOfAnother
        } else {
            Begun::Anew
        };
        Some((Arc::clone(newest), begun))
    }

    /// Takes in a piece.
    pub(super) fn accept(&mut self, snapshot: &Snapshot, number: u64) {
        if let Some(part) = &mut self.part
            && part.is_of(snapshot)
            && part.pieces.len() as u64 == number
        {
            part.pieces.push(snapshot.piece(number));
        }
    }

    /// All pieces came and are durable. False when they are not what was sent.
    pub(super) fn finish(&mut self, snapshot: &Arc<Snapshot>) -> bool {
        let pieces = self.part.take().map(|part| part.pieces).unwrap_or_default();
        let rows: Rows = pieces.into_iter().flatten().collect();
        let whole = rows == snapshot.rows;
        let index = snapshot.base.position.index;
        self.snapshots.insert(index, Arc::clone(snapshot));
        whole
    }

    /// The received snapshot that ends at `position`.
    pub(super) fn snapshot(&self, position: Position) -> Option<&Snapshot> {
        self.snapshots
            .get(&position.index)
            .map(|snapshot| &**snapshot)
            .filter(|snapshot| snapshot.base.position == position)
    }

    /// The node stopped: what was not written is lost. When the log begins at `log_base`, beyond the rows, the
    /// snapshot that it begins after takes their place. False when that snapshot is missing.
    pub(super) fn recover(&mut self, log_base: Position) -> bool {
        self.behind.clear();
        if let Some(part) = &mut self.part {
            part.pieces.pop();
        }
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

fn holds_records(change: &Row) -> bool {
    Row::holds_records(&change.key)
}

fn merge(rows: &mut Rows, changed: impl IntoIterator<Item = Row>) {
    for row in changed {
        match row.change {
            RowChange::Written(value) => drop(rows.insert(row.key, value.to_vec())),
            RowChange::Gone => drop(rows.remove(&row.key)),
            RowChange::RangeGone { last } => {
                let gone: Vec<Vec<u8>> = rows.range(row.key..=last).map(|(key, _)| key.clone()).collect();
                gone.iter().for_each(|key| drop(rows.remove(key)));
            }
        }
    }
}
