//! The core simulation itself: seeds end well, repeat exactly, are not idle, and the checkers see planted mistakes.

use std::process::Command;

use quorate_sim::consensus::{Options, PlantedBug, Statistics, Violation, simulate};

fn options(nodes: u64, seconds: u64) -> Options {
    Options {
        nodes,
        seconds,
        verbose: false,
        planted: None,
        consensus: quorate_core::raft::Planted::default(),
    }
}

fn run(seeds: std::ops::RangeInclusive<u64>, options: &Options) -> Statistics {
    let mut sum = Statistics::default();
    for seed in seeds {
        match simulate(seed, options) {
            Ok(outcome) => sum.add(&outcome.statistics),
            Err(violation) => panic!("{} nodes: {violation}", options.nodes),
        }
    }
    sum
}

#[test]
fn three_nodes_keep_every_property_and_recover() {
    run(1..=100, &options(3, 20));
}

#[test]
fn five_nodes_keep_every_property_and_recover() {
    run(1..=30, &options(5, 20));
}

#[test]
fn other_sizes_keep_every_property_and_recover() {
    for nodes in [1, 2, 4, 7] {
        run(1..=10, &options(nodes, 10));
    }
}

/// A generator that never brings a situation about tests nothing of it.
#[test]
fn every_kind_of_event_happens_in_some_seed() {
    let sum = run(1_001..=1_060, &options(3, 20));
    let never: Vec<&str> = sum
        .named()
        .into_iter()
        .filter(|(_, count)| *count == 0)
        .map(|(name, _)| name)
        .collect();
    assert_eq!(never, Vec::<&str>::new(), "of {sum:?}");
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_seed_another_one() {
    for nodes in [3, 5] {
        let options = options(nodes, 10);
        let first: Vec<_> = (1..=10).map(|seed| simulate(seed, &options)).collect();
        let again: Vec<_> = (1..=10).map(|seed| simulate(seed, &options)).collect();
        assert_eq!(first, again);
        let mut traces: Vec<u64> = first.into_iter().flatten().map(|outcome| outcome.trace).collect();
        traces.sort_unstable();
        traces.dedup();
        assert_eq!(traces.len(), 10, "ten seeds, ten traces");
    }
}

/// The first violation that the checkers report for a planted mistake.
fn caught(planted: PlantedBug) -> Violation {
    let options = Options {
        planted: Some(planted),
        consensus: quorate_core::raft::Planted::default(),
        ..options(5, 20)
    };
    (1..=2_000)
        .find_map(|seed| simulate(seed, &options).err())
        .unwrap_or_else(|| panic!("no checker saw {planted:?}"))
}

#[test]
fn a_write_acknowledged_before_it_is_durable_is_seen() {
    let violation = caught(PlantedBug::AcknowledgeBeforeDurable);
    let expected = [
        "no promise before it is durable",
        "what is applied is durable here",
        "election by a majority",
        "committed entries are on the disks of a majority",
    ];
    assert!(expected.contains(&violation.checker), "{violation}");
}

#[test]
fn a_disk_that_loses_what_it_has_synced_is_seen() {
    let violation = caught(PlantedBug::LyingDisk);
    let expected = [
        "leader completeness",
        "committed entries never change",
        "committed entries are on the disks of a majority",
        "a node starts from what it wrote",
        "log matching",
    ];
    assert!(expected.contains(&violation.checker), "{violation}");
}

#[test]
fn a_disk_that_forgets_a_vote_is_seen() {
    let violation = caught(PlantedBug::ForgottenVote);
    let expected = ["votes never change", "election safety", "log matching"];
    assert!(expected.contains(&violation.checker), "{violation}");
}

#[test]
fn a_state_machine_that_differs_is_seen() {
    assert_eq!(caught(PlantedBug::DivergentApply).checker, "equal states");
}

#[test]
fn a_read_that_nobody_confirmed_is_seen() {
    assert_eq!(
        caught(PlantedBug::UnconfirmedRead).checker,
        "reads are linearizable"
    );
}

#[test]
fn a_second_answer_to_a_request_is_seen() {
    assert_eq!(caught(PlantedBug::DoubleReply).checker, "one answer a request");
}

#[test]
fn the_command_line_reports_a_violation_with_a_replay_that_shows_it_again() {
    let simulator = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_quorate-sim"))
            .args(arguments)
            .output()
            .expect("the simulator starts")
    };
    let found = simulator(&[
        "core",
        "--nodes",
        "3",
        "--seconds",
        "5",
        "--seeds",
        "1..50",
        "--plant",
        "divergent-apply",
    ]);
    let message = String::from_utf8_lossy(&found.stderr).into_owned();
    assert_eq!(found.status.code(), Some(1), "{message}");
    let violation = message
        .lines()
        .find(|line| line.contains("VIOLATION"))
        .expect("a violation");
    let replay = message
        .lines()
        .find_map(|line| line.strip_prefix("replay: "))
        .expect("a replay command");
    let (_, arguments) = replay.split_once(" -- ").expect("arguments of the simulator");
    let again = simulator(&arguments.split(' ').collect::<Vec<_>>());
    let message = String::from_utf8_lossy(&again.stderr).into_owned();
    assert_eq!(again.status.code(), Some(1), "{message}");
    assert!(message.contains(violation), "{message} instead of {violation}");
}

#[test]
fn the_command_line_summarises_seeds_that_ended_well() {
    let output = Command::new(env!("CARGO_BIN_EXE_quorate-sim"))
        .args(["core", "--nodes", "3", "--seconds", "2", "--seeds", "1..4"])
        .output()
        .expect("the simulator starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}");
    for row in [
        "seeds",
        "steps",
        "simulated seconds",
        "elections",
        "commits",
        "steps a second",
    ] {
        assert!(
            text.lines().any(|line| line.starts_with(row)),
            "{row} is missing: {text}"
        );
    }
    assert!(output.stderr.is_empty(), "no progress bar without a terminal");
}
