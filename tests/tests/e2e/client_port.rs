//! What clients and operators see of a cluster over HTTP.

use std::time::Duration;

use quorate_tests::{Cluster, Node, SETTLE, http, wait_until};
use serde_json::Value;

fn followers(cluster: &Cluster) -> (&Node, Vec<&Node>) {
    let leader = cluster.leader();
    let others = cluster.nodes.iter().enumerate();
    let others = others.filter(|(place, _)| *place != leader).map(|(_, node)| node);
    (&cluster.nodes[leader], others.collect())
}

fn put(node: &Node, path: &str, body: &[u8]) -> http::Answer {
    node.request("PUT", path, body).expect("an answer")
}

#[test]
fn every_node_takes_writes_and_shows_them_to_all() {
    let cluster = Cluster::started(3);
    for writer in &cluster.nodes {
        let key = format!("from/{}", writer.name);
        writer.put(&key, "hello");
        for reader in &cluster.nodes {
            let answer = reader.get(&format!("/v1/kv/{key}"));
            assert_eq!(
                (answer.status, answer.text().as_str()),
                (200, "hello"),
                "at node {}",
                reader.name
            );
        }
    }
    let (leader, followers) = followers(&cluster);
    let deleted = followers[0]
        .request("DELETE", "/v1/kv/from/1", b"")
        .expect("an answer");
    assert_eq!(
        (deleted.status, deleted.json()["deleted"].as_u64()),
        (200, Some(1))
    );
    let gone = leader.get("/v1/kv/from/1");
    assert_eq!((gone.status, gone.code().as_str()), (404, "key_not_found"));
}

#[test]
fn follower_redirects_to_the_leader_when_asked_to() {
    let cluster = Cluster::started(3);
    let (leader, followers) = followers(&cluster);
    let answer = put(followers[0], "/v1/kv/greeting?redirect=true", b"hello");
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (307, "not_leader"),
        "{}",
        answer.text()
    );
    let location = answer.header("location").expect("where to go").to_owned();
    let expected = format!("http://{}/v1/kv/greeting?redirect=true", leader.client_address());
    assert_eq!(location, expected);
    assert_eq!(put(leader, "/v1/kv/greeting?redirect=true", b"hello").status, 200);
}

#[test]
fn compare_and_set_changes_only_the_expected_revision() {
    let cluster = Cluster::started(3);
    let (leader, followers) = followers(&cluster);
    let created = put(followers[0], "/v1/kv/lock?revision=0", b"mine");
    assert_eq!(created.status, 200, "{}", created.text());
    let revision = created.json()["revision"].as_u64().expect("a revision");

    let again = put(followers[1], "/v1/kv/lock?revision=0", b"other");
    assert_eq!((again.status, again.code().as_str()), (409, "revision_conflict"));
    assert_eq!(again.json()["current_revision"].as_u64(), Some(revision));
    let mut client = http::Client::new(leader.client_address());
    let header = client.send("PUT", "/v1/kv/lock", &[("if-match", "\"999999\"")], b"other");
    assert_eq!(header.expect("an answer").status, 412);

    let replaced = put(
        leader,
        &format!("/v1/kv/lock?revision={revision}&previous=true"),
        b"next",
    );
    assert_eq!(replaced.status, 200, "{}", replaced.text());
    assert_eq!(replaced.json()["previous"]["value"], "mine");
    let read = followers[0].get("/v1/kv/lock");
    assert_eq!(read.text(), "next");
    let shown = read
        .header("quorate-revision")
        .and_then(|text| text.parse::<u64>().ok());
    assert_eq!(shown, replaced.json()["revision"].as_u64());
}

#[test]
fn consistency_is_one_of_two_words() {
    let cluster = Cluster::started(3);
    let (leader, followers) = followers(&cluster);
    leader.put("fresh", "yes");
    let linearizable = followers[0].get("/v1/kv/fresh?consistency=linearizable");
    assert_eq!((linearizable.status, linearizable.text().as_str()), (200, "yes"));
    wait_until(SETTLE, "the follower's own state has the write", || {
        followers[0].get("/v1/kv/fresh?consistency=serializable").status == 200
    });
    let wrong = leader.get("/v1/kv/fresh?consistency=linearisable");
    assert_eq!((wrong.status, wrong.code().as_str()), (400, "bad_request"));
    assert!(wrong.text().contains("consistency"), "{}", wrong.text());
}

