//! Dialling: from an address to a connection on which both sides have greeted each other.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::{Connection, ConnectionError, RecvStream, SendStream};
use quorate_core::raft::NodeId;
use thiserror::Error;
use tracing::debug;

use super::event::{Event, Refusal, RefusedBy};
use super::hello::{
    Hello, HelloAnswer, MessageError, Purpose, RefusalCode, Refused, read_message, write_message,
};
use super::shared::Shared;
use crate::port::Probe;

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
        address: SocketAddr,
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
    pub(super) fn name(&self) -> Option<&str> {
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
                () = refused => Err(ConnectError::NobodyListens { address: remote }),
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
        while !self.is_refused(probe.as_mut(), POKE_INTERVAL).await {}
    }

    /// Completes when the machine at `remote`, which said that nobody has the port, says so no more.
    pub(super) async fn somebody_listens(&self, remote: SocketAddr) {
        let Ok(mut probe) = self.ports.network.probe(remote) else {
            return std::future::pending().await;
        };
        while self.is_refused(probe.as_mut(), POKE_INTERVAL).await {
            self.sleep(POKE_INTERVAL).await;
        }
    }

    /// Pokes, and waits at most `wait` for the answer that nobody has the port.
    pub(super) async fn is_refused(&self, probe: &mut dyn Probe, wait: Duration) -> bool {
        let refused = |answer: io::Result<()>| matches!(answer, Err(error) if error.kind() == io::ErrorKind::ConnectionRefused);
        if refused(probe.poke()) {
            return true;
        }
        let mut deadline = self.sleep(wait);
        tokio::select! {
            biased;
            () = probe.answered() => {}
            () = &mut deadline => return false,
        }
        if refused(probe.poke()) {
            return true;
        }
        // Another answer, such as an unreachable host, proves nothing and may come again at once.
        deadline.await;
        false
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
