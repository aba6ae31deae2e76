//! What processes take of this machine, as the system tells.

use std::time::Duration;

/// Time on a processor of all threads that a process has, to the nanosecond.
pub(crate) fn processor_time(id: u32) -> Result<Duration, String> {
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

/// How much memory a process has in use.
pub(crate) fn resident_bytes(id: u32) -> Result<u64, String> {
    let path = format!("/proc/{id}/status");
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    text.lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
        .map(|kibibytes| kibibytes * 1024)
        .ok_or_else(|| format!("{path} shows no VmRSS"))
}
