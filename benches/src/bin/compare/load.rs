//! A closed loop of clients, each with one request under way on a connection of its own.

use std::cell::RefCell;
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use quorate_client::{Client, Consistency, Put};
use tokio::task::LocalSet;

use super::cluster::{Cluster, Side};
use super::etcd;
use super::random::Random;

/// Longer operations count as this long.
const LONGEST_NANOSECONDS: u64 = 60_000_000_000;
/// How many clients write the keys that are read.
const LOADERS: u64 = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Operation {
    Put,
    Get,
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
            Operation::Put => "put",
            Operation::Get => "linearizable get",
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
    /// Syncs of all nodes together for 1,000 operations, the warm-up included on both sides of the fraction.
    pub(crate) syncs: f64,
}

/// A client with its own connection.
pub(crate) enum Connection {
    Quorate(Client),
    Etcd(Box<etcd::Connection>),
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
                Ok(Connection::Quorate(
                    builder.timeout(timeout).rounds_max(1).connections_max(1).build(),
                ))
            }
            Side::Etcd { .. } => etcd::Connection::open(address)
                .await
                .map(|connection| Connection::Etcd(Box::new(connection))),
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
        }
    }
}

/// What all clients share.
struct Shared {
    load: Load,
    value: Bytes,
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
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        if self.operation == Operation::Get {
            runtime.block_on(LocalSet::new().run_until(self.fill(cluster)))?;
        }
        let syncs_before = cluster.syncs()?;
        let begin = Instant::now() + self.warm_up;
        let shared = Rc::new(Shared {
            load: self.clone(),
            value: value(self.value_bytes),
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
        addresses.rotate_left(cluster.leader()?);
        let tasks = LocalSet::new();
        for number in 0..self.clients {
            let address = addresses[number % addresses.len()];
            tasks.spawn_local(worker(Rc::clone(&shared), cluster.side(), address, number as u64));
        }
        runtime.block_on(tasks);
        if let Some(failure) = shared.failure.take() {
            return Err(format!("{}: {self}: {failure}", cluster.side().name()));
        }
        let syncs = cluster.syncs()? - syncs_before;
        let latencies = shared.latencies.borrow();
        let at = |quantile| Duration::from_nanos(latencies.value_at_quantile(quantile));
        Ok(Figures {
            operations_a_second: latencies.len() as f64 / self.measured.as_secs_f64(),
            median: at(0.5),
            p99: at(0.99),
            syncs: syncs * 1_000.0 / *shared.total.borrow() as f64,
        })
    }

    /// Writes every key once.
    async fn fill(&self, cluster: &Cluster) -> Result<(), String> {
        let addresses = cluster.addresses();
        let value = value(self.value_bytes);
        let writers = (0..LOADERS).map(|first| {
            let (address, value) = (addresses[first as usize % addresses.len()], value.clone());
            async move {
                let mut connection =
                    Connection::open(cluster.side(), address, Duration::from_secs(10)).await?;
                for number in (first..self.keys).step_by(LOADERS as usize) {
                    connection.put(&key(number), &value).await?;
                }
                Ok::<(), String>(())
            }
        });
        futures_util::future::try_join_all(writers).await.map(drop)
    }
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
            Operation::Put => connection.put(&key, &shared.value).await?,
            Operation::Get => connection.get(&key).await?,
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
