//! What breaks, and when.

use quorate_core::raft::{LinkEvent, NodeId};

use super::checker::Verdict;
use super::network::Cut;
use super::schedule::{MILLISECOND, SECOND};
use super::world::{Event, World};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Crash,
    PowerCut,
    Partition,
    Pause,
    SlowDisk,
    StalledDisk,
    DiskError,
    LinkFlap,
    WipedDisk,
    Storm,
}

impl World {
    /// Something breaks, and something else will.
    pub(super) fn fault(&mut self) -> Verdict {
        let Some(mean) = self.plan.fault_mean.filter(|_| self.recovery.is_none()) else {
            return Ok(());
        };
        let delay = self.random.faults.around(mean);
        self.schedule.after(delay, Event::Fault);
        let kinds = self.fault_kinds();
        let kind = *self.random.faults.pick(&kinds);
        match kind {
            Kind::Crash => self.fault_crash(),
            Kind::PowerCut => self.fault_power_cut(),
            Kind::Partition => self.fault_partition(),
            Kind::Pause => self.fault_pause(),
            Kind::SlowDisk => self.fault_slow_disk(),
            Kind::StalledDisk => self.fault_stalled_disk(),
            Kind::DiskError => self.fault_disk_error(),
            Kind::LinkFlap => self.fault_link_flap(),
            Kind::WipedDisk => self.fault_wiped_disk(),
            Kind::Storm => self.fault_storm(),
        }
    }

    fn fault_kinds(&self) -> Vec<Kind> {
        let kinds = self.plan.kinds;
        let mut possible = vec![Kind::Storm];
        let mut add = |on: bool, kinds: &[Kind]| {
            if on {
                possible.extend(kinds);
            }
        };
        add(kinds.crashes, &[Kind::Crash; 4]);
        add(kinds.crashes, &[Kind::PowerCut]);
        add(kinds.partitions, &[Kind::Partition; 4]);
        add(kinds.pauses, &[Kind::Pause; 2]);
        add(kinds.slow_disks, &[Kind::SlowDisk; 2]);
        add(kinds.stalled_disks, &[Kind::StalledDisk; 2]);
        add(kinds.disk_errors, &[Kind::DiskError]);
        add(kinds.link_flaps, &[Kind::LinkFlap; 3]);
        add(kinds.wiped_disks && self.options.nodes >= 3, &[Kind::WipedDisk]);
        possible
    }

    /// A node to hit: often the leader.
    fn victim(&mut self) -> NodeId {
        let present = self.present();
        match self.leader.filter(|leader| present.contains(leader)) {
            Some(leader) if self.random.faults.chance(400_000) => leader,
            _ => *self.random.faults.pick(&present),
        }
    }

    /// Nodes that are not gone.
    pub(super) fn present(&self) -> Vec<NodeId> {
        self.nodes
            .iter()
            .filter(|node| !node.gone)
            .map(|node| node.id)
            .collect()
    }

    fn fault_crash(&mut self) -> Verdict {
        let victim = self.victim();
        let down = *self
            .random
            .faults
            .pick(&[MILLISECOND, 100 * MILLISECOND, SECOND, 5 * SECOND]);
        let down = self.random.faults.around(down);
        self.schedule.after(down, Event::Start(victim));
        self.crash(victim)
    }

    fn fault_power_cut(&mut self) -> Verdict {
        for victim in self.present() {
            let down = self.random.faults.around(200 * MILLISECOND);
            self.schedule.after(down, Event::Start(victim));
            self.crash(victim)?;
        }
        Ok(())
    }

    fn fault_partition(&mut self) -> Verdict {
        let nodes = self.present();
        let victim = self.victim();
        let mut cut = Cut::new();
        let shape = self.random.faults.below(6);
        for from in &nodes {
            for to in &nodes {
                let severed = match shape {
                    // One node alone.
                    0 => (*from == victim) != (*to == victim),
                    // One node is heard by nobody.
                    1 => *from == victim && *to != victim,
                    // One node hears nobody.
                    2 => *to == victim && *from != victim,
                    // Only one node reaches all others: a bridge.
                    3 => *from != victim && *to != victim && from != to,
                    _ => false,
                };
                if severed {
                    cut.push((*from, *to));
                }
            }
        }
        if shape >= 4 {
            cut = self.cut_by_chance(&nodes, shape == 4);
        }
        self.statistics.partitions += 1;
        self.log(|_| format!("cut {cut:?}"));
        self.network.cut(&cut);
        for (from, to) in &cut {
            if self.random.faults.chance(300_000) {
                self.link_changes(*to, *from, LinkEvent::Lost);
            }
        }
        let mean = *self
            .random
            .faults
            .pick(&[50 * MILLISECOND, 600 * MILLISECOND, 4 * SECOND]);
        let duration = self.random.faults.around(mean);
        self.schedule.after(duration, Event::Heal(cut));
        Ok(())
    }

