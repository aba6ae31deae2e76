//! What clients ask of the running cluster, and what they remember of the answers.
//!
//! A few clients share keys, whose histories must be linearizable. One more writes keys of its own: each write that
//! was acknowledged must be found in the end.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use quorate_api::{KeyValue, ListAnswer, ProblemCode, PutAnswer};

use super::client::{Answer, Client};
use super::clock::MachineClock;
use super::watchers::Watchers;
use crate::consensus::schedule::Time;
use crate::consensus::trace::{Trace, hash};
use crate::linearizable::{Action, Operation, Outcome};
use crate::random::{Concern, Stream};

/// Where keys are that only one client writes.
const OWN: &str = "own/";
/// Clients at a time.
const CLIENTS: u64 = 4;
/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// What clients did and saw.
#[derive(Default)]
struct Record {
    histories: BTreeMap<String, Vec<Operation>>,
    /// Acknowledged writes of keys that nobody else writes: value and revision.
    own: BTreeMap<String, (u64, u64)>,
    next_value: u64,
    requests: u64,
    acknowledged: u64,
    reads: u64,
    unknown: u64,
    /// Answers that no client should get.
    surprises: Vec<String>,
    trace: Trace,
    ended: bool,
    under_way: u64,
    listing: Listing,
    mood: Mood,
    orders: Vec<Order>,
    orders_done: u64,
}

/// How often clients ask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mood {
    /// As often as usual.
    #[default]
    Usual,
    /// So many times as often until then.
    Burst { times: u64, until: Time },
    /// Not at all until then.
    Quiet { until: Time },
}

/// What an operator wants of a node.
#[derive(Clone, Debug)]
pub(super) struct Order {
    pub(super) node: SocketAddr,
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) body: Bytes,
}

/// A look at everything that is there.
#[derive(Clone, Debug, Default)]
enum Listing {
    #[default]
    Unwanted,
    Wanted,
    /// Value and revision of every key that only one client writes.
    Done(BTreeMap<String, (u64, u64)>),
}

/// What all clients share.
pub(super) struct Clients {
    record: Mutex<Record>,
    pub(super) watchers: Arc<Watchers>,
    clock: Arc<MachineClock>,
    nodes: Vec<SocketAddr>,
    noise: u64,
    keys: u64,
    /// The mean time between two requests of one client.
    mean: Time,
}

/// Counts of what clients did.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) requests: u64,
    pub(super) acknowledged: u64,
    pub(super) reads: u64,
    pub(super) unknown: u64,
    /// What operators wanted and was done.
    pub(super) orders: u64,
}

