//! Keys, ranges of keys, transactions and compaction.

use bytes::Bytes;
use http::Method;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use quorate_api::{
    CompactAnswer, CompactRequest, Consistency, DeleteAnswer, DeleteRangeAnswer, KeyValue, ListAnswer, Order,
    ProblemCode, PutAnswer, SortBy, TxnAnswer, TxnRequest,
};

use crate::client::{Client, json};
use crate::{Error, Parameters};

/// What may stand in a path as it is; a key keeps its slashes.
const PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'/');

/// How fresh a read must be, and as of when. [`Consistency`] alone says the first part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fresh {
    /// How fresh the answer must be.
    pub consistency: Consistency,
    /// The state must have come to this revision: with that of a write's answer any node shows the write.
    pub min_revision: Option<u64>,
    /// As of which revision; the latest otherwise.
    pub revision: Option<u64>,
}

impl From<Consistency> for Fresh {
    fn from(consistency: Consistency) -> Fresh {
        Fresh {
            consistency,
            ..Fresh::default()
        }
    }
}

impl Fresh {
    pub(crate) fn add_to(self, parameters: &mut Parameters) {
        if self.consistency != Consistency::default() {
            parameters.add("consistency", self.consistency.as_str());
        }
        parameters.add_number("min_revision", self.min_revision);
        parameters.add_number("revision", self.revision);
    }
}

/// With which lease a key goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attach {
    /// With none.
    #[default]
    Nothing,
    /// With the one that it has.
    Keep,
    /// With the one of this id.
    Lease(u64),
}

/// What a put asks for besides its value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Put {
    /// Write only if the key's `mod_revision` is this one; 0: only if there is no such key.
    pub expected_revision: Option<u64>,
    /// Whether the answer shall hold what was there before.
    pub previous: bool,
    /// With which lease the key goes.
    pub lease: Attach,
}

/// What a delete asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delete {
    /// Remove only if the key's `mod_revision` is this one.
    pub expected_revision: Option<u64>,
    /// Whether the answer shall hold what was there before.
    pub previous: bool,
}

/// A range of keys: those with the prefix that also lie between start and end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// What the keys begin with.
    pub prefix: Vec<u8>,
    /// The first key.
    pub start: Option<Vec<u8>>,
    /// The key after the last one.
    pub end: Option<Vec<u8>>,
}

impl Range {
    /// The keys that begin so.
    pub fn prefix(prefix: impl Into<Vec<u8>>) -> Range {
        Range {
            prefix: prefix.into(),
            ..Range::default()
        }
    }

    fn add_to(&self, parameters: &mut Parameters) {
        parameters.add_bytes("prefix", &self.prefix);
        for (name, bytes) in [("start", &self.start), ("end", &self.end)] {
            if let Some(bytes) = bytes {
                parameters.add_bytes(name, bytes);
            }
        }
    }
}

/// Which keys to list, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List {
    /// Which.
    pub range: Range,
    /// How many at the most; the node has its own bound.
    pub limit: Option<usize>,
    /// In which order.
    pub sort: SortBy,
    /// Which way the order goes.
    pub order: Order,
    /// Whether to leave out the values.
    pub keys_only: bool,
    /// Whether to count the keys of the range, whatever the limit.
    pub count: bool,
    /// Whether to count them and answer nothing else.
    pub count_only: bool,
    /// How fresh the answer must be, and as of when.
    pub fresh: Fresh,
}

impl Client {
    /// The key with its value, if it is there.
    ///
    /// # Errors
    /// When no node answers, or with what it answers.
    pub async fn get(&self, key: &[u8], fresh: impl Into<Fresh>) -> Result<Option<KeyValue>, Error> {
        let mut parameters = Parameters::of(key_path(key));
        fresh.into().add_to(&mut parameters);
        match self.read_one(parameters).await {
            Ok(entry) => Ok(Some(entry)),
            Err(Error::NotFound(problem)) if problem.code == ProblemCode::KeyNotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Gives `key` the value.
    ///
    /// # Errors
    /// [`Error::Conflict`] when the expected revision is not the current one, [`Error::UnknownOutcome`] when the write
    /// may have taken effect; otherwise nothing was written.
    pub async fn put(&self, key: &[u8], value: impl Into<Bytes>, put: Put) -> Result<PutAnswer, Error> {
        let mut parameters = Parameters::of(key_path(key));
        parameters.add_number("revision", put.expected_revision);
        parameters.add_switch("previous", put.previous);
        match put.lease {
            Attach::Nothing => {}
            Attach::Keep => parameters.add("lease", "keep"),
            Attach::Lease(lease) => parameters.add_number("lease", Some(lease)),
        }
        self.change(Method::PUT, parameters, value).await
    }

    /// Removes `key`. That there is none is no error: [`DeleteAnswer::deleted`] is 0.
    ///
    /// # Errors
    /// As [`Client::put`].
    pub async fn delete(&self, key: &[u8], delete: Delete) -> Result<DeleteAnswer, Error> {
        let mut parameters = Parameters::of(key_path(key));
        parameters.add_number("revision", delete.expected_revision);
        parameters.add_switch("previous", delete.previous);
        self.change(Method::DELETE, parameters, Bytes::new()).await
    }

    /// Removes the keys of a range, in one revision.
    ///
    /// # Errors
    /// As [`Client::put`].
    pub async fn delete_range(&self, range: &Range, previous: bool) -> Result<DeleteRangeAnswer, Error> {
        let mut parameters = Parameters::of("/v1/kv".to_owned());
        range.add_to(&mut parameters);
        parameters.add_switch("previous", previous);
        self.change(Method::DELETE, parameters, Bytes::new()).await
    }

    /// The keys of a range with their values.
    ///
    /// # Errors
    /// When no node answers, or with what it answers.
    pub async fn list(&self, list: &List) -> Result<ListAnswer, Error> {
        let mut parameters = Parameters::of("/v1/kv".to_owned());
        list.range.add_to(&mut parameters);
        parameters.add_number("limit", list.limit.map(|limit| limit as u64));
        if list.sort != SortBy::default() {
            parameters.add("sort", list.sort.as_str());
        }
        if list.order != Order::default() {
            parameters.add("order", list.order.as_str());
        }
        parameters.add_switch("keys_only", list.keys_only);
        parameters.add_switch("count", list.count);
        parameters.add_switch("count_only", list.count_only);
        list.fresh.add_to(&mut parameters);
        self.read(parameters).await
    }

    /// Compares, and then does one thing or another, as one change.
    ///
    /// # Errors
    /// As [`Client::put`]. That the comparisons do not hold is no error.
    pub async fn transact(&self, transaction: &TxnRequest) -> Result<TxnAnswer, Error> {
        self.change(Method::POST, "/v1/txn", json(transaction)).await
    }

    /// Forgets what keys were before `revision`, which can still be read itself.
    ///
    /// # Errors
    /// When the revision is compacted already or does not exist yet; otherwise as [`Client::put`].
    pub async fn compact(&self, revision: u64) -> Result<CompactAnswer, Error> {
        let body = json(&CompactRequest { revision });
        self.change(Method::POST, "/v1/compact", body).await
    }
}

fn key_path(key: &[u8]) -> String {
    format!("/v1/kv/{}", percent_encode(key, PATH))
}
