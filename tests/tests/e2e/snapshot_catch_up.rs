//! A node that was away for longer than the others keep their log.

use std::sync::atomic::{AtomicU64, Ordering};

use quorate_tests::{Cluster, Load, Node, SETTLE, http, wait_until};

/// More entries than the log keeps (20,000) with the step in which it is purged (5,000), and what is written during the
/// second or two in which it becomes durable in the state store, behind which the log is purged.
const ENTRIES: u64 = 60_000;
const WRITERS: u64 = 32;

/// Writes `count` entries from many connections, over a thousand keys.
fn flood(node: &Node, count: u64) {
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| {
                let mut client = http::Client::new(node.client_address());
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    let path = format!("/v1/kv/flood/{}", number % 1_000);
                    let answer = client.send("PUT", &path, &[], number.to_string().as_bytes());
                    let answer = answer.expect("an answer");
                    assert_eq!(answer.status, 200, "{}", answer.text());
                }
            });
        }
    });
}

#[test]
fn follower_that_was_away_for_long_gets_a_snapshot_while_writes_go_on() {
    let mut cluster = Cluster::started(3);
    let leader = cluster.leader();
    let victim = (leader + 1) % 3;
    cluster.nodes[leader].put("before", "the kill");
    cluster.nodes[victim].kill();
    flood(&cluster.nodes[leader], ENTRIES);

    let load = Load::start(&[cluster.nodes[leader].client_address()], 4, 16);
    load.wait_for_successes(100);
    let mark = cluster.nodes[victim].log_mark();
    cluster.nodes[victim].start();
    let node = &cluster.nodes[victim];
    wait_until(SETTLE, "the follower has caught up while writes go on", || {
        let (own, others) = (
            node.look("/cluster/status"),
            cluster.nodes[leader].look("/cluster/status"),
        );
        let behind = own["applied_index"].as_u64().zip(others["commit_index"].as_u64());
        behind.is_some_and(|(applied, commit)| applied > ENTRIES && applied + 100 > commit)
    });
    let log = node.log()[mark..].to_owned();
    assert!(
        log.contains("a snapshot replaces the log"),
        "it caught up without a snapshot:\n{log}"
    );
    load.wait_for_successes(100);
    let record = load.stop();
    for node in &cluster.nodes {
        record.check(node.client_address());
    }
    let everything = cluster.wait_until_equal();
    assert_eq!(
        everything.keys().filter(|key| key.starts_with("flood/")).count(),
        1_000
    );

    // What it installed is durable: it starts from there.
    cluster.nodes[victim].kill();
    cluster.nodes[victim].start();
    cluster.wait_until_ready();
    assert_eq!(cluster.wait_until_equal(), everything);
}
