//! What the nodes of a run log, on simulated time.

use std::cell::Cell;
use std::fmt;
use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

use crate::consensus::schedule::Time;

thread_local! {
    static NOW: Cell<Time> = const { Cell::new(0) };
}

/// From here on this is the simulated time of the world on this thread.
pub(super) fn tick(now: Time) {
    NOW.set(now);
}

struct Simulated;

impl FormatTime for Simulated {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let now = NOW.get();
        write!(writer, "{}.{:03}", now / 1_000_000_000, now / 1_000_000 % 1_000)
    }
}

/// Shows on standard error what the nodes log from here on, each line with its node and its simulated time. `filter`
/// is a level, or levels for targets.
///
/// # Errors
/// When the filter has no meaning, or this was called before.
pub fn show_log(filter: &str) -> Result<(), Box<dyn std::error::Error>> {
    // Of turmoil only the span that names the node.
    let filter = EnvFilter::try_new(filter)?
        .add_directive("turmoil=off".parse()?)
        .add_directive("turmoil::sim=info".parse()?);
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_timer(Simulated)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .try_init()
        .map_err(|error| error.to_string())?;
    Ok(())
}
