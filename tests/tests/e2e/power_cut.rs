//! All nodes at once without power, and files that are not what they were.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use quorate_tests::{Cluster, Load, SETTLE, tail, wait_until};

#[test]
fn every_acknowledged_write_survives_power_cuts_of_all_nodes_under_load() {
    let mut cluster = Cluster::started(3);
    let load = Load::start(&cluster.addresses(), 6, 24);
    for _ in 0..5 {
        load.wait_for_successes(300);
        cluster.kill_all();
        cluster.start_all();
        cluster.wait_until_ready();
    }
    load.wait_for_successes(100);
    let record = load.stop();
    record.check(cluster.nodes[0].client_address());
    cluster.wait_until_equal();
}

/// A cluster with some data, of which one follower was killed.
fn cluster_with_a_killed_follower() -> (Cluster, usize) {
    let mut cluster = Cluster::started(3);
    let load = Load::start(&cluster.addresses(), 4, 8);
    load.wait_for_successes(500);
    let victim = (cluster.leader() + 1) % 3;
    cluster.nodes[victim].kill();
    load.wait_for_successes(100);
    load.stop()
        .check(cluster.nodes[(victim + 1) % 3].client_address());
    (cluster, victim)
}

/// The oldest segment of a node's log, and where the last byte in it is that is not zero.
fn segment(cluster: &Cluster, place: usize) -> (PathBuf, u64) {
    let log = cluster.nodes[place].data.join("log");
    let files = std::fs::read_dir(&log).expect("the log's directory");
    let mut paths: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    paths.sort();
    let segment = paths
        .into_iter()
        .find(|path| path.extension().is_none_or(|extension| extension != "tmp"))
        .expect("a segment");
    let bytes = std::fs::read(&segment).expect("the segment");
    let last = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .expect("records in the segment");
    (segment, last as u64)
}

/// The node refuses, names the file and the way out; that way leads back into the cluster with everything.
fn refuses_and_comes_back(mut cluster: Cluster, victim: usize, damaged: &Path) {
    let mark = cluster.nodes[victim].log_mark();
    cluster.nodes[victim].start();
    let status = cluster.nodes[victim].wait_for_end();
    assert!(!status.success());
    let data = cluster.nodes[victim].data.clone();
    let log = cluster.nodes[victim].log()[mark..].to_owned();
    for words in [
        &damaged.display().to_string(),
        "is damaged",
        &format!("move {} aside", data.display()),
    ] {
        assert!(
            log.contains(words),
            "`{words}` is missing in:\n{}",
            tail(&log, 20)
        );
    }

    std::fs::rename(&data, data.with_extension("aside")).expect("the directory moves aside");
    cluster.nodes[victim].start();
    cluster.wait_for_voters(&["1", "2", "3"]);
    cluster.wait_until_ready();
    let everything = cluster.wait_until_equal();
    assert!(everything.len() > 100, "{} keys", everything.len());
    let others = (0..3).filter(|place| *place != victim);
    let noticed = others
        .map(|place| cluster.nodes[place].log())
        .any(|log| log.contains("a member came back without its data"));
    assert!(noticed, "nobody said that a member came back without its data");
}

fn flip_a_byte(path: &Path, offset: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 0x40], offset).unwrap();
}

#[test]
fn flipped_byte_in_an_acknowledged_record_is_repaired_by_the_others_and_then_the_node_votes() {
    let (mut cluster, victim) = cluster_with_a_killed_follower();
    let (path, last) = segment(&cluster, victim);
    flip_a_byte(&path, last / 2);
    let mark = cluster.nodes[victim].log_mark();
    cluster.nodes[victim].start();
    for words in [
        "the log is being repaired",
        "is damaged",
        "the log is whole again",
    ] {
        cluster.nodes[victim].wait_for_log(mark, words, SETTLE);
    }
    cluster.wait_until_ready();
    let everything = cluster.wait_until_equal();
    assert!(everything.len() > 100, "{} keys", everything.len());
    let status = cluster.nodes[victim].look("/cluster/status");
    assert_eq!(status["repairing"], false, "{status}");

    // Of the two that are left, neither is elected without the vote of the other.
    let leader = cluster.leader();
    let third = (0..3).find(|place| *place != victim && *place != leader);
    let gone = if leader == victim { third.unwrap() } else { leader };
    cluster.nodes[gone].kill();
    wait_until(SETTLE, "the two to write", || {
        let answer = cluster.nodes[victim].request("PUT", "/v1/kv/after", b"the repair");
        answer.is_ok_and(|answer| answer.status == 200)
    });
    cluster.nodes[gone].start();
    cluster.wait_until_ready();
    assert_eq!(cluster.wait_until_equal().len(), everything.len() + 1);
}

#[test]
fn flipped_byte_in_the_log_of_the_only_voter_is_refused_with_the_way_out() {
    let mut cluster = Cluster::started(1);
    for number in 0..50 {
        cluster.nodes[0].put(&format!("key{number}"), "value");
    }
    cluster.nodes[0].kill();
    let (path, last) = segment(&cluster, 0);
    flip_a_byte(&path, last / 2);
    let before = std::fs::read(&path).unwrap();
    let mark = cluster.nodes[0].log_mark();
    cluster.nodes[0].start();
    assert!(!cluster.nodes[0].wait_for_end().success());
    let log = cluster.nodes[0].log()[mark..].to_owned();
    for words in [
        &path.display().to_string(),
        "is damaged",
        "nobody can repair it",
        "back from a copy",
    ] {
        assert!(
            log.contains(words),
            "`{words}` is missing in:\n{}",
            tail(&log, 20)
        );
    }
    assert!(std::fs::read(&path).unwrap() == before, "the file was changed");
}

#[test]
fn truncated_log_is_refused_and_the_node_rejoins_from_scratch() {
    let (cluster, victim) = cluster_with_a_killed_follower();
    let (path, last) = segment(&cluster, victim);
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(last / 2).unwrap();
    drop(file);
    refuses_and_comes_back(cluster, victim, &path);
}

#[test]
fn restart_after_a_clean_stop_of_all_has_everything() {
    let mut cluster = Cluster::started(3);
    let load = Load::start(&cluster.addresses(), 4, 8);
    load.wait_for_successes(300);
    let record = load.stop();
    cluster.stop_all();
    cluster.start_all();
    cluster.wait_until_ready();
    record.check(cluster.nodes[0].client_address());
    cluster.nodes[0].wait_for_log(0, "this node belongs to a cluster", Duration::from_secs(1));
    let founded = cluster.nodes[0]
        .log()
        .matches("this node belongs to a cluster")
        .count();
    assert_eq!(
        founded, 1,
        "within {SETTLE:?} the first node got a part in a cluster more than once"
    );
}
