//! Nodes that hold the secret and do not keep to the protocol.

use std::net::SocketAddr;

use quinn::{Connection, ConnectionError};
use quorate_core::raft::LinkEvent;
use rand_chacha::rand_core::Rng;

use super::dial::{Expected, close};
use super::hello::{read_message, write_message};
use super::*;
use crate::port::system::{ListenerOptions, ports};

fn start(name: &str, number: u64, secret: &Secret) -> (Transport, Events) {
    let system = ports(ListenerOptions {
        tcp_nodelay: true,
        keepalive: false,
    });
    let options = Options {
        cluster: "test".to_owned(),
        name: name.to_owned(),
        directory: DirectoryId(u128::from(number)),
        bind: SocketAddr::from(([127, 0, 0, 1], 0)),
        cluster_address: String::new(),
        client_address: String::new(),
        secrets: vec![secret.clone()],
        protocols: Protocols::CURRENT,
    };
    let (transport, events) = Transport::start(&system, options).unwrap();
    transport.set_identity(Some((Lineage(1), NodeId(number))));
    (transport, events)
}

/// A hostile node `a` and an honest one `b` that takes it for its peer.
fn hostile_and_honest() -> (Transport, Transport, Events) {
    let system = ports(ListenerOptions {
        tcp_nodelay: true,
        keepalive: false,
    });
    let secret = Secret::generate(system.entropy.as_ref()).unwrap();
    let (hostile, _) = start("a", 1, &secret);
    let (honest, events) = start("b", 2, &secret);
    honest.set_peers(vec![Peer {
        id: NodeId(1),
        name: "a".to_owned(),
        directory: DirectoryId(1),
        cluster_address: hostile.local_address().unwrap().to_string(),
    }]);
    (hostile, honest, events)
}

async fn connect(from: &Transport, to: &Transport) -> Connection {
    let address = to.local_address().unwrap();
    let shared = &from.shared;
    let connecting = shared
        .endpoint
        .connect_with(shared.settings.client(address), address, "node.quorate");
    connecting.unwrap().await.unwrap()
}

/// How the other side ended a connection, when it must.
async fn ended_with(connection: &Connection) -> u64 {
    let ended = tokio::time::timeout(Duration::from_secs(20), connection.closed()).await;
    match ended.expect("the other side ends the connection") {
        ConnectionError::ApplicationClosed(end) => end.error_code.into_inner(),
        other => panic!("{other}"),
    }
}

const MALFORMED: u64 = close::REFUSED as u64 + RefusalCode::Malformed as u64;

