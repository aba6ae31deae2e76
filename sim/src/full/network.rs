//! The network between machines: UDP for QUIC, and the probes that notice a process's death.
//!
//! Packets fare as the messages of the core simulation do (delays, losses, repetitions, cuts; see
//! [`crate::consensus::network`]), and take at least one tick. A machine whose process is gone answers a probe for
//! its port, and a connected socket that sends there; one whose power is off answers nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use quinn::udp::{RecvMeta, Transmit};
use quorate::port::{BoxFuture, Probe};
use quorate_core::raft::NodeId;
use tokio::sync::Notify;

use super::clock::MachineClock;
use super::holdings::{Mark, Taken};
use super::machine::CLUSTER_PORT;
use crate::consensus::network::Network;
use crate::consensus::schedule::{Schedule, Time};
use crate::consensus::trace::{Trace, hash};

/// Packets that wait in a socket at most; more are lost.
const SOCKET_PACKETS_MAX: usize = 4_096;
/// Bytes of a packet at most; longer ones are lost, so that path MTU discovery has something to find.
const PACKET_BYTES_MAX: usize = 1_472;
/// The first of the ports that sockets get which want any.
const FIRST_PORT: u16 = 32_768;

struct Packet {
    from: SocketAddr,
    bytes: Arc<[u8]>,
}

enum Delivery {
    Datagram {
        to: SocketAddr,
        packet: Packet,
    },
    Probe {
        from: NodeId,
        to: SocketAddr,
        answer: Arc<Answer>,
    },
    Refusal(Arc<Answer>),
}

/// What came back to a probe, or to a connected socket.
#[derive(Default)]
pub(super) struct Answer {
    refused: Mutex<bool>,
    came: Notify,
}

impl Answer {
    fn refused(&self) -> MutexGuard<'_, bool> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Completes when nobody listens at the other end.
    pub(super) async fn until_refused(&self) {
        while !*self.refused() {
            self.came.notified().await;
        }
    }
}

#[derive(Default)]
struct Inbox {
    packets: VecDeque<Packet>,
    waker: Option<Waker>,
}

struct Inner {
    network: Network,
    schedule: Schedule<Delivery>,
    sockets: BTreeMap<SocketAddr, Arc<Mutex<Inbox>>>,
    /// Sockets that hear when nobody listens where they send to.
    connected: BTreeMap<SocketAddr, Arc<Answer>>,
    /// The port that the next socket gets which wants any.
    next_port: u16,
    machines: BTreeMap<IpAddr, NodeId>,
    /// Machines without power.
    dark: BTreeSet<IpAddr>,
    /// Which address a machine has instead of its own, and whose it is: both ways.
    swapped: BTreeMap<IpAddr, IpAddr>,
    /// Links on which packets longer than so many bytes are lost, and until when.
    narrow: BTreeMap<(NodeId, NodeId), (usize, Time)>,
    trace: Trace,
    packets: u64,
}

/// The network of a world.
#[derive(Clone)]
pub(super) struct Wires(Arc<Mutex<Inner>>);

