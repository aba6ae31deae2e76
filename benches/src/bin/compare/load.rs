//! A closed loop of clients, each with one request under way on a connection of its own.

use std::cell::RefCell;
use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use quorate_api::{AppendRequest, TxnOperation, TxnPut, TxnRequest};
use quorate_client::{Client, Consistency, NewRecord, Protocol, Put};
use tokio::runtime::Runtime;
use tokio::task::LocalSet;

use super::cluster::{Cluster, Side};
use super::etcd;
use super::nats;
use super::random::Random;
use super::table;

/// Longer operations count as this long.
pub(crate) const LONGEST_NANOSECONDS: u64 = 60_000_000_000;
/// How many clients write the keys that are read.
const LOADERS: u64 = 64;
/// The stream of the appends, and how many bytes of records it keeps.
pub(crate) const STREAM: &str = "bench";
pub(crate) const STREAM_BYTES_MAX: u64 = 1 << 30;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Operation {
    Put,
    Get,
    /// Append so many records at once.
    Append {
        batch: usize,
    },
}

/// What is asked of a cluster.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) operation: Operation,
    pub(crate) clients: usize,
    pub(crate) value_bytes: usize,
    pub(crate) keys: u64,
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
}

impl fmt::Display for Load {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operation = match self.operation {
            Operation::Put => "put".to_owned(),
            Operation::Get => "linearizable get".to_owned(),
            Operation::Append { batch } => format!("append {batch} x {} B", self.value_bytes),
        };
        let plural = if self.clients == 1 { "client" } else { "clients" };
        write!(formatter, "{operation}, {} {plural}", self.clients)
    }
}

/// What came of it.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    pub(crate) operations_a_second: f64,
    pub(crate) median: Duration,
    pub(crate) p99: Duration,
    /// Syncs of all nodes together for 1,000 operations, the warm-up included on both sides of the fraction; none where
    /// the nodes do not count them.
    pub(crate) syncs: Option<f64>,
}

/// Records that are appended together.
pub(crate) struct Batch {
    value: Bytes,
    request: AppendRequest,
}

impl Batch {
    /// The same record `count` times.
    pub(crate) fn new(value: Bytes, count: usize) -> Batch {
        let records = vec![NewRecord::new(value.clone()); count];
        let request = AppendRequest {
            records,
            partition: None,
        };
        Batch { value, request }
    }
}

/// A client with its own connection.
pub(crate) enum Connection {
    Quorate(Client),
    Etcd(Box<etcd::Connection>),
    Nats(Box<nats::Connection>),
}

impl Connection {
    pub(crate) async fn open(
        side: Side,
        address: SocketAddr,
        timeout: Duration,
    ) -> Result<Connection, String> {
        match side {
            Side::Quorate => {
                let builder = Client::builder(&address.to_string()).map_err(|error| error.to_string())?;
                // As peers have it: a connection of its own for each client, over TCP.
                let builder = builder.protocol(Protocol::Http).connections_max(1);
                Ok(Connection::Quorate(
                    builder.timeout(timeout).rounds_max(1).build(),
                ))
            }
            Side::Etcd { .. } => etcd::Connection::open(address)
                .await
                .map(|connection| Connection::Etcd(Box::new(connection))),
            Side::Nats { .. } => nats::Connection::open(address)
                .await
                .map(|connection| Connection::Nats(Box::new(connection))),
        }
    }

    pub(crate) async fn put(&mut self, key: &str, value: &Bytes) -> Result<(), String> {
        match self {
            Connection::Quorate(client) => client
                .put(key.as_bytes(), value.clone(), Put::default())
                .await
                .map(drop)
                .map_err(|error| error.to_string()),
            Connection::Etcd(connection) => connection.put(key.as_bytes(), value).await,
            Connection::Nats(_) => Err("NATS is not measured with keys".to_owned()),
        }
    }

