//! Sessions: `/v1/sessions`, and the same at `/sessions`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, Uri};
use quorate_api::{
    CreateSession, NodeName, SessionEnded, SessionRoute, SessionView, SessionsAnswer, TouchSession,
    payload_in_json, payload_of,
};
use quorate_core::raft::{Membership, NodeId};
use quorate_core::state::{
    Command, Epoch, Reply, Revision, Session, SessionCommand, SessionId, SessionRefusal, SessionReply,
    SessionStatus,
};

use super::Shared;
use super::answer::{Failure, json};
use super::backend::{BackendError, Oversized};
use super::openapi::parameters::{Carrying, Freshness};
use super::openapi::problems::problems;
use super::query::Query;
use super::requests::{Change, Read, misdirected};

/// Sessions in a listing that names no limit, and the most it may name.
const LIMIT_DEFAULT: usize = 1000;
const LIMIT_MAX: usize = 10_000;
/// About how many bytes of payloads a listing has.
const LISTED_BYTES: usize = 8 << 20;
/// How long the name of a client may be, in bytes.
const CLIENT_BYTES_MAX: usize = 1024;

problems! {
    CreateProblems = WRITE BODY [SessionExists, NoRoom, ValueTooLarge];
}

/// Creates a session on a node that has room for it.
#[utoipa::path(
    post, path = "/v1/sessions", operation_id = "createSession", tag = "sessions",
    params(
        Carrying,
    ),
    request_body(content = Option<CreateSession>),
    responses(
        (status = 200, description = "The session and its owner", body = SessionView),
        CreateProblems,
    ),
)]
pub(super) async fn create(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let query = Query::parse(uri.query(), &["redirect"])?;
    let change = Change::read(&query, &headers, &uri)?;
    let request: CreateSession = shared
        .read_optional_json(&headers, body)
        .await?
        .unwrap_or_default();
    if request.client.len() > CLIENT_BYTES_MAX {
        let detail = format!("the client has {} bytes", request.client.len());
        return Err(Failure::bad_request(
            detail,
            format!("expected at most {CLIENT_BYTES_MAX}"),
        ));
    }
    let payload = shared.payload(payload_of(&request.payload, &request.payload_base64))?;
    let _admitted = shared.admit(payload.as_ref().map_or(0, Bytes::len))?;
    let command = SessionCommand::Create {
        session: request.session_id.as_deref().map(session_id).transpose()?,
        client: request.client,
        payload: payload.unwrap_or_default(),
        now_ms: shared.now_ms(),
    };
    shared.wait_for_hosts().await;
    shared.change_session(command, change).await
}

problems! {
    ListProblems = READ [MemberNotFound];
}

/// Lists sessions.
#[utoipa::path(
    get, path = "/v1/sessions", operation_id = "listSessions", tag = "sessions",
    params(
        ("node" = Option<String>, Query, description = "Only those of this node"),
        ("after" = Option<String>, Query, description = "Only sessions after this id"),
        ("limit" = Option<u64>, Query, description = "How many at the most; 1,000 when it is left out",
            minimum = 1, maximum = 10_000),
        Freshness,
    ),
    responses(
        (status = 200, description = "The sessions", body = SessionsAnswer),
        ListProblems,
    ),
)]
pub(super) async fn list(State(shared): State<Arc<Shared>>, uri: Uri) -> Result<Response, Failure> {
    let query = Query::parse(
        uri.query(),
        &["consistency", "min_revision", "node", "after", "limit"],
    )?;
    let limit = query.limit(LIMIT_DEFAULT, LIMIT_MAX)?;
    let after: Option<String> = query.value("after", "the id of a session")?;
    let after = after.as_deref().map(session_id).transpose()?;
    let members = shared.backend.members()?;
    let node: Option<String> = query.value("node", "the name of a node")?;
    let owner = node.as_deref().map(|name| member(&members, name)).transpose()?;
    let options = shared.read_options(Read::of(&query, &uri)?);
    let _admitted = shared.admit(0)?;
    let read = shared
        .until_leader(options.deadline, false, || {
            shared
                .backend
                .sessions(after.clone(), owner, limit + 1, LISTED_BYTES, options)
        })
        .await
        .map_err(|error| misdirected(error, &uri))?;
    let more = read.more || read.sessions.len() > limit;
    Ok(json(&SessionsAnswer {
        revision: read.revision.0,
        sessions: read
            .sessions
            .into_iter()
            .take(limit)
            .map(|session| view(Some(&members), session))
            .collect(),
        more,
    }))
}

