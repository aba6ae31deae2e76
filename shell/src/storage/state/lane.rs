//! Brings rows to disk behind the state machine, which never waits for it unless the queue is full.
//!
//! The lane commits when enough has come together or some time has passed, so that rows changed again and again are
//! written once, and an idle cluster does no disk work. The queue is bounded in bytes: whoever applies entries sees
//! that it is full, and stops applying for a while, rather than filling the memory.

use std::sync::Arc;
use std::time::Duration;

use quorate_core::Instant;
use quorate_core::raft::{DiskError, Position};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::super::snapshot::Snapshot;
use super::{Changes, RowBatch, StateStore};
use crate::planted::{Planted, PlantedBug};
use crate::port::Ports;

/// Changes that are committed at once, in bytes.
const COMMIT_BYTES: u64 = 8 << 20;
/// How long a change waits for others.
const COMMIT_DELAY: Duration = Duration::from_secs(1);
/// Batches that wait in the queue at most.
const QUEUE_BATCHES: usize = 4096;
/// The unit in which the bytes of the queue are counted.
const PERMIT_BYTES: u64 = 1024;

enum Command {
    Rows {
        batch: RowBatch,
        permits: u32,
    },
    Flush(oneshot::Sender<()>),
    Install {
        snapshot: Snapshot,
        done: oneshot::Sender<()>,
    },
}

/// The lane's end of the queue.
pub struct StateLane {
    commands: mpsc::Receiver<Command>,
    room: Arc<Semaphore>,
}

/// The producer's end of the queue. Cheap to clone.
#[derive(Clone)]
pub struct StateSender {
    commands: mpsc::Sender<Command>,
    room: Arc<Semaphore>,
    permits_max: u32,
}

/// A queue of about `bytes_max` bytes of changes, at least one batch.
pub fn state_lane(bytes_max: u64) -> (StateSender, StateLane) {
    let permits_max = u32::try_from((bytes_max / PERMIT_BYTES).max(1)).unwrap_or(u32::MAX >> 4);
    let room = Arc::new(Semaphore::new(permits_max as usize));
    let (sender, commands) = mpsc::channel(QUEUE_BATCHES);
    let lane = StateLane {
        commands,
        room: Arc::clone(&room),
    };
    let sender = StateSender {
        commands: sender,
        room,
        permits_max,
    };
    (sender, lane)
}

fn ended() -> DiskError {
    DiskError("the state database failed earlier; see the first error".to_owned())
}

impl StateSender {
    fn permits(&self, batch: &RowBatch) -> u32 {
        u32::try_from(batch.size().div_ceil(PERMIT_BYTES))
            .unwrap_or(u32::MAX)
            .min(self.permits_max)
    }

    /// Hands a batch over, unless the queue is full: then it comes back, and [`StateSender::send`] waits for room.
    ///
    /// # Errors
    /// When the lane has ended after an error; the batch is lost then.
    pub fn offer(&self, batch: RowBatch) -> Result<Option<RowBatch>, DiskError> {
        let permits = self.permits(&batch);
        let Ok(room) = self.room.try_acquire_many(permits) else {
            return if self.room.is_closed() {
                Err(ended())
            } else {
                Ok(Some(batch))
            };
        };
        match self.commands.try_send(Command::Rows { batch, permits }) {
            Ok(()) => {
                room.forget();
                Ok(None)
            }
            Err(mpsc::error::TrySendError::Full(Command::Rows { batch, .. })) => Ok(Some(batch)),
            Err(_) => Err(ended()),
        }
    }

    /// Hands a batch over as soon as there is room.
    ///
    /// # Errors
    /// When the lane has ended after an error.
    pub async fn send(&self, batch: RowBatch) -> Result<(), DiskError> {
        let permits = self.permits(&batch);
        let room = self.room.acquire_many(permits).await.map_err(|_| ended())?;
        self.commands
            .send(Command::Rows { batch, permits })
            .await
            .map_err(|_| ended())?;
        room.forget();
        Ok(())
    }

