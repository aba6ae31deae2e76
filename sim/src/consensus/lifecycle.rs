//! Nodes come into being, start, crash, and are let go; and what their peers' transports notice of it.

use quorate_core::raft::{
    self, BootError, FeatureLevel, LinkEvent, Member, Membership, NodeId, Position, Raft, Term,
};

use super::PlantedBug;
use super::checker::contact::Contact;
use super::checker::membership::Voters;
use super::checker::progress::Progress;
use super::checker::{Breach, Verdict, demand};
use super::clock::Clock;
use super::data::DataDuties;
use super::marks::Mark;
use super::network::Cut;
use super::node::{Node, Process, Run};
use super::schedule::{MILLISECOND, SECOND};
use super::sessions::placement;
use super::sightings::Seen;
use super::transfer::Transfers;
use super::world::{Draws, Event, World};
use crate::random::Stream;
use crate::trace;

impl World {
    /// A machine with a blank disk, as its record says.
    pub(super) fn create(&mut self, id: NodeId, member: &Member) {
        let mut random = self.machine(Draws::Character, id);
        let skew = self.knobs.clock_skew;
        let somewhere = random.between(0, 2 * skew);
        let rate = 1_000_000 - skew + *random.pick(&[0, 2 * skew, somewhere]);
        let clock = Clock::new(random.below(1_000 * SECOND), rate);
        // What a newcomer takes for the membership before its log begins counts for nothing: it has no vote in it.
        let membership = if random.chance(500_000) {
            self.first_membership.clone()
        } else {
            self.membership.clone()
        };
        self.nodes.insert(Node::new(id, membership, clock, member));
    }

    /// A binary that an operator may have at hand.
    pub(super) fn some_binary(&self, draws: Draws, id: NodeId) -> FeatureLevel {
        self.binary_of(&mut self.machine(draws, id))
    }

    fn binary_of(&self, random: &mut Stream) -> FeatureLevel {
        let level = random.between(1, u64::from(self.knobs.features_max));
        FeatureLevel(u16::try_from(level).unwrap_or(u16::MAX))
    }

    /// Now and then a node starts with another binary, in the end all with the newest. One that is too old for what the
    /// node holds must be refused.
    fn choose_binary(&mut self, run: Run) -> Verdict {
        let id = run.node;
        let mut random = self.life_of_machine(Draws::Binary, run);
        let change = random.chance(300_000);
        let other = match self.recovery {
            Some(_) => FeatureLevel(self.knobs.features_max),
            None => self.binary_of(&mut random),
        };
        let Some(node) = self
            .nodes
            .get_mut(id)
            .filter(|node| !node.gone && node.process.is_none())
        else {
            return Ok(());
        };
        if self.recovery.is_none() && !change {
            return Ok(());
        }
        let log = &node.disk.durable;
        let boot = log.boot(id, log.base.position.index, 0);
        let held = boot.memberships.iter().map(|(_, membership)| membership);
        let held = held.chain([&boot.base.membership]).map(Membership::level).max();
        let config = raft::Config {
            features: other,
            witness: node.witness,
            ..self.knobs.raft.clone()
        };
        let now = node.clock.shows(self.schedule.now());
        let refused = matches!(
            Raft::new(config, boot, [0; 32], now),
            Err(BootError::FeaturesLacking { .. })
        );
        demand(
            refused == (held > Some(other)),
            "old binaries are refused",
            || format!("node {id} holds {held:?}; a binary of {other} is refused: {refused}"),
        )?;
        if refused {
            self.statistics.old_binaries += 1;
            self.marks.note(Mark::OldBinaryRefused);
        } else {
            node.runs_binary(other);
        }
        Ok(())
    }

