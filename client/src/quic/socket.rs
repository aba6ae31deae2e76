//! A UDP socket that is connected to one node, so that the system says when nobody listens there any more.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::io::Interest;
use tokio::sync::Notify;

use crate::machine::Socket;

pub(crate) struct Connected {
    socket: tokio::net::UdpSocket,
    state: UdpSocketState,
    /// Whether the system said that nobody listens at the other end.
    refused: AtomicBool,
    noted: Notify,
}

impl Connected {
    pub(crate) fn to(remote: SocketAddr) -> io::Result<Connected> {
        let any: SocketAddr = match remote {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any)?;
        // Elsewhere a connected socket takes no datagrams with an address, as QUIC hands them over.
        if cfg!(target_os = "linux") {
            socket.connect(remote)?;
        }
        socket.set_nonblocking(true)?;
        let state = UdpSocketState::new((&socket).into())?;
        Ok(Connected {
            socket: tokio::net::UdpSocket::from_std(socket)?,
            state,
            refused: AtomicBool::new(false),
            noted: Notify::new(),
        })
    }

    /// Whichever call hears of an error of the socket is the only one that does.
    fn note(&self, error: &io::Error) {
        if error.kind() == io::ErrorKind::ConnectionRefused {
            self.refused.store(true, Ordering::Relaxed);
            self.noted.notify_one();
        }
    }

    async fn until_refused(&self) {
        while !self.refused.load(Ordering::Relaxed) {
            tokio::select! {
                biased;
                () = self.noted.notified() => {}
                ready = self.socket.ready(Interest::ERROR) => {
                    if ready.is_err() {
                        std::future::pending::<()>().await;
                    }
                    if let Ok(Some(error)) = self.socket.take_error() {
                        self.note(&error);
                    }
                    let empty = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
                    // Only this makes tokio wait for the next error instead of reporting this one again.
                    let _ = self.socket.try_io(Interest::ERROR, empty);
                }
            }
        }
    }
}

impl fmt::Debug for Connected {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Connected({:?})", self.socket.peer_addr())
    }
}

impl Socket for Connected {
    fn refused(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.until_refused())
    }
}

impl AsyncUdpSocket for Connected {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable(self))
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let send = || self.state.try_send((&self.socket).into(), transmit);
        match self.socket.try_io(Interest::WRITABLE, send) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                // A datagram that does not leave is lost, which QUIC copes with.
                self.note(&error);
                Ok(())
            }
            result => result,
        }
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.socket.poll_recv_ready(context))?;
            let receive = || self.state.recv((&self.socket).into(), buffers, meta);
            match self.socket.try_io(Interest::READABLE, receive) {
                Ok(count) => return Poll::Ready(Ok(count)),
                Err(error) => self.note(&error),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.state.gro_segments()
    }
}

/// Waits for room to send. The socket has one connection, and so one who waits.
#[derive(Debug)]
struct Writable(Arc<Connected>);

impl UdpPoller for Writable {
    fn poll_writable(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.socket.poll_send_ready(context)
    }
}
