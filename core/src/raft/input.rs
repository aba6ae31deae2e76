//! Everything that can happen to a node, as data.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Base, Change, Entry, FetchId, Index, Lineage, Message, NodeId, Term, Token, WriteId};

/// One event for [`Raft::step`](super::Raft::step).
#[derive(Clone, Debug)]
pub enum Input {
    /// The instant of [`Raft::deadline`](super::Raft::deadline) has come. Too early a call does nothing.
    Timeout,
    /// A message came from another node.
    Receive {
        /// Who sent it, as the transport has verified.
        from: NodeId,
        /// The message.
        message: Message,
    },
    /// A client wants a command replicated.
    Propose {
        /// Names the request.
        token: Token,
        /// The command, opaque to consensus.
        command: Bytes,
    },
    /// A client wants to read the latest state; answered with [`Outcome::ReadReady`](super::Outcome::ReadReady).
    Read {
        /// Names the request.
        token: Token,
        /// What the answer may rely on.
        mode: ReadMode,
    },
    /// The operator, or a duty of the leader, wants something of consensus itself.
    Admin {
        /// Names the request.
        token: Token,
        /// What is wanted.
        operation: Operation,
    },
    /// A write is durable, and with it every earlier one; or the disk failed.
    Persisted {
        /// The write.
        write: WriteId,
        /// Nothing, or why the disk failed. A failure is final: the write is never tried again.
        result: Result<(), DiskError>,
    },
    /// The state machine has applied everything up to `index`.
    Applied {
        /// The last applied index.
        index: Index,
    },
    /// Older entries were read from the log.
    Fetched {
        /// The request.
        fetch: FetchId,
        /// Entries without a gap from the first one asked for, at least one; or why they could not be read.
        result: Result<Vec<Entry>, FetchError>,
    },
    /// Something happened to a snapshot.
    Snapshot(SnapshotEvent),
    /// The connection to another node changed.
    Link {
        /// The other node.
        peer: NodeId,
        /// What happened.
        event: LinkEvent,
    },
    /// A node of another lineage said that its lineage descends from this node's: a start was forced elsewhere. A node
    /// that knows a leader goes on; any other takes no part any more.
    Superseded {
        /// The lineage that followed.
        by: Box<Lineage>,
    },
}

/// What makes sure that a read sees the latest state. Both do; they differ in speed, and in what must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadMode {
    /// A majority is asked whether the leader still leads (Raft dissertation, section 6.4).
    ReadIndex,
    /// The leader answers alone while it holds a lease, which relies on clocks that drift no further than
    /// [`LeaseReads`](super::LeaseReads) says. Without a lease the same as [`ReadMode::ReadIndex`].
    Lease,
}

/// What consensus can be asked to do, on the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Change the membership in one step, through a joint phase where voters change.
    ChangeMembership(Vec<Change>),
    /// Hand the leadership to a voter, or to the one that is furthest along.
    Transfer {
        /// The next leader; none for the best choice.
        target: Option<NodeId>,
    },
}

/// A disk refused or failed a write. The node must stop: what is on disk is unknown from here on.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct DiskError(pub String);

/// Why older entries could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FetchError {
    /// They were purged since; the reader needs a snapshot.
    #[error("the entries were purged")]
    Purged,
    /// The disk failed or the record is damaged; final, like a failed write.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// What can happen to snapshots; their bytes never enter the core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotEvent {
    /// The state up to `index` is durable in the state store, so that the log before it may be purged.
    StateDurable {
        /// The last index that the state store holds durably.
        index: Index,
    },
    /// A snapshot from the leader of `term` arrived whole, was verified, and is durable as a file.
    Received {
        /// Who sent it.
        from: NodeId,
        /// The sender's term when it began to send.
        term: Term,
        /// Where the log goes on after it.
        base: Box<Base>,
    },
    /// The state machine was loaded from the snapshot at `index`.
    Installed {
        /// The index of the snapshot.
        index: Index,
    },
    /// A transfer to `to`, asked for by [`SnapshotOp::Send`](super::SnapshotOp::Send), ended.
    Sent {
        /// The receiver.
        to: NodeId,
        /// Whether the receiver has all of it. It says itself up to where it is when it has installed it.
        complete: bool,
    },
}

/// What a transport knows of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LinkEvent {
    /// The peer can be talked to. Whatever was sent before may be lost.
    Connected,
    /// The connection fell silent or was cut; the peer may live.
    Lost,
    /// The peer's machine says that nobody listens: the process has ended.
    Refused,
}
