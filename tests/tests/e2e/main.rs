//! End-to-end tests: real processes, real sockets, real files, real kills.

#![allow(
    clippy::unwrap_used,
    reason = "a test that unwraps nothing fails, as it should"
)]

mod client_port;
mod data;
mod documentation;
mod forced_start;
mod formation;
mod frames;
mod full_disk;
mod isolated_leader;
mod kill_nine;
mod members;
mod moving;
mod names;
mod native;
mod power_cut;
mod sessions;
mod settings;
mod shutdown;
mod snapshot_catch_up;
mod streams;
mod watches;
mod witness;
