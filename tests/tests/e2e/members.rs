//! Members that an operator takes in and lets go (event-stream-cluster.md, "Add Node" and "Remove Node").

use std::net::{Ipv4Addr, UdpSocket};

use quorate_tests::{Cluster, Node, SETTLE, new_secret, wait_until};
use serde_json::{Value, json};

/// A running cluster of one node.
fn one(name: &str, secret: String) -> Cluster {
    let mut cluster = Cluster::new();
    cluster.secret = secret;
    cluster.add_with_flags(name, &[]);
    cluster.start_all();
    cluster.wait_until_ready();
    cluster
}

/// A cluster of one node, and a blank node `4` that waits for a peer that is not there.
fn one_and_a_stranger() -> (Cluster, usize) {
    let mut cluster = one("1", new_secret());
    let nobody = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let peers = [nobody.local_addr().expect("it is bound")];
    let stranger = cluster.add_with_flags("4", &peers);
    drop(nobody);
    (cluster, stranger)
}

/// What `POST /cluster/members` takes for `node`.
fn request(node: &Node, id: &Value, learner: bool) -> Vec<u8> {
    let address = node.cluster_address();
    json!({"id": id, "host": address.ip().to_string(), "port": address.port(), "learner": learner})
        .to_string()
        .into_bytes()
}

#[test]
fn operator_takes_in_a_node_that_knows_no_member_and_lets_it_go_again() {
    let (mut cluster, stranger) = one_and_a_stranger();
    cluster.nodes[stranger].start();
    cluster.nodes[stranger].wait_for_log(0, "waiting for a member to join at", SETTLE);
    let body = request(&cluster.nodes[stranger], &json!(4), false);
    for _ in 0..2 {
        let answer = cluster.nodes[0]
            .request("POST", "/cluster/members", &body)
            .expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json()["success"], json!(true));
        assert_eq!(answer.json()["id"], json!(4));
    }
    cluster.wait_for_voters(&["1", "4"]);
    cluster.nodes[stranger].put("by", "the new one");

    let answer = cluster.nodes[cluster.leader()]
        .request("DELETE", "/cluster/members/4", b"")
        .expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
    cluster.nodes[stranger].stop();
    cluster.wait_for_voters(&["1"]);
    cluster.nodes[0].put("after", "alone");
}

#[test]
fn node_taken_in_as_a_learner_stays_one() {
    let (mut cluster, stranger) = one_and_a_stranger();
    cluster.nodes[stranger].start();
    cluster.nodes[stranger].wait_for_log(0, "waiting for a member to join at", SETTLE);
    let body = request(&cluster.nodes[stranger], &json!("4"), true);
    let answer = cluster.nodes[0]
        .request("POST", "/cluster/members", &body)
        .expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
    cluster.nodes[0].put("key", "value");
    let learner = &cluster.nodes[stranger];
    wait_until(SETTLE, "the learner has what was written", || {
        learner
            .request("GET", "/v1/kv/key?consistency=serializable", b"")
            .is_ok_and(|answer| answer.status == 200)
    });
    assert_eq!(learner.look("/cluster/status")["role"], json!("learner"));
    assert_eq!(learner.look("/cluster/status")["voters"], json!(1));
}

#[test]
fn node_that_is_not_there_or_belongs_elsewhere_is_answered_with_what_to_do() {
    let (cluster, stranger) = one_and_a_stranger();
    let absent = request(&cluster.nodes[stranger], &json!(4), false);
    let answer = cluster.nodes[0]
        .request("POST", "/cluster/members", &absent)
        .expect("an answer");
    assert_eq!(answer.status, 409, "{}", answer.text());
    assert!(answer.text().contains("--node-id 4"), "{}", answer.text());

    let other = one("9", cluster.secret.clone());
    let elsewhere = request(&other.nodes[0], &json!(9), false);
    let answer = cluster.nodes[0]
        .request("POST", "/cluster/members", &elsewhere)
        .expect("an answer");
    assert_eq!(answer.status, 409, "{}", answer.text());
    assert!(
        answer.text().contains("belongs to another cluster"),
        "{}",
        answer.text()
    );
    cluster.wait_for_voters(&["1"]);
}
