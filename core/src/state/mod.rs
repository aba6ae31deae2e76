//! The replicated state machine: one ordered key space that every node builds from the same log.
//!
//! A [`Command`] is what the log carries, a [`Reply`] is what its client hears, and a [`Row`] is a piece of the state
//! that changed and goes to disk. The [`StateMachine`] lives in memory; a driver writes its rows behind, and loads
//! them again after a restart or from a snapshot.
//!
//! Invariants:
//! - the same commands at the same indexes give the same state, replies, rows and fingerprint on every machine:
//!   nothing here depends on time, chance, the machine or the order of a hash map;
//! - the state is exactly its rows and the position up to which it was applied;
//! - a command that this build cannot read is never skipped: the node halts instead.

mod command;
mod fingerprint;
mod kv;
mod machine;
mod range;
mod reply;
mod row;

pub use command::Command;
pub use kv::{KeyValue, Revision};
pub use machine::{Applied, ApplyError, RestoreError, StateMachine};
pub use range::{KeyRange, Page};
pub use reply::{Malformed, Reply};
pub use row::Row;
