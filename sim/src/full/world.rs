//! The world of a run: machines in a turmoil simulation, the wires between them, and what happens to them when.
//!
//! One tick is a millisecond. Before each, faults that are due happen and packets that arrived are handed over; then
//! turmoil runs every machine for a tick, one after the other; then checkers look. Everything is on one thread.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use quorate::node::NodeError;
use quorate::port::Entropy;
use quorate::storage::StorageError;
use quorate::transport::Secret;
use quorate_core::raft::{NodeId, Term};
use turmoil::Sim;

use super::clock::{MachineClock, WorldTime};
use super::disk::{Disk, Habits};
use super::entropy::{Seeded, seed_handshakes};
use super::log;
use super::machine::{Cluster, Host, address, name};
use super::network::Wires;
use super::setup::{Reads, Topology};
use super::told::Told;
use super::watch::{Moment, Sight};
use super::workload::{Clients, Habit};
use crate::consensus::checker::{Breach, Verdict, demand};
use crate::consensus::network::{Cut, Network};
use crate::consensus::plan::{FaultKind, Operation, Plan};
use crate::consensus::schedule::{MILLISECOND, SECOND, Schedule, Time};
use crate::consensus::trace::Trace;
use crate::consensus::{Marks, Measurements, Mistake, Outcome, Statistics, Violation};
use crate::random::{Concern, Stream};
use crate::trace;

/// How long machines run before faults and the network are looked at again.
const TICK: Time = MILLISECOND;
/// Where the clients are.
const CLIENTS: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 1);
/// Within this time the nodes of a list found their cluster and elect a leader.
const FOUNDED_WITHIN: Time = 20 * SECOND;
/// How often clients ask, all together, a simulated second.
const REQUESTS_A_SECOND: u64 = 50;
/// A process that ended by itself is started again after so long.
const RESTART: Time = 300 * MILLISECOND;

/// In one run of so many a node of another cluster has the addresses and the secret of this one.
const STRANGER_EVERY: u64 = 5;

/// What happens at a time.
#[derive(Debug)]
pub(super) enum Event {
    Fault(FaultKind),
    Operation(Operation),
    Heal(Cut),
    Flap { cut: Cut, period: Time, left: u32 },
    Start(NodeId),
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The nodes found their cluster.
    Founding,
    /// Faults happen.
    Faults {
        until: Time,
    },
    /// Everything is healed.
    Recovery(super::recovery::Progress),
    Done,
}

/// A run under way.
pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) sim: Sim<'static>,
    pub(super) time: Arc<WorldTime>,
    pub(super) now: Time,
    pub(super) hosts: Vec<Arc<Host>>,
    pub(super) wires: Wires,
    pub(super) sight: Arc<Sight>,
    pub(super) told: Arc<Told>,
    pub(super) clients: Arc<Clients>,
    /// Machines that belong to the cluster, or are to.
    pub(super) members: BTreeSet<NodeId>,
    /// Machines whose process was asked to stop.
    stopping: BTreeSet<NodeId>,
    pub(super) schedule: Schedule<Event>,
    pub(super) phase: Phase,
    pub(super) statistics: Statistics,
    pub(super) measurements: Measurements,
    /// Since when the process of the last leader is gone, and which term it led.
    leaderless: Option<(Time, Term)>,
    /// Whether what one node holds was taken from it already.
    pub(super) spared: bool,
    /// The node whose log was damaged, until it ran again.
    pub(super) rotten: Option<NodeId>,
    /// When nodes are stopped in the middle of their work.
    pub(super) ambushes: BTreeSet<Moment>,
}

impl World {
    /// A world in which a plan happens: all machines belong to the cluster from the beginning.
    pub(super) fn new(plan: &Plan, mistake: Option<Mistake>, told: Told) -> World {
        let habit = Habit {
            requests: REQUESTS_A_SECOND,
            reads: match plan.knobs.raft.lease_reads {
                Some(_) => Reads::Lease,
                None => Reads::Linearizable,
            },
            probes: false,
            watches: true,
        };
        let mut topology = Topology::new(plan.nodes, 0, 0);
        if plan.noise.is_multiple_of(STRANGER_EVERY) {
            topology.strangers.push(NodeId(plan.nodes + 1));
        }
        World::build(plan, topology, habit, mistake, told)
    }

