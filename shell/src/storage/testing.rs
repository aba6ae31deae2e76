//! A disk in memory that loses what was not synced, for tests of storage.
//!
//! It keeps to what the log assumes of a medium and not more: a power cut leaves any subset of the sectors that were
//! written and not synced, and a prefix of the renames and removals that no directory sync made durable.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::port::system::{self, ListenerOptions};
use crate::port::{BoxFuture, Entropy, Executor, File, Files, Lane, OpenMode, Ports};

const SECTOR_BYTES: usize = 512;

/// A small generator for tests; the same seed gives the same numbers.
pub(crate) struct Random(ChaCha8Rng);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(ChaCha8Rng::seed_from_u64(seed))
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0.next_u64() % bound
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.0.fill_bytes(&mut bytes);
        bytes
    }
}

#[derive(Clone, Default)]
struct Inode {
    durable: Vec<u8>,
    current: Vec<u8>,
    dirty: BTreeSet<usize>,
}

#[derive(Clone)]
enum NameChange {
    Link(PathBuf, u64),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf),
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<PathBuf, u64>) {
        match self {
            NameChange::Link(path, inode) => {
                names.insert(path.clone(), *inode);
            }
            NameChange::Unlink(path) => {
                names.remove(path);
            }
            NameChange::Rename(from, to) => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
        }
    }
}

#[derive(Clone, Default)]
struct Inner {
    directories: BTreeSet<PathBuf>,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    pending: Vec<NameChange>,
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    locked: BTreeSet<PathBuf>,
    /// Rises with every crash; handles from before it are dead.
    epoch: u64,
    /// How many more operations succeed before the machine stops.
    fuel: Option<u64>,
    /// How many more bytes fit.
    room: Option<u64>,
    syncs: u64,
}

impl Inner {
    fn burn(&mut self, epoch: u64) -> io::Result<()> {
        if epoch != self.epoch {
            return Err(io::Error::other("the process of this handle is gone"));
        }
        match &mut self.fuel {
            Some(0) => Err(io::Error::other("the machine has stopped")),
            Some(fuel) => {
                *fuel -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn change(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.pending.push(change);
    }

    fn inode(&mut self, inode: u64) -> &mut Inode {
        self.inodes.get_mut(&inode).expect("the inode exists")
    }
}

/// The disk, as one process sees it. Clones share it; [`Disk::copy`] makes another one.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    shared: Arc<Mutex<Inner>>,
    epoch: u64,
}

impl Disk {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.shared
            .lock()
            .expect("no test panics while it holds the disk")
    }

    pub(crate) fn copy(&self) -> Disk {
        Disk {
            shared: Arc::new(Mutex::new(self.inner().clone())),
            epoch: self.epoch,
        }
    }

    /// The disk as a process sees it that starts now.
    fn mount(&self) -> Disk {
        let epoch = self.inner().epoch;
        Disk {
            shared: Arc::clone(&self.shared),
            epoch,
        }
    }

    /// Lets `operations` more succeed, and none after them, until the next crash.
    pub(crate) fn stop_after(&self, operations: u64) {
        self.inner().fuel = Some(operations);
    }

    /// Lets `bytes` more be written, or any number.
    pub(crate) fn set_room(&self, bytes: Option<u64>) {
        self.inner().room = bytes;
    }

    pub(crate) fn syncs(&self) -> u64 {
        self.inner().syncs
    }

    /// The process is killed: what it wrote stays.
    pub(crate) fn kill(&self) {
        let mut inner = self.inner();
        inner.epoch += 1;
        inner.fuel = None;
        inner.locked.clear();
    }

    /// The power is cut: what was not synced stays in part.
    pub(crate) fn power_cut(&self, random: &mut Random) {
        self.kill();
        let mut inner = self.inner();
        let pending = std::mem::take(&mut inner.pending);
        let survive = random.below(pending.len() as u64 + 1) as usize;
        let mut names = std::mem::take(&mut inner.durable_names);
        for change in &pending[..survive] {
            change.apply(&mut names);
        }
        inner.durable_names = names.clone();
        inner.names = names;
        // All, none, or some of the unsynced sectors.
        let percent = [0, 10, 50, 90, 100][random.below(5) as usize];
        for inode in inner.inodes.values_mut() {
            if inode.current.len() != inode.durable.len() && random.chance(50) {
                let length = inode.current.len();
                inode.durable.resize(length, 0);
            }
            let length = inode.durable.len();
            inode.current.resize(length, 0);
            for sector in std::mem::take(&mut inode.dirty) {
                let begin = (sector * SECTOR_BYTES).min(length);
                let end = (begin + SECTOR_BYTES).min(length);
                if random.chance(percent) {
                    let new = inode.current[begin..end].to_vec();
                    inode.durable[begin..end].copy_from_slice(&new);
                }
            }
            inode.current = inode.durable.clone();
        }
    }

    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        self.inner().names.keys().cloned().collect()
    }

