//! The node: the consensus lane, the lanes that work for it, and the client port in front.
//!
//! Starting: the data directory is claimed, the log recovered and the state loaded; then the consensus lane starts with
//! the transport. A node without a part in a cluster first gets one ([`formation`]). The client port is open from the
//! beginning and answers that the node is not ready.
//!
//! Stopping: a leader hands over first; then the client port finishes what is in flight, which may still be forwarded
//! to the new leader; then consensus stops and the lanes write out what they have.

mod aside;
mod asks;
mod backend;
mod change;
mod clients;
mod consensus;
mod duties;
mod force;
mod formation;
mod inbox;
mod invite;
mod lanes;
mod leases;
mod measure;
mod notices;
mod outcomes;
mod peers;
mod repair;
mod show;
mod view;
mod whereabouts;

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use quorate_core::raft::{
    self, Base, Boot, BootError, DiskError, FeatureLevel, Index, Membership, Position, Raft, Role,
    SnapshotEvent,
};
use quorate_core::state::{RestoreError, Restoring};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};

use self::backend::NodeBackend;
use self::clients::Clients;
use self::consensus::{Consensus, Inputs, Surroundings};
pub use self::force::{ForceError, Prepared};
use self::formation::{Blank, FormationError, Seeker};
use self::inbox::{Completion, Request};
use self::lanes::Lanes;
use self::lanes::apply::{ApplyLane, SharedState};
use self::lanes::records::RecordsOrder;
use self::lanes::snapshot::{SnapshotLane, SnapshotOrder};
use self::peers::Peers;
use self::view::View;
use self::whereabouts::Whereabouts;
use crate::api::backend::{Backend, StreamChanges};
use crate::api::native;
use crate::api::server::{self, Doors, Server};
use crate::config::{Config, Formation};
use crate::metrics::Metrics;
use crate::notify::Notifier;
use crate::planted::PlantedBug;
use crate::port::{Clock, LocalBoxFuture, Ports};
use crate::storage::{
    DataDirectory, Log, LogOptions, Owner, Recovered, Snapshots, StateStore, StorageError, run_state_lane,
    state_lane,
};
use crate::transport::{self, Events, Protocols, Transport};
use crate::watch::{Hub, WatchEnd, end_with_the_quorum};

/// Requests that wait for the consensus lane; more are answered that the node is busy.
const REQUESTS_MAX: usize = 16_384;
/// How many of these places are kept for keep-alives and the control of the cluster, and not given to data.
const REQUESTS_RESERVED: usize = 1_024;
/// Bytes of the newest entries that are loaded when the node starts.
const TAIL_BYTES_MAX: u64 = 4 << 20;
/// Changes that wait for the state store, in bytes.
const STATE_QUEUE_BYTES: u64 = 32 << 20;
/// A member heard of within so many of the largest election time-outs is in touch.
const IN_TOUCH_TIMEOUTS: u32 = 2;
/// How long a stopping leader waits for another to take over.
const HANDOVER_TIME: Duration = Duration::from_secs(2);
/// How long a stopping node waits for its lanes to write out what they have.
const LANES_TIME: Duration = Duration::from_secs(30);

