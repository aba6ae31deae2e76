//! The disk of a simulated machine: files, directories and redb databases in memory.
//!
//! It keeps to what storage assumes of a medium and not more. A killed process loses nothing that it wrote; a power
//! cut leaves any subset of the sectors that were written and not synced, and of each directory a prefix of the names that
//! were changed in it since it was last synced. A sync takes time, may stall, and may fail. Handles of a process that is gone
//! do nothing any more.
//!
//! redb's calls are synchronous, so its syncs take no simulated time; a process is killed in the middle of what it
//! does by letting only so many more operations through ([`Disk::stop_after`]).

mod content;
mod files;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quorate::port::{File, Files, OpenMode};

use self::content::Content;
use self::files::{Claim, OpenFile};
use super::clock::MachineClock;
use super::holdings::Taken;
use crate::consensus::schedule::Time;
use crate::consensus::trace::{Trace, hash};
use crate::random::{PartsPerMillion, Stream};

/// How a disk behaves.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Habits {
    /// The mean time of a sync, in nanoseconds.
    pub(super) sync_mean: Time,
    /// What every sync takes longer at the moment.
    pub(super) slow_by: Time,
    /// Until then it is slow.
    pub(super) slow_until: Time,
    /// No sync ends before this.
    pub(super) stalled_until: Time,
}

/// A change of a name that no sync of its directory has made durable.
#[derive(Clone, Debug)]
enum NameChange {
    Directory(PathBuf),
    Link(PathBuf, u64),
    Unlink(PathBuf),
    /// Within one directory.
    Rename(PathBuf, PathBuf),
}

impl NameChange {
    /// The directory that has to be synced.
    fn directory(&self) -> PathBuf {
        let (NameChange::Directory(path)
        | NameChange::Link(path, _)
        | NameChange::Unlink(path)
        | NameChange::Rename(_, path)) = self;
        path.parent().unwrap_or(path).to_owned()
    }
}

/// The directories, and the files that names stand for.
#[derive(Clone, Debug, Default)]
struct Names {
    directories: BTreeSet<PathBuf>,
    files: BTreeMap<PathBuf, u64>,
}

impl Names {
    fn apply(&mut self, change: &NameChange) {
        match change {
            NameChange::Directory(path) => {
                self.directories.insert(path.clone());
            }
            NameChange::Link(path, file) => {
                self.files.insert(path.clone(), *file);
            }
            NameChange::Unlink(path) => {
                self.files.remove(path);
            }
            NameChange::Rename(from, to) => {
                if let Some(file) = self.files.remove(from) {
                    self.files.insert(to.clone(), file);
                }
            }
        }
    }

    /// What is in a directory that is not there is not there either.
    fn forget_lost(&mut self) {
        let Names { directories, files } = self;
        let there = |path: &Path| path.ancestors().skip(1).all(|above| directories.contains(above));
        let lost: Vec<PathBuf> = directories.iter().filter(|path| !there(path)).cloned().collect();
        files.retain(|path, _| there(path));
        lost.iter().for_each(|path| {
            directories.remove(path);
        });
    }
}

struct Inner {
    names: Names,
    durable_names: Names,
    changes: Vec<NameChange>,
    contents: BTreeMap<u64, Content>,
    next_file: u64,
    locked: BTreeSet<PathBuf>,
    /// Rises when a process ends: its handles are dead then.
    life: u64,
    /// How many more operations of this process come through.
    fuel: Option<u64>,
    fails_next_sync: bool,
    /// Nothing more can be written.
    full: bool,
    /// Errors given to processes since somebody last asked.
    failures: u64,
    habits: Habits,
    random: Stream,
    syncs: u64,
    torn: u64,
    trace: Trace,
}

impl Inner {
    /// Whether a process may go on: dead handles, and a process that was stopped, come no further.
    fn check(&self, life: u64) -> io::Result<()> {
        if life != self.life {
            return Err(io::Error::other("the process of this handle is gone"));
        }
        if self.fuel == Some(0) {
            return Err(io::Error::other("the process was stopped here"));
        }
        Ok(())
    }

    /// An operation of a process that may change something. Reads do not count: redb makes more of them in debug builds.
    fn operate(&mut self, life: u64) -> io::Result<()> {
        self.check(life)?;
        self.fuel = self.fuel.map(|fuel| fuel - 1);
        Ok(())
    }

