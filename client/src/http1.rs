//! HTTP/1.1 with one endpoint: connections that are kept alive, each used by one request at a time.

use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::header::{ACCEPT, HOST};
use http::{Request, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use quorate_api::{EVENT_STREAM_CONTENT_TYPE, headers};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::body::Outgoing;
use crate::connection::{ANSWER_BYTES_MAX, CONNECT_TIMEOUT, Failure};
use crate::request::Call;

#[derive(Debug)]
pub(crate) struct Pool {
    /// `host:port`.
    authority: String,
    idle: Mutex<Vec<SendRequest<Outgoing>>>,
    /// How many connections may be in use.
    permits: Semaphore,
}

impl Pool {
    pub(crate) fn new(authority: String, connections_max: usize) -> Pool {
        Pool {
            authority,
            idle: Mutex::default(),
            permits: Semaphore::new(connections_max),
        }
    }

    /// Sends one request and reads the whole answer.
    pub(crate) async fn exchange(&self, call: &Call, deadline: Instant) -> Result<Response<Bytes>, Failure> {
        let request = self.request(call)?;
        let late = |_| Failure::TimedOut { maybe_sent: false };
        let _permit = timeout_at(deadline, self.permits.acquire())
            .await
            .map_err(late)?
            .expect("the semaphore is never closed");
        let mut sender = self.connection(deadline).await?;
        let taken = request.body().taken();
        let exchange = async {
            let response = sender.try_send_request(request).await.map_err(|mut error| {
                let reason = describe(error.error());
                // Handed back: not a byte of it left.
                match error.take_message() {
                    Some(_) => Failure::NotSent(reason),
                    None => Failure::MaybeSent(reason),
                }
            })?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| Failure::MaybeSent(error.to_string()))?;
            Ok(Response::from_parts(head, body.to_bytes()))
        };
        let result = timeout_at(deadline, exchange)
            .await
            .unwrap_or(Err(Failure::TimedOut { maybe_sent: true }))
            .map_err(|failure| match failure {
                failure if taken.load(Ordering::Relaxed) => failure,
                // A node acts on a whole request only.
                Failure::MaybeSent(reason) => {
                    Failure::NotSent(format!("it went away in the middle of the request: {reason}"))
                }
                Failure::TimedOut { .. } => Failure::TimedOut { maybe_sent: false },
                failure => failure,
            });
        if result.is_ok() && !sender.is_closed() {
            self.idle().push(sender);
        }
        result
    }

    /// A connection that waits for a request: an idle one, or a new one.
    async fn connection(&self, deadline: Instant) -> Result<SendRequest<Outgoing>, Failure> {
        loop {
            let Some(mut idle) = self.idle().pop() else {
                break;
            };
            // It becomes ready right after its last answer, or never when the node closed it.
            if idle.ready().await.is_ok() {
                return Ok(idle);
            }
        }
        let until = deadline.min(Instant::now() + CONNECT_TIMEOUT);
        match timeout_at(until, connect(&self.authority)).await {
            Ok(result) => result.map_err(Failure::NotSent),
            Err(_) if until == deadline => Err(Failure::TimedOut { maybe_sent: false }),
            Err(_) => Err(Failure::NotSent(format!(
                "no connection within {} ms",
                CONNECT_TIMEOUT.as_millis()
            ))),
        }
    }

    /// Sends a `GET` on a connection of its own, and returns the answer with a body that is still to come. The connection
    /// ends when the body is dropped.
    pub(crate) async fn open(&self, path: &str, deadline: Instant) -> Result<Response<Incoming>, Failure> {
        let request = Request::get(path)
            .header(HOST, &self.authority)
            .header(ACCEPT, EVENT_STREAM_CONTENT_TYPE)
            .body(Outgoing::new(Bytes::new()))
            .map_err(|error| unsendable(path, &error))?;
        let until = deadline.min(Instant::now() + CONNECT_TIMEOUT);
        let late = |_| Failure::TimedOut { maybe_sent: false };
        let connected = timeout_at(until, connect(&self.authority)).await.map_err(late)?;
        let mut sender = connected.map_err(Failure::NotSent)?;
        let answer = timeout_at(deadline, sender.send_request(request))
            .await
            .map_err(late)?;
        answer.map_err(|error| Failure::MaybeSent(describe(&error)))
    }

    fn request(&self, call: &Call) -> Result<Request<Outgoing>, Failure> {
        let mut request = Request::builder()
            .method(&call.method)
            .uri(&call.path)
            .header(HOST, &self.authority)
            .header(ACCEPT, "application/json");
        if let Some(key) = &call.request_key {
            request = request.header(headers::IDEMPOTENCY_KEY, &**key);
        }
        request
            .body(Outgoing::new(call.body.clone()))
            .map_err(|error| unsendable(&call.path, &error))
    }

    fn idle(&self) -> MutexGuard<'_, Vec<SendRequest<Outgoing>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unsendable(path: &str, error: &http::Error) -> Failure {
    Failure::Unsendable(format!("the path {path} cannot be sent: {error}"))
}

async fn connect(authority: &str) -> Result<SendRequest<Outgoing>, String> {
    let stream = TcpStream::connect(authority)
        .await
        .map_err(|error| error.to_string())?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| describe(&error))?;
    // How the connection ends shows in the requests on it.
    tokio::spawn(async { drop(connection.await) });
    Ok(sender)
}

/// An error with its causes, which hyper keeps apart.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
