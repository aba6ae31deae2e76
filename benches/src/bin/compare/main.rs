//! Quorate beside etcd and NATS JetStream: the same load on three nodes of each, in one run.
//!
//! The sides take turns, each on a fresh cluster on this machine while the others do not run, with one operation a
//! request, a closed loop of clients with a connection each, the same keys and values, and the same load generator.
//! Figures are the medians of the rounds.
//!
//! Keys are compared with etcd, which runs with its own defaults; for the failover it also runs with election and
//! heartbeat times as short as it is commonly given. Streams are compared with NATS JetStream with three replicas, once
//! as it comes, and once syncing each message before it acknowledges it, which Quorate always does; it has no appends of
//! several records, so all messages of a batch are published at once, and then all their acknowledgements are awaited.
//! Without a peer, Quorate is measured alone.

mod cluster;
mod etcd;
mod failover;
mod footprint;
mod idle;
mod load;
mod metrics;
mod nats;
mod own;
mod process;
mod random;
mod rounds;
mod table;
mod tail;
mod usage;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use cluster::{Cluster, Side};
use load::{Load, Operation};
use own::Times;
use rounds::Rounds;
use table::Table;
use tail::TailLoad;

/// Measures three nodes of Quorate and, where they are installed, three of etcd and three of NATS.
#[derive(Debug, Parser)]
#[command(
    name = "compare",
    after_help = "Examples:\n  just bench\n  cargo run --release -p quorate-benches --bin compare -- --only put --clients 64 --rounds 1\n  just bench --only append --seconds 10 --warm-up 2"
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
    Append,
    Tail,
    Failover,
    Idle,
    /// Many watchers, of Quorate alone
    Watch,
    /// Many leases, of Quorate alone
    Leases,
    /// A million keys, once
    Memory,
}

impl Arguments {
    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    fn load(&self, operation: Operation, clients: usize, value_bytes: usize) -> Load {
        Load {
            operation,
            clients,
            value_bytes,
            keys: 10_000,
            warm_up: Duration::from_secs(self.warm_up),
            measured: Duration::from_secs(self.seconds),
        }
    }

    fn puts(&self) -> Vec<Load> {
        let put = |clients: &usize| self.load(Operation::Put, *clients, 256);
        self.clients.iter().map(put).collect()
    }

    fn appends(&self) -> Vec<Load> {
        let mut loads = Vec::new();
        for (batch, clients) in [(1, 64), (100, 16)] {
            let append = |bytes| self.load(Operation::Append { batch }, clients, bytes);
            loads.extend([256, 4096].map(append));
        }
        loads
    }

    fn times(&self) -> Times {
        Times {
            warm_up: self.warm_up,
            measured: self.seconds,
        }
    }

    /// The goal of the design: 20,000 records a second.
    fn tail_load(&self) -> TailLoad {
        TailLoad {
            rate: 20_000,
            batch: 100,
            value_bytes: 256,
            warm_up: Duration::from_secs(self.warm_up),
            measured: Duration::from_secs(self.seconds),
        }
    }
}

/// Who is measured: Quorate, and the peers that are installed.
struct Sides {
    keys: Vec<Side>,
    streams: Vec<Side>,
}

