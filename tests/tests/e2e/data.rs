//! Ranges, transactions, leases and requests that are carried out once, on clusters whose leaders are killed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quorate_tests::http::{Answer, Client};
use quorate_tests::{Cluster, Node, Random, SETTLE, wait_for, wait_until};
use serde_json::{Value, json};

fn post(node: &Node, path: &str, body: &Value) -> Answer {
    node.request("POST", path, body.to_string().as_bytes())
        .expect("an answer")
}

fn problem(answer: &Answer) -> (u16, String) {
    (answer.status, answer.code())
}

#[test]
fn every_node_shows_a_client_its_own_write_without_the_leader() {
    let cluster = Cluster::started(3);
    for (place, writer) in cluster.nodes.iter().enumerate() {
        let put = writer.request("PUT", "/v1/kv/mine", place.to_string().as_bytes());
        let revision = put.expect("an answer").json()["revision"].as_u64().unwrap();
        for reader in &cluster.nodes {
            let path = format!("/v1/kv/mine?consistency=serializable&min_revision={revision}");
            let read = reader.get(&path);
            assert_eq!(
                (read.status, read.text()),
                (200, place.to_string()),
                "{}",
                reader.name
            );
        }
    }
    let ahead = cluster.nodes[0].get("/v1/kv/mine?min_revision=1000");
    assert_eq!(problem(&ahead), (409, "future_revision".to_owned()));
}

#[test]
fn a_lease_lives_through_the_death_of_the_leader_and_dies_when_nobody_keeps_it() {
    const TTL_MS: u64 = 3_000;
    let mut cluster = Cluster::started(3);
    let leader = cluster.leader();
    let granted = post(&cluster.nodes[leader], "/v1/leases", &json!({"ttl_ms": TTL_MS}));
    let id = granted.json()["id"].as_u64().expect("a lease");
    let put = cluster.nodes[leader].request("PUT", &format!("/v1/kv/member?lease={id}"), b"here");
    assert_eq!(put.expect("an answer").status, 200);
    let keep_alive = format!("/v1/leases/{id}/keep-alive");
    for node in &cluster.nodes {
        let kept = post(node, &keep_alive, &Value::Null);
        assert_eq!(
            kept.json(),
            json!({"id": id, "ttl_ms": TTL_MS}),
            "at {}",
            node.name
        );
    }
    cluster.nodes[leader].kill();
    // The next leader renews it for its whole time; kept alive it lasts for several times that.
    let until = Instant::now() + 3 * Duration::from_millis(TTL_MS);
    let node = cluster.running().next().expect("two nodes are left");
    wait_until(SETTLE, "the lease is old", || {
        let kept = post(node, &keep_alive, &Value::Null);
        assert_eq!(kept.status, 200, "{}", kept.text());
        Instant::now() >= until
    });
    let shown = node.get(&format!("/v1/leases/{id}")).json();
    let remaining = shown["remaining_ms"].as_u64().expect("how long it lasts");
    assert!(remaining > TTL_MS / 2 && remaining <= TTL_MS, "{shown}");
    assert_eq!(shown["keys"], json!([{"key": "member"}]));
    wait_until(SETTLE, "the key goes with the lease", || {
        problem(&node.get("/v1/kv/member")) == (404, "key_not_found".to_owned())
    });
    let late = post(node, &keep_alive, &Value::Null);
    assert_eq!(problem(&late), (404, "lease_not_found".to_owned()));
    // A leader that is asked about all leases knows of none.
    assert_eq!(
        node.get("/v1/leases").json(),
        json!({"leases": [], "more": false})
    );
}

/// A client that adds one to a counter and writes an entry of a ledger in one transaction, each with a key of its own,
/// and repeats it until it is answered.
fn add_until_stopped(
    addresses: &[SocketAddr],
    number: usize,
    stop: &AtomicBool,
    acknowledged: &AtomicU64,
) -> Vec<u64> {
    let mut clients: Vec<Client> = addresses.iter().map(|address| Client::new(*address)).collect();
    let mut random = Random::new(number as u64);
    let mut revisions = Vec::new();
    for attempt in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let key = format!("client-{number}-{attempt}");
        let answer = wait_for(SETTLE, "a transaction is answered", || {
            let place = random.below(clients.len());
            let read = clients[place].send("GET", "/v1/kv/counter", &[], b"").ok()?;
            let (count, revision) = match read.status {
                200 => (
                    read.text().parse::<u64>().ok()?,
                    read.header("quorate-revision")?.parse::<u64>().ok()?,
                ),
                404 => (0, 0),
                _ => return None,
            };
            Some((place, count, revision))
        });
        let (_, count, revision) = answer;
        let body = json!({
            "compare": [{"key": "counter", "mod_revision": revision}],
            "then": [
                {"put": {"key": "counter", "value": (count + 1).to_string()}},
                {"put": {"key": format!("ledger/{key}"), "value": "1"}}
            ]
        });
        // The same request, word for word, until a node answers it.
        let done = wait_for(SETTLE, "a transaction is answered", || {
            let place = random.below(clients.len());
            let answer = clients[place].send(
                "POST",
                "/v1/txn",
                &[("idempotency-key", &key)],
                body.to_string().as_bytes(),
            );
            match answer {
                Ok(answer) if answer.status == 200 => Some(answer.json()),
                Ok(answer) if answer.status >= 500 => None,
                Ok(answer) => panic!("{} {}", answer.status, answer.text()),
                Err(_) => None,
            }
        });
        if done["succeeded"] == true {
            acknowledged.fetch_add(1, Ordering::Relaxed);
            revisions.push(done["revision"].as_u64().expect("a revision"));
        }
    }
    revisions
}

