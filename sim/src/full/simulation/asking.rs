//! What operators and clients ask of one node, and what came of it.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use quorate_api::Health;
use quorate_core::raft::NodeId;

use super::super::client;
use super::super::machine::{CLUSTER_PORT, address, name};
use super::super::requests::Order;
use super::super::setup::Reads;
use super::Simulation;

/// How long somebody waits for the answer to a single request.
const PATIENCE: Duration = Duration::from_secs(10);

/// A request that was made of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request(u64);

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was done.
    Done,
    /// Certainly nothing happened; the node's reason.
    Refused(String),
    /// It may have happened, or may yet.
    Unknown(String),
}

impl Simulation {
    /// Writes a key through one node.
    pub fn write(&mut self, node: NodeId) -> Request {
        self.ask(node, Method::PUT, "/v1/kv/single", Bytes::from_static(b"1"))
    }

    /// Reads a key through one node: linearizable, by lease, or from whatever the node has when `reads` is none.
    pub fn read(&mut self, node: NodeId, reads: Option<Reads>) -> Request {
        let consistency = match reads {
            Some(Reads::Linearizable) => "linearizable",
            Some(Reads::Lease) => "lease",
            None => "serializable",
        };
        let path = format!("/v1/kv?limit=1&consistency={consistency}");
        self.ask(node, Method::GET, &path, Bytes::new())
    }

    /// Asks a node how it does.
    pub fn ask_health(&mut self, node: NodeId) -> Request {
        self.ask(node, Method::GET, "/health", Bytes::new())
    }

    /// Asks the leader to hand over, to a node or to the best one.
    pub fn transfer(&mut self, to: Option<NodeId>) -> Request {
        let body = serde_json::json!({ "target_node": to.map(name) });
        let asked = self.asked();
        self.ask(
            asked,
            Method::POST,
            "/cluster/step-down",
            Bytes::from(body.to_string()),
        )
    }

    /// Starts the node of a machine and asks the cluster to take it in, for good as a learner or to vote.
    pub fn add(&mut self, node: NodeId, learner: bool) -> Request {
        let asked = self.asked();
        self.world.members.insert(node);
        self.world.start(node);
        let body = serde_json::json!({
            "id": name(node),
            "host": address(node).to_string(),
            "port": CLUSTER_PORT,
            "learner": learner,
        });
        self.ask(
            asked,
            Method::POST,
            "/cluster/members",
            Bytes::from(body.to_string()),
        )
    }

    /// Asks the cluster to let a node go. Its process runs on.
    pub fn remove(&mut self, node: NodeId) -> Request {
        let asked = self.asked();
        self.world.members.remove(&node);
        let path = format!("/cluster/members/{}", name(node));
        self.ask(asked, Method::DELETE, &path, Bytes::new())
    }

    /// The answer to a request, and when it came since the cluster was founded.
    pub fn answer(&self, request: Request) -> Option<(Answer, Duration)> {
        let (answer, at) = self.world.clients.requests.answer(request.0)?;
        let answer = match answer {
            client::Answer::Done(_) => Answer::Done,
            client::Answer::Other(code) => Answer::Refused(code.to_string()),
            client::Answer::Nothing(reason) => Answer::Refused(reason),
            client::Answer::Unknown(reason) => Answer::Unknown(reason),
        };
        Some((answer, Duration::from_nanos(at - self.began)))
    }

    /// What a node said of itself when it was asked.
    pub fn health(&self, request: Request) -> Option<Health> {
        match self.world.clients.requests.answer(request.0)? {
            (client::Answer::Done(body), _) => serde_json::from_slice(&body).ok(),
            _ => None,
        }
    }

    /// Whom operators ask: the leader, or the first member that runs.
    fn asked(&self) -> NodeId {
        let running = || self.world.members().into_iter().find(|node| self.runs(*node));
        self.leader().or_else(running).unwrap_or(NodeId(1))
    }

    fn ask(&mut self, node: NodeId, method: Method, path: &str, body: Bytes) -> Request {
        Request(self.world.clients.requests.make(Order {
            node: self.world.host(node).client_address(),
            method,
            path: path.to_owned(),
            body,
            patience: PATIENCE,
        }))
    }
}
