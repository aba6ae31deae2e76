//! The log: entries, term and vote in append-only segment files.
//!
//! # What is assumed of the medium
//!
//! 1. A sector of 512 bytes at a multiple of 512 is written whole or not at all, also in a power cut.
//! 2. A sector that was never written since its file was filled with zeros reads as zeros.
//! 3. After a sync returned, everything written before it is on the medium. Without one, any subset of the sectors
//!    may be, in any order; renames and removals within a directory take effect in order.
//! 4. Bytes may rot, files may be cut short or vanish: that must be noticed.
//!
//! # How it is written
//!
//! Several [`Write`]s become one group, which is written with one call and made durable with one sync. A group begins
//! at a sector of its own, so that no acknowledged sector is ever written again. Each sector carries a checksum of its
//! own, seeded by its segment and its place, and says which group it belongs to. The groups of all segments form a
//! chain: each carries the checksum of everything before it. A group is written only after the sync of the one before
//! it returned.
//!
//! A full segment is closed by a seal, made durable before the next segment is written to; the next segment is there,
//! full of zeros, before the seal is written. The first group of a segment repeats all that the log knew before it
//! besides the entries, so that older segments can go.
//!
//! # How a torn tail is told from damage
//!
//! A crash loses a subset of the sectors of the one group that was being written, and that group was not acknowledged.
//! So the log ends with a torn group exactly if a sector of that group is all zeros, every other sector of it
//! verifies, and nothing follows it. It is discarded whole, its sectors are zeroed again, and the log goes on.
//! Everything else that does not verify is damage: a sector that is neither zeros nor valid, a sector of
//! a later group behind a gap, a segment that is not sealed before one that was written, a missing segment. A flipped
//! byte cannot turn a written sector into zeros (see [`mod@format`]), so no flip passes for a torn tail.
//!
//! Damaged sectors are cut off, when it can be known what the log had promised (see [`salvage`]) and there are peers to
//! repair it (see [`repair`]). All other damage is refused.
//!
//! Without `sync` ([`LogOptions::sync`]) all of this holds when the process is killed, and not in a power cut.

mod files;
mod format;
mod group;
mod index;
mod prepare;
mod recovery;
mod repair;
mod replay;
mod salvage;
mod window;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quorate_core::raft::{
    Base, DiskError, Entry, HardState, Index, Membership, NodeId, Position, Write, WriteId,
};
use tokio::sync::{mpsc, oneshot};

use self::files::Task;
use self::format::{Checkpoint, GroupHeader, SECTOR_BYTES, SegmentHeader};
use self::group::Group;
use self::index::{Entries, Readable};
use self::repair::{Note, Sound};
use super::StorageError;
use crate::planted::{Planted, PlantedBug};
use crate::port::{File, OpenMode, Ports};

pub use self::group::{GROUP_BYTES_MAX, GROUP_ENTRIES_MAX, group_length};
pub use self::index::LogReader;
pub(super) use self::prepare::create;
#[cfg(test)]
pub(super) use self::prepare::create_with;

/// How a log is kept.
#[derive(Clone)]
pub struct LogOptions {
    /// The length of new segments in bytes; a multiple of 512.
    pub segment_bytes: u64,
    /// Whether a group is synced before it is acknowledged (`wal_sync`).
    pub sync: bool,
    /// How many bytes of entries [`Recovered::tail`] holds at most.
    pub tail_bytes_max: u64,
    /// Whose log it is, when that is known: a damaged log of the only voter is refused, since nobody could repair it.
    pub node: Option<NodeId>,
    /// Told how long each sync of a group took.
    pub observer: Option<Arc<dyn Fn(Duration) + Send + Sync>>,
}

impl Default for LogOptions {
    fn default() -> LogOptions {
        LogOptions {
            segment_bytes: SEGMENT_BYTES,
            sync: true,
            tail_bytes_max: 4 << 20,
            node: None,
            observer: None,
        }
    }
}

/// The length of new segments in production, in bytes.
pub const SEGMENT_BYTES: u64 = 16 << 20;

/// What the log has done since it was opened.
#[derive(Debug, Default)]
pub struct LogCounters {
    /// Syncs (fdatasync) of groups and seals.
    pub syncs: AtomicU64,
    /// Groups.
    pub groups: AtomicU64,
    /// Bytes written.
    pub bytes: AtomicU64,
    /// How long the last sync took, in nanoseconds.
    pub last_sync_nanoseconds: AtomicU64,
}

