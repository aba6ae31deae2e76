//! What the client port needs of the node behind it.
//!
//! [`Backend`] is the only thing the HTTP handlers know of consensus and state. The node implements it; tests put an
//! in-memory one in its place. Its contract: every future completes by the deadline it is given, or soon after, and an
//! error says whether the write may have been appended. [`BackendError::UnknownOutcome`] is the only one after which it may.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_api::{
    AddMember, ClusterStatus, Consistency, Leadership, MemberChanged, NodeName, NodesAnswer, Readiness,
};
use quorate_core::raft::{Membership, NodeId};
use quorate_core::state::{
    Command, Found, Grant, GroupView, Interest, Lease, LeaseId, NodeLoad, Offset, PartitionEnds, Query,
    ReadError, RecordBatch, Refusal, Reply, Revision, Section, SectionName, SectionSummary, Session,
    SessionId, Setting, SettingKey, SettingVersion, StateMachine, StreamId, StreamView,
};
use quorate_core::{Instant, WallTime};
use thiserror::Error;
use tokio::sync::watch;

use crate::port::BoxFuture;
use crate::watch::{WatchEnd, Watching};

/// The node as its client port sees it.
pub trait Backend: Send + Sync {
    /// Replicates and applies a command; the reply is no [`Reply::Refused`], which is [`BackendError::Declined`]. Answers
    /// [`BackendError::NoLeader`] at once when there is no leader: the caller waits for one with
    /// [`Backend::leader_known`] and repeats.
    fn write(&self, command: Command, options: WriteOptions) -> BoxFuture<'_, Result<Reply, BackendError>>;

    /// Reads keys, about `bytes_max` bytes of them, but at least one.
    fn read(
        &self,
        query: Query,
        bytes_max: usize,
        options: ReadOptions,
    ) -> BoxFuture<'_, Result<ReadReply, BackendError>>;

    /// Reads a lease with its keys; none when there is no such lease.
    fn lease(
        &self,
        lease: LeaseId,
        options: ReadOptions,
    ) -> BoxFuture<'_, Result<Option<Lease>, BackendError>>;

    /// Reads at most `limit` leases, those after `after`, by id.
    fn leases(
        &self,
        after: Option<LeaseId>,
        limit: usize,
        options: ReadOptions,
    ) -> BoxFuture<'_, Result<Vec<(LeaseId, Grant)>, BackendError>>;

