//! How long records take from their append to one who follows the stream, at a fixed rate.
//!
//! A few publishers at the stream's leader take turns in sending batches at given times, each with one under way at a
//! time; the follower is at another node. A record tells when its batch was sent. Every record has to arrive.

use std::cell::{self, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use quorate_client::{Client, Protocol, Tail, TailRequest, Tailed};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{sleep, sleep_until, timeout};

use super::cluster::{Cluster, Side};
use super::load::{self, Batch, Connection, LONGEST_NANOSECONDS, STREAM, STREAM_BYTES_MAX};
use super::nats;
use super::table::{Cell, Column, Table, median, median_time};
use super::usage::processor_time;

const PUBLISHERS: u64 = 16;
/// How long one append may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the follower may take to begin, and the last records to arrive.
const LATE: Duration = Duration::from_secs(10);
/// Between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(5);

/// What is appended, and how fast.
#[derive(Clone, Debug)]
pub(crate) struct TailLoad {
    /// Records a second.
    pub(crate) rate: u32,
    pub(crate) batch: usize,
    pub(crate) value_bytes: usize,
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
}

impl fmt::Display for TailLoad {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TailLoad {
            rate,
            batch,
            value_bytes,
            ..
        } = self;
        write!(formatter, "tail, {batch} x {value_bytes} B at {rate} records/s")
    }
}

/// What came of it.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    /// Records that arrived while it counted.
    pub(crate) records_a_second: f64,
    pub(crate) median: Duration,
    pub(crate) p99: Duration,
    /// How many processors all nodes together kept busy.
    pub(crate) processors: f64,
}

struct Shared {
    load: TailLoad,
    started: Instant,
    begin: Instant,
    end: Instant,
    /// Which batch is the next to send.
    next: cell::Cell<u64>,
    /// Records, those of the warm-up included.
    appended: cell::Cell<u64>,
    arrived: cell::Cell<u64>,
    latencies: RefCell<Histogram<u64>>,
}

impl TailLoad {
    /// Runs it on a fresh cluster; no append may fail, and every record has to arrive.
    pub(crate) fn run(&self, side: Side) -> Result<Delivery, String> {
        let cluster = Cluster::start(side)?;
        let runtime = load::runtime()?;
        let leader = runtime.block_on(cluster.create_stream(STREAM, STREAM_BYTES_MAX))?;
        let work = self.measure(&cluster, leader);
        let result = runtime.block_on(LocalSet::new().run_until(work));
        result.map_err(|error| format!("{}: {self}: {error}", side.name()))
    }

    async fn measure(&self, cluster: &Cluster, leader: usize) -> Result<Delivery, String> {
        let addresses = cluster.addresses();
        let (at_leader, elsewhere) = (addresses[leader], addresses[(leader + 1) % addresses.len()]);
        let follower = timeout(LATE, Follower::open(cluster.side(), elsewhere)).await;
        let follower = follower.map_err(|_| format!("the follower did not begin within {LATE:?}"))??;
        let mut publishers = Vec::new();
        for _ in 0..PUBLISHERS {
            publishers.push(Connection::open(cluster.side(), at_leader, PATIENCE).await?);
        }
        let started = Instant::now();
        let begin = started + self.warm_up;
        let shared = Rc::new(Shared {
            load: self.clone(),
            started,
            begin,
            end: begin + self.measured,
            next: cell::Cell::new(0),
            appended: cell::Cell::new(0),
            arrived: cell::Cell::new(0),
            latencies: RefCell::new(
                Histogram::new_with_bounds(1, LONGEST_NANOSECONDS, 3).expect("the bounds are possible"),
            ),
        });
        let mut following = spawn_local(follow(Rc::clone(&shared), follower));
        let processors = spawn_local(processors(cluster.process_ids(), begin, shared.end));
        let publish = |connection| spawn_local(publish(Rc::clone(&shared), connection));
        for publishing in publishers.into_iter().map(publish).collect::<Vec<_>>() {
            joined(publishing).await?;
        }
        let until = Instant::now() + LATE;
        while shared.arrived.get() < shared.appended.get() {
            if following.is_finished() {
                return joined(&mut following)
                    .await
                    .and(Err("the follower stopped".to_owned()));
            }
            if Instant::now() >= until {
                let (arrived, appended) = (shared.arrived.get(), shared.appended.get());
                return Err(format!("{arrived} of {appended} records arrived within {LATE:?}"));
            }
            sleep(PAUSE).await;
        }
        following.abort();
        let processors = joined(processors).await?;
        let latencies = shared.latencies.borrow();
        let at = |quantile| Duration::from_nanos(latencies.value_at_quantile(quantile));
        Ok(Delivery {
            records_a_second: latencies.len() as f64 / self.measured.as_secs_f64(),
            median: at(0.5),
            p99: at(0.99),
            processors,
        })
    }
}

