//! Certificates: how a node shows that it holds the cluster secret, and under which name.
//!
//! Every node derives the same certificate authority from the secret and issues its own certificate when it starts;
//! nothing is stored or copied. The authority's key, name, serial number and dates are fixed by the secret, so that
//! the authorities made on different nodes are one trust anchor. A node's certificate carries two DNS names: a digest
//! of its cluster's name, and a digest of its cluster's and its own name. Digests fit any text (`1`, `node one`,
//! `quorate-0.example.com`) into a valid name of fixed length; the readable names stand in the subject for people.
//!
//! TLS checks that a chain leads to a trust anchor. Which cluster and node a certificate names is checked right
//! after the handshake against what the node says of itself ([`names_cluster`], [`names_node`]), so that a refusal
//! can tell both sides what was wrong.
//!
//! Keys are Ed25519: signatures have one length, so packets have the same sizes in every run of a simulation.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ED25519, SanType, SerialNumber, date_time_ymd,
};
use ring::digest;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{DigitallySignedStruct, RootCertStore, SignatureScheme};
use thiserror::Error;

use super::secret::{Secret, base32};
use crate::port::{Clock, Entropy};

/// The application protocol of TLS (RFC 7301). Versions are agreed on in the greeting, which explains a refusal.
const PROTOCOL: &[u8] = b"quorate";
/// How far a node's clock may be ahead of another's for its certificate to count.
const BACKDATED: Duration = Duration::from_secs(366 * 24 * 3600);
/// How long a certificate lasts. A node issues a new one whenever it starts.
const LIFETIME: Duration = Duration::from_secs(20 * 366 * 24 * 3600);
/// Longest name in the readable part of a certificate (RFC 5280, appendix A, ub-common-name).
const READABLE_CHARACTERS: usize = 64;

/// Why a node could not make its certificate.
#[derive(Debug, Error)]
pub enum CredentialsError {
    /// No secret was given.
    #[error(
        "no cluster secret was given: make one with `quorate secret new` and give the same one to every node"
    )]
    NoSecret,
    /// The system has no random bytes.
    #[error("no random bytes for the node's key: {0}")]
    Entropy(#[source] io::Error),
    /// The certificate cannot be made from these names.
    #[error("cannot make the certificate of node `{node}`: {source}")]
    Certificate {
        /// The node.
        node: String,
        /// What is wrong.
        source: rcgen::Error,
    },
    /// TLS refuses the certificate or its algorithms.
    #[error("TLS refuses this node's certificate: {0}")]
    Tls(#[from] rustls::Error),
    /// TLS refuses the trust anchors.
    #[error("TLS refuses the trust anchors: {0}")]
    Anchors(#[from] rustls::server::VerifierBuilderError),
    /// QUIC needs a cipher suite that the TLS provider lacks.
    #[error("the TLS provider lacks the suite that QUIC begins with: {0}")]
    Suite(#[from] quinn::crypto::rustls::NoInitialCipherSuite),
}

/// A node's certificate, its key, and whom the node trusts.
pub struct Credentials {
    certificate: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
    anchors: Arc<RootCertStore>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Credentials")
            .field("anchors", &self.anchors.len())
            .finish_non_exhaustive()
    }
}

impl Credentials {
    /// Issues the certificate of `node` in `cluster` under the first of `secrets`, and trusts all of them.
    ///
    /// # Errors
    /// Without a secret or entropy, or when the names do not fit into a certificate.
    pub fn issue(
        secrets: &[Secret],
        cluster: &str,
        node: &str,
        clock: &dyn Clock,
        entropy: &dyn Entropy,
    ) -> Result<Credentials, CredentialsError> {
        let signer = secrets.first().ok_or(CredentialsError::NoSecret)?;
        let mut anchors = RootCertStore::empty();
        for secret in secrets {
            anchors.add(authority_certificate(secret)?)?;
        }
        let mut seed = [0; 32];
        entropy.fill(&mut seed).map_err(CredentialsError::Entropy)?;
        let key = private_key(&seed);
        let certificate = node_certificate(signer, cluster, node, &key, clock.wall()).map_err(|source| {
            CredentialsError::Certificate {
                node: node.to_owned(),
                source,
            }
        })?;
        Ok(Credentials {
            certificate,
            key,
            anchors: Arc::new(anchors),
        })
    }

    /// How TLS is spoken when this node dials.
    pub(super) fn client(
        &self,
        provider: &Arc<CryptoProvider>,
        clock: &Arc<dyn Clock>,
    ) -> Result<quinn::crypto::rustls::QuicClientConfig, CredentialsError> {
        let verifier = LeadsToAnchor {
            anchors: Arc::clone(&self.anchors),
            algorithms: provider.signature_verification_algorithms,
        };
        let time = Arc::new(WallTime(Arc::clone(clock)));
        let mut config = rustls::ClientConfig::builder_with_details(Arc::clone(provider), time)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_auth_cert(vec![self.certificate.clone()], self.key.clone_key().into())?;
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        config.enable_sni = false;
        // A connection is made rarely and lives long: resumption would only add state and packets.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(config.try_into()?)
    }

    /// How TLS is spoken when this node is dialled.
    pub(super) fn server(
        &self,
        provider: &Arc<CryptoProvider>,
        clock: &Arc<dyn Clock>,
    ) -> Result<quinn::crypto::rustls::QuicServerConfig, CredentialsError> {
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&self.anchors), Arc::clone(provider))
                .build()?;
        self.server_with(provider, clock, verifier, PROTOCOL)
    }

    /// How TLS is spoken when clients dial this node, who need not show who they are.
    pub(super) fn server_for_anyone(
        &self,
        provider: &Arc<CryptoProvider>,
        clock: &Arc<dyn Clock>,
        protocol: &[u8],
    ) -> Result<quinn::crypto::rustls::QuicServerConfig, CredentialsError> {
        self.server_with(provider, clock, WebPkiClientVerifier::no_client_auth(), protocol)
    }

    fn server_with(
        &self,
        provider: &Arc<CryptoProvider>,
        clock: &Arc<dyn Clock>,
        verifier: Arc<dyn ClientCertVerifier>,
        protocol: &[u8],
    ) -> Result<quinn::crypto::rustls::QuicServerConfig, CredentialsError> {
        let time = Arc::new(WallTime(Arc::clone(clock)));
        let mut config = rustls::ServerConfig::builder_with_details(Arc::clone(provider), time)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![self.certificate.clone()], self.key.clone_key().into())?;
        config.alpn_protocols = vec![protocol.to_vec()];
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        Ok(config.try_into()?)
    }
}

