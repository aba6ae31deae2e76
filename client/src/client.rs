//! A client, and what it asks of the cluster itself.

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Response};
use quorate_api::{
    AddMember, ClusterStatus, Health, Leadership, MemberChanged, NodeName, NodesAnswer, StepDownRequest,
};
use serde::de::DeserializeOwned;

use crate::Error;
use crate::connection::{Endpoint, Means, Protocol};
use crate::endpoint::parse_list;
use crate::machine::{Machine, System};
use crate::request::{Call, Effect, Sender};

/// A client of a cluster. Cheap to clone; clones share their connections.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) sender: Arc<Sender>,
    /// Under which key writes are carried out once.
    request_key: Option<Arc<str>>,
}

/// Sets up a [`Client`].
#[derive(Clone, Debug)]
pub struct Builder {
    endpoints: Vec<String>,
    timeout: Duration,
    connections_max: usize,
    rounds_max: u32,
    means: Means,
}

impl Builder {
    /// What to speak with nodes; [`Protocol::Auto`] otherwise.
    #[must_use]
    pub fn protocol(mut self, protocol: Protocol) -> Builder {
        self.means.protocol = protocol;
        self
    }

    /// What stands in for the machine where QUIC is spoken.
    #[must_use]
    pub fn machine(mut self, machine: Arc<dyn Machine>) -> Builder {
        self.means.machine = machine;
        self
    }

    /// The longest time for one request with its repetitions; 10 seconds otherwise.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Builder {
        self.timeout = timeout;
        self
    }

    /// How many connections for HTTP to one endpoint may be in use at a time; 256 otherwise. Further requests wait. Over
    /// QUIC there is one, which requests share.
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
        let (connections_max, means) = (self.connections_max, self.means);
        let endpoint = |authority| Endpoint::new(authority, connections_max, &means);
        Client {
            sender: Arc::new(Sender {
                endpoints: self.endpoints.into_iter().map(endpoint).collect(),
                current: AtomicUsize::new(0),
                timeout: self.timeout,
                rounds_max: self.rounds_max,
                means,
                leader: Mutex::new(None),
            }),
            request_key: None,
        }
    }
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
            means: Means {
                protocol: Protocol::Auto,
                machine: Arc::new(System),
            },
        })
    }

    /// The same client for one write, which the cluster carries out once under this key of 1 to 128 visible ASCII
    /// characters: the client repeats it until it is answered, also when the outcome of an attempt is unknown, and so
    /// may its caller, with the same key and the same write. Another write takes another key.
    #[must_use]
    pub fn once(&self, request_key: impl Into<String>) -> Client {
        Client {
            sender: Arc::clone(&self.sender),
            request_key: Some(request_key.into().into()),
        }
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
        self.send(call(Method::GET, "/readyz", Bytes::new(), Effect::None))
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
        self.ask(Method::DELETE, path, Bytes::new(), Effect::Change).await
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

    /// Asks for anything that the HTTP API has, at a path with its parameters; the answer is what it says on success. What
    /// has a method of its own is better asked for with that. An answer that may be long is asked for with
    /// [`Client::read_long`].
    ///
    /// # Errors
    /// As those methods: only after [`Error::UnknownOutcome`] may a request that is no `GET` have taken effect.
    pub async fn request(&self, method: Method, path: &str, body: impl Into<Bytes>) -> Result<Bytes, Error> {
        let effect = match (&method, &self.request_key) {
            (&Method::GET, _) => Effect::None,
            (_, Some(_)) => Effect::Once,
            (_, None) => Effect::Change,
        };
        let answer = self.send(call(method, path, body, effect)).await?;
        Ok(answer.into_body())
    }

    /// Reads anything that the HTTP API has, however long; over QUIC on a stream of its own.
    ///
    /// # Errors
    /// When no node answers, or with what it answers.
    pub async fn read_long(&self, path: &str) -> Result<Bytes, Error> {
        let answer = self.send(long(path)).await?;
        Ok(answer.into_body())
    }

    /// Reads what may be long.
    pub(crate) async fn read<T: DeserializeOwned>(&self, path: impl Into<String>) -> Result<T, Error> {
        self.ask_with(long(path)).await
    }

    /// Reads one thing, which is about as long as what one request writes.
    pub(crate) async fn read_one<T: DeserializeOwned>(&self, path: impl Into<String>) -> Result<T, Error> {
        self.ask(Method::GET, path, Bytes::new(), Effect::None).await
    }

    /// Sends a change of data, which is carried out once if there is a key for it.
    pub(crate) async fn change<T: DeserializeOwned>(
        &self,
        method: Method,
        path: impl Into<String>,
        body: impl Into<Bytes>,
    ) -> Result<T, Error> {
        let effect = match self.request_key {
            Some(_) => Effect::Once,
            None => Effect::Change,
        };
        self.ask(method, path, body, effect).await
    }

    async fn send(&self, call: Call) -> Result<Response<Bytes>, Error> {
        let request_key = self.request_key.clone().filter(|_| call.effect == Effect::Once);
        self.sender.send(&Call { request_key, ..call }).await
    }

    pub(crate) async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: impl Into<String>,
        body: impl Into<Bytes>,
        effect: Effect,
    ) -> Result<T, Error> {
        self.ask_with(call(method, path, body, effect)).await
    }

    async fn ask_with<T: DeserializeOwned>(&self, call: Call) -> Result<T, Error> {
        let path = call.path.clone();
        let response = self.send(call).await?;
        serde_json::from_slice(response.body()).map_err(|error| Error::Protocol {
            endpoint: path,
            reason: format!("the answer is not the expected JSON: {error}"),
        })
    }
}

fn call(method: Method, path: impl Into<String>, body: impl Into<Bytes>, effect: Effect) -> Call {
    Call {
        method,
        path: path.into(),
        body: body.into(),
        effect,
        request_key: None,
        long_answer: false,
    }
}

/// A read of what may be long.
fn long(path: impl Into<String>) -> Call {
    Call {
        long_answer: true,
        ..call(Method::GET, path, Bytes::new(), Effect::None)
    }
}

pub(crate) fn json(value: &impl serde::Serialize) -> Bytes {
    serde_json::to_vec(value)
        .expect("the types of the API have string keys and no failing parts")
        .into()
}
