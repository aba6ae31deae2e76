//! Dialling: from an address to a connection on which both sides have greeted each other.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::{Connection, ConnectionError, RecvStream, SendStream, TransportErrorCode, VarInt};
use quorate_core::raft::NodeId;
use rustls::pki_types::CertificateDer;
use thiserror::Error;
use tracing::debug;

use super::certificate::{names_cluster, names_node};
use super::event::{Event, Refusal, RefusedBy};
use super::hello::{
    Answer, Ask, Hello, HelloAnswer, MessageError, Purpose, RefusalCode, Refused, read_message, write_message,
};
use super::link::is_refused;
use super::shared::Shared;

/// How long one attempt may take, from the first packet to the greeting.
const ATTEMPT: Duration = Duration::from_millis(1_500);
/// How often a machine is asked whether anybody listens while a connection to it is being made.
const POKE_INTERVAL: Duration = Duration::from_millis(20);

/// Why a connection ended, or why one was closed. Sent as the code of QUIC's close frame; codes of refusals
/// ([`RefusalCode`]) are sent with [`REFUSED`](close::REFUSED) added.
pub(super) mod close {
    /// What was to be done is done.
    pub(in super::super) const DONE: u32 = 0;
    /// The node stops.
    pub(in super::super) const STOPPING: u32 = 1;
    /// A newer connection of the same peer takes over.
    pub(in super::super) const REPLACED: u32 = 2;
    /// The other is no peer any more, or is one under another identity.
    pub(in super::super) const CHANGED: u32 = 3;
    /// The other's machine said that nobody listens.
    pub(in super::super) const DEAD: u32 = 4;
    /// Added to the number of a refusal.
    pub(in super::super) const REFUSED: u32 = 0x100;
}

/// Why a node could not be reached.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The address is not `host:port`, or its host is unknown.
    #[error("cannot resolve the address `{address}`: {source}")]
    Resolve {
        /// The address.
        address: String,
        /// What the system says.
        source: io::Error,
    },
    /// This node's socket cannot reach such an address.
    #[error("cannot dial {address}: {reason}")]
    Address {
        /// The address.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The machine answers, and no process has the port.
    #[error("nobody listens at {address}: is the node running?")]
    NobodyListens {
        /// The address.
        address: String,
    },
    /// Nothing came back in time.
    #[error("no answer from {address} in time: is the node running, and does a firewall let UDP through?")]
    TimedOut {
        /// The address.
        address: String,
    },
    /// One of the two nodes will not talk to the other.
    #[error(transparent)]
    Refused(Box<Refusal>),
    /// The connection was made and broke.
    #[error("the connection to {address} broke: {reason}")]
    Broken {
        /// The address.
        address: String,
        /// How.
        reason: String,
    },
    /// The node was reached and gave no answer.
    #[error("the node at {address} did not answer the question")]
    Unanswered {
        /// The address.
        address: String,
    },
    /// No such peer.
    #[error("node {0} is no peer of this node")]
    NoSuchPeer(NodeId),
}

/// A connection on which both sides have greeted each other.
pub(super) struct Greeted {
    pub(super) connection: Connection,
    pub(super) send: SendStream,
    pub(super) receive: RecvStream,
    /// Who answered.
    pub(super) hello: Hello,
}

/// Whom a dialler expects to meet.
pub(super) enum Expected<'a> {
    /// A member, as the membership describes it.
    Member(&'a super::Peer),
    /// A node of this name.
    Name(&'a str),
    /// Any node of the cluster.
    Anyone,
}

impl Expected<'_> {
    fn name(&self) -> Option<&str> {
        match self {
            Expected::Member(peer) => Some(&peer.name),
            Expected::Name(name) => Some(name),
            Expected::Anyone => None,
        }
    }
}

impl Shared {
    /// Dials the addresses of `address` one after the other until one answers.
    pub(super) async fn dial(
        self: &Arc<Shared>,
        address: &str,
        expected: Expected<'_>,
        purpose: Purpose,
    ) -> Result<Greeted, ConnectError> {
        let mut failure = None;
        for remote in self.resolve(address).await? {
            let attempt = self.attempt(remote, &expected, purpose);
            let refused = self.nobody_listens(remote);
            let result = tokio::select! {
                biased;
                result = attempt => result,
                () = refused => Err(ConnectError::NobodyListens { address: remote.to_string() }),
                () = self.sleep(ATTEMPT) => Err(ConnectError::TimedOut { address: remote.to_string() }),
            };
            match result {
                Ok(greeted) => return Ok(greeted),
                Err(error) => {
                    debug!(%remote, "cannot connect: {error}");
                    failure = Some(error);
                }
            }
        }
        let none = || ConnectError::Address {
            address: address.to_owned(),
            reason: "it has no address that this node's socket can reach".to_owned(),
        };
        Err(failure.unwrap_or_else(none))
    }

