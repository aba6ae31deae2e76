//! `quorate bench put|get|txn|append`: a closed loop of clients, each with one request under way.
//!
//! Clients are spread evenly over the endpoints that answer at the start; a client whose endpoint fails moves on to the
//! next one.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, ValueEnum};
use quorate_api::{
    AppendRequest, NewRecord, TxnCompare, TxnGet, TxnKeys, TxnOperand, TxnOperation, TxnPut, TxnRelation,
    TxnRequest,
};
use quorate_client::{Client, Consistency, Error, Put};
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep};

use super::report::{Figures, Report, Shape};
use super::{ERROR_PAUSE, Random, TimeArgs, bar, clients, make_stream, value};
use crate::cli::connect::ConnectArgs;
use crate::cli::error::CliError;
use crate::cli::output::{Format, print, print_json};

pub(super) const PUT_EXAMPLES: &str = "\
Examples:
  quorate bench put
  quorate bench put --clients 64 --connections 64 --size 256 --keys 10000 --seconds 20";

pub(super) const GET_EXAMPLES: &str = "\
Examples:
  quorate bench get --clients 64 -w json
  quorate bench get --consistency serializable";

pub(super) const TXN_EXAMPLES: &str = "\
Examples:
  quorate bench txn --clients 64
  quorate bench txn --keys 100                       so few keys that transactions meet";

pub(super) const APPEND_EXAMPLES: &str = "\
Examples:
  quorate bench append --clients 16 --batch 100 --size 256
  quorate bench append --batch 1 --size 4096 -w json";

/// How many clients write the keys that `get` reads.
const LOADERS: usize = 64;
/// How often a key is tried at each endpoint before `get` gives up.
const LOADING_ROUNDS: usize = 3;

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ReadMode {
    /// Through the leader's majority
    Linearizable,
    /// From the leader alone while it holds a lease
    Lease,
    /// From the node that is asked
    Serializable,
}

impl ReadMode {
    fn consistency(self) -> Consistency {
        match self {
            ReadMode::Linearizable => Consistency::Linearizable,
            ReadMode::Lease => Consistency::Lease,
            ReadMode::Serializable => Consistency::Serializable,
        }
    }
}

/// How much at a time, for how long, and where.
#[derive(Debug, Args)]
pub(super) struct LoadArgs {
    /// How many requests are under way at a time
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    clients: u32,
    /// How many connections they share over HTTP [default: one each]; over QUIC they share one to each endpoint
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: Option<u32>,
    #[command(flatten)]
    time: TimeArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

impl LoadArgs {
    fn connections(&self) -> u32 {
        self.connections.unwrap_or(self.clients).min(self.clients)
    }

    async fn open(&self) -> Result<Rc<[Client]>, CliError> {
        let connections_max = match self.connections {
            Some(_) => self.connections().div_ceil(self.connect.endpoint.len() as u32),
            // One each, wherever it has to move.
            None => self.clients,
        };
        Ok(clients(&self.connect, connections_max).await?.into())
    }
}

/// Which keys, and what they hold.
#[derive(Clone, Debug, Args)]
pub(super) struct KeyArgs {
    /// How many different keys
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    keys: u32,
    /// What the keys begin with
    #[arg(long, default_value = "bench/")]
    prefix: String,
    /// Bytes of a value
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(0..=8 << 20))]
    size: u32,
}

impl KeyArgs {
    fn key(&self, number: u32) -> String {
        format!("{}{number:08}", self.prefix)
    }

    fn random(&self, random: &mut Random) -> Bytes {
        self.key(random.below(self.keys)).into()
    }
}

#[derive(Debug, Args)]
pub(in super::super) struct PutArgs {
    #[command(flatten)]
    keys: KeyArgs,
    #[command(flatten)]
    load: LoadArgs,
}

#[derive(Debug, Args)]
pub(in super::super) struct GetArgs {
    /// How fresh a read must be
    #[arg(long, value_enum, default_value = "linearizable")]
    consistency: ReadMode,
    #[command(flatten)]
    keys: KeyArgs,
    #[command(flatten)]
    load: LoadArgs,
}

#[derive(Debug, Args)]
pub(in super::super) struct TxnArgs {
    #[command(flatten)]
    keys: KeyArgs,
    #[command(flatten)]
    load: LoadArgs,
}

#[derive(Debug, Args)]
pub(in super::super) struct AppendArgs {
    /// Records of a batch
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batch: u32,
    /// Bytes of a record
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(0..=1 << 20))]
    size: u32,
    /// The stream, which is made if there is none
    #[arg(long, default_value = "bench")]
    stream: String,
    #[command(flatten)]
    load: LoadArgs,
}

pub(super) async fn put(args: PutArgs) -> Result<(), CliError> {
    let clients = args.load.open().await?;
    let value = value(args.keys.size);
    let work = Work::Put(args.keys, value);
    run(args.load, clients, work).await
}

pub(super) async fn get(args: GetArgs) -> Result<(), CliError> {
    let clients = args.load.open().await?;
    fill(&args.keys, &clients).await?;
    let work = Work::Get(args.keys, args.consistency.consistency());
    run(args.load, clients, work).await
}

pub(super) async fn txn(args: TxnArgs) -> Result<(), CliError> {
    let clients = args.load.open().await?;
    let value = value(args.keys.size);
    let work = Work::Txn(args.keys, value);
    run(args.load, clients, work).await
}

