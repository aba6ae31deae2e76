//! The other members: how they are reached, and what they said of themselves.
//!
//! Invariant: what a reader is shown of a member is what it said, with the age of it; silence is shown as such.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_core::Instant;
use quorate_core::duties::{Learner, PromotionLimits, Situation, learner_to_promote};
use quorate_core::raft::{LinkEvent, NodeId, Role};

use super::consensus::Consensus;
use super::view::{PeerView, View};
use crate::port::Machine;
use crate::transport::{Ask, Frame, Hello, NodeReport, Peer};

/// How often a node tells the others of itself, in looks at its duties (10 a second).
const REPORT_EVERY: u64 = 10;
/// How often the operator is told the same.
const WARN_AGAIN: Duration = Duration::from_secs(60);
/// How long an absent member may take to answer.
const ASK_TIME: Duration = Duration::from_millis(400);
/// How often a member that is not connected is asked who it is, in looks at the duties.
const ASK_EVERY: u64 = 5;
/// How long after its start a node says of a member that it has not met yet that it does not know how it is.
const FIRST_CONTACT: Duration = Duration::from_secs(3);

/// What is known of the other members.
pub(super) struct Peers {
    /// This node's name.
    pub(super) name: String,
    connected: BTreeSet<NodeId>,
    reports: BTreeMap<NodeId, (Instant, NodeReport)>,
    own: NodeReport,
    looks: u64,
    began: Instant,
    /// When the operator was last told that the others disown this node.
    warned: Option<Instant>,
}

impl Peers {
    pub(super) fn new(name: String, client_address: String, now: Instant) -> Peers {
        let own = NodeReport {
            client_address,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..NodeReport::default()
        };
        Peers {
            name,
            connected: BTreeSet::new(),
            reports: BTreeMap::new(),
            own,
            looks: 0,
            began: now,
            warned: None,
        }
    }

    pub(super) fn link(&mut self, peer: NodeId, event: LinkEvent) {
        match event {
            LinkEvent::Connected => self.connected.insert(peer),
            LinkEvent::Lost | LinkEvent::Refused => self.connected.remove(&peer),
        };
    }

    pub(super) fn connected(&self) -> usize {
        self.connected.len()
    }

    pub(super) fn reported(&mut self, peer: NodeId, report: NodeReport, now: Instant) {
        self.reports.insert(peer, (now, report));
    }

    pub(super) fn own_report(&self) -> &NodeReport {
        &self.own
    }

    pub(super) fn met_stranger(&self, hello: &Hello) {
        tracing::debug!(
            name = hello.name,
            address = hello.cluster_address,
            "met a node that is no member"
        );
    }
}

impl Consensus {
    /// Tells the transport whom to connect to.
    pub(super) fn meet_members(&mut self) {
        let status = self.raft.status();
        let mut by_name: BTreeMap<&str, Peer> = BTreeMap::new();
        // During a change a name may stand twice: the later id is the node that came back without its data.
        for (id, member) in status.membership.members() {
            if *id != status.id && member.name != self.peers.name {
                let peer = Peer {
                    id: *id,
                    name: member.name.clone(),
                    directory: member.directory,
                    cluster_address: member.cluster_address.clone(),
                };
                by_name.insert(&member.name, peer);
            }
        }
        let peers: Vec<Peer> = by_name.into_values().collect();
        self.peers
            .connected
            .retain(|id| peers.iter().any(|peer| peer.id == *id));
        self.peers
            .reports
            .retain(|id, _| peers.iter().any(|peer| peer.id == *id));
        self.transport.set_peers(peers);
    }

