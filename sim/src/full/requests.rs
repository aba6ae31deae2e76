//! Requests that somebody makes of one node: what operators want, and what a test asks.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::Method;

use super::client::{Answer, Client};
use super::machine::machine_at;
use super::told::Told;
use crate::consensus::schedule::Time;
use crate::consensus::trace::{Trace, hash};
use crate::trace::Operation;

/// What somebody wants of a node.
#[derive(Clone, Debug)]
pub(super) struct Order {
    pub(super) node: SocketAddr,
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) body: Bytes,
    /// How long to wait for an answer.
    pub(super) patience: Duration,
}

#[derive(Default)]
struct Inner {
    /// Those that nobody has carried yet, by number.
    waiting: BTreeMap<u64, Order>,
    made: u64,
    /// Answers, and when they came.
    answers: BTreeMap<u64, (Answer, Time)>,
    done: u64,
    trace: Trace,
}

/// Requests under way and their answers.
#[derive(Default)]
pub(super) struct Requests(Mutex<Inner>);

impl Requests {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a request; its number names the answer.
    pub(super) fn make(&self, order: Order) -> u64 {
        let mut inner = self.inner();
        inner.made += 1;
        let number = inner.made;
        inner.waiting.insert(number, order);
        number
    }

    /// Takes those that are to be carried now.
    pub(super) fn take(&self) -> BTreeMap<u64, Order> {
        std::mem::take(&mut self.inner().waiting)
    }

    /// Carries one; `now` tells when the answer came.
    pub(super) async fn carry(&self, number: u64, order: Order, now: impl Fn() -> Time, told: &Told) {
        let mut client = Client::new(order.node);
        let operation = match order.path.as_str() {
            "/cluster/step-down" => Operation::Transfer,
            path if path.starts_with("/cluster") => Operation::ChangeMembership,
            _ if order.method == Method::GET => Operation::Read,
            _ => Operation::Write,
        };
        let about = || format!("{} {}", order.path, String::from_utf8_lossy(&order.body));
        let request = told.asked(now(), machine_at(order.node), operation, about);
        let answer = client
            .ask(order.method, &order.path, order.body, order.patience)
            .await;
        told.answered(now(), request, &answer);
        let mut inner = self.inner();
        inner.done += u64::from(matches!(answer, Answer::Done(_)));
        inner.trace.note(hash(2, format!("{answer:?}").as_bytes()));
        inner.answers.insert(number, (answer, now()));
    }

    /// The answer to a request, and when it came.
    pub(super) fn answer(&self, number: u64) -> Option<(Answer, Time)> {
        self.inner().answers.get(&number).cloned()
    }

    /// How many were done.
    pub(super) fn done(&self) -> u64 {
        self.inner().done
    }

    /// A hash over every answer.
    pub(super) fn trace(&self) -> u64 {
        self.inner().trace.value()
    }
}
