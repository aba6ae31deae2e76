//! The configuration of a node: file, then environment, then flags, the later wins.
//!
//! Loading never stops at the first mistake: everything that is wrong is reported at once, each with its place (file,
//! line and key; variable; flag). Every value remembers where it came from, so that `--print-config` can show what is
//! in force and why.
//!
//! - [`settings`]: the table of all settings with their keys, variables and flags.
//! - [`load`]: from a [`Source`] to a [`Config`].

use std::path::PathBuf;
use std::time::Duration;

use quorate_api::NodeName;
use quorate_core::duties::Retention;
use quorate_core::raft::{self, LeaseReads};

use crate::storage::{SEGMENT_BYTES, SNAPSHOT_PIECE_BYTES};
use crate::transport::Secret;

mod addresses;
mod layers;
mod load;
mod mistake;
mod nodes;
mod options;
mod print;
mod reader;
pub mod settings;
#[cfg(test)]
mod tests;

pub use load::{Source, load};
pub(crate) use mistake::nearest;
pub use mistake::{Mistake, Mistakes, Origin};
pub use reader::Effective;

/// Everything a node is told when it starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node's name, unique in the cluster.
    pub node_name: NodeName,
    /// The cluster's name; nodes of clusters with other names are refused.
    pub cluster_name: String,
    /// How the cluster comes to be, when this node has no data yet.
    pub formation: Formation,
    /// Whether this node is a witness, which votes and holds no data. What a node is never changes.
    pub witness: bool,
    /// Whether this node follows for good when it joins: it is never made a voter, and never leads.
    pub learner: bool,
    /// Where clients are served; the first one is the canonical one.
    pub client_listen: Vec<Listen>,
    /// Where other nodes are listened to (QUIC over UDP).
    pub cluster_listen: Listen,
    /// `host:port` at which clients reach this node.
    pub client_address: String,
    /// `host:port` at which other nodes reach this node.
    pub cluster_address: String,
    /// The clocks of consensus.
    pub raft: RaftTiming,
    /// Where and how state is kept.
    pub storage: Storage,
    /// Sizes that no operator sets.
    pub sizes: Sizes,
    /// Connections of clients.
    pub network: NetworkOptions,
    /// Sizes of what clients may send.
    pub limits: Limits,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// What is logged, and how.
    pub log: LogOptions,
    /// What every node of the cluster knows and nobody else.
    pub secret: Secret,
    /// What is legal and probably not meant, for the operator.
    pub warnings: Vec<String>,
    /// Every value in force with its origin.
    pub effective: Vec<Effective>,
}

/// How a cluster comes to be. It counts for a node without data only: afterwards the replicated membership wins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Formation {
    /// The listed nodes found it together, in whichever order they start. Contains this node.
    Static(Vec<StaticNode>),
    /// It exists; ask to be taken in at one of these `host:port` addresses of other nodes.
    Join(Vec<String>),
    /// This node founds it alone; others join.
    First,
}

/// One node of a static list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticNode {
    /// Its name.
    pub name: NodeName,
    /// `host:port` for other nodes.
    pub cluster_address: String,
    /// `host:port` for clients.
    pub client_address: String,
    /// Whether it is a witness.
    pub witness: bool,
}

/// An address to listen at, and which setting to change when it cannot be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// A name or address of this machine.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Where the port comes from.
    pub origin: Origin,
    /// The flag that changes the port.
    pub flag: &'static str,
}

impl Listen {
    /// `host:port`.
    pub fn address(&self) -> String {
        host_and_port(&self.host, self.port)
    }

    /// The sentence for an address that cannot be listened at.
    pub fn explain(&self, error: &std::io::Error) -> String {
        let address = self.address();
        let from = match &self.origin {
            Origin::Default => "the default".to_owned(),
            origin => format!("from {origin}"),
        };
        let port = format!("port {} ({from}); choose another with {}", self.port, self.flag);
        match error.kind() {
            std::io::ErrorKind::AddrInUse => format!("{address} is in use by another process: {port}"),
            std::io::ErrorKind::AddrNotAvailable => format!(
                "{address} is no address of this machine; name one with --host, or 0.0.0.0 for all of them"
            ),
            std::io::ErrorKind::PermissionDenied => {
                format!("this user may not listen at {address}: {port}")
            }
            _ => format!("cannot listen at {address}: {error}; {port}"),
        }
    }
}

