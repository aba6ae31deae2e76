//! What a driver has to do for the core.
//!
//! Each field is a lane. Lanes may run in parallel with each other; within a lane the order counts.

use super::{
    Base, Entries, Entry, FetchId, HardState, Index, Message, NodeId, Outcome, Term, Token, TraceEvent,
    WriteId,
};

/// Collected by [`Raft::drain`](super::Raft::drain).
#[derive(Clone, Debug, Default)]
pub struct Effects {
    /// Messages to send. A message may be dropped, never reordered on purpose.
    pub send: Vec<(NodeId, Message)>,
    /// Writes to make durable, in order. A driver may make several durable with one sync and acknowledge the last.
    pub write: Vec<Write>,
    /// What to apply to the state machine, in order.
    pub apply: Vec<Apply>,
    /// Older entries that the core needs.
    pub fetch: Vec<Fetch>,
    /// What to do about snapshots and the purging of the log.
    pub snapshot: Vec<SnapshotOp>,
    /// Answers of consensus. A token is answered here or with the reply of its applied command, once in all.
    pub outcome: Vec<(Token, Outcome)>,
    /// What happened, for logs, metrics and checkers.
    pub trace: Vec<TraceEvent>,
}

impl Effects {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.send.is_empty()
            && self.write.is_empty()
            && self.apply.is_empty()
            && self.fetch.is_empty()
            && self.snapshot.is_empty()
            && self.outcome.is_empty()
            && self.trace.is_empty()
    }

    /// Moves everything to the end of `other`.
    pub(super) fn move_to(&mut self, other: &mut Effects) {
        move_lane(&mut self.send, &mut other.send);
        move_lane(&mut self.write, &mut other.write);
        move_lane(&mut self.apply, &mut other.apply);
        move_lane(&mut self.fetch, &mut other.fetch);
        move_lane(&mut self.snapshot, &mut other.snapshot);
        move_lane(&mut self.outcome, &mut other.outcome);
        move_lane(&mut self.trace, &mut other.trace);
    }
}

/// Moves one lane. A driver that has carried out everything gets the lane as it is, and leaves its own, with the room
/// in it, for the next one.
fn move_lane<T>(from: &mut Vec<T>, to: &mut Vec<T>) {
    if from.is_empty() {
        return;
    }
    if to.is_empty() {
        std::mem::swap(from, to);
    } else {
        to.append(from);
    }
}

/// One write to the log. After a crash all of it is there or none of it, but for its last entries: some of them may be
/// lost, the last ones first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Named in the acknowledgement.
    pub id: WriteId,
    /// The term and the vote, when they changed.
    pub hard_state: Option<HardState>,
    /// The log begins anew after an installed snapshot; everything in it is gone. Comes before `entries`.
    pub reset: Option<Box<Base>>,
    /// Entries without a gap. Whatever the log holds at or after the first one's index is replaced.
    pub entries: Entries,
}

/// One step of the state machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Apply {
    /// Apply committed entries.
    Committed(Committed),
    /// Replace the state by that of the received snapshot, then report
    /// [`SnapshotEvent::Installed`](super::SnapshotEvent::Installed).
    Install(Box<Base>),
}

/// Committed entries without a gap, and whom their replies go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The entries, at least one.
    pub entries: Entries,
    /// The requests of this node's clients among them, ascending.
    pub tokens: Vec<(Index, Token)>,
}

impl Committed {
    /// Each entry, with the request that it came from when this node took it from a client.
    pub fn iter(&self) -> impl Iterator<Item = (&Entry, Option<Token>)> {
        let mut tokens = self.tokens.iter().peekable();
        self.entries.iter().map(move |entry| {
            let token = tokens.next_if(|(index, _)| *index == entry.position.index);
            (entry, token.map(|(_, token)| *token))
        })
    }
}

/// A request for entries that are no longer in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// Named in the answer.
    pub id: FetchId,
    /// The first entry.
    pub first: Index,
    /// The last entry; fewer may be answered.
    pub last: Index,
    /// About how many bytes of entries to answer at the most, but at least one entry.
    pub bytes_max: u64,
}

/// What to do about snapshots and old log entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotOp {
    /// Send a snapshot of the applied state to a node that is too far behind, then report
    /// [`SnapshotEvent::Sent`](super::SnapshotEvent::Sent).
    Send {
        /// The receiver.
        to: NodeId,
        /// The sender's term, which the receiver needs to judge it.
        term: Term,
    },
    /// Remove the log up to and including the base. Needs no acknowledgement.
    Purge(Base),
}

#[cfg(test)]
mod tests {
    use super::super::Input;
    use super::*;

    /// Each is moved several times for every command. What is hardly ever there, such as the base of a log, is behind a
    /// pointer: by value, it makes copying a quarter of the work for single commands.
    #[test]
    fn what_is_moved_for_every_command_is_small() {
        assert!(size_of::<(NodeId, Message)>() <= 72);
        assert!(size_of::<Input>() <= 72);
        assert!(size_of::<Write>() <= 64);
        assert!(size_of::<Apply>() <= 48);
        assert!(size_of::<(Token, Outcome)>() <= 32);
        assert!(size_of::<TraceEvent>() <= 32);
    }
}
