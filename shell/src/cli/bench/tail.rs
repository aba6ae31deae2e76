//! `quorate bench tail`: appends at a fixed rate, and how long records take to reach those who follow the stream.
//!
//! A record tells when its batch was sent.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use clap::Args;
use quorate_api::{AppendRequest, NewRecord};
use quorate_client::{Client, TailBatch, TailRequest, Tailed};
use serde::Serialize;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, sleep};

use super::report::{Figures, Latency};
use super::{ServerArgs, TimeArgs, clients, make_stream, paced, processors};
use crate::cli::connect::ConnectArgs;
use crate::cli::error::CliError;
use crate::cli::output::{Format, print, print_json};

pub(super) const EXAMPLES: &str = "\
Examples:
  quorate bench tail
  quorate bench tail --rate 20000 --batch 100 --size 256
  quorate bench tail --followers 10 -w json";

/// How long all followers may take to begin.
const BEGINNING: Duration = Duration::from_secs(30);
/// How long the last records may take after the last append.
const LATE: Duration = Duration::from_secs(10);
/// Between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(10);

#[derive(Clone, Debug, Args)]
pub(in super::super) struct TailArgs {
    /// Records a second
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    rate: u32,
    /// Records of a batch
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batch: u32,
    /// Bytes of a record
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(0..=1 << 20))]
    size: u32,
    /// How many follow the stream, spread over the endpoints
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    followers: u32,
    /// The stream, which is made if there is none
    #[arg(long, default_value = "bench-tail")]
    stream: String,
    #[command(flatten)]
    time: TimeArgs,
    #[command(flatten)]
    servers: ServerArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

impl TailArgs {
    /// The time from one batch to the next.
    fn every(&self) -> Duration {
        Duration::from_secs(u64::from(self.batch)) / self.rate
    }
}

struct Load {
    started: Instant,
    /// When counting begins and when appending ends, as soon as all follow.
    measured: Cell<Option<(Instant, Instant)>>,
    /// Followers that have begun.
    begun: Cell<u32>,
    /// Acknowledged records, in all and while it counted.
    appended: Cell<u64>,
    counted: Cell<u64>,
    /// Records that followers heard of.
    heard: Cell<u64>,
    figures: RefCell<Figures>,
    /// From the begin of an append to its acknowledgement.
    appends: RefCell<Figures>,
}

/// The result, as programs read it.
#[derive(Debug, Serialize)]
struct Report {
    operation: &'static str,
    followers: u32,
    rate: u32,
    batch: u32,
    size: u32,
    seconds: u64,
    /// Acknowledged records.
    appended_per_second: f64,
    /// Records that followers heard of, all together.
    heard_per_second: f64,
    /// Acknowledged records that a follower did not hear of in time; none when nothing is wrong.
    missing: u64,
    /// How many processors each server kept busy, with the number of its process.
    server_processors: Vec<(u32, f64)>,
    append_ms: Latency,
    latency_ms: Latency,
}

pub(super) async fn run(args: &TailArgs) -> Result<(), CliError> {
    let endpoints = clients(&args.connect, paced::CONNECTIONS_MAX).await?;
    make_stream(&endpoints, &args.stream).await?;
    let report = LocalSet::new().run_until(measure(args, &endpoints)).await?;
    match args.connect.format {
        Format::Json => print_json(&report)?,
        Format::Table => print(&report.to_text())?,
    }
    if report.missing > 0 {
        return Err(CliError::Other(format!(
            "{} records were not heard of",
            report.missing
        )));
    }
    Ok(())
}

async fn measure(args: &TailArgs, endpoints: &[Client]) -> Result<Report, CliError> {
    let load = Rc::new(Load {
        started: Instant::now(),
        measured: Cell::new(None),
        begun: Cell::new(0),
        appended: Cell::new(0),
        counted: Cell::new(0),
        heard: Cell::new(0),
        figures: RefCell::new(Figures::new()),
        appends: RefCell::new(Figures::new()),
    });
    for number in 0..args.followers {
        let client = endpoints[number as usize % endpoints.len()].clone();
        spawn_local(follow(client, args.stream.clone(), Rc::clone(&load)));
    }
    while load.begun.get() < args.followers {
        if load.started.elapsed() >= BEGINNING {
            let message = format!(
                "only {} of {} followers began; see max_connections of the nodes",
                load.begun.get(),
                args.followers
            );
            return Err(CliError::Other(message));
        }
        sleep(PAUSE).await;
    }
    let begin = Instant::now() + Duration::from_secs(args.time.warmup);
    let end = begin + Duration::from_secs(args.time.seconds);
    load.measured.set(Some((begin, end)));
    let processors = spawn_local(processors::used(args.servers.server_pid.clone(), begin, end));
    append(args, &endpoints[0], &load, end).await;
    let expected = load.appended.get() * u64::from(args.followers);
    let deadline = Instant::now() + LATE;
    while load.heard.get() < expected && Instant::now() < deadline {
        sleep(PAUSE).await;
    }
    let server_processors = processors.await.unwrap_or_default();
    let figures = load.figures.borrow();
    let seconds = args.time.seconds as f64;
    Ok(Report {
        operation: "tail",
        followers: args.followers,
        rate: args.rate,
        batch: args.batch,
        size: args.size,
        seconds: args.time.seconds,
        appended_per_second: load.counted.get() as f64 / seconds,
        heard_per_second: figures.operations() as f64 / seconds,
        missing: expected.saturating_sub(load.heard.get()),
        server_processors,
        append_ms: load.appends.borrow().latency(),
        latency_ms: figures.latency(),
    })
}

