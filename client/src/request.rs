//! One request, repeated where that is safe.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use quorate_api::{PROBLEM_CONTENT_TYPE, Problem, ProblemCode};
use tokio::time::{Instant, sleep};

use crate::Error;
use crate::connection::{Endpoint, Failure, Means};

pub(crate) const BACKOFF_MIN: Duration = Duration::from_millis(20);
pub(crate) const BACKOFF_MAX: Duration = Duration::from_millis(500);
/// How long a read waits for one of several endpoints in the first round; twice as long in each further one.
const SHARE: Duration = Duration::from_secs(1);
/// How many connections to a leader that a node named may be in use.
const LEADER_CONNECTIONS_MAX: usize = 16;

/// What repeating a request could do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing: it only reads, or changes what a repetition leaves as it is.
    None,
    /// Nothing: the cluster carries it out once.
    Once,
    /// It changes something, perhaps twice.
    Change,
}

/// Endpoints, and how long to try.
#[derive(Debug)]
pub(crate) struct Sender {
    pub(crate) endpoints: Vec<Endpoint>,
    /// The endpoint in use.
    pub(crate) current: AtomicUsize,
    /// The longest time for one request with its repetitions.
    pub(crate) timeout: Duration,
    /// How often each endpoint is tried.
    pub(crate) rounds_max: u32,
    pub(crate) means: Means,
    /// The leader that a node named last, when it did not forward.
    pub(crate) leader: Mutex<Option<Arc<Endpoint>>>,
}

/// What is sent.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    /// With its parameters.
    pub(crate) path: String,
    pub(crate) body: Bytes,
    pub(crate) effect: Effect,
    /// Under which key it is carried out once.
    pub(crate) request_key: Option<Arc<str>>,
    /// Whether the answer may be so long that others should not wait behind it.
    pub(crate) long_answer: bool,
}

/// How one attempt went.
enum Attempt {
    Answered(Response<Bytes>),
    /// It may be repeated.
    Again(Error),
    /// It may be repeated at the leader, whose address the node knows.
    Leader(String, Error),
    Failed(Error),
}