    async fn resolve(&self, address: &str) -> Result<Vec<SocketAddr>, ConnectError> {
        // A numeric address needs no resolver.
        let mut addresses = match address.parse::<SocketAddr>() {
            Ok(address) => vec![address],
            Err(_) => {
                let resolved = self.ports.network.resolve(address).await;
                resolved.map_err(|source| ConnectError::Resolve {
                    address: address.to_owned(),
                    source,
                })?
            }
        };
        let only_v4 = self.local_address().is_ok_and(|local| local.is_ipv4());
        addresses.retain(|remote| remote.is_ipv4() || !only_v4);
        Ok(addresses)
    }

    /// Completes when the machine at `remote` says that nobody has the port.
    async fn nobody_listens(&self, remote: SocketAddr) {
        let Ok(mut probe) = self.ports.network.probe(remote) else {
            return std::future::pending().await;
        };
        loop {
            if is_refused(&probe.poke()) {
                return;
            }
            tokio::select! {
                biased;
                () = probe.answered() => {
                    if is_refused(&probe.poke()) {
                        return;
                    }
                    self.sleep(POKE_INTERVAL).await;
                }
                () = self.sleep(POKE_INTERVAL) => {}
            }
        }
    }

    async fn attempt(
        self: &Arc<Shared>,
        remote: SocketAddr,
        expected: &Expected<'_>,
        purpose: Purpose,
    ) -> Result<Greeted, ConnectError> {
        let connecting = self
            .endpoint()
            .connect_with(self.settings.client(remote), remote, "node.quorate")
            .map_err(|error| ConnectError::Address {
                address: remote.to_string(),
                reason: error.to_string(),
            })?;
        let broken = |error: ConnectionError| self.broken(error, remote, expected.name());
        let connection = connecting.await.map_err(broken)?;
        let result = self.greet(&connection, expected, purpose).await;
        match result {
            Ok(greeted) => Ok(greeted),
            Err(GreetError::Refusal(refusal)) => {
                Err(ConnectError::Refused(Box::new(self.refuse(&connection, refusal))))
            }
            Err(GreetError::Message(error)) => {
                // How the connection ended says more than how the stream did. The other side may still be about to
                // say it: it judges the certificate only after this side has finished its handshake.
                let ended = match connection.close_reason() {
                    Some(reason) => reason,
                    None if matches!(error, MessageError::Ended(_)) => connection.closed().await,
                    None => {
                        let refusal = self.malformed(&connection, expected.name(), &error);
                        return Err(ConnectError::Refused(Box::new(self.refuse(&connection, refusal))));
                    }
                };
                Err(self.broken(ended, remote, expected.name()))
            }
        }
    }

    async fn greet(
        self: &Arc<Shared>,
        connection: &Connection,
        expected: &Expected<'_>,
        purpose: Purpose,
    ) -> Result<Greeted, GreetError> {
        let ended = |error: ConnectionError| MessageError::Ended(error.to_string());
        let (mut send, mut receive) = connection.open_bi().await.map_err(ended)?;
        write_message(&mut send, &self.hello(purpose)).await?;
        let remote = connection.remote_address();
        match read_message(&mut receive).await? {
            HelloAnswer::Welcome(hello) => {
                if let Err(refusal) = self.check_answerer(connection, expected, purpose, &hello) {
                    if refusal.code == RefusalCode::Identity {
                        self.events.put(Event::Stranger { hello }).await;
                    }
                    return Err(GreetError::Refusal(refusal));
                }
                Ok(Greeted {
                    connection: connection.clone(),
                    send,
                    receive,
                    hello,
                })
            }
            HelloAnswer::Refused(refused) => {
                let Refused {
                    code,
                    message,
                    hello,
                    invitation,
                } = *refused;
                if let Some(invitation) = invitation {
                    self.events
                        .put(Event::Invited {
                            lineage: invitation.lineage,
                            members: invitation.members,
                        })
                        .await;
                }
                let name = hello.name.clone();
                if matches!(expected, Expected::Member(peer) if peer.is_without_its_data(&hello)) {
                    self.invite(connection, &mut send).await;
                    self.events.put(Event::Stranger { hello }).await;
                }
                Err(GreetError::Refusal(Refusal {
                    code,
                    by: RefusedBy::Them,
                    name: Some(name),
                    address: remote.to_string(),
                    message,
                }))
            }
        }
    }

    /// Tells a node without its data where its cluster is, on the stream on which it refused.
    async fn invite(&self, connection: &Connection, send: &mut SendStream) {
        let Some(invitation) = self.invitation() else {
            return;
        };
        if write_message(send, &invitation).await.is_ok() && send.finish().is_ok() {
            // The other side closes when it has read the invitation.
            tokio::select! {
                biased;
                _ = connection.closed() => {}
                () = self.sleep(super::GOODBYE) => {}
            }
        }
    }

