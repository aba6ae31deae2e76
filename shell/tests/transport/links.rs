//! Links between members: frames, order, redial, bounds.

use std::time::Duration;

use quorate::transport::{Event, SendError};
use quorate_core::raft::{DirectoryId, LinkEvent, NodeId};

use crate::support::{Node, SOON, forward, heartbeat, introduce, new_secret, options, pair, round};

#[tokio::test]
async fn two_members_exchange_frames_in_order_over_one_connection() {
    let (mut first, mut second) = pair().await;
    for number in 0..100 {
        first.transport.send(second.id, &heartbeat(number)).unwrap();
        second
            .transport
            .send(first.id, &heartbeat(1_000 + number))
            .unwrap();
    }
    for number in 0..100 {
        let (from, frame) = second.frame().await;
        assert_eq!((from, round(&frame)), (first.id, Some(number)));
        let (from, frame) = first.frame().await;
        assert_eq!((from, round(&frame)), (second.id, Some(1_000 + number)));
    }
    let counters = first.transport.counters(second.id).unwrap();
    assert_eq!((counters.frames_sent, counters.frames_received), (100, 100));
    assert_eq!(counters.connections, 1);
    assert!(counters.bytes_sent > 100 * 6 && counters.bytes_received > 100 * 6);
    assert!(
        first
            .transport
            .peer_rtt(second.id)
            .is_some_and(|rtt| rtt < Duration::from_secs(1))
    );
}

#[tokio::test]
async fn three_members_all_reach_each_other() {
    let secret = new_secret();
    let names = ["10", "9", "quorate-0.example.com"];
    let mut nodes: Vec<Node> = (0..3)
        .map(|place| {
            let number = place as u64 + 1;
            Node::member(options(names[place], number, &secret), number)
        })
        .collect();
    introduce(&nodes.iter().collect::<Vec<_>>());
    for place in 0..3 {
        for other in (0..3).filter(|other| *other != place) {
            let id = nodes[other].id;
            nodes[place].link(id, LinkEvent::Connected).await;
            nodes[place]
                .transport
                .send(id, &forward(place as u64, 300))
                .unwrap();
        }
    }
    for node in &mut nodes {
        let mut heard = vec![node.frame().await.0, node.frame().await.0];
        heard.push(node.id);
        heard.sort();
        assert_eq!(heard, [NodeId(1), NodeId(2), NodeId(3)]);
    }
}

#[tokio::test]
async fn big_frames_arrive_whole_and_do_not_hold_back_consensus() {
    let (first, mut second) = pair().await;
    for number in 0..4 {
        first
            .transport
            .send(second.id, &forward(number, 1 << 20))
            .unwrap();
    }
    first.transport.send(second.id, &heartbeat(1)).unwrap();
    let mut big_frames_before = 0;
    loop {
        let (_, frame) = second.frame().await;
        if round(&frame) == Some(1) {
            break;
        }
        assert_eq!(frame, forward(big_frames_before, 1 << 20));
        big_frames_before += 1;
    }
    assert!(
        big_frames_before < 3,
        "the heartbeat waited for {big_frames_before} MiB"
    );
    for number in big_frames_before..4 {
        assert_eq!(second.frame().await.1, forward(number, 1 << 20));
    }
}

#[tokio::test]
async fn sending_to_nobody_and_too_much_at_once_are_errors_and_never_wait() {
    let (first, second) = pair().await;
    assert_eq!(
        first.transport.send(NodeId(9), &heartbeat(1)),
        Err(SendError::NoSuchPeer(NodeId(9)))
    );
    assert!(matches!(
        first
            .transport
            .send(second.id, &forward(1, quorate::transport::FRAME_BYTES_MAX)),
        Err(SendError::TooLarge { .. })
    ));
    // Nothing runs between these calls, so nothing leaves: the queue must fill up.
    let refused =
        (0..100).find_map(|number| first.transport.send(second.id, &forward(number, 1 << 20)).err());
    assert!(matches!(refused, Some(SendError::Full { .. })), "{refused:?}");
    assert_eq!(first.transport.counters(second.id).unwrap().frames_dropped, 2);
    first.transport.set_peers(Vec::new());
    assert_eq!(
        first.transport.send(second.id, &heartbeat(1)),
        Err(SendError::NoSuchPeer(second.id))
    );
}

