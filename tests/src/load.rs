//! Concurrent clients that remember every answer.
//!
//! Half of what they do is on a few shared keys, recorded as a [`History`]; the other half are writes of keys of their
//! own, of which each acknowledged one must be there in the end. A client uses one node until that fails it, then the
//! next. It repeats no write whose fate is not known.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::cluster::listing;
use crate::history::{Action, History, Operation, Outcome, assert_linearizable};
use crate::http::{Answer, Client, Failure};
use crate::random::Random;
use crate::wait::{wait_for, wait_until};

/// Where the clients' own keys are.
const OWN: &str = "own/";
/// A pause after a request that no node answered, so that clients of a dead cluster do not spin.
const PAUSE: Duration = Duration::from_millis(10);
/// A lower bound for the time between two operations of a client, which bounds the length of histories.
const RHYTHM: Duration = Duration::from_millis(4);

/// What the clients remember.
#[derive(Debug, Default)]
pub struct Record {
    /// What happened on the shared keys.
    pub history: History,
    /// Acknowledged writes of own keys.
    acknowledged: Mutex<BTreeMap<String, Acknowledged>>,
    /// Requests that were answered with success.
    pub done: AtomicU64,
    surprises: Mutex<Vec<String>>,
    troubles: Mutex<Vec<String>>,
}

impl Record {
    /// How many writes of own keys were acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        self.acknowledged
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// Why writes failed or are unknown, each with the time since the clients began.
    pub fn troubles(&self) -> Vec<String> {
        self.troubles
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Checks that every acknowledged write is at the node at `address`, that later writes have greater revisions, and
    /// that what happened on every shared key is linearizable.
    ///
    /// # Panics
    /// When that is not so, or when a node gave an answer that no client should get.
    pub fn check(&self, address: SocketAddr) {
        let surprises = self.surprises.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(surprises.is_empty(), "unexpected answers: {surprises:#?}");
        let acknowledged = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(!acknowledged.is_empty(), "nothing was acknowledged");
        let found = wait_for(Duration::from_secs(20), "a listing of all keys", || {
            listing(address, OWN, "linearizable")
        });
        let lost: Vec<&String> = acknowledged
            .iter()
            .filter(|(key, write)| {
                let kept = found.get(*key);
                kept.is_none_or(|(value, revision)| *value != write.value || *revision != write.revision)
            })
            .map(|(key, _)| key)
            .collect();
        assert!(
            lost.is_empty(),
            "{} of {} acknowledged writes are lost or changed: {lost:?}",
            lost.len(),
            acknowledged.len()
        );
        assert_revisions_grow(acknowledged.values());
        assert_linearizable(&self.history);
    }
}

/// An acknowledged write of a key that nobody else writes.
#[derive(Debug)]
struct Acknowledged {
    value: String,
    revision: u64,
    invoked: Duration,
    returned: Duration,
}

/// Checks that a write which began after another was acknowledged has the greater revision.
fn assert_revisions_grow<'a>(writes: impl Iterator<Item = &'a Acknowledged>) {
    let mut by_call: Vec<&Acknowledged> = writes.collect();
    let mut by_answer = by_call.clone();
    by_call.sort_by_key(|write| write.invoked);
    by_answer.sort_by_key(|write| write.returned);
    let mut answered = by_answer.into_iter().peekable();
    let mut greatest = 0;
    for write in by_call {
        while let Some(earlier) = answered.next_if(|earlier| earlier.returned < write.invoked) {
            greatest = greatest.max(earlier.revision);
        }
        let Acknowledged { value, revision, .. } = write;
        assert!(
            *revision > greatest,
            "the write of {value} got revision {revision}, after {greatest} was acknowledged"
        );
    }
}

