//! Quorate beside etcd: the same load on three nodes of each, in one run.
//!
//! Both sides take turns, each on a fresh cluster on this machine while the other does not run, with one operation a
//! request, a closed loop of clients with a connection each, the same keys and values, and the same load generator.
//! Figures are the medians of the rounds. etcd runs with its own defaults; for the failover it also runs with election
//! and heartbeat times as short as it is commonly given. Without etcd, Quorate is measured alone.

mod cluster;
mod etcd;
mod failover;
mod idle;
mod load;
mod metrics;
mod random;
mod table;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use cluster::{Cluster, Side};
use failover::Gaps;
use idle::Idle;
use load::{Figures, Load, Operation};
use table::Report;

/// Measures three nodes of Quorate and, where Debian's etcd-server is installed, three of etcd.
#[derive(Debug, Parser)]
#[command(
    name = "compare",
    after_help = "Examples:\n  just bench\n  cargo run --release -p quorate-benches --bin compare -- --only put --clients 64 --rounds 1"
)]
struct Arguments {
    /// What to measure [default: everything]
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Clients, each with one request under way
    #[arg(long, value_delimiter = ',', default_value = "1,64,256")]
    clients: Vec<usize>,
    /// Rounds; both sides are measured in each, in turn
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: u32,
    /// Seconds before counting begins
    #[arg(long, default_value_t = 5)]
    warm_up: u64,
    /// Seconds that count
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Kills of the leader for the failover
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=999))]
    kills: u32,
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    Put,
    Get,
    Failover,
    Idle,
}

impl Arguments {
    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    /// The loads of one round.
    fn loads(&self) -> Vec<Load> {
        let load = |operation, clients| Load {
            operation,
            clients,
            value_bytes: 256,
            keys: 10_000,
            warm_up: Duration::from_secs(self.warm_up),
            measured: Duration::from_secs(self.seconds),
        };
        let mut loads = Vec::new();
        if self.wants(Part::Put) {
            loads.extend(self.clients.iter().map(|clients| load(Operation::Put, *clients)));
        }
        if self.wants(Part::Get) {
            loads.push(load(Operation::Get, 64));
        }
        loads
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut sides = vec![Side::Quorate];
    if etcd::is_installed() {
        sides.push(Side::Etcd { short: false });
    } else {
        eprintln!(
            "skipped: etcd-server is not installed (apt-get install etcd-server); Quorate is measured alone"
        );
    }
    match measure(&arguments, &sides) {
        Ok(report) if arguments.json => println!("{}", report.json()),
        Ok(report) => print!("{}", report.text()),
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn measure(arguments: &Arguments, sides: &[Side]) -> Result<Report, String> {
    let loads = arguments.loads();
    let mut report = Report::new(arguments.rounds);
    let bar = table::progress(u64::from(arguments.rounds) * (sides.len() * loads.len()) as u64);
    for round in 0..arguments.rounds {
        let mut turn = sides.to_vec();
        if round % 2 == 1 {
            turn.reverse();
        }
        for side in turn {
            if loads.is_empty() {
                break;
            }
            let cluster = Cluster::start(side)?;
            for load in &loads {
                bar.set_message(format!("{} {load}", side.name()));
                let figures: Figures = load.run(&cluster)?;
                report.measured(side, load, figures);
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    if arguments.wants(Part::Failover) {
        for side in sides.iter().copied().chain(short_etcd(sides)) {
            let gaps: Gaps = failover::measure(side, arguments.kills)?;
            report.failed_over(side, gaps);
        }
    }
    if arguments.wants(Part::Idle) {
        for side in sides {
            let idle: Vec<Idle> = idle::measure(*side)?;
            report.idled(*side, &idle);
        }
    }
    Ok(report)
}

/// etcd with times as short as it is commonly given, if it is there at all.
fn short_etcd(sides: &[Side]) -> Option<Side> {
    sides
        .contains(&Side::Etcd { short: false })
        .then_some(Side::Etcd { short: true })
}