    /// Whether the node that answered is the one that was dialled.
    fn check_answerer(
        &self,
        connection: &Connection,
        expected: &Expected<'_>,
        purpose: Purpose,
        hello: &Hello,
    ) -> Result<(), Refusal> {
        self.check_names(connection, hello)?;
        let address = connection.remote_address();
        if let Some(name) = expected.name().filter(|name| *name != hello.name) {
            let message = format!(
                "at {address} node `{}` answers where node `{}` expected node `{name}`: correct the address of node \
                 `{name}` or the name of the node that runs there",
                hello.name, self.own.name
            );
            return Err(self.refusal(RefusalCode::Name, connection, hello, message));
        }
        if let (Expected::Member(peer), Purpose::Peer | Purpose::Bulk) = (expected, purpose) {
            self.check_member(connection, hello, Some(peer))?;
        }
        Ok(())
    }

    /// Closes a refused connection and reports the refusal; the other side is told unless it refused itself.
    pub(super) fn refuse(&self, connection: &Connection, refusal: Refusal) -> Refusal {
        match refusal.by {
            RefusedBy::Us => {
                let code = close::REFUSED + refusal.code as u32;
                connection.close(VarInt::from_u32(code), refusal.message.as_bytes());
            }
            RefusedBy::Them => connection.close(VarInt::from_u32(close::DONE), b""),
        }
        self.report(&refusal);
        refusal
    }

    /// Logs a refusal and tells the owner, unless both happened within the last minute.
    pub(super) fn report(&self, refusal: &Refusal) {
        if self.complaints.mention(refusal, self.ports.clock.now()) {
            self.events.put_if_room(Event::Refused(refusal.clone()));
        }
    }

    /// What the end of a connection means while it is being made.
    pub(super) fn broken(
        &self,
        error: ConnectionError,
        remote: SocketAddr,
        name: Option<&str>,
    ) -> ConnectError {
        let address = remote.to_string();
        match self.refusal_in(&error, &address, name) {
            Some(refusal) => {
                self.report(&refusal);
                ConnectError::Refused(Box::new(refusal))
            }
            None if matches!(error, ConnectionError::TimedOut) => ConnectError::TimedOut { address },
            None => ConnectError::Broken {
                address,
                reason: error.to_string(),
            },
        }
    }

    /// The refusal that ended a connection, if one did.
    pub(super) fn refusal_in(
        &self,
        error: &ConnectionError,
        address: &str,
        name: Option<&str>,
    ) -> Option<Refusal> {
        let (code, by, message) = match error {
            ConnectionError::TransportError(error) => {
                let code = tls_refusal(error.code)?;
                (
                    code,
                    RefusedBy::Us,
                    self.tls_message(code, address, &error.to_string()),
                )
            }
            ConnectionError::ConnectionClosed(end) => {
                let code = tls_refusal(end.error_code)?;
                let reason = String::from_utf8_lossy(&end.reason);
                (code, RefusedBy::Them, self.tls_message(code, address, &reason))
            }
            ConnectionError::ApplicationClosed(end) => {
                let number = end
                    .error_code
                    .into_inner()
                    .checked_sub(u64::from(close::REFUSED))?;
                let code = RefusalCode::from_number(number)?;
                let reason = String::from_utf8_lossy(&end.reason).into_owned();
                (code, RefusedBy::Them, reason)
            }
            _ => return None,
        };
        Some(Refusal {
            code,
            by,
            name: name.map(str::to_owned),
            address: address.to_owned(),
            message,
        })
    }

    fn tls_message(&self, code: RefusalCode, address: &str, reason: &str) -> String {
        let node = &self.own.name;
        match code {
            RefusalCode::Secret => format!(
                "the node at {address} and node `{node}` do not have the same cluster secret (node `{node}` has the \
                 one with fingerprint {}): give both the same one",
                self.fingerprint
            ),
            RefusalCode::Clock => format!(
                "the certificates of the node at {address} and of node `{node}` do not hold at the same time: set the \
                 clock that is wrong by more than a year, and restart its node"
            ),
            _ => format!(
                "the TLS handshake between the node at {address} and node `{node}` failed: {reason}: check that both \
                 run Quorate on this port"
            ),
        }
    }

