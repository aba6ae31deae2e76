//! Serves a router on listeners of the network port, over HTTP/1.1 and HTTP/2, and in [event frames](super::frames), which
//! the first byte of a connection tells from those; and over QUIC beside them, in the [native protocol](super::native).
//!
//! There are never more than `max_connections` at a time. A connection above that is told so (503) and closed, as
//! long as few are being told; further ones are closed without a word. When the node stops, no connection is taken any
//! more, and clients are sent away: for a moment every answer closes its connection (`Connection: close`), so that a
//! client which is about to send on a connection that it kept does not find it cut. Then connections without a request
//! are closed, every request in flight is finished, and what is not finished after the grace period is cut.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use http::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use quorate_api::{PROBLEM_CONTENT_TYPE, Problem, ProblemCode};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tower_service::Service;

use super::frames::{self, Frames};
use super::native::Native;
use crate::config::{Limits, Listen};
use crate::planted::Planted;
use crate::port::{ByteStream, Clock, Listener, Network};
use crate::transport::ClientsEndpoint;

/// A connection that sends no request for this long is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How many connections that wait to be taken when the node stops are taken at most.
const BACKLOG_MAX: usize = 1_024;
/// How long clients are sent away before connections without a request are closed: longer than a busy client pauses.
const LEAVING: Duration = Duration::from_millis(250);
/// How many requests one HTTP/2 connection may have in flight.
const STREAMS_MAX: u32 = 128;
/// How many connections above the limit are told so at a time.
const REFUSALS_MAX: usize = 64;
/// How long telling may take.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the last packets of QUIC may take to leave.
const FAREWELL: Duration = Duration::from_millis(50);
/// How long to wait when the process has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// An address that cannot be listened at.
#[derive(Debug, Error)]
#[error("{explanation}")]
pub struct BindError {
    explanation: String,
    #[source]
    source: io::Error,
}

/// Listens at every address.
///
/// # Errors
/// With the address, the port, where it comes from, and the flag that changes it.
pub async fn bind(network: &dyn Network, listen: &[Listen]) -> Result<Vec<Box<dyn Listener>>, BindError> {
    let mut listeners = Vec::with_capacity(listen.len());
    for place in listen {
        let listener = bind_one(network, place).await.map_err(|source| BindError {
            explanation: place.explain(&source),
            source,
        })?;
        listeners.push(listener);
    }
    Ok(listeners)
}

async fn bind_one(network: &dyn Network, place: &Listen) -> io::Result<Box<dyn Listener>> {
    let mut result = Err(io::Error::new(
        io::ErrorKind::NotFound,
        format!("{} has no address", place.host),
    ));
    for address in network.resolve(&place.address()).await? {
        result = network.listen(address).await;
        if result.is_ok() {
            break;
        }
    }
    result
}

/// What a server is made of.
pub struct Server {
    /// Answers the requests.
    pub router: Router,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// How many connections are served at a time.
    pub max_connections: usize,
    /// How long requests in flight may take when the server stops.
    pub grace: Duration,
    /// What an event frame and the frames that are appended together may take.
    pub limits: Limits,
    /// The mistake that is made on purpose, if any.
    pub planted: Planted,
}

/// Where clients knock.
#[derive(Default)]
pub struct Doors {
    /// For byte streams.
    pub listeners: Vec<Box<dyn Listener>>,
    /// For QUIC.
    pub endpoints: Vec<ClientsEndpoint>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd)]
pub(super) enum Phase {
    Serving,
    /// Take no more connections, and close each with its next answer.
    Leaving,
    /// Finish what is in flight.
    Draining,
    /// Cut what is left.
    Closed,
}

/// How far the server has come with its end.
#[derive(Clone)]
pub(super) struct Phases(watch::Receiver<Phase>);

impl Phases {
    /// Completes when only what is under way is still finished.
    pub(super) async fn draining(&mut self) {
        self.reached(Phase::Draining).await;
    }

    /// Completes when nothing is waited for any more.
    pub(super) async fn closed(&mut self) {
        self.reached(Phase::Closed).await;
    }

    /// Completes at `phase` or a later one, and when the server itself is gone.
    async fn reached(&mut self, phase: Phase) {
        let _ = self.0.wait_for(|now| *now >= phase).await;
    }
}

/// What all connections share.
#[derive(Clone)]
struct Connections {
    router: Router,
    clock: Arc<dyn Clock>,
    phase: watch::Receiver<Phase>,
    permits: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    limits: Limits,
    planted: Planted,
    /// Closed once every task that holds a clone has ended.
    _alive: mpsc::Sender<()>,
}

