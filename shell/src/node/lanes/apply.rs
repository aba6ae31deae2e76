//! The apply lane: committed entries change the state, replies go to whoever waits, changed rows go to the store.
//!
//! Invariants: entries are applied once, in order; an entry that this build cannot apply halts the node, it is never
//! skipped; neither applying nor answering waits for the state store, which lags behind within its bounds.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use quorate_core::raft::{Base, Entries, Index, Membership, NodeId, Payload, SnapshotEvent};
use quorate_core::state::{Reply, Restoring, StateMachine};
use tokio::sync::{mpsc, oneshot, watch};

use super::super::inbox::{Completion, WriteOutcome};
use crate::api::backend::StreamChanges;
use crate::metrics::Metrics;
use crate::planted::{Planted, PlantedBug};
use crate::port::{Clock, Observer};
use crate::storage::{Row, RowBatch, Snapshots, StateSender, Unwritten};
use crate::watch::{Hub, Woken};

/// The state as readers share it with the apply lane.
pub(in super::super) type SharedState = Arc<RwLock<StateMachine>>;

/// Who waits for the reply of a command.
#[derive(Debug)]
pub(in super::super) enum Waiter {
    /// A client of this node.
    Local(oneshot::Sender<WriteOutcome>),
    /// A client of another node, which forwarded the command.
    Forwarded {
        /// The node.
        node: NodeId,
        /// Its number of the request.
        request: u64,
    },
}

/// What the lane is asked to do, in order.
pub(in super::super) enum ApplyOrder {
    /// Apply committed entries.
    Entries {
        /// The entries, without a gap.
        batches: Vec<Entries>,
        /// Who waits for the replies of some of them, ascending.
        waiters: Vec<(Index, Waiter)>,
    },
    /// Replace the state by that of the received snapshot.
    Install(Box<Base>),
}

pub(in super::super) struct ApplyLane {
    pub(in super::super) state: SharedState,
    /// Who watches the state.
    pub(in super::super) watches: Arc<Hub>,
    /// The membership as of the last applied entry.
    pub(in super::super) membership: Membership,
    /// Whether the store has to be told the membership with the next rows.
    pub(in super::super) membership_changed: bool,
    pub(in super::super) store: StateSender,
    /// Where readers find records before they are stored.
    pub(in super::super) unwritten: Unwritten,
    pub(in super::super) stream_changes: Arc<watch::Sender<StreamChanges>>,
    /// What keys and values take, for whoever lets writes in.
    pub(in super::super) state_bytes: Arc<AtomicU64>,
    pub(in super::super) snapshots: Snapshots,
    pub(in super::super) applied: watch::Sender<Index>,
    pub(in super::super) completions: mpsc::UnboundedSender<Completion>,
    pub(in super::super) metrics: Arc<Metrics>,
    pub(in super::super) clock: Arc<dyn Clock>,
    pub(in super::super) observer: Arc<dyn Observer>,
    /// The mistake that the node makes.
    pub(in super::super) planted: Planted,
}

impl ApplyLane {
    /// Applies until the orders end or an entry cannot be applied.
    pub(in super::super) async fn run(mut self, mut orders: mpsc::UnboundedReceiver<ApplyOrder>) {
        while let Some(order) = orders.recv().await {
            let done = match order {
                ApplyOrder::Entries { batches, waiters } => self.apply(&batches, waiters).await,
                ApplyOrder::Install(base) => self.install(*base).await,
            };
            if let Err(message) = done {
                let _ = self.completions.send(Completion::Failed { message });
                return;
            }
        }
    }

