//! The command line as a user meets it: the real program, its output and its exit codes.

#![allow(clippy::unwrap_used)]

mod dev;
mod offline;
mod serve;
mod support;
