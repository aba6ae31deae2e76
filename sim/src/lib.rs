//! Deterministic simulation of Quorate: seeded faults, checkers, and one-line replays.
//!
//! - [`consensus`]: consensus and the replicated state alone, on a heap of events; fast.
//! - [`random`]: streams of chance, one a concern.
//! - [`report`]: progress, summary and violations on a terminal.

pub mod consensus;
pub mod exploration;
#[cfg(feature = "planted-bugs")]
pub mod mutants;
pub mod random;
pub mod report;
