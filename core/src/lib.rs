//! The deterministic core of Quorate: consensus, the replicated state, and what a leader decides on time.
//!
//! Events go in, effects come out, and nothing else happens: there is no clock, socket, file, thread, async task,
//! global or hash-map order in this crate, so the same seed and the same inputs give the same effects on every
//! machine. A driver (the node, the simulator, a test) owns time and I/O and carries the effects out.
//!
//! - [`raft`]: the consensus protocol.
//! - [`state`]: the replicated state machine that committed commands are applied to.
//! - [`duties`]: what a leader decides beyond consensus, such as the promotion of learners.
//! - [`wire`]: the versioned encoding of everything that crosses a socket or reaches a disk.
#![forbid(unsafe_code)]

pub mod duties;
pub mod raft;
pub mod state;
pub mod time;
pub mod wire;

pub use time::{Instant, WallTime};

/// Whether this build has the switches for mistakes on purpose (the feature `planted-bugs`), which none in production has.
#[doc(hidden)]
pub const HAS_PLANTED_BUGS: bool = cfg!(feature = "planted-bugs");
