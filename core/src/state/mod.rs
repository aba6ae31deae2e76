//! The replicated state machine: one ordered key space that every node builds from the same log.
//!
//! A [`Command`] is what the log carries, a [`Reply`] is what its client hears, and a [`Row`] is a piece of the state
//! that changed and goes to disk. The [`StateMachine`] lives in memory; a driver writes its rows behind, and loads
//! them again after a restart or from a snapshot.
//!
//! Invariants:
//! - the same commands at the same indexes give the same state, replies, rows and fingerprint on every machine:
//!   nothing here depends on time, chance, the machine or the order of a hash map;
//! - the state is exactly its rows and the position up to which it was applied; of these, the rows of stream records are
//!   not in memory but with the driver alone;
//! - a command that this build cannot read is never skipped: the node halts instead.

mod command;
mod fingerprint;
mod history;
mod keys;
mod kv;
mod lease;
mod machine;
mod once;
mod query;
mod range;
mod reply;
mod restore;
mod row;
mod session;
mod settings;
mod space;
mod stream;
mod transaction;
mod version;
mod watch;
mod writer;

pub use command::Command;
pub use kv::{KeyValue, Revision};
pub use lease::{Grant, LEASES_MAX, Lease, LeaseEvent, LeaseId, TTL_MAX};
pub use machine::{Applied, ApplyError, StateMachine};
pub use once::{
    ANSWER_BYTES_MAX, ANSWERS_MAX, CLIENT_ANSWER_BYTES_MAX, ClientId, HOLDERS_MAX, REQUEST_KEY_BYTES_MAX,
    RequestId,
};
pub use query::{Detail, Found, Query, ReadError, Sort, SortBy, Span};
pub use range::KeyRange;
pub use reply::{Malformed, Refusal, Reply};
pub use restore::{RestoreError, Restoring};
pub use row::{Row, RowChange};
pub use session::{
    CAPACITY_DEFAULT, Drain, Epoch, MOVED_AT_ONCE, NodeLoad, Place, Presence, SESSION_ID_BYTES_MAX,
    SESSIONS_MAX, Session, SessionCommand, SessionEvent, SessionId, SessionRefusal, SessionReply,
    SessionStatus,
};
pub use settings::{
    Basis, Demand, Judged, NewSettings, Others, SCHEMA_BYTES_MAX, SECTION_BYTES_MAX, SECTION_NAME_BYTES_MAX,
    SECTION_SETTINGS_MAX, SECTIONS_MAX, SETTING_KEY_BYTES_MAX, SETTING_VALUE_BYTES_MAX, SchemaChange,
    Section, SectionChange, SectionName, SectionSummary, Setting, SettingKey, SettingVersion, SettingsChange,
    SettingsCommand, SettingsPart, SettingsRefusal, SettingsReply,
};
pub use space::Space;
pub use stream::{
    ALL_PARTITIONS_MAX, APPEND_RECORDS_MAX, Append, Cut, DUPLICATES_MAX, Dropped, DuplicateWindow,
    GROUPS_MAX, GroupView, MESSAGE_ID_BYTES_MAX, NewRecord, Offset, PARTITIONS_MAX, PRIORITY_MAX,
    PartitionEnds, PartitionView, Policy, RECORD_KEY_BYTES_MAX, Record, RecordBatch, Run,
    STREAM_NAME_BYTES_MAX, STREAMS_MAX, Start, StreamCommand, StreamId, StreamMalformed, StreamRefusal,
    StreamReply, StreamRetention, StreamSettings, StreamView, is_stream_name, record_key,
};
pub use transaction::{
    Attach, Block, BlockDone, Compare, DEPTH_MAX, DeleteRange, OPERATIONS_MAX, Operand, Operation, Put,
    READ_BYTES_MAX, Relation, Response, Transacted, Transaction,
};
pub use watch::{
    Event, HistoryPage, HistoryQuery, Interest, Kinds, Page, PageLimits, Taken, WatchError, WatchLimits,
    WatcherId, Watches,
};
