//! What the client port needs of the node behind it.
//!
//! [`Backend`] is the only thing the HTTP handlers know of consensus and state. The node implements it; tests put an
//! in-memory one in its place. Its contract: every future completes by the deadline it is given, or soon after, and an
//! error says whether the write may have been appended. [`BackendError::UnknownOutcome`] is the only one after which it may.

use bytes::Bytes;
use quorate_api::{
    AddMember, ClusterStatus, Consistency, KeyValue, Leadership, MemberChanged, NodeName, NodesAnswer,
    Readiness,
};
use quorate_core::Instant;
use quorate_core::state::{Interest, Revision};
use thiserror::Error;

use crate::port::BoxFuture;
use crate::watch::{WatchEnd, Watching};

/// The node as its client port sees it.
pub trait Backend: Send + Sync {
    /// Replicates and applies a write. Answers [`BackendError::NoLeader`] at once when there is no leader: the caller
    /// waits for one with [`Backend::leader_known`] and repeats.
    fn write(&self, write: Write, options: WriteOptions) -> BoxFuture<'_, Result<WriteReply, BackendError>>;

    /// Reads one key.
    fn get(&self, key: Bytes, options: ReadOptions) -> BoxFuture<'_, Result<GetReply, BackendError>>;

    /// Reads the keys of a range in order.
    fn list(&self, range: Range, options: ReadOptions) -> BoxFuture<'_, Result<ListReply, BackendError>>;

    /// Watches changes from a revision on, or of all that are yet to come, as this node hears of them.
    fn watch(&self, interest: Interest, from: Option<Revision>) -> Result<Watching, BackendError>;

    /// Completes when this node knows a leader, or has lost the quorum; at once when that is so.
    fn leader_known(&self) -> BoxFuture<'_, ()>;

    /// The cluster as this node sees it. Never waits: answers while consensus is stuck, too.
    fn status(&self) -> ClusterStatus;

    /// The members with their load.
    fn nodes(&self) -> NodesAnswer;

    /// Whether this node serves linearizable reads and writes.
    fn readiness(&self) -> Readiness;

    /// Takes in a member, which its own process may join as from then on.
    fn add_member(
        &self,
        request: AddMember,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<MemberChanged, BackendError>>;

    /// Lets a member go.
    fn remove_member(
        &self,
        name: NodeName,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<MemberChanged, BackendError>>;

    /// Hands the leadership to `target`, or to the voter that is furthest along. A node that does not lead answers
    /// [`BackendError::NotLeader`], as for members.
    fn step_down(
        &self,
        target: Option<NodeName>,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<Leadership, BackendError>>;

    /// The metrics in the OpenMetrics text format.
    fn metrics_text(&self) -> String;
}

/// A change of the key space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Give `key` the value.
    Put {
        /// The key.
        key: Bytes,
        /// The value.
        value: Bytes,
        /// Only if the key's `mod_revision` is this one; 0: only if there is no such key.
        expected: Option<u64>,
    },
    /// Remove `key`.
    Delete {
        /// The key.
        key: Bytes,
        /// Only if the key's `mod_revision` is this one; 0: only if there is no such key.
        expected: Option<u64>,
    },
}

/// How a write is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteOptions {
    /// When the answer is due.
    pub deadline: Instant,
    /// Whether a follower hands it to the leader; otherwise it answers [`BackendError::NotLeader`].
    pub forward: bool,
}

/// What became of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteReply {
    /// It is applied.
    Done {
        /// The store's revision after it.
        revision: u64,
        /// What was there before, when it is known.
        previous: Option<KeyValue>,
        /// How many keys it deleted.
        deleted: u64,
    },
    /// The expected revision was not the current one, and nothing changed.
    Conflict {
        /// The key's `mod_revision`; 0 when there is no such key.
        current: u64,
    },
}

/// How a read is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadOptions {
    /// How fresh the answer must be.
    pub consistency: Consistency,
    /// When the answer is due.
    pub deadline: Instant,
}

/// One key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GetReply {
    /// The store's revision that was read.
    pub revision: u64,
    /// The key, if it is there.
    pub entry: Option<KeyValue>,
}

/// A range of keys, `start` inclusive to `end` exclusive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first key.
    pub start: Bytes,
    /// The key after the last one; none for the end of the key space.
    pub end: Option<Bytes>,
    /// How many entries to answer at the most.
    pub limit: usize,
    /// About how many bytes of keys and values to answer at the most, but at least one entry.
    pub bytes_max: usize,
}

/// A part of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListReply {
    /// The store's revision that was read.
    pub revision: u64,
    /// The first keys of the range, ascending.
    pub entries: Vec<KeyValue>,
    /// Whether the range has more.
    pub more: bool,
}

/// Why the node did not do it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BackendError {
    /// Nothing was appended: no leader is known or in reach.
    #[error("the cluster has no leader that this node can reach")]
    NoLeader,
    /// Nothing was appended: the node has no part in a cluster yet, and holds nothing.
    #[error("this node belongs to no cluster yet")]
    NoCluster,
    /// Nothing was appended: no leader has been known for so long that waiting for one is in vain.
    #[error("this node has lost the quorum: it knows no leader that a majority follows, and is read-only")]
    QuorumLost,
    /// Nothing was appended: another node leads, and the request is one that is not forwarded or asked not to be, such
    /// as a read of a witness.
    #[error("another node leads, with the client address {leader}")]
    NotLeader {
        /// The leader's `host:port` for clients.
        leader: String,
    },
    /// Nothing was appended: too much is under way.
    #[error("too much is under way")]
    Busy,
    /// The write was appended and its fate is not known.
    #[error("the write was handed to the cluster, and no answer came")]
    UnknownOutcome,
    /// No answer by the deadline, and nothing was appended.
    #[error("no answer in time")]
    TimedOut,
    /// Nothing was appended: the node cannot serve. The text says why.
    #[error("{0}")]
    Unavailable(String),
    /// Nothing changed: the cluster does not do this. The text says why.
    #[error("{0}")]
    Refused(String),
    /// There is no watch.
    #[error(transparent)]
    NoWatch(#[from] WatchEnd),
    /// This node is a witness: it has nothing to read.
    #[error("this node is a witness and holds no data")]
    Witness,
    /// Nothing changed: there is no member of this name.
    #[error("there is no member called {0}")]
    NoSuchMember(NodeName),
    /// Nothing was appended: a part of the request is too large for the cluster.
    #[error("the {what} is longer than {limit} bytes")]
    TooLarge {
        /// Which part.
        what: Oversized,
        /// The longest that is taken, in bytes.
        limit: u64,
    },
}

/// Which part of a request is too large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Oversized {
    /// The key.
    Key,
    /// The value.
    Value,
    /// A body that is no value.
    Body,
}

impl std::fmt::Display for Oversized {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Oversized::Key => "key",
            Oversized::Value => "value",
            Oversized::Body => "body",
        })
    }
}
