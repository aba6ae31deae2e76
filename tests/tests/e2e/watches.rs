//! Watches that outlive the nodes which serve them.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quorate_tests::{Cluster, Load, SETTLE, quorate, wait_for, wait_until};
use serde_json::Value;

/// `quorate watch` of all keys from the first revision on, as a process.
struct Watcher {
    process: Child,
    /// The lines that it wrote.
    changes: Arc<Mutex<Vec<Value>>>,
}

impl Watcher {
    fn start(cluster: &Cluster) -> Watcher {
        let endpoints: Vec<String> = cluster.addresses().iter().map(ToString::to_string).collect();
        let mut process = Command::new(quorate())
            .args([
                "watch",
                "--prefix",
                "",
                "--from-revision",
                "1",
                "-w",
                "json",
                "--endpoint",
            ])
            .arg(endpoints.join(","))
            .stdout(Stdio::piped())
            .spawn()
            .expect("quorate starts");
        let output = BufReader::new(process.stdout.take().expect("its output is piped"));
        let changes = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&changes);
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let change = serde_json::from_str(&line).expect("a line is JSON");
                heard.lock().unwrap_or_else(PoisonError::into_inner).push(change);
            }
        });
        Watcher { process, changes }
    }

    fn changes(&self) -> Vec<Value> {
        self.changes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn last_revision(&self) -> u64 {
        let changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        changes
            .last()
            .map_or(0, |change| change["revision"].as_u64().expect("a revision"))
    }

    #[track_caller]
    fn wait_for_more(&self, count: u64) {
        let target = self.last_revision() + count;
        wait_until(SETTLE, &format!("the watcher hears of revision {target}"), || {
            self.last_revision() >= target
        });
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The node that serves the only watch.
#[track_caller]
fn watched(cluster: &Cluster) -> usize {
    wait_for(SETTLE, "a node that serves a watch", || {
        let mut nodes = cluster.nodes.iter();
        nodes.position(|node| {
            node.is_started()
                && node
                    .request("GET", "/metrics", b"")
                    .is_ok_and(|answer| answer.text().contains("\nquorate_watchers 1\n"))
        })
    })
}

#[test]
fn a_watcher_hears_of_every_revision_once_through_kills_of_the_leader_and_of_its_node() {
    let mut cluster = Cluster::started(3);
    let load = Load::start(&cluster.addresses(), 4, 12);
    let watcher = Watcher::start(&cluster);
    for round in 0..6 {
        load.wait_for_successes(50);
        watcher.wait_for_more(20);
        let victim = if round % 2 == 0 {
            watched(&cluster)
        } else {
            cluster.leader()
        };
        cluster.nodes[victim].kill();
        load.wait_for_successes(50);
        watcher.wait_for_more(20);
        cluster.nodes[victim].start();
        let node = &cluster.nodes[victim];
        wait_until(SETTLE, &format!("node {} is back", node.name), || node.is_ready());
    }
    // A frozen node says nothing, and does not hang up either.
    let frozen = watched(&cluster);
    cluster.nodes[frozen].freeze();
    watcher.wait_for_more(100);
    cluster.nodes[frozen].thaw();
    let record = load.stop();
    record.check(cluster.nodes[0].client_address());
    cluster.nodes[0].put("last", "one");
    let keys = cluster.wait_until_equal();
    wait_until(SETTLE, "the watcher hears of the last write", || {
        let last = watcher.changes().pop().unwrap_or_default();
        last["events"][0]["entry"]["key"] == "last"
    });
    // Everything is watched from the beginning, and every revision changes something.
    let mut model = BTreeMap::new();
    for (change, revision) in watcher.changes().iter().zip(1u64..) {
        assert_eq!(
            change["revision"], revision,
            "a revision is missing, or told twice"
        );
        for event in change["events"].as_array().expect("a list") {
            let entry = &event["entry"];
            let word = |field: &str| entry[field].as_str().unwrap_or_default().to_owned();
            match event["type"].as_str() {
                Some("put") => {
                    assert_eq!(entry["mod_revision"], revision);
                    model.insert(word("key"), word("value"));
                }
                _ => {
                    model.remove(&word("key"));
                }
            }
        }
    }
    assert_eq!(model, keys, "what was told makes the state");
}

#[test]
fn stopping_node_ends_its_watches_with_a_reason_and_at_once() {
    let mut cluster = Cluster::started(1);
    let mut stream = TcpStream::connect(cluster.nodes[0].client_address()).expect("a connection");
    stream.set_read_timeout(Some(SETTLE)).unwrap();
    stream
        .write_all(b"GET /v1/watch?prefix= HTTP/1.1\r\nhost: quorate\r\n\r\n")
        .unwrap();
    wait_until(SETTLE, "the watch began", || {
        cluster.nodes[0]
            .get("/metrics")
            .text()
            .contains("\nquorate_watchers 1\n")
    });
    cluster.nodes[0].put("greeting", "hello");
    // A node that stops tells nothing more: whoever watches goes on elsewhere, from the revision after the last one.
    let mut told = Vec::new();
    wait_until(SETTLE, "the watch has told of the change", || {
        let mut piece = [0; 4_096];
        let length = stream.read(&mut piece).expect("the watch goes on");
        told.extend_from_slice(&piece[..length]);
        String::from_utf8_lossy(&told).contains("\"key\":\"greeting\"")
    });
    cluster.nodes[0].stop();
    stream.read_to_end(&mut told).expect("the answer ends well");
    let text = String::from_utf8(told).expect("events are text");
    for part in [
        "event: open",
        "\"key\":\"greeting\"",
        "event: cancel",
        "\"code\":\"unavailable\"",
    ] {
        assert!(text.contains(part), "no `{part}` in:\n{text}");
    }
    let log = cluster.nodes[0].log();
    assert!(!log.contains("cutting requests"), "{log}");
}

#[test]
fn a_slow_watcher_neither_blocks_nor_bloats_the_node() {
    let cluster = Cluster::started(1);
    let node = &cluster.nodes[0];
    let mut slow = TcpStream::connect(node.client_address()).expect("a connection");
    slow.set_read_timeout(Some(SETTLE)).unwrap();
    slow.write_all(b"GET /v1/watch?prefix= HTTP/1.0\r\nhost: quorate\r\n\r\n")
        .unwrap();
    let metrics = || node.get("/metrics").text();
    wait_until(SETTLE, "the watch began", || {
        metrics().contains("\nquorate_watchers 1\n")
    });
    // More than sockets and the latest events hold.
    let value = "x".repeat(512 << 10);
    for number in 0..80 {
        node.put(&format!("big/{number}"), &value);
    }
    assert!(
        metrics().contains("\nquorate_watchers_behind 1\n"),
        "the slow watcher is behind: {}",
        metrics()
    );
    let mut reader = BufReader::new(slow);
    let mut revisions = Vec::new();
    let mut line = Vec::new();
    while revisions.len() < 80 {
        line.clear();
        assert!(reader.read_until(b'\n', &mut line).expect("the stream goes on") > 0);
        if let Some(id) = line.strip_prefix(b"id: ") {
            let id: u64 = String::from_utf8_lossy(id).trim().parse().expect("a revision");
            revisions.extend((id > 0).then_some(id));
        }
    }
    assert_eq!(revisions, (1..=80).collect::<Vec<_>>());
    wait_until(Duration::from_secs(5), "it has caught up", || {
        metrics().contains("\nquorate_watchers_behind 0\n")
    });
}
