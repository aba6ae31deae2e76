//! How nodes get to belong together, and how they are kept apart.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::time::Duration;

use quorate_tests::{Cluster, Load, Node, SETTLE, new_secret, quorate, tail, wait_until};

const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

/// What a node logs when it gets its part in a cluster; the lineage follows.
const PART: &str = "this node belongs to a cluster";

/// The lineages that a node ever belonged to, one a founding or joining.
fn lineages(node: &Node) -> Vec<String> {
    let log = node.log();
    let lines = log.lines().filter(|line| line.contains(PART));
    let after = lines.filter_map(|line| line.split("lineage=").nth(1));
    after
        .map(|rest| rest.split(' ').next().unwrap_or_default().to_owned())
        .collect()
}

/// Starts a node that is expected to refuse, and returns what it said.
#[track_caller]
fn refusal(node: &mut Node) -> String {
    let mark = node.log_mark();
    node.start();
    let status = node.wait_for_end();
    let log = node.log()[mark..].to_owned();
    assert!(!status.success(), "node {} did not refuse:\n{log}", node.name);
    log
}

#[track_caller]
fn assert_says(log: &str, words: &[&str]) {
    for word in words {
        assert!(log.contains(word), "`{word}` is missing in:\n{}", tail(log, 20));
    }
}

#[test]
fn listed_nodes_form_one_cluster_in_whatever_order_they_start() {
    for order in ORDERS {
        let mut cluster = Cluster::listed(3);
        for (started, place) in order.into_iter().enumerate() {
            cluster.nodes[place].start();
            if started < 2 {
                cluster.nodes[place].wait_for_log(0, "waiting for every listed node", SETTLE);
            }
        }
        cluster.wait_until_ready();
        cluster.wait_for_voters(&["1", "2", "3"]);
        let first = lineages(&cluster.nodes[0]);
        assert_eq!(first.len(), 1, "order {order:?}");
        for node in &cluster.nodes {
            assert_eq!(lineages(node), first, "order {order:?}, node {}", node.name);
        }
    }
}

#[test]
fn restart_in_whatever_order_keeps_data_and_lineage() {
    let mut cluster = Cluster::started(3);
    let first = lineages(&cluster.nodes[0]);
    for (round, order) in ORDERS.into_iter().enumerate() {
        cluster.nodes[order[0]].put(&format!("round/{round}"), "kept");
        if round % 2 == 0 {
            cluster.stop_all();
        } else {
            cluster.kill_all();
        }
        for place in order {
            cluster.nodes[place].start();
        }
        cluster.wait_until_ready();
        assert_eq!(cluster.wait_until_equal().len(), round + 1, "order {order:?}");
    }
    for node in &cluster.nodes {
        assert_eq!(lineages(node), first, "node {} got a part once", node.name);
    }
}

#[test]
fn two_listed_nodes_work_and_are_warned_about() {
    let cluster = Cluster::started(2);
    cluster.nodes[0].put("key", "value");
    assert_says(&cluster.nodes[0].log(), &["an even number"]);
}

/// Steps 3 to 6 of session-cluster-mode.md.
#[test]
fn first_node_founds_and_others_join_with_peers() {
    let mut cluster = Cluster::new();
    let node1 = cluster.add_with_flags("node1", &[]);
    let first = cluster.nodes[node1].cluster_address();
    let node2 = cluster.add_with_flags("node2", &[first]);
    let second = cluster.nodes[node2].cluster_address();
    let node3 = cluster.add_with_flags("node3", &[first, second]);
    for node in &mut cluster.nodes {
        node.flags.insert(0, "--cluster".to_owned());
    }
    three_nodes_one_after_the_other(&mut cluster, [node1, node2, node3]);
}

#[test]
fn first_node_founds_and_others_join_by_environment() {
    let mut cluster = Cluster::new();
    let places = ["node1", "node2", "node3"].map(|name| cluster.add(name));
    let addresses = places.map(|place| cluster.nodes[place].cluster_address().to_string());
    for place in places {
        let node = &mut cluster.nodes[place];
        let mut variables = vec![
            ("QUORATE_NODE_ID", node.name.clone()),
            ("QUORATE_CLIENT_PORT", node.client_address().port().to_string()),
            ("QUORATE_RAFT_PORT", node.cluster_address().port().to_string()),
            ("QUORATE_DATA_DIR", node.data.display().to_string()),
        ];
        if place > 0 {
            variables.push(("QUORATE_PEERS", addresses[..place].join(",")));
        }
        let variables = variables
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value));
        node.environment.extend(variables);
    }
    three_nodes_one_after_the_other(&mut cluster, places);
}

