//! The ports of a real machine.

use std::fs;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use quorate_core::Instant;
use quorate_core::raft::{Effects, Message, NodeId, Raft};
use quorate_core::state::StateMachine;
use ring::rand::{SecureRandom, SystemRandom};
use rustix::time::{ClockId, clock_gettime};

use super::{
    BoxFuture, ByteStream, Clock, Entropy, Executor, File, Files, Lane, Listener, Machine, MachineLoad,
    Network, Observer, OpenMode, Ports, Probe,
};
use crate::planted::Planted;

/// The ports of this machine.
pub fn ports(listener: ListenerOptions) -> Ports {
    Ports {
        clock: Arc::new(SystemClock),
        entropy: Arc::new(SystemEntropy),
        executor: Arc::new(Threads),
        files: Arc::new(SystemFiles),
        network: Arc::new(SystemNetwork { listener }),
        machine: Arc::new(SystemMachine(Mutex::new(sysinfo::System::new().ok()))),
        observer: Arc::new(Nobody),
        planted: Planted::NONE,
    }
}

/// Nobody looks on.
struct Nobody;

impl Observer for Nobody {
    fn received(&self, _from: NodeId, _message: &Message) {}

    fn stepped(&self, _raft: &Raft, _effects: &Effects) {}

    fn applied(&self, _state: &StateMachine) {}
}

struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        // CLOCK_BOOTTIME counts suspended time, which CLOCK_MONOTONIC leaves out: a lease must not outlive a suspend.
        let time = clock_gettime(ClockId::Boottime);
        Instant::ORIGIN
            + Duration::new(
                u64::try_from(time.tv_sec).unwrap_or_default(),
                u32::try_from(time.tv_nsec).unwrap_or_default(),
            )
    }

    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }

    fn sleep_until(&self, deadline: Instant) -> BoxFuture<'static, ()> {
        let wait = deadline.since(self.now());
        Box::pin(tokio::time::sleep(wait))
    }
}

struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, buffer: &mut [u8]) -> io::Result<()> {
        SystemRandom::new()
            .fill(buffer)
            .map_err(|_| io::Error::other("the system's random generator failed"))
    }
}

/// A thread a lane, each with a runtime of its own for the lane's channels and timers.
struct Threads;

impl Executor for Threads {
    fn run(&self, name: &str, lane: Lane) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || tokio::task::LocalSet::new().block_on(&runtime, lane()))?;
        Ok(())
    }
}

struct SystemFiles;

impl Files for SystemFiles {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let mut paths = fs::read_dir(path)?
            .map(|entry| Ok(entry?.path()))
            .collect::<io::Result<Vec<_>>>()?;
        paths.sort();
        Ok(paths)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn File>> {
        let mut options = fs::OpenOptions::new();
        match mode {
            OpenMode::Read => options.read(true),
            OpenMode::ReadWrite => options.read(true).write(true),
            OpenMode::CreateNew => options.read(true).write(true).create_new(true),
        };
        Ok(Box::new(SystemFile(options.open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        fs::File::open(path)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let file = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join("lock"))?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(file)),
            Err(fs::TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }

    fn database(&self, path: &Path) -> io::Result<Box<dyn redb::StorageBackend>> {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        let backend = redb::backends::FileBackend::new(file).map_err(io::Error::other)?;
        Ok(Box::new(backend))
    }
}

struct SystemFile(fs::File);

impl File for SystemFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    fn write_all_at(&self, buffer: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(buffer, offset)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn sync<'a>(&'a self) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async { self.0.sync_data() })
    }
}

/// How connections of clients are set up.
#[derive(Clone, Copy, Debug)]
pub struct ListenerOptions {
    /// Whether small answers leave at once (TCP_NODELAY).
    pub tcp_nodelay: bool,
    /// Whether the kernel checks silent connections (SO_KEEPALIVE).
    pub keepalive: bool,
}

struct SystemNetwork {
    listener: ListenerOptions,
}

/// Room for a burst of replication while the consensus thread is busy elsewhere.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;

