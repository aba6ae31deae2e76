//! The sending side of a stream, which breaks off unless it is finished.

use std::time::Duration;

use bytes::Bytes;
use quinn::{SendStream, VarInt};
use quorate_api::native::close;

use super::{Broken, within};
use crate::port::Clock;

/// How long a client may leave answers untaken.
const NOT_TAKEN: Duration = Duration::from_secs(60);
/// How long a client may take to acknowledge the last ones.
const FAREWELL: Duration = Duration::from_secs(1);

/// A stream that is reset when it is dropped before its end: QUIC itself would end it well, and what was cut short would
/// look whole.
pub(super) struct Sending {
    stream: SendStream,
    finished: bool,
}

impl Sending {
    pub(super) fn new(stream: SendStream) -> Sending {
        Sending {
            stream,
            finished: false,
        }
    }

    /// Writes what a client takes in time.
    pub(super) async fn write(&mut self, clock: &dyn Clock, bytes: Bytes) -> Result<(), Broken> {
        let written = within(clock, NOT_TAKEN, self.stream.write_chunk(bytes)).await;
        Ok(written.ok_or(Broken::NotTaken)??)
    }

    /// Completes when the client wants no more of it.
    pub(super) fn unwanted(&self) -> impl Future<Output = ()> + use<> {
        let stopped = self.stream.stopped();
        async move { drop(stopped.await) }
    }

    /// Everything was said; waits a while until the client has it.
    pub(super) async fn finish(mut self, clock: &dyn Clock) {
        self.finished = true;
        // It fails when the client wants no more of it.
        if self.stream.finish().is_ok() {
            within(clock, FAREWELL, self.stream.stopped()).await;
        }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if !self.finished {
            // It fails when the client wants no more of it.
            let _ = self.stream.reset(VarInt::from_u32(close::BROKEN));
        }
    }
}