/// Running clients.
#[derive(Debug)]
pub struct Load {
    /// What they remember.
    pub record: Arc<Record>,
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts `clients` of the nodes at `addresses`; they share `keys` keys.
    pub fn start(addresses: &[SocketAddr], clients: usize, keys: usize) -> Load {
        let record = Arc::new(Record::default());
        let stop = Arc::new(AtomicBool::new(false));
        let clients = (0..clients)
            .map(|number| {
                let worker = Worker {
                    number,
                    keys,
                    clients: addresses.iter().map(|address| Client::new(*address)).collect(),
                    current: number % addresses.len(),
                    random: Random::new(number as u64),
                    record: Arc::clone(&record),
                    last_read: BTreeMap::new(),
                    writes: 0,
                };
                let stop = Arc::clone(&stop);
                std::thread::spawn(move || worker.run(&stop))
            })
            .collect();
        Load {
            record,
            stop,
            clients,
        }
    }

    /// Waits until `count` more requests succeeded.
    #[track_caller]
    pub fn wait_for_successes(&self, count: u64) {
        let target = self.record.done.load(Ordering::Relaxed) + count;
        wait_until(crate::SETTLE, &format!("{count} more requests succeed"), || {
            self.record.done.load(Ordering::Relaxed) >= target
        });
    }

    /// Stops the clients once their last requests were answered.
    pub fn stop(mut self) -> Arc<Record> {
        self.end();
        Arc::clone(&self.record)
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            let ended = client.join();
            assert!(ended.is_ok() || std::thread::panicking(), "a client panicked");
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}

struct Worker {
    number: usize,
    keys: usize,
    clients: Vec<Client>,
    current: usize,
    random: Random,
    record: Arc<Record>,
    /// Value and revision that this client saw last of a shared key.
    last_read: BTreeMap<String, (u64, u64)>,
    writes: u64,
}

/// What an answer means for a write.
enum Written {
    Done(u64),
    Conflict,
    Failed,
    Unknown,
}

impl Worker {
    fn run(mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let begun = Instant::now();
            let key = format!("shared/{}", self.random.below(self.keys));
            match self.random.below(8) {
                0..=3 => self.write_own(),
                4 => self.put(&key),
                5 => self.compare_and_set(&key),
                _ => self.get(&key),
            }
            if let Some(rest) = RHYTHM.checked_sub(begun.elapsed()) {
                std::thread::sleep(rest);
            }
        }
    }

    fn fresh_value(&mut self) -> u64 {
        self.writes += 1;
        ((self.number as u64 + 1) << 40) | self.writes
    }

    fn write_own(&mut self) {
        let value = self.fresh_value().to_string();
        let key = format!("{OWN}{}/{}", self.number, self.writes);
        let invoked = self.record.history.now();
        let answer = self.send("PUT", &format!("/v1/kv/{key}"), value.as_bytes());
        let returned = self.record.history.now();
        if let Written::Done(revision) = self.judge(answer) {
            let write = Acknowledged {
                value,
                revision,
                invoked,
                returned,
            };
            let mut acknowledged = self
                .record
                .acknowledged
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            acknowledged.insert(key, write);
        }
    }

    fn put(&mut self, key: &str) {
        let value = self.fresh_value();
        self.write_shared(key, "", Action::Put(value), value);
    }

    fn compare_and_set(&mut self, key: &str) {
        let Some((expected, revision)) = self.last_read.get(key).copied() else {
            return self.get(key);
        };
        let value = self.fresh_value();
        let action = Action::CompareAndSet { expected, value };
        self.write_shared(key, &format!("?revision={revision}"), action, value);
    }

    fn write_shared(&mut self, key: &str, query: &str, action: Action, value: u64) {
        let invoked = self.record.history.now();
        let path = format!("/v1/kv/{key}{query}");
        let answer = self.send("PUT", &path, value.to_string().as_bytes());
        let returned = self.record.history.now();
        let outcome = match self.judge(answer) {
            Written::Done(revision) => {
                self.last_read.insert(key.to_owned(), (value, revision));
                Outcome::Done
            }
            Written::Conflict => {
                self.last_read.remove(key);
                Outcome::Conflict
            }
            Written::Failed => Outcome::Failed,
            Written::Unknown => Outcome::Unknown,
        };
        self.remember(key, action, outcome, invoked, returned);
    }

