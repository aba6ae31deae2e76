//! Sessions: never two owners in one epoch, and epochs only rise, whoever leads.
//!
//! What an owner does in its epoch counts only while the session is in it.

use std::collections::BTreeMap;

use quorate_core::raft::{Index, NodeId};
use quorate_core::state::{Epoch, Reply, SessionCommand, SessionId, StateMachine};

use super::{Verdict, demand};

const CHECKER: &str = "a session has one owner in an epoch, and epochs rise";

/// The sessions as the log has them.
#[derive(Debug, Default)]
pub(in crate::consensus) struct Sessions {
    /// The last entry that was looked at; every node applies each.
    seen: Index,
    /// The last epoch of every id that was ever used, with its owner and the entry since which it is known.
    epochs: BTreeMap<SessionId, (Epoch, NodeId, Index)>,
}

impl Sessions {
    /// Whether no node has applied this entry before.
    pub(in crate::consensus) fn is_new(&self, index: Index) -> bool {
        index > self.seen
    }

    /// What was applied at `index` and after it is lost with a lineage: its epochs may come again.
    pub(in crate::consensus) fn lost_from(&mut self, index: Index) {
        self.seen = self.seen.min(index.previous());
        self.epochs.retain(|_, (_, _, since)| *since < index);
    }

    /// A node was the first to apply a command; its state after it is `machine`.
    pub(in crate::consensus) fn applied(
        &mut self,
        index: Index,
        command: &SessionCommand,
        reply: &Reply,
        machine: &StateMachine,
    ) -> Verdict {
        self.seen = index;
        if let SessionCommand::Touch {
            session,
            epoch: Some(epoch),
            ..
        } = command
            && let (Reply::Session(_), Some((current, owner, _))) = (reply, self.epochs.get(session))
        {
            demand(epoch == current, CHECKER, || {
                format!(
                    "session {session} of {owner} is in epoch {current}, and was touched in {epoch} at {index}"
                )
            })?;
        }
        for session in machine.sessions_after(None) {
            let (epoch, owner) = (session.epoch, session.owner);
            let before = self.epochs.get(&session.id).copied();
            let Some((last, last_owner, _)) = before else {
                self.epochs.insert(session.id, (epoch, owner, index));
                continue;
            };
            demand(epoch >= last, CHECKER, || {
                format!(
                    "session {} is in epoch {epoch} at {index} and was in {last}",
                    session.id
                )
            })?;
            demand(epoch > last || owner == last_owner, CHECKER, || {
                format!(
                    "session {} is {owner}'s at {index} and was {last_owner}'s in epoch {epoch}",
                    session.id
                )
            })?;
            if epoch > last {
                self.epochs.insert(session.id, (epoch, owner, index));
            }
        }
        Ok(())
    }
}