/// What a log says when it is opened; with the node's id and what the state machine holds, a
/// [`Boot`](quorate_core::raft::Boot).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The term and the vote.
    pub hard_state: HardState,
    /// Where the log begins; nothing when it never began.
    pub base: Option<Base>,
    /// The position of the first entry of each term, ascending.
    pub terms: Vec<Position>,
    /// The membership entries, ascending.
    pub memberships: Vec<(Position, Membership)>,
    /// The last index; the base's when there is no entry.
    pub last: Index,
    /// The last entries, without a gap, up to `last`; as many as the options allow, and maybe fewer.
    pub tail: Vec<Entry>,
    /// Whether the end of a write that was never acknowledged was found, and discarded.
    pub torn: bool,
    /// Where the log ended, at the most, before its end was lost to damage; none when it is whole.
    pub repair: Option<Position>,
    /// What was found damaged when it was opened, and was cut off.
    pub damage: Option<String>,
    /// Whether entries after the base are missing, until the log is [made to fit](Log::fit_to) the state.
    pub incomplete: bool,
}

impl Recovered {
    /// Whether the log has this entry, or begins after it.
    fn has(&self, position: Position) -> bool {
        let base = self.base.as_ref().map(|base| base.position);
        let before = self
            .terms
            .iter()
            .rev()
            .find(|start| start.index <= position.index);
        position.index <= self.last
            && (base == Some(position) || before.is_some_and(|start| start.term == position.term))
    }
}

/// The writer of a log. There is one at a time, which the lock of the data directory sees to.
pub struct Log {
    ports: Ports,
    directory: PathBuf,
    options: LogOptions,
    head: Checkpoint,
    active: Active,
    chain: u32,
    reader: LogReader,
    /// What an unfinished repair has noted.
    note: Option<Note>,
    tasks: mpsc::Sender<Task>,
    /// Ends when the lane behind `tasks` has ended.
    lane: oneshot::Receiver<()>,
    next: Next,
    counters: Arc<LogCounters>,
    /// Set by the first failure; nothing is written after it.
    failed: Option<DiskError>,
    group: Group,
    frame: Vec<u8>,
}

/// The segment that is written to.
struct Active {
    header: SegmentHeader,
    path: PathBuf,
    file: Box<dyn File>,
    next_sector: u32,
    sectors: u32,
    sealed: bool,
}

/// The segment after the active one.
enum Next {
    None,
    Preparing(oneshot::Receiver<Result<PathBuf, StorageError>>),
    Ready(PathBuf),
}

impl Log {
    /// Opens the log of the data directory `directory`, which [`DataDirectory::open`](super::DataDirectory::open)
    /// made, and says what is in it.
    ///
    /// # Errors
    /// When it is damaged or gone, of a newer version, or the disk fails.
    pub async fn open(
        ports: &Ports,
        directory: &Path,
        options: LogOptions,
    ) -> Result<(Log, Recovered), StorageError> {
        assert!(
            options.segment_bytes.is_multiple_of(SECTOR_BYTES as u64)
                && options.segment_bytes >= 8 * SECTOR_BYTES as u64
                && options.segment_bytes <= format::SEGMENT_BYTES_MAX,
            "a segment has at least eight sectors and at most eight gigabytes"
        );
        let Sound {
            mut found,
            note,
            damage,
        } = repair::recover(ports, directory, &options).await?;
        let torn = found.scrub.is_some();
        let next = prepare::tidy(ports, directory, &found).await?;

        let (header, path) = found.segments.last().cloned().expect("a log has a segment");
        let file = ports
            .files
            .open(&path, OpenMode::ReadWrite)
            .map_err(StorageError::io("open", &path))?;
        let last = found.replay.last;
        let mut recovered = Recovered {
            hard_state: found.replay.hard_state,
            base: found.replay.base.clone(),
            terms: found.replay.terms(),
            memberships: found.replay.memberships(),
            last: last.index,
            tail: found.replay.take_tail(),
            torn,
            repair: note.map(|note| note.until).filter(|until| last < *until),
            damage,
            incomplete: found.incomplete,
        };
        let replay = found.replay;
        let mut entries = Entries {
            first: replay.first,
            locations: replay.locations,
            segments: BTreeMap::new(),
        };
        entries.purge(replay.base.as_ref().map_or(0, |base| base.position.index.0));
        for (header, path) in found.segments {
            let seed = header.seed();
            entries.segments.insert(header.sequence, Readable { path, seed });
        }
        let (tasks, lane) = files::start(ports, directory)?;
        let mut log = Log {
            ports: ports.clone(),
            directory: directory.to_owned(),
            head: Checkpoint {
                hard_state: replay.hard_state,
                base: replay.base,
                last: replay.last,
            },
            active: Active {
                sectors: sectors(header.length),
                header,
                path,
                file,
                next_sector: found.next_sector,
                sealed: found.sealed,
            },
            chain: found.chain,
            reader: LogReader::new(ports, directory, entries),
            note,
            tasks,
            lane,
            next,
            counters: Arc::default(),
            failed: None,
            group: Group::default(),
            frame: Vec::new(),
            options,
        };
        if let Some(note) = note {
            recovered.hard_state = repair::newer(recovered.hard_state, note.hard_state);
            log.remember_promise(recovered.hard_state).await?;
        }
        Ok((log, recovered))
    }

