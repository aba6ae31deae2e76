//! What breaks: the faults of the plan, carried out on machines that run the production node.

use std::path::Path;
use std::sync::Arc;

use quorate_core::raft::NodeId;

use super::machine::{LOG, address};
use super::watch::Moment;
use super::world::{Event, Phase, World};
use crate::consensus::network::{Cut, Weather};
use crate::consensus::plan::{Boundary, FaultKind, Shape, Who};
use crate::consensus::schedule::{MILLISECOND, Time};
use crate::consensus::telling;
use crate::random::{Concern, Stream};
use crate::trace::name_of;

/// Of ten crashes of one process so many are none: it is asked to stop. Of the others every second one is a power cut.
const ASKED_TO_STOP: u64 = 2;
/// A process that is killed in the middle of its work does so many operations on its disk before.
const OPERATIONS_BEFORE_CRASH: u64 = 60;
/// How many of a million moments with an ambush are used.
const AMBUSHED: u32 = 400_000;
/// How long a machine is off whose disk is replaced by a blank one.
const WIPED_DOWN: Time = 500 * MILLISECOND;

impl World {
    pub(super) fn happen(&mut self, event: Event) {
        match event {
            Event::Fault(fault) => {
                let kind = name_of(&fault);
                *self.measurements.faults.entry(kind).or_default() += 1;
                self.tell_fault(&fault);
                self.fault(fault);
            }
            Event::Operation(operation) => self.operate(&operation),
            Event::Heal(cut) => self.wires.with_network(|network| network.heal(&cut)),
            Event::Flap { cut, period, left } => self.flap(cut, period, left),
            Event::Start(id) => self.start(id),
            Event::RightDate(id) => self.host(id).clock.set_date(0),
            Event::SwapBack => self.wires.swap_back(),
        }
    }

