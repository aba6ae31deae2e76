//! The transport between nodes: QUIC with mutual TLS.
//!
//! A [`Transport`] owns one UDP socket. It is told who the members are and keeps one connection to each of them: the
//! one with the smaller name dials, both directions of traffic share the connection, and a connection that ends is
//! made again within half a second of the peer's return. Members send each other [`Frame`]s; consensus goes ahead of everything else.
//! Big transfers ([`Transport::open_bulk`]) have connections of their own. Nodes that are no members yet ask and are
//! asked questions by address ([`Transport::ask`]). What happens comes out of [`Events`].
//!
//! Who may talk: TLS lets in whoever holds the cluster secret ([`Secret`]); the greeting ([`Hello`]) then checks
//! cluster, name, history, id and data directory, and refuses with a sentence that both sides log.
//!
//! Tasks run where [`Network::quic_runtime`](crate::port::Network::quic_runtime) puts them: in production on the
//! runtime of the thread that called [`Transport::start`], the consensus thread. The handle itself may be used from
//! any thread; nothing in it waits except where it is `async`.
//!
//! Invariants: sending never waits; every queue is bounded, in bytes where its items have sizes of their own; nothing
//! of a connection is acted on before its greeting was judged; a wrong frame ends its connection and never the node.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use quorate_core::raft::{DirectoryId, Index, Lineage, NodeId};
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng;
use thiserror::Error;
use tokio::sync::Semaphore;

use crate::port::Ports;

mod accept;
mod ask;
mod bulk;
mod certificate;
mod clients;
mod complaint;
mod dial;
mod event;
mod frame;
mod hello;
mod judge;
mod link;
mod peer;
mod queue;
mod secret;
mod settings;
mod shared;
#[cfg(test)]
mod tests;

pub use bulk::{BulkReceiver, BulkSender, BulkStream};
pub use certificate::{Credentials, CredentialsError};
pub(crate) use clients::STREAMS as CLIENT_STREAMS;
pub use clients::{ClientsEndpoint, ClientsError, listen_for_clients};
pub use dial::ConnectError;
pub use event::{Event, Events, Refusal, RefusedBy, Responder};
pub use frame::{FRAME_BYTES_MAX, ForwardResult, Frame, FrameError, LeaseResult, NodeReport};
pub use hello::{Answer, Ask, Hello, HelloAnswer, Invitation, Protocols, Purpose, RefusalCode, Refused};
pub use queue::SendError;
pub use secret::{Secret, SecretError};

use complaint::Complaints;
use event::EventSender;
use hello::NAME_BYTES_MAX;
use peer::{Counts, PeerHandle};
use settings::Settings;
use shared::{Identity, OwnNode, Shared, State};

/// How long the other side may take to greet.
const GREETING_TIME: Duration = Duration::from_secs(2);
/// How long the owner may take to answer a question: joining waits for consensus.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// How long the other side may take to close a connection on which everything is said.
const GOODBYE: Duration = Duration::from_millis(500);
/// How long stopping waits for the last packets to leave.
const FAREWELL: Duration = Duration::from_millis(50);
/// Connections that are no peer's link.
const VISITORS_MAX: usize = 128;

/// Decodes arbitrary bytes as everything that comes over a connection.
pub(crate) fn feed(input: &[u8]) {
    frame::feed(input);
    hello::feed(input);
}

/// How a transport is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// The name of the cluster.
    pub cluster: String,
    /// The name of this node, unique in its cluster.
    pub name: String,
    /// The data directory of this node.
    pub directory: DirectoryId,
    /// Where the socket is bound. Port 0 takes a free one.
    pub bind: SocketAddr,
    /// `host:port` that other nodes are told to dial.
    pub cluster_address: String,
    /// `host:port` that clients are told to use.
    pub client_address: String,
    /// The cluster secrets that are trusted; the first one signs. More than one while a secret is being replaced.
    pub secrets: Vec<Secret>,
    /// The versions of the conversation that are spoken: [`Protocols::CURRENT`].
    pub protocols: Protocols,
}

/// A member to keep a connection to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its id.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// The data directory that the id belongs to.
    pub directory: DirectoryId,
    /// `host:port` where it takes connections of other nodes.
    pub cluster_address: String,
}

impl Peer {
    /// Whether the node that greets is this one by name, and holds nothing of its cluster.
    fn is_without_its_data(&self, hello: &Hello) -> bool {
        hello.name == self.name && hello.lineage.is_none()
    }
}

/// Which ids were ever given to members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TakenIn {
    /// The id that is given next.
    pub below: NodeId,
    /// The index of the membership that says so.
    pub index: Index,
}

/// Counts of one peer since it was made known, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames taken for sending.
    pub frames_sent: u64,
    /// Their bytes.
    pub bytes_sent: u64,
    /// Frames that were not taken: the peer was not connected, or its queue full.
    pub frames_dropped: u64,
    /// Frames received.
    pub frames_received: u64,
    /// Their bytes.
    pub bytes_received: u64,
    /// Connections made.
    pub connections: u64,
    /// Bytes that wait to be sent now.
    pub bytes_waiting: u64,
}

