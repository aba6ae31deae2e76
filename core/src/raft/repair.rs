//! A log that lost its end to damage, and is repaired by what the leader sends.
//!
//! A damaged record may have been acknowledged, so a node that simply forgot it could elect a leader without it. Such a
//! node starts with what is readable of its log and with the term and vote that it had. It follows its leader as
//! always, and that is the repair: a leader sends a follower whatever it lacks. Until then it neither votes nor
//! campaigns.
//!
//! The repair is over when the durable log ends at or after the position at which it ended before, in the order by
//! which elections compare logs (Raft paper, section 5.4.1). Then it holds every entry that it may have acknowledged
//! and that is committed: if its last entry is of the same term as the lost one, both logs are parts of one leader's
//! log; if it is of a later term, that term's leader held all that was committed before it (Leader Completeness,
//! section 5.4.3), and so does every log with an entry of its making.
//!
//! What it accepts meanwhile counts as always: it is on its disk, and its term and vote are those that it had, so that
//! it accepts nothing that it had promised another leader to refuse.

use super::{NodeId, PlantedBug, Position, Raft, TraceEvent};

impl Raft {
    /// Up to where this node's log is being repaired; none when it is whole.
    pub(super) fn repairing(&self) -> Option<Position> {
        self.repair
    }

    /// Whether this node must not have a say in elections.
    pub(super) fn must_not_vote(&self) -> bool {
        self.repair.is_some() && !self.planted(PlantedBug::RepairingNodeVotes)
    }

    /// Tells why `candidate` gets no vote, when that is the repair.
    pub(super) fn withholds_vote(&mut self, candidate: NodeId) -> bool {
        match self.repair {
            Some(until) if self.must_not_vote() => {
                let event = TraceEvent::VoteWithheld { candidate, until };
                self.output.trace.push(event);
                true
            }
            _ => false,
        }
    }

    /// Ends the repair when the disk holds what is needed. A log that switches to a snapshot is not on disk yet.
    pub(super) fn consider_repaired(&mut self) {
        let Some(until) = self.repair.filter(|_| !self.cursor.is_installing()) else {
            return;
        };
        let reached = self.log.durable_position();
        if reached >= until {
            self.repair = None;
            self.output.trace.push(TraceEvent::Repaired { reached });
            if self.leading().is_none() {
                self.wait_for_election();
            }
        }
    }
}
