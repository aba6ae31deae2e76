//! The safety rules of Raft (paper, figure 3), checked behind every step of every script.

use std::collections::BTreeMap;

use quorate_core::raft::{Body, Entry, Index, Lineage, Membership, Message, NodeId, Position, Status, Term};

use super::disk::Disk;
use super::words;

/// What was seen so far, over all nodes and crashes.
#[derive(Default)]
pub(super) struct Checks {
    leaders: BTreeMap<(Lineage, Term), NodeId>,
    applied: BTreeMap<(Lineage, Index), Entry>,
    votes: BTreeMap<(NodeId, Term), NodeId>,
}

/// What a step must not take back.
pub(super) struct Before {
    term: Term,
    vote: Option<NodeId>,
    commit: Index,
    membership: Membership,
}

impl Before {
    pub(super) fn of(status: &Status<'_>) -> Before {
        Before {
            term: status.term,
            vote: status.vote,
            commit: status.commit,
            membership: status.membership.clone(),
        }
    }
}

impl Checks {
    /// Election safety: at most one leader in a term of a lineage.
    pub(super) fn elected(&mut self, lineage: Lineage, leader: NodeId, term: Term, disk: &Disk) {
        assert!(!disk.witness, "{} leads, a witness", words::node(leader));
        let first = *self.leaders.entry((lineage, term)).or_insert(leader);
        assert_eq!(first, leader, "two leaders in term {term}");
    }

    /// State machine safety: no two nodes of a lineage apply different entries at one index.
    pub(super) fn applied(&mut self, lineage: Lineage, node: NodeId, entry: &Entry) {
        let first = self
            .applied
            .entry((lineage, entry.position.index))
            .or_insert_with(|| entry.clone());
        assert_eq!(
            first,
            entry,
            "{} applies another entry than others did",
            words::node(node)
        );
    }

    /// A promise leaves only when the disk keeps it.
    pub(super) fn promised(&mut self, from: NodeId, to: NodeId, message: &Message, disk: &Disk) {
        let name = words::node(from);
        match message.body {
            Body::VoteResponse { granted: true } => {
                let kept = disk.hard_state;
                assert!(
                    kept.term > message.term || (kept.term == message.term && kept.vote == Some(to)),
                    "{name} gives its vote in term {} away before its disk keeps it",
                    message.term
                );
                let first = *self.votes.entry((from, message.term)).or_insert(to);
                assert_eq!(first, to, "{name} votes twice in term {}", message.term);
            }
            Body::VoteRequest { last, .. } => assert!(
                disk.hard_state.term > message.term
                    || (disk.hard_state.term == message.term
                        && disk.hard_state.vote == Some(from)
                        && disk.last() >= last),
                "{name} asks for votes in term {} before its disk keeps its own, and its log",
                message.term
            ),
            Body::AppendAccepted { matched } if disk.hard_state.term == message.term => assert!(
                disk.last().index >= matched,
                "{name} accepts entries up to {matched} that its disk does not hold"
            ),
            _ => {}
        }
    }

    /// Terms, votes and commits only go forward, and a leader commits only what a majority of disks holds.
    pub(super) fn stepped(
        &self,
        before: &Before,
        after: &Status<'_>,
        position: Position,
        disks: &BTreeMap<NodeId, Disk>,
    ) {
        let name = words::node(after.id);
        assert!(after.term >= before.term, "the term of {name} went down");
        assert!(after.commit >= before.commit, "the commit of {name} went down");
        if after.term == before.term && before.vote.is_some() {
            assert_eq!(after.vote, before.vote, "{name} changed its vote in a term");
        }
        let leads = after.leader == Some(after.id);
        if !leads || after.commit == before.commit || *after.membership != before.membership {
            return;
        }
        assert_eq!(
            position.term, after.term,
            "{name} commits {position} by counting, in term {}",
            after.term
        );
        for half in [after.membership.voters(), after.membership.outgoing()] {
            let holders = half
                .iter()
                .filter(|id| disks.get(id).is_some_and(|disk| disk.holds(position)))
                .count();
            assert!(
                half.is_empty() || holders > half.len() / 2,
                "{name} commits {position}, which {holders} of {} disks hold",
                half.len()
            );
            let mut with_data = half
                .iter()
                .filter_map(|id| disks.get(id))
                .filter(|disk| !disk.witness);
            assert!(
                half.is_empty() || with_data.any(|disk| disk.holds(position)),
                "{name} commits {position}, which only witnesses hold"
            );
        }
    }
}
