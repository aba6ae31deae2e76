//! One simulated machine: its disk, clock and address, and the production node that runs on it.
//!
//! A machine outlives its processes. Each life of the node starts from the disk as the last one left it, with a
//! stream of chance of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quorate::config::{
    Config, Formation, Limits, Listen, LogFormat, LogOptions, NetworkOptions, Origin, RaftTiming, StaticNode,
    Storage, Timeouts,
};
use quorate::node::NodeError;
use quorate::port::Ports;
use quorate::transport::Secret;
use quorate_api::NodeName;
use quorate_core::duties::Retention;
use quorate_core::raft::NodeId;
use tokio::sync::Notify;

use super::clock::{ClockPort, MachineClock};
use super::disk::Disk;
use super::entropy::Seeded;
use super::gate::{Behind, Gate};
use super::network::Wires;
use super::ports::{Idle, LocalTasks, NetworkPort, Streams};
use super::setup::Topology;
use super::watch::{Sight, Watch};
use crate::consensus::plan::Knobs;
use crate::random::{Concern, Stream};

/// Where nodes take clients.
pub(super) const CLIENT_PORT: u16 = 8000;
/// Where nodes take each other.
pub(super) const CLUSTER_PORT: u16 = 4321;

/// Where nodes keep their state.
const DATA: &str = "/data";
/// Where they keep the log.
pub(super) const LOG: &str = "/data/log";

/// The name of a node.
pub(super) fn name(id: NodeId) -> NodeName {
    NodeName::new(id.0.to_string()).expect("a number is a name")
}

/// Where a node is.
pub(super) fn address(id: NodeId) -> Ipv4Addr {
    let last = u8::try_from(id.0).expect("a run has few nodes");
    Ipv4Addr::new(10, 0, 0, last)
}

/// What is the same for every node of a run.
pub(super) struct Cluster {
    pub(super) noise: u64,
    pub(super) topology: Topology,
    pub(super) secret: Secret,
    pub(super) knobs: Knobs,
}

impl Cluster {
    /// What node `id` is told when it starts.
    fn config(&self, id: NodeId) -> Config {
        let host = |id| address(id).to_string();
        let at = |id, port| format!("{}:{port}", address(id));
        let listen = |port, flag| Listen {
            host: host(id),
            port,
            origin: Origin::Default,
            flag,
        };
        let listed = |id: &NodeId| StaticNode {
            name: name(*id),
            cluster_address: at(*id, CLUSTER_PORT),
            client_address: at(*id, CLIENT_PORT),
            witness: false,
        };
        let raft = &self.knobs.raft;
        let voters = &self.topology.voters;
        Config {
            node_name: name(id),
            cluster_name: "simulated".to_owned(),
            formation: if voters.contains(&id) {
                Formation::Static(voters.iter().map(listed).collect())
            } else {
                Formation::Join(voters.iter().map(|voter| at(*voter, CLUSTER_PORT)).collect())
            },
            witness: false,
            learner: self.topology.learners.contains(&id),
            client_listen: vec![listen(CLIENT_PORT, "--port")],
            cluster_listen: listen(CLUSTER_PORT, "--raft-port"),
            client_address: at(id, CLIENT_PORT),
            cluster_address: at(id, CLUSTER_PORT),
            raft: RaftTiming {
                election_timeout_min: raft.election_timeout_min,
                election_timeout_max: raft.election_timeout_max,
                heartbeat_interval: raft.heartbeat_interval,
                rpc_timeout: Duration::from_millis(100),
                lease_reads: raft.lease_reads,
            },
            storage: Storage {
                data_dir: PathBuf::from(DATA),
                wal_sync: true,
                snapshot_interval: raft.retained_entries.max(20),
                snapshot_rate: 0,
                retention: Retention::default(),
            },
            network: NetworkOptions {
                max_connections: 1_000,
                max_watchers: 1_000,
                tcp_nodelay: true,
                keepalive: true,
            },
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            log: LogOptions {
                level: "info".to_owned(),
                format: LogFormat::Text,
            },
            secret: self.secret.clone(),
            warnings: Vec::new(),
            effective: Vec::new(),
        }
    }
}

