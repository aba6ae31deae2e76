//! The lanes that carry out what consensus wants, each in order and beside the others.
//!
//! Orders wait in queues without a bound of their own: consensus bounds what it has under way in each lane (entries
//! not durable, not applied, snapshots being sent), and never waits for one.

use quorate_core::raft::Fetch;
use tokio::sync::mpsc;

use self::apply::ApplyOrder;
use self::log::LogOrder;
use self::snapshot::SnapshotOrder;

pub(super) mod apply;
pub(super) mod log;
mod pace;
pub(super) mod records;
pub(super) mod snapshot;
mod transfer;

/// Where orders go in. A lane that has ended has said why, so an order that it no longer takes is dropped.
pub(super) struct Lanes {
    pub(super) log: mpsc::UnboundedSender<LogOrder>,
    pub(super) reader: mpsc::UnboundedSender<Fetch>,
    pub(super) apply: mpsc::UnboundedSender<ApplyOrder>,
    pub(super) snapshot: mpsc::UnboundedSender<SnapshotOrder>,
}

impl Lanes {
    pub(super) fn log(&self, order: LogOrder) {
        let _ = self.log.send(order);
    }

    pub(super) fn fetch(&self, fetch: Fetch) {
        let _ = self.reader.send(fetch);
    }

    pub(super) fn apply(&self, order: ApplyOrder) {
        let _ = self.apply.send(order);
    }

    pub(super) fn snapshot(&self, order: SnapshotOrder) {
        let _ = self.snapshot.send(order);
    }
}
