//! Event frames: one record each, for publishers that speak no HTTP.
//!
//! A connection whose first byte is 0 carries frames. Nothing else does that is spoken on the client port, and every frame
//! begins so, since it is shorter than 16 MiB. All numbers are big-endian:
//!
//! ```text
//! u32 length of the rest | u8 priority | u16 length of the topic | topic | payload
//! ```
//!
//! The topic is the name of a stream. The priority is from 0 to 4; with its highest bit ([`WANTS_ANSWER`]) the frame asks for
//! an answer, and gets it in the order of the frames:
//!
//! ```text
//! u32 length of the rest | u8 outcome | appended: u32 partition, u64 offset; otherwise: the problem as JSON
//! ```
//!
//! Invariants:
//! - a frame is a record of a request to append to its stream, so whatever holds for those holds for frames;
//! - records of one connection are appended in the order of its frames, each once at the most;
//! - nothing is lost without a word: the first frame that asked for no answer and was not appended gets one nonetheless,
//!   which is the last, and the connection ends;
//! - what is not appended yet is bounded: while frames are appended no more are read, and TCP tells the publisher.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{Method, Request};
use quorate_api::{AppendAnswer, AppendRequest, NewRecord, Problem, ProblemCode};
use quorate_core::state::PRIORITY_MAX;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tower_service::Service;

use crate::config::Limits;
use crate::port::Clock;

/// The first byte of a connection that carries frames.
pub(super) const FIRST_BYTE: u8 = 0;
/// The bit of the priority that asks for an answer.
const WANTS_ANSWER: u8 = 0x80;
/// The length of a frame's length, and of what comes before its topic.
const LENGTH_BYTES: usize = 4;
const HEAD_BYTES: usize = 3;
/// Frames that wait already are appended together as far as they are of one stream: so many, and as many bytes as the limit
/// of a request lets through.
const BATCH_FRAMES_MAX: usize = 1_000;
/// What a frame takes at the most in the body of a request to append: its names and numbers, and six bytes for each of its
/// payload, since that is what an escaped control character takes.
const BODY_BYTES_PER_FRAME: usize = 64;
const BODY_BYTES_PER_PAYLOAD_BYTE: usize = 6;
/// Bytes that are read at a time.
const READ_BYTES: usize = 64 << 10;
/// How long the next bytes of a frame that has begun may take.
const REST_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of an answer to a request to append.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Outcome {
    Appended = 0,
    /// It was certainly not appended.
    Refused = 1,
    /// It may have been appended.
    Unknown = 2,
}

/// A frame that came.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Frame {
    wants_answer: bool,
    priority: u8,
    topic: Bytes,
    payload: Bytes,
}

/// A connection that carries frames.
pub(super) struct Frames<S> {
    stream: S,
    router: Router,
    clock: Arc<dyn Clock>,
    limits: Limits,
    unread: BytesMut,
}

