//! The first half of healing: a random quorum is healed, and what ails all others becomes permanent.
//!
//! The quorum is one that Raft promises to go on with. It holds a majority, in each half, of every membership that may
//! be in force: the one that was committed last, and any later one that a log holds or a message carries. And one of
//! its nodes can be elected by its votes alone: no log among them is ahead of the log of every node that may lead,
//! as that of a witness can be. Nodes whose damaged logs wait for repair have no vote, and count for nothing in this.
//!
//! What was on its way over a link that is cut for good is lost with it: else a message of a leader that is gone could
//! bring in a membership that nobody has judged the quorum by.

use std::collections::BTreeSet;

use quorate_core::raft::{Body, Index, LinkEvent, Membership, NodeId, Payload, Position};

use super::checker::Verdict;
use super::network::Cut;
use super::schedule::Time;
use super::world::{Event, World};
use crate::random::{Concern, PartsPerMillion, Stream};

/// How often everything is healed at once, so that a whole cluster has to find a leader after chaos too.
const ALL_AT_ONCE: PartsPerMillion = 250_000;
/// How many of the nodes that the quorum does not need are healed with it.
const MORE: PartsPerMillion = 200_000;
/// Nothing ends before the end of a run.
pub(super) const FOR_EVER: Time = Time::MAX;

/// What ails a node for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ailment {
    /// It does not run.
    Down,
    /// It and the healed ones cannot reach each other; others like it, it reaches.
    CutOff,
    /// It hears nobody.
    Deaf,
    /// It is heard by nobody.
    Unheard,
    /// Its disk syncs nothing.
    StalledDisk,
    /// It stands still.
    Paused,
}

/// What a node that is healed contributes.
struct Voice<'a> {
    id: NodeId,
    last: Position,
    membership: &'a Membership,
    witness: bool,
}

impl World {
    /// Draws the nodes that are healed first. None when that is everyone.
    pub(super) fn draw_survivors(&self) -> Option<BTreeSet<NodeId>> {
        let mut random = Stream::new(self.noise, Concern::Recovery);
        if random.chance(ALL_AT_ONCE) {
            return None;
        }
        let mut others = self.present();
        let in_force = self.memberships_in_force();
        let mut chosen = BTreeSet::new();
        while !self.can_go_on(&chosen, &in_force) {
            if others.is_empty() {
                return None;
            }
            let place = random.below(others.len() as u64);
            chosen.insert(others.swap_remove(usize::try_from(place).unwrap_or(0)));
        }
        let all = others.len();
        let more: Vec<NodeId> = others.into_iter().filter(|_| random.chance(MORE)).collect();
        (more.len() < all).then(|| {
            chosen.extend(more);
            chosen
        })
    }

    /// Every membership that may be in force, or come into force, without anybody changing it anew.
    fn memberships_in_force(&self) -> Vec<Membership> {
        let committed = self.membership_at.index;
        let machines = self.nodes.iter().filter(|node| !node.gone);
        let logs = machines.flat_map(|node| {
            let end = Index(node.disk.written.last().index.0 + 1);
            let written = node.disk.written.membership_before(end);
            let known = node.process.as_ref().map(|process| {
                let status = process.raft.status();
                (status.membership_position.index, status.membership)
            });
            [Some(written), known].into_iter().flatten()
        });
        let messages = self.schedule.pending().flat_map(|event| match event {
            Event::Deliver { message, .. } => match &message.body {
                Body::Append { entries, .. } => Some(entries),
                _ => None,
            },
            _ => None,
        });
        let under_way =
            messages
                .flat_map(|entries| entries.iter())
                .filter_map(|entry| match &entry.payload {
                    Payload::Membership(membership) => Some((entry.position.index, &**membership)),
                    Payload::Empty | Payload::Command(_) | Payload::Omitted => None,
                });
        let mut all = vec![self.membership.clone()];
        for (index, membership) in logs.chain(under_way) {
            if index > committed && !all.contains(membership) {
                all.push(membership.clone());
            }
        }
        all
    }

