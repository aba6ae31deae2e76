//! Answers to nodes that ask: who this node is, and whether they may join.

use quorate_core::raft::{Change, Member, Operation, Role};

use super::clients::Pending;
use super::consensus::Consensus;
use super::notices::AGAIN;
use crate::transport::{Answer, Ask, Hello, Responder};

impl Consensus {
    pub(super) fn asked(&mut self, from: &Hello, ask: Ask, responder: Responder) {
        match ask {
            Ask::WhoAreYou | Ask::Invite { .. } => {
                let answer = self.identity();
                responder.answer(answer);
            }
            Ask::Join { member } => self.asked_to_join(member, responder),
            Ask::History => responder.answer(Answer::History {
                membership: self.raft.status().membership.clone(),
                log: self.raft.outline(),
            }),
            Ask::Remove { id } => self.asked_to_remove(from, id, responder),
            Ask::Form { membership, .. } => {
                let lineage = self.raft.status().membership.lineage();
                let answer = if membership.lineage() == lineage {
                    Answer::Formed
                } else {
                    let message = format!(
                        "node {} belongs to lineage {lineage} already and founds no other cluster; node {} should \
                         join it",
                        self.peers.name, from.name
                    );
                    Answer::Refused { message }
                };
                responder.answer(answer);
            }
        }
    }

    fn identity(&self) -> Answer {
        let status = self.raft.status();
        let members = status.membership.members();
        let leader = status.leader.and_then(|leader| members.get(&leader));
        Answer::Identity {
            hello: self.transport.hello(),
            members: members
                .values()
                .map(|member| (member.name.clone(), member.cluster_address.clone()))
                .collect(),
            leader_name: leader.map(|leader| leader.name.clone()),
            leader_cluster_address: leader.map(|leader| leader.cluster_address.clone()),
        }
    }

    fn asked_to_join(&mut self, member: Member, responder: Responder) {
        let status = self.raft.status();
        let known = status
            .membership
            .members()
            .iter()
            .find(|(_, known)| known.directory == member.directory);
        if let Some((id, known)) = known {
            // A blank node whose directory is a member's has promised nothing yet: any member may tell it so, also
            // while the founding members have no majority yet and so no leader.
            let settled = status.membership_position.index <= status.commit;
            let answer = if known.name != member.name {
                Answer::KeptOut {
                    message: format!(
                        "this data directory belongs to node {}: start it as {} or give node {} a directory of its own",
                        known.name, known.name, member.name
                    ),
                }
            } else if settled {
                Answer::Joined {
                    id: *id,
                    membership: status.membership.clone(),
                }
            } else {
                Answer::Refused {
                    message: "the change is being committed; try again".to_owned(),
                }
            };
            responder.answer(answer);
            return;
        }
        if status.role != Role::Leader {
            let answer = self.try_leader();
            responder.answer(answer);
            return;
        }
        if let Some((id, known)) = status.membership.by_name(&member.name) {
            if self.is_in_touch(id) {
                let answer = self.keep_out(&member, &known.clone());
                responder.answer(answer);
                return;
            }
            tracing::warn!(
                node = member.name,
                lost = %known.directory,
                found = %member.directory,
                "a member came back without its data; it joins again as a learner under another id"
            );
        } else {
            tracing::info!(
                node = member.name,
                address = member.cluster_address,
                "a node joins as a learner"
            );
        }
        let pending = Pending::Join {
            name: member.name.clone(),
            responder,
        };
        self.administer(
            pending,
            Operation::ChangeMembership(vec![Change::AddLearner(member)]),
        );
    }

    /// Refuses a node that comes with the name of a member that runs: two machines have the same name, or somebody
    /// started a second process for one node. Whoever lost its data is taken in when the last of its former process is
    /// gone.
    fn keep_out(&mut self, newcomer: &Member, known: &Member) -> Answer {
        let now = self.ports.clock.now();
        if self.peers.notices.due(&newcomer.name, now, AGAIN) {
            tracing::warn!(
                node = newcomer.name,
                address = newcomer.cluster_address,
                found = %newcomer.directory,
                member = %known.directory,
                member_address = known.cluster_address,
                "refused a node that wants to join under the name of a member that is connected and has another data \
                 directory: stop the member, or give the newcomer another --node-id"
            );
        }
        Answer::KeptOut {
            message: format!(
                "a node named {} with another data directory is connected, at {}: stop it, or give this one another \
                 --node-id",
                known.name, known.cluster_address
            ),
        }
    }

    /// Names the leader to a node that asked this one for what only the leader can do.
    pub(super) fn try_leader(&self) -> Answer {
        let status = self.raft.status();
        match status
            .leader
            .filter(|leader| *leader != status.id)
            .and_then(|id| status.membership.members().get(&id))
        {
            Some(leader) => Answer::TryLeader {
                name: leader.name.clone(),
                cluster_address: leader.cluster_address.clone(),
            },
            None => Answer::Refused {
                message: "the cluster has no leader at the moment; try again".to_owned(),
            },
        }
    }
}
