//! A client of the API as any program would write one: HTTP/1.1 over TCP, one request at a time.
//!
//! It tells apart what certainly did nothing, what happened, and what may have happened or may yet happen.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use quorate_api::{Problem, ProblemCode, headers};
use tokio::time::timeout;
use turmoil::net::TcpStream;

/// How long a connection may take to be made.
const CONNECT_TIME: Duration = Duration::from_secs(1);

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It was done; the body.
    Done(Bytes),
    /// It found something else than it wanted: another revision, or no such key.
    Other(ProblemCode),
    /// Certainly nothing happened.
    Nothing(String),
    /// It may have happened, may yet happen, or never.
    Unknown(String),
}

/// A connection to one node, made anew when it breaks.
pub(super) struct Client {
    address: SocketAddr,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    pub(super) fn new(address: SocketAddr) -> Client {
        Client {
            address,
            sender: None,
        }
    }

    /// Whom it asks.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends one request and waits for its answer for at most `limit`.
    pub(super) async fn ask(&mut self, method: Method, path: &str, body: Bytes, limit: Duration) -> Answer {
        self.ask_once(method, path, body, None, limit).await
    }

    /// The same, under an idempotency key when there is one.
    pub(super) async fn ask_once(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
        once: Option<&str>,
        limit: Duration,
    ) -> Answer {
        let mut sender = match self.sender().await {
            Ok(sender) => sender,
            Err(reason) => return Answer::Nothing(reason),
        };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", self.address.to_string())
            .header("accept", "application/json");
        if let Some(once) = once {
            request = request.header(headers::IDEMPOTENCY_KEY, once);
        }
        let request = request
            .body(Full::new(body))
            .expect("paths of the simulation are valid");
        let exchange = async {
            let answer = sender.send_request(request).await?;
            let (head, body) = answer.into_parts();
            Ok::<_, hyper::Error>((head.status, body.collect().await?.to_bytes()))
        };
        match timeout(limit, exchange).await {
            Err(_) => Answer::Unknown("no answer in time".to_owned()),
            Ok(Err(error)) => Answer::Unknown(error.to_string()),
            Ok(Ok((status, body))) => {
                if !sender.is_closed() {
                    self.sender = Some(sender);
                }
                judge(status, body)
            }
        }
    }

    async fn sender(&mut self) -> Result<SendRequest<Full<Bytes>>, String> {
        if let Some(mut sender) = self.sender.take()
            && sender.ready().await.is_ok()
        {
            return Ok(sender);
        }
        let connect = async {
            let stream = TcpStream::connect(self.address)
                .await
                .map_err(|error| error.to_string())?;
            http1::handshake(TokioIo::new(stream))
                .await
                .map_err(|error| error.to_string())
        };
        let (sender, connection) = timeout(CONNECT_TIME, connect)
            .await
            .map_err(|_| "no connection in time".to_owned())??;
        // How the connection ends shows in the requests on it.
        tokio::spawn(async { drop(connection.await) });
        Ok(sender)
    }
}

fn judge(status: StatusCode, body: Bytes) -> Answer {
    if status.is_success() {
        return Answer::Done(body);
    }
    match serde_json::from_slice::<Problem>(&body) {
        Ok(problem) => judge_problem(&problem),
        Err(error) => Answer::Unknown(format!("status {status}: {error}")),
    }
}

/// What a node's refusal says about the request.
pub(super) fn judge_problem(problem: &Problem) -> Answer {
    match problem.code {
        ProblemCode::RevisionConflict | ProblemCode::KeyNotFound => Answer::Other(problem.code),
        code if code.is_safe_to_retry() => Answer::Nothing(code.to_string()),
        code => Answer::Unknown(format!("{code}: {}", problem.detail)),
    }
}
