//! Transfers between two nodes over real connections, from and to simulated disks.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Mutex;
use std::time::SystemTime;

use quorate_core::raft::{Base, DirectoryId, Lineage, Member, Membership};

use super::*;
use crate::port::BoxFuture;
use crate::port::system::{ListenerOptions, ports as system_ports};
use crate::storage::SnapshotHeader;
use crate::storage::testing::{Disk, Random, ports, run};
use crate::transport::{Event, Events, Options, Peer, Protocols, Secret};

const SENDER: NodeId = NodeId(1);
const RECEIVER: NodeId = NodeId(2);
const TERM: Term = Term(4);
const DEADLINE: Duration = Duration::from_secs(60);

fn home() -> PathBuf {
    PathBuf::from("/data/snapshots")
}

/// A node with its snapshots.
struct Side {
    transport: Transport,
    events: Events,
    snapshots: Snapshots,
    transfers: Rc<Transfers>,
}

fn side(id: NodeId, secret: &Secret, disk: &Disk, rate: u64) -> Side {
    let system = system_ports(ListenerOptions {
        tcp_nodelay: true,
        keepalive: false,
    });
    let options = Options {
        cluster: "test".to_owned(),
        name: id.to_string(),
        directory: DirectoryId(id.0.into()),
        bind: SocketAddr::from(([127, 0, 0, 1], 0)),
        cluster_address: String::new(),
        client_address: String::new(),
        secrets: vec![secret.clone()],
        protocols: Protocols::CURRENT,
    };
    let (transport, events) = Transport::start(&system, options).unwrap();
    transport.set_identity(Some((Lineage(1), id)));
    let snapshots = Snapshots::open(&ports(disk), &home()).unwrap();
    let transfers = Transfers::new(snapshots.clone(), transport.clone(), system.clock, rate);
    Side {
        transport,
        events,
        snapshots,
        transfers: Rc::new(transfers),
    }
}

impl Side {
    fn knows(&self, id: NodeId, other: &Side) {
        self.transport.set_peers(vec![Peer {
            id,
            name: id.to_string(),
            directory: DirectoryId(id.0.into()),
            cluster_address: other.transport.local_address().unwrap().to_string(),
        }]);
    }

    /// The next transfer that the other side begins.
    async fn bulk(&mut self) -> (NodeId, Vec<u8>, BulkStream) {
        let search = async {
            loop {
                if let Event::Bulk { peer, header, stream } = self.events.next().await.unwrap() {
                    return (peer, header, stream);
                }
            }
        };
        tokio::time::timeout(DEADLINE, search).await.expect("a transfer")
    }

    /// Takes in one snapshot.
    async fn take_in(&mut self) -> Result<SnapshotEvent, TransferError> {
        let (peer, header, stream) = self.bulk().await;
        let taking = self.transfers.receive(peer, &header, stream);
        tokio::time::timeout(DEADLINE, taking).await.expect("it ends")
    }
}

fn position(index: u64) -> Position {
    Position {
        term: Term(3),
        index: Index(index),
    }
}

/// A snapshot of some rows of about 1 KB each.
async fn write(snapshots: &Snapshots, index: u64, rows: u64) -> Snapshot {
    let member = Member::new("1", DirectoryId(1), "127.0.0.1:1", "127.0.0.1:2");
    let membership = Membership::bootstrap(Lineage(1), [(SENDER, member)].into());
    let position = position(index);
    let mut writer = snapshots
        .create(SnapshotHeader {
            base: Base { position, membership },
        })
        .unwrap();
    let mut random = Random::new(index);
    for number in 0..rows {
        let key = format!("key-{number:06}").into_bytes();
        writer.push(&key, &random.bytes(1_000)).unwrap();
    }
    writer.finish().await.unwrap()
}

