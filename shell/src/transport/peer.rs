//! One peer: keeping a connection to it, and what is known of it.
//!
//! Every peer has one task, so its events come in order: `Connected`, frames, `Lost` or `Refused`, `Connected`, ...
//! Of two members the one with the smaller name dials; the other waits. A new connection from the peer replaces the
//! one that stands: the peer would not dial if it still had that one.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quinn::{Connection, VarInt};
use quorate_core::raft::LinkEvent;
use tokio::sync::Notify;
use tracing::{debug, info};

use super::dial::{ConnectError, Expected, Greeted, close};
use super::event::{Event, FrameBudget};
use super::hello::Purpose;
use super::link::{self, Ending, Link};
use super::queue::Queue;
use super::shared::Shared;
use super::{Counters, Peer};
use crate::planted::PlantedBug;

/// Bytes of consensus messages that may wait for a peer, in each direction.
const CONSENSUS_BYTES_WAITING_MAX: usize = 16 << 20;
/// Bytes of other frames that may wait for a peer, in each direction.
const OTHER_BYTES_WAITING_MAX: usize = 8 << 20;
/// The first wait before dialling again.
const BACKOFF_MIN: Duration = Duration::from_millis(20);
/// The longest wait before dialling again.
const BACKOFF_MAX: Duration = Duration::from_millis(500);
/// A connection that held for so long was a good one: the next wait is short again.
const GOOD_CONNECTION: Duration = Duration::from_secs(2);

/// What the transport knows of one peer.
pub(super) struct PeerHandle {
    pub(super) peer: Peer,
    pub(super) consensus: Queue,
    pub(super) other: Queue,
    pub(super) consensus_budget: FrameBudget,
    pub(super) other_budget: FrameBudget,
    pub(super) counters: Counts,
    /// Wakes the prober when the peer begins or ceases to be watched closely.
    pub(super) watch_changed: Notify,
    pub(super) watched: AtomicBool,
    state: Mutex<PeerState>,
    /// Wakes the peer's task.
    changed: Notify,
    stopped: AtomicBool,
}

struct PeerState {
    /// Where the membership has the peer.
    address: String,
    /// Where it may be besides.
    elsewhere: Vec<String>,
    /// How often it was dialled in vain: the addresses take turns.
    turn: usize,
    /// The connection that carries the link.
    connection: Option<Connection>,
    /// A connection that the peer has dialled and its task has not taken over.
    arrived: Option<Link>,
}

/// Counts since the peer was made known.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) frames_sent: AtomicU64,
    pub(super) bytes_sent: AtomicU64,
    pub(super) frames_dropped: AtomicU64,
    pub(super) frames_received: AtomicU64,
    pub(super) bytes_received: AtomicU64,
    pub(super) connections: AtomicU64,
}

impl Counts {
    pub(super) fn add(counter: &AtomicU64, number: usize) {
        counter.fetch_add(number as u64, Ordering::Relaxed);
    }
}

impl PeerHandle {
    pub(super) fn new(peer: Peer) -> PeerHandle {
        PeerHandle {
            consensus: Queue::new(peer.name.clone(), CONSENSUS_BYTES_WAITING_MAX),
            other: Queue::new(peer.name.clone(), OTHER_BYTES_WAITING_MAX),
            consensus_budget: FrameBudget::new(CONSENSUS_BYTES_WAITING_MAX),
            other_budget: FrameBudget::new(OTHER_BYTES_WAITING_MAX),
            counters: Counts::default(),
            watch_changed: Notify::new(),
            watched: AtomicBool::new(false),
            state: Mutex::new(PeerState {
                address: peer.cluster_address.clone(),
                elsewhere: Vec::new(),
                turn: 0,
                connection: None,
                arrived: None,
            }),
            changed: Notify::new(),
            stopped: AtomicBool::new(false),
            peer,
        }
    }

    pub(super) fn address(&self) -> String {
        self.state().address.clone()
    }