#[test]
fn transactions_that_are_repeated_across_kills_of_the_leader_are_carried_out_once() {
    const CLIENTS: usize = 4;
    const KILLS: usize = 5;
    let mut cluster = Cluster::started(3);
    let stop = Arc::new(AtomicBool::new(false));
    let acknowledged = Arc::new(AtomicU64::new(0));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let (addresses, stop) = (cluster.addresses(), Arc::clone(&stop));
            let acknowledged = Arc::clone(&acknowledged);
            std::thread::spawn(move || add_until_stopped(&addresses, number, &stop, &acknowledged))
        })
        .collect();
    let wait_for_more = |count: u64| {
        let target = acknowledged.load(Ordering::Relaxed) + count;
        wait_until(SETTLE, "more transactions succeed", || {
            acknowledged.load(Ordering::Relaxed) >= target
        });
    };
    for _ in 0..KILLS {
        wait_for_more(20);
        let leader = cluster.leader();
        cluster.nodes[leader].kill();
        wait_for_more(20);
        cluster.nodes[leader].start();
        let node = &cluster.nodes[leader];
        wait_until(SETTLE, "the killed node is back", || node.is_ready());
    }
    stop.store(true, Ordering::Relaxed);
    let mut revisions: Vec<u64> = clients
        .into_iter()
        .flat_map(|client| client.join().expect("no client panics"))
        .collect();
    let count = revisions.len();
    revisions.sort_unstable();
    revisions.dedup();
    assert_eq!(
        revisions.len(),
        count,
        "each transaction has a revision of its own"
    );
    for node in &cluster.nodes {
        let counter = node.get("/v1/kv/counter").text();
        assert_eq!(counter, count.to_string(), "at node {}", node.name);
        let ledger = node.get("/v1/kv?prefix=ledger/&count_only=true").json();
        assert_eq!(ledger["count"].as_u64(), Some(count as u64), "{ledger}");
    }
    cluster.wait_until_equal();
}

#[test]
fn an_answer_is_kept_across_a_new_leader_and_a_restart_of_all_nodes() {
    let mut cluster = Cluster::started(3);
    let put = |node: &Node, value: &[u8]| {
        let mut client = Client::new(node.client_address());
        let header = [("idempotency-key", "one")];
        client.send("PUT", "/v1/kv/k?previous=true", &header, value).ok()
    };
    let first = put(&cluster.nodes[0], b"1").expect("an answer").json();
    cluster.nodes[1].put("k", "2");
    let leader = cluster.leader();
    cluster.nodes[leader].kill();
    let node = cluster.running().next().expect("two nodes are left");
    let again = wait_for(SETTLE, "the answer of the first attempt", || {
        put(node, b"1").filter(|answer| answer.status == 200)
    });
    assert_eq!(again.json(), first);
    cluster.kill_all();
    cluster.start_all();
    cluster.wait_until_ready();
    for node in &cluster.nodes {
        assert_eq!(put(node, b"1").expect("an answer").json(), first, "{}", node.name);
        let other = put(node, b"3").expect("an answer");
        assert_eq!(problem(&other), (422, "idempotency_key_reused".to_owned()));
        assert_eq!(node.get("/v1/kv/k").text(), "2");
    }
}

#[test]
fn a_state_at_its_quota_takes_deletes_and_compaction_and_then_writes_again() {
    let mut cluster = Cluster::new();
    let place = cluster.add_with_flags("node1", &[]);
    cluster.nodes[place].set_flag("--state-bytes", "1MiB");
    cluster.start_all();
    cluster.wait_until_ready();
    let node = &cluster.nodes[place];
    let value = vec![b'x'; 64 << 10];
    let put = |key: &str| {
        node.request("PUT", &format!("/v1/kv/{key}"), &value)
            .expect("an answer")
    };
    let full = wait_for(SETTLE, "the quota is reached", || {
        let answer = put("big");
        (answer.status != 200).then_some(answer)
    });
    assert_eq!(
        problem(&full),
        (507, "quota_reached".to_owned()),
        "{}",
        full.text()
    );
    assert_eq!(full.json()["limit"], 1 << 20);
    let txn = json!({"else": [{"put": {"key": "a", "value": "b"}}]});
    assert_eq!(post(node, "/v1/txn", &txn).status, 507);
    assert_eq!(post(node, "/v1/leases", &json!({"ttl_ms": 1000})).status, 507);
    let deleted = node.request("DELETE", "/v1/kv/big", b"").expect("an answer");
    assert_eq!(deleted.json()["deleted"], 1);
    let revision = deleted.json()["revision"].clone();
    let compacted = post(node, "/v1/compact", &json!({"revision": revision}));
    assert_eq!(compacted.status, 200, "{}", compacted.text());
    wait_until(SETTLE, "there is room again", || put("big").status == 200);
}

#[test]
fn old_revisions_are_forgotten_by_number_and_by_age_as_configured() {
    for (flag, value) in [("--history-revisions", "10"), ("--history-age", "1s")] {
        let mut cluster = Cluster::new();
        let place = cluster.add_with_flags("node1", &[]);
        cluster.nodes[place].set_flag(flag, value);
        cluster.start_all();
        cluster.wait_until_ready();
        let node = &cluster.nodes[place];
        for value in 0..20 {
            node.put("k", &value.to_string());
        }
        let gone = wait_for(SETTLE, "the first revision is forgotten", || {
            let answer = node.get("/v1/kv/k?revision=1");
            (answer.status != 200).then_some(answer)
        });
        assert_eq!(problem(&gone), (410, "compacted".to_owned()), "{flag}");
        let oldest = gone.json()["oldest_revision"].as_u64().expect("what is kept");
        let kept = node.get(&format!("/v1/kv/k?revision={}", oldest.max(10)));
        assert_eq!(kept.status, 200, "{flag}: {}", kept.text());
    }
}
