//! Two nodes with data and a witness.

use quorate_tests::{Cluster, Load, SETTLE, wait_until};

const ROUNDS: usize = 4;
/// The place of the witness.
const WITNESS: usize = 2;

/// Nodes 1 and 2 hold data, node 3 is a witness; none is started.
fn listed() -> Cluster {
    let cluster = Cluster::listed(3);
    let path = cluster.home().join("cluster.yaml");
    let list = std::fs::read_to_string(&path).unwrap();
    let third = "    - id: 3\n";
    assert!(list.contains(third), "{list}");
    let list = list.replace(third, &format!("{third}      witness: true\n"));
    std::fs::write(&path, list).unwrap();
    cluster
}

/// Waits until the node that does not lead has what the leader has committed, and the leader counts on it.
fn wait_until_both_hold_data(cluster: &Cluster) {
    wait_until(SETTLE, "both data nodes hold what is committed", || {
        let Some(leader) = cluster.leader_now() else {
            return false;
        };
        let status = cluster.nodes[leader].look("/cluster/status");
        let other = cluster.nodes[1 - leader].name.parse::<u64>().unwrap();
        let peers = status["peers"].as_array().cloned().unwrap_or_default();
        let other = peers.iter().find(|peer| peer["id"] == other);
        other.is_some_and(|peer| {
            peer["match_index"].as_u64() >= status["commit_index"].as_u64() && peer["connected"] == true
        })
    });
}

#[test]
fn two_data_nodes_and_a_witness_survive_kills_of_either_data_node_under_load() {
    let mut cluster = listed();
    cluster.start_all();
    cluster.wait_until_ready();
    let load = Load::start(&cluster.addresses()[..WITNESS], 4, 16);
    for round in 0..ROUNDS {
        load.wait_for_successes(200);
        let leader = cluster.leader();
        let victim = if round % 2 == 0 { leader } else { 1 - leader };
        cluster.nodes[victim].kill();
        // The other one goes on with the witness.
        load.wait_for_successes(200);
        cluster.nodes[victim].start();
        wait_until(SETTLE, "the victim is back", || cluster.nodes[victim].is_ready());
        wait_until_both_hold_data(&cluster);
    }
    load.wait_for_successes(100);
    let record = load.stop();
    for node in &cluster.nodes[..WITNESS] {
        record.check(node.client_address());
    }
    cluster.nodes[WITNESS].stop();
    cluster.wait_until_equal();
}

#[test]
fn witness_leads_nobody_and_sends_readers_to_the_leader() {
    let mut cluster = listed();
    cluster.start_all();
    cluster.wait_until_ready();
    let leader = cluster.leader();
    assert_ne!(leader, WITNESS);
    let witness = &cluster.nodes[WITNESS];
    let status = witness.look("/cluster/status");
    assert_eq!(status["role"], "witness", "{status}");
    let nodes = cluster.nodes[leader].look("/cluster/nodes");
    let listed = nodes["nodes"].as_array().unwrap().iter();
    let roles: Vec<_> = listed
        .map(|node| node["role"].as_str().unwrap_or_default())
        .collect();
    assert_eq!(
        roles.iter().filter(|role| **role == "witness").count(),
        1,
        "{nodes}"
    );

    // A write is handed on as by any follower; a read is sent to the leader.
    witness.put("greeting", "hello");
    let read = witness.get("/v1/kv/greeting");
    assert_eq!((read.status, read.code().as_str()), (307, "not_leader"));
    let location = read.header("location").unwrap_or_default().to_owned();
    let leader_address = cluster.nodes[leader].client_address();
    assert_eq!(location, format!("http://{leader_address}/v1/kv/greeting"));
    assert_eq!(cluster.nodes[leader].get("/v1/kv/greeting").text(), "hello");
    let stale = witness.get("/v1/kv/greeting?consistency=serializable");
    assert_eq!(
        (stale.status, stale.code().as_str()),
        (421, "witness"),
        "{}",
        stale.text()
    );
    let list = witness.get("/v1/kv?consistency=serializable");
    assert_eq!(
        (list.status, list.code().as_str()),
        (421, "witness"),
        "{}",
        list.text()
    );

    // It is never handed the leadership, and does not take it when nobody else is there.
    let refused = cluster.nodes[leader]
        .request("POST", "/cluster/step-down", br#"{"target_node": "3"}"#)
        .unwrap();
    assert_eq!(refused.status, 409, "{}", refused.text());
    cluster.nodes[0].kill();
    cluster.nodes[1].kill();
    let witness = &cluster.nodes[WITNESS];
    wait_until(SETTLE, "the witness has no leader", || !witness.is_ready());
    assert_eq!(witness.look("/cluster/status")["role"], "witness");
    cluster.start_all();
    cluster.wait_until_ready();
    assert_ne!(cluster.leader(), WITNESS);

    // A node with data cannot become a witness, nor the other way round.
    let first = &mut cluster.nodes[0];
    first.stop();
    first
        .environment
        .push(("QUORATE_WITNESS".to_owned(), "true".to_owned()));
    first.start();
    assert!(!first.wait_for_end().success());
    let log = first.log();
    assert!(log.contains("the list of nodes says otherwise"), "{log}");
}

#[test]
fn witness_joins_a_cluster_and_votes() {
    let mut cluster = Cluster::new();
    cluster.add_with_flags("n1", &[]);
    let seed = [cluster.nodes[0].cluster_address()];
    cluster.add_with_flags("n2", &seed);
    let third = cluster.add_with_flags("n3", &seed);
    cluster.nodes[third].flags.push("--witness".to_owned());
    cluster.nodes[0].start();
    cluster.wait_until_ready();
    cluster.start_all();
    cluster.wait_for_voters(&["n1", "n2", "n3"]);
    let status = cluster.nodes[third].look("/cluster/status");
    assert_eq!(status["role"], "witness", "{status}");
    let leader = cluster.leader();
    let other = 1 - leader;
    cluster.nodes[other].put("key", "value");
    wait_until_caught_up(&cluster, leader);
    cluster.nodes[leader].kill();
    wait_until(SETTLE, "the other data node leads", || {
        cluster.leader_now() == Some(other)
    });
    assert_eq!(cluster.nodes[other].get("/v1/kv/key").text(), "value");
}

/// Waits until every member has what the leader has committed.
fn wait_until_caught_up(cluster: &Cluster, leader: usize) {
    wait_until(SETTLE, "every member has what is committed", || {
        let status = cluster.nodes[leader].look("/cluster/status");
        let peers = status["peers"].as_array().cloned().unwrap_or_default();
        peers.len() == 2
            && peers
                .iter()
                .all(|peer| peer["match_index"].as_u64() >= status["commit_index"].as_u64())
    });
}
