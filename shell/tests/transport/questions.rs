//! Questions by address, between nodes that need not be members.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate::transport::{Answer, Ask, ConnectError, Event, RefusalCode, RefusedBy, Responder};
use quorate_core::raft::{DirectoryId, Member, Membership, NodeId};

use crate::support::{LINEAGE, Node, SOON, new_secret, options, system};

async fn question(node: &mut Node) -> (String, Ask, Responder) {
    let search = async {
        loop {
            if let Event::Ask { from, ask, answer } = node.next().await {
                return (from.name, ask, answer);
            }
        }
    };
    tokio::time::timeout(SOON, search)
        .await
        .expect("a question comes")
}

#[tokio::test]
async fn blank_nodes_ask_each_other_and_get_typed_answers() {
    let secret = new_secret();
    let asker = Node::start(options("a", 1, &secret), 0);
    let mut node = Node::start(options("b", 2, &secret), 0);
    let address = node.address().to_string();
    let member = Member {
        promote: true,
        ..Member::new("a", DirectoryId(1), "a:1", "a:2")
    };
    let membership = Membership::bootstrap(LINEAGE, BTreeMap::from([(NodeId(1), member.clone())]));
    let exchanges = [
        (
            Ask::WhoAreYou,
            Answer::Identity {
                hello: node.transport.hello(),
                members: vec![("a".to_owned(), "a:1".to_owned())],
                leader_name: Some("a".to_owned()),
                leader_cluster_address: None,
            },
        ),
        (
            Ask::Join { member },
            Answer::TryLeader {
                name: "c".to_owned(),
                cluster_address: "c:1".to_owned(),
            },
        ),
        (
            Ask::Form {
                membership: membership.clone(),
                id: NodeId(1),
            },
            Answer::Formed,
        ),
        (
            Ask::WhoAreYou,
            Answer::Joined {
                id: NodeId(4),
                membership,
            },
        ),
    ];
    for (ask, answer) in exchanges {
        let asking = asker.transport.ask(&address, Some("b"), ask.clone(), SOON);
        let answering = async {
            let (from, asked, responder) = question(&mut node).await;
            assert_eq!((from.as_str(), &asked), ("a", &ask));
            responder.answer(answer.clone());
        };
        let (got, ()) = tokio::join!(asking, answering);
        assert_eq!(got.unwrap(), answer);
    }
}

#[tokio::test]
async fn answer_of_a_node_with_another_name_is_refused() {
    let secret = new_secret();
    let asker = Node::start(options("a", 1, &secret), 0);
    let mut node = Node::start(options("b", 2, &secret), 0);
    let address = node.address().to_string();
    let error = asker
        .transport
        .ask(&address, Some("c"), Ask::WhoAreYou, SOON)
        .await
        .unwrap_err();
    let ConnectError::Refused(refusal) = error else {
        panic!("{error}");
    };
    assert_eq!((refusal.code, refusal.by), (RefusalCode::Name, RefusedBy::Us));
    let other_side = node.refusal().await;
    assert_eq!(
        (other_side.code, other_side.by),
        (RefusalCode::Name, RefusedBy::Them)
    );
}

#[tokio::test]
async fn question_to_a_port_that_nobody_holds_fails_at_once() {
    let asker = Node::start(options("a", 1, &new_secret()), 0);
    let free = {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.local_addr().unwrap().to_string()
    };
    let began = std::time::Instant::now();
    let error = asker
        .transport
        .ask(&free, None, Ask::WhoAreYou, SOON)
        .await
        .unwrap_err();
    assert!(matches!(error, ConnectError::NobodyListens { .. }), "{error}");
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "it took {:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn silent_machine_and_unknown_host_have_errors_of_their_own() {
    let asker = Node::start(options("a", 1, &new_secret()), 0);
    // A socket that takes packets and never answers.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let limit = Duration::from_millis(100);
    let error = asker.transport.ask(&address, None, Ask::WhoAreYou, limit).await;
    assert!(matches!(error, Err(ConnectError::TimedOut { .. })), "{error:?}");
    let error = asker.transport.ask("no port", None, Ask::WhoAreYou, SOON).await;
    assert!(matches!(error, Err(ConnectError::Resolve { .. })), "{error:?}");
}

#[tokio::test]
async fn question_that_the_owner_drops_is_unanswered() {
    let secret = new_secret();
    let asker = Node::start(options("a", 1, &secret), 0);
    let mut node = Node::start(options("b", 2, &secret), 0);
    let address = node.address().to_string();
    let asking = asker.transport.ask(&address, None, Ask::WhoAreYou, SOON);
    let dropping = async { drop(question(&mut node).await) };
    let (got, ()) = tokio::join!(asking, dropping);
    assert!(matches!(got, Err(ConnectError::Unanswered { .. })), "{got:?}");
}

#[tokio::test]
async fn node_can_ask_itself() {
    let mut node = Node::start(options("a", 1, &new_secret()), 0);
    let address = node.address().to_string();
    let transport = node.transport.clone();
    let asking = transport.ask(&address, None, Ask::WhoAreYou, SOON);
    let answering = async { question(&mut node).await.2.answer(Answer::Formed) };
    let (got, ()) = tokio::join!(asking, answering);
    assert_eq!(got.unwrap(), Answer::Formed);
}

#[tokio::test]
async fn address_in_use_is_named_in_the_error() {
    let secret = new_secret();
    let node = Node::start(options("a", 1, &secret), 0);
    let mut second = options("b", 2, &secret);
    second.bind = node.address();
    let started = quorate::transport::Transport::start(&system(), second);
    let error = started.err().expect("the port is taken").to_string();
    assert!(error.contains(&node.address().to_string()), "{error}");
}

#[tokio::test]
async fn unusable_names_are_refused_before_anything_is_bound() {
    let secret = new_secret();
    for name in ["", "a\nb", &"x".repeat(254)] {
        let started = quorate::transport::Transport::start(&system(), options(name, 1, &secret));
        let error = started.err().expect("the name is unusable").to_string();
        assert!(error.contains("node name"), "{error}");
    }
}