    /// Asks the leader how long leases last from now on without a keep-alive, in the order given, and keeps them alive
    /// if `renew` says so; none for a lease that is gone. Changes nothing that asking again would change twice.
    fn lease_times(
        &self,
        leases: Vec<LeaseId>,
        renew: bool,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<Vec<Option<Duration>>, BackendError>>;

    /// Reads the sections of settings in short, by name.
    fn sections(
        &self,
        options: ReadOptions,
    ) -> BoxFuture<'_, Result<(Revision, Vec<SectionSummary>), BackendError>>;

    /// Reads sections of settings.
    fn settings(
        &self,
        wanted: WantedSections,
        options: ReadOptions,
    ) -> BoxFuture<'_, Result<SectionsRead, BackendError>>;

    /// Reads a setting as of a revision, or the latest; none when there is no such setting.
    fn setting(
        &self,
        section: SectionName,
        key: SettingKey,
        revision: Option<Revision>,
        options: ReadOptions,
    ) -> BoxFuture<'_, Result<Option<Setting>, BackendError>>;

    /// Reads what a setting was at the revisions before one that are kept, at most `limit` of them, the latest first.
    fn setting_history(
        &self,
        section: SectionName,
        key: SettingKey,
        before: Option<Revision>,
        limit: usize,
        options: ReadOptions,
    ) -> BoxFuture<'_, Result<Vec<SettingVersion>, BackendError>>;

    /// Reads a session; none when there is no such session.
    fn session(
        &self,
        session: SessionId,
        options: ReadOptions,
    ) -> BoxFuture<'_, Result<Option<Session>, BackendError>>;

    /// Reads at most `limit` sessions and about `bytes_max` bytes of them, but at least one: those after `after`, by id, of
    /// one owner or of all.
    fn sessions(
        &self,
        after: Option<SessionId>,
        owner: Option<NodeId>,
        limit: usize,
        bytes_max: usize,
        options: ReadOptions,
    ) -> BoxFuture<'_, Result<Sessions, BackendError>>;

    /// Reads where sessions go.
    fn placement(&self, options: ReadOptions) -> BoxFuture<'_, Result<Placement, BackendError>>;

    /// Whether a leader has said which nodes sessions can go to, as far as this node knows. One without the state of its
    /// cluster cannot know, and says yes.
    fn knows_hosts(&self) -> bool;

    /// The members, as this node knows them.
    fn members(&self) -> Result<Membership, BackendError>;

    /// Watches changes from a revision on, or of all that are yet to come, as this node hears of them.
    fn watch(&self, interest: Interest, from: Option<Revision>) -> Result<Watching, BackendError>;

    /// Reads a stream; none when there is no such stream.
    fn stream(
        &self,
        name: &str,
        options: ReadOptions,
    ) -> BoxFuture<'_, Result<Option<StreamView>, BackendError>>;

    /// Reads at most `limit` streams whose names begin with `prefix`, those after `after`, by name.
    fn streams(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        options: ReadOptions,
    ) -> BoxFuture<'_, Result<Vec<StreamView>, BackendError>>;

    /// Reads a stream with its consumer groups; none when there is no such stream.
    fn stream_groups(
        &self,
        name: &str,
        options: ReadOptions,
    ) -> BoxFuture<'_, Result<Option<StreamGroups>, BackendError>>;

    /// An offset of a partition that no record of `time` or later comes before, as this node knows; near the first one.
    fn stream_offset_at(&self, name: &str, partition: u32, time: WallTime) -> Option<Offset>;

    /// Reads records that this node has applied: about `bytes_max` bytes of whole batches that follow each other, at least
    /// one if there is one. When the first one begins after `from`, retention dropped what was before it.
    fn records(
        &self,
        stream: StreamId,
        partition: u32,
        from: Offset,
        bytes_max: usize,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<Vec<RecordBatch>, BackendError>>;

    /// Where the partitions of streams end whose names begin with `prefix`, as this node knows.
    fn stream_ends(&self, prefix: &str) -> Result<Vec<StreamEnd>, BackendError>;

    /// Changes whenever streams did.
    fn stream_changes(&self) -> watch::Receiver<StreamChanges>;

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

/// A stream with its consumer groups.
pub type StreamGroups = (StreamView, Vec<GroupView>);

/// Where a partition of a stream begins and ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamEnd {
    /// The stream's name.
    pub name: String,
    /// The stream.
    pub stream: StreamId,
    /// The partition.
    pub partition: u32,
    /// The first offset that is kept.
    pub first: Offset,
    /// The offset of the next record.
    pub next: Offset,
}

impl From<PartitionEnds<'_>> for StreamEnd {
    fn from(ends: PartitionEnds<'_>) -> StreamEnd {
        StreamEnd {
            name: ends.name.to_owned(),
            stream: ends.stream,
            partition: ends.partition,
            first: ends.first,
            next: ends.next,
        }
    }
}

/// What whoever follows streams has to know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamChanges {
    /// How often records came or went, as this node applied it.
    pub applied: u64,
    /// The node stops, and nothing more will come.
    pub stopping: bool,
}

/// How a write is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteOptions {
    /// When the answer is due.
    pub deadline: Instant,
    /// Whether a follower hands it to the leader; otherwise it answers [`BackendError::NotLeader`].
    pub forward: bool,
}

/// How a read is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadOptions {
    /// How fresh the answer must be.
    pub consistency: Consistency,
    /// The state must have come to this revision; a serializable read waits for it.
    pub min_revision: Revision,
    /// When the answer is due.
    pub deadline: Instant,
}

/// What a read found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadReply {
    /// The state's revision when it was read.
    pub revision: Revision,
    /// The keys.
    pub found: Found,
}

/// Some sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sessions {
    /// The state's revision when it was read.
    pub revision: Revision,
    /// The sessions, by id.
    pub sessions: Vec<Session>,
    /// Whether there was no room for more.
    pub more: bool,
}

