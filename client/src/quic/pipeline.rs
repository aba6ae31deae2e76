//! Requests that share a stream: those that wait are written together, and answers come as they are ready.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use quinn::{ReadError, RecvStream, VarInt};
use quorate_api::native::{self, Answer, close, take_frame};
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::time::{Instant, timeout_at};

use super::sending::Sending;
use crate::connection::{ANSWER_BYTES_MAX, Failure};

/// Requests that may be under way; more wait.
const UNDER_WAY_MAX: usize = 4_096;
/// Bytes of requests that are written together, about.
const BATCH_BYTES: usize = 64 << 10;
/// Bytes that are taken out of the stream at a time.
const READ_BYTES: usize = 64 << 10;

type Reply = oneshot::Sender<Result<Answer, Failure>>;

/// The requests of one connection.
#[derive(Debug)]
pub(super) struct Pipeline {
    state: Mutex<State>,
    /// Told when there is something to write.
    work: Notify,
    room: Semaphore,
}

#[derive(Debug, Default)]
struct State {
    last_id: u64,
    /// Not written yet.
    queue: VecDeque<native::Request>,
    /// By id: whoever has waited longest is told first.
    waiting: BTreeMap<u64, Waiting>,
    /// Why no more is taken.
    ended: Option<String>,
}

#[derive(Debug)]
struct Waiting {
    reply: Reply,
    /// Whether any of it was handed to QUIC.
    written: bool,
}

/// How a pipeline ended.
pub(super) enum Ended {
    /// The node answered everything that it has read.
    Finished,
    /// Nobody knows what the node has read.
    Broken(String),
}

impl Pipeline {
    pub(super) fn new() -> Pipeline {
        Pipeline {
            state: Mutex::default(),
            work: Notify::new(),
            room: Semaphore::new(UNDER_WAY_MAX),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn takes_requests(&self) -> bool {
        self.state().ended.is_none()
    }

    /// Sends a request, whose id is given here, and waits for its answer.
    pub(super) async fn ask(&self, request: native::Request, deadline: Instant) -> Result<Answer, Failure> {
        let late = |_| Failure::TimedOut { maybe_sent: false };
        let room = timeout_at(deadline, self.room.acquire()).await.map_err(late)?;
        let _room = room.expect("the semaphore is never closed");
        let (reply, answer) = oneshot::channel();
        let ticket = self.enqueue(request, reply)?;
        match timeout_at(deadline, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(Failure::MaybeSent("the connection was given up".to_owned())),
            Err(_) => Err(Failure::TimedOut {
                maybe_sent: ticket.is_written(),
            }),
        }
    }

    fn enqueue(&self, mut request: native::Request, reply: Reply) -> Result<Ticket<'_>, Failure> {
        let id = {
            let mut state = self.state();
            if let Some(reason) = &state.ended {
                return Err(Failure::NotSent(reason.clone()));
            }
            state.last_id += 1;
            request.id = state.last_id;
            let written = false;
            state.waiting.insert(request.id, Waiting { reply, written });
            let id = request.id;
            state.queue.push_back(request);
            id
        };
        self.work.notify_one();
        Ok(Ticket { pipeline: self, id })
    }

    /// The requests that wait, as far as they go together; those that nobody waits for any more are left out.
    fn take_batch(&self) -> Option<Bytes> {
        let mut state = self.state();
        let state = &mut *state;
        let mut batch = BytesMut::new();
        while batch.len() < BATCH_BYTES
            && let Some(request) = state.queue.pop_front()
        {
            if let Some(waiting) = state.waiting.get_mut(&request.id) {
                waiting.written = true;
                request.encode(&mut batch);
            }
        }
        (!batch.is_empty()).then(|| batch.freeze())
    }

    fn take_answers(&self, unread: &mut BytesMut) -> Result<(), native::Malformed> {
        let mut state = self.state();
        while let Some(frame) = take_frame(unread, ANSWER_BYTES_MAX)? {
            let answer = Answer::decode(frame)?;
            if let Some(waiting) = state.waiting.remove(&answer.id) {
                // Whoever waited may be gone.
                let _ = waiting.reply.send(Ok(answer));
            }
        }
        Ok(())
    }

    /// Moves requests and answers until the connection ends; then everybody who waits is told.
    pub(super) async fn drive(self: Arc<Pipeline>, send: Sending, receive: RecvStream) {
        let ended = tokio::select! {
            biased;
            ended = self.read(receive) => ended,
            ended = self.write(send) => ended,
        };
        self.end(&ended);
    }

    async fn write(&self, mut send: Sending) -> Ended {
        loop {
            match self.take_batch() {
                Some(batch) => match send.stream().write_chunk(batch).await {
                    Ok(()) => {}
                    // The answers to what was read are still to come.
                    Err(quinn::WriteError::Stopped(_)) => std::future::pending().await,
                    Err(error) => return Ended::Broken(error.to_string()),
                },
                None => self.work.notified().await,
            }
        }
    }

    async fn read(&self, mut receive: RecvStream) -> Ended {
        let mut unread = BytesMut::new();
        loop {
            match receive.read_chunk(READ_BYTES, true).await {
                Ok(Some(chunk)) => unread.extend_from_slice(&chunk.bytes),
                Ok(None) => return Ended::Finished,
                Err(error) => return Ended::Broken(describe(&error)),
            }
            if let Err(native::Malformed(what)) = self.take_answers(&mut unread) {
                let _ = receive.stop(VarInt::from_u32(close::MALFORMED));
                return Ended::Broken(what.to_owned());
            }
        }
    }

    /// Tells everybody who waits.
    pub(super) fn end(&self, ended: &Ended) {
        let mut state = self.state();
        if state.ended.is_some() {
            return;
        }
        let reason = match ended {
            Ended::Finished => "it takes no more requests on this connection".to_owned(),
            Ended::Broken(reason) => reason.clone(),
        };
        state.ended = Some(reason.clone());
        state.queue.clear();
        for waiting in std::mem::take(&mut state.waiting).into_values() {
            let failure = match ended {
                Ended::Broken(_) if waiting.written => Failure::MaybeSent(reason.clone()),
                _ => Failure::NotSent(reason.clone()),
            };
            let _ = waiting.reply.send(Err(failure));
        }
    }
}

/// Says what a connection broke with, and not only that it did.
pub(super) fn describe(error: &ReadError) -> String {
    match error {
        ReadError::ConnectionLost(error) => error.to_string(),
        error => error.to_string(),
    }
}

/// Somebody waits for an answer, as long as this lives.
struct Ticket<'a> {
    pipeline: &'a Pipeline,
    id: u64,
}

impl Ticket<'_> {
    fn is_written(&self) -> bool {
        let state = self.pipeline.state();
        state.waiting.get(&self.id).is_some_and(|waiting| waiting.written)
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.pipeline.state().waiting.remove(&self.id);
    }
}
