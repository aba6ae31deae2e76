//! The cluster: health, status, nodes, members and leadership.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderValue, StatusCode, Uri};
use quorate_api::{AddMember, ClusterBrief, Health, HealthStatus, Mode, NodeName, StepDownRequest};

use super::Shared;
use super::answer::{Failure, json, json_with, with_type};
use super::backend::BackendError;
use super::query::Query;
use super::requests::misdirected;

/// The content type of the OpenMetrics text format, which Prometheus reads.
const METRICS_CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// `GET /health`: 200 as long as the process can answer, `degraded` without a leader.
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

/// `GET /livez`: 200 as long as the process can answer.
pub(super) async fn live() -> Response {
    with_type(StatusCode::OK, "text/plain; charset=utf-8", "ok\n")
}

/// `GET /readyz`: 200 when the node serves linearizable reads and writes, else 503 with the reasons.
pub(super) async fn ready(State(shared): State<Arc<Shared>>) -> Response {
    let readiness = shared.backend.readiness();
    if readiness.ready {
        return json(&readiness);
    }
    let mut response = json_with(StatusCode::SERVICE_UNAVAILABLE, &readiness);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(1));
    response
}

/// `GET /cluster/status`
pub(super) async fn status(State(shared): State<Arc<Shared>>) -> Response {
    json(&shared.backend.status())
}

/// `GET /cluster/nodes`
pub(super) async fn nodes(State(shared): State<Arc<Shared>>) -> Response {
    json(&shared.backend.nodes())
}

/// `GET /metrics`
pub(super) async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    with_type(
        StatusCode::OK,
        METRICS_CONTENT_TYPE,
        shared.backend.metrics_text(),
    )
}

/// `POST /cluster/members`
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

/// `DELETE /cluster/members/{name}`
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

/// `POST /cluster/step-down`
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