    /// Whether the names in a greeting are right: the other's cluster is this one, and its certificate says so.
    pub(super) fn check_names(&self, connection: &Connection, hello: &Hello) -> Result<(), Refusal> {
        let own = &self.own;
        let refusal = |code, message| self.refusal(code, connection, hello, message);
        if hello.protocols.common(own.protocols).is_none() {
            let message = format!(
                "node `{}` speaks versions {} of the protocol between nodes and node `{}` versions {}: upgrade the \
                 older one",
                hello.name, hello.protocols, own.name, own.protocols
            );
            return Err(refusal(RefusalCode::Version, message));
        }
        if hello.cluster != own.cluster {
            let message = format!(
                "node `{}` belongs to cluster `{}` and node `{}` to cluster `{}`: correct the cluster's name, or the \
                 address that led here",
                hello.name, hello.cluster, own.name, own.cluster
            );
            return Err(refusal(RefusalCode::Cluster, message));
        }
        let certified = peer_certificate(connection).is_some_and(|certificate| {
            names_cluster(&certificate, &hello.cluster)
                && names_node(&certificate, &hello.cluster, &hello.name)
        });
        if !certified {
            let message = format!(
                "a node says that it is `{}` of cluster `{}` and its certificate does not: it was issued to another \
                 node",
                hello.name, hello.cluster
            );
            return Err(refusal(RefusalCode::Certificate, message));
        }
        Ok(())
    }

    /// A refusal by this node.
    pub(super) fn refusal(
        &self,
        code: RefusalCode,
        connection: &Connection,
        hello: &Hello,
        message: String,
    ) -> Refusal {
        Refusal {
            code,
            by: RefusedBy::Us,
            name: Some(hello.name.clone()),
            address: connection.remote_address().to_string(),
            message,
        }
    }

    /// A refusal of what no node sends.
    pub(super) fn malformed(
        &self,
        connection: &Connection,
        name: Option<&str>,
        error: &dyn std::error::Error,
    ) -> Refusal {
        let address = connection.remote_address().to_string();
        let other = name.map_or_else(
            || format!("the node at {address}"),
            |name| format!("node `{name}`"),
        );
        Refusal {
            code: RefusalCode::Malformed,
            by: RefusedBy::Us,
            name: name.map(str::to_owned),
            message: format!(
                "{other} sent what node `{}` does not understand: {error}: run the same version of Quorate on both",
                self.own.name
            ),
            address,
        }
    }

    /// Asks the node at `address`.
    pub(super) async fn ask(
        self: &Arc<Shared>,
        address: &str,
        expected_name: Option<&str>,
        ask: &Ask,
    ) -> Result<Answer, ConnectError> {
        let expected = expected_name.map_or(Expected::Anyone, Expected::Name);
        let Greeted {
            connection,
            mut send,
            mut receive,
            hello,
        } = self.dial(address, expected, Purpose::Ask).await?;
        let exchange = async {
            write_message(&mut send, ask).await?;
            read_message(&mut receive).await
        };
        let result = match exchange.await {
            Ok(answer) => Ok(answer),
            Err(MessageError::Ended(_)) => Err(match connection.close_reason() {
                Some(reason) => self.broken(reason, connection.remote_address(), Some(&hello.name)),
                None => ConnectError::Unanswered {
                    address: address.to_owned(),
                },
            }),
            Err(error) => {
                let refusal = self.malformed(&connection, Some(&hello.name), &error);
                Err(ConnectError::Refused(Box::new(self.refuse(&connection, refusal))))
            }
        };
        connection.close(VarInt::from_u32(close::DONE), b"");
        result
    }

    /// Runs `future` for at most `limit`.
    pub(super) async fn within<T>(&self, limit: Duration, future: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            output = future => Some(output),
            () = self.sleep(limit) => None,
        }
    }
}

/// Why a greeting failed.
enum GreetError {
    Refusal(Refusal),
    Message(MessageError),
}

impl From<Refusal> for GreetError {
    fn from(refusal: Refusal) -> GreetError {
        GreetError::Refusal(refusal)
    }
}

impl From<MessageError> for GreetError {
    fn from(error: MessageError) -> GreetError {
        GreetError::Message(error)
    }
}

/// The certificate that the other side has shown.
fn peer_certificate(connection: &Connection) -> Option<CertificateDer<'static>> {
    let chain = connection
        .peer_identity()?
        .downcast::<Vec<CertificateDer<'static>>>()
        .ok()?;
    chain.into_iter().next()
}

/// The refusal behind a TLS alert (RFC 8446, section 6.2), which QUIC carries in its error code (RFC 9001, 4.8).
fn tls_refusal(code: TransportErrorCode) -> Option<RefusalCode> {
    const CERTIFICATE_EXPIRED: u64 = 45;
    const UNKNOWN_CA: u64 = 48;
    match u64::from(code).checked_sub(0x100)? {
        CERTIFICATE_EXPIRED => Some(RefusalCode::Clock),
        UNKNOWN_CA => Some(RefusalCode::Secret),
        alert if alert < 0x100 => Some(RefusalCode::Tls),
        _ => None,
    }
}
