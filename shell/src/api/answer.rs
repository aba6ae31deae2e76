//! Answers and problems as HTTP responses.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use quorate_api::{PROBLEM_CONTENT_TYPE, Problem, ProblemCode};
use quorate_core::state::{LEASES_MAX, Malformed, ReadError, Refusal, SESSIONS_MAX, SessionRefusal};
use serde::Serialize;

use super::backend::{BackendError, Oversized};

/// After how many seconds a client should try again when there was no leader, or too much to do.
const RETRY_AFTER_SECONDS: u64 = 1;

/// A problem on its way to a client.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) problem: Box<Problem>,
    /// Where the request should go instead.
    location: Option<String>,
}

impl Failure {
    pub(super) fn new(code: ProblemCode, detail: impl Into<String>, action: impl Into<String>) -> Failure {
        Problem::new(code, detail, action).into()
    }

    /// A parameter, header or body that does not say what it should.
    pub(super) fn bad_request(detail: impl Into<String>, action: impl Into<String>) -> Failure {
        Failure::new(ProblemCode::BadRequest, detail, action)
    }

    pub(super) fn too_large(what: Oversized, limit: usize) -> Failure {
        BackendError::TooLarge {
            what,
            limit: limit as u64,
        }
        .into()
    }

    /// What would be answered is too large for one answer.
    pub(super) fn too_large_answer(limit: usize) -> Failure {
        Problem::new(
            ProblemCode::BodyTooLarge,
            format!("the settings have more than {limit} bytes together"),
            "nothing changed; read or write one section at a time",
        )
        .with_limit(limit as u64)
        .into()
    }

    /// A compare-and-set that found another revision. Preconditions of HTTP (RFC 9110, section 13) have a status of
    /// their own.
    pub(super) fn conflict(current: u64, precondition: bool) -> Failure {
        let detail = match current {
            0 => "the key does not exist".to_owned(),
            current => format!("the key is at revision {current}, not at the expected one"),
        };
        let action = "nothing changed; read the key again and decide anew";
        let mut problem = Problem::new(ProblemCode::RevisionConflict, detail, action);
        problem.current_revision = Some(current);
        if precondition {
            problem.status = StatusCode::PRECONDITION_FAILED.as_u16();
        }
        problem.into()
    }

    /// A reply of the state machine to another command than the one that was sent.
    pub(super) fn unexpected_reply() -> Failure {
        Failure::new(
            ProblemCode::Internal,
            "the reply is one to another command",
            "this is a mistake in Quorate; please report it",
        )
    }

