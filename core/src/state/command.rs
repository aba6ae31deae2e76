//! What the log asks of the state machine.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    DeleteRange, LeaseId, Put, RequestId, Revision, SessionCommand, SettingsCommand, StreamCommand,
    Transaction,
};
use crate::raft::{Index, Term};
use crate::wire::{self, DecodeError, Kind};

/// A change of the replicated state, carried by an entry of the log.
///
/// The order of the variants is part of the format: new ones go to the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Give a key a value.
    Put(Put),
    /// Remove keys.
    Delete(DeleteRange),
    /// Compare, and do one thing or another.
    Transact(Transaction),
    /// Forget what keys were before a revision, which can still be read itself.
    Compact {
        /// That revision.
        revision: Revision,
    },
    /// Make a lease.
    Grant {
        /// Its id; none to get one that is free.
        lease: Option<LeaseId>,
        /// How long it lasts without a keep-alive; not zero.
        ttl: Duration,
    },
    /// End a lease and remove its keys, since a client wants that.
    Revoke {
        /// The lease.
        lease: LeaseId,
    },
    /// End leases and remove their keys, since a leader found that their time was over. It does nothing to a lease
    /// that the leader could not have meant: leases start anew with every term, so the command counts in the leader's
    /// term only, and an id that was granted again is another lease.
    Expire {
        /// The term of that leader.
        term: Term,
        /// The leases, and the entries that granted them.
        leases: Vec<(LeaseId, Index)>,
    },
    /// Make a client known, whose requests are then told from each other by their numbers.
    Register,
    /// Carry out a command unless that was done before, and give the answer that it had then.
    Once {
        /// What tells the request from others.
        request: RequestId,
        /// The encoded command; none that is itself `Once` or `Register`.
        command: Bytes,
    },
    /// Forget the answers to requests, and the clients, that were last used before an entry.
    Forget {
        /// That entry.
        before: Index,
    },
    /// Change sessions, or where they may go.
    Session(SessionCommand),
    /// Change event streams.
    Stream(StreamCommand),
    /// Change settings.
    Settings(SettingsCommand),
}

impl Command {
    /// Gives `key` this value, with no lease.
    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Command {
        Command::Put(Put::new(key, value))
    }

    /// Removes `key`.
    pub fn delete(key: impl Into<Bytes>) -> Command {
        Command::Delete(DeleteRange {
            range: super::KeyRange::only(key),
            previous: false,
        })
    }

    /// The bytes that go into the log.
    pub fn encode(&self) -> Bytes {
        wire::encode(Kind::Command, self).into()
    }

    /// Reads the bytes of a log entry.
    ///
    /// # Errors
    /// When the bytes are not a command that this build knows.
    pub fn decode(input: &[u8]) -> Result<Command, DecodeError> {
        wire::decode(Kind::Command, input)
    }
}