/// The medians of each side.
pub(crate) fn table(load: &TailLoad, sides: &BTreeMap<Side, Vec<Delivery>>) -> Table {
    let columns = [
        Column("load", "load", 0),
        Column("side", "side", 0),
        Column("records/s", "records_a_second", 0),
        Column("p50 ms", "p50_ms", 2),
        Column("p99 ms", "p99_ms", 2),
        Column("processors, all nodes", "processors", 2),
    ];
    let mut table = Table::new("tail", &columns);
    for (side, rounds) in sides {
        let number = |of: fn(&Delivery) -> f64| Cell::Number(median(rounds.iter().map(of)));
        let time = |of: fn(&Delivery) -> Duration| Cell::milliseconds(median_time(rounds.iter().map(of)));
        table.row([
            Cell::words(load.to_string()),
            Cell::words(side.name()),
            number(|delivery| delivery.records_a_second),
            time(|delivery| delivery.median),
            time(|delivery| delivery.p99),
            number(|delivery| delivery.processors),
        ]);
    }
    table
}

/// What a task returned.
async fn joined<T>(
    task: impl Future<Output = Result<Result<T, String>, tokio::task::JoinError>>,
) -> Result<T, String> {
    task.await.map_err(|error| error.to_string())?
}

/// Sends a batch whenever it is one's turn.
async fn publish(shared: Rc<Shared>, mut connection: Connection) -> Result<(), String> {
    let load = &shared.load;
    let every = Duration::from_secs(load.batch as u64) / load.rate;
    loop {
        let number = shared.next.replace(shared.next.get() + 1);
        let due = shared.started + every * u32::try_from(number).map_err(|error| error.to_string())?;
        if due >= shared.end {
            return Ok(());
        }
        sleep_until(due.into()).await;
        let sent = shared.started.elapsed().as_nanos();
        let value = Bytes::from(format!("{sent:0width$}", width = load.value_bytes));
        connection.append(&Batch::new(value, load.batch)).await?;
        shared.appended.set(shared.appended.get() + load.batch as u64);
    }
}

async fn follow(shared: Rc<Shared>, mut follower: Follower) -> Result<(), String> {
    loop {
        for value in follower.next().await? {
            let now = Instant::now();
            shared.arrived.set(shared.arrived.get() + 1);
            let sent = std::str::from_utf8(&value)
                .ok()
                .and_then(|text| text.parse().ok());
            let sent: u64 = sent.ok_or("a record of somebody else arrived")?;
            if now >= shared.begin && now < shared.end {
                let latency = (now - shared.started).saturating_sub(Duration::from_nanos(sent));
                let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
                shared.latencies.borrow_mut().saturating_record(nanoseconds);
            }
        }
    }
}

/// How many processors these processes keep busy together.
async fn processors(processes: Vec<u32>, begin: Instant, end: Instant) -> Result<f64, String> {
    let used = || -> Result<Duration, String> { processes.iter().map(|id| processor_time(*id)).sum() };
    sleep_until(begin.into()).await;
    let before = used()?;
    sleep_until(end.into()).await;
    Ok(used()?.saturating_sub(before).as_secs_f64() / (end - begin).as_secs_f64())
}

/// One who follows the stream.
enum Follower {
    Quorate(Box<Tail>),
    Nats(Box<nats::Connection>),
}

impl Follower {
    /// Returns when whatever is appended from here on will arrive.
    async fn open(side: Side, address: SocketAddr) -> Result<Follower, String> {
        match side {
            Side::Quorate => {
                let client = Client::builder(&address.to_string()).map_err(|error| error.to_string())?;
                let client = client.protocol(Protocol::Http).build();
                let mut tail = client.tail(TailRequest::new(STREAM));
                loop {
                    match tail.next().await {
                        Ok(Tailed::Progress) => return Ok(Follower::Quorate(Box::new(tail))),
                        Ok(Tailed::Records(_)) => {}
                        Err(error) => return Err(error.to_string()),
                    }
                }
            }
            Side::Nats { .. } => {
                let mut connection = nats::Connection::open(address).await?;
                connection.follow(STREAM).await?;
                Ok(Follower::Nats(Box::new(connection)))
            }
            Side::Etcd { .. } => Err("etcd has no streams".to_owned()),
        }
    }

    /// The values of the records that arrive next.
    async fn next(&mut self) -> Result<Vec<Bytes>, String> {
        match self {
            Follower::Nats(connection) => connection.next_message().await.map(|payload| vec![payload]),
            Follower::Quorate(tail) => match tail.next().await {
                Ok(Tailed::Records(batch)) => Ok(batch
                    .records
                    .into_iter()
                    .map(|record| record.record.value)
                    .collect()),
                Ok(Tailed::Progress) => Ok(Vec::new()),
                Err(error) => Err(error.to_string()),
            },
        }
    }
}
