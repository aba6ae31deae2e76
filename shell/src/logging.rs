//! Sets up the log: to standard error, as text for people or as one JSON object a line.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::config::{LogFormat, LogOptions};

/// Whether colours are wanted on `stream`: on a terminal, unless NO_COLOR says otherwise (no-color.org).
pub fn wants_colours(stream: &impl IsTerminal) -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    stream.is_terminal() && !refused
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
        .with_writer(std::io::stderr)
        .with_ansi(wants_colours(&std::io::stderr()));
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
