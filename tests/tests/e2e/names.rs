//! Two processes that claim one name.

use std::net::SocketAddr;

use quorate_tests::{Cluster, SETTLE};

/// Founded by `node1`; the others joined.
fn three() -> Cluster {
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

/// A blank node with the name of a member that runs: refused as long as that one runs, taken in when it is gone.
#[test]
fn blank_node_with_the_name_of_a_living_member_is_kept_out_until_that_one_is_gone() {
    // Once the name of a follower, once of the leader.
    for of_the_leader in [false, true] {
        let mut cluster = three();
        let leader = cluster.leader();
        let member = if of_the_leader { leader } else { (leader + 1) % 3 };
        let name = cluster.nodes[member].name.clone();
        let peers: Vec<SocketAddr> = cluster.nodes.iter().map(|node| node.cluster_address()).collect();
        let marks: Vec<usize> = cluster.nodes.iter().map(|node| node.log_mark()).collect();
        let term = cluster.nodes[leader].look("/cluster/status")["term"].clone();

        let impostor = cluster.add_with_flags(&name, &peers);
        cluster.nodes[impostor].keep_files_as("impostor");
        cluster.nodes[impostor].start();
        let words = format!("a node named {name} with another data directory is connected");
        cluster.nodes[impostor].wait_for_log(0, &words, SETTLE);
        cluster.nodes[leader].wait_for_log(
            marks[leader],
            "under the name of a member that is connected",
            SETTLE,
        );
        cluster.nodes[member].put("still", "serving");
        let status = cluster.nodes[leader].look("/cluster/status");
        assert_eq!(status["term"], term, "nobody was disturbed");
        assert_eq!(status["voters"], 3);
        assert_eq!(status["nodes"].as_array().map(Vec::len), Some(3), "{status}");
        let said = cluster.nodes[impostor].log();
        assert_eq!(
            said.matches(&words).count(),
            1,
            "said once, not with each try:\n{said}"
        );

        cluster.nodes[member].kill();
        cluster.wait_for_voters(&["node1", "node2", "node3"]);
        cluster.wait_until_ready();
        cluster.nodes[impostor].put("taken", "in");
        assert_eq!(cluster.wait_until_equal().len(), 2);
    }
}
