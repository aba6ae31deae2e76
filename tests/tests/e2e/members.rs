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

/// Whoever is removed, and whichever node is asked: the answer is that it is done.
#[test]
fn any_node_removes_any_node_the_leader_too_and_says_that_it_is_done() {
    let mut cluster = Cluster::started(5);
    let mut names = vec!["1", "2", "3", "4", "5"];
    for ask_the_leader in [true, false] {
        let leader = cluster.leader();
        let name = cluster.nodes[leader].name.clone();
        let other = cluster
            .running()
            .position(|node| node.name != name)
            .expect("another");
        let asked = if ask_the_leader { leader } else { other };
        let answer = cluster.nodes[asked]
            .request("DELETE", &format!("/cluster/members/{name}"), b"")
            .expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
        names.retain(|known| *known != name);
        let removed = cluster.nodes.remove(leader);
        removed.wait_for_log(0, "was removed from the cluster: the membership at index", SETTLE);
        drop(removed);
        cluster.wait_for_voters(&names);
    }
    // A follower, asked of a follower.
    let leader = cluster.leader();
    let (asked, gone) = ((leader + 1) % 3, (leader + 2) % 3);
    let path = format!("/cluster/members/{}", cluster.nodes[gone].name);
    let answer = cluster.nodes[asked]
        .request("DELETE", &path, b"")
        .expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
    names.retain(|known| *known != cluster.nodes[gone].name);
    cluster.nodes.remove(gone);
    cluster.wait_for_voters(&names);
    cluster.nodes[0].put("still", "serving");
}

#[test]
fn node_that_was_removed_while_it_was_away_says_so_and_what_to_do() {
    let mut cluster = Cluster::started(4);
    // The one that all others dial, and the one that dials all others.
    for name in ["4", "1"] {
        let gone = cluster
            .nodes
            .iter()
            .position(|node| node.name == name)
            .expect("it is there");
        cluster.nodes[gone].stop();
        let asked = cluster.leader();
        let path = format!("/cluster/members/{name}");
        let answer = cluster.nodes[asked]
            .request("DELETE", &path, b"")
            .expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
        let mark = cluster.nodes[gone].log_mark();
        cluster.nodes[gone].start();
        let words = "was removed from the cluster: the membership at index";
        cluster.nodes[gone].wait_for_log(mark, words, SETTLE);
        let node = &cluster.nodes[gone];
        let reason = node.look("/health")["reason"].to_string();
        assert!(reason.contains(words) && reason.contains("--peers"), "{reason}");
        let reason = node.look("/cluster/status")["reason"].to_string();
        assert!(reason.contains(words), "{reason}");
        let ready = node.get("/readyz");
        assert_eq!(ready.status, 503);
        assert!(ready.text().contains(words), "{}", ready.text());
        let log = node.log()[mark..].to_owned();
        assert_eq!(log.matches(words).count(), 1, "{log}");
        assert!(!log.contains("old copy"), "{log}");

        // As it is told: with an empty directory it is taken in again.
        cluster.nodes[gone].stop();
        cluster.nodes[gone].wipe();
        cluster.nodes[gone].start();
        cluster.wait_for_voters(&["1", "2", "3", "4"]);
    }
}
