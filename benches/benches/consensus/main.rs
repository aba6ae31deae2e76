//! Consensus beside raft-rs: entries a second that three nodes commit and apply, in one thread.
//!
//! Both sides do the same work in the same run and take turns: the same commands in the same batches, as many under way,
//! appended to three logs in memory, applied on all three nodes and purged at the same places. Nothing is encoded,
//! networks and disks take no time, so that what remains is what consensus costs. The figures are medians of the rounds,
//! in processor time: what else the machine does hardly shows.
//!
//! `cargo bench -p quorate-benches --bench consensus -- --quick` gives a rough answer in seconds.
#![allow(missing_docs, clippy::unwrap_used)]

mod raft_rs;

use std::time::Duration;

use bytes::Bytes;
use clap::{Parser, ValueEnum};
use quorate_benches::group::Group;
use raft_rs::Peer;
use rustix::time::{ClockId, clock_gettime};

const MEMBERS: u64 = 3;
const COMMAND_BYTES: usize = 256;

/// One kind of work.
#[derive(Clone, Copy)]
struct Work {
    batch: u64,
    /// Batches under way at most.
    window: u64,
}

const WORKS: [Work; 4] = [
    Work { batch: 1, window: 1 },
    Work { batch: 1, window: 16 },
    Work { batch: 64, window: 1 },
    Work {
        batch: 64,
        window: 16,
    },
];

/// Commits and applies `entries` on all nodes of `$group`, and returns the processor time that it took.
macro_rules! measure {
    ($group:expr, $work:expr, $entries:expr) => {{
        let (mut group, work, entries): (_, Work, u64) = ($group, $work, $entries);
        let command = Bytes::from(vec![7; COMMAND_BYTES]);
        let started = processor_time();
        let mut proposed = 0;
        while (0..group.size()).any(|member| group.commands(member) < entries) {
            let mut busy = false;
            while proposed < entries && proposed - group.commands(0) < work.batch * work.window {
                group.propose(&command, work.batch);
                proposed += work.batch;
                busy = true;
            }
            for member in (1..group.size()).chain([0]) {
                busy |= group.turn(member);
            }
            if !busy {
                group.pass_time();
            }
        }
        let took = processor_time() - started;
        let expected = entries * (7 + COMMAND_BYTES as u64);
        assert!((0..group.size()).all(|member| group.sum(member) == expected));
        took
    }};
}

/// What to measure, and how well.
#[derive(Debug, Parser)]
struct Arguments {
    /// Fewer entries in fewer rounds
    #[arg(long)]
    quick: bool,
    /// One side alone, to profile it
    #[arg(long, value_enum)]
    only: Option<Side>,
    /// Batches of one size alone
    #[arg(long)]
    batch: Option<u64>,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Side {
    Quorate,
    RaftRs,
}

fn main() {
    let arguments = Arguments::parse();
    let (rounds, scale) = if arguments.quick { (3, 4) } else { (9, 1) };
    println!("{MEMBERS} nodes, entries of {COMMAND_BYTES} B, committed and applied on all of them");
    println!(
        "{:>6}{:>9}{:>22}{:>22}{:>9}",
        "batch", "window", "Quorate entries/s", "raft-rs entries/s", "ratio"
    );
    for work in WORKS {
        if arguments.batch.is_some_and(|batch| batch != work.batch) {
            continue;
        }
        let entries = if work.batch == 1 { 512_000 } else { 4_096_000 } / scale;
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            let mut turn = [Side::Quorate, Side::RaftRs];
            turn.rotate_left(round % 2);
            for side in turn {
                match side {
                    _ if arguments.only.is_some_and(|only| only != side) => {}
                    Side::Quorate => ours.push(measure!(Group::new(MEMBERS), work, entries)),
                    Side::RaftRs => theirs.push(measure!(Peer::new(MEMBERS), work, entries)),
                }
            }
        }
        let (ours, theirs) = (rate(entries, ours), rate(entries, theirs));
        println!(
            "{:>6}{:>9}{ours:>22.0}{theirs:>22.0}{:>9.2}",
            work.batch,
            work.window,
            ours / theirs
        );
    }
    println!("Medians of {rounds} rounds; the sides take turns.");
}

/// How long this thread has had a processor.
fn processor_time() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap()
}

/// Entries a second in the median round.
fn rate(entries: u64, mut rounds: Vec<Duration>) -> f64 {
    rounds.sort_unstable();
    let median = rounds.get(rounds.len() / 2);
    median.map_or(f64::NAN, |median| entries as f64 / median.as_secs_f64())
}