impl Network for SystemNetwork {
    fn bind_quic(&self, address: SocketAddr) -> io::Result<Arc<dyn quinn::AsyncUdpSocket>> {
        let socket = UdpSocket::bind(address)?;
        // The kernel may grant less (net.core.rmem_max); replication then relies on loss recovery sooner.
        let _ = rustix::net::sockopt::set_socket_recv_buffer_size(&socket, SOCKET_BUFFER_BYTES);
        let _ = rustix::net::sockopt::set_socket_send_buffer_size(&socket, SOCKET_BUFFER_BYTES);
        self.quic_runtime().wrap_udp_socket(socket)
    }

    fn quic_runtime(&self) -> Arc<dyn quinn::Runtime> {
        Arc::new(quinn::TokioRuntime)
    }

    fn tls(&self) -> Arc<rustls::crypto::CryptoProvider> {
        Arc::new(rustls::crypto::ring::default_provider())
    }

    fn probe(&self, address: SocketAddr) -> io::Result<Box<dyn Probe>> {
        let any: SocketAddr = if address.is_ipv4() {
            ([0, 0, 0, 0], 0).into()
        } else {
            ([0u16; 8], 0).into()
        };
        let socket = UdpSocket::bind(any)?;
        socket.set_nonblocking(true)?;
        socket.connect(address)?;
        let socket = tokio::net::UdpSocket::from_std(socket)?;
        Ok(Box::new(ConnectedProbe(Arc::new(socket))))
    }

    fn resolve<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move { Ok(tokio::net::lookup_host(address).await?.collect()) })
    }

    fn listen(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        let options = self.listener;
        Box::pin(async move {
            let listener = tokio::net::TcpListener::bind(address).await?;
            Ok(Box::new(TcpListener { listener, options }) as Box<dyn Listener>)
        })
    }
}

struct ConnectedProbe(Arc<tokio::net::UdpSocket>);

impl Probe for ConnectedProbe {
    fn poke(&mut self) -> io::Result<()> {
        // Linux reports the refusal of an earlier datagram on the next call of any kind, and only once. The call goes
        // past tokio's readiness, which a refusal would leave unset.
        match rustix::net::send(&*self.0, &[0], rustix::net::SendFlags::DONTWAIT) {
            Ok(_) | Err(rustix::io::Errno::WOULDBLOCK) => Ok(()),
            Err(error) => {
                let empty = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
                // Only this makes tokio wait for the next answer instead of reporting this one again.
                let _ = self.0.try_io(tokio::io::Interest::ERROR, empty);
                Err(error.into())
            }
        }
    }

    fn answered(&self) -> BoxFuture<'static, ()> {
        let socket = Arc::clone(&self.0);
        Box::pin(async move {
            // An endpoint never answers a poke with a datagram, so an error is all that can come.
            if socket.ready(tokio::io::Interest::ERROR).await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }
}

struct TcpListener {
    listener: tokio::net::TcpListener,
    options: ListenerOptions,
}

impl Listener for TcpListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn ByteStream>, SocketAddr)>> {
        Box::pin(async {
            let (stream, address) = self.listener.accept().await?;
            stream.set_nodelay(self.options.tcp_nodelay)?;
            if self.options.keepalive {
                rustix::net::sockopt::set_socket_keepalive(&stream, true)?;
            }
            Ok((Box::new(stream) as Box<dyn ByteStream>, address))
        })
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// None where the system tells nothing of itself.
struct SystemMachine(Mutex<Option<sysinfo::System>>);

impl Machine for SystemMachine {
    fn load(&self) -> MachineLoad {
        let mut system = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(system) = system.as_mut() else {
            return MachineLoad::default();
        };
        system.refresh_cpu_usage();
        system.refresh_memory();
        let used = system.used_memory() as f64 / system.total_memory().max(1) as f64;
        MachineLoad {
            cpu_percent: system.global_cpu_usage(),
            memory_percent: (used * 100.0) as f32,
            load_average: sysinfo::System::load_average().map_or(0.0, |load| load.one as f32),
        }
    }
}
