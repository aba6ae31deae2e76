//! What happens to the network.

use std::time::Duration;

use quorate_core::raft::NodeId;

use super::super::setup::nanoseconds;
use super::super::world::Event;
use super::Simulation;
use crate::consensus::network::{Cut, Weather};
use crate::random::PartsPerMillion;

impl Simulation {
    /// Nodes of different groups do not reach each other, for a while or until that is healed.
    pub fn partition(&mut self, groups: &[&[NodeId]], time: Option<Duration>) {
        self.cut(between(groups), time);
    }

    /// Nothing goes from one group to another, in this direction, for a while or until that is healed.
    pub fn cut_one_way(&mut self, from: &[NodeId], to: &[NodeId], time: Option<Duration>) {
        self.cut(pairs(from, to), time);
    }

    fn cut(&mut self, cut: Cut, time: Option<Duration>) {
        self.world.statistics.partitions += 1;
        self.world.wires.with_network(|network| network.cut(&cut));
        let until = time.map(|time| self.until(time));
        self.cuts.push((until, cut));
    }

    /// Connects everything again that was cut off.
    pub fn heal(&mut self) {
        let cuts = std::mem::take(&mut self.cuts);
        let cuts: Vec<Cut> = cuts.into_iter().map(|(_, cut)| cut).collect();
        self.reconnect(&cuts);
    }

    pub(super) fn reconnect(&mut self, cuts: &[Cut]) {
        for cut in cuts {
            self.world.wires.with_network(|network| network.heal(cut));
        }
    }

    /// Cuts a group off from another and connects them again, `times` times, once in each period.
    pub fn flap(&mut self, one: &[NodeId], other: &[NodeId], times: u32, period: Duration) {
        self.world.happen(Event::Flap {
            cut: between(&[one, other]),
            period: nanoseconds(period),
            left: times,
        });
    }

    /// Packets between two groups take so much longer for a while, both ways.
    pub fn delay(&mut self, one: &[NodeId], other: &[NodeId], by: Duration, time: Duration) {
        let (links, until) = (between(&[one, other]), self.until(time));
        self.world
            .wires
            .with_network(|network| network.delay(&links, until, nanoseconds(by)));
    }

    /// Packets longer than `bytes` are lost between two groups for a while, without a word; QUIC relies on 1,200.
    pub fn narrow(&mut self, one: &[NodeId], other: &[NodeId], bytes: usize, time: Duration) {
        let until = self.until(time);
        self.world.wires.narrow(&between(&[one, other]), bytes, until);
    }

    /// Each packet from one group to another occupies its link for so long, for a while: a thin pipe.
    pub fn clog(&mut self, from: &[NodeId], to: &[NodeId], each: Duration, time: Duration) {
        let (links, until) = (pairs(from, to), self.until(time));
        self.world.wires.with_network(|network| {
            for (from, to) in links {
                network.clog(from, to, until, nanoseconds(each));
            }
        });
    }

    /// Packets are lost, repeated and late everywhere for a while: so many of a million.
    pub fn storm(
        &mut self,
        loss: PartsPerMillion,
        duplicated: PartsPerMillion,
        late: PartsPerMillion,
        time: Duration,
    ) {
        let weather = Weather {
            loss,
            duplication: duplicated,
            spike: late,
        };
        let until = self.until(time);
        self.world
            .wires
            .with_network(|network| network.storm(until, weather));
    }
}

/// Both directions of every link between nodes of different groups.
fn between(groups: &[&[NodeId]]) -> Cut {
    let mut cut = Cut::new();
    for (place, one) in groups.iter().enumerate() {
        for other in &groups[place + 1..] {
            cut.extend(pairs(one, other));
            cut.extend(pairs(other, one));
        }
    }
    cut
}

/// Every link from one group to another.
fn pairs(from: &[NodeId], to: &[NodeId]) -> Cut {
    let pair = |from: &NodeId, to: &NodeId| (from != to).then_some((*from, *to));
    from.iter()
        .flat_map(|from| to.iter().filter_map(move |to| pair(from, to)))
        .collect()
}
