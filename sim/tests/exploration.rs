//! Every interleaving of small clusters, as far as the time of a test goes. `quorate-sim explore` goes further.

use quorate_core::raft::Planted;
use quorate_sim::exploration::{Bounds, Report, explore};

/// One timer, nothing else.
const ELECTION: Bounds = Bounds {
    nodes: 3,
    terms: 1,
    entries: 0,
    timeouts: 1,
    crashes: 0,
    silences: 0,
    slow_disks: 0,
    states_max: 4_000_000,
    planted: Planted::NONE,
};

/// Every state within the bounds was visited, and nothing is wrong with any.
fn completely_safe(bounds: &Bounds) -> Report {
    let report = explore(bounds);
    assert_eq!(report.violation, None);
    assert!(report.complete, "{report}");
    report
}

#[test]
fn every_interleaving_of_one_election_is_safe() {
    let report = completely_safe(&ELECTION);
    assert_eq!(report.states, 462, "{report}");
}

#[test]
fn every_interleaving_of_an_election_and_an_entry_is_safe() {
    let report = completely_safe(&Bounds {
        entries: 1,
        ..ELECTION
    });
    assert_eq!(report.states, 1_969, "{report}");
}

#[test]
fn every_interleaving_of_a_lone_node_with_crashes_is_safe() {
    completely_safe(&Bounds {
        nodes: 1,
        terms: 3,
        entries: 3,
        timeouts: 4,
        crashes: 3,
        slow_disks: 1,
        ..ELECTION
    });
}

#[test]
fn every_interleaving_of_an_election_an_entry_and_a_crash_with_a_slow_disk_is_safe() {
    completely_safe(&Bounds {
        entries: 1,
        crashes: 1,
        slow_disks: 1,
        ..ELECTION
    });
}

#[test]
fn every_interleaving_of_rival_candidates_an_entry_and_a_crash_is_safe() {
    completely_safe(&Bounds {
        terms: 2,
        entries: 1,
        timeouts: 2,
        crashes: 1,
        ..ELECTION
    });
}

#[test]
fn every_interleaving_of_rival_candidates_and_a_crash_with_a_slow_disk_is_safe() {
    completely_safe(&Bounds {
        terms: 2,
        timeouts: 2,
        crashes: 1,
        slow_disks: 1,
        ..ELECTION
    });
}

/// The second leader is elected by followers of the first.
#[test]
fn every_interleaving_of_a_leader_an_entry_and_its_successor_is_safe() {
    completely_safe(&Bounds {
        terms: 2,
        entries: 1,
        timeouts: 2,
        silences: 1,
        ..ELECTION
    });
}

#[test]
fn every_interleaving_of_three_candidacies_is_safe() {
    completely_safe(&Bounds {
        terms: 3,
        timeouts: 3,
        ..ELECTION
    });
}
