//! Every interleaving of small clusters, as far as the time of a test goes. `quorate-sim explore` goes further.

use quorate_core::raft::Planted;
use quorate_sim::exploration::{Bounds, explore};

/// One timer, nothing else.
const ELECTION: Bounds = Bounds {
    nodes: 3,
    terms: 1,
    entries: 0,
    timeouts: 1,
    crashes: 0,
    slow_disks: 0,
    states_max: 200_000,
    planted: Planted::NONE,
};

#[test]
fn every_interleaving_of_one_election_is_safe() {
    let report = explore(&ELECTION);
    assert_eq!(report.violation, None);
    assert!(report.complete, "{report}");
    assert_eq!(report.states, 3_016, "{report}");
}

#[test]
fn every_interleaving_of_an_election_and_an_entry_is_safe() {
    let report = explore(&Bounds {
        entries: 1,
        ..ELECTION
    });
    assert_eq!(report.violation, None);
    assert!(report.complete, "{report}");
    assert_eq!(report.states, 41_543, "{report}");
}

#[test]
fn every_interleaving_of_a_lone_node_with_crashes_is_safe() {
    let report = explore(&Bounds {
        nodes: 1,
        terms: 3,
        entries: 3,
        timeouts: 4,
        crashes: 3,
        slow_disks: 1,
        ..ELECTION
    });
    assert_eq!(report.violation, None);
    assert!(report.complete, "{report}");
}

#[test]
fn rival_candidates_with_a_slow_disk_and_a_crash_are_safe_as_far_as_one_can_look() {
    let report = explore(&Bounds {
        terms: 2,
        entries: 1,
        timeouts: 2,
        crashes: 1,
        slow_disks: 1,
        states_max: 60_000,
        ..ELECTION
    });
    assert_eq!(report.violation, None);
    assert!(report.depth >= 6, "{report}");
}

#[cfg(feature = "planted-bugs")]
#[test]
fn planted_bugs_are_found_within_few_steps() {
    use quorate_core::raft::PlantedBug;
    for (bug, steps) in [
        (PlantedBug::CandidateAsksBeforeSync, 3),
        (PlantedBug::OwnVoteFromMemory, 3),
        (PlantedBug::VoteLeavesBeforeSync, 4),
        (PlantedBug::FollowerAcceptsFromMemory, 6),
        (PlantedBug::HeartbeatMovesMatch, 7),
        (PlantedBug::EntriesBeforeTerm, 8),
    ] {
        let report = explore(&Bounds {
            terms: 2,
            entries: 1,
            timeouts: 2,
            crashes: 1,
            slow_disks: 1,
            states_max: 60_000,
            planted: Planted::with(bug),
            ..ELECTION
        });
        let (_, way) = report.violation.expect("the bug is found");
        assert!(way.len() <= steps, "{}: {way:#?}", bug.name());
    }
}
