//! The log lanes: one makes writes durable, one reads older entries.
//!
//! Writes that wait together become durable together, with one fdatasync (group commit): the next group starts when
//! the last sync returned, without waiting for more. The first failure ends the lane: a disk that failed once is not
//! asked again, since what it holds is not known any more.

use quorate_core::raft::{Base, DiskError, Fetch, Write};
use tokio::sync::mpsc;

use super::super::inbox::Completion;
use crate::planted::PlantedBug;
use crate::storage::{Log, LogReader, group_length};

/// What the log writer is asked to do, in order.
pub(in super::super) enum LogOrder {
    /// Make a write durable.
    Write(Write),
    /// Remove the log up to a base.
    Purge(Base),
}

/// Runs the log writer until its orders end or the disk fails.
pub(in super::super) async fn run_writer(
    mut log: Log,
    mut orders: mpsc::UnboundedReceiver<LogOrder>,
    completions: mpsc::UnboundedSender<Completion>,
) {
    let mut writes: Vec<Write> = Vec::new();
    while let Some(order) = orders.recv().await {
        let mut purge = take(order, &mut writes);
        while purge.is_none()
            && let Ok(order) = orders.try_recv()
        {
            purge = take(order, &mut writes);
        }
        let mut failed = None;
        while failed.is_none() && !writes.is_empty() {
            let rest = writes.split_off(group_length(&writes));
            failed = append(&mut log, &writes, &completions).await;
            writes = rest;
        }
        if failed.is_none()
            && let Some(base) = purge
        {
            failed = log.purge(base).await.err();
        }
        if let Some(error) = failed {
            let _ = completions.send(Completion::Failed {
                message: error.to_string(),
            });
            return;
        }
    }
}

/// Adds a write to those that wait, or returns the purge that has to come after them.
fn take(order: LogOrder, writes: &mut Vec<Write>) -> Option<Base> {
    match order {
        LogOrder::Write(write) => {
            writes.push(write);
            None
        }
        LogOrder::Purge(base) => Some(base),
    }
}

async fn append(
    log: &mut Log,
    group: &[Write],
    completions: &mpsc::UnboundedSender<Completion>,
) -> Option<DiskError> {
    let last = group.last().map(|write| write.id)?;
    if log.planted().is(PlantedBug::AcknowledgedBeforeWrite) {
        let _ = completions.send(Completion::Persisted {
            write: last,
            result: Ok(()),
        });
        return log.append(group).await.err();
    }
    let result = log.append(group).await;
    let failed = result.as_ref().err().cloned();
    let _ = completions.send(Completion::Persisted { write: last, result });
    failed
}

/// Reads older entries until its orders end.
pub(in super::super) async fn run_reader(
    log: LogReader,
    mut orders: mpsc::UnboundedReceiver<Fetch>,
    completions: mpsc::UnboundedSender<Completion>,
) {
    while let Some(fetch) = orders.recv().await {
        let result = log.read(fetch.first, fetch.last, fetch.bytes_max);
        if completions
            .send(Completion::Fetched {
                fetch: fetch.id,
                result,
            })
            .is_err()
        {
            return;
        }
    }
}