impl Sessions {
    /// Reads them from a state.
    pub fn read(
        state: &StateMachine,
        after: Option<&SessionId>,
        owner: Option<NodeId>,
        limit: usize,
        bytes_max: usize,
    ) -> Sessions {
        let revision = state.revision();
        match owner {
            Some(owner) => Sessions::take(revision, state.sessions_of(owner, after), limit, bytes_max),
            None => Sessions::take(revision, state.sessions_after(after), limit, bytes_max),
        }
    }

    fn take(
        revision: Revision,
        found: impl Iterator<Item = Session>,
        limit: usize,
        bytes_max: usize,
    ) -> Sessions {
        let (mut sessions, mut bytes, mut more) = (Vec::new(), 0, false);
        for session in found.take(limit) {
            bytes += session.payload.len();
            if bytes > bytes_max && !sessions.is_empty() {
                more = true;
                break;
            }
            sessions.push(session);
        }
        Sessions {
            revision,
            sessions,
            more,
        }
    }
}

/// Which sections of settings to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WantedSections {
    /// One, as of a revision or the latest.
    One(SectionName, Option<Revision>),
    /// These, as a change of them is to be judged: without the settings of those that have no schema.
    Judged(Vec<SectionName>),
    /// All, as of a revision or the latest, unless they have more than about so many bytes.
    All(Option<Revision>, usize),
}

/// Sections of settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SectionsRead {
    /// The state's revision when it was read.
    pub revision: Revision,
    /// The sections that were found, by name; none when they are too large.
    pub sections: Option<BTreeMap<SectionName, Section>>,
}

impl SectionsRead {
    /// Reads them from a state.
    ///
    /// # Errors
    /// When it is not known what they were at the revision.
    pub fn read(state: &StateMachine, wanted: &WantedSections) -> Result<SectionsRead, BackendError> {
        let sections = match wanted {
            WantedSections::One(name, revision) => {
                let section = state.section(name, *revision)?;
                Some(BTreeMap::from([(name.clone(), section)]))
            }
            WantedSections::Judged(names) => Some(names.iter().map(|name| judged(state, name)).collect()),
            WantedSections::All(revision, bytes_max) => state.all_sections(*revision, *bytes_max)?,
        };
        Ok(SectionsRead {
            revision: state.revision(),
            sections: sections.map(|mut sections| {
                sections.retain(|_, section| section.revision > Revision::ABSENT);
                sections
            }),
        })
    }
}

fn judged(state: &StateMachine, name: &SectionName) -> (SectionName, Section) {
    let summary = state.section_summary(name);
    let section = match summary {
        Some(summary) if summary.schema => state.section(name, None).unwrap_or_default(),
        Some(summary) => Section {
            revision: summary.revision,
            ..Section::default()
        },
        None => Section::default(),
    };
    (name.clone(), section)
}

/// Where sessions go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The nodes with what they have, by id.
    pub nodes: Vec<NodeLoad>,
    /// How many moves are due.
    pub due: u64,
}

impl Placement {
    /// Reads it from a state.
    pub fn read(state: &StateMachine) -> Placement {
        Placement {
            nodes: state.session_nodes().collect(),
            due: state.session_moves_due(),
        }
    }
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
    /// Nothing changed: the state machine does not do this.
    #[error(transparent)]
    Declined(#[from] Refusal),
    /// Nothing can be read at the revision.
    #[error(transparent)]
    Unreadable(#[from] ReadError),
    /// The state of this node did not come to the revision that a serializable read wants to see.
    #[error("this node's state has come to revision {reached} only, and the read wants to see {wanted}")]
    Behind {
        /// What the read wants to see.
        wanted: Revision,
        /// How far the state is.
        reached: Revision,
    },
    /// Nothing was appended: keys and values take as much memory as they may.
    #[error(
        "keys and values, with the revisions of them that are kept, take the {limit} bytes that they may"
    )]
    QuotaReached {
        /// How much they may take, in bytes.
        limit: u64,
    },
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
    /// A transaction.
    Transaction,
    /// Another body that is no value.
    Body,
}

impl std::fmt::Display for Oversized {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Oversized::Key => "key",
            Oversized::Value => "value",
            Oversized::Transaction => "transaction",
            Oversized::Body => "body",
        })
    }
}
