//! When a learner becomes a voter.
//!
//! A new node first takes in the log without a vote, so that it cannot hold up commits while it catches up (Raft
//! dissertation, section 4.2.1). The leader promotes it once it has caught up, which consensus judges, and refuses
//! before. One learner is promoted at a time, and none while another change of the membership is under way.

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
    /// Whether it answers and is close behind ([`PeerStatus::caught_up`](crate::raft::PeerStatus::caught_up)).
    pub caught_up: bool,
}

/// What a leader knows when it looks for a learner to promote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Situation<'a> {
    /// Whether a change of the membership is under way: a joint phase, or a membership that is not committed.
    pub changing: bool,
    /// Every learner of the membership in force.
    pub learners: &'a [Learner],
}

/// The learner to promote now: the one furthest along of those that have caught up, the lowest id among equals.
pub fn learner_to_promote(situation: &Situation<'_>) -> Option<NodeId> {
    if situation.changing {
        return None;
    }
    situation
        .learners
        .iter()
        .filter(|learner| learner.promote && learner.caught_up)
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
            caught_up: true,
        }
    }

    fn decide(learners: &[Learner]) -> Option<NodeId> {
        learner_to_promote(&Situation {
            changing: false,
            learners,
        })
    }

    #[test]
    fn a_learner_that_caught_up_is_promoted() {
        assert_eq!(decide(&[learner(4, 1_000)]), Some(NodeId(4)));
    }

    #[test]
    fn nobody_is_promoted_while_the_membership_changes() {
        let situation = Situation {
            changing: true,
            learners: &[learner(4, 10)],
        };
        assert_eq!(learner_to_promote(&situation), None);
    }

    #[test]
    fn a_learner_that_shall_stay_one_is_never_promoted() {
        let follower_for_ever = Learner {
            promote: false,
            ..learner(4, 10)
        };
        assert_eq!(decide(&[follower_for_ever]), None);
    }

    #[test]
    fn a_learner_that_is_behind_or_silent_is_passed_over() {
        let behind = Learner {
            caught_up: false,
            ..learner(4, 10)
        };
        assert_eq!(decide(&[behind]), None);
        assert_eq!(decide(&[behind, learner(5, 9)]), Some(NodeId(5)));
    }

    #[test]
    fn of_several_the_furthest_goes_first_and_the_lowest_id_among_equals() {
        assert_eq!(
            decide(&[learner(6, 98), learner(5, 99), learner(4, 97)]),
            Some(NodeId(5))
        );
        assert_eq!(decide(&[learner(6, 99), learner(5, 99)]), Some(NodeId(5)));
    }

    #[test]
    fn nobody_waits_when_there_is_no_learner() {
        assert_eq!(decide(&[]), None);
    }
}
