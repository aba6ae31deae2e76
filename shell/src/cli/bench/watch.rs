//! `quorate bench watch`: writes at a fixed rate, and many watchers who hear of them.
//!
//! Each watcher watches a prefix of its own, of which each write concerns one, or all watch the same prefix. A value tells
//! when it was sent, so a watcher knows how long it took to reach it. The processors' time of the servers is read from
//! the system, when their processes are named.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use quorate_api::{WatchChange, WatchEvent};
use quorate_client::{Client, Keys, Put, WatchRequest, Watched};
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use super::report::{Figures, Latency};
use super::{BenchArgs, clients};
use crate::cli::error::CliError;
use crate::cli::output::{Format, print, print_json};

/// How many writes may be under way, so that one writer keeps its rate.
const UNDER_WAY_MAX: usize = 256;
/// How long all watchers may take to begin.
const BEGINNING: Duration = Duration::from_secs(30);
/// How long the last events may take after the last write.
const LATE: Duration = Duration::from_secs(10);
/// Between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(10);

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

pub(super) async fn run(args: &BenchArgs) -> Result<(), CliError> {
    let endpoints = clients(args).await?;
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

async fn measure(args: &BenchArgs, endpoints: &[Client]) -> Result<Report, CliError> {
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
        spawn_local(watch(client, prefix(args, number), Rc::clone(&load)));
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
    let begin = Instant::now() + Duration::from_secs(args.warmup);
    let end = begin + Duration::from_secs(args.seconds);
    load.measured.set(Some((begin, end)));
    let processors = spawn_local(processors(args.server_pid.clone(), begin, end));
    write(args, &endpoints[0], &load, end).await;
    let listeners = if args.shared { u64::from(args.watchers) } else { 1 };
    let expected = load.written.get() * listeners;
    let deadline = Instant::now() + LATE;
    while load.heard.get() < expected && Instant::now() < deadline {
        sleep(PAUSE).await;
    }
    let server_processors = processors.await.unwrap_or_default();
    let figures = load.figures.borrow();
    let seconds = args.seconds as f64;
    Ok(Report {
        operation: "watch",
        watchers: args.watchers,
        shared: args.shared,
        size: args.size,
        seconds: args.seconds,
        writes_per_second: load.counted.get() as f64 / seconds,
        events: figures.operations(),
        events_per_second: figures.operations() as f64 / seconds,
        missing: expected.saturating_sub(load.heard.get()),
        server_processors,
        latency_ms: figures.latency(),
    })
}

fn prefix(args: &BenchArgs, number: u32) -> String {
    if args.shared {
        args.prefix.clone()
    } else {
        format!("{}{number:06}/", args.prefix)
    }
}

/// Writes at the wanted rate until the end.
async fn write(args: &BenchArgs, client: &Client, load: &Rc<Load>, end: Instant) {
    let room = Arc::new(Semaphore::new(UNDER_WAY_MAX));
    let mut ticks = interval(Duration::from_secs(1) / args.rate);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut number = 0u32;
    while ticks.tick().await < end {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        let key = format!("{}key", prefix(args, number % args.watchers));
        number = number.wrapping_add(1);
        let (client, load, size) = (client.clone(), Rc::clone(load), args.size as usize);
        spawn_local(async move {
            let value = format!("{:0size$}", load.started.elapsed().as_nanos());
            if client.put(key.as_bytes(), value, Put::default()).await.is_ok() {
                add(&load.written, 1);
                let counts = load
                    .measured
                    .get()
                    .is_some_and(|(begin, _)| Instant::now() >= begin);
                add(&load.counted, u64::from(counts));
            }
            drop(permit);
        });
    }
    // Those that are under way have a time-out of their own.
    let _ = room.acquire_many(UNDER_WAY_MAX as u32).await;
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
            let sent = std::str::from_utf8(&entry.value)
                .ok()
                .and_then(|text| text.parse().ok());
            if let Some(sent) = sent.map(Duration::from_nanos) {
                let latency = self.started.elapsed().saturating_sub(sent);
                self.figures.borrow_mut().succeeded(latency, now - begin);
            }
        }
    }
}

/// How many processors each process keeps busy between two times; those that the system does not know are left out.
async fn processors(processes: Vec<u32>, begin: Instant, end: Instant) -> Vec<(u32, f64)> {
    let used = || {
        processes
            .iter()
            .map(|process| (*process, processor_time(*process)))
    };
    sleep_until(begin).await;
    let (before, since): (Vec<_>, _) = (used().collect(), Instant::now());
    sleep_until(end).await;
    let seconds = since.elapsed().as_secs_f64();
    let after = used().map(|(_, time)| time);
    before
        .into_iter()
        .zip(after)
        .filter_map(|((process, before), after)| Some((process, (after? - before?).as_secs_f64() / seconds)))
        .collect()
}

/// How long the processors have worked for a process (proc(5), fields 14 and 15 of `stat`).
fn processor_time(process: u32) -> Option<Duration> {
    /// Linux tells programs the time in hundredths of a second, on every architecture.
    const TICK: Duration = Duration::from_millis(10);
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The second field, the name, may hold anything, and ends with the last bracket.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut field = || fields.next()?.parse::<u32>().ok();
    let (user, system) = (field()?, field()?);
    Some(TICK * user + TICK * system)
}

impl Report {
    fn to_text(&self) -> String {
        let what = if self.shared {
            "one prefix"
        } else {
            "a prefix each"
        };
        let mut text = format!(
            "{} watchers of {what}, {} B values, {} s\n\n  writes a second  {:.0}\n  events           {}\n  \
             events a second  {:.0}\n  missing          {}\n",
            self.watchers,
            self.size,
            self.seconds,
            self.writes_per_second,
            self.events,
            self.events_per_second,
            self.missing
        );
        for (process, processors) in &self.server_processors {
            text.push_str(&format!(
                "  process {process:<8} {processors:.2} of a processor\n"
            ));
        }
        if let Some(sum) = self
            .server_processors
            .iter()
            .map(|(_, used)| *used)
            .reduce(|one, other| one + other)
        {
            text.push_str(&format!("  all servers      {sum:.2} of a processor\n"));
        }
        text.push_str("\n  from the write's beginning to the watcher, in ms\n");
        text.push_str(&self.latency_ms.to_text());
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_an_own_process_is_known_and_of_no_process_is_not() {
        assert!(processor_time(std::process::id()).is_some());
        assert_eq!(processor_time(u32::MAX), None);
    }
}
