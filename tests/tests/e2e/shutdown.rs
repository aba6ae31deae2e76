//! Stopping as an operator does it.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use quorate_tests::{Cluster, Load, SETTLE};

#[test]
fn stopping_leader_hands_over_and_no_request_fails() {
    for _ in 0..3 {
        let mut cluster = Cluster::started(3);
        let load = Load::start(&cluster.addresses(), 6, 24);
        load.wait_for_successes(200);
        let leader = cluster.leader();
        let node = &mut cluster.nodes[leader];
        let mark = node.log_mark();
        node.stop();
        let log = node.log()[mark..].to_owned();
        assert!(log.contains("handing the leadership over"), "{log}");
        assert!(log.contains("another node leads"), "{log}");
        load.wait_for_successes(200);
        let next = cluster.leader();
        assert_ne!(next, leader);
        let record = load.stop();
        let troubles = record.troubles();
        assert!(
            troubles.is_empty(),
            "writes failed while the leader stopped: {troubles:#?}"
        );
        record.check(cluster.nodes[next].client_address());
    }
}

#[test]
fn service_manager_is_told_when_the_node_serves_and_when_it_stops() {
    let mut cluster = Cluster::new();
    let path = cluster.home().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(SETTLE)).unwrap();
    let place = cluster.add_with_flags("node1", &[]);
    let node = &mut cluster.nodes[place];
    node.environment
        .push(("NOTIFY_SOCKET".to_owned(), path.display().to_string()));
    node.start();
    let mut buffer = [0; 256];
    let mut receive = |socket: &UnixDatagram| {
        let length = socket.recv(&mut buffer).expect("a message");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    assert_eq!(receive(&socket), "READY=1");
    node.stop();
    let mut messages = vec![receive(&socket)];
    while !messages.iter().any(|message| message == "STOPPING=1") {
        messages.push(receive(&socket));
    }
}

#[test]
fn node_that_waits_for_its_cluster_stops_at_once() {
    let mut cluster = Cluster::listed(3);
    let node = &mut cluster.nodes[1];
    node.start();
    node.wait_for_log(0, "waiting for every listed node", Duration::from_secs(10));
    node.stop();
}
