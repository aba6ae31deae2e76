//! Some nodes that belong together.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::http;
use crate::node::{Node, tail};
use crate::wait::{wait_for, wait_until};

/// How long a cluster may take to do what it does within moments on an idle machine: elect, join, promote, catch up.
pub const SETTLE: Duration = Duration::from_secs(30);

/// Lines of each log that a failed test prints.
const LOG_LINES: usize = 60;

/// Nodes with one home directory and one secret.
#[derive(Debug)]
pub struct Cluster {
    /// The nodes, in the order in which they were made.
    pub nodes: Vec<Node>,
    /// The text of the secret.
    pub secret: String,
    home: TempDir,
}

impl Default for Cluster {
    fn default() -> Cluster {
        Cluster::new()
    }
}

impl Cluster {
    /// A cluster without nodes.
    pub fn new() -> Cluster {
        let home = tempfile::Builder::new()
            .prefix("quorate-e2e-")
            .tempdir()
            .expect("a directory for the test");
        Cluster {
            nodes: Vec::new(),
            secret: new_secret(),
            home,
        }
    }

    /// A cluster of `count` nodes, named 1, 2 and so on, of a static list; none is started.
    pub fn listed(count: usize) -> Cluster {
        let mut cluster = Cluster::new();
        for number in 1..=count {
            cluster.add(&number.to_string());
        }
        let config = cluster.home().join("cluster.yaml");
        std::fs::write(&config, cluster.list()).expect("a configuration file");
        for node in &mut cluster.nodes {
            let flags =
                ["--node-id", &node.name, "--config", &config.display().to_string()].map(str::to_owned);
            node.flags.splice(0..0, flags);
        }
        cluster
    }

    /// A running cluster of `count` nodes of a static list.
    pub fn started(count: usize) -> Cluster {
        let mut cluster = Cluster::listed(count);
        cluster.start_all();
        cluster.wait_until_ready();
        cluster
    }

    /// The configuration file in the form of the requirements.
    fn list(&self) -> String {
        let mut text = "cluster:\n  nodes:\n".to_owned();
        for node in &self.nodes {
            text.push_str(&format!(
                "    - id: {}\n      host: 127.0.0.1\n      client_port: {}\n      cluster_port: {}\n",
                node.name,
                node.client_address().port(),
                node.cluster_address().port()
            ));
        }
        text.push_str("  raft:\n    election_timeout_min: 150\n    election_timeout_max: 300\n");
        text.push_str("    heartbeat_interval: 50\n    rpc_timeout: 100\n");
        text
    }

    /// The directory of everything in it.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Adds a node with its data directory and the secret; returns its place. It is not started.
    pub fn add(&mut self, name: &str) -> usize {
        let mut node = Node::new(name, self.home.path());
        node.environment = vec![("QUORATE_SECRET".to_owned(), self.secret.clone())];
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// Adds a node configured by flags alone; it founds a cluster, or joins one at `peers`.
    pub fn add_with_flags(&mut self, name: &str, peers: &[SocketAddr]) -> usize {
        let place = self.add(name);
        let node = &mut self.nodes[place];
        let ports = [
            ("--node-id", name.to_owned()),
            ("--port", node.client_address().port().to_string()),
            ("--raft-port", node.cluster_address().port().to_string()),
        ];
        for (flag, value) in ports {
            node.flags.extend([flag.to_owned(), value]);
        }
        if !peers.is_empty() {
            let peers: Vec<String> = peers.iter().map(SocketAddr::to_string).collect();
            node.flags.extend(["--peers".to_owned(), peers.join(",")]);
        }
        place
    }

    /// Starts every node that does not run.
    pub fn start_all(&mut self) {
        for node in self.nodes.iter_mut().filter(|node| !node.is_started()) {
            node.start();
        }
    }

    /// Kills every node, one right after the other.
    pub fn kill_all(&mut self) {
        for node in &mut self.nodes {
            node.kill();
        }
    }

    /// Stops every node and expects each to end well.
    pub fn stop_all(&mut self) {
        for node in self.nodes.iter().filter(|node| node.is_started()) {
            node.terminate();
        }
        for node in self.nodes.iter_mut().filter(|node| node.is_started()) {
            let status = node.wait_for_end();
            assert!(status.success(), "node {} ended with {status}", node.name);
        }
    }

    /// The nodes that were started.
    pub fn running(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.is_started())
    }

