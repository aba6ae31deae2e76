//! The memory of a leader with a long log: bounded by the tail that is configured, however long the log is.
//!
//! The leader takes in a million entries that one of its two followers accepts at once. Then the other one comes back
//! and is brought up from the first entry on, out of the leader's log on disk. The disk is a formula that gives back the
//! entry at an index, so that what is allocated is what consensus holds.
//!
//! `cargo bench -p quorate-benches --bench memory`
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use quorate_core::Instant;
use quorate_core::raft::{
    Apply, Body, Boot, Config, DirectoryId, DiskHealth, Effects, Entry, FeatureLevel, Index, Input, Lineage,
    Member, Membership, Message, NodeId, Payload, Position, PreVote, Raft, Role, Term, Token,
};
use quorate_tests::allocation::{self, Counting};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const ENTRIES: u64 = 1_000_000;
const COMMAND_BYTES: usize = 256;
const BATCH: u64 = 64;
const LEADER: NodeId = NodeId(1);
/// Answers everything at once.
const QUICK: NodeId = NodeId(2);
/// Says nothing until the log is long.
const LATE: NodeId = NodeId(3);

/// A leader, and its followers as far as it sees them.
struct Scene {
    leader: Raft,
    now: Instant,
    /// The last entry that each follower has.
    matched: BTreeMap<NodeId, Index>,
    late_answers: bool,
    next_token: u64,
    /// Entries read back from disk.
    fetched: u64,
}

fn command() -> Bytes {
    Bytes::from(vec![7; COMMAND_BYTES])
}

impl Scene {
    fn new(tail_bytes_max: u64) -> Scene {
        let member = |id: u64| Member::named(id.to_string(), DirectoryId(u128::from(id)));
        let members = (1..=3).map(|id| (NodeId(id), member(id))).collect();
        let config = Config {
            tail_bytes_max,
            ..Config::default()
        };
        let boot = Boot::blank(LEADER, Membership::bootstrap(Lineage(1), members));
        let now = Instant::from_nanoseconds(1);
        let mut scene = Scene {
            leader: Raft::new(config, boot, [1; 32], now).unwrap(),
            now: now + Duration::from_secs(1),
            matched: BTreeMap::from([(QUICK, Index(0)), (LATE, Index(0))]),
            late_answers: false,
            next_token: 0,
            fetched: 0,
        };
        while scene.leader.status().role != Role::Leader {
            scene.wait();
        }
        scene
    }

    fn step(&mut self, input: Input) {
        self.leader.step(self.now, input);
    }

    /// Carries out what the leader wants, until it wants nothing.
    fn run(&mut self) {
        loop {
            let mut effects = Effects::default();
            self.leader.drain(&mut effects);
            if effects.is_empty() {
                return;
            }
            self.carry_out(effects);
        }
    }

    fn carry_out(&mut self, effects: Effects) {
        for (to, message) in effects.send {
            self.answer(to, message);
        }
        for write in effects.write {
            let (write, result) = (write.id, Ok(()));
            self.step(Input::Persisted { write, result });
        }
        for apply in effects.apply {
            let Apply::Committed(committed) = apply else {
                unreachable!("a leader installs nothing")
            };
            let index = committed.entries.last().unwrap().position.index;
            self.step(Input::Applied { index });
        }
        for fetch in effects.fetch {
            let term = self.leader.status().term;
            let size = 32 + COMMAND_BYTES as u64;
            let last = fetch.last.0.min(fetch.first.0 + fetch.bytes_max / size);
            let entries: Vec<Entry> = (fetch.first.0..=last)
                .map(|index| stored(term, Index(index)))
                .collect();
            self.fetched += entries.len() as u64;
            let (fetch, result) = (fetch.id, Ok(entries));
            self.step(Input::Fetched { fetch, result });
        }
        assert!(effects.snapshot.is_empty(), "nothing is purged");
    }