impl Server {
    /// Serves until `stop` completes, then finishes what is in flight.
    pub async fn serve(self, doors: Doors, stop: impl Future<Output = ()>) {
        let (phase, phases) = watch::channel(Phase::Serving);
        let (alive, mut all_ended) = mpsc::channel(1);
        let permits = Arc::new(Semaphore::new(self.max_connections));
        let connections = Connections {
            router: self.router,
            clock: Arc::clone(&self.clock),
            phase: phases,
            permits: Arc::clone(&permits),
            refusals: Arc::new(Semaphore::new(REFUSALS_MAX)),
            limits: self.limits,
            planted: self.planted,
            _alive: alive,
        };
        for listener in doors.listeners {
            tokio::spawn(connections.clone().accept(listener));
        }
        for endpoint in doors.endpoints {
            tokio::spawn(connections.clone().accept_quic(endpoint));
        }
        drop(connections);
        stop.await;
        if permits.available_permits() < self.max_connections {
            phase.send_replace(Phase::Leaving);
            self.clock.sleep_until(self.clock.now() + LEAVING).await;
        }
        phase.send_replace(Phase::Draining);
        let deadline = self.clock.now() + self.grace;
        tokio::select! {
            biased;
            _ = all_ended.recv() => return,
            () = self.clock.sleep_until(deadline) => {}
        }
        tracing::warn!(
            grace_ms = self.grace.as_millis() as u64,
            "cutting requests that did not finish in time"
        );
        phase.send_replace(Phase::Closed);
        all_ended.recv().await;
    }
}

