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
    acknowledged_only_when_durable
    candidate_asks_with_a_durable_vote
    candidate_with_a_shorter_log_loses
    change_that_leaves_no_majority
    commit_rule_of_figure_8
    commit_with_the_own_term
    disk_error_ends_the_node
    disk_error_of_a_follower
    features_rise_when_all_can_follow
    features_survive_compaction
    first_election
    flapping_link
    follower_without_what_it_accepted
    forced_start_of_a_damaged_log
    forced_start_of_a_witness
    forced_start_of_the_last_survivor
    forced_start_of_the_node_that_was_behind
    forced_start_while_the_majority_lives
    group_commit
    heartbeat_moves_no_commit_beyond_the_match
    higher_term_is_no_vote
    in_flight_bytes_of_many_appends
    install_answers_waiting_clients
    joint_consensus
    joint_election_needs_both_majorities
    joint_phase_is_left_by_the_next_leader
    late_append_in_one_batch
    late_append_keeps_committed_entries
    late_start_of_the_last_leader
    late_vote_request_of_a_removed_voter
    leader_demotes_itself
    leader_does_not_campaign
    leader_removes_itself
    leader_stays_while_it_is_heard
    leader_with_a_stuck_disk_takes_on_no_more
    leader_with_an_empty_log
    leader_without_a_majority_steps_down
    leadership_transfer
    learner_counts_for_no_commit
    learner_votes_when_it_has_caught_up
    lease_and_a_late_word_to_campaign
    lease_before_the_first_commit
    lease_given_back_by_a_transfer
    lease_outlives_a_lost_link
    lease_promise_before_the_first_term_is_on_disk
    lease_promise_ends_with_time_only
    lease_promise_outlives_a_restart
    lease_read
    lease_reads_are_off
    lease_refused_when_clocks_drift
    link_loss_shortens_the_wait
    log_backtracking
    log_compaction
    lost_acceptance
    lost_append
    membership_change_waits_for_the_first_commit
    membership_in_a_snapshot
    membership_is_in_force_when_appended
    node_ahead_of_its_cluster_is_set_aside
    old_acknowledgement_of_a_rewritten_index
    old_entries_are_read_back
    old_snapshot_over_newer_state
    older_acknowledgement_than_the_snapshot
    partial_partition_chained
    partial_partition_constrained
    partial_partition_quorum_loss
    pipeline_resumes_after_a_stall
    pre_candidate_forgets_its_leader
    pre_vote_disturbs_nobody
    pre_vote_from_an_earlier_term
    pre_vote_longer_log_in_a_lower_term
    preferred_node_gets_the_leadership_back
    preferred_node_goes_first
    preferred_node_that_cannot_lead
    priority_zero_leads_when_nobody_else_can
    promoted_learner_that_does_not_know
    quorum_loss_read_only
    read_answer_of_an_earlier_life
    read_before_the_first_commit
    read_index
    read_of_a_deposed_leader
    reads_when_the_last_follower_is_removed
    reconnect_before_the_first_answer
    removed_node_is_told
    removed_voter_does_not_disturb
    repair_from_a_snapshot
    repair_of_a_damaged_log
    repair_survives_a_restart
    repair_under_the_same_leader
    repair_with_a_state_ahead_of_the_log
    repair_without_a_known_end
    requests_of_an_ended_campaign
    slow_disk_hands_over
    slow_disks_everywhere
    slow_state_machine
    smallest_byte_limits
    snapshot_for_a_follower_too_far_behind
    snapshot_receiver_crashes
    snapshot_receiver_crashes_before_the_switch
    snapshot_transfer_breaks_off
    snapshot_under_load
    split_vote
    split_vote_after_a_lost_link
    stale_refusal
    stalled_disk_ends_the_leadership
    stalled_disk_in_company
    stepping_down_keeps_the_vote
    storm_of_refusals
    term_and_entries_in_one_write
    transfer_ends_with_another_leader
    transfer_in_a_joint_phase
    transfer_that_fails
    transfer_while_a_membership_is_not_applied
    truncation_reaches_the_disk
    truncation_restores_the_membership
    uncommitted_bytes_are_bounded
    veto_is_for_pre_votes_only
    vote_only_when_durable
    vote_survives_a_crash
    wiped_node_gets_a_new_id
    witness_ahead_of_the_last_data_node
    witness_gets_the_base
    witness_known_for_what_it_is_not
    witness_lets_one_data_node_go_on
    witness_membership
    witness_never_leads
    witness_opens_a_term_without_the_lost_leader
    witness_stands_in_for_a_late_data_voter
    witness_waits_for_data_voters
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