impl Wires {
    pub(super) fn new(network: Network) -> Wires {
        Wires(Arc::new(Mutex::new(Inner {
            network,
            schedule: Schedule::new(),
            sockets: BTreeMap::new(),
            connected: BTreeMap::new(),
            next_port: FIRST_PORT,
            machines: BTreeMap::new(),
            dark: BTreeSet::new(),
            swapped: BTreeMap::new(),
            narrow: BTreeMap::new(),
            trace: Trace::default(),
            packets: 0,
        })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A machine is plugged in.
    pub(super) fn plug_in(&self, address: IpAddr, node: NodeId) {
        self.inner().machines.insert(address, node);
    }

    /// Changes how packets fare.
    pub(super) fn with_network<T>(&self, change: impl FnOnce(&mut Network) -> T) -> T {
        change(&mut self.inner().network)
    }

    /// The process of a machine is gone, and its sockets with it.
    pub(super) fn close_sockets(&self, address: IpAddr) {
        self.inner().sockets.retain(|bound, _| bound.ip() != address);
    }

    /// A port of this machine that no socket has.
    pub(super) fn free_port(&self, address: IpAddr) -> SocketAddr {
        let mut inner = self.inner();
        loop {
            let port = inner.next_port;
            inner.next_port = port.checked_add(1).unwrap_or(FIRST_PORT);
            let free = SocketAddr::new(address, port);
            if !inner.sockets.contains_key(&free) {
                return free;
            }
        }
    }

    /// From now on the socket at an address hears when nobody listens where it sends to.
    pub(super) fn connect(&self, address: SocketAddr) -> Arc<Answer> {
        let answer = Arc::<Answer>::default();
        self.inner().connected.insert(address, Arc::clone(&answer));
        answer
    }

    /// A machine has power, or has none: then nothing there answers.
    pub(super) fn has_power(&self, address: IpAddr, power: bool) {
        let dark = &mut self.inner().dark;
        if power {
            dark.remove(&address);
        } else {
            dark.insert(address);
        }
    }

    /// Two machines get each other's addresses, and know nothing of it; false when some have already, or it is one.
    pub(super) fn swap(&self, one: IpAddr, other: IpAddr) -> bool {
        let mut inner = self.inner();
        if one == other || !inner.swapped.is_empty() {
            return false;
        }
        inner.swapped = BTreeMap::from([(one, other), (other, one)]);
        true
    }

    /// Every machine has its own address.
    pub(super) fn swap_back(&self) {
        self.inner().swapped.clear();
    }

    /// Packets longer than `bytes` are lost on these links until then.
    pub(super) fn narrow(&self, links: &[(NodeId, NodeId)], bytes: usize, until: Time) {
        let narrow = &mut self.inner().narrow;
        narrow.extend(links.iter().map(|link| (*link, (bytes, until))));
    }

    /// Addresses are right, and packets come through whatever their size.
    pub(super) fn mend(&self) {
        self.swap_back();
        self.inner().narrow.clear();
    }

    /// A hash over every packet sent so far, and how many there were.
    pub(super) fn trace(&self) -> (u64, u64) {
        let inner = self.inner();
        (inner.trace.value(), inner.packets)
    }

    /// Delivers what arrives by `now`.
    pub(super) fn deliver(&self, now: Time) {
        let mut wakers = Vec::new();
        {
            let mut inner = self.inner();
            while inner.schedule.next_time().is_some_and(|time| time <= now) {
                if let Some(delivery) = inner.schedule.next() {
                    wakers.extend(inner.take_in(now, delivery));
                }
            }
        }
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Inner {
    fn node(&self, address: IpAddr) -> NodeId {
        self.machines.get(&address).copied().unwrap_or(NodeId(0))
    }

    /// The machine that has an address, by its own; and the address that the machine with this own one has.
    fn at_present(&self, address: SocketAddr) -> SocketAddr {
        let ip = self.swapped.get(&address.ip()).copied();
        SocketAddr::new(ip.unwrap_or(address.ip()), address.port())
    }

    /// Bytes of a packet that comes through at the most.
    fn packet_bytes_max(&self, now: Time, sender: NodeId, receiver: NodeId) -> usize {
        match self.narrow.get(&(sender, receiver)) {
            Some((bytes, until)) if now < *until => *bytes,
            _ => PACKET_BYTES_MAX,
        }
    }

    fn send(&mut self, now: Time, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let to = self.at_present(to);
        self.packets += 1;
        let (sender, receiver) = (self.node(from.ip()), self.node(to.ip()));
        self.trace.note(now);
        self.trace.note(sender.0 << 8 | receiver.0);
        self.trace.note(hash(u64::from(to.port()), bytes));
        let arrivals = self.network.arrivals(now, sender, receiver);
        if bytes.len() > self.packet_bytes_max(now, sender, receiver) {
            return;
        }
        let from = self.at_present(from);
        let bytes: Arc<[u8]> = bytes.into();
        for arrival in arrivals.into_iter().flatten() {
            let packet = Packet {
                from,
                bytes: Arc::clone(&bytes),
            };
            self.schedule.at(arrival, Delivery::Datagram { to, packet });
        }
    }

    fn take_in(&mut self, now: Time, delivery: Delivery) -> Option<Waker> {
        match delivery {
            Delivery::Datagram { to, packet } => {
                let Some(socket) = self.sockets.get(&to) else {
                    if let Some(answer) = self.connected.get(&packet.from).cloned() {
                        let sender = self.node(packet.from.ip());
                        self.refuse(now, sender, to, answer);
                    }
                    return None;
                };
                let mut inbox = socket.lock().unwrap_or_else(PoisonError::into_inner);
                if inbox.packets.len() < SOCKET_PACKETS_MAX {
                    inbox.packets.push_back(packet);
                }
                inbox.waker.take()
            }
            Delivery::Probe { from, to, answer } => {
                if !self.sockets.contains_key(&to) {
                    self.refuse(now, from, to, answer);
                }
                None
            }
            Delivery::Refusal(answer) => {
                *answer.refused() = true;
                answer.came.notify_one();
                None
            }
        }
    }

    /// A machine where nobody listens says so to a sender, unless it has no power.
    fn refuse(&mut self, now: Time, sender: NodeId, at: SocketAddr, answer: Arc<Answer>) {
        if self.dark.contains(&at.ip()) {
            return;
        }
        let owner = self.node(at.ip());
        let [arrival, _] = self.network.arrivals(now, owner, sender);
        if let Some(arrival) = arrival {
            self.schedule.at(arrival, Delivery::Refusal(answer));
        }
    }
}

/// A UDP socket.
pub(super) struct Socket {
    wires: Wires,
    clock: Arc<MachineClock>,
    taken: Arc<Taken>,
    address: SocketAddr,
    inbox: Arc<Mutex<Inbox>>,
}

impl Socket {
    /// # Errors
    /// When the port is in use.
    pub(super) fn bind(
        wires: &Wires,
        clock: &Arc<MachineClock>,
        taken: &Arc<Taken>,
        address: SocketAddr,
    ) -> io::Result<Socket> {
        let mut inner = wires.inner();
        if inner.sockets.contains_key(&address) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let inbox = Arc::new(Mutex::new(Inbox::default()));
        inner.sockets.insert(address, Arc::clone(&inbox));
        Ok(Socket {
            wires: wires.clone(),
            clock: Arc::clone(clock),
            taken: Arc::clone(taken),
            address,
            inbox,
        })
    }

    /// Whether the process that bound it still runs.
    fn is_bound(&self, inner: &Inner) -> bool {
        inner
            .sockets
            .get(&self.address)
            .is_some_and(|inbox| Arc::ptr_eq(inbox, &self.inbox))
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Socket({})", self.address)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let mut inner = self.wires.inner();
        if self.is_bound(&inner) {
            inner.sockets.remove(&self.address);
            inner.connected.remove(&self.address);
        }
    }
}

impl quinn::AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn quinn::UdpPoller>> {
        let tally = match self.address.port() {
            CLUSTER_PORT => &self.taken.connections,
            _ => &self.taken.clients,
        };
        Box::pin(AlwaysWritable {
            _counted: tally.mark(),
        })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let now = self.clock.simulated();
        let mut inner = self.wires.inner();
        if self.is_bound(&inner) {
            inner.send(now, self.address, transmit.destination, transmit.contents);
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        let mut count = 0;
        for (buffer, meta) in buffers.iter_mut().zip(meta) {
            let Some(packet) = inbox.packets.pop_front() else {
                break;
            };
            let length = packet.bytes.len();
            buffer[..length].copy_from_slice(&packet.bytes);
            *meta = RecvMeta {
                addr: packet.from,
                len: length,
                stride: length,
                ecn: None,
                dst_ip: Some(self.address.ip()),
            };
            count += 1;
        }
        if count == 0 {
            inbox.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(count))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

/// There is always room to send: what does not fit is lost on the way. Each QUIC connection has one of these.
#[derive(Debug)]
struct AlwaysWritable {
    _counted: Mark,
}

impl quinn::UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A connected UDP socket that asks whether anybody listens at an address.
pub(super) struct Connected {
    wires: Wires,
    clock: Arc<MachineClock>,
    from: IpAddr,
    to: SocketAddr,
    answer: Arc<Answer>,
    _counted: Mark,
}

impl Connected {
    pub(super) fn new(
        wires: &Wires,
        clock: &Arc<MachineClock>,
        from: IpAddr,
        to: SocketAddr,
        mark: Mark,
    ) -> Connected {
        Connected {
            wires: wires.clone(),
            clock: Arc::clone(clock),
            from,
            to,
            answer: Arc::default(),
            _counted: mark,
        }
    }
}

impl Probe for Connected {
    fn poke(&mut self) -> io::Result<()> {
        if std::mem::take(&mut *self.answer.refused()) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let now = self.clock.simulated();
        let mut inner = self.wires.inner();
        let asked = inner.at_present(self.to);
        let (from, to) = (inner.node(self.from), inner.node(asked.ip()));
        inner.trace.note(now ^ from.0 << 60 ^ to.0 << 56);
        let [arrival, _] = inner.network.arrivals(now, from, to);
        if let Some(arrival) = arrival {
            let probe = Delivery::Probe {
                from,
                to: asked,
                answer: Arc::clone(&self.answer),
            };
            inner.schedule.at(arrival, probe);
        }
        Ok(())
    }

    fn answered(&self) -> BoxFuture<'static, ()> {
        let answer = Arc::clone(&self.answer);
        Box::pin(async move { answer.until_refused().await })
    }
}
