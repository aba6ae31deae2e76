//! A leader whose followers fall silent.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quorate_tests::{Cluster, SETTLE, http, wait_until};

/// The longest election time-out of the cluster's configuration.
const ELECTION_TIMEOUT_MAX: Duration = Duration::from_millis(300);
/// What a busy machine may add to a moment that a test measures.
const SLACK: Duration = Duration::from_millis(700);
/// How long a node may keep a client that wants a leader: two seconds by default, and what a busy machine adds.
const REFUSAL_MAX: Duration = Duration::from_secs(4);

#[test]
fn isolated_leader_acknowledges_nothing_steps_down_and_says_so() {
    let cluster = Cluster::started(3);
    let leader = cluster.leader();
    let node = &cluster.nodes[leader];
    let followers: Vec<_> = (0..3).filter(|place| *place != leader).collect();
    node.put("before", "frozen");
    let mark = node.log_mark();

    let (stop, successes) = (AtomicBool::new(false), AtomicU64::new(0));
    let (mut last_success, mut refusals) = (None, 0);
    let frozen_at = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut client = http::Client::new(node.client_address());
            let (mut last_success, mut refused) = (None, 0);
            while !stop.load(Ordering::Relaxed) {
                let sent = Instant::now();
                let answer = client.send("PUT", "/v1/kv/during", &[], b"x").expect("an answer");
                match answer.status {
                    200 => {
                        last_success = Some(Instant::now());
                        successes.fetch_add(1, Ordering::Relaxed);
                    }
                    503 => {
                        check_refusal(&answer, sent.elapsed());
                        refused += 1;
                    }
                    // Appended before the leader stepped down: it cannot know.
                    504 => assert_eq!(answer.code(), "unknown_outcome"),
                    other => panic!("{other}: {}", answer.text()),
                }
            }
            (last_success, refused)
        });
        wait_until(SETTLE, "some writes succeed", || {
            successes.load(Ordering::Relaxed) >= 10
        });
        for place in &followers {
            cluster.nodes[*place].freeze();
        }
        let frozen_at = Instant::now();
        node.wait_for_log(
            mark,
            "this node leads no longer",
            ELECTION_TIMEOUT_MAX * 2 + SLACK,
        );
        wait_until(SETTLE, "the leader says that it is not ready", || {
            !node.is_ready()
        });
        let health = node.get("/health");
        assert_eq!(health.status, 200);
        assert_eq!(health.json()["status"], "degraded", "{}", health.text());
        assert!(!health.json()["reason"].as_str().unwrap_or_default().is_empty());
        wait_until(SETTLE, "the old leader is read-only", || {
            node.look("/cluster/status")["mode"] == "read-only"
        });
        assert_eq!(node.get("/health").json()["mode"], "read-only");
        assert_ne!(health.json()["cluster"]["role"], "leader", "{}", health.text());
        let ready = node.get("/readyz");
        assert_eq!(
            (ready.status, ready.json()["ready"].as_bool()),
            (503, Some(false))
        );
        // Reads that need no leader go on; others are refused as writes are.
        let stale = node.get("/v1/kv/before?consistency=serializable");
        assert_eq!((stale.status, stale.text().as_str()), (200, "frozen"));
        let asked = Instant::now();
        check_refusal(&node.get("/v1/kv/before"), asked.elapsed());
        stop.store(true, Ordering::Relaxed);
        (last_success, refusals) = writer.join().expect("the writer");
        frozen_at
    });
    assert!(
        last_success.is_some(),
        "nothing was written before the followers froze"
    );
    if let Some(late) = last_success.and_then(|last| last.checked_duration_since(frozen_at)) {
        assert!(
            late <= ELECTION_TIMEOUT_MAX + SLACK,
            "a write was acknowledged {late:?} after both followers froze"
        );
    }
    if refusals == 0 {
        let asked = Instant::now();
        let answer = node.request("PUT", "/v1/kv/during", b"x").expect("an answer");
        check_refusal(&answer, asked.elapsed());
    }

    for place in &followers {
        cluster.nodes[*place].thaw();
    }
    cluster.wait_until_ready();
    wait_until(SETTLE, "the old leader takes writes", || {
        node.look("/cluster/status")["mode"] == "read-write"
    });
    for node in &cluster.nodes {
        // A write that is handed to a connection from before the freeze may go without an answer.
        let path = format!("/v1/kv/after/{}", node.name);
        wait_until(SETTLE, "every node takes writes", || {
            node.request("PUT", &path, b"resumed")
                .is_ok_and(|answer| answer.status == 200)
        });
    }
    let everything = cluster.wait_until_equal();
    assert_eq!(everything.get("before").map(String::as_str), Some("frozen"));
    assert_eq!(
        everything.keys().filter(|key| key.starts_with("after/")).count(),
        3
    );
}

#[track_caller]
fn check_refusal(answer: &http::Answer, took: Duration) {
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (503, "quorum_lost"),
        "{}",
        answer.text()
    );
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    assert!(answer.header("retry-after").is_some(), "{:?}", answer.headers);
    assert!(took <= REFUSAL_MAX, "the refusal took {took:?}");
}