pub(super) async fn append(args: AppendArgs) -> Result<(), CliError> {
    let clients = args.load.open().await?;
    make_stream(&clients, &args.stream).await?;
    let request = AppendRequest {
        records: vec![NewRecord::new(value(args.size)); args.batch as usize],
        partition: None,
    };
    let work = Work::Append(args.stream, request);
    run(args.load, clients, work).await
}

/// What each request does.
enum Work {
    Put(KeyArgs, Bytes),
    Get(KeyArgs, Consistency),
    Txn(KeyArgs, Bytes),
    Append(String, AppendRequest),
}

impl Work {
    async fn once(&self, client: &Client, random: &mut Random) -> Result<(), Error> {
        match self {
            Work::Put(keys, value) => {
                let key = keys.random(random);
                client.put(&key, value.clone(), Put::default()).await.map(drop)
            }
            Work::Get(keys, consistency) => client.get(&keys.random(random), *consistency).await.map(drop),
            Work::Txn(keys, value) => {
                let transaction = transaction(keys.random(random), keys.random(random), value.clone());
                client.transact(&transaction).await.map(drop)
            }
            Work::Append(stream, request) => client.append(stream, request).await.map(drop),
        }
    }

    fn shape(&self) -> Shape {
        let of_keys = |operation, keys: &KeyArgs| Shape {
            operation,
            size: keys.size,
            keys: Some(keys.keys),
            batch: None,
        };
        match self {
            Work::Put(keys, _) => of_keys("put", keys),
            Work::Get(keys, _) => of_keys("get", keys),
            Work::Txn(keys, _) => of_keys("txn", keys),
            Work::Append(_, request) => Shape {
                operation: "append",
                size: request
                    .records
                    .first()
                    .map_or(0, |record| record.value.len() as u32),
                keys: None,
                batch: Some(request.records.len() as u32),
            },
        }
    }
}

/// Writes a key, and reads another one when the first was there before.
fn transaction(key: Bytes, other: Bytes, value: Bytes) -> TxnRequest {
    let put = TxnOperation::Put(TxnPut {
        key: key.clone(),
        value,
        lease: None,
        previous: false,
    });
    let get = TxnOperation::Get(TxnGet {
        keys: TxnKeys::Key(other),
        revision: None,
        limit: None,
        sort: quorate_api::SortBy::default(),
        order: quorate_api::Order::default(),
        keys_only: false,
        count_only: false,
    });
    TxnRequest {
        compare: vec![TxnCompare {
            keys: TxnKeys::Key(key),
            relation: TxnRelation::Greater,
            with: TxnOperand::Version(0),
        }],
        then: vec![put.clone(), get],
        otherwise: vec![put],
    }
}

/// What all clients share.
struct Load {
    work: Work,
    /// When counting begins and when everything ends.
    begin: Instant,
    end: Instant,
    figures: RefCell<Figures>,
}

async fn run(args: LoadArgs, clients: Rc<[Client]>, work: Work) -> Result<(), CliError> {
    let TimeArgs { seconds, warmup } = args.time;
    let begin = Instant::now() + Duration::from_secs(warmup);
    let load = Rc::new(Load {
        work,
        begin,
        end: begin + Duration::from_secs(seconds),
        figures: RefCell::new(Figures::new()),
    });
    let tasks = LocalSet::new();
    for index in 0..args.clients {
        let place = Place::new(&clients, index as usize);
        tasks.spawn_local(worker(Rc::clone(&load), place, u64::from(index)));
    }
    tasks.spawn_local(progress(Rc::clone(&load), warmup + seconds));
    tasks.await;
    let figures = load.figures.borrow();
    let (clients, connections) = (args.clients, args.connections());
    let report = Report::new(load.work.shape(), clients, connections, seconds, &figures);
    match args.connect.format {
        Format::Json => print_json(&report)?,
        Format::Table => print(&report.to_text(&figures))?,
    }
    if figures.operations() == 0 {
        return Err(CliError::Other("not one operation succeeded".to_owned()));
    }
    Ok(())
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

/// Writes every key.
async fn fill(keys: &KeyArgs, clients: &Rc<[Client]>) -> Result<(), CliError> {
    let bar = bar(u64::from(keys.keys), "writing keys  {bar:30} {pos}/{len}");
    let value = value(keys.size);
    let writers = (0..LOADERS as u32).map(|first| {
        let (bar, value) = (&bar, &value);
        let mut place = Place::new(clients, first as usize);
        async move {
            for number in (first..keys.keys).step_by(LOADERS) {
                load_key(&mut place, &keys.key(number), value).await?;
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

async fn worker(load: Rc<Load>, mut place: Place, seed: u64) {
    let mut random = Random::new(seed);
    loop {
        let started = Instant::now();
        if started >= load.end {
            return;
        }
        let result = load.work.once(place.client(), &mut random).await;
        let finished = Instant::now();
        if finished >= load.begin && finished < load.end {
            let mut figures = load.figures.borrow_mut();
            match &result {
                Ok(()) => figures.succeeded(finished - started, finished - load.begin),
                Err(error) => figures.failed(error),
            }
        }
        if let Err(error) = result {
            place.leave(&error);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_compares_and_writes_one_key_and_reads_another() {
        let json = serde_json::to_value(transaction("a".into(), "b".into(), "x".into())).expect("JSON");
        let put = serde_json::json!({"put": {"key": "a", "value": "x"}});
        let expected = serde_json::json!({
            "compare": [{"key": "a", "relation": ">", "version": 0}],
            "then": [put, {"get": {"key": "b"}}],
            "else": [put],
        });
        assert_eq!(json, expected);
    }
}
