//! The core simulation itself: seeds end well, repeat exactly, are not idle, and the checkers see planted mistakes.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use quorate_sim::consensus::{Conditions, Engine, Mistake, Plan, PlantedBug, Statistics, Violation, run};
use quorate_sim::failure::{Failure, Replay};
use quorate_sim::shrink::shrink;
use quorate_sim::trace::Journal;

fn sum_of(seeds: std::ops::RangeInclusive<u64>, nodes: u64, seconds: u64) -> Statistics {
    let mut sum = Statistics::default();
    for seed in seeds {
        match run(&Plan::draw(seed, nodes, seconds), &Conditions::default()) {
            Ok(outcome) => sum.add(&outcome.statistics),
            Err(violation) => panic!("{nodes} nodes: {violation}"),
        }
    }
    sum
}

#[test]
fn three_nodes_keep_every_property_and_recover() {
    sum_of(1..=100, 3, 20);
}

#[test]
fn five_nodes_keep_every_property_and_recover() {
    sum_of(1..=30, 5, 20);
}

#[test]
fn other_sizes_keep_every_property_and_recover() {
    for nodes in [1, 2, 4, 7] {
        sum_of(1..=10, nodes, 10);
    }
}

/// A generator that never brings a situation about tests nothing of it.
#[test]
fn every_kind_of_event_happens_in_some_seed() {
    let sum = sum_of(1_001..=1_300, 3, 20);
    let never: Vec<&str> = sum
        .named(Engine::Core)
        .into_iter()
        .filter(|(_, count)| *count == 0)
        .map(|(name, _)| name)
        .collect();
    assert_eq!(never, Vec::<&str>::new(), "of {sum:?}");
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_seed_another_one() {
    for nodes in [3, 5] {
        let plans: Vec<Plan> = (1..=10).map(|seed| Plan::draw(seed, nodes, 10)).collect();
        let runs = || -> Vec<_> {
            let conditions = Conditions::default();
            plans.iter().map(|plan| run(plan, &conditions)).collect()
        };
        let first = runs();
        assert_eq!(first, runs());
        let mut traces: Vec<u64> = first.into_iter().flatten().map(|outcome| outcome.trace).collect();
        traces.sort_unstable();
        traces.dedup();
        assert_eq!(traces.len(), 10, "ten seeds, ten traces");
    }
}

fn with_mistake(bug: PlantedBug) -> Conditions {
    Conditions {
        mistake: Some(Mistake::Driver(bug)),
        ..Conditions::default()
    }
}

/// The first run in which the checkers see a planted mistake.
fn failure_of(bug: PlantedBug, nodes: u64) -> (Plan, Violation) {
    (1..=2_000)
        .find_map(|seed| {
            let plan = Plan::draw(seed, nodes, 20);
            let violation = run(&plan, &with_mistake(bug)).err()?;
            Some((plan, violation))
        })
        .unwrap_or_else(|| panic!("no checker saw {bug:?}"))
}

/// The first violation that the checkers report for a planted mistake.
fn caught(bug: PlantedBug) -> Violation {
    failure_of(bug, 5).1
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
        "a leader knows what its followers hold",
    ];
    assert!(expected.contains(&violation.checker), "{violation}");
}

#[test]
fn a_disk_that_forgets_a_vote_is_seen() {
    let (_, violation) = failure_of(PlantedBug::ForgottenVote, 3);
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

/// A folder that a test has for itself, empty.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if folder.exists() {
        std::fs::remove_dir_all(&folder).expect("the folder of an earlier run can be removed");
    }
    folder
}

