//! What all tasks of one transport share.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use quinn::VarInt;
use quorate_core::raft::{DirectoryId, Lineage, NodeId};
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::Rng;
use tokio::sync::Semaphore;

use super::TakenIn;
use super::complaint::Complaints;
use super::dial::close;
use super::event::EventSender;
use super::hello::{Hello, Invitation, Protocols, Purpose};
use super::peer::PeerHandle;
use super::settings::Settings;
use crate::port::{BoxFuture, Ports};

/// What this node says of itself and what never changes while it runs.
pub(super) struct OwnNode {
    pub(super) cluster: String,
    pub(super) name: String,
    pub(super) directory: DirectoryId,
    pub(super) cluster_address: String,
    pub(super) client_address: String,
    pub(super) protocols: Protocols,
}

/// Which history of the cluster this node belongs to, and under which id.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) of: Option<(Lineage, NodeId)>,
    /// Counts the changes: a connection made under an older identity is closed.
    pub(super) epoch: u64,
}

pub(super) struct Shared {
    pub(super) ports: Ports,
    pub(super) own: OwnNode,
    /// Of the secret that signs, for messages about wrong secrets.
    pub(super) fingerprint: String,
    pub(super) settings: Settings,
    pub(super) endpoint: quinn::Endpoint,
    pub(super) events: EventSender,
    pub(super) complaints: Complaints,
    /// Room for connections that are no peer's link: questions, transfers, and whatever is still greeting.
    pub(super) visitors: Arc<Semaphore>,
    pub(super) state: Mutex<State>,
    /// Why this node stops, once it does.
    pub(super) stopped: OnceLock<String>,
}

/// What changes while the transport runs.
pub(super) struct State {
    pub(super) identity: Identity,
    pub(super) peers: BTreeMap<NodeId, Arc<PeerHandle>>,
    /// Which ids were ever given away, when that is certain.
    pub(super) taken_in: Option<TakenIn>,
    /// The peer whose death must be noticed first.
    pub(super) watched: Option<NodeId>,
    pub(super) jitter: ChaCha12Rng,
}

impl Shared {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn endpoint(&self) -> &quinn::Endpoint {
        &self.endpoint
    }

    pub(super) fn local_address(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    pub(super) fn identity(&self) -> Identity {
        self.state().identity
    }

    pub(super) fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let clock = &self.ports.clock;
        clock.sleep_until(clock.now() + duration)
    }

    /// Half of `duration` or up to all of it, so that nodes that were cut off together do not come back together.
    pub(super) fn jittered(&self, duration: Duration) -> Duration {
        let random = f64::from(self.state().jitter.next_u32()) / f64::from(u32::MAX);
        duration.mul_f64(0.5 + random / 2.0)
    }

    /// Runs `future` for at most `limit`.
    pub(super) async fn within<T>(&self, limit: Duration, future: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            output = future => Some(output),
            () = self.sleep(limit) => None,
        }
    }

    /// Runs a task of this transport.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.ports.network.quic_runtime().spawn(Box::pin(task));
    }

    /// What this node says of itself.
    pub(super) fn hello(&self, purpose: Purpose) -> Hello {
        let identity = self.identity().of;
        Hello {
            protocols: self.own.protocols,
            cluster: self.own.cluster.clone(),
            lineage: identity.map(|(lineage, _)| lineage),
            id: identity.map(|(_, id)| id),
            name: self.own.name.clone(),
            directory: self.own.directory,
            cluster_address: self.own.cluster_address.clone(),
            client_address: self.own.client_address.clone(),
            purpose,
        }
    }

    /// What a node without its data is told; nothing by a node that is blank itself.
    pub(super) fn invitation(&self) -> Option<Invitation> {
        let state = self.state();
        let (lineage, _) = state.identity.of?;
        let own = (self.own.name.clone(), self.own.cluster_address.clone());
        let mut members = vec![own];
        members.extend(
            state
                .peers
                .values()
                .map(|peer| (peer.peer.name.clone(), peer.address())),
        );
        members.sort();
        Some(Invitation { lineage, members })
    }

    /// Ends every task and connection.
    pub(super) fn stop(&self, reason: &str) {
        // The first reason is the true one.
        let _ = self.stopped.set(reason.to_owned());
        for peer in self.state().peers.values() {
            peer.stop();
        }
        self.endpoint
            .close(VarInt::from_u32(close::STOPPING), reason.as_bytes());
    }
}
