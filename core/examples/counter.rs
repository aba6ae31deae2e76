//! A counter replicated over three threads, with channels for a network: `cargo run -p quorate-core --example counter`
#![allow(clippy::unwrap_used, reason = "an example that cannot go on says where")]
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use quorate_core::Instant;
use quorate_core::raft::{Apply, Boot, Config, DirectoryId, Effects, Input, Lineage, Member, Membership};
use quorate_core::raft::{Message, NodeId, Outcome, Payload, Raft, Token};

/// What reaches a node: a message of another one, or a client that adds to the counter.
enum Mail {
    Message(NodeId, Message),
    Add(u8, Sender<Result<u64, Outcome>>),
}

/// Runs one node until every sender of mail is gone.
fn run(id: NodeId, membership: Membership, inbox: &Receiver<Mail>, nodes: &[Sender<Mail>]) {
    let began = std::time::Instant::now();
    let now = || Instant::from_nanoseconds(began.elapsed().as_nanos() as u64);
    let (config, boot) = (Config::default(), Boot::blank(id, membership));
    let mut raft = Raft::new(config, boot, [id.0 as u8; 32], now()).unwrap();
    let (mut counter, mut clients) = (0, BTreeMap::new());
    for number in 1.. {
        // Consensus sleeps until something comes or its deadline is over.
        let due = raft.deadline();
        let wait = due.map_or(Duration::MAX, |due| due.since(now()));
        let input = match inbox.recv_timeout(wait) {
            Ok(Mail::Message(from, message)) => Input::Receive { from, message },
            Ok(Mail::Add(amount, reply)) => {
                clients.insert(Token(number), reply);
                let command = vec![amount].into();
                let token = Token(number);
                Input::Propose { token, command }
            }
            Err(RecvTimeoutError::Timeout) => Input::Timeout,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        raft.step(now(), input);
        // What is carried out is an input again, so this goes on until consensus wants nothing more.
        let mut effects = Effects::default();
        raft.drain(&mut effects);
        while !effects.is_empty() {
            for (to, message) in effects.send {
                nodes[to.0 as usize - 1].send(Mail::Message(id, message)).unwrap();
            }
            for write in effects.write {
                // A node that keeps its promises over a crash syncs its disk here.
                let (write, result) = (write.id, Ok(()));
                raft.step(now(), Input::Persisted { write, result });
            }
            for apply in effects.apply {
                let Apply::Committed(committed) = apply else {
                    unreachable!("no snapshots here")
                };
                for (entry, token) in committed.iter() {
                    if let Payload::Command(command) = &entry.payload {
                        counter += u64::from(command[0]);
                    }
                    if let Some(client) = token.and_then(|token| clients.remove(&token)) {
                        client.send(Ok(counter)).unwrap();
                    }
                    let index = entry.position.index;
                    raft.step(now(), Input::Applied { index });
                }
            }
            for (token, outcome) in effects.outcome {
                clients.remove(&token).unwrap().send(Err(outcome)).unwrap();
            }
            effects = Effects::default();
            raft.drain(&mut effects);
        }
    }
}

fn main() {
    let member = |id: u64| Member::named(id.to_string(), DirectoryId(id.into()));
    let members = (1..=3).map(|id| (NodeId(id), member(id))).collect();
    let membership = Membership::bootstrap(Lineage(1), members);
    let (nodes, inboxes): (Vec<_>, Vec<_>) = (0..3).map(|_| channel()).unzip();
    for (id, inbox) in (1..).map(NodeId).zip(inboxes) {
        let (membership, nodes) = (membership.clone(), nodes.clone());
        std::thread::spawn(move || run(id, membership, &inbox, &nodes));
    }
    let mut sums = Vec::new();
    for node in nodes.iter().cycle().take(3_000) {
        let (reply, answer) = channel();
        node.send(Mail::Add(7, reply)).unwrap();
        match answer.recv_timeout(Duration::from_secs(5)).unwrap() {
            Ok(sum) => sums.push(sum),
            // It does not lead; the next one may.
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
        if sums.len() == 3 {
            break;
        }
    }
    println!("the counter after each addition: {sums:?}");
    assert_eq!(sums, [7, 14, 21]);
}
