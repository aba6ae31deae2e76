//! The files of the log's directory, and the lane that prepares and retires them.
//!
//! A segment appears under its name only when it is as long as it will be, full of zeros and durable, so that a
//! write to it changes nothing but data. Filling takes long, so it is done ahead and beside the log writer; a retired
//! segment is filled with zeros again rather than allocated anew.

use std::io;
use std::path::{Path, PathBuf};

use tokio::sync::{mpsc, oneshot};

use super::super::StorageError;
use crate::planted::PlantedBug;
use crate::port::{File, OpenMode, Ports};

/// A segment by its name.
#[derive(Clone, Debug)]
pub(super) struct SegmentFile {
    pub(super) sequence: u64,
    pub(super) path: PathBuf,
}

/// What is in the directory.
pub(super) struct Listing {
    /// By sequence.
    pub(super) segments: Vec<SegmentFile>,
    /// What a crash left while a segment was prepared or retired.
    pub(super) temporary: Vec<PathBuf>,
}

pub(super) fn log_path(directory: &Path) -> PathBuf {
    directory.join("log")
}

pub(super) fn segment_path(directory: &Path, sequence: u64) -> PathBuf {
    log_path(directory).join(format!("{sequence:020}.log"))
}

pub(super) fn list(ports: &Ports, directory: &Path) -> Result<Listing, StorageError> {
    let path = log_path(directory);
    let paths = ports.files.list(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            StorageError::damaged(directory, &path, None, "the directory of the log is missing")
        }
        _ => StorageError::io("list", &path)(error),
    })?;
    let mut listing = Listing {
        segments: Vec::new(),
        temporary: Vec::new(),
    };
    for path in paths {
        let extension = path.extension().and_then(|extension| extension.to_str());
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        match (extension, stem.and_then(|stem| stem.parse().ok())) {
            (Some("log"), Some(sequence)) => listing.segments.push(SegmentFile { sequence, path }),
            (Some("tmp"), _) => listing.temporary.push(path),
            _ => (),
        }
    }
    listing.segments.sort_by_key(|segment| segment.sequence);
    Ok(listing)
}

const FILL_BYTES: usize = 256 << 10;

/// Writes zeros from `begin` to `end` and makes them durable, in steps that leave other writers of the disk room.
pub(super) async fn fill(file: &dyn File, path: &Path, begin: u64, end: u64) -> Result<(), StorageError> {
    let zeros = vec![0; FILL_BYTES];
    let mut at = begin;
    while at < end {
        let length = FILL_BYTES.min(usize::try_from(end - at).unwrap_or(FILL_BYTES));
        file.write_all_at(&zeros[..length], at)
            .map_err(StorageError::io("write", path))?;
        file.sync().await.map_err(StorageError::io("sync", path))?;
        at += length as u64;
    }
    Ok(())
}

/// Work for the lane.
pub(super) enum Task {
    /// Make the segment `sequence` with `length` bytes.
    Prepare {
        sequence: u64,
        length: u64,
        done: oneshot::Sender<Result<PathBuf, StorageError>>,
    },
    /// Dispose of segments, oldest first.
    Retire(Vec<PathBuf>),
}

/// Tasks that wait for the lane at most.
const TASKS_MAX: usize = 16;

/// Starts the lane; it ends when the sender is dropped, and the receiver sees the end.
pub(super) fn start(
    ports: &Ports,
    directory: &Path,
) -> Result<(mpsc::Sender<Task>, oneshot::Receiver<()>), StorageError> {
    let (sender, receiver) = mpsc::channel(TASKS_MAX);
    let (ended, end) = oneshot::channel();
    let lane = Segments {
        ports: ports.clone(),
        directory: directory.to_owned(),
        has_spare: false,
        _ended: ended,
    };
    ports
        .executor
        .run("log-segments", Box::new(move || Box::pin(lane.run(receiver))))
        .map_err(StorageError::io(
            "start the lane that prepares segments of",
            directory,
        ))?;
    Ok((sender, end))
}

struct Segments {
    ports: Ports,
    directory: PathBuf,
    /// Whether a retired segment waits to be used again.
    has_spare: bool,
    /// Dropped when the lane ends.
    _ended: oneshot::Sender<()>,
}