#[test]
fn what_is_too_long_is_refused_with_the_limit() {
    let mut cluster = Cluster::new();
    let place = cluster.add_with_flags("node1", &[]);
    let limits = [
        "--value-bytes",
        "1000",
        "--key-bytes",
        "100",
        "--body-bytes",
        "1024",
    ];
    cluster.nodes[place].flags.extend(limits.map(str::to_owned));
    cluster.start_all();
    cluster.wait_until_ready();
    let node = &cluster.nodes[0];
    assert_eq!(put(node, "/v1/kv/value", &[b'x'; 1000]).status, 200);
    assert_eq!(
        put(node, &format!("/v1/kv/{}", "k".repeat(100)), b"x").status,
        200
    );
    let post = node.request("POST", "/cluster/step-down", &[b' '; 1025]);
    for (answer, code, limit) in [
        (put(node, "/v1/kv/value", &[b'x'; 1001]), "value_too_large", 1000),
        (
            put(node, &format!("/v1/kv/{}", "k".repeat(101)), b"x"),
            "key_too_large",
            100,
        ),
        (post.expect("an answer"), "body_too_large", 1024),
    ] {
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (413, code),
            "{}",
            answer.text()
        );
        assert_eq!(answer.json()["limit"].as_u64(), Some(limit));
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    }
}

#[test]
fn problems_have_a_code_what_happened_and_what_to_do() {
    let mut cluster = Cluster::new();
    cluster.add_with_flags("node1", &[]);
    cluster.start_all();
    cluster.wait_until_ready();
    let node = &cluster.nodes[0];
    let send = |method: &str, path: &str| node.request(method, path, b"").expect("an answer");
    for (answer, status, code) in [
        (send("GET", "/v1/kv/nothing"), 404, "key_not_found"),
        (send("GET", "/nowhere"), 404, "not_found"),
        (send("PATCH", "/v1/kv/key"), 405, "method_not_allowed"),
        (send("PUT", "/v1/kv/key?revison=1"), 400, "bad_request"),
        (send("PUT", "/v1/kv/key?revision=7"), 409, "revision_conflict"),
        (send("DELETE", "/cluster/members/nobody"), 404, "member_not_found"),
    ] {
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (status, code),
            "{}",
            answer.text()
        );
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        let problem = answer.json();
        assert_eq!(problem["type"], format!("urn:quorate:problem:{code}"));
        assert_eq!(problem["status"], status);
        for field in ["title", "detail", "action"] {
            assert!(
                !problem[field].as_str().unwrap_or_default().is_empty(),
                "{field}: {problem}"
            );
        }
    }
}

/// The fields of event-stream-cluster.md and session-cluster-mode.md, on the leader and on a follower.
#[test]
fn health_status_and_nodes_have_the_fields_of_both_requirements() {
    let cluster = Cluster::started(3);
    let (leader, followers) = followers(&cluster);
    leader.put("key", "value");
    let number: u64 = leader.name.parse().unwrap();

    let health = leader.get("/health").json();
    assert_eq!(health["status"], "healthy");
    assert_eq!(
        health["cluster"]["node_id"], number,
        "a number stays a number: {health}"
    );
    assert_eq!(health["cluster"]["role"], "leader");
    assert!(health["cluster"]["term"].as_u64() > Some(0), "{health}");
    let follower_health = followers[0].get("/health").json();
    assert_eq!(follower_health["cluster"]["role"], "follower");
    assert_eq!(follower_health["cluster"]["leader"], number);

    wait_until(SETTLE, "the leader shows both peers caught up", || {
        let status = leader.look("/cluster/status");
        let commit = status["commit_index"].as_u64();
        let peers = status["peers"].as_array().cloned().unwrap_or_default();
        peers.len() == 2
            && peers.iter().all(|peer| {
                peer["state"] == "follower" && peer["id"].is_u64() && peer["match_index"].as_u64() == commit
            })
    });
    let status = leader.get("/cluster/status").json();
    assert_eq!(
        (&status["node_id"], &status["state"]),
        (&number.into(), &"leader".into())
    );
    assert_eq!(
        (&status["leader"], &status["health"]),
        (&number.into(), &"healthy".into())
    );
    assert_eq!((&status["voters"], &status["quorum"]), (&3.into(), &2.into()));
    assert_eq!(status["wal_sync"], true);

    // Load and memory travel between the nodes in reports.
    let nodes = || followers[0].look("/cluster/nodes");
    wait_until(SETTLE, "a follower knows the load of every node", || {
        let answer = nodes();
        let nodes = answer["nodes"].as_array().cloned().unwrap_or_default();
        nodes.len() == 3 && nodes.iter().all(|node| node["cpu_percent"].is_number())
    });
    let answer = nodes();
    assert_eq!(answer["leader_id"], number);
    for node in answer["nodes"].as_array().unwrap() {
        assert_eq!(node["health"], "healthy", "{node}");
        for field in [
            "cpu_percent",
            "memory_percent",
            "load_score",
            "active_sessions",
            "max_sessions",
        ] {
            assert!(node[field].is_number(), "{field}: {node}");
        }
        for field in ["api_address", "raft_address", "role", "last_heartbeat"] {
            assert!(node[field].is_string(), "{field}: {node}");
        }
        assert!(node["node_id"].is_u64() && node["metadata"].is_object(), "{node}");
    }
}

