//! Clients that watch keys through faults, and what is demanded of what they were told.
//!
//! Each watches a prefix at one node until that fails it, reads slowly, or moves for no reason, and goes on at another
//! after the last revision. In the end it must have been told every change of its keys once and in order, the changes of
//! one revision together, and every mark of progress must have come after all that it speaks of (the guarantees of
//! etcd's watches).

mod library;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use quorate_api::{Problem, WatchChange, WatchEvent, WatchMark, events};
use quorate_client::{EventParser, ServerEvent};
use quorate_core::state::{KeyRange, Query, Revision, Span, StateMachine};
use tokio::time::timeout;
use turmoil::net::TcpStream;

use super::quic::ClientMachine;
use super::workload::Habit;
use crate::consensus::checker::{Verdict, demand};
use crate::consensus::trace::{Trace, hash};
use crate::random::{Concern, Stream};

/// What the watchers watch, one each; a key of its own among them.
const PREFIXES: [&str; 4] = ["", "shared/", "own/", "shared/1"];
/// How many watchers there are; each has one connection at a time.
pub(super) const WATCHERS: usize = PREFIXES.len();
/// How long a node may keep silent: it is asked to say something more often.
const SILENCE: Duration = Duration::from_secs(2);
const PROGRESS_MS: u64 = 200;
/// A pause before another node is asked.
const PAUSE: Duration = Duration::from_millis(100);

/// A key and what became of it; none when it was removed.
type Change = (Bytes, Option<Bytes>);

/// What became of keys, as the state machines have it.
#[derive(Debug, Default)]
pub(super) struct Truth {
    /// The changes of each revision, in the order of the keys.
    changes: BTreeMap<u64, Vec<Change>>,
}

impl Truth {
    /// Reads what `state` has beyond what is known; all nodes have the same.
    pub(super) fn learn(&mut self, state: &StateMachine) {
        for revision in self.last() + 1..=state.revision().0 {
            let keys_at = |at: u64, modified: Span| {
                let query = Query {
                    revision: Some(Revision(at)),
                    modified,
                    ..Query::new(KeyRange::all())
                };
                state.read(&query, usize::MAX).map(|found| found.items)
            };
            let only = Some(Revision(revision));
            let Ok(written) = keys_at(
                revision,
                Span {
                    first: only,
                    last: only,
                },
            ) else {
                // Compacted: whoever is told of it anyway cannot be judged.
                self.changes.insert(revision, Vec::new());
                continue;
            };
            let mut changes: Vec<Change> = written
                .into_iter()
                .map(|pair| (pair.key, Some(pair.value)))
                .collect();
            if changes.is_empty() {
                // Something was removed.
                let before = keys_at(revision - 1, Span::default()).unwrap_or_default();
                let after = keys_at(revision, Span::default()).unwrap_or_default();
                let gone = before.into_iter().map(|pair| pair.key);
                let gone = gone.filter(|key| after.iter().all(|pair| pair.key != *key));
                changes.extend(gone.map(|key| (key, None)));
            }
            self.changes.insert(revision, changes);
        }
    }

    /// The latest revision.
    pub(super) fn last(&self) -> u64 {
        self.changes.keys().next_back().copied().unwrap_or(0)
    }

    /// The changes of keys that begin with `prefix` at the revisions `first..=last`.
    fn of<'a>(&'a self, prefix: &'a str, first: u64, last: u64) -> impl Iterator<Item = (u64, &'a Change)> {
        let revisions = (first <= last).then(|| self.changes.range(first..=last));
        revisions
            .into_iter()
            .flatten()
            .flat_map(|(revision, changes)| changes.iter().map(|change| (*revision, change)))
            .filter(move |(_, (key, _))| key.starts_with(prefix.as_bytes()))
    }
}

/// What one watcher was told.
#[derive(Debug, Default)]
struct Told {
    prefix: &'static str,
    /// The revision after which it began; none before it did.
    began: Option<u64>,
    /// Everything up to here was told.
    position: u64,
    changes: Vec<(u64, Change)>,
    /// Marks of progress, with the number of changes told before.
    marks: Vec<(usize, u64)>,
    /// What no watcher should be told.
    surprises: Vec<String>,
    /// How often it went on at another node.
    resumed: u64,
}

/// All watchers.
pub(super) struct Watchers {
    told: Mutex<Vec<Told>>,
    trace: Mutex<Trace>,
    machine: ClientMachine,
    nodes: Vec<SocketAddr>,
    noise: u64,
    /// How many of the first ones speak QUIC.
    over_quic: u64,
}

