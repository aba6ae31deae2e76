//! Rot: the end of a log is not readable any more when its node starts, acknowledged or not.
//!
//! Storage notices damage and learns the term and vote that the node had, and in most cases where its log ended; the
//! node starts with what is readable and is repaired by its peers. Rot strikes a minority at a time: what a majority
//! has lost nobody can repair.

use quorate_core::raft::{Index, NodeId};

use super::world::World;
use crate::random::{Concern, PartsPerMillion, Stream};

/// How often logs rot in a run.
#[derive(Debug)]
pub(super) struct Rot {
    random: Stream,
    at_a_start: PartsPerMillion,
}

impl Rot {
    pub(super) fn new(seed: u64) -> Rot {
        let mut random = Stream::new(seed, Concern::Rot);
        let at_a_start = *random.pick(&[0, 0, 100_000, 500_000]);
        Rot { random, at_a_start }
    }
}

impl World {
    /// Whether the log of any member is to be repaired: nobody changes the members then, or loses another disk.
    pub(super) fn is_repairing(&self) -> bool {
        self.nodes
            .iter()
            .any(|node| !node.gone && node.disk.durable.repairing().is_some())
    }

    /// Now and then the log of a node that is about to start has lost its end.
    pub(super) fn rot(&mut self, id: NodeId) {
        let chance = self.rot.at_a_start;
        if self.recovery.is_some() || !self.rot.random.chance(chance) || !self.can_rot(id) {
            return;
        }
        let random = &mut self.rot.random;
        let Some(node) = self.nodes.get_mut(id) else {
            return;
        };
        let log = &node.disk.durable;
        let (base, last) = (log.base.position.index, log.last().index);
        if base == last {
            return;
        }
        let from = Index(random.between(base.0 + 1, last.0));
        let end_is_known = random.chance(700_000);
        node.disk.rot(from, end_is_known, node.store.applied);
        self.statistics.rotten += 1;
        let until = self.nodes.get(id).and_then(|node| node.disk.durable.repairing());
        self.log(|_| format!("the log of {id} has rotted from {from} on, it is repaired up to {until:?}"));
    }

    /// Whether the others can repair this node's log: all logs agree on who they are, and most of them are whole.
    fn can_rot(&self, id: NodeId) -> bool {
        let membership = &self.membership;
        let voters = membership.voters();
        let whole = |voter: &&NodeId| {
            let node = self.nodes.get(**voter);
            **voter != id && node.is_some_and(|node| !node.gone && node.disk.durable.repairing().is_none())
        };
        let agreed = self.nodes.iter().filter(|node| !node.gone).all(|node| {
            node.disk.durable.membership() == membership && node.disk.written.membership() == membership
        });
        agreed && !membership.is_joint() && voters.iter().filter(whole).count() * 2 > voters.len()
    }
}
