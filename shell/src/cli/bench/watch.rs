//! `quorate bench watch`: writes at a fixed rate, and many watchers who hear of them.
//!
//! Each watcher watches a prefix of its own, of which each write concerns one, or all watch the same prefix. A value tells
//! when it was sent, so a watcher knows how long it took to reach it. The processors' time of the servers is read from
//! the system, when their processes are named.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
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
/// How long nothing may be heard after the last write before those who have not heard of everything are given up.
const QUIET: Duration = Duration::from_secs(10);
/// How long after the last write they are given up in any case.
const PATIENCE: Duration = Duration::from_secs(120);
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
    /// Acknowledged writes while it counted.
    counted: Cell<u64>,
    /// One for each prefix.
    written: Vec<Cell<Written>>,
    watchers: Vec<Watcher>,
    figures: RefCell<Figures>,
}

/// What was acknowledged of a prefix.
#[derive(Clone, Copy, Default)]
struct Written {
    writes: u64,
    /// The revision of the last one.
    revision: u64,
}

/// How far a watcher is.
#[derive(Default)]
struct Watcher {
    /// Events that it heard of.
    heard: Cell<u64>,
    /// Up to where it heard of everything, as its node says.
    position: Cell<u64>,
    /// Why it ended.
    end: RefCell<Option<String>>,
}

fn add(counter: &Cell<u64>, count: u64) {
    counter.set(counter.get() + count);
}

/// What watchers have not heard of when they are given up, in events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
struct Missing {
    /// Watchers were told that they had heard of everything, and these not: there was a gap.
    lost: u64,
    /// Watchers were still on their way.
    late: u64,
    /// Of watches that ended.
    of_ended: u64,
    /// How many watches ended, and why the first of them did.
    ended: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<String>,
}

impl Missing {
    fn count(&mut self, written: Written, watcher: &Watcher) {
        let missing = written.writes.saturating_sub(watcher.heard.get());
        if let Some(end) = &*watcher.end.borrow() {
            self.ended += 1;
            self.end.get_or_insert_with(|| end.clone());
            self.of_ended += missing;
        } else if watcher.position.get() >= written.revision {
            self.lost += missing;
        } else {
            self.late += missing;
        }
    }

    fn events(&self) -> u64 {
        self.lost + self.late + self.of_ended
    }

    /// What is wrong; none when nothing is.
    fn problem(&self) -> Option<String> {
        if self.events() == 0 && self.ended == 0 {
            return None;
        }
        let end = self
            .end
            .as_deref()
            .map(|end| format!(", the first one with: {end}"));
        Some(format!(
            "{} events were lost, {} were late, and {} are missing of {} watches that ended{}",
            self.lost,
            self.late,
            self.of_ended,
            self.ended,
            end.unwrap_or_default()
        ))
    }
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
    /// Events of writes that were begun while it counted.
    events: u64,
    events_per_second: f64,
    /// Events of acknowledged writes that were not heard of; none when nothing is wrong.
    missing: Missing,
    /// How long after the last write the last event was heard of, in milliseconds.
    drained_ms: f64,
    /// Failures of writes and interruptions of watches, by kind.
    errors: BTreeMap<&'static str, u64>,
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
    match report.missing.problem() {
        Some(problem) => Err(CliError::Other(problem)),
        None => Ok(()),
    }
}

async fn measure(args: &WatchArgs, endpoints: &[Client]) -> Result<Report, CliError> {
    let load = Rc::new(Load::new(args));
    for number in 0..args.watchers {
        let client = endpoints[number as usize % endpoints.len()].clone();
        spawn_local(watch(client, args.prefix(number), number, Rc::clone(&load)));
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
    let drained = load.drained().await;
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
        missing: load.missing(),
        drained_ms: drained.as_secs_f64() * 1e3,
        errors: figures.errors.clone(),
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
            match client.put(key.as_bytes(), value, Put::default()).await {
                Ok(answer) => load.wrote(number, answer.revision),
                Err(error) => load.figures.borrow_mut().failed(&error),
            }
        }
    };
    paced::run(Instant::now(), every, end, put).await;
}

