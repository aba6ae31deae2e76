//! Transactions over several lists, which others read and append to at the same time: as a whole they must be strictly
//! serializable (see [`serializable`](crate::serializable)).
//!
//! A client appends as one does who knows only comparisons and puts: it writes the lists that it knows with one value more,
//! if they are still what it knows, and otherwise reads them, all in one transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use quorate_api::{
    KeyValue, ListAnswer, Order, SortBy, TxnAnswer, TxnCompare, TxnGet, TxnKeys, TxnOperand, TxnOperation,
    TxnPut, TxnRelation, TxnRequest, TxnResponse,
};

use super::super::client::{Answer, Client};
use super::worker::Worker;
use super::{Clients, PATIENCE};
use crate::serializable::{Outcome, Transaction};

/// Where the lists are.
const LISTS: &str = "list/";
/// Lists at a time.
const AT_A_TIME: u64 = 4;
/// Values that clients write, to lists and elsewhere, until others take the place of these, which would grow for ever.
const GENERATION: u64 = 250;

/// A list, and the revision that wrote it.
#[derive(Clone, Debug, Default)]
pub(super) struct List {
    values: Vec<u64>,
    revision: u64,
}

impl List {
    fn read(entry: &KeyValue) -> Option<List> {
        let text = std::str::from_utf8(&entry.value).ok()?;
        Some(List {
            values: text
                .split_ascii_whitespace()
                .map(|value| value.parse().ok())
                .collect::<Option<_>>()?,
            revision: entry.mod_revision,
        })
    }

    /// What is to be written in place of it.
    fn with(&self, value: u64) -> Bytes {
        let values = self.values.iter().chain([&value]);
        let values: Vec<String> = values.map(u64::to_string).collect();
        Bytes::from(values.join(" "))
    }
}

impl Worker {
    /// Reads some lists, or appends to some of those that it reads.
    pub(super) async fn transact(&mut self) {
        let generation = self.clients.record().next_value / GENERATION;
        let names = (0..3).map(|_| format!("{LISTS}{generation}/{}", self.random.below(AT_A_TIME)));
        let names: BTreeSet<String> = names.collect();
        let appends = names.iter().filter(|_| self.random.chance(450_000));
        let appends: Vec<String> = appends.cloned().collect();
        let appends: BTreeMap<String, u64> =
            appends.into_iter().map(|name| (name, self.new_value())).collect();
        let known: BTreeMap<String, List> = names
            .into_iter()
            .map(|name| {
                let list = self.lists.get(&name).cloned().unwrap_or_default();
                (name, list)
            })
            .collect();
        let body = serde_json::to_vec(&request(&known, &appends)).expect("a transaction has a text");
        let invoked = self.clients.now();
        let answer = self.ask(Method::POST, "/v1/txn", body.into()).await;
        self.transacted(known, appends, invoked, answer);
    }

    fn transacted(
        &mut self,
        known: BTreeMap<String, List>,
        appends: BTreeMap<String, u64>,
        invoked: Duration,
        answer: Answer,
    ) {
        let body = match answer {
            Answer::Done(body) => body,
            Answer::Nothing(_) => return,
            Answer::Other(code) => return self.surprise(format!("a transaction is answered {code}")),
            Answer::Unknown(_) => {
                self.lists.retain(|name, _| !appends.contains_key(name));
                return self
                    .clients
                    .remember_transaction(known, appends, Outcome::Unknown, invoked);
            }
        };
        let Ok(answer) = serde_json::from_slice::<TxnAnswer>(&body) else {
            return self.surprise(format!("a transaction is answered {body:?}"));
        };
        if !appends.is_empty() && answer.succeeded {
            for (name, value) in &appends {
                let list = self.lists.entry(name.clone()).or_default();
                list.values.push(*value);
                list.revision = answer.revision;
            }
            self.clients.record().acknowledged += 1;
            return self
                .clients
                .remember_transaction(known, appends, Outcome::Done, invoked);
        }
        let Some(found) = found(&known, &answer.responses) else {
            return self.surprise(format!("a read of lists is answered {body:?}"));
        };
        self.lists.extend(found.clone());
        self.clients.record().reads += 1;
        self.clients
            .remember_transaction(found, BTreeMap::new(), Outcome::Done, invoked);
    }
}

