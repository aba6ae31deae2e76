//! Settings that are written while the leader is killed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use quorate_tests::http::request;
use quorate_tests::{Cluster, SETTLE, wait_until};
use serde_json::{Value, json};

/// A pause after a request that no node answered, so that writers of a dead cluster do not spin.
const PAUSE: Duration = Duration::from_millis(10);

/// Counts upwards in one setting, each time only if nobody else changed it, at one node until that fails.
struct Counter {
    key: String,
    addresses: Vec<SocketAddr>,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
}

impl Counter {
    fn run(self, mut node: usize) -> u64 {
        let (mut value, mut revision) = (0_u64, 0_u64);
        while !self.stop.load(Ordering::Relaxed) {
            let address = self.addresses[node % self.addresses.len()];
            let path = format!("/v1/settings/load/{}?revision={revision}", self.key);
            let next = (value + 1).to_string();
            match request(address, "PUT", &path, next.as_bytes()) {
                Ok(answer) if answer.status == 200 => {
                    revision = answer.json()["revision"].as_u64().expect("a revision");
                    value += 1;
                    self.acknowledged.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                // A write whose outcome was not known was made after all.
                Ok(answer) if answer.code() == "revision_conflict" => {
                    let path = format!("/v1/settings/load/{}", self.key);
                    if let Ok(answer) = request(address, "GET", &path, b"")
                        && answer.status == 200
                    {
                        let found = answer.json();
                        assert_eq!(found["value"], value + 1, "nobody else writes it: {found}");
                        revision = found["mod_revision"].as_u64().expect("a revision");
                        value += 1;
                        continue;
                    }
                }
                Ok(answer) => assert!(answer.status >= 409, "{}", answer.text()),
                Err(_) => {}
            }
            node += 1;
            thread::sleep(PAUSE);
        }
        value
    }
}

/// Writes what does not fit the schema; returns how often that was refused for this reason.
fn write_misfits(addresses: &[SocketAddr], stop: &AtomicBool) -> u64 {
    let mut refused = 0;
    for address in addresses.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let path = "/v1/settings/load/misfit";
        match request(*address, "PUT", path, b"\"text\"") {
            Ok(answer) => {
                assert_ne!(answer.status, 200, "it does not fit: {}", answer.text());
                refused += u64::from(answer.code() == "schema_mismatch");
            }
            Err(_) => thread::sleep(PAUSE),
        }
    }
    refused
}

fn read(cluster: &Cluster, node: usize) -> Option<Value> {
    let path = "/v1/settings/load?consistency=serializable";
    let answer = cluster.nodes[node].request("GET", path, b"").ok()?;
    (answer.status == 200).then(|| answer.json()["settings"].clone())
}

#[test]
fn settings_fit_their_schema_and_no_acknowledged_one_is_lost_when_the_leader_is_killed() {
    let mut cluster = Cluster::started(3);
    let schema = json!({"additionalProperties": {"type": "integer", "minimum": 1}}).to_string();
    wait_until(SETTLE, "the schema is set", || {
        let answer = cluster.nodes[0].request("PUT", "/v1/schemas/load", schema.as_bytes());
        answer.is_ok_and(|answer| answer.status == 200)
    });
    let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let counters: Vec<JoinHandle<u64>> = (0..3)
        .map(|number| {
            let counter = Counter {
                key: format!("counter-{number}"),
                addresses: cluster.addresses(),
                stop: Arc::clone(&stop),
                acknowledged: Arc::clone(&acknowledged),
            };
            thread::spawn(move || counter.run(number))
        })
        .collect();
    let misfits = {
        let (addresses, stop) = (cluster.addresses(), Arc::clone(&stop));
        thread::spawn(move || write_misfits(&addresses, &stop))
    };
    let written = || acknowledged.load(Ordering::Relaxed);
    for _ in 0..2 {
        let before = written();
        wait_until(SETTLE, "settings are written", || written() >= before + 30);
        let victim = cluster.leader();
        cluster.nodes[victim].kill();
        let before = written();
        wait_until(SETTLE, "settings are written without it", || {
            written() >= before + 30
        });
        cluster.nodes[victim].start();
        let back = &cluster.nodes[victim];
        wait_until(SETTLE, "the node is back", || back.is_ready());
    }
    stop.store(true, Ordering::Relaxed);
    let values: Vec<u64> = counters
        .into_iter()
        .map(|counter| counter.join().unwrap())
        .collect();
    assert!(misfits.join().unwrap() > 0, "misfits were tried");
    let address = cluster.nodes[0].client_address();
    let section = request(address, "GET", "/v1/settings/load", b"").unwrap().json();
    let settings = section["settings"].as_array().expect("settings");
    assert_eq!(settings.len(), 3, "{section}");
    for (setting, value) in settings.iter().zip(values) {
        let found = setting["value"].as_u64().expect("it fits the schema");
        // The last write may have an outcome that its writer does not know.
        assert!(found == value || found == value + 1, "{setting} and {value}");
        assert_eq!(setting["version"], found, "each count was written once");
    }
    wait_until(SETTLE, "all nodes have the same settings", || {
        (0..3).all(|node| read(&cluster, node).as_ref() == Some(&section["settings"]))
    });
}
