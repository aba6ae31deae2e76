//! What nodes take while nobody asks anything of them.

use std::time::Duration;

use super::cluster::{Cluster, Side};
use super::table::{Cell, Column, Table};
use super::usage::{processor_time, resident_bytes};

/// How long a cluster settles first, and how long it is watched.
const SETTLING: Duration = Duration::from_secs(3);
const WATCHED: Duration = Duration::from_secs(10);

/// What one node took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Idle {
    resident_bytes: u64,
    /// Of one core.
    processor_percent: f64,
}

/// One row a node.
pub(crate) fn table(sides: &[(Side, Vec<Idle>)]) -> Table {
    let columns = [
        Column("idle node", "side", 0),
        Column("resident MB", "resident_mb", 1),
        Column("% of a core", "processor_percent", 2),
    ];
    let mut table = Table::new("idle", &columns);
    for (side, nodes) in sides {
        for node in nodes {
            table.row([
                Cell::words(side.name()),
                Cell::Number(node.resident_bytes as f64 / 1e6),
                Cell::Number(node.processor_percent),
            ]);
        }
    }
    table
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
