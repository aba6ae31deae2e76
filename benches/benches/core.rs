//! Consensus alone: three members in one thread, with a network and disks that take no time.
//!
//! What is measured is the work of [`Raft`] for one batch of commands, from the proposal until every member has applied
//! all that it knows to be committed: with real networks and disks this is the processor time that consensus adds.
//!
//! `cargo bench -p quorate-benches --bench core -- --quick` gives a rough answer in seconds.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use quorate_core::Instant;
use quorate_core::raft::*;

/// Members of a group, and what is under way between them.
struct Group {
    members: Vec<Raft>,
    queue: VecDeque<(usize, Input)>,
    /// Members with inputs since their last drain.
    touched: Vec<bool>,
    effects: Effects,
    now: Instant,
    next_token: u64,
    committed: u64,
}

impl Group {
    /// A group of `size` whose first member leads.
    fn new(size: u64) -> Group {
        let member = |id: u64| Member::named(id.to_string(), DirectoryId(u128::from(id)));
        let members: BTreeMap<NodeId, Member> = (1..=size).map(|id| (NodeId(id), member(id))).collect();
        let boot = |id: NodeId| Boot::blank(id, Membership::bootstrap(Lineage(1), members.clone()));
        let now = Instant::from_nanoseconds(1);
        let start = |id: &NodeId| Raft::new(Config::default(), boot(*id), [id.0 as u8; 32], now).unwrap();
        let mut group = Group {
            members: members.keys().map(start).collect(),
            queue: VecDeque::new(),
            touched: vec![false; members.len()],
            effects: Effects::default(),
            now: now + Duration::from_secs(1),
            next_token: 0,
            committed: 0,
        };
        group.queue.push_back((0, Input::Timeout));
        group.run();
        assert_eq!(group.members[0].status().role, Role::Leader);
        group
    }

    /// Proposes a batch of commands and runs until nothing is under way.
    fn commit(&mut self, command: &Bytes, batch: u64) {
        for _ in 0..batch {
            self.next_token += 1;
            let token = Token(self.next_token);
            let command = command.clone();
            self.queue.push_back((0, Input::Propose { token, command }));
        }
        let before = self.committed;
        self.run();
        assert_eq!(self.committed - before, batch, "everything was committed");
    }

    fn run(&mut self) {
        loop {
            while let Some((member, input)) = self.queue.pop_front() {
                self.members[member].step(self.now, input);
                self.touched[member] = true;
            }
            let Some(member) = self.touched.iter().position(|touched| *touched) else {
                return;
            };
            self.touched[member] = false;
            self.drain(member);
        }
    }

    fn drain(&mut self, member: usize) {
        let effects = &mut self.effects;
        self.members[member].drain(effects);
        let from = NodeId(member as u64 + 1);
        for (to, message) in effects.send.drain(..) {
            let to = usize::try_from(to.0).unwrap() - 1;
            self.queue.push_back((to, Input::Receive { from, message }));
        }
        if let Some(write) = effects.write.drain(..).next_back() {
            let (write, result) = (write.id, Ok(()));
            self.queue.push_back((member, Input::Persisted { write, result }));
        }
        let mut last = None;
        for apply in effects.apply.drain(..) {
            let Apply::Committed(committed) = apply else {
                unreachable!("nobody needs a snapshot")
            };
            self.committed += u64::from(committed.token.is_some());
            last = Some(committed.entry.position.index);
        }
        if let Some(index) = last {
            self.queue.push_back((member, Input::Applied { index }));
        }
        assert!(effects.fetch.is_empty(), "nobody lags");
        effects.outcome.clear();
        effects.trace.clear();
    }
}

fn commits(criterion: &mut Criterion) {
    let command = Bytes::from(vec![7; 256]);
    for size in [3, 5] {
        let mut table = criterion.benchmark_group(format!("{size} members, entries of 256 B"));
        for batch in [1, 64] {
            let mut group = Group::new(size);
            table.throughput(Throughput::Elements(batch));
            table.bench_function(BenchmarkId::new("batch", batch), |bencher| {
                bencher.iter(|| group.commit(&command, batch));
            });
        }
        table.finish();
    }
}

criterion_group!(benches, commits);
criterion_main!(benches);
