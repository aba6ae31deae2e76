//! Errors: `application/problem+json` (RFC 9457) with a stable code.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The content type of a [`Problem`].
pub const PROBLEM_CONTENT_TYPE: &str = "application/problem+json";

/// Why a request failed.
///
/// `code` is stable and meant for programs; `detail` and `action` are meant for people and may change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Problem {
    /// Names the kind of problem; `urn:quorate:problem:` and the code.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind of problem in a few words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// The stable code.
    pub code: ProblemCode,
    /// What happened, to what.
    pub detail: String,
    /// What to do about it.
    pub action: String,
    /// The limit that was exceeded, in its unit (bytes for sizes).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// When to try again, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
    /// The revision that a compare-and-set found instead of the expected one; 0 when there is no such key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_revision: Option<u64>,
    /// The oldest revision that can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_revision: Option<u64>,
    /// The latest revision that there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest_revision: Option<u64>,
    /// The first offset of the partition that is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_offset: Option<u64>,
    /// The offset of the partition's next record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_offset: Option<u64>,
    /// The leader's client address, where that would help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
    /// The title again, where another product's clients look for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

macro_rules! codes {
    ($($(#[doc = $documentation:literal])* $name:ident = $text:literal, $status:literal, $title:literal;)*) => {
        /// The stable code of a [`Problem`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[non_exhaustive]
        pub enum ProblemCode {
            $($(#[doc = $documentation])* #[serde(rename = $text)] $name,)*
            /// A code that this version does not know.
            #[serde(other, rename = "other")]
            Other,
        }

        impl ProblemCode {
            /// Every code that a node answers.
            pub const ALL: &[ProblemCode] = &[$(ProblemCode::$name),*];

            /// What it means, in a sentence.
            pub fn meaning(self) -> &'static str {
                let text = match self {
                    $(ProblemCode::$name => concat!($($documentation),*),)*
                    ProblemCode::Other => " A code that this version does not know.",
                };
                text.trim_ascii()
            }

            /// The code as it is written.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(ProblemCode::$name => $text,)*
                    ProblemCode::Other => "other",
                }
            }

            /// The HTTP status it usually comes with.
            pub fn status(self) -> u16 {
                match self {
                    $(ProblemCode::$name => $status,)*
                    ProblemCode::Other => 500,
                }
            }

            /// The kind of problem in a few words.
            pub fn title(self) -> &'static str {
                match self {
                    $(ProblemCode::$name => $title,)*
                    ProblemCode::Other => "Error",
                }
            }
        }
    };
}

codes! {
    /// A parameter, header or body does not say what it should.
    BadRequest = "bad_request", 400, "Bad request";
    /// There is nothing at the path.
    NotFound = "not_found", 404, "Not found";
    /// There is no such key.
    KeyNotFound = "key_not_found", 404, "Key not found";
    /// There is no such member.
    MemberNotFound = "member_not_found", 404, "Member not found";
    /// There is no such lease: it was never granted, was revoked, or ran out; nothing changed.
    LeaseNotFound = "lease_not_found", 404, "Lease not found";
    /// There is no such session; nothing changed.
    SessionNotFound = "session_not_found", 404, "Session not found";
    /// There is no such section of settings; nothing changed.
    SectionNotFound = "section_not_found", 404, "Section not found";
    /// There is no such setting; nothing changed.
    SettingNotFound = "setting_not_found", 404, "Setting not found";
    /// The section has no schema; nothing changed.
    SchemaNotFound = "schema_not_found", 404, "Schema not found";
    /// Settings would not fit the schema of their section; nothing changed.
    SchemaMismatch = "schema_mismatch", 422, "Schema mismatch";
    /// The section kept changing while its new values were compared with its schema; nothing changed.
    SectionChanged = "section_changed", 409, "Section changed";
    /// What was to be a schema is none; nothing changed.
    InvalidSchema = "invalid_schema", 422, "Invalid schema";
    /// There is no such stream; nothing changed.
    StreamNotFound = "stream_not_found", 404, "Stream not found";
    /// The stream has no such partition; nothing changed.
    PartitionNotFound = "partition_not_found", 404, "Partition not found";
    /// The stream has no such consumer group; nothing changed.
    GroupNotFound = "group_not_found", 404, "Consumer group not found";
    /// A stream of this name exists; nothing changed.
    StreamExists = "stream_exists", 409, "Stream exists";
    /// A consumer group of this name exists; nothing changed.
    GroupExists = "group_exists", 409, "Consumer group exists";
    /// The offset is beyond the end of its partition; nothing changed.
    FutureOffset = "future_offset", 409, "Future offset";
    /// The record at the offset was dropped by retention.
    OffsetDeleted = "offset_deleted", 410, "Offset deleted";
    /// A transaction is none; nothing changed.
    MalformedTransaction = "malformed_transaction", 400, "Malformed transaction";
    /// The path does not take the method.
    MethodNotAllowed = "method_not_allowed", 405, "Method not allowed";
    /// A compare-and-set found another revision; nothing changed.
    RevisionConflict = "revision_conflict", 409, "Revision conflict";
    /// A lease of this id exists; nothing changed.
    LeaseExists = "lease_exists", 409, "Lease exists";
    /// A session of this id exists; nothing changed.
    SessionExists = "session_exists", 409, "Session exists";
    /// The session was given to another owner since; nothing changed.
    StaleEpoch = "stale_epoch", 409, "Stale epoch";
    /// No node has room for another session; nothing changed.
    NoRoom = "no_room", 507, "No room";
    /// There is no such revision yet.
    FutureRevision = "future_revision", 409, "Future revision";
    /// What the keys were at the revision is no longer kept.
    Compacted = "compacted", 410, "Compacted";
    /// Another request was made under this idempotency key; nothing changed.
    IdempotencyKeyReused = "idempotency_key_reused", 422, "Idempotency key reused";
    /// The state is as large as it may be, or there are as many leases as there may be; nothing changed.
    QuotaReached = "quota_reached", 507, "Quota reached";
    /// The node's state was replaced by one that is behind what a watcher may have heard of.
    StateReplaced = "state_replaced", 410, "State replaced";
    /// The node is a witness and holds no data that could be read.
    Witness = "witness", 421, "No data here";
    /// The cluster refuses the operation; nothing changed.
    Refused = "refused", 409, "Refused";
    /// The key is longer than the limit.
    KeyTooLarge = "key_too_large", 413, "Key too large";
    /// The value is longer than the limit.
    ValueTooLarge = "value_too_large", 413, "Value too large";
    /// The body is longer than the limit.
    BodyTooLarge = "body_too_large", 413, "Body too large";
    /// The request was too slow in coming.
    RequestTimeout = "request_timeout", 408, "Request too slow";
    /// The node broke one of its own rules.
    Internal = "internal", 500, "Internal error";
    /// The cluster has no leader, or this node cannot reach it; nothing was appended.
    NoLeader = "no_leader", 503, "No leader available";
    /// The node has known no leader for a while and is read-only; nothing was appended.
    QuorumLost = "quorum_lost", 503, "Read-only";
    /// Another node leads; nothing was appended.
    NotLeader = "not_leader", 307, "Not the leader";
    /// Too much is under way; nothing was appended.
    Busy = "busy", 503, "Busy";
    /// The node has as many connections as it takes; nothing was read.
    TooManyConnections = "too_many_connections", 503, "Too many connections";
    /// The node has as many watchers as it takes.
    TooManyWatchers = "too_many_watchers", 503, "Too many watchers";
    /// The node cannot serve: it starts, stops, is no member, or its disk failed; nothing was appended.
    Unavailable = "unavailable", 503, "Unavailable";
    /// No answer in time; nothing was appended.
    TimedOut = "timed_out", 504, "Timed out";
    /// The write was appended and its fate is not known: it may be applied, now or later, or never.
    UnknownOutcome = "unknown_outcome", 504, "Outcome unknown";
}

