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

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use quorate_api::Health;
use quorate_core::raft::{Index, NodeId};

use super::client;
use super::holdings::Holdings;
use super::machine::{CLUSTER_PORT, address, name};
use super::requests::Order;
use super::setup::{Reads, Setup, SetupError, Topology, nanoseconds};
use super::told::Told;
use super::workload::Habit;
use super::world::{Event, Phase, World};
use crate::consensus::checker::{Verdict, demand};
use crate::consensus::network::{Cut, Weather};
use crate::consensus::schedule::{SECOND, Time};
use crate::consensus::{Outcome, Violation};
use crate::random::{Concern, PartsPerMillion, Stream};

/// Within this time all members found each other and agree.
const FOUNDED_WITHIN: Time = 20 * SECOND;
/// How long somebody waits for the answer to a single request.
const PATIENCE: Duration = Duration::from_secs(10);

/// A cluster under way.
pub struct Simulation {
    world: World,
    /// When it was founded.
    began: Time,
    /// What is cut off, and when it is connected again; without a time, not by itself.
    cuts: Vec<(Option<Time>, Cut)>,
}

/// A request that was made of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request(u64);

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was done.
    Done,
    /// Certainly nothing happened; the node's reason.
    Refused(String),
    /// It may have happened, or may yet.
    Unknown(String),
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

/// What happens to machines.
impl Simulation {
    /// Kills a process. What it wrote stays, synced or not.
    pub fn kill(&mut self, node: NodeId) {
        self.world.kill(node, false);
    }

    /// Cuts the power of a machine: of what its process wrote and did not sync, any part may be lost.
    pub fn cut_power(&mut self, node: NodeId) {
        self.world.kill(node, true);
    }

    /// Asks a process to stop, as an operator does; a leader hands over first.
    pub fn stop(&mut self, node: NodeId) {
        self.world.stop(node);
    }

    /// Starts the node of a machine where none runs.
    pub fn start(&mut self, node: NodeId) {
        self.world.start(node);
    }

    /// Cuts the power of a machine, and everything on its disk is lost. It belongs to the cluster, and joins when it is
    /// started.
    pub fn wipe(&mut self, node: NodeId) {
        self.world.members.insert(node);
        self.world.kill(node, true);
        let host = Arc::clone(self.world.host(node));
        host.disk.wipe();
        host.sight.loses_disk(node);
    }

    /// A process stands still for a while, its clock does not.
    pub fn pause(&mut self, node: NodeId, time: Duration) {
        let until = self.until(time);
        self.world.host(node).gate.close(until);
    }

    /// The clock of a machine goes ahead at once.
    pub fn step_clock(&mut self, node: NodeId, by: Duration) {
        self.world.host(node).clock.step(nanoseconds(by));
    }

    /// The date of a machine is this far ahead of the right one; with zero it is right again. What its clock measures stays
    /// as it is.
    pub fn set_date(&mut self, node: NodeId, ahead: Duration) {
        self.world.host(node).clock.set_date(nanoseconds(ahead));
    }

    /// Syncs of the log take longer for a while.
    pub fn slow_disk(&mut self, node: NodeId, by: Duration, time: Duration) {
        let until = self.until(time);
        self.world.host(node).disk.with_habits(|habits| {
            (habits.slow_until, habits.slow_by) = (until, nanoseconds(by));
        });
    }

    /// No sync ends for a while.
    pub fn stall_disk(&mut self, node: NodeId, time: Duration) {
        let until = self.until(time);
        self.world
            .host(node)
            .disk
            .with_habits(|habits| habits.stalled_until = habits.stalled_until.max(until));
    }

    /// The next sync of the log fails: the process stops, and is started again.
    pub fn fail_sync(&mut self, node: NodeId) {
        self.world.host(node).disk.fail_next_sync();
    }

    /// No more can be written to the disk, or there is room again. The process ends when it wants to write, and is
    /// started again and again.
    pub fn fill_disk(&mut self, node: NodeId, full: bool) {
        self.world.host(node).disk.is_full(full);
    }

    /// Starts a node whose cluster is lost alone, in a new lineage, as `quorate force-start` does; what only other nodes
    /// have is lost. It must not run, and nobody else may: whoever comes back has to be wiped, or is set aside.
    pub fn force_start(&mut self, node: NodeId) {
        self.world.force_start(node);
    }