    /// Writes down a term and vote that only the note of a repair had.
    async fn remember_promise(&mut self, hard_state: HardState) -> Result<(), StorageError> {
        if hard_state == self.head.hard_state {
            return Ok(());
        }
        let mut group = Group::default();
        format::push_hard_state(&hard_state, &mut group.records);
        let head = Checkpoint {
            hard_state,
            ..self.head.clone()
        };
        self.write_group(&mut group, head).await
    }

    /// Sees to it that what is left of a damaged log fits the state, whose last entry and membership are `state`: if it
    /// does not, it begins anew behind the state, which is of committed entries. To be called before the log is used.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn fit_to(&mut self, state: &Base, recovered: &mut Recovered) -> Result<(), DiskError> {
        let Some(note) = self.note else {
            return Ok(());
        };
        if recovered.incomplete || !recovered.has(state.position) {
            let write = Write {
                id: WriteId(0),
                hard_state: None,
                reset: Some(Box::new(state.clone())),
                entries: Vec::new().into(),
            };
            self.append(&[write]).await?;
            recovered.base = Some(state.clone());
            recovered.terms.clear();
            recovered.memberships.clear();
            recovered.tail.clear();
            recovered.last = state.position.index;
            recovered.incomplete = false;
        }
        recovered.repair = Some(note.until).filter(|until| self.head.last < *until);
        if recovered.repair.is_none() {
            let forgotten = repair::forget(&self.ports, &self.directory);
            self.remember(forgotten)?;
            self.note = None;
        }
        Ok(())
    }

    /// Closes the log, and returns when no work on its files is under way any more. Dropping it loses nothing either,
    /// but a segment may still be in preparation for a while.
    pub async fn close(self) {
        let Log { tasks, lane, .. } = self;
        drop(tasks);
        // It ends by being dropped, with the lane.
        let _ = lane.await;
    }

    /// The mistake that the node makes.
    pub(crate) fn planted(&self) -> Planted {
        self.ports.planted
    }

    /// Reads entries beside this writer.
    pub fn reader(&self) -> LogReader {
        self.reader.clone()
    }

    /// What the log has done since it was opened.
    pub fn counters(&self) -> Arc<LogCounters> {
        Arc::clone(&self.counters)
    }

    /// Begins the log of a new cluster, or of a node that joins one.
    ///
    /// # Errors
    /// When the disk fails.
    ///
    /// # Panics
    /// When the log has begun already.
    pub async fn initialize(&mut self, base: Base) -> Result<(), DiskError> {
        assert!(self.head.base.is_none(), "a log begins once");
        let write = Write {
            id: WriteId(0),
            hard_state: None,
            reset: Some(Box::new(base)),
            entries: Vec::new().into(),
        };
        self.append(&[write]).await
    }

    /// Makes `writes` durable as one group: after a crash all of them are there or, if this did not return, maybe none.
    /// [`group_length`] says how many are a good group.
    ///
    /// # Errors
    /// When the disk fails or is full. What is on disk is then unknown, and every later call fails too.
    ///
    /// # Panics
    /// When the entries leave a gap or replace what was purged: consensus is broken.
    pub async fn append(&mut self, writes: &[Write]) -> Result<(), DiskError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let mut group = std::mem::take(&mut self.group);
        group.clear();
        let head = group.fill(self.head.clone(), writes);
        let result = if group.records.is_empty() {
            Ok(())
        } else {
            self.write_group(&mut group, head).await
        };
        self.group = group;
        self.remember(result)
    }

    /// Records that entries up to `base` are no longer needed, and disposes of the segments that hold nothing else.
    /// Does nothing while there is no such segment.
    ///
    /// # Errors
    /// As [`Log::append`].
    ///
    /// # Panics
    /// When the base lies behind the end of the log.
    pub async fn purge(&mut self, base: Base) -> Result<(), DiskError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        assert!(
            base.position.index <= self.head.last.index,
            "only what is in the log can be purged"
        );
        let index = base.position.index.0;
        let needed = {
            let entries = self.reader.entries();
            let needed = entries.oldest_after(index).unwrap_or(self.active.header.sequence);
            let oldest = entries.segments.keys().next().copied().unwrap_or(needed);
            if oldest >= needed {
                return Ok(());
            }
            needed
        };
        let result = self.purge_before(needed, base).await;
        self.remember(result)
    }

    /// Records a base, and disposes of the segments before `needed`.
    async fn purge_before(&mut self, needed: u64, base: Base) -> Result<(), StorageError> {
        let index = base.position.index;
        // A crash may have come between the two steps; then the base is recorded already.
        if self
            .head
            .base
            .as_ref()
            .is_none_or(|recorded| recorded.position.index < index)
        {
            let mut group = Group::default();
            format::push_purge(&base, &mut group.records);
            let head = Checkpoint {
                base: Some(base),
                ..self.head.clone()
            };
            self.write_group(&mut group, head).await?;
        }
        self.reader.entries().purge(index.0);
        self.retire_before(needed).await
    }

    fn remember(&mut self, result: Result<(), StorageError>) -> Result<(), DiskError> {
        result.map_err(|error| {
            let error = DiskError::from(error);
            self.failed = Some(error.clone());
            error
        })
    }

    /// Writes a group, makes it durable, and takes over what it says.
    async fn write_group(&mut self, group: &mut Group, head: Checkpoint) -> Result<(), StorageError> {
        let room = self.active.sectors - self.active.next_sector;
        let echo = head.hard_state != self.head.hard_state;
        // One sector is kept for the seal.
        let fits = format::group_sectors(group.records.len(), echo) < room as usize;
        let begins = self.active.sealed || !fits;
        if begins {
            group.prepend(&self.checkpoint());
            self.rotate(format::group_sectors(group.records.len(), echo))
                .await?;
        }
        let start = self.active.next_sector;
        let header = GroupHeader::of(self.chain, &group.records, head.mark(), echo);
        self.write(&header, &group.records, begins).await?;
        self.counters.groups.fetch_add(1, Ordering::Relaxed);
        self.head = head;
        let sequence = self.active.header.sequence;
        let reset = {
            let mut entries = self.reader.entries();
            if begins {
                let readable = Readable {
                    path: self.active.path.clone(),
                    seed: self.active.header.seed(),
                };
                entries.segments.insert(sequence, readable);
            }
            group.publish(&mut entries, sequence, start)
        };
        if reset {
            self.retire_before(sequence).await?;
        }
        self.prepare_ahead();
        Ok(())
    }

    /// What a new segment begins with.
    fn checkpoint(&self) -> Checkpoint {
        let mut head = self.head.clone();
        if self.ports.planted.is(PlantedBug::CheckpointForgetsVote) {
            head.hard_state = HardState::default();
        }
        head
    }

    /// Writes and syncs records as one group at the end of the active segment, with the segment's header when it
    /// `begins` the segment.
    async fn write(&mut self, group: &GroupHeader, records: &[u8], begins: bool) -> Result<(), StorageError> {
        let Active {
            header,
            path,
            file,
            next_sector,
            ..
        } = &mut self.active;
        let frame = &mut self.frame;
        frame.clear();
        let mut offset = u64::from(*next_sector) * SECTOR_BYTES as u64;
        if begins {
            frame.extend_from_slice(&header.encode());
            offset = 0;
        }
        format::frame_group(header.seed(), *next_sector, group, records, frame);
        file.write_all_at(frame, offset)
            .map_err(StorageError::io("write", path))?;
        if self.options.sync && !self.ports.planted.is(PlantedBug::LogIsNotSynced) {
            let begin = self.ports.clock.now();
            file.sync().await.map_err(StorageError::io("sync", path))?;
            let duration = self.ports.clock.now().since(begin);
            self.counters.syncs.fetch_add(1, Ordering::Relaxed);
            let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
            self.counters
                .last_sync_nanoseconds
                .store(nanoseconds, Ordering::Relaxed);
            if let Some(observer) = &self.options.observer {
                observer(duration);
            }
        }
        self.counters
            .bytes
            .fetch_add(frame.len() as u64, Ordering::Relaxed);
        *next_sector += u32::try_from(group.sectors()).expect("it fits into the segment");
        self.chain = group.after;
        // One huge group shall not cost memory for ever.
        if frame.capacity() > 4 * (GROUP_BYTES_MAX as usize) {
            *frame = Vec::new();
        }
        Ok(())
    }

    /// Closes the active segment and goes on in the next one, which has room for a group of `group_sectors`.
    async fn rotate(&mut self, group_sectors: usize) -> Result<(), StorageError> {
        if !self.active.sealed {
            // The next segment must be there before the seal says so.
            let path = self.next_segment().await?;
            self.next = Next::Ready(path);
            if !self.ports.planted.is(PlantedBug::SegmentIsNotSealed) {
                let mut seal = Vec::new();
                format::push_seal(&mut seal);
                let header = GroupHeader::of(self.chain, &seal, self.head.mark(), false);
                self.write(&header, &seal, false).await?;
            }
            self.active.sealed = true;
        }
        let path = self.next_segment().await?;
        let file = self
            .ports
            .files
            .open(&path, OpenMode::ReadWrite)
            .map_err(StorageError::io("open", &path))?;
        // A header before the group, a seal after it.
        let needed = (group_sectors as u64 + 2) * SECTOR_BYTES as u64;
        let mut length = file.length().map_err(StorageError::io("measure", &path))?;
        if needed > length {
            length = needed;
            file.set_length(length)
                .map_err(StorageError::io("extend", &path))?;
            file.sync().await.map_err(StorageError::io("sync", &path))?;
        }
        let next = Active {
            header: SegmentHeader {
                sequence: self.active.header.sequence + 1,
                length,
                chain: self.chain,
                ..self.active.header
            },
            sectors: sectors(length),
            path,
            file,
            next_sector: 1,
            sealed: false,
        };
        let full = std::mem::replace(&mut self.active, next);
        if self.ports.planted.is(PlantedBug::SegmentStaysOpen) {
            std::mem::forget(full);
        }
        Ok(())
    }

    /// The prepared segment after the active one; waits for it when it is not ready.
    async fn next_segment(&mut self) -> Result<PathBuf, StorageError> {
        let early = match std::mem::replace(&mut self.next, Next::None) {
            Next::Ready(path) => return Ok(path),
            Next::Preparing(done) => done.await.ok().and_then(Result::ok),
            Next::None => None,
        };
        if let Some(path) = early {
            return Ok(path);
        }
        // What failed some time ago may succeed now: space may have been freed since.
        let (task, done) = self.preparation();
        self.tasks.send(task).await.map_err(|_| self.lane_ended())?;
        done.await.map_err(|_| self.lane_ended())?
    }

    fn lane_ended(&self) -> StorageError {
        StorageError::io("prepare a segment in", &self.directory)(std::io::Error::other(
            "the lane for it has ended",
        ))
    }

    fn preparation(&self) -> (Task, oneshot::Receiver<Result<PathBuf, StorageError>>) {
        let (done, receiver) = oneshot::channel();
        let task = Task::Prepare {
            sequence: self.active.header.sequence + 1,
            length: self.options.segment_bytes,
            done,
        };
        (task, receiver)
    }

    /// Has the next segment made in time. A log that grows slowly stays small until it is needed.
    fn prepare_ahead(&mut self) {
        if matches!(self.next, Next::None) && self.active.next_sector >= self.active.sectors / 4 {
            let (task, done) = self.preparation();
            // A full queue is tried again with the next group; a lane that ended shows when the segment is needed.
            if self.tasks.try_send(task).is_ok() {
                self.next = Next::Preparing(done);
            }
        }
    }

    /// Disposes of the segments before `sequence`.
    async fn retire_before(&mut self, sequence: u64) -> Result<(), StorageError> {
        let paths: Vec<PathBuf> = {
            let mut entries = self.reader.entries();
            let kept = entries.segments.split_off(&sequence);
            std::mem::replace(&mut entries.segments, kept)
                .into_values()
                .map(|readable| readable.path)
                .collect()
        };
        if paths.is_empty() {
            return Ok(());
        }
        self.tasks
            .send(Task::Retire(paths))
            .await
            .map_err(|_| self.lane_ended())
    }
}

fn sectors(length: u64) -> u32 {
    u32::try_from(length / SECTOR_BYTES as u64).expect("a segment has at most eight gigabytes")
}

/// Decodes arbitrary bytes as what the log's files hold.
pub(super) fn feed(input: &[u8]) {
    format::feed(input);
    repair::feed(input);
}
