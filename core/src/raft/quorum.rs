//! Majorities, in one set of voters and in both sets of a joint phase.
//!
//! Invariant: an index counts as agreed only when a majority of every set has reached it, and a vote is won only
//! with a majority of every set (Raft dissertation, section 4.3). A node outside the sets never counts, the leader
//! itself included.

use std::collections::{BTreeMap, BTreeSet};

use super::{Membership, NodeId};

/// Where an election stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tally {
    Pending,
    Won,
    Lost,
}

/// The greatest value that a majority has reached; the least over both sets of a joint phase.
///
/// `reached` gives the value of a voter, its least when nothing is known.
pub(super) fn reached_by_majority<T: Ord + Copy + Default>(
    membership: &Membership,
    reached: impl Fn(NodeId) -> T,
) -> T {
    let incoming = reached_in(membership.voters(), &reached);
    if membership.is_joint() {
        incoming.min(reached_in(membership.outgoing(), &reached))
    } else {
        incoming
    }
}

/// Voters up to which a majority is found without an allocation: this runs for every answer of a follower.
const FEW_VOTERS: usize = 9;

fn reached_in<T: Ord + Copy + Default>(voters: &BTreeSet<NodeId>, reached: &impl Fn(NodeId) -> T) -> T {
    assert!(!voters.is_empty(), "a membership has at least one voter");
    let (mut few, mut many);
    let values: &mut [T] = if voters.len() <= FEW_VOTERS {
        few = [T::default(); FEW_VOTERS];
        for (value, id) in few.iter_mut().zip(voters) {
            *value = reached(*id);
        }
        &mut few[..voters.len()]
    } else {
        many = voters.iter().map(|id| reached(*id)).collect::<Vec<T>>();
        &mut many
    };
    values.sort_unstable();
    // With n values in ascending order, the one at (n - 1) / 2 has n - (n - 1) / 2 values at or above it: a majority.
    values[(values.len() - 1) / 2]
}

/// Counts votes.
pub(super) fn tally(membership: &Membership, votes: &BTreeMap<NodeId, bool>) -> Tally {
    let incoming = tally_in(membership.voters(), votes);
    if !membership.is_joint() {
        return incoming;
    }
    match (incoming, tally_in(membership.outgoing(), votes)) {
        (Tally::Won, Tally::Won) => Tally::Won,
        (Tally::Lost, _) | (_, Tally::Lost) => Tally::Lost,
        _ => Tally::Pending,
    }
}

fn tally_in(voters: &BTreeSet<NodeId>, votes: &BTreeMap<NodeId, bool>) -> Tally {
    let majority = voters.len() / 2 + 1;
    let granted = voters.iter().filter(|id| votes.get(id) == Some(&true)).count();
    let refused = voters.iter().filter(|id| votes.get(id) == Some(&false)).count();
    if granted >= majority {
        Tally::Won
    } else if voters.len() - refused < majority {
        Tally::Lost
    } else {
        Tally::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Change, DirectoryId, Lineage, Member};
    use super::*;

    fn member(name: u64) -> Member {
        Member::named(name.to_string(), DirectoryId(u128::from(name)))
    }

    fn voters(ids: &[u64]) -> Membership {
        Membership::bootstrap(
            Lineage(1),
            ids.iter().map(|id| (NodeId(*id), member(*id))).collect(),
        )
    }

    /// Counts directly: the greatest candidate that at least a majority has reached.
    fn brute_force(set: &BTreeSet<NodeId>, values: &BTreeMap<NodeId, u64>) -> u64 {
        let reached = |bound: u64| set.iter().filter(|id| values[id] >= bound).count();
        (0..=20)
            .rev()
            .find(|bound| reached(*bound) > set.len() / 2)
            .unwrap_or(0)
    }

    #[test]
    fn the_majority_index_equals_a_direct_count_for_every_small_cluster() {
        for size in 1..=5u64 {
            let ids: Vec<u64> = (1..=size).collect();
            let membership = voters(&ids);
            for code in 0..4u64.pow(u32::try_from(size).unwrap()) {
                let values: BTreeMap<NodeId, u64> = (0..size)
                    .map(|place| (NodeId(place + 1), code / 4u64.pow(place as u32) % 4))
                    .collect();
                let found = reached_by_majority(&membership, |id| values[&id]);
                assert_eq!(found, brute_force(membership.voters(), &values), "{values:?}");
            }
        }
    }

    #[test]
    fn the_majority_of_many_voters_is_that_of_a_direct_count() {
        for size in 6..=12u64 {
            let ids: Vec<u64> = (1..=size).collect();
            let values: BTreeMap<NodeId, u64> = ids.iter().map(|id| (NodeId(*id), id * 7 % 13)).collect();
            let membership = voters(&ids);
            let found = reached_by_majority(&membership, |id| values[&id]);
            assert_eq!(found, brute_force(membership.voters(), &values), "{values:?}");
        }
    }

    #[test]
    fn the_joint_majority_index_equals_a_direct_count() {
        let joint = voters(&[1, 2, 3])
            .changed(&[
                Change::AddLearner(member(4)),
                Change::AddLearner(member(5)),
                Change::Promote(NodeId(4)),
                Change::Promote(NodeId(5)),
                Change::Remove(NodeId(1)),
            ])
            .unwrap();
        for code in 0..4u64.pow(5) {
            let values: BTreeMap<NodeId, u64> = (0..5)
                .map(|place| (NodeId(place + 1), code / 4u64.pow(place as u32) % 4))
                .collect();
            let found = reached_by_majority(&joint, |id| values[&id]);
            let direct = brute_force(joint.voters(), &values).min(brute_force(joint.outgoing(), &values));
            assert_eq!(found, direct, "{values:?}");
        }
    }

    #[test]
    fn a_joint_membership_needs_both_majorities() {
        let joint = voters(&[1, 2, 3])
            .changed(&[
                Change::AddLearner(member(4)),
                Change::Promote(NodeId(4)),
                Change::Remove(NodeId(1)),
            ])
            .unwrap();
        assert!(joint.is_joint());
        let values = BTreeMap::from([(1, 9), (2, 1), (3, 5), (4, 9)].map(|(id, value)| (NodeId(id), value)));
        assert_eq!(reached_by_majority(&joint, |id| values[&id]), 5);
        let votes = |granted: &[u64]| {
            granted
                .iter()
                .map(|id| (NodeId(*id), true))
                .collect::<BTreeMap<_, _>>()
        };
        assert_eq!(
            tally(&joint, &votes(&[1, 2])),
            Tally::Pending,
            "only the outgoing half has a majority"
        );
        assert_eq!(
            tally(&joint, &votes(&[3, 4])),
            Tally::Pending,
            "only the incoming half has a majority"
        );
        assert_eq!(tally(&joint, &votes(&[2, 3])), Tally::Won);
        let refused = BTreeMap::from([(NodeId(2), false), (NodeId(4), false)]);
        assert_eq!(tally(&joint, &refused), Tally::Lost);
    }

    #[test]
    fn votes_of_strangers_do_not_count() {
        let votes = BTreeMap::from([(NodeId(1), true), (NodeId(8), true), (NodeId(9), true)]);
        assert_eq!(tally(&voters(&[1, 2, 3]), &votes), Tally::Pending);
    }
}
