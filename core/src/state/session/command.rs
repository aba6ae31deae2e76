//! What is asked about sessions, and the answers.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Drain, Epoch, Presence, Session, SessionId};
use crate::raft::{NodeId, Term};
use crate::state::Revision;

/// A change of sessions or of where they may go.
///
/// The order of the variants is part of the format: new ones go to the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionCommand {
    /// Make a session; it goes to the node that has the most room for its capacity.
    Create {
        /// Its id; none to get one that is free.
        session: Option<SessionId>,
        /// Whose it is.
        client: String,
        /// What goes with it.
        payload: Bytes,
        /// The time at the node that was asked, in milliseconds since 1970.
        now_ms: u64,
    },
    /// Say that a session is in use. An owner names its epoch, and so says that it serves the session.
    Touch {
        /// The session.
        session: SessionId,
        /// It counts in this epoch only; none for whatever the epoch is.
        epoch: Option<Epoch>,
        /// What goes with it from now on; none to leave that.
        payload: Option<Bytes>,
        /// The time at the node that was asked, in milliseconds since 1970.
        now_ms: u64,
    },
    /// End a session.
    Delete {
        /// The session.
        session: SessionId,
        /// It counts in this epoch only; none for whatever the epoch is.
        epoch: Option<Epoch>,
    },
    /// Say how many sessions a node may have. Those that it has stay.
    SetCapacity {
        /// The node.
        node: NodeId,
        /// How many.
        capacity: u32,
    },
    /// Say whether a node is to give its sessions away, a step at a time, and to take no new ones.
    Drain {
        /// The node.
        node: NodeId,
        /// Whether, and how.
        drain: Drain,
    },
    /// Have sessions moved, a step at a time, until no move leaves the nodes closer together.
    Rebalance,
    /// The leader says which nodes are there. It counts in its own term only.
    Sight {
        /// The term of that leader.
        term: Term,
        /// What is new.
        nodes: Vec<(NodeId, Presence)>,
    },
    /// The leader has a step of moves made: first from nodes that are not there, then from those that are drained, then
    /// for balance. It counts in its own term only.
    Step {
        /// The term of that leader.
        term: Term,
    },
}

impl SessionCommand {
    /// What was asked, whenever that was.
    pub(in crate::state) fn without_time(&self) -> SessionCommand {
        let mut timeless = self.clone();
        match &mut timeless {
            SessionCommand::Create { now_ms, .. } | SessionCommand::Touch { now_ms, .. } => *now_ms = 0,
            SessionCommand::Delete { .. }
            | SessionCommand::SetCapacity { .. }
            | SessionCommand::Drain { .. }
            | SessionCommand::Rebalance
            | SessionCommand::Sight { .. }
            | SessionCommand::Step { .. } => {}
        }
        timeless
    }
}

/// What the client of a command about sessions hears.
///
/// The order of the variants is part of the format: new ones go to the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionReply {
    /// The session is made, or touched. Its payload is left out.
    Session(Session),
    /// The session is gone.
    Deleted {
        /// The revision of this change.
        revision: Revision,
    },
    /// The placement has changed.
    Placement {
        /// The revision after it.
        revision: Revision,
        /// How many sessions have moved.
        moved: u64,
        /// How many moves are due, as far as others have room.
        due: u64,
    },
}

/// Why a command about sessions changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum SessionRefusal {
    /// There is no such session.
    #[error("there is no such session")]
    NoSuchSession,
    /// A session of this id exists.
    #[error("there is a session of this id already")]
    SessionExists,
    /// The session is in another epoch: it was given to another owner since, or never was in the one that was named.
    #[error("the session is in epoch {current}, not in the one that was named")]
    StaleEpoch {
        /// The epoch that it is in.
        current: Epoch,
    },
    /// No node takes another session.
    #[error("no node has room for another session")]
    NoRoom,
    /// There are as many sessions as there may be.
    #[error(
        "there are {} sessions, which is as many as there may be",
        super::SESSIONS_MAX
    )]
    TooManySessions,
}
