//! Sessions of a node that is killed under load.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use quorate_tests::{Cluster, Load, SETTLE, quorate, wait_until};
use serde_json::{Value, json};

const SESSIONS: usize = 60;

/// `quorate sessions watch` of all sessions from the first revision on, as a process.
struct Watcher {
    process: Child,
    changes: Arc<Mutex<Vec<Value>>>,
}

impl Watcher {
    fn start(cluster: &Cluster) -> Watcher {
        let endpoints: Vec<String> = cluster.addresses().iter().map(ToString::to_string).collect();
        let mut process = Command::new(quorate())
            .args([
                "sessions",
                "watch",
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

    /// Owner and epoch of each session, as the watch tells; checks that it tells nothing twice and nothing out of order.
    fn told(&self) -> BTreeMap<String, (Value, u64)> {
        let changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut told: BTreeMap<String, (Value, u64)> = BTreeMap::new();
        let mut last = 0;
        for change in changes.iter() {
            let revision = change["revision"].as_u64().expect("a revision");
            assert!(revision > last, "revision {revision} is told after {last}");
            last = revision;
            for event in change["events"].as_array().expect("events") {
                assert_eq!(event["type"], "given", "nothing else happens to them: {event}");
                let session = &event["session"];
                let id = session["session_id"].as_str().expect("an id").to_owned();
                let epoch = session["epoch"].as_u64().expect("an epoch");
                assert_eq!(epoch, revision, "an epoch is the revision of the move");
                let before = told.insert(id, (session["node_id"].clone(), epoch));
                assert!(
                    before.is_none_or(|(_, before)| before < epoch),
                    "epochs rise: {event}"
                );
            }
        }
        told
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Owner and epoch of each session, as a node that serves says.
fn listed(cluster: &Cluster) -> Option<BTreeMap<String, (Value, u64)>> {
    let node = cluster.running().next()?;
    let answer = node.request("GET", "/v1/sessions", b"").ok()?;
    let sessions = answer.json()["sessions"].as_array()?.clone();
    let owner = |session: &Value| {
        let id = session["session_id"].as_str()?.to_owned();
        Some((id, (session["node_id"].clone(), session["epoch"].as_u64()?)))
    };
    sessions.iter().map(owner).collect()
}

#[test]
fn the_sessions_of_a_killed_node_go_to_others_in_a_higher_epoch_and_a_watch_tells_each_move_once() {
    let mut cluster = Cluster::listed(3);
    for node in &mut cluster.nodes {
        node.set_flag("--session-grace", "500");
    }
    cluster.start_all();
    cluster.wait_until_ready();
    let load = Load::start(&cluster.addresses(), 2, 12);
    load.wait_for_successes(20);
    wait_until(SETTLE, "every node takes sessions", || {
        let nodes = cluster.nodes[0].get("/cluster/nodes").json();
        let nodes = nodes["nodes"].as_array().expect("nodes").clone();
        nodes.iter().all(|node| node["available_capacity"] == 1000)
    });
    for number in 0..SESSIONS {
        let body = json!({"session_id": format!("s{number:02}"), "payload": format!("payload {number}")});
        let body = body.to_string();
        wait_until(SETTLE, &format!("session {number} is made"), || {
            let made = cluster.nodes[number % 3].request("POST", "/v1/sessions", body.as_bytes());
            made.is_ok_and(|answer| answer.status == 200 || answer.code() == "session_exists")
        });
    }
    let watcher = Watcher::start(&cluster);
    let before = listed(&cluster).expect("the sessions");
    assert_eq!(before.len(), SESSIONS);
    let victim = cluster.leader();
    let name: Value = cluster.nodes[victim].look("/cluster/status")["node_id"].clone();
    let orphans = before.values().filter(|(owner, _)| *owner == name).count();
    assert_eq!(orphans, SESSIONS / 3, "sessions are spread evenly");
    cluster.nodes[victim].kill();
    wait_until(SETTLE, "nothing is left to the killed node", || {
        listed(&cluster).is_some_and(|now| now.values().all(|(owner, _)| *owner != name))
    });
    let after = listed(&cluster).expect("the sessions");
    for (id, (owner, epoch)) in &before {
        let (now, later) = &after[id];
        if *owner == name {
            assert!(later > epoch, "session {id} moved from epoch {epoch} to {later}");
        } else {
            assert_eq!((now, later), (owner, epoch), "session {id} has no reason to move");
        }
    }
    load.wait_for_successes(20);
    wait_until(SETTLE, "the watch has told everything", || {
        watcher.told() == after
    });
    let payload = cluster
        .running()
        .next()
        .expect("a node")
        .get("/v1/sessions/s07")
        .json();
    assert_eq!(payload["payload"], "payload 7", "it goes with the session");
    cluster.nodes[victim].start();
    let back = &cluster.nodes[victim];
    wait_until(SETTLE, "the node is back", || back.is_ready());
    wait_until(SETTLE, "it takes sessions again", || {
        // Before the leader has seen the node, there is nothing to level.
        let _ = back.request("POST", "/cluster/rebalance", b"");
        let owned =
            |now: BTreeMap<String, (Value, u64)>| now.values().filter(|(owner, _)| *owner == name).count();
        listed(&cluster).map(owned) == Some(SESSIONS / 3)
    });
    load.stop().check(cluster.nodes[0].client_address());
}