#[test]
fn metrics_have_the_names_of_both_requirements() {
    let cluster = Cluster::started(3);
    let (leader, followers) = followers(&cluster);
    followers[0].put("key", "value");
    let names = [
        "raft_term",
        "raft_commit_index",
        "raft_apply_index",
        "raft_leader",
        "raft_state",
        "raft_peers_connected",
        "raft_replication_lag",
        "raft_elections_total",
        "raft_append_entries_sent",
        "raft_votes_received",
        "quorate_cluster_term",
        "quorate_cluster_commit_index",
        "quorate_cluster_role",
        "quorate_sessions_active",
        "quorate_raft_rpc_duration_seconds_bucket",
        "quorate_fsync_duration_seconds_bucket",
        "quorate_commit_duration_seconds_bucket",
        "quorate_apply_duration_seconds_bucket",
        "quorate_peer_round_trip_seconds_bucket",
        "quorate_wal_sync",
    ];
    for node in &cluster.nodes {
        for name in names {
            // A sample with labels is there once there was something to count.
            wait_until(
                SETTLE,
                &format!("{name} in the metrics of node {}", node.name),
                || value(&node.get("/metrics").text(), name).is_some(),
            );
        }
    }
    wait_until(SETTLE, "the leader counts its peers and what it sent", || {
        let text = leader.get("/metrics").text();
        let at_least = |name, least: f64| value(&text, name).is_some_and(|value| value >= least);
        at_least("raft_peers_connected", 2.0)
            && at_least("raft_append_entries_sent", 1.0)
            && at_least("raft_votes_received", 1.0)
            && at_least("raft_commit_index", 1.0)
            && at_least("quorate_fsync_duration_seconds_count", 1.0)
            && at_least("quorate_commit_duration_seconds_count", 1.0)
            && text.contains(&format!("quorate_cluster_role{{node=\"{}\"}} 1", leader.name))
            && text.contains("raft_state{state=\"leader\"} 1")
    });
}

/// The value of the first sample of a metric, whatever its labels.
fn value(text: &str, name: &str) -> Option<f64> {
    let sample = text.lines().find(|line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with([' ', '{']))
    })?;
    sample.rsplit(' ').next()?.parse().ok()
}

#[test]
fn step_down_hands_the_leadership_to_the_named_node() {
    let cluster = Cluster::started(3);
    let (leader, followers) = followers(&cluster);
    let body = format!("{{\"target_node\": {}}}", followers[1].name);
    let answer = leader
        .request("POST", "/cluster/step-down", body.as_bytes())
        .expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let named = &followers[1].name;
    wait_until(Duration::from_secs(5), &format!("node {named} leads"), || {
        let health: Value = followers[1].look("/health");
        health["cluster"]["role"] == "leader"
    });
    followers[0].put("after", "the hand-over");
}
