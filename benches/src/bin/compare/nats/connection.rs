//! A client of one NATS server, with what appending to a JetStream stream and following it takes.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::protocol::{self, Frame};

/// How long an append, and how long another request may take.
const APPEND_TIMEOUT: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(2);
const READ_BYTES: usize = 64 << 10;

/// One connection, with one request or subscription under way at a time.
pub(crate) struct Connection {
    stream: TcpStream,
    incoming: BytesMut,
    outgoing: BytesMut,
    /// The subject of answers to this connection.
    inbox: String,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Result<Connection, String> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let stream = TcpStream::connect(address)
            .await
            .map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut connection = Connection {
            stream,
            incoming: BytesMut::new(),
            outgoing: BytesMut::new(),
            inbox: format!("_INBOX.{}.{number}", std::process::id()),
        };
        let options = r#"{"verbose":false,"pedantic":false,"headers":true,"no_responders":true}"#;
        let hello = format!("CONNECT {options}\r\nSUB {} 1\r\nPING\r\n", connection.inbox);
        connection.outgoing.put_slice(hello.as_bytes());
        let greeting = async {
            connection.flush().await?;
            while connection.next_frame().await? != Frame::Pong {}
            Ok::<(), String>(())
        };
        within(TIMEOUT, greeting).await?;
        Ok(connection)
    }

    /// Publishes `count` messages to a stream's subject at once, and returns when each is acknowledged.
    pub(crate) async fn append(
        &mut self,
        subject: &str,
        payload: &Bytes,
        count: usize,
    ) -> Result<(), String> {
        for _ in 0..count {
            self.publish(subject, payload);
        }
        within(APPEND_TIMEOUT, async {
            self.flush().await?;
            for _ in 0..count {
                let answer = self.next_message().await?;
                // An acknowledgement has the stream's name and a number.
                if answer
                    .windows(b"\"error\"".len())
                    .any(|part| part == b"\"error\"")
                {
                    return Err(format!("not stored: {}", String::from_utf8_lossy(&answer)));
                }
            }
            Ok(())
        })
        .await
    }

    /// A request of the JetStream API, and its answer.
    pub(crate) async fn request(&mut self, call: &str, body: &Value) -> Result<Value, String> {
        self.publish(&format!("$JS.API.{call}"), body.to_string().as_bytes());
        let answer = within(TIMEOUT, async {
            self.flush().await?;
            self.next_message().await
        });
        let answer: Value = serde_json::from_slice(&answer.await?).map_err(|error| error.to_string())?;
        match answer.get("error") {
            Some(error) => Err(format!("{call}: {error}")),
            None => Ok(answer),
        }
    }

    /// Follows what is yet to come of a stream; [`Connection::next_message`] gives the messages.
    pub(crate) async fn follow(&mut self, stream: &str) -> Result<(), String> {
        let subject = format!("{}.follow", self.inbox);
        self.outgoing.put_slice(format!("SUB {subject} 2\r\n").as_bytes());
        let body = serde_json::json!({
            "stream_name": stream,
            "config": {
                "deliver_subject": subject,
                "deliver_policy": "new",
                "ack_policy": "none",
                "replay_policy": "instant",
            },
        });
        self.request(&format!("CONSUMER.CREATE.{stream}"), &body)
            .await
            .map(drop)
    }

    /// The next message of whatever subscription, however long it takes.
    pub(crate) async fn next_message(&mut self) -> Result<Bytes, String> {
        loop {
            match self.next_frame().await? {
                Frame::Message { headers, payload } if headers.is_empty() => return Ok(payload),
                Frame::Message { headers, .. } => {
                    return Err(format!(
                        "an answer without effect: {:?}",
                        String::from_utf8_lossy(&headers)
                    ));
                }
                Frame::Error(error) => return Err(error),
                Frame::Ping | Frame::Pong | Frame::Other => {}
            }
        }
    }

    fn publish(&mut self, subject: &str, payload: &[u8]) {
        let mut head = String::new();
        // Writing to a string cannot fail.
        let _ = write!(head, "PUB {subject} {} {}\r\n", self.inbox, payload.len());
        self.outgoing.put_slice(head.as_bytes());
        self.outgoing.put_slice(payload);
        self.outgoing.put_slice(b"\r\n");
    }

    async fn next_frame(&mut self) -> Result<Frame, String> {
        loop {
            if let Some(frame) = protocol::take(&mut self.incoming)? {
                if frame == Frame::Ping {
                    self.outgoing.put_slice(b"PONG\r\n");
                    self.flush().await?;
                }
                return Ok(frame);
            }
            self.incoming.reserve(READ_BYTES);
            let read = self.stream.read_buf(&mut self.incoming).await;
            if read.map_err(|error| error.to_string())? == 0 {
                return Err("the server closed the connection".to_owned());
            }
        }
    }

    async fn flush(&mut self) -> Result<(), String> {
        let result = self.stream.write_all_buf(&mut self.outgoing).await;
        result.map_err(|error| error.to_string())
    }
}

async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    match timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => Err(format!("no answer within {limit:?}")),
    }
}
