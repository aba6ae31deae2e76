//! What breaks: the faults of the plan, carried out on the nodes that are there when they come.

use quorate_core::raft::{LinkEvent, NodeId, Position};

use super::checker::Verdict;
use super::network::{Cut, Weather};
use super::node::Run;
use super::plan::{Alarm, FaultKind, Shape, Who};
use super::schedule::Time;
use super::world::{Event, World};
use crate::random::PartsPerMillion;

impl World {
    /// Something breaks.
    pub(super) fn fault(&mut self, fault: FaultKind) -> Verdict {
        if self.recovery.is_some() || fault.is_around_nodes() {
            return Ok(());
        }
        self.tell_fault(&fault);
        self.measure_fault(&fault);
        let now = self.schedule.now();
        match fault {
            FaultKind::Crash { victim, down } => return self.fault_crash(victim, down),
            FaultKind::PowerCut { down, apart } => return self.fault_power_cut(down, apart),
            FaultKind::Partition { shape, duration } => self.fault_partition(shape, duration),
            FaultKind::Flap {
                one,
                other,
                times,
                period,
            } => {
                let (one, other) = (self.find(one), self.find(other));
                if one != other {
                    self.flap(vec![(one, other), (other, one)], period, times);
                }
            }
            FaultKind::Clog {
                from,
                to,
                each,
                duration,
            } => {
                let (from, to) = (self.find(from), self.find(to));
                self.network.clog(from, to, now + duration, each);
            }
            FaultKind::Hold { shape, duration } => {
                let links = self.cut_of(shape);
                self.network.hold(&links, now + duration);
            }
            FaultKind::FalseAlarm {
                at_node,
                peer,
                alarm,
                duration,
            } => self.fault_false_alarm(at_node, peer, alarm, duration),
            FaultKind::Storm {
                loss,
                duplication,
                spike,
                duration,
            } => {
                let weather = Weather {
                    loss,
                    duplication,
                    spike,
                };
                self.network.storm(now + duration, weather);
            }
            FaultKind::Pause { victim, duration } => self.fault_pause(victim, now + duration),
            FaultKind::ClockStep { victim, by } => self.fault_clock_step(victim, by),
            FaultKind::SlowDisk { victim, by, duration } => {
                let victim = self.find(victim);
                if let Some(node) = self.nodes.get_mut(victim) {
                    (node.slow_until, node.slow_by) = (now + duration, by);
                }
            }
            FaultKind::StalledDisk { victim, duration } => self.fault_stalled_disk(victim, now + duration),
            FaultKind::FailedSync { victim, down } => self.fault_failed_sync(victim, down),
            FaultKind::CrashAt {
                victim,
                boundary,
                down,
            } => {
                let victim = self.find(victim);
                if let Some(node) = self.nodes.get_mut(victim).filter(|node| node.process.is_some()) {
                    node.crash_at = Some((boundary, down));
                }
            }
            FaultKind::Rot {
                victim,
                down,
                readable,
                end_is_known,
            } => return self.fault_rot(victim, down, readable, end_is_known),
            FaultKind::Wipe { victim } => return self.fault_wipe(victim),
            FaultKind::WrongDate { .. } | FaultKind::Swap { .. } | FaultKind::BlackHole { .. } => {}
        }
        Ok(())
    }

    /// The node that an event is about.
    pub(super) fn find(&self, who: Who) -> NodeId {
        who.among(&self.present(), self.leader)
    }

    /// Nodes that are not gone; never none, since only what can be spared goes.
    pub(super) fn present(&self) -> Vec<NodeId> {
        self.nodes
            .iter()
            .filter(|node| !node.gone)
            .map(|node| node.id)
            .collect()
    }

    fn fault_crash(&mut self, victim: Who, down: Time) -> Verdict {
        let victim = self.find(victim);
        self.schedule.after(down, Event::Start(victim));
        self.crash(victim)
    }

    /// Kills a process that is in this life, and starts it again.
    pub(super) fn kill(&mut self, run: Run, down: Time) -> Verdict {
        if self.nodes.live(run).is_none() || self.is_healed(run.node) {
            return Ok(());
        }
        self.statistics.boundary_crashes += 1;
        self.schedule.after(down, Event::Start(run.node));
        self.crash(run.node)
    }

    fn fault_power_cut(&mut self, down: Time, apart: Time) -> Verdict {
        for (place, victim) in self.present().into_iter().enumerate() {
            self.schedule
                .after(down + apart * place as Time, Event::Start(victim));
            self.crash(victim)?;
        }
        Ok(())
    }

    fn fault_partition(&mut self, shape: Shape, duration: Time) {
        let cut = self.cut_of(shape);
        self.statistics.partitions += 1;
        self.network.cut(&cut);
        // Mostly all transports notice, or none does.
        let noticed = if self.random.drivers.chance(400_000) {
            800_000
        } else {
            100_000
        };
        for (from, to) in &cut {
            if self.random.drivers.chance(noticed) {
                self.link_changes(*to, *from, LinkEvent::Lost);
            }
        }
        self.schedule.after(duration, Event::Heal(cut));
    }

