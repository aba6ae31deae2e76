//! Overlapping quorums: a membership follows a committed one, and the majorities of both have a node in common.
//!
//! Two memberships that are in force at the same time, on different nodes, then cannot decide apart from each other
//! (Raft dissertation, sections 4.1 and 4.3).

use std::collections::BTreeSet;

use quorate_core::raft::{Index, Member, Membership, NodeId, Payload, Status, Write};

use super::{Verdict, demand};
use crate::consensus::log::DiskLog;

/// Entries of its log that a leader may not know a learner to hold when it makes it a voter.
const BEHIND_MAX: u64 = 1024;

/// A leader writes entries of its own after `before`.
pub(in crate::consensus) fn follow_each_other(
    write: &Write,
    before: &DiskLog,
    leader: &Status<'_>,
) -> Verdict {
    let (term, commit) = (leader.term, leader.commit);
    let own = write.entries.iter().filter(|entry| entry.position.term == term);
    let memberships = own.filter_map(|entry| match &entry.payload {
        Payload::Membership(membership) => Some((entry.position, &**membership)),
        Payload::Empty | Payload::Command(_) | Payload::Omitted => None,
    });
    let mut previous = None;
    for (position, next) in memberships {
        let (index, last) = previous.unwrap_or_else(|| before.membership_before(position.index));
        demand(index <= commit, "memberships change one at a time", || {
            format!(
                "the leader of term {term} writes {next:?} at {position}; {last:?} at {index} is not committed"
            )
        })?;
        demand(
            before.term_at(commit) == Some(term),
            "memberships change after the leader's first commit",
            || {
                format!(
                    "the leader of term {term} writes {next:?} at {position}, and has committed up to {commit}"
                )
            },
        )?;
        demand(have_common_quorums(last, next), "quorums overlap", || {
            format!("{next:?} at {position} follows {last:?}")
        })?;
        let behind = next
            .voters()
            .difference(last.voters())
            .find(|id| !has_caught_up(leader, **id, position.index));
        demand(behind.is_none(), "who becomes a voter has caught up", || {
            format!(
                "{behind:?} votes from {position} on; its leader knows {:?}",
                leader.peers
            )
        })?;
        let members = next.members().iter();
        let renamed = members.filter(|(id, member)| **id < last.next_id() && !is_known(last, **id, member));
        let renamed: Vec<_> = renamed.collect();
        demand(renamed.is_empty(), "no id is given twice", || {
            format!("{renamed:?} at {position} are newcomers to {last:?}")
        })?;
        previous = Some((position.index, next));
    }
    Ok(())
}

/// Whether a leader knows that a member holds nearly all of the log before `index`.
fn has_caught_up(leader: &Status<'_>, id: NodeId, index: Index) -> bool {
    let known = leader.peers.iter().find(|peer| peer.id == id);
    known.is_some_and(|peer| peer.matched > Index(0) && peer.matched.0 + BEHIND_MAX + 1 >= index.0)
}

/// Whether the member with this id had the same data directory before.
fn is_known(before: &Membership, id: NodeId, member: &Member) -> bool {
    before
        .members()
        .get(&id)
        .is_some_and(|known| known.directory == member.directory)
}

/// A node's log has changed otherwise than by growing: the last membership that is in it is in force.
pub(in crate::consensus) fn is_in_force(node: NodeId, status: &Status<'_>, written: &DiskLog) -> Verdict {
    let last = written.membership();
    let comparable = status.last == written.last();
    demand(
        !comparable || status.membership == last,
        "the last membership of a log is in force",
        || {
            format!(
                "the log of {node} ends with {last:?}, and in force is {:?}",
                status.membership
            )
        },
    )
}

/// Whether every quorum of one membership has a node in common with every quorum of the other: two of their halves, one
/// of each, are so alike that their majorities always meet.
fn have_common_quorums(one: &Membership, other: &Membership) -> bool {
    let majority = |half: &BTreeSet<NodeId>| half.len() / 2 + 1;
    let halves = |membership: &Membership| {
        let halves = [membership.voters().clone(), membership.outgoing().clone()];
        halves.into_iter().filter(|half| !half.is_empty())
    };
    halves(one)
        .any(|one| halves(other).any(|other| majority(&one) + majority(&other) > one.union(&other).count()))
}