    pub(crate) fn content(&self, path: &Path) -> Vec<u8> {
        let inner = self.inner();
        inner.inodes[&inner.names[path]].current.clone()
    }

    /// Changes a file behind everybody's back.
    pub(crate) fn tamper(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut inner = self.inner();
        let id = inner.names[path];
        let inode = inner.inode(id);
        change(&mut inode.current);
        inode.durable = inode.current.clone();
        inode.dirty.clear();
    }

    pub(crate) fn put(&self, path: &Path, content: Vec<u8>) {
        let mut inner = self.inner();
        let id = inner.next_inode;
        inner.next_inode += 1;
        inner.inodes.insert(
            id,
            Inode {
                durable: content.clone(),
                current: content,
                dirty: BTreeSet::new(),
            },
        );
        inner.names.insert(path.to_owned(), id);
        inner.durable_names.insert(path.to_owned(), id);
    }

    pub(crate) fn delete(&self, path: &Path) {
        let mut inner = self.inner();
        inner.names.remove(path);
        inner.durable_names.remove(path);
    }

    fn open_file(&self, path: &Path) -> io::Result<MemoryFile> {
        let mut inner = self.inner();
        let epoch = self.epoch;
        inner.burn(epoch)?;
        let inode = *inner.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(MemoryFile {
            disk: self.clone(),
            inode,
            epoch,
        })
    }
}

