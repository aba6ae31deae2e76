//! The body of a request, sent in pieces so that one knows whether all of it left.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

/// Bytes of a piece: a connection takes in several of them before it has sent the first.
const PIECE_BYTES: usize = 64 << 10;

/// A body that notes when its last piece is taken. Before that the node cannot have acted on the request.
#[derive(Debug)]
pub(crate) struct Outgoing {
    rest: Bytes,
    taken: Arc<AtomicBool>,
}

impl Outgoing {
    pub(crate) fn new(bytes: Bytes) -> Outgoing {
        let taken = Arc::new(AtomicBool::new(bytes.is_empty()));
        Outgoing { rest: bytes, taken }
    }

    /// Becomes true when the connection has taken the last piece.
    pub(crate) fn taken(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.taken)
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let length = self.rest.len().min(PIECE_BYTES);
        let piece = self.rest.split_to(length);
        if self.rest.is_empty() {
            self.taken.store(true, Ordering::Relaxed);
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}
