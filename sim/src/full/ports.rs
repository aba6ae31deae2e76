//! The ports of a simulated machine that are small: lanes, sockets of clients, load.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use quorate::port::{BoxFuture, ByteStream, Executor, Lane, Listener, Machine, MachineLoad, Network, Probe};
use turmoil::net::TcpListener;

use super::clock::{MachineClock, QuicRuntime};
use super::entropy;
use super::gate::{Behind, Gate};
use super::network::{Connected, Socket, Wires};

/// Runs lanes as tasks of the machine's own thread, which is every machine's.
pub(super) struct LocalTasks(pub(super) Arc<Gate>);

impl Executor for LocalTasks {
    fn run(&self, _name: &str, lane: Lane) -> io::Result<()> {
        tokio::task::spawn_local(Behind::new(&self.0, lane()));
        Ok(())
    }
}

/// A machine that has nothing else to do.
pub(super) struct Idle;

impl Machine for Idle {
    fn load(&self) -> MachineLoad {
        MachineLoad::default()
    }
}

/// The network port of one machine: UDP through [`Wires`], TCP for clients through turmoil.
pub(super) struct NetworkPort {
    pub(super) wires: Wires,
    pub(super) clock: Arc<MachineClock>,
    pub(super) address: Ipv4Addr,
    pub(super) gate: Arc<Gate>,
}

impl Network for NetworkPort {
    fn bind_quic(&self, address: SocketAddr) -> io::Result<Arc<dyn quinn::AsyncUdpSocket>> {
        Ok(Arc::new(Socket::bind(&self.wires, &self.clock, address)?))
    }

    fn quic_runtime(&self) -> Arc<dyn quinn::Runtime> {
        Arc::new(QuicRuntime {
            clock: Arc::clone(&self.clock),
            gate: Arc::clone(&self.gate),
        })
    }

    fn tls(&self) -> Arc<rustls::crypto::CryptoProvider> {
        entropy::tls()
    }

    fn probe(&self, address: SocketAddr) -> io::Result<Box<dyn Probe>> {
        let from = self.address.into();
        Ok(Box::new(Connected::new(&self.wires, &self.clock, from, address)))
    }

    /// Addresses in a simulation are numbers.
    fn resolve<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        let found = address
            .parse()
            .map(|address| vec![address])
            .map_err(|_| io::Error::from(io::ErrorKind::NotFound));
        Box::pin(std::future::ready(found))
    }

    fn listen(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            // turmoil knows a host's own address as the unspecified one.
            let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await?;
            Ok(Box::new(ClientListener { listener, address }) as Box<dyn Listener>)
        })
    }
}

struct ClientListener {
    listener: TcpListener,
    address: SocketAddr,
}

impl Listener for ClientListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn ByteStream>, SocketAddr)>> {
        Box::pin(async {
            let (stream, from) = self.listener.accept().await?;
            Ok((Box::new(stream) as Box<dyn ByteStream>, from))
        })
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}