async fn watch(client: Client, prefix: String, number: u32, load: Rc<Load>) {
    let watcher = &load.watchers[number as usize];
    let mut watch = client.watch(WatchRequest::new(Keys::Prefix(prefix.into_bytes())));
    let mut began = false;
    loop {
        match watch.next().await {
            Ok(Watched::Progress { .. }) if !began => {
                began = true;
                load.begun.set(load.begun.get() + 1);
            }
            Ok(Watched::Progress { .. }) => {}
            Ok(Watched::Change(change)) => {
                add(&watcher.heard, change.events.len() as u64);
                load.hear(&change);
            }
            Err(error) => {
                load.figures.borrow_mut().failed(&error);
                if !error.is_temporary() {
                    *watcher.end.borrow_mut() = Some(error.to_string());
                    return;
                }
            }
        }
        watcher.position.set(watch.position().unwrap_or_default());
    }
}

impl Load {
    fn new(args: &WatchArgs) -> Load {
        let prefixes = if args.shared { 1 } else { args.watchers };
        Load {
            started: Instant::now(),
            measured: Cell::new(None),
            begun: Cell::new(0),
            counted: Cell::new(0),
            written: (0..prefixes).map(|_| Cell::default()).collect(),
            watchers: (0..args.watchers).map(|_| Watcher::default()).collect(),
            figures: RefCell::new(Figures::new()),
        }
    }

    /// Takes note of the write of this number, which is acknowledged.
    fn wrote(&self, number: u64, revision: u64) {
        let prefix = &self.written[(number % self.written.len() as u64) as usize];
        let Written {
            writes,
            revision: last,
        } = prefix.get();
        prefix.set(Written {
            writes: writes + 1,
            revision: last.max(revision),
        });
        let measured = self.measured.get();
        let counts = measured.is_some_and(|(begin, _)| Instant::now() >= begin);
        add(&self.counted, u64::from(counts));
    }

    /// Takes note of the time that events took whose writes began while it counted.
    fn hear(&self, change: &WatchChange) {
        let Some((begin, end)) = self.measured.get() else {
            return;
        };
        let now = Instant::now();
        for event in &change.events {
            let WatchEvent::Put { entry, .. } = event else {
                continue;
            };
            let Some(sent) = paced::stamped(&entry.value).map(|sent| self.started + sent) else {
                continue;
            };
            if sent >= begin && sent < end {
                self.figures.borrow_mut().succeeded(now - sent, now - begin);
            }
        }
    }

    /// What has not been heard of.
    fn missing(&self) -> Missing {
        let mut missing = Missing::default();
        for (number, watcher) in self.watchers.iter().enumerate() {
            missing.count(self.written[number % self.written.len()].get(), watcher);
        }
        missing
    }

    /// Waits until everything was heard of, or nothing more is; returns how long the last of it took to come.
    async fn drained(&self) -> Duration {
        let begin = Instant::now();
        let (mut before, mut progress) = (self.missing().late, begin);
        loop {
            let now = Instant::now();
            let late = self.missing().late;
            if late < before {
                (before, progress) = (late, now);
            }
            if late == 0 || now >= progress + QUIET || now >= begin + PATIENCE {
                return progress - begin;
            }
            sleep(PAUSE).await;
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
             events a second   {:.0}\n  missing           {}\n  last one after    {:.0} ms\n",
            self.watchers,
            self.size,
            self.seconds,
            self.writes_per_second,
            self.events,
            self.events_per_second,
            self.missing.events(),
            self.drained_ms
        );
        for (kind, count) in &self.errors {
            text.push_str(&format!("  {kind:<16}  {count} times\n"));
        }
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

    #[test]
    fn what_is_lost_is_told_from_what_is_late() {
        let written = Written {
            writes: 10,
            revision: 70,
        };
        let watcher = |heard, position, end: Option<&str>| Watcher {
            heard: Cell::new(heard),
            position: Cell::new(position),
            end: RefCell::new(end.map(str::to_owned)),
        };
        let mut missing = Missing::default();
        missing.count(written, &watcher(10, 70, None));
        assert_eq!(missing.problem(), None);
        missing.count(written, &watcher(9, 72, None));
        missing.count(written, &watcher(8, 69, None));
        missing.count(written, &watcher(6, 40, Some("compacted")));
        let expected = Missing {
            lost: 1,
            late: 2,
            of_ended: 4,
            ended: 1,
            end: Some("compacted".to_owned()),
        };
        assert_eq!(missing, expected);
        assert!(missing.problem().is_some());
    }
}
