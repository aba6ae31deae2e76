//! Who belongs to the cluster, and in what part.
//!
//! Invariants: every voter and every learner is a member; nobody is both voter and learner of the same membership,
//! except a voter of the outgoing half that becomes a learner when the joint phase ends; `next_id` is above every id
//! that was ever given away; at most half of the voters of either side are witnesses, and what is one stays one.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{DirectoryId, FeatureLevel, Fork, Lineage, NodeId, Outline, Planted, PlantedBug};

/// What the cluster knows of one member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The name its operator gave it; unique among the members. A number is a name too.
    pub name: String,
    /// The data directory that this id belongs to: a wiped node has another one and so is not this member.
    pub directory: DirectoryId,
    /// `host:port` where it takes connections of other nodes.
    pub cluster_address: String,
    /// `host:port` where it takes connections of clients.
    pub client_address: String,
    /// Whether a learner is to become a voter when it has caught up.
    pub promote: bool,
    /// How much it is preferred as a leader: a higher one goes first. 0 leads only when nobody else can.
    pub priority: u8,
    /// What its binary supported when it was taken in.
    pub features: FeatureLevel,
    /// Whether it keeps the log without its commands, and no state.
    pub witness: bool,
}

impl Member {
    /// The priority of a member of which nothing else is said.
    pub const PRIORITY: u8 = 100;

    /// A member that is preferred as much as the others, and not to be promoted.
    pub fn new(
        name: impl Into<String>,
        directory: DirectoryId,
        cluster_address: &str,
        client_address: &str,
    ) -> Member {
        Member {
            name: name.into(),
            directory,
            cluster_address: cluster_address.to_owned(),
            client_address: client_address.to_owned(),
            promote: false,
            priority: Member::PRIORITY,
            features: FeatureLevel::CURRENT,
            witness: false,
        }
    }

    /// A member that is reached in a way of the driver's own, without addresses.
    pub fn named(name: String, directory: DirectoryId) -> Member {
        Member::new(name, directory, "", "")
    }
}

/// The voters and learners of a cluster, during a joint phase with the voters of both sides
/// (Raft dissertation, section 4.3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    lineage: Lineage,
    voters: BTreeSet<NodeId>,
    /// The voters of the membership being left; empty outside a joint phase.
    outgoing: BTreeSet<NodeId>,
    learners: BTreeSet<NodeId>,
    members: BTreeMap<NodeId, Member>,
    next_id: NodeId,
    /// The features that the cluster uses.
    level: FeatureLevel,
    /// The lineages that this one descends from, the oldest first.
    forks: Vec<Fork>,
}

/// One step of a change to a membership.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Take in a learner under a new id. A member of the same name leaves: it is the same node with its data lost.
    AddLearner(Member),
    /// Make a learner a voter.
    Promote(NodeId),
    /// Make a voter a learner that stays one.
    Demote(NodeId),
    /// Let a member go.
    Remove(NodeId),
    /// Prefer a member more or less as a leader.
    Prioritise {
        /// The member.
        id: NodeId,
        /// Its [`Member::priority`] from now on.
        priority: u8,
    },
    /// Record where a member can be reached, when its configuration changed.
    Update {
        /// The member.
        id: NodeId,
        /// Its `host:port` for other nodes.
        cluster_address: String,
        /// Its `host:port` for clients.
        client_address: String,
    },
}

/// Why a change cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// The member named is not one.
    #[error("node {0} is no member of this cluster")]
    NoSuchMember(NodeId),
    /// Only a learner can be promoted.
    #[error("node {0} is not a learner")]
    NotALearner(NodeId),
    /// Only a voter can be demoted.
    #[error("node {0} is not a voter")]
    NotAVoter(NodeId),
    /// The cluster would be left without a voter.
    #[error("the change would leave the cluster without a voter")]
    NoVoterLeft,
    /// A majority could consist of witnesses, so that nobody would hold what it commits.
    #[error("the change would leave more witnesses than voters with data")]
    TooManyWitnesses,
    /// The newcomer's binary is older than what the cluster uses.
    #[error(
        "the cluster uses features of level {needed} and the node's binary supports level {supported}: start a newer \
         binary there"
    )]
    FeaturesLacking {
        /// What the cluster uses.
        needed: FeatureLevel,
        /// What the newcomer supports.
        supported: FeatureLevel,
    },
    /// A joint phase must end before the next change begins.
    #[error("another change of the membership is under way")]
    Joint,
}