    pub(super) fn build(
        plan: &Plan,
        topology: Topology,
        habit: Habit,
        mistake: Option<Mistake>,
        told: Told,
    ) -> World {
        let noise = plan.noise;
        let told = Arc::new(told);
        seed_handshakes(Stream::keyed(noise, Concern::Machines, 1 << 40).seed());
        let mut sim = turmoil::Builder::new()
            .rng_seed(noise)
            .epoch(SystemTime::UNIX_EPOCH)
            .tick_duration(Duration::from_nanos(TICK))
            .min_message_latency(Duration::from_millis(1))
            .max_message_latency(Duration::from_millis(1))
            .tcp_capacity(1_024)
            .simulation_duration(Duration::from_secs(100_000))
            .build();
        let time = Arc::new(WorldTime::default());
        let wires = Wires::new(Network::new(noise, &plan.knobs));
        let sight = Arc::new(Sight::new());
        let nodes: Vec<NodeId> = topology.machines().collect();
        let strangers = topology.strangers.len();
        sight.keeps_out(
            topology
                .strangers
                .iter()
                .map(|id| name(*id).to_string())
                .collect(),
        );
        let members = topology
            .voters
            .iter()
            .chain(&topology.learners)
            .copied()
            .collect();
        let cluster = Arc::new(Cluster {
            noise,
            topology,
            secret: secret(noise),
            knobs: plan.knobs.clone(),
            mistake,
        });
        let hosts: Vec<Arc<Host>> = nodes
            .into_iter()
            .map(|id| Arc::new(machine(id, &cluster, &time, &wires, &sight, &told)))
            .collect();
        for host in &hosts {
            let host = Arc::clone(host);
            sim.host(IpAddr::from(address(host.id)), move || {
                let host = Arc::clone(&host);
                async move {
                    host.live().await;
                    Ok(())
                }
            });
        }
        let clients = Arc::new(Clients::new(
            Arc::new(MachineClock::new(Arc::clone(&time), 0, 1_000_000)),
            hosts[..hosts.len() - strangers]
                .iter()
                .map(|host| host.client_address())
                .collect(),
            noise,
            plan.knobs.keys,
            habit,
            Arc::clone(&told),
        ));
        World {
            plan: plan.clone(),
            sim,
            time,
            now: 0,
            hosts,
            wires,
            sight,
            told,
            clients,
            members,
            stopping: BTreeSet::new(),
            schedule: Schedule::new(),
            phase: Phase::Founding,
            statistics: Statistics::default(),
            measurements: Measurements::default(),
            leaderless: None,
            spared: false,
            rotten: None,
            ambushes: BTreeSet::new(),
        }
    }

    /// Runs to the end.
    pub(super) fn run(&mut self) -> Result<Outcome, Breach> {
        while self.phase != Phase::Done {
            self.tick()?;
        }
        self.judge()?;
        Ok(self.outcome())
    }

    /// What came of a run that ended well.
    pub(super) fn outcome(&self) -> Outcome {
        Outcome {
            statistics: self.statistics(),
            // The marks are situations of consensus, which the core simulation sees from within.
            marks: Marks::default(),
            measurements: self.measurements.clone(),
            trace: self.trace(),
        }
    }

