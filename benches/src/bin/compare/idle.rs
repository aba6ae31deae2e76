//! What nodes take while nobody asks anything of them.

use std::time::Duration;

use super::cluster::{Cluster, Side};

/// How long a cluster settles first, and how long it is watched.
const SETTLING: Duration = Duration::from_secs(3);
const WATCHED: Duration = Duration::from_secs(10);

/// What one node took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Idle {
    pub(crate) resident_bytes: u64,
    /// Of one core.
    pub(crate) processor_percent: f64,
}

pub(crate) fn measure(side: Side) -> Result<Vec<Idle>, String> {
    let cluster = Cluster::start(side)?;
    std::thread::sleep(SETTLING);
    let processes = cluster.process_ids();
    let before: Vec<Duration> = processes
        .iter()
        .map(|id| processor_time(*id))
        .collect::<Result<_, _>>()?;
    std::thread::sleep(WATCHED);
    processes
        .iter()
        .zip(before)
        .map(|(id, before)| {
            let time = processor_time(*id)?.saturating_sub(before);
            Ok(Idle {
                resident_bytes: resident_bytes(*id)?,
                processor_percent: time.as_secs_f64() * 100.0 / WATCHED.as_secs_f64(),
            })
        })
        .collect()
}

/// Time on a processor of all threads of a process, to the nanosecond.
fn processor_time(id: u32) -> Result<Duration, String> {
    let tasks = std::fs::read_dir(format!("/proc/{id}/task")).map_err(|error| error.to_string())?;
    let mut nanoseconds = 0;
    for task in tasks {
        let path = task.map_err(|error| error.to_string())?.path().join("schedstat");
        let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        nanoseconds += text
            .split_whitespace()
            .next()
            .and_then(|first| first.parse::<u64>().ok())
            .ok_or_else(|| format!("{} says {text:?}", path.display()))?;
    }
    Ok(Duration::from_nanos(nanoseconds))
}

fn resident_bytes(id: u32) -> Result<u64, String> {
    let path = format!("/proc/{id}/status");
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    text.lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
        .map(|kibibytes| kibibytes * 1024)
        .ok_or_else(|| format!("{path} shows no VmRSS"))
}