impl Membership {
    /// The first membership of a cluster: every member a voter.
    ///
    /// # Panics
    /// When `members` is empty: a cluster without a voter cannot exist.
    pub fn bootstrap(lineage: Lineage, members: BTreeMap<NodeId, Member>) -> Membership {
        let last = *members
            .keys()
            .next_back()
            .expect("a cluster begins with at least one member");
        Membership {
            lineage,
            voters: members.keys().copied().collect(),
            outgoing: BTreeSet::new(),
            learners: BTreeSet::new(),
            members,
            next_id: last.next(),
            level: FeatureLevel::FIRST,
            forks: Vec::new(),
        }
    }

    /// The history of the cluster that this membership belongs to.
    pub fn lineage(&self) -> Lineage {
        self.lineage
    }

    /// The lineages that this one descends from, the oldest first; each ended with a forced start.
    pub fn forks(&self) -> &[Fork] {
        &self.forks
    }

    /// How `lineage` ended, when this membership's lineage descends from it.
    pub fn fork_of(&self, lineage: Lineage) -> Option<&Fork> {
        self.forks.iter().find(|fork| fork.lineage == lineage)
    }

    /// This membership in `lineage`, which follows on its own, whose log looks like `log` at the end. It remembers at most
    /// `forks_max` lineages before it.
    pub(super) fn succeeded_by(&self, lineage: Lineage, log: Outline, forks_max: usize) -> Membership {
        let mut next = self.clone();
        next.forks.push(Fork {
            lineage: self.lineage,
            log,
        });
        let surplus = next.forks.len().saturating_sub(forks_max);
        next.forks.drain(..surplus);
        next.lineage = lineage;
        next
    }

    /// Lets everybody go but `own`, a member, which becomes the only voter.
    pub(super) fn keep_only(&mut self, own: NodeId) {
        self.members.retain(|id, _| *id == own);
        for member in self.members.values_mut() {
            member.promote = false;
        }
        self.voters = BTreeSet::from([own]);
        self.outgoing.clear();
        self.learners.clear();
    }

    /// The voters; during a joint phase those of the membership being entered.
    pub fn voters(&self) -> &BTreeSet<NodeId> {
        &self.voters
    }

    /// The voters of the membership being left; empty outside a joint phase.
    pub fn outgoing(&self) -> &BTreeSet<NodeId> {
        &self.outgoing
    }

    /// The members that receive the log and have no vote.
    pub fn learners(&self) -> &BTreeSet<NodeId> {
        &self.learners
    }

    /// Everything known of each member, by id.
    pub fn members(&self) -> &BTreeMap<NodeId, Member> {
        &self.members
    }

    /// The id that the next newcomer gets: every lower one was given away, or never will be.
    pub fn next_id(&self) -> NodeId {
        self.next_id
    }

    /// Whether `id` is a witness.
    pub fn is_witness(&self, id: NodeId) -> bool {
        self.members.get(&id).is_some_and(|member| member.witness)
    }

    /// Whether every majority of these voters contains one with data.
    fn has_data(&self, voters: &BTreeSet<NodeId>) -> bool {
        let witnesses = voters.iter().filter(|id| self.is_witness(**id)).count();
        witnesses <= voters.len() / 2
    }

    /// The features that the cluster uses.
    pub fn level(&self) -> FeatureLevel {
        self.level
    }

    /// This membership with the features of `level`, which is higher.
    #[must_use]
    pub(super) fn raised(&self, level: FeatureLevel) -> Membership {
        assert!(level > self.level, "the feature level never falls");
        let mut next = self.clone();
        next.level = level;
        next
    }

    /// Whether two majorities are needed for everything (Raft dissertation, section 4.3).
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether `id` has a vote, in either half of a joint phase.
    pub fn is_voter(&self, id: NodeId) -> bool {
        self.voters.contains(&id) || self.outgoing.contains(&id)
    }

    /// The id and record of the member called `name`.
    pub fn by_name(&self, name: &str) -> Option<(NodeId, &Member)> {
        self.members
            .iter()
            .find(|(_, member)| member.name == name)
            .map(|(id, member)| (*id, member))
    }

    /// Whether a group can have agreed on this: what comes over the network is checked before it is believed.
    pub(super) fn is_sound(&self) -> bool {
        self.broken_rule().is_none()
    }

