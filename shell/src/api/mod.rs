//! The client port: REST and JSON over HTTP/1.1 and HTTP/2, and over QUIC.
//!
//! - [`backend`]: what the handlers need of the node; the node implements it.
//! - [`router`]: the paths, as an axum router over a backend.
//! - [`openapi`]: describes them.
//! - [`server`]: serves a router on listeners of the network port.
//! - [`native`]: the same over QUIC.
//!
//! Everything here is bounded: connections, the bytes of requests in flight (64 MiB), the sizes of keys,
//! values and bodies, and time: a request has one deadline from its first byte to its answer. A request that finds no leader waits
//! for one for a part of that time, so that a failover shows as a slow answer and not as an error.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::middleware;
use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Method, Uri};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use quorate_api::ProblemCode;
use quorate_core::Instant;
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::config::{Limits, Timeouts};
use crate::port::Clock;

mod answer;
pub mod backend;
mod cluster;
mod compact;
#[cfg(test)]
mod data_tests;
#[cfg(test)]
mod fake;
mod frames;
mod kv;
mod leases;
pub mod native;
mod openapi;
mod placement;
mod query;
mod ranges;
mod requests;
pub mod server;
#[cfg(test)]
mod session_tests;
mod session_watch;
mod sessions;
mod settings;
mod streams;
#[cfg(test)]
mod tests;
mod txn;
mod unread;
mod watch;
mod words;

use answer::Failure;
use backend::{Backend, BackendError, Oversized};
use openapi::also_at;

/// How many bytes of requests and answers may be in flight, all connections together, in KiB. Health, status and
/// membership are outside it, so that an operator gets through when data does not.
const IN_FLIGHT_KIB: usize = 64 << 10;
/// How many keep-alives may be in flight, all connections together. They have room of their own: a lease that ran out
/// since its node was busy with data would make more work for everybody.
const KEEP_ALIVES_IN_FLIGHT: usize = 4_096;

/// A backend that misses its deadline by this much is not waited for any longer.
const BACKEND_GRACE: Duration = Duration::from_millis(500);

/// The least pause between two tries to find a leader.
const LEADER_RETRY: Duration = Duration::from_millis(5);

/// What all handlers share.
struct Shared {
    backend: Arc<dyn Backend>,
    clock: Arc<dyn Clock>,
    limits: Limits,
    timeouts: Timeouts,
    in_flight: Arc<Semaphore>,
    keep_alives: Arc<Semaphore>,
    bytes_out: streams::BytesOut,
    described: openapi::Served,
    settings_turns: Semaphore,
}

