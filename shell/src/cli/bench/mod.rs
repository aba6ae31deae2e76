//! `quorate bench put|get|append|watch`: a closed loop of clients against a running cluster.
//!
//! Each client has one request under way, one operation a request. Clients are spread evenly over the endpoints that
//! answer at the start; a client whose endpoint fails moves on to the next one. What happens during the warm-up is not
//! counted. All clients run in one thread, so that the load takes as little as possible from a cluster on the same
//! machine.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use quorate_api::{AppendRequest, CreateStream, NewRecord, StreamRetention};
use quorate_client::{Client, Consistency, Error, ProblemCode, Put};
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep};

mod report;
mod watch;

use report::{Figures, Report};

use super::connect::ConnectArgs;
use super::error::CliError;
use super::output::{Format, print, print_json, warn};

const EXAMPLES: &str = "\
Examples:
  quorate bench put
  quorate bench put --clients 64 --connections 64 --size 256 --keys 10000 --seconds 20
  quorate bench get --clients 64 -w json
  quorate bench append --clients 16 --batch 100 --size 256
  quorate bench watch --watchers 1000 --rate 1000             a prefix each, of which each write concerns one
  quorate bench watch --watchers 1000 --rate 100 --shared     one prefix, of which all hear of each write";

/// The pause of a client after an error, so that a broken cluster is not asked in a tight loop.
const ERROR_PAUSE: Duration = Duration::from_millis(10);
/// How many records the stream of `append` keeps.
const STREAM_RECORDS: u64 = 1_000_000;
/// How many clients write the keys that `get` reads.
const LOADERS: usize = 64;
/// How often a key is tried at each endpoint before `get` gives up.
const LOADING_ROUNDS: usize = 3;
/// How long an endpoint may take to show that it is there.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Operation {
    /// Write random keys
    Put,
    /// Read random keys
    Get,
    /// Append batches of records to a stream
    Append,
    /// Write at a fixed rate, and watch what is written
    Watch,
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
    /// Records of a batch, of `append`
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batch: u32,
    /// The stream that `append` makes if there is none
    #[arg(long, default_value = "bench")]
    stream: String,
    /// How fresh a read must be
    #[arg(long, value_enum, default_value = "linearizable")]
    consistency: ReadMode,
    /// Watchers at a time, of `watch`
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    watchers: u32,
    /// Writes a second, of `watch`
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Let all watchers watch one prefix instead of one each
    #[arg(long)]
    shared: bool,
    /// Processes of servers on this machine, whose processor time is told by `watch`
    #[arg(long, value_name = "PID,...", value_delimiter = ',')]
    server_pid: Vec<u32>,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// What an operation does.
enum Work {
    Put,
    Get(Consistency),
    /// Append this to a stream.
    Append(String, AppendRequest),
}

/// What all clients share.
struct Load {
    work: Work,
    prefix: String,
    keys: u32,
    value: Bytes,
    /// When counting begins and when everything ends.
    begin: Instant,
    end: Instant,
    figures: RefCell<Figures>,
}

pub(super) async fn run(args: BenchArgs) -> Result<(), CliError> {
    if args.operation == Operation::Watch {
        return watch::run(&args).await;
    }
    let clients: Rc<[Client]> = clients(&args).await?.into();
    if args.operation == Operation::Get {
        fill(&args, &clients).await?;
    }
    let work = work(&args, &clients).await?;
    let begin = Instant::now() + Duration::from_secs(args.warmup);
    let load = Rc::new(Load {
        work,
        prefix: args.prefix.clone(),
        keys: args.keys,
        value: value(args.size),
        begin,
        end: begin + Duration::from_secs(args.seconds),
        figures: RefCell::new(Figures::new()),
    });
    let tasks = LocalSet::new();
    for index in 0..args.clients {
        let place = Place::new(&clients, index as usize);
        tasks.spawn_local(worker(Rc::clone(&load), place, u64::from(index)));
    }
    tasks.spawn_local(progress(Rc::clone(&load), args.warmup + args.seconds));
    tasks.await;
    let figures = load.figures.borrow();
    let report = Report::new(&args, &figures);
    match args.connect.format {
        Format::Json => print_json(&report)?,
        Format::Table => print(&report.to_text(&figures))?,
    }
    if figures.operations() == 0 {
        return Err(CliError::Other("not one operation succeeded".to_owned()));
    }
    Ok(())
}

