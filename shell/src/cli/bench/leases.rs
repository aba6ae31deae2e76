//! `quorate bench leases`: what many leases cost while nobody keeps them alive, and how many can be kept alive.
//!
//! The servers' time is read before there are leases and while there are, so that what the leases take can be told from
//! what an idle node takes. All leases are revoked at the end.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use clap::Args;
use futures_util::future::{join, try_join_all};
use quorate_api::KEEP_ALIVES_MAX;
use quorate_client::{Client, Error};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::report::{Figures, Latency};
use super::{ServerArgs, TimeArgs, bar, clients, processors};
use crate::cli::connect::ConnectArgs;
use crate::cli::error::CliError;
use crate::cli::output::{Format, print, print_json};
use crate::cli::units::time;

pub(super) const EXAMPLES: &str = "\
Examples:
  quorate bench leases
  quorate bench leases --leases 100000 --seconds 30 --server-pid $(pgrep -d, -x quorate)
  quorate bench leases --batch 1 --clients 64          a keep-alive a request";

#[derive(Debug, Args)]
pub(in super::super) struct LeasesArgs {
    /// How many leases
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    leases: u32,
    /// How long they last, should this command not live to revoke them
    #[arg(long, value_name = "TIME", default_value = "30m", value_parser = time)]
    ttl: Duration,
    /// Leases that one request keeps alive
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=KEEP_ALIVES_MAX as i64))]
    batch: u32,
    /// How many requests are under way at a time
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    clients: u32,
    #[command(flatten)]
    time: TimeArgs,
    #[command(flatten)]
    servers: ServerArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// The result, as programs read it.
#[derive(Debug, Serialize)]
struct Report {
    operation: &'static str,
    leases: u32,
    seconds: u64,
    grants_per_second: f64,
    /// How many processors each idle server kept busy without these leases and with them, with the number of its process.
    without_leases: Vec<(u32, f64)>,
    with_leases: Vec<(u32, f64)>,
    /// Leases in one keep-alive request.
    batch: u32,
    keep_alive_requests_per_second: f64,
    kept_alive_per_second: f64,
    /// Leases that were gone when they were to be kept alive; none when nothing is wrong.
    gone: u64,
    keeping_alive: Vec<(u32, f64)>,
    keep_alive_ms: Latency,
}

pub(super) async fn run(args: &LeasesArgs) -> Result<(), CliError> {
    let clients = clients(&args.connect, args.clients).await?;
    let without_leases = idle(args).await;
    let begun = Instant::now();
    let leases = grant(args, &clients).await?;
    let granting = begun.elapsed();
    let with_leases = idle(args).await;
    let kept = keep_alive(args, &clients, &leases).await;
    revoke(args, &clients, &leases).await?;
    let (kept, keeping_alive) = kept?;
    let seconds = args.time.seconds as f64;
    let requests_per_second = kept.figures.borrow().operations() as f64 / seconds;
    let report = Report {
        operation: "leases",
        leases: args.leases,
        seconds: args.time.seconds,
        grants_per_second: f64::from(args.leases) / granting.as_secs_f64(),
        without_leases,
        with_leases,
        batch: args.batch,
        keep_alive_requests_per_second: requests_per_second,
        kept_alive_per_second: kept.leases.get() as f64 / seconds,
        gone: kept.gone.get(),
        keeping_alive,
        keep_alive_ms: kept.figures.borrow().latency(),
    };
    match args.connect.format {
        Format::Json => print_json(&report)?,
        Format::Table => print(&report.to_text())?,
    }
    if report.gone > 0 {
        return Err(CliError::Other(format!("{} leases were gone", report.gone)));
    }
    Ok(())
}

/// What the servers take while nobody asks anything; none of them named, nothing is waited for.
async fn idle(args: &LeasesArgs) -> Vec<(u32, f64)> {
    if args.servers.server_pid.is_empty() {
        return Vec::new();
    }
    let seconds = args.time.warmup + args.time.seconds;
    let bar = bar(seconds, "idle            {bar:30} {pos}/{len} s");
    let begin = Instant::now() + Duration::from_secs(args.time.warmup);
    let end = begin + Duration::from_secs(args.time.seconds);
    let tick = async {
        while Instant::now() < end {
            sleep(Duration::from_secs(1)).await;
            bar.inc(1);
        }
    };
    let (used, ()) = join(
        processors::used(args.servers.server_pid.clone(), begin, end),
        tick,
    )
    .await;
    bar.finish_and_clear();
    used
}

