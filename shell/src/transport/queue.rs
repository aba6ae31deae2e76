//! What waits to be sent to one peer on one stream.
//!
//! Frames are encoded into the queue when they are sent, so that sending never waits and everything that is queued
//! leaves with one write. Invariants: the queue holds at most its limit in bytes, counting what the connection has
//! not yet taken over; a closed queue is empty.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use thiserror::Error;
use tokio::sync::Notify;

use super::frame::{FRAME_BYTES_MAX, Frame};

/// Frames are gathered into one buffer up to about this size.
const GATHERED_BYTES: usize = 256 << 10;

/// Why a frame was not taken for sending. It is dropped; consensus and clients ask again by themselves.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SendError {
    /// No such peer was given to [`Transport::set_peers`](super::Transport::set_peers).
    #[error("node {0} is no peer of this node")]
    NoSuchPeer(quorate_core::raft::NodeId),
    /// There is no connection to the peer at the moment.
    #[error("node `{0}` is not connected")]
    NotConnected(String),
    /// The peer takes less than is sent to it.
    #[error("{queued} bytes wait for node `{peer}` already, and {limit} may")]
    Full {
        /// The peer.
        peer: String,
        /// Bytes in the queue.
        queued: usize,
        /// Bytes that the queue may hold.
        limit: usize,
    },
    /// The frame is larger than any that a peer accepts.
    #[error("a frame of {length} bytes is larger than the {FRAME_BYTES_MAX} that node `{peer}` accepts")]
    TooLarge {
        /// The peer.
        peer: String,
        /// Bytes of the frame.
        length: usize,
    },
}

/// What waits to be sent on one stream to one peer.
pub(super) struct Queue {
    peer: String,
    limit: usize,
    state: Mutex<State>,
    filled: Notify,
}

#[derive(Default)]
struct State {
    open: bool,
    buffers: VecDeque<Bytes>,
    tail: Vec<u8>,
    /// Bytes in `buffers`, in `tail` and on their way into the connection.
    bytes: usize,
}

impl Queue {
    pub(super) fn new(peer: String, limit: usize) -> Queue {
        Queue {
            peer,
            limit,
            state: Mutex::default(),
            filled: Notify::new(),
        }
    }

    /// Queues a frame; returns how many bytes it takes on the stream.
    pub(super) fn push(&self, frame: &Frame) -> Result<usize, SendError> {
        let mut state = self.state();
        if !state.open {
            return Err(SendError::NotConnected(self.peer.clone()));
        }
        if state.bytes >= self.limit {
            return Err(self.full(state.bytes));
        }
        let before = state.tail.len();
        let length = frame.encode_into(&mut state.tail);
        let added = state.tail.len() - before;
        let refused = if length > FRAME_BYTES_MAX {
            Some(SendError::TooLarge {
                peer: self.peer.clone(),
                length,
            })
        } else if state.bytes + added > self.limit {
            Some(self.full(state.bytes))
        } else {
            None
        };
        if let Some(error) = refused {
            state.tail.truncate(before);
            return Err(error);
        }
        state.bytes += added;
        if state.tail.len() >= GATHERED_BYTES {
            let tail = mem::take(&mut state.tail);
            state.buffers.push_back(Bytes::from(tail));
        }
        drop(state);
        self.filled.notify_one();
        Ok(added)
    }

    /// Everything that is queued, as soon as there is something. The caller reports with [`Queue::written`] what it
    /// got rid of. One caller at a time.
    pub(super) async fn take(&self) -> Vec<Bytes> {
        loop {
            {
                let mut state = self.state();
                if !state.tail.is_empty() {
                    let tail = mem::take(&mut state.tail);
                    state.buffers.push_back(Bytes::from(tail));
                }
                if !state.buffers.is_empty() {
                    return mem::take(&mut state.buffers).into();
                }
            }
            self.filled.notified().await;
        }
    }

    /// Makes room for `bytes` that the connection has taken over.
    pub(super) fn written(&self, bytes: usize) {
        let mut state = self.state();
        state.bytes = state.bytes.saturating_sub(bytes);
    }

    /// Opens the queue for a new connection.
    pub(super) fn open(&self) {
        *self.state() = State {
            open: true,
            ..State::default()
        };
    }

    /// Drops what is queued and refuses more.
    pub(super) fn close(&self) {
        *self.state() = State::default();
    }

    /// Bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.state().bytes
    }

    fn full(&self, queued: usize) -> SendError {
        SendError::Full {
            peer: self.peer.clone(),
            queued,
            limit: self.limit,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(bytes: usize) -> Frame {
        Frame::Forward {
            request: 1,
            deadline_ms: 1,
            command: Bytes::from(vec![0; bytes]),
        }
    }

    #[test]
    fn closed_queue_refuses_and_holds_nothing() {
        let queue = Queue::new("b".to_owned(), 1_000);
        assert_eq!(
            queue.push(&frame(1)),
            Err(SendError::NotConnected("b".to_owned()))
        );
        queue.open();
        queue.push(&frame(100)).unwrap();
        queue.close();
        assert_eq!(queue.bytes(), 0);
    }

    #[tokio::test]
    async fn queue_counts_what_the_connection_has_not_taken() {
        let queue = Queue::new("b".to_owned(), 1_000);
        queue.open();
        let size = queue.push(&frame(400)).unwrap();
        queue.push(&frame(400)).unwrap();
        let taken = queue.take().await;
        assert_eq!(taken.iter().map(Bytes::len).sum::<usize>(), 2 * size);
        assert!(matches!(queue.push(&frame(400)), Err(SendError::Full { .. })));
        queue.written(size);
        assert_eq!(queue.push(&frame(400)), Ok(size));
    }

    #[test]
    fn frame_above_the_limit_is_refused_before_it_is_sent() {
        let queue = Queue::new("b".to_owned(), 4 * FRAME_BYTES_MAX);
        queue.open();
        assert!(matches!(
            queue.push(&frame(FRAME_BYTES_MAX)),
            Err(SendError::TooLarge { .. })
        ));
        assert_eq!(queue.bytes(), 0);
    }
}
