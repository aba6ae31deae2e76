//! Watches of sessions: `GET /v1/watch/sessions`, with which an application on a node learns what it is given and loses.
//!
//! It is a watch as of keys ([`watch`](super::watch)), of another space, told in other words.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, Uri};
use quorate_api::{SessionChange, SessionNews};
use quorate_core::raft::{Membership, NodeId};
use quorate_core::state::{Event, Interest, KeyRange, Kinds, Revision, SessionEvent, Space};

use super::Shared;
use super::answer::Failure;
use super::backend::Backend;
use super::openapi::parameters::Following;
use super::openapi::problems::problems;
use super::query::Query;
use super::sessions::{member, node_name, view};
use super::watch::{Words, stream};

problems! {
    WatchProblems = WATCH READ [FutureRevision, MemberNotFound];
}

/// Tells what becomes of sessions, in the eyes of a node or of all.
///
/// Server-sent events: `open` and `progress` with a `WatchMark`, `change` with a `SessionChange`, and `cancel` with a
/// `Problem` at the end. The id of an event is the revision up to which everything was told.
#[utoipa::path(
    get, path = "/v1/watch/sessions", operation_id = "watchSessions", tag = "sessions",
    extensions(("x-server-sent-events" = json!({"open": "WatchMark", "change": "SessionChange", "progress": "WatchMark", "cancel": "Problem"}))),
    params(
        ("node" = Option<String>, Query, description = "In the eyes of this node; what it is given and loses"),
        Following,
    ),
    responses(
        (status = 200, description = "Events, as they happen", content_type = "text/event-stream", body = String),
        WatchProblems,
    ),
)]
pub(super) async fn watch(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let query = Query::parse(uri.query(), &["node", "from_revision", "progress_ms"])?;
    let name: Option<String> = query.value("node", "the name of a node")?;
    let node = match name {
        Some(name) => Some(member(&shared.backend.members()?, &name)?),
        None => None,
    };
    let interest = Interest {
        space: Space::Sessions,
        range: KeyRange::all(),
        kinds: Kinds::ALL,
    };
    let words = SessionWords {
        node,
        backend: Arc::clone(&shared.backend),
    };
    stream(&shared, &uri, interest, &query, &headers, words).await
}

/// What becomes of sessions, in the eyes of a node or of all.
struct SessionWords {
    node: Option<NodeId>,
    /// Knows what nodes are called at present.
    backend: Arc<dyn Backend>,
}

impl Words for SessionWords {
    type Change = SessionChange;

    fn change(&self, revision: Revision, events: &[Arc<Event>], partial: bool) -> Option<SessionChange> {
        let members = self.backend.members().ok();
        let events: Vec<SessionNews> = events
            .iter()
            .filter_map(|event| SessionEvent::of(event, self.node))
            .map(|event| news(members.as_ref(), event))
            .collect();
        (!events.is_empty()).then_some(SessionChange {
            revision: revision.0,
            events,
            partial,
        })
    }
}

/// An event in the words of the API; without members nodes have no names.
fn news(members: Option<&Membership>, event: SessionEvent) -> SessionNews {
    let view = |session| view(members, session);
    match event {
        SessionEvent::Given(session) => SessionNews::Given {
            session: view(session),
        },
        SessionEvent::Updated(session) => SessionNews::Updated {
            session: view(session),
        },
        SessionEvent::Lost { before, now } => SessionNews::Lost {
            session_id: before.id.to_string(),
            epoch: before.epoch.0.0,
            node_id: now.and_then(|now| node_name(members?, now.owner)),
        },
    }
}
