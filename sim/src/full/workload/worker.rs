//! A client that asks one thing after the other, of one node until that fails it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use quorate_api::{ProblemCode, PutAnswer};

use super::super::client::Answer;
use super::super::line::Line;
use super::super::machine::machine_at;
use super::super::setup::Reads;
use super::lists::List;
use super::{CLIENTS, Clients, PATIENCE, PROBE, found, path, text};
use crate::consensus::trace::hash;
use crate::linearizable::{Action, Operation, Outcome};
use crate::random::{Concern, Stream};
use crate::trace;

/// One client.
pub(super) struct Worker {
    pub(super) clients: Arc<Clients>,
    pub(super) number: u64,
    pub(super) random: Stream,
    pub(super) lines: Vec<Line>,
    pub(super) current: usize,
    /// How long it waits for an answer.
    pub(super) patience: Duration,
    /// Value and revision that it saw last of a shared key.
    pub(super) seen: BTreeMap<String, (u64, u64)>,
    /// Its last write of a key of its own that was acknowledged: value and revision.
    pub(super) last_own: Option<(String, (u64, u64))>,
    /// What it knows of lists.
    pub(super) lists: BTreeMap<String, List>,
}

impl Worker {
    pub(super) fn new(clients: Arc<Clients>, number: u64, lines: Vec<Line>) -> Worker {
        Worker {
            random: Stream::keyed(clients.noise, Concern::Clients, number),
            current: usize::try_from(number).unwrap_or(0) % lines.len(),
            clients,
            number,
            lines,
            patience: PATIENCE,
            seen: BTreeMap::new(),
            last_own: None,
            lists: BTreeMap::new(),
        }
    }

    /// One that writes once to the node at this place, over a line that it has.
    pub(super) fn probe(clients: Arc<Clients>, place: usize, line: Line) -> Worker {
        let number = CLIENTS + place as u64;
        Worker {
            random: Stream::keyed(clients.noise, Concern::Clients, number),
            current: 0,
            number,
            lines: vec![line],
            patience: PROBE.1,
            clients,
            seen: BTreeMap::new(),
            last_own: None,
            lists: BTreeMap::new(),
        }
    }

    pub(super) async fn run(mut self) {
        loop {
            let (mean, wait) = self.clients.rhythm();
            let pause = wait + self.random.around(mean);
            tokio::time::sleep(Duration::from_nanos(pause)).await;
            if self.clients.record().ended {
                return;
            }
            if self.random.chance(50_000) {
                self.current = self.random.below(self.lines.len() as u64) as usize;
            }
            let draw = self.random.below(100);
            let key = format!("shared/{}", self.random.below(self.clients.keys));
            match draw {
                0..8 => self.write_own_until_answered().await,
                8..20 => {
                    self.write_own().await;
                }
                20..25 => self.read_own().await,
                25..50 => self.put(key).await,
                50..65 => self.compare_and_set(key).await,
                65..80 => self.transact().await,
                _ => self.get(key).await,
            }
        }
    }

    pub(super) async fn ask(&mut self, method: Method, path: &str, body: Bytes) -> Answer {
        self.ask_once(method, path, body, None).await
    }

    /// Asks, under an idempotency key when there is one.
    pub(super) async fn ask_once(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
        once: Option<&str>,
    ) -> Answer {
        {
            let mut record = self.clients.record();
            record.requests += 1;
            record.under_way += 1;
        }
        let told = &self.clients.told;
        let line = &mut self.lines[self.current];
        let operation = if method == Method::GET {
            trace::Operation::Read
        } else {
            trace::Operation::Write
        };
        let about = || format!("{method} {path} {}", String::from_utf8_lossy(&body));
        let request = told.asked(
            self.clients.machine.clock.simulated(),
            machine_at(line.address()),
            operation,
            about,
        );
        let answer = line.ask(method, path, body, once, self.patience).await;
        told.answered(self.clients.machine.clock.simulated(), request, &answer);
        let (now, mark) = (self.clients.now(), line.mark(&answer));
        let mut record = self.clients.record();
        record.under_way -= 1;
        record.marks.extend(mark);
        record.trace.note(self.number << 60 | now.as_nanos() as u64);
        record.trace.note(hash(1, format!("{answer:?}").as_bytes()));
        if matches!(answer, Answer::Nothing(_) | Answer::Unknown(_)) {
            record.unknown += u64::from(matches!(answer, Answer::Unknown(_)));
            self.current = (self.current + 1) % self.lines.len();
        }
        answer
    }

    pub(super) fn new_value(&self) -> u64 {
        let mut record = self.clients.record();
        record.next_value += 1;
        record.next_value
    }

    pub(super) fn remember(&self, key: &str, action: Action, outcome: Outcome, invoked: Duration) {
        let returned = self.clients.now();
        let operation = Operation {
            action,
            outcome,
            invoked,
            returned,
        };
        let mut record = self.clients.record();
        // Of the lineage that ended it is not known what came of requests that were under way.
        let operation = match record.lineage_ended {
            None => operation,
            Some(ended) if invoked < ended => Operation {
                outcome: Outcome::Unknown,
                ..operation
            },
            Some(_) => return,
        };
        record
            .histories
            .entry(key.to_owned())
            .or_default()
            .push(operation);
    }

    pub(super) fn surprise(&self, what: String) {
        self.clients.record().surprises.push(what);
    }

    async fn put(&mut self, key: String) {
        let value = self.new_value();
        let (action, invoked) = (Action::Put(value), self.clients.now());
        let answer = self.ask(Method::PUT, &path(&key), text(value)).await;
        self.written(&key, action, value, invoked, answer);
    }

    async fn compare_and_set(&mut self, key: String) {
        let Some((expected, revision)) = self.seen.get(&key).copied() else {
            return self.get(key).await;
        };
        let value = self.new_value();
        let (action, invoked) = (Action::CompareAndSet { expected, value }, self.clients.now());
        let path = format!("{}?revision={revision}", path(&key));
        let answer = self.ask(Method::PUT, &path, text(value)).await;
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
        let mut path = path(&key);
        if self.clients.habit.reads == Reads::Lease {
            path.push_str("?consistency=lease");
        }
        let outcome = match self.ask(Method::GET, &path, Bytes::new()).await {
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