impl Watchers {
    /// Watchers of `nodes`, if there shall be any.
    pub(super) fn new(machine: &ClientMachine, habit: Habit, nodes: Vec<SocketAddr>, noise: u64) -> Watchers {
        let prefixes = if habit.watches { &PREFIXES[..] } else { &[] };
        let told = prefixes.iter().map(|prefix| Told {
            prefix,
            ..Told::default()
        });
        Watchers {
            told: Mutex::new(told.collect()),
            trace: Mutex::default(),
            machine: machine.clone(),
            nodes,
            noise,
            over_quic: habit.over_quic,
        }
    }

    /// Starts to watch, on the machine of the clients.
    pub(super) fn start(self: &Arc<Watchers>) {
        for number in 0..self.told().len() {
            let watcher = Watcher {
                all: Arc::clone(self),
                number,
                random: Stream::keyed(self.noise, Concern::Clients, 1 << 32 | number as u64),
            };
            if (number as u64) < self.over_quic {
                tokio::task::spawn_local(watcher.run_over_quic());
            } else {
                tokio::task::spawn_local(watcher.run());
            }
        }
    }

    /// How many hold a QUIC connection.
    pub(super) fn over_quic(&self) -> usize {
        self.told().len().min(self.over_quic as usize)
    }

    fn told(&self) -> MutexGuard<'_, Vec<Told>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, what: u64) {
        self.trace
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .note(what);
    }

    /// A hash over everything that was told.
    pub(super) fn trace(&self) -> u64 {
        self.trace.lock().unwrap_or_else(PoisonError::into_inner).value()
    }

    /// Whether every watcher was told everything up to `revision`.
    pub(super) fn have_heard_of(&self, revision: u64) -> bool {
        self.told().iter().all(|told| told.position >= revision)
    }

    /// How far each watcher is, in words.
    pub(super) fn describe(&self) -> String {
        let told = self.told();
        let words = told
            .iter()
            .map(|told| format!("`{}` up to {}", told.prefix, told.position));
        format!("watchers of {}", words.collect::<Vec<_>>().join(", "))
    }

    /// Changes that were told, marks, and how often watchers went on elsewhere.
    pub(super) fn counts(&self) -> (u64, u64, u64) {
        let told = self.told();
        let sum = |of: fn(&Told) -> u64| told.iter().map(of).sum();
        (
            sum(|told| told.changes.len() as u64),
            sum(|told| told.marks.len() as u64),
            sum(|told| told.resumed),
        )
    }

    /// Judges what was told.
    pub(super) fn judge(&self, truth: &Truth) -> Verdict {
        self.told().iter().try_for_each(|told| told.judge(truth))
    }
}

impl Told {
    fn judge(&self, truth: &Truth) -> Verdict {
        let name = self.prefix;
        demand(
            self.surprises.is_empty(),
            "watchers are told what they should be",
            || format!("the watcher of `{name}`: {}", self.surprises.join("; ")),
        )?;
        let first = self.began.unwrap_or(0) + 1;
        let mut expected = truth.of(name, first, self.position);
        for (place, (revision, change)) in self.changes.iter().enumerate() {
            let wanted = expected.next();
            demand(
                wanted == Some((*revision, change)),
                "watchers are told every change once and in order",
                || {
                    format!(
                        "the watcher of `{name}` was told as change {place} of {change:?} at revision {revision}; what came \
                         next is {wanted:?}"
                    )
                },
            )?;
        }
        let missed = expected.next();
        demand(
            missed.is_none(),
            "watchers are told every change once and in order",
            || {
                format!(
                    "the watcher of `{name}` was not told of {missed:?}, and is at {}",
                    self.position
                )
            },
        )?;
        for (count, mark) in &self.marks {
            let before = truth.of(name, first, *mark).count();
            demand(
                *count == before,
                "a mark of progress comes after what it speaks of",
                || {
                    format!(
                        "the watcher of `{name}` heard of revision {mark} after {count} changes of {before}"
                    )
                },
            )?;
        }
        Ok(())
    }

    /// Takes note of an event; false when the stream is no good any more.
    fn hear(&mut self, event: &ServerEvent) -> Result<bool, serde_json::Error> {
        match &*event.kind {
            events::OPEN => {
                let WatchMark { revision } = serde_json::from_str(&event.data)?;
                if self.began.is_none() {
                    (self.began, self.position) = (Some(revision), revision);
                } else if revision != self.position {
                    self.surprises.push(format!(
                        "it goes on after {revision}, not after {}",
                        self.position
                    ));
                }
            }
            events::PROGRESS => {
                let WatchMark { revision } = serde_json::from_str(&event.data)?;
                self.marked(revision);
            }
            events::CHANGE => self.changed(serde_json::from_str(&event.data)?),
            events::CANCEL => {
                let problem: Problem = serde_json::from_str(&event.data)?;
                if !problem.code.is_safe_to_retry() {
                    self.surprises.push(format!("it was cancelled: {problem}"));
                }
                return Ok(false);
            }
            kind => self.surprises.push(format!("there is an event `{kind}`")),
        }
        Ok(true)
    }

