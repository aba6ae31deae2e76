//! The sending side of a stream, which breaks off unless it is finished.

use quinn::{SendStream, VarInt};
use quorate_api::native::close;

/// A stream that is reset when it is dropped before its end: QUIC itself would end it well, and what was cut short would
/// look whole.
#[derive(Debug)]
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

    pub(super) fn stream(&mut self) -> &mut SendStream {
        &mut self.stream
    }

    /// Everything was sent.
    pub(super) fn finish(mut self) {
        // It fails when the other side does not want it any more, which its answer tells.
        let _ = self.stream.finish();
        self.finished = true;
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if !self.finished {
            // It fails when the other side does not want it any more.
            let _ = self.stream.reset(VarInt::from_u32(close::BROKEN));
        }
    }
}
