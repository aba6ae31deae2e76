//! Consensus alone: three members in one thread, with a network and disks that take no time.
//!
//! What is measured is the work of [`Raft`] for one batch of commands, from the proposal until every member has applied
//! all that it knows to be committed.
//!
//! `cargo bench -p quorate-benches --bench core -- --quick` gives a rough answer in seconds.
#![allow(missing_docs)]

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use quorate_benches::group::Group;

/// Proposes a batch of commands and runs until nothing is under way.
fn commit(group: &mut Group, command: &Bytes, batch: u64) {
    let before = group.commands(0);
    group.propose(command, batch);
    group.settle();
    assert_eq!(group.commands(0) - before, batch, "everything was committed");
}

fn commits(criterion: &mut Criterion) {
    let command = Bytes::from(vec![7; 256]);
    for size in [3, 5] {
        let mut table = criterion.benchmark_group(format!("{size} members, entries of 256 B"));
        for batch in [1, 64] {
            let mut group = Group::new(size);
            table.throughput(Throughput::Elements(batch));
            table.bench_function(BenchmarkId::new("batch", batch), |bencher| {
                bencher.iter(|| commit(&mut group, &command, batch));
            });
        }
        table.finish();
    }
}

criterion_group!(benches, commits);
criterion_main!(benches);