    /// With the place to send the request to: the same path at the leader.
    pub(super) fn redirected(mut self, path: &str) -> Failure {
        if let Some(leader) = &self.problem.leader {
            self.location = Some(format!("http://{leader}{path}"));
        }
        self
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Failure {
        Failure {
            problem: Box::new(problem),
            location: None,
        }
    }
}

impl From<BackendError> for Failure {
    fn from(error: BackendError) -> Failure {
        let detail = error.to_string();
        let problem = |code, action: &str| Problem::new(code, detail.clone(), action);
        match error {
            BackendError::NoLeader => {
                let action =
                    "try again: a leader is elected once a majority of the voters is up and connected";
                let mut problem =
                    problem(ProblemCode::NoLeader, action).with_retry_after(RETRY_AFTER_SECONDS);
                problem.error = Some(problem.title.clone());
                problem
            }
            BackendError::NoCluster => problem(
                ProblemCode::Unavailable,
                "nothing was done; try again when the node has joined a cluster (GET /readyz says what it waits for), or \
                 try a node of the cluster",
            )
            .with_retry_after(RETRY_AFTER_SECONDS),
            BackendError::QuorumLost => {
                let action = "read with ?consistency=serializable, or try again: writes go on when a majority of the \
                              voters is up and connected";
                problem(ProblemCode::QuorumLost, action).with_retry_after(RETRY_AFTER_SECONDS)
            }
            BackendError::NotLeader { leader } => {
                let mut problem = problem(ProblemCode::NotLeader, "send the request to the leader");
                problem.leader = Some(leader);
                problem
            }
            BackendError::Busy => problem(ProblemCode::Busy, "nothing was done; try again, more slowly")
                .with_retry_after(RETRY_AFTER_SECONDS),
            BackendError::UnknownOutcome => problem(
                ProblemCode::UnknownOutcome,
                "it may be applied, now or later, or never: read the key before writing again, or write with \
                 ?revision=",
            ),
            BackendError::TimedOut => problem(ProblemCode::TimedOut, "nothing was done; try again"),
            BackendError::Unavailable(_) => {
                problem(ProblemCode::Unavailable, "nothing was done; try another node")
                    .with_retry_after(RETRY_AFTER_SECONDS)
            }
            BackendError::Declined(refusal) => declined(refusal),
            BackendError::Unreadable(error) => unreadable(error),
            BackendError::Behind { .. } => problem(
                ProblemCode::TimedOut,
                "try again, or another node, or without ?consistency=serializable",
            ),
            BackendError::QuotaReached { limit } => problem(
                ProblemCode::QuotaReached,
                "nothing changed; delete keys that nobody needs and forget old revisions (POST /v1/compact), which are \
                 taken at all times, or raise limits.state_bytes on every node",
            )
            .with_limit(limit),
            BackendError::NoWatch(why) => super::watch::problem(&why),
            BackendError::Refused(_) => problem(ProblemCode::Refused, "nothing changed"),
            BackendError::Witness => problem(
                ProblemCode::Witness,
                "read from another node, or without ?consistency=serializable to be sent to the leader",
            ),
            BackendError::NoSuchMember(_) => problem(
                ProblemCode::MemberNotFound,
                "GET /cluster/nodes lists the members",
            ),
            BackendError::TooLarge { what, limit } => {
                let code = match what {
                    Oversized::Key => ProblemCode::KeyTooLarge,
                    Oversized::Value => ProblemCode::ValueTooLarge,
                    Oversized::Transaction | Oversized::Body => ProblemCode::BodyTooLarge,
                };
                problem(
                    code,
                    "send less, or raise the limit on every node (limits in its configuration)",
                )
                .with_limit(limit)
            }
        }
        .into()
    }
}

/// Why nothing can be read at a revision, with the revisions at which something can.
fn unreadable(error: ReadError) -> Problem {
    let detail = error.to_string();
    match error {
        ReadError::Compacted { oldest, .. } => {
            let action = "read the latest state, or a revision that is still kept";
            let mut problem = Problem::new(ProblemCode::Compacted, detail, action);
            problem.oldest_revision = Some(oldest.0);
            problem
        }
        ReadError::Future { latest, .. } => {
            let action = "take a revision that an answer of this cluster named";
            let mut problem = Problem::new(ProblemCode::FutureRevision, detail, action);
            problem.latest_revision = Some(latest.0);
            problem
        }
    }
}

/// Why the state machine changed nothing.
fn declined(refusal: Refusal) -> Problem {
    let detail = refusal.to_string();
    let problem = |code, action| Problem::new(code, detail, action);
    match refusal {
        Refusal::Unreadable(error) => unreadable(error),
        Refusal::Malformed(Malformed::EmptyKey | Malformed::TimeToLive | Malformed::RequestKey) => {
            problem(ProblemCode::BadRequest, "nothing changed; mend the request")
        }
        Refusal::Malformed(_) => problem(
            ProblemCode::MalformedTransaction,
            "nothing changed; mend the transaction, or make several of it",
        ),
        Refusal::NothingToKeep => problem(
            ProblemCode::KeyNotFound,
            "nothing changed; write the key without lease=keep",
        ),
        Refusal::NoSuchLease(_) => problem(
            ProblemCode::LeaseNotFound,
            "nothing changed; grant a lease (POST /v1/leases) and take its id",
        ),
        Refusal::LeaseExists(_) => problem(
            ProblemCode::LeaseExists,
            "nothing changed; leave the id out to get one that is free",
        ),
        Refusal::TooManyLeases => problem(
            ProblemCode::QuotaReached,
            "nothing changed; GET /v1/leases lists the leases, DELETE /v1/leases/{id} revokes one",
        )
        .with_limit(LEASES_MAX as u64),
        Refusal::DifferentRequest => problem(
            ProblemCode::IdempotencyKeyReused,
            "nothing changed; use each idempotency key for one request only",
        ),
        Refusal::Session(refusal) => match refusal {
            SessionRefusal::NoSuchSession => problem(
                ProblemCode::SessionNotFound,
                "nothing changed; GET /v1/sessions lists the sessions",
            ),
            SessionRefusal::SessionExists => problem(
                ProblemCode::SessionExists,
                "nothing changed; leave the id out to get one that is free",
            ),
            SessionRefusal::StaleEpoch { current } => {
                let action = "nothing changed; who served the session in an earlier epoch stops: its owner of this epoch does";
                let mut problem = problem(ProblemCode::StaleEpoch, action);
                problem.current_revision = Some(current.0.0);
                problem
            }
            SessionRefusal::NoRoom => problem(
                ProblemCode::NoRoom,
                "nothing changed; GET /cluster/nodes shows the nodes: raise a capacity, end a drain, or add a node",
            ),
            SessionRefusal::TooManySessions => problem(
                ProblemCode::QuotaReached,
                "nothing changed; GET /v1/sessions lists the sessions, DELETE /v1/sessions/{id} ends one",
            )
            .with_limit(SESSIONS_MAX as u64),
        },
        Refusal::Stream(refusal) => super::streams::problem(refusal),
        Refusal::Settings(refusal) => super::settings::problem(refusal),
        Refusal::StaleTerm
        | Refusal::NoSuchClient(_)
        | Refusal::AnswerForgotten
        | Refusal::TooManyAnswers => problem(ProblemCode::Refused, "nothing changed"),
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = json_with(status, &*self.problem);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_CONTENT_TYPE));
        if let Some(seconds) = self.problem.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(location) = self.location.and_then(|text| HeaderValue::try_from(text).ok()) {
            headers.insert(LOCATION, location);
        }
        response
    }
}

/// 200 with `value` as JSON.
pub(super) fn json(value: &impl Serialize) -> Response {
    json_with(StatusCode::OK, value)
}

pub(super) fn json_with(status: StatusCode, value: &impl Serialize) -> Response {
    let mut body =
        serde_json::to_vec(value).expect("the types of the API have string keys and no failing parts");
    body.push(b'\n');
    with_type(status, "application/json", body)
}

pub(super) fn with_type(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(Body::from(body.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
