//! The types of Quorate's client API: requests, answers and errors, shared by the node and its clients.
//!
//! Field names are part of the interface. Every answer may gain fields; none is renamed or removed. Two rules hold
//! throughout: a node's name that is a number is written as a JSON number ([`NodeName`]), and bytes that are not
//! valid UTF-8 are written as base64 under the field's name with `_base64` at its end ([`KeyValue`]).

/// Declares that a type looks in JSON as another one, which does not leave this crate.
macro_rules! looks_as {
    ($type:ident, $json:ty) => {
        #[cfg(feature = "schema")]
        impl utoipa::PartialSchema for $type {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                <$json as utoipa::PartialSchema>::schema()
            }
        }

        #[cfg(feature = "schema")]
        impl utoipa::ToSchema for $type {
            fn schemas(schemas: &mut Vec<(String, utoipa::openapi::RefOr<utoipa::openapi::Schema>)>) {
                <$json as utoipa::ToSchema>::schemas(schemas);
            }
        }
    };
}

mod cluster;
mod kv;
mod lease;
mod name;
pub mod native;
mod problem;
mod record;
#[cfg(feature = "schema")]
mod schema;
mod session;
mod settings;
mod stream;
mod text;
mod txn;
mod watch;

pub use cluster::{
    AddMember, ClusterBrief, ClusterHealth, ClusterStatus, Health, HealthStatus, Leadership, MemberChanged,
    Mode, NodeHealth, NodeView, NodesAnswer, OnlyHere, PeerStatus, Readiness, Role, StepDownRequest,
};
pub use kv::{
    CompactAnswer, CompactRequest, Consistency, DeleteAnswer, DeleteRangeAnswer, KeyValue, ListAnswer, Order,
    PutAnswer, SortBy,
};
pub use lease::{
    GrantRequest, KEEP_ALIVES_MAX, KeepAliveAnswer, KeepAliveRequest, LeaseAnswer, LeaseView, LeasesAnswer,
    RevokeAnswer,
};
pub use name::{NameError, NodeName};
pub use problem::{PROBLEM_CONTENT_TYPE, Problem, ProblemCode};
pub use record::{NewRecord, StreamRecord};
pub use session::{
    CapacityRequest, CreateSession, DrainAnswer, DrainRequest, PlacementChanged, RebalanceAnswer,
    SessionChange, SessionEnded, SessionNews, SessionRoute, SessionStatus, SessionView, SessionsAnswer,
    TouchSession, payload_in_json, payload_of,
};
pub use settings::{
    DifferenceKind, ImportAnswer, SchemaChanged, SectionAnswer, SectionDocument, SectionInfo, SectionsAnswer,
    SettingAnswer, SettingDifference, SettingEntry, SettingHistory, SettingVersion, SettingsChange,
    SettingsChanged, SettingsDocument, SettingsNews,
};
pub use stream::{
    AppendAnswer, AppendRequest, CommitCursor, CommitRequest, CreateGroup, CreateStream, Deleted,
    DeletedByPolicy, DuplicateWindow, FetchAnswer, GroupChanged, GroupCursor, GroupDeleted, GroupInfo,
    GroupStart, GroupsAnswer, LINES_CONTENT_TYPE, PartitionInfo, Placed, RecordsAnswer, StreamDeleted,
    StreamInfo, StreamRetention, StreamsAnswer, TailBatch, TailLine, TailMark, TailPosition, tail_events,
};
pub use text::KeyName;
pub use txn::{
    TxnAnswer, TxnCompare, TxnDelete, TxnDeleted, TxnFound, TxnGet, TxnKeys, TxnOperand, TxnOperation,
    TxnPut, TxnPutDone, TxnRelation, TxnRequest, TxnResponse, TxnTaken,
};
pub use watch::{EVENT_STREAM_CONTENT_TYPE, WatchChange, WatchEvent, WatchMark, events};

/// Headers of requests, and those that carry what a raw answer to `GET /v1/kv/{key}` leaves out.
pub mod headers {
    /// A key of the client's choice under which a write is carried out once.
    pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
    /// The lease with which the key goes.
    pub const LEASE: &str = "quorate-lease";
    /// The revision that wrote the value, which a compare-and-set names.
    pub const REVISION: &str = "quorate-revision";
    /// The revision that created the key.
    pub const CREATE_REVISION: &str = "quorate-create-revision";
    /// How many times the key was written since it was created.
    pub const VERSION: &str = "quorate-version";
}