    /// Starts the process of a node from what its disk holds, unless it runs, is gone, or stays down for now.
    pub(super) fn start(&mut self, id: NodeId) -> Verdict {
        let Some(run) = self.nodes.get(id).map(Node::run).filter(|_| self.may_run(id)) else {
            return Ok(());
        };
        self.choose_binary(run)?;
        let seed = self.life_of_machine(Draws::Seed, run).seed();
        let Some(node) = self
            .nodes
            .get_mut(id)
            .filter(|node| !node.gone && node.process.is_none())
        else {
            return Ok(());
        };
        let fails = |what: &dyn std::fmt::Display| Breach {
            checker: "a node starts from what it wrote",
            seen: format!("node {id}: {what}"),
        };
        node.life += 1;
        let (log_base, applied) = (node.disk.durable.base.position, node.store.applied);
        if !node.witness && !node.store.recover(log_base) {
            return Err(fails(&format!(
                "the log begins at {log_base}, the state ends at {applied}, and there is no snapshot"
            )));
        }
        let mut machine = node.store.load().map_err(|error| fails(&error))?;
        machine.plant(self.knobs.raft.planted);
        let applied = if node.witness {
            log_base.index
        } else {
            machine.applied().index
        };
        let log = &node.disk.durable;
        let tail = self.random.disk.between(0, self.knobs.boot_tail_max);
        let boot = log.boot(id, applied, usize::try_from(tail).unwrap_or(log.len()));
        let membership = boot
            .memberships
            .iter()
            .rev()
            .find(|(position, _)| position.index <= applied)
            .map_or(&boot.base.membership, |(_, membership)| membership)
            .clone();
        let progress = Progress::starting(boot.hard_state);
        let now = node.clock.shows(self.schedule.now());
        let leases = self.knobs.raft.lease_reads.is_some() && boot.hard_state.term > Term(0);
        let promised_until = leases.then(|| now + self.knobs.raft.election_timeout_max);
        let config = raft::Config {
            features: node.features,
            witness: node.witness,
            ..self.knobs.raft.clone()
        };
        let raft = Raft::new(config, boot, seed, now).map_err(|error| fails(&error))?;
        let voters = Voters::starting(&raft.status());
        self.checkers.states.reached(id, &machine)?;
        node.process = Some(Process {
            raft,
            machine,
            membership,
            to_apply: std::collections::VecDeque::new(),
            reads: Vec::new(),
            data: DataDuties::new(placement(&self.knobs)),
            transfers: Transfers::default(),
            progress,
            voters,
            contact: Contact::default(),
            seen: Seen::starting(promised_until),
            timer: None,
            drain_scheduled: false,
            apply_scheduled: false,
            flush_scheduled: false,
        });
        let run = node.run();
        self.check_records(run)?;
        self.tell_started(run);
        self.links_change(id, LinkEvent::Connected);
        self.drain(run)
    }

    /// Kills the process of a node. What its disk had not synced may be lost.
    pub(super) fn crash(&mut self, id: NodeId) -> Verdict {
        let planted = self.conditions.driver();
        self.sight_crash(id);
        self.measure_end(id);
        let Some(node) = self.nodes.get_mut(id).filter(|node| node.process.is_some()) else {
            return Ok(());
        };
        let run = node.run();
        node.process = None;
        node.paused_until = 0;
        node.waiting.clear();
        node.disk_fails = false;
        node.crash_at = None;
        let (done, torn) = node.disk.crash(&mut self.random.disk);
        match planted {
            Some(PlantedBug::LyingDisk) => node.disk.lose_entries(3),
            Some(PlantedBug::ForgottenVote) => node.disk.lose_vote(),
            _ => {}
        }
        if self.random.disk.chance(500_000) {
            node.store.flush(node.store.batches_behind());
        }
        self.statistics.crashes += 1;
        self.statistics.torn += u64::from(torn);
        self.marks.note_if(torn, Mark::TornWrite);
        self.marks.note_if(!done.is_empty(), Mark::UnheardWrite);
        self.checkers.clients.stopped(run);
        self.tell_stopped(run);
        self.links_change(id, LinkEvent::Refused);
        self.now_durable(id, &done)
    }

    /// What came while a node stood still comes now, unless it stands still for longer.
    pub(super) fn resume(&mut self, id: NodeId) {
        let now = self.schedule.now();
        self.sight_resume(id);
        if let Some(node) = self.nodes.get_mut(id).filter(|node| node.paused_until <= now) {
            for event in std::mem::take(&mut node.waiting) {
                self.schedule.at(now, event);
            }
            self.tell_resumed(id);
        }
    }