impl Sender {
    /// Sends until there is an answer that counts, the deadline is over, or every endpoint had its tries.
    pub(crate) async fn send(&self, call: &Call) -> Result<Response<Bytes>, Error> {
        let effect = call.effect;
        let deadline = Instant::now() + self.timeout;
        let tries = u64::from(self.rounds_max) * self.endpoints.len() as u64;
        let mut backoff = BACKOFF_MIN;
        let mut tried = 0;
        // Once an attempt may have taken effect, that others failed otherwise says nothing about the whole.
        let mut unknown = None;
        loop {
            let index = self.current.load(Ordering::Relaxed);
            let endpoint = &self.endpoints[index % self.endpoints.len()];
            let until = match effect {
                Effect::None | Effect::Once => self.share(tried, deadline),
                // Given up earlier, it would only be unknown earlier.
                Effect::Change => deadline,
            };
            let mut attempt = self.attempt(endpoint, call, until).await;
            if let Attempt::Leader(address, _) = &attempt {
                // Once: should the leadership have moved on since, the next try asks again.
                let leader = self.leader(address);
                attempt = self.attempt(&leader, call, until).await;
            }
            let error = match attempt {
                Attempt::Answered(response) => return Ok(response),
                Attempt::Failed(error) => return Err(error),
                Attempt::Again(error) | Attempt::Leader(_, error) => error,
            };
            let error = match (error, unknown.take()) {
                (error @ Error::UnknownOutcome { .. }, _) | (error, None) => error,
                (_, Some(unknown)) => unknown,
            };
            // Another task may have moved on already.
            let next = index.wrapping_add(1);
            let _ = self
                .current
                .compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed);
            tried += 1;
            if tried >= tries || Instant::now() >= deadline {
                return Err(error);
            }
            if tried.is_multiple_of(self.endpoints.len() as u64) {
                let pause = self.means.jittered(backoff);
                if Instant::now() + pause >= deadline {
                    return Err(error);
                }
                sleep(pause).await;
                backoff = (backoff * 2).min(BACKOFF_MAX);
            }
            unknown = Some(error).filter(|error| matches!(error, Error::UnknownOutcome { .. }));
        }
    }

    /// Until when the next try of a read may take: an endpoint that accepts connections and says nothing must leave time
    /// for the others.
    fn share(&self, tried: u64, deadline: Instant) -> Instant {
        let endpoints = self.endpoints.len() as u64;
        let (round, place) = (tried / endpoints, tried % endpoints);
        let now = Instant::now();
        let left = u32::try_from(endpoints - place).unwrap_or(u32::MAX);
        let mut share = deadline.saturating_duration_since(now) / left;
        let is_last = round + 1 >= u64::from(self.rounds_max);
        if endpoints > 1 && !is_last {
            let exponent = u32::try_from(round).unwrap_or(u32::MAX);
            share = share.min(SHARE.saturating_mul(2u32.saturating_pow(exponent)));
        }
        now + share
    }

    /// The leader that a node named.
    fn leader(&self, address: &str) -> Arc<Endpoint> {
        let mut leader = self.leader.lock().unwrap_or_else(PoisonError::into_inner);
        match &*leader {
            Some(known) if known.authority == address => Arc::clone(known),
            _ => {
                let named = Endpoint::new(address.to_owned(), LEADER_CONNECTIONS_MAX, &self.means);
                Arc::clone(leader.insert(Arc::new(named)))
            }
        }
    }

    async fn attempt(&self, endpoint: &Endpoint, call: &Call, until: Instant) -> Attempt {
        let effect = call.effect;
        let name = || endpoint.authority.clone();
        match endpoint.exchange(call, until).await {
            Ok(response) => self.judge(endpoint, response, effect),
            Err(Failure::Unsendable(reason)) => Attempt::Failed(Error::Protocol {
                endpoint: name(),
                reason,
            }),
            Err(Failure::NotSent(reason)) => Attempt::Again(Error::Connection {
                endpoint: name(),
                reason,
            }),
            Err(Failure::MaybeSent(reason)) if effect == Effect::None => Attempt::Again(Error::Connection {
                endpoint: name(),
                reason,
            }),
            Err(Failure::MaybeSent(reason)) => unknown(endpoint, reason, effect),
            Err(Failure::TimedOut { maybe_sent: true }) if effect != Effect::None => {
                let reason = format!("no answer within {} ms", self.timeout.as_millis());
                unknown(endpoint, reason, effect)
            }
            // Whether there is time for another try is up to the caller.
            Err(Failure::TimedOut { .. }) => Attempt::Again(Error::TimedOut { after: self.timeout }),
        }
    }

    fn judge(&self, endpoint: &Endpoint, response: Response<Bytes>, effect: Effect) -> Attempt {
        let status = response.status();
        if status.is_success() {
            return Attempt::Answered(response);
        }
        let content_type = response.headers().get(http::header::CONTENT_TYPE);
        let is_problem =
            content_type.is_some_and(|value| value.as_bytes().starts_with(PROBLEM_CONTENT_TYPE.as_bytes()));
        let problem = is_problem.then(|| serde_json::from_slice::<Problem>(response.body()));
        let Some(Ok(problem)) = problem else {
            // Not a node: a proxy in between, perhaps.
            let error = Error::Protocol {
                endpoint: endpoint.authority.clone(),
                reason: format!("it answered {status}"),
            };
            return match status {
                StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
                    if effect == Effect::None =>
                {
                    Attempt::Again(error)
                }
                // A proxy that says so may have passed the request on.
                _ if effect != Effect::None && status.is_server_error() => {
                    let reason = format!("something that is no node answered {status}");
                    unknown(endpoint, reason, effect)
                }
                _ => Attempt::Failed(error),
            };
        };
        let again = problem.code.is_safe_to_retry()
            || (effect == Effect::Once && problem.code == ProblemCode::UnknownOutcome);
        let leader = problem
            .leader
            .clone()
            .filter(|_| problem.code == ProblemCode::NotLeader);
        let error = Error::from_problem(&endpoint.authority, Box::new(problem));
        match leader {
            Some(leader) => Attempt::Leader(leader, error),
            None if again => Attempt::Again(error),
            None => Attempt::Failed(error),
        }
    }
}

/// What a write comes to that a node may have seen and did not answer: it is repeated when it is carried out once.
fn unknown(endpoint: &Endpoint, reason: String, effect: Effect) -> Attempt {
    let error = Error::UnknownOutcome {
        endpoint: endpoint.authority.clone(),
        reason,
    };
    match effect {
        Effect::Once => Attempt::Again(error),
        Effect::None | Effect::Change => Attempt::Failed(error),
    }
}
