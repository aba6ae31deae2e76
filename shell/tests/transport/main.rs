//! The transport between nodes, over real sockets on loopback.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod bulk;
mod death;
mod links;
mod questions;
mod refusals;
mod support;