    /// Writes several keys as one change.
    async fn put_together(&mut self, keys: Vec<String>, value: &Bytes) -> Result<(), String> {
        match self {
            Connection::Quorate(client) => {
                let put = |key: String| {
                    TxnOperation::Put(TxnPut {
                        key: key.into(),
                        value: value.clone(),
                        lease: None,
                        previous: false,
                    })
                };
                let transaction = TxnRequest {
                    then: keys.into_iter().map(put).collect(),
                    ..TxnRequest::default()
                };
                let done = client.transact(&transaction).await;
                done.map(drop).map_err(|error| error.to_string())
            }
            Connection::Etcd(connection) => connection.put_together(&keys, value).await,
            Connection::Nats(_) => Err("NATS is not measured with keys".to_owned()),
        }
    }

    async fn get(&mut self, key: &str) -> Result<(), String> {
        match self {
            Connection::Quorate(client) => {
                match client.get(key.as_bytes(), Consistency::Linearizable).await {
                    Ok(Some(_)) => Ok(()),
                    Ok(None) => Err("the key is not there".to_owned()),
                    Err(error) => Err(error.to_string()),
                }
            }
            Connection::Etcd(connection) => connection.get(key.as_bytes()).await,
            Connection::Nats(_) => Err("NATS is not measured with keys".to_owned()),
        }
    }

    /// Appends to the stream; returns when all of the batch is acknowledged.
    pub(crate) async fn append(&mut self, batch: &Batch) -> Result<(), String> {
        match self {
            Connection::Quorate(client) => client
                .append(STREAM, &batch.request)
                .await
                .map(drop)
                .map_err(|error| error.to_string()),
            // It takes one message at a time: all are sent, and then all acknowledgements are awaited.
            Connection::Nats(connection) => {
                let count = batch.request.records.len();
                connection.append(STREAM, &batch.value, count).await
            }
            Connection::Etcd(_) => Err("etcd has no streams".to_owned()),
        }
    }
}

/// What all clients share.
struct Shared {
    load: Load,
    batch: Batch,
    begin: Instant,
    end: Instant,
    latencies: RefCell<Histogram<u64>>,
    /// Operations, those of the warm-up included.
    total: RefCell<u64>,
    failure: RefCell<Option<String>>,
}

impl Load {
    /// Runs it; no operation may fail.
    pub(crate) fn run(&self, cluster: &Cluster) -> Result<Figures, String> {
        let runtime = runtime()?;
        let leader = self.prepare(&runtime, cluster)?;
        let syncs_before = cluster.syncs()?;
        let begin = Instant::now() + self.warm_up;
        let shared = Rc::new(Shared {
            load: self.clone(),
            batch: Batch::new(value(self.value_bytes), self.batch().unwrap_or(1)),
            begin,
            end: begin + self.measured,
            latencies: RefCell::new(
                Histogram::new_with_bounds(1, LONGEST_NANOSECONDS, 3).expect("the bounds are possible"),
            ),
            total: RefCell::new(0),
            failure: RefCell::default(),
        });
        // From the leader on, so that a lone client talks to the leader on either side.
        let mut addresses = cluster.addresses();
        addresses.rotate_left(leader);
        let tasks = LocalSet::new();
        for number in 0..self.clients {
            let address = addresses[number % addresses.len()];
            tasks.spawn_local(worker(Rc::clone(&shared), cluster.side(), address, number as u64));
        }
        runtime.block_on(tasks);
        if let Some(failure) = shared.failure.take() {
            return Err(format!("{}: {self}: {failure}", cluster.side().name()));
        }
        let total = *shared.total.borrow() as f64;
        let syncs = cluster.syncs()?.zip(syncs_before);
        if let Operation::Append { .. } = self.operation {
            runtime.block_on(cluster.delete_stream(STREAM))?;
        }
        let latencies = shared.latencies.borrow();
        let at = |quantile| Duration::from_nanos(latencies.value_at_quantile(quantile));
        Ok(Figures {
            operations_a_second: latencies.len() as f64 / self.measured.as_secs_f64(),
            median: at(0.5),
            p99: at(0.99),
            syncs: syncs.map(|(after, before)| (after - before) * 1_000.0 / total),
        })
    }