/// Two nodes that know each other; the first one sends at `rate`.
fn pair(secret: &Secret, disks: (&Disk, &Disk), rate: u64) -> (Side, Side) {
    let sender = side(SENDER, secret, disks.0, rate);
    let receiver = side(RECEIVER, secret, disks.1, 0);
    sender.knows(RECEIVER, &receiver);
    receiver.knows(SENDER, &sender);
    (sender, receiver)
}

fn secret() -> Secret {
    let system = system_ports(ListenerOptions {
        tcp_nodelay: true,
        keepalive: false,
    });
    Secret::generate(system.entropy.as_ref()).unwrap()
}

/// How much of a snapshot a disk has.
fn received(disk: &Disk) -> usize {
    let is_part = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "partial");
    let part = disk.paths().into_iter().find(is_part);
    part.map_or(0, |path: PathBuf| disk.content(Path::new(&path)).len())
}

/// Lets a transfer go on until the receiver has `bytes`, and then takes the receiver off the network.
async fn broken_off_after(
    sender: &Side,
    receiver: &mut Side,
    disk: &Disk,
    offer: Vec<Snapshot>,
    bytes: usize,
) {
    let transfers = Rc::clone(&sender.transfers);
    let sending = tokio::task::spawn_local(async move { transfers.send(RECEIVER, TERM, &offer).await });
    let (peer, header, stream) = receiver.bulk().await;
    let transfers = Rc::clone(&receiver.transfers);
    let taking = tokio::task::spawn_local(async move { transfers.receive(peer, &header, stream).await });
    let progress = async {
        while received(disk) < bytes {
            tokio::task::yield_now().await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(DEADLINE, progress).await.expect("progress");
    taking.abort();
    receiver.transport.close("cut").await;
    let sent = tokio::time::timeout(DEADLINE, sending).await.expect("it ends");
    assert!(sent.unwrap().is_err(), "the transfer broke off");
}

/// What a receiver answers to an offer, and nothing else.
async fn asked(sender: &Side, receiver: &mut Side, offer: &[Snapshot]) -> (u64, u64) {
    let offered = |snapshot: &Snapshot| Offered {
        pieces: snapshot.pieces(),
        first: snapshot.read_piece(0).unwrap().into(),
    };
    let header = wire::encode(
        Kind::Frame,
        &Offer {
            term: TERM,
            snapshots: offer.iter().map(offered).collect(),
        },
    );
    let asking = async {
        let mut stream = sender.transport.open_bulk(RECEIVER, &header).await.unwrap();
        let answer = stream.receiver.read_message().await.unwrap();
        wire::decode(Kind::Frame, &answer).unwrap()
    };
    let (Choice { place, next }, taken) = tokio::join!(asking, receiver.take_in());
    assert!(taken.is_err(), "the sender went away");
    (place, next)
}

#[test]
fn a_transfer_goes_on_where_it_broke_off_though_newer_snapshots_were_made() {
    run(async {
        let (secret, here, there) = (secret(), Disk::default(), Disk::default());
        let (sender, mut receiver) = pair(&secret, (&here, &there), 4 << 20);
        let first = write(&sender.snapshots, 7, 4_000).await;
        broken_off_after(&sender, &mut receiver, &there, vec![first.clone()], 1 << 20).await;
        let before = received(&there);
        assert!((1 << 20..4_000_000).contains(&before), "{before} bytes");

        let mut offer = vec![first];
        for index in [8, 9, 10] {
            offer.insert(0, write(&sender.snapshots, index, 10).await);
            sender.transfers.state_durable(Index(index));
            sender.transfers.retain().unwrap();
        }
        let kept = sender.snapshots.list().unwrap();
        assert_eq!(
            kept,
            [7, 9, 10].map(position),
            "what the receiver has a part of is kept"
        );

        // The receiver starts again; it asks for what it lacks of the one that it has a part of.
        there.kill();
        let mut receiver = side(RECEIVER, &secret, &there, 0);
        sender.knows(RECEIVER, &receiver);
        receiver.knows(SENDER, &sender);
        let offer = kept
            .iter()
            .rev()
            .map(|position| sender.snapshots.find(*position).unwrap().unwrap());
        let offer: Vec<Snapshot> = offer.collect();
        let (place, next) = asked(&sender, &mut receiver, &offer).await;
        assert_eq!(place, 2, "the snapshot at 7");
        assert!(next >= 4, "it has {before} bytes and goes on with piece {next}");
        let (sent, taken) = tokio::join!(sender.transfers.send(RECEIVER, TERM, &offer), receiver.take_in());
        sent.expect("sent");
        let event = taken.expect("taken in");
        assert!(
            matches!(&event, SnapshotEvent::Received { base, .. } if base.position == position(7)),
            "{event:?}"
        );
        sender.transfers.retain().unwrap();
        assert_eq!(sender.snapshots.list().unwrap(), [9, 10].map(position));
    });
}

#[test]
fn what_a_receiver_had_whole_when_it_stopped_is_not_sent_again() {
    run(async {
        let (secret, here, there) = (secret(), Disk::default(), Disk::default());
        // At this rate it would take an hour.
        let (sender, mut receiver) = pair(&secret, (&here, &there), 1 << 10);
        let snapshot = write(&sender.snapshots, 7, 4_000).await;
        write(&receiver.snapshots, 7, 4_000).await;
        let offer = [snapshot];
        let sending = sender.transfers.send(RECEIVER, TERM, &offer);
        let (sent, taken) = tokio::join!(sending, receiver.take_in());
        sent.expect("sent");
        assert!(
            matches!(taken, Ok(SnapshotEvent::Received { term: TERM, .. })),
            "{taken:?}"
        );
    });
}

#[test]
fn a_snapshot_that_the_state_has_not_caught_up_with_stays_until_it_has() {
    run(async {
        let disk = Disk::default();
        let side = side(SENDER, &secret(), &disk, 0);
        for index in [10, 20, 30, 40, 50] {
            write(&side.snapshots, index, 1).await;
        }
        let kept = || {
            side.transfers.retain().unwrap();
            let positions = side.snapshots.list().unwrap();
            positions
                .iter()
                .map(|position| position.index.0)
                .collect::<Vec<_>>()
        };
        assert_eq!(kept(), [10, 20, 30, 40, 50], "nothing is known of the state");
        side.transfers.state_durable(Index(20));
        assert_eq!(kept(), [30, 40, 50]);
        side.transfers.state_durable(Index(50));
        assert_eq!(kept(), [40, 50]);
    });
}

/// A clock that is set forward.
struct Ahead(Arc<dyn Clock>, Mutex<Duration>);

impl Clock for Ahead {
    fn now(&self) -> Instant {
        self.0.now() + *self.1.lock().unwrap()
    }

    fn wall(&self) -> SystemTime {
        self.0.wall()
    }

    fn sleep_until(&self, deadline: Instant) -> BoxFuture<'static, ()> {
        self.0.sleep_until(deadline)
    }
}

#[test]
fn snapshots_that_nobody_needs_any_more_are_removed() {
    run(async {
        let disk = Disk::default();
        let side = side(SENDER, &secret(), &disk, 0);
        let clock = Arc::new(Ahead(Arc::clone(&side.transfers.clock), Mutex::default()));
        let transfers = Transfers::new(side.snapshots.clone(), side.transport.clone(), clock.clone(), 0);
        for index in [10, 20, 30, 40] {
            write(&side.snapshots, index, 1).await;
        }
        let kept = || {
            transfers.retain().unwrap();
            let positions = side.snapshots.list().unwrap();
            positions
                .iter()
                .map(|position| position.index.0)
                .collect::<Vec<_>>()
        };
        transfers.state_durable(Index(30));
        transfers.note_part(RECEIVER, position(10), None);
        assert_eq!(kept(), [10, 30, 40]);
        *clock.1.lock().unwrap() += KEPT_FOR / 2;
        transfers.note_need();
        *clock.1.lock().unwrap() += KEPT_FOR / 2;
        assert_eq!(kept(), [10, 30, 40], "they were needed half the time ago");
        *clock.1.lock().unwrap() += KEPT_FOR / 2;
        assert_eq!(
            kept(),
            [10, 40],
            "one is being sent, and one goes beyond the state"
        );
        transfers.note_part(RECEIVER, position(10), Some(clock.now()));
        transfers.state_durable(Index(40));
        assert_eq!(kept(), [10]);
        *clock.1.lock().unwrap() += KEPT_FOR;
        assert_eq!(kept(), [0; 0]);
    });
}

#[test]
fn what_was_received_of_a_snapshot_goes_when_the_state_has_passed_it() {
    run(async {
        let (secret, here, there) = (secret(), Disk::default(), Disk::default());
        let (sender, mut receiver) = pair(&secret, (&here, &there), 4 << 20);
        let snapshot = write(&sender.snapshots, 7, 4_000).await;
        broken_off_after(&sender, &mut receiver, &there, vec![snapshot], 1 << 20).await;
        // The receiver starts again.
        let receiver = side(RECEIVER, &secret, &there, 0);
        receiver.transfers.state_durable(Index(6));
        receiver.transfers.retain().unwrap();
        assert!(received(&there) >= 1 << 20, "the state may need it");
        receiver.transfers.state_durable(Index(7));
        receiver.transfers.retain().unwrap();
        assert_eq!(received(&there), 0);
    });
}

/// A clock on which every wait is over at once.
struct Hasty(Arc<dyn Clock>);

impl Clock for Hasty {
    fn now(&self) -> Instant {
        self.0.now()
    }

    fn wall(&self) -> SystemTime {
        self.0.wall()
    }

    fn sleep_until(&self, _: Instant) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
}

#[test]
fn a_silent_sender_does_not_keep_others_from_sending() {
    run(async {
        let (secret, here, there) = (secret(), Disk::default(), Disk::default());
        let (sender, mut receiver) = pair(&secret, (&here, &there), 0);
        let snapshot = write(&sender.snapshots, 7, 10).await;
        let offer = Offer {
            term: TERM,
            snapshots: vec![Offered {
                pieces: snapshot.pieces(),
                first: snapshot.read_piece(0).unwrap().into(),
            }],
        };
        let header = wire::encode(Kind::Frame, &offer);
        // It opens a transfer, and then stands still.
        let silent = sender.transport.open_bulk(RECEIVER, &header);
        let (silent, (peer, header, stream)) = tokio::join!(silent, receiver.bulk());
        let clock = Arc::new(Hasty(Arc::clone(&receiver.transfers.clock)));
        let impatient = Transfers::new(receiver.snapshots.clone(), receiver.transport.clone(), clock, 0);
        let taken = impatient.receive(peer, &header, stream).await;
        assert!(matches!(taken, Err(TransferError::Silent)), "{taken:?}");
        assert!(!impatient.receiving.get(), "the next one is taken in");
        drop(silent);
    });
}

#[test]
fn a_snapshot_is_sent_no_faster_than_the_rate() {
    run(async {
        let (secret, here, there) = (secret(), Disk::default(), Disk::default());
        let rate = 2 << 20;
        let (sender, mut receiver) = pair(&secret, (&here, &there), rate);
        let snapshot = write(&sender.snapshots, 7, 4_000).await;
        let wanted = Duration::from_millis(snapshot.length() * 1_000 / rate);
        let offer = [snapshot];
        let clock = Arc::clone(&sender.transfers.clock);
        let began = clock.now();
        let sending = sender.transfers.send(RECEIVER, TERM, &offer);
        let (sent, taken) = tokio::join!(sending, receiver.take_in());
        let took = clock.now().since(began);
        sent.expect("sent");
        taken.expect("taken in");
        assert!(took >= wanted * 8 / 10, "{took:?} instead of {wanted:?}");
        // A machine under load may be late, and by how much is not this test's business.
        println!("{took:?} instead of {wanted:?}");
    });
}
