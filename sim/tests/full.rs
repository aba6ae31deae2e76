//! The full simulation itself: production nodes keep every property on simulated machines, and runs repeat exactly.

use std::process::Command;

use quorate_sim::consensus::{Outcome, Plan, Statistics};
use quorate_sim::full::run;

fn outcome(plan: &Plan) -> Outcome {
    run(plan, None).unwrap_or_else(|violation| panic!("{violation}"))
}

#[test]
fn nodes_found_a_cluster_and_serve_clients() {
    let plan = Plan::draw(1, 3, 3).calm();
    let Outcome { statistics, .. } = outcome(&plan);
    assert_eq!(statistics.elections, 1, "nothing disturbs the first leader");
    assert_eq!(statistics.unknown, 0, "every request is answered");
    assert!(statistics.acknowledged > 50 && statistics.reads > 30);
    assert!(
        statistics.watched > statistics.acknowledged,
        "one watches everything"
    );
}

#[test]
fn nodes_keep_every_property_through_faults() {
    let mut sum = Statistics::default();
    for seed in 1..=24 {
        sum.add(&outcome(&Plan::draw(seed, 3, 8)).statistics);
    }
    assert!(sum.crashes > 0 && sum.partitions > 0 && sum.stalls > 0);
    assert!(sum.pauses > 0 && sum.wiped + sum.rotten > 0 && sum.transfers > 0);
    assert!(
        sum.watched > 1_000 && sum.marks > 20 && sum.resumed > 20,
        "{sum:?}"
    );
    assert!(sum.elections > 8, "some leader was replaced");
}

#[test]
fn the_same_plan_gives_the_same_run_in_one_process() {
    for seed in 1..=3 {
        let plan = Plan::draw(seed, 3, 5);
        assert_eq!(outcome(&plan), outcome(&plan), "seed {seed}");
    }
}

#[test]
fn the_same_plan_gives_the_same_run_in_another_process() {
    let output = Command::new(env!("CARGO_BIN_EXE_quorate-sim"))
        .args([
            "run",
            "--nodes",
            "3",
            "--seeds",
            "2..4",
            "--seconds",
            "5",
            "--hashes",
        ])
        .output()
        .expect("the simulator runs");
    let there = String::from_utf8_lossy(&output.stdout);
    let here: String = (2..=4)
        .map(|seed| format!("{seed} {:016x}\n", outcome(&Plan::draw(seed, 3, 5)).trace))
        .collect();
    assert_eq!(there, here);
}
