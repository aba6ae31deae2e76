//! What the benchmarks share.
#![allow(clippy::unwrap_used)]

pub mod group;