    async fn apply(&mut self, batches: &[Entries], waiters: Vec<(Index, Waiter)>) -> Result<(), String> {
        let begun = self.clock.now();
        let count: usize = batches.iter().map(|entries| entries.len()).sum();
        let mut rows = Vec::new();
        let mut replies = Vec::new();
        let mut leases = Vec::new();
        let mut woken = Woken::default();
        let mut waiters = waiters.into_iter().peekable();
        let position = {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            for entry in batches.iter().flatten() {
                let waiter = waiters.next_if(|(index, _)| *index == entry.position.index);
                match &entry.payload {
                    Payload::Command(command) => {
                        let applied = state
                            .apply(entry.position, command)
                            .map_err(|error| error.to_string())?;
                        self.watches.follow(&state, &mut woken);
                        rows.extend(applied.rows);
                        leases.extend(applied.leases);
                        replies.extend(waiter.map(|(_, waiter)| (waiter, applied.reply)));
                    }
                    Payload::Omitted => {
                        return Err(format!("entry {} has no command to apply", entry.position));
                    }
                    Payload::Empty => state
                        .apply_empty(entry.position)
                        .map_err(|error| error.to_string())?,
                    Payload::Membership(membership) => {
                        state
                            .apply_empty(entry.position)
                            .map_err(|error| error.to_string())?;
                        self.membership = (**membership).clone();
                        self.membership_changed = true;
                    }
                }
            }
            self.observer.applied(&state);
            self.state_bytes.store(state.bytes(), Ordering::Relaxed);
            state.applied()
        };
        // Whoever hears that records were appended can read them.
        let streams_changed = self.unwritten.announce(&rows);
        if self.planted.is(PlantedBug::AnswersAreSwapped)
            && let [(_, first), (_, second), ..] = &mut *replies
        {
            std::mem::swap(first, second);
        }
        for (waiter, reply) in replies {
            self.answer(waiter, &reply);
        }
        woken.wake();
        if streams_changed {
            self.streams_changed();
        }
        let took = self.clock.now().since(begun);
        self.metrics
            .apply
            .observe(took / u32::try_from(count.max(1)).unwrap_or(u32::MAX));
        self.applied.send_replace(position.index);
        if !leases.is_empty() {
            let _ = self.completions.send(Completion::Leases(leases));
        }
        let _ = self.completions.send(Completion::Applied {
            index: position.index,
        });
        let membership = self.membership_changed.then(|| self.membership.clone());
        self.membership_changed = false;
        let batch = RowBatch {
            applied: position,
            membership,
            rows,
        };
        self.store.send(batch).await.map_err(|error| error.to_string())
    }

    /// Whoever follows streams looks at them again.
    fn streams_changed(&self) {
        self.stream_changes.send_modify(|changes| changes.applied += 1);
    }

    fn answer(&self, waiter: Waiter, reply: &Reply) {
        let reply: Bytes = reply.encode();
        match waiter {
            // A client that has gone wants no answer.
            Waiter::Local(sender) => drop(sender.send(WriteOutcome::Applied(reply))),
            Waiter::Forwarded { node, request } => {
                let _ = self
                    .completions
                    .send(Completion::Forwarded { node, request, reply });
            }
        }
    }

    async fn install(&mut self, base: Base) -> Result<(), String> {
        let position = base.position;
        let found = self.snapshots.find(position).map_err(|error| error.to_string())?;
        let snapshot = found.ok_or_else(|| format!("the snapshot up to {position} is gone"))?;
        let mut restoring = Restoring::new(position);
        let mut result = Ok(());
        let read = snapshot.for_each_row(|key, value| {
            if result.is_ok() && !Row::holds_records(&key) {
                result = restoring.row(&key, &value);
            }
        });
        read.map_err(|error| error.to_string())?;
        let state = result.and_then(|()| restoring.finish());
        let state = state.map_err(|error| error.to_string())?;
        self.store
            .install(snapshot)
            .await
            .map_err(|error| error.to_string())?;
        self.observer.applied(&state);
        self.state_bytes.store(state.bytes(), Ordering::Relaxed);
        let mut woken = Woken::default();
        {
            let mut shared = self.state.write().unwrap_or_else(PoisonError::into_inner);
            *shared = state;
            self.watches.follow(&shared, &mut woken);
        }
        woken.wake();
        self.streams_changed();
        self.membership = base.membership;
        self.membership_changed = false;
        self.applied.send_replace(position.index);
        let event = SnapshotEvent::Installed {
            index: position.index,
        };
        let _ = self.completions.send(Completion::Snapshot(event));
        Ok(())
    }
}