    /// The client addresses of all nodes.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(Node::client_address).collect()
    }

    /// Waits until every started node serves.
    #[track_caller]
    pub fn wait_until_ready(&self) {
        for node in self.running() {
            wait_until(SETTLE, &format!("node {} is ready", node.name), || {
                node.is_ready()
            });
        }
    }

    /// Waits until a node says that it leads and it is the only one of the highest term; returns its place.
    #[track_caller]
    pub fn leader(&self) -> usize {
        wait_for(SETTLE, "a leader", || self.leader_now())
    }

    /// The node that leads in the highest term that any node knows, if it says so.
    pub fn leader_now(&self) -> Option<usize> {
        let mut views: Vec<(u64, bool, usize)> = Vec::new();
        for (place, node) in self
            .nodes
            .iter()
            .enumerate()
            .filter(|(_, node)| node.is_started())
        {
            let status = node.look("/cluster/status");
            if let Some(term) = status["term"].as_u64() {
                views.push((term, status["state"] == "leader", place));
            }
        }
        let highest = views.iter().map(|(term, _, _)| *term).max()?;
        let leader = views.iter().find(|(term, leads, _)| *term == highest && *leads);
        leader.map(|(_, _, place)| *place)
    }

    /// Waits until every started node knows exactly the members `names`, all of them voters.
    #[track_caller]
    pub fn wait_for_voters(&self, names: &[&str]) {
        for node in self.running() {
            let what = format!("the voters {names:?} at node {}", node.name);
            wait_until(SETTLE, &what, || {
                let status = node.look("/cluster/status");
                let members = status["nodes"].as_array().cloned().unwrap_or_default();
                let mut found: Vec<String> = members.iter().map(|member| word(&member["node_id"])).collect();
                found.sort();
                found == names && status["voters"] == names.len()
            });
        }
    }

    /// Waits until every started node holds what a linearizable read shows, and returns it.
    #[track_caller]
    pub fn wait_until_equal(&self) -> BTreeMap<String, String> {
        let last = wait_for(SETTLE, "all nodes hold the same", || {
            // Nodes that have just started may all be equally far behind their logs.
            let current = listing(self.running().next()?.client_address(), "", "linearizable")?;
            let mut listings = self
                .running()
                .map(|node| listing(node.client_address(), "", "serializable"));
            listings
                .all(|held| held.as_ref() == Some(&current))
                .then_some(current)
        });
        last.into_iter().map(|(key, (value, _))| (key, value)).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for node in &self.nodes {
            let client = node.client_address();
            let log = tail(&node.log(), LOG_LINES);
            println!("---- the end of the log of node {} ({client}):\n{log}", node.name);
        }
    }
}

/// Keys with values and revisions.
pub type Listing = BTreeMap<String, (String, u64)>;

/// All keys that begin with `prefix`, read page by page from one node; none when it does not answer.
///
/// Pages are read one after the other: the listing is of one moment only while nobody writes.
pub fn listing(address: SocketAddr, prefix: &str, consistency: &str) -> Option<Listing> {
    let mut client = http::Client::new(address);
    let mut found = Listing::new();
    let mut start = String::new();
    loop {
        let path = format!("/v1/kv?prefix={prefix}&limit=10000&consistency={consistency}{start}");
        let answer = client.send("GET", &path, &[], b"").ok()?;
        if answer.status != 200 {
            return None;
        }
        let page = answer.json();
        for entry in page["entries"].as_array()? {
            let revision = entry["mod_revision"].as_u64()?;
            found.insert(word(&entry["key"]), (word(&entry["value"]), revision));
        }
        match page["next"].as_str() {
            Some(next) => start = format!("&start={next}"),
            None => return Some(found),
        }
    }
}

/// A name, which may be a number.
pub(crate) fn word(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A secret that no other cluster has.
pub fn new_secret() -> String {
    let output = std::process::Command::new(crate::quorate())
        .args(["secret", "new"])
        .output()
        .expect("quorate runs");
    assert!(output.status.success(), "quorate secret new: {output:?}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
