//! A process that is killed.

use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate::port::{BoxFuture, Listener, Network, Probe};
use quorate::transport::{Peer, Secret};
use quorate_core::raft::{DirectoryId, LinkEvent, NodeId};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{LINEAGE, Node, heartbeat, new_secret, options, system};

/// Set in the process that a test starts and kills.
const SECRET_VARIABLE: &str = "QUORATE_TEST_CHILD_SECRET";
const PEER_VARIABLE: &str = "QUORATE_TEST_CHILD_PEER";

const ANY_PORT: &str = "127.0.0.1:0";

/// A node in a process of its own: this test binary, running only `child_process`. Killed when dropped.
struct Victim {
    process: Child,
    peer: Peer,
}

impl Victim {
    /// Node 2 under `name`, bound to `bind`, with `peer` as its only peer.
    fn start(name: &str, bind: &str, secret: &Secret, peer: &Peer) -> Victim {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "death::child_process", "--nocapture", "--ignored"])
            .env(SECRET_VARIABLE, secret.reveal())
            .env(
                PEER_VARIABLE,
                format!("{name} {bind} {} {}", peer.name, peer.cluster_address),
            )
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let address = lines
            .find_map(|line| Some(line.ok()?.split_once("listening at ")?.1.to_owned()))
            .expect("the child says where it listens");
        let peer = Peer {
            id: NodeId(2),
            name: name.to_owned(),
            directory: DirectoryId(2),
            cluster_address: address,
        };
        Victim { process, peer }
    }

    fn kill(&mut self) -> Instant {
        self.process.kill().unwrap();
        let killed = Instant::now();
        self.process.wait().unwrap();
        killed
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Not a test: what the process that is killed runs.
#[tokio::test]
#[ignore = "run by the other tests of this file, in a process of its own"]
async fn child_process() {
    let (Ok(secret), Ok(peer)) = (std::env::var(SECRET_VARIABLE), std::env::var(PEER_VARIABLE)) else {
        return;
    };
    let parts: Vec<&str> = peer.split(' ').collect();
    let mut own = options(parts[0], 2, &Secret::parse(&secret).unwrap());
    own.bind = parts[1].parse().unwrap();
    let mut node = Node::member(own, 2);
    node.transport.set_peers(vec![Peer {
        id: NodeId(1),
        name: parts[2].to_owned(),
        directory: DirectoryId(1),
        cluster_address: parts[3].to_owned(),
    }]);
    println!("listening at {}", node.address());
    let life = async {
        loop {
            node.next().await;
        }
    };
    // Ends by itself if the test that started it could not kill it.
    let _: Result<(), _> = tokio::time::timeout(Duration::from_secs(60), life).await;
}

#[tokio::test]
async fn killed_process_is_noticed_in_milliseconds_whoever_dialled() {
    for (survivor, victim) in [("a", "b"), ("b", "a")] {
        let secret = new_secret();
        let mut times = Vec::new();
        for _ in 0..5 {
            let mut node = Node::member(options(survivor, 1, &secret), 1);
            let mut victim = Victim::start(victim, ANY_PORT, &secret, &node.as_peer());
            node.transport.watch_closely(Some(NodeId(2)));
            node.transport.set_peers(vec![victim.peer.clone()]);
            node.link(NodeId(2), LinkEvent::Connected).await;
            let killed = victim.kill();
            node.link(NodeId(2), LinkEvent::Refused).await;
            times.push(killed.elapsed());
        }
        times.sort();
        eprintln!("death of a killed process noticed after {times:?}");
        assert!(times[2] < Duration::from_millis(100), "{times:?}");
    }
}

/// Sockets of this machine, without the means to ask whether a port is in use.
struct NoProbes(Arc<dyn Network>);

impl Network for NoProbes {
    fn bind_quic(&self, address: SocketAddr) -> io::Result<Arc<dyn quinn::AsyncUdpSocket>> {
        self.0.bind_quic(address)
    }

    fn quic_runtime(&self) -> Arc<dyn quinn::Runtime> {
        self.0.quic_runtime()
    }

    fn tls(&self) -> Arc<rustls::crypto::CryptoProvider> {
        self.0.tls()
    }

    fn probe(&self, _address: SocketAddr) -> io::Result<Box<dyn Probe>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn resolve<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        self.0.resolve(address)
    }

    fn listen(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        self.0.listen(address)
    }
}

#[tokio::test]
async fn restarted_process_is_noticed_by_its_reset_of_the_old_connection() {
    let secret = new_secret();
    let mut ports = system();
    ports.network = Arc::new(NoProbes(ports.network));
    let mut node = Node::start_on(&ports, options("a", 1, &secret), 1).unwrap();
    node.transport.set_identity(Some((LINEAGE, NodeId(1))));
    // The successor does not dial, since its name is the greater one: only a reset can end the old connection before
    // its silence does, which would count as lost.
    let mut victim = Victim::start("b", ANY_PORT, &secret, &node.as_peer());
    node.transport.set_peers(vec![victim.peer.clone()]);
    node.link(NodeId(2), LinkEvent::Connected).await;
    victim.kill();
    let _successor = Victim::start("b", &victim.peer.cluster_address, &secret, &node.as_peer());
    let restarted = Instant::now();
    node.transport.send(NodeId(2), &heartbeat(1)).unwrap();
    node.link(NodeId(2), LinkEvent::Refused).await;
    eprintln!(
        "restart noticed {:?} after a heartbeat was sent",
        restarted.elapsed()
    );
    node.link(NodeId(2), LinkEvent::Connected).await;
}

#[tokio::test]
async fn frozen_process_is_lost_and_found_again_when_it_goes_on() {
    let secret = new_secret();
    let mut node = Node::member(options("a", 1, &secret), 1);
    let victim = Victim::start("b", ANY_PORT, &secret, &node.as_peer());
    let process = Pid::from_raw(victim.process.id() as i32).unwrap();
    node.transport.watch_closely(Some(NodeId(2)));
    node.transport.set_peers(vec![victim.peer.clone()]);
    node.link(NodeId(2), LinkEvent::Connected).await;
    kill_process(process, Signal::STOP).unwrap();
    let frozen = Instant::now();
    node.link(NodeId(2), LinkEvent::Lost).await;
    eprintln!("frozen process lost after {:?}", frozen.elapsed());
    assert!(
        frozen.elapsed() < Duration::from_secs(5),
        "{:?}",
        frozen.elapsed()
    );
    kill_process(process, Signal::CONT).unwrap();
    node.link(NodeId(2), LinkEvent::Connected).await;
}

#[tokio::test]
async fn killed_and_restarted_process_is_connected_again_soon_whoever_dials() {
    for (survivor, victim) in [("a", "b"), ("b", "a")] {
        let secret = new_secret();
        let mut node = Node::member(options(survivor, 1, &secret), 1);
        let mut process = Victim::start(victim, ANY_PORT, &secret, &node.as_peer());
        node.transport.set_peers(vec![process.peer.clone()]);
        node.link(NodeId(2), LinkEvent::Connected).await;
        process.kill();
        node.link(NodeId(2), LinkEvent::Refused).await;
        // Long enough that the wait between attempts has grown to its limit.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let _successor = Victim::start(victim, &process.peer.cluster_address, &secret, &node.as_peer());
        let restarted = Instant::now();
        node.link(NodeId(2), LinkEvent::Connected).await;
        eprintln!("connected {:?} after the process was back", restarted.elapsed());
        assert!(
            restarted.elapsed() < Duration::from_secs(2),
            "{:?}",
            restarted.elapsed()
        );
    }
}
