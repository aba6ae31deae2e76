//! Ctrl-C: what is under way ends, and what was done is shown. A second one ends the process at once.

use std::io;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a shell shows of a process that SIGINT has ended.
const STOPPED: u8 = 128 + 2;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Whether the user wants to stop.
pub(super) fn is_interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// How a command ends that found nothing wrong in so many runs; says so when they are fewer than was wanted.
pub(super) fn ended(runs: u64) -> ExitCode {
    if is_interrupted() {
        eprintln!("interrupted after {runs} runs");
        ExitCode::from(STOPPED)
    } else {
        ExitCode::SUCCESS
    }
}

/// Listens from now on.
///
/// # Errors
/// When the process cannot listen for signals.
pub(super) fn listen() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut signals = {
        let _context = runtime.enter();
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            while signals.recv().await.is_some() {
                if INTERRUPTED.swap(true, Ordering::Relaxed) {
                    std::process::exit(STOPPED.into());
                }
            }
        });
    });
    Ok(())
}