/// What each operation does; makes the stream that it needs.
async fn work(args: &BenchArgs, clients: &Rc<[Client]>) -> Result<Work, CliError> {
    match args.operation {
        Operation::Get => Ok(Work::Get(match args.consistency {
            ReadMode::Linearizable => Consistency::Linearizable,
            ReadMode::Lease => Consistency::Lease,
            ReadMode::Serializable => Consistency::Serializable,
        })),
        Operation::Put | Operation::Watch => Ok(Work::Put),
        Operation::Append => {
            let stream = CreateStream {
                name: args.stream.clone(),
                partitions: 1,
                retention: StreamRetention {
                    records: Some(STREAM_RECORDS),
                    ..StreamRetention::default()
                },
                duplicates: None,
            };
            match clients[0].create_stream(&stream).await {
                Ok(_) => {}
                Err(error) if error.kind() == ProblemCode::StreamExists.as_str() => {}
                Err(error) => return Err(error.into()),
            }
            let records = vec![NewRecord::new(value(args.size)); args.batch as usize];
            let request = AppendRequest {
                records,
                partition: None,
            };
            Ok(Work::Append(args.stream.clone(), request))
        }
    }
}

/// One client for each endpoint that answers. Nothing is repeated: every failure is counted.
async fn clients(args: &BenchArgs) -> Result<Vec<Client>, CliError> {
    let endpoints = args.connect.endpoint.len();
    let timeout = Duration::from_millis(args.connect.timeout);
    let connections_max = match args.connections {
        Some(connections) => connections.min(args.clients).div_ceil(endpoints as u32),
        // One each, wherever it has to move.
        None => args.clients,
    };
    let builder = |endpoint: &String| {
        let builder = Client::builder(endpoint)?.rounds_max(1);
        Ok(builder.connections_max(connections_max as usize))
    };
    let builders = args.connect.endpoint.iter().map(builder);
    let builders = builders.collect::<Result<Vec<_>, CliError>>()?;
    let probes = builders.iter().map(|builder| async move {
        let probe = builder.clone().timeout(timeout.min(PROBE_TIMEOUT)).build();
        probe.status().await
    });
    let answers = futures_util::future::join_all(probes).await;
    let mut clients = Vec::new();
    let mut failures = Vec::new();
    for ((builder, answer), endpoint) in builders.into_iter().zip(answers).zip(&args.connect.endpoint) {
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

/// The endpoint that a client uses at present.
struct Place {
    clients: Rc<[Client]>,
    index: usize,
}

impl Place {
    fn new(clients: &Rc<[Client]>, index: usize) -> Place {
        Place {
            clients: Rc::clone(clients),
            index,
        }
    }

    fn client(&self) -> &Client {
        &self.clients[self.index % self.clients.len()]
    }

    /// Goes to the next endpoint when `error` says that this one does not answer.
    fn leave(&mut self, error: &Error) {
        use Error::{Connection, Protocol, TimedOut, UnknownOutcome};
        if let Connection { .. } | Protocol { .. } | TimedOut { .. } | UnknownOutcome { .. } = error {
            self.index += 1;
        }
    }
}

fn value(size: u32) -> Bytes {
    let mut random = Random::new(u64::from(size));
    (0..size).map(|_| b'a' + (random.next() % 26) as u8).collect()
}

/// Writes every key.
async fn fill(args: &BenchArgs, clients: &Rc<[Client]>) -> Result<(), CliError> {
    let bar = bar(u64::from(args.keys), "writing keys  {bar:30} {pos}/{len}");
    let value = value(args.size);
    let writers = (0..LOADERS as u32).map(|first| {
        let (bar, value) = (&bar, &value);
        let mut place = Place::new(clients, first as usize);
        async move {
            for number in (first..args.keys).step_by(LOADERS) {
                load_key(&mut place, &key(&args.prefix, number), value).await?;
                bar.inc(1);
            }
            Ok::<(), Error>(())
        }
    });
    futures_util::future::try_join_all(writers).await?;
    bar.finish_and_clear();
    Ok(())
}

/// Writes one key, at another endpoint when one fails: writing it twice does no harm.
async fn load_key(place: &mut Place, key: &str, value: &Bytes) -> Result<(), Error> {
    let mut tries = LOADING_ROUNDS * place.clients.len();
    loop {
        let put = place.client().put(key.as_bytes(), value.clone(), Put::default());
        let Err(error) = put.await else {
            return Ok(());
        };
        tries -= 1;
        if tries == 0 {
            return Err(error);
        }
        place.leave(&error);
        sleep(ERROR_PAUSE).await;
    }
}

fn key(prefix: &str, number: u32) -> String {
    format!("{prefix}{number:08}")
}

async fn worker(load: Rc<Load>, mut place: Place, seed: u64) {
    let mut random = Random::new(seed);
    loop {
        let number = (random.next() % u64::from(load.keys)) as u32;
        let key = key(&load.prefix, number);
        let started = Instant::now();
        if started >= load.end {
            return;
        }
        let client = place.client();
        let result = match &load.work {
            Work::Get(consistency) => client.get(key.as_bytes(), *consistency).await.map(drop),
            Work::Append(stream, request) => client.append(stream, request).await.map(drop),
            Work::Put => {
                let put = client.put(key.as_bytes(), load.value.clone(), Put::default());
                put.await.map(drop)
            }
        };
        let finished = Instant::now();
        let failed = match &result {
            Ok(()) => false,
            Err(error) => {
                place.leave(error);
                true
            }
        };
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