problems! {
    ShowProblems = READ [SessionNotFound];
}

/// Describes a session.
#[utoipa::path(
    get, path = "/v1/sessions/{id}", operation_id = "getSession", tag = "sessions",
    params(
        ("id" = String, Path, description = "The id of a session"),
        Freshness,
    ),
    responses(
        (status = 200, description = "The session", body = SessionView),
        ShowProblems,
    ),
)]
pub(super) async fn show(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let session = shared.session(&id, &uri).await?;
    Ok(json(&view(Some(&shared.backend.members()?), session)))
}

problems! {
    RouteProblems = READ [SessionNotFound];
}

/// Says where the owner of a session is.
#[utoipa::path(
    get, path = "/v1/sessions/{id}/route", operation_id = "routeSession", tag = "sessions",
    params(
        ("id" = String, Path, description = "The id of a session"),
        Freshness,
    ),
    responses(
        (status = 200, description = "The owner and its address", body = SessionRoute),
        RouteProblems,
    ),
)]
pub(super) async fn route(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let session = shared.session(&id, &uri).await?;
    let members = shared.backend.members()?;
    let owner = members.members().get(&session.owner);
    let name = node_name(&members, session.owner);
    let (Some(owner), Some(node_id)) = (owner, name) else {
        let detail = format!("the owner of session {id} is no member any more");
        return Err(BackendError::Unavailable(detail).into());
    };
    Ok(json(&SessionRoute {
        redirect_url: format!("http://{}/v1/sessions/{}", owner.client_address, session.id),
        session_id: session.id.to_string(),
        node_id,
        epoch: session.epoch.0.0,
        node_address: owner.client_address.clone(),
    }))
}

problems! {
    TouchProblems = WRITE BODY [SessionNotFound, StaleEpoch, ValueTooLarge];
}

/// Touches a session: it is active, and may carry another payload.
#[utoipa::path(
    post, path = "/v1/sessions/{id}/touch", operation_id = "touchSession", tag = "sessions",
    params(
        ("id" = String, Path, description = "The id of a session"),
        Carrying,
    ),
    request_body(content = Option<TouchSession>),
    responses(
        (status = 200, description = "The session", body = SessionView),
        TouchProblems,
    ),
)]
pub(super) async fn touch(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
    Path(id): Path<String>,
    body: Body,
) -> Result<Response, Failure> {
    let query = Query::parse(uri.query(), &["redirect"])?;
    let change = Change::read(&query, &headers, &uri)?;
    let session = session_id(&id)?;
    let request: TouchSession = shared
        .read_optional_json(&headers, body)
        .await?
        .unwrap_or_default();
    let payload = shared.payload(payload_of(&request.payload, &request.payload_base64))?;
    let _admitted = shared.admit(payload.as_ref().map_or(0, Bytes::len))?;
    let command = SessionCommand::Touch {
        session,
        epoch: request.epoch.map(epoch),
        payload,
        now_ms: shared.now_ms(),
    };
    shared.change_session(command, change).await
}

problems! {
    DeleteProblems = WRITE [SessionNotFound, StaleEpoch];
}

/// Ends a session.
#[utoipa::path(
    delete, path = "/v1/sessions/{id}", operation_id = "deleteSession", tag = "sessions",
    params(
        ("id" = String, Path, description = "The id of a session"),
        ("epoch" = Option<u64>, Query, description = "Only in this epoch"),
        Carrying,
    ),
    responses(
        (status = 200, description = "The session is over", body = SessionEnded),
        DeleteProblems,
    ),
)]
pub(super) async fn delete(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let query = Query::parse(uri.query(), &["redirect", "epoch"])?;
    let change = Change::read(&query, &headers, &uri)?;
    let command = SessionCommand::Delete {
        session: session_id(&id)?,
        epoch: query.value("epoch", "the epoch of a session")?.map(epoch),
    };
    let _admitted = shared.admit(0)?;
    shared.change_session(command, change).await
}

