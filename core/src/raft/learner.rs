//! When a learner may become a voter.
//!
//! A voter that lacks much of the log is one that majorities wait for in vain: the cluster would commit nothing while it
//! catches up, or no longer survive the loss that it survived before (Raft dissertation, section 4.2.1). So whoever asks,
//! an operator or the duty of the leader, a learner is promoted only when it is in touch and so close behind that one or
//! two more messages bring it level. The leader judges by its own progress: what the learner's disk is known to hold.

use super::membership::Membership;
use super::progress::Progress;
use super::{Index, PlantedBug, Raft, Refusal};

/// Committed entries that a learner may lack.
const COMMITTED_BEHIND_MAX: u64 = 64;
/// Entries of the leader's log that it may lack, committed or not.
const BEHIND_MAX: u64 = 1024;

impl Raft {
    /// Refuses a membership with a new voter that would hold up the others.
    pub(super) fn check_new_voters(&self, next: &Membership) -> Result<(), Refusal> {
        let voters = next.voters().difference(self.log.membership().voters());
        for id in voters.filter(|_| !self.planted(PlantedBug::LearnerIsPromotedBehind)) {
            let peer = self.leading().and_then(|leader| leader.peers.get(id));
            match peer {
                Some(peer) if self.is_caught_up(peer) => {}
                Some(peer) if self.is_in_touch(peer) => {
                    return Err(Refusal::LearnerBehind {
                        learner: *id,
                        entries: self.behind(peer),
                    });
                }
                _ => return Err(Refusal::LearnerSilent(*id)),
            }
        }
        Ok(())
    }

    /// Whether a follower is in touch, and close behind.
    pub(super) fn is_caught_up(&self, peer: &Progress) -> bool {
        // Before its first acknowledgement nothing is known of it, however short the log is.
        self.is_in_touch(peer)
            && peer.matched > Index::default()
            && self.commit.0.saturating_sub(peer.matched.0) <= COMMITTED_BEHIND_MAX
            && self.behind(peer) <= BEHIND_MAX
    }

    pub(super) fn is_in_touch(&self, peer: &Progress) -> bool {
        self.now.since(peer.heard) < self.config.election_timeout_max
    }

    /// How many entries of this leader's log the disk of a follower is not known to hold.
    fn behind(&self, peer: &Progress) -> u64 {
        self.log.last().index.0.saturating_sub(peer.matched.0)
    }
}
