//! `quorate serve` and `quorate config`

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::process::ExitCode;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::error::CliError;
use super::output::{complain, print, warn};
use crate::config::{Config, Listen, Mistakes, Source, load};
use crate::logging;
use crate::node;
use crate::port::Ports;
use crate::port::system::{ListenerOptions, ports};

const EXAMPLES: &str = "\
Examples:
  A cluster from a list of nodes, the same file on each:
    quorate secret new --output cluster.secret
    quorate serve --config cluster.yaml --node-id 1 --secret-file cluster.secret

  A first node, then others that join it:
    quorate serve --node-id node1 --port 8001 --raft-port 4321 --data-dir data1
    quorate serve --node-id node2 --port 8002 --raft-port 4322 --data-dir data2 --peers 127.0.0.1:4321

  What would it run with, and why?
    quorate config --config cluster.yaml --node-id 1

Every option may also stand in the configuration file or in the environment; a flag wins over a variable, and a
variable over the file. `quorate config` shows the names that the file uses.";

/// Options of `serve`. They are texts here: the configuration reads them, so that all mistakes are told at once.
#[derive(Debug, Default, Args)]
#[command(after_help = EXAMPLES)]
pub struct ServeArgs {
    /// Accepted for compatibility: a node is always one of a cluster
    #[arg(long, hide = true)]
    cluster: bool,
    /// The configuration file [QUORATE_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<String>,
    /// This node's name, or number; the machine's name otherwise [QUORATE_NODE_ID]
    #[arg(long, value_name = "NAME")]
    node_id: Option<String>,
    /// The cluster's name [QUORATE_CLUSTER_NAME, default quorate]
    #[arg(long, value_name = "NAME")]
    cluster_name: Option<String>,
    /// The file with the cluster's secret, the same on every node [QUORATE_SECRET_FILE; or the text in QUORATE_SECRET]
    #[arg(long, value_name = "FILE")]
    secret_file: Option<String>,
    /// Nodes of a running cluster to join, with their ports for other nodes [QUORATE_PEERS]
    #[arg(long, value_name = "HOST:PORT,...")]
    peers: Option<String>,
    /// Be a witness, which votes and holds no data; for a node that joins [QUORATE_WITNESS]
    #[arg(long)]
    witness: bool,
    /// Follow for good: never vote, never lead; for a node that joins, such as one at another site [QUORATE_LEARNER]
    #[arg(long)]
    learner: bool,
    /// Where state is kept; a directory for this node alone [QUORATE_DATA_DIR, default ./data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Address to listen at, for clients and nodes [QUORATE_HOST, default 127.0.0.1, or the one in the list of nodes]
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// Address at which others reach this node, when that is another one [QUORATE_ADVERTISE_HOST]
    #[arg(long, value_name = "HOST")]
    advertise_host: Option<String>,
    /// Port for clients [QUORATE_CLIENT_PORT, default 8000]
    #[arg(long, visible_alias = "client-port", value_name = "PORT")]
    port: Option<String>,
    /// A second port for clients, 0 for none [QUORATE_HTTP_PORT, default 8080 with a list of nodes on hosts of their own]
    #[arg(long, value_name = "PORT")]
    http_port: Option<String>,
    /// Port for other nodes, UDP [QUORATE_RAFT_PORT, default 4321]
    #[arg(long, visible_alias = "cluster-port", value_name = "PORT")]
    raft_port: Option<String>,
    /// Serve clients beyond this machine without encryption [QUORATE_INSECURE]
    #[arg(long)]
    insecure: bool,
    /// One value T for the election time-out: from T to twice T milliseconds [QUORATE_ELECTION_TIMEOUT]
    #[arg(long, value_name = "MS")]
    election_timeout: Option<String>,
    /// The shortest election time-out [QUORATE_ELECTION_TIMEOUT_MIN, default 150]
    #[arg(long, value_name = "MS")]
    election_timeout_min: Option<String>,
    /// The longest election time-out [QUORATE_ELECTION_TIMEOUT_MAX, default 300]
    #[arg(long, value_name = "MS")]
    election_timeout_max: Option<String>,
    /// How often a leader says that it is there [QUORATE_HEARTBEAT_INTERVAL, default 50]
    #[arg(long, value_name = "MS")]
    heartbeat_interval: Option<String>,
    /// How long to wait for an answer of another node [QUORATE_RPC_TIMEOUT, default 100]
    #[arg(long, value_name = "MS")]
    rpc_timeout: Option<String>,
    /// Let a leader answer reads with `consistency=lease` alone, on the word of clocks [QUORATE_LEASE_READS, default false]
    #[arg(long, value_name = "BOOL")]
    lease_reads: Option<String>,
    /// How far clocks may drift apart for that, in parts per million [QUORATE_CLOCK_DRIFT_PPM, default 10000]
    #[arg(long, value_name = "PPM")]
    clock_drift_ppm: Option<String>,
    /// Sync every write to the disk before it is acknowledged [QUORATE_WAL_SYNC, default true]
    #[arg(long, value_name = "BOOL")]
    wal_sync: Option<String>,
    /// Entries that the log grows by before its beginning is removed [QUORATE_SNAPSHOT_INTERVAL, default 10000]
    #[arg(long, value_name = "ENTRIES")]
    snapshot_interval: Option<String>,
    /// Bytes of snapshots sent in a second at the most; 0 for no limit [QUORATE_SNAPSHOT_RATE, default 64MiB]
    #[arg(long, value_name = "BYTES")]
    snapshot_rate: Option<String>,
    /// How long old revisions can be read [QUORATE_HISTORY_AGE, default 3600s]
    #[arg(long, value_name = "MS")]
    history_age: Option<String>,
    /// How many old revisions can be read at the most [QUORATE_HISTORY_REVISIONS, default 1000000]
    #[arg(long, value_name = "COUNT")]
    history_revisions: Option<String>,
    /// How long the answer to a request with an Idempotency-Key is kept [QUORATE_REQUESTS_AGE, default 86400s]
    #[arg(long, value_name = "MS")]
    requests_age: Option<String>,
    /// Connections of clients at a time [QUORATE_MAX_CONNECTIONS, default 1000]
    #[arg(long, value_name = "COUNT")]
    max_connections: Option<String>,
    /// Watches at a time [QUORATE_MAX_WATCHERS, default 10000]
    #[arg(long, value_name = "COUNT")]
    max_watchers: Option<String>,
    /// Serve clients over QUIC, too, on the UDP side of their port: encrypted, and without showing who the node is, so no more
    /// to be trusted than HTTP [QUORATE_QUIC, default true]
    #[arg(long, value_name = "BOOL")]
    quic: Option<String>,
    /// Send small answers at once [QUORATE_TCP_NODELAY, default true]
    #[arg(long, value_name = "BOOL")]
    tcp_nodelay: Option<String>,
    /// Let the kernel check silent connections [QUORATE_KEEPALIVE, default true]
    #[arg(long, value_name = "BOOL")]
    keepalive: Option<String>,
    /// The longest key [QUORATE_KEY_BYTES, default 4KiB]
    #[arg(long, value_name = "BYTES")]
    key_bytes: Option<String>,
    /// The longest value [QUORATE_VALUE_BYTES, default 1MiB]
    #[arg(long, value_name = "BYTES")]
    value_bytes: Option<String>,
    /// The longest body that is no value [QUORATE_BODY_BYTES, default 64KiB]
    #[arg(long, value_name = "BYTES")]
    body_bytes: Option<String>,
    /// The longest transaction [QUORATE_TRANSACTION_BYTES, default 2MiB]
    #[arg(long, value_name = "BYTES")]
    transaction_bytes: Option<String>,
    /// How much keys and values may take in memory, with their old revisions [QUORATE_STATE_BYTES, default 2GiB]
    #[arg(long, value_name = "BYTES")]
    state_bytes: Option<String>,
    /// The longest a client waits for an answer [QUORATE_REQUEST_TIMEOUT, default 5000]
    #[arg(long, value_name = "MS")]
    request_timeout: Option<String>,
    /// How much of that is spent on waiting for a leader [QUORATE_LEADER_WAIT, default 2000]
    #[arg(long, value_name = "MS")]
    leader_wait: Option<String>,
    /// How long requests may take to finish when the node stops [QUORATE_SHUTDOWN_TIMEOUT, default 10000]
    #[arg(long, value_name = "MS")]
    shutdown_timeout: Option<String>,
    /// How long a node may be silent before its sessions go to others [QUORATE_SESSION_GRACE, default 5000]
    #[arg(long, value_name = "MS")]
    session_grace: Option<String>,
    /// What to log: error, warn, info, debug, trace, off, or such for targets [QUORATE_LOG, default info]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// How log lines look: text or json [QUORATE_LOG_FORMAT, default text]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// The same as --log-level debug
    #[arg(long, conflicts_with = "log_level")]
    debug: bool,
    /// Show the configuration and where each value comes from, and stop
    #[arg(long)]
    print_config: bool,
    /// Stop when this process is gone; `dev` passes its own id
    #[arg(long, hide = true, value_name = "PID")]
    exit_with: Option<i32>,
}

