//! When a learner becomes a voter.
//!
//! A new node first takes in the log without a vote, so that it cannot hold up commits while it catches up (Raft
//! dissertation, section 4.2.1). The leader promotes it once it is close behind. One learner is promoted at a time,
//! and none while another change of the membership is under way.

use crate::raft::{Index, NodeId};

/// What a leader knows of a learner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Learner {
    /// The learner.
    pub id: NodeId,
    /// Whether it is to become a voter at all ([`Member::promote`](crate::raft::Member::promote)).
    pub promote: bool,
    /// The last index that it holds durably.
    pub matched: Index,
    /// Whether it answered this leader lately.
    pub reachable: bool,
}

/// What a leader knows when it looks for a learner to promote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Situation<'a> {
    /// The leader's commit index.
    pub commit: Index,
    /// The last index of the leader's log.
    pub last: Index,
    /// Whether a change of the membership is under way: a joint phase, or a membership that is not committed.
    pub changing: bool,
    /// Every learner of the membership in force.
    pub learners: &'a [Learner],
}

/// How close behind a learner must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PromotionLimits {
    /// How many committed entries it may lack.
    pub committed_behind_max: u64,
    /// How many entries of the leader's log it may lack, committed or not.
    pub entries_behind_max: u64,
}

impl Default for PromotionLimits {
    /// A learner that is this close is brought level by one or two more messages, even under load.
    fn default() -> PromotionLimits {
        PromotionLimits {
            committed_behind_max: 64,
            entries_behind_max: 1024,
        }
    }
}

/// The learner to promote now: the one furthest along of those that are close enough, the lowest id among equals.
pub fn learner_to_promote(situation: &Situation<'_>, limits: &PromotionLimits) -> Option<NodeId> {
    if situation.changing {
        return None;
    }
    let behind = |end: Index, learner: &Learner| end.0.saturating_sub(learner.matched.0);
    situation
        .learners
        .iter()
        .filter(|learner| learner.promote && learner.reachable)
        // Before its first acknowledgement nothing is known of a learner, however short the log is.
        .filter(|learner| learner.matched > Index::default())
        .filter(|learner| behind(situation.commit, learner) <= limits.committed_behind_max)
        .filter(|learner| behind(situation.last, learner) <= limits.entries_behind_max)
        .max_by_key(|learner| (learner.matched, std::cmp::Reverse(learner.id)))
        .map(|learner| learner.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learner(id: u64, matched: u64) -> Learner {
        Learner {
            id: NodeId(id),
            promote: true,
            matched: Index(matched),
            reachable: true,
        }
    }

    fn decide(commit: u64, last: u64, learners: &[Learner]) -> Option<NodeId> {
        let situation = Situation {
            commit: Index(commit),
            last: Index(last),
            changing: false,
            learners,
        };
        learner_to_promote(&situation, &PromotionLimits::default())
    }

    #[test]
    fn a_learner_that_caught_up_is_promoted() {
        assert_eq!(decide(1_000, 1_010, &[learner(4, 1_000)]), Some(NodeId(4)));
    }

    #[test]
    fn the_distance_to_the_commit_index_counts_to_the_entry() {
        assert_eq!(decide(1_000, 1_000, &[learner(4, 936)]), Some(NodeId(4)));
        assert_eq!(decide(1_000, 1_000, &[learner(4, 935)]), None);
    }

    #[test]
    fn a_learner_far_behind_an_uncommitted_tail_waits() {
        assert_eq!(decide(1_000, 2_024, &[learner(4, 1_000)]), Some(NodeId(4)));
        assert_eq!(decide(1_000, 2_025, &[learner(4, 1_000)]), None);
    }

    #[test]
    fn nobody_is_promoted_while_the_membership_changes() {
        let situation = Situation {
            commit: Index(10),
            last: Index(10),
            changing: true,
            learners: &[learner(4, 10)],
        };
        assert_eq!(learner_to_promote(&situation, &PromotionLimits::default()), None);
    }

    #[test]
    fn a_learner_that_shall_stay_one_is_never_promoted() {
        let follower_for_ever = Learner {
            promote: false,
            ..learner(4, 10)
        };
        assert_eq!(decide(10, 10, &[follower_for_ever]), None);
    }

    #[test]
    fn an_unreachable_learner_is_not_promoted_however_much_it_holds() {
        let gone = Learner {
            reachable: false,
            ..learner(4, 10)
        };
        assert_eq!(decide(10, 10, &[gone]), None);
        assert_eq!(decide(10, 10, &[gone, learner(5, 9)]), Some(NodeId(5)));
    }

    #[test]
    fn a_learner_that_never_answered_is_not_promoted_even_by_a_young_cluster() {
        assert_eq!(decide(3, 3, &[learner(4, 0)]), None);
    }

    #[test]
    fn of_several_the_furthest_goes_first_and_the_lowest_id_among_equals() {
        assert_eq!(
            decide(100, 100, &[learner(6, 98), learner(5, 99), learner(4, 97)]),
            Some(NodeId(5))
        );
        assert_eq!(
            decide(100, 100, &[learner(6, 99), learner(5, 99)]),
            Some(NodeId(5))
        );
    }

    #[test]
    fn nobody_waits_when_there_is_no_learner() {
        assert_eq!(decide(100, 100, &[]), None);
    }
}
