//! The operations of the API.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Response};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use quorate_api::{
    AddMember, ClusterStatus, Consistency, DeleteAnswer, Health, KeyValue, Leadership, ListAnswer,
    MemberChanged, NodeName, NodesAnswer, ProblemCode, PutAnswer, StepDownRequest,
};
use serde::de::DeserializeOwned;

use crate::Error;
use crate::connection::Endpoint;
use crate::endpoint::parse_list;
use crate::request::{Effect, Sender};

/// What may stand in a path as it is; a key keeps its slashes.
const PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'/');

/// A client of a cluster. Cheap to clone; clones share their connections.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) sender: Arc<Sender>,
}

/// Sets up a [`Client`].
#[derive(Clone, Debug)]
pub struct Builder {
    endpoints: Vec<String>,
    timeout: Duration,
    connections_max: usize,
    rounds_max: u32,
}

impl Builder {
    /// The longest time for one request with its repetitions; 10 seconds otherwise.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Builder {
        self.timeout = timeout;
        self
    }

    /// How many connections to one endpoint may be in use at a time; 256 otherwise. Further requests wait.
    #[must_use]
    pub fn connections_max(mut self, count: usize) -> Builder {
        self.connections_max = count.max(1);
        self
    }

    /// How often each endpoint is tried within the time-out; otherwise as often as there is time.
    #[must_use]
    pub fn rounds_max(mut self, count: u32) -> Builder {
        self.rounds_max = count.max(1);
        self
    }

    /// The client. Connects when it has something to send.
    pub fn build(self) -> Client {
        let connections_max = self.connections_max;
        let endpoint = |authority| Endpoint::new(authority, connections_max);
        Client {
            sender: Arc::new(Sender {
                endpoints: self.endpoints.into_iter().map(endpoint).collect(),
                current: AtomicUsize::new(0),
                timeout: self.timeout,
                rounds_max: self.rounds_max,
            }),
        }
    }
}

/// What a put asks for besides its value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Put {
    /// Write only if the key's `mod_revision` is this one; 0: only if there is no such key.
    pub expected_revision: Option<u64>,
    /// Whether the answer shall hold what was there before.
    pub previous: bool,
}

/// Which keys to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List {
    /// What the keys begin with.
    pub prefix: Vec<u8>,
    /// The first key.
    pub start: Option<Vec<u8>>,
    /// The key after the last one.
    pub end: Option<Vec<u8>>,
    /// How many at the most; the node has its own bound.
    pub limit: Option<usize>,
    /// How fresh the answer must be.
    pub consistency: Consistency,
}

impl Client {
    /// A client of the nodes at `endpoints`: `host:port` or `http://host:port`, several with commas between.
    ///
    /// # Errors
    /// When one of them is no endpoint.
    pub fn new(endpoints: &str) -> Result<Client, Error> {
        Ok(Client::builder(endpoints)?.build())
    }

    /// As [`Client::new`], with settings.
    ///
    /// # Errors
    /// When an endpoint is none.
    pub fn builder(endpoints: &str) -> Result<Builder, Error> {
        Ok(Builder {
            endpoints: parse_list(endpoints)?,
            timeout: Duration::from_secs(10),
            connections_max: 256,
            rounds_max: u32::MAX,
        })
    }

