//! The snapshot lane: makes snapshots for members that are too far behind, sends them, and takes them in.
//!
//! The log is purged behind the state database, which is as durable as a snapshot. So a snapshot is made when a member
//! needs one, and removed when nobody has needed it for a while.
//!
//! Invariants: consensus hears of a snapshot only when it is whole, verified and durable; one transfer to a member at a
//! time ([`super::transfer`] says how it goes on after a break); one snapshot is made at a time.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use quorate_core::raft::{Index, NodeId, Position, SnapshotEvent, Term};
use tokio::sync::mpsc;

use super::super::inbox::Completion;
use super::transfer::{TransferError, Transfers};
use crate::port::Clock;
use crate::storage::{Snapshot, Snapshots, StateReader, StateSender, StorageError};
use crate::transport::{BulkStream, Transport};

/// How often snapshots are looked for that nobody needs any more.
const TIDY_EVERY: Duration = Duration::from_secs(10);

/// What the lane is asked to do.
pub(in super::super) enum SnapshotOrder {
    /// Send a member a snapshot that ends at `at_least` or later, where this node's log begins.
    Send { to: NodeId, term: Term, at_least: Index },
    /// Take in what a member sends.
    Receive {
        peer: NodeId,
        header: Vec<u8>,
        stream: BulkStream,
    },
    /// The state store holds everything up to a position.
    StateDurable(Position),
}

pub(in super::super) struct SnapshotLane {
    pub(in super::super) snapshots: Snapshots,
    pub(in super::super) state: StateReader,
    pub(in super::super) store: StateSender,
    pub(in super::super) transport: Transport,
    /// Bytes a second that all transfers together may send; 0 for no limit.
    pub(in super::super) rate: u64,
    pub(in super::super) clock: Arc<dyn Clock>,
    pub(in super::super) completions: mpsc::UnboundedSender<Completion>,
}

/// What the tasks of the lane share.
struct Shared {
    lane: SnapshotLane,
    transfers: Transfers,
    sending: RefCell<BTreeSet<NodeId>>,
    /// One snapshot is made at a time.
    making: tokio::sync::Mutex<()>,
}

impl SnapshotLane {
    /// Works until the orders end.
    pub(in super::super) async fn run(self, mut orders: mpsc::UnboundedReceiver<SnapshotOrder>) {
        let clock = Arc::clone(&self.clock);
        let transfers = Transfers::new(
            self.snapshots.clone(),
            self.transport.clone(),
            Arc::clone(&self.clock),
            self.rate,
        );
        let shared = Rc::new(Shared {
            lane: self,
            transfers,
            sending: RefCell::default(),
            making: tokio::sync::Mutex::default(),
        });
        let mut tidy = clock.now() + TIDY_EVERY;
        loop {
            tokio::select! {
                biased;
                order = orders.recv() => {
                    let Some(order) = order else {
                        return;
                    };
                    let shared = Rc::clone(&shared);
                    tokio::task::spawn_local(async move { shared.carry_out(order).await });
                }
                () = clock.sleep_until(tidy) => {
                    if let Err(error) = shared.transfers.retain() {
                        tracing::warn!(%error, "could not remove old snapshots");
                    }
                    tidy = clock.now() + TIDY_EVERY;
                }
            }
        }
    }
}

impl Shared {
    async fn carry_out(&self, order: SnapshotOrder) {
        match order {
            SnapshotOrder::Send { to, term, at_least } => {
                if !self.sending.borrow_mut().insert(to) {
                    return;
                }
                let result = self.send(to, term, at_least).await;
                self.sending.borrow_mut().remove(&to);
                if let Err(error) = &result {
                    tracing::warn!(%to, %error, "sending a snapshot broke off; it resumes when the node answers again");
                }
                self.report(SnapshotEvent::Sent {
                    to,
                    complete: result.is_ok(),
                });
            }
            SnapshotOrder::Receive { peer, header, stream } => {
                match self.transfers.receive(peer, &header, stream).await {
                    Ok(event) => self.report(event),
                    Err(error) => tracing::warn!(from = %peer, %error, "taking in a snapshot broke off"),
                }
            }
            SnapshotOrder::StateDurable(position) => self.transfers.state_durable(position.index),
        }
    }

    fn report(&self, event: SnapshotEvent) {
        let _ = self.lane.completions.send(Completion::Snapshot(event));
    }

    async fn send(&self, to: NodeId, term: Term, at_least: Index) -> Result<(), TransferError> {
        let offered = self.at_hand(at_least).await?;
        self.transfers.send(to, term, &offered).await
    }

    /// The snapshots that end at `at_least` or later, the newest first; at least one.
    async fn at_hand(&self, at_least: Index) -> Result<Vec<Snapshot>, TransferError> {
        let newest = self.make(at_least).await?;
        let mut found = Vec::new();
        for position in self.lane.snapshots.list()?.into_iter().rev() {
            if position.index < at_least || position.index >= newest.position().index {
                continue;
            }
            match self.lane.snapshots.find(position) {
                Ok(snapshot) => found.extend(snapshot),
                // Nobody needs it; the newest one is whole.
                Err(StorageError::Damaged { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        found.insert(0, newest);
        Ok(found)
    }

    /// A snapshot that ends at `at_least` or later: the newest one, or a new one.
    async fn make(&self, at_least: Index) -> Result<Snapshot, TransferError> {
        let _making = self.making.lock().await;
        self.transfers.note_need();
        let newest = match self.lane.snapshots.newest() {
            // The state is whole, and so a new one can be made.
            Err(StorageError::Damaged { .. }) => None,
            newest => newest?,
        };
        if let Some(newest) = newest.filter(|newest| newest.position().index >= at_least) {
            return Ok(newest);
        }
        self.lane.store.flush().await?;
        let made = self.lane.state.snapshot(&self.lane.snapshots).await?;
        let found = made
            .as_ref()
            .map(|snapshot| snapshot.position().index)
            .unwrap_or_default();
        let snapshot = made.filter(|_| found >= at_least);
        let snapshot = snapshot.ok_or(TransferError::Behind {
            found,
            needed: at_least,
        })?;
        tracing::info!(
            index = snapshot.position().index.0,
            bytes = snapshot.length(),
            rows = snapshot.rows(),
            "made a snapshot"
        );
        self.transfers.note_need();
        self.transfers.retain()?;
        Ok(snapshot)
    }
}
