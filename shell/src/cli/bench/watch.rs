//! `quorate bench watch`: writes at a fixed rate, and many watchers who hear of them.
//!
//! Each watcher watches a prefix of its own, of which each write concerns one, or all watch the same prefix. A value tells
//! when it was sent, so a watcher knows how long it took to reach it. The processors' time of the servers is read from
//! the system, when their processes are named.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use clap::Args;
use quorate_api::{WatchChange, WatchEvent};
use quorate_client::{Client, Keys, Put, WatchRequest, Watched};
use serde::Serialize;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, sleep};

use super::report::{Figures, Latency};
use super::{ServerArgs, TimeArgs, clients, paced, processors};
use crate::cli::connect::ConnectArgs;
use crate::cli::error::CliError;
use crate::cli::output::{Format, print, print_json};

pub(super) const EXAMPLES: &str = "\
Examples:
  quorate bench watch --watchers 1000 --rate 1000             a prefix each, of which each write concerns one
  quorate bench watch --watchers 1000 --rate 100 --shared     one prefix, of which all hear of each write";

/// How long all watchers may take to begin.
const BEGINNING: Duration = Duration::from_secs(30);
/// How long the last events may take after the last write.
const LATE: Duration = Duration::from_secs(10);
/// Between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(10);

#[derive(Clone, Debug, Args)]
pub(in super::super) struct WatchArgs {
    /// Watchers at a time
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    watchers: u32,
    /// Writes a second
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Let all watchers watch one prefix instead of one each
    #[arg(long)]
    shared: bool,
    /// What the keys begin with
    #[arg(long, default_value = "bench/")]
    prefix: String,
    /// Bytes of a value
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(0..=8 << 20))]
    size: u32,
    #[command(flatten)]
    time: TimeArgs,
    #[command(flatten)]
    servers: ServerArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

impl WatchArgs {
    fn prefix(&self, number: u32) -> String {
        if self.shared {
            self.prefix.clone()
        } else {
            format!("{}{number:06}/", self.prefix)
        }
    }

    /// The key of a write.
    fn key(&self, number: u64) -> String {
        let watcher = number % u64::from(self.watchers);
        format!("{}key", self.prefix(watcher as u32))
    }
}

struct Load {
    started: Instant,
    /// When counting begins and when writing ends, as soon as all watches have begun.
    measured: Cell<Option<(Instant, Instant)>>,
    /// Watchers that have begun.
    begun: Cell<u32>,
    /// Acknowledged writes, in all and while it counted.
    written: Cell<u64>,
    counted: Cell<u64>,
    /// Events that watchers heard of.
    heard: Cell<u64>,
    figures: RefCell<Figures>,
}

fn add(counter: &Cell<u64>, count: u64) {
    counter.set(counter.get() + count);
}

/// The result, as programs read it.
#[derive(Debug, Serialize)]
struct Report {
    operation: &'static str,
    watchers: u32,
    /// Whether all watch one prefix.
    shared: bool,
    size: u32,
    seconds: u64,
    writes_per_second: f64,
    /// Events that were heard of and counted.
    events: u64,
    events_per_second: f64,
    /// Events of acknowledged writes that no watcher heard of in time; none when nothing is wrong.
    missing: u64,
    /// How many processors each server kept busy, with the number of its process.
    server_processors: Vec<(u32, f64)>,
    latency_ms: Latency,
}

pub(super) async fn run(args: &WatchArgs) -> Result<(), CliError> {
    let endpoints = clients(&args.connect, paced::CONNECTIONS_MAX).await?;
    let report = LocalSet::new().run_until(measure(args, &endpoints)).await?;
    match args.connect.format {
        Format::Json => print_json(&report)?,
        Format::Table => print(&report.to_text())?,
    }
    if report.missing > 0 {
        return Err(CliError::Other(format!(
            "{} events were not heard of",
            report.missing
        )));
    }
    Ok(())
}

