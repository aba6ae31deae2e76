//! What the transport costs on this machine, between processes on loopback:
//! `cargo run --release -p quorate --example transport_cost`.
//!
//! It starts itself again as further nodes, which end when their standard input does. Processor time is that of the
//! whole process, both sides apart.
#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on panics")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate::port::system::{ListenerOptions, ports};
use quorate::transport::{Event, Events, Frame, Options, Peer, Protocols, Secret, Transport};
use quorate_core::raft::{
    Body, DirectoryId, Entry, Index, Lineage, LinkEvent, Message, NodeId, Payload, Position, Term,
};
use rustix::time::{ClockId, clock_gettime};

const HEARTBEAT: Duration = Duration::from_millis(50);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    // As a task: waking the future that `block_on` runs itself costs a system call each time.
    let task = match arguments.as_slice() {
        [secret, number] => runtime.spawn(child(secret.clone(), number.parse().unwrap())),
        _ => runtime.spawn(parent()),
    };
    runtime.block_on(task).unwrap();
}

fn start(secret: &Secret, number: u64) -> (Transport, Events) {
    let name = format!("node{number}");
    let listener = ListenerOptions {
        tcp_nodelay: true,
        keepalive: false,
    };
    let options = Options {
        cluster: "cost".to_owned(),
        cluster_address: format!("{name}:1"),
        client_address: format!("{name}:2"),
        name,
        directory: DirectoryId(u128::from(number)),
        bind: ([127, 0, 0, 1], 0).into(),
        secrets: vec![secret.clone()],
        protocols: Protocols::CURRENT,
    };
    let (transport, events) = Transport::start(&ports(listener), options).unwrap();
    transport.set_identity(Some((Lineage(1), NodeId(number))));
    (transport, events)
}

fn peer(number: u64, address: &str) -> Peer {
    Peer {
        id: NodeId(number),
        name: format!("node{number}"),
        directory: DirectoryId(u128::from(number)),
        cluster_address: address.to_owned(),
    }
}

/// Processor time of this process so far.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// A follower: echoes every frame, takes transfers, watches node 1. Each line on its input is a list of peers
/// (`number=address ...`), or `cpu` to print its processor time.
async fn child(secret: String, number: u64) {
    let (transport, mut events) = start(&Secret::parse(&secret).unwrap(), number);
    transport.watch_closely(Some(NodeId(1)));
    println!("{}", transport.local_address().unwrap());
    let (sender, mut lines) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            if sender.send(line.unwrap()).is_err() {
                return;
            }
        }
    });
    loop {
        tokio::select! {
            biased;
            event = events.next() => match event {
                Some(Event::Frame { peer, frame }) => drop(transport.send(peer, &frame)),
                Some(Event::Bulk { mut stream, .. }) => drop(tokio::spawn(async move {
                    while stream.receiver.read_chunk().await.unwrap().is_some() {}
                    stream.sender.write_message(b"done").await.unwrap();
                })),
                Some(_) => {}
                None => return,
            },
            line = lines.recv() => match line.as_deref() {
                Some("cpu") => println!("{}", processor_time().as_nanos()),
                Some(peers) => transport.set_peers(
                    peers.split(' ').map(|one| {
                        let (number, address) = one.split_once('=').unwrap();
                        peer(number.parse().unwrap(), address)
                    }).collect(),
                ),
                None => return,
            },
        }
    }
}

struct Follower {
    process: Child,
    input: ChildStdin,
    output: std::io::Lines<BufReader<std::process::ChildStdout>>,
    number: u64,
    address: String,
}

