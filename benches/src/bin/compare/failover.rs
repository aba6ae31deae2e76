//! How long writes stop when the leader's process is killed.
//!
//! A few writers put without a pause; one whose request fails, or is not answered within a bounded time, goes on with
//! the next node. The gap is the longest time between two acknowledgements, of whatever writer, around the kill.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::task::LocalSet;
use tokio::time::{sleep, timeout};

use super::cluster::{Cluster, Side};
use super::load::{self, Connection};
use super::table::{self, Cell, Column, Table};

const WRITERS: usize = 4;
/// The load before the kill.
const BEFORE: Duration = Duration::from_millis(700);
/// How long writes are looked at after the kill; longer than any side needs.
const AFTER: Duration = Duration::from_secs(6);
/// How long a writer waits for one answer before it tries another node, on either side.
const PATIENCE: Duration = Duration::from_millis(250);
/// The pause of a writer after an error, so that a broken cluster is not asked in a tight loop.
const ERROR_PAUSE: Duration = Duration::from_millis(2);
/// As soon as writes went on for so long, the round is over.
const STEADY: Duration = Duration::from_millis(500);

/// The gaps of all kills, ascending.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gaps(Vec<Duration>);

impl Gaps {
    fn median(&self) -> Duration {
        self.0.get(self.0.len() / 2).copied().unwrap_or_default()
    }

    fn longest(&self) -> Duration {
        self.0.last().copied().unwrap_or_default()
    }
}

pub(crate) fn table(sides: &[(Side, Gaps)]) -> Table {
    let columns = [
        Column("kill -9 of the leader", "side", 0),
        Column("writes stop, median ms", "median_ms", 0),
        Column("longest ms", "longest_ms", 0),
        Column("kills", "kills", 0),
    ];
    let mut table = Table::new("failover", &columns);
    for (side, gaps) in sides {
        table.row([
            Cell::words(side.name()),
            Cell::milliseconds(gaps.median()),
            Cell::milliseconds(gaps.longest()),
            Cell::Number(gaps.0.len() as f64),
        ]);
    }
    table
}

pub(crate) fn measure(side: Side, kills: u32) -> Result<Gaps, String> {
    let mut cluster = Cluster::start(side)?;
    let bar = table::progress(u64::from(kills));
    bar.set_message(format!("{} failover", side.name()));
    let mut gaps = Vec::new();
    for _ in 0..kills {
        let leader = cluster.leader()?;
        gaps.push(one(&mut cluster, leader)?);
        cluster.restart(leader)?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    gaps.sort_unstable();
    Ok(Gaps(gaps))
}

/// Kills the leader under load and returns the gap.
fn one(cluster: &mut Cluster, leader: usize) -> Result<Duration, String> {
    let runtime = load::runtime()?;
    let acknowledged = Rc::new(RefCell::new(Vec::new()));
    let (side, addresses) = (cluster.side(), cluster.addresses());
    let tasks = LocalSet::new();
    for number in 0..WRITERS {
        let (addresses, acknowledged) = (addresses.clone(), Rc::clone(&acknowledged));
        tasks.spawn_local(async move {
            let value = load::value(256);
            let mut place = number;
            loop {
                let address = addresses[place % addresses.len()];
                if let Ok(mut connection) = Connection::open(side, address, PATIENCE).await {
                    let key = format!("failover/{number}");
                    while let Ok(Ok(())) = timeout(PATIENCE, connection.put(&key, &value)).await {
                        acknowledged.borrow_mut().push(Instant::now());
                    }
                }
                place += 1;
                sleep(ERROR_PAUSE).await;
            }
        });
    }
    let killed = runtime.block_on(tasks.run_until(async {
        sleep(BEFORE).await;
        let killed = Instant::now();
        cluster.kill(leader);
        while killed.elapsed() < AFTER && !is_steady(&acknowledged.borrow(), killed) {
            sleep(Duration::from_millis(20)).await;
        }
        killed
    }));
    drop(tasks);
    let acknowledged = acknowledged.borrow();
    let last_before = acknowledged.iter().rposition(|at| *at <= killed);
    let first = last_before.ok_or_else(|| format!("{}: no write before the kill", side.name()))?;
    acknowledged[first..]
        .windows(2)
        .map(|pair| pair[1] - pair[0])
        .max()
        .filter(|_| is_steady(&acknowledged, killed))
        .ok_or_else(|| format!("{}: writes did not go on within {AFTER:?}", side.name()))
}

/// Whether writes have gone on for a while after the kill.
fn is_steady(acknowledged: &[Instant], killed: Instant) -> bool {
    let Some(last) = acknowledged.last() else {
        return false;
    };
    // What was under way at the kill may still be acknowledged; the gap comes after it.
    let mut after = acknowledged.iter().filter(|at| **at > killed + PATIENCE / 2);
    after.next().is_some_and(|first| *last - *first >= STEADY)
}
