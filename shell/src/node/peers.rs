//! The other members: how they are reached, and what they said of themselves.
//!
//! Invariant: what a reader is shown of a member is what it said, with the age of it; silence is shown as such.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_core::Instant;
use quorate_core::duties::{Learner, Situation, learner_to_promote};
use quorate_core::raft::{Change, LinkEvent, NodeId, Operation, Role};

use super::clients::Pending;
use super::consensus::Consensus;
use super::notices::{AGAIN, Notices};
use super::view::{PeerView, View};
use super::whereabouts::{Met, Whereabouts};
use crate::port::Machine;
use crate::transport::{Ask, Frame, Hello, NodeReport, Peer, TakenIn};

/// How often a node tells the others of itself, in looks at its duties (10 a second).
const REPORT_EVERY: u64 = 10;
/// How long an absent member may take to answer.
const ASK_TIME: Duration = Duration::from_millis(400);
/// How often a member that is not connected is asked who it is, in looks at the duties.
const ASK_EVERY: u64 = 5;
/// How long after its start a node says of a member that it has not met yet that it does not know how it is.
const FIRST_CONTACT: Duration = Duration::from_secs(3);

/// How long members must take this node's data for lost before the operator hears of it: longer than a change of the
/// membership takes to reach all of them.
const DOUBT: Duration = Duration::from_secs(1);

/// What is known of the other members.
pub(super) struct Peers {
    /// This node's name.
    pub(super) name: String,
    connected: BTreeSet<NodeId>,
    reports: BTreeMap<NodeId, (Instant, NodeReport)>,
    own: NodeReport,
    looks: u64,
    began: Instant,
    /// How long ago a member may have been heard of to be in touch.
    patience: Duration,
    whereabouts: Whereabouts,
    /// Why this node is no member any more, once it is none.
    removed: Option<String>,
    /// Whether the membership is not committed yet, so that nobody can be told that it was removed.
    unsettled: bool,
    /// Since when a member takes this node's data for lost.
    disowned: Option<Instant>,
    /// What the operator was told of other nodes.
    pub(super) notices: Notices,
}

