//! Nodes that must not talk to each other, and what both sides are told.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use quorate::port::{BoxFuture, Clock};
use quorate::transport::{
    Ask, ConnectError, Event, Invitation, Options, Protocols, Refusal, RefusalCode, RefusedBy, Secret,
    TakenIn,
};
use quorate_core::Instant;
use quorate_core::raft::{DirectoryId, Index, Lineage, NodeId};

use crate::support::{LINEAGE, Node, SOON, introduce, new_secret, options, system};

/// Two nodes as `change` makes the second one, introduced to each other; what each is told.
async fn refused(change: impl FnOnce(&mut Options)) -> (Refusal, Refusal) {
    let secret = new_secret();
    let mut first = Node::member(options("a", 1, &secret), 1);
    let mut second_options = options("b", 2, &secret);
    change(&mut second_options);
    let mut second = Node::member(second_options, 2);
    introduce(&[&first, &second]);
    (first.refusal().await, second.refusal().await)
}

fn both_are(refusals: &(Refusal, Refusal), code: RefusalCode) {
    assert_eq!((refusals.0.code, refusals.1.code), (code, code), "{refusals:?}");
    assert_ne!(
        refusals.0.by, refusals.1.by,
        "one side refused and the other was refused"
    );
}

#[tokio::test]
async fn other_secret_is_refused_and_both_sides_are_told() {
    let refusals = refused(|options| options.secrets = vec![new_secret()]).await;
    both_are(&refusals, RefusalCode::Secret);
    assert!(refusals.0.message.contains("cluster secret"), "{}", refusals.0);
    assert!(refusals.1.message.contains("cluster secret"), "{}", refusals.1);
}

#[tokio::test]
async fn secret_that_only_one_side_trusts_is_refused_and_both_sides_are_told() {
    let (old, new) = (new_secret(), new_secret());
    // The first node trusts both, the second only the old one: the one that dials finishes its handshake before the
    // other refuses it.
    let mut first_options = options("a", 1, &new);
    first_options.secrets = vec![new, old.clone()];
    let mut first = Node::member(first_options, 1);
    let mut second = Node::member(options("b", 2, &old), 2);
    introduce(&[&first, &second]);
    let refusals = (first.refusal().await, second.refusal().await);
    both_are(&refusals, RefusalCode::Secret);
    assert_eq!(refusals.1.by, RefusedBy::Us);
}

#[tokio::test]
async fn other_cluster_is_refused_and_both_sides_are_told() {
    let refusals = refused(|options| options.cluster = "production".to_owned()).await;
    both_are(&refusals, RefusalCode::Cluster);
    for refusal in [&refusals.0, &refusals.1] {
        let message = &refusal.message;
        assert!(
            message.contains("`production`") && message.contains("`test`"),
            "{message}"
        );
    }
    assert_eq!(refusals.0.name.as_deref(), Some("b"));
    assert_eq!(refusals.1.name.as_deref(), Some("a"));
}

#[tokio::test]
async fn versions_without_overlap_are_refused_and_both_sides_are_told() {
    let refusals = refused(|options| options.protocols = Protocols { oldest: 7, newest: 9 }).await;
    both_are(&refusals, RefusalCode::Version);
    assert!(refusals.0.message.contains("7 to 9"), "{}", refusals.0);
}

#[tokio::test]
async fn other_history_is_refused_and_both_sides_are_told() {
    let secret = new_secret();
    let mut first = Node::member(options("a", 1, &secret), 1);
    let mut second = Node::start(options("b", 2, &secret), 2);
    second.transport.set_identity(Some((Lineage(8), NodeId(2))));
    introduce(&[&first, &second]);
    let refusals = (first.refusal().await, second.refusal().await);
    both_are(&refusals, RefusalCode::Lineage);
    for refusal in [&refusals.0, &refusals.1] {
        let message = &refusal.message;
        assert!(
            message.contains(&LINEAGE.to_string()) && message.contains(&Lineage(8).to_string()),
            "{message}"
        );
    }
}