fn three_nodes_one_after_the_other(cluster: &mut Cluster, [node1, node2, node3]: [usize; 3]) {
    cluster.nodes[node1].start();
    cluster.wait_until_ready();
    let health = cluster.nodes[node1].get("/health").json();
    assert_eq!(health["status"], "healthy");
    assert_eq!(health["cluster"]["node_id"], "node1");
    assert_eq!(health["cluster"]["role"], "leader");
    assert_eq!(health["cluster"]["term"], 1);
    cluster.nodes[node1].put("before", "the others");

    cluster.nodes[node2].start();
    cluster.wait_for_voters(&["node1", "node2"]);
    cluster.nodes[node3].start();
    cluster.wait_for_voters(&["node1", "node2", "node3"]);
    cluster.wait_until_ready();
    let log = cluster.nodes[node1].log();
    assert_says(
        &log,
        &["a node joins as a learner", "promoting a learner that caught up"],
    );
    let health = cluster.nodes[node2].get("/health").json();
    assert_eq!(health["cluster"]["role"], "follower");
    assert_eq!(health["cluster"]["leader"], "node1");

    let output = std::process::Command::new(quorate())
        .arg("status")
        .args(["--endpoint", &cluster.nodes[node3].client_address().to_string()])
        .output()
        .expect("quorate runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let shown = [
        "Leader: node1".to_owned(),
        "Term: 1".to_owned(),
        "Nodes: 3".to_owned(),
        format!("node1: leader ({})", cluster.nodes[node1].cluster_address()),
        format!("node2: follower ({})", cluster.nodes[node2].cluster_address()),
        format!("node3: follower ({})", cluster.nodes[node3].cluster_address()),
        "Cluster health: HEALTHY".to_owned(),
    ];
    assert_says(&text, &shown.each_ref().map(String::as_str));

    // It is a cluster of three: it goes on without the first node, and takes it back.
    cluster.nodes[node1].kill();
    cluster.leader();
    cluster.nodes[node2].put("after", "the first node");
    cluster.nodes[node1].start();
    cluster.wait_until_ready();
    assert_eq!(cluster.wait_until_equal().len(), 2);
    for node in &cluster.nodes {
        assert_eq!(lineages(node).len(), 1, "node {} got a part once", node.name);
    }
}

#[test]
fn nodes_join_under_load() {
    let mut cluster = Cluster::new();
    let first = cluster.add_with_flags("node1", &[]);
    cluster.start_all();
    cluster.wait_until_ready();
    let address = cluster.nodes[first].cluster_address();
    let load = Load::start(&[cluster.nodes[first].client_address()], 6, 24);
    load.wait_for_successes(300);
    for name in ["node2", "node3", "node4", "node5"] {
        let place = cluster.add_with_flags(name, &[address]);
        cluster.nodes[place].start();
        load.wait_for_successes(100);
    }
    cluster.wait_for_voters(&["node1", "node2", "node3", "node4", "node5"]);
    load.wait_for_successes(100);
    let record = load.stop();
    for node in &cluster.nodes {
        record.check(node.client_address());
    }
    cluster.wait_until_equal();
}

#[test]
fn wiped_node_comes_back_as_a_learner_and_is_promoted() {
    let mut cluster = Cluster::started(3);
    let load = Load::start(&cluster.addresses(), 4, 8);
    load.wait_for_successes(200);
    // Once a follower, once the leader.
    for wipe_the_leader in [false, true] {
        let leader = cluster.leader();
        let victim = if wipe_the_leader { leader } else { (leader + 1) % 3 };
        let name = cluster.nodes[victim].name.clone();
        let marks: Vec<usize> = cluster.nodes.iter().map(Node::log_mark).collect();
        cluster.nodes[victim].kill();
        cluster.nodes[victim].wipe();
        load.wait_for_successes(100);
        cluster.nodes[victim].start();
        cluster.nodes[victim].wait_for_log(marks[victim], PART, SETTLE);
        cluster.wait_for_voters(&["1", "2", "3"]);
        cluster.wait_until_ready();
        let others = (0..3).filter(|place| *place != victim);
        let said: String = others
            .map(|place| cluster.nodes[place].log()[marks[place]..].to_owned())
            .collect();
        assert_says(
            &said,
            &[
                "a member came back without its data; it joins again as a learner",
                &format!("promoting a learner that caught up node=\"{name}\""),
            ],
        );
    }
    let record = load.stop();
    for node in &cluster.nodes {
        record.check(node.client_address());
    }
    cluster.wait_until_equal();
}

