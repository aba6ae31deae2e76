//! The transport between nodes, over real sockets on loopback.

mod bulk;
mod death;
mod links;
mod questions;
mod refusals;
mod support;
