//! Sessions: units of work, each placed on one node of the cluster.
//!
//! A session has an id, an owner, an epoch and a payload that goes with it from owner to owner. The epoch is a fencing
//! token: it is the revision of the change that gave the session to its owner, so it rises with every move, and with
//! every new session of an id that was used before. Whatever the owner's application does elsewhere, it does in the name
//! of the epoch, and whoever has seen a higher one refuses it (Kleppmann, "How to do distributed locking", 2016).
//!
//! Where a session goes is decided here, while the command is applied, and not by the leader: the state knows at that
//! very entry how many sessions each node has and may have, so two sessions never take the same last free place, a
//! choice is never out of date, and it is the same on every node. The leader decides only what the state cannot know:
//! which nodes are there ([`duties::Placement`](crate::duties::Placement)). What it decides counts in its own term only.
//!
//! Sessions are kept as keys of a space of their own ([`Space`](super::Space)): they have revisions, history and watches as
//! keys have.
//!
//! Invariants: a session has one owner; it has another one, or a new one of its id exists, only under a higher epoch; every
//! owner has a place; a step moves a session once at the most.

mod command;
mod placement;
mod read;
mod table;

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use self::command::{SessionCommand, SessionRefusal, SessionReply};
pub use self::placement::{CAPACITY_DEFAULT, Drain, NodeLoad, Place, Presence};
pub(super) use self::table::{SessionTable, SessionWriter};
use super::{Event, KeyValue, Revision};
use crate::raft::NodeId;
use crate::wire::{self, DecodeError, Kind};

/// How many sessions there may be at once.
pub const SESSIONS_MAX: usize = 1 << 20;
/// How many bytes the id of a session may have.
pub const SESSION_ID_BYTES_MAX: usize = 128;
/// How many sessions one step moves: so few that no command takes long.
pub const MOVED_AT_ONCE: usize = 100;

/// Names a session: 1 to [`SESSION_ID_BYTES_MAX`] letters and digits of ASCII and `-`, `_`, `.`, `:`. It may be used again
/// when the session is gone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SessionId(Bytes);

impl SessionId {
    /// The id of this text; none when it is not one.
    pub fn new(text: &str) -> Option<SessionId> {
        let is_allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte);
        let fits = (1..=SESSION_ID_BYTES_MAX).contains(&text.len());
        // What is a step in the path of an address would not reach its handler.
        (fits && text.bytes().all(|byte| is_allowed(&byte)) && !matches!(text, "." | ".."))
            .then(|| SessionId(Bytes::copy_from_slice(text.as_bytes())))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("the id of a session is text")
    }

    fn key(&self) -> &Bytes {
        &self.0
    }

    fn of_key(key: &Bytes) -> Option<SessionId> {
        SessionId::new(std::str::from_utf8(key).ok()?)
    }
}

impl TryFrom<String> for SessionId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<SessionId, &'static str> {
        SessionId::new(&text).ok_or("the text is no id of a session")
    }
}

impl From<SessionId> for String {
    fn from(id: SessionId) -> String {
        id.as_str().to_owned()
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A fencing token: the revision at which a session was given to its owner. It rises with each move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch(pub Revision);

impl fmt::Display for Epoch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Whether the owner of a session has taken it up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionStatus {
    /// It was given to its owner, which has not said in this epoch that it serves it.
    Placed,
    /// Its owner serves it.
    Active,
}

/// A session as a reader sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// The node that serves it.
    pub owner: NodeId,
    /// The fencing token of that owner.
    pub epoch: Epoch,
    /// Whether the owner has taken it up.
    pub status: SessionStatus,
    /// Whose session it is, as its maker says.
    pub client: String,
    /// What goes with it from owner to owner.
    pub payload: Bytes,
    /// When it was made, in milliseconds since 1970 by the clock of the node that was asked.
    pub created_ms: u64,
    /// When it was last made or touched, as told by the node that was asked.
    pub active_ms: u64,
    /// The change that made it.
    pub create_revision: Revision,
    /// Its latest change.
    pub mod_revision: Revision,
}

/// What a session is beside its id: the value of its key. Its encoding is part of the format of rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    owner: NodeId,
    epoch: Epoch,
    status: SessionStatus,
    client: String,
    payload: Bytes,
    created_ms: u64,
    active_ms: u64,
}

impl Record {
    fn encode(&self) -> Bytes {
        wire::encode(Kind::Row, self).into()
    }

    fn decode(value: &[u8]) -> Result<Record, DecodeError> {
        wire::decode(Kind::Row, value)
    }
}

impl Session {
    /// The session that a pair of [`Space::Sessions`](super::Space::Sessions) holds; none when it holds no session.
    pub fn of_pair(pair: &KeyValue) -> Option<Session> {
        let record = Record::decode(&pair.value).ok()?;
        Some(Session {
            id: SessionId::of_key(&pair.key)?,
            owner: record.owner,
            epoch: record.epoch,
            status: record.status,
            client: record.client,
            payload: record.payload,
            created_ms: record.created_ms,
            active_ms: record.active_ms,
            create_revision: pair.create_revision,
            mod_revision: pair.mod_revision,
        })
    }
}

/// What a change of a session means for those who watch one owner, or all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionEvent {
    /// The session is the owner's from now on.
    Given(Session),
    /// The session stays with its owner, in the same epoch, and something else of it is new.
    Updated(Session),
    /// The session was the owner's until now: it is another one's, or gone.
    Lost {
        /// What it was.
        before: Session,
        /// What it is, if it is not gone.
        now: Option<Session>,
    },
}

impl SessionEvent {
    /// What an event of [`Space::Sessions`](super::Space::Sessions) means for `node`, or for whoever watches all owners:
    /// in the eyes of these a session that moves is given, and lost when it is gone.
    pub fn of(event: &Event, node: Option<NodeId>) -> Option<SessionEvent> {
        let session = |pair: &Option<KeyValue>| Session::of_pair(pair.as_ref()?);
        let (before, now) = (session(&event.previous), session(&event.current));
        let concerns = |session: &Session| node.is_none_or(|node| session.owner == node);
        let was_there = before.as_ref().is_some_and(concerns);
        let is_there = now.as_ref().is_some_and(concerns);
        match (before, now) {
            (Some(before), Some(now)) if is_there && before.epoch == now.epoch => {
                Some(SessionEvent::Updated(now))
            }
            (_, Some(now)) if is_there => Some(SessionEvent::Given(now)),
            (Some(before), now) if was_there => Some(SessionEvent::Lost { before, now }),
            _ => None,
        }
    }
}