#[tokio::test]
async fn another_node_at_the_address_of_a_peer_is_refused_and_both_sides_are_told() {
    let secret = new_secret();
    let mut first = Node::member(options("a", 1, &secret), 1);
    let mut third = Node::member(options("c", 3, &secret), 3);
    let mut peer = third.as_peer();
    peer.name = "b".to_owned();
    first.transport.set_peers(vec![peer]);
    third.transport.set_peers(vec![first.as_peer()]);
    let refusals = (first.refusal().await, third.refusal().await);
    both_are(&refusals, RefusalCode::Name);
    assert_eq!(refusals.0.by, RefusedBy::Us);
    assert!(refusals.1.message.contains("expected node `b`"), "{}", refusals.1);
}

#[tokio::test]
async fn member_with_another_directory_is_refused_and_reported_as_a_stranger() {
    let secret = new_secret();
    // The name decides who dials: once the one with the swapped directory does, once the other.
    for (swapped, honest) in [("a", "b"), ("b", "a")] {
        let mut honest = Node::member(options(honest, 1, &secret), 1);
        let mut swapped = Node::member(options(swapped, 2, &secret), 2);
        let mut peer = swapped.as_peer();
        peer.directory = DirectoryId(77);
        honest.transport.set_peers(vec![peer]);
        swapped.transport.set_peers(vec![honest.as_peer()]);
        let refusals = (honest.refusal().await, swapped.refusal().await);
        both_are(&refusals, RefusalCode::Identity);
        assert_eq!(refusals.0.by, RefusedBy::Us);
        let directory = honest
            .wait("a stranger", |event| match event {
                Event::Stranger { hello } => Some(hello.directory),
                _ => None,
            })
            .await;
        assert_eq!(directory, swapped.directory);
    }
}

#[tokio::test]
async fn node_that_is_no_member_is_refused_reported_and_invited() {
    let secret = new_secret();
    let mut member = Node::member(options("b", 2, &secret), 2);
    let mut stranger = Node::member(options("a", 1, &secret), 1);
    stranger.transport.set_peers(vec![member.as_peer()]);
    let refusals = (member.refusal().await, stranger.refusal().await);
    both_are(&refusals, RefusalCode::NotMember);
    let name = member
        .wait("a stranger", |event| match event {
            Event::Stranger { hello } => Some(hello.name.clone()),
            _ => None,
        })
        .await;
    assert_eq!(name, "a");
    let invitation = invitation(&mut stranger).await;
    assert_eq!(invitation.lineage, LINEAGE);
    assert_eq!(invitation.members, [("b".to_owned(), "b:1".to_owned())]);
}

async fn invitation(node: &mut Node) -> Invitation {
    node.wait("an invitation", |event| match event {
        Event::Invited { lineage, members } => Some(Invitation {
            lineage: *lineage,
            members: members.clone(),
        }),
        _ => None,
    })
    .await
}

#[tokio::test]
async fn wiped_node_that_a_member_dials_learns_of_its_cluster() {
    let secret = new_secret();
    let mut member = Node::member(options("a", 1, &secret), 1);
    let mut wiped = Node::start(options("b", 55, &secret), 0);
    let mut peer = wiped.as_peer();
    (peer.id, peer.directory) = (NodeId(2), DirectoryId(2));
    member.transport.set_peers(vec![peer]);
    let refusals = (member.refusal().await, wiped.refusal().await);
    both_are(&refusals, RefusalCode::Blank);
    let invitation = invitation(&mut wiped).await;
    assert_eq!(invitation.lineage, LINEAGE);
    let members = [
        ("a".to_owned(), "a:1".to_owned()),
        ("b".to_owned(), wiped.address().to_string()),
    ];
    assert_eq!(invitation.members, members);
    let hello = member
        .wait("a stranger", |event| match event {
            Event::Stranger { hello } => Some(hello.clone()),
            _ => None,
        })
        .await;
    assert_eq!((hello.directory, hello.lineage), (DirectoryId(55), None));
}

#[tokio::test]
async fn two_nodes_of_one_name_are_refused() {
    let secret = new_secret();
    let mut first = Node::member(options("a", 1, &secret), 1);
    let mut twin = Node::member(options("a", 2, &secret), 2);
    let mut peer = twin.as_peer();
    peer.name = "b".to_owned();
    first.transport.set_peers(vec![peer]);
    let refusals = (first.refusal().await, twin.refusal().await);
    both_are(&refusals, RefusalCode::Name);
    assert!(
        refusals.0.message.contains("two nodes are called `a`"),
        "{}",
        refusals.0
    );
}