impl Clients {
    fn remember_transaction(
        &self,
        reads: BTreeMap<String, List>,
        appends: BTreeMap<String, u64>,
        outcome: Outcome,
        invoked: Duration,
    ) {
        let returned = self.now();
        let mut record = self.record();
        // Of the lineage that ended it is not known what came of requests that were under way.
        let outcome = match record.lineage_ended {
            None => outcome,
            Some(ended) if invoked < ended => Outcome::Unknown,
            Some(_) => return,
        };
        let reads = reads.into_iter().map(|(name, list)| (name, list.values));
        record.transactions.push(Transaction {
            reads: reads.collect(),
            appends,
            outcome,
            invoked,
            returned,
        });
    }

    /// What became of all lists, at one moment.
    pub(super) async fn look_at_lists(&self, client: &mut Client) -> Option<()> {
        let invoked = self.now();
        let path = format!("/v1/kv?prefix={LISTS}&limit=10000");
        let Answer::Done(body) = client.ask(Method::GET, &path, Bytes::new(), PATIENCE).await else {
            return None;
        };
        let answer: ListAnswer = serde_json::from_slice(&body).ok()?;
        if answer.next.is_some() {
            return None;
        }
        let names: BTreeSet<String> = {
            let record = self.record();
            let appends = record.transactions.iter().flat_map(|done| done.appends.keys());
            appends.cloned().collect()
        };
        let mut lists: BTreeMap<String, List> =
            names.into_iter().map(|name| (name, List::default())).collect();
        for entry in &answer.entries {
            let name = std::str::from_utf8(&entry.key).ok()?.to_owned();
            lists.insert(name, List::read(entry)?);
        }
        self.remember_transaction(lists, BTreeMap::new(), Outcome::Done, invoked);
        Some(())
    }

    /// All transactions over lists.
    pub(in crate::full) fn transactions(&self) -> Vec<Transaction> {
        self.record().transactions.clone()
    }
}

/// Appends if the lists are as they are known, and reads them otherwise, or in any case when nothing is to be appended.
fn request(known: &BTreeMap<String, List>, appends: &BTreeMap<String, u64>) -> TxnRequest {
    let key = |name: &String| Bytes::from(name.clone());
    let get = |name| {
        TxnOperation::Get(TxnGet {
            keys: TxnKeys::Key(key(name)),
            revision: None,
            limit: None,
            sort: SortBy::default(),
            order: Order::default(),
            keys_only: false,
            count_only: false,
        })
    };
    let gets: Vec<TxnOperation> = known.keys().map(get).collect();
    if appends.is_empty() {
        return TxnRequest {
            then: gets,
            ..TxnRequest::default()
        };
    }
    let is_known = |(name, list): (&String, &List)| TxnCompare {
        keys: TxnKeys::Key(key(name)),
        relation: TxnRelation::Equal,
        with: TxnOperand::ModRevision(list.revision),
    };
    let put = |(name, value): (&String, &u64)| {
        TxnOperation::Put(TxnPut {
            key: key(name),
            value: known[name].with(*value),
            lease: None,
            previous: false,
        })
    };
    TxnRequest {
        compare: known.iter().map(is_known).collect(),
        then: appends.iter().map(put).collect(),
        otherwise: gets,
    }
}

/// What one read each found of some lists.
fn found(names: &BTreeMap<String, List>, responses: &[TxnResponse]) -> Option<BTreeMap<String, List>> {
    if responses.len() != names.len() {
        return None;
    }
    let reads = names.keys().zip(responses).map(|(name, response)| {
        let TxnResponse::Get(found) = response else {
            return None;
        };
        let list = match found.entries.as_slice() {
            [] => List::default(),
            [entry] if entry.key == name.as_bytes() => List::read(entry)?,
            _ => return None,
        };
        Some((name.clone(), list))
    });
    reads.collect()
}