async fn wait_for<T>(events: &mut Events, mut pick: impl FnMut(Event) -> Option<T>) -> T {
    let search = async {
        loop {
            if let Some(found) = pick(events.next().await.unwrap()) {
                return found;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), search)
        .await
        .expect("the event comes")
}

#[tokio::test]
async fn name_that_the_certificate_does_not_carry_is_refused() {
    let (hostile, honest, mut events) = hostile_and_honest();
    let connection = connect(&hostile, &honest).await;
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    let mut hello = hostile.shared.hello(Purpose::Ask);
    hello.name = "c".to_owned();
    write_message(&mut send, &hello).await.unwrap();
    let HelloAnswer::Refused(refused) = read_message(&mut receive).await.unwrap() else {
        panic!("a forged name was welcomed");
    };
    assert_eq!(refused.code, RefusalCode::Certificate);
    let refusal = wait_for(&mut events, |event| match event {
        Event::Refused(refusal) => Some(refusal),
        _ => None,
    });
    assert_eq!(refusal.await.code, RefusalCode::Certificate);
}

#[tokio::test]
async fn garbage_in_place_of_a_greeting_ends_the_connection_and_not_the_node() {
    let (hostile, honest, mut events) = hostile_and_honest();
    let mut random = ChaCha12Rng::from_seed([9; 32]);
    for _ in 0..20 {
        let connection = connect(&hostile, &honest).await;
        let (mut send, _receive) = connection.open_bi().await.unwrap();
        let mut garbage = vec![0; 64 + random.next_u32() as usize % 200];
        random.fill_bytes(&mut garbage);
        // A length that fits, so that the bytes behind it are decoded.
        garbage[..4].copy_from_slice(&60_u32.to_be_bytes());
        send.write_all(&garbage).await.unwrap();
        assert_eq!(ended_with(&connection).await, MALFORMED);
    }
    let connection = connect(&hostile, &honest).await;
    let (mut send, _receive) = connection.open_bi().await.unwrap();
    send.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
    assert_eq!(ended_with(&connection).await, MALFORMED);
    // An honest question still gets its answer.
    let address = honest.local_address().unwrap().to_string();
    let asking = hostile.ask(&address, Some("b"), Ask::WhoAreYou, Duration::from_secs(20));
    let answering = async {
        let answer = wait_for(&mut events, |event| match event {
            Event::Ask { answer, .. } => Some(answer),
            _ => None,
        });
        answer.await.answer(Answer::Formed);
    };
    assert_eq!(tokio::join!(asking, answering).0.unwrap(), Answer::Formed);
}

#[tokio::test]
async fn connection_that_says_nothing_is_ended() {
    let (hostile, honest, _events) = hostile_and_honest();
    let connection = connect(&hostile, &honest).await;
    assert_eq!(ended_with(&connection).await, u64::from(close::DONE));
}

#[tokio::test]
async fn oversize_or_undecodable_frame_ends_the_link_and_both_sides_are_told() {
    let too_large = (FRAME_BYTES_MAX as u32 + 1).to_be_bytes().to_vec();
    let mut garbage = 4_u32.to_be_bytes().to_vec();
    garbage.extend_from_slice(&[8, 1, 77, 77]);
    for (wrong, on_consensus) in [(too_large, true), (garbage.clone(), true), (garbage, false)] {
        let (hostile, honest, mut events) = hostile_and_honest();
        let address = honest.local_address().unwrap().to_string();
        let mut greeted = hostile
            .shared
            .dial(&address, Expected::Anyone, Purpose::Peer)
            .await
            .unwrap();
        let (mut second, _receive) = link::open_second(&greeted.connection).await.unwrap();
        let stream = if on_consensus {
            &mut greeted.send
        } else {
            &mut second
        };
        stream.write_all(&wrong).await.unwrap();
        assert_eq!(ended_with(&greeted.connection).await, MALFORMED);
        let refusal = wait_for(&mut events, |event| match event {
            Event::Refused(refusal) => Some(refusal),
            Event::Frame { frame, .. } => panic!("a wrong frame was taken: {frame:?}"),
            _ => None,
        });
        let refusal = refusal.await;
        assert_eq!(
            (refusal.code, refusal.by),
            (RefusalCode::Malformed, RefusedBy::Us)
        );
        wait_for(&mut events, |event| {
            matches!(
                event,
                Event::Link {
                    event: LinkEvent::Lost,
                    ..
                }
            )
            .then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn newer_connection_of_a_peer_replaces_the_older_one() {
    let (hostile, honest, mut events) = hostile_and_honest();
    let address = honest.local_address().unwrap().to_string();
    let mut links = Vec::new();
    for _ in 0..2 {
        let greeted = hostile
            .shared
            .dial(&address, Expected::Anyone, Purpose::Peer)
            .await
            .unwrap();
        let second = link::open_second(&greeted.connection).await.unwrap();
        links.push((greeted, second));
        wait_for(&mut events, |event| {
            matches!(
                event,
                Event::Link {
                    event: LinkEvent::Connected,
                    ..
                }
            )
            .then_some(())
        })
        .await;
    }
    assert_eq!(
        ended_with(&links[0].0.connection).await,
        u64::from(close::REPLACED)
    );
    assert!(links[1].0.connection.close_reason().is_none());
    assert_eq!(honest.counters(NodeId(1)).unwrap().connections, 2);
}