/// Why a node could not start, or had to stop.
#[derive(Debug, Error)]
pub enum NodeError {
    /// The data directory cannot be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The rows in the state store make no state.
    #[error(
        "the state in {path} cannot be used: {source}; move the data directory aside and start the node again: it rejoins as a learner and catches up from the others"
    )]
    State {
        /// The state store.
        path: String,
        /// What is wrong.
        source: RestoreError,
    },
    /// Log and state do not fit together.
    #[error(
        "the data directory {path} cannot be used: {source}; move it aside and start the node again: it rejoins as a learner and catches up from the others"
    )]
    Boot {
        /// The data directory.
        path: String,
        /// What is wrong.
        source: BootError,
    },
    /// The program is older than what the cluster uses, or the node is another part of it than it was started as.
    #[error("{0}")]
    Unfit(BootError),
    /// An address has no meaning.
    #[error("{0}")]
    Address(String),
    /// The transport could not start.
    #[error(transparent)]
    Transport(#[from] transport::StartError),
    /// The client port could not be opened.
    #[error(transparent)]
    ClientPort(#[from] server::BindError),
    /// A lane could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
    /// The system has no entropy.
    #[error("no random bytes: {0}")]
    Entropy(#[source] io::Error),
    /// The node got no part in a cluster.
    #[error("{0}")]
    Formation(String),
    /// A lane failed while the node ran.
    #[error("{0}")]
    Failed(String),
}

/// What a build speaks with other nodes and supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Release {
    /// The versions of the conversation between nodes.
    pub protocols: Protocols,
    /// The features of consensus.
    pub features: FeatureLevel,
}

impl Release {
    /// This build.
    pub const CURRENT: Release = Release {
        protocols: Protocols::CURRENT,
        features: FeatureLevel::CURRENT,
    };
}

/// Runs a node until `stop` completes.
///
/// # Errors
/// When the node cannot start, or cannot go on.
pub async fn run(config: Config, ports: Ports, stop: impl Future<Output = ()>) -> Result<(), NodeError> {
    run_as(Release::CURRENT, config, ports, stop).await
}

/// Runs a node that says of itself that it is of `release`, until `stop` completes. Clusters of two releases are tried
/// out with that.
///
/// # Errors
/// When the node cannot start, or cannot go on.
pub async fn run_as(
    release: Release,
    config: Config,
    ports: Ports,
    stop: impl Future<Output = ()>,
) -> Result<(), NodeError> {
    let config = Arc::new(config);
    let notifier = Notifier::from_environment();
    let metrics = Arc::new(Metrics::new(&config.node_name, config.storage.wal_sync));
    let durable = Durable::open(&config, &ports, &metrics).await?;
    let doors = Doors {
        listeners: server::bind(&*ports.network, &config.client_listen).await?,
        endpoints: native::bind(&ports, &config).await,
    };

    let (requests, requests_in) = mpsc::channel(REQUESTS_MAX);
    let (view, views) = watch::channel(View::blank());
    let (applied, applied_out) = watch::channel(durable.applied);
    let (alive, mut all_ended) = mpsc::channel::<()>(1);
    let watches = Arc::new(watchers(&config, &ports, &durable, &metrics)?);
    let stream_changes = Arc::new(watch::Sender::default());
    let (record_reads, record_reads_in) = mpsc::channel(lanes::records::READS_MAX);
    tokio::spawn(end_with_the_quorum(
        views.clone(),
        Arc::clone(&watches),
        View::end_of_watches,
    ));
    let backend = Arc::new(NodeBackend {
        config: Arc::clone(&config),
        clock: Arc::clone(&ports.clock),
        requests: requests.clone(),
        state: Arc::clone(&durable.state),
        applied: applied_out,
        view: views,
        state_bytes: Arc::clone(&durable.state_bytes),
        metrics: Arc::clone(&metrics),
        watches: Arc::clone(&watches),
        stream_changes: Arc::clone(&stream_changes),
        record_reads,
        planted: ports.planted,
    });
    let bind = resolve(&config, &ports).await?;
    let core = CoreLane {
        release,
        config: Arc::clone(&config),
        ports: ports.clone(),
        metrics,
        durable,
        watches: Arc::clone(&watches),
        streams: StreamReaders {
            changes: Arc::clone(&stream_changes),
            reads: record_reads_in,
        },
        bind,
        view,
        applied,
        alive,
    };
    let (ended, mut end) = oneshot::channel();
    let run_core = move || -> LocalBoxFuture<()> {
        Box::pin(async move {
            let result = core.run(requests_in).await;
            let _ = ended.send(result);
        })
    };
    ports
        .executor
        .run("consensus", Box::new(run_core))
        .map_err(NodeError::Thread)?;

    let (drain, drained) = oneshot::channel::<()>();
    let server = Server {
        router: crate::api::router(
            Arc::clone(&backend) as Arc<dyn Backend>,
            Arc::clone(&ports.clock),
            config.limits,
            config.timeouts,
        ),
        clock: Arc::clone(&ports.clock),
        max_connections: config.network.max_connections,
        grace: config.timeouts.shutdown,
        limits: config.limits,
        planted: ports.planted,
    };
    let mut serving = std::pin::pin!(server.serve(doors, async {
        let _ = drained.await;
    }));
    notifier.ready();
    let mut stop = std::pin::pin!(stop);
    let early = tokio::select! {
        biased;
        result = &mut end => Some(result),
        () = &mut serving => None,
        () = &mut stop => None,
    };
    notifier.stopping();
    let result = match early {
        Some(result) => {
            watches.close(WatchEnd::Stopping);
            stream_changes.send_modify(|changes| changes.stopping = true);
            let _ = drain.send(());
            result
        }
        None => {
            hand_over(&backend, &ports.clock, &mut serving).await;
            watches.close(WatchEnd::Stopping);
            stream_changes.send_modify(|changes| changes.stopping = true);
            let _ = drain.send(());
            serving.await;
            let _ = requests.send(Request::Stop).await;
            end.await
        }
    };
    let deadline = ports.clock.now() + LANES_TIME;
    tokio::select! {
        biased;
        _ = all_ended.recv() => {}
        () = ports.clock.sleep_until(deadline) => tracing::warn!("some lanes did not end in time"),
    }
    result.unwrap_or_else(|_| {
        Err(NodeError::Failed(
            "the consensus lane ended without a word".to_owned(),
        ))
    })
}

/// Nobody watches yet.
fn watchers(
    config: &Config,
    ports: &Ports,
    durable: &Durable,
    metrics: &Arc<Metrics>,
) -> Result<Hub, NodeError> {
    let mut seed = [0; 8];
    ports.entropy.fill(&mut seed).map_err(NodeError::Entropy)?;
    Ok(Hub::new(
        Arc::clone(&durable.state),
        config.network.max_watchers,
        u64::from_le_bytes(seed),
        Arc::clone(metrics),
    )
    .planted_with(ports.planted))
}

/// A leader hands over before it stops, while requests go on being served.
async fn hand_over(
    backend: &NodeBackend,
    clock: &Arc<dyn Clock>,
    serving: &mut (impl Future<Output = ()> + Unpin),
) {
    if backend.view.borrow().role != Role::Leader {
        return;
    }
    let deadline = clock.now() + HANDOVER_TIME;
    tracing::info!("handing the leadership over before stopping");
    tokio::select! {
        biased;
        result = backend.step_down(None, deadline) => match result {
            Ok(_) => tracing::info!("another node leads"),
            Err(error) => tracing::warn!(%error, "nobody took over"),
        },
        () = serving => {}
    }
}

/// The address that the cluster's socket is bound to.
async fn resolve(config: &Config, ports: &Ports) -> Result<SocketAddr, NodeError> {
    let listen = &config.cluster_listen;
    let found = ports.network.resolve(&listen.address()).await;
    let first = found
        .map_err(|error| NodeError::Address(listen.explain(&error)))?
        .into_iter()
        .next();
    first.ok_or_else(|| NodeError::Address(format!("{} has no address", listen.address())))
}

/// What those who read streams share with the lanes.
struct StreamReaders {
    changes: Arc<watch::Sender<StreamChanges>>,
    reads: mpsc::Receiver<RecordsOrder>,
}

/// What a node recovered from its data directory.
struct Durable {
    directory: DataDirectory,
    log: Log,
    recovered: Recovered,
    store: StateStore,
    snapshots: Snapshots,
    state: SharedState,
    /// What keys and values take.
    state_bytes: Arc<AtomicU64>,
    /// The last entry that the state holds, and the membership as of it.
    base: Option<Base>,
    applied: Index,
}

impl Durable {
    async fn open(config: &Config, ports: &Ports, metrics: &Arc<Metrics>) -> Result<Durable, NodeError> {
        let owner = Owner {
            name: config.node_name.as_str().to_owned(),
            cluster: config.cluster_name.clone(),
        };
        let sizes = &config.sizes;
        let mut directory =
            DataDirectory::open_with(ports, &config.storage.data_dir, &owner, sizes.segment_bytes).await?;
        let observer = Arc::clone(metrics);
        let options = LogOptions {
            segment_bytes: sizes.segment_bytes,
            sync: config.storage.wal_sync,
            tail_bytes_max: TAIL_BYTES_MAX,
            node: directory.identity().assignment.map(|assignment| assignment.node),
            observer: Some(Arc::new(move |duration| observer.fsync.observe(duration))),
        };
        let (mut log, mut recovered) = Log::open(ports, directory.path(), options).await?;
        if recovered.torn {
            tracing::info!("discarded the end of a write that was never acknowledged");
        }
        let assigned = directory.identity().assignment;
        let since = assigned.and_then(|assigned| force::lineage_since(&recovered, assigned.lineage));
        if let Some(lineage) = since {
            tracing::info!(%lineage, "this node was forced to start, and begins a new lineage");
            directory.follow(lineage).await?;
        }
        let snapshots =
            Snapshots::open(ports, &directory.snapshots_path())?.with_pieces_of(sizes.snapshot_piece_bytes);
        let path = directory.state_path();
        // A witness keeps no state that its log could be ahead of.
        let log_base = recovered.base.as_ref().filter(|_| !config.witness);
        let store = StateStore::open_behind(ports, &path, &snapshots, log_base).await?;
        let position = store.loaded().applied;
        let mut restoring = Restoring::new(position);
        let mut result = Ok(());
        let loaded = store.load(|key, value| {
            if result.is_ok() {
                result = restoring.row(key, value);
            }
        })?;
        let state = result.and_then(|()| restoring.finish());
        let state = state.map_err(|source| NodeError::State {
            path: path.display().to_string(),
            source,
        })?;
        let base = loaded.membership.map(|membership| Base { position, membership });
        if let Some(base) = base.as_ref().or(recovered.base.clone().as_ref()) {
            log.fit_to(base, &mut recovered)
                .await
                .map_err(|error| NodeError::Failed(error.to_string()))?;
        }
        if recovered.incomplete {
            return Err(NodeError::Boot {
                path: directory.path().display().to_string(),
                source: BootError::Inconsistent("entries are missing that the state lacks too"),
            });
        }
        if recovered.damage.is_some() || recovered.repair.is_some() {
            repair::announce(recovered.damage.as_deref(), recovered.repair);
        }
        Ok(Durable {
            directory,
            log,
            recovered,
            store,
            snapshots,
            state_bytes: Arc::new(AtomicU64::new(state.bytes())),
            state: Arc::new(RwLock::new(state)),
            base,
            applied: position.index,
        })
    }
}

/// What the consensus lane starts with.
struct CoreLane {
    release: Release,
    config: Arc<Config>,
    ports: Ports,
    metrics: Arc<Metrics>,
    durable: Durable,
    watches: Arc<Hub>,
    streams: StreamReaders,
    bind: SocketAddr,
    view: watch::Sender<View>,
    applied: watch::Sender<Index>,
    /// Dropped by every lane when it ends.
    alive: mpsc::Sender<()>,
}

impl CoreLane {
    async fn run(self, mut requests: mpsc::Receiver<Request>) -> Result<(), NodeError> {
        let CoreLane {
            release,
            config,
            ports,
            metrics,
            mut durable,
            watches,
            streams,
            bind,
            view,
            applied,
            alive,
        } = self;
        let (completions, completed) = mpsc::unbounded_channel();
        let (transport, mut events) = start_transport(release.protocols, &config, &ports, &durable, bind)?;
        if durable.directory.identity().assignment.is_none() {
            let seeker = Seeker::new(
                Arc::clone(&config),
                &ports,
                transport.clone(),
                durable.directory.identity().directory,
                release.features,
            )
            .map_err(|error| NodeError::Formation(error.to_string()))?;
            let addresses = seeker.addresses();
            let blank = Blank {
                ports: &ports,
                events: &mut events,
                requests: &mut requests,
                directory: &mut durable.directory,
                log: &mut durable.log,
                seeker,
                addresses,
            };
            match blank.run().await {
                Err(FormationError::Stopped) => {
                    transport.close("the node stops").await;
                    return Ok(());
                }
                Err(error) => return Err(NodeError::Formation(error.to_string())),
                Ok(base) => durable.recovered.base = Some(base),
            }
        }
        let running = Running {
            features: release.features,
            config,
            ports,
            metrics,
            durable,
            watches,
            streams,
            view,
            applied,
            alive,
        };
        running
            .start(transport, completions)?
            .run(Inputs {
                completions: completed,
                events,
                requests,
            })
            .await
            .map_err(NodeError::Failed)
    }
}

/// A node with a part in a cluster, about to take it.
struct Running {
    features: FeatureLevel,
    config: Arc<Config>,
    ports: Ports,
    metrics: Arc<Metrics>,
    durable: Durable,
    watches: Arc<Hub>,
    streams: StreamReaders,
    view: watch::Sender<View>,
    applied: watch::Sender<Index>,
    alive: mpsc::Sender<()>,
}

impl Running {
    fn start(
        self,
        transport: Transport,
        completions: mpsc::UnboundedSender<Completion>,
    ) -> Result<Consensus, NodeError> {
        let Running {
            features,
            config,
            ports,
            metrics,
            durable,
            watches,
            streams,
            view,
            applied,
            alive,
        } = self;
        let raft = boot(features, &config, &ports, &durable)?;
        let Durable {
            directory,
            log,
            store,
            snapshots,
            state,
            state_bytes,
            base,
            ..
        } = durable;
        let status = raft.status();
        transport.set_identity(Some((status.membership.lineage(), status.id)));
        warn_of_differences(&config, status.membership);

        let (log_orders, log_in) = mpsc::unbounded_channel();
        let (reader_orders, reader_in) = mpsc::unbounded_channel();
        let (apply_orders, apply_in) = mpsc::unbounded_channel();
        let (snapshot_orders, snapshot_in) = mpsc::unbounded_channel();
        let lanes = Lanes {
            log: log_orders,
            reader: reader_orders,
            apply: apply_orders,
            snapshot: snapshot_orders,
        };
        let spawn = Spawner { ports: &ports, alive };
        let reader = log.reader();
        let done = completions.clone();
        spawn.lane("log", move || lanes::log::run_writer(log, log_in, done))?;
        let done = completions.clone();
        spawn.lane("reader", move || lanes::log::run_reader(reader, reader_in, done))?;

        let (store_sender, store_lane) = state_lane(STATE_QUEUE_BYTES);
        let shared = Arc::clone(&state);
        let apply = ApplyLane {
            state,
            watches,
            membership_changed: base.is_none(),
            membership: base.unwrap_or_else(|| raft.status().base.clone()).membership,
            store: store_sender.clone(),
            unwritten: store.unwritten(),
            stream_changes: Arc::clone(&streams.changes),
            state_bytes,
            snapshots: snapshots.clone(),
            applied,
            completions: completions.clone(),
            metrics: Arc::clone(&metrics),
            clock: Arc::clone(&ports.clock),
            observer: Arc::clone(&ports.observer),
            planted: ports.planted,
        };
        spawn.lane("apply", move || apply.run(apply_in))?;
        let reader = store.reader();
        let changes = streams.changes.subscribe();
        spawn.lane("records", move || {
            lanes::records::run(reader, streams.reads, changes)
        })?;
        let snapshot = SnapshotLane {
            snapshots,
            state: store.reader(),
            store: store_sender,
            transport: transport.clone(),
            rate: config.storage.snapshot_rate,
            clock: Arc::clone(&ports.clock),
            completions: completions.clone(),
        };
        spawn.lane("snapshot", move || snapshot.run(snapshot_in))?;
        let orders = lanes.snapshot.downgrade();
        let reports = completions.clone();
        let report = move |result| report_durable(result, &completions, &orders);
        let store_ports = ports.clone();
        spawn.lane("state", move || {
            run_state_lane(store_ports, store, store_lane, report)
        })?;

        let mut first_request = [0; 8];
        ports
            .entropy
            .fill(&mut first_request)
            .map_err(NodeError::Entropy)?;
        let clients = Clients::new(u64::from_le_bytes(first_request), ports.planted);
        let peers = Peers::new(
            config.node_name.as_str().to_owned(),
            config.client_address.clone(),
            IN_TOUCH_TIMEOUTS * config.raft.election_timeout_max,
            Whereabouts::new(&config),
            ports.clock.now(),
        );
        let surroundings = Surroundings {
            transport,
            ports,
            metrics,
            lanes,
            completions: reports,
            state: shared,
            retention: config.storage.retention,
            session_grace: config.timeouts.session_grace,
            view,
            directory,
        };
        Ok(Consensus::new(raft, clients, peers, surroundings))
    }
}

/// Tells consensus, and whoever makes snapshots, up to where the state store is durable.
fn report_durable(
    result: Result<Position, DiskError>,
    completions: &mpsc::UnboundedSender<Completion>,
    orders: &mpsc::WeakUnboundedSender<SnapshotOrder>,
) {
    let completion = match result {
        Ok(position) => {
            if let Some(orders) = orders.upgrade() {
                let _ = orders.send(SnapshotOrder::StateDurable(position));
            }
            Completion::Snapshot(SnapshotEvent::StateDurable {
                index: position.index,
            })
        }
        Err(error) => Completion::Failed {
            message: error.to_string(),
        },
    };
    let _ = completions.send(completion);
}

/// Starts lanes that are waited for when the node stops.
struct Spawner<'a> {
    ports: &'a Ports,
    alive: mpsc::Sender<()>,
}

