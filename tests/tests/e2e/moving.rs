//! Members that come back at another address, as containers do.

use quorate_tests::{Cluster, SETTLE, wait_until};

/// Listed nodes, or one that founded and others that joined it with `--peers`.
fn three_with_flags() -> Cluster {
    let mut cluster = Cluster::new();
    let first = cluster.add_with_flags("node1", &[]);
    let peers = [cluster.nodes[first].cluster_address()];
    for name in ["node2", "node3"] {
        cluster.add_with_flags(name, &peers);
    }
    cluster.start_all();
    cluster.wait_for_voters(&["node1", "node2", "node3"]);
    cluster.wait_until_ready();
    cluster
}

/// Waits until every node knows every node where it is, and is connected to it.
#[track_caller]
fn wait_until_recorded(cluster: &Cluster) {
    for node in cluster.running() {
        wait_until(SETTLE, &format!("node {} reaches all", node.name), || {
            let status = node.look("/cluster/status");
            status["health"] == "healthy"
                && cluster.running().all(|other| {
                    let members = status["nodes"].as_array();
                    members.is_some_and(|members| {
                        members.iter().any(|member| {
                            member["node_id"] == other.name.as_str()
                                && member["raft_address"] == other.cluster_address().to_string()
                                && member["api_address"] == other.client_address().to_string()
                                && member["health"] == "healthy"
                        })
                    })
                })
        });
    }
}

#[test]
fn member_that_comes_back_at_another_address_is_recorded_there() {
    // Of two members the one with the smaller name dials, so each place among the names is a case of its own.
    let mut cluster = three_with_flags();
    for moved in 0..3 {
        cluster.nodes[moved].stop();
        cluster.nodes[moved].move_to_other_ports();
        cluster.nodes[moved].start();
        cluster.wait_until_ready();
        wait_until_recorded(&cluster);
        cluster.nodes[moved].put(&format!("moved/{moved}"), "and serving");
    }
    cluster.wait_for_voters(&["node1", "node2", "node3"]);
    assert_eq!(cluster.wait_until_equal().len(), 3);
}

#[test]
fn cluster_whose_log_is_empty_takes_a_member_back_at_another_address() {
    let mut cluster = three_with_flags();
    cluster.nodes[2].kill();
    cluster.nodes[2].move_to_other_ports();
    cluster.nodes[2].start();
    wait_until_recorded(&cluster);
    assert_eq!(cluster.wait_until_equal().len(), 0);
}

#[test]
fn majority_that_moved_finds_the_one_that_did_not() {
    let mut cluster = three_with_flags();
    cluster.nodes[1].put("before", "the move");
    cluster.stop_all();
    for moved in [1, 2] {
        cluster.nodes[moved].move_to_other_ports();
    }
    cluster.start_all();
    cluster.wait_until_ready();
    wait_until_recorded(&cluster);
    assert_eq!(cluster.wait_until_equal().len(), 1);
}

#[test]
fn whole_cluster_that_moved_is_found_by_what_the_nodes_are_configured_with() {
    let mut cluster = three_with_flags();
    cluster.nodes[1].put("before", "the move");
    cluster.stop_all();
    for node in &mut cluster.nodes {
        node.move_to_other_ports();
    }
    let first = cluster.nodes[0].cluster_address().to_string();
    for place in [1, 2] {
        cluster.nodes[place].set_flag("--peers", &first);
    }
    cluster.start_all();
    cluster.wait_until_ready();
    wait_until_recorded(&cluster);
    assert_eq!(cluster.wait_until_equal().len(), 1);
}

#[test]
fn taking_in_a_member_at_an_address_where_it_is_not_is_refused() {
    let cluster = three_with_flags();
    let nobody = cluster.nodes[2].cluster_address().port();
    let body = format!(r#"{{"id": "node3", "host": "127.0.0.5", "port": {nobody}}}"#);
    let answer = cluster.nodes[0]
        .request("POST", "/cluster/members", body.as_bytes())
        .expect("an answer");
    assert_eq!(answer.status, 409, "{}", answer.text());
    assert!(answer.text().contains("is a member already"), "{}", answer.text());
    // Where it is, another way of writing the address is as good.
    let body = format!(r#"{{"id": "node3", "host": "localhost", "port": {nobody}}}"#);
    let answer = cluster.nodes[0]
        .request("POST", "/cluster/members", body.as_bytes())
        .expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
}
