//! Leases: `/v1/leases`.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use http::{HeaderMap, Uri};
use quorate_api::{
    Consistency, GrantRequest, KEEP_ALIVES_MAX, KeepAliveAnswer, KeepAliveRequest, KeyName, LeaseAnswer,
    LeaseView, LeasesAnswer, RevokeAnswer,
};
use quorate_core::state::{Command, LeaseId, Refusal, Reply};

use super::Shared;
use super::answer::{Failure, json};
use super::backend::BackendError;
use super::openapi::parameters::{Carrying, Freshness};
use super::openapi::problems::problems;
use super::query::Query;
use super::requests::{Change, Read, misdirected};
use super::words::milliseconds;

/// Leases in a listing that names no limit, and the most it may name.
const LIMIT_DEFAULT: usize = 1000;
const LIMIT_MAX: usize = 10_000;

problems! {
    GrantProblems = WRITE BODY [LeaseExists];
}

/// Grants a lease.
#[utoipa::path(
    post, path = "/v1/leases", operation_id = "grantLease", tag = "leases",
    params(
        Carrying,
    ),
    request_body(content = GrantRequest),
    responses(
        (status = 200, description = "The lease", body = LeaseAnswer),
        GrantProblems,
    ),
)]
pub(super) async fn grant(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let query = Query::parse(uri.query(), &["redirect"])?;
    let change = Change::read(&query, &headers, &uri)?;
    let request: GrantRequest = shared.read_json(&headers, body, r#"{"ttl_ms": 10000}"#).await?;
    let command = Command::Grant {
        lease: request.id.map(lease_id).transpose()?,
        ttl: Duration::from_millis(request.ttl_ms),
    };
    let _admitted = shared.admit(0)?;
    match shared.change(command, change).await? {
        Reply::Granted { lease, ttl } => Ok(json(&lease_answer(lease, ttl))),
        _ => Err(Failure::unexpected_reply()),
    }
}

problems! {
    ListProblems = READ [];
}

/// Lists leases.
#[utoipa::path(
    get, path = "/v1/leases", operation_id = "listLeases", tag = "leases",
    params(
        ("after" = Option<u64>, Query, description = "Only leases after this id"),
        ("limit" = Option<u64>, Query, description = "How many at the most; 1,000 when it is left out",
            minimum = 1, maximum = 10_000),
        Freshness,
    ),
    responses(
        (status = 200, description = "The leases", body = LeasesAnswer),
        ListProblems,
    ),
)]
pub(super) async fn list(State(shared): State<Arc<Shared>>, uri: Uri) -> Result<Response, Failure> {
    let query = Query::parse(uri.query(), &["consistency", "min_revision", "after", "limit"])?;
    let limit = query.limit(LIMIT_DEFAULT, LIMIT_MAX)?;
    let after = query
        .value("after", "the id of a lease")?
        .map(lease_id)
        .transpose()?;
    let options = shared.read_options(Read::of(&query, &uri)?);
    let _admitted = shared.admit(0)?;
    let leases = shared
        .until_leader(options.deadline, false, || {
            shared.backend.leases(after, limit + 1, options)
        })
        .await
        .map_err(|error| misdirected(error, &uri))?;
    Ok(json(&LeasesAnswer {
        more: leases.len() > limit,
        leases: leases
            .into_iter()
            .take(limit)
            .map(|(lease, grant)| lease_answer(lease, grant.ttl))
            .collect(),
    }))
}

problems! {
    ShowProblems = READ [LeaseNotFound];
}

/// Describes a lease.
#[utoipa::path(
    get, path = "/v1/leases/{id}", operation_id = "getLease", tag = "leases",
    params(
        ("id" = u64, Path, description = "The id of a lease"),
        Freshness,
    ),
    responses(
        (status = 200, description = "The lease and its keys", body = LeaseView),
        ShowProblems,
    ),
)]
pub(super) async fn show(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let query = Query::parse(uri.query(), &["consistency", "min_revision"])?;
    let id = named(&id)?;
    let read = Read::of(&query, &uri)?;
    let options = shared.read_options(read);
    let _admitted = shared.admit(0)?;
    let remaining = match read.consistency() {
        Consistency::Serializable => None,
        Consistency::Linearizable | Consistency::Lease => Some(shared.lease_time(id, false, &uri).await?),
    };
    let lease = shared
        .until_leader(options.deadline, false, || shared.backend.lease(id, options))
        .await
        .map_err(|error| misdirected(error, &uri))?
        .ok_or_else(|| gone(id))?;
    Ok(json(&LeaseView {
        id: id.get(),
        ttl_ms: milliseconds(lease.grant.ttl),
        remaining_ms: remaining.map(milliseconds),
        keys: lease.keys.into_iter().map(KeyName).collect(),
    }))
}

problems! {
    RevokeProblems = WRITE [LeaseNotFound];
}

