//! Nodes that are killed without warning, under load.

use std::time::Duration;

use quorate_tests::{Cluster, Load, Random, SETTLE, wait_until};

const ROUNDS: usize = 20;

#[test]
fn acknowledged_writes_and_linearizability_survive_twenty_kills_of_a_random_node() {
    let mut random = Random::announced("kill_nine");
    let mut cluster = Cluster::started(3);
    let load = Load::start(&cluster.addresses(), 6, 24);
    for round in 0..ROUNDS {
        load.wait_for_successes(100);
        let victim = if round % 2 == 0 {
            cluster.leader()
        } else {
            random.below(cluster.nodes.len())
        };
        cluster.nodes[victim].kill();
        // The two others go on without it.
        load.wait_for_successes(100);
        cluster.nodes[victim].start();
        let node = &cluster.nodes[victim];
        wait_until(SETTLE, &format!("node {} is back", node.name), || node.is_ready());
    }
    load.wait_for_successes(100);
    let record = load.stop();
    println!(
        "{} acknowledged writes of own keys, {} successes, {} troubled writes",
        record.acknowledged(),
        record.done.load(std::sync::atomic::Ordering::Relaxed),
        record.troubles().len()
    );
    for node in &cluster.nodes {
        record.check(node.client_address());
    }
    cluster.wait_until_equal();
}

#[test]
fn killed_leader_is_replaced_within_moments() {
    let mut cluster = Cluster::started(3);
    let leader = cluster.leader();
    let mark: Vec<usize> = cluster.nodes.iter().map(|node| node.log_mark()).collect();
    cluster.nodes[leader].kill();
    let others = (0..3).filter(|place| *place != leader);
    wait_until(
        Duration::from_secs(5),
        "another node says that it was elected",
        || {
            others.clone().any(|place| {
                cluster.nodes[place].log()[mark[place]..].contains("this node was elected leader")
            })
        },
    );
    cluster.running().next().unwrap().put("after", "the kill");
}
