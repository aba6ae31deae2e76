//! The snapshot lane: makes snapshots, sends them to members that are too far behind, and takes them in.
//!
//! A transfer is a header, the receiver's answer which piece it needs next, the pieces, and the receiver's word that
//! it has all of them, durably. It resumes where an earlier one broke off. Invariants: consensus hears of a snapshot
//! only when it is whole, verified and durable; one transfer to a member at a time; one is taken in at a time.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use quorate_core::Instant;
use quorate_core::raft::{Index, NodeId, Position, SnapshotEvent, Term};
use quorate_core::wire::{self, Kind};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

use super::super::inbox::Completion;
use crate::port::Clock;
use crate::storage::{
    ReceiveError, Since, Snapshot, SnapshotPolicy, Snapshots, StateReader, StateSender, StorageError,
    should_snapshot,
};
use crate::transport::{BulkStream, ConnectError, Transport};

/// Snapshots kept; the one before the newest may still be on its way to a member.
const KEPT: usize = 2;
/// Bytes of the largest piece: one row may be as large as the largest command.
const PIECE_BYTES_MAX: usize = 16 << 20;

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

/// What opens a transfer.
#[derive(Debug, Serialize, Deserialize)]
struct Offer {
    /// The sender's term.
    term: Term,
    /// How many pieces there are.
    pieces: u64,
    /// Piece 0, which says what the snapshot is of.
    first: Bytes,
}