    /// Two sides that cannot reach each other, or single directed pairs.
    fn cut_by_chance(&mut self, nodes: &[NodeId], sides: bool) -> Cut {
        let random = &mut self.random.faults;
        let side: Vec<bool> = nodes.iter().map(|_| random.chance(500_000)).collect();
        let mut cut = Cut::new();
        for (from_side, from) in side.iter().zip(nodes) {
            for (to_side, to) in side.iter().zip(nodes) {
                let severed = if sides {
                    from_side != to_side
                } else {
                    from != to && random.chance(300_000)
                };
                if severed {
                    cut.push((*from, *to));
                }
            }
        }
        cut
    }

    fn fault_pause(&mut self) -> Verdict {
        let victim = self.victim();
        let mean = *self
            .random
            .faults
            .pick(&[50 * MILLISECOND, 500 * MILLISECOND, 2 * SECOND]);
        let until = self.schedule.now() + self.random.faults.around(mean);
        if let Some(node) = self.nodes.get_mut(victim).filter(|node| node.process.is_some()) {
            node.paused_until = node.paused_until.max(until);
            let until = node.paused_until;
            self.schedule.at(until, Event::Resume(victim));
            self.statistics.pauses += 1;
            self.log(|_| format!("{victim} pauses until {until}"));
        }
        Ok(())
    }

    fn fault_slow_disk(&mut self) -> Verdict {
        let victim = self.victim();
        let mean = *self.random.faults.pick(&[2 * SECOND, 8 * SECOND, 15 * SECOND]);
        let until = self.schedule.now() + self.random.faults.around(mean);
        let slow_by = *self.random.faults.pick(&[20 * MILLISECOND, 150 * MILLISECOND]);
        if let Some(node) = self.nodes.get_mut(victim) {
            (node.slow_until, node.slow_by) = (until, slow_by);
        }
        Ok(())
    }

    /// Nothing becomes durable on a node for a while; everything else on it goes on.
    fn fault_stalled_disk(&mut self) -> Verdict {
        let victim = self.victim();
        let mean = *self.random.faults.pick(&[500 * MILLISECOND, 3 * SECOND]);
        let until = self.schedule.now() + self.random.faults.around(mean);
        if let Some(node) = self.nodes.get_mut(victim) {
            node.stalled_until = node.stalled_until.max(until);
            self.statistics.stalls += 1;
            self.log(|_| format!("the disk of {victim} stalls until {until}"));
        }
        Ok(())
    }

    /// The node stays down until the phase with faults is over, or for long.
    fn fault_disk_error(&mut self) -> Verdict {
        let down = self
            .nodes
            .iter()
            .filter(|node| !node.gone && node.process.is_none())
            .count();
        let victim = self.victim();
        if down == 0
            && let Some(node) = self.nodes.get_mut(victim)
        {
            node.disk_fails = true;
            let down = 10 * SECOND + self.random.faults.around(5 * SECOND);
            self.schedule.after(down, Event::Start(victim));
        }
        Ok(())
    }

    fn fault_link_flap(&mut self) -> Verdict {
        let (id, peer) = (self.victim(), self.victim());
        let event = *self
            .random
            .faults
            .pick(&[LinkEvent::Lost, LinkEvent::Refused, LinkEvent::Connected]);
        if id != peer
            && let Some(node) = self.nodes.get(id)
        {
            let run = node.run();
            self.schedule.after(0, Event::Link { run, peer, event });
            let back = self.random.faults.around(50 * MILLISECOND);
            let event = LinkEvent::Connected;
            self.schedule.after(back, Event::Link { run, peer, event });
        }
        Ok(())
    }

    /// A node loses its disk for ever. Only when every log agrees that the others can go on without it.
    fn fault_wiped_disk(&mut self) -> Verdict {
        let victim = self.victim();
        let membership = &self.membership;
        let agreed = self.nodes.iter().all(|node| {
            let gone_member = node.gone && membership.members().contains_key(&node.id);
            let is_member = membership.members().contains_key(&node.id);
            !gone_member && (!is_member || node.disk.written.membership() == membership)
        });
        let spare = membership.voters().len() >= 3 && !membership.is_joint() && !self.is_repairing();
        if agreed && spare && membership.voters().contains(&victim) && self.plan.operation_mean.is_some() {
            self.statistics.wiped += 1;
            self.log(|_| format!("the disk of {victim} is wiped"));
            return self.switch_off(victim);
        }
        Ok(())
    }

    fn fault_storm(&mut self) -> Verdict {
        let loss = *self.random.faults.pick(&[50_000, 300_000, 600_000]);
        let duration = self.random.faults.around(500 * MILLISECOND);
        self.network.set_loss(loss);
        self.schedule.after(duration, Event::Loss(self.plan.loss));
        Ok(())
    }
}
