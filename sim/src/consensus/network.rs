//! The network between nodes: delays, losses, repetitions, and pairs that cannot reach each other.

use quorate_core::raft::NodeId;

use super::plan::Plan;
use super::schedule::{MICROSECOND, MILLISECOND, Time};
use crate::random::{PartsPerMillion, Stream};

/// Directed pairs that are cut off from each other.
pub(super) type Cut = Vec<(NodeId, NodeId)>;

/// How messages fare.
#[derive(Debug)]
pub(super) struct Network {
    random: Stream,
    latency_mean: Time,
    loss: PartsPerMillion,
    duplication: PartsPerMillion,
    spike: PartsPerMillion,
    ordered: bool,
    /// By sender and receiver: how many cuts lie between them, and when the last message arrives.
    links: Vec<Vec<Link>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Link {
    cuts: u32,
    last_arrival: Time,
}

impl Network {
    pub(super) fn new(random: Stream, plan: &Plan) -> Network {
        Network {
            random,
            latency_mean: plan.latency_mean,
            loss: plan.loss,
            duplication: plan.duplication,
            spike: plan.latency_spike,
            ordered: plan.ordered_links,
            links: Vec::new(),
        }
    }

    /// The instants at which a message sent now arrives: none when it is lost, two when it is repeated.
    pub(super) fn arrivals(&mut self, now: Time, from: NodeId, to: NodeId) -> [Option<Time>; 2] {
        if self.link(from, to).cuts > 0 || self.random.chance(self.loss) {
            return [None, None];
        }
        let first = self.arrival(now, from, to);
        let second = self
            .random
            .chance(self.duplication)
            .then(|| self.arrival(now, from, to));
        [Some(first), second]
    }

    /// Whether nothing lies between two nodes, in this direction.
    pub(super) fn is_open(&mut self, from: NodeId, to: NodeId) -> bool {
        self.link(from, to).cuts == 0
    }

    /// Cuts pairs off from each other.
    pub(super) fn cut(&mut self, cut: &Cut) {
        for (from, to) in cut {
            self.link(*from, *to).cuts += 1;
        }
    }

    /// Takes a cut back.
    pub(super) fn heal(&mut self, cut: &Cut) {
        for (from, to) in cut {
            let link = self.link(*from, *to);
            link.cuts = link.cuts.saturating_sub(1);
        }
    }

    /// Sets how many messages are lost from now on.
    pub(super) fn set_loss(&mut self, loss: PartsPerMillion) {
        self.loss = loss;
    }

    /// Everything is open from now on, and nothing is lost, repeated or out of order.
    pub(super) fn calm(&mut self) {
        self.links.iter_mut().flatten().for_each(|link| link.cuts = 0);
        self.latency_mean = self.latency_mean.min(MILLISECOND);
        self.ordered = true;
        self.loss = 0;
        self.duplication = 0;
        self.spike = 0;
    }

    fn arrival(&mut self, now: Time, from: NodeId, to: NodeId) -> Time {
        let mut delay = 50 * MICROSECOND + self.random.around(self.latency_mean);
        if self.random.chance(self.spike) {
            delay += self.random.around(80 * MILLISECOND);
        }
        let ordered = self.ordered;
        let link = self.link(from, to);
        let mut arrival = now + delay;
        if ordered {
            arrival = arrival.max(link.last_arrival);
            link.last_arrival = arrival;
        }
        arrival
    }

    fn link(&mut self, from: NodeId, to: NodeId) -> &mut Link {
        let place = |id: NodeId| usize::try_from(id.0).expect("a run has few nodes");
        let (row, column) = (place(from), place(to));
        if self.links.len() <= row {
            self.links.resize_with(row + 1, Vec::new);
        }
        let row = &mut self.links[row];
        if row.len() <= column {
            row.resize_with(column + 1, Link::default);
        }
        &mut row[column]
    }
}