/// Appends at the wanted rate until the end.
async fn append(args: &TailArgs, client: &Client, load: &Rc<Load>, end: Instant) {
    let every = args.every();
    let (args, client, load) = (args.clone(), client.clone(), Rc::clone(load));
    let append = move |_| {
        let (client, load, stream) = (client.clone(), Rc::clone(&load), args.stream.clone());
        let batch = args.batch;
        let value = paced::stamp(load.started, args.size);
        let request = AppendRequest {
            records: vec![NewRecord::new(value); batch as usize],
            partition: None,
        };
        async move {
            let begun = Instant::now();
            let result = client.append(&stream, &request).await;
            load.appended(begun, u64::from(batch), result.map(drop));
        }
    };
    paced::run(Instant::now(), every, end, append).await;
}

async fn follow(client: Client, stream: String, load: Rc<Load>) {
    let mut tail = client.tail(TailRequest::new(stream));
    let mut began = false;
    loop {
        match tail.next().await {
            Ok(Tailed::Progress) if !began => {
                began = true;
                load.begun.set(load.begun.get() + 1);
            }
            Ok(Tailed::Progress) => {}
            Ok(Tailed::Records(batch)) => load.hear(&batch),
            Err(error) => {
                load.figures.borrow_mut().failed(&error);
                if !error.is_temporary() {
                    return;
                }
            }
        }
    }
}

impl Load {
    /// How long after the begin of counting it is, while it lasts.
    fn counting(&self) -> Option<Duration> {
        let (begin, end) = self.measured.get()?;
        let now = Instant::now();
        (begin..end).contains(&now).then(|| now - begin)
    }

    fn appended(&self, begun: Instant, records: u64, result: Result<(), quorate_client::Error>) {
        let mut appends = self.appends.borrow_mut();
        if let Err(error) = result {
            appends.failed(&error);
            return;
        }
        self.appended.set(self.appended.get() + records);
        if let Some(at) = self.counting() {
            self.counted.set(self.counted.get() + records);
            appends.succeeded(begun.elapsed(), at);
        }
    }

    fn hear(&self, batch: &TailBatch) {
        self.heard.set(self.heard.get() + batch.records.len() as u64);
        let Some(at) = self.counting() else {
            return;
        };
        let mut figures = self.figures.borrow_mut();
        for record in &batch.records {
            if let Some(sent) = paced::stamped(&record.record.value) {
                let latency = self.started.elapsed().saturating_sub(sent);
                figures.succeeded(latency, at);
            }
        }
    }
}

impl Report {
    fn to_text(&self) -> String {
        let mut text = format!(
            "{} followers, {} x {} B records at {} records a second, {} s\n\n  appended a second {:.0}\n  \
             heard a second    {:.0}\n  missing           {}\n",
            self.followers,
            self.batch,
            self.size,
            self.rate,
            self.seconds,
            self.appended_per_second,
            self.heard_per_second,
            self.missing
        );
        text.push_str(&processors::text(&self.server_processors));
        text.push_str("\n  from an append's beginning to its acknowledgement, in ms\n");
        text.push_str(&self.append_ms.to_text());
        text.push_str("\n  from an append's beginning to the follower, in ms\n");
        text.push_str(&self.latency_ms.to_text());
        text
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: TailArgs,
    }

    #[test]
    fn batches_come_as_often_as_the_rate_of_records_wants() {
        let every = |arguments: &[&str]| Cli::parse_from([&["tail"], arguments].concat()).args.every();
        assert_eq!(every(&[]), Duration::from_millis(5));
        assert_eq!(every(&["--rate", "50", "--batch", "100"]), Duration::from_secs(2));
    }
}
