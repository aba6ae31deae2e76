//! What a client asks a node over: HTTP, or QUIC through the client library.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use quorate_client::Error;

use super::client::{Answer, Client, judge_problem};
use crate::consensus::Mark;

/// One of so many reads over QUIC is made as one whose answer may be long.
const LONG_EVERY: u64 = 3;

/// How one node is asked.
pub(super) enum Line {
    Http(Client),
    Quic(Quic),
}

/// Asks over QUIC; clones of the library's client share their connections, as tasks of one program do.
pub(super) struct Quic {
    /// Who is asked first.
    address: SocketAddr,
    client: quorate_client::Client,
    asked: u64,
}

impl Line {
    pub(super) fn quic(address: SocketAddr, client: quorate_client::Client) -> Line {
        Line::Quic(Quic {
            address,
            client,
            asked: 0,
        })
    }

    /// The same over QUIC, on the same connections.
    pub(super) fn shared(&self) -> Line {
        match self {
            Line::Http(client) => Line::Http(Client::new(client.address())),
            Line::Quic(quic) => Line::quic(quic.address, quic.client.clone()),
        }
    }

    /// Whom it asks, or asks first.
    pub(super) fn address(&self) -> SocketAddr {
        match self {
            Line::Http(client) => client.address(),
            Line::Quic(quic) => quic.address,
        }
    }

    /// What an answer shows of QUIC.
    pub(super) fn mark(&self, answer: &Answer) -> Option<Mark> {
        let (Line::Quic(_), Answer::Nothing(reason) | Answer::Unknown(reason)) = (self, answer) else {
            return None;
        };
        let shown = [
            ("nobody listens there any more", Mark::QuicRefused),
            ("it takes no more requests", Mark::QuicStopping),
            ("reset by peer", Mark::QuicReset),
            ("timed out", Mark::QuicSilent),
        ];
        let shown = shown.into_iter().find(|(words, _)| reason.contains(words));
        shown.map(|(_, mark)| mark)
    }

    /// Sends one request, under an idempotency key when there is one, and waits for its answer: for at most `limit`, or
    /// over QUIC as long as the library's client has patience.
    pub(super) async fn ask(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
        once: Option<&str>,
        limit: Duration,
    ) -> Answer {
        match self {
            Line::Http(client) => client.ask_once(method, path, body, once, limit).await,
            Line::Quic(quic) => quic.ask(method, path, body, once).await,
        }
    }
}

impl Quic {
    async fn ask(&mut self, method: Method, path: &str, body: Bytes, once: Option<&str>) -> Answer {
        self.asked += 1;
        let client = match once {
            Some(key) => self.client.once(key),
            None => self.client.clone(),
        };
        let answer = if method == Method::GET && self.asked.is_multiple_of(LONG_EVERY) {
            client.read_long(path).await
        } else {
            client.request(method, path, body).await
        };
        answer.map_or_else(|error| judge(&error), Answer::Done)
    }
}

/// What the client library says of a request that failed, which only with an unknown outcome may have happened.
fn judge(error: &Error) -> Answer {
    match (error, error.problem()) {
        (_, Some(problem)) => judge_problem(problem),
        (Error::Connection { .. } | Error::TimedOut { .. }, None) => Answer::Nothing(error.to_string()),
        (_, None) => Answer::Unknown(error.to_string()),
    }
}