    /// Installs another release on a machine, which its next process is of: 1 is this build; each later one speaks a
    /// newer version with its like, and supports one feature level more.
    pub fn install(&mut self, node: NodeId, release: u16) {
        self.world.host(node).install(release);
    }

    fn until(&self, time: Duration) -> Time {
        self.world.now.saturating_add(nanoseconds(time))
    }
}

/// What happens to the network.
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

    fn reconnect(&mut self, cuts: &[Cut]) {
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

    /// How much the process of a node holds of its machine.
    pub fn holdings(&self, node: NodeId) -> Holdings {
        self.world.host(node).holdings()
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

/// What operators and clients ask.
impl Simulation {
    /// Writes a key through one node.
    pub fn write(&mut self, node: NodeId) -> Request {
        self.ask(node, Method::PUT, "/v1/kv/single", Bytes::from_static(b"1"))
    }

    /// Reads a key through one node: linearizable, by lease, or from whatever the node has when `reads` is none.
    pub fn read(&mut self, node: NodeId, reads: Option<Reads>) -> Request {
        let consistency = match reads {
            Some(Reads::Linearizable) => "linearizable",
            Some(Reads::Lease) => "lease",
            None => "serializable",
        };
        let path = format!("/v1/kv?limit=1&consistency={consistency}");
        self.ask(node, Method::GET, &path, Bytes::new())
    }

    /// Asks a node how it does.
    pub fn ask_health(&mut self, node: NodeId) -> Request {
        self.ask(node, Method::GET, "/health", Bytes::new())
    }

    /// Asks the leader to hand over, to a node or to the best one.
    pub fn transfer(&mut self, to: Option<NodeId>) -> Request {
        let body = serde_json::json!({ "target_node": to.map(name) });
        let asked = self.asked();
        self.ask(
            asked,
            Method::POST,
            "/cluster/step-down",
            Bytes::from(body.to_string()),
        )
    }

    /// Starts the node of a machine and asks the cluster to take it in, for good as a learner or to vote.
    pub fn add(&mut self, node: NodeId, learner: bool) -> Request {
        let asked = self.asked();
        self.world.members.insert(node);
        self.world.start(node);
        let body = serde_json::json!({
            "id": name(node),
            "host": address(node).to_string(),
            "port": CLUSTER_PORT,
            "learner": learner,
        });
        self.ask(
            asked,
            Method::POST,
            "/cluster/members",
            Bytes::from(body.to_string()),
        )
    }

    /// Asks the cluster to let a node go. Its process runs on.
    pub fn remove(&mut self, node: NodeId) -> Request {
        let asked = self.asked();
        self.world.members.remove(&node);
        let path = format!("/cluster/members/{}", name(node));
        self.ask(asked, Method::DELETE, &path, Bytes::new())
    }

    /// The answer to a request, and when it came since the cluster was founded.
    pub fn answer(&self, request: Request) -> Option<(Answer, Duration)> {
        let (answer, at) = self.world.clients.requests.answer(request.0)?;
        let answer = match answer {
            client::Answer::Done(_) => Answer::Done,
            client::Answer::Other(code) => Answer::Refused(code.to_string()),
            client::Answer::Nothing(reason) => Answer::Refused(reason),
            client::Answer::Unknown(reason) => Answer::Unknown(reason),
        };
        Some((answer, Duration::from_nanos(at - self.began)))
    }

    /// What a node said of itself when it was asked.
    pub fn health(&self, request: Request) -> Option<Health> {
        match self.world.clients.requests.answer(request.0)? {
            (client::Answer::Done(body), _) => serde_json::from_slice(&body).ok(),
            _ => None,
        }
    }

    /// Whom operators ask: the leader, or the first member that runs.
    fn asked(&self) -> NodeId {
        let running = || self.world.members().into_iter().find(|node| self.runs(*node));
        self.leader().or_else(running).unwrap_or(NodeId(1))
    }

    fn ask(&mut self, node: NodeId, method: Method, path: &str, body: Bytes) -> Request {
        Request(self.world.clients.requests.make(Order {
            node: self.world.host(node).client_address(),
            method,
            path: path.to_owned(),
            body,
            patience: PATIENCE,
        }))
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
