//! Feature gates: what a cluster may use while its nodes run different binaries.
//!
//! A binary supports all levels up to its own. The level that the cluster uses stands in its membership, and so in the
//! log and in the base of every snapshot; whoever applies entries may use what the level of the last committed
//! membership allows. Members tell their leader in the answers to its heartbeats what they support, and the leader
//! raises the level when all of them, learners included, are in touch and can follow.
//!
//! Invariants: a committed level never falls; a node takes in no membership of a level that its binary does not
//! support, from an append, a snapshot, or its own disk: it stops, and says what is needed; nobody joins whose binary
//! is behind the cluster.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::failure::Failure;
use super::{BootError, Config, Entry, Membership, NodeId, Payload, Raft, TraceEvent};

/// A set of features, by number. Each level includes the ones below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FeatureLevel(pub u16);

impl FeatureLevel {
    /// What every binary supports, and a new cluster begins with.
    pub const FIRST: FeatureLevel = FeatureLevel(1);
    /// What this build supports.
    pub const CURRENT: FeatureLevel = FeatureLevel(1);
}

impl fmt::Display for FeatureLevel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl Config {
    /// Checks that a node with these settings fits into a membership: it supports what the cluster uses, and is known
    /// for what it is.
    pub(super) fn fits(&self, id: NodeId, membership: &Membership) -> Result<(), BootError> {
        let (needed, supported) = (membership.level(), self.features);
        if needed > supported {
            return Err(BootError::FeaturesLacking { needed, supported });
        }
        match membership.members().get(&id) {
            Some(member) if member.witness != self.witness => {
                let recorded = member.witness;
                Err(BootError::OtherPart { recorded })
            }
            _ => Ok(()),
        }
    }
}

impl Raft {
    /// Whether this node can follow entries; when it cannot, it stops.
    pub(super) fn fits_entries(&mut self, entries: &[Entry]) -> bool {
        entries.iter().all(|entry| match &entry.payload {
            Payload::Membership(membership) => self.fits(membership),
            Payload::Empty | Payload::Omitted | Payload::Command(_) => true,
        })
    }

    /// Whether this node fits into a membership; when it does not, it stops.
    pub(super) fn fits(&mut self, membership: &Membership) -> bool {
        match self.config.fits(self.id, membership) {
            Ok(()) => true,
            Err(error) => {
                self.output.trace.push(TraceEvent::Unfit(error.clone()));
                self.stop(Failure::Unfit(error));
                false
            }
        }
    }

    /// Raises the level of the cluster when everybody can follow. Called with every heartbeat.
    pub(super) fn consider_features(&mut self) {
        if self.is_settled()
            && let Some(level) = self.level_of_all()
            && level > self.log.membership().level()
        {
            let raised = self.log.membership().raised(level);
            self.append_membership(raised);
        }
    }

    /// The highest level that every member supports; none while one is out of touch or did not say.
    fn level_of_all(&self) -> Option<FeatureLevel> {
        let leader = self.leading()?;
        let members = self.log.membership().members().keys();
        members
            .filter(|id| **id != self.id)
            .map(|id| {
                let peer = leader.peers.get(id)?;
                let in_touch = self.now.since(peer.heard) < self.config.election_timeout_min;
                peer.features.filter(|_| in_touch)
            })
            .chain([Some(self.config.features)])
            .min()
            .flatten()
    }
}
