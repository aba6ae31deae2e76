//! Sessions in JSON.
//!
//! A payload is text in `payload`, or base64 in `payload_base64` where its bytes are not UTF-8.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::NodeName;
use crate::text::{optional_bytes_of, text_or_base64};

/// The body of `POST /v1/sessions`; all of it may be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateSession {
    /// Its id: 1 to 128 letters, digits, `-`, `_`, `.` and `:`; without it one that is free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// Whose it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub client: String,
    /// What goes with it from owner to owner, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
    /// The same, as base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_base64: Option<String>,
}

/// The body of `POST /v1/sessions/{id}/touch`; all of it may be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct TouchSession {
    /// The epoch in which the owner serves the session: the touch counts in it only, and makes the session active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// What goes with it from now on, as text; without it what did before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
    /// The same, as base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_base64: Option<String>,
}

/// Whether the owner of a session has taken it up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum SessionStatus {
    /// It was given to its owner, which has not touched it in this epoch.
    Placed,
    /// Its owner serves it.
    Active,
}

impl SessionStatus {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            SessionStatus::Placed => "placed",
            SessionStatus::Active => "active",
        }
    }
}

/// A session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct SessionView {
    /// Its id.
    pub session_id: String,
    /// The node that serves it; null when it is no member any more.
    pub node_id: Option<NodeName>,
    /// The fencing token of that owner: it rises with every move.
    pub epoch: u64,
    /// Whether the owner has taken it up.
    pub status: SessionStatus,
    /// Whose it is.
    pub client: String,
    /// What goes with it, as text. Left out of the answers to writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
    /// The same, as base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_base64: Option<String>,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
    /// When it was last made or touched, in milliseconds since 1970.
    pub active_ms: u64,
    /// The revision that made it.
    pub create_revision: u64,
    /// The revision of its latest change.
    pub mod_revision: u64,
}

/// The answer to `GET /v1/sessions`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct SessionsAnswer {
    /// The revision of the state that was read: a watch goes on from the one after it.
    pub revision: u64,
    /// The sessions, by id.
    pub sessions: Vec<SessionView>,
    /// Whether there are more; go on with `after=` and the last id.
    pub more: bool,
}

/// The answer to `DELETE /v1/sessions/{id}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct SessionEnded {
    /// The revision of this change.
    pub revision: u64,
}

/// The answer to `GET /v1/sessions/{id}/route`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct SessionRoute {
    /// The session.
    pub session_id: String,
    /// Its owner.
    pub node_id: NodeName,
    /// The fencing token of that owner.
    pub epoch: u64,
    /// `host:port` of the owner for clients.
    pub node_address: String,
    /// The session at its owner.
    pub redirect_url: String,
}

/// The body of `POST /cluster/nodes/{id}/drain`; all of it may be left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct DrainRequest {
    /// Whether others may get more sessions than they should have.
    #[serde(default)]
    pub force: bool,
}

/// The answer to `POST /cluster/nodes/{id}/drain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct DrainAnswer {
    /// Whether the node has no session left.
    pub success: bool,
    /// How many sessions went to other nodes.
    pub migrated_sessions: u64,
    /// How many are still there.
    pub failed_sessions: u64,
    /// Why they are.
    pub errors: Vec<String>,
}

/// The body of `PUT /cluster/nodes/{id}/capacity`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CapacityRequest {
    /// How many sessions the node may have.
    pub max_sessions: u32,
}

/// The answer to a change of where sessions may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct PlacementChanged {
    /// Always true; a failure is a problem.
    pub success: bool,
    /// The revision after it.
    pub revision: u64,
}

/// The answer to `POST /cluster/rebalance`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct RebalanceAnswer {
    /// Whether no move would level the nodes any further. Otherwise the cluster goes on.
    pub success: bool,
    /// How many sessions moved.
    pub sessions_moved: u64,
    /// Why no sessions were moved; left out when some were, or will be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What became of sessions at one revision, in a watch of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct SessionChange {
    /// The revision.
    pub revision: u64,
    /// The changes, in the order in which they were made.
    pub events: Vec<SessionNews>,
    /// Whether the revision is so large that it comes in parts, and this is not the last one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
}

/// What became of one session, in the eyes of the node that is watched, or of all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum SessionNews {
    /// It is the node's from now on.
    Given {
        /// The session.
        session: SessionView,
    },
    /// It stays the node's, in the same epoch, and something else of it is new.
    Updated {
        /// The session.
        session: SessionView,
    },
    /// It was the node's until now.
    Lost {
        /// The session.
        session_id: String,
        /// The epoch in which it was the node's.
        epoch: u64,
        /// Whose it is now; null when it has ended.
        node_id: Option<NodeName>,
    },
}

/// The bytes of a payload in one of its two forms.
///
/// # Errors
/// When it has both forms, or one that is no base64.
pub fn payload_of(text: &Option<String>, base64: &Option<String>) -> Result<Option<Bytes>, String> {
    let text = text.as_deref().map(Cow::Borrowed);
    optional_bytes_of("payload", text, base64.clone())
}

/// A payload in the form that can hold it.
pub fn payload_in_json(bytes: &[u8]) -> (Option<String>, Option<String>) {
    let (text, base64) = text_or_base64(bytes);
    (text.map(Cow::into_owned), base64)
}

impl SessionNews {
    /// The id of the session.
    pub fn session_id(&self) -> &str {
        match self {
            SessionNews::Given { session } | SessionNews::Updated { session } => &session.session_id,
            SessionNews::Lost { session_id, .. } => session_id,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_has_one_form() {
        let text = Some("text".to_owned());
        assert_eq!(payload_of(&text, &None), Ok(Some(Bytes::from_static(b"text"))));
        assert_eq!(payload_of(&None, &None), Ok(None));
        assert!(payload_of(&text, &Some("/w==".to_owned())).is_err());
        let (text, base64) = payload_in_json(b"\xff");
        assert_eq!(payload_of(&text, &base64), Ok(Some(Bytes::from_static(b"\xff"))));
    }

    #[test]
    fn news_are_written_with_their_kind() {
        let lost = SessionNews::Lost {
            session_id: "one".to_owned(),
            epoch: 7,
            node_id: None,
        };
        let json = serde_json::to_value(&lost).unwrap();
        let expected = serde_json::json!({"type": "lost", "session_id": "one", "epoch": 7, "node_id": null});
        assert_eq!(json, expected);
        assert_eq!(serde_json::from_value::<SessionNews>(json).unwrap(), lost);
    }
}
