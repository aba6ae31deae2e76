//! The settings that stand on their own: clocks, storage, connections, limits, logs.

use std::path::PathBuf;
use std::time::Duration;

use quorate_core::duties::Retention;
use quorate_core::raft::LeaseReads;
use tracing_subscriber::EnvFilter;

use super::mistake::{Origin, nearest};
use super::reader::{Reader, Sourced};
use super::{Limits, LogFormat, LogOptions, NetworkOptions, RaftTiming, Storage, Timeouts};

pub(super) fn raft_timing(reader: &mut Reader) -> RaftTiming {
    const MIN_MS: u64 = 150;
    const RANGE: std::ops::RangeInclusive<u64> = 10..=60_000;
    let both = reader
        .raw("cluster.raft.election_timeout")
        .is_some()
        .then(|| reader.milliseconds("cluster.raft.election_timeout", MIN_MS, RANGE));
    reader
        .effective
        .retain(|line| line.key != "cluster.raft.election_timeout");
    let shortest = election_timeout(
        reader,
        "cluster.raft.election_timeout_min",
        MIN_MS,
        both.as_ref(),
        1,
    );
    let longest = election_timeout(
        reader,
        "cluster.raft.election_timeout_max",
        2 * MIN_MS,
        both.as_ref(),
        2,
    );
    let heartbeat = reader.milliseconds("cluster.raft.heartbeat_interval", 50, 5..=30_000);
    let rpc = reader.milliseconds("cluster.raft.rpc_timeout", 100, 10..=60_000);
    let lease_reads = reader.boolean("cluster.raft.lease_reads", false).value;
    let clock_drift_max = reader
        .number(
            "cluster.raft.clock_drift_ppm",
            10_000,
            0..=LeaseReads::CLOCK_DRIFT_LIMIT,
        )
        .value;
    if longest.value < shortest.value {
        let message = format!(
            "election_timeout_max ({} ms) is shorter than election_timeout_min ({} ms, {})",
            longest.value.as_millis(),
            shortest.value.as_millis(),
            shortest.origin
        );
        reader.mistake(&longest.origin, message);
    } else if longest.value == shortest.value {
        reader.warnings.push(format!(
            "election_timeout_min and election_timeout_max are both {} ms: nodes will ask for votes at the same time \
             and split them; make the largest twice the smallest",
            longest.value.as_millis()
        ));
    }
    if heartbeat.value >= shortest.value {
        let message = format!(
            "the heartbeat interval ({} ms) must be shorter than the smallest election time-out ({} ms, {}), best a \
             third of it: followers would call elections against a live leader",
            heartbeat.value.as_millis(),
            shortest.value.as_millis(),
            shortest.origin
        );
        reader.mistake(&heartbeat.origin, message);
    }
    RaftTiming {
        election_timeout_min: shortest.value,
        election_timeout_max: longest.value,
        heartbeat_interval: heartbeat.value,
        rpc_timeout: rpc.value,
        lease_reads: lease_reads.then_some(LeaseReads { clock_drift_max }),
    }
}

/// One end of the range of election time-outs: given itself, or as `factor` times the one value for both ends.
fn election_timeout(
    reader: &mut Reader,
    key: &'static str,
    default: u64,
    both: Option<&Sourced<Duration>>,
    factor: u32,
) -> Sourced<Duration> {
    let end = reader.milliseconds(key, default, 10..=120_000);
    let Some(both) = both else {
        return end;
    };
    if both.origin.layer() == end.origin.layer() && end.origin != Origin::Default {
        let message = format!(
            "one value for the election time-out ({}) and an end of its range are both given: leave one out",
            both.origin
        );
        reader.mistake(&end.origin, message);
    }
    if both.origin.layer() < end.origin.layer() {
        return end;
    }
    let value = both.value * factor;
    reader.effective.retain(|line| line.key != key);
    reader.note(key, value.as_millis(), &both.origin);
    Sourced {
        value,
        origin: both.origin.clone(),
    }
}

/// Half of what a link of 1 Gbit/s carries: a snapshot leaves the other half to what clients write.
const SNAPSHOT_RATE: usize = 64 << 20;
/// One slice of a transfer a second.
const SNAPSHOT_RATE_MIN: usize = 64 << 10;

pub(super) fn storage(reader: &mut Reader) -> Storage {
    let data_dir = reader.parsed(
        "cluster.storage.data_dir",
        "./data".to_owned(),
        |text| match text {
            "" => Err("expected a directory".to_owned()),
            text => Ok(text.to_owned()),
        },
    );
    reader.note("cluster.storage.data_dir", &data_dir.value, &data_dir.origin);
    let wal_sync = reader.boolean("cluster.storage.wal_sync", true);
    if !wal_sync.value {
        reader.warnings.push(format!(
            "wal_sync is off ({}): a power cut can lose writes that were acknowledged",
            wal_sync.origin
        ));
    }
    let snapshot_interval = reader.number("cluster.storage.snapshot_interval", 10_000, 1..=u64::MAX);
    let snapshot_rate = reader.bytes("cluster.storage.snapshot_rate", SNAPSHOT_RATE, 0..=usize::MAX);
    if (1..SNAPSHOT_RATE_MIN).contains(&snapshot_rate.value) {
        let message = format!(
            "the snapshot rate of {} bytes a second is below {SNAPSHOT_RATE_MIN}, at which a node that is behind would \
             hardly catch up; 0 is no limit",
            snapshot_rate.value
        );
        reader.mistake(&snapshot_rate.origin, message);
    }
    Storage {
        data_dir: PathBuf::from(data_dir.value),
        wal_sync: wal_sync.value,
        snapshot_interval: snapshot_interval.value,
        snapshot_rate: snapshot_rate.value as u64,
        retention: retention(reader),
    }
}

