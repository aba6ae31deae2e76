//! The world of a run: machines in a turmoil simulation, the wires between them, and what happens to them when.
//!
//! One tick is a millisecond. Before each, faults that are due happen and packets that arrived are handed over; then
//! turmoil runs every machine for a tick, one after the other; then checkers look. Everything is on one thread.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use quorate::port::Entropy;
use quorate::transport::Secret;
use quorate_core::raft::{NodeId, Term};
use turmoil::Sim;

use super::clock::{MachineClock, WorldTime};
use super::disk::{Disk, Habits};
use super::entropy::{Seeded, seed_handshakes};
use super::log;
use super::machine::{Cluster, Host, address, name};
use super::network::Wires;
use super::quic::ClientMachine;
use super::setup::{Reads, Topology};
use super::told::Told;
use super::watch::{Moment, Sight};
use super::workload::{Clients, Habit};
use crate::consensus::checker::{Breach, Verdict, demand};
use crate::consensus::network::{Cut, Network};
use crate::consensus::plan::{FaultKind, Operation, Plan};
use crate::consensus::schedule::{MILLISECOND, SECOND, Schedule, Time};
use crate::consensus::trace::Trace;
use crate::consensus::{Measurements, Mistake, Outcome, Statistics, Violation};
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

/// In one run of so many a node of another cluster has the addresses and the secret of this one.
const STRANGER_EVERY: u64 = 5;

/// What happens at a time.
#[derive(Debug)]
pub(super) enum Event {
    Fault(FaultKind),
    Operation(Operation),
    Heal(Cut),
    Flap {
        cut: Cut,
        period: Time,
        left: u32,
    },
    Start(NodeId),
    /// The date of a machine is right again.
    RightDate(NodeId),
    /// Machines have their own addresses again.
    SwapBack,
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
    pub(super) stopping: BTreeSet<NodeId>,
    pub(super) schedule: Schedule<Event>,
    pub(super) phase: Phase,
    pub(super) statistics: Statistics,
    pub(super) measurements: Measurements,
    /// Since when the process of the last leader is gone, and which term it led.
    pub(super) leaderless: Option<(Time, Term)>,
    /// Whether what one node holds was taken from it already.
    pub(super) spared: bool,
    /// The node whose log was damaged, until it ran again.
    pub(super) rotten: Option<NodeId>,
    /// Processes that were asked to stop and are started again, and after how long.
    pub(super) restarts: BTreeMap<NodeId, Time>,
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
            over_quic: plan.knobs.clients_over_quic,
        };
        let mut topology = Topology::new(plan.nodes, 0, 0).with_witnesses(plan.knobs.witnesses);
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
            ClientMachine {
                wires: wires.clone(),
                clock: Arc::new(MachineClock::new(Arc::clone(&time), 0, 1_000_000)),
                address: CLIENTS.into(),
                taken: Arc::default(),
            },
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
            restarts: BTreeMap::new(),
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
            marks: self.clients.marks(),
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
