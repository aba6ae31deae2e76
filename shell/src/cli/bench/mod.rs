//! `quorate bench put|get|txn|append|watch|tail|leases`: measures a running cluster.
//!
//! All clients run in one thread, so that the load takes as little as possible from a cluster on the same machine. What
//! happens during the warm-up is not counted.

use std::time::Duration;

use bytes::Bytes;
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use quorate_api::{CreateStream, ProblemCode, StreamRetention};
use quorate_client::{Builder, Client, Consistency};

mod closed_loop;
mod leases;
mod paced;
mod processors;
mod report;
mod tail;
mod watch;

use super::connect::ConnectArgs;
use super::error::CliError;
use super::output::warn;

pub(super) const EXAMPLES: &str = "\
Examples:
  quorate bench put
  quorate bench get --clients 64 --consistency serializable
  quorate bench append --batch 100 -w json
  quorate bench tail --rate 20000
  quorate bench watch --watchers 1000 --rate 1000";

/// The pause of a client after an error, so that a broken cluster is not asked in a tight loop.
const ERROR_PAUSE: Duration = Duration::from_millis(10);
/// How long an endpoint may take to show that it is there.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// How many records a stream that is made here keeps.
const STREAM_RECORDS: u64 = 1_000_000;

#[derive(Debug, Subcommand)]
pub(super) enum BenchCommand {
    /// Write random keys
    #[command(after_help = closed_loop::PUT_EXAMPLES)]
    Put(closed_loop::PutArgs),
    /// Read random keys
    #[command(after_help = closed_loop::GET_EXAMPLES)]
    Get(closed_loop::GetArgs),
    /// Compare a random key, then write it and read another one
    #[command(after_help = closed_loop::TXN_EXAMPLES)]
    Txn(closed_loop::TxnArgs),
    /// Append batches of records to a stream
    #[command(after_help = closed_loop::APPEND_EXAMPLES)]
    Append(closed_loop::AppendArgs),
    /// Write keys at a fixed rate, and watch what is written
    #[command(after_help = watch::EXAMPLES)]
    Watch(watch::WatchArgs),
    /// Append to a stream at a fixed rate, and follow it
    #[command(after_help = tail::EXAMPLES)]
    Tail(tail::TailArgs),
    /// Hold many leases, idle, and then kept alive
    #[command(after_help = leases::EXAMPLES)]
    Leases(leases::LeasesArgs),
}

pub(super) async fn run(command: BenchCommand) -> Result<(), CliError> {
    match command {
        BenchCommand::Put(args) => closed_loop::put(args).await,
        BenchCommand::Get(args) => closed_loop::get(args).await,
        BenchCommand::Txn(args) => closed_loop::txn(args).await,
        BenchCommand::Append(args) => closed_loop::append(args).await,
        BenchCommand::Watch(args) => watch::run(&args).await,
        BenchCommand::Tail(args) => tail::run(&args).await,
        BenchCommand::Leases(args) => leases::run(&args).await,
    }
}

/// For how long.
#[derive(Clone, Copy, Debug, Args)]
struct TimeArgs {
    /// How long to measure
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// How many seconds to run before that
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(0..=3600))]
    warmup: u64,
}

/// Servers to look at from outside.
#[derive(Clone, Debug, Args)]
struct ServerArgs {
    /// Processes of servers on this machine, whose processor time is told
    #[arg(long, value_name = "PID,...", value_delimiter = ',')]
    server_pid: Vec<u32>,
}

/// One client for each endpoint that answers, with so many connections to it at most. Nothing is repeated: every failure
/// is counted.
async fn clients(connect: &ConnectArgs, connections_max: u32) -> Result<Vec<Client>, CliError> {
    let timeout = Duration::from_millis(connect.timeout);
    let builder = |endpoint: &String| {
        let builder = Client::builder(endpoint)?
            .rounds_max(1)
            .protocol(connect.protocol.into());
        Ok(builder.connections_max(connections_max as usize))
    };
    let builders: Vec<Builder> = connect
        .endpoint
        .iter()
        .map(builder)
        .collect::<Result<_, CliError>>()?;
    let probes = builders.iter().map(|builder| async move {
        let probe = builder.clone().timeout(timeout.min(PROBE_TIMEOUT)).build();
        probe.status().await
    });
    let answers = futures_util::future::join_all(probes).await;
    let mut clients = Vec::new();
    let mut failures = Vec::new();
    for ((builder, answer), endpoint) in builders.into_iter().zip(answers).zip(&connect.endpoint) {
        match answer {
            Ok(_) => clients.push(builder.timeout(timeout).build()),
            Err(error) => failures.push((endpoint, error)),
        }
    }
    if clients.is_empty()
        && let Some((_, error)) = failures.pop()
    {
        return Err(error.into());
    }
    for (endpoint, error) in failures {
        warn(&format!("{endpoint} is left out: {error}"));
    }
    Ok(clients)
}

/// Makes a stream, if there is none of this name; each node knows it then.
async fn make_stream(clients: &[Client], name: &str) -> Result<(), CliError> {
    let stream = CreateStream {
        name: name.to_owned(),
        partitions: 1,
        retention: StreamRetention {
            records: Some(STREAM_RECORDS),
            ..StreamRetention::default()
        },
        duplicates: None,
    };
    match clients[0].create_stream(&stream).await {
        Err(error) if error.kind() != ProblemCode::StreamExists.as_str() => return Err(error.into()),
        _ => {}
    }
    // Answered by a node when it has applied all that was committed.
    for client in clients {
        client.stream(name, Consistency::Linearizable).await?;
    }
    Ok(())
}

fn value(size: u32) -> Bytes {
    let mut random = Random::new(u64::from(size));
    (0..size).map(|_| b'a' + (random.next() % 26) as u8).collect()
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

    /// A number below `bound`.
    fn below(&mut self, bound: u32) -> u32 {
        (self.next() % u64::from(bound)) as u32
    }
}
