//! The directory of a cluster: that it is one of `dev`, that only one `dev` uses it, and what in it may be removed.
//!
//! Invariant: nothing is written into, or removed from, a directory that `dev` did not make, and of one that it made
//! only what it wrote itself is removed.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::cli::error::CliError;

/// The file that marks the directory as one of `dev`, and remembers its ports.
pub(super) const PLAN_FILE: &str = "dev.json";
pub(super) const SECRET_FILE: &str = "secret";
/// Locked as long as a `dev` runs; holds its process id.
const LOCK_FILE: &str = "dev.lock";
/// In the directory of a node.
pub(super) const CONFIG_FILE: &str = "cluster.yaml";
pub(super) const LOG_FILE: &str = "log";
pub(super) const DATA: &str = "data";
/// What a node's configuration begins with when `dev` wrote it.
pub(super) const WRITTEN_BY: &str = "# Written by `quorate dev` at every start.";

/// A directory that no other `dev` uses as long as this lives.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    _lock: File,
}

impl Directory {
    /// Takes `path`, and creates it when there is none.
    ///
    /// # Errors
    /// When it holds something else than a cluster of `dev`, or when a `dev` runs there.
    pub(super) fn claim(path: &Path) -> Result<Directory, CliError> {
        refuse_foreign(path)?;
        fs::create_dir_all(path).map_err(|error| failed("create", path, error))?;
        let path = fs::canonicalize(path).map_err(|error| failed("find", path, error))?;
        let file = path.join(LOCK_FILE);
        let mut lock = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&file)
            .map_err(|error| failed("open", &file, error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(in_use(&path, &mut lock)),
            Err(TryLockError::Error(error)) => return Err(failed("lock", &file, error)),
        }
        lock.set_len(0)
            .and_then(|()| write!(lock, "{}", std::process::id()))
            .map_err(|error| failed("write", &file, error))?;
        Ok(Directory { path, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes what an earlier run left, and nothing else.
    ///
    /// # Errors
    /// When one of its nodes still runs; nothing is removed then.
    pub(super) fn clear(&self) -> Result<(), CliError> {
        let homes = self.node_directories()?;
        for home in &homes {
            refuse_running(home)?;
        }
        for home in &homes {
            for file in [CONFIG_FILE, LOG_FILE] {
                remove(&home.join(file), |path| fs::remove_file(path))?;
            }
            remove(&home.join(DATA), |path| fs::remove_dir_all(path))?;
            remove(home, |path| match fs::remove_dir(path) {
                // Somebody else put something there.
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
                result => result,
            })?;
        }
        remove(&self.path.join(SECRET_FILE), |path| fs::remove_file(path))?;
        // The mark goes last, so that what is left after a failure is still known as one of `dev`.
        remove(&self.path.join(PLAN_FILE), |path| fs::remove_file(path))
    }

    /// The directories of nodes that `dev` configured.
    fn node_directories(&self) -> Result<Vec<PathBuf>, CliError> {
        let failed = |error| failed("read", &self.path, error);
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let home = entry.map_err(failed)?.path();
            let config = fs::read_to_string(home.join(CONFIG_FILE)).unwrap_or_default();
            if config.starts_with(WRITTEN_BY) {
                found.push(home);
            }
        }
        Ok(found)
    }
}

/// A directory that holds something and no mark of `dev` belongs to somebody else.
fn refuse_foreign(path: &Path) -> Result<(), CliError> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("read", path, error)),
    };
    let names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
    let is_own = names.iter().any(|name| name == PLAN_FILE);
    if is_own || names.iter().all(|name| name == LOCK_FILE) {
        return Ok(());
    }
    Err(CliError::Usage(format!(
        "{} is not empty and was not made by `quorate dev`, which leaves it alone: name another directory with \
         --data-dir",
        path.display()
    )))
}

/// The nodes end shortly after their `dev`: one that was killed may leave some that are still stopping.
fn refuse_running(home: &Path) -> Result<(), CliError> {
    let Ok(lock) = File::open(home.join(DATA).join("lock")) else {
        return Ok(());
    };
    match lock.try_lock() {
        Err(TryLockError::WouldBlock) => Err(CliError::Other(format!(
            "the node in {} still runs, so nothing was removed: stop it, or try again when it has ended",
            home.display()
        ))),
        _ => Ok(()),
    }
}

fn in_use(path: &Path, lock: &mut File) -> CliError {
    let mut pid = String::new();
    let by = match lock.read_to_string(&mut pid) {
        Ok(_) if !pid.is_empty() => format!(" (process {pid})"),
        _ => String::new(),
    };
    CliError::Other(format!(
        "the cluster in {} runs already, by another `quorate dev`{by}: stop that first, or start another cluster with \
         --data-dir",
        path.display()
    ))
}

/// Removes what is there; that it is not there is fine.
fn remove(path: &Path, how: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), CliError> {
    match how(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path, error)),
        _ => Ok(()),
    }
}

pub(super) fn failed(what: &str, path: &Path, error: io::Error) -> CliError {
    CliError::io(format!("{what} {}", path.display()), error)
}
