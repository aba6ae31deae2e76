//! What the client of a command hears.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    ClientId, KeyValue, LeaseId, ReadError, Revision, SessionRefusal, SessionReply, SettingsRefusal,
    SettingsReply, StreamRefusal, StreamReply, Transacted,
};
use crate::wire::{self, DecodeError, Kind};

/// The result of an applied [`Command`](super::Command), the same on every node.
///
/// The order of the variants is part of the format: new ones go to the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The key has its new value.
    Put {
        /// The revision of this change.
        revision: Revision,
        /// What the key was before, when that was asked for and it existed.
        previous: Option<KeyValue>,
    },
    /// The keys are gone.
    Deleted {
        /// The revision after it: its own when there was anything to remove.
        revision: Revision,
        /// How many there were.
        deleted: u64,
        /// What they were, when that was asked for.
        previous: Vec<KeyValue>,
    },
    /// The transaction is done.
    Transacted(Transacted),
    /// Older revisions can no longer be read.
    Compacted {
        /// The latest revision.
        revision: Revision,
    },
    /// There is a new lease.
    Granted {
        /// Its id.
        lease: LeaseId,
        /// How long it lasts without a keep-alive.
        ttl: Duration,
    },
    /// The leases are gone, with their keys.
    Revoked {
        /// The revision after it: its own when there was a key to remove.
        revision: Revision,
        /// How many leases there were.
        leases: u64,
        /// How many keys there were.
        deleted: u64,
    },
    /// The client is known.
    Registered {
        /// What it is called.
        client: ClientId,
    },
    /// Old answers and clients are forgotten.
    Forgotten {
        /// How many answers.
        answers: u64,
        /// How many clients.
        clients: u64,
    },
    /// Nothing changed.
    Refused(Refusal),
    /// Sessions, or where they may go, changed.
    Session(SessionReply),
    /// Event streams changed.
    Stream(StreamReply),
    /// Settings changed.
    Settings(SettingsReply),
}

/// Why a command changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum Refusal {
    /// The command makes no sense.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// It wants to read a revision, or to compact up to one, that cannot be read.
    #[error(transparent)]
    Unreadable(#[from] ReadError),
    /// It keeps the value or the lease of a key that does not exist.
    #[error("there is no such key, so it has no value and no lease to keep")]
    NothingToKeep,
    /// There is no such lease, or it is over.
    #[error("there is no lease {0}: it was never granted, was revoked, or ran out")]
    NoSuchLease(LeaseId),
    /// A lease of this id exists.
    #[error("there is a lease {0} already")]
    LeaseExists(LeaseId),
    /// There are as many leases as there may be.
    #[error("there are too many leases: revoke some that nobody needs")]
    TooManyLeases,
    /// The leader that wanted it leads no more, and what it knew of time counts no more.
    #[error("the leader that wanted this leads no more")]
    StaleTerm,
    /// A request of the same key or number was another one.
    #[error("a different request was made under this key before")]
    DifferentRequest,
    /// The client is not known, or was forgotten; what became of its earlier requests is not known either.
    #[error("client {0} is not known: it was never registered, or did nothing for too long")]
    NoSuchClient(ClientId),
    /// The client has said that it has the answer, which is therefore no longer kept.
    #[error("the answer to this request was acknowledged and is no longer kept")]
    AnswerForgotten,
    /// The client leaves too many answers unacknowledged.
    #[error("too many answers of this client are not acknowledged")]
    TooManyAnswers,
    /// A session cannot be changed so.
    #[error(transparent)]
    Session(#[from] SessionRefusal),
    /// It is about event streams.
    #[error(transparent)]
    Stream(#[from] StreamRefusal),
    /// It is about settings.
    #[error(transparent)]
    Settings(#[from] SettingsRefusal),
}

/// Why a command makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum Malformed {
    /// A key has at least one byte.
    #[error("the key is empty")]
    EmptyKey,
    /// A transaction is too large.
    #[error(
        "the transaction has more than {} comparisons and operations",
        super::OPERATIONS_MAX
    )]
    TooManyOperations,
    /// A transaction is nested too deep.
    #[error("the transaction is nested more than {} deep", super::DEPTH_MAX)]
    TooDeep,
    /// The blocks of a transaction do not form a tree.
    #[error("each nested block of a transaction must be named by one operation of an earlier block")]
    Nesting,
    /// A transaction could change a key twice, and a key has one version a revision.
    #[error("the transaction changes a key twice")]
    ChangedTwice,
    /// A lease lasts some time, and not for ever.
    #[error("the time to live of a lease must be more than 0 s and at most {} s", super::TTL_MAX.as_secs())]
    TimeToLive,
    /// A request's key is too long, or empty.
    #[error("the key of a request has 1 to {} bytes", super::REQUEST_KEY_BYTES_MAX)]
    RequestKey,
    /// The command is not one that a request may carry.
    #[error("a request cannot carry this command")]
    NotOnce,
}

impl Reply {
    /// The bytes that carry the reply to the node whose client asked.
    pub fn encode(&self) -> Bytes {
        wire::encode(Kind::Reply, self).into()
    }

    /// Reads the bytes of a reply.
    ///
    /// # Errors
    /// When the bytes are not a reply that this build knows.
    pub fn decode(input: &[u8]) -> Result<Reply, DecodeError> {
        wire::decode(Kind::Reply, input)
    }
}
