//! Taking a node in on an operator's word: `POST /cluster/members`.
//!
//! A blank node joins by itself as soon as it knows a member. So the member that is asked invites the node at the
//! address, which then asks the leader to take it in, with its own name and data directory. Invariant: the answer is
//! given when the membership has the node, and says otherwise what keeps it out; asking again changes nothing.

use std::time::Duration;

use quorate_api::{AddMember, MemberChanged};
use quorate_core::Instant;
use quorate_core::raft::{DirectoryId, Member};
use tokio::sync::oneshot;

use super::backend::NodeBackend;
use super::consensus::Consensus;
use super::inbox::Request;
use crate::api::backend::BackendError;
use crate::transport::{Answer, Ask, ConnectError};

/// How long an invited node may take to answer.
const ASK_TIME: Duration = Duration::from_millis(500);
/// How long an invited node has to join before it is invited again.
const JOIN_TIME: Duration = Duration::from_millis(500);

/// Whom an operator wants in.
#[derive(Clone, Debug)]
pub(super) struct Invitation {
    /// Its name.
    pub(super) name: String,
    /// `host:port` where other nodes reach it.
    pub(super) address: String,
    /// Whether it stays a learner.
    pub(super) learner: bool,
}

impl Invitation {
    /// Whether `member` is the node that is meant: it is at the address, or has the data directory that was `found`
    /// there. An address can be written in more than one way.
    fn is_of(&self, member: &Member, found: Option<DirectoryId>) -> bool {
        member.cluster_address == self.address || found == Some(member.directory)
    }
}

/// What came of an invitation.
#[derive(Debug)]
pub(super) enum Invited {
    /// It heard of this cluster and joins, or belongs to it already; its data directory.
    Coming(DirectoryId),
    /// Nobody answered; the text says how. It may not be up yet.
    Absent(String),
    /// It will not come; the text says why and what to do.
    Refuses(String),
}

impl NodeBackend {
    pub(super) async fn take_in(
        &self,
        request: AddMember,
        deadline: Instant,
    ) -> Result<MemberChanged, BackendError> {
        let invitation = Invitation {
            name: request.id.as_str().to_owned(),
            address: address(&request.host, request.port),
            learner: request.learner,
        };
        let mut absent = "it has not joined yet; ask again".to_owned();
        // The data directory of the node that answered at the address.
        let mut found = None;
        self.membership()?;
        loop {
            if let Some(message) = self.describe_member(&invitation, found) {
                return Ok(MemberChanged {
                    success: true,
                    id: request.id,
                    message,
                });
            }
            if self.clock.now() >= deadline {
                return Err(BackendError::Refused(self.why_not_added(&invitation, &absent)));
            }
            let (reply, answer) = oneshot::channel();
            self.request(Request::Invite {
                invitation: invitation.clone(),
                reply,
            })?;
            match self.answer(answer, deadline, BackendError::TimedOut).await {
                Ok(Invited::Coming(directory)) => found = Some(directory),
                Err(BackendError::TimedOut) => {}
                Ok(Invited::Absent(how)) => absent = how,
                Ok(Invited::Refuses(why)) => return Err(BackendError::Refused(why)),
                Err(error) => return Err(error),
            }
            self.wait_for_member(&invitation, found, deadline).await;
        }
    }

    /// What an operator may want to know of the member that was meant; none when it is none.
    fn describe_member(&self, invitation: &Invitation, found: Option<DirectoryId>) -> Option<String> {
        let view = self.view.borrow();
        let membership = view.membership.as_ref()?;
        let (id, member) = membership.by_name(&invitation.name)?;
        if !invitation.is_of(member, found) {
            return None;
        }
        let part = if membership.is_voter(id) {
            "it is a member and votes".to_owned()
        } else if !member.promote {
            "it is a member, and stays a learner".to_owned()
        } else {
            // Only the leader knows.
            let progress = view.progress.iter().find(|peer| peer.id == id);
            let lacks = progress.map_or_else(String::new, |peer| {
                let lacks = view.last.0.saturating_sub(peer.matched.0);
                format!(" (it is not known yet to hold {lacks} of {} entries)", view.last)
            });
            format!("it is a member, and votes when it has caught up{lacks}")
        };
        Some(format!(
            "{part}; other nodes reach it at {}",
            member.cluster_address
        ))
    }

    /// Why the node is no member by the deadline, or a member that is elsewhere.
    fn why_not_added(&self, invitation: &Invitation, absent: &str) -> String {
        let Invitation { name, address, .. } = invitation;
        let view = self.view.borrow();
        let membership = view.membership.as_ref();
        match membership.and_then(|membership| membership.by_name(name)) {
            Some((_, member)) => format!(
                "node {name} is a member already, and other nodes reach it at {}, not at {address} ({absent}). If it \
                 moved, start it with its data directory and the new address: it tells the others itself. If this is \
                 to be another node, give it another name",
                member.cluster_address
            ),
            None => format!(
                "node {name} is no member yet: {absent}. Start it with --node-id {name} and an address that other nodes \
                 reach as {address}, with the secret of this cluster"
            ),
        }
    }

    async fn wait_for_member(&self, invitation: &Invitation, found: Option<DirectoryId>, deadline: Instant) {
        let mut view = self.view.clone();
        let known = view.wait_for(|view| {
            let membership = view.membership.as_ref();
            let member = membership.and_then(|membership| membership.by_name(&invitation.name));
            member.is_some_and(|(_, member)| invitation.is_of(member, found))
        });
        let until = (self.clock.now() + JOIN_TIME).min(deadline);
        tokio::select! {
            biased;
            // When the view ends the node is stopping, and the next request says so.
            _ = known => {}
            () = self.clock.sleep_until(until) => {}
        }
    }
}

impl Consensus {
    /// Tells a node of this cluster.
    pub(super) fn invite(&self, invitation: Invitation, reply: oneshot::Sender<Invited>) {
        let transport = self.transport.clone();
        let own_lineage = self.raft.status().membership.lineage();
        tokio::task::spawn_local(async move {
            let Invitation {
                name,
                address,
                learner,
            } = invitation;
            let asked = transport
                .ask(&address, Some(&name), Ask::Invite { learner }, ASK_TIME)
                .await;
            let invited = match asked {
                Ok(Answer::Identity { hello, .. }) => match hello.lineage {
                    Some(lineage) if lineage != own_lineage => Invited::Refuses(format!(
                        "node {name} at {address} belongs to another cluster, lineage {lineage}: to take it in here, \
                         stop it, move its data directory aside and start it again"
                    )),
                    _ => Invited::Coming(hello.directory),
                },
                Ok(Answer::Refused { message } | Answer::KeptOut { message }) => Invited::Refuses(message),
                Ok(_) => Invited::Refuses(format!("the node at {address} gave no answer that makes sense")),
                Err(ConnectError::Refused(refusal)) => Invited::Refuses(refusal.to_string()),
                Err(error) => Invited::Absent(error.to_string()),
            };
            // A client that went away needs no answer.
            let _ = reply.send(invited);
        });
    }
}

/// `host:port`, with brackets around an IPv6 address.
fn address(host: &str, port: u16) -> String {
    if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

#[cfg(test)]
mod tests {
    use super::address;

    #[test]
    fn an_ipv6_host_gets_brackets() {
        assert_eq!(address("::1", 9100), "[::1]:9100");
        assert_eq!(address("[::1]", 9100), "[::1]:9100");
        assert_eq!(address("10.0.0.4", 9100), "10.0.0.4:9100");
    }
}