    /// The rule of memberships that this one breaks, if any.
    pub(super) fn broken_rule(&self) -> Option<&'static str> {
        let mut parts = self.voters.iter().chain(&self.outgoing).chain(&self.learners);
        let newest = self.members.keys().next_back();
        let rules = [
            (!self.voters.is_empty(), "a membership has no voter"),
            (
                self.voters.is_disjoint(&self.learners),
                "a membership has a voter that is a learner too",
            ),
            (
                parts.all(|id| self.members.contains_key(id)),
                "a membership gives a part to a node that is no member",
            ),
            (
                newest.is_some_and(|id| *id < self.next_id) && self.next_id.0 <= 1 << 62,
                "a membership has a member whose id was never given",
            ),
            (
                self.level >= FeatureLevel::FIRST,
                "a membership uses no features at all",
            ),
            (
                self.has_data(&self.voters) && self.has_data(&self.outgoing),
                "a membership has more witnesses than voters with data",
            ),
            (
                self.has_sound_forks(),
                "a membership tells of lineages before it that cannot have been",
            ),
        ];
        rules.iter().find(|(holds, _)| !holds).map(|(_, rule)| *rule)
    }

    /// The membership after `changes`: joint when they alter the voters, final otherwise.
    ///
    /// # Errors
    /// When a change does not fit this membership, or a joint phase is under way.
    pub fn changed(&self, changes: &[Change]) -> Result<Membership, ChangeError> {
        self.changed_by(changes, Planted::NONE)
    }

    /// The membership after `changes`, as a node computes it that may make a mistake.
    pub(super) fn changed_by(&self, changes: &[Change], planted: Planted) -> Result<Membership, ChangeError> {
        if self.is_joint() {
            return Err(ChangeError::Joint);
        }
        let mut next = self.clone();
        for change in changes {
            next.apply(change, planted)?;
        }
        if next.voters.is_empty() {
            return Err(ChangeError::NoVoterLeft);
        }
        if !next.has_data(&next.voters) {
            return Err(ChangeError::TooManyWitnesses);
        }
        if next.voters != self.voters {
            next.outgoing = self.voters.clone();
            // A voter that leaves stays reachable until the joint phase ends: its vote still counts.
            for id in &next.outgoing {
                if let Some(member) = self.members.get(id) {
                    next.members.entry(*id).or_insert_with(|| member.clone());
                }
            }
        }
        Ok(next)
    }

    /// The membership that ends a joint phase (Raft dissertation, section 4.3, "C-new").
    ///
    /// # Panics
    /// When no joint phase is under way.
    #[must_use]
    pub fn left_joint(&self) -> Membership {
        assert!(self.is_joint(), "only a joint membership can be left");
        let mut next = self.clone();
        next.outgoing.clear();
        let (voters, learners) = (&next.voters, &next.learners);
        next.members
            .retain(|id, _| voters.contains(id) || learners.contains(id));
        next
    }

    fn apply(&mut self, change: &Change, planted: Planted) -> Result<(), ChangeError> {
        match change {
            Change::AddLearner(member) => {
                if member.features < self.level {
                    return Err(ChangeError::FeaturesLacking {
                        needed: self.level,
                        supported: member.features,
                    });
                }
                let replaced = self.by_name(&member.name).map(|(old, _)| old);
                if let Some(old) = replaced {
                    self.forget(old);
                }
                let id = replaced
                    .filter(|_| planted.is(PlantedBug::ReplacementKeepsId))
                    .unwrap_or(self.next_id);
                self.next_id = self.next_id.max(id.next());
                self.learners.insert(id);
                self.members.insert(id, member.clone());
            }
            Change::Promote(id) => {
                if !self.learners.remove(id) {
                    return Err(ChangeError::NotALearner(*id));
                }
                self.voters.insert(*id);
                self.member_mut(*id)?.promote = false;
            }
            Change::Demote(id) => {
                if !self.voters.remove(id) {
                    return Err(ChangeError::NotAVoter(*id));
                }
                self.learners.insert(*id);
                self.member_mut(*id)?.promote = false;
            }
            Change::Remove(id) => {
                self.member_mut(*id)?;
                self.forget(*id);
            }
            Change::Prioritise { id, priority } => self.member_mut(*id)?.priority = *priority,
            Change::Update {
                id,
                cluster_address,
                client_address,
            } => {
                let member = self.member_mut(*id)?;
                member.cluster_address.clone_from(cluster_address);
                member.client_address.clone_from(client_address);
            }
        }
        Ok(())
    }

    fn forget(&mut self, id: NodeId) {
        self.voters.remove(&id);
        self.learners.remove(&id);
        self.members.remove(&id);
    }

    fn member_mut(&mut self, id: NodeId) -> Result<&mut Member, ChangeError> {
        self.members.get_mut(&id).ok_or(ChangeError::NoSuchMember(id))
    }
}