impl Spawner<'_> {
    fn lane<F, R>(&self, name: &str, make: F) -> Result<(), NodeError>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Future<Output = ()> + 'static,
    {
        let alive = self.alive.clone();
        let lane = move || -> LocalBoxFuture<()> {
            Box::pin(async move {
                make().await;
                drop(alive);
            })
        };
        self.ports
            .executor
            .run(name, Box::new(lane))
            .map_err(NodeError::Thread)
    }
}

fn start_transport(
    protocols: Protocols,
    config: &Config,
    ports: &Ports,
    durable: &Durable,
    bind: SocketAddr,
) -> Result<(Transport, Events), NodeError> {
    let options = transport::Options {
        cluster: config.cluster_name.clone(),
        name: config.node_name.as_str().to_owned(),
        directory: durable.directory.identity().directory,
        bind,
        cluster_address: config.cluster_address.clone(),
        client_address: config.client_address.clone(),
        secrets: vec![config.secret.clone()],
        protocols,
    };
    Transport::start(ports, options).map_err(|error| match error {
        transport::StartError::Bind { source, .. } => {
            NodeError::Address(config.cluster_listen.explain(&source))
        }
        error => NodeError::Transport(error),
    })
}

/// The core with what the node remembers.
fn boot(
    features: FeatureLevel,
    config: &Config,
    ports: &Ports,
    durable: &Durable,
) -> Result<Raft, NodeError> {
    let path = || durable.directory.path().display().to_string();
    let assignment = durable.directory.identity().assignment;
    let missing = BootError::Inconsistent("the identity names a cluster, and the log does not begin");
    let (Some(assignment), Some(base)) = (assignment, durable.recovered.base.clone()) else {
        return Err(NodeError::Boot {
            path: path(),
            source: missing,
        });
    };
    let timing = config.raft;
    let settings = raft::Config {
        election_timeout_min: timing.election_timeout_min,
        election_timeout_max: timing.election_timeout_max,
        heartbeat_interval: timing.heartbeat_interval,
        read_timeout: timing.rpc_timeout,
        lease_reads: timing.lease_reads,
        witness: config.witness,
        features,
        purge_step: config.storage.snapshot_interval,
        ..config.sizes.consensus.clone()
    };
    let recovered = &durable.recovered;
    // A witness has no state; what its log no longer has is settled.
    let applied = if config.witness {
        base.position.index
    } else {
        durable.applied
    };
    let mut hard_state = recovered.hard_state;
    if ports.planted.is(PlantedBug::VoteIsNotRecovered) {
        hard_state.vote = None;
    }
    let forgets_repair = ports.planted.is(PlantedBug::RepairIsForgotten);
    let boot = Boot {
        id: assignment.node,
        hard_state,
        base,
        terms: recovered.terms.clone(),
        memberships: recovered.memberships.clone(),
        last: recovered.last,
        tail: recovered.tail.clone(),
        applied,
        repair: recovered.repair.filter(|_| !forgets_repair),
    };
    let mut seed = [0; 32];
    ports.entropy.fill(&mut seed).map_err(NodeError::Entropy)?;
    Raft::new(settings, boot, seed, ports.clock.now()).map_err(|source| match source {
        BootError::FeaturesLacking { .. } | BootError::OtherPart { .. } => NodeError::Unfit(source),
        source => NodeError::Boot { path: path(), source },
    })
}