/// How a publisher's connection goes on.
#[derive(PartialEq, Eq)]
enum Next {
    GoOn,
    End,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Frames<S> {
    pub(super) fn new(stream: S, router: Router, clock: Arc<dyn Clock>, limits: Limits) -> Frames<S> {
        Frames {
            stream,
            router,
            clock,
            limits,
            unread: BytesMut::new(),
        }
    }

    /// Appends what comes until the publisher goes, a frame is refused that asked for no answer, or `leaves` completes and
    /// every frame that came whole is appended.
    ///
    /// # Errors
    /// When the connection breaks.
    pub(super) async fn serve(mut self, leaves: impl Future<Output = ()>) -> io::Result<()> {
        let mut leaves = std::pin::pin!(leaves);
        loop {
            match self.next_batch() {
                Ok(batch) if batch.is_empty() => {
                    let more = tokio::select! {
                        biased;
                        more = self.read_more() => more?,
                        () = &mut leaves => Next::End,
                    };
                    if more == Next::End {
                        return self.stream.shutdown().await;
                    }
                }
                Ok(batch) => {
                    if self.append(batch.into()).await? == Next::End {
                        return self.stream.shutdown().await;
                    }
                }
                Err(detail) => {
                    let problem = malformed(detail);
                    tracing::debug!(%problem.detail, "a publisher is sent away");
                    self.answer_problem(&problem).await?;
                    return self.stream.shutdown().await;
                }
            }
        }
    }

    async fn read_more(&mut self) -> io::Result<Next> {
        self.unread.reserve(READ_BYTES);
        let whole = self.unread.is_empty();
        let read = self.stream.read_buf(&mut self.unread);
        let count = if whole {
            // A publisher may have nothing to say for hours.
            read.await?
        } else {
            tokio::select! {
                biased;
                read = read => read?,
                () = self.clock.sleep_until(self.clock.now() + REST_TIMEOUT) => 0,
            }
        };
        Ok(if count == 0 { Next::End } else { Next::GoOn })
    }

    /// Frames of one stream that came whole, taken from what was not looked at yet; none when the next one did not.
    fn next_batch(&mut self) -> Result<Vec<Frame>, String> {
        let mut batch: Vec<Frame> = Vec::new();
        let mut body_bytes = 0;
        while batch.len() < BATCH_FRAMES_MAX {
            let frame = match self.next_frame() {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                // What came before it is appended first.
                Err(_) if !batch.is_empty() => break,
                Err(detail) => return Err(detail),
            };
            body_bytes += BODY_BYTES_PER_FRAME + BODY_BYTES_PER_PAYLOAD_BYTE * frame.payload.len();
            if let Some(first) = batch.first()
                && (body_bytes > self.limits.transaction_bytes || frame.topic != first.topic)
            {
                break;
            }
            self.unread.advance(frame.length());
            batch.push(frame);
        }
        Ok(batch)
    }

    /// The next frame, when it came whole.
    fn next_frame(&self) -> Result<Option<Frame>, String> {
        let Some((length, rest)) = self.unread.split_first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        let most = HEAD_BYTES + usize::from(u16::MAX) + self.limits.value_bytes;
        if !(HEAD_BYTES..=most).contains(&length) {
            return Err(format!(
                "a frame is {length} bytes long, and {HEAD_BYTES} to {most} are expected"
            ));
        }
        rest.get(..length).map(Frame::read).transpose()
    }

    /// Appends frames of one stream, and answers those that ask for it.
    async fn append(&mut self, mut batch: VecDeque<Frame>) -> io::Result<Next> {
        let placed = match self.request(&batch).await {
            Ok(placed) => placed,
            Err(problem) => {
                for frame in &batch {
                    self.answer_problem(&problem).await?;
                    if !frame.wants_answer {
                        tracing::debug!(%problem.detail, "a publisher is sent away");
                        return Ok(Next::End);
                    }
                }
                return Ok(Next::GoOn);
            }
        };
        let mut answers = BytesMut::new();
        for run in placed.placed {
            let count = batch.len().min(run.count as usize);
            for (offset, frame) in (run.first_offset..).zip(batch.drain(..count)) {
                if frame.wants_answer {
                    answers.put_u32(13);
                    answers.put_u8(Outcome::Appended as u8);
                    answers.put_u32(run.partition);
                    answers.put_u64(offset);
                }
            }
        }
        self.stream.write_all(&answers).await?;
        Ok(Next::GoOn)
    }

    async fn request(&mut self, batch: &VecDeque<Frame>) -> Result<AppendAnswer, Problem> {
        let topic = batch.front().map_or(&[][..], |frame| &frame.topic);
        let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b".:_-".contains(byte);
        let topic = std::str::from_utf8(topic)
            .ok()
            .filter(|topic| !topic.is_empty() && topic.bytes().all(|byte| is_plain(&byte)))
            .ok_or_else(|| malformed("the topic is no name that a stream can have".to_owned()))?;
        let record = |frame: &Frame| NewRecord {
            value: frame.payload.clone(),
            priority: Some(frame.priority),
            ..NewRecord::default()
        };
        let request = AppendRequest {
            records: batch.iter().map(record).collect(),
            partition: None,
        };
        let unexpected = |what: String| Problem::new(ProblemCode::Internal, what, "report this as a bug");
        let body = serde_json::to_vec(&request).map_err(|error| unexpected(error.to_string()))?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("/v1/streams/{topic}/records"))
            .body(Body::from(body))
            .map_err(|error| unexpected(error.to_string()))?;
        let Ok(answer) = self.router.call(request).await;
        let (head, body) = answer.into_parts();
        let body = axum::body::to_bytes(body, ANSWER_BYTES_MAX)
            .await
            .map_err(|error| unexpected(error.to_string()))?;
        if head.status.is_success() {
            serde_json::from_slice(&body).map_err(|error| unexpected(error.to_string()))
        } else {
            Err(serde_json::from_slice(&body).unwrap_or_else(|error| unexpected(error.to_string())))
        }
    }

    async fn answer_problem(&mut self, problem: &Problem) -> io::Result<()> {
        let outcome = match problem.code {
            ProblemCode::UnknownOutcome | ProblemCode::Internal | ProblemCode::Other => Outcome::Unknown,
            _ => Outcome::Refused,
        };
        let text = serde_json::to_vec(problem).unwrap_or_default();
        let mut answer = BytesMut::with_capacity(LENGTH_BYTES + 1 + text.len());
        answer.put_u32(u32::try_from(1 + text.len()).unwrap_or(u32::MAX));
        answer.put_u8(outcome as u8);
        answer.put_slice(&text);
        self.stream.write_all(&answer).await
    }
}

impl Frame {
    /// The bytes that it took.
    fn length(&self) -> usize {
        LENGTH_BYTES + HEAD_BYTES + self.topic.len() + self.payload.len()
    }

    /// Reads what follows the length of a frame, which has [`HEAD_BYTES`] at least.
    fn read(frame: &[u8]) -> Result<Frame, String> {
        let mut frame = Bytes::copy_from_slice(frame);
        let (first, topic) = (frame.get_u8(), usize::from(frame.get_u16()));
        let priority = first & !WANTS_ANSWER;
        if priority > PRIORITY_MAX {
            return Err(format!("a frame has priority {priority}"));
        }
        if topic > frame.len() {
            return Err(format!("a topic of {topic} bytes goes beyond its frame"));
        }
        Ok(Frame {
            wants_answer: first & WANTS_ANSWER != 0,
            priority,
            topic: frame.split_to(topic),
            payload: frame,
        })
    }
}

fn malformed(detail: String) -> Problem {
    Problem::new(
        ProblemCode::BadRequest,
        detail,
        "expected u32 length, u8 priority from 0 to 4 (with 0x80 for an answer), u16 length of the topic, the topic (the \
         name of a stream), and the payload; numbers are big-endian",
    )
}

#[cfg(test)]
mod tests;