impl Connections {
    async fn accept(mut self, mut listener: Box<dyn Listener>) {
        loop {
            let accepted = tokio::select! {
                biased;
                _ = self.phase.wait_for(|phase| *phase != Phase::Serving) => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => self.take(stream),
                Err(error) if is_out_of_descriptors(&error) => {
                    tracing::warn!(%error, "cannot take connections of clients; trying on");
                    self.clock.sleep_until(self.clock.now() + ACCEPT_PAUSE).await;
                }
                // The connection was gone before it was taken.
                Err(error) => tracing::debug!(%error, "a connection of a client failed early"),
            }
        }
        // Whoever connected before the node began to stop is still served.
        for _ in 0..BACKLOG_MAX {
            tokio::select! {
                biased;
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => self.take(stream),
                    Err(error) => tracing::debug!(%error, "a connection of a client failed early"),
                },
                () = std::future::ready(()) => return,
            }
        }
    }

    async fn accept_quic(self, endpoint: ClientsEndpoint) {
        let mut phases = Phases(self.phase.clone());
        let mut tasks = JoinSet::new();
        loop {
            let incoming = tokio::select! {
                biased;
                () = phases.reached(Phase::Leaving) => break,
                Some(_) = tasks.join_next() => continue,
                incoming = endpoint.next() => incoming,
            };
            let Some(incoming) = incoming else {
                return;
            };
            // Whoever is refused turns to HTTP, where the answer says why.
            let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
                incoming.refuse();
                continue;
            };
            match endpoint.take(incoming) {
                Ok(connecting) => drop(tasks.spawn(self.clone().serve_quic(connecting, permit))),
                Err(error) => tracing::debug!(%error, "a connection of a client failed early"),
            }
        }
        loop {
            tokio::select! {
                biased;
                ended = tasks.join_next() => if ended.is_none() {
                    break;
                },
                Some(incoming) = endpoint.next() => incoming.refuse(),
            }
        }
        tokio::select! {
            biased;
            () = endpoint.ended() => {}
            () = self.clock.sleep_until(self.clock.now() + FAREWELL) => {}
        }
    }

    async fn serve_quic(self, connecting: quinn::Connecting, _permit: OwnedSemaphorePermit) {
        let native = Native {
            router: self.router,
            clock: self.clock,
            phases: Phases(self.phase),
            planted: self.planted,
        };
        native.serve(connecting).await;
    }

    fn take(&self, stream: Box<dyn ByteStream>) {
        let connections = self.clone();
        match Arc::clone(&self.permits).try_acquire_owned() {
            Ok(permit) => {
                tokio::spawn(connections.serve(stream, permit));
            }
            Err(_) => {
                if let Ok(permit) = Arc::clone(&self.refusals).try_acquire_owned() {
                    tokio::spawn(connections.refuse(stream, permit));
                }
            }
        }
    }

    async fn serve(mut self, mut stream: Box<dyn ByteStream>, _permit: OwnedSemaphorePermit) {
        let first = tokio::select! {
            biased;
            first = stream.read_u8() => first.ok(),
            _ = self.phase.wait_for(|phase| *phase >= Phase::Draining) => None,
            () = self.clock.sleep_until(self.clock.now() + IDLE_TIMEOUT) => None,
        };
        let Some(first) = first else {
            return;
        };
        let stream = Unshifted {
            first: Some(first),
            stream,
        };
        if first == frames::FIRST_BYTE {
            self.serve_frames(stream).await;
        } else {
            self.serve_http(stream).await;
        }
    }

    async fn serve_frames(self, stream: Unshifted) {
        let frames = Frames::new(stream, self.router, self.clock, self.limits);
        let (mut draining, mut closed) = (self.phase.clone(), self.phase);
        let leaves = async move {
            let _ = draining.wait_for(|phase| *phase >= Phase::Draining).await;
        };
        tokio::select! {
            biased;
            result = frames.serve(leaves) => {
                if let Err(error) = result {
                    tracing::debug!(%error, "a connection of a publisher ended early");
                }
            }
            _ = closed.wait_for(|phase| *phase == Phase::Closed) => {}
        }
    }

    async fn serve_http(mut self, stream: Unshifted) {
        let asked = Arc::new(AtomicBool::new(false));
        let router = self.router.clone();
        let service = {
            let asked = Arc::clone(&asked);
            let phase = self.phase.clone();
            service_fn(move |request: Request<Incoming>| {
                asked.store(true, Ordering::Relaxed);
                let phase = phase.clone();
                // HTTP/2 says goodbye in a frame of its own, and knows no such header.
                let by_header = request.version() <= Version::HTTP_11;
                let answer = router.clone().call(request.map(axum::body::Body::new));
                async move {
                    let mut answer = answer.await?;
                    if by_header && *phase.borrow() != Phase::Serving {
                        let close = HeaderValue::from_static("close");
                        answer.headers_mut().insert(CONNECTION, close);
                    }
                    Ok::<_, Infallible>(answer)
                }
            })
        };
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE_TIMEOUT);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(IDLE_TIMEOUT)
            .max_concurrent_streams(STREAMS_MAX);
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        // Before more bytes tell HTTP/1.1 from HTTP/2 neither of them watches the time.
        let first_request = self.clock.sleep_until(self.clock.now() + IDLE_TIMEOUT);
        tokio::pin!(first_request);
        let mut watching = true;
        let mut awaited = Phase::Draining;
        loop {
            tokio::select! {
                biased;
                result = &mut connection => {
                    if let Err(error) = result {
                        tracing::debug!(%error, "a connection of a client ended early");
                    }
                    return;
                }
                reached = self.phase.wait_for(|phase| *phase >= awaited) => {
                    // An error means that the server itself is gone.
                    if reached.is_err() || awaited == Phase::Closed {
                        return;
                    }
                    awaited = Phase::Closed;
                    connection.as_mut().graceful_shutdown();
                }
                () = &mut first_request, if watching => {
                    watching = false;
                    if !asked.load(Ordering::Relaxed) {
                        return;
                    }
                }
            }
        }
    }

    async fn refuse(self, mut stream: Box<dyn ByteStream>, _permit: OwnedSemaphorePermit) {
        let problem = Problem::new(
            ProblemCode::TooManyConnections,
            "this node serves as many connections as it may (max_connections)",
            "try another node, or use fewer connections",
        )
        .with_retry_after(1);
        let body = serde_json::to_string(&problem).unwrap_or_default();
        let answer = format!(
            "HTTP/1.1 503 Service Unavailable\r\n{CONTENT_TYPE}: {PROBLEM_CONTENT_TYPE}\r\n{RETRY_AFTER}: 1\r\n\
             {CONNECTION}: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let tell = async {
            stream.write_all(answer.as_bytes()).await?;
            stream.shutdown().await?;
            // Closing with unread bytes resets the connection, and the client may never see the answer.
            let mut unread = [0; 1024];
            while stream.read(&mut unread).await? > 0 {}
            io::Result::Ok(())
        };
        tokio::select! {
            biased;
            result = tell => {
                if let Err(error) = result {
                    tracing::debug!(%error, "a refused connection ended early");
                }
            }
            () = self.clock.sleep_until(self.clock.now() + REFUSAL_TIMEOUT) => {}
        }
    }
}

/// A stream whose first byte was read to see what it carries.
struct Unshifted {
    first: Option<u8>,
    stream: Box<dyn ByteStream>,
}

impl AsyncRead for Unshifted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() > 0
            && let Some(first) = self.first.take()
        {
            buffer.put_slice(&[first]);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Unshifted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let number = error.raw_os_error();
    [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM]
        .iter()
        .any(|errno| number == Some(errno.raw_os_error()))
}