#[tokio::test]
async fn slow_reader_stops_the_sender_and_bounds_what_waits() {
    const FRAME_BYTES: usize = 256 << 10;
    let (first, mut second) = pair().await;
    let mut taken: u64 = 0;
    let mut quiet = 0;
    // The second node takes out nothing. Send until nothing more fits for a while.
    while quiet < 200 {
        match first.transport.send(second.id, &forward(taken, FRAME_BYTES)) {
            Ok(()) => {
                taken += 1;
                quiet = 0;
            }
            Err(SendError::Full { .. }) => {
                quiet += 1;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Err(error) => panic!("{error}"),
        }
        let bytes = taken as usize * FRAME_BYTES;
        assert!(bytes < 64 << 20, "{bytes} bytes were taken without being read");
    }
    // Heartbeats have room of their own.
    first.transport.send(second.id, &heartbeat(5)).unwrap();
    let mut heartbeats = 0;
    let mut forwards = 0;
    let reading = async {
        while heartbeats < 1 || forwards < taken {
            match second.next().await {
                Event::Frame { frame, .. } if round(&frame).is_some() => heartbeats += 1,
                Event::Frame { frame, .. } => {
                    assert_eq!(frame, forward(forwards, FRAME_BYTES));
                    forwards += 1;
                }
                Event::Greeted { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    };
    tokio::time::timeout(SOON, reading)
        .await
        .expect("everything that was taken arrives");
}

#[tokio::test]
async fn peer_that_stops_is_noticed_at_once_and_found_again_when_it_is_back() {
    for restarted in ["a", "b"] {
        let secret = new_secret();
        let mut first = Node::member(options("a", 1, &secret), 1);
        let mut second = Node::member(options("b", 2, &secret), 2);
        introduce(&[&first, &second]);
        first.link(second.id, LinkEvent::Connected).await;
        second.link(first.id, LinkEvent::Connected).await;
        let (mut stays, goes) = if restarted == "a" {
            (second, first)
        } else {
            (first, second)
        };
        let (peer, peer_of_it, address) = (goes.as_peer(), stays.as_peer(), goes.address());
        goes.transport.close("restart").await;
        stays.link(goes.id, LinkEvent::Refused).await;
        drop(goes);
        let mut again = options(&peer.name, peer.id.0, &secret);
        again.bind = address;
        let mut back = Node::member_when_free(again, peer.id.0).await;
        back.transport.set_peers(vec![peer_of_it]);
        let waiting = std::time::Instant::now();
        stays.link(back.id, LinkEvent::Connected).await;
        back.link(stays.id, LinkEvent::Connected).await;
        assert!(
            waiting.elapsed() < Duration::from_secs(5),
            "it took {:?}",
            waiting.elapsed()
        );
        stays.transport.send(back.id, &heartbeat(3)).unwrap();
        assert_eq!(round(&back.frame().await.1), Some(3));
    }
}

#[tokio::test]
async fn removed_peer_is_disconnected_and_may_come_back() {
    let (mut first, mut second) = pair().await;
    let peer = second.as_peer();
    first.transport.set_peers(Vec::new());
    first.link(second.id, LinkEvent::Lost).await;
    second.link(first.id, LinkEvent::Lost).await;
    assert!(!second.transport.is_connected(first.id));
    first.transport.set_peers(vec![peer]);
    first.link(second.id, LinkEvent::Connected).await;
    second.link(first.id, LinkEvent::Connected).await;
}

#[tokio::test]
async fn change_of_identity_makes_the_connection_anew() {
    let (mut first, mut second) = pair().await;
    first.transport.set_identity(None);
    second.link(first.id, LinkEvent::Lost).await;
    first.link(second.id, LinkEvent::Lost).await;
    first
        .transport
        .set_identity(Some((crate::support::LINEAGE, NodeId(1))));
    first.link(second.id, LinkEvent::Connected).await;
    second.link(first.id, LinkEvent::Connected).await;
}

#[tokio::test]
async fn peer_that_moves_is_dialled_at_its_new_address() {
    let secret = new_secret();
    let mut first = Node::member(options("a", 1, &secret), 1);
    let second = Node::member(options("b", 2, &secret), 2);
    introduce(&[&first, &second]);
    first.link(second.id, LinkEvent::Connected).await;
    let mut moved = Node::member(options("b", 2, &secret), 2);
    assert_ne!(moved.address(), second.address());
    moved.transport.set_peers(vec![first.as_peer()]);
    first.transport.set_peers(vec![moved.as_peer()]);
    second.transport.close("moved").await;
    first.link(moved.id, LinkEvent::Refused).await;
    first.link(moved.id, LinkEvent::Connected).await;
    moved.link(first.id, LinkEvent::Connected).await;
}

#[tokio::test]
async fn secret_is_rotated_without_an_outage() {
    let (old, new) = (new_secret(), new_secret());
    let with = |name: &str, number, secrets: [&_; 2]| {
        let mut options = options(name, number, secrets[0]);
        options.secrets = secrets.map(Clone::clone).to_vec();
        options
    };
    // One node signs with the new secret already, the other still with the old one; both trust both.
    let mut first = Node::member(with("a", 1, [&new, &old]), 1);
    let mut second = Node::member(with("b", 2, [&old, &new]), 2);
    introduce(&[&first, &second]);
    first.link(second.id, LinkEvent::Connected).await;
    second.link(first.id, LinkEvent::Connected).await;
}

#[tokio::test]
async fn names_that_differ_only_in_the_directory_are_new_peers() {
    let (mut first, second) = pair().await;
    let mut peer = second.as_peer();
    peer.directory = DirectoryId(99);
    first.transport.set_peers(vec![peer]);
    first.link(second.id, LinkEvent::Lost).await;
    let refusal = first.refusal().await;
    assert_eq!(refusal.code, quorate::transport::RefusalCode::Identity);
}

#[tokio::test]
async fn peer_that_is_elsewhere_is_dialled_there_too_and_says_where_it_is() {
    let secret = new_secret();
    let mut first = Node::member(options("a", 1, &secret), 1);
    let mut second = Node::member(options("b", 2, &secret), 2);
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut peer = second.as_peer();
    peer.cluster_address = nobody.local_addr().unwrap().to_string();
    drop(nobody);
    first.transport.set_peers(vec![peer]);
    second.transport.set_peers(vec![first.as_peer()]);
    let elsewhere = vec![second.address().to_string()];
    first.transport.set_elsewhere(second.id, elsewhere);
    first.link(second.id, LinkEvent::Connected).await;
    second.link(first.id, LinkEvent::Connected).await;
    for (node, other) in [(&mut first, "b"), (&mut second, "a")] {
        let said = node.wait("a greeting", |event| match event {
            Event::Greeted { hello } if hello.name == other => Some(hello.cluster_address.clone()),
            _ => None,
        });
        assert_eq!(said.await, format!("{other}:1"));
    }
}
