//! The native protocol on the UDP side of the client port: see [`quorate_api::native`] for what it looks like.
//!
//! Each request is one of the HTTP API and goes to the same router, so whatever holds for those holds here.
//!
//! Invariants:
//! - what a connection keeps is bounded: the requests of a pipeline that are under way, in number and in bytes, and the
//!   streams; while there is no room nothing more is read, and QUIC tells the client;
//! - when the node stops, what has been read whole is answered and nothing more is read, so a client knows what was not
//!   done: a request on a pipeline that ended without its answer, and an exchange that was refused.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue, Method, Request, Uri};
use quinn::{Connection, RecvStream, SendStream, VarInt};
use quorate_api::native::{self, close};
use quorate_api::{PROBLEM_CONTENT_TYPE, Problem, ProblemCode};
use thiserror::Error;
use tokio::task::JoinSet;

use super::server::Phases;
use crate::config::{Config, Listen};
use crate::planted::Planted;
use crate::port::{Clock, Ports};
use crate::transport::{CLIENT_STREAMS, ClientsEndpoint, ClientsError, listen_for_clients};

mod exchange;
mod pipeline;
mod sending;
#[cfg(test)]
mod tests;

use sending::Sending;

/// How long a client may take for its handshake, and to say what a stream is.
const GREETING_TIME: Duration = Duration::from_secs(5);
/// A connection without a stream is closed after this time.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Streams that a connection may have at the most.
const STREAMS_MAX: u32 = 4_096;

/// Listens for clients over QUIC wherever it is served to them over HTTP. Where that cannot be, they are left with HTTP.
pub async fn bind(ports: &Ports, config: &Config) -> Vec<ClientsEndpoint> {
    let mut endpoints = Vec::new();
    if !config.network.quic {
        return endpoints;
    }
    for place in &config.client_listen {
        if place.port == config.cluster_listen.port {
            let address = place.address();
            tracing::info!(%address, "clients are served over HTTP alone: nodes use the UDP side of the port");
            continue;
        }
        match bind_one(ports, config, place).await {
            Ok(endpoint) => endpoints.push(endpoint),
            Err(error) => tracing::warn!(%error, "clients are served over HTTP alone"),
        }
    }
    endpoints
}

async fn bind_one(ports: &Ports, config: &Config, place: &Listen) -> Result<ClientsEndpoint, ClientsError> {
    let resolved = ports.network.resolve(&place.address()).await;
    let addresses = resolved.map_err(|source| ClientsError::Resolve {
        address: place.address(),
        source,
    })?;
    let mut result = Err(ClientsError::NoAddress(place.address()));
    for address in addresses {
        let name = config.node_name.as_str();
        result = listen_for_clients(ports, &config.secret, &config.cluster_name, name, address);
        if result.is_ok() {
            break;
        }
    }
    result
}

/// What all connections of clients over QUIC share.
#[derive(Clone)]
pub(super) struct Native {
    pub(super) router: Router,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) phases: Phases,
    pub(super) planted: Planted,
}

