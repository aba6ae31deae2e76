//! One simulated machine: its disk, clock and address, and the production node that runs on it.
//!
//! A machine outlives its processes. Each life of the node starts from the disk as the last one left it, with a
//! stream of chance of its own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quorate::config::{
    Config, Formation, Limits, Listen, LogFormat, LogOptions, NetworkOptions, Origin, RaftTiming, Sizes,
    StaticNode, Storage, Timeouts,
};
use quorate::node::{ForceError, NodeError, Prepared, Release};
use quorate::planted::Planted;
use quorate::port::Ports;
use quorate::storage::{SEGMENT_BYTES, SNAPSHOT_PIECE_BYTES};
use quorate::transport::{Protocols, Secret};
use quorate_api::NodeName;
use quorate_core::duties::Retention;
use quorate_core::raft::{self, FeatureLevel, NodeId};
use tokio::sync::Notify;

use super::clock::{ClockPort, MachineClock};
use super::disk::Disk;
use super::entropy::Seeded;
use super::gate::{Behind, Gate};
use super::holdings::{Holdings, Taken};
use super::network::Wires;
use super::ports::{Idle, LocalTasks, NetworkPort, Streams};
use super::setup::Topology;
use super::told::Told;
use super::watch::{Sight, Watch};
use crate::consensus::plan::Knobs;
use crate::consensus::{self, Mistake};
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

/// Which machine clients reach at `address`.
pub(super) fn machine_at(address: SocketAddr) -> NodeId {
    match address.ip() {
        IpAddr::V4(ip) => NodeId(u64::from(ip.octets()[3])),
        IpAddr::V6(_) => unreachable!("machines have addresses of version 4"),
    }
}

/// What is the same for every node of a run.
pub(super) struct Cluster {
    pub(super) noise: u64,
    pub(super) topology: Topology,
    pub(super) secret: Secret,
    pub(super) knobs: Knobs,
    /// The mistake that all nodes make.
    pub(super) mistake: Option<Mistake>,
}

impl Cluster {
    /// What nodes have in sizes: small limits of consensus make small files.
    fn sizes(&self) -> Sizes {
        let raft = &self.knobs.raft;
        let small = |bytes: u64| match bytes {
            0..100 => 0,
            100..10_000 => 1,
            _ => 2,
        };
        Sizes {
            segment_bytes: [8 << 10, 32 << 10, SEGMENT_BYTES][small(raft.tail_bytes_max)],
            snapshot_piece_bytes: [300, 2_000, SNAPSHOT_PIECE_BYTES][small(raft.append_bytes_max)],
            consensus: raft::Config {
                planted: consensus::planted(self.mistake),
                ..raft.clone()
            },
        }
    }

    /// How fast snapshots are sent, in bytes a second: where the plan says that they are slow, one takes seconds.
    fn snapshot_rate(&self) -> u64 {
        match self.knobs.snapshot_mean {
            0..10_000_000 => 0,
            10_000_000..100_000_000 => 200_000,
            _ => 20_000,
        }
    }

    fn cluster_name(&self, id: NodeId) -> &'static str {
        if self.topology.strangers.contains(&id) {
            "another"
        } else {
            "simulated"
        }
    }

    fn planted(&self) -> Planted {
        match self.mistake {
            #[cfg(feature = "planted-bugs")]
            Some(Mistake::Shell(bug)) => Planted::with(bug),
            _ => Planted::NONE,
        }
    }

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
        let Topology {
            voters, witnesses, ..
        } = &self.topology;
        let listed = |id: &NodeId| StaticNode {
            name: name(*id),
            cluster_address: at(*id, CLUSTER_PORT),
            client_address: at(*id, CLIENT_PORT),
            witness: witnesses.contains(id),
        };
        let raft = &self.knobs.raft;
        Config {
            node_name: name(id),
            cluster_name: self.cluster_name(id).to_owned(),
            formation: if voters.contains(&id) {
                Formation::Static(voters.iter().map(listed).collect())
            } else {
                Formation::Join(voters.iter().map(|voter| at(*voter, CLUSTER_PORT)).collect())
            },
            witness: witnesses.contains(&id),
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
                snapshot_interval: raft.purge_step,
                snapshot_rate: self.snapshot_rate(),
                retention: Retention::default(),
            },
            sizes: self.sizes(),
            network: NetworkOptions {
                max_connections: 1_000,
                max_watchers: 1_000,
                quic: true,
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
    told: Arc<Told>,
    pub(super) gate: Arc<Gate>,
    pub(super) streams: Arc<Streams>,
    /// Whether a process shall run.
    runs: AtomicBool,
    life: AtomicU64,
    /// Whether the next start is forced.
    forced: AtomicBool,
    installed: AtomicU16,
    /// Asks the process of this life to stop.
    stop: Mutex<Arc<Notify>>,
    ended: Mutex<Option<Result<(), NodeError>>>,
    /// What the process of this life holds.
    taken: Mutex<Arc<Taken>>,
}

