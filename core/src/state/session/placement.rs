//! Where sessions go: what is known of the nodes, and the choice among them.
//!
//! The load of a node is its sessions divided by its capacity. A new session goes to the least loaded node that takes
//! any and has room. A move takes a session from a node that must give it away, or from the most loaded one to the least
//! loaded one when that leaves the two closer together.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use crate::raft::NodeId;

/// How many sessions a node may have of which nothing else was said.
pub const CAPACITY_DEFAULT: u32 = 1000;

/// What the placement knows of a node. Its encoding is part of the format of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// How many sessions it may have.
    pub capacity: u32,
    /// Whether it is there.
    pub presence: Presence,
    /// Whether it is to give its sessions away.
    pub drain: Drain,
}

/// Whether a node is there, as the leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Presence {
    /// It is.
    Present,
    /// The leader has heard nothing of it for longer than a node may be silent.
    Silent,
    /// It is no voter of the cluster that holds data.
    Removed,
}

/// Whether a node is to give its sessions away, and to take no new ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Drain {
    /// It is not.
    No,
    /// It is, as far as others have room.
    Yes,
    /// It is, even if others get more than they should have.
    Forced,
}

/// A node with what it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeLoad {
    /// The node.
    pub node: NodeId,
    /// What is known of it.
    pub place: Place,
    /// How many sessions it has.
    pub sessions: u64,
}

impl Default for Place {
    /// A node that nobody has seen yet.
    fn default() -> Place {
        Place {
            capacity: CAPACITY_DEFAULT,
            presence: Presence::Removed,
            drain: Drain::No,
        }
    }
}

impl NodeLoad {
    /// Whether it takes sessions at all.
    pub fn is_open(&self) -> bool {
        self.place.presence == Presence::Present && self.place.drain == Drain::No && self.place.capacity > 0
    }

    fn has_room(&self) -> bool {
        self.sessions < u64::from(self.place.capacity)
    }

    /// The order of loads, and of sessions and ids among equals. A node without capacity is fuller than any other.
    fn compare_load(&self, other: &NodeLoad) -> Ordering {
        compare(
            (self.sessions, self.place.capacity),
            (other.sessions, other.place.capacity),
        )
        .then(self.sessions.cmp(&other.sessions))
        .then(self.node.cmp(&other.node))
    }
}

/// Compares two loads without rounding.
fn compare(one: (u64, u32), other: (u64, u32)) -> Ordering {
    let scaled = |sessions: u64, capacity: u32| u128::from(sessions) * u128::from(capacity);
    scaled(one.0, other.1).cmp(&scaled(other.0, one.1))
}

/// The node that the next session goes to.
pub(super) fn choose(nodes: impl Iterator<Item = NodeLoad>, beyond_capacity: bool) -> Option<NodeId> {
    nodes
        .filter(|node| node.is_open() && (beyond_capacity || node.has_room()))
        .min_by(NodeLoad::compare_load)
        .map(|node| node.node)
}

/// The next move that is due, from one node to another.
pub(super) fn next_move(nodes: &[NodeLoad], rebalancing: bool) -> Option<(NodeId, NodeId)> {
    let giving = nodes.iter().filter(|node| node.sessions > 0);
    for node in giving {
        let beyond_capacity = match (node.place.presence, node.place.drain) {
            (Presence::Silent | Presence::Removed, _) | (_, Drain::Yes) => false,
            (Presence::Present, Drain::Forced) => true,
            (Presence::Present, Drain::No) => continue,
        };
        let to = choose(nodes.iter().copied(), beyond_capacity);
        if let Some(to) = to {
            return Some((node.node, to));
        }
    }
    if rebalancing { next_leveling(nodes) } else { None }
}

