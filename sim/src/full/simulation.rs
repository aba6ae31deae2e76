//! A cluster to play with: production nodes on simulated machines, under the hands of a test.
//!
//! The test breaks things, lets time pass and looks; the checkers of the simulation look on all the time. When it is
//! done, everything is healed, the cluster must come to agree, and what clients saw is judged. The same setup, seed and
//! calls give the same run, to the last packet.
//!
//! ```
//! use std::time::Duration;
//! use quorate_sim::full::{Setup, Simulation};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut cluster = Simulation::found(&Setup::default(), 7)?;
//! let old = cluster.leader().expect("a founded cluster has a leader");
//! cluster.cut_power(old);
//! let took = cluster.run_until(Duration::from_secs(2), |cluster| cluster.leader().is_some())?;
//! assert!(took.is_some(), "another node leads");
//! cluster.finish()?;
//! # Ok(())
//! # }
//! ```

mod asking;
mod machines;
mod network;

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_core::raft::{Index, NodeId};

pub use self::asking::{Answer, Request};
use super::setup::{Setup, SetupError, Topology, nanoseconds};
use super::told::Told;
use super::workload::Habit;
use super::world::{Phase, World};
use crate::consensus::checker::{Verdict, demand};
use crate::consensus::network::Cut;
use crate::consensus::schedule::{SECOND, Time};
use crate::consensus::{Outcome, Violation};
use crate::random::{Concern, Stream};

/// Within this time all members found each other and agree.
const FOUNDED_WITHIN: Time = 20 * SECOND;

/// A cluster under way.
pub struct Simulation {
    world: World,
    /// When it was founded.
    began: Time,
    /// What is cut off, and when it is connected again; without a time, not by itself.
    cuts: Vec<(Option<Time>, Cut)>,
}

/// Why a cluster could not be founded.
#[derive(Debug, thiserror::Error)]
pub enum FoundError {
    /// A cluster like this cannot be.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// A property was broken already.
    #[error(transparent)]
    Violation(#[from] Violation),
}

impl Simulation {
    /// A cluster that was just founded: it has a leader, every member agrees, and clients begin to ask.
    ///
    /// # Errors
    /// When there cannot be a cluster like this, or it does not come about.
    pub fn found(setup: &Setup, seed: u64) -> Result<Simulation, FoundError> {
        setup.check()?;
        let topology = Topology::new(setup.nodes, setup.learners, setup.spares);
        let plan = setup.plan(seed);
        let habit = Habit {
            requests: setup.requests,
            reads: setup.reads,
            probes: true,
            watches: false,
            over_quic: plan.knobs.clients_over_quic,
        };
        let mut world = World::build(&plan, topology, habit, None, Told::default());
        world.guarded(await_founding)?;
        // In each run what happens comes at another moment between heartbeats.
        let phase = Stream::keyed(seed, Concern::Operator, 1 << 40).below(nanoseconds(setup.heartbeat) + 1);
        let until = world.now + phase;
        while world.now < until {
            world.guarded(World::tick)?;
        }
        Ok(Simulation {
            began: world.now,
            world,
            cuts: Vec::new(),
        })
    }

    /// How long it has gone on since it was founded.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.time())
    }

    pub(crate) fn time(&self) -> Time {
        self.world.now - self.began
    }

    /// The machines, by their numbers.
    pub fn nodes(&self) -> Vec<NodeId> {
        self.world.nodes()
    }

    /// The machines that belong to the cluster, or were asked to.
    pub fn members(&self) -> Vec<NodeId> {
        self.world.members()
    }

    /// The node that leads in the latest term with a leader; none when it has stepped down or its process is gone.
    pub fn leader(&self) -> Option<NodeId> {
        self.world.sight.leads().map(|(_, node)| node)
    }

    /// The latest term with a leader.
    pub fn term(&self) -> u64 {
        self.world.sight.leader().map_or(0, |(term, _)| term.0)
    }

    /// How often a node was elected in a term after all before, or as the first one after a forced start.
    pub fn elections(&self) -> u64 {
        self.world.sight.reigns()
    }