/// Of a node that lost its place, only this tells that it stays so.
#[tokio::test]
async fn either_side_hears_of_every_refusal_while_one_keeps_dialling() {
    let secret = new_secret();
    let mut first = Node::member(options("a", 1, &secret), 1);
    let mut second = Node::member(options("b", 2, &secret), 2);
    first.transport.set_peers(vec![second.as_peer()]);
    for _ in 0..3 {
        assert_eq!(first.refusal().await.by, RefusedBy::Them);
        assert_eq!(second.refusal().await.by, RefusedBy::Us);
    }
}

#[tokio::test]
async fn question_with_another_secret_is_refused_with_its_reason() {
    let secret = new_secret();
    let asker = Node::start(options("x", 9, &Secret::clone(&new_secret())), 0);
    let node = Node::start(options("b", 2, &secret), 2);
    let address = node.address().to_string();
    let error = asker
        .transport
        .ask(&address, None, Ask::WhoAreYou, SOON)
        .await
        .unwrap_err();
    let ConnectError::Refused(refusal) = error else {
        panic!("{error}");
    };
    assert_eq!(refusal.code, RefusalCode::Secret);
}

/// The clock of this machine, some years fast.
struct FastClock(Arc<dyn Clock>);

impl Clock for FastClock {
    fn now(&self) -> Instant {
        self.0.now()
    }

    fn wall(&self) -> SystemTime {
        self.0.wall() + Duration::from_secs(3 * 366 * 24 * 3600)
    }

    fn sleep_until(&self, deadline: Instant) -> BoxFuture<'static, ()> {
        self.0.sleep_until(deadline)
    }
}

#[tokio::test]
async fn clock_that_is_years_off_is_named_as_the_reason_on_both_sides() {
    let secret = new_secret();
    let mut ports = system();
    ports.clock = Arc::new(FastClock(ports.clock));
    let mut fast = Node::start_on(&ports, options("a", 1, &secret), 1).unwrap();
    fast.transport.set_identity(Some((LINEAGE, NodeId(1))));
    let mut right = Node::member(options("b", 2, &secret), 2);
    introduce(&[&fast, &right]);
    let refusals = (fast.refusal().await, right.refusal().await);
    both_are(&refusals, RefusalCode::Clock);
}

#[tokio::test]
async fn node_that_was_removed_is_told_so_whatever_it_wants_and_is_not_invited() {
    let secret = new_secret();
    let mut member = Node::member(options("b", 2, &secret), 2);
    let mut removed = Node::member(options("a", 1, &secret), 1);
    let newer = Node::member(options("c", 3, &secret), 3);
    let taken_in = TakenIn {
        below: NodeId(3),
        index: Index(57),
    };
    member.transport.set_taken_in(Some(taken_in));
    removed.transport.set_peers(vec![member.as_peer()]);
    let refusals = (member.refusal().await, removed.refusal().await);
    both_are(&refusals, RefusalCode::Removed);
    for refusal in [&refusals.0, &refusals.1] {
        let message = &refusal.message;
        assert!(
            message.contains("node `a` was removed") && message.contains("57"),
            "{message}"
        );
    }
    let address = member.address().to_string();
    let asked = removed
        .transport
        .ask(&address, Some("b"), Ask::WhoAreYou, SOON)
        .await;
    assert!(matches!(asked, Err(ConnectError::Refused(refusal)) if refusal.code == RefusalCode::Removed));
    // One that this member has yet to hear of may have joined just now.
    newer.transport.set_peers(vec![member.as_peer()]);
    let asking = newer.transport.ask(&address, Some("b"), Ask::WhoAreYou, SOON);
    let answering = member.wait("the question", |event| match event {
        Event::Ask { from, .. } => Some(from.name.clone()),
        _ => None,
    });
    let name = tokio::select! {
        biased;
        name = answering => name,
        answer = asking => panic!("answered by nobody: {answer:?}"),
    };
    assert_eq!(name, "c");
    assert!(
        removed
            .try_next()
            .is_none_or(|event| !matches!(event, Event::Invited { .. }))
    );
}
