//! The Quorate node: thin I/O around the deterministic core.

pub mod api;
pub mod cli;
pub mod config;
pub mod fuzzing;
pub mod logging;
pub mod metrics;
pub mod node;
pub mod notify;
pub mod planted;
pub mod port;
pub mod storage;
pub mod transport;
pub mod watch;
mod yaml;
