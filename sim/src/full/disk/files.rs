//! Open files and claimed directories.

use std::fmt;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::time::Duration;

use quorate::port::{BoxFuture, File};

use super::{Disk, Inner};
use crate::consensus::schedule::{MILLISECOND, Time};
use crate::consensus::trace::hash;
use crate::full::holdings::Mark;

/// A disk that stood still and was mended goes on after this, at the latest.
const MENDED_SEEN_WITHIN: Time = 50 * MILLISECOND;

/// A directory that a process has claimed.
pub(super) struct Claim {
    disk: Disk,
    path: PathBuf,
}

impl Claim {
    pub(super) fn new(disk: Disk, path: &Path) -> Claim {
        Claim {
            disk,
            path: path.to_owned(),
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut inner = self.disk.inner();
        if inner.life == self.disk.life {
            inner.locked.remove(&self.path);
        }
    }
}

/// An open file.
pub(super) struct OpenFile {
    disk: Disk,
    file: u64,
    /// What it holds is redb's own business: it fills new pages with a pattern in debug builds.
    is_database: bool,
    _counted: Mark,
}

/// A sync that is under way: which one, and until when it takes in nanoseconds of simulated time from now.
struct Sync {
    number: u64,
    takes: Time,
}

impl OpenFile {
    pub(super) fn new(disk: Disk, file: u64) -> OpenFile {
        OpenFile {
            _counted: disk.taken.files.mark(),
            disk,
            file,
            is_database: false,
        }
    }

    /// The same file, as redb's.
    pub(super) fn into_database(self) -> OpenFile {
        OpenFile {
            is_database: true,
            ..self
        }
    }

    fn operate<T>(&self, work: impl FnOnce(&mut Inner) -> io::Result<T>) -> io::Result<T> {
        let mut inner = self.disk.inner();
        inner.operate(self.disk.life)?;
        work(&mut inner)
    }

    fn change<T>(&self, work: impl FnOnce(&mut Inner) -> io::Result<T>) -> io::Result<T> {
        let mut inner = self.disk.inner();
        inner.take_room(self.disk.life)?;
        work(&mut inner)
    }

    fn begin_sync(&self) -> io::Result<Sync> {
        self.operate(|inner| {
            let mean = inner.habits.sync_mean;
            let takes = inner.random.around(mean);
            Ok(Sync {
                number: inner.content(self.file).begin_sync(),
                takes,
            })
        })
    }

    fn end_sync(&self, number: u64) -> io::Result<()> {
        let mut inner = self.disk.inner();
        if inner.life != self.disk.life {
            return Err(io::Error::other("the process of this handle is gone"));
        }
        if std::mem::take(&mut inner.fails_next_sync) {
            inner.failures += 1;
            return Err(io::Error::from_raw_os_error(5));
        }
        inner.content(self.file).end_sync(number);
        inner.syncs += 1;
        let file = self.file;
        inner.trace.note(file);
        Ok(())
    }

    /// How much longer a sync takes than usual, in nanoseconds; the first part of it, when the disk stands still.
    fn slow_for(&self) -> Time {
        let (now, habits) = (self.disk.clock.simulated(), self.disk.inner().habits);
        let slow = if now < habits.slow_until {
            habits.slow_by
        } else {
            0
        };
        slow.max(self.stalled_for().min(MENDED_SEEN_WITHIN))
    }

    /// How long the disk stands still from now on, in nanoseconds.
    fn stalled_for(&self) -> Time {
        let now = self.disk.clock.simulated();
        self.disk.inner().habits.stalled_until.saturating_sub(now)
    }
}

impl File for OpenFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut inner = self.disk.inner();
        inner.check(self.disk.life)?;
        if inner.content(self.file).read(offset, buffer) {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }

    fn write_all_at(&self, buffer: &[u8], offset: u64) -> io::Result<()> {
        self.change(|inner| {
            inner.content(self.file).write(offset, buffer);
            let place = self.file ^ offset.rotate_left(32);
            let written = if self.is_database {
                place ^ (buffer.len() as u64) << 8
            } else {
                hash(place, buffer)
            };
            inner.trace.note(written);
            Ok(())
        })
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.disk.inner().content(self.file).length())
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.change(|inner| {
            inner.content(self.file).set_length(length);
            Ok(())
        })
    }

    fn sync<'a>(&'a self) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async {
            let sync = self.begin_sync()?;
            tokio::time::sleep(Duration::from_nanos(sync.takes)).await;
            let mut hindrance = self.slow_for();
            while hindrance > 0 {
                tokio::time::sleep(Duration::from_nanos(hindrance)).await;
                // Being slow was served; standing still may have been prolonged, or be over.
                hindrance = self.stalled_for().min(MENDED_SEEN_WITHIN);
            }
            self.end_sync(sync.number)
        })
    }
}

impl fmt::Debug for OpenFile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "file {}", self.file)
    }
}

impl redb::StorageBackend for OpenFile {
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
        let sync = self.begin_sync()?;
        self.end_sync(sync.number)
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
