//! Streams of server-sent events, and the search for a node that goes on when one breaks.

use std::sync::atomic::Ordering;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use quorate_api::{EVENT_STREAM_CONTENT_TYPE, Problem};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout_at};

use crate::Error;
use crate::connection::{Arriving, Endpoint, Failure, Means};
use crate::events::{EventParser, ServerEvent};
use crate::request::{BACKOFF_MAX, BACKOFF_MIN, Sender};

/// How long nodes may keep silent when nothing changes, in milliseconds.
pub(crate) const PROGRESS_MS: u64 = 2_000;
/// A node that kept silent for so long is left for another one.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// A connection to a node that tells.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) endpoint: String,
    body: Arriving,
    parser: EventParser,
}

/// How an attempt to go on failed.
pub(crate) enum Broken {
    /// Another node may do.
    Elsewhere(Error),
    /// No node can go on.
    Over(Error),
}

/// Asks the endpoint in use for a stream, and notes which one that is.
pub(crate) async fn open(sender: &Sender, index: &mut usize, path: &str) -> Result<Stream, Broken> {
    *index = sender.current.load(Ordering::Relaxed);
    let endpoint = &sender.endpoints[*index % sender.endpoints.len()];
    let deadline = Instant::now() + sender.timeout.min(SILENCE_MAX);
    let response = endpoint
        .open(path, deadline)
        .await
        .map_err(|failure| Broken::Elsewhere(failed(sender, endpoint, failure)))?;
    let (head, body) = response.into_parts();
    let content_type = head.headers.get(CONTENT_TYPE);
    let is_stream =
        content_type.is_some_and(|value| value.as_bytes().starts_with(EVENT_STREAM_CONTENT_TYPE.as_bytes()));
    if head.status.is_success() && is_stream {
        return Ok(Stream {
            endpoint: endpoint.authority.clone(),
            body,
            parser: EventParser::default(),
        });
    }
    let body = timeout_at(deadline, body.whole()).await;
    let body = body.ok().and_then(Result::ok);
    let problem = body.and_then(|body| serde_json::from_slice::<Problem>(&body).ok());
    Err(match problem {
        Some(problem) => refused(&endpoint.authority, problem),
        None => Broken::Elsewhere(Error::Protocol {
            endpoint: endpoint.authority.clone(),
            reason: format!("it answered with {} instead of a stream", head.status),
        }),
    })
}

/// The endpoint of this number failed: the next one is in use, unless others have moved on already.
pub(crate) fn leave(sender: &Sender, index: usize) {
    let next = index.wrapping_add(1);
    let _ = sender
        .current
        .compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed);
}

fn failed(sender: &Sender, endpoint: &Endpoint, failure: Failure) -> Error {
    let endpoint = endpoint.authority.clone();
    match failure {
        Failure::Unsendable(reason) | Failure::NotSent(reason) | Failure::MaybeSent(reason) => {
            Error::Connection { endpoint, reason }
        }
        Failure::TimedOut { .. } => Error::TimedOut {
            after: sender.timeout.min(SILENCE_MAX),
        },
    }
}

/// The next event, unless the stream ends or nothing comes for too long.
pub(crate) async fn next_event(stream: &mut Stream) -> Result<ServerEvent, Broken> {
    let broken = |endpoint: &str, reason: String| {
        Broken::Elsewhere(Error::Connection {
            endpoint: endpoint.to_owned(),
            reason,
        })
    };
    loop {
        if let Some(event) = stream.parser.next_event() {
            return Ok(event);
        }
        let deadline = Instant::now() + SILENCE_MAX;
        let bytes = match timeout_at(deadline, stream.body.next()).await {
            Ok(Ok(Some(bytes))) => bytes,
            Ok(Err(reason)) => {
                return Err(broken(&stream.endpoint, format!("the stream broke: {reason}")));
            }
            Ok(Ok(None)) => {
                return Err(broken(
                    &stream.endpoint,
                    "the stream ended without a word".to_owned(),
                ));
            }
            Err(_) => {
                let reason = format!("the stream was silent for {} ms", SILENCE_MAX.as_millis());
                return Err(broken(&stream.endpoint, reason));
            }
        };
        if stream.parser.feed(&bytes).is_err() {
            return Err(odd(&stream.endpoint, "it sends an event without end".to_owned()));
        }
    }
}

pub(crate) fn read<T: DeserializeOwned>(endpoint: &str, event: &ServerEvent) -> Result<T, Broken> {
    serde_json::from_str(&event.data).map_err(|error| {
        odd(
            endpoint,
            format!("its event `{}` is not the expected JSON: {error}", event.kind),
        )
    })
}

pub(crate) fn odd(endpoint: &str, reason: String) -> Broken {
    Broken::Over(Error::Protocol {
        endpoint: endpoint.to_owned(),
        reason,
    })
}

pub(crate) fn refused(endpoint: &str, problem: Problem) -> Broken {
    let again = problem.code.is_safe_to_retry();
    let error = Error::from_problem(endpoint, Box::new(problem));
    if again {
        Broken::Elsewhere(error)
    } else {
        Broken::Over(error)
    }
}

/// A search for a node that goes on.
pub(crate) struct Search {
    means: Means,
    deadline: Instant,
    rounds_max: u32,
    endpoints: usize,
    tried: usize,
    backoff: Duration,
}

impl Search {
    pub(crate) fn new(sender: &Sender) -> Search {
        Search {
            means: sender.means.clone(),
            deadline: Instant::now() + sender.timeout,
            rounds_max: sender.rounds_max,
            endpoints: sender.endpoints.len(),
            tried: 0,
            backoff: BACKOFF_MIN,
        }
    }

    /// After an endpoint failed: whether to try the next one, after a pause when all had their turn.
    pub(crate) async fn pause(&mut self) -> bool {
        self.tried += 1;
        if self.tried.is_multiple_of(self.endpoints) {
            let round = u32::try_from(self.tried / self.endpoints).unwrap_or(u32::MAX);
            let pause = self.means.jittered(self.backoff);
            // The first failure is that of a stream which worked, so it takes one more round.
            if round > self.rounds_max || Instant::now() + pause >= self.deadline {
                return false;
            }
            sleep(pause).await;
            self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
        }
        true
    }
}