/// Whether `certificate` was issued to a node of `cluster`.
pub(super) fn names_cluster(certificate: &CertificateDer<'_>, cluster: &str) -> bool {
    names(certificate, cluster_name(cluster))
}

/// Whether `certificate` was issued to the node called `node` of `cluster`.
pub(super) fn names_node(certificate: &CertificateDer<'_>, cluster: &str, node: &str) -> bool {
    names(certificate, node_name(cluster, node))
}

fn names(certificate: &CertificateDer<'_>, name: String) -> bool {
    let Ok(certificate) = ParsedCertificate::try_from(certificate) else {
        return false;
    };
    ServerName::try_from(name).is_ok_and(|name| verify_server_name(&certificate, &name).is_ok())
}

fn cluster_name(cluster: &str) -> String {
    format!("{}.cluster.quorate", name_digest(&[cluster]))
}

fn node_name(cluster: &str, node: &str) -> String {
    format!("{}.node.quorate", name_digest(&[cluster, node]))
}

/// 52 characters: one label of a DNS name has room for 63.
fn name_digest(parts: &[&str]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part.as_bytes());
    }
    base32(context.finish().as_ref())
}

/// PKCS #8 (RFC 8410, section 7) around an Ed25519 seed.
fn private_key(seed: &[u8; 32]) -> PrivatePkcs8KeyDer<'static> {
    const HEADER: [u8; 16] = [
        0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
    ];
    let mut der = HEADER.to_vec();
    der.extend_from_slice(seed);
    PrivatePkcs8KeyDer::from(der)
}

fn authority(secret: &Secret) -> Result<(CertificateParams, KeyPair), rcgen::Error> {
    let key = KeyPair::from_pkcs8_der_and_sign_algo(&private_key(&secret.authority_seed()), &PKCS_ED25519)?;
    let mut params = CertificateParams::default();
    // Authorities of different secrets have different names, so that a stranger's certificate is told from a forged
    // one ("unknown issuer" and not "bad signature").
    params.distinguished_name.push(
        DnType::CommonName,
        format!("quorate secret {}", secret.fingerprint()),
    );
    params.serial_number = Some(SerialNumber::from(vec![1]));
    params.not_before = date_time_ymd(1970, 1, 1);
    params.not_after = date_time_ymd(9999, 12, 31);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    Ok((params, key))
}

fn authority_certificate(secret: &Secret) -> Result<CertificateDer<'static>, CredentialsError> {
    let make = || {
        let (params, key) = authority(secret)?;
        Ok(params.self_signed(&key)?.into())
    };
    make().map_err(|source| CredentialsError::Certificate {
        node: "certificate authority".to_owned(),
        source,
    })
}

fn node_certificate(
    signer: &Secret,
    cluster: &str,
    node: &str,
    key: &PrivatePkcs8KeyDer<'_>,
    now: SystemTime,
) -> Result<CertificateDer<'static>, rcgen::Error> {
    let key = KeyPair::from_pkcs8_der_and_sign_algo(key, &PKCS_ED25519)?;
    let readable = |text: &str| text.chars().take(READABLE_CHARACTERS).collect::<String>();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, readable(node));
    params
        .distinguished_name
        .push(DnType::OrganizationName, readable(cluster));
    params.subject_alt_names = vec![
        SanType::DnsName(cluster_name(cluster).try_into()?),
        SanType::DnsName(node_name(cluster, node).try_into()?),
    ];
    // A serial number of fixed length, unique as the key is.
    let mut serial = digest::digest(&digest::SHA256, key.public_key_raw()).as_ref()[..16].to_vec();
    serial[0] = (serial[0] & 0x3f) | 0x40;
    params.serial_number = Some(SerialNumber::from(serial));
    let (not_before, not_after) = validity(now);
    params.not_before = not_before.into();
    params.not_after = not_after.into();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let (authority, authority_key) = authority(signer)?;
    let issuer = Issuer::new(authority, authority_key);
    Ok(params.signed_by(&key, &issuer)?.into())
}