/// Why a transport could not be started.
#[derive(Debug, Error)]
pub enum StartError {
    /// The name of the cluster or node is unusable.
    #[error(
        "the {what} name `{name}` is unusable: it must have 1 to {NAME_BYTES_MAX} bytes and no control characters"
    )]
    Name {
        /// Whose name: "cluster" or "node".
        what: &'static str,
        /// The name.
        name: String,
    },
    /// No credentials could be made.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The system has no random bytes.
    #[error("no random bytes for QUIC: {0}")]
    Entropy(#[source] io::Error),
    /// The socket cannot be bound.
    #[error("cannot bind UDP address {address} for connections between nodes: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system says: in use, not permitted, not an address of this machine.
        source: io::Error,
    },
}

/// A node's end of all its connections to other nodes. Clones share it; when the last one is dropped, it stops.
#[derive(Clone)]
pub struct Transport {
    shared: Arc<Shared>,
    _guard: Arc<Guard>,
}

/// Stops the tasks, which hold the shared part, when no handle is left.
struct Guard(Arc<Shared>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.stop("stopped");
    }
}

impl Transport {
    /// Binds the socket and begins to listen. A transport without an identity takes questions only.
    ///
    /// # Errors
    /// When a name or a secret is unusable, the system has no entropy, or the address cannot be bound.
    pub fn start(ports: &Ports, options: Options) -> Result<(Transport, Events), StartError> {
        check_name("cluster", &options.cluster)?;
        check_name("node", &options.name)?;
        let mut seed = [0; 32];
        ports.entropy.fill(&mut seed).map_err(StartError::Entropy)?;
        let mut seeds = ChaCha12Rng::from_seed(seed);
        let (cluster, name) = (options.cluster.as_str(), options.name.as_str());
        let secret = options.secrets.first().ok_or(CredentialsError::NoSecret)?;
        let credentials = Credentials::issue(
            &options.secrets,
            cluster,
            name,
            ports.clock.as_ref(),
            ports.entropy.as_ref(),
        )?;
        let settings = Settings::new(ports, &credentials, secret, cluster, name, &mut seeds)?;
        let bind_error = |source| StartError::Bind {
            address: options.bind,
            source,
        };
        let socket = ports.network.bind_quic(options.bind).map_err(bind_error)?;
        let endpoint = quinn::Endpoint::new_with_abstract_socket(
            settings::endpoint(
                secret.reset_key(secret::Purpose::Nodes, cluster, name),
                &mut seeds,
            ),
            // Each connection is taken with the settings for where it comes from; these only open the door.
            Some(settings.server(options.bind).as_ref().clone()),
            socket,
            ports.network.quic_runtime(),
        )
        .map_err(bind_error)?;
        let (sender, events) = EventSender::new();
        let shared = Arc::new(Shared {
            ports: ports.clone(),
            fingerprint: secret.fingerprint(),
            own: OwnNode {
                cluster: options.cluster,
                name: options.name,
                directory: options.directory,
                cluster_address: options.cluster_address,
                client_address: options.client_address,
                protocols: options.protocols,
            },
            settings,
            endpoint,
            events: sender,
            complaints: Complaints::default(),
            visitors: Arc::new(Semaphore::new(VISITORS_MAX)),
            state: Mutex::new(State {
                identity: Identity::default(),
                peers: std::collections::BTreeMap::new(),
                taken_in: None,
                watched: None,
                jitter: settings::split(&mut seeds),
            }),
            stopped: OnceLock::new(),
        });
        shared.spawn(accept::run(Arc::clone(&shared)));
        let guard = Arc::new(Guard(Arc::clone(&shared)));
        let transport = Transport {
            shared,
            _guard: guard,
        };
        Ok((transport, events))
    }