/// Every path of the client port, answered by `backend`.
pub fn router(
    backend: Arc<dyn Backend>,
    clock: Arc<dyn Clock>,
    limits: Limits,
    timeouts: Timeouts,
) -> Router {
    let read_to_end = middleware::from_fn_with_state(Arc::clone(&clock), unread::read_to_end);
    let (routes, description) = routes().split_for_parts();
    let shared = Arc::new(Shared {
        backend,
        clock,
        limits,
        timeouts,
        in_flight: Arc::new(Semaphore::new(IN_FLIGHT_KIB)),
        keep_alives: Arc::new(Semaphore::new(KEEP_ALIVES_IN_FLIGHT)),
        bytes_out: streams::BytesOut::default(),
        described: openapi::Served::of(description),
        settings_turns: Semaphore::new(1),
    });
    routes
        .fallback(no_such_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(read_to_end)
        .with_state(shared)
}

/// The paths, each with its description.
fn routes() -> OpenApiRouter<Arc<Shared>> {
    openapi::router()
        .routes(routes!(kv::get, kv::put, kv::delete))
        .routes(routes!(ranges::list, ranges::delete))
        .routes(also_at(kv::PATH, routes!(ranges::list)))
        .routes(routes!(txn::transact))
        .routes(routes!(compact::compact))
        .routes(routes!(leases::list, leases::grant))
        .routes(routes!(leases::keep_many_alive))
        .routes(routes!(leases::show, leases::revoke))
        .routes(routes!(leases::keep_alive))
        .routes(routes!(sessions::list, sessions::create))
        .routes(routes!(sessions::show, sessions::delete))
        .routes(routes!(sessions::touch))
        .routes(routes!(sessions::route))
        .routes(also_at("/sessions", routes!(sessions::list, sessions::create)))
        .routes(also_at(
            "/sessions/{id}",
            routes!(sessions::show, sessions::delete),
        ))
        .routes(also_at("/sessions/{id}/touch", routes!(sessions::touch)))
        .routes(also_at("/sessions/{id}/route", routes!(sessions::route)))
        .routes(also_at("/cluster/sessions", routes!(sessions::list)))
        .routes(routes!(watch::watch))
        .routes(routes!(session_watch::watch))
        .merge(streams::routes())
        .merge(settings::routes())
        .routes(routes!(cluster::health))
        .routes(routes!(cluster::live))
        .routes(routes!(cluster::ready))
        .routes(also_at("/health/live", routes!(cluster::live)))
        .routes(also_at("/health/ready", routes!(cluster::ready)))
        .routes(routes!(cluster::metrics))
        .routes(routes!(cluster::status))
        .routes(routes!(cluster::nodes))
        .routes(also_at("/cluster/members", routes!(cluster::nodes)))
        .routes(routes!(cluster::add_member))
        .routes(routes!(cluster::remove_member))
        .routes(routes!(cluster::step_down))
        .routes(routes!(placement::drain))
        .routes(routes!(placement::undrain))
        .routes(routes!(placement::set_capacity))
        .routes(routes!(placement::rebalance))
        .routes(routes!(openapi::document))
        .routes(routes!(openapi::page))
}

async fn no_such_path(uri: Uri) -> Failure {
    let paths = "keys are under /v1/kv, transactions at /v1/txn, leases under /v1/leases, watches at /v1/watch, \
                 sessions under /v1/sessions, settings under /v1/settings, event streams under /v1/streams, tails of them at /v1/tail, the cluster under /health, \
                 /cluster/status, /cluster/nodes and /metrics; /docs describes all of it";
    Failure::new(
        ProblemCode::NotFound,
        format!("there is nothing at {}", uri.path()),
        paths,
    )
}

async fn wrong_method(method: Method, uri: Uri) -> Failure {
    if uri.path() == kv::PATH && [Method::PUT, Method::DELETE].contains(&method) {
        return Failure::bad_request(
            "the key is empty",
            "name a key behind /v1/kv/; DELETE /v1/kv with prefix= deletes several",
        );
    }
    let detail = format!("{} does not take {method}", uri.path());
    Failure::new(
        ProblemCode::MethodNotAllowed,
        detail,
        "the header Allow lists the methods that it takes",
    )
}

impl Shared {
    fn deadline(&self) -> Instant {
        self.clock.now() + self.timeouts.request
    }

    /// Takes `bytes` of the room for requests in flight, until the permit is dropped.
    fn admit(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Failure> {
        let kib = u32::try_from(1 + bytes / 1024).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.in_flight).try_acquire_many_owned(kib);
        permit.map_err(|_| BackendError::Busy.into())
    }

    /// Takes a place among the keep-alives in flight, until the permit is dropped.
    fn admit_keep_alive(&self) -> Result<OwnedSemaphorePermit, Failure> {
        let permit = Arc::clone(&self.keep_alives).try_acquire_owned();
        permit.map_err(|_| BackendError::Busy.into())
    }

    /// The body of a request about data, and its share of the room for requests in flight.
    async fn body(
        &self,
        body: Body,
        headers: &HeaderMap,
        what: Oversized,
        limit: usize,
    ) -> Result<(Bytes, OwnedSemaphorePermit), Failure> {
        // A body that does not say how long it is may become as long as the limit.
        let expected = content_length(headers).unwrap_or(limit).min(limit);
        let permit = self.admit(expected)?;
        let bytes = self.read_body(body, headers, what, limit).await?;
        Ok((bytes, permit))
    }

    /// All of a body that must not be longer than `limit`, before the deadline of a request.
    async fn read_body(
        &self,
        body: Body,
        headers: &HeaderMap,
        what: Oversized,
        limit: usize,
    ) -> Result<Bytes, Failure> {
        // What a body says of its length is what it was admitted with. HTTP holds it to that, QUIC does not.
        let said = content_length(headers).unwrap_or(limit);
        if said > limit {
            return Err(Failure::too_large(what, limit));
        }
        let deadline = self.deadline();
        let collected = tokio::select! {
            biased;
            collected = Limited::new(body, said).collect() => collected,
            () = self.clock.sleep_until(deadline) => {
                let detail = format!("the {what} did not arrive within {} ms", self.timeouts.request.as_millis());
                return Err(Failure::new(ProblemCode::RequestTimeout, detail, "nothing was done; try again"));
            }
        };
        match collected {
            Ok(collected) => Ok(collected.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(Failure::too_large(what, said)),
            Err(error) => Err(Failure::bad_request(
                format!("the {what} broke off: {error}"),
                "nothing was done; try again",
            )),
        }
    }

    /// The body as JSON, whatever its content type says, such as `example`.
    async fn read_json<T: DeserializeOwned>(
        &self,
        headers: &HeaderMap,
        body: Body,
        example: &str,
    ) -> Result<T, Failure> {
        let value = self.read_optional_json(headers, body).await?;
        value.ok_or_else(|| Failure::bad_request("the body is empty", format!("expected {example}")))
    }

    /// The body as JSON; none when it is empty.
    async fn read_optional_json<T: DeserializeOwned>(
        &self,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Option<T>, Failure> {
        let bytes = self
            .read_body(body, headers, Oversized::Body, self.limits.body_bytes)
            .await?;
        if bytes.trim_ascii().is_empty() {
            return Ok(None);
        }
        serde_json::from_slice(&bytes).map(Some).map_err(|error| {
            Failure::bad_request(
                format!("the body is not the expected JSON: {error}"),
                "mend the body",
            )
        })
    }

    /// Asks the backend, again when a leader appears while there was none, until the time for that is over.
    ///
    /// The backend keeps the deadline itself; should it not, the answer to a change is that its outcome is unknown.
    async fn until_leader<T, F>(
        &self,
        deadline: Instant,
        changes: bool,
        mut ask: impl FnMut() -> F,
    ) -> Result<T, BackendError>
    where
        F: Future<Output = Result<T, BackendError>>,
    {
        let give_up = (self.clock.now() + self.timeouts.leader_wait).min(deadline);
        loop {
            let answer = tokio::select! {
                biased;
                answer = ask() => answer,
                () = self.clock.sleep_until(deadline + BACKEND_GRACE) => {
                    return Err(if changes { BackendError::UnknownOutcome } else { BackendError::TimedOut });
                }
            };
            match answer {
                Err(BackendError::NoLeader | BackendError::NoCluster) if self.clock.now() < give_up => {
                    self.wait_for_leader(give_up).await
                }
                answer => return answer,
            }
        }
    }

    async fn wait_for_leader(&self, give_up: Instant) {
        // Without the pause a leader that is known and out of reach would be asked in a tight loop.
        self.clock.sleep_until(self.clock.now() + LEADER_RETRY).await;
        tokio::select! {
            biased;
            () = self.backend.leader_known() => {}
            () = self.clock.sleep_until(give_up) => {}
        }
    }
}

fn content_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