impl Host {
    pub(super) fn new(
        id: NodeId,
        cluster: &Arc<Cluster>,
        disk: Disk,
        clock: Arc<MachineClock>,
        wires: &Wires,
        sight: &Arc<Sight>,
        told: &Arc<Told>,
    ) -> Host {
        wires.plug_in(address(id).into(), id);
        Host {
            id,
            disk,
            clock,
            wires: wires.clone(),
            cluster: Arc::clone(cluster),
            sight: Arc::clone(sight),
            told: Arc::clone(told),
            gate: Arc::default(),
            streams: Arc::default(),
            runs: AtomicBool::new(!cluster.topology.spares.contains(&id)),
            life: AtomicU64::new(0),
            forced: AtomicBool::new(false),
            installed: AtomicU16::new(1),
            stop: Mutex::default(),
            ended: Mutex::new(None),
            taken: Mutex::default(),
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

    /// The next start is forced.
    pub(super) fn force(&self) {
        self.forced.store(true, Ordering::Relaxed);
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

    /// How much its process holds.
    pub(super) fn holdings(&self) -> Holdings {
        self.taken
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .holdings()
    }

    /// Everything that the machine's runtime does: the node, if one shall run.
    pub(super) async fn live(self: Arc<Host>) {
        self.clock.start_life();
        if self.runs() {
            let life = self.life.fetch_add(1, Ordering::Relaxed) + 1;
            self.sight.starts(self.id, life);
            self.told.started(self.clock.simulated(), self.id, life);
            let config = self.cluster.config(self.id);
            let stop = Arc::<Notify>::default();
            *self.stop.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&stop);
            let taken = Arc::<Taken>::default();
            taken.begin();
            *self.taken.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&taken);
            let ports = self.ports(life, &taken);
            let node = async {
                if self.forced.swap(false, Ordering::Relaxed) {
                    self.force_start(&ports).await?;
                }
                quorate::node::run_as(self.release(), config, ports, stop.notified()).await
            };
            let result = Behind::new(&self.gate, Box::pin(node)).await;
            *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        }
        std::future::pending().await
    }

    /// What `quorate force-start` does.
    async fn force_start(&self, ports: &Ports) -> Result<(), NodeError> {
        let failed = |error: ForceError| NodeError::Failed(error.to_string());
        let prepared = Prepared::open(ports, Path::new(DATA)).await.map_err(failed)?;
        self.sight.lineage_ends(prepared.start().committed);
        prepared.make().await.map_err(failed)
    }

    /// The release that processes are of from the next start on: 1 is this build, later ones speak and support more.
    pub(super) fn install(&self, release: u16) {
        self.installed.store(release, Ordering::Relaxed);
    }

    fn release(&self) -> Release {
        let installed = self.installed.load(Ordering::Relaxed);
        let Release { protocols, features } = Release::CURRENT;
        Release {
            protocols: Protocols {
                newest: protocols.newest + installed - 1,
                ..protocols
            },
            features: FeatureLevel(features.0 + installed - 1),
        }
    }

    fn ports(&self, life: u64, taken: &Arc<Taken>) -> Ports {
        let mut random = Stream::keyed(self.cluster.noise, Concern::Machines, life << 8 | self.id.0);
        Ports {
            clock: Arc::new(ClockPort(Arc::clone(&self.clock))),
            entropy: Arc::new(Seeded::new(random.seed())),
            executor: Arc::new(LocalTasks {
                gate: Arc::clone(&self.gate),
                taken: Arc::clone(taken),
            }),
            files: Arc::new(self.disk.mount(taken)),
            network: Arc::new(NetworkPort {
                wires: self.wires.clone(),
                clock: Arc::clone(&self.clock),
                address: address(self.id),
                gate: Arc::clone(&self.gate),
                streams: Arc::clone(&self.streams),
                taken: Arc::clone(taken),
            }),
            machine: Arc::new(Idle),
            observer: Arc::new(Watch {
                node: self.id,
                life,
                sight: Arc::clone(&self.sight),
                told: Arc::clone(&self.told),
                clock: Arc::clone(&self.clock),
            }),
            planted: self.cluster.planted(),
        }
    }
}