/// Why a stream ended before everything was said.
#[derive(Debug, Error)]
enum Broken {
    #[error("{0}")]
    Malformed(&'static str),
    #[error("the client takes no answers")]
    NotTaken,
    #[error("the client is gone: {0}")]
    Read(#[from] quinn::ReadError),
    #[error("the client is gone: {0}")]
    Write(#[from] quinn::WriteError),
    #[error("the answer broke off")]
    Answer,
}

impl From<native::Malformed> for Broken {
    fn from(native::Malformed(what): native::Malformed) -> Broken {
        Broken::Malformed(what)
    }
}

impl Native {
    /// Serves one client from its handshake to its end.
    pub(super) async fn serve(mut self, connecting: quinn::Connecting) {
        let handshake = tokio::select! {
            biased;
            handshake = within(&*self.clock, GREETING_TIME, connecting) => handshake,
            () = self.phases.draining() => None,
        };
        let connection = match handshake {
            Some(Ok(connection)) => connection,
            Some(Err(error)) => {
                tracing::debug!(%error, "the handshake with a client failed");
                return;
            }
            None => return,
        };
        let code = self.serve_streams(&connection).await;
        connection.close(VarInt::from_u32(code), b"");
    }

    /// Serves streams until the client goes, has nothing to say, says what makes no sense, or the node stops; returns why
    /// the connection is closed.
    async fn serve_streams(mut self, connection: &Connection) -> u32 {
        let mut streams: JoinSet<Result<(), Broken>> = JoinSet::new();
        let mut room = CLIENT_STREAMS;
        let code = loop {
            let idle = self.clock.sleep_until(self.clock.now() + IDLE_TIMEOUT);
            tokio::select! {
                biased;
                stream = connection.accept_bi() => match stream {
                    Ok((send, receive)) => {
                        streams.spawn(self.clone().serve_stream(send, receive));
                        if streams.len() as u32 * 2 > room && room < STREAMS_MAX {
                            room *= 2;
                            connection.set_max_concurrent_bi_streams(VarInt::from_u32(room));
                        }
                    }
                    Err(_) => return close::DONE,
                },
                Some(ended) = streams.join_next() => {
                    if let Ok(Err(error)) = ended {
                        tracing::debug!(%error, "a stream of a client ended early");
                        if matches!(error, Broken::Malformed(_)) {
                            break close::MALFORMED;
                        }
                    }
                }
                () = self.phases.draining() => break close::STOPPING,
                () = idle, if streams.is_empty() => break close::IDLE,
            }
        };
        if code == close::STOPPING {
            self.finish(connection, streams).await;
        }
        code
    }

    /// Waits for what is under way, and refuses what else comes.
    async fn finish(&mut self, connection: &Connection, mut streams: JoinSet<Result<(), Broken>>) {
        loop {
            tokio::select! {
                biased;
                ended = streams.join_next() => if ended.is_none() {
                    return;
                },
                stream = connection.accept_bi() => match stream {
                    Ok((mut send, mut receive)) => {
                        // What is closed already needs no word.
                        let _ = receive.stop(VarInt::from_u32(close::STOPPING));
                        let _ = send.reset(VarInt::from_u32(close::STOPPING));
                    }
                    Err(_) => return,
                },
                () = self.phases.closed() => return,
            }
        }
    }

    async fn serve_stream(self, send: SendStream, mut receive: RecvStream) -> Result<(), Broken> {
        let mut kind = [0];
        let greeted = within(&*self.clock, GREETING_TIME, receive.read_exact(&mut kind)).await;
        match (greeted, kind) {
            (Some(Ok(())), [native::PIPELINE]) => self.serve_pipeline(Sending::new(send), receive).await,
            (Some(Ok(())), [native::EXCHANGE]) => self.serve_exchange(Sending::new(send), receive).await,
            (Some(Ok(())), _) => Err(Broken::Malformed("a stream is of no known kind")),
            // It was opened by mistake, or its client is gone.
            (Some(Err(_)) | None, _) => Ok(()),
        }
    }
}

/// The output of a future that completes within `limit`.
async fn within<T>(clock: &dyn Clock, limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        output = future => Some(output),
        () = clock.sleep_until(clock.now() + limit) => None,
    }
}

/// The request as the router takes it.
///
/// # Errors
/// With the problem when it is none.
fn request_of(request: native::Request, body: Body) -> Result<Request<Body>, Box<Problem>> {
    let wrong = |what: &str| {
        let detail = format!("the {what} of the request is none");
        Box::new(Problem::new(
            ProblemCode::BadRequest,
            detail,
            "nothing was done; mend the request",
        ))
    };
    let mut made = Request::new(body);
    *made.method_mut() = Method::from_bytes(&request.method).map_err(|_| wrong("method"))?;
    *made.uri_mut() = Uri::from_maybe_shared(request.path).map_err(|_| wrong("path"))?;
    for (name, value) in request.headers {
        let name = HeaderName::from_bytes(&name).map_err(|_| wrong("name of a header"))?;
        let value = HeaderValue::from_maybe_shared(value).map_err(|_| wrong("value of a header"))?;
        made.headers_mut().append(name, value);
    }
    Ok(made)
}

/// Decodes arbitrary bytes as everything that comes of a client.
pub(crate) fn feed(input: &[u8]) {
    let mut unread = BytesMut::from(input);
    while let Ok(Some(frame)) = native::take_frame(&mut unread, native::REQUEST_BYTES_MAX) {
        feed_frame(frame);
    }
    feed_frame(Bytes::copy_from_slice(input));
}

fn feed_frame(frame: Bytes) {
    let _ = native::Answer::decode(frame.clone());
    if let Ok(request) = native::Request::decode(frame) {
        let _ = request_of(request, Body::empty());
    }
}

/// What the handlers say besides the body.
fn headers_of(headers: &http::HeaderMap) -> native::Headers {
    let pairs = headers.iter();
    pairs
        .map(|(name, value)| {
            let name = Bytes::copy_from_slice(name.as_str().as_bytes());
            (name, Bytes::copy_from_slice(value.as_bytes()))
        })
        .collect()
}

fn problem_answer(id: u64, problem: &Problem) -> native::Answer {
    native::Answer {
        id,
        status: problem.status,
        headers: vec![(
            Bytes::from_static(b"content-type"),
            Bytes::from_static(PROBLEM_CONTENT_TYPE.as_bytes()),
        )],
        body: serde_json::to_vec(problem).unwrap_or_default().into(),
    }
}
