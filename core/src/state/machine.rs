//! The state machine: commands in, replies and changed rows out.
//!
//! Invariants: `applied` rises by one index with every call; `revision` rises by one with every change; every
//! `mod_revision` is at most `revision`, and `create_revision <= mod_revision`.

use std::collections::BTreeMap;

use bytes::Bytes;
use thiserror::Error;

use super::fingerprint::Fingerprint;
use super::kv::Stored;
use super::row::{self, Decoded, Summary};
use super::{Command, KeyRange, KeyValue, Malformed, Page, Reply, Revision, Row};
use crate::raft::{Index, Position};
use crate::wire::DecodeError;

/// The whole replicated state, in memory.
#[derive(Clone, Debug)]
pub struct StateMachine {
    keys: BTreeMap<Bytes, Stored>,
    applied: Position,
    revision: Revision,
    fingerprint: Fingerprint,
    /// The index of the last command, which wrote the summary row; 0 before the first.
    summary_index: Index,
    /// Memory for the fingerprint to work in; holds nothing between calls.
    scratch: Vec<u8>,
}

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// For the client.
    pub reply: Reply,
    /// What changed, for the state store: together with the applied position, all or nothing.
    pub rows: Vec<Row>,
}

/// Why an entry cannot be applied. The node must stop: to skip the entry would make it differ from the others.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ApplyError {
    /// The bytes are not a command that this build knows.
    #[error("the command at {position} cannot be applied, and must not be skipped: {source}")]
    Undecodable {
        /// Where the command stands.
        position: Position,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// The driver left out an entry, or repeats one.
    #[error("the entry {position} cannot be applied: the state ends at {applied}")]
    OutOfOrder {
        /// Where the entry stands.
        position: Position,
        /// Up to where the state was applied.
        applied: Position,
    },
}

/// Why a state cannot be loaded from rows.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RestoreError {
    /// A row's value is damaged or from a newer version.
    #[error("row {} of the state cannot be read: {source}", hex(key))]
    Undecodable {
        /// The row's key.
        key: Vec<u8>,
        /// What is wrong with its value.
        source: DecodeError,
    },
    /// A row of a table that this build does not know.
    #[error(
        "row {} of the state belongs to table {table}, which this build does not know: upgrade this node",
        hex(key)
    )]
    UnknownTable {
        /// The row's key.
        key: Vec<u8>,
        /// The number of the table.
        table: u8,
    },
    /// There are keys, but no row with the counters of the state.
    #[error("the state has {keys} keys but its summary row is missing")]
    NoSummary {
        /// How many keys there are.
        keys: usize,
    },
    /// The rows are newer than the position that they were stored with.
    #[error("the rows of the state reach up to index {rows}, but the state was stored as of {applied}")]
    RowsAhead {
        /// The last index that changed a row.
        rows: Index,
        /// The position stored with the rows.
        applied: Position,
    },
    /// A key was changed after the last change of the state.
    #[error(
        "row {} of the state is of revision {found}, beyond the state's revision {revision}",
        hex(key)
    )]
    RevisionAhead {
        /// The row's key.
        key: Vec<u8>,
        /// The revision of the row.
        found: Revision,
        /// The revision of the state.
        revision: Revision,
    },
}

impl Default for StateMachine {
    fn default() -> StateMachine {
        StateMachine::new()
    }
}

impl StateMachine {
    /// A state that nothing was applied to.
    pub fn new() -> StateMachine {
        StateMachine {
            keys: BTreeMap::new(),
            applied: Position::default(),
            revision: Revision::ABSENT,
            fingerprint: Fingerprint::EMPTY,
            summary_index: Index::default(),
            scratch: Vec::new(),
        }
    }

    /// Applies the command of the entry at `position`, the one after [`applied`](StateMachine::applied).
    ///
    /// # Errors
    /// When the command is not known to this build or the position is not the next one. Nothing changed then, and the
    /// node must stop.
    pub fn apply(&mut self, position: Position, command: &[u8]) -> Result<Applied, ApplyError> {
        self.check_next(position)?;
        let command =
            Command::decode(command).map_err(|source| ApplyError::Undecodable { position, source })?;
        let (reply, changed) = match command {
            Command::Put { key, value, expected } => self.put(key, value, expected),
            Command::Delete { key, expected } => self.delete(&key, expected),
        };
        let mut rows = Vec::with_capacity(2);
        rows.extend(changed);
        self.fingerprint = self
            .fingerprint
            .after(position.index, &reply, &rows, &mut self.scratch);
        self.applied = position;
        self.summary_index = position.index;
        rows.push(self.summary_row());
        Ok(Applied { reply, rows })
    }

    /// Moves past the entry at `position`, which holds no command. No row changes: the state store learns of it with
    /// the next command, or by storing the position alone.
    ///
    /// # Errors
    /// When the position is not the next one. Nothing changed then, and the node must stop.
    pub fn apply_empty(&mut self, position: Position) -> Result<(), ApplyError> {
        self.check_next(position)?;
        self.applied = position;
        Ok(())
    }

