//! What clients ask of the running cluster, and what they remember of the answers.
//!
//! A few clients share keys, whose histories must be linearizable. Each writes keys of its own as well, every key once, and
//! repeats some of those requests under an idempotency key until they are answered: each write that was acknowledged must
//! be found in the end, every one was carried out once, and who asks for what its own write left never gets less. They also do
//! transactions over several lists.

mod lists;
mod own;
mod worker;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use quorate_api::{KeyValue, ListAnswer};

use self::worker::Worker;
use super::client::{Answer, Client};
use super::line::Line;
use super::quic::ClientMachine;
use super::requests::Requests;
use super::service::Service;
use super::setup::Reads;
use super::told::Told;
use super::watchers::Watchers;
use crate::consensus::schedule::{SECOND, Time};
use crate::consensus::trace::Trace;
use crate::consensus::{Mark, Marks};
use crate::linearizable::Operation;
use crate::serializable::Transaction;

/// Where keys are that only one client writes.
const OWN: &str = "own/";
/// The first key after those.
const OWN_END: &str = "own0";
/// Clients at a time.
const CLIENTS: u64 = 4;
/// How often new orders of single requests are looked at.
const ORDERS_LOOKED_AT: Duration = Duration::from_millis(5);
/// How long a probe waits between two writes, and for the answer to one; so it has fifty connections at the most.
const PROBE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// How long a client waits for an answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// What clients did and saw.
#[derive(Default)]
struct Record {
    histories: BTreeMap<String, Vec<Operation>>,
    transactions: Vec<Transaction>,
    /// Acknowledged writes of keys that nobody else writes: value and revision.
    own: BTreeMap<String, (u64, u64)>,
    next_value: u64,
    requests: u64,
    acknowledged: u64,
    reads: u64,
    unknown: u64,
    /// Answers that no client should get.
    surprises: Vec<String>,
    /// Situations that came about.
    marks: BTreeSet<Mark>,
    trace: Trace,
    ended: bool,
    under_way: u64,
    listing: Listing,
    mood: Mood,
    /// When the last lineage ended, with everything that only lost nodes had.
    lineage_ended: Option<Duration>,
    /// Acknowledged writes of that lineage, which may be lost.
    before: BTreeMap<String, (u64, u64)>,
}

/// What clients are like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Habit {
    /// How often they ask a second, all together.
    pub(super) requests: u64,
    pub(super) reads: Reads,
    /// Whether every node has a client besides that writes to it all the time.
    pub(super) probes: bool,
    /// Whether some watch what changes.
    pub(super) watches: bool,
    /// How many of the first clients speak QUIC.
    pub(super) over_quic: u64,
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

/// A look at everything that is there.
#[derive(Clone, Debug, Default)]
enum Listing {
    #[default]
    Unwanted,
    /// Of this node.
    Wanted(SocketAddr),
    /// Value and revision of every key that only one client writes.
    Done(BTreeMap<String, (u64, u64)>),
}