impl Shared {
    /// The time, as sessions tell it.
    fn now_ms(&self) -> u64 {
        let since = self.clock.wall().duration_since(std::time::UNIX_EPOCH);
        let since = since.unwrap_or_default().as_millis();
        u64::try_from(since).unwrap_or(u64::MAX)
    }

    /// A payload that is none too large.
    fn payload(&self, payload: Result<Option<Bytes>, String>) -> Result<Option<Bytes>, Failure> {
        let payload = payload.map_err(|detail| Failure::bad_request(detail, "mend the payload"))?;
        let limit = self.limits.value_bytes;
        match payload {
            Some(payload) if payload.len() > limit => Err(Failure::too_large(Oversized::Value, limit)),
            payload => Ok(payload),
        }
    }

    async fn change_session(&self, command: SessionCommand, change: Change<'_>) -> Result<Response, Failure> {
        match self.change(Command::Session(command), change).await? {
            Reply::Session(SessionReply::Session(session)) => {
                let mut view = view(self.backend.members().ok().as_ref(), session);
                (view.payload, view.payload_base64) = (None, None);
                Ok(json(&view))
            }
            Reply::Session(SessionReply::Deleted {
                revision: Revision(revision),
            }) => Ok(json(&SessionEnded { revision })),
            _ => Err(Failure::unexpected_reply()),
        }
    }

    /// A session that exists, read as the parameters say.
    async fn session(&self, id: &str, uri: &Uri) -> Result<Session, Failure> {
        let query = Query::parse(uri.query(), &["consistency", "min_revision"])?;
        let id = session_id(id)?;
        let options = self.read_options(Read::of(&query, uri)?);
        let _admitted = self.admit(0)?;
        let session = self
            .until_leader(options.deadline, false, || {
                self.backend.session(id.clone(), options)
            })
            .await
            .map_err(|error| misdirected(error, uri))?;
        let gone = || BackendError::Declined(SessionRefusal::NoSuchSession.into()).into();
        session.ok_or_else(gone)
    }
}

fn epoch(number: u64) -> Epoch {
    Epoch(Revision(number))
}

fn session_id(text: &str) -> Result<SessionId, Failure> {
    SessionId::new(text).ok_or_else(|| {
        Failure::bad_request(
            format!("`{text}` is no id of a session"),
            "expected 1 to 128 letters, digits, `-`, `_`, `.` and `:`",
        )
    })
}

/// The member of this name.
pub(super) fn member(members: &Membership, name: &str) -> Result<NodeId, Failure> {
    let found = members.by_name(name).map(|(id, _)| id);
    found.ok_or_else(|| match NodeName::new(name.to_owned()) {
        Ok(name) => BackendError::NoSuchMember(name).into(),
        Err(error) => Failure::bad_request(error.to_string(), "GET /cluster/nodes lists the members"),
    })
}

pub(super) fn node_name(members: &Membership, id: NodeId) -> Option<NodeName> {
    NodeName::new(members.members().get(&id)?.name.clone()).ok()
}

/// A session in the words of the API.
pub(super) fn view(members: Option<&Membership>, session: Session) -> SessionView {
    let (payload, payload_base64) = payload_in_json(&session.payload);
    SessionView {
        session_id: session.id.to_string(),
        node_id: members.and_then(|members| node_name(members, session.owner)),
        epoch: session.epoch.0.0,
        status: match session.status {
            SessionStatus::Placed => quorate_api::SessionStatus::Placed,
            SessionStatus::Active => quorate_api::SessionStatus::Active,
        },
        client: session.client,
        payload,
        payload_base64,
        created_ms: session.created_ms,
        active_ms: session.active_ms,
        create_revision: session.create_revision.0,
        mod_revision: session.mod_revision.0,
    }
}