/// Why a transfer broke off.
#[derive(Debug, Error)]
enum TransferError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error("the state store failed: {0}")]
    Store(#[from] quorate_core::raft::DiskError),
    #[error(transparent)]
    Receive(#[from] ReceiveError),
    #[error("the other side sent what makes no sense: {0}")]
    Malformed(#[from] wire::DecodeError),
    #[error("the state ends at {found}, before index {needed} where the log begins")]
    Behind { found: Index, needed: Index },
    #[error("a piece of {0} bytes is larger than any that a node sends")]
    TooLarge(usize),
    #[error("another snapshot is being taken in")]
    Occupied,
    #[error("the last piece came and the snapshot is not whole")]
    Incomplete,
}

pub(in super::super) struct SnapshotLane {
    pub(in super::super) snapshots: Snapshots,
    pub(in super::super) state: StateReader,
    pub(in super::super) store: StateSender,
    pub(in super::super) policy: SnapshotPolicy,
    /// Bytes of entries applied since the node started.
    pub(in super::super) applied_bytes: Arc<AtomicU64>,
    pub(in super::super) transport: Transport,
    pub(in super::super) clock: Arc<dyn Clock>,
    pub(in super::super) completions: mpsc::UnboundedSender<Completion>,
}

/// The last snapshot made for the policy.
#[derive(Clone, Copy)]
struct Last {
    index: Index,
    at: Instant,
    applied_bytes: u64,
    length: u64,
}

/// What the tasks of the lane share.
struct Shared {
    lane: SnapshotLane,
    sending: RefCell<BTreeSet<NodeId>>,
    receiving: Cell<bool>,
    /// One snapshot is made at a time.
    making: tokio::sync::Mutex<Last>,
}

impl SnapshotLane {
    /// Works until the orders end.
    pub(in super::super) async fn run(self, mut orders: mpsc::UnboundedReceiver<SnapshotOrder>) {
        let newest = self.snapshots.newest().ok().flatten();
        let last = Last {
            index: newest
                .as_ref()
                .map(|snapshot| snapshot.position().index)
                .unwrap_or_default(),
            at: self.clock.now(),
            applied_bytes: 0,
            length: newest.as_ref().map_or(0, Snapshot::length),
        };
        let shared = Rc::new(Shared {
            lane: self,
            sending: RefCell::default(),
            receiving: Cell::new(false),
            making: tokio::sync::Mutex::new(last),
        });
        while let Some(order) = orders.recv().await {
            let shared = Rc::clone(&shared);
            tokio::task::spawn_local(async move { shared.carry_out(order).await });
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
                let result = if self.receiving.replace(true) {
                    Err(TransferError::Occupied)
                } else {
                    let result = self.receive(peer, &header, stream).await;
                    self.receiving.set(false);
                    result
                };
                match result {
                    Ok(event) => self.report(event),
                    Err(error) => tracing::warn!(from = %peer, %error, "taking in a snapshot broke off"),
                }
            }
            SnapshotOrder::StateDurable(position) => {
                if let Err(error) = self.make_if_due(position).await {
                    tracing::warn!(%error, "could not make a snapshot");
                }
            }
        }
    }

    fn report(&self, event: SnapshotEvent) {
        let _ = self.lane.completions.send(Completion::Snapshot(event));
    }

    async fn send(&self, to: NodeId, term: Term, at_least: Index) -> Result<(), TransferError> {
        let snapshot = self.make(at_least).await?;
        let offer = Offer {
            term,
            pieces: snapshot.pieces(),
            first: self.read_piece(&snapshot, 0)?.into(),
        };
        let header = wire::encode(Kind::Frame, &offer);
        let BulkStream {
            mut sender,
            mut receiver,
        } = self.lane.transport.open_bulk(to, &header).await?;
        let next: u64 = wire::decode(Kind::Frame, &receiver.read_message().await?)?;
        let (index, bytes) = (snapshot.position().index, snapshot.length());
        tracing::info!(%to, index = index.0, bytes, resumed_at = next, "sending a snapshot");
        for number in next..snapshot.pieces() {
            let piece = self.read_piece(&snapshot, number)?;
            let length = u32::try_from(piece.len()).map_err(|_| TransferError::TooLarge(piece.len()))?;
            sender
                .write_chunk(Bytes::copy_from_slice(&length.to_be_bytes()))
                .await?;
            sender.write_chunk(piece.into()).await?;
        }
        // The receiver's word that it has everything; its content says nothing more.
        receiver.read_message().await?;
        tracing::info!(%to, index = index.0, bytes, "sent a snapshot");
        Ok(())
    }

    /// A damaged snapshot is removed, so that the next transfer sends another one.
    fn read_piece(&self, snapshot: &Snapshot, number: u64) -> Result<Vec<u8>, StorageError> {
        let piece = snapshot.read_piece(number);
        if let Err(StorageError::Damaged { .. }) = &piece {
            self.lane.snapshots.remove(snapshot.position())?;
        }
        piece
    }

    async fn receive(
        &self,
        peer: NodeId,
        header: &[u8],
        stream: BulkStream,
    ) -> Result<SnapshotEvent, TransferError> {
        let BulkStream {
            mut sender,
            mut receiver,
        } = stream;
        let offer: Offer = wire::decode(Kind::Frame, header)?;
        let mut taken = self.lane.snapshots.receive(&offer.first)?;
        let base = taken.header().base.clone();
        let next = taken.next_piece();
        tracing::info!(from = %peer, index = base.position.index.0, resumed_at = next, "taking in a snapshot");
        sender.write_message(&wire::encode(Kind::Frame, &next)).await?;
        let mut whole = None;
        for number in next..offer.pieces {
            let length = receiver.read_u32().await? as usize;
            if length > PIECE_BYTES_MAX {
                return Err(TransferError::TooLarge(length));
            }
            let mut piece = vec![0; length];
            receiver.read_exact(&mut piece).await?;
            whole = taken.accept(number, &piece).await?;
        }
        if whole.is_none() {
            return Err(TransferError::Incomplete);
        }
        self.lane.snapshots.retain(KEPT)?;
        sender.write_message(&[]).await?;
        sender.finish();
        Ok(SnapshotEvent::Received {
            from: peer,
            term: offer.term,
            base: Box::new(base),
        })
    }

    /// A snapshot that ends at `at_least` or later: the newest one, or a new one.
    async fn make(&self, at_least: Index) -> Result<Snapshot, TransferError> {
        let mut last = self.making.lock().await;
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
        self.made(&mut last, &snapshot)?;
        Ok(snapshot)
    }

    async fn make_if_due(&self, durable: Position) -> Result<(), TransferError> {
        let Ok(mut last) = self.making.try_lock() else {
            return Ok(());
        };
        let since = Since {
            entries: durable.index.0.saturating_sub(last.index.0),
            bytes: self
                .lane
                .applied_bytes
                .load(Ordering::Relaxed)
                .saturating_sub(last.applied_bytes),
            time: self.lane.clock.now().since(last.at),
            snapshot_bytes: last.length,
        };
        if should_snapshot(&self.lane.policy, &since)
            && let Some(snapshot) = self.lane.state.snapshot(&self.lane.snapshots).await?
        {
            self.made(&mut last, &snapshot)?;
        }
        Ok(())
    }

    fn made(&self, last: &mut Last, snapshot: &Snapshot) -> Result<(), StorageError> {
        *last = Last {
            index: snapshot.position().index,
            at: self.lane.clock.now(),
            applied_bytes: self.lane.applied_bytes.load(Ordering::Relaxed),
            length: snapshot.length(),
        };
        tracing::info!(
            index = last.index.0,
            bytes = last.length,
            rows = snapshot.rows(),
            "made a snapshot"
        );
        self.lane.snapshots.retain(KEPT)
    }
}
