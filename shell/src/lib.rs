//! The Quorate node: thin I/O around the deterministic core.

pub mod port;
pub mod storage;
pub mod transport;
