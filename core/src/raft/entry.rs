//! Entries of the log, and what a node must remember beside them.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Membership, NodeId, Position, Term};

/// One entry of the replicated log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Where the entry stands and who created it.
    pub position: Position,
    /// What it says.
    pub payload: Payload,
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Payload {
    /// Nothing: the entry with which a leader opens its term, so that it can commit what came before
    /// (Raft paper, section 5.4.2).
    Empty,
    /// A command for the state machine, opaque to consensus.
    Command(Bytes),
    /// A membership. It is in force from the moment at which it is in a node's log, committed or not
    /// (Raft dissertation, section 4.1).
    Membership(Box<Membership>),
    /// A command that a witness does without.
    Omitted,
}

impl Entry {
    /// What the entry costs in memory and on the wire, in bytes; a close estimate that bounds queues.
    pub fn size(&self) -> u64 {
        const OVERHEAD: u64 = 32;
        OVERHEAD
            + match &self.payload {
                Payload::Empty | Payload::Omitted => 0,
                Payload::Command(command) => command.len() as u64,
                Payload::Membership(membership) => 128 * membership.members().len() as u64,
            }
    }
}

/// What a node must never forget, besides its entries (Raft paper, figure 2, "persistent state").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HardState {
    /// The latest term that this node has seen.
    pub term: Term,
    /// Whom this node voted for in that term.
    pub vote: Option<NodeId>,
}

/// Where a log begins: the last entry that is no longer in it, and the membership in force at that entry.
///
/// The state up to and including `position` lives in the state store or in a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// The last entry that was purged or is covered by a snapshot.
    pub position: Position,
    /// The membership in force at `position`.
    pub membership: Membership,
}
