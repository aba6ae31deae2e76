//! Judging other nodes: who may talk to this one, and the sentence that tells both operators why not.

use std::net::SocketAddr;
use std::sync::Arc;

use quinn::{Connection, ConnectionError, TransportErrorCode, VarInt};
use quorate_core::raft::NodeId;
use rustls::pki_types::CertificateDer;

use super::Peer;
use super::certificate::{names_cluster, names_node};
use super::dial::{ConnectError, Expected, close};
use super::event::{Event, Refusal, RefusedBy};
use super::hello::{Hello, Purpose, RefusalCode};
use super::peer::PeerHandle;
use super::shared::Shared;
use crate::planted::PlantedBug;

impl Shared {
    /// Whether the node that answered is the one that was dialled.
    pub(super) fn check_answerer(
        &self,
        connection: &Connection,
        expected: &Expected<'_>,
        purpose: Purpose,
        hello: &Hello,
    ) -> Result<(), Refusal> {
        self.check_names(connection, hello)?;
        self.greeted(hello);
        if self.ports.planted.is(PlantedBug::IdentityIsNotChecked) {
            return Ok(());
        }
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

    /// Logs a refusal unless that was done within the last minute, and tells the owner: whether a refusal stays can be
    /// seen only from its coming again.
    pub(super) fn report(&self, refusal: &Refusal) {
        self.complaints.mention(refusal, self.ports.clock.now());
        self.events.put_if_room(Event::Refused(refusal.clone()));
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
        if self.ports.planted.is(PlantedBug::ClusterIsNotChecked) {
            return Ok(());
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

    /// Tells whoever looks on as whom the node at the other end was judged.
    pub(super) fn tell_linked(&self, connection: &Connection, peer: NodeId) {
        let certificate = peer_certificate(connection);
        let shown = certificate
            .as_ref()
            .map_or(&[][..], |certificate| certificate.as_ref());
        self.ports.observer.linked(peer, shown);
    }

    /// Tells the owner who and where another node is.
    pub(super) fn greeted(&self, hello: &Hello) {
        self.events.put_if_room(Event::Greeted { hello: hello.clone() });
    }

    /// Whether the node that greets was a member once and is none any more. One that came back under its name without
    /// its data is a member.
    pub(super) fn check_not_removed(&self, connection: &Connection, hello: &Hello) -> Result<(), Refusal> {
        let state = self.state();
        let (Some((lineage, own)), Some(taken_in), Some(id)) = (state.identity.of, state.taken_in, hello.id)
        else {
            return Ok(());
        };
        let is_member = id == own
            || hello.name == self.own.name
            || state.peers.contains_key(&id)
            || state.peers.values().any(|peer| peer.peer.name == hello.name);
        if is_member || hello.lineage != Some(lineage) || id >= taken_in.below {
            return Ok(());
        }
        drop(state);
        let message = format!(
            "node `{}` was removed from the cluster: the membership at index {}, which node `{}` has, is without it. \
             Stop it; to take it in again, start it with an empty data directory and --peers",
            hello.name, taken_in.index, self.own.name
        );
        Err(self.refusal(RefusalCode::Removed, connection, hello, message))
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

    /// The peer that a greeting comes from, or why it comes from none.
    pub(super) fn check_caller(
        &self,
        connection: &Connection,
        hello: &Hello,
    ) -> Result<Arc<PeerHandle>, Refusal> {
        if hello.name == self.own.name {
            let message = if hello.directory == self.own.directory {
                format!(
                    "node `{}` dialled itself: correct the address of the peer that it meant",
                    hello.name
                )
            } else {
                format!(
                    "two nodes are called `{}`, one with data directory {} and one with {}: give one of them another \
                     name",
                    hello.name, hello.directory, self.own.directory
                )
            };
            return Err(self.refusal(RefusalCode::Name, connection, hello, message));
        }
        let peer = {
            let state = self.state();
            let found = state.peers.values().find(|peer| peer.peer.name == hello.name);
            found.cloned()
        };
        self.check_member(connection, hello, peer.as_ref().map(|peer| &peer.peer))?;
        peer.ok_or_else(|| self.no_member(connection, hello))
    }

    /// Whether the node that greets is `expected`, a member of the same history with its data.
    pub(super) fn check_member(
        &self,
        connection: &Connection,
        hello: &Hello,
        expected: Option<&Peer>,
    ) -> Result<(), Refusal> {
        let (own, name) = (&self.own.name, &hello.name);
        let refusal = |code, message| Err(self.refusal(code, connection, hello, message));
        let Some((lineage, _)) = self.identity().of else {
            let message = format!(
                "node `{own}` holds no data yet, so node `{name}` cannot count on it: it must join the cluster first"
            );
            return refusal(RefusalCode::Blank, message);
        };
        match hello.lineage {
            Some(other) if other != lineage => {
                let message = format!(
                    "node `{name}` belongs to history {other} of the cluster and node `{own}` to history {lineage}: \
                     they were founded apart, or one of them was forced to start; move the data directory of the one \
                     that is wrong aside and let it join again"
                );
                return refusal(RefusalCode::Lineage, message);
            }
            _ => {}
        }
        let Some(expected) = expected else {
            return Err(self.no_member(connection, hello));
        };
        if hello.id != Some(expected.id) || hello.directory != expected.directory {
            let id = hello
                .id
                .map_or_else(|| "no id".to_owned(), |id| format!("id {id}"));
            let message = format!(
                "node `{name}` comes with {id} and data directory {}, where the membership that node `{own}` knows \
                 has id {} and data directory {}: if its data was lost, let it join again",
                hello.directory, expected.id, expected.directory
            );
            return refusal(RefusalCode::Identity, message);
        }
        Ok(())
    }

    fn no_member(&self, connection: &Connection, hello: &Hello) -> Refusal {
        let message = format!(
            "node `{}` is no member in the membership that node `{}` knows: let it join; if it was removed, stop it",
            hello.name, self.own.name
        );
        self.refusal(RefusalCode::NotMember, connection, hello, message)
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