    /// Where the socket is bound.
    ///
    /// # Errors
    /// As the system reports.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.shared.local_address()
    }

    /// What this node says of itself to the others.
    pub fn hello(&self) -> Hello {
        self.shared.hello(Purpose::Ask)
    }

    /// Says which history this node belongs to and under which id; nothing for a blank node. Connections made under
    /// another identity are closed and made anew.
    pub fn set_identity(&self, identity: Option<(Lineage, NodeId)>) {
        let mut state = self.shared.state();
        if state.identity.of == identity {
            return;
        }
        state.identity.of = identity;
        state.identity.epoch += 1;
        for peer in state.peers.values() {
            peer.look();
        }
    }

    /// Says which members there are; this node itself may be among them. Connections to others are closed. A member
    /// that comes back under the same id with another name or data directory is a new peer; with another address it
    /// is dialled there from the next time on.
    pub fn set_peers(&self, peers: Vec<Peer>) {
        let mut state = self.shared.state();
        let mut wanted: std::collections::BTreeMap<NodeId, Peer> = peers
            .into_iter()
            .filter(|peer| peer.name != self.shared.own.name)
            .map(|peer| (peer.id, peer))
            .collect();
        state.peers.retain(|id, handle| {
            let kept = wanted.get(id).is_some_and(|peer| {
                (&peer.name, peer.directory) == (&handle.peer.name, handle.peer.directory)
            });
            if !kept {
                handle.stop();
            }
            kept
        });
        for (id, handle) in &state.peers {
            if let Some(peer) = wanted.remove(id) {
                handle.set_address(peer.cluster_address);
            }
        }
        for (id, peer) in wanted {
            let handle = Arc::new(PeerHandle::new(peer));
            handle.watch(state.watched == Some(id));
            state.peers.insert(id, Arc::clone(&handle));
            self.shared.spawn(handle.run(Arc::clone(&self.shared)));
        }
    }

    /// Says where a peer may be besides the address that it has as a member. The addresses are dialled in turn.
    pub fn set_elsewhere(&self, peer: NodeId, addresses: Vec<String>) {
        if let Some(handle) = self.peer(peer) {
            handle.set_elsewhere(addresses);
        }
    }

    /// Says up to which id members were ever taken in: a node of this history with a lower one that is no peer was
    /// removed, and is told so. `index` is where the membership stands in the log. Nothing while that is not
    /// committed.
    pub fn set_taken_in(&self, taken_in: Option<TakenIn>) {
        self.shared.state().taken_in = taken_in;
    }

    /// Sends a frame to a peer. Never waits: the frame leaves together with whatever else is queued by then, or it is
    /// dropped.
    ///
    /// # Errors
    /// When the peer is unknown or not connected, takes too little, or the frame is too large. The frame is dropped.
    pub fn send(&self, to: NodeId, frame: &Frame) -> Result<(), SendError> {
        let peer = self.peer(to).ok_or(SendError::NoSuchPeer(to))?;
        let queue = if frame.is_consensus() {
            &peer.consensus
        } else {
            &peer.other
        };
        match queue.push(frame) {
            Ok(bytes) => {
                Counts::add(&peer.counters.frames_sent, 1);
                Counts::add(&peer.counters.bytes_sent, bytes);
                Ok(())
            }
            Err(error) => {
                Counts::add(&peer.counters.frames_dropped, 1);
                Err(error)
            }
        }
    }

    /// Notices the death of this peer's process within about ten milliseconds, and that of any other within a quarter
    /// of a second.
    pub fn watch_closely(&self, peer: Option<NodeId>) {
        let mut state = self.shared.state();
        state.watched = peer;
        for (id, handle) in &state.peers {
            handle.watch(peer == Some(*id));
        }
    }

    /// Asks the node at `address` (`host:port`) a question. Takes at most `limit`.
    ///
    /// # Errors
    /// When the node cannot be reached in time, is another than `expected_name`, refuses, or does not answer.
    pub async fn ask(
        &self,
        address: &str,
        expected_name: Option<&str>,
        ask: Ask,
        limit: Duration,
    ) -> Result<Answer, ConnectError> {
        let asking = self.shared.ask(address, expected_name, &ask);
        self.shared.within(limit, asking).await.unwrap_or_else(|| {
            Err(ConnectError::TimedOut {
                address: address.to_owned(),
            })
        })
    }

    /// Begins a big transfer to a peer, over a connection of its own. `header` tells the peer what comes.
    ///
    /// # Errors
    /// When the peer cannot be reached or refuses, or `header` is longer than 1 MiB.
    pub async fn open_bulk(&self, peer: NodeId, header: &[u8]) -> Result<BulkStream, ConnectError> {
        let handle = self.peer(peer).ok_or(ConnectError::NoSuchPeer(peer))?;
        self.shared.open_bulk(&handle, header).await
    }

    /// The measured round trip to a connected peer.
    pub fn peer_rtt(&self, peer: NodeId) -> Option<Duration> {
        Some(self.peer(peer)?.connection()?.rtt())
    }

    /// Whether a peer is connected.
    pub fn is_connected(&self, peer: NodeId) -> bool {
        self.peer(peer).is_some_and(|peer| peer.connection().is_some())
    }

    /// Counts of a peer.
    pub fn counters(&self, peer: NodeId) -> Option<Counters> {
        Some(self.peer(peer)?.counters())
    }

    /// Closes every connection so that the peers see it at once, and waits briefly for the last packets to leave.
    pub async fn close(&self, reason: &str) {
        self.shared.stop(reason);
        self.shared
            .within(FAREWELL, self.shared.endpoint.wait_idle())
            .await;
    }

    fn peer(&self, id: NodeId) -> Option<Arc<PeerHandle>> {
        self.shared.state().peers.get(&id).cloned()
    }
}

fn check_name(what: &'static str, name: &str) -> Result<(), StartError> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(StartError::Name {
            what,
            name: name.escape_debug().to_string(),
        });
    }
    Ok(())
}