/// How long things are kept that can be forgotten. The leader looks several times in the time that anything is kept.
fn retention(reader: &mut Reader) -> Retention {
    const DAY_MS: u64 = 24 * 3_600_000;
    let default = Retention::default();
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let mut time = |key, default| {
        reader
            .milliseconds(key, milliseconds(default), 1_000..=365 * DAY_MS)
            .value
    };
    Retention {
        revisions: time("cluster.storage.history_age", default.revisions),
        requests: time("cluster.storage.requests_age", default.requests),
        revisions_max: reader
            .number(
                "cluster.storage.history_revisions",
                default.revisions_max,
                0..=u64::MAX,
            )
            .value,
    }
}

pub(super) fn network_options(reader: &mut Reader) -> NetworkOptions {
    NetworkOptions {
        max_connections: reader
            .number("network.max_connections", 1000, 1..=1_000_000)
            .value,
        tcp_nodelay: reader.boolean("network.tcp_nodelay", true).value,
        keepalive: reader.boolean("network.keepalive", true).value,
        max_watchers: reader.number("network.max_watchers", 10_000, 0..=1_000_000).value,
        quic: reader.boolean("network.quic", true).value,
    }
}

pub(super) fn limits(reader: &mut Reader) -> Limits {
    let default = Limits::default();
    Limits {
        key_bytes: reader
            .bytes("limits.key_bytes", default.key_bytes, 1..=64 << 10)
            .value,
        value_bytes: reader
            .bytes("limits.value_bytes", default.value_bytes, 1..=8 << 20)
            .value,
        body_bytes: reader
            .bytes("limits.body_bytes", default.body_bytes, 1 << 10..=8 << 20)
            .value,
        transaction_bytes: reader
            .bytes(
                "limits.transaction_bytes",
                default.transaction_bytes,
                1 << 10..=4 << 20,
            )
            .value,
        state_bytes: reader
            .bytes(
                "limits.state_bytes",
                default.state_bytes as usize,
                1 << 20..=usize::MAX,
            )
            .value as u64,
    }
}

pub(super) fn timeouts(reader: &mut Reader) -> Timeouts {
    let default = Timeouts::default();
    let milliseconds = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let request = reader.milliseconds("timeouts.request", milliseconds(default.request), 10..=600_000);
    let wait = milliseconds(default.leader_wait).min(milliseconds(request.value));
    let leader_wait = reader.milliseconds("timeouts.leader_wait", wait, 0..=600_000);
    let shutdown = reader.milliseconds("timeouts.shutdown", milliseconds(default.shutdown), 0..=600_000);
    let session_grace = reader.milliseconds(
        "timeouts.session_grace",
        milliseconds(default.session_grace),
        100..=3_600_000,
    );
    if leader_wait.value > request.value {
        let message = format!(
            "the wait for a leader ({} ms) is longer than a request may take ({} ms, {})",
            leader_wait.value.as_millis(),
            request.value.as_millis(),
            request.origin
        );
        reader.mistake(&leader_wait.origin, message);
    }
    Timeouts {
        request: request.value,
        leader_wait: leader_wait.value,
        shutdown: shutdown.value,
        session_grace: session_grace.value,
    }
}

pub(super) fn log_options(reader: &mut Reader) -> LogOptions {
    let level = reader.parsed("log.level", "info".to_owned(), log_filter);
    reader.note("log.level", &level.value, &level.origin);
    let format = reader.parsed("log.format", LogFormat::Text, |text| match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(format!("expected text or json, found `{text}`")),
    });
    let word = match format.value {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    };
    reader.note("log.format", word, &format.origin);
    LogOptions {
        level: level.value,
        format: format.value,
    }
}

/// A level, or levels for targets, with commas between. A word alone is a level: `tracing` itself would take one that it
/// does not know for a target, and log nothing of all others.
fn log_filter(text: &str) -> Result<String, String> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let parts = parts.map(log_directive).collect::<Result<Vec<_>, _>>()?;
    let filter = parts.join(",");
    if filter.is_empty() {
        return Err(format!("expected {LEVELS_TEXT}"));
    }
    EnvFilter::builder()
        .parse(&filter)
        .map_err(|error| format!("expected {LEVELS_TEXT}: {error}"))?;
    Ok(filter)
}

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
const LEVELS_TEXT: &str =
    "error, warn, info, debug, trace or off, or such for targets (info,quorate::transport=debug)";

fn log_directive(text: &str) -> Result<String, String> {
    let (target, level) = match text.rsplit_once('=') {
        // A filter on a field of a span, which `tracing` judges.
        Some((_, level)) if level.contains(']') => return Ok(text.to_owned()),
        Some((target, level)) => (Some(target), level),
        None => (None, text),
    };
    let word = level.trim().to_ascii_lowercase();
    let known = if word == "warning" { "warn" } else { &word };
    if !LEVELS.contains(&known) {
        let meant = nearest(&word, LEVELS).map_or(String::new(), |near| format!("; did you mean `{near}`?"));
        return Err(format!("expected {LEVELS_TEXT}, found `{text}`{meant}"));
    }
    Ok(target.map_or(known.to_owned(), |target| format!("{target}={known}")))
}