    /// The feature level that all members use.
    pub fn feature_level(&self) -> u16 {
        let levels = self.world.members().into_iter();
        let levels = levels.map(|node| self.world.sight.feature_level(node).0);
        levels.min().unwrap_or_default()
    }

    /// Members that run and do not lead, in the order of their numbers.
    pub fn followers(&self) -> Vec<NodeId> {
        let leader = self.leader();
        let members = self.world.members().into_iter();
        members
            .filter(|node| Some(*node) != leader && self.runs(*node))
            .collect()
    }

    /// Whether the process of a node runs.
    pub fn runs(&self, node: NodeId) -> bool {
        self.world.host(node).runs()
    }

    /// How often each node was elected.
    pub fn elected(&self) -> BTreeMap<NodeId, u64> {
        self.world.sight.elected()
    }

    /// The last entry of the log that is committed and that a node has applied.
    pub fn committed(&self) -> u64 {
        self.world.sight.committed().0
    }

    /// Whether all members that run follow one leader and have applied every entry up to `index`; that they have the same
    /// state then is checked all the time.
    pub fn agrees_up_to(&self, index: u64) -> bool {
        let mut members = self.world.members();
        members.retain(|node| self.runs(*node));
        self.world.sight.have_reached(&members, Index(index))
    }

    /// When the first write was acknowledged that a client asked for at `since` or later.
    pub fn served_since(&self, since: Duration) -> Option<Duration> {
        let first = self
            .world
            .clients
            .service
            .first_since(self.began + nanoseconds(since));
        first.map(|at| Duration::from_nanos(at - self.began))
    }

    /// The longest time until now in which no write was acknowledged, whichever node it was asked of.
    pub fn longest_outage(&self) -> Duration {
        Duration::from_nanos(self.world.clients.service.longest_gap(self.world.now))
    }

    /// Requests of clients so far of which nobody knows whether they happened.
    pub fn unknown_answers(&self) -> u64 {
        self.world.clients.counts().unknown
    }

    /// Lets a millisecond pass.
    ///
    /// # Errors
    /// With the first property that is broken.
    pub fn tick(&mut self) -> Result<(), Violation> {
        let now = self.world.now;
        let due = |(until, _): &mut (Option<Time>, Cut)| until.is_some_and(|until| until <= now);
        let healed: Vec<Cut> = self.cuts.extract_if(.., due).map(|(_, cut)| cut).collect();
        self.reconnect(&healed);
        self.world.guarded(World::tick)
    }

    /// Lets time pass.
    ///
    /// # Errors
    /// With the first property that is broken.
    pub fn run_for(&mut self, time: Duration) -> Result<(), Violation> {
        self.run_until(time, |_| false).map(drop)
    }

    /// Lets time pass until a condition holds, or `within` is over. Tells how long it took; none when it does not hold.
    ///
    /// # Errors
    /// With the first property that is broken.
    pub fn run_until(
        &mut self,
        within: Duration,
        mut condition: impl FnMut(&Simulation) -> bool,
    ) -> Result<Option<Duration>, Violation> {
        let began = self.now();
        while self.now() - began < within {
            self.tick()?;
            if condition(self) {
                return Ok(Some(self.now() - began));
            }
        }
        Ok(None)
    }

    /// Ends the run: everything is healed and started, the cluster must serve and agree again, and what clients saw is
    /// judged: no acknowledged write is lost, and what they read is linearizable.
    ///
    /// # Errors
    /// With the first property that is broken.
    pub fn finish(mut self) -> Result<Outcome, Violation> {
        self.world.guarded(|world| {
            world.recover();
            world.run()
        })
    }
}

/// Lets time pass until the members found the cluster and each other.
fn await_founding(world: &mut World) -> Verdict {
    while matches!(world.phase, Phase::Founding) || world.sight.agreed(&world.members()).is_none() {
        world.tick()?;
        demand(world.now < FOUNDED_WITHIN, "a cluster is founded in time", || {
            world.sight.describe()
        })?;
    }
    Ok(())
}