impl ServeArgs {
    /// The settings that were given as flags.
    fn flags(&self) -> Vec<(&'static str, String)> {
        let texts = [
            ("--node-id", &self.node_id),
            ("--cluster-name", &self.cluster_name),
            ("--secret-file", &self.secret_file),
            ("--peers", &self.peers),
            ("--data-dir", &self.data_dir),
            ("--host", &self.host),
            ("--advertise-host", &self.advertise_host),
            ("--port", &self.port),
            ("--http-port", &self.http_port),
            ("--raft-port", &self.raft_port),
            ("--election-timeout", &self.election_timeout),
            ("--election-timeout-min", &self.election_timeout_min),
            ("--election-timeout-max", &self.election_timeout_max),
            ("--heartbeat-interval", &self.heartbeat_interval),
            ("--rpc-timeout", &self.rpc_timeout),
            ("--lease-reads", &self.lease_reads),
            ("--clock-drift-ppm", &self.clock_drift_ppm),
            ("--wal-sync", &self.wal_sync),
            ("--snapshot-interval", &self.snapshot_interval),
            ("--snapshot-rate", &self.snapshot_rate),
            ("--history-age", &self.history_age),
            ("--history-revisions", &self.history_revisions),
            ("--requests-age", &self.requests_age),
            ("--max-connections", &self.max_connections),
            ("--max-watchers", &self.max_watchers),
            ("--quic", &self.quic),
            ("--tcp-nodelay", &self.tcp_nodelay),
            ("--keepalive", &self.keepalive),
            ("--key-bytes", &self.key_bytes),
            ("--value-bytes", &self.value_bytes),
            ("--body-bytes", &self.body_bytes),
            ("--transaction-bytes", &self.transaction_bytes),
            ("--state-bytes", &self.state_bytes),
            ("--request-timeout", &self.request_timeout),
            ("--leader-wait", &self.leader_wait),
            ("--shutdown-timeout", &self.shutdown_timeout),
            ("--session-grace", &self.session_grace),
            ("--log-level", &self.log_level),
            ("--log-format", &self.log_format),
        ];
        let mut flags: Vec<(&'static str, String)> = texts
            .into_iter()
            .filter_map(|(flag, text)| Some((flag, text.clone()?)))
            .collect();
        if self.witness {
            flags.push(("--witness", "true".to_owned()));
        }
        if self.learner {
            flags.push(("--learner", "true".to_owned()));
        }
        if self.insecure {
            flags.push(("--insecure", "true".to_owned()));
        }
        if self.debug {
            flags.push(("--log-level", "debug".to_owned()));
        }
        flags
    }

    fn load(&self) -> Result<Config, Mistakes> {
        let names_and_values = std::env::vars_os();
        let environment: BTreeMap<String, String> = names_and_values
            .filter_map(|(name, value)| {
                Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
            })
            .collect();
        let secret_file = self
            .secret_file
            .clone()
            .or_else(|| environment.get("QUORATE_SECRET_FILE").cloned());
        let mut config = load(&Source {
            config_path: self.config.clone(),
            environment,
            flags: self.flags(),
            read: &|path| std::fs::read_to_string(path),
            host_name: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            host_address: reachable_address(),
        })?;
        if let Some(path) = secret_file.filter(|path| is_readable_by_others(path)) {
            let warning = format!("{path} can be read by other users of this machine: chmod 600 {path}");
            config.warnings.push(warning);
        }
        Ok(config)
    }
}

/// The address from which this machine sends to others. Nothing is sent.
fn reachable_address() -> Option<IpAddr> {
    // An address set aside for documentation (RFC 5737): it belongs to nobody and goes by the default route.
    const ELSEWHERE: &str = "192.0.2.1:9";
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect(ELSEWHERE).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_unspecified()).then_some(address)
}