/// It cannot be told from the member by itself; the others know that the member has another directory now. Node 1 dials
/// the others, node 3 is dialled by them.
#[test]
fn old_copy_of_a_data_directory_is_kept_out_once_the_node_came_back_without_it() {
    let mut cluster = Cluster::started(3);
    cluster.nodes[0].put("key", "value");
    for victim in [0, 2] {
        cluster.nodes[victim].stop();
        let data = cluster.nodes[victim].data.clone();
        let old = data.with_extension("old");
        std::fs::rename(&data, &old).expect("the directory moves aside");
        cluster.nodes[victim].start();
        cluster.wait_for_voters(&["1", "2", "3"]);
        cluster.wait_until_ready();
        cluster.nodes[victim].stop();

        cluster.nodes[victim].data = old;
        let mark = cluster.nodes[victim].log_mark();
        cluster.nodes[victim].start();
        cluster.nodes[victim].wait_for_log(mark, "this one is an old copy: move it aside", SETTLE);
        assert!(!cluster.nodes[victim].is_ready());
        cluster.nodes[victim].stop();
        cluster.nodes[victim].data = data;
        cluster.nodes[victim].start();
        cluster.wait_until_ready();
    }
    assert_eq!(cluster.wait_until_equal().len(), 1);
}

#[test]
fn member_that_was_away_learns_of_a_leader_that_joined_meanwhile() {
    let mut cluster = Cluster::started(3);
    let leader = cluster.leader();
    let away = (leader + 1) % 3;
    cluster.nodes[away].stop();
    let peers = [cluster.nodes[leader].cluster_address()];
    let joined = cluster.add_with_flags("4", &peers);
    cluster.nodes[joined].start();
    cluster.wait_for_voters(&["1", "2", "3", "4"]);
    wait_until(SETTLE, "node 4 leads", || {
        let leader = cluster.leader();
        let body = br#"{"target_node": 4}"#;
        let _ = cluster.nodes[leader].request("POST", "/cluster/step-down", body);
        cluster.leader() == joined
    });
    cluster.nodes[joined].put("written", "by a stranger");
    cluster.nodes[away].start();
    cluster.wait_until_ready();
    cluster.wait_for_voters(&["1", "2", "3", "4"]);
    assert_eq!(cluster.wait_until_equal().len(), 1);
}

#[test]
fn node_in_no_cluster_answers_reads_and_writes_that_it_is_in_none() {
    let mut cluster = Cluster::listed(3);
    cluster.nodes[0].start();
    cluster.nodes[0].wait_for_log(0, "waiting for every listed node", SETTLE);
    let path = "/v1/kv/key?consistency=serializable";
    for (method, path) in [
        ("GET", path),
        ("GET", "/v1/kv?consistency=serializable"),
        ("PUT", "/v1/kv/key"),
    ] {
        let answer = cluster.nodes[0].request(method, path, b"").expect("an answer");
        assert_eq!(answer.status, 503, "{method} {path}: {}", answer.text());
        assert_eq!(answer.json()["code"], "unavailable", "{method} {path}");
        assert_says(&answer.text(), &["this node belongs to no cluster yet"]);
    }
}

