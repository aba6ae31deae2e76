//! The database engine (redb), kept at a distance.
//!
//! redb panics on some kinds of damage, and reports others as errors of many types. Every call to it goes through
//! [`Place::guard`], which turns both into a [`StorageError`] that names the file.

use std::io;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::{BackendError, Database, StorageBackend};

use super::super::StorageError;
use super::row::{self, ManifestError};
use crate::port::Ports;

/// Memory for pages. The rows are read once and then live in the state machine, so little is enough.
const CACHE_BYTES: usize = 4 << 20;

/// Why a call to the engine failed.
pub(super) enum Failure {
    Engine(redb::Error),
    Damaged(String),
    Newer(u8),
}

impl From<ManifestError> for Failure {
    fn from(error: ManifestError) -> Failure {
        match error {
            ManifestError::Newer(found) => Failure::Newer(found),
            ManifestError::Damaged(what) => Failure::Damaged(what),
        }
    }
}

macro_rules! engine_failure {
    ($($error:ty),*) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Failure {
                Failure::Engine(error.into())
            }
        })*
    };
}

engine_failure!(
    redb::DatabaseError,
    redb::TransactionError,
    redb::TableError,
    redb::StorageError,
    redb::CommitError
);

/// Where a database is, and what it takes to reach it.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) ports: Ports,
    pub(super) path: PathBuf,
    /// The data directory.
    pub(super) directory: PathBuf,
}

impl Place {
    pub(super) fn new(ports: &Ports, path: &Path) -> Place {
        Place {
            ports: ports.clone(),
            path: path.to_owned(),
            directory: path.parent().unwrap_or(path).to_owned(),
        }
    }

    pub(super) fn damaged(&self, what: impl Into<String>) -> StorageError {
        StorageError::damaged(&self.directory, &self.path, None, what)
    }

    /// Runs `body`, a use of the engine, and catches what it throws.
    pub(super) fn guard<T>(
        &self,
        action: &'static str,
        body: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<T, StorageError> {
        // What a panic may leave broken is the database handle, which refuses all later work.
        match catch_unwind(AssertUnwindSafe(body)) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(failure)) => Err(self.describe(action, failure)),
            Err(panic) => {
                let what = panic
                    .downcast_ref::<String>()
                    .map(String::as_str)
                    .or_else(|| panic.downcast_ref::<&str>().copied())
                    .unwrap_or("no reason given");
                Err(self.damaged(format!("the database engine gave up: {what}")))
            }
        }
    }

    fn describe(&self, action: &'static str, failure: Failure) -> StorageError {
        match failure {
            Failure::Damaged(what) => self.damaged(what),
            Failure::Newer(found) => StorageError::Newer {
                path: self.path.clone(),
                found,
                supported: row::VERSION,
            },
            Failure::Engine(redb::Error::Io(error))
                if !matches!(
                    error.kind(),
                    io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput
                ) =>
            {
                StorageError::io(action, &self.path)(error)
            }
            Failure::Engine(error) => self.damaged(format!("the database engine reports: {error}")),
        }
    }

    /// Opens the database, or creates it where there is none.
    pub(super) fn open(&self) -> Result<Handle, StorageError> {
        let backend = self
            .ports
            .files
            .database(&self.path)
            .map_err(StorageError::io("open", &self.path))?;
        let database = self.guard("open", || {
            Ok(Database::builder()
                .set_cache_size(CACHE_BYTES)
                .create_with_backend(Backend(backend))?)
        })?;
        Ok(Handle(Some(database)))
    }
}

/// An open database. A damaged one may panic also when it is closed.
pub(super) struct Handle(Option<Database>);

impl Handle {
    pub(super) fn database(&self) -> &Database {
        self.0
            .as_ref()
            .expect("the database is taken out only when it is closed")
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let database = self.0.take();
        if catch_unwind(AssertUnwindSafe(|| drop(database))).is_err() {
            tracing::error!("the database engine gave up while it closed a database");
        }
    }
}

/// Hands the engine a file of the port.
#[derive(Debug)]
struct Backend(Box<dyn StorageBackend>);

impl StorageBackend for Backend {
    fn len(&self) -> Result<u64, io::Error> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.0.read(offset, out)
    }

    fn set_len(&self, length: u64) -> Result<(), io::Error> {
        self.0.set_len(length)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.0.write(offset, data)
    }

    fn close(&self) -> Result<(), io::Error> {
        self.0.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.query_lock_range(start, end)
    }
}