    /// The pairs that a partition cuts off from each other.
    pub(super) fn cut_of(&self, shape: Shape) -> Cut {
        shape.cut(&self.present(), |who| self.find(who))
    }

    /// Cuts a link that will be whole again for a while, and cut again.
    pub(super) fn flap(&mut self, cut: Cut, period: Time, left: u32) {
        if self.recovery.is_some() || left == 0 {
            return;
        }
        self.network.cut(&cut);
        for (from, to) in &cut {
            self.link_changes(*to, *from, LinkEvent::Lost);
        }
        self.schedule.after(period / 2, Event::Heal(cut.clone()));
        let left = left - 1;
        self.schedule.after(period, Event::Flap { cut, period, left });
    }

    fn fault_false_alarm(&mut self, at: Who, peer: Who, alarm: Alarm, duration: Time) {
        let (id, peer) = (self.find(at), self.find(peer));
        let event = match alarm {
            Alarm::Lost => LinkEvent::Lost,
            Alarm::Refused => LinkEvent::Refused,
            Alarm::Connected => LinkEvent::Connected,
        };
        if id != peer
            && let Some(node) = self.nodes.get(id)
        {
            let run = node.run();
            self.schedule.after(0, Event::Link { run, peer, event });
            let event = LinkEvent::Connected;
            self.schedule.after(duration, Event::Link { run, peer, event });
        }
    }

    fn fault_pause(&mut self, victim: Who, until: Time) {
        let victim = self.find(victim);
        if let Some(node) = self.nodes.get_mut(victim).filter(|node| node.process.is_some()) {
            node.paused_until = node.paused_until.max(until);
            let until = node.paused_until;
            self.schedule.at(until, Event::Resume(victim));
            self.statistics.pauses += 1;
            self.tell_paused(victim);
        }
    }

    fn fault_clock_step(&mut self, victim: Who, by: Time) {
        let victim = self.find(victim);
        let Some(node) = self.nodes.get_mut(victim) else {
            return;
        };
        node.clock.step(by);
        let run = node.run();
        if let Some(process) = &mut node.process {
            process.timer = None;
        }
        self.checkers.handovers.clock_steps();
        self.checkers.grants.clock_steps(self.schedule.now());
        self.checkers.once.clock_steps();
        self.checkers.streams.clock_steps();
        self.arm(run);
    }

    /// Nothing becomes durable on a node for a while; everything else on it goes on.
    fn fault_stalled_disk(&mut self, victim: Who, until: Time) {
        let victim = self.find(victim);
        if let Some(node) = self.nodes.get_mut(victim) {
            node.stalled_until = node.stalled_until.max(until);
            self.statistics.stalls += 1;
        }
    }

    /// The next sync of a node fails, unless another one is down already.
    fn fault_failed_sync(&mut self, victim: Who, down: Time) {
        let victim = self.find(victim);
        let others_run = self.nodes.iter().all(|node| node.gone || node.process.is_some());
        if others_run && let Some(node) = self.nodes.get_mut(victim) {
            node.disk_fails = true;
            self.schedule.after(down, Event::Start(victim));
        }
    }

    /// The end of a node's log is damaged while the node is down. Storage learns the term and vote that it held, and
    /// mostly where it ended; the node starts with what is readable, and its peers repair it.
    fn fault_rot(
        &mut self,
        victim: Who,
        down: Time,
        readable: PartsPerMillion,
        end_is_known: bool,
    ) -> Verdict {
        let victim = self.find(victim);
        if !self.can_spare(victim) {
            return Ok(());
        }
        self.schedule.after(down, Event::Start(victim));
        self.crash(victim)?;
        if let Some(node) = self.nodes.get_mut(victim) {
            let applied = if node.witness {
                Position::default()
            } else {
                node.store.applied
            };
            if let Some(from) = node.disk.rot(readable, end_is_known, applied) {
                self.statistics.rotten += 1;
                self.log(|_| format!("the log of {victim} is not readable from {from} on"));
            }
        }
        Ok(())
    }

    /// Whether the log of any member is to be repaired: nobody changes the members then.
    pub(super) fn is_repairing(&self) -> bool {
        self.nodes.iter().any(|node| !node.gone && node.is_repairing())
    }

    /// A node loses its disk for ever.
    fn fault_wipe(&mut self, victim: Who) -> Verdict {
        let victim = self.find(victim);
        if !self.can_spare(victim) {
            return Ok(());
        }
        self.statistics.wiped += 1;
        self.switch_off(victim)
    }

    /// Whether the others can go on without what this node holds: every log agrees on who they are, and none of them
    /// is lost already.
    fn can_spare(&self, victim: NodeId) -> bool {
        let membership = &self.membership;
        let agreed = self.nodes.iter().all(|node| {
            let is_member = membership.members().contains_key(&node.id);
            !is_member || (!node.is_lost() && node.disk.written.membership() == membership)
        });
        // With witnesses a disk with data may be the only one that holds what was committed while others were away.
        let one_of_many = !self.nodes.iter().any(|node| node.witness) || self.is_witness(victim);
        let spare = membership.voters().len() >= 3 && !membership.is_joint() && one_of_many;
        agreed && spare && membership.voters().contains(&victim)
    }
}
