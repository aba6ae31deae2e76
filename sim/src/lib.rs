//! Deterministic simulation of Quorate: seeded faults, checkers, and one-line replays.
//!
//! - [`consensus`]: consensus and the replicated state alone, on a heap of events; fast.
//! - [`full`]: the production node on simulated networks, disks and clocks.
//! - [`scenario`]: stories of failure in files, run on production nodes and measured.
//! - [`linearizable`]: whether what clients saw of one key can be explained.
//! - [`serializable`]: whether what transactions over several keys saw can be.
//! - [`batch`]: many seeds on many threads.
//! - [`exploration`]: every interleaving of small clusters.
//! - [`failure`]: a violation in a folder of its own, to be run again.
//! - [`shrink`]: a smaller plan with the same violation.
//! - [`random`]: streams of chance, one a concern.
//! - [`share`]: what the checkers cost.
//! - [`report`]: progress, summary and violations on a terminal, and pages to look at in a browser.
//! - [`trace`]: everything that happened in a run, for programs.

#[cfg(not(any(tokio_unstable, doc)))]
compile_error!(
    "the simulation needs tokio's seeded scheduler: build with `--cfg tokio_unstable`, as .cargo/config.toml says; a \
     RUSTFLAGS variable replaces those flags"
);

pub mod batch;
pub mod consensus;
pub mod exploration;
pub mod failure;
pub mod full;
pub mod linearizable;
#[cfg(feature = "planted-bugs")]
pub mod mutants;
pub mod random;
pub mod report;
pub mod scenario;
pub mod serializable;
pub mod share;
pub mod shrink;
pub mod trace;