/// `host:port`, with brackets around an IPv6 address.
pub(crate) fn host_and_port(host: &str, port: u16) -> String {
    if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// The clocks of consensus (Raft paper, section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RaftTiming {
    /// The shortest wait for a leader before a node asks for votes.
    pub election_timeout_min: Duration,
    /// The longest.
    pub election_timeout_max: Duration,
    /// How often a leader says that it is there; shorter than the shortest election time-out.
    pub heartbeat_interval: Duration,
    /// How long an answer of another node is waited for.
    pub rpc_timeout: Duration,
    /// Whether a leader may answer reads by its lease, and how far clocks may drift for it.
    pub lease_reads: Option<LeaseReads>,
}

/// Where and how state is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    /// The node's own directory, used as it is given.
    pub data_dir: PathBuf,
    /// Whether a write is on the disk before it is acknowledged. False risks acknowledged writes in a power cut.
    pub wal_sync: bool,
    /// By how many entries the log grows, beyond those that it keeps anyway, before its beginning is removed.
    pub snapshot_interval: u64,
    /// Bytes of snapshots that the node sends in a second at the most, to all members together; 0 for no limit.
    pub snapshot_rate: u64,
    /// How long old revisions and the answers to requests are kept.
    pub retention: Retention,
}

/// Sizes that no operator sets. A simulation makes them small: seconds bring about then what takes production weeks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// The length of new segments of the log, in bytes; a multiple of 512.
    pub segment_bytes: u64,
    /// About how many bytes of rows one piece of a snapshot holds.
    pub snapshot_piece_bytes: usize,
    /// The limits of consensus. Its timings, and what is known of the node, come from elsewhere.
    pub consensus: raft::Config,
}

impl Default for Sizes {
    fn default() -> Sizes {
        Sizes {
            segment_bytes: SEGMENT_BYTES,
            snapshot_piece_bytes: SNAPSHOT_PIECE_BYTES,
            consensus: raft::Config::default(),
        }
    }
}

/// Connections of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkOptions {
    /// How many connections are served at a time, all listeners together.
    pub max_connections: usize,
    /// Whether small answers leave at once.
    pub tcp_nodelay: bool,
    /// Whether the kernel checks silent connections.
    pub keepalive: bool,
    /// How many watches are served at a time.
    pub max_watchers: usize,
    /// Whether clients are served over QUIC, too.
    pub quic: bool,
}

/// Sizes of what clients may send and of what is kept of it, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest key.
    pub key_bytes: usize,
    /// The longest value.
    pub value_bytes: usize,
    /// The longest body of a request that is no value and no transaction.
    pub body_bytes: usize,
    /// The longest body of a transaction.
    pub transaction_bytes: usize,
    /// How much keys and values may take in memory, with the revisions of them that are kept.
    pub state_bytes: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            key_bytes: 4 << 10,
            value_bytes: 1 << 20,
            body_bytes: 64 << 10,
            transaction_bytes: 2 << 20,
            state_bytes: 2 << 30,
        }
    }
}

/// How long things may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// The longest a client waits for an answer.
    pub request: Duration,
    /// How much of that is spent on waiting for a leader before the answer is 503.
    pub leader_wait: Duration,
    /// How long requests in flight may take to finish when the node stops.
    pub shutdown: Duration,
    /// How long a node may be silent before its sessions go to others.
    pub session_grace: Duration,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            request: Duration::from_secs(5),
            leader_wait: Duration::from_secs(2),
            shutdown: Duration::from_secs(10),
            session_grace: Duration::from_secs(5),
        }
    }
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// A filter as `tracing` reads it: a level, or levels for targets.
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
}

/// How lines of the log look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Config {
    /// The configuration in force, as a file that says where each value comes from.
    pub fn print(&self) -> String {
        print::print(&self.effective)
    }
}
