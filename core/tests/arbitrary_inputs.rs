//! No message and nothing on its disk, however wrong, makes a node panic or break its word.
#![allow(clippy::unwrap_used)]

mod arbitrary;

use std::collections::BTreeMap;

use arbitrary::{Bench, Dice, stored};
use quorate_core::raft::*;

const SEEDS: u64 = 1_000;
const STEPS: u64 = 600;

/// Runs `what` with each seed, or with the one of the variable `SEED`; says which one panicked.
fn with_seeds<T>(seeds: u64, what: impl Fn(u64) -> T + std::panic::RefUnwindSafe) -> Vec<T> {
    let only = std::env::var("SEED")
        .ok()
        .map(|seed| seed.parse::<u64>().unwrap());
    let run = |seed| {
        std::panic::catch_unwind(|| what(seed)).unwrap_or_else(|panic| {
            eprintln!("run it again alone with SEED={seed}");
            std::panic::resume_unwind(panic)
        })
    };
    only.map_or(0..seeds, |seed| seed..seed + 1).map(run).collect()
}

#[test]
fn no_message_makes_a_node_panic_or_break_its_word() {
    let seen = with_seeds(SEEDS, |seed| {
        let mut dice = Dice::seeded(seed);
        let (boot, witness) = stored::sound(&mut dice);
        let began = boot.base.position.index;
        let mut bench = Bench::start(dice, boot, witness).unwrap();
        bench.run(STEPS);
        let status = bench.status();
        let [failed, led, moved, committed] = [
            bench.has_failed(),
            bench.has_led(),
            status.base.position.index > began,
            status.commit > Index(0),
        ]
        .map(u64::from);
        [failed, led, moved, committed]
    });
    // A stream that never leaves the beaten track would show nothing.
    let of = |what: usize| seen.iter().map(|counts| counts[what]).sum::<u64>();
    if seen.len() > 1 {
        assert!(of(0) > SEEDS / 100, "hardly a disk ever failed: {}", of(0));
        assert!(of(1) > SEEDS / 10, "hardly a node ever led: {}", of(1));
        assert!(of(2) > SEEDS / 10, "hardly a log ever began later: {}", of(2));
        assert!(of(3) > SEEDS / 4, "hardly a node ever committed: {}", of(3));
    }
}

#[test]
fn a_damaged_stored_state_is_refused_by_name_or_works() {
    let refusals = with_seeds(20_000, |seed| {
        let mut dice = Dice::seeded(seed);
        let (mut boot, witness) = stored::sound(&mut dice);
        for _ in 0..=dice.below(3) {
            stored::damage(&mut boot, witness, &mut dice);
        }
        let playable = stored::is_playable(&boot);
        match Bench::start(dice, boot, witness) {
            Ok(mut bench) if playable => {
                bench.run(40);
                None
            }
            Ok(_) => None,
            Err(refusal) => Some(refusal.to_string()),
        }
    });
    let mut names: BTreeMap<&str, u32> = BTreeMap::new();
    for refusal in refusals.iter().flatten() {
        // What stands in it varies in numbers alone.
        *names
            .entry(refusal.trim_end_matches(|letter: char| !letter.is_alphabetic()))
            .or_default() += 1;
    }
    if refusals.len() > 1 {
        let refused = refusals.iter().flatten().count();
        assert!(refused > 5_000, "hardly a damaged state was refused: {refused}");
        assert!(refused < 19_000, "hardly a state was accepted: {refused}");
        assert!(names.len() > 10, "{names:#?}");
    }
}
