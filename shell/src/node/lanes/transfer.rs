//! How a snapshot gets from one node to another.
//!
//! The sender offers what it has; the receiver chooses what it has a part of already, else the newest, and says which
//! piece it needs next; then come the pieces, and the receiver's word that it has all of them, durably. So a transfer
//! goes on where an earlier one broke off: after a broken link, a restart of either side, and with another leader that
//! has the same snapshot. Invariants: a snapshot counts as received only when it is whole, verified and durable; one is
//! taken in at a time, and no silent sender keeps others from it; what a member has a part of is kept a while for it; all
//! transfers together keep within the configured rate.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_core::Instant;
use quorate_core::raft::{Index, NodeId, Position, SnapshotEvent, Term};
use quorate_core::wire::{self, Kind};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::io::AsyncReadExt;

use super::pace::Pace;
use crate::planted::PlantedBug;
use crate::port::Clock;
use crate::storage::{ReceiveError, Snapshot, Snapshots, StorageError};
use crate::transport::{BulkReceiver, BulkSender, BulkStream, ConnectError, Transport};

/// Snapshots kept while one is needed; the one before the newest may still be on its way to a member.
const KEPT: usize = 2;
/// How long snapshots are kept when none is needed any more, and one that a member has a part of beyond the newest.
const KEPT_FOR: Duration = Duration::from_secs(60);
/// Bytes of the largest piece: one row may be as large as the largest command.
const PIECE_BYTES_MAX: usize = 16 << 20;
/// Bytes that leave at a time, so that a low rate makes no bursts.
const SLICE_BYTES: usize = 64 << 10;
/// How long one side waits for the other's next sign of life. A link that is dead ends sooner; this ends a transfer with a
/// process that lives and stands still.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// What opens a transfer.
#[derive(Debug, Serialize, Deserialize)]
struct Offer {
    /// The sender's term.
    term: Term,
    /// What can be had, the newest first.
    snapshots: Vec<Offered>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Offered {
    /// How many pieces there are.
    pieces: u64,
    /// Piece 0, which says what the snapshot is of.
    first: Bytes,
}

/// What the receiver answers.
#[derive(Debug, Serialize, Deserialize)]
struct Choice {
    /// Which of the snapshots it takes.
    place: u64,
    /// The first piece that it lacks.
    next: u64,
}

/// Why a transfer broke off.
#[derive(Debug, Error)]
pub(super) enum TransferError {
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
    #[error("the other side offered no snapshot, or chose one that it was not offered")]
    NoSuchSnapshot,
    #[error("another snapshot is being taken in")]
    Occupied,
    #[error("the last piece came and the snapshot is not whole")]
    Incomplete,
    #[error("the other side was silent for {} s", SILENCE_MAX.as_secs())]
    Silent,
}

/// What a member has a part of.
#[derive(Clone, Copy)]
struct Part {
    position: Position,
    /// When the transfer of it broke off; none while it goes on.
    since: Option<Instant>,
}

/// All transfers of a node.
pub(super) struct Transfers {
    snapshots: Snapshots,
    transport: Transport,
    clock: Arc<dyn Clock>,
    pace: Pace,
    /// Up to where the state store is known to hold everything.
    durable: Cell<Index>,
    parts: RefCell<BTreeMap<NodeId, Part>>,
    receiving: Cell<bool>,
    /// When a snapshot was needed last: made, sent or taken in; at first when the node started.
    needed: Cell<Instant>,
}

impl Transfers {
    /// `rate` is in bytes a second, and 0 for no limit.
    pub(super) fn new(
        snapshots: Snapshots,
        transport: Transport,
        clock: Arc<dyn Clock>,
        rate: u64,
    ) -> Transfers {
        Transfers {
            snapshots,
            transport,
            pace: Pace::new(Arc::clone(&clock), rate),
            needed: Cell::new(clock.now()),
            clock,
            durable: Cell::default(),
            parts: RefCell::default(),
            receiving: Cell::new(false),
        }
    }

    /// The state store holds everything up to `index`.
    pub(super) fn state_durable(&self, index: Index) {
        self.durable.set(self.durable.get().max(index));
    }

    /// A snapshot is needed.
    pub(super) fn note_need(&self) {
        self.needed.set(self.clock.now());
    }

    /// Removes old snapshots, and all of them when none has been needed for a while; but none that a member has a part of,
    /// and none that goes beyond the state on disk: the log may begin after it, and a restart then needs it, however many
    /// newer ones came since. What was received of one that the state has passed goes as well.
    pub(super) fn retain(&self) -> Result<(), StorageError> {
        let now = self.clock.now();
        let mut parts = self.parts.borrow_mut();
        parts.retain(|_, part| part.since.is_none_or(|since| now.since(since) < KEPT_FOR));
        let begun: BTreeSet<Position> = parts.values().map(|part| part.position).collect();
        let durable = self.durable.get();
        let is_wanted = |position: &Position| begun.contains(position) || position.index > durable;
        let kept = match now.since(self.needed.get()) < KEPT_FOR {
            true => KEPT,
            false => 0,
        };
        self.snapshots.retain(kept, is_wanted)?;
        match self.receiving.get() {
            true => Ok(()),
            false => self.snapshots.forget_received(durable),
        }
    }