fn is_readable_by_others(path: &str) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0)
}

/// Loads the configuration and runs the node.
pub(super) fn run(args: &ServeArgs) -> ExitCode {
    if args.print_config {
        return print_config(args);
    }
    if let Some(parent) = args.exit_with
        && let Err(error) = exit_with(parent)
    {
        return CliError::io("follow the process that started this one", error).report();
    }
    let config = match args.load() {
        Ok(config) => config,
        Err(mistakes) => return refuse(&mistakes),
    };
    if let Err(error) = logging::init(&config.log) {
        complain(&format!("cannot set up the log: {error}"));
        return ExitCode::FAILURE;
    }
    let ports = ports(ListenerOptions {
        tcp_nodelay: config.network.tcp_nodelay,
        keepalive: config.network.keepalive,
    });
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        node = %config.node_name,
        clients = listed(&config.client_listen),
        cluster = config.cluster_listen.address(),
        data = %config.storage.data_dir.display(),
        "starting"
    );
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    start_node(config, ports)
}

fn listed(places: &[Listen]) -> String {
    let addresses: Vec<String> = places.iter().map(Listen::address).collect();
    addresses.join(",")
}

/// Shows the configuration in force.
pub(super) fn print_config(args: &ServeArgs) -> ExitCode {
    let config = match args.load() {
        Ok(config) => config,
        Err(mistakes) => return refuse(&mistakes),
    };
    for warning in &config.warnings {
        warn(warning);
    }
    match print(&config.print()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(),
    }
}