/// Does something for each of so many numbers, each client one after the other; returns what came of them.
async fn for_all<T, F, R>(args: &LeasesArgs, clients: &[Client], name: &str, work: F) -> Result<Vec<T>, Error>
where
    F: Fn(Client, usize) -> R,
    R: Future<Output = Result<T, Error>>,
{
    let bar = bar(
        u64::from(args.leases),
        &format!("{name:<16}{{bar:30}} {{pos}}/{{len}}"),
    );
    let workers = (0..args.clients as usize).map(|first| {
        let client = &clients[first % clients.len()];
        let (bar, work) = (&bar, &work);
        async move {
            let mut results = Vec::new();
            for number in (first..args.leases as usize).step_by(args.clients as usize) {
                results.push(work(client.clone(), number).await?);
                bar.inc(1);
            }
            Ok::<_, Error>(results)
        }
    });
    let results = try_join_all(workers).await?;
    bar.finish_and_clear();
    Ok(results.into_iter().flatten().collect())
}

async fn grant(args: &LeasesArgs, clients: &[Client]) -> Result<Vec<u64>, Error> {
    let grant =
        |client: Client, _| async move { client.grant_lease(args.ttl, None).await.map(|lease| lease.id) };
    for_all(args, clients, "granting leases", grant).await
}

async fn revoke(args: &LeasesArgs, clients: &[Client], leases: &[u64]) -> Result<(), Error> {
    let revoke = |client: Client, number: usize| {
        let lease = leases[number];
        async move {
            match client.revoke_lease(lease).await {
                Ok(_) | Err(Error::NotFound(_)) => Ok(()),
                Err(error) => Err(error),
            }
        }
    };
    for_all(args, clients, "revoking leases", revoke).await.map(drop)
}

/// What came of keeping leases alive.
struct Kept {
    /// Requests.
    figures: RefCell<Figures>,
    leases: Cell<u64>,
    gone: Cell<u64>,
}

/// Keeps all leases alive again and again, in a closed loop of clients; also how busy the servers are meanwhile.
async fn keep_alive(
    args: &LeasesArgs,
    clients: &[Client],
    leases: &[u64],
) -> Result<(Kept, Vec<(u32, f64)>), Error> {
    let kept = Kept {
        figures: RefCell::new(Figures::new()),
        leases: Cell::new(0),
        gone: Cell::new(0),
    };
    let begin = Instant::now() + Duration::from_secs(args.time.warmup);
    let end = begin + Duration::from_secs(args.time.seconds);
    let batches: Vec<&[u64]> = leases.chunks(args.batch as usize).collect();
    let next = Cell::new(0);
    let workers = (0..args.clients as usize).map(|number| {
        let client = &clients[number % clients.len()];
        let (batches, next, kept) = (&batches, &next, &kept);
        async move {
            loop {
                let started = Instant::now();
                if started >= end {
                    return Ok::<(), Error>(());
                }
                let batch = batches[next.replace((next.get() + 1) % batches.len())];
                let answer = client.keep_leases_alive(batch).await?;
                let finished = Instant::now();
                kept.gone.set(kept.gone.get() + answer.gone.len() as u64);
                if finished >= begin && finished < end {
                    kept.leases.set(kept.leases.get() + answer.leases.len() as u64);
                    let mut figures = kept.figures.borrow_mut();
                    figures.succeeded(finished - started, finished - begin);
                }
            }
        }
    });
    let processors = processors::used(args.servers.server_pid.clone(), begin, end);
    let (result, used) = join(try_join_all(workers), processors).await;
    result.map(|_| (kept, used))
}

impl Report {
    fn to_text(&self) -> String {
        let mut text = format!(
            "{} leases, {} s\n\n  grants a second   {:.0}\n",
            self.leases, self.seconds, self.grants_per_second
        );
        for (title, used) in [
            ("idle without these leases", &self.without_leases),
            ("idle with them", &self.with_leases),
        ] {
            if !used.is_empty() {
                text.push_str(&format!("\n  {title}\n{}", processors::text(used)));
            }
        }
        text.push_str(&format!(
            "\n  keep-alives of {} leases each\n  requests a second {:.0}\n  leases a second   {:.0}\n  gone              {}\n",
            self.batch, self.keep_alive_requests_per_second, self.kept_alive_per_second, self.gone
        ));
        text.push_str(&processors::text(&self.keeping_alive));
        text.push_str("\n  latency in ms\n");
        text.push_str(&self.keep_alive_ms.to_text());
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_that_are_not_named_are_not_mentioned() {
        let report = |used: Vec<(u32, f64)>| Report {
            operation: "leases",
            leases: 10,
            seconds: 1,
            grants_per_second: 5.0,
            without_leases: used.clone(),
            with_leases: used.clone(),
            batch: 2,
            keep_alive_requests_per_second: 3.0,
            kept_alive_per_second: 6.0,
            gone: 0,
            keeping_alive: used,
            keep_alive_ms: Figures::new().latency(),
        };
        assert!(!report(Vec::new()).to_text().contains("idle"));
        let text = report(vec![(7, 0.01)]).to_text();
        assert!(
            text.contains("  idle with them\n  process 7         0.010 of a processor\n"),
            "{text}"
        );
    }
}
