//! The network between nodes: delays, losses, repetitions, queues, and pairs that cannot reach each other.
//!
//! Every directed link has a stream of chance of its own: what is sent on one shifts nothing on the others.

use quorate_core::raft::NodeId;

use super::plan::Knobs;
use super::schedule::{MICROSECOND, MILLISECOND, SECOND, Time};
use crate::random::{Concern, PartsPerMillion, Stream};

/// Directed pairs that are cut off from each other.
pub(crate) type Cut = Vec<(NodeId, NodeId)>;

/// What a clogged link holds back at the most; what comes then is lost.
const CLOG_MAX: Time = SECOND;

/// How many of the messages that are late are very late, and out of order.
const STRAGGLERS: PartsPerMillion = 150_000;

/// How messages fare.
#[derive(Debug)]
pub(crate) struct Network {
    noise: u64,
    latency_mean: Time,
    weather: Weather,
    storm: Option<(Time, Weather)>,
    ordered: bool,
    /// By sender and receiver.
    links: Vec<Vec<Link>>,
}

/// What is lost, repeated and overtaken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    pub(crate) loss: PartsPerMillion,
    pub(crate) duplication: PartsPerMillion,
    pub(crate) spike: PartsPerMillion,
}

#[derive(Debug)]
struct Link {
    random: Stream,
    /// How many cuts lie between the two.
    cuts: u32,
    last_arrival: Time,
    clog: Option<Clog>,
    /// Until then messages wait.
    held_until: Time,
    /// Until the first, messages take so much longer.
    delayed: (Time, Time),
}

#[derive(Clone, Copy, Debug)]
struct Clog {
    until: Time,
    /// How long one message occupies the link.
    each: Time,
}

impl Network {
    pub(crate) fn new(noise: u64, knobs: &Knobs) -> Network {
        Network {
            noise,
            latency_mean: knobs.latency_mean,
            weather: Weather {
                loss: knobs.loss,
                duplication: knobs.duplication,
                spike: knobs.latency_spike,
            },
            storm: None,
            ordered: knobs.ordered_links,
            links: Vec::new(),
        }
    }

    /// The instants at which a message sent now arrives: none when it is lost, two when it is repeated.
    pub(crate) fn arrivals(&mut self, now: Time, from: NodeId, to: NodeId) -> [Option<Time>; 2] {
        let weather = match self.storm {
            Some((until, weather)) if now < until => weather,
            _ => self.weather,
        };
        let (latency_mean, ordered) = (self.latency_mean, self.ordered);
        let link = self.link(from, to);
        if link.cuts > 0 || link.random.chance(weather.loss) {
            return [None, None];
        }
        let first = link.arrival(now, latency_mean, weather.spike, ordered);
        let second = link
            .random
            .chance(weather.duplication)
            .then(|| link.arrival(now, latency_mean, weather.spike, ordered));
        [first, second.flatten()]
    }

    /// Whether nothing lies between two nodes, in this direction.
    pub(crate) fn is_open(&mut self, from: NodeId, to: NodeId) -> bool {
        self.link(from, to).cuts == 0
    }

    /// Cuts pairs off from each other.
    pub(crate) fn cut(&mut self, cut: &Cut) {
        for (from, to) in cut {
            self.link(*from, *to).cuts += 1;
        }
    }

    /// Takes a cut back.
    pub(crate) fn heal(&mut self, cut: &Cut) {
        for (from, to) in cut {
            let link = self.link(*from, *to);
            link.cuts = link.cuts.saturating_sub(1);
        }
    }

    /// From now on messages of a link queue up.
    pub(crate) fn clog(&mut self, from: NodeId, to: NodeId, until: Time, each: Time) {
        self.link(from, to).clog = Some(Clog { until, each });
    }

    /// Messages of some links wait until then.
    pub(crate) fn hold(&mut self, links: &Cut, until: Time) {
        for (from, to) in links {
            let link = self.link(*from, *to);
            link.held_until = link.held_until.max(until);
        }
    }

    /// Messages of some links take longer until then.
    pub(crate) fn delay(&mut self, links: &Cut, until: Time, by: Time) {
        for (from, to) in links {
            self.link(*from, *to).delayed = (until, by);
        }
    }

    /// Another weather until some time.
    pub(crate) fn storm(&mut self, until: Time, weather: Weather) {
        self.storm = Some((until, weather));
    }

    /// Everything is open from now on, and nothing is lost, repeated, held back or out of order.
    pub(crate) fn calm(&mut self) {
        for link in self.links.iter_mut().flatten() {
            (link.cuts, link.clog, link.held_until, link.delayed) = (0, None, 0, (0, 0));
            // What is still held back comes late; what is sent from here on does not wait for it.
            link.last_arrival = 0;
        }
        self.latency_mean = self.latency_mean.min(MILLISECOND);
        self.ordered = true;
        self.storm = None;
        self.weather = Weather {
            loss: 0,
            duplication: 0,
            spike: 0,
        };
    }

    fn link(&mut self, from: NodeId, to: NodeId) -> &mut Link {
        let place = |id: NodeId| usize::try_from(id.0).expect("a run has few nodes");
        let (row, column, noise) = (place(from), place(to), self.noise);
        if self.links.len() <= row {
            self.links.resize_with(row + 1, Vec::new);
        }
        let row = &mut self.links[row];
        while row.len() <= column {
            row.push(Link {
                random: Stream::keyed(noise, Concern::Network, from.0 << 20 | row.len() as u64),
                cuts: 0,
                last_arrival: 0,
                clog: None,
                held_until: 0,
                delayed: (0, 0),
            });
        }
        &mut row[column]
    }
}

impl Link {
    /// When a message arrives; none when the link is clogged beyond its bound.
    fn arrival(
        &mut self,
        now: Time,
        latency_mean: Time,
        spike: PartsPerMillion,
        ordered: bool,
    ) -> Option<Time> {
        let mut delay = 50 * MICROSECOND + self.random.around(latency_mean);
        if self.random.chance(spike) {
            let straggles = self.random.chance(STRAGGLERS);
            delay += self
                .random
                .around(if straggles { SECOND } else { 80 * MILLISECOND });
            if straggles {
                return Some(now + delay);
            }
        }
        if now < self.delayed.0 {
            delay += self.delayed.1;
        }
        let mut arrival = now + delay;
        if now < self.held_until {
            arrival = arrival.max(self.held_until).max(self.last_arrival);
            self.last_arrival = arrival;
        } else if let Some(clog) = self.clog.filter(|clog| now < clog.until) {
            arrival = arrival.max(self.last_arrival + clog.each);
            if arrival > now + CLOG_MAX {
                return None;
            }
            self.last_arrival = arrival;
        } else if ordered {
            arrival = arrival.max(self.last_arrival);
            self.last_arrival = arrival;
        }
        Some(arrival)
    }
}
