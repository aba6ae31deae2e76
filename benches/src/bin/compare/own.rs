//! What Quorate is measured for alone, with `quorate bench` on a fresh cluster: watchers and leases.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::cluster::{Cluster, Side};
use super::table::{Cell, Column, Table, median};

/// How long each part of a measurement takes, in seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) warm_up: u64,
    pub(crate) measured: u64,
}

/// Many watchers, and one who writes at a fixed rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct WatchLoad {
    watchers: u32,
    /// Writes a second.
    rate: u32,
    /// Whether all watch one prefix, instead of one each.
    shared: bool,
}

/// The goals of the design: each takes less than one processor.
pub(crate) const WATCH_LOADS: [WatchLoad; 2] = [
    WatchLoad {
        watchers: 1000,
        rate: 1000,
        shared: false,
    },
    WatchLoad {
        watchers: 1000,
        rate: 100,
        shared: true,
    },
];
/// The goal of the design: idle, they take 1 % of a processor.
const LEASES: u32 = 100_000;
/// How many leases one request keeps alive.
const LEASES_A_REQUEST: u32 = 100;

impl WatchLoad {
    fn describe(self) -> String {
        let what = if self.shared {
            "one prefix"
        } else {
            "a prefix each"
        };
        format!("{} watchers of {what}, {} writes/s", self.watchers, self.rate)
    }

    /// Runs it; every event has to arrive.
    pub(crate) fn run(self, times: Times) -> Result<Watching, String> {
        let cluster = Cluster::start(Side::Quorate)?;
        let (watchers, rate) = (self.watchers.to_string(), self.rate.to_string());
        let mut arguments = vec!["watch", "--watchers", &*watchers, "--rate", &*rate];
        if self.shared {
            arguments.push("--shared");
        }
        let report = bench(&cluster, &arguments, times)?;
        Ok(Watching {
            writes_a_second: number(&report, "/writes_per_second")?,
            events_a_second: number(&report, "/events_per_second")?,
            processors: processors(&report, "server_processors", &cluster.process_ids())?,
            p50_ms: number(&report, "/latency_ms/p50")?,
            p99_ms: number(&report, "/latency_ms/p99")?,
        })
    }
}

/// What came of many watchers.
#[derive(Clone, Debug)]
pub(crate) struct Watching {
    writes_a_second: f64,
    events_a_second: f64,
    /// How many processors all nodes together kept busy.
    processors: f64,
    /// From a write's beginning to the watcher.
    p50_ms: f64,
    p99_ms: f64,
}

/// What came of many leases.
#[derive(Clone, Debug)]
pub(crate) struct Leasing {
    grants_a_second: f64,
    /// How many processors the idle leader kept busy, without the leases and with them.
    leader_without: f64,
    leader_with: f64,
    kept_alive_a_second: f64,
    /// Of a request that keeps several leases alive.
    p50_ms: f64,
    p99_ms: f64,
}

/// The medians of each load.
pub(crate) fn watch_table(loads: &BTreeMap<WatchLoad, Vec<Watching>>) -> Table {
    let columns = [
        Column("watch", "load", 0),
        Column("writes/s", "writes_a_second", 0),
        Column("events/s", "events_a_second", 0),
        Column("p50 ms", "p50_ms", 2),
        Column("p99 ms", "p99_ms", 2),
        Column("processors, all nodes", "processors", 2),
    ];
    let mut table = Table::new("watch", &columns);
    for (load, rounds) in loads {
        let middle = |of: fn(&Watching) -> f64| Cell::Number(median(rounds.iter().map(of)));
        table.row([
            Cell::words(load.describe()),
            middle(|watching| watching.writes_a_second),
            middle(|watching| watching.events_a_second),
            middle(|watching| watching.p50_ms),
            middle(|watching| watching.p99_ms),
            middle(|watching| watching.processors),
        ]);
    }
    table
}