impl Files for Disk {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        inner.directories.extend(path.ancestors().map(Path::to_owned));
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let inner = self.inner();
        if !inner.directories.contains(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = inner.names.keys().filter(|name| name.parent() == Some(path));
        Ok(inside.cloned().collect())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let inner = self.inner();
        Ok(inner.names.contains_key(path) || inner.directories.contains(path))
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn File>> {
        if mode == OpenMode::CreateNew {
            let mut inner = self.inner();
            let epoch = self.epoch;
            inner.burn(epoch)?;
            if inner.names.contains_key(path) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            let id = inner.next_inode;
            inner.next_inode += 1;
            inner.inodes.insert(id, Inode::default());
            inner.change(NameChange::Link(path.to_owned(), id));
        }
        Ok(Box::new(self.open_file(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        let epoch = self.epoch;
        inner.burn(epoch)?;
        if !inner.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        inner.change(NameChange::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        let epoch = self.epoch;
        inner.burn(epoch)?;
        if !inner.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        inner.change(NameChange::Unlink(path.to_owned()));
        Ok(())
    }

    fn sync_directory(&self, _path: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        let epoch = self.epoch;
        inner.burn(epoch)?;
        inner.pending.clear();
        inner.durable_names = inner.names.clone();
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        if !self.inner().locked.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(Claim {
            disk: self.clone(),
            path: path.to_owned(),
        }))
    }

    fn database(&self, path: &Path) -> io::Result<Box<dyn redb::StorageBackend>> {
        if !self.exists(path)? {
            self.open(path, OpenMode::CreateNew)?;
        }
        Ok(Box::new(self.open_file(path)?))
    }
}

struct Claim {
    disk: Disk,
    path: PathBuf,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.disk.inner().locked.remove(&self.path);
    }
}

struct MemoryFile {
    disk: Disk,
    inode: u64,
    epoch: u64,
}

impl std::fmt::Debug for MemoryFile {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "file {}", self.inode)
    }
}

impl MemoryFile {
    fn sync_now(&self) -> io::Result<()> {
        let mut inner = self.disk.inner();
        inner.burn(self.epoch)?;
        inner.syncs += 1;
        let Inode {
            durable,
            current,
            dirty,
        } = inner.inode(self.inode);
        durable.resize(current.len(), 0);
        for sector in std::mem::take(dirty) {
            let begin = (sector * SECTOR_BYTES).min(current.len());
            let end = (begin + SECTOR_BYTES).min(current.len());
            durable[begin..end].copy_from_slice(&current[begin..end]);
        }
        Ok(())
    }
}

impl File for MemoryFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut inner = self.disk.inner();
        let content = &inner.inode(self.inode).current;
        let begin = usize::try_from(offset).expect("tests are small");
        let part = content
            .get(begin..begin + buffer.len())
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(part);
        Ok(())
    }

    fn write_all_at(&self, buffer: &[u8], offset: u64) -> io::Result<()> {
        let mut inner = self.disk.inner();
        // A machine that stops in the middle of a write has taken a part of it.
        let stopped = inner.burn(self.epoch);
        if inner.epoch != self.epoch {
            return stopped;
        }
        let mut length = buffer.len();
        let mut result = stopped;
        if result.is_err() {
            length = length / 2 / SECTOR_BYTES * SECTOR_BYTES;
        }
        if let Some(room) = &mut inner.room {
            if (*room as usize) < length {
                length = *room as usize / SECTOR_BYTES * SECTOR_BYTES;
                result = result.and(Err(io::ErrorKind::StorageFull.into()));
            }
            *room -= length as u64;
        }
        let begin = usize::try_from(offset).expect("tests are small");
        let inode = inner.inode(self.inode);
        if inode.current.len() < begin + length {
            inode.current.resize(begin + length, 0);
        }
        inode.current[begin..begin + length].copy_from_slice(&buffer[..length]);
        if length > 0 {
            inode
                .dirty
                .extend(begin / SECTOR_BYTES..(begin + length).div_ceil(SECTOR_BYTES));
        }
        result
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.disk.inner().inode(self.inode).current.len() as u64)
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        let mut inner = self.disk.inner();
        inner.burn(self.epoch)?;
        let length = usize::try_from(length).expect("tests are small");
        let inode = inner.inode(self.inode);
        let before = inode.current.len();
        inode.current.resize(length, 0);
        // What is cut off and comes back reads as zeros.
        let changed = before.min(length)..before.max(length);
        inode
            .dirty
            .extend(changed.start / SECTOR_BYTES..changed.end.div_ceil(SECTOR_BYTES));
        Ok(())
    }

    fn sync<'a>(&'a self) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async {
            // Others run while a disk works.
            tokio::task::yield_now().await;
            self.sync_now()
        })
    }
}

impl redb::StorageBackend for MemoryFile {
    fn len(&self) -> Result<u64, io::Error> {
        self.length()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.read_exact_at(out, offset)
    }

    fn set_len(&self, length: u64) -> Result<(), io::Error> {
        self.set_length(length)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.sync_now()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.write_all_at(data, offset)
    }

    fn try_lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, redb::BackendError> {
        Ok(true)
    }

    fn unlock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), redb::BackendError> {
        Ok(())
    }
}

struct TestEntropy(Mutex<Random>);

impl Entropy for TestEntropy {
    fn fill(&self, buffer: &mut [u8]) -> io::Result<()> {
        let bytes = self.0.lock().expect("no panic").bytes(buffer.len());
        buffer.copy_from_slice(&bytes);
        Ok(())
    }
}

/// Runs lanes as tasks of the test's thread.
struct LocalTasks;

impl Executor for LocalTasks {
    fn run(&self, _name: &str, lane: Lane) -> io::Result<()> {
        tokio::task::spawn_local(lane());
        Ok(())
    }
}

/// The ports of a node on `disk`. The network is not for use.
pub(crate) fn ports(disk: &Disk) -> Ports {
    let system = system::ports(ListenerOptions {
        tcp_nodelay: true,
        keepalive: false,
    });
    Ports {
        entropy: Arc::new(TestEntropy(Mutex::new(Random::new(1)))),
        executor: Arc::new(LocalTasks),
        files: Arc::new(disk.mount()),
        ..system
    }
}

/// Runs a test, with the lanes that it starts, on this thread.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, test)
}
