//! The ports: everything the node takes from the machine it runs on.
//!
//! Each is a small trait. [`system`] implements them for production; a simulator supplies its own and runs the same
//! node. Nothing else in this crate reads a clock, opens a file or a socket, starts a thread or draws entropy.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use quorate_core::raft::{Effects, Message, NodeId, Raft};
use quorate_core::state::StateMachine;
use quorate_core::{Instant, WallTime};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::planted::Planted;

pub mod system;

/// A future that may move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
/// A future that stays on the thread of its lane.
pub type LocalBoxFuture<T> = Pin<Box<dyn Future<Output = T>>>;

/// All ports of one node.
#[derive(Clone)]
pub struct Ports {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Threads, or what stands for them.
    pub executor: Arc<dyn Executor>,
    /// Disks.
    pub files: Arc<dyn Files>,
    /// Sockets.
    pub network: Arc<dyn Network>,
    /// How busy the machine is.
    pub machine: Arc<dyn Machine>,
    /// Who looks on.
    pub observer: Arc<dyn Observer>,
    /// The mistake that the node makes: none, but in simulations that look for it.
    pub planted: Planted,
}

/// Looks on while a node works: checkers, for example. It is told on the lane where it happens, and only looks.
pub trait Observer: Send + Sync {
    /// A message of consensus has come from a member and is about to be taken in.
    fn received(&self, from: NodeId, message: &Message);
    /// Consensus has taken in a round of inputs; `effects` are about to be carried out.
    fn stepped(&self, raft: &Raft, effects: &Effects);
    /// The state machine has applied some entries, or was replaced by that of a snapshot.
    fn applied(&self, state: &StateMachine);
}

/// How busy a machine is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MachineLoad {
    /// Share of the processors in use since the last call, in percent.
    pub cpu_percent: f32,
    /// Share of the memory in use, in percent.
    pub memory_percent: f32,
    /// The load average of one minute.
    pub load_average: f32,
}

/// The machine that the node runs on.
pub trait Machine: Send + Sync {
    /// How busy it is. Numbers that the system does not tell are zero.
    fn load(&self) -> MachineLoad;
}

/// Monotonic and wall time.
pub trait Clock: Send + Sync {
    /// Monotonic time that goes on while the machine is suspended.
    fn now(&self) -> Instant;
    /// Wall time, for certificates, logs and answers to people; no decision of consensus rests on it.
    fn wall(&self) -> SystemTime;
    /// Completes at `deadline`, or soon after.
    fn sleep_until(&self, deadline: Instant) -> BoxFuture<'static, ()>;
}

/// What a wall clock shows, as the core writes it into commands.
pub fn wall_time(clock: &dyn Clock) -> WallTime {
    let since_1970 = clock
        .wall()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    WallTime(u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX))
}

/// A source of secrets.
pub trait Entropy: Send + Sync {
    /// Fills `buffer` with bytes that nobody can predict.
    ///
    /// # Errors
    /// When the system has none to give.
    fn fill(&self, buffer: &mut [u8]) -> io::Result<()>;
}

/// Makes the future of a lane, on the thread that will run it.
pub type Lane = Box<dyn FnOnce() -> LocalBoxFuture<()> + Send>;

/// Runs lanes: long-lived tasks that may block their thread on a disk.
pub trait Executor: Send + Sync {
    /// Runs `lane` until it ends: on a thread of its own in production, as a task among others in simulation.
    ///
    /// # Errors
    /// When the system has no thread to give.
    fn run(&self, name: &str, lane: Lane) -> io::Result<()>;
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// An existing file, for reading.
    Read,
    /// An existing file, for reading and writing.
    ReadWrite,
    /// A file that must not exist yet, for reading and writing.
    CreateNew,
}

/// The files of one disk.
pub trait Files: Send + Sync {
    /// Makes a directory and its parents; succeeds when it is there already.
    ///
    /// # Errors
    /// As the system reports.
    fn create_directory(&self, path: &Path) -> io::Result<()>;
    /// The entries of a directory, sorted by name.
    ///
    /// # Errors
    /// As the system reports.
    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>>;
    /// Whether there is a file or directory at `path`.
    ///
    /// # Errors
    /// As the system reports.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// Opens a file.
    ///
    /// # Errors
    /// As the system reports.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn File>>;
    /// Gives a file another name, replacing what is there, atomically. Durable after [`Files::sync_directory`].
    ///
    /// # Errors
    /// As the system reports.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    ///
    /// # Errors
    /// As the system reports.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// As the system reports.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;
    /// Claims a directory for this process through a lock file in it, until the result is dropped.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when another process holds it; otherwise as the system reports.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>>;
    /// A redb database file at `path`, created when it is missing.
    ///
    /// # Errors
    /// As the system reports.
    fn database(&self, path: &Path) -> io::Result<Box<dyn redb::StorageBackend>>;
}

/// One open file, read and written at explicit offsets.
pub trait File: Send + Sync {
    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] when the file ends before; otherwise as the system reports.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `buffer` at `offset`.
    ///
    /// # Errors
    /// As the system reports; the file may then hold any part of it.
    fn write_all_at(&self, buffer: &[u8], offset: u64) -> io::Result<()>;
    /// The length in bytes.
    ///
    /// # Errors
    /// As the system reports.
    fn length(&self) -> io::Result<u64>;
    /// Cuts or extends the file; what is new reads as zeros.
    ///
    /// # Errors
    /// As the system reports.
    fn set_length(&self, length: u64) -> io::Result<()>;
    /// Makes what was written durable (fdatasync). In production it blocks the lane's thread.
    ///
    /// After an error nothing is known of what is on disk: it is never tried again.
    fn sync<'a>(&'a self) -> BoxFuture<'a, io::Result<()>>;
}

/// A byte stream of a client.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// Sockets.
pub trait Network: Send + Sync {
    /// A UDP socket for QUIC between nodes.
    ///
    /// # Errors
    /// As the system reports, for example that the port is in use.
    fn bind_quic(&self, address: SocketAddr) -> io::Result<Arc<dyn quinn::AsyncUdpSocket>>;
    /// The timers and tasks that QUIC runs on.
    fn quic_runtime(&self) -> Arc<dyn quinn::Runtime>;
    /// The algorithms of TLS, with the random numbers and the key exchange that they draw on.
    fn tls(&self) -> Arc<rustls::crypto::CryptoProvider>;
    /// A socket that tells whether anybody listens at a UDP port of another machine.
    ///
    /// # Errors
    /// As the system reports.
    fn probe(&self, address: SocketAddr) -> io::Result<Box<dyn Probe>>;
    /// The addresses of `host:port`.
    fn resolve<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>>;
    /// Listens for clients.
    fn listen(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Listener>>>;
}

/// A connected UDP socket: the other machine's kernel answers a datagram for a port that nobody holds, and the
/// answer comes back as an error within a round trip.
pub trait Probe: Send + Sync {
    /// Sends one byte, which a QUIC endpoint ignores, and reports an answer to an earlier one.
    ///
    /// # Errors
    /// [`io::ErrorKind::ConnectionRefused`] when nobody holds the port; otherwise as the system reports.
    fn poke(&mut self) -> io::Result<()>;
    /// Completes when an answer has come, which the next [`Probe::poke`] reports.
    fn answered(&self) -> BoxFuture<'static, ()>;
}

/// Takes connections of clients.
pub trait Listener: Send {
    /// The next connection.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn ByteStream>, SocketAddr)>>;
    /// Where it listens.
    ///
    /// # Errors
    /// As the system reports.
    fn local_address(&self) -> io::Result<SocketAddr>;
}
