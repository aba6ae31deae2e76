//! What reaches the consensus lane: requests of clients, and completions of the other lanes.
//!
//! Requests wait in a bounded queue; a full one answers the client that the node is busy. Completions are bounded by
//! what consensus has asked for, so their queue needs no bound of its own and a lane never waits for consensus.

use std::time::Duration;

use bytes::Bytes;
use quorate_core::Instant;
use quorate_core::raft::{
    DiskError, Entry, FetchError, FetchId, Index, Membership, NodeId, Outline, ReadMode, SnapshotEvent,
    WriteId,
};
use quorate_core::state::{LeaseEvent, LeaseId};
use tokio::sync::oneshot;

use super::invite::{Invitation, Invited};

/// What a client or an operator wants of consensus.
#[derive(Debug)]
pub(super) enum Request {
    /// Replicate a command and answer with its reply.
    Write {
        /// The encoded command.
        command: Bytes,
        /// When the client stops waiting.
        deadline: Instant,
        /// Whether it goes to the leader when this node does not lead.
        forward: bool,
        /// Takes the answer.
        reply: oneshot::Sender<WriteOutcome>,
    },
    /// Find the index that a linearizable read must have seen.
    Read {
        /// What the answer may rely on.
        mode: ReadMode,
        /// Takes the answer.
        reply: oneshot::Sender<ReadOutcome>,
    },
    /// Find out how long leases last from now on, and keep them alive or not.
    Leases {
        /// The leases.
        leases: Vec<LeaseId>,
        /// Whether to keep them alive.
        renew: bool,
        /// When the client stops waiting.
        deadline: Instant,
        /// Takes the answer.
        reply: oneshot::Sender<LeaseOutcome>,
    },
    /// Let a member go.
    Remove {
        /// The member.
        id: NodeId,
        /// Takes the answer.
        reply: oneshot::Sender<AdminOutcome>,
    },
    /// Hand the leadership over, to the named node or to the best one. Only the leader can.
    StepDown {
        /// The name of the next leader.
        target: Option<String>,
        /// Takes the answer.
        reply: oneshot::Sender<AdminOutcome>,
    },
    /// Tell a node of this cluster, so that it joins.
    Invite {
        /// Which node.
        invitation: Invitation,
        /// Takes the answer.
        reply: oneshot::Sender<Invited>,
    },
    /// Hand over if this node leads, take no more requests, and stop.
    Stop,
}

/// What another lane has done.
#[derive(Debug)]
pub(super) enum Completion {
    /// A write is durable, and every earlier one; or the disk failed.
    Persisted {
        write: WriteId,
        result: Result<(), DiskError>,
    },
    /// Entries were read from the log.
    Fetched {
        fetch: FetchId,
        result: Result<Vec<Entry>, FetchError>,
    },
    /// Everything up to an index is applied.
    Applied { index: Index },
    /// Applying entries granted leases, or ended some.
    Leases(Vec<LeaseEvent>),
    /// A command forwarded by another node was applied: its encoded reply.
    Forwarded {
        node: NodeId,
        request: u64,
        reply: Bytes,
    },
    /// Something happened to a snapshot.
    Snapshot(SnapshotEvent),
    /// Another node told its history, as it was asked.
    History {
        node: String,
        membership: Membership,
        log: Outline,
    },
    /// A lane cannot go on; the node must stop.
    Failed { message: String },
}

/// What became of a write.
#[derive(Debug)]
pub(super) enum WriteOutcome {
    /// It was applied; the encoded reply.
    Applied(Bytes),
    /// It was not appended: no leader is known or in reach.
    NoLeader,
    /// It was not appended: another node leads, with this client address.
    NotLeader(String),
    /// It was not appended: too much is under way.
    Busy,
    /// It may have been applied.
    Unknown,
    /// It was not appended, and why.
    Refused(String),
}

/// What became of a request to read.
#[derive(Debug)]
pub(super) enum ReadOutcome {
    /// Read when everything up to this index is applied.
    Ready(Index),
    /// No leader confirmed the read.
    NoLeader,
    /// Too much is under way.
    Busy,
}

/// What became of a question about leases, or of a keep-alive. Each may be asked again.
#[derive(Debug)]
pub(super) enum LeaseOutcome {
    /// How long each lasts, in the order in which they were named; none for one that is gone.
    Times(Vec<Option<Duration>>),
    /// No leader is known or in reach, or it leads no more.
    NoLeader,
    /// Too much is under way.
    Busy,
}

/// What became of an operation on the cluster.
#[derive(Debug)]
pub(super) enum AdminOutcome {
    /// Done.
    Done,
    /// Nothing was done, as something else is under way: the same may be done in a moment. The text says what.
    Pending(String),
    /// This node does not lead; the leader's client address, when it is known.
    NotLeader(Option<String>),
    /// It was refused, and why.
    Refused(String),
    /// Its fate is not known.
    Unknown,
}