    /// Everything up to a revision was told.
    fn marked(&mut self, revision: u64) {
        if revision < self.position {
            self.surprises
                .push(format!("it was at {}, and is at {revision}", self.position));
        }
        self.marks.push((self.changes.len(), revision));
        self.position = revision;
    }

    fn changed(&mut self, change: WatchChange) {
        if change.revision <= self.position {
            let position = self.position;
            self.surprises.push(format!(
                "it was told of revision {} at {position}",
                change.revision
            ));
        }
        if change.partial {
            self.surprises
                .push(format!("revision {} is small and came in parts", change.revision));
        }
        let mut changes: Vec<Change> = change
            .events
            .into_iter()
            .map(|event| match event {
                WatchEvent::Put { entry, .. } => (entry.key, Some(entry.value)),
                WatchEvent::Delete { entry, .. } => (entry.0, None),
            })
            .collect();
        // The order within a revision is that of the command, which nobody here knows.
        changes.sort();
        let revision = change.revision;
        self.changes
            .extend(changes.into_iter().map(|change| (revision, change)));
        self.position = revision;
    }
}

struct Watcher {
    all: Arc<Watchers>,
    number: usize,
    random: Stream,
}

impl Watcher {
    async fn run(mut self) {
        loop {
            let node = self.all.nodes[self.random.below(self.all.nodes.len() as u64) as usize];
            if let Ok(Some(body)) = timeout(SILENCE, self.connect(node)).await {
                self.listen(body).await;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Asks a node to tell what comes next; none when it does not.
    async fn connect(&mut self, node: SocketAddr) -> Option<Incoming> {
        let stream = TcpStream::connect(node).await.ok()?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
        // How the connection ends shows in the answer.
        tokio::task::spawn_local(async { drop(connection.await) });
        let (path, last) = self.request();
        let mut request = Request::get(path).header("host", node.to_string());
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let request = request.body(Empty::<Bytes>::new()).ok()?;
        let answer = sender.send_request(request).await.ok()?;
        self.all.note(hash(3, answer.status().as_str().as_bytes()));
        if answer.status().is_success() {
            return Some(answer.into_body());
        }
        let status = answer.status();
        let body = answer.into_body().collect().await.ok()?.to_bytes();
        let problem: Option<Problem> = serde_json::from_slice(&body).ok();
        if !problem.is_some_and(|problem| problem.code.is_safe_to_retry()) {
            let surprise = format!("it was refused with {status}: {}", String::from_utf8_lossy(&body));
            self.all.told()[self.number].surprises.push(surprise);
        }
        None
    }

    /// The path, and the id of the last event when the client says so in a header, as a browser does.
    fn request(&mut self) -> (String, Option<u64>) {
        let by_header = self.random.chance(500_000);
        let mut all = self.all.told();
        let told = &mut all[self.number];
        let mut path = format!("/v1/watch?prefix={}&progress_ms={PROGRESS_MS}", told.prefix);
        if told.began.is_none() {
            return (path, None);
        }
        told.resumed += 1;
        if by_header {
            return (path, Some(told.position));
        }
        path.push_str(&format!("&from_revision={}", told.position + 1));
        (path, None)
    }

    /// Listens until the stream breaks, is silent for too long, or the client has enough of it.
    async fn listen(&mut self, mut body: Incoming) {
        let mut parser = EventParser::default();
        while let Ok(Some(Ok(frame))) = timeout(SILENCE, body.frame()).await {
            let Ok(data) = frame.into_data() else {
                return;
            };
            self.all.note(hash(4, &data));
            if parser.feed(&data).is_err() {
                return;
            }
            while let Some(event) = parser.next_event() {
                let goes_on = {
                    let told = &mut self.all.told()[self.number];
                    told.hear(&event).unwrap_or_else(|error| {
                        told.surprises
                            .push(format!("`{}` is no {}: {error}", event.data, event.kind));
                        false
                    })
                };
                if !goes_on || self.random.chance(5_000) {
                    return;
                }
            }
            if self.random.chance(20_000) {
                // It reads slowly.
                let pause = self.random.below(1_500);
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
        }
    }
}