/// A machine.
pub(super) struct Host {
    pub(super) id: NodeId,
    pub(super) disk: Disk,
    pub(super) clock: Arc<MachineClock>,
    pub(super) wires: Wires,
    pub(super) cluster: Arc<Cluster>,
    pub(super) sight: Arc<Sight>,
    pub(super) gate: Arc<Gate>,
    pub(super) streams: Arc<Streams>,
    /// Whether a process shall run.
    runs: AtomicBool,
    life: AtomicU64,
    /// Asks the process of this life to stop.
    stop: Mutex<Arc<Notify>>,
    ended: Mutex<Option<Result<(), NodeError>>>,
}

impl Host {
    pub(super) fn new(
        id: NodeId,
        cluster: &Arc<Cluster>,
        disk: Disk,
        clock: Arc<MachineClock>,
        wires: &Wires,
        sight: &Arc<Sight>,
    ) -> Host {
        wires.plug_in(address(id).into(), id);
        Host {
            id,
            disk,
            clock,
            wires: wires.clone(),
            cluster: Arc::clone(cluster),
            sight: Arc::clone(sight),
            gate: Arc::default(),
            streams: Arc::default(),
            runs: AtomicBool::new(!cluster.topology.spares.contains(&id)),
            life: AtomicU64::new(0),
            stop: Mutex::default(),
            ended: Mutex::new(None),
        }
    }

    /// Where it takes clients.
    pub(super) fn client_address(&self) -> SocketAddr {
        (address(self.id), CLIENT_PORT).into()
    }

    /// Whether a process shall run.
    pub(super) fn runs(&self) -> bool {
        self.runs.load(Ordering::Relaxed)
    }

    /// A process shall run, or none, from the next start of the machine's runtime on.
    pub(super) fn shall_run(&self, runs: bool) {
        self.runs.store(runs, Ordering::Relaxed);
    }

    /// Asks the process to stop, as an operator does.
    pub(super) fn ask_to_stop(&self) {
        self.stop
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .notify_one();
    }

    /// How the process ended by itself, if it did.
    pub(super) fn take_end(&self) -> Option<Result<(), NodeError>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Everything that the machine's runtime does: the node, if one shall run.
    pub(super) async fn live(self: Arc<Host>) {
        self.clock.start_life();
        if self.runs() {
            let life = self.life.fetch_add(1, Ordering::Relaxed) + 1;
            self.sight.starts(self.id, life);
            let config = self.cluster.config(self.id);
            let stop = Arc::<Notify>::default();
            *self.stop.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&stop);
            let node = quorate::node::run(config, self.ports(life), stop.notified());
            let result = Behind::new(&self.gate, Box::pin(node)).await;
            *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        }
        std::future::pending().await
    }

    fn ports(&self, life: u64) -> Ports {
        let mut random = Stream::keyed(self.cluster.noise, Concern::Machines, life << 8 | self.id.0);
        Ports {
            clock: Arc::new(ClockPort(Arc::clone(&self.clock))),
            entropy: Arc::new(Seeded::new(random.seed())),
            executor: Arc::new(LocalTasks(Arc::clone(&self.gate))),
            files: Arc::new(self.disk.mount()),
            network: Arc::new(NetworkPort {
                wires: self.wires.clone(),
                clock: Arc::clone(&self.clock),
                address: address(self.id),
                gate: Arc::clone(&self.gate),
                streams: Arc::clone(&self.streams),
            }),
            machine: Arc::new(Idle),
            observer: Arc::new(Watch {
                node: self.id,
                life,
                sight: Arc::clone(&self.sight),
            }),
        }
    }
}
