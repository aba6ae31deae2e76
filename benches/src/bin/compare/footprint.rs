//! What a million keys with one revision each take, in memory and on disk, and how soon a node with them is back.
//!
//! The restart is the worst one that a crash can leave: the node's database is put back to what it was before the last
//! hundred thousand writes, which the node then has to apply from its log before it serves.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use quorate_tests::{SETTLE, wait_until};

use super::cluster::{Cluster, Side};
use super::load;
use super::metrics;
use super::table::{Cell, Column, Table};
use super::usage::resident_bytes;

const KEYS: u64 = 1_000_000;
const VALUE_BYTES: usize = 256;
/// Writes that the restarted node has in its log and not in its database.
const UNAPPLIED: u64 = 100_000;
/// How long a cluster brings to disk what it has in memory only.
const SETTLING: Duration = Duration::from_secs(10);
/// Between two looks at whether a node is ready.
const PAUSE: Duration = Duration::from_millis(5);
/// The database of a node of Quorate, in its directory.
const DATABASE: &str = "state.redb";

/// What a million keys take; of the nodes the one that takes most.
#[derive(Clone, Debug)]
pub(crate) struct Footprint {
    resident_bytes: u64,
    /// Without the log.
    disk_bytes: u64,
    /// From the start of a process until it is ready and has applied all that it had before; measured of Quorate only.
    restart: Option<Duration>,
}

pub(crate) fn table(sides: &[(Side, Footprint)]) -> Table {
    let columns = [
        Column("a million keys of 256 B", "side", 0),
        Column("resident MB", "resident_mb", 0),
        Column("disk MB, without the log", "disk_mb", 0),
        Column("restart ms, 100,000 entries to apply", "restart_ms", 0),
    ];
    let mut table = Table::new("footprint", &columns);
    for (side, footprint) in sides {
        table.row([
            Cell::words(side.name()),
            Cell::Number(footprint.resident_bytes as f64 / 1e6),
            Cell::Number(footprint.disk_bytes as f64 / 1e6),
            footprint.restart.map_or(Cell::Nothing, Cell::milliseconds),
        ]);
    }
    table
}

pub(crate) fn measure(side: Side) -> Result<Footprint, String> {
    let mut cluster = Cluster::start(side)?;
    load::write_keys(&cluster, 0..KEYS, VALUE_BYTES, load::TOGETHER)?;
    std::thread::sleep(SETTLING);
    let resident: Vec<u64> = cluster
        .process_ids()
        .into_iter()
        .map(resident_bytes)
        .collect::<Result<_, _>>()?;
    let disk: Vec<u64> = cluster
        .data()
        .iter()
        .map(|(data, log)| disk_bytes(data, log))
        .collect::<Result<_, _>>()?;
    let restart = match &mut cluster {
        Cluster::Quorate(_) => Some(restart(&mut cluster)?),
        Cluster::Etcd(_) | Cluster::Nats(_) => None,
    };
    Ok(Footprint {
        resident_bytes: resident.into_iter().max().unwrap_or(0),
        disk_bytes: disk.into_iter().max().unwrap_or(0),
        restart,
    })
}

/// How long a follower takes to be ready that has to apply what its database lacks.
fn restart(cluster: &mut Cluster) -> Result<Duration, String> {
    let place = (cluster.leader()? + 1) % cluster.addresses().len();
    let address = cluster.addresses()[place];
    let Cluster::Quorate(nodes) = cluster else {
        return Err("only Quorate is restarted".to_owned());
    };
    let node = &mut nodes.nodes[place];
    let database = node.data.join(DATABASE);
    let before = node.data.with_extension("before");
    node.stop();
    std::fs::copy(&database, &before).map_err(|error| format!("{}: {error}", before.display()))?;
    // Its log keeps all that is written from here on.
    node.set_flag("--snapshot-interval", &(10 * KEYS).to_string());
    node.start();
    wait_until(SETTLE, "the follower is ready", || node.is_ready());
    load::write_keys(cluster, 0..UNAPPLIED, VALUE_BYTES, 1)?;
    std::thread::sleep(SETTLING);
    let applied = metrics::sample(address, "raft_apply_index");
    let Cluster::Quorate(nodes) = cluster else {
        return Err("only Quorate is restarted".to_owned());
    };
    let node = &mut nodes.nodes[place];
    node.stop();
    std::fs::rename(&before, &database).map_err(|error| format!("{}: {error}", database.display()))?;
    let applied = applied.ok_or_else(|| format!("{address} does not say what it has applied"))?;
    let started = Instant::now();
    node.start();
    let is_back = || metrics::sample(address, "raft_apply_index").is_some_and(|now| now >= applied);
    while !node.is_ready() || !is_back() {
        if started.elapsed() >= SETTLE {
            return Err(format!(
                "the node was not ready within {SETTLE:?}; its log:\n{}",
                node.log()
            ));
        }
        std::thread::sleep(PAUSE);
    }
    Ok(started.elapsed())
}

/// What a directory takes on its disk, without what is below `log`.
fn disk_bytes(directory: &Path, log: &Path) -> Result<u64, String> {
    use std::os::unix::fs::MetadataExt as _;
    let mut bytes = 0;
    let mut left: Vec<PathBuf> = vec![directory.to_owned()];
    while let Some(directory) = left.pop() {
        let entries =
            std::fs::read_dir(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        for entry in entries {
            let path = entry.map_err(|error| error.to_string())?.path();
            // A file may go at any time.
            let Ok(metadata) = path.symlink_metadata() else {
                continue;
            };
            if metadata.is_file() {
                bytes += metadata.blocks() * 512;
            } else if path != log {
                left.push(path);
            }
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_does_not_count() {
        let home = tempfile::tempdir().expect("a directory");
        let (log, inner) = (home.path().join("log"), home.path().join("a/b"));
        std::fs::create_dir_all(&log).expect("a directory");
        std::fs::create_dir_all(&inner).expect("a directory");
        std::fs::write(log.join("1.log"), vec![1; 1 << 20]).expect("a file");
        assert_eq!(disk_bytes(home.path(), &log), Ok(0));
        std::fs::write(inner.join("state"), vec![1; 100_000]).expect("a file");
        let bytes = disk_bytes(home.path(), &log).expect("bytes");
        assert!((100_000..200_000).contains(&bytes), "{bytes}");
    }
}
