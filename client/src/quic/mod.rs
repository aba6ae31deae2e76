//! The native protocol with one endpoint: see [`quorate_api::native`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Response, StatusCode};
use quinn::{RecvStream, VarInt};
use quorate_api::native::{self, Answer, EXCHANGE, PIPELINE, close, take_frame};
use quorate_api::{EVENT_STREAM_CONTENT_TYPE, headers};
use tokio::net::lookup_host;
use tokio::time::{Instant, timeout_at};

use crate::connection::{ANSWER_BYTES_MAX, Failure};
use crate::machine::{Machine, Socket};
use crate::request::Call;

mod pipeline;
mod route;
mod sending;
mod setup;
mod socket;

use pipeline::{Ended, Pipeline, describe};
pub(crate) use route::Route;
use sending::Sending;
pub(crate) use socket::Connected;

/// Bytes that are taken out of a stream at a time.
const READ_BYTES: usize = 64 << 10;

/// A connection with one node, which ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Connection {
    connection: quinn::Connection,
    pipeline: Arc<Pipeline>,
}

impl Connection {
    /// Connects to `host:port`.
    async fn open_to(machine: &dyn Machine, authority: &str) -> Result<Connection, String> {
        let addresses = lookup_host(authority).await.map_err(|error| error.to_string())?;
        let mut result = Err(format!("{authority} has no address"));
        for address in addresses {
            result = Connection::open_at(machine, address).await;
            if result.is_ok() {
                break;
            }
        }
        result
    }

    async fn open_at(machine: &dyn Machine, address: SocketAddr) -> Result<Connection, String> {
        let socket = machine.connect(address).map_err(|error| error.to_string())?;
        let tls = machine.tls();
        let config = setup::endpoint(&tls)?;
        let runtime = machine.quic_runtime();
        let endpoint = quinn::Endpoint::new_with_abstract_socket(config, None, socket.clone(), runtime)
            .map_err(|error| error.to_string())?;
        let connecting = endpoint
            .connect_with(setup::client(&tls, address)?, address, "quorate")
            .map_err(|error| error.to_string())?;
        let connection = tokio::select! {
            biased;
            connected = connecting => connected.map_err(|error| error.to_string())?,
            () = socket.refused() => return Err("connection refused (UDP)".to_owned()),
        };
        let opened = connection.open_bi().await;
        let (send, receive) = opened.map_err(|error| error.to_string())?;
        let mut send = Sending::new(send);
        let begun = send.stream().write_all(&[PIPELINE]).await;
        begun.map_err(|error| error.to_string())?;
        let pipeline = Arc::new(Pipeline::new());
        tokio::spawn(drive(
            Arc::clone(&pipeline),
            send,
            receive,
            socket,
            connection.clone(),
        ));
        Ok(Connection { connection, pipeline })
    }

    /// Whether a request may be sent.
    fn takes_requests(&self) -> bool {
        self.pipeline.takes_requests()
    }

    /// Sends one request and reads the whole answer.
    pub(crate) async fn exchange(&self, call: &Call, deadline: Instant) -> Result<Response<Bytes>, Failure> {
        let request = request(call);
        if !call.long_answer && request.fits() {
            return answered(self.pipeline.ask(request, deadline).await?);
        }
        let sent = AtomicBool::new(false);
        let exchange = async {
            let (head, body) = self.begin(request, &sent).await?.into_parts();
            let body = crate::connection::Arriving::Quic(body).whole().await;
            Ok(Response::from_parts(head, body.map_err(Failure::MaybeSent)?))
        };
        timeout_at(deadline, exchange).await.unwrap_or_else(|_| {
            Err(Failure::TimedOut {
                maybe_sent: sent.load(Ordering::Relaxed),
            })
        })
    }

    /// Sends a `GET`, and returns the answer with a body that is still to come.
    pub(crate) async fn open(
        self: &Arc<Connection>,
        path: &str,
        deadline: Instant,
    ) -> Result<Response<Arriving>, Failure> {
        let request = native::Request {
            id: 0,
            method: Bytes::from_static(b"GET"),
            path: Bytes::copy_from_slice(path.as_bytes()),
            headers: vec![header("accept", EVENT_STREAM_CONTENT_TYPE)],
            body: Bytes::new(),
        };
        let sent = AtomicBool::new(false);
        let begun = timeout_at(deadline, self.begin(request, &sent)).await;
        let answer = begun.unwrap_or(Err(Failure::TimedOut { maybe_sent: true }))?;
        Ok(answer.map(|arriving| Arriving {
            _connection: Some(Arc::clone(self)),
            ..arriving
        }))
    }

