//! A state made of its rows, after a restart or from a snapshot.

use bytes::Bytes;
use thiserror::Error;

use super::row::{self, Decoded, Summary};
use super::{Revision, Row, StateMachine};
use crate::raft::{Index, Position};
use crate::wire::DecodeError;

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
    /// A row has a key that no row of its table has.
    #[error("row {} of the state has a key that its table cannot have", hex(key))]
    BadKey {
        /// The row's key.
        key: Vec<u8>,
    },
    /// The rows do not come in the order of their keys.
    #[error("row {} of the state comes out of order", hex(key))]
    OutOfOrder {
        /// The row's key.
        key: Vec<u8>,
    },
    /// There are rows, but none with the counters of the state.
    #[error("the state has rows but its summary row is missing")]
    NoSummary,
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
    /// What is kept of a session or of its node makes no sense, or the node is missing.
    #[error(
        "the session or node {} of the state cannot be read, or has no node",
        hex(key)
    )]
    NoSession {
        /// Its key.
        key: Vec<u8>,
    },
    /// A row belongs to something that no row tells of, or two rows claim the same place.
    #[error("row {} of the state contradicts other rows", hex(key))]
    Contradiction {
        /// The row's key.
        key: Vec<u8>,
    },
}

/// A state that is being made of its rows.
#[derive(Debug)]
pub struct Restoring {
    state: StateMachine,
    /// The key of the last row; empty before the first one.
    last: Vec<u8>,
}

impl Restoring {
    /// Nothing of a state as of `applied`.
    pub fn new(applied: Position) -> Restoring {
        let mut state = StateMachine::new();
        state.applied = applied;
        state.loaded_at = applied.index;
        Restoring {
            state,
            last: Vec::new(),
        }
    }

    /// Takes in a row; they come in the order of their keys. The records of streams may be left out: they are not part of
    /// the state in memory.
    ///
    /// # Errors
    /// When the row cannot be read, or contradicts those before it or `applied`.
    pub fn row(&mut self, key: &[u8], value: &[u8]) -> Result<(), RestoreError> {
        if !self.last.is_empty() && *self.last >= *key {
            return Err(RestoreError::OutOfOrder { key: key.to_vec() });
        }
        let decoded = row::decode(key, value).map_err(|source| {
            let key = key.to_vec();
            RestoreError::Undecodable { key, source }
        })?;
        self.state.take_in(key, decoded)?;
        self.last.clear();
        self.last.extend_from_slice(key);
        Ok(())
    }

    /// The state, when all rows were taken in.
    ///
    /// # Errors
    /// When the rows contradict each other.
    pub fn finish(self) -> Result<StateMachine, RestoreError> {
        let mut state = self.state;
        state.attach_keys()?;
        let no_session = |key: Bytes| RestoreError::NoSession { key: key.to_vec() };
        state.sessions.load_owners(&state.keys).map_err(no_session)?;
        let contradiction = |key: Bytes| RestoreError::Contradiction { key: key.to_vec() };
        state.check_sections().map_err(contradiction)?;
        if let Some(stream) = state.streams.inconsistent() {
            let key = Row::stream_gone(stream).key;
            return Err(RestoreError::Contradiction { key });
        }
        assert!(
            state.once.is_consistent(),
            "rows that contradict each other are refused"
        );
        Ok(state)
    }
}

impl StateMachine {
    /// The state made of `rows`, as of `applied`; see [`Restoring`].
    ///
    /// # Errors
    /// When a row cannot be read, or the rows contradict each other or `applied`.
    pub fn restore(
        rows: impl Iterator<Item = (Vec<u8>, Vec<u8>)>,
        applied: Position,
    ) -> Result<StateMachine, RestoreError> {
        let mut restoring = Restoring::new(applied);
        for (key, value) in rows {
            restoring.row(&key, &value)?;
        }
        restoring.finish()
    }

    fn take_in(&mut self, row: &[u8], decoded: Decoded) -> Result<(), RestoreError> {
        let key = || row.to_vec();
        match decoded {
            Decoded::Summary(summary) => return self.adopt(summary),
            Decoded::UnknownTable(table) => return Err(RestoreError::UnknownTable { key: key(), table }),
            Decoded::BadKey => return Err(RestoreError::BadKey { key: key() }),
            // The summary is the first row.
            _ if self.summary_index == Index::default() => return Err(RestoreError::NoSummary),
            Decoded::Version(version) => {
                let (found, revision) = (version.revision(), self.keys.revision());
                if found > revision {
                    return Err(RestoreError::RevisionAhead {
                        key: key(),
                        found,
                        revision,
                    });
                }
                if !self.keys.load(version) {
                    return Err(RestoreError::Contradiction { key: key() });
                }
            }
            Decoded::Lease(lease, grant) => self.leases.insert(lease, grant),
            Decoded::RequestKey(name, answer) => {
                if self.once.is_used_at(answer.index) {
                    return Err(RestoreError::Contradiction { key: key() });
                }
                self.once.load_key(name, answer);
            }
            Decoded::Client(id, client) => {
                if self.once.is_used_at(client.used) {
                    return Err(RestoreError::Contradiction { key: key() });
                }
                self.once.load_client(id, client);
            }
            Decoded::Rebalancing => self.sessions.load_rebalancing(),
            Decoded::Place(node, place) => self.sessions.load_place(node, place),
            Decoded::ClientAnswer(id, number, answer) => {
                if !self.once.load_client_answer(id, number, answer) {
                    return Err(RestoreError::Contradiction { key: key() });
                }
            }
            of_stream => {
                if !self.take_in_stream(of_stream) {
                    return Err(RestoreError::Contradiction { key: key() });
                }
            }
        }
        Ok(())
    }

    /// A row about streams. False when it contradicts those before it.
    fn take_in_stream(&mut self, decoded: Decoded) -> bool {
        let streams = &mut self.streams;
        match decoded {
            Decoded::Stream(id, row) => streams.load_stream(id, row),
            Decoded::Partition(id, number, row) => streams.load_partition(id, number, row),
            Decoded::Mark(id, number, begins, mark) => streams.load_mark(id, number, begins, mark),
            Decoded::MessageIds(id, index, row) => streams.load_ids(id, index, row),
            Decoded::Group(id, name, row) => streams.load_group(id, name, row),
            Decoded::Records(id, number, last) => streams.expects_records(id, number, last),
            _ => false,
        }
    }

    fn adopt(&mut self, summary: Summary) -> Result<(), RestoreError> {
        if summary.index > self.applied.index {
            return Err(RestoreError::RowsAhead {
                rows: summary.index,
                applied: self.applied,
            });
        }
        let counters = summary.counters();
        if counters.scavenged > counters.compacted
            || counters.compacted > counters.revision
            || summary.index == Index::default()
        {
            return Err(RestoreError::Contradiction { key: vec![0] });
        }
        self.keys.load_counters(counters);
        self.fingerprint = super::fingerprint::Fingerprint(summary.fingerprint);
        self.summary_index = summary.index;
        Ok(())
    }

    /// Leases learn which keys go with them: the rows of keys come before those of leases.
    fn attach_keys(&mut self) -> Result<(), RestoreError> {
        for (key, lease) in self.keys.attached() {
            if !self.leases.attach(lease, &key) {
                return Err(RestoreError::Contradiction { key: key.to_vec() });
            }
        }
        Ok(())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
