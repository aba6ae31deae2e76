//! A node that was away for longer than the others keep their log.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use quorate_tests::{Cluster, Load, Node, SETTLE, http, wait_until};

/// More entries than the log keeps (20,000) with the step in which it is purged (10,000), and what is written during the
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

/// What a snapshot that is being received takes up so far, in bytes.
fn received(data: &Path) -> u64 {
    let files = std::fs::read_dir(data.join("snapshots")).expect("the directory of snapshots");
    files
        .filter_map(Result::ok)
        .filter(|file| file.file_name().to_string_lossy().ends_with(".partial"))
        .filter_map(|file| file.metadata().ok())
        .map(|metadata| metadata.len())
        .sum()
}

/// Where transfers that a log tells of began: at which piece.
fn began_at(log: &str) -> Vec<u64> {
    let number = |line: &str| {
        let (_, rest) = line.split_once("resumed_at=")?;
        rest.split(|character: char| !character.is_ascii_digit())
            .next()?
            .parse()
            .ok()
    };
    log.lines()
        .filter(|line| line.contains("taking in a snapshot"))
        .filter_map(number)
        .collect()
}

#[test]
fn snapshot_that_is_cut_off_goes_on_behind_the_pieces_that_came() {
    let mut cluster = Cluster::listed(3);
    for node in &mut cluster.nodes {
        // Six megabytes take a few seconds.
        node.set_flag("--snapshot-rate", "1MiB");
    }
    cluster.start_all();
    cluster.wait_until_ready();
    let leader = cluster.leader();
    let victim = (leader + 1) % 3;
    cluster.nodes[victim].kill();
    for number in 0..24 {
        cluster.nodes[leader].put(&format!("large/{number}"), &"x".repeat(256 << 10));
    }
    flood(&cluster.nodes[leader], ENTRIES);

    let mark = cluster.nodes[victim].log_mark();
    cluster.nodes[victim].start();
    let data = cluster.nodes[victim].data.clone();
    wait_until(SETTLE, "a part of the snapshot has come", || {
        received(&data) > 2 << 20
    });
    cluster.nodes[victim].kill();
    let log = cluster.nodes[victim].log()[mark..].to_owned();
    assert!(
        !log.contains("a snapshot replaces the log"),
        "nothing was cut off:\n{log}"
    );
    // The offer of a transfer brings piece 0.
    assert_eq!(began_at(&log), [1], "{log}");

    let mark = cluster.nodes[victim].log_mark();
    cluster.nodes[victim].start();
    cluster.nodes[victim].wait_for_log(mark, "a snapshot replaces the log", SETTLE);
    let log = cluster.nodes[victim].log()[mark..].to_owned();
    // Two megabytes are eight pieces, and the last of them may have been cut in two.
    assert!(
        began_at(&log).iter().any(|piece| *piece >= 7),
        "it began anew:\n{log}"
    );
    cluster.wait_until_ready();
    cluster.wait_until_equal();
}