    fn get(&mut self, key: &str) {
        let invoked = self.record.history.now();
        let answer = self.send("GET", &format!("/v1/kv/{key}"), b"");
        let returned = self.record.history.now();
        let outcome = match answer {
            Ok(answer) if answer.status == 200 => {
                let value = answer.text().parse().unwrap_or_default();
                let revision = answer
                    .header("quorate-revision")
                    .and_then(|text| text.parse().ok());
                self.last_read
                    .insert(key.to_owned(), (value, revision.unwrap_or_default()));
                Outcome::Found(value)
            }
            Ok(answer) if answer.code() == "key_not_found" => Outcome::Found(0),
            Ok(answer) => {
                self.expect_trouble(&answer);
                Outcome::Failed
            }
            Err(_) => Outcome::Failed,
        };
        if let Outcome::Found(_) = outcome {
            self.record.done.fetch_add(1, Ordering::Relaxed);
        }
        self.remember(key, Action::Get, outcome, invoked, returned);
    }

    fn remember(&self, key: &str, action: Action, outcome: Outcome, invoked: Duration, returned: Duration) {
        let operation = Operation {
            action,
            outcome,
            invoked,
            returned,
        };
        self.record.history.record(key, operation);
    }

    /// Sends to the current node, or to the next ones while there is no connection.
    fn send(&mut self, method: &str, path: &str, body: &[u8]) -> Result<Answer, Failure> {
        let mut result = Err(Failure::NotSent(std::io::ErrorKind::NotConnected.into()));
        for _ in 0..self.clients.len() {
            result = self.clients[self.current].send(method, path, &[], body);
            let answered = matches!(&result, Ok(answer) if answer.status < 500);
            if answered {
                return result;
            }
            self.current = (self.current + 1) % self.clients.len();
            if !matches!(result, Err(Failure::NotSent(_))) {
                return result;
            }
        }
        std::thread::sleep(PAUSE);
        result
    }

    fn judge(&self, answer: Result<Answer, Failure>) -> Written {
        let described = match &answer {
            Ok(answer) => format!("{} {}", answer.status, answer.text()),
            Err(failure) => failure.to_string(),
        };
        let written = match answer {
            Ok(answer) if answer.status == 200 => match answer.json()["revision"].as_u64() {
                Some(revision) => Written::Done(revision),
                None => {
                    self.surprised(&answer);
                    Written::Unknown
                }
            },
            Ok(answer) if answer.code() == "revision_conflict" => Written::Conflict,
            Ok(answer) if answer.code() == "unknown_outcome" => Written::Unknown,
            Ok(answer) => {
                self.expect_trouble(&answer);
                Written::Failed
            }
            Err(Failure::NotSent(_)) => Written::Failed,
            Err(Failure::Broken(_)) => Written::Unknown,
        };
        if matches!(written, Written::Failed | Written::Unknown) {
            let mut troubles = self
                .record
                .troubles
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            troubles.push(format!("{:?}: {described}", self.record.history.now()));
        } else {
            self.record.done.fetch_add(1, Ordering::Relaxed);
        }
        written
    }

    /// While nodes die, an answer may say that nothing was done. Anything else is a surprise.
    fn expect_trouble(&self, answer: &Answer) {
        let expected = ["no_leader", "quorum_lost", "busy", "unavailable", "timed_out"];
        if !expected.contains(&answer.code().as_str()) {
            self.surprised(answer);
        }
    }

    fn surprised(&self, answer: &Answer) {
        let mut surprises = self
            .record
            .surprises
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        surprises.push(format!("{} {}", answer.status, answer.text()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(revision: u64, invoked: u64, returned: u64) -> Acknowledged {
        Acknowledged {
            value: revision.to_string(),
            revision,
            invoked: Duration::from_millis(invoked),
            returned: Duration::from_millis(returned),
        }
    }

    #[test]
    fn concurrent_writes_have_revisions_in_either_order() {
        assert_revisions_grow([write(2, 0, 5), write(1, 1, 4), write(3, 6, 7)].iter());
    }

    #[test]
    #[should_panic(expected = "after 2 was acknowledged")]
    fn revision_that_goes_back_is_noticed() {
        assert_revisions_grow([write(2, 0, 5), write(1, 6, 7)].iter());
    }
}
