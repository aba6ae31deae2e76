//! Drives consensus from story scripts: what happens, then what one sees.
//!
//! A script is a text file. Lines that open with `>` are commands; the lines under one, up to the next blank line,
//! comment or command, are what it shows. Lines that open with `#` tell the story. `UPDATE_SCENARIOS=1` rewrites what
//! the commands show, for review.
//!
//! Nothing happens but what the script says: messages wait on their links, writes wait for the disk, committed entries
//! wait for the state machine, and every node has a clock of its own that only the script moves. [`commands`] lists
//! the vocabulary, [`world`] owns nodes, links and disks, [`disk`] says what survives a crash, [`checks`] watches the
//! safety rules behind every step, and [`words`] puts what happened into sentences.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod checks;
mod commands;
mod disk;
mod script;
mod words;
mod world;

pub(crate) use script::run;
