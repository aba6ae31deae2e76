//! The harness of the end-to-end tests: clusters of real processes, clients that remember every answer, and a judge of
//! what they saw.
//!
//! - [`Cluster`] starts nodes on loopback, each with its own ports and directory, and stops, kills, freezes and wipes
//!   them. What it started it also ends, and the logs of a failed test are printed.
//! - [`http`] talks to one node at a time, so that a test knows which node answered.
//! - [`Load`] runs concurrent clients that record a [`History`]; [`quorate_sim::linearizable`] judges it.
//! - [`allocation`] counts what is allocated.
//! - [`wait_until`] waits for a condition with a deadline: no test sleeps for a time.

#![allow(clippy::unwrap_used, reason = "a test harness fails the test that uses it")]

pub mod allocation;
mod binary;
mod cluster;
mod history;
pub mod http;
mod load;
mod node;
mod ports;
mod random;
mod skip;
mod wait;

pub use binary::quorate;
pub use cluster::{Cluster, Listing, SETTLE, listing, new_secret};
pub use history::{Action, History, Operation, Outcome};
pub use load::{Load, Record};
pub use node::{Node, tail};
pub use random::Random;
pub use skip::skip;
pub use wait::{wait_for, wait_until};
