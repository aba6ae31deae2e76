//! What a client takes of the machine that it runs on, beside the timers and the tasks of its runtime: what QUIC needs.
//!
//! Whoever wants a client whose every packet repeats, as a simulation does, brings a machine whose sockets, time and chance
//! are its own, and speaks [`Protocol::Quic`](crate::Protocol::Quic).

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};

use crate::quic::Connected;

/// What QUIC needs of a machine.
pub trait Machine: fmt::Debug + Send + Sync {
    /// A UDP socket that speaks with `remote` alone.
    ///
    /// # Errors
    /// As the system reports.
    fn connect(&self, remote: SocketAddr) -> io::Result<Arc<dyn Socket>>;

    /// Timers and tasks for QUIC.
    fn quic_runtime(&self) -> Arc<dyn quinn::Runtime>;

    /// The cryptography of TLS, from which all chance is drawn.
    fn tls(&self) -> Arc<CryptoProvider>;
}

/// A UDP socket that is connected to one node.
pub trait Socket: quinn::AsyncUdpSocket {
    /// Completes when the system says that nobody listens at the other end. One may wait at a time.
    fn refused(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// The machine itself.
#[derive(Debug)]
pub(crate) struct System;

impl Machine for System {
    fn connect(&self, remote: SocketAddr) -> io::Result<Arc<dyn Socket>> {
        Ok(Arc::new(Connected::to(remote)?))
    }

    fn quic_runtime(&self) -> Arc<dyn quinn::Runtime> {
        Arc::new(quinn::TokioRuntime)
    }

    fn tls(&self) -> Arc<CryptoProvider> {
        Arc::new(ring::default_provider())
    }
}