    /// How many records one operation appends; none where it is about keys.
    pub(crate) fn batch(&self) -> Option<usize> {
        match self.operation {
            Operation::Append { batch } => Some(batch),
            Operation::Put | Operation::Get => None,
        }
    }

    /// Brings about what the operation needs; returns the place of the leader.
    fn prepare(&self, runtime: &Runtime, cluster: &Cluster) -> Result<usize, String> {
        match self.operation {
            Operation::Put => {}
            Operation::Get => write_keys(cluster, 0..self.keys, self.value_bytes, TOGETHER)?,
            Operation::Append { .. } => {
                return runtime.block_on(cluster.create_stream(STREAM, STREAM_BYTES_MAX));
            }
        }
        cluster.leader()
    }
}

/// Keys that are written together where only what comes of it is measured; etcd takes no more than 128.
pub(crate) const TOGETHER: usize = 100;

/// Writes keys once each, so many of them together.
pub(crate) fn write_keys(
    cluster: &Cluster,
    keys: Range<u64>,
    value_bytes: usize,
    together: usize,
) -> Result<(), String> {
    let runtime = runtime()?;
    runtime.block_on(LocalSet::new().run_until(write_all(cluster, keys, value_bytes, together)))
}

async fn write_all(
    cluster: &Cluster,
    keys: Range<u64>,
    value_bytes: usize,
    together: usize,
) -> Result<(), String> {
    let addresses = cluster.addresses();
    let value = value(value_bytes);
    let bar = table::progress(keys.end - keys.start);
    bar.set_message(format!("{} writes keys", cluster.side().name()));
    let writers = (0..LOADERS).map(|writer| {
        let (address, value) = (addresses[writer as usize % addresses.len()], value.clone());
        let (begins, bar) = (keys.clone().step_by(together), &bar);
        let begins = begins.skip(writer as usize).step_by(LOADERS as usize);
        let end = keys.end;
        async move {
            let mut connection = Connection::open(cluster.side(), address, Duration::from_secs(10)).await?;
            for begin in begins {
                let batch: Vec<String> = (begin..end).take(together).map(key).collect();
                bar.inc(batch.len() as u64);
                match &*batch {
                    [key] => connection.put(key, &value).await?,
                    _ => connection.put_together(batch, &value).await?,
                }
            }
            Ok::<(), String>(())
        }
    });
    futures_util::future::try_join_all(writers).await?;
    bar.finish_and_clear();
    Ok(())
}

/// All clients run in one thread.
pub(crate) fn runtime() -> Result<Runtime, String> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())
}

async fn worker(shared: Rc<Shared>, side: Side, address: SocketAddr, number: u64) {
    let result = work(&shared, side, address, number).await;
    if let Err(failure) = result {
        shared.failure.borrow_mut().get_or_insert(failure);
    }
}

async fn work(shared: &Shared, side: Side, address: SocketAddr, number: u64) -> Result<(), String> {
    let mut connection = Connection::open(side, address, Duration::from_secs(10)).await?;
    let mut random = Random::new(number + 1);
    while shared.failure.borrow().is_none() {
        let key = key(random.below(shared.load.keys));
        let started = Instant::now();
        if started >= shared.end {
            break;
        }
        match shared.load.operation {
            Operation::Put => connection.put(&key, &shared.batch.value).await?,
            Operation::Get => connection.get(&key).await?,
            Operation::Append { .. } => connection.append(&shared.batch).await?,
        }
        let finished = Instant::now();
        *shared.total.borrow_mut() += 1;
        if finished >= shared.begin && finished < shared.end {
            let nanoseconds = u64::try_from((finished - started).as_nanos()).unwrap_or(u64::MAX);
            shared.latencies.borrow_mut().saturating_record(nanoseconds);
        }
    }
    Ok(())
}

fn key(number: u64) -> String {
    format!("bench/{number:08}")
}

pub(crate) fn value(bytes: usize) -> Bytes {
    let mut random = Random::new(bytes as u64 + 1);
    (0..bytes).map(|_| b'a' + random.below(26) as u8).collect()
}
