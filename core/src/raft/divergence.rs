//! A node whose committed entries its leader does not have.
//!
//! That cannot come about in a group that keeps its disks: whoever is elected holds everything that is committed
//! (Leader Completeness, Raft paper, section 5.4.3). It can when an operator puts back old disks of a majority, or
//! starts copies of them. Such a node has acknowledged, or shown, what the cluster forgot. To follow would drop that
//! without a word, and to accept entries behind it would make a log that is nobody's. So the node stops and says what
//! only it has. Entries that are *not* known to be committed are another matter: they are replaced, as Raft does.
//!
//! Every leader opens its term with an entry of that term, so a leader that lacks committed entries of this node sooner
//! or later sends an entry of another term in place of one of them: that is the contradiction that is looked for. A
//! leader whose log begins after everything that this node has cannot be caught so; it sends a snapshot.

use super::{Base, Entry, Index, NodeId, Position, Raft};

/// Why a node was set aside, until its operator decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quarantine {
    /// Its leader has another entry in place of one that is committed here.
    Diverged {
        /// The leader.
        leader: NodeId,
        /// The first index known to differ; earlier ones may.
        at: Index,
    },
    /// A start was forced elsewhere, and the lineage of this node ended with it.
    Superseded {
        /// The lineage that followed.
        by: super::Lineage,
    },
}

impl Raft {
    /// Whether what a leader sends agrees with what is committed here; when it does not, this node stops.
    pub(super) fn agrees_with_commits(
        &mut self,
        from: NodeId,
        previous: Position,
        entries: &[Entry],
    ) -> bool {
        let positions = [previous]
            .into_iter()
            .chain(entries.iter().map(|entry| entry.position));
        let contradiction = positions
            .take_while(|position| position.index <= self.commit)
            .find(|position| self.contradicts_commits(*position));
        if let Some(position) = contradiction {
            self.diverged_from(from, position.index);
        }
        contradiction.is_none()
    }

    /// Whether the log of a leader can begin at `base`, as far as what is committed here tells; when it cannot, this node
    /// stops.
    pub(super) fn agrees_with_base(&mut self, from: NodeId, base: &Base) -> bool {
        let Position { term, index } = base.position;
        // Terms never go down along a log, so a later entry of an earlier term contradicts as well.
        let committed = self.log.term_at(self.commit);
        let contradicts = if index <= self.commit {
            self.contradicts_commits(base.position)
        } else {
            committed.is_some_and(|committed| committed > term)
        };
        if contradicts {
            self.diverged_from(from, index.min(self.commit));
        }
        !contradicts
    }

    /// Whether a log with an entry at `position`, not after what is committed here, is another one than this.
    fn contradicts_commits(&self, position: Position) -> bool {
        match self.log.term_at(position.index) {
            Some(term) => term != position.term,
            // Purged, and of a term no later than the base's.
            None => position.term > self.log.base().position.term,
        }
    }

    fn diverged_from(&mut self, leader: NodeId, at: Index) {
        self.set_aside(Quarantine::Diverged { leader, at });
    }
}