/// The next move that leaves two nodes closer together. It never makes the one as full as the other was, so leveling comes
/// to an end.
fn next_leveling(nodes: &[NodeLoad]) -> Option<(NodeId, NodeId)> {
    let open = || nodes.iter().filter(|node| node.is_open());
    let from = open().max_by(|one, other| one.compare_load(other))?;
    let to = open()
        .filter(|node| node.has_room())
        .min_by(|one, other| one.compare_load(other))?;
    let after = (to.sessions + 1, to.place.capacity);
    let levels = compare(after, (from.sessions, from.place.capacity)).is_lt();
    levels.then_some((from.node, to.node))
}

/// How many moves are due, at most `most` of them counted.
pub(super) fn count_moves(mut nodes: Vec<NodeLoad>, rebalancing: bool, most: u64) -> u64 {
    let mut moves = 0;
    while moves < most
        && let Some((from, to)) = next_move(&nodes, rebalancing)
    {
        moves += 1;
        for node in &mut nodes {
            node.sessions = node.sessions + u64::from(node.node == to) - u64::from(node.node == from);
        }
    }
    moves
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u64, sessions: u64, capacity: u32) -> NodeLoad {
        let place = Place {
            capacity,
            presence: Presence::Present,
            drain: Drain::No,
        };
        NodeLoad {
            node: NodeId(id),
            place,
            sessions,
        }
    }

    fn silent(id: u64, sessions: u64) -> NodeLoad {
        let mut node = node(id, sessions, 10);
        node.place.presence = Presence::Silent;
        node
    }

    fn drained(id: u64, sessions: u64, drain: Drain) -> NodeLoad {
        let mut node = node(id, sessions, 10);
        node.place.drain = drain;
        node
    }

    fn chosen(nodes: &[NodeLoad]) -> Option<u64> {
        choose(nodes.iter().copied(), false).map(|node| node.0)
    }

    #[test]
    fn a_session_goes_where_the_smallest_part_of_the_capacity_is_taken() {
        assert_eq!(
            chosen(&[node(1, 4, 10), node(2, 30, 100), node(3, 5, 10)]),
            Some(2)
        );
        assert_eq!(
            chosen(&[node(1, 1, 10), node(2, 10, 100)]),
            Some(1),
            "the one with fewer among equals"
        );
        assert_eq!(
            chosen(&[node(2, 1, 10), node(1, 1, 10)]),
            Some(1),
            "the lower id then"
        );
    }

    #[test]
    fn full_silent_and_drained_nodes_get_nothing() {
        let closed = [
            node(1, 10, 10),
            node(2, 0, 0),
            silent(3, 0),
            drained(4, 0, Drain::Yes),
        ];
        assert_eq!(chosen(&closed), None);
        assert_eq!(
            choose(closed.into_iter(), true),
            Some(NodeId(1)),
            "one that is full may get more, the others nothing"
        );
    }

    #[test]
    fn what_must_go_goes_before_anything_is_leveled() {
        let nodes = [node(1, 9, 10), silent(2, 1), node(3, 0, 10)];
        assert_eq!(next_move(&nodes, true), Some((NodeId(2), NodeId(3))));
        assert_eq!(next_move(&nodes[..2], true), Some((NodeId(2), NodeId(1))));
    }

    #[test]
    fn sessions_without_a_place_elsewhere_stay_unless_that_is_forced() {
        let full = node(1, 10, 10);
        assert_eq!(next_move(&[full, silent(2, 3)], false), None);
        assert_eq!(next_move(&[full, drained(2, 3, Drain::Yes)], false), None);
        assert_eq!(
            next_move(&[full, drained(2, 3, Drain::Forced)], false),
            Some((NodeId(2), NodeId(1)))
        );
    }

    #[test]
    fn leveling_comes_to_an_end_with_loads_as_close_as_they_can_be() {
        let nodes = vec![node(1, 60, 100), node(2, 0, 100), node(3, 0, 50)];
        assert_eq!(count_moves(nodes, true, u64::MAX), 36);
        let level = vec![node(1, 5, 10), node(2, 4, 10)];
        assert_eq!(count_moves(level, true, u64::MAX), 0);
        assert_eq!(
            next_move(&[node(1, 6, 10), node(2, 0, 10)], false),
            None,
            "when nobody wants it"
        );
    }
}
