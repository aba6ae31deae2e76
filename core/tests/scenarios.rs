//! Consensus, told in scenes: each file under `scenarios/` shows one rule or one fault.
//!
//! `UPDATE_SCENARIOS=1 cargo test -p quorate-core --test scenarios` rewrites what the commands show, for review.

mod harness;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios")
}

/// One test a file, named after it.
macro_rules! scenarios {
    ($($name:ident)*) => {
        const NAMES: &[&str] = &[$(stringify!($name)),*];
        $(
            #[test]
            fn $name() {
                harness::run(&folder().join(concat!(stringify!($name), ".txt")));
            }
        )*
    };
}

scenarios! {
    first_election
    late_append_in_one_batch
    lost_acceptance
    pre_vote_from_an_earlier_term
    reads_when_the_last_follower_is_removed
    reconnect_before_the_first_answer
    slow_state_machine
}

#[test]
fn every_file_is_run() {
    let files: BTreeSet<String> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| {
            entry
                .unwrap()
                .path()
                .file_stem()
                .unwrap()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    let run: BTreeSet<String> = NAMES.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(files, run, "the files and the list in this file differ");
}