    pub(super) fn set_address(&self, address: String) {
        let mut state = self.state();
        if state.address != address {
            state.address = address;
            state.turn = 0;
        }
    }

    /// Dials these addresses too, the first of them next.
    pub(super) fn set_elsewhere(&self, addresses: Vec<String>) {
        let mut state = self.state();
        if state.elsewhere == addresses {
            return;
        }
        state.elsewhere = addresses;
        state.turn = 1;
        drop(state);
        self.changed.notify_one();
    }

    /// The address whose turn it is.
    fn address_in_turn(&self) -> String {
        let state = self.state();
        match state.turn % (1 + state.elsewhere.len()) {
            0 => state.address.clone(),
            other => state.elsewhere[other - 1].clone(),
        }
    }

    pub(super) fn connection(&self) -> Option<Connection> {
        self.state().connection.clone()
    }

    pub(super) fn counters(&self) -> Counters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            frames_sent: read(&self.counters.frames_sent),
            bytes_sent: read(&self.counters.bytes_sent),
            frames_dropped: read(&self.counters.frames_dropped),
            frames_received: read(&self.counters.frames_received),
            bytes_received: read(&self.counters.bytes_received),
            connections: read(&self.counters.connections),
            bytes_waiting: (self.consensus.bytes() + self.other.bytes()) as u64,
        }
    }

    /// Hands over a connection that the peer has dialled; the newest wins.
    pub(super) fn arrive(&self, link: Link) {
        let mut state = self.state();
        if self.is_stopped() {
            link.connection
                .close(VarInt::from_u32(close::CHANGED), b"no longer a peer");
            return;
        }
        if let Some(older) = state.arrived.replace(link) {
            older.connection.close(
                VarInt::from_u32(close::REPLACED),
                b"replaced by a newer connection",
            );
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Makes the task look at what changed: the identity of this node.
    pub(super) fn look(&self) {
        self.changed.notify_one();
    }

    /// Ends the task and its connection.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.changed.notify_one();
    }

    pub(super) fn watch(&self, closely: bool) {
        if self.watched.swap(closely, Ordering::Relaxed) != closely {
            self.watch_changed.notify_one();
        }
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    fn state(&self) -> MutexGuard<'_, PeerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the connection until the peer is let go.
    pub(super) async fn run(self: Arc<PeerHandle>, shared: Arc<Shared>) {
        let mut backoff = BACKOFF_MIN;
        while let Some(link) = self.next_link(&shared, &mut backoff).await {
            let began = shared.ports.clock.now();
            self.carry(&shared, link).await;
            if shared.ports.clock.now().since(began) >= GOOD_CONNECTION {
                backoff = BACKOFF_MIN;
            }
        }
        let arrived = self.state().arrived.take();
        if let Some(link) = arrived {
            link.connection
                .close(VarInt::from_u32(close::CHANGED), b"no longer a peer");
        }
    }

    /// The next connection, dialled or arrived; none when the peer was let go.
    async fn next_link(&self, shared: &Arc<Shared>, backoff: &mut Duration) -> Option<Link> {
        // Where the last attempt found that nobody listens.
        let mut absent = None;
        loop {
            if self.is_stopped() {
                return None;
            }
            let arrived = self.state().arrived.take();
            if let Some(link) = arrived {
                return Some(link);
            }
            let identity = shared.identity();
            if identity.of.is_none() || shared.own.name >= self.peer.name {
                self.changed.notified().await;
                continue;
            }
            let wait = shared.jittered(*backoff);
            let attempt = async {
                self.pause(shared, wait, absent).await;
                self.dial(shared, identity.epoch).await
            };
            let dialled = tokio::select! {
                biased;
                () = self.changed.notified() => continue,
                dialled = attempt => dialled,
            };
            *backoff = (*backoff * 2).min(BACKOFF_MAX);
            match dialled {
                Ok(link) => return Some(link),
                Err(error) => {
                    debug!(peer = %self.peer.name, "cannot connect: {error}");
                    let mut state = self.state();
                    state.turn += 1;
                    // Only of the one address that there is, its machine tells when it is worth another try.
                    absent = match error {
                        ConnectError::NobodyListens { address } if state.elsewhere.is_empty() => {
                            Some(address)
                        }
                        _ => None,
                    };
                }
            }
        }
    }

    /// Waits before the next attempt: as long as the backoff says, or until somebody takes the port at which nobody
    /// listened.
    async fn pause(&self, shared: &Shared, wait: Duration, absent: Option<SocketAddr>) {
        let somebody = async {
            match absent {
                Some(address) => shared.somebody_listens(address).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = shared.sleep(wait) => {}
            () = somebody => {}
        }
    }

    async fn dial(&self, shared: &Arc<Shared>, epoch: u64) -> Result<Link, ConnectError> {
        let address = self.address_in_turn();
        let Greeted {
            connection,
            send,
            receive,
            ..
        } = shared
            .dial(&address, Expected::Member(&self.peer), Purpose::Peer)
            .await?;
        let other = link::open_second(&connection)
            .await
            .map_err(|error| ConnectError::Broken {
                address,
                reason: error.to_string(),
            })?;
        Ok(Link {
            connection,
            consensus: (send, receive),
            other,
            epoch,
        })
    }

    /// Carries frames over a connection until it ends.
    async fn carry(self: &Arc<PeerHandle>, shared: &Arc<Shared>, link: Link) {
        let connection = link.connection.clone();
        if link.epoch != shared.identity().epoch {
            connection.close(
                VarInt::from_u32(close::CHANGED),
                b"this node has another identity now",
            );
            return;
        }
        let (name, address, epoch) = (&self.peer.name, connection.remote_address(), link.epoch);
        info!(peer = %name, %address, "connected");
        shared.complaints.resolved(name);
        Counts::add(&self.counters.connections, 1);
        self.state().connection = Some(connection.clone());
        shared.tell_linked(&connection, self.peer.id);
        self.consensus.open();
        self.other.open();
        let link_event = |event| Event::Link {
            peer: self.peer.id,
            event,
        };
        shared.events.put(link_event(LinkEvent::Connected)).await;
        let ending = tokio::select! {
            biased;
            ending = self.interrupted(shared, epoch) => ending,
            ending = link::run(link, self, shared) => ending,
        };
        self.consensus.close();
        self.other.close();
        self.state().connection = None;
        let (code, reason) = ending.close_code();
        connection.close(VarInt::from_u32(code), reason.as_bytes());
        self.report(shared, &ending, &connection);
        if shared.ports.planted.is(PlantedBug::ConnectionIsKept) {
            std::mem::forget(connection);
        }
        shared.events.put(link_event(ending.event())).await;
    }

    /// Completes when this side wants the connection to end.
    async fn interrupted(&self, shared: &Shared, epoch: u64) -> Ending {
        loop {
            if let Some(reason) = shared.stopped.get() {
                return Ending::Stopping(reason.clone());
            }
            if self.is_stopped() || shared.identity().epoch != epoch {
                return Ending::Unwanted;
            }
            if self.state().arrived.is_some() {
                return Ending::Replaced;
            }
            self.changed.notified().await;
        }
    }

    fn report(&self, shared: &Shared, ending: &Ending, connection: &Connection) {
        let (name, address) = (&self.peer.name, connection.remote_address());
        match ending {
            Ending::Broken(error) => {
                if let Some(refusal) = shared.refusal_in(error, &address.to_string(), Some(name)) {
                    shared.report(&refusal);
                }
            }
            Ending::Malformed(error) => {
                shared.report(&shared.malformed(connection, Some(name), error));
            }
            _ => {}
        }
        info!(peer = %name, %address, "connection ended: {ending}");
    }
}
