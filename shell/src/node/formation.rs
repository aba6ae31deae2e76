//! How a node without a part in a cluster gets one.
//!
//! A blank node first asks whether its cluster exists already: only if nobody that it can reach knows of one may it
//! found one. Three ways lead on:
//! - a static list: when every listed node answers and all are blank, the first of the list draws the lineage and tells the
//!   others the first membership, with the data directory of each;
//! - a list of peers to join: the leader takes the node in as a learner, under an id that was never used;
//! - neither: the node waits a moment for members that may know it, then founds a cluster of its own.
//!
//! Invariants: a node with a lineage never founds a cluster; a node whose name is known and whose data is not comes
//! back as a learner under another id; what a node is told becomes durable before it acts on it, the log first and the
//! identity, which makes it count, last.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use quorate_core::raft::{
    Base, DirectoryId, DiskError, Lineage, Member, Membership, NodeId, Position, Write, WriteId,
};
use tokio::sync::mpsc;

use super::inbox::{AdminOutcome, LeaseOutcome, ReadOutcome, Request, WriteOutcome};
use super::invite::Invited;
use super::notices::{AGAIN, Notices};
use crate::config::{Config, Formation, StaticNode};
use crate::port::Ports;
use crate::storage::{Assignment, DataDirectory, Log, StorageError};
use crate::transport::{Answer, Ask, Event, Events, Hello, Responder, Transport};

/// How long one question may take.
const ASK_TIME: Duration = Duration::from_secs(2);
/// How long joining may take: it waits for a majority.
const JOIN_TIME: Duration = Duration::from_secs(10);
/// The pause between two rounds of questions grows from the first to the second.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));
/// How long a first node listens for members that know it before it founds a cluster. Members ask absent ones who they
/// are twice a second.
const LISTEN: Duration = Duration::from_millis(1_500);
/// How often the operator is told what the node waits for.
const REMIND: Duration = Duration::from_secs(5);

/// What a blank node is told to become.
struct Part {
    id: NodeId,
    membership: Membership,
}

impl Part {
    /// Where the node's log begins: before the first entry, with the membership that it was told.
    fn base(&self) -> Base {
        Base {
            position: Position::default(),
            membership: self.membership.clone(),
        }
    }
}

/// Why a node got no part.
#[derive(Debug, thiserror::Error)]
pub(super) enum FormationError {
    /// The node was told to stop first.
    #[error("stopped before the node belonged to a cluster")]
    Stopped,
    /// What it was told could not be made durable.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The log could not be begun.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The system has no entropy.
    #[error("no random bytes for the lineage of the cluster: {0}")]
    Entropy(#[from] std::io::Error),
}

/// A blank node that looks for its cluster.
pub(super) struct Blank<'a> {
    pub(super) ports: &'a Ports,
    pub(super) events: &'a mut Events,
    pub(super) requests: &'a mut mpsc::Receiver<Request>,
    pub(super) directory: &'a mut DataDirectory,
    pub(super) log: &'a mut Log,
    pub(super) seeker: Seeker,
    /// Addresses of nodes that may know the cluster.
    pub(super) addresses: Vec<String>,
}

/// Asks other nodes on behalf of a blank one.
#[derive(Clone)]
pub(super) struct Seeker {
    config: Arc<Config>,
    transport: Transport,
    own: Member,
    /// The lineage of the cluster, should this node found it.
    lineage: Lineage,
}

/// What a round of questions came to.
enum Round {
    Part(Part),
    /// Nothing yet; what the operator may want to know of it.
    Nothing(Option<String>),
    /// An operator must do something before this node gets a part.
    KeptOut(String),
}