#[test]
fn wiped_first_node_founds_no_second_cluster_while_its_peers_answer() {
    let mut cluster = Cluster::new();
    let first = cluster.add_with_flags("node1", &[]);
    let peers = [cluster.nodes[first].cluster_address()];
    for name in ["node2", "node3"] {
        cluster.add_with_flags(name, &peers);
    }
    cluster.start_all();
    cluster.wait_for_voters(&["node1", "node2", "node3"]);
    cluster.nodes[1].put("key", "value");
    let lineage = lineages(&cluster.nodes[first]);

    cluster.nodes[first].kill();
    cluster.nodes[first].wipe();
    let mark = cluster.nodes[first].log_mark();
    cluster.nodes[first].start();
    cluster.nodes[first].wait_for_log(mark, PART, SETTLE);
    cluster.wait_for_voters(&["node1", "node2", "node3"]);
    cluster.wait_until_ready();
    let log = cluster.nodes[first].log()[mark..].to_owned();
    assert!(!log.contains("this node: founding a cluster"), "{log}");
    assert_eq!(lineages(&cluster.nodes[first]).last(), lineage.last());
    assert_eq!(
        cluster.wait_until_equal().get("key").map(String::as_str),
        Some("value")
    );
}

#[test]
fn data_directory_of_another_node_or_cluster_is_refused() {
    let mut cluster = Cluster::new();
    let own = cluster.add_with_flags("node1", &[]);
    cluster.start_all();
    cluster.wait_until_ready();
    let data = cluster.nodes[own].data.clone();
    let shown = data.display().to_string();

    let other = cluster.add_with_flags("node2", &[]);
    cluster.nodes[other].data = data.clone();
    assert_says(
        &refusal(&mut cluster.nodes[other]),
        &[&shown, "in use by another process"],
    );

    cluster.nodes[own].stop();
    let log = refusal(&mut cluster.nodes[other]);
    assert_says(
        &log,
        &[&shown, "belongs to node \"node1\"", "this is node \"node2\""],
    );

    let foreign = cluster.add_with_flags("node1", &[]);
    let node = &mut cluster.nodes[foreign];
    node.data = data;
    node.flags
        .extend(["--cluster-name", "elsewhere"].map(str::to_owned));
    assert_says(&refusal(node), &[&shown, "belongs to", "quorate", "elsewhere"]);

    // Nothing of it was changed.
    cluster.nodes[own].start();
    cluster.wait_until_ready();
}

#[test]
fn port_in_use_is_named_with_its_flag() {
    let mut cluster = Cluster::new();
    let place = cluster.add_with_flags("node1", &[]);
    let node = &mut cluster.nodes[place];
    let port = node.client_address().port();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("the client port");
    let log = refusal(node);
    assert_says(
        &log,
        &["is in use by another process", &format!("port {port}"), "--port"],
    );
    drop(taken);

    let port = node.cluster_address().port();
    let taken = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).expect("the cluster port");
    let log = refusal(node);
    assert_says(
        &log,
        &[
            "is in use by another process",
            &format!("port {port}"),
            "--raft-port",
        ],
    );
    drop(taken);
    node.start();
    cluster.wait_until_ready();
}

#[test]
fn node_with_another_secret_is_refused_and_both_sides_say_so() {
    stranger_is_refused(
        |node| node.environment = vec![("QUORATE_SECRET".to_owned(), new_secret())],
        "do not have the same cluster secret",
    );
}

#[test]
fn node_of_another_cluster_is_refused_and_both_sides_say_so() {
    stranger_is_refused(
        |node| {
            node.flags
                .extend(["--cluster-name", "elsewhere"].map(str::to_owned))
        },
        "to cluster `",
    );
}

#[track_caller]
fn stranger_is_refused(make_strange: impl Fn(&mut Node), words: &str) {
    let mut cluster = Cluster::new();
    let own = cluster.add_with_flags("node1", &[]);
    cluster.start_all();
    cluster.wait_until_ready();
    let address = cluster.nodes[own].cluster_address();
    let stranger = cluster.add_with_flags("stranger", &[address]);
    make_strange(&mut cluster.nodes[stranger]);
    cluster.nodes[stranger].start();
    for node in &cluster.nodes {
        node.wait_for_log(0, "connection refused", Duration::from_secs(10));
        node.wait_for_log(0, words, Duration::from_secs(1));
    }
    assert!(!cluster.nodes[stranger].is_ready());
    let members = cluster.nodes[own].get("/cluster/status").json();
    assert_eq!(members["nodes"].as_array().map(Vec::len), Some(1), "{members}");
    cluster.nodes[own].put("still", "serving");
}
