//! Sets up the log: to standard error, as text for people or as one JSON object a line.
//!
//! Invariant: a log that cannot be written never ends the node. Lines that go nowhere are counted.

use std::io::{self, IsTerminal, Write};
use std::sync::LazyLock;

use prometheus_client::metrics::counter::Counter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::config::{LogFormat, LogOptions};

/// Whether colours are wanted on `stream`: on a terminal, unless NO_COLOR says otherwise (no-color.org).
pub fn wants_colours(stream: &impl IsTerminal) -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    stream.is_terminal() && !refused
}

static LINES_DROPPED: LazyLock<Counter> = LazyLock::new(Counter::default);

/// How many lines this process could not write to its log: the disk was full, or whoever read them has gone.
pub fn lines_dropped() -> Counter {
    LINES_DROPPED.clone()
}

/// Where lines go; each is written as a whole. There is nobody to tell of an error, so it counts as written.
struct Lines<W>(W);

impl<W: Write> Write for Lines<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.0.write_all(line).is_err() {
            LINES_DROPPED.inc();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Sends everything that `tracing` reports from here on to standard error.
///
/// # Errors
/// When the process logs somewhere already.
pub fn init(options: &LogOptions) -> Result<(), TryInitError> {
    // The configuration checked the filter; a part that this version does not know is left out.
    let filter = EnvFilter::builder().parse_lossy(&options.level);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| Lines(io::stderr()))
        // It would write about an error to standard error, and panic when that fails too.
        .log_internal_errors(false)
        .with_ansi(wants_colours(&io::stderr()));
    match options.format {
        LogFormat::Text => builder.with_target(false).finish().try_init(),
        LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .finish()
            .try_init(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Full;

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_that_cannot_be_written_is_counted_and_is_no_error() {
        let before = lines_dropped().get();
        assert!(Lines(Full).write_all(b"lost\n").is_ok());
        let mut kept = Vec::new();
        assert!(Lines(&mut kept).write_all(b"kept\n").is_ok());
        assert_eq!(kept, b"kept\n");
        assert_eq!(lines_dropped().get() - before, 1);
    }
}