impl Clients {
    /// Clients of `nodes` that ask `rate` times a simulated second together.
    pub(super) fn new(
        clock: Arc<MachineClock>,
        nodes: Vec<SocketAddr>,
        noise: u64,
        keys: u64,
        rate: u64,
    ) -> Clients {
        Clients {
            record: Mutex::default(),
            watchers: Arc::new(Watchers::new(nodes.clone(), noise)),
            clock,
            nodes,
            noise,
            keys,
            mean: CLIENTS * 1_000_000_000 / rate,
        }
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything that the clients' machine does.
    pub(super) async fn live(self: Arc<Clients>) {
        self.clock.start_life();
        for number in 0..CLIENTS {
            let worker = Worker::new(Arc::clone(&self), number);
            tokio::task::spawn_local(worker.run());
        }
        self.watchers.start();
        loop {
            tokio::time::sleep(Duration::from_millis(10)).await;
            for order in std::mem::take(&mut self.record().orders) {
                tokio::task::spawn_local(Arc::clone(&self).carry_out(order));
            }
            let wanted = matches!(self.record().listing, Listing::Wanted);
            if wanted && let Some(found) = self.look().await {
                self.record().listing = Listing::Done(found);
            }
        }
    }

    async fn carry_out(self: Arc<Clients>, order: Order) {
        let mut client = Client::new(order.node);
        let answer = client.ask(order.method, &order.path, order.body, PATIENCE).await;
        let mut record = self.record();
        record.orders_done += u64::from(matches!(answer, Answer::Done(_)));
        record.trace.note(hash(2, format!("{answer:?}").as_bytes()));
    }

    /// An operator wants something.
    pub(super) fn order(&self, order: Order) {
        self.record().orders.push(order);
    }

    pub(super) fn set_mood(&self, mood: Mood) {
        self.record().mood = mood;
    }

    /// The mean time until the next request of a client, and how long it waits besides.
    fn rhythm(&self) -> (Time, Time) {
        let (now, mood) = (self.clock.simulated(), self.record().mood);
        match mood {
            Mood::Burst { times, until } if now < until => (self.mean / times.max(1), 0),
            Mood::Quiet { until } if now < until => (self.mean, until - now),
            _ => (self.mean, 0),
        }
    }

    async fn look(&self) -> Option<BTreeMap<String, (u64, u64)>> {
        let mut client = Client::new(self.nodes[0]);
        let path = format!("/v1/kv?prefix={OWN}&limit=10000");
        let Answer::Done(body) = client.ask(Method::GET, &path, Bytes::new(), PATIENCE).await else {
            return None;
        };
        let answer: ListAnswer = serde_json::from_slice(&body).ok()?;
        let entry = |entry: &KeyValue| {
            let key = std::str::from_utf8(&entry.key).ok()?.to_owned();
            Some((key, (number(&entry.value)?, entry.mod_revision)))
        };
        answer.entries.iter().map(entry).collect()
    }

    /// No client asks anything new.
    pub(super) fn end(&self) {
        self.record().ended = true;
    }

    /// Whether every client has ended.
    pub(super) fn are_quiet(&self) -> bool {
        let record = self.record();
        record.ended && record.under_way == 0
    }

    /// A client shall look at everything that is there.
    pub(super) fn list(&self) {
        self.record().listing = Listing::Wanted;
    }

    /// What it found: value and revision of every key that only one client writes.
    pub(super) fn listed(&self) -> Option<BTreeMap<String, (u64, u64)>> {
        match &self.record().listing {
            Listing::Done(found) => Some(found.clone()),
            Listing::Unwanted | Listing::Wanted => None,
        }
    }

    pub(super) fn counts(&self) -> Counts {
        let record = self.record();
        Counts {
            requests: record.requests,
            acknowledged: record.acknowledged,
            reads: record.reads,
            unknown: record.unknown,
            orders: record.orders_done,
        }
    }

    /// A hash over every answer.
    pub(super) fn trace(&self) -> u64 {
        self.record().trace.value()
    }

    /// What happened on the keys that clients share.
    pub(super) fn histories(&self) -> BTreeMap<String, Vec<Operation>> {
        self.record().histories.clone()
    }

    /// Acknowledged writes of keys that nobody else writes, with value and revision.
    pub(super) fn acknowledged(&self) -> BTreeMap<String, (u64, u64)> {
        self.record().own.clone()
    }

    pub(super) fn surprises(&self) -> Vec<String> {
        self.record().surprises.clone()
    }

    fn now(&self) -> Duration {
        Duration::from_nanos(self.clock.simulated())
    }
}

struct Worker {
    clients: Arc<Clients>,
    number: u64,
    random: Stream,
    connections: Vec<Client>,
    current: usize,
    /// Value and revision that it saw last of a shared key.
    seen: BTreeMap<String, (u64, u64)>,
}

impl Worker {
    fn new(clients: Arc<Clients>, number: u64) -> Worker {
        let connections: Vec<Client> = clients.nodes.iter().map(|node| Client::new(*node)).collect();
        Worker {
            random: Stream::keyed(clients.noise, Concern::Clients, number),
            current: usize::try_from(number).unwrap_or(0) % connections.len(),
            clients,
            number,
            connections,
            seen: BTreeMap::new(),
        }
    }

    async fn run(mut self) {
        loop {
            let (mean, wait) = self.clients.rhythm();
            let pause = wait + self.random.around(mean);
            tokio::time::sleep(Duration::from_nanos(pause)).await;
            if self.clients.record().ended {
                return;
            }
            if self.random.chance(50_000) {
                self.current = self.random.below(self.connections.len() as u64) as usize;
            }
            let draw = self.random.below(100);
            let key = format!("shared/{}", self.random.below(self.clients.keys));
            match draw {
                0..25 => self.write_own().await,
                25..50 => self.put(key).await,
                50..65 => self.compare_and_set(key).await,
                _ => self.get(key).await,
            }
        }
    }

    async fn ask(&mut self, method: Method, path: &str, body: Bytes) -> Answer {
        {
            let mut record = self.clients.record();
            record.requests += 1;
            record.under_way += 1;
        }
        let answer = self.connections[self.current]
            .ask(method, path, body, PATIENCE)
            .await;
        let now = self.clients.now();
        let mut record = self.clients.record();
        record.under_way -= 1;
        record.trace.note(self.number << 60 | now.as_nanos() as u64);
        record.trace.note(hash(1, format!("{answer:?}").as_bytes()));
        if matches!(answer, Answer::Nothing(_) | Answer::Unknown(_)) {
            record.unknown += u64::from(matches!(answer, Answer::Unknown(_)));
            self.current = (self.current + 1) % self.connections.len();
        }
        answer
    }