    /// An operation that needs room. On a file system that copies on write, or grows on demand, every write does.
    fn take_room(&mut self, life: u64) -> io::Result<()> {
        self.operate(life)?;
        if self.full {
            self.failures += 1;
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn change(&mut self, change: NameChange) {
        self.names.apply(&change);
        self.changes.push(change);
    }

    fn content(&mut self, file: u64) -> &mut Content {
        self.contents.entry(file).or_default()
    }

    /// Files that have no name any more, now or after a power cut, are gone once their process is.
    fn collect(&mut self) {
        let named: BTreeSet<u64> = self
            .names
            .files
            .values()
            .chain(self.durable_names.files.values())
            .copied()
            .collect();
        self.contents.retain(|file, _| named.contains(file));
    }
}

/// The disk, for the world and for the process that runs.
#[derive(Clone)]
pub(super) struct Disk {
    shared: Arc<Mutex<Inner>>,
    clock: Arc<MachineClock>,
    /// The process that this view belongs to.
    life: u64,
    /// Counts what that process holds.
    taken: Arc<Taken>,
}

impl Disk {
    pub(super) fn new(random: Stream, habits: Habits, clock: Arc<MachineClock>) -> Disk {
        Disk {
            clock,
            shared: Arc::new(Mutex::new(Inner {
                names: Names::default(),
                durable_names: Names::default(),
                changes: Vec::new(),
                contents: BTreeMap::new(),
                next_file: 1,
                locked: BTreeSet::new(),
                life: 0,
                fuel: None,
                fails_next_sync: false,
                full: false,
                failures: 0,
                habits,
                random,
                syncs: 0,
                torn: 0,
                trace: Trace::default(),
            })),
            life: 0,
            taken: Arc::default(),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk for a process that starts now.
    pub(super) fn mount(&self, taken: &Arc<Taken>) -> Disk {
        Disk {
            shared: Arc::clone(&self.shared),
            clock: Arc::clone(&self.clock),
            life: self.inner().life,
            taken: Arc::clone(taken),
        }
    }

    pub(super) fn with_habits(&self, change: impl FnOnce(&mut Habits)) {
        change(&mut self.inner().habits);
    }

    /// The next sync fails.
    pub(super) fn fail_next_sync(&self) {
        self.inner().fails_next_sync = true;
    }

    /// Nothing more fits on it, or there is room again.
    pub(super) fn is_full(&self, full: bool) {
        self.inner().full = full;
    }

    /// How many errors it has given since this was last asked.
    pub(super) fn take_failures(&self) -> u64 {
        std::mem::take(&mut self.inner().failures)
    }

    /// Whatever was wrong with it is not any more.
    pub(super) fn heal(&self, sync_mean: Time) {
        let mut inner = self.inner();
        inner.habits = Habits {
            sync_mean,
            ..Habits::default()
        };
        inner.fails_next_sync = false;
        inner.full = false;
        inner.fuel = None;
    }

    /// Lets so many operations more through, and none after them.
    pub(super) fn stop_after(&self, operations: u64) {
        self.inner().fuel = Some(operations);
    }

    /// Whether operations are being kept from the process.
    pub(super) fn has_stopped(&self) -> bool {
        self.inner().fuel == Some(0)
    }

    /// The process is killed: its handles are dead, and what it wrote stays.
    pub(super) fn kill(&self) {
        let mut inner = self.inner();
        inner.life += 1;
        inner.fuel = None;
        inner.fails_next_sync = false;
        inner.locked.clear();
        for content in inner.contents.values_mut() {
            content.forget_syncs();
        }
        inner.collect();
    }

    /// The power is cut: what was not synced stays in part.
    pub(super) fn cut_power(&self) {
        self.kill();
        let mut inner = self.inner();
        let mut changed: BTreeMap<PathBuf, Vec<NameChange>> = BTreeMap::new();
        for change in std::mem::take(&mut inner.changes) {
            changed.entry(change.directory()).or_default().push(change);
        }
        let mut names = std::mem::take(&mut inner.durable_names);
        for changes in changed.into_values() {
            let surviving = inner.random.below(changes.len() as u64 + 1);
            for change in changes.iter().take(usize::try_from(surviving).unwrap_or(0)) {
                names.apply(change);
            }
        }
        names.forget_lost();
        inner.durable_names.clone_from(&names);
        inner.names = names;
        // All, none, or some of the sectors.
        let share: PartsPerMillion = *inner.random.pick(&[0, 100_000, 500_000, 900_000, 1_000_000]);
        let Inner {
            contents,
            random,
            torn,
            ..
        } = &mut *inner;
        for content in contents.values_mut() {
            *torn += u64::from(content.cut_power(random, share));
        }
        inner.collect();
    }

    /// Everything on it is lost.
    pub(super) fn wipe(&self) {
        self.kill();
        let mut inner = self.inner();
        inner.names = Names::default();
        inner.durable_names = Names::default();
        inner.changes.clear();
        inner.contents.clear();
    }

    /// Damages a byte of a file in `directory` that holds something; false when there is none.
    pub(super) fn rot(&self, directory: &Path) -> bool {
        let mut inner = self.inner();
        let files: Vec<u64> = inner
            .names
            .files
            .iter()
            .filter(|(name, file)| {
                name.parent() == Some(directory)
                    && inner
                        .contents
                        .get(file)
                        .is_some_and(|content| !content.is_blank())
            })
            .map(|(_, file)| *file)
            .collect();
        if files.is_empty() {
            return false;
        }
        let file = *inner.random.pick(&files);
        let Inner { contents, random, .. } = &mut *inner;
        contents.get_mut(&file).is_some_and(|content| content.rot(random))
    }

    /// A hash over everything that was written and synced so far.
    pub(super) fn trace(&self) -> u64 {
        self.inner().trace.value()
    }

    /// Syncs so far, and files of which a power cut left a part of a write.
    pub(super) fn counts(&self) -> (u64, u64) {
        let inner = self.inner();
        (inner.syncs, inner.torn)
    }

    fn open_existing(&self, inner: &Inner, path: &Path) -> io::Result<OpenFile> {
        let file = *inner.names.files.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(OpenFile::new(self.clone(), file))
    }

    fn create(&self, inner: &mut Inner, path: &Path) -> io::Result<OpenFile> {
        if inner.names.files.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = inner.next_file;
        inner.next_file += 1;
        inner.contents.insert(file, Content::default());
        inner.change(NameChange::Link(path.to_owned(), file));
        Ok(OpenFile::new(self.clone(), file))
    }

    fn note(inner: &mut Inner, path: &Path, what: u64) {
        let name = hash(what, path.as_os_str().as_encoded_bytes());
        inner.trace.note(name);
    }
}

impl Files for Disk {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        inner.operate(self.life)?;
        let missing: Vec<PathBuf> = path
            .ancestors()
            .filter(|path| !inner.names.directories.contains(*path))
            .map(Path::to_owned)
            .collect();
        for path in missing.into_iter().rev() {
            inner.change(NameChange::Directory(path));
        }
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let inner = self.inner();
        if !inner.names.directories.contains(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = inner
            .names
            .files
            .keys()
            .filter(|name| name.parent() == Some(path));
        Ok(inside.cloned().collect())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let inner = self.inner();
        Ok(inner.names.files.contains_key(path) || inner.names.directories.contains(path))
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn File>> {
        let mut inner = self.inner();
        match mode {
            OpenMode::CreateNew => inner.take_room(self.life)?,
            OpenMode::Read | OpenMode::ReadWrite => inner.operate(self.life)?,
        }
        let file = match mode {
            OpenMode::CreateNew => self.create(&mut inner, path)?,
            OpenMode::Read | OpenMode::ReadWrite => self.open_existing(&inner, path)?,
        };
        Ok(Box::new(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        inner.operate(self.life)?;
        if !inner.names.files.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Disk::note(&mut inner, to, 1);
        inner.change(NameChange::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        inner.operate(self.life)?;
        if !inner.names.files.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Disk::note(&mut inner, path, 2);
        inner.change(NameChange::Unlink(path.to_owned()));
        Ok(())
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        inner.operate(self.life)?;
        Disk::note(&mut inner, path, 3);
        let changes = std::mem::take(&mut inner.changes);
        for change in changes {
            if change.directory() == path {
                inner.durable_names.apply(&change);
            } else {
                inner.changes.push(change);
            }
        }
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let mut inner = self.inner();
        inner.operate(self.life)?;
        if !inner.locked.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(Claim::new(self.clone(), path)))
    }

    fn database(&self, path: &Path) -> io::Result<Box<dyn redb::StorageBackend>> {
        let mut inner = self.inner();
        inner.operate(self.life)?;
        let file = if inner.names.files.contains_key(path) {
            self.open_existing(&inner, path)?
        } else {
            self.create(&mut inner, path)?
        };
        Ok(Box::new(file.into_database()))
    }
}
