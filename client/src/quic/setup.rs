//! How QUIC is set up on the client's side.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use quinn::{
    ClientConfig, ConnectionId, ConnectionIdGenerator, EndpointConfig, IdleTimeout, TransportConfig, VarInt,
};
use quorate_api::native;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};

/// A node that is silent for so long is gone.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often an idle connection shows life, and makes the node show it.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// Bytes of a packet on loopback, whose real limit is 65,536; nodes take no longer ones.
const LOOPBACK_PACKET_BYTES: u16 = 6_000;
/// Bytes that a node may send before they are taken out, on one stream and on all.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Bytes of requests that are kept until the node has acknowledged them.
const SEND_WINDOW_BYTES: u64 = 4 << 20;
/// The round trip assumed before one was measured: a lost first packet is sent again after three times that.
const INITIAL_ROUND_TRIP: Duration = Duration::from_millis(50);
/// Bytes of the id under which a client knocks; QUIC wants 8 at the least (RFC 9000, section 7.2).
const FIRST_ID_BYTES: usize = 16;

/// What concerns the socket.
///
/// # Errors
/// When the machine has no random bytes.
pub(super) fn endpoint(tls: &CryptoProvider) -> Result<EndpointConfig, String> {
    let mut config = EndpointConfig::default();
    config
        .rng_seed(Some(random(tls)?))
        .cid_generator(|| Box::new(NoIds))
        .max_udp_payload_size(LOOPBACK_PACKET_BYTES)
        .expect("the size is within QUIC's bounds");
    Ok(config)
}

/// A socket has one connection, which needs no id to be told from others (RFC 9000, section 5.1).
struct NoIds;

impl ConnectionIdGenerator for NoIds {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&[])
    }

    fn cid_len(&self) -> usize {
        0
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

fn random<const BYTES: usize>(tls: &CryptoProvider) -> Result<[u8; BYTES], String> {
    let mut bytes = [0; BYTES];
    let filled = tls.secure_random.fill(&mut bytes);
    filled.map_err(|_| "the machine has no random bytes".to_owned())?;
    Ok(bytes)
}

/// How `remote` is dialled, once.
///
/// # Errors
/// When TLS lacks what QUIC needs, which it does not, or the machine has no random bytes.
pub(super) fn client(provider: &Arc<CryptoProvider>, remote: SocketAddr) -> Result<ClientConfig, String> {
    let verifier = AnyNode(provider.signature_verification_algorithms);
    let first_id = ConnectionId::new(&random::<FIRST_ID_BYTES>(provider)?);
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    tls.alpn_protocols = vec![native::ALPN.to_vec()];
    tls.enable_sni = false;
    tls.resumption = Resumption::disabled();
    let tls = quinn::crypto::rustls::QuicClientConfig::try_from(tls).map_err(|error| error.to_string())?;
    let mut config = ClientConfig::new(Arc::new(tls));
    config
        .initial_dst_cid_provider(Arc::new(move || first_id))
        .transport_config(transport(is_loopback(remote)));
    Ok(config)
}

fn is_loopback(remote: SocketAddr) -> bool {
    match remote.ip() {
        IpAddr::V4(address) => address.is_loopback(),
        IpAddr::V6(address) => address.to_canonical().is_loopback(),
    }
}

fn transport(loopback: bool) -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    config
        .max_idle_timeout(Some(
            IdleTimeout::try_from(IDLE_TIMEOUT).expect("seconds are within QUIC's bounds"),
        ))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(SEND_WINDOW_BYTES)
        .initial_rtt(INITIAL_ROUND_TRIP)
        .datagram_receive_buffer_size(None)
        .datagram_send_buffer_size(0);
    if loopback {
        config
            .initial_mtu(LOOPBACK_PACKET_BYTES)
            .min_mtu(LOOPBACK_PACKET_BYTES)
            .mtu_discovery_config(None);
    }
    Arc::new(config)
}

/// Believes every node to be who it says. That the connection is with whoever showed the certificate is verified.
#[derive(Debug)]
struct AnyNode(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AnyNode {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