/// From when to when a certificate made at `now` counts; a clock beyond all reason is taken for the nearest one.
fn validity(now: SystemTime) -> (SystemTime, SystemTime) {
    const YEAR_9000: Duration = Duration::from_secs(221_845_392_000);
    let since_1970 = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .min(YEAR_9000);
    let at = |time: Duration| SystemTime::UNIX_EPOCH + time;
    (
        at(since_1970.saturating_sub(BACKDATED)),
        at(since_1970 + LIFETIME),
    )
}

/// Accepts a server whose certificate leads to a trust anchor; its names are checked after the handshake.
#[derive(Debug)]
struct LeadsToAnchor {
    anchors: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for LeadsToAnchor {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &self.anchors,
            intermediates,
            now,
            self.algorithms.all,
        )?;
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
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The node's wall clock, for TLS and for QUIC's tokens.
pub(super) struct WallTime(pub(super) Arc<dyn Clock>);

impl fmt::Debug for WallTime {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("WallTime")
    }
}

impl rustls::time_provider::TimeProvider for WallTime {
    fn current_time(&self) -> Option<UnixTime> {
        let since_1970 = self.0.wall().duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(UnixTime::since_unix_epoch(since_1970))
    }
}

impl quinn::TimeSource for WallTime {
    fn now(&self) -> SystemTime {
        self.0.wall()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::system::{ListenerOptions, ports};

    fn issue(secrets: &[Secret], cluster: &str, node: &str) -> Credentials {
        let system = ports(ListenerOptions {
            tcp_nodelay: true,
            keepalive: false,
        });
        Credentials::issue(
            secrets,
            cluster,
            node,
            system.clock.as_ref(),
            system.entropy.as_ref(),
        )
        .unwrap()
    }

    fn secret(character: char) -> Secret {
        let mut bytes = [0; 32];
        bytes[0] = character as u8;
        Secret::generate(&Fixed(bytes)).unwrap()
    }

    struct Fixed([u8; 32]);

    impl Entropy for Fixed {
        fn fill(&self, buffer: &mut [u8]) -> io::Result<()> {
            buffer.copy_from_slice(&self.0[..buffer.len()]);
            Ok(())
        }
    }

    #[test]
    fn every_node_derives_the_same_authority_and_each_secret_another() {
        let make = |character| authority_certificate(&secret(character)).unwrap();
        assert_eq!(make('a'), make('a'));
        assert_ne!(make('a'), make('b'));
    }

    #[test]
    fn certificate_names_its_cluster_and_node_and_no_other_whatever_the_text() {
        for node in [
            "node1",
            "1",
            "quorate-0.example.com",
            "Knoten \u{fc}",
            "a b",
            &"x".repeat(253),
        ] {
            let certificate = issue(&[secret('a')], "c", node).certificate;
            assert!(names_cluster(&certificate, "c") && names_node(&certificate, "c", node));
            assert!(!names_cluster(&certificate, "d"));
            assert!(!names_node(&certificate, "d", node));
            assert!(!names_node(&certificate, "c", "node2"));
            assert!(!names_node(&certificate, "c", ""));
        }
        // The pair ("ab", "c") is not the pair ("a", "bc").
        let certificate = issue(&[secret('a')], "ab", "c").certificate;
        assert!(!names_node(&certificate, "a", "bc"));
    }

    #[test]
    fn certificates_of_one_cluster_have_one_length() {
        let lengths: Vec<usize> = (0..50)
            .map(|_| issue(&[secret('a')], "c", "n").certificate.len())
            .collect();
        assert!(lengths.iter().all(|length| *length == lengths[0]), "{lengths:?}");
    }

    #[test]
    fn clock_beyond_all_reason_still_gives_a_certificate() {
        let key = private_key(&[1; 32]);
        let far = SystemTime::UNIX_EPOCH + Duration::from_secs(253_000_000_000);
        let before = SystemTime::UNIX_EPOCH - Duration::from_secs(1_000_000);
        for now in [SystemTime::UNIX_EPOCH, before, far] {
            node_certificate(&secret('a'), "c", "n", &key, now).unwrap();
        }
    }

    #[test]
    fn debug_shows_no_key() {
        assert_eq!(
            format!("{:?}", issue(&[secret('a')], "c", "n")),
            "Credentials { anchors: 1, .. }"
        );
    }
}
