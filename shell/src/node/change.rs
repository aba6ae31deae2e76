//! Letting a member go on an operator's word: `DELETE /cluster/members/{name}`.
//!
//! Any node takes the request; one that does not lead asks the leader. A leader that is to go hands over first, and the
//! next one removes it: a leader that removed itself would lose the connections over which it hears that it is done.
//! Invariant: whoever asks is answered that nothing was done, and may ask again, or what was done.

use std::time::Duration;

use quorate_core::raft::{Change, NodeId, Operation, Outcome, Role};
use tokio::sync::oneshot;

use super::clients::Pending;
use super::consensus::Consensus;
use super::inbox::AdminOutcome;
use crate::transport::{Answer, Ask, ConnectError, Hello, Responder};

/// How long the leader may take to let a member go.
const ASK_TIME: Duration = Duration::from_secs(5);

impl Consensus {
    /// Lets a member go, or has the leader do it.
    pub(super) fn remove(&mut self, id: NodeId, reply: oneshot::Sender<AdminOutcome>) {
        let status = self.raft.status();
        match status.leader {
            Some(leader) if leader != status.id => self.ask_leader_to_remove(leader, id, reply),
            _ => self.remove_as_leader(id, reply),
        }
    }

    fn remove_as_leader(&mut self, id: NodeId, reply: oneshot::Sender<AdminOutcome>) {
        let status = self.raft.status();
        let others_vote = status.membership.voters().iter().any(|voter| *voter != status.id);
        if id == status.id && status.role == Role::Leader && others_vote {
            self.administer(Pending::HandOver(reply), Operation::Transfer { target: None });
        } else {
            let changes = vec![Change::Remove(id)];
            self.administer(Pending::Admin(reply), Operation::ChangeMembership(changes));
        }
    }

    /// What comes of handing over before this node is removed: the next leader has yet to do that.
    pub(super) fn handed_over(&self, outcome: Outcome) -> AdminOutcome {
        match self.admin_outcome(outcome) {
            AdminOutcome::Done => AdminOutcome::Pending("the leadership was handed over".to_owned()),
            other => other,
        }
    }

    fn ask_leader_to_remove(&self, leader: NodeId, id: NodeId, reply: oneshot::Sender<AdminOutcome>) {
        let Some(leader) = self.raft.status().membership.members().get(&leader).cloned() else {
            let _ = reply.send(AdminOutcome::NotLeader(None));
            return;
        };
        let transport = self.transport.clone();
        tokio::task::spawn_local(async move {
            let asked = transport
                .ask(
                    &leader.cluster_address,
                    Some(&leader.name),
                    Ask::Remove { id },
                    ASK_TIME,
                )
                .await;
            // A client that went away needs no answer.
            let _ = reply.send(asked_leader(asked));
        });
    }

    /// Another member passed an operator's word on.
    pub(super) fn asked_to_remove(&mut self, from: &Hello, id: NodeId, responder: Responder) {
        let status = self.raft.status();
        let from_member = from.lineage == Some(status.membership.lineage());
        if !from_member || status.role != Role::Leader {
            responder.answer(Answer::Again);
            return;
        }
        let (reply, answer) = oneshot::channel();
        self.remove_as_leader(id, reply);
        tokio::task::spawn_local(async move {
            // Without an answer the node is stopping, and the one that asked sees the connection end.
            if let Some(answer) = answer.await.ok().and_then(answer_of) {
                responder.answer(answer);
            }
        });
    }
}

/// The answer to a member that passed a removal on; none when it is not known what came of it.
fn answer_of(outcome: AdminOutcome) -> Option<Answer> {
    match outcome {
        AdminOutcome::Done => Some(Answer::Removed),
        AdminOutcome::Pending(_) | AdminOutcome::NotLeader(_) => Some(Answer::Again),
        AdminOutcome::Refused(message) => Some(Answer::Refused { message }),
        AdminOutcome::Unknown => None,
    }
}

/// What came of asking the leader.
fn asked_leader(asked: Result<Answer, ConnectError>) -> AdminOutcome {
    match asked {
        Ok(Answer::Removed) => AdminOutcome::Done,
        Ok(Answer::Again) => AdminOutcome::Pending("the leader was busy".to_owned()),
        Ok(Answer::Refused { message }) => AdminOutcome::Refused(message),
        Ok(_) => AdminOutcome::Refused("the leader gave no answer that makes sense".to_owned()),
        Err(
            ConnectError::TimedOut { .. } | ConnectError::Broken { .. } | ConnectError::Unanswered { .. },
        ) => AdminOutcome::Unknown,
        Err(error) => AdminOutcome::Pending(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removal_that_did_not_reach_the_leader_may_be_asked_for_again_and_one_that_may_have_is_unknown() {
        let nobody = ConnectError::NobodyListens {
            address: ([127, 0, 0, 1], 1).into(),
        };
        let silent = ConnectError::Unanswered {
            address: "127.0.0.1:1".to_owned(),
        };
        assert!(matches!(asked_leader(Err(nobody)), AdminOutcome::Pending(_)));
        assert!(matches!(asked_leader(Err(silent)), AdminOutcome::Unknown));
        assert!(matches!(
            asked_leader(Ok(Answer::Again)),
            AdminOutcome::Pending(_)
        ));
        assert!(matches!(asked_leader(Ok(Answer::Removed)), AdminOutcome::Done));
        assert!(answer_of(AdminOutcome::Unknown).is_none());
    }
}