#[test]
fn a_failure_that_was_written_down_is_replayed_step_by_step() {
    let bug = PlantedBug::LyingDisk;
    let (plan, violation) = failure_of(bug, 3);
    let folder = folder("written-down");
    let same = Failure::new(plan.clone(), with_mistake(bug), &violation)
        .save(&folder)
        .expect("the folder can be written");
    assert!(same, "the run that wrote the trace went the same way");
    let trace = std::fs::read_to_string(folder.join("trace.jsonl")).expect("the trace is there");
    assert!(trace.contains(r#""event":"fault""#), "{trace}");
    let mut failure = Failure::load(&folder).expect("the folder can be read");
    assert_eq!(failure.plan, plan);
    assert!(matches!(failure.replay(Journal::none()).0, Replay::Same));
    failure.conditions = Conditions::default();
    assert!(matches!(failure.replay(Journal::none()).0, Replay::EndsWell));
}

#[test]
fn a_run_without_checkers_goes_the_same_way() {
    for seed in 1..=10 {
        let plan = Plan::draw(seed, 5, 10);
        let blind = Conditions {
            checks: false,
            ..Conditions::default()
        };
        let trace = |conditions| run(&plan, conditions).map(|outcome| outcome.trace);
        assert_eq!(trace(&blind), trace(&Conditions::default()));
    }
}

#[test]
fn a_failure_shrinks_to_a_few_events_with_the_same_violation() {
    let bug = PlantedBug::LyingDisk;
    let (plan, violation) = failure_of(bug, 3);
    let failure = Failure::new(plan, with_mistake(bug), &violation);
    let limit = std::time::Duration::from_secs(60);
    let shrunk = shrink(&failure, limit, 2).expect("the violation shows again");
    let smaller = shrunk.failure;
    assert_eq!(smaller.recorded.checker, violation.checker);
    assert!(smaller.plan.event_count() <= 10, "{}", smaller.plan);
    assert!(matches!(smaller.replay(Journal::none()).0, Replay::Same));
}

#[test]
fn what_ends_well_does_not_shrink() {
    let bug = PlantedBug::LyingDisk;
    let (plan, violation) = failure_of(bug, 3);
    let sane = Failure::new(plan, Conditions::default(), &violation);
    assert!(shrink(&sane, std::time::Duration::from_secs(1), 1).is_none());
}

fn simulator(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_quorate-sim"))
        .args(arguments)
        .output()
        .expect("the simulator starts")
}

#[test]
fn the_command_line_reports_a_violation_with_a_replay_that_shows_it_again() {
    let folder = folder("command-line");
    let folder = folder.to_str().expect("a path of characters");
    let found = simulator(&[
        "core",
        "--seconds",
        "5",
        "--seeds",
        "1..50",
        "--plant",
        "divergent-apply",
        "--failures",
        folder,
    ]);
    let message = String::from_utf8_lossy(&found.stderr).into_owned();
    assert_eq!(found.status.code(), Some(1), "{message}");
    let violation = message
        .lines()
        .find(|line| line.contains("VIOLATION"))
        .expect("a violation");
    assert!(violation.contains("equal states"), "{violation}");
    let replay = message
        .lines()
        .find_map(|line| line.strip_prefix("replay: "))
        .expect("a replay command");
    let (_, arguments) = replay.split_once(" -- ").expect("arguments of the simulator");
    let again = simulator(&arguments.split(' ').collect::<Vec<_>>());
    let text = String::from_utf8_lossy(&again.stdout).into_owned();
    assert_eq!(again.status.code(), Some(1), "{text}");
    assert!(text.contains("REPRODUCED"), "{text}");
}

#[test]
fn a_seed_and_its_printed_plan_are_the_same_run() {
    let folder = folder("printed-plan");
    std::fs::create_dir_all(&folder).expect("a folder can be made");
    let file = folder.join("plan.json");
    let plan = simulator(&["plan", "--seed", "17", "--nodes", "5", "--seconds", "4"]);
    std::fs::write(&file, &plan.stdout).expect("the plan can be written");
    let file = file.to_str().expect("a path of characters");
    let drawn = simulator(&[
        "core",
        "--seeds",
        "17",
        "--nodes",
        "5",
        "--seconds",
        "4",
        "--hashes",
    ]);
    let read = simulator(&["core", "--plan", file, "--hashes"]);
    let hashes = String::from_utf8_lossy(&drawn.stdout).into_owned();
    assert!(hashes.starts_with("17 "), "{hashes}");
    assert_eq!(hashes, String::from_utf8_lossy(&read.stdout));
}

#[test]
fn the_command_line_summarises_seeds_that_ended_well() {
    let output = simulator(&["core", "--nodes", "3", "--seconds", "2", "--seeds", "1..4"]);
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

#[test]
fn wrong_usage_is_answered_with_what_would_be_right() {
    let nothing = folder("no-failure");
    let missing = nothing.to_str().expect("a path of characters").to_owned();
    let empty = folder("empty-folder");
    std::fs::create_dir_all(&empty).expect("a folder can be made");
    let plan = empty.join("plan.json");
    std::fs::write(&plan, "{}").expect("the plan can be written");
    let [empty, plan] = [empty, plan].map(|path| path.to_str().expect("a path of characters").to_owned());
    let cases: [(&[&str], &[&str]); 8] = [
        (&["core", "--seeds", "1.."], &["`1..`", "17", "1..1000"]),
        (&["core", "--seeds", "abc"], &["`abc`", "17", "1..1000"]),
        (&["core", "--seeds", "9..1"], &["comes after the last"]),
        (&["core", "--for", "abc"], &["a whole number of seconds"]),
        (
            &["core", "--plant", "lying-disc"],
            &["`lying-disc`", "lying-disk", "divergent-apply"],
        ),
        (&["core", "--plan", &plan], &["plan.json", "quorate-sim plan"]),
        (&["replay", &missing], &["there is no folder", &missing]),
        (&["shrink", &empty], &["holds no failure", "failure.json"]),
    ];
    for (arguments, words) in cases {
        let output = simulator(arguments);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
        for word in words {
            assert!(message.contains(word), "{arguments:?} without {word}: {message}");
        }
    }
}
