//! How QUIC is set up: every knob, and every source of chance, in one place.
//!
//! Nothing here draws on the system: random numbers come from generators seeded through the ports, time from the
//! clock port, TLS from the provider of the network port. So a simulator can run this transport with a seed.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quinn::{ConnectionId, ConnectionIdGenerator, IdleTimeout, TransportConfig, VarInt};
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use ring::hmac;

use super::certificate::{Credentials, CredentialsError, WallTime};
use super::secret::{Purpose, Secret};
use crate::port::{Clock, Ports};

/// A connection that is silent for so long is dead.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(1);
/// An idle connection shows life so often.
const KEEP_ALIVE: Duration = Duration::from_millis(250);
/// Bytes of a packet on loopback, whose real limit is 65,536. It halves the cost of bulk; above 6,500 quinn stalls.
const LOOPBACK_PACKET_BYTES: u16 = 6_000;
/// Bytes that a peer may send on one stream before they are taken out.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
/// Bytes that a peer may send on one connection before they are taken out.
const CONNECTION_WINDOW_BYTES: u32 = 20 << 20;
/// Bytes that a connection keeps until the peer has acknowledged them.
const SEND_WINDOW_BYTES: u64 = 12 << 20;
/// Streams that a peer may have open on one connection: two are in use.
const STREAMS: u32 = 4;
/// The round trip assumed before one was measured: a lost first packet is sent again after three times that. The
/// nodes of a site are much closer.
const INITIAL_ROUND_TRIP: Duration = Duration::from_millis(20);
/// Connections that may wait for their handshake.
const HANDSHAKES_WAITING_MAX: usize = 256;
/// Bytes of a connection id: too many to guess, few enough to be cheap.
const CONNECTION_ID_BYTES: usize = 8;

/// QUIC's settings of one node.
pub(super) struct Settings {
    client: [quinn::ClientConfig; 2],
    server: [Arc<quinn::ServerConfig>; 2],
}

impl Settings {
    pub(super) fn new(
        ports: &Ports,
        credentials: &Credentials,
        secret: &Secret,
        cluster: &str,
        node: &str,
        seeds: &mut ChaCha12Rng,
    ) -> Result<Settings, CredentialsError> {
        let provider = ports.network.tls();
        let client = Arc::new(credentials.client(&provider, &ports.clock)?);
        let server = Arc::new(credentials.server(&provider, &ports.clock)?);
        let token_key = Arc::new(secret.token_key(Purpose::Nodes, cluster, node));
        let first_ids = Mutex::new(ConnectionIds(split(seeds)));
        let first_id = Arc::new(move || {
            let mut ids = first_ids.lock().unwrap_or_else(PoisonError::into_inner);
            ids.generate_cid()
        });
        let make_client = |loopback| {
            let mut config = quinn::ClientConfig::new(client.clone());
            config
                .transport_config(transport(loopback))
                .initial_dst_cid_provider(first_id.clone())
                .token_store(Arc::new(quinn::NoneTokenStore));
            config
        };
        let make_server = |loopback| {
            let mut config = quinn::ServerConfig::new(server.clone(), token_key.clone());
            limit_handshakes(&mut config, &ports.clock, HANDSHAKES_WAITING_MAX);
            config.transport_config(transport(loopback));
            Arc::new(config)
        };
        Ok(Settings {
            client: [make_client(false), make_client(true)],
            server: [make_server(false), make_server(true)],
        })
    }

    /// How `remote` is dialled.
    pub(super) fn client(&self, remote: SocketAddr) -> quinn::ClientConfig {
        self.client[usize::from(is_loopback(remote))].clone()
    }

    /// How a connection from `remote` is taken.
    pub(super) fn server(&self, remote: SocketAddr) -> Arc<quinn::ServerConfig> {
        Arc::clone(&self.server[usize::from(is_loopback(remote))])
    }
}

/// What concerns those who are not known yet.
pub(super) fn limit_handshakes(config: &mut quinn::ServerConfig, clock: &Arc<dyn Clock>, waiting_max: usize) {
    config
        .time_source(Arc::new(WallTime(Arc::clone(clock))))
        .max_incoming(waiting_max)
        .incoming_buffer_size(64 << 10)
        .incoming_buffer_size_total(4 << 20)
        // Whose address changed dials again: the peers of a node must learn the new address anyway.
        .migration(false);
}

/// What concerns the socket as a whole.
pub(super) fn endpoint(reset_key: hmac::Key, seeds: &mut ChaCha12Rng) -> quinn::EndpointConfig {
    let mut config = quinn::EndpointConfig::new(Arc::new(reset_key));
    let mut seed = [0; 32];
    seeds.fill_bytes(&mut seed);
    let ids = split(seeds);
    config
        .rng_seed(Some(seed))
        .cid_generator(move || Box::new(ConnectionIds(ids.clone())))
        .max_udp_payload_size(LOOPBACK_PACKET_BYTES)
        .expect("the size is within QUIC's bounds");
    config
}

/// A generator of its own, so that the draws for one purpose do not shift those for another.
pub(super) fn split(seeds: &mut ChaCha12Rng) -> ChaCha12Rng {
    let mut seed = [0; 32];
    seeds.fill_bytes(&mut seed);
    ChaCha12Rng::from_seed(seed)
}

pub(super) fn is_loopback(remote: SocketAddr) -> bool {
    match remote.ip() {
        IpAddr::V4(address) => address.is_loopback(),
        IpAddr::V6(address) => address.to_canonical().is_loopback(),
    }
}

fn transport(loopback: bool) -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    config
        .max_idle_timeout(Some(
            IdleTimeout::try_from(IDLE_TIMEOUT).expect("a second is within QUIC's bounds"),
        ))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(SEND_WINDOW_BYTES)
        .send_fairness(false)
        .initial_rtt(INITIAL_ROUND_TRIP)
        .datagram_receive_buffer_size(None)
        .datagram_send_buffer_size(0);
    if loopback {
        use_loopback_packets(&mut config);
    }
    Arc::new(config)
}

/// Loopback takes long packets, and there is nothing to find out.
pub(super) fn use_loopback_packets(config: &mut TransportConfig) {
    config
        .initial_mtu(LOOPBACK_PACKET_BYTES)
        .min_mtu(LOOPBACK_PACKET_BYTES)
        .mtu_discovery_config(None);
}

/// Draws connection ids. The ids of a former process need no recognising: a packet for an unknown one is answered with
/// a reset, at most one every 20 ms and always smaller than the packet.
struct ConnectionIds(ChaCha12Rng);

impl ConnectionIdGenerator for ConnectionIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut bytes = [0; CONNECTION_ID_BYTES];
        self.0.fill_bytes(&mut bytes);
        ConnectionId::new(&bytes)
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}