impl Follower {
    fn start(secret: &Secret, number: u64) -> Follower {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args([secret.reveal(), number.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap()).lines();
        Follower {
            address: output.next().unwrap().unwrap(),
            input: process.stdin.take().unwrap(),
            process,
            output,
            number,
        }
    }

    fn processor_time(&mut self) -> Duration {
        writeln!(self.input, "cpu").unwrap();
        Duration::from_nanos(self.output.next().unwrap().unwrap().parse().unwrap())
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn frame(bytes: usize) -> Frame {
    let position = Position {
        term: Term(1),
        index: Index(1),
    };
    Frame::Raft(Message {
        term: Term(1),
        body: Body::Append {
            previous: position,
            entries: vec![Entry {
                position,
                payload: Payload::Command(Bytes::from(vec![7; bytes])),
            }]
            .into(),
            commit: Index(1),
        },
    })
}

fn heartbeat(round: u64) -> Frame {
    Frame::Raft(Message {
        term: Term(1),
        body: Body::Heartbeat {
            commit: Index(1),
            round,
            lease: None,
        },
    })
}

struct Leader {
    transport: Transport,
    events: Events,
    followers: Vec<Follower>,
}

async fn cluster(followers: u64) -> Leader {
    let secret = Secret::generate(
        ports(ListenerOptions {
            tcp_nodelay: true,
            keepalive: false,
        })
        .entropy
        .as_ref(),
    )
    .unwrap();
    let (transport, mut events) = start(&secret, 1);
    let mut followers: Vec<Follower> = (2..2 + followers)
        .map(|number| Follower::start(&secret, number))
        .collect();
    let mut addresses = vec![format!("1={}", transport.local_address().unwrap())];
    addresses.extend(
        followers
            .iter()
            .map(|follower| format!("{}={}", follower.number, follower.address)),
    );
    for follower in &mut followers {
        writeln!(follower.input, "{}", addresses.join(" ")).unwrap();
    }
    transport.set_peers(
        followers
            .iter()
            .map(|follower| peer(follower.number, &follower.address))
            .collect(),
    );
    let mut connected = 0;
    while connected < followers.len() {
        if let Some(Event::Link {
            event: LinkEvent::Connected,
            ..
        }) = events.next().await
        {
            connected += 1;
        }
    }
    Leader {
        transport,
        events,
        followers,
    }
}

impl Leader {
    async fn frame(&mut self) {
        while !matches!(self.events.next().await, Some(Event::Frame { .. })) {}
    }

    async fn round_trips(&mut self, pipelined: usize, rounds: usize, bytes: usize) {
        let frame = frame(bytes);
        let to = NodeId(2);
        let mut times = Vec::with_capacity(rounds);
        let (mut own, mut other) = (Duration::ZERO, Duration::ZERO);
        for round in 0..rounds + rounds / 10 {
            if round == rounds / 10 {
                (own, other) = (processor_time(), self.followers[0].processor_time());
            }
            let began = Instant::now();
            for _ in 0..pipelined {
                self.transport.send(to, &frame).unwrap();
            }
            for _ in 0..pipelined {
                self.frame().await;
            }
            if round >= rounds / 10 {
                times.push(began.elapsed());
            }
        }
        let own = (processor_time() - own) / rounds as u32;
        let other = (self.followers[0].processor_time() - other) / rounds as u32;
        times.sort();
        println!(
            "{pipelined:3} x {bytes} B there and back: p50 {:?}, p99 {:?}; processor time {own:?} + {other:?}",
            times[times.len() / 2],
            times[times.len() * 99 / 100]
        );
    }

    async fn idle(&mut self, seconds: u64, beating: bool) {
        let limit = Duration::from_secs(seconds);
        let began = Instant::now();
        let own = processor_time();
        let others: Vec<Duration> = self.followers.iter_mut().map(Follower::processor_time).collect();
        let mut ticks = tokio::time::interval(HEARTBEAT);
        let mut round = 0;
        while began.elapsed() < limit {
            tokio::select! {
                biased;
                _ = self.events.next() => {}
                _ = ticks.tick() => {
                    round += 1;
                    for follower in &self.followers {
                        if beating {
                            self.transport.send(NodeId(follower.number), &heartbeat(round)).unwrap();
                        }
                    }
                }
            }
        }
        let share = |time: Duration| 100.0 * time.as_secs_f64() / began.elapsed().as_secs_f64();
        let own = share(processor_time() - own);
        let others: Vec<String> = self
            .followers
            .iter_mut()
            .zip(others)
            .map(|(follower, before)| format!("{:.2} %", share(follower.processor_time() - before)))
            .collect();
        println!(
            "{} nodes {}: leader {own:.2} % of a core, followers {}",
            others.len() + 1,
            if beating { "with heartbeats" } else { "silent" },
            others.join(", ")
        );
    }

    async fn bulk(&mut self, total: usize) {
        let transport = self.transport.clone();
        let (own, other) = (processor_time(), self.followers[0].processor_time());
        let began = Instant::now();
        let mut sending = tokio::spawn(async move {
            let mut stream = transport.open_bulk(NodeId(2), b"").await.unwrap();
            let chunk = Bytes::from(vec![1; 256 << 10]);
            for _ in 0..total / chunk.len() {
                stream.sender.write_chunk(chunk.clone()).await.unwrap();
            }
            stream.sender.finish();
            stream.receiver.read_message().await.unwrap();
        });
        let mut delays = Vec::new();
        for round in 0.. {
            let sent = Instant::now();
            self.transport.send(NodeId(2), &heartbeat(round)).unwrap();
            self.frame().await;
            delays.push(sent.elapsed());
            let pause = tokio::time::sleep(Duration::from_millis(2));
            tokio::select! {
                biased;
                result = &mut sending => { result.unwrap(); break; }
                () = pause => {}
            }
        }
        let elapsed = began.elapsed();
        let own = processor_time() - own;
        let other = self.followers[0].processor_time() - other;
        delays.sort();
        let mebibytes = (total >> 20) as f64;
        println!(
            "bulk of {mebibytes} MiB: {:.0} MiB/s, processor time {own:?} + {other:?}; {} heartbeats beside it: p50 {:?}, p99 {:?}, worst {:?}",
            mebibytes / elapsed.as_secs_f64(),
            delays.len(),
            delays[delays.len() / 2],
            delays[delays.len() * 99 / 100],
            delays[delays.len() - 1]
        );
    }
}

async fn parent() {
    let mut two = cluster(1).await;
    two.round_trips(1, 20_000, 300).await;
    two.round_trips(64, 5_000, 300).await;
    two.round_trips(1, 200, 1 << 20).await;
    two.bulk(1 << 30).await;
    println!(
        "round trip as QUIC estimates it: {:?}",
        two.transport.peer_rtt(NodeId(2)).unwrap()
    );
    drop(two);
    let mut three = cluster(2).await;
    three.idle(10, false).await;
    three.idle(10, true).await;
}