    /// Returns when everything handed over before is committed.
    ///
    /// # Errors
    /// When the lane has ended after an error.
    pub async fn flush(&self) -> Result<(), DiskError> {
        let (done, wait) = oneshot::channel();
        self.commands
            .send(Command::Flush(done))
            .await
            .map_err(|_| ended())?;
        wait.await.map_err(|_| ended())
    }

    /// Replaces the rows by those of a snapshot, and returns when that is durable. What was handed over before is
    /// dropped.
    ///
    /// # Errors
    /// When the lane has ended after an error.
    pub async fn install(&self, snapshot: Snapshot) -> Result<(), DiskError> {
        let (done, wait) = oneshot::channel();
        self.commands
            .send(Command::Install { snapshot, done })
            .await
            .map_err(|_| ended())?;
        wait.await.map_err(|_| ended())
    }
}

/// What waits for the next commit.
#[derive(Default)]
struct Pending {
    changes: Changes,
    bytes: u64,
    permits: usize,
    /// When it has to be committed; none when there is nothing.
    deadline: Option<Instant>,
}

/// Commits what comes in through `lane` until every sender is gone, then what is left.
///
/// `report` learns of every position that is durable, and of the error that ends the lane.
pub async fn run_state_lane(
    ports: Ports,
    mut store: StateStore,
    mut lane: StateLane,
    mut report: impl FnMut(Result<Position, DiskError>),
) {
    let result = serve(&ports, &mut store, &mut lane, &mut report).await;
    // Senders that wait for room learn that there is nobody left to make it.
    lane.room.close();
    if let Err(error) = result {
        report(Err(error));
    }
}

async fn serve(
    ports: &Ports,
    store: &mut StateStore,
    lane: &mut StateLane,
    report: &mut impl FnMut(Result<Position, DiskError>),
) -> Result<(), DiskError> {
    let mut pending = Pending::default();
    loop {
        let command = match pending.deadline {
            None => lane.commands.recv().await,
            Some(deadline) => tokio::select! {
                biased;
                () = ports.clock.sleep_until(deadline) => {
                    commit(ports.planted, store, &lane.room, &mut pending, report)?;
                    continue;
                }
                command = lane.commands.recv() => command,
            },
        };
        match command {
            Some(Command::Rows { batch, permits }) => {
                if ports.planted.is(PlantedBug::PurgeBeyondState) {
                    report(Ok(batch.applied));
                }
                pending.bytes += batch.size();
                pending.permits += permits as usize;
                pending.changes.add(batch);
                pending
                    .deadline
                    .get_or_insert_with(|| ports.clock.now() + COMMIT_DELAY);
                if pending.bytes >= COMMIT_BYTES {
                    commit(ports.planted, store, &lane.room, &mut pending, report)?;
                }
            }
            Some(Command::Flush(done)) => {
                commit(ports.planted, store, &lane.room, &mut pending, report)?;
                // The one who asked may have gone.
                let _ = done.send(());
            }
            Some(Command::Install { snapshot, done }) => {
                lane.room.add_permits(std::mem::take(&mut pending).permits);
                store.install(&snapshot).await?;
                report(Ok(store.loaded().applied));
                let _ = done.send(());
            }
            None => return commit(ports.planted, store, &lane.room, &mut pending, report),
        }
    }
}

fn commit(
    planted: Planted,
    store: &mut StateStore,
    room: &Semaphore,
    pending: &mut Pending,
    report: &mut impl FnMut(Result<Position, DiskError>),
) -> Result<(), DiskError> {
    let Pending {
        mut changes,
        permits,
        deadline: Some(_),
        ..
    } = std::mem::take(pending)
    else {
        return Ok(());
    };
    if planted.is(PlantedBug::AppliedBeforeRows) {
        pending.changes.rows = std::mem::take(&mut changes.rows);
    }
    store.commit(&changes)?;
    room.add_permits(permits);
    report(Ok(changes.applied));
    Ok(())
}