impl Blank<'_> {
    /// Looks for the cluster until the node has a part in one, durably; returns where its log begins.
    ///
    /// # Errors
    /// When the node is stopped first, or its disk fails.
    pub(super) async fn run(mut self) -> Result<Base, FormationError> {
        let listen_until = self.ports.clock.now() + LISTEN;
        let mut pause = PAUSES.0;
        let mut notices = Notices::default();
        loop {
            let now = self.ports.clock.now();
            let alone = self.seeker.founds_alone() && self.addresses.is_empty() && now >= listen_until;
            let round = self.seeker.clone().round(self.addresses.clone(), alone);
            match self.attend(round).await? {
                Round::Part(part) => return self.accept(part).await,
                Round::Nothing(None) => {}
                Round::Nothing(Some(reminder)) => {
                    if notices.due("waiting", now, REMIND) {
                        tracing::info!("{reminder}");
                    }
                }
                Round::KeptOut(message) => {
                    if notices.due(&message, now, AGAIN) {
                        tracing::warn!("{message}");
                    }
                }
            }
            let sleep = self.ports.clock.sleep_until(self.ports.clock.now() + pause);
            let slept = async {
                sleep.await;
                Round::Nothing(None)
            };
            if let Round::Part(part) = self.attend(slept).await? {
                return self.accept(part).await;
            }
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Answers whoever talks to this node while `round` goes on; a part that it is given meanwhile ends the round.
    async fn attend(&mut self, round: impl Future<Output = Round>) -> Result<Round, FormationError> {
        let mut round = std::pin::pin!(round);
        loop {
            tokio::select! {
                biased;
                event = self.events.next() => match event {
                    Some(Event::Ask { from, ask, answer }) => {
                        if let Some(part) = self.asked(&from, ask, answer).await? {
                            return Ok(Round::Part(part));
                        }
                    }
                    Some(Event::Invited { members, .. }) => {
                        for (_, address) in members {
                            self.learn(&address);
                        }
                    }
                    Some(_) => {}
                    None => return Err(FormationError::Stopped),
                },
                request = self.requests.recv() => match request {
                    None | Some(Request::Stop) => return Err(FormationError::Stopped),
                    Some(request) => refuse(request),
                },
                outcome = &mut round => return Ok(outcome),
            }
        }
    }

    async fn asked(
        &mut self,
        from: &Hello,
        ask: Ask,
        answer: Responder,
    ) -> Result<Option<Part>, FormationError> {
        if from.lineage.is_some() {
            self.learn(&from.cluster_address);
        }
        match ask {
            Ask::WhoAreYou => answer.answer(Answer::Identity {
                hello: self.seeker.transport.hello(),
                members: Vec::new(),
                leader_name: None,
                leader_cluster_address: None,
            }),
            Ask::Invite { learner } => {
                self.seeker.own.promote = !learner && !self.seeker.config.learner;
                answer.answer(Answer::Identity {
                    hello: self.seeker.transport.hello(),
                    members: Vec::new(),
                    leader_name: None,
                    leader_cluster_address: None,
                });
            }
            Ask::Join { .. } => {
                let message = format!("node {} belongs to no cluster itself yet", self.seeker.own.name);
                answer.answer(Answer::Refused { message });
            }
            Ask::History => {
                let message = format!("node {} belongs to no cluster itself yet", self.seeker.own.name);
                answer.answer(Answer::Refused { message });
            }
            Ask::Remove { .. } => answer.answer(Answer::Again),
            Ask::Form { membership, id } => {
                if let Err(message) = self.seeker.judge(&membership, id) {
                    tracing::warn!(founder = from.name, message, "did not agree to found a cluster");
                    answer.answer(Answer::Refused { message });
                    return Ok(None);
                }
                self.make_durable(&Part {
                    id,
                    membership: membership.clone(),
                })
                .await?;
                answer.answer(Answer::Formed);
                return Ok(Some(Part { id, membership }));
            }
        }
        Ok(None)
    }

    async fn accept(&mut self, part: Part) -> Result<Base, FormationError> {
        self.make_durable(&part).await?;
        let members: Vec<&str> = part
            .membership
            .members()
            .values()
            .map(|member| &*member.name)
            .collect();
        let lineage = part.membership.lineage();
        tracing::info!(%lineage, id = %part.id, members = members.join(","), "this node belongs to a cluster");
        Ok(part.base())
    }

    /// The log begins with the membership; the identity, which makes it count, is written last.
    async fn make_durable(&mut self, part: &Part) -> Result<(), FormationError> {
        let assignment = Assignment {
            lineage: part.membership.lineage(),
            node: part.id,
        };
        if self.directory.identity().assignment == Some(assignment) {
            return Ok(());
        }
        let write = Write {
            id: WriteId(0),
            hard_state: None,
            reset: Some(Box::new(part.base())),
            entries: Vec::new().into(),
        };
        self.log.append(&[write]).await?;
        self.directory.assign(assignment).await?;
        Ok(())
    }

    fn learn(&mut self, address: &str) {
        let own = self.seeker.own.cluster_address == address;
        if !address.is_empty() && !own && !self.addresses.iter().any(|known| known == address) {
            tracing::info!(
                address,
                "a member knows this node: it joins instead of founding a cluster"
            );
            self.addresses.push(address.to_owned());
        }
    }
}

impl Seeker {
    /// # Errors
    /// When the system has no entropy.
    pub(super) fn new(
        config: Arc<Config>,
        ports: &Ports,
        transport: Transport,
        directory: DirectoryId,
    ) -> Result<Seeker, FormationError> {
        let mut bytes = [0; 16];
        ports.entropy.fill(&mut bytes)?;
        let own = Member {
            promote: !config.learner,
            witness: config.witness,
            ..Member::new(
                config.node_name.as_str(),
                directory,
                &config.cluster_address,
                &config.client_address,
            )
        };
        Ok(Seeker {
            config,
            transport,
            own,
            lineage: Lineage(u128::from_le_bytes(bytes)),
        })
    }

    /// The addresses that the configuration names.
    pub(super) fn addresses(&self) -> Vec<String> {
        match &self.config.formation {
            Formation::Static(nodes) => nodes
                .iter()
                .filter(|node| node.name != self.config.node_name)
                .map(|node| node.cluster_address.clone())
                .collect(),
            Formation::Join(addresses) => addresses.clone(),
            Formation::First => Vec::new(),
        }
    }

    fn founds_alone(&self) -> bool {
        match &self.config.formation {
            Formation::Static(nodes) => nodes.len() == 1,
            Formation::Join(_) => false,
            Formation::First => true,
        }
    }

    async fn round(self, addresses: Vec<String>, alone: bool) -> Round {
        if alone {
            tracing::warn!(
                "no peers are configured and no member knows this node: founding a cluster; if it should belong to one \
                 that exists, stop it and start it with an empty data directory and --peers"
            );
            return Round::Part(self.found_alone());
        }
        let questions = addresses.iter().map(|address| {
            let transport = &self.transport;
            async move {
                (
                    address,
                    transport.ask(address, None, Ask::WhoAreYou, ASK_TIME).await,
                )
            }
        });
        let mut hellos = Vec::new();
        let mut missing = Vec::new();
        let mut members = Vec::new();
        for (address, answer) in join_all(questions).await {
            match answer {
                Ok(Answer::Identity { hello, .. }) if hello.lineage.is_some() => members.push(address),
                Ok(Answer::Identity { hello, .. }) => hellos.push(hello),
                Ok(_) => missing.push(format!("{address} gave no answer that makes sense")),
                Err(error) => missing.push(error.to_string()),
            }
        }
        if !members.is_empty() {
            return self.join_one_of(&members).await;
        }
        match &self.config.formation {
            Formation::Static(nodes) if nodes.len() > 1 => match self.all_of(nodes, &hellos) {
                Ok(nodes) if self.is_founder(&nodes) => self.found(&nodes).await,
                Ok(_) => Round::Nothing(None),
                Err(absent) => Round::Nothing(Some(format!(
                    "waiting for every listed node before the cluster is founded; missing: {}",
                    absent.join(", ")
                ))),
            },
            _ if missing.is_empty() => Round::Nothing(None),
            _ => Round::Nothing(Some(format!(
                "waiting for a member to join at: {}",
                missing.join("; ")
            ))),
        }
    }

    /// Of a list that all nodes share, the one with the least name.
    fn is_founder(&self, nodes: &[(StaticNode, DirectoryId)]) -> bool {
        nodes.iter().all(|(node, _)| self.config.node_name <= node.name)
    }

    /// The listed nodes with their data directories, or the names of those that did not answer.
    fn all_of(
        &self,
        nodes: &[StaticNode],
        hellos: &[Hello],
    ) -> Result<Vec<(StaticNode, DirectoryId)>, Vec<String>> {
        let mut absent = Vec::new();
        let mut found = Vec::new();
        for node in nodes {
            if node.name == self.config.node_name {
                found.push((node.clone(), self.own.directory));
                continue;
            }
            match hellos.iter().find(|hello| hello.name == node.name.as_str()) {
                Some(hello) => found.push((node.clone(), hello.directory)),
                None => absent.push(format!("{} at {}", node.name, node.cluster_address)),
            }
        }
        if absent.is_empty() { Ok(found) } else { Err(absent) }
    }

    /// Founds the cluster of the static list: every other node agrees before this one counts.
    async fn found(&self, nodes: &[(StaticNode, DirectoryId)]) -> Round {
        let numbered = nodes.iter().enumerate().map(|(place, (node, directory))| {
            let member = Member {
                witness: node.witness,
                ..Member::new(
                    node.name.as_str(),
                    *directory,
                    &node.cluster_address,
                    &node.client_address,
                )
            };
            (number_of(nodes, place), member)
        });
        let membership = &Membership::bootstrap(self.lineage, numbered.collect());
        let Some((own, _)) = membership.by_name(&self.own.name) else {
            return Round::Nothing(None);
        };
        let others = membership.members().iter().filter(|(id, _)| **id != own);
        let questions = others.map(|(id, member)| async move {
            let ask = Ask::Form {
                membership: membership.clone(),
                id: *id,
            };
            (
                &member.name,
                self.transport
                    .ask(&member.cluster_address, Some(&member.name), ask, ASK_TIME)
                    .await,
            )
        });
        let mut agreed = true;
        for (name, answer) in join_all(questions).await {
            let problem = match answer {
                Ok(Answer::Formed) => continue,
                Ok(Answer::Refused { message }) => message,
                Ok(_) => "it gave no answer that makes sense".to_owned(),
                Err(error) => error.to_string(),
            };
            agreed = false;
            tracing::warn!(
                node = name,
                problem,
                "a node did not agree to found the cluster; trying again"
            );
        }
        // Whoever agreed belongs to the lineage; the next round finds it there, and this node joins as what it is.
        if agreed {
            Round::Part(Part {
                id: own,
                membership: membership.clone(),
            })
        } else {
            Round::Nothing(None)
        }
    }

    fn found_alone(&self) -> Part {
        let id = NodeId(1);
        let member = Member {
            promote: false,
            ..self.own.clone()
        };
        Part {
            id,
            membership: Membership::bootstrap(self.lineage, BTreeMap::from([(id, member)])),
        }
    }

    /// Joins where it can: after a forced start nodes of an earlier lineage may still answer, and take in nobody.
    async fn join_one_of(&self, members: &[&String]) -> Round {
        let mut round = Round::Nothing(None);
        for address in members {
            round = self.join(address).await;
            if matches!(round, Round::Part(_)) {
                break;
            }
        }
        round
    }

    async fn join(&self, address: &str) -> Round {
        let mut address = address.to_owned();
        // A node that does not lead names the one that does, which may have changed by then.
        for _ in 0..3 {
            let ask = Ask::Join {
                member: self.own.clone(),
            };
            match self.transport.ask(&address, None, ask, JOIN_TIME).await {
                Ok(Answer::Joined { id, membership }) => return Round::Part(Part { id, membership }),
                Ok(Answer::TryLeader { cluster_address, .. }) => address = cluster_address,
                Ok(Answer::Refused { message }) => {
                    return Round::Nothing(Some(format!("{address} does not take this node in: {message}")));
                }
                Ok(Answer::KeptOut { message }) => {
                    return Round::KeptOut(format!("{address} does not take this node in: {message}"));
                }
                Ok(_) => break,
                Err(error) => return Round::Nothing(Some(format!("joining at {address}: {error}"))),
            }
        }
        Round::Nothing(None)
    }

    /// Whether the membership that a founder wants is the one that this node was configured with.
    fn judge(&self, membership: &Membership, id: NodeId) -> Result<(), String> {
        let Formation::Static(nodes) = &self.config.formation else {
            return Err(format!(
                "node {} was not started with a static list of nodes",
                self.config.node_name
            ));
        };
        let own = membership.members().get(&id);
        let fits = own.is_some_and(|own| own.name == self.own.name && own.directory == self.own.directory);
        if !fits {
            return Err(format!(
                "the founder takes node {} for another",
                self.config.node_name
            ));
        }
        let theirs: Vec<(&str, &str, bool)> = membership
            .members()
            .values()
            .map(|member| (&*member.name, &*member.cluster_address, member.witness))
            .collect();
        let missing = nodes
            .iter()
            .find(|node| !theirs.contains(&(node.name.as_str(), &*node.cluster_address, node.witness)));
        match missing {
            Some(node) => Err(format!(
                "the lists of nodes differ: node {} has {} at {}{}, the founder does not; make the lists the same",
                self.config.node_name,
                node.name,
                node.cluster_address,
                if node.witness { " as a witness" } else { "" }
            )),
            None if nodes.len() != theirs.len() => Err(format!(
                "the lists of nodes differ: node {} has {} nodes, the founder {}; make the lists the same",
                self.config.node_name,
                nodes.len(),
                theirs.len()
            )),
            None => Ok(()),
        }
    }
}

/// Answers a client that this node cannot serve yet.
pub(super) fn refuse(request: Request) {
    match request {
        Request::Write { reply, .. } => drop(reply.send(WriteOutcome::NoLeader)),
        Request::Read { reply, .. } => drop(reply.send(ReadOutcome::NoLeader)),
        Request::Leases { reply, .. } => drop(reply.send(LeaseOutcome::NoLeader)),
        Request::Remove { reply, .. } | Request::StepDown { reply, .. } => {
            drop(reply.send(AdminOutcome::NotLeader(None)));
        }
        Request::Invite { reply, .. } => {
            let message = "this node belongs to no cluster itself yet".to_owned();
            drop(reply.send(Invited::Absent(message)));
        }
        Request::Stop => {}
    }
}

/// The id of a listed node: its own number when all names are numbers, else its place in the list.
fn number_of(nodes: &[(StaticNode, DirectoryId)], place: usize) -> NodeId {
    let numbers: Option<Vec<u64>> = nodes.iter().map(|(node, _)| node.name.as_number()).collect();
    match numbers.filter(|numbers| numbers.iter().all(|number| *number > 0)) {
        Some(numbers) => NodeId(numbers[place]),
        None => NodeId(place as u64 + 1),
    }
}