impl ProblemCode {
    /// Whether the request certainly changed nothing and may succeed when it is repeated.
    pub fn is_safe_to_retry(self) -> bool {
        matches!(
            self,
            ProblemCode::NoLeader
                | ProblemCode::QuorumLost
                | ProblemCode::NotLeader
                | ProblemCode::Busy
                | ProblemCode::SectionChanged
                | ProblemCode::TooManyConnections
                | ProblemCode::TooManyWatchers
                | ProblemCode::Unavailable
                | ProblemCode::TimedOut
                | ProblemCode::Witness
        )
    }
}

impl fmt::Display for ProblemCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl Problem {
    /// A problem with its code's title and status, what happened, and what to do.
    pub fn new(code: ProblemCode, detail: impl Into<String>, action: impl Into<String>) -> Problem {
        Problem {
            kind: format!("urn:quorate:problem:{code}"),
            title: code.title().to_owned(),
            status: code.status(),
            code,
            detail: detail.into(),
            action: action.into(),
            limit: None,
            retry_after: None,
            current_revision: None,
            oldest_revision: None,
            latest_revision: None,
            first_offset: None,
            next_offset: None,
            leader: None,
            error: None,
        }
    }

    /// With the limit that was exceeded.
    #[must_use]
    pub fn with_limit(mut self, limit: u64) -> Problem {
        self.limit = Some(limit);
        self
    }

    /// With the time after which to try again, in seconds.
    #[must_use]
    pub fn with_retry_after(mut self, seconds: u64) -> Problem {
        self.retry_after = Some(seconds);
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.detail)?;
        if !self.action.is_empty() {
            write!(formatter, " ({})", self.action)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_of_a_later_version_is_read_as_other() {
        let json = r#"{"type":"t","title":"T","status":418,"code":"brewing","detail":"d","action":"a"}"#;
        let problem: Problem = serde_json::from_str(json).unwrap();
        assert_eq!(problem.code, ProblemCode::Other);
        assert_eq!(problem.status, 418);
    }

    #[test]
    fn an_unknown_outcome_is_never_safe_to_retry() {
        assert!(!ProblemCode::UnknownOutcome.is_safe_to_retry());
        assert!(!ProblemCode::Internal.is_safe_to_retry());
        assert!(!ProblemCode::Other.is_safe_to_retry());
        assert!(ProblemCode::NoLeader.is_safe_to_retry());
    }

    #[test]
    fn fields_without_a_value_are_left_out() {
        let problem = Problem::new(ProblemCode::ValueTooLarge, "d", "a").with_limit(7);
        let json = serde_json::to_value(problem).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "type": "urn:quorate:problem:value_too_large", "title": "Value too large", "status": 413,
                "code": "value_too_large", "detail": "d", "action": "a", "limit": 7
            })
        );
    }
}
