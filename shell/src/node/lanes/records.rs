//! The records lane: reads the records of streams from the disk for clients, so that nobody else waits for it.
//!
//! The queue is bounded; a client that finds it full is told to come back.

use quorate_core::state::{Offset, RecordBatch, StreamId};
use tokio::sync::{mpsc, oneshot, watch};

use crate::api::backend::StreamChanges;
use crate::storage::{StateReader, StorageError};

/// Reads that wait for the lane.
pub(in super::super) const READS_MAX: usize = 1_024;

/// Which records to read.
#[derive(Debug)]
pub(in super::super) struct RecordsOrder {
    pub(in super::super) stream: StreamId,
    pub(in super::super) partition: u32,
    pub(in super::super) from: Offset,
    pub(in super::super) bytes_max: usize,
    pub(in super::super) reply: oneshot::Sender<Result<Vec<RecordBatch>, StorageError>>,
}

/// Reads until the node stops. Whoever may still ask holds an end of the queue for longer than that.
pub(in super::super) async fn run(
    reader: StateReader,
    mut orders: mpsc::Receiver<RecordsOrder>,
    mut changes: watch::Receiver<StreamChanges>,
) {
    loop {
        let order = tokio::select! {
            biased;
            _ = changes.wait_for(|changes| changes.stopping) => return,
            order = orders.recv() => order,
        };
        let Some(order) = order else { return };
        if order.reply.is_closed() {
            continue;
        }
        let found = reader.records(order.stream, order.partition, order.from, order.bytes_max);
        if let Err(error) = &found {
            tracing::error!(stream = %order.stream, partition = order.partition, %error, "cannot read records");
        }
        // The one who asked may have gone.
        let _ = order.reply.send(found);
    }
}