/// What all clients share.
pub(super) struct Clients {
    record: Mutex<Record>,
    pub(super) watchers: Arc<Watchers>,
    machine: ClientMachine,
    nodes: Vec<SocketAddr>,
    noise: u64,
    keys: u64,
    habit: Habit,
    /// What somebody asks of one node.
    pub(super) requests: Requests,
    told: Arc<Told>,
    /// How the cluster serves the probes.
    pub(super) service: Service,
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
    /// Clients of `nodes`.
    pub(super) fn new(
        machine: ClientMachine,
        nodes: Vec<SocketAddr>,
        noise: u64,
        keys: u64,
        habit: Habit,
        told: Arc<Told>,
    ) -> Clients {
        Clients {
            record: Mutex::default(),
            watchers: Arc::new(Watchers::new(&machine, habit, nodes.clone(), noise)),
            machine,
            nodes,
            noise,
            keys,
            habit,
            requests: Requests::default(),
            told,
            service: Service::default(),
        }
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything that the clients' machine does.
    pub(super) async fn live(self: Arc<Clients>) {
        self.machine.clock.start_life();
        for worker in self.workers() {
            tokio::task::spawn_local(worker.run());
        }
        self.watchers.start();
        if self.habit.probes {
            for place in 0..self.nodes.len() {
                tokio::task::spawn_local(Arc::clone(&self).probe(place));
            }
        }
        loop {
            tokio::time::sleep(ORDERS_LOOKED_AT).await;
            for (number, order) in self.requests.take() {
                let clients = Arc::clone(&self);
                tokio::task::spawn_local(async move {
                    let now = || clients.machine.clock.simulated();
                    clients.requests.carry(number, order, now, &clients.told).await;
                });
            }
            let wanted = match self.record().listing {
                Listing::Wanted(node) => Some(node),
                _ => None,
            };
            if let Some(node) = wanted
                && let Some(found) = self.look(node).await
            {
                self.record().listing = Listing::Done(found);
            }
        }
    }

    /// The clients, each with its lines to the nodes. Those who speak QUIC share connections: every other one knows one
    /// node at a time, and the rest know all of them.
    fn workers(self: &Arc<Clients>) -> Vec<Worker> {
        let library = |known: fn(&[SocketAddr]) -> &[SocketAddr]| -> Vec<Line> {
            let mut nodes = self.nodes.clone();
            let line = |node: &SocketAddr| {
                let client = self
                    .machine
                    .client(known(&nodes))
                    .expect("addresses are endpoints");
                nodes.rotate_left(1);
                Line::quic(*node, client)
            };
            self.nodes.iter().map(line).collect()
        };
        let quic = [library(|nodes| &nodes[..1]), library(|nodes| nodes)];
        let http = |node: &SocketAddr| Line::Http(Client::new(*node));
        let lines = |number| match number < self.habit.over_quic {
            true => quic[usize::from(number % 2 > 0)]
                .iter()
                .map(Line::shared)
                .collect(),
            false => self.nodes.iter().map(http).collect(),
        };
        let worker = |number| Worker::new(Arc::clone(self), number, lines(number));
        (0..CLIENTS).map(worker).collect()
    }

    /// Writes to the node at this place all the time, whether or not the writes before were answered.
    async fn probe(self: Arc<Clients>, place: usize) {
        let idle = Rc::new(RefCell::new(Vec::new()));
        // Those of different nodes take turns.
        tokio::time::sleep(PROBE.0 * place as u32 / self.nodes.len() as u32).await;
        loop {
            tokio::time::sleep(PROBE.0).await;
            if self.record().ended {
                return;
            }
            let line = idle.borrow_mut().pop();
            let line = line.unwrap_or_else(|| Line::Http(Client::new(self.nodes[place])));
            let (clients, idle) = (Arc::clone(&self), Rc::clone(&idle));
            tokio::task::spawn_local(async move {
                let invoked = clients.machine.clock.simulated();
                let mut worker = Worker::probe(Arc::clone(&clients), place, line);
                if worker.write_own().await {
                    clients.service.served(invoked, clients.machine.clock.simulated());
                }
                idle.borrow_mut().extend(worker.lines.pop());
            });
        }
    }

    pub(super) fn set_mood(&self, mood: Mood) {
        self.record().mood = mood;
    }

    /// The mean time until the next request of a client, and how long it waits besides.
    fn rhythm(&self) -> (Time, Time) {
        let (now, mood) = (self.machine.clock.simulated(), self.record().mood);
        let mean = CLIENTS * SECOND / self.habit.requests.max(1);
        match mood {
            Mood::Burst { times, until } if now < until => (mean / times.max(1), 0),
            Mood::Quiet { until } if now < until => (mean, until - now),
            _ => (mean, 0),
        }
    }

    async fn look(&self, node: SocketAddr) -> Option<BTreeMap<String, (u64, u64)>> {
        let mut found = BTreeMap::new();
        let mut client = Client::new(node);
        let mut query = format!("prefix={OWN}");
        loop {
            let path = format!("/v1/kv?{query}&limit=10000");
            let Answer::Done(body) = client.ask(Method::GET, &path, Bytes::new(), PATIENCE).await else {
                return None;
            };
            let answer: ListAnswer = serde_json::from_slice(&body).ok()?;
            for entry in &answer.entries {
                let key = std::str::from_utf8(&entry.key).ok()?.to_owned();
                if entry.version != 1 {
                    let times = entry.version;
                    let surprise = format!("{key} was written once, and is there in version {times}");
                    self.record().surprises.push(surprise);
                }
                found.insert(key, (number(&entry.value)?, entry.mod_revision));
            }
            match answer.next {
                Some(next) => query = format!("start={next}&end={OWN_END}"),
                None => break,
            }
        }
        self.look_at_lists(&mut client).await?;
        Some(found)
    }

    /// A start was forced: what was acknowledged before may be lost, and histories of shared keys end here. No node runs.
    pub(super) fn lineage_ends(&self) {
        let now = self.now();
        let mut record = self.record();
        record.lineage_ended = Some(now);
        let own = std::mem::take(&mut record.own);
        record.before.extend(own);
    }

    /// Acknowledged writes of a lineage that ended and that are not in `found`.
    pub(super) fn lost(&self, found: &BTreeMap<String, (u64, u64)>) -> u64 {
        let record = self.record();
        let lost = record
            .before
            .iter()
            .filter(|(key, written)| found.get(*key) != Some(*written));
        lost.count() as u64
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

    /// A client shall look at everything that is there, at this node.
    pub(super) fn list(&self, node: SocketAddr) {
        self.record().listing = Listing::Wanted(node);
    }

    /// What it found: value and revision of every key that only one client writes.
    pub(super) fn listed(&self) -> Option<BTreeMap<String, (u64, u64)>> {
        match &self.record().listing {
            Listing::Done(found) => Some(found.clone()),
            Listing::Unwanted | Listing::Wanted(_) => None,
        }
    }

    pub(super) fn counts(&self) -> Counts {
        let record = self.record();
        Counts {
            requests: record.requests,
            acknowledged: record.acknowledged,
            reads: record.reads,
            unknown: record.unknown,
            orders: self.requests.done(),
        }
    }

    /// A hash over every answer.
    pub(super) fn trace(&self) -> u64 {
        self.record().trace.value() ^ self.requests.trace().rotate_left(1)
    }

    /// Situations that came about.
    pub(super) fn marks(&self) -> Marks {
        self.record().marks.iter().copied().collect()
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
        Duration::from_nanos(self.machine.clock.simulated())
    }
}

/// A value; some fill several sectors of a log, and pieces of a snapshot.
fn text(value: u64) -> Bytes {
    let width = [1, 60, 200, 900][(value % 4) as usize];
    Bytes::from(format!("{value:0width$}"))
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
