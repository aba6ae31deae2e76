//! The QUIC endpoint of a client port.
//!
//! It shows the certificate that the node has for other nodes, under the protocol of clients, and does not ask who the
//! client is: whoever reaches the port over HTTP reaches it so, too. Keys for resets and tokens are its own, so that nothing
//! learned at one port is of use at the other.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::{IdleTimeout, TransportConfig, VarInt};
use quorate_api::native;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng;
use thiserror::Error;

use super::certificate::{Credentials, CredentialsError};
use super::secret::{Purpose, Secret};
use super::settings::{self, is_loopback};
use crate::port::Ports;

/// A connection that is silent for so long is dead.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// Streams that a client may have open at first; whoever uses many is given more.
pub(crate) const STREAMS: u32 = 128;
/// Bytes that a client may send, on a stream or on all of them, before they are taken out: what a connection can make the
/// node keep.
const WINDOW_BYTES: u32 = 1 << 20;
/// Bytes of answers that a connection keeps until the client has acknowledged them.
const SEND_WINDOW_BYTES: u64 = 4 << 20;
/// The round trip assumed before one was measured: a lost first packet is sent again after three times that.
const INITIAL_ROUND_TRIP: Duration = Duration::from_millis(50);
/// Connections that may wait for their handshake.
const HANDSHAKES_WAITING_MAX: usize = 256;

/// Why a client port cannot be served over QUIC.
#[derive(Debug, Error)]
pub enum ClientsError {
    /// No credentials could be made.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The system has no random bytes.
    #[error("no random bytes for QUIC: {0}")]
    Entropy(#[source] io::Error),
    /// The host cannot be looked up.
    #[error("cannot look up {address}: {source}")]
    Resolve {
        /// What was looked up.
        address: String,
        /// What the system says.
        source: io::Error,
    },
    /// The host has no address.
    #[error("{0} has no address")]
    NoAddress(String),
    /// The socket cannot be bound.
    #[error("cannot bind UDP address {address} for clients: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system says: in use, not permitted, not an address of this machine.
        source: io::Error,
    },
}

/// Takes connections of clients.
pub struct ClientsEndpoint {
    endpoint: quinn::Endpoint,
    /// How a connection is taken, and how one from this machine is.
    server: [Arc<quinn::ServerConfig>; 2],
}

impl ClientsEndpoint {
    /// The next one who knocks; none when the socket is gone.
    pub(crate) async fn next(&self) -> Option<quinn::Incoming> {
        self.endpoint.accept().await
    }

    /// Begins the handshake.
    ///
    /// # Errors
    /// When what came is no beginning of one.
    pub(crate) fn take(
        &self,
        incoming: quinn::Incoming,
    ) -> Result<quinn::Connecting, quinn::ConnectionError> {
        let near = usize::from(is_loopback(incoming.remote_address()));
        incoming.accept_with(Arc::clone(&self.server[near]))
    }

    /// Waits until every connection has ended and its last packets have left.
    pub(crate) async fn ended(&self) {
        self.endpoint.wait_idle().await;
    }

    /// Where it listens.
    ///
    /// # Errors
    /// As the system reports.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }
}

/// Listens for clients at `address`, as the node called `name` of `cluster`.
///
/// # Errors
/// When there is no entropy or no certificate, or the address cannot be bound.
pub fn listen_for_clients(
    ports: &Ports,
    secret: &Secret,
    cluster: &str,
    name: &str,
    address: SocketAddr,
) -> Result<ClientsEndpoint, ClientsError> {
    let mut seed = [0; 32];
    ports.entropy.fill(&mut seed).map_err(ClientsError::Entropy)?;
    let mut seeds = ChaCha12Rng::from_seed(seed);
    let (clock, entropy) = (ports.clock.as_ref(), ports.entropy.as_ref());
    let credentials = Credentials::issue(std::slice::from_ref(secret), cluster, name, clock, entropy)?;
    let crypto = credentials.server_for_anyone(&ports.network.tls(), &ports.clock, native::ALPN)?;
    let crypto = Arc::new(crypto);
    let token_key = Arc::new(secret.token_key(Purpose::Clients, cluster, name));
    let server = [false, true].map(|loopback| {
        let mut config = quinn::ServerConfig::new(crypto.clone(), token_key.clone());
        settings::limit_handshakes(&mut config, &ports.clock, HANDSHAKES_WAITING_MAX);
        config.transport_config(transport(loopback));
        Arc::new(config)
    });
    let reset_key = secret.reset_key(Purpose::Clients, cluster, name);
    let bind_error = |source| ClientsError::Bind { address, source };
    let socket = ports.network.bind_quic(address).map_err(bind_error)?;
    let endpoint = quinn::Endpoint::new_with_abstract_socket(
        settings::endpoint(reset_key, &mut seeds),
        Some(server[0].as_ref().clone()),
        socket,
        ports.network.quic_runtime(),
    )
    .map_err(bind_error)?;
    Ok(ClientsEndpoint { endpoint, server })
}

fn transport(loopback: bool) -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    config
        .max_idle_timeout(Some(
            IdleTimeout::try_from(IDLE_TIMEOUT).expect("seconds are within QUIC's bounds"),
        ))
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(WINDOW_BYTES))
        .receive_window(VarInt::from_u32(WINDOW_BYTES))
        .send_window(SEND_WINDOW_BYTES)
        .send_fairness(true)
        .initial_rtt(INITIAL_ROUND_TRIP)
        .datagram_receive_buffer_size(None)
        .datagram_send_buffer_size(0);
    if loopback {
        settings::use_loopback_packets(&mut config);
    }
    Arc::new(config)
}