    /// The state made of `rows`, in any order, as of `applied`.
    ///
    /// # Errors
    /// When a row cannot be read or the rows contradict each other or `applied`.
    pub fn restore(
        rows: impl Iterator<Item = (Vec<u8>, Vec<u8>)>,
        applied: Position,
    ) -> Result<StateMachine, RestoreError> {
        let mut state = StateMachine::new();
        let mut summary = None;
        for (key, value) in rows {
            match row::decode(&key, &value) {
                Ok(Decoded::Summary(found)) => summary = Some(found),
                Ok(Decoded::KeyValue(key, stored)) => {
                    state.keys.insert(key, stored);
                }
                Ok(Decoded::UnknownTable(table)) => return Err(RestoreError::UnknownTable { key, table }),
                Err(source) => return Err(RestoreError::Undecodable { key, source }),
            }
        }
        state.applied = applied;
        match summary {
            Some(summary) => state.adopt(summary)?,
            None if state.keys.is_empty() => {}
            None => {
                return Err(RestoreError::NoSummary {
                    keys: state.keys.len(),
                });
            }
        }
        Ok(state)
    }

    /// The whole state as rows, for a snapshot; in the order of their keys.
    pub fn rows(&self) -> impl Iterator<Item = Row> {
        let summary = (self.summary_index > Index::default()).then(|| self.summary_row());
        summary
            .into_iter()
            .chain(self.keys.iter().map(|(key, stored)| Row::put(key, stored)))
    }

    /// What `key` is, if it exists. Shares the bytes.
    pub fn get(&self, key: &[u8]) -> Option<KeyValue> {
        self.keys
            .get_key_value(key)
            .map(|(key, stored)| stored.with_key(key))
    }

    /// The first keys of `range`, at most `limit`. Shares the bytes.
    pub fn range(&self, range: &KeyRange, limit: usize) -> Page {
        let Some(bounds) = range.bounds() else {
            return Page::default();
        };
        let mut found = self.keys.range::<[u8], _>(bounds);
        let items = found
            .by_ref()
            .take(limit)
            .map(|(key, stored)| stored.with_key(key))
            .collect();
        Page {
            items,
            more: found.next().is_some(),
        }
    }

    /// How many keys exist.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether no key exists.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The last entry that was applied.
    pub fn applied(&self) -> Position {
        self.applied
    }

    /// The revision of the last change.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// A hash over every index, reply and changed row so far: the same on all nodes that have applied the same
    /// index. Entries without a command do not change it.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint.0
    }

    fn put(&mut self, key: Bytes, value: Bytes, expected: Option<Revision>) -> (Reply, Option<Row>) {
        if key.is_empty() {
            return (Reply::Malformed(Malformed::EmptyKey), None);
        }
        let revision = self.revision.next();
        match self.keys.get_mut(&key) {
            current if !meets(current.as_deref(), expected) => {
                let current = current.map(|stored| stored.with_key(&key));
                (Reply::Conflict { current }, None)
            }
            Some(stored) => {
                let next = Stored::after(Some(stored), value, revision);
                let row = Row::put(&key, &next);
                let previous = Some(std::mem::replace(stored, next).with_key(&key));
                self.revision = revision;
                (Reply::Put { revision, previous }, Some(row))
            }
            None => {
                let stored = Stored::after(None, value, revision);
                let row = Row::put(&key, &stored);
                self.keys.insert(key, stored);
                self.revision = revision;
                let previous = None;
                (Reply::Put { revision, previous }, Some(row))
            }
        }
    }

    fn delete(&mut self, key: &Bytes, expected: Option<Revision>) -> (Reply, Option<Row>) {
        if key.is_empty() {
            return (Reply::Malformed(Malformed::EmptyKey), None);
        }
        let current = self.keys.get(key);
        if !meets(current, expected) {
            let current = current.map(|stored| stored.with_key(key));
            return (Reply::Conflict { current }, None);
        }
        match self.keys.remove(key) {
            Some(stored) => {
                self.revision = self.revision.next();
                let reply = Reply::Deleted {
                    revision: self.revision,
                    previous: stored.with_key(key),
                };
                (reply, Some(Row::delete(key)))
            }
            None => (Reply::NotFound, None),
        }
    }

    fn check_next(&self, position: Position) -> Result<(), ApplyError> {
        if position.index == self.applied.index.next() && position.term >= self.applied.term {
            Ok(())
        } else {
            Err(ApplyError::OutOfOrder {
                position,
                applied: self.applied,
            })
        }
    }

    fn summary_row(&self) -> Row {
        Row::summary(Summary {
            revision: self.revision,
            fingerprint: self.fingerprint.0,
            index: self.summary_index,
        })
    }

    fn adopt(&mut self, summary: Summary) -> Result<(), RestoreError> {
        if summary.index > self.applied.index {
            return Err(RestoreError::RowsAhead {
                rows: summary.index,
                applied: self.applied,
            });
        }
        if let Some((key, stored)) = self
            .keys
            .iter()
            .find(|(_, stored)| stored.mod_revision > summary.revision)
        {
            return Err(RestoreError::RevisionAhead {
                key: key.to_vec(),
                found: stored.mod_revision,
                revision: summary.revision,
            });
        }
        self.revision = summary.revision;
        self.fingerprint = Fingerprint(summary.fingerprint);
        self.summary_index = summary.index;
        Ok(())
    }
}

/// Whether a key is at the revision that a command expects.
fn meets(current: Option<&Stored>, expected: Option<Revision>) -> bool {
    expected.is_none_or(|expected| current.map_or(Revision::ABSENT, |stored| stored.mod_revision) == expected)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