    /// The key with its value, if it is there.
    ///
    /// # Errors
    /// When no node answers, or with what it answers.
    pub async fn get(&self, key: &[u8], consistency: Consistency) -> Result<Option<KeyValue>, Error> {
        let mut path = key_path(key);
        if consistency != Consistency::default() {
            path.push_str("?consistency=");
            path.push_str(consistency.as_str());
        }
        match self.read(&path).await {
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
        let path = write_path(key, put);
        self.ask(Method::PUT, &path, value.into(), Effect::Change).await
    }

    /// Removes `key`. That there is none is no error: [`DeleteAnswer::deleted`] is 0.
    ///
    /// # Errors
    /// As [`Client::put`].
    pub async fn delete(&self, key: &[u8], put: Put) -> Result<DeleteAnswer, Error> {
        let path = write_path(key, put);
        self.ask(Method::DELETE, &path, Bytes::new(), Effect::Change)
            .await
    }

    /// The keys of a range with their values, ascending.
    ///
    /// # Errors
    /// When no node answers, or with what it answers.
    pub async fn list(&self, list: &List) -> Result<ListAnswer, Error> {
        let encode = |bytes: &[u8]| percent_encode(bytes, NON_ALPHANUMERIC).to_string();
        let mut path = format!("/v1/kv?prefix={}", encode(&list.prefix));
        for (name, bytes) in [("start", &list.start), ("end", &list.end)] {
            if let Some(bytes) = bytes {
                path.push_str(&format!("&{name}={}", encode(bytes)));
            }
        }
        if let Some(limit) = list.limit {
            path.push_str(&format!("&limit={limit}"));
        }
        path.push_str("&consistency=");
        path.push_str(list.consistency.as_str());
        self.read(&path).await
    }

    /// How the node does.
    ///
    /// # Errors
    /// When no node answers, or with what it answers.
    pub async fn health(&self) -> Result<Health, Error> {
        self.read("/health").await
    }

    /// The cluster as one node sees it.
    ///
    /// # Errors
    /// When no node answers, or with what it answers.
    pub async fn status(&self) -> Result<ClusterStatus, Error> {
        self.read("/cluster/status").await
    }

    /// The members with their load.
    ///
    /// # Errors
    /// When no node answers, or with what it answers.
    pub async fn nodes(&self) -> Result<NodesAnswer, Error> {
        self.read("/cluster/nodes").await
    }

    /// Succeeds when the node serves linearizable reads and writes.
    ///
    /// # Errors
    /// When it does not, or does not answer.
    pub async fn ready(&self) -> Result<(), Error> {
        self.send(Method::GET, "/readyz", Bytes::new(), Effect::None)
            .await
            .map(drop)
    }

    /// Takes in a member, which may then join.
    ///
    /// # Errors
    /// When no node answers, or with what it answers.
    pub async fn add_member(&self, member: &AddMember) -> Result<MemberChanged, Error> {
        self.ask(Method::POST, "/cluster/members", json(member), Effect::Change)
            .await
    }

    /// Lets a member go.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is none of this name; otherwise as [`Client::put`].
    pub async fn remove_member(&self, name: &NodeName) -> Result<MemberChanged, Error> {
        let path = format!("/cluster/members/{name}");
        self.ask(Method::DELETE, &path, Bytes::new(), Effect::Change)
            .await
    }

    /// Hands the leadership to another node.
    ///
    /// # Errors
    /// When no node answers, or with what it answers.
    pub async fn step_down(&self, target: Option<NodeName>) -> Result<Leadership, Error> {
        let body = json(&StepDownRequest { target_node: target });
        self.ask(Method::POST, "/cluster/step-down", body, Effect::Change)
            .await
    }

    async fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.ask(Method::GET, path, Bytes::new(), Effect::None).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        effect: Effect,
    ) -> Result<Response<Bytes>, Error> {
        self.sender.send(method, path, body, effect).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        effect: Effect,
    ) -> Result<T, Error> {
        let response = self.send(method, path, body, effect).await?;
        serde_json::from_slice(response.body()).map_err(|error| Error::Protocol {
            endpoint: path.to_owned(),
            reason: format!("the answer is not the expected JSON: {error}"),
        })
    }
}

fn key_path(key: &[u8]) -> String {
    format!("/v1/kv/{}", percent_encode(key, PATH))
}

fn write_path(key: &[u8], put: Put) -> String {
    let mut path = key_path(key);
    let mut mark = '?';
    if let Some(revision) = put.expected_revision {
        path.push_str(&format!("{mark}revision={revision}"));
        mark = '&';
    }
    if put.previous {
        path.push_str(&format!("{mark}previous=true"));
    }
    path
}

fn json(value: &impl serde::Serialize) -> Bytes {
    serde_json::to_vec(value)
        .expect("the types of the API have string keys and no failing parts")
        .into()
}
