//! The cluster: health, status, nodes, members and leadership.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderValue, StatusCode, Uri};
use quorate_api::{
    AddMember, ClusterBrief, ClusterStatus, Health, HealthStatus, Leadership, MemberChanged, Mode, NodeName,
    NodesAnswer, Problem, Readiness, StepDownRequest,
};

use super::Shared;
use super::answer::{Failure, json, json_with, with_type};
use super::backend::BackendError;
use super::openapi::problems::{AnyProblems, problems};
use super::query::Query;
use super::requests::misdirected;

/// The content type of the OpenMetrics text format, which Prometheus reads.
const METRICS_CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Says how the node does.
///
/// It is 200 as long as the process can answer, and `degraded` without a leader.
#[utoipa::path(
    get, path = "/health", operation_id = "getHealth", tag = "node",
    responses(
        (status = 200, description = "The process answers", body = Health),
        AnyProblems,
    ),
)]
pub(super) async fn health(State(shared): State<Arc<Shared>>) -> Response {
    let status = shared.backend.status();
    let degraded = status.leader.is_none() || status.reason.is_some();
    json(&Health {
        status: if degraded {
            HealthStatus::Degraded
        } else {
            HealthStatus::Healthy
        },
        cluster: ClusterBrief {
            node_id: status.node_id,
            role: status.role,
            leader: status.leader,
            term: status.term,
        },
        mode: status.mode,
        reason: degraded.then(|| {
            let lost = match status.mode {
                Mode::ReadOnly => BackendError::QuorumLost,
                Mode::ReadWrite => BackendError::NoLeader,
            };
            status.reason.unwrap_or_else(|| lost.to_string())
        }),
    })
}

/// Is there: 200 as long as the process can answer.
#[utoipa::path(
    get, path = "/livez", operation_id = "getLiveness", tag = "node",
    responses(
        (status = 200, description = "The process answers", body = String, content_type = "text/plain"),
        AnyProblems,
    ),
)]
pub(super) async fn live() -> Response {
    with_type(StatusCode::OK, "text/plain; charset=utf-8", "ok\n")
}

/// Says whether the node serves linearizable reads and writes.
#[utoipa::path(
    get, path = "/readyz", operation_id = "getReadiness", tag = "node",
    responses(
        (status = 200, description = "It does", body = Readiness),
        (
            status = 503, description = "It does not, for these reasons; or it has too many connections",
            content((Readiness = "application/json"), (Problem = "application/problem+json"))
        ),
    ),
)]
pub(super) async fn ready(State(shared): State<Arc<Shared>>) -> Response {
    let readiness = shared.backend.readiness();
    if readiness.ready {
        return json(&readiness);
    }
    let mut response = json_with(StatusCode::SERVICE_UNAVAILABLE, &readiness);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(1));
    response
}

problems! {
    ViewProblems = ANY [BadRequest];
}

/// Describes the cluster as this node sees it.
#[utoipa::path(
    get, path = "/cluster/status", operation_id = "getStatus", tag = "cluster",
    responses(
        (status = 200, description = "The cluster", body = ClusterStatus),
        ViewProblems,
    ),
)]
pub(super) async fn status(State(shared): State<Arc<Shared>>, uri: Uri) -> Result<Response, Failure> {
    Query::parse(uri.query(), &[])?;
    Ok(json(&shared.backend.status()))
}

/// Lists the members.
#[utoipa::path(
    get, path = "/cluster/nodes", operation_id = "listNodes", tag = "cluster",
    responses(
        (status = 200, description = "The members", body = NodesAnswer),
        ViewProblems,
    ),
)]
pub(super) async fn nodes(State(shared): State<Arc<Shared>>, uri: Uri) -> Result<Response, Failure> {
    Query::parse(uri.query(), &[])?;
    Ok(json(&shared.backend.nodes()))
}

/// Tells the metrics of the node, in the OpenMetrics text format.
#[utoipa::path(
    get, path = "/metrics", operation_id = "getMetrics", tag = "node",
    responses(
        (status = 200, description = "The metrics", body = String, content_type = "application/openmetrics-text"),
        AnyProblems,
    ),
)]
pub(super) async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    with_type(
        StatusCode::OK,
        METRICS_CONTENT_TYPE,
        shared.backend.metrics_text(),
    )
}

problems! {
    AddMemberProblems = MEMBERSHIP BODY [MemberNotFound];
}

/// Adds a member.
///
/// The node must run and be reached. It learns first and votes once it has caught up.
#[utoipa::path(
    post, path = "/cluster/members", operation_id = "addMember", tag = "cluster",
    request_body(content = AddMember),
    responses(
        (status = 200, description = "The node is a member", body = MemberChanged),
        AddMemberProblems,
    ),
)]
pub(super) async fn add_member(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    Query::parse(uri.query(), &[])?;
    let request: AddMember = shared
        .read_json(&headers, body, r#"{"id": 4, "host": "10.0.0.4", "port": 9100}"#)
        .await?;
    let deadline = shared.deadline();
    let changed = shared
        .until_leader(deadline, true, || {
            shared.backend.add_member(request.clone(), deadline)
        })
        .await
        .map_err(|error| misdirected(error, &uri))?;
    Ok(json(&changed))
}

problems! {
    RemoveMemberProblems = MEMBERSHIP [MemberNotFound];
}

/// Removes a member.
#[utoipa::path(
    delete, path = "/cluster/members/{name}", operation_id = "removeMember", tag = "cluster",
    params(
        ("name" = String, Path, description = "The name of a node"),
    ),
    responses(
        (status = 200, description = "The node is no member any more", body = MemberChanged),
        RemoveMemberProblems,
    ),
)]
pub(super) async fn remove_member(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    Path(name): Path<String>,
) -> Result<Response, Failure> {
    Query::parse(uri.query(), &[])?;
    let name = NodeName::new(name)
        .map_err(|error| Failure::bad_request(error.to_string(), "GET /cluster/nodes lists the members"))?;
    let deadline = shared.deadline();
    let changed = shared
        .until_leader(deadline, true, || {
            shared.backend.remove_member(name.clone(), deadline)
        })
        .await
        .map_err(|error| misdirected(error, &uri))?;
    Ok(json(&changed))
}

problems! {
    StepDownProblems = MEMBERSHIP BODY [MemberNotFound];
}

/// Has another node lead.
#[utoipa::path(
    post, path = "/cluster/step-down", operation_id = "stepDown", tag = "cluster",
    request_body(content = Option<StepDownRequest>),
    responses(
        (status = 200, description = "Who led, and who leads", body = Leadership),
        StepDownProblems,
    ),
)]
pub(super) async fn step_down(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    Query::parse(uri.query(), &[])?;
    let request: StepDownRequest = shared
        .read_optional_json(&headers, body)
        .await?
        .unwrap_or_default();
    let deadline = shared.deadline();
    let leadership = shared
        .until_leader(deadline, true, || {
            shared.backend.step_down(request.target_node.clone(), deadline)
        })
        .await
        .map_err(|error| misdirected(error, &uri))?;
    Ok(json(&leadership))
}