/// After the first start the replicated membership counts; the operator should know where the file says otherwise.
fn warn_of_differences(config: &Config, membership: &Membership) {
    let own = membership
        .by_name(config.node_name.as_str())
        .map(|(_, member)| member);
    if let Some(own) = own.filter(|own| own.cluster_address != config.cluster_address) {
        tracing::info!(
            configured = config.cluster_address,
            in_force = own.cluster_address,
            "this node moved: it tells the other members its address"
        );
    }
    let votes = membership
        .by_name(config.node_name.as_str())
        .is_some_and(|(id, _)| membership.is_voter(id));
    if config.learner && votes {
        tracing::warn!(
            "this node is configured as a learner, and the cluster has made it a voter before; to make it a learner, \
             remove it from the cluster and start it with an empty data directory"
        );
    }
    let Formation::Static(nodes) = &config.formation else {
        return;
    };
    let listed: BTreeSet<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
    let members: BTreeSet<&str> = membership
        .members()
        .values()
        .map(|member| &*member.name)
        .collect();
    if listed != members {
        let list = |names: &BTreeSet<&str>| names.iter().copied().collect::<Vec<_>>().join(",");
        tracing::warn!(
            configured = list(&listed),
            in_force = list(&members),
            "the configuration lists other nodes than the cluster has; the cluster's membership is in force"
        );
    }
}
