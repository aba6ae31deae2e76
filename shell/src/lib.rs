//! The Quorate node: thin I/O around the deterministic core.

pub mod api;
pub mod cli;
pub mod config;
pub mod logging;
pub mod metrics;
pub mod notify;
pub mod port;