    fn new_value(&self) -> u64 {
        let mut record = self.clients.record();
        record.next_value += 1;
        record.next_value
    }

    fn remember(&self, key: &str, action: Action, outcome: Outcome, invoked: Duration) {
        let returned = self.clients.now();
        let operation = Operation {
            action,
            outcome,
            invoked,
            returned,
        };
        let mut record = self.clients.record();
        record
            .histories
            .entry(key.to_owned())
            .or_default()
            .push(operation);
    }

    fn surprise(&self, what: String) {
        self.clients.record().surprises.push(what);
    }

    async fn write_own(&mut self) {
        let value = self.new_value();
        let key = format!("{OWN}{}/{value}", self.number);
        let body = Bytes::from(value.to_string());
        if let Answer::Done(body) = self.ask(Method::PUT, &path(&key), body).await {
            match serde_json::from_slice::<PutAnswer>(&body) {
                Ok(answer) => {
                    let mut record = self.clients.record();
                    record.acknowledged += 1;
                    record.own.insert(key, (value, answer.revision));
                }
                Err(error) => self.surprise(format!("a put of {key} is answered {body:?}: {error}")),
            }
        }
    }

    async fn put(&mut self, key: String) {
        let value = self.new_value();
        let (action, invoked) = (Action::Put(value), self.clients.now());
        let answer = self
            .ask(Method::PUT, &path(&key), Bytes::from(value.to_string()))
            .await;
        self.written(&key, action, value, invoked, answer);
    }

    async fn compare_and_set(&mut self, key: String) {
        let Some((expected, revision)) = self.seen.get(&key).copied() else {
            return self.get(key).await;
        };
        let value = self.new_value();
        let (action, invoked) = (Action::CompareAndSet { expected, value }, self.clients.now());
        let path = format!("{}?revision={revision}", path(&key));
        let answer = self.ask(Method::PUT, &path, Bytes::from(value.to_string())).await;
        self.written(&key, action, value, invoked, answer);
    }

    fn written(&mut self, key: &str, action: Action, value: u64, invoked: Duration, answer: Answer) {
        let outcome = match &answer {
            Answer::Done(body) => match serde_json::from_slice::<PutAnswer>(body) {
                Ok(answer) => {
                    self.seen.insert(key.to_owned(), (value, answer.revision));
                    self.clients.record().acknowledged += 1;
                    Outcome::Done
                }
                Err(error) => return self.surprise(format!("a put of {key} is answered {body:?}: {error}")),
            },
            Answer::Other(ProblemCode::RevisionConflict) => {
                self.seen.remove(key);
                Outcome::Conflict
            }
            Answer::Other(code) => return self.surprise(format!("a put of {key} is answered {code}")),
            Answer::Nothing(_) => Outcome::Failed,
            Answer::Unknown(_) => Outcome::Unknown,
        };
        self.remember(key, action, outcome, invoked);
    }

    async fn get(&mut self, key: String) {
        let invoked = self.clients.now();
        let outcome = match self.ask(Method::GET, &path(&key), Bytes::new()).await {
            Answer::Done(body) => match found(&body) {
                Some((value, revision)) => {
                    self.seen.insert(key.clone(), (value, revision));
                    Outcome::Found(value)
                }
                None => return self.surprise(format!("a get of {key} is answered {body:?}")),
            },
            Answer::Other(ProblemCode::KeyNotFound) => {
                self.seen.insert(key.clone(), (0, 0));
                Outcome::Found(0)
            }
            Answer::Other(code) => return self.surprise(format!("a get of {key} is answered {code}")),
            Answer::Nothing(_) | Answer::Unknown(_) => Outcome::Unknown,
        };
        if outcome != Outcome::Unknown {
            self.clients.record().reads += 1;
        }
        self.remember(&key, Action::Get, outcome, invoked);
    }
}

fn path(key: &str) -> String {
    format!("/v1/kv/{key}")
}

/// Value and revision of a key.
fn found(body: &[u8]) -> Option<(u64, u64)> {
    let entry: KeyValue = serde_json::from_slice(body).ok()?;
    Some((number(&entry.value)?, entry.mod_revision))
}

fn number(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}