impl Peers {
    pub(super) fn new(
        name: String,
        client_address: String,
        patience: Duration,
        whereabouts: Whereabouts,
        now: Instant,
    ) -> Peers {
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
            patience,
            whereabouts,
            removed: None,
            unsettled: true,
            disowned: None,
            notices: Notices::default(),
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
        self.peers.whereabouts.forget_all_but(status.membership);
        for newcomer in self.peers.whereabouts.newcomers() {
            if newcomer.name != self.peers.name {
                by_name.insert(&newcomer.name, newcomer.clone());
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
        self.dial_elsewhere();
        self.tell_taken_in();
    }

    /// Tells the transport who is known to have been a member once, as soon as that is committed.
    pub(super) fn tell_taken_in(&mut self) {
        let status = self.raft.status();
        let settled = !status.membership.is_joint() && status.membership_position.index <= status.commit;
        let taken_in = settled.then(|| TakenIn {
            below: status.membership.next_id(),
            index: status.membership_position.index,
        });
        self.peers.unsettled = !settled;
        self.transport.set_taken_in(taken_in);
    }

    /// The same, once in each round of work for as long as the membership is not committed.
    pub(super) fn settle_membership(&mut self) {
        if self.peers.unsettled {
            self.tell_taken_in();
        }
    }

    /// Tells the transport where members may be that are not where the membership has them.
    fn dial_elsewhere(&self) {
        for (id, member) in self.raft.status().membership.members() {
            let addresses = self.peers.whereabouts.elsewhere(*id, member);
            self.transport.set_elsewhere(*id, addresses);
        }
    }

    /// A node said who and where it is.
    pub(super) fn greeted(&mut self, hello: &Hello) {
        let membership = self.raft.status().membership;
        if hello
            .lineage
            .is_some_and(|lineage| lineage != membership.lineage())
        {
            self.met_other_lineage(hello);
            return;
        }
        let (now, connected) = (self.ports.clock.now(), &self.peers.connected);
        let met = self
            .peers
            .whereabouts
            .met(membership, hello, |id| connected.contains(&id), now);
        if let Met::Twice { name, other } = &met
            && self.peers.notices.due(&format!("twice {name}"), now, AGAIN)
        {
            tracing::warn!(
                node = name,
                here = hello.cluster_address,
                there = other,
                "a member is now here and now there: if nobody moved it, two processes run on copies of one data \
                 directory, and acknowledged writes can be lost: stop the newer one and delete its copy"
            );
        }
        match met {
            Met::Known => {}
            Met::Moved | Met::Twice { .. } => self.dial_elsewhere(),
            Met::Newcomer => self.meet_members(),
        }
    }

    pub(super) fn reported(&mut self, peer: NodeId, report: NodeReport) {
        let membership = self.raft.status().membership;
        let news = self.peers.whereabouts.heard(membership, &report.whereabouts);
        self.peers.reports.insert(peer, (self.ports.clock.now(), report));
        if news {
            self.dial_elsewhere();
        }
    }

    /// As a leader, records where a member is that moved.
    pub(super) fn record_moves(&mut self) {
        let status = self.raft.status();
        let changing = status.membership.is_joint() || status.membership_position.index > status.commit;
        if self.duty_pending || changing || status.role != Role::Leader {
            return;
        }
        let connected = &self.peers.connected;
        let change = self
            .peers
            .whereabouts
            .change(status.id, status.membership, |id| connected.contains(&id));
        let Some(change) = change else { return };
        if let Change::Update {
            id, cluster_address, ..
        } = &change
        {
            let (now, name) = (self.ports.clock.now(), self.name_of(*id));
            // Asked for again while another change is under way.
            if self
                .peers
                .notices
                .due(&format!("{name} moved to {cluster_address}"), now, AGAIN)
            {
                tracing::info!(
                    node = name,
                    address = cluster_address,
                    "a member moved; the membership gets its new address"
                );
            }
        }
        self.duty_pending = true;
        self.administer(Pending::Duty, Operation::ChangeMembership(vec![change]));
    }

    /// Notices that this node was removed, or is a member after all.
    fn look_at_own_part(&mut self) {
        let status = self.raft.status();
        let is_member = status.membership.members().contains_key(&status.id);
        let led = status.leader.is_some_and(|leader| leader != status.id);
        if is_member && led {
            self.peers.removed = None;
            self.peers.disowned = None;
        } else if !is_member && !self.peers.unsettled {
            let message = format!(
                "this node was removed from the cluster: the membership at index {} is without it. Stop it; to take it \
                 in again, start it with an empty data directory and --peers",
                status.membership_position.index
            );
            self.dismissed(message);
        }
    }

    /// This node is no member any more; `message` says how it knows and what to do.
    pub(super) fn dismissed(&mut self, message: String) {
        if self.peers.removed.is_none() {
            self.peers.removed = Some(message.clone());
            // Whoever reads the line and asks finds the same.
            self.publish();
            tracing::warn!("{message}");
        }
    }

    /// A member takes this node's data for lost. It may lag behind a change of the membership, so this alone is no
    /// reason to stop, and none to alarm anybody at once: a node that was removed is told so by the others meanwhile. One
    /// that really was replaced finds no leader, and its operator finds this line.
    pub(super) fn disowned(&mut self) {
        let now = self.ports.clock.now();
        let since = *self.peers.disowned.get_or_insert(now);
        let sure = self.peers.removed.is_none() && now.since(since) >= DOUBT;
        if sure && self.peers.notices.due("disowned", now, AGAIN) {
            tracing::warn!(
                "a member knows this node with another data directory; if it stays so, this one is an old copy: move \
                 it aside and start the node again, and it comes back as a learner and catches up from the others"
            );
        }
    }

    /// Whether this node leads and knows that a member runs: it is this node, a connection to it stands, or it was heard
    /// of lately.
    pub(super) fn is_in_touch(&self, id: NodeId) -> bool {
        let status = self.raft.status();
        let now = self.ports.clock.now();
        let heard = status
            .peers
            .iter()
            .find(|peer| peer.id == id)
            .map(|peer| peer.heard);
        id == status.id
            || self.peers.connected.contains(&id)
            || heard.is_some_and(|heard| now.since(heard) < self.peers.patience)
    }

    pub(super) fn look_after_peers(&mut self) {
        self.look_at_own_part();
        self.peers.looks += 1;
        let looks = self.peers.looks;
        if looks % REPORT_EVERY == 1 {
            self.peers.own.applied = self.raft.status().applied;
            self.peers.own.measure(&*self.ports.machine);
            let connected = &self.peers.connected;
            self.peers.own.whereabouts = self
                .peers
                .whereabouts
                .told(self.raft.status().id, |id| connected.contains(&id));
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

    /// Asks members that are not connected who they are, wherever they may be: a node that lost its data learns so of
    /// its cluster, and one that moved tells where it is.
    fn ask_absent(&mut self) {
        let status = self.raft.status();
        let mut questions: Vec<(String, Option<String>)> = Vec::new();
        for (id, member) in status.membership.members() {
            if *id == status.id || member.name == self.peers.name || self.peers.connected.contains(id) {
                continue;
            }
            let elsewhere = self.peers.whereabouts.elsewhere(*id, member);
            let addresses = [member.cluster_address.clone()].into_iter().chain(elsewhere);
            questions.extend(addresses.map(|address| (address, Some(member.name.clone()))));
        }
        if !questions.is_empty() {
            let unnamed = self.peers.whereabouts.unnamed().iter();
            questions.extend(unnamed.map(|address| (address.clone(), None)));
        }
        for (address, name) in questions {
            let transport = self.transport.clone();
            tokio::task::spawn_local(async move {
                // Whatever it answers, both have heard of each other.
                let _ = transport
                    .ask(&address, name.as_deref(), Ask::WhoAreYou, ASK_TIME)
                    .await;
            });
        }
    }

    pub(super) fn learner_to_promote(&self) -> Option<NodeId> {
        let status = self.raft.status();
        if status.role != Role::Leader || status.membership.learners().is_empty() {
            return None;
        }
        // A witness stays a learner while the cluster has as many as it can have.
        let may_vote = |id: &NodeId| status.membership.changed(&[Change::Promote(*id)]).is_ok();
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
                    .is_some_and(|member| member.promote && may_vote(&peer.id)),
                matched: peer.matched,
                caught_up: peer.caught_up && self.peers.connected.contains(&peer.id),
            })
            .collect();
        let situation = Situation {
            changing: status.membership.is_joint() || status.membership_position.index > status.commit,
            learners: &learners,
        };
        learner_to_promote(&situation)
    }

    pub(super) fn view(&self) -> View {
        let status = self.raft.status();
        let now = self.ports.clock.now();
        let peers = status.membership.members().keys().filter(|id| **id != status.id);
        let outside = self.aside.reason().or_else(|| self.peers.removed.clone());
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
            read_only: status.read_only,
            waiting_for: match outside.clone() {
                Some(outside) => Some(outside),
                None => status.leader.is_none().then(|| "no leader is known".to_owned()),
            },
            outside,
            aside: self.aside.reason(),
            only_here: self.aside.only_here(),
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
