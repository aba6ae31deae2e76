//! One endpoint, and what is spoken with it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::http1::Pool;
use crate::machine::Machine;
use crate::quic::{self, Route};
use crate::request::Call;

/// How long a connection may take to be made.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// An answer is never longer than this.
pub(crate) const ANSWER_BYTES_MAX: usize = 64 << 20;

/// What a client speaks with nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// QUIC, and HTTP with a node that does not answer to it within a tenth of a second.
    #[default]
    Auto,
    /// QUIC alone: many requests share one connection, and those that wait are sent together. It is encrypted, and does not
    /// show who the node is: whoever can pretend to be the node over HTTP can over QUIC.
    Quic,
    /// HTTP/1.1 alone.
    Http,
}

/// What there is to speak with nodes.
#[derive(Clone, Debug)]
pub(crate) struct Means {
    pub(crate) protocol: Protocol,
    pub(crate) machine: Arc<dyn Machine>,
}

impl Means {
    /// Half to all of `pause`, so that many clients do not come back at once; half of it on a machine without chance.
    pub(crate) fn jittered(&self, pause: Duration) -> Duration {
        let mut random = [0; 4];
        let _ = self.machine.tls().secure_random.fill(&mut random);
        let half = pause / 2;
        half + half.mul_f64(f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX))
    }
}

/// What an exchange failed with, and what that says about its effect.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// It can never be sent.
    Unsendable(String),
    /// The node did nothing of it, and never will.
    NotSent(String),
    /// The node may have seen it.
    MaybeSent(String),
    /// The time was over; the flag tells whether the node may have seen it.
    TimedOut { maybe_sent: bool },
}

#[derive(Debug)]
pub(crate) struct Endpoint {
    /// `host:port`.
    pub(crate) authority: String,
    http: Pool,
    quic: Route,
}

impl Endpoint {
    pub(crate) fn new(authority: String, connections_max: usize, means: &Means) -> Endpoint {
        Endpoint {
            http: Pool::new(authority.clone(), connections_max),
            quic: Route::new(authority.clone(), means.clone()),
            authority,
        }
    }

    /// Sends one request and reads the whole answer.
    pub(crate) async fn exchange(&self, call: &Call, deadline: Instant) -> Result<Response<Bytes>, Failure> {
        if let Some(connection) = self.quic.connection(deadline).await? {
            return connection.exchange(call, deadline).await;
        }
        let answer = self.http.exchange(call, deadline).await;
        self.note(&answer);
        answer
    }

    /// Sends a `GET`, and returns the answer with a body that is still to come.
    pub(crate) async fn open(&self, path: &str, deadline: Instant) -> Result<Response<Arriving>, Failure> {
        if let Some(connection) = self.quic.connection(deadline).await? {
            let answer = connection.open(path, deadline).await?;
            return Ok(answer.map(Arriving::Quic));
        }
        let answer = self.http.open(path, deadline).await;
        self.note(&answer);
        Ok(answer?.map(Arriving::Http))
    }

    /// That QUIC does not work is remembered only of a node that is there.
    fn note<T>(&self, answer: &Result<T, Failure>) {
        if let Err(Failure::NotSent(_) | Failure::TimedOut { .. }) = answer {
            self.quic.forget();
        }
    }
}

/// A body that is still to come.
#[derive(Debug)]
pub(crate) enum Arriving {
    Http(Incoming),
    Quic(quic::Arriving),
}

impl Arriving {
    /// The next bytes; none at the end.
    ///
    /// # Errors
    /// With the reason when it breaks.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, String> {
        match self {
            Arriving::Http(body) => match body.frame().await {
                Some(Ok(frame)) => Ok(Some(frame.into_data().unwrap_or_default())),
                Some(Err(error)) => Err(error.to_string()),
                None => Ok(None),
            },
            Arriving::Quic(body) => body.next().await,
        }
    }

    /// All that is to come, as far as it is read within bounds.
    ///
    /// # Errors
    /// With the reason when it breaks, or is too long.
    pub(crate) async fn whole(mut self) -> Result<Bytes, String> {
        let mut all = Vec::new();
        while let Some(bytes) = self.next().await? {
            if all.len() + bytes.len() > ANSWER_BYTES_MAX {
                return Err("the answer is too long".to_owned());
            }
            all.extend_from_slice(&bytes);
        }
        Ok(all.into())
    }
}