    /// Sends a member one of `snapshots`, which come the newest first. Done when the member has it, durably.
    pub(super) async fn send(
        &self,
        to: NodeId,
        term: Term,
        snapshots: &[Snapshot],
    ) -> Result<(), TransferError> {
        let offered = |snapshot: &Snapshot| {
            let first = self.read_piece(snapshot, 0)?.into();
            let pieces = snapshot.pieces();
            Ok(Offered { pieces, first })
        };
        let offer = Offer {
            term,
            snapshots: snapshots
                .iter()
                .map(offered)
                .collect::<Result<_, StorageError>>()?,
        };
        let header = wire::encode(Kind::Frame, &offer);
        let BulkStream {
            mut sender,
            mut receiver,
        } = self.transport.open_bulk(to, &header).await?;
        let choice = self.unless_silent(receiver.read_message()).await?;
        let Choice { place, next } = wire::decode(Kind::Frame, &choice)?;
        let chosen = usize::try_from(place)
            .ok()
            .and_then(|place| snapshots.get(place))
            .ok_or(TransferError::NoSuchSnapshot)?;
        let (position, bytes) = (chosen.position(), chosen.length());
        tracing::info!(%to, index = position.index.0, bytes, resumed_at = next, "sending a snapshot");
        self.note_part(to, position, None);
        let result = self.send_pieces(chosen, next, &mut sender, &mut receiver).await;
        self.note_need();
        if result.is_ok() {
            self.parts.borrow_mut().remove(&to);
            tracing::info!(%to, index = position.index.0, bytes, "sent a snapshot");
        } else {
            self.note_part(to, position, Some(self.clock.now()));
        }
        result
    }

    fn note_part(&self, of: NodeId, position: Position, since: Option<Instant>) {
        self.parts.borrow_mut().insert(of, Part { position, since });
    }

    async fn send_pieces(
        &self,
        snapshot: &Snapshot,
        next: u64,
        sender: &mut BulkSender,
        receiver: &mut BulkReceiver,
    ) -> Result<(), TransferError> {
        let skips = next > 1 && self.snapshots.planted().is(PlantedBug::SnapshotSkipsAPiece);
        for number in next + u64::from(skips)..snapshot.pieces() {
            let mut piece = Bytes::from(self.read_piece(snapshot, number)?);
            let length = u32::try_from(piece.len()).map_err(|_| TransferError::TooLarge(piece.len()))?;
            let length = Bytes::copy_from_slice(&length.to_be_bytes());
            self.unless_silent(sender.write_chunk(length)).await?;
            while !piece.is_empty() {
                let slice = piece.split_to(piece.len().min(SLICE_BYTES));
                self.pace.take(slice.len()).await;
                self.unless_silent(sender.write_chunk(slice)).await?;
            }
        }
        // The receiver's word that it has everything; its content says nothing more.
        self.unless_silent(receiver.read_message()).await?;
        Ok(())
    }

    /// What the other side does next, when it does not take too long.
    async fn unless_silent<T>(&self, next: impl Future<Output = io::Result<T>>) -> Result<T, TransferError> {
        tokio::select! {
            biased;
            done = next => Ok(done?),
            () = self.clock.sleep_until(self.clock.now() + SILENCE_MAX) => Err(TransferError::Silent),
        }
    }

    /// A damaged snapshot is removed, so that the next transfer sends another one.
    fn read_piece(&self, snapshot: &Snapshot, number: u64) -> Result<Vec<u8>, StorageError> {
        let piece = snapshot.read_piece(number);
        if let Err(StorageError::Damaged { .. }) = &piece {
            self.snapshots.remove(snapshot.position())?;
        }
        piece
    }

    /// Takes in what a member sends.
    pub(super) async fn receive(
        &self,
        peer: NodeId,
        header: &[u8],
        stream: BulkStream,
    ) -> Result<SnapshotEvent, TransferError> {
        if self.receiving.replace(true) {
            return Err(TransferError::Occupied);
        }
        let result = self.receive_one(peer, header, stream).await;
        self.receiving.set(false);
        self.note_need();
        result
    }

    async fn receive_one(
        &self,
        peer: NodeId,
        header: &[u8],
        stream: BulkStream,
    ) -> Result<SnapshotEvent, TransferError> {
        let BulkStream {
            mut sender,
            mut receiver,
        } = stream;
        let Offer { term, snapshots } = wire::decode(Kind::Frame, header)?;
        let firsts: Vec<&[u8]> = snapshots.iter().map(|offered| &*offered.first).collect();
        let place = self.snapshots.begun(&firsts)?.unwrap_or_default();
        let Offered { pieces, first } = snapshots.get(place).ok_or(TransferError::NoSuchSnapshot)?;
        let base = Snapshots::announced(first)?.base;
        let mut taken = match self.snapshots.has(first)? {
            true => None,
            false => Some(self.snapshots.receive(first)?),
        };
        let next = taken.as_ref().map_or(*pieces, |taken| taken.next_piece());
        tracing::info!(from = %peer, index = base.position.index.0, resumed_at = next, "taking in a snapshot");
        let place = place as u64;
        sender
            .write_message(&wire::encode(Kind::Frame, &Choice { place, next }))
            .await?;
        if let Some(taken) = &mut taken {
            let mut whole = None;
            for number in next..*pieces {
                whole = taken
                    .accept(number, &self.next_piece(&mut receiver).await?)
                    .await?;
            }
            if whole.is_none() {
                return Err(TransferError::Incomplete);
            }
        }
        self.retain()?;
        sender.write_message(&[]).await?;
        sender.finish();
        Ok(SnapshotEvent::Received {
            from: peer,
            term,
            base: Box::new(base),
        })
    }

    async fn next_piece(&self, receiver: &mut BulkReceiver) -> Result<Vec<u8>, TransferError> {
        let length = self.unless_silent(receiver.read_u32()).await? as usize;
        if length > PIECE_BYTES_MAX {
            return Err(TransferError::TooLarge(length));
        }
        let mut piece = vec![0; length];
        for slice in piece.chunks_mut(SLICE_BYTES) {
            self.unless_silent(receiver.read_exact(slice)).await?;
        }
        Ok(piece)
    }
}

#[cfg(test)]
mod tests;
