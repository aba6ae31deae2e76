//! The majority is lost for good: one node goes on alone, and nodes that come back from before are kept apart.

use std::process::{Command, Output, Stdio};

use quorate_tests::{Cluster, Node, SETTLE, listing, quorate, wait_until};
use serde_json::Value;

/// Runs `quorate force-start` on a node's data directory.
fn force_start(node: &Node, flags: &[&str]) -> Output {
    Command::new(quorate())
        .arg("force-start")
        .arg("--data-dir")
        .arg(&node.data)
        .args(flags)
        .stdin(Stdio::null())
        .output()
        .expect("quorate runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn wait_until_applied(node: &Node, index: &Value) {
    let what = format!("node {} has applied everything up to {index}", node.name);
    wait_until(SETTLE, &what, || {
        node.look("/cluster/status")["applied_index"].as_u64() >= index.as_u64()
    });
}

#[test]
fn last_survivor_goes_on_alone_and_nodes_from_before_say_what_only_they_have() {
    let mut cluster = Cluster::started(3);
    let leader = cluster.leader();
    // The survivor is a follower, and so is the one that comes back.
    let (survivor, late) = ((leader + 1) % 3, (leader + 2) % 3);
    for number in 0..20 {
        cluster.nodes[leader].put(&format!("kept/{number}"), &number.to_string());
    }
    let committed = cluster.nodes[leader].look("/cluster/status")["commit_index"].clone();
    wait_until_applied(&cluster.nodes[survivor], &committed);

    let running = force_start(&cluster.nodes[survivor], &["--yes"]);
    assert!(!running.status.success());
    assert!(
        text(&running.stderr).contains("in use"),
        "{}",
        text(&running.stderr)
    );

    // What the survivor misses: three writes to two keys.
    cluster.nodes[survivor].kill();
    for (key, value) in [("late/a", "1"), ("late/b", "1"), ("late/a", "2")] {
        cluster.nodes[leader].put(key, value);
    }
    let committed = cluster.nodes[leader].look("/cluster/status")["commit_index"].clone();
    wait_until_applied(&cluster.nodes[late], &committed);
    cluster.kill_all();

    let unconfirmed = force_start(&cluster.nodes[survivor], &[]);
    assert_eq!(
        unconfirmed.status.code(),
        Some(2),
        "{}",
        text(&unconfirmed.stderr)
    );
    let shown = force_start(&cluster.nodes[survivor], &["--dry-run", "-w", "json"]);
    let shown: Value = serde_json::from_slice(&shown.stdout).expect("JSON");
    assert_eq!(shown["node"], cluster.nodes[survivor].name.as_str());
    assert_eq!(shown["forced"], false);
    assert_eq!(shown["left_out"].as_array().map(Vec::len), Some(2), "{shown}");
    let done = force_start(&cluster.nodes[survivor], &["--yes"]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    assert!(text(&done.stdout).contains("Done"), "{}", text(&done.stdout));

    cluster.nodes[survivor].start();
    cluster.wait_until_ready();
    let alone = cluster.nodes[survivor].name.clone();
    cluster.wait_for_voters(&[&alone]);
    let kept = listing(cluster.nodes[survivor].client_address(), "", "linearizable").expect("a listing");
    assert_eq!(kept.len(), 20, "all that it had, and nothing else: {kept:?}");
    assert_eq!(kept["kept/7"].0, "7");
    cluster.nodes[survivor].put("after", "the loss");

    // A node from before comes back with its data.
    cluster.nodes[late].start();
    let node = &cluster.nodes[late];
    node.wait_for_log(0, "this node was set aside and serves nothing", SETTLE);
    let log = node.log();
    for words in [
        "Only this node has",
        "which write 2 keys",
        "move its data directory aside",
    ] {
        assert!(log.contains(words), "`{words}` is missing in\n{log}");
    }
    let status = node.look("/cluster/status");
    assert_eq!(status["only_here"]["keys"], 2, "{status}");
    assert_eq!(status["only_here"]["last_index"], status["last_index"]);
    let health = node.get("/health").json();
    assert_eq!(health["status"], "degraded");
    assert!(
        health["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("set aside")),
        "{health}"
    );
    for path in [
        "/readyz",
        "/v1/kv/kept/7",
        "/v1/kv/kept/7?consistency=serializable",
    ] {
        assert_eq!(node.get(path).status, 503, "{path}");
    }
    assert_eq!(
        node.request("PUT", "/v1/kv/x", b"1").expect("an answer").status,
        503
    );

    // Without its data it is welcome.
    cluster.nodes[late].stop();
    cluster.nodes[late].wipe();
    cluster.nodes[late].start();
    let returned = cluster.nodes[late].name.clone();
    let mut names = [alone.as_str(), returned.as_str()];
    names.sort_unstable();
    cluster.wait_for_voters(&names);
    cluster.wait_until_ready();
    let all = cluster.wait_until_equal();
    assert_eq!(all.len(), 21);
    assert_eq!(all["after"], "the loss");

    // The new lineage outlives restarts.
    cluster.kill_all();
    cluster.nodes[survivor].start();
    cluster.nodes[late].start();
    cluster.wait_until_ready();
    cluster.wait_for_voters(&names);
    assert_eq!(cluster.wait_until_equal().len(), 21);
}

#[test]
fn directory_that_belongs_to_no_cluster_is_not_forced() {
    let mut cluster = Cluster::new();
    let place = cluster.add("1");
    let missing = force_start(&cluster.nodes[place], &["--yes"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(
        text(&missing.stderr).contains("no data directory"),
        "{}",
        text(&missing.stderr)
    );
    assert!(!cluster.nodes[place].data.exists(), "nothing is created");
}

#[test]
fn node_configured_as_a_learner_follows_and_never_votes() {
    let mut cluster = Cluster::new();
    let first = cluster.add_with_flags("main", &[]);
    let peers = [cluster.nodes[first].cluster_address()];
    let learner = cluster.add_with_flags("dr", &peers);
    cluster.nodes[learner].flags.push("--learner".to_owned());
    cluster.nodes[first].start();
    cluster.wait_until_ready();
    cluster.nodes[learner].start();
    cluster.wait_until_ready();
    // One that joins later is promoted, so the learner was passed over.
    let second = cluster.add_with_flags("second", &peers);
    cluster.nodes[second].start();
    wait_until(SETTLE, "the other node votes", || {
        cluster.nodes[first].look("/cluster/status")["voters"] == 2
    });
    cluster.nodes[first].put("at", "the site");
    assert_eq!(cluster.wait_until_equal()["at"], "the site");
    let status = cluster.nodes[learner].look("/cluster/status");
    assert_eq!(
        (&status["role"], &status["voters"]),
        (&"learner".into(), &2.into()),
        "{status}"
    );

    // The site is lost, and the disaster-recovery node takes over by force.
    cluster.kill_all();
    let done = force_start(&cluster.nodes[learner], &["--yes"]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    cluster.nodes[learner].start();
    cluster.wait_until_ready();
    assert_eq!(cluster.nodes[learner].get("/v1/kv/at").text(), "the site");
}
