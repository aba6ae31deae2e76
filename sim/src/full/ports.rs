//! The ports of a simulated machine that are small: lanes, sockets of clients, load.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use quorate::port::{BoxFuture, ByteStream, Executor, Lane, Listener, Machine, MachineLoad, Network, Probe};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::{TcpListener, TcpStream};

use super::clock::{MachineClock, QuicRuntime};
use super::entropy;
use super::gate::{Behind, Gate};
use super::holdings::{Mark, Taken};
use super::network::{Connected, Socket, Wires};

/// Runs lanes as tasks of the machine's own thread, which is every machine's.
pub(super) struct LocalTasks {
    pub(super) gate: Arc<Gate>,
    pub(super) taken: Arc<Taken>,
}

impl Executor for LocalTasks {
    fn run(&self, _name: &str, lane: Lane) -> io::Result<()> {
        let (lane, mark) = (lane(), self.taken.lanes.mark());
        let counted = Box::pin(async move {
            lane.await;
            drop(mark);
        });
        tokio::task::spawn_local(Behind::new(&self.gate, counted));
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
    pub(super) streams: Arc<Streams>,
    pub(super) taken: Arc<Taken>,
}

impl Network for NetworkPort {
    fn bind_quic(&self, address: SocketAddr) -> io::Result<Arc<dyn quinn::AsyncUdpSocket>> {
        Ok(Arc::new(Socket::bind(
            &self.wires,
            &self.clock,
            &self.taken,
            address,
        )?))
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
        let probe = Connected::new(&self.wires, &self.clock, from, address, self.taken.probes.mark());
        Ok(Box::new(probe))
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
        let (streams, taken) = (Arc::clone(&self.streams), Arc::clone(&self.taken));
        Box::pin(async move {
            // turmoil knows a host's own address as the unspecified one.
            let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await?;
            Ok(Box::new(ClientListener {
                listener,
                address,
                streams,
                taken,
            }) as Box<dyn Listener>)
        })
    }
}

struct ClientListener {
    listener: TcpListener,
    address: SocketAddr,
    streams: Arc<Streams>,
    taken: Arc<Taken>,
}

impl Listener for ClientListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn ByteStream>, SocketAddr)>> {
        Box::pin(async {
            let (stream, from) = self.listener.accept().await?;
            let connection = self.streams.add(stream, self.taken.clients.mark());
            Ok((Box::new(connection) as Box<dyn ByteStream>, from))
        })
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

/// The connections of clients of one machine, in the order in which they came.
///
/// A runtime that is taken down drops its tasks in an order that depends on how many tasks the process ever had, and
/// a stream that is dropped says goodbye. So the streams of a killed process are taken from it before.
#[derive(Default)]
pub(super) struct Streams(Mutex<Vec<Arc<Mutex<Option<TcpStream>>>>>);

impl Streams {
    fn add(&self, stream: TcpStream, mark: Mark) -> Connection {
        let stream = Arc::new(Mutex::new(Some(stream)));
        let mut streams = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that only this list still knows have ended.
        streams.retain(|stream| Arc::strong_count(stream) > 1);
        streams.push(Arc::clone(&stream));
        Connection {
            stream,
            _counted: mark,
        }
    }

    /// Ends all of them without a word, as a power cut does.
    pub(super) fn cut(&self) {
        let streams = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for stream in streams {
            drop(stream.lock().unwrap_or_else(PoisonError::into_inner).take());
        }
    }
}

/// A connection of a client.
struct Connection {
    stream: Arc<Mutex<Option<TcpStream>>>,
    _counted: Mark,
}

impl Connection {
    fn with<T>(&self, work: impl FnOnce(Pin<&mut TcpStream>) -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match self
            .stream
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_mut()
        {
            Some(stream) => work(Pin::new(stream)),
            None => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // The list keeps the place until the next connection comes; the stream ends now.
        drop(self.stream.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.with(|stream| stream.poll_read(context, buffer))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.with(|stream| stream.poll_write(context, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|stream| stream.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|stream| stream.poll_shutdown(context))
    }
}