/// Revokes a lease, with which its keys go.
#[utoipa::path(
    delete, path = "/v1/leases/{id}", operation_id = "revokeLease", tag = "leases",
    params(
        ("id" = u64, Path, description = "The id of a lease"),
        Carrying,
    ),
    responses(
        (status = 200, description = "The lease and its keys are gone", body = RevokeAnswer),
        RevokeProblems,
    ),
)]
pub(super) async fn revoke(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let query = Query::parse(uri.query(), &["redirect"])?;
    let change = Change::read(&query, &headers, &uri)?;
    let lease = named(&id)?;
    let _admitted = shared.admit(0)?;
    match shared.change(Command::Revoke { lease }, change).await? {
        Reply::Revoked {
            revision, deleted, ..
        } => Ok(json(&RevokeAnswer {
            revision: revision.0,
            deleted,
        })),
        _ => Err(Failure::unexpected_reply()),
    }
}

problems! {
    KeepAliveProblems = READ [LeaseNotFound];
}

/// Keeps a lease alive.
#[utoipa::path(
    post, path = "/v1/leases/{id}/keep-alive", operation_id = "keepLeaseAlive", tag = "leases",
    params(
        ("id" = u64, Path, description = "The id of a lease"),
    ),
    responses(
        (status = 200, description = "The lease lasts anew, from when the request came", body = LeaseAnswer),
        KeepAliveProblems,
    ),
)]
pub(super) async fn keep_alive(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    Query::parse(uri.query(), &[])?;
    let id = named(&id)?;
    let _admitted = shared.admit_keep_alive()?;
    let ttl = shared.lease_time(id, true, &uri).await?;
    Ok(json(&lease_answer(id, ttl)))
}

problems! {
    KeepManyAliveProblems = READ BODY [];
}

/// Keeps many leases alive, up to 1,000 of them.
#[utoipa::path(
    post, path = "/v1/leases/keep-alive", operation_id = "keepLeasesAlive", tag = "leases",
    request_body(content = KeepAliveRequest),
    responses(
        (status = 200, description = "Those that last, and those that are gone", body = KeepAliveAnswer),
        KeepManyAliveProblems,
    ),
)]
pub(super) async fn keep_many_alive(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    Query::parse(uri.query(), &[])?;
    let _admitted = shared.admit_keep_alive()?;
    let request: KeepAliveRequest = shared.read_json(&headers, body, r#"{"leases": [7, 8]}"#).await?;
    if request.leases.len() > KEEP_ALIVES_MAX {
        return Err(Failure::bad_request(
            format!("the request names {} leases", request.leases.len()),
            format!("keep at most {KEEP_ALIVES_MAX} alive at a time"),
        ));
    }
    let leases: Vec<LeaseId> = request
        .leases
        .into_iter()
        .map(lease_id)
        .collect::<Result<_, _>>()?;
    let times = shared.lease_times(leases.clone(), true, &uri).await?;
    let mut answer = KeepAliveAnswer::default();
    for (lease, ttl) in leases.into_iter().zip(times) {
        match ttl {
            Some(ttl) => answer.leases.push(lease_answer(lease, ttl)),
            None => answer.gone.push(lease.get()),
        }
    }
    Ok(json(&answer))
}

impl Shared {
    /// How long a lease lasts, renewed or not.
    async fn lease_time(&self, lease: LeaseId, renew: bool, uri: &Uri) -> Result<Duration, Failure> {
        let times = self.lease_times(vec![lease], renew, uri).await?;
        times.into_iter().next().flatten().ok_or_else(|| gone(lease))
    }

    async fn lease_times(
        &self,
        leases: Vec<LeaseId>,
        renew: bool,
        uri: &Uri,
    ) -> Result<Vec<Option<Duration>>, Failure> {
        let deadline = self.deadline();
        self.until_leader(deadline, false, || {
            self.backend.lease_times(leases.clone(), renew, deadline)
        })
        .await
        .map_err(|error| misdirected(error, uri))
    }
}

fn gone(lease: LeaseId) -> Failure {
    BackendError::Declined(Refusal::NoSuchLease(lease)).into()
}

fn named(text: &str) -> Result<LeaseId, Failure> {
    let id = text.parse().map_err(|_| {
        let detail = format!("`{text}` is no id of a lease");
        Failure::bad_request(detail, "expected a number; GET /v1/leases lists the leases")
    })?;
    lease_id(id)
}

fn lease_id(number: u64) -> Result<LeaseId, Failure> {
    LeaseId::new(number)
        .ok_or_else(|| Failure::bad_request("no lease is called 0", "expected a number that is not 0"))
}

fn lease_answer(lease: LeaseId, ttl: Duration) -> LeaseAnswer {
    LeaseAnswer {
        id: lease.get(),
        ttl_ms: milliseconds(ttl),
    }
}