async fn measure(args: &WatchArgs, endpoints: &[Client]) -> Result<Report, CliError> {
    let load = Rc::new(Load {
        started: Instant::now(),
        measured: Cell::new(None),
        begun: Cell::new(0),
        written: Cell::new(0),
        counted: Cell::new(0),
        heard: Cell::new(0),
        figures: RefCell::new(Figures::new()),
    });
    for number in 0..args.watchers {
        let client = endpoints[number as usize % endpoints.len()].clone();
        spawn_local(watch(client, args.prefix(number), Rc::clone(&load)));
    }
    while load.begun.get() < args.watchers {
        if load.started.elapsed() >= BEGINNING {
            let message = format!(
                "only {} of {} watches began; see max_connections and max_watchers of the nodes",
                load.begun.get(),
                args.watchers
            );
            return Err(CliError::Other(message));
        }
        sleep(PAUSE).await;
    }
    let begin = Instant::now() + Duration::from_secs(args.time.warmup);
    let end = begin + Duration::from_secs(args.time.seconds);
    load.measured.set(Some((begin, end)));
    let processors = spawn_local(processors::used(args.servers.server_pid.clone(), begin, end));
    write(args, &endpoints[0], &load, end).await;
    let listeners = if args.shared { u64::from(args.watchers) } else { 1 };
    let expected = load.written.get() * listeners;
    let deadline = Instant::now() + LATE;
    while load.heard.get() < expected && Instant::now() < deadline {
        sleep(PAUSE).await;
    }
    let server_processors = processors.await.unwrap_or_default();
    let figures = load.figures.borrow();
    let seconds = args.time.seconds as f64;
    Ok(Report {
        operation: "watch",
        watchers: args.watchers,
        shared: args.shared,
        size: args.size,
        seconds: args.time.seconds,
        writes_per_second: load.counted.get() as f64 / seconds,
        events: figures.operations(),
        events_per_second: figures.operations() as f64 / seconds,
        missing: expected.saturating_sub(load.heard.get()),
        server_processors,
        latency_ms: figures.latency(),
    })
}

/// Writes at the wanted rate until the end.
async fn write(args: &WatchArgs, client: &Client, load: &Rc<Load>, end: Instant) {
    let every = Duration::from_secs(1) / args.rate;
    let (args, client, load) = (args.clone(), client.clone(), Rc::clone(load));
    let put = move |number| {
        let (key, size) = (args.key(number), args.size);
        let (client, load) = (client.clone(), Rc::clone(&load));
        async move {
            let value = paced::stamp(load.started, size);
            if client.put(key.as_bytes(), value, Put::default()).await.is_ok() {
                add(&load.written, 1);
                let counts = load
                    .measured
                    .get()
                    .is_some_and(|(begin, _)| Instant::now() >= begin);
                add(&load.counted, u64::from(counts));
            }
        }
    };
    paced::run(Instant::now(), every, end, put).await;
}

async fn watch(client: Client, prefix: String, load: Rc<Load>) {
    let mut watch = client.watch(WatchRequest::new(Keys::Prefix(prefix.into_bytes())));
    let mut began = false;
    loop {
        match watch.next().await {
            Ok(Watched::Progress { .. }) if !began => {
                began = true;
                load.begun.set(load.begun.get() + 1);
            }
            Ok(Watched::Progress { .. }) => {}
            Ok(Watched::Change(change)) => load.hear(&change),
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
    fn hear(&self, change: &WatchChange) {
        add(&self.heard, change.events.len() as u64);
        let Some((begin, end)) = self.measured.get() else {
            return;
        };
        let now = Instant::now();
        if now < begin || now >= end {
            return;
        }
        for event in &change.events {
            let WatchEvent::Put { entry, .. } = event else {
                continue;
            };
            if let Some(sent) = paced::stamped(&entry.value) {
                let latency = self.started.elapsed().saturating_sub(sent);
                self.figures.borrow_mut().succeeded(latency, now - begin);
            }
        }
    }
}

impl Report {
    fn to_text(&self) -> String {
        let what = if self.shared {
            "one prefix"
        } else {
            "a prefix each"
        };
        let mut text = format!(
            "{} watchers of {what}, {} B values, {} s\n\n  writes a second   {:.0}\n  events            {}\n  \
             events a second   {:.0}\n  missing           {}\n",
            self.watchers,
            self.size,
            self.seconds,
            self.writes_per_second,
            self.events,
            self.events_per_second,
            self.missing
        );
        text.push_str(&processors::text(&self.server_processors));
        text.push_str("\n  from the write's beginning to the watcher, in ms\n");
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
        args: WatchArgs,
    }

    #[test]
    fn writes_go_round_the_prefixes_of_the_watchers() {
        let apart = Cli::parse_from(["watch", "--watchers", "3"]).args;
        assert_eq!(apart.prefix(1), "bench/000001/");
        assert_eq!(apart.key(4), "bench/000001/key");
        let together = Cli::parse_from(["watch", "--shared"]).args;
        assert_eq!(together.key(4), "bench/key");
    }
}
