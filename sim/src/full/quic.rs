//! The machine of the clients, for those that speak QUIC through the client library, as any program would: sockets on the
//! simulated network, which are told when nobody listens at the other end; simulated time; and chance from the seed.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use quorate_client::{Client, Error, Machine, Protocol};
use rustls::crypto::CryptoProvider;

use super::clock::{MachineClock, QuicRuntime};
use super::entropy;
use super::gate::Gate;
use super::holdings::Taken;
use super::network::{Answer, Socket, Wires};
use super::workload::PATIENCE;

/// The machine that clients run on.
#[derive(Clone)]
pub(super) struct ClientMachine {
    pub(super) wires: Wires,
    pub(super) clock: Arc<MachineClock>,
    pub(super) address: IpAddr,
    /// What its sockets hold, which nobody counts.
    pub(super) taken: Arc<Taken>,
}

impl ClientMachine {
    /// A client of `nodes` that asks the first of them, and the others when that fails, each once for a request.
    pub(super) fn client(&self, nodes: &[SocketAddr]) -> Result<Client, Error> {
        let endpoints: Vec<String> = nodes.iter().map(SocketAddr::to_string).collect();
        let builder = Client::builder(&endpoints.join(","))?
            .machine(Arc::new(self.clone()))
            .protocol(Protocol::Quic)
            .timeout(PATIENCE)
            .rounds_max(1);
        Ok(builder.build())
    }
}

impl fmt::Debug for ClientMachine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ClientMachine({})", self.address)
    }
}

impl Machine for ClientMachine {
    fn connect(&self, _remote: SocketAddr) -> io::Result<Arc<dyn quorate_client::Socket>> {
        let address = self.wires.free_port(self.address);
        let socket = Socket::bind(&self.wires, &self.clock, &self.taken, address)?;
        Ok(Arc::new(Connected {
            socket: Arc::new(socket),
            refusal: self.wires.connect(address),
        }))
    }

    fn quic_runtime(&self) -> Arc<dyn quinn::Runtime> {
        Arc::new(QuicRuntime {
            clock: Arc::clone(&self.clock),
            // Clients never stand still.
            gate: Arc::<Gate>::default(),
        })
    }

    fn tls(&self) -> Arc<CryptoProvider> {
        entropy::tls()
    }
}

/// A socket that hears when nobody listens where it sends to.
struct Connected {
    socket: Arc<Socket>,
    refusal: Arc<Answer>,
}

impl fmt::Debug for Connected {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Connected({:?})", self.socket)
    }
}

impl quorate_client::Socket for Connected {
    fn refused(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.refusal.until_refused())
    }
}

impl AsyncUdpSocket for Connected {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.socket).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.socket.try_send(transmit)
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.socket.poll_recv(context, buffers, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}
