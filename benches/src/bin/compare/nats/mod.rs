//! Three processes of NATS with JetStream, and a client of its text protocol.
//!
//! The client is written by hand: the official one brings some forty crates that nothing else here needs, and would do
//! more work for each message.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::sleep;

use super::process::{self, Process, free_ports};

mod connection;
mod protocol;

pub(crate) use connection::Connection;

const PROGRAM: &str = "nats-server";
/// How long a cluster may take to serve.
const READY: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(50);

/// What it says of its version; none when it is not installed.
pub(crate) fn version() -> Option<String> {
    process::version(PROGRAM)
}

/// Whether the installed one can be told to sync each message before it is acknowledged, as from 2.10 on.
pub(crate) fn can_sync_always() -> Result<bool, String> {
    let home = home()?;
    let ports = free_ports(2)?;
    let config = configuration(home.path(), 0, &ports[..1], &ports[1..], true);
    let path = home.path().join("try.conf");
    std::fs::write(&path, config).map_err(|error| format!("{}: {error}", path.display()))?;
    let output = std::process::Command::new(PROGRAM)
        .arg("-t")
        .arg("-c")
        .arg(&path)
        .stdin(std::process::Stdio::null())
        .output()
        .map_err(|error| format!("{PROGRAM} does not start: {error}"))?;
    Ok(output.status.success())
}

fn home() -> Result<TempDir, String> {
    tempfile::Builder::new()
        .prefix("compare-nats-")
        .tempdir()
        .map_err(|error| format!("no directory for NATS: {error}"))
}

/// The file of one node.
fn configuration(
    home: &Path,
    place: usize,
    clients: &[SocketAddr],
    peers: &[SocketAddr],
    sync_always: bool,
) -> String {
    let routes: Vec<String> = peers.iter().map(|peer| format!("\"nats://{peer}\"")).collect();
    let store = home.join(format!("n{place}"));
    // Without this JetStream syncs its files every two minutes.
    let sync = if sync_always { "sync_interval: always" } else { "" };
    format!(
        "server_name: n{place}\nlisten: \"{}\"\njetstream {{\n  store_dir: \"{}\"\n  {sync}\n}}\n\
         cluster {{\n  name: compare\n  listen: \"{}\"\n  routes: [{}]\n}}\n",
        clients[place],
        store.display(),
        peers[place],
        routes.join(", ")
    )
}

/// A cluster of NATS.
pub(crate) struct Nats {
    pub(crate) sync_always: bool,
    nodes: Vec<Node>,
    _home: TempDir,
}

struct Node {
    client: SocketAddr,
    process: Process,
}

impl Nats {
    /// Starts the processes; it serves as soon as it makes a stream.
    pub(crate) fn start(count: usize, sync_always: bool) -> Result<Nats, String> {
        let home = home()?;
        let ports = free_ports(2 * count)?;
        let (clients, peers) = ports.split_at(count);
        let mut nodes = Vec::new();
        for (place, client) in clients.iter().enumerate() {
            let config = home.path().join(format!("n{place}.conf"));
            let text = configuration(home.path(), place, clients, peers, sync_always);
            std::fs::write(&config, text).map_err(|error| format!("{}: {error}", config.display()))?;
            let arguments = vec!["-c".into(), config.into()];
            let mut process = Process::new(PROGRAM, arguments, home.path().join(format!("n{place}.log")));
            process.start()?;
            nodes.push(Node {
                client: *client,
                process,
            });
        }
        Ok(Nats {
            sync_always,
            nodes,
            _home: home,
        })
    }

    /// Makes a stream of its own subject with a replica on each node, and returns the place of its leader.
    pub(crate) async fn create_stream(&self, name: &str, bytes_max: u64) -> Result<usize, String> {
        let config = json!({
            "name": name,
            "subjects": [name],
            "storage": "file",
            "retention": "limits",
            "discard": "old",
            "max_bytes": bytes_max,
            "num_replicas": self.nodes.len(),
        });
        let until = Instant::now() + READY;
        loop {
            let error = match self.try_stream(name, &config).await {
                Ok(leader) => return Ok(leader),
                Err(error) => error,
            };
            if Instant::now() >= until {
                let log = self.nodes[0].process.log();
                return Err(format!(
                    "NATS had no stream within {READY:?}: {error}; its log:\n{log}"
                ));
            }
            sleep(PAUSE).await;
        }
    }

    /// Makes the stream if it is not there; succeeds when it has a leader and all its replicas, and each node takes a
    /// message for it.
    async fn try_stream(&self, name: &str, config: &Value) -> Result<usize, String> {
        let mut connection = Connection::open(self.nodes[0].client).await?;
        connection
            .request(&format!("STREAM.CREATE.{name}"), config)
            .await?;
        let info = connection
            .request(&format!("STREAM.INFO.{name}"), &json!({}))
            .await?;
        let leader = leader(&info, self.nodes.len())
            .ok_or_else(|| format!("the stream is not ready: {}", info["cluster"]))?;
        // At first some nodes do not know yet that the subject has a stream.
        for node in &self.nodes {
            let mut connection = Connection::open(node.client).await?;
            connection.append(name, &Bytes::from_static(b"ready"), 1).await?;
        }
        Ok(leader)
    }

    pub(crate) async fn delete_stream(&self, name: &str) -> Result<(), String> {
        let mut connection = Connection::open(self.nodes[0].client).await?;
        connection
            .request(&format!("STREAM.DELETE.{name}"), &json!({}))
            .await
            .map(drop)
    }

    pub(crate) fn kill(&mut self, place: usize) {
        self.nodes[place].process.kill();
    }

    pub(crate) fn restart(&mut self, place: usize) -> Result<(), String> {
        self.nodes[place].process.start()
    }

    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.client).collect()
    }

    pub(crate) fn process_ids(&self) -> Vec<u32> {
        self.nodes.iter().filter_map(|node| node.process.id()).collect()
    }
}

/// The place of a stream's leader, as soon as each of its `replicas` has all of it.
fn leader(info: &Value, replicas: usize) -> Option<usize> {
    let cluster = &info["cluster"];
    let followers = cluster["replicas"].as_array()?;
    let current = followers
        .iter()
        .filter(|follower| follower["current"] == true)
        .count();
    if current + 1 < replicas {
        return None;
    }
    cluster["leader"].as_str()?.strip_prefix('n')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_has_a_leader_when_all_replicas_are_current() {
        let info = |current: bool| {
            let follower = |name: &str, current: bool| json!({"name": name, "current": current});
            json!({"cluster": {"leader": "n2", "replicas": [follower("n0", true), follower("n1", current)]}})
        };
        assert_eq!(leader(&info(true), 3), Some(2));
        assert_eq!(leader(&info(false), 3), None);
        assert_eq!(leader(&json!({"cluster": {"replicas": []}}), 1), None);
    }
}
