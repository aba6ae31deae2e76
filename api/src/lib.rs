//! The types of Quorate's client API: requests, answers and errors, shared by the node and its clients.
//!
//! Field names are part of the interface. Every answer may gain fields; none is renamed or removed. Two rules hold
//! throughout: a node's name that is a number is written as a JSON number ([`NodeName`]), and bytes that are not
//! valid UTF-8 are written as base64 under the field's name with `_base64` at its end ([`KeyValue`]).

mod cluster;
mod kv;
mod name;
mod problem;
mod text;
mod watch;

pub use cluster::{
    AddMember, ClusterBrief, ClusterHealth, ClusterStatus, Health, HealthStatus, Leadership, MemberChanged,
    Mode, NodeHealth, NodeView, NodesAnswer, OnlyHere, PeerStatus, Readiness, Role, StepDownRequest,
};
pub use kv::{Consistency, DeleteAnswer, KeyValue, ListAnswer, PutAnswer};
pub use name::{NameError, NodeName};
pub use problem::{PROBLEM_CONTENT_TYPE, Problem, ProblemCode};
pub use text::KeyName;
pub use watch::{EVENT_STREAM_CONTENT_TYPE, WatchChange, WatchEvent, WatchMark, events};

/// The headers that carry what a raw answer to `GET /v1/kv/{key}` leaves out.
pub mod headers {
    /// The revision that wrote the value, which a compare-and-set names.
    pub const REVISION: &str = "quorate-revision";
    /// The revision that created the key.
    pub const CREATE_REVISION: &str = "quorate-create-revision";
    /// How many times the key was written since it was created.
    pub const VERSION: &str = "quorate-version";
}
