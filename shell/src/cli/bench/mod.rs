//! `quorate bench put|get`: a closed loop of clients against a running cluster.
//!
//! Each client has one request under way, one operation a request. Clients are spread evenly over the endpoints. What
//! happens during the warm-up is not counted. All clients run in one thread, so that the load takes as little as
//! possible from a cluster on the same machine.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use quorate_client::{Client, Consistency, Error, Put};
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep};

mod report;

use report::{Figures, Report};

use super::connect::ConnectArgs;
use super::error::CliError;
use super::output::{Format, print, print_json};

const EXAMPLES: &str = "\
Examples:
  quorate bench put
  quorate bench put --clients 64 --connections 64 --size 256 --keys 10000 --seconds 20
  quorate bench get --clients 64 -w json";

/// The pause of a client after an error, so that a broken cluster is not asked in a tight loop.
const ERROR_PAUSE: Duration = Duration::from_millis(10);
/// How many clients write the keys that `get` reads.
const LOADERS: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Operation {
    /// Write random keys
    Put,
    /// Read random keys
    Get,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ReadMode {
    /// Through the leader's majority
    Linearizable,
    /// From the leader alone while it holds a lease
    Lease,
    /// From the node that is asked
    Serializable,
}

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct BenchArgs {
    /// What to do
    #[arg(value_enum)]
    operation: Operation,
    /// How many requests are under way at a time
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    clients: u32,
    /// How many connections they share [default: one each]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: Option<u32>,
    /// Bytes of a value
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(0..=8 << 20))]
    size: u32,
    /// How many different keys
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    keys: u32,
    /// What the keys begin with
    #[arg(long, default_value = "bench/")]
    prefix: String,
    /// How long to measure
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// How many seconds to run before that
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(0..=3600))]
    warmup: u64,
    /// How fresh a read must be
    #[arg(long, value_enum, default_value = "linearizable")]
    consistency: ReadMode,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// What all clients share.
struct Load {
    operation: Operation,
    consistency: Consistency,
    prefix: String,
    keys: u32,
    value: Bytes,
    /// When counting begins and when everything ends.
    begin: Instant,
    end: Instant,
    figures: RefCell<Figures>,
}

pub(super) async fn run(args: BenchArgs) -> Result<(), CliError> {
    let clients = clients(&args)?;
    // A cluster that is not there is told before anything else.
    clients[0].status().await?;
    if args.operation == Operation::Get {
        fill(&args, &clients).await?;
    }
    let begin = Instant::now() + Duration::from_secs(args.warmup);
    let load = Rc::new(Load {
        operation: args.operation,
        consistency: match args.consistency {
            ReadMode::Linearizable => Consistency::Linearizable,
            ReadMode::Lease => Consistency::Lease,
            ReadMode::Serializable => Consistency::Serializable,
        },
        prefix: args.prefix.clone(),
        keys: args.keys,
        value: value(args.size),
        begin,
        end: begin + Duration::from_secs(args.seconds),
        figures: RefCell::new(Figures::new()),
    });
    let tasks = LocalSet::new();
    for index in 0..args.clients {
        let client = clients[index as usize % clients.len()].clone();
        tasks.spawn_local(worker(Rc::clone(&load), client, u64::from(index)));
    }
    tasks.spawn_local(progress(Rc::clone(&load), args.warmup + args.seconds));
    tasks.await;
    let report = Report::new(&args, &load.figures.borrow());
    match args.connect.format {
        Format::Json => print_json(&report),
        Format::Table => print(&report.to_text(&load.figures.borrow())),
    }
}

/// One client an endpoint, with its share of the connections. Nothing is repeated: every failure is counted.
fn clients(args: &BenchArgs) -> Result<Vec<Client>, CliError> {
    let endpoints = args.connect.endpoint.len();
    let connections = args.connections.unwrap_or(args.clients).min(args.clients) as usize;
    let client = |endpoint: &String| {
        let builder = Client::builder(endpoint)?
            .timeout(Duration::from_millis(args.connect.timeout))
            .rounds_max(1)
            .connections_max(connections.div_ceil(endpoints));
        Ok(builder.build())
    };
    args.connect.endpoint.iter().map(client).collect()
}

fn value(size: u32) -> Bytes {
    let mut random = Random::new(u64::from(size));
    (0..size).map(|_| b'a' + (random.next() % 26) as u8).collect()
}

/// Writes every key once.
async fn fill(args: &BenchArgs, clients: &[Client]) -> Result<(), CliError> {
    let bar = bar(u64::from(args.keys), "writing keys  {bar:30} {pos}/{len}");
    let value = value(args.size);
    let writers = (0..LOADERS as u32).map(|first| {
        let (bar, value, client) = (&bar, &value, &clients[first as usize % clients.len()]);
        async move {
            for number in (first..args.keys).step_by(LOADERS) {
                client
                    .put(
                        key(&args.prefix, number).as_bytes(),
                        value.clone(),
                        Put::default(),
                    )
                    .await?;
                bar.inc(1);
            }
            Ok::<(), Error>(())
        }
    });
    futures_util::future::try_join_all(writers).await?;
    bar.finish_and_clear();
    Ok(())
}

fn key(prefix: &str, number: u32) -> String {
    format!("{prefix}{number:08}")
}

async fn worker(load: Rc<Load>, client: Client, seed: u64) {
    let mut random = Random::new(seed);
    loop {
        let number = (random.next() % u64::from(load.keys)) as u32;
        let key = key(&load.prefix, number);
        let started = Instant::now();
        if started >= load.end {
            return;
        }
        let result = match load.operation {
            Operation::Put => client
                .put(key.as_bytes(), load.value.clone(), Put::default())
                .await
                .map(drop),
            Operation::Get => client.get(key.as_bytes(), load.consistency).await.map(drop),
        };
        let finished = Instant::now();
        let failed = result.is_err();
        if finished >= load.begin && finished < load.end {
            let mut figures = load.figures.borrow_mut();
            match result {
                Ok(()) => figures.succeeded(finished - started, finished - load.begin),
                Err(error) => figures.failed(&error),
            }
        }
        if failed {
            sleep(ERROR_PAUSE).await;
        }
    }
}

async fn progress(load: Rc<Load>, seconds: u64) {
    let bar = bar(seconds, "{msg:30} {bar:30} {pos}/{len} s");
    let mut before = 0;
    for _ in 0..seconds {
        sleep(Duration::from_secs(1)).await;
        bar.inc(1);
        let operations = load.figures.borrow().operations();
        let message = if Instant::now() <= load.begin {
            "warming up".to_owned()
        } else {
            format!("{} operations a second", operations - before)
        };
        before = operations;
        bar.set_message(message);
    }
    bar.finish_and_clear();
}

/// A bar on standard error; nothing where that is no terminal.
fn bar(length: u64, template: &str) -> ProgressBar {
    let bar = ProgressBar::new(length);
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// A small generator (xorshift64*): the same seed gives the same keys in every run.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }
}
