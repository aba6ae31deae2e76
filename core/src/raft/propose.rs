//! Commands of this node's clients: taken into the log, and answered.
//!
//! Invariants: nothing is taken in by who does not lead or is handing over, nor beyond what may be uncommitted; every
//! command that is taken in is answered once, with what applying it said or with [`Outcome::Unknown`].

use bytes::Bytes;

use super::role::Owed;
use super::{Entry, Outcome, Payload, PlantedBug, Position, Raft, Token};

impl Raft {
    pub(super) fn propose(&mut self, token: Token, command: Bytes) {
        let Some(leader) = self.leading() else {
            self.answer(
                token,
                Outcome::NotLeader {
                    leader: self.leader(),
                },
            );
            return;
        };
        if leader.transfer.is_some() {
            // The next leader is about to be known; nothing was appended, so the client may simply try again.
            self.answer(token, Outcome::NotLeader { leader: None });
            return;
        }
        let uncommitted = if self.planted(PlantedBug::UncommittedBytesLeak) {
            self.log.tail().bytes()
        } else {
            self.log.tail().unsettled_bytes()
        };
        if uncommitted > self.config.uncommitted_bytes_max || self.cursor.is_full(&self.config) {
            self.answer(token, Outcome::Busy);
            return;
        }
        let position = self.append_own(Payload::Command(command));
        self.owed.push_back(Owed { position, token });
    }

    /// Appends an entry of this leader's term.
    pub(super) fn append_own(&mut self, payload: Payload) -> Position {
        let position = Position {
            term: self.hard_state.term,
            index: self.log.last().index.next(),
        };
        self.log.append(Entry { position, payload });
        position
    }

    /// Gives up the replies owed for the entries that `lost` names: their fate is not known here.
    pub(super) fn give_up_owed(&mut self, lost: impl Fn(Position) -> bool) {
        let outcome = &mut self.output.outcome;
        self.owed.retain(|owed| {
            let lost = lost(owed.position);
            if lost {
                outcome.push((owed.token, Outcome::Unknown));
            }
            !lost
        });
    }

    pub(super) fn expire_owed(&mut self) {
        if self.owed_until.is_some_and(|until| self.now >= until) {
            self.owed_until = None;
            if !self.planted(PlantedBug::InstallStrandsClients) {
                self.give_up_owed(|_| true);
            }
        }
    }
}