/// The medians.
pub(crate) fn lease_table(rounds: &[Leasing]) -> Table {
    let columns = [
        Column("100,000 leases", "load", 0),
        Column("grants/s", "grants_a_second", 0),
        Column("idle leader without, % of a core", "leader_without_percent", 2),
        Column("with, % of a core", "leader_with_percent", 2),
        Column("kept alive/s", "kept_alive_a_second", 0),
        Column("p50 ms", "p50_ms", 2),
        Column("p99 ms", "p99_ms", 2),
    ];
    let middle = |of: fn(&Leasing) -> f64| Cell::Number(median(rounds.iter().map(of)));
    let mut table = Table::new("leases", &columns);
    table.row([
        Cell::words(format!("{LEASES_A_REQUEST} a keep-alive")),
        middle(|leasing| leasing.grants_a_second),
        middle(|leasing| leasing.leader_without * 100.0),
        middle(|leasing| leasing.leader_with * 100.0),
        middle(|leasing| leasing.kept_alive_a_second),
        middle(|leasing| leasing.p50_ms),
        middle(|leasing| leasing.p99_ms),
    ]);
    table
}

/// Grants leases, lets them be, and keeps them alive.
pub(crate) fn leases(times: Times) -> Result<Leasing, String> {
    let cluster = Cluster::start(Side::Quorate)?;
    let (count, batch) = (LEASES.to_string(), LEASES_A_REQUEST.to_string());
    let arguments = ["leases", "--leases", &*count, "--batch", &*batch];
    let report = bench(&cluster, &arguments, times)?;
    let leader = &cluster.process_ids()[cluster.leader()?..][..1];
    Ok(Leasing {
        grants_a_second: number(&report, "/grants_per_second")?,
        leader_without: processors(&report, "without_leases", leader)?,
        leader_with: processors(&report, "with_leases", leader)?,
        kept_alive_a_second: number(&report, "/kept_alive_per_second")?,
        p50_ms: number(&report, "/keep_alive_ms/p50")?,
        p99_ms: number(&report, "/keep_alive_ms/p99")?,
    })
}

/// What `quorate bench` reports, beginning at the leader.
fn bench(cluster: &Cluster, arguments: &[&str], times: Times) -> Result<Value, String> {
    let mut endpoints: Vec<String> = cluster.addresses().iter().map(ToString::to_string).collect();
    endpoints.rotate_left(cluster.leader()?);
    let processes: Vec<String> = cluster.process_ids().iter().map(ToString::to_string).collect();
    let output = Command::new(quorate_tests::quorate())
        .arg("bench")
        .args(arguments)
        .args(["--endpoint", &endpoints.join(",")])
        .args(["--server-pid", &processes.join(",")])
        .args(["--warmup", &times.warm_up.to_string()])
        .args(["--seconds", &times.measured.to_string()])
        .args(["--output", "json"])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("quorate does not start: {error}"))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(format!("quorate bench {}: {errors}", arguments.join(" ")));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| format!("the report of quorate bench: {error}"))
}

fn number(report: &Value, path: &str) -> Result<f64, String> {
    let number = report.pointer(path).and_then(Value::as_f64);
    number.ok_or_else(|| format!("quorate bench reports no {path}"))
}

/// How many processors some servers kept busy together, of a list of processes and what each of them kept busy.
fn processors(report: &Value, field: &str, processes: &[u32]) -> Result<f64, String> {
    let list: Vec<(u32, f64)> = serde_json::from_value(report[field].clone())
        .map_err(|error| format!("quorate bench reports {field} oddly: {error}"))?;
    let of = |process: &u32| list.iter().find(|(id, _)| id == process).map(|(_, used)| used);
    let used: Option<Vec<&f64>> = processes.iter().map(of).collect();
    let used = used.ok_or_else(|| format!("quorate bench reports no {field} of some node"))?;
    Ok(used.into_iter().sum())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_processors_of_the_named_servers_are_added_up() {
        let report = json!({"used": [[7, 0.5], [8, 0.25], [9, 0.125]]});
        assert_eq!(processors(&report, "used", &[7, 9]), Ok(0.625));
        assert!(processors(&report, "used", &[6]).is_err());
        assert!(processors(&report, "other", &[7]).is_err());
    }

    #[test]
    fn what_is_not_reported_is_an_error() {
        let report = json!({"latency_ms": {"p50": 1.5}});
        assert_eq!(number(&report, "/latency_ms/p50"), Ok(1.5));
        assert!(number(&report, "/latency_ms/p99").is_err());
    }
}