    /// Does something with the world. What breaks a property, and a panic of a node, ends the run.
    pub(super) fn guarded<T>(
        &mut self,
        work: impl FnOnce(&mut World) -> Result<T, Breach>,
    ) -> Result<T, Violation> {
        let result = catch_unwind(AssertUnwindSafe(|| work(self)));
        let breach = match result {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(breach)) => breach,
            Err(panic) => Breach {
                checker: "no node panics",
                seen: panic
                    .downcast_ref::<String>()
                    .cloned()
                    .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                    .unwrap_or_else(|| "a panic without a message".to_owned()),
            },
        };
        Err(Violation {
            seed: self.plan.seed,
            time: self.now,
            steps: self.sight.statistics().steps,
            checker: breach.checker,
            seen: breach.seen,
            trace: self.trace(),
        })
    }

    pub(super) fn tick(&mut self) -> Verdict {
        self.time.begin_tick(self.now);
        log::tick(self.now);
        while self.schedule.next_time().is_some_and(|time| time <= self.now) {
            if let Some(event) = self.schedule.next() {
                self.happen(event);
            }
        }
        self.wires.deliver(self.now);
        for host in &self.hosts {
            host.gate.tick(self.now);
            self.told.stands(self.now, host.id, host.gate.is_closed());
        }
        let (time, sim) = (&self.time, &mut self.sim);
        let stepped = time.while_running(|| sim.step());
        self.now += TICK;
        self.time.begin_tick(self.now);
        self.told.end_tick();
        stepped.map_err(|error| Breach {
            checker: "no part of a node fails",
            seen: error.to_string(),
        })?;
        self.look_after_processes()?;
        self.spring_ambushes();
        self.sight.take_breach().map_or(Ok(()), Err)?;
        self.measure_failover();
        self.proceed()
    }

    fn measure_failover(&mut self) {
        if let Some((since, led)) = self.leaderless
            && self.sight.leader().is_some_and(|(term, _)| term > led)
        {
            self.leaderless = None;
            self.measurements.failovers.record(self.now - since);
        }
    }

    fn proceed(&mut self) -> Verdict {
        match self.phase {
            Phase::Founding if self.sight.leader().is_some() => {
                self.begin_faults();
                Ok(())
            }
            Phase::Founding => demand(self.now < FOUNDED_WITHIN, "a cluster is founded in time", || {
                self.sight.describe()
            }),
            Phase::Faults { until } => {
                if self.now >= until {
                    self.recover();
                }
                Ok(())
            }
            Phase::Recovery(_) => self.recovering(),
            Phase::Done => Ok(()),
        }
    }

    /// Clients begin, and the plan's faults from here on.
    fn begin_faults(&mut self) {
        let clients = Arc::clone(&self.clients);
        self.sim.host(IpAddr::from(CLIENTS), move || {
            let clients = Arc::clone(&clients);
            async move {
                clients.live().await;
                Ok(())
            }
        });
        let begin = self.now;
        for fault in std::mem::take(&mut self.plan.faults) {
            self.schedule.at(begin + fault.at, Event::Fault(fault.kind));
        }
        for operation in std::mem::take(&mut self.plan.operations) {
            self.schedule
                .at(begin + operation.at, Event::Operation(operation));
        }
        self.phase = Phase::Faults {
            until: begin + self.plan.duration,
        };
    }

    /// Tells what happens in the world, when anybody wants to know.
    pub(super) fn tell(&self, event: impl FnOnce() -> trace::Event) {
        self.told.tell(self.now, event);
    }

    pub(super) fn host(&self, id: NodeId) -> &Arc<Host> {
        let place = usize::try_from(id.0 - 1).expect("a run has few nodes");
        &self.hosts[place]
    }

    /// All machines but those of another cluster.
    pub(super) fn nodes(&self) -> Vec<NodeId> {
        let own = |host: &&Arc<Host>| !host.cluster.topology.strangers.contains(&host.id);
        self.hosts.iter().filter(own).map(|host| host.id).collect()
    }

    /// The machines that belong to the cluster.
    pub(super) fn members(&self) -> Vec<NodeId> {
        self.members.iter().copied().collect()
    }

    /// Asks the process of a machine to stop; a leader hands over first.
    pub(super) fn stop(&mut self, id: NodeId) {
        if self.host(id).runs() {
            self.stopping.insert(id);
            self.host(id).ask_to_stop();
        }
    }

    /// Ends the process of a machine at once.
    pub(super) fn kill(&mut self, id: NodeId, power_cut: bool) {
        let host = Arc::clone(self.host(id));
        if !host.runs() {
            return;
        }
        self.statistics.crashes += 1;
        if let Some((term, leader)) = self.sight.leader()
            && leader == id
        {
            self.leaderless.get_or_insert((self.now, term));
        }
        host.shall_run(false);
        self.stopping.remove(&id);
        self.wires.close_sockets(address(id).into());
        self.wires.has_power(address(id).into(), !power_cut);
        if power_cut {
            host.disk.cut_power();
        } else {
            host.disk.kill();
        }
        self.sight.ends(id);
        self.told.stopped(self.now, id);
        host.gate.open();
        host.streams.cut();
        self.sim.bounce(IpAddr::from(address(id)));
        // What the process did while it was taken down is no end of its own.
        let _ = host.take_end();
    }

    /// Forces the start of a node alone: the cluster is this node from here on. Nothing happens where a process runs.
    pub(super) fn force_start(&mut self, id: NodeId) {
        if !self.host(id).runs() {
            self.members = BTreeSet::from([id]);
            self.clients.lineage_ends();
            self.host(id).force();
            self.start(id);
        }
    }

    /// Starts a process where none runs.
    pub(super) fn start(&mut self, id: NodeId) {
        let host = Arc::clone(self.host(id));
        if !host.runs() {
            host.shall_run(true);
            self.wires.has_power(address(id).into(), true);
            self.sim.bounce(IpAddr::from(address(id)));
        }
    }

    /// Processes that ended by themselves, or were stopped in the middle of a write.
    fn look_after_processes(&mut self) -> Verdict {
        // What it found damaged when it started it has repaired, or is repairing.
        self.rotten = self.rotten.filter(|id| !self.sight.works(*id));
        for id in self.nodes() {
            let host = Arc::clone(self.host(id));
            if host.disk.has_stopped() {
                self.statistics.boundary_crashes += 1;
                let power_cut =
                    Stream::keyed(self.plan.noise, Concern::Machines, self.now << 8 | 2).chance(500_000);
                self.kill(id, power_cut);
                self.schedule.at(self.now + RESTART, Event::Start(id));
            } else if let Some(end) = host.take_end() {
                self.ended(id, end)?;
            }
        }
        Ok(())
    }

    /// A node stopped by itself, which it may when it was asked to, or when its disk is broken.
    fn ended(&mut self, id: NodeId, end: Result<(), NodeError>) -> Verdict {
        if end.is_ok() && self.stopping.remove(&id) {
            self.kill(id, false);
            return Ok(());
        }
        if let Err(NodeError::Storage(StorageError::Damaged { .. })) = &end
            && self.rotten.take() == Some(id)
        {
            self.replace_disk(id);
            return Ok(());
        }
        let why = match &end {
            Ok(()) => "without a reason".to_owned(),
            Err(error) => error.to_string(),
        };
        let excused = self.host(id).disk.take_failures() > 0;
        demand(excused, "nodes stop for a reason", || {
            format!("node {id} stops: {why}")
        })?;
        self.statistics.disk_errors += 1;
        self.kill(id, false);
        self.schedule.at(self.now + RESTART, Event::Start(id));
        Ok(())
    }

    /// A hash over everything that happened so far.
    pub(super) fn trace(&self) -> u64 {
        let mut trace = Trace::default();
        trace.note(self.now);
        trace.note(self.wires.trace().0);
        trace.note(self.sight.trace());
        trace.note(self.clients.trace());
        trace.note(self.clients.watchers.trace());
        for host in &self.hosts {
            trace.note(host.disk.trace());
        }
        trace.value()
    }

    pub(super) fn statistics(&self) -> Statistics {
        let mut statistics = self.sight.statistics();
        let clients = self.clients.counts();
        statistics.add(&self.statistics);
        statistics.nanoseconds = self.now;
        statistics.messages = self.wires.trace().1;
        statistics.requests = clients.requests;
        statistics.acknowledged = clients.acknowledged;
        statistics.reads = clients.reads;
        statistics.unknown = clients.unknown;
        statistics.transfers = clients.orders;
        (statistics.watched, statistics.marks, statistics.resumed) = self.clients.watchers.counts();
        statistics.torn = self.hosts.iter().map(|host| host.disk.counts().1).sum();
        statistics
    }
}

fn secret(noise: u64) -> Secret {
    let entropy = Seeded::new(Stream::keyed(noise, Concern::Machines, 1 << 41).seed());
    Secret::generate(&entropy as &dyn Entropy).expect("a seeded stream never ends")
}

fn machine(
    id: NodeId,
    cluster: &Arc<Cluster>,
    time: &Arc<WorldTime>,
    wires: &Wires,
    sight: &Arc<Sight>,
    told: &Arc<Told>,
) -> Host {
    let (noise, knobs) = (cluster.noise, &cluster.knobs);
    let mut random = Stream::keyed(noise, Concern::Machines, 1 << 42 | id.0);
    let rate = random.between(1_000_000 - knobs.clock_skew, 1_000_000 + knobs.clock_skew);
    let clock = Arc::new(MachineClock::new(
        Arc::clone(time),
        random.below(1_000 * SECOND),
        rate,
    ));
    let habits = Habits {
        sync_mean: knobs.sync_mean,
        ..Habits::default()
    };
    let disk = Disk::new(
        Stream::keyed(noise, Concern::Disk, id.0),
        habits,
        Arc::clone(&clock),
    );
    Host::new(id, cluster, disk, clock, wires, sight, told)
}