    /// A member takes this node's data for lost. It may lag behind a change of the membership, so this alone is no
    /// reason to stop; a node that really was replaced finds no leader, and its operator finds this line.
    pub(super) fn disowned(&mut self) {
        let now = self.ports.clock.now();
        if self
            .peers
            .warned
            .is_none_or(|warned| now.since(warned) >= WARN_AGAIN)
        {
            self.peers.warned = Some(now);
            tracing::warn!(
                "a member knows this node with another data directory; if it stays so, this one is an old copy: move \
                 it aside and start the node again, and it comes back as a learner and catches up from the others"
            );
        }
    }

    pub(super) fn look_after_peers(&mut self) {
        self.peers.looks += 1;
        let looks = self.peers.looks;
        if looks % REPORT_EVERY == 1 {
            self.peers.own.applied = self.raft.status().applied;
            self.peers.own.measure(&*self.ports.machine);
            for peer in self.peers.connected.clone() {
                let _ = self.transport.send(peer, &Frame::Report(self.peers.own.clone()));
                if let Some(round_trip) = self.transport.peer_rtt(peer) {
                    let name = self.name_of(peer);
                    self.metrics.peer_round_trip(&name).observe(round_trip);
                }
            }
        }
        if looks.is_multiple_of(ASK_EVERY) {
            self.ask_absent();
        }
    }

    /// Asks members that are not connected who they are: a node that lost its data learns so of its cluster.
    fn ask_absent(&mut self) {
        let status = self.raft.status();
        for (id, member) in status.membership.members() {
            if *id == status.id || member.name == self.peers.name || self.peers.connected.contains(id) {
                continue;
            }
            let (transport, member) = (self.transport.clone(), member.clone());
            tokio::task::spawn_local(async move {
                // Whatever it answers, it has heard of us.
                let _ = transport
                    .ask(
                        &member.cluster_address,
                        Some(&member.name),
                        Ask::WhoAreYou,
                        ASK_TIME,
                    )
                    .await;
            });
        }
    }

    pub(super) fn learner_to_promote(&self) -> Option<NodeId> {
        let status = self.raft.status();
        if status.role != Role::Leader || status.membership.learners().is_empty() {
            return None;
        }
        let learners: Vec<Learner> = status
            .peers
            .iter()
            .filter(|peer| status.membership.learners().contains(&peer.id))
            .map(|peer| Learner {
                id: peer.id,
                promote: status
                    .membership
                    .members()
                    .get(&peer.id)
                    .is_some_and(|member| member.promote),
                matched: peer.matched,
                reachable: self.peers.connected.contains(&peer.id),
            })
            .collect();
        let situation = Situation {
            commit: status.commit,
            last: status.last.index,
            changing: status.membership.is_joint() || status.membership_position.index > status.commit,
            learners: &learners,
        };
        learner_to_promote(&situation, &PromotionLimits::default())
    }

    pub(super) fn view(&self) -> View {
        let status = self.raft.status();
        let now = self.ports.clock.now();
        let peers = status.membership.members().keys().filter(|id| **id != status.id);
        View {
            id: Some(status.id),
            role: status.role,
            term: status.term,
            leader: status.leader,
            commit: status.commit,
            applied: status.applied,
            last: status.last.index,
            membership: Some(status.membership.clone()),
            peers: peers
                .map(|id| PeerView {
                    id: *id,
                    connected: self.peers.connected.contains(id),
                    heard: self.peers.reports.get(id).map(|(heard, _)| now.since(*heard)),
                    awaited: !self.peers.reports.contains_key(id)
                        && now.since(self.peers.began) < FIRST_CONTACT,
                    report: self.peers.reports.get(id).map(|(_, report)| report.clone()),
                })
                .collect(),
            progress: status.peers,
            own: self.peers.own.clone(),
            repairing: status.repairing.is_some(),
            waiting_for: status.leader.is_none().then(|| "no leader is known".to_owned()),
        }
    }
}

impl NodeReport {
    fn measure(&mut self, machine: &dyn Machine) {
        let load = machine.load();
        self.cpu_percent = load.cpu_percent;
        self.memory_percent = load.memory_percent;
        self.load = load.load_average;
    }
}
