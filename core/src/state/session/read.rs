//! Reading sessions.

use std::ops::Bound;

use super::{NodeLoad, Session, SessionId};
use crate::raft::NodeId;
use crate::state::{Space, StateMachine};

impl StateMachine {
    /// A session, if it exists. Shares the bytes.
    pub fn session(&self, session: &SessionId) -> Option<Session> {
        let pair = self.keys.get(Space::Sessions, session.key())?;
        Session::of_pair(&pair)
    }

    /// The sessions whose ids come after this one, by id. Shares the bytes.
    pub fn sessions_after(&self, session: Option<&SessionId>) -> impl Iterator<Item = Session> {
        let after = session.map(|session| &session.key()[..]);
        let pairs = self.keys.pairs_after(Space::Sessions, after);
        pairs.filter_map(|pair| Session::of_pair(&pair))
    }

    /// The sessions of one owner whose ids come after this one, by id. Shares the bytes.
    pub fn sessions_of(&self, owner: NodeId, session: Option<&SessionId>) -> impl Iterator<Item = Session> {
        let start = session.map_or(Bound::Unbounded, |session| Bound::Excluded(session.key()));
        let owned = self.sessions.owned_from(owner, start);
        let pairs = owned.filter_map(|key| self.keys.get(Space::Sessions, key));
        pairs.filter_map(|pair| Session::of_pair(&pair))
    }

    /// How many sessions there are.
    pub fn session_count(&self) -> usize {
        self.keys.live(Space::Sessions)
    }

    /// The nodes that sessions are placed on, with what they have, by id.
    pub fn session_nodes(&self) -> impl Iterator<Item = NodeLoad> {
        self.sessions.loads()
    }

    /// How many moves are due, as far as they are counted.
    pub fn session_moves_due(&self) -> u64 {
        self.sessions.moves_due()
    }

    /// Whether a [step](super::SessionCommand::Step) has something to do.
    pub fn wants_session_step(&self) -> bool {
        self.sessions.wants_step()
    }
}