impl Segments {
    async fn run(mut self, mut tasks: mpsc::Receiver<Task>) {
        while let Some(task) = tasks.recv().await {
            match task {
                Task::Prepare {
                    sequence,
                    length,
                    done,
                } => {
                    let result = self.prepare(sequence, length).await;
                    if let Err(error) = &result {
                        tracing::warn!(%error, "the log's next segment could not be prepared; it is tried once more");
                    }
                    // Nobody waits when the log was closed in the meantime.
                    let _ = done.send(result);
                }
                Task::Retire(paths) => {
                    if let Err(error) = self.retire(&paths) {
                        // The log is whole without them; they are found again when it is opened.
                        tracing::warn!(%error, "old segments of the log could not be removed");
                    }
                }
            }
        }
    }

    fn spare_path(&self) -> PathBuf {
        log_path(&self.directory).join("spare.tmp")
    }

    async fn prepare(&mut self, sequence: u64, length: u64) -> Result<PathBuf, StorageError> {
        let path = segment_path(&self.directory, sequence);
        let temporary = if self.has_spare {
            self.spare_path()
        } else {
            path.with_extension("tmp")
        };
        let as_it_is = self.has_spare && self.ports.planted.is(PlantedBug::SpareIsNotBlanked);
        self.has_spare = false;
        let filled = if as_it_is {
            Ok(())
        } else {
            create_filled(&self.ports, &temporary, length).await
        };
        if let Err(error) = filled {
            // Gives the space back; what cannot be removed now is removed when the log is opened.
            let _ = self.ports.files.remove(&temporary);
            return Err(error);
        }
        publish(&self.ports, &self.directory, &temporary, &path)?;
        Ok(path)
    }

    fn retire(&mut self, paths: &[PathBuf]) -> Result<(), StorageError> {
        let files = &self.ports.files;
        for path in paths {
            if self.has_spare {
                files.remove(path).map_err(StorageError::io("remove", path))?;
            } else {
                files
                    .rename(path, &self.spare_path())
                    .map_err(StorageError::io("rename", path))?;
                self.has_spare = true;
            }
        }
        let log = log_path(&self.directory);
        // Before it is filled, the spare's old name must be gone for good.
        files.sync_directory(&log).map_err(StorageError::io("sync", &log))
    }
}

/// A file of `length` zeros, durable; an existing one is overwritten.
async fn create_filled(ports: &Ports, path: &Path, length: u64) -> Result<(), StorageError> {
    let exists = ports
        .files
        .exists(path)
        .map_err(StorageError::io("look for", path))?;
    let mode = if exists {
        OpenMode::ReadWrite
    } else {
        OpenMode::CreateNew
    };
    let file = ports
        .files
        .open(path, mode)
        .map_err(StorageError::io("create", path))?;
    if file.length().map_err(StorageError::io("measure", path))? > length {
        file.set_length(length)
            .map_err(StorageError::io("shorten", path))?;
    }
    fill(&*file, path, 0, length).await
}

/// Gives a durable file its final name.
fn publish(ports: &Ports, directory: &Path, temporary: &Path, path: &Path) -> Result<(), StorageError> {
    ports
        .files
        .rename(temporary, path)
        .map_err(StorageError::io("rename", temporary))?;
    if ports.planted.is(PlantedBug::SegmentNameIsNotSynced) {
        return Ok(());
    }
    let log = log_path(directory);
    ports
        .files
        .sync_directory(&log)
        .map_err(StorageError::io("sync", &log))
}

/// Makes the directory of a log, with a first segment that begins with `content`.
pub(super) async fn create_first(
    ports: &Ports,
    directory: &Path,
    length: u64,
    content: &[u8],
) -> Result<(), StorageError> {
    let log = log_path(directory);
    ports
        .files
        .create_directory(&log)
        .map_err(StorageError::io("create", &log))?;
    ports
        .files
        .sync_directory(directory)
        .map_err(StorageError::io("sync", directory))?;
    create(ports, directory, &segment_path(directory, 1), length, content).await
}

/// Makes a segment that begins with `content`, in place of the one that may be there.
pub(super) async fn create(
    ports: &Ports,
    directory: &Path,
    path: &Path,
    length: u64,
    content: &[u8],
) -> Result<(), StorageError> {
    let temporary = path.with_extension("tmp");
    create_filled(ports, &temporary, length).await?;
    let file = ports
        .files
        .open(&temporary, OpenMode::ReadWrite)
        .map_err(StorageError::io("open", &temporary))?;
    file.write_all_at(content, 0)
        .map_err(StorageError::io("write", &temporary))?;
    file.sync().await.map_err(StorageError::io("sync", &temporary))?;
    publish(ports, directory, &temporary, path)
}