fn refuse(mistakes: &Mistakes) -> ExitCode {
    CliError::Usage(mistakes.to_string()).report()
}

/// Asks the kernel to stop this process when `parent` ends, however that ends.
fn exit_with(parent: i32) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))?;
    let now = rustix::process::getppid().map(|parent| parent.as_raw_nonzero().get());
    if now == Some(parent) {
        return Ok(());
    }
    Err(io::Error::other(format!("process {parent} has ended already")))
}

/// Runs the node until SIGTERM or SIGINT.
fn start_node(config: Config, ports: Ports) -> ExitCode {
    // Two threads answer clients; consensus and the disk have their own.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let result = runtime.map_err(|error| error.to_string()).and_then(|runtime| {
        runtime.block_on(async {
            let stop = stop_signal().map_err(|error| format!("cannot listen for signals: {error}"))?;
            node::run(config, ports, stop)
                .await
                .map_err(|error| error.to_string())
        })
    });
    match result {
        Ok(()) => {
            tracing::info!("stopped");
            ExitCode::SUCCESS
        }
        Err(error) => {
            // Whatever the log leaves out, nobody should have to guess why a node ended.
            if tracing::enabled!(tracing::Level::ERROR) {
                tracing::error!("{error}");
            } else {
                complain(&error);
            }
            ExitCode::FAILURE
        }
    }
}

/// Completes when the process is asked to stop.
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            biased;
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