    fn answer(&mut self, follower: NodeId, message: Message) {
        if follower == LATE && !self.late_answers {
            return;
        }
        // A promise is given in the term that its sender is in, which is not the proposed one yet.
        let term = match message.body {
            Body::PreVoteRequest { .. } => Term(message.term.0 - 1),
            _ => message.term,
        };
        let matched = self.matched[&follower];
        let body = match message.body {
            Body::PreVoteRequest { .. } => Body::PreVoteResponse {
                proposed: message.term,
                answer: PreVote::Granted,
            },
            Body::VoteRequest { .. } => Body::VoteResponse { granted: true },
            Body::Append {
                previous, entries, ..
            } if previous.index <= matched => {
                let last = entries
                    .last()
                    .map_or(previous.index, |entry| entry.position.index);
                self.matched.insert(follower, last.max(matched));
                Body::AppendAccepted { matched: last }
            }
            Body::Append { previous, .. } => Body::AppendRejected {
                previous: previous.index,
                hint: Position {
                    term: if matched.0 > 0 { term } else { Term(0) },
                    index: matched,
                },
            },
            Body::Heartbeat { round, .. } => Body::HeartbeatResponse {
                round,
                matched,
                disk: DiskHealth::default(),
                features: FeatureLevel::CURRENT,
                lease: None,
            },
            _ => return,
        };
        let (from, message) = (follower, Message { term, body });
        self.step(Input::Receive { from, message });
    }

    /// Time passes until the leader wants something.
    fn wait(&mut self) {
        self.now = self.leader.deadline().unwrap().max(self.now);
        self.step(Input::Timeout);
        self.run();
    }

    fn propose(&mut self) {
        for _ in 0..BATCH {
            self.next_token += 1;
            let token = Token(self.next_token);
            let command = command();
            self.step(Input::Propose { token, command });
        }
        self.run();
    }
}

/// The entry at `index`, as the leader's disk has it.
fn stored(term: Term, index: Index) -> Entry {
    let position = Position { term, index };
    let payload = match index.0 {
        1 => Payload::Empty,
        _ => Payload::Command(command()),
    };
    Entry { position, payload }
}

fn mebibytes(bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn main() {
    let held = ENTRIES as usize * (COMMAND_BYTES + size_of::<Entry>());
    println!(
        "A leader with {ENTRIES} entries of {COMMAND_BYTES} B in its log: {:.0} MiB if it held them all",
        mebibytes(held)
    );
    println!(
        "{:>12}{:>16}{:>16}{:>30}{:>12}",
        "tail MiB", "allocated MiB", "peak MiB", "peak MiB while one catches up", "of all, %"
    );
    for tail_bytes_max in [1 << 20, 4 << 20, 16 << 20] {
        measure(tail_bytes_max);
    }
}

fn measure(tail_bytes_max: u64) {
    let before = allocation::live();
    allocation::reset_peak();
    let mut scene = Scene::new(tail_bytes_max);
    while scene.leader.status().last.index < Index(ENTRIES) {
        scene.propose();
    }
    let status = scene.leader.status();
    assert_eq!(
        status.applied, status.last.index,
        "everything is committed and applied"
    );
    drop(status);
    let (live, peak) = (allocation::live() - before, allocation::peak() - before);
    allocation::reset_peak();
    scene.late_answers = true;
    while scene.matched[&LATE] < scene.leader.status().last.index {
        scene.wait();
    }
    let caught_up = allocation::peak() - before;
    assert!(scene.fetched >= ENTRIES / 2, "most came from disk");
    let most = peak.max(caught_up);
    println!(
        "{:>12.0}{:>16.1}{:>16.1}{:>30.1}{:>12.1}",
        mebibytes(tail_bytes_max as usize),
        mebibytes(live),
        mebibytes(peak),
        mebibytes(caught_up),
        100.0 * most as f64 / (ENTRIES as usize * (COMMAND_BYTES + size_of::<Entry>())) as f64
    );
    let config = Config::default();
    let bound = 2 * tail_bytes_max + config.in_flight_bytes_max + 2 * config.append_bytes_max;
    assert!(most as u64 <= bound, "{most} bytes are more than {bound}");
}
