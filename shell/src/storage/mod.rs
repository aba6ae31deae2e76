//! Everything a node keeps on disk.
//!
//! One data directory belongs to one node:
//!
//! ```text
//! lock                the claim of the running process
//! identity            who the directory belongs to               [`DataDirectory`]
//! log/*.log           entries, term and vote                     [`Log`]
//! state.redb          the state machine's rows and the records of streams, written behind the log  [`StateStore`]
//! snapshots/*         immutable copies of the rows, for transfer and install  [`Snapshots`]
//! ```
//!
//! Invariants:
//! - What was acknowledged is on disk: an entry, a term or a vote once [`Log::append`] returned, a row once the
//!   state lane reported its index.
//! - The log is purged only up to what `state.redb` or a durable snapshot holds, so that state and log together
//!   always make a whole.
//! - Damage is noticed, never guessed around: a file either verifies or is refused with its name and the way out,
//!   and nothing of a directory that is refused was changed. Only the end of a log may be cut off, once it is noted
//!   what it had promised: the node's peers repair it.
//! - A file of a newer format is refused before it is touched.

mod directory;
mod error;
mod log;
mod small;
mod snapshot;
mod state;

/// Decodes arbitrary bytes as everything that is in a file.
pub(crate) fn feed(input: &[u8]) {
    directory::feed(input);
    log::feed(input);
    snapshot::feed(input);
    state::feed(input);
}

#[cfg(test)]
mod golden;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

/// The key and the value of a row.
pub type KeyValue = (Vec<u8>, Vec<u8>);

pub use directory::{Assignment, DataDirectory, Identity, Owner};
pub use error::StorageError;
pub use log::{
    GROUP_BYTES_MAX, GROUP_ENTRIES_MAX, Log, LogCounters, LogOptions, LogReader, Recovered, SEGMENT_BYTES,
    group_length,
};
pub use snapshot::{
    ReceiveError, Receiver, SNAPSHOT_PIECE_BYTES, Snapshot, SnapshotHeader, SnapshotWriter, Snapshots,
};
pub use state::{
    Loaded, Row, RowBatch, RowChange, StateLane, StateReader, StateSender, StateStore, Unwritten,
    run_state_lane, state_lane,
};