    fn fault(&mut self, fault: FaultKind) {
        let now = self.now;
        match fault {
            FaultKind::Crash { victim, down } => {
                let victim = self.find(victim);
                match Stream::keyed(self.plan.noise, Concern::Machines, now << 8).below(10) {
                    0..ASKED_TO_STOP => self.restart(victim, down),
                    draw => {
                        self.kill(victim, draw % 2 == 0);
                        self.schedule.at(now + down, Event::Start(victim));
                    }
                }
            }
            FaultKind::PowerCut { down, apart } => {
                for (place, victim) in self.nodes().into_iter().enumerate() {
                    self.crash(victim, down + apart * place as Time);
                }
            }
            FaultKind::Partition { shape, duration } => {
                let cut = shape.cut(&self.nodes(), |who| self.find(who));
                self.statistics.partitions += 1;
                self.wires.with_network(|network| network.cut(&cut));
                self.schedule.at(now + duration, Event::Heal(cut));
            }
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
                self.wires
                    .with_network(|network| network.clog(from, to, now + duration, each));
            }
            FaultKind::Hold { shape, duration } => {
                let links = shape.cut(&self.nodes(), |who| self.find(who));
                self.wires
                    .with_network(|network| network.hold(&links, now + duration));
            }
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
                self.wires
                    .with_network(|network| network.storm(now + duration, weather));
            }
            FaultKind::ClockStep { victim, by } => self.host(self.find(victim)).clock.step(by),
            FaultKind::SlowDisk { victim, by, duration } => {
                self.host(self.find(victim)).disk.with_habits(|habits| {
                    (habits.slow_until, habits.slow_by) = (now + duration, by);
                });
            }
            FaultKind::StalledDisk { victim, duration } => {
                self.statistics.stalls += 1;
                self.host(self.find(victim)).disk.with_habits(|habits| {
                    habits.stalled_until = habits.stalled_until.max(now + duration);
                });
            }
            FaultKind::FailedSync { victim, .. } => {
                // A node that was just refused its disk may be one of few that are up.
                if self.hosts.iter().all(|host| host.runs()) {
                    self.host(self.find(victim)).disk.fail_next_sync();
                }
            }
            FaultKind::CrashAt { victim, boundary, .. } => self.crash_at(victim, boundary),
            FaultKind::Pause { victim, duration } => {
                self.statistics.pauses += 1;
                self.host(self.find(victim)).gate.close(now + duration);
            }
            FaultKind::Rot { victim, down, .. } => self.rot(victim, down),
            FaultKind::Wipe { victim } => self.wipe(victim),
            FaultKind::WrongDate {
                victim,
                ahead,
                duration,
            } => {
                let victim = self.find(victim);
                self.host(victim).clock.set_date(ahead);
                self.schedule.at(now + duration, Event::RightDate(victim));
            }
            FaultKind::Swap { one, other, duration } => {
                let (one, other) = (self.find(one), self.find(other));
                if self.wires.swap(address(one).into(), address(other).into()) {
                    self.schedule.at(now + duration, Event::SwapBack);
                }
            }
            FaultKind::BlackHole {
                one,
                other,
                bytes,
                duration,
            } => {
                let (one, other) = (self.find(one), self.find(other));
                let links = [(one, other), (other, one)];
                self.wires.narrow(&links, usize::from(bytes), now + duration);
            }
            // Only the simulated transport of the core simulation can be told to lie.
            FaultKind::FalseAlarm { .. } => {}
        }
    }

    /// Tells what breaks, and what it hits.
    fn tell_fault(&self, kind: &FaultKind) {
        let is_left_out = match kind {
            FaultKind::Wipe { victim } | FaultKind::Rot { victim, .. } => !self.can_spare(self.find(*victim)),
            FaultKind::FalseAlarm { .. } => true,
            _ => false,
        };
        if !is_left_out {
            let find = |who| self.find(who);
            let cut_of = |shape: Shape| shape.cut(&self.nodes(), find);
            self.tell(|| telling::fault(kind, self.now, find, cut_of));
        }
    }

    /// The node that an event is about.
    pub(super) fn find(&self, who: Who) -> NodeId {
        let leader = self.sight.leader().map(|(_, leader)| leader);
        who.among(&self.nodes(), leader)
    }

    /// The power of a machine is cut, and comes back.
    fn crash(&mut self, victim: NodeId, down: Time) {
        self.kill(victim, true);
        self.schedule.at(self.now + down, Event::Start(victim));
    }

    /// A part of what a machine's disk holds of the log is damaged while it is off.
    fn rot(&mut self, victim: Who, down: Time) {
        let victim = self.find(victim);
        if !self.can_spare(victim) {
            return;
        }
        self.crash(victim, down);
        let host = Arc::clone(self.host(victim));
        if host.disk.rot(Path::new(LOG)) {
            // What it promised is known to its log still, or it does not vote before that is there again.
            self.statistics.rotten += 1;
            self.spared = true;
            self.rotten = Some(victim);
            host.sight.rots(victim);
        }
    }

    /// A machine loses everything on its disk, and its node starts without a memory.
    fn wipe(&mut self, victim: Who) {
        let victim = self.find(victim);
        if !self.can_spare(victim) {
            return;
        }
        self.replace_disk(victim);
        self.spared = true;
    }

    /// A machine gets a blank disk: it lost all of it, or its log is damaged so that nobody can say what it promised.
    pub(super) fn replace_disk(&mut self, victim: NodeId) {
        self.crash(victim, WIPED_DOWN);
        let host = Arc::clone(self.host(victim));
        host.disk.wipe();
        host.sight.loses_disk(victim);
        self.statistics.wiped += 1;
    }

    /// Whether the others can go on without what a node holds. That is so once in a run.
    fn can_spare(&self, victim: NodeId) -> bool {
        // With witnesses a disk with data may be the only one that holds what was committed while others were away.
        let witnesses = &self.host(victim).cluster.topology.witnesses;
        let one_of_many = witnesses.is_empty() || witnesses.contains(&victim);
        one_of_many && !self.spared && self.hosts.len() >= 3 && self.sight.agreed(&self.members()).is_some()
    }

    /// A process is stopped, or the power cut, in the middle of what a node does to its disk: now, or from now on when one
    /// takes in a snapshot or gives a vote.
    fn crash_at(&mut self, victim: Who, boundary: Boundary) {
        let victim = self.find(victim);
        match boundary {
            Boundary::BeforeSync => self.stop_soon(victim),
            Boundary::AfterSync => self.ambushes.extend([Moment::Snapshot]),
            Boundary::AfterVote => self.ambushes.extend([Moment::Vote]),
        }
    }

    /// Lets a node do a few more operations on its disk, and none after them.
    fn stop_soon(&mut self, victim: NodeId) {
        let host = self.host(victim);
        if host.runs() {
            let salt = self.now / 1_000_000 * 7 + victim.0;
            host.disk.stop_after(salt % OPERATIONS_BEFORE_CRASH);
        }
    }

    /// Springs the ambushes whose moment has come.
    pub(super) fn spring_ambushes(&mut self) {
        for (moment, node) in self.sight.take_moments() {
            let sprung = self.ambushes.contains(&moment)
                && Stream::keyed(self.plan.noise, Concern::Machines, self.now << 8 | 1).chance(AMBUSHED);
            if sprung && matches!(self.phase, Phase::Faults { .. }) {
                self.stop_soon(node);
            }
        }
    }

    /// Cuts a link that will be whole again for a while, and cut again.
    fn flap(&mut self, cut: Cut, period: Time, left: u32) {
        if left == 0 {
            return;
        }
        self.wires.with_network(|network| network.cut(&cut));
        self.schedule.at(self.now + period / 2, Event::Heal(cut.clone()));
        let left = left - 1;
        self.schedule
            .at(self.now + period, Event::Flap { cut, period, left });
    }
}