    /// Sends a request on a stream of its own, and reads the head of the answer. `sent` becomes true when the node may have
    /// all of the request.
    async fn begin(
        &self,
        mut request: native::Request,
        sent: &AtomicBool,
    ) -> Result<Response<Arriving>, Failure> {
        let not_sent = |reason: String| Failure::NotSent(reason);
        let opened = self.connection.open_bi().await;
        let (send, mut receive) = opened.map_err(|error| not_sent(error.to_string()))?;
        let mut send = Sending::new(send);
        let body = std::mem::take(&mut request.body);
        if !body.is_empty() {
            request
                .headers
                .push(header("content-length", &body.len().to_string()));
        }
        if !request.fits() {
            return Err(Failure::Unsendable(
                "the head of the request is too long".to_owned(),
            ));
        }
        let mut head = BytesMut::from([EXCHANGE].as_slice());
        request.encode(&mut head);
        // A node acts on a whole request only; when it stops reading, its answer says why.
        let written = async {
            send.stream().write_chunk(head.freeze()).await?;
            send.stream().write_chunk(body).await
        };
        match written.await {
            Ok(()) => {
                sent.store(true, Ordering::Relaxed);
                send.finish();
            }
            Err(quinn::WriteError::Stopped(code)) if code == VarInt::from_u32(close::STOPPING) => {
                return Err(not_sent("the node stops".to_owned()));
            }
            Err(quinn::WriteError::Stopped(_)) => {}
            Err(error) => return Err(not_sent(error.to_string())),
        }
        let mut unread = BytesMut::new();
        let answer = read_head(&mut receive, &mut unread).await?;
        let (head, _) = answered(answer)?.into_parts();
        let arriving = Arriving {
            begin: unread.freeze(),
            receive,
            _connection: None,
        };
        Ok(Response::from_parts(head, arriving))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.connection.close(VarInt::from_u32(close::DONE), b"");
    }
}

/// Moves requests and answers as long as somebody listens at the other end.
async fn drive(
    pipeline: Arc<Pipeline>,
    send: Sending,
    receive: RecvStream,
    socket: Arc<dyn Socket>,
    connection: quinn::Connection,
) {
    tokio::select! {
        biased;
        () = Arc::clone(&pipeline).drive(send, receive) => {}
        () = socket.refused() => {
            pipeline.end(&Ended::Broken("nobody listens there any more".to_owned()));
            connection.close(VarInt::from_u32(close::DONE), b"");
            return;
        }
    }
    // Exchanges may go on.
    tokio::select! {
        biased;
        _ = connection.closed() => {}
        () = socket.refused() => connection.close(VarInt::from_u32(close::DONE), b""),
    }
}

/// The body of an answer on a stream of its own.
#[derive(Debug)]
pub(crate) struct Arriving {
    /// What came with the head.
    begin: Bytes,
    receive: RecvStream,
    /// The connection lives as long as the answer comes.
    _connection: Option<Arc<Connection>>,
}

impl Arriving {
    /// The next bytes; none at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, String> {
        if !self.begin.is_empty() {
            return Ok(Some(std::mem::take(&mut self.begin)));
        }
        let chunk = self.receive.read_chunk(READ_BYTES, true).await;
        chunk
            .map(|chunk| chunk.map(|chunk| chunk.bytes))
            .map_err(|error| describe(&error))
    }
}

async fn read_head(receive: &mut RecvStream, unread: &mut BytesMut) -> Result<Answer, Failure> {
    let broken = |reason: &str| Failure::MaybeSent(reason.to_owned());
    loop {
        let frame = take_frame(unread, ANSWER_BYTES_MAX).map_err(|error| broken(error.0))?;
        if let Some(frame) = frame {
            return Answer::decode(frame).map_err(|error| broken(error.0));
        }
        match receive.read_chunk(READ_BYTES, true).await {
            Ok(Some(chunk)) => unread.extend_from_slice(&chunk.bytes),
            Ok(None) => return Err(broken("the answer ended before it began")),
            Err(quinn::ReadError::Reset(code)) if code == VarInt::from_u32(close::STOPPING) => {
                return Err(Failure::NotSent("the node stops".to_owned()));
            }
            Err(error) => return Err(broken(&describe(&error))),
        }
    }
}

fn header(name: &'static str, value: &str) -> (Bytes, Bytes) {
    (
        Bytes::from_static(name.as_bytes()),
        Bytes::copy_from_slice(value.as_bytes()),
    )
}

fn request(call: &Call) -> native::Request {
    let mut fields = vec![(
        Bytes::from_static(b"accept"),
        Bytes::from_static(b"application/json"),
    )];
    if let Some(key) = &call.request_key {
        fields.push(header(headers::IDEMPOTENCY_KEY, key));
    }
    native::Request {
        id: 0,
        method: method(&call.method),
        path: Bytes::copy_from_slice(call.path.as_bytes()),
        headers: fields,
        body: call.body.clone(),
    }
}

fn method(method: &Method) -> Bytes {
    match *method {
        Method::GET => Bytes::from_static(b"GET"),
        Method::PUT => Bytes::from_static(b"PUT"),
        Method::POST => Bytes::from_static(b"POST"),
        Method::DELETE => Bytes::from_static(b"DELETE"),
        ref other => Bytes::copy_from_slice(other.as_str().as_bytes()),
    }
}

/// The answer as one over HTTP.
fn answered(answer: Answer) -> Result<Response<Bytes>, Failure> {
    let broken = || Failure::MaybeSent("its answer is none".to_owned());
    let content_type = answer.header(CONTENT_TYPE.as_str()).cloned();
    let mut response = Response::new(answer.body);
    *response.status_mut() = StatusCode::from_u16(answer.status).map_err(|_| broken())?;
    if let Some(value) = content_type {
        let value = HeaderValue::from_maybe_shared(value).map_err(|_| broken())?;
        response.headers_mut().insert(CONTENT_TYPE, value);
    }
    Ok(response)
}