    /// Switches a node off for ever.
    pub(super) fn switch_off(&mut self, id: NodeId) -> Verdict {
        self.crash(id)?;
        if let Some(node) = self.nodes.get_mut(id) {
            node.gone = true;
        }
        self.tell(|_| trace::Event::Gone { node: id.0 });
        Ok(())
    }

    /// The binary of a node was too old for what the cluster uses: a newer one takes its place.
    pub(super) fn upgrade(&mut self, run: Run, needed: FeatureLevel) -> Verdict {
        if self.nodes.live(run).is_none() {
            return Ok(());
        }
        self.statistics.stopped_by_features += 1;
        self.crash(run.node)?;
        if let Some(node) = self.nodes.get_mut(run.node) {
            node.runs_binary(needed);
        }
        let delay = self.life_of_machine(Draws::Upgrade, run).around(20 * MILLISECOND);
        self.schedule.after(delay, Event::Start(run.node));
        Ok(())
    }

    /// A membership is committed: who is new in it gets a machine, who is no longer in it may be switched off.
    pub(super) fn membership_committed(&mut self, at: Position, membership: &Membership) {
        self.statistics.memberships += 1;
        self.sight_committed_membership(at, membership);
        (self.membership, self.membership_at) = (membership.clone(), at);
        self.create_members(membership);
        if self.recovery.is_some() {
            // Memberships are seen late at times: a machine may be of a later one than this.
            return;
        }
        let leaving: Vec<NodeId> = self
            .nodes
            .iter()
            .filter(|node| !node.gone && !membership.members().contains_key(&node.id))
            .map(|node| node.id)
            .collect();
        for id in leaving {
            let mut random = self.machine(Draws::SwitchOff, id);
            if random.chance(500_000) {
                let delay = random.around(2 * SECOND);
                self.schedule.after(delay, Event::SwitchOff(id));
            }
        }
    }

    /// Gives every member of a committed membership, or of an elected leader's, a machine that has none yet. A machine
    /// that has the id from a membership which was never committed makes room: no transport takes it for the member.
    pub(super) fn create_members(&mut self, membership: &Membership) {
        for (id, member) in membership.members() {
            let machine = self.nodes.get(*id);
            if machine.is_some_and(|machine| machine.directory == member.directory) {
                continue;
            }
            let before = machine.map(Node::run);
            self.create_member(*id, member);
            if let Some(before) = before {
                self.checkers.clients.stopped(before);
                self.checkers.promises.blank(*id);
                if let Some(node) = self.nodes.get_mut(*id) {
                    node.life = before.life;
                }
            }
        }
    }

    /// Gives a member a machine, and starts it soon.
    pub(super) fn create_member(&mut self, id: NodeId, member: &Member) {
        self.create(id, member);
        let delay = self.machine(Draws::FirstStart, id).around(100 * MILLISECOND);
        self.schedule.after(delay, Event::Start(id));
    }

    /// Ends a cut; transports connect again.
    pub(super) fn heal(&mut self, cut: &Cut) {
        if self.recovery.is_some() {
            // What could be healed is, and what was cut since is cut for good.
            return;
        }
        self.network.heal(cut);
        for (from, to) in cut {
            self.link_changes(*from, *to, LinkEvent::Connected);
        }
    }

    /// The transports on both sides of every link of a node notice something.
    pub(super) fn links_change(&mut self, id: NodeId, event: LinkEvent) {
        let peers: Vec<NodeId> = self
            .nodes
            .iter()
            .map(|node| node.id)
            .filter(|peer| *peer != id)
            .collect();
        for peer in peers {
            self.link_changes(peer, id, event);
            self.link_changes(id, peer, event);
        }
    }

    /// The transport of a node notices something about a peer, a moment later; now and then it does not.
    pub(super) fn link_changes(&mut self, id: NodeId, peer: NodeId, event: LinkEvent) {
        if !self.knobs.link_events || self.random.drivers.chance(100_000) {
            return;
        }
        if !self.network.is_open(peer, id) && event != LinkEvent::Lost {
            return;
        }
        let delay = self.random.drivers.around(3 * MILLISECOND);
        if let Some(node) = self.nodes.get(id).filter(|node| node.process.is_some()) {
            let run = node.run();
            self.schedule.after(delay, Event::Link { run, peer, event });
        }
    }
}