    /// Whether these nodes can elect a leader and commit, whatever becomes of the others.
    fn can_go_on(&self, chosen: &BTreeSet<NodeId>, in_force: &[Membership]) -> bool {
        let voices: Vec<Voice<'_>> = chosen.iter().filter_map(|id| self.voice(*id)).collect();
        let ids: BTreeSet<NodeId> = voices.iter().map(|voice| voice.id).collect();
        if !in_force.iter().all(|membership| is_quorum(membership, &ids)) {
            return false;
        }
        voices.iter().any(|candidate| {
            let votes = voices.iter().filter(|voice| voice.last <= candidate.last);
            let votes = votes.map(|voice| voice.id).collect();
            !candidate.witness
                && candidate.membership.is_voter(candidate.id)
                && is_quorum(candidate.membership, &votes)
        })
    }

    /// A node's say in elections; none while its log waits for repair.
    fn voice(&self, id: NodeId) -> Option<Voice<'_>> {
        let node = self.nodes.get(id).filter(|node| !node.is_lost())?;
        let (last, membership) = match &node.process {
            Some(process) => {
                let status = process.raft.status();
                (status.last, status.membership)
            }
            None => (node.disk.written.last(), node.disk.written.membership()),
        };
        Some(Voice {
            id,
            last,
            membership,
            witness: node.witness,
        })
    }

    /// What ails all others than the healed ones lasts; who was well falls ill.
    pub(super) fn make_faults_permanent(&mut self, healed: &BTreeSet<NodeId>) -> Verdict {
        let mut random = Stream::keyed(self.noise, Concern::Recovery, 0);
        let now = self.schedule.now();
        let others: Vec<NodeId> = self.present();
        for id in others.into_iter().filter(|id| !healed.contains(id)) {
            let ailment = self.draw_ailment(&mut random);
            self.log(|_| format!("for good: node {id}: {ailment:?}"));
            if let Some(node) = self.nodes.get_mut(id) {
                for until in [&mut node.paused_until, &mut node.stalled_until] {
                    *until = if *until > now { FOR_EVER } else { 0 };
                }
            }
            self.ail(id, ailment, healed)?;
        }
        Ok(())
    }

    fn draw_ailment(&self, random: &mut Stream) -> Ailment {
        use Ailment::{CutOff, Deaf, Down, Paused, StalledDisk, Unheard};
        let ailment = *random.pick(&[Down, Down, CutOff, CutOff, Deaf, Unheard, StalledDisk, Paused]);
        // A leader that is still heard could put a witness ahead of all who may lead.
        let witnesses = self.nodes.iter().any(|node| node.witness);
        match ailment {
            Deaf | Unheard | StalledDisk if witnesses => CutOff,
            _ => ailment,
        }
    }

    fn ail(&mut self, id: NodeId, ailment: Ailment, healed: &BTreeSet<NodeId>) -> Verdict {
        let others: Vec<NodeId> = self
            .nodes
            .iter()
            .map(|node| node.id)
            .filter(|other| *other != id)
            .collect();
        let towards = |other: &NodeId| (*other, id);
        let away = |other: &NodeId| (id, *other);
        let well = || others.iter().filter(|other| healed.contains(other));
        let cut: Cut = match ailment {
            Ailment::Down | Ailment::CutOff => well().map(towards).chain(well().map(away)).collect(),
            Ailment::Deaf => others.iter().map(towards).collect(),
            Ailment::Unheard => others.iter().map(away).collect(),
            Ailment::StalledDisk | Ailment::Paused => Cut::new(),
        };
        match (ailment, self.nodes.get_mut(id)) {
            // Its peers hear of its end, and then nothing more.
            (Ailment::Down, _) => self.crash(id)?,
            (Ailment::StalledDisk, Some(node)) => node.stalled_until = FOR_EVER,
            (Ailment::Paused, Some(node)) if node.process.is_some() => node.paused_until = FOR_EVER,
            _ => {}
        }
        if self
            .nodes
            .get(id)
            .is_some_and(|node| node.paused_until == FOR_EVER)
        {
            self.tell_paused(id);
        }
        self.network.cut(&cut);
        for (from, to) in &cut {
            if self.random.drivers.chance(300_000) {
                self.link_changes(*to, *from, LinkEvent::Lost);
            }
        }
        Ok(())
    }
}

/// Whether each half of a membership has a majority among `votes`.
fn is_quorum(membership: &Membership, votes: &BTreeSet<NodeId>) -> bool {
    [membership.voters(), membership.outgoing()]
        .into_iter()
        .all(|half| half.is_empty() || 2 * half.intersection(votes).count() > half.len())
}