impl Sides {
    /// Says on standard error which versions there are and what is left out.
    fn installed() -> Result<Sides, String> {
        let mut sides = Sides {
            keys: vec![Side::Quorate],
            streams: vec![Side::Quorate],
        };
        match etcd::version() {
            Some(version) => {
                eprintln!("{version}");
                sides.keys.push(Side::Etcd { short: false });
            }
            None => eprintln!("skipped: etcd is not installed (apt-get install etcd-server)"),
        }
        match nats::version() {
            Some(version) => {
                eprintln!("{version}");
                sides.streams.push(Side::Nats { sync_always: false });
                if nats::can_sync_always()? {
                    sides.streams.push(Side::Nats { sync_always: true });
                } else {
                    eprintln!(
                        "skipped: this NATS cannot sync each message; 2.10 and later can (sync_interval: always)"
                    );
                }
            }
            None => eprintln!("skipped: NATS is not installed (apt-get install nats-server)"),
        }
        Ok(sides)
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match Sides::installed().and_then(|sides| measure(&arguments, &sides)) {
        Ok(tables) if arguments.json => println!("{}", table::json(&tables)),
        Ok(_) => {
            println!(
                "Medians of {} rounds; failover, idle nodes and memory once.",
                arguments.rounds
            );
            println!("The sides take turns on fresh clusters; one does not run while another is measured.");
        }
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// All tables; for people each is printed as soon as it is there.
fn measure(arguments: &Arguments, sides: &Sides) -> Result<Vec<Table>, String> {
    let parts = [
        Part::Put,
        Part::Get,
        Part::Append,
        Part::Tail,
        Part::Failover,
        Part::Idle,
        Part::Watch,
        Part::Leases,
        Part::Memory,
    ];
    let mut tables = Vec::new();
    for part in parts.into_iter().filter(|part| arguments.wants(*part)) {
        let table = measure_part(part, arguments, sides)?;
        if !arguments.json {
            println!("{}", table.text());
        }
        tables.push(table);
    }
    Ok(tables)
}

fn measure_part(part: Part, arguments: &Arguments, sides: &Sides) -> Result<Table, String> {
    Ok(match part {
        Part::Put | Part::Get | Part::Append => measure_loads(part, arguments, sides)?,
        Part::Tail => measure_tail(arguments, &sides.streams)?,
        Part::Failover => {
            let sides = sides.keys.iter().copied().chain(short_etcd(&sides.keys));
            failover::table(&each(sides, |side| failover::measure(side, arguments.kills))?)
        }
        Part::Idle => idle::table(&each(sides.keys.iter().copied(), idle::measure)?),
        Part::Watch => measure_watches(arguments)?,
        Part::Leases => {
            let measure = |_| own::leases(arguments.times());
            let rounds: Result<Vec<_>, String> = (0..arguments.rounds).map(measure).collect();
            own::lease_table(&rounds?)
        }
        Part::Memory => footprint::table(&each(sides.keys.iter().copied(), footprint::measure)?),
    })
}

/// What came of each side.
fn each<T>(
    sides: impl Iterator<Item = Side>,
    measure: impl Fn(Side) -> Result<T, String>,
) -> Result<Vec<(Side, T)>, String> {
    sides.map(|side| Ok((side, measure(side)?))).collect()
}

fn measure_loads(part: Part, arguments: &Arguments, sides: &Sides) -> Result<Table, String> {
    let (loads, sides) = match part {
        Part::Append => (arguments.appends(), &sides.streams),
        Part::Get => (vec![arguments.load(Operation::Get, 64, 256)], &sides.keys),
        _ => (arguments.puts(), &sides.keys),
    };
    let mut rounds = Rounds::default();
    let bar = table::progress(u64::from(arguments.rounds) * (loads.len() * sides.len()) as u64);
    for round in 0..arguments.rounds {
        for side in turn(sides, round) {
            let cluster = Cluster::start(side)?;
            for load in &loads {
                bar.set_message(format!("{} {load}", side.name()));
                rounds.add(side, load, load.run(&cluster)?);
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    Ok(rounds.table())
}

fn measure_tail(arguments: &Arguments, sides: &[Side]) -> Result<Table, String> {
    let load = arguments.tail_load();
    let mut deliveries: BTreeMap<Side, Vec<_>> = BTreeMap::new();
    let bar = table::progress(u64::from(arguments.rounds) * sides.len() as u64);
    for round in 0..arguments.rounds {
        for side in turn(sides, round) {
            bar.set_message(format!("{} {load}", side.name()));
            deliveries.entry(side).or_default().push(load.run(side)?);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok(tail::table(&load, &deliveries))
}

fn measure_watches(arguments: &Arguments) -> Result<Table, String> {
    let mut loads: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for _ in 0..arguments.rounds {
        for load in own::WATCH_LOADS {
            let watching = load.run(arguments.times())?;
            loads.entry(load).or_default().push(watching);
        }
    }
    Ok(own::watch_table(&loads))
}

/// Who comes first changes from round to round.
fn turn(sides: &[Side], round: u32) -> Vec<Side> {
    let mut turn = sides.to_vec();
    if round % 2 == 1 {
        turn.reverse();
    }
    turn
}

/// etcd with times as short as it is commonly given, if it is there at all.
fn short_etcd(sides: &[Side]) -> Option<Side> {
    sides
        .contains(&Side::Etcd { short: false })
        .then_some(Side::Etcd { short: true })
}
