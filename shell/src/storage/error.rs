//! What can go wrong on a disk, said so that an operator knows which file it is and what to do.

use std::io;
use std::path::{Path, PathBuf};

use quorate_core::raft::DiskError;
use thiserror::Error;

/// Why storage cannot be opened, read or written.
#[derive(Debug, Error)]
pub enum StorageError {
    /// The system refused or failed an operation.
    #[error("cannot {action} {}: {source}{}", path.display(), advice(source))]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file does not hold what was written to it, or is gone.
    #[error(
        "{} is damaged{}: {what}; this node must not vote with it: stop it, move {} aside and \
         start it again; it will rejoin as a learner and catch up from its peers",
        path.display(), place(*offset), directory.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in the file, in bytes, when it is known.
        offset: Option<u64>,
        /// What is wrong.
        what: String,
        /// The data directory that the file belongs to.
        directory: PathBuf,
    },
    /// A file does not hold what was written to it, or is gone, and no other node has what was in it.
    #[error(
        "{} is damaged{}: {what}; no other node of this cluster votes, so nobody can repair it: stop it, and put {} \
         back from a copy",
        path.display(), place(*offset), directory.display()
    )]
    Irreparable {
        /// The file.
        path: PathBuf,
        /// Where in the file, in bytes, when it is known.
        offset: Option<u64>,
        /// What is wrong.
        what: String,
        /// The data directory that the file belongs to.
        directory: PathBuf,
    },
    /// A file was written by a newer version of Quorate.
    #[error(
        "{} has format version {found}, and this build reads versions up to {supported}: run the version of \
         Quorate that wrote it, or a newer one; nothing was changed",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The version it has.
        found: u8,
        /// The newest version that this build reads.
        supported: u8,
    },
    /// Another process runs on the data directory.
    #[error(
        "the data directory {} is in use by another process: stop that one, or give this node a data directory of \
         its own",
        directory.display()
    )]
    Locked {
        /// The data directory.
        directory: PathBuf,
    },
    /// The data directory belongs to another node.
    #[error(
        "the data directory {} belongs to node {found:?}, and this is node {expected:?}: start it with the right \
         node id, or give it a data directory of its own",
        directory.display()
    )]
    OtherNode {
        /// The data directory.
        directory: PathBuf,
        /// Whose it is.
        found: String,
        /// Who wants it.
        expected: String,
    },
    /// The data directory belongs to another cluster.
    #[error(
        "the data directory {} belongs to {found}, and this node is configured for {expected}: correct the \
         configuration, or give the node a data directory of its own",
        directory.display()
    )]
    OtherCluster {
        /// The data directory.
        directory: PathBuf,
        /// The cluster or lineage that it belongs to.
        found: String,
        /// The one that was expected.
        expected: String,
    },
    /// There is no data directory of a node.
    #[error("{} is no data directory of a node: name the one that the node is started with", directory.display())]
    NoDirectory {
        /// What was named.
        directory: PathBuf,
    },
    /// There is data in the directory, and no identity that says whose it is.
    #[error(
        "{} is missing, and {} holds data: put the file back, or move the directory aside and start the node again; \
         it will rejoin as a learner and catch up from its peers",
        path.display(), directory.display()
    )]
    IdentityMissing {
        /// The identity file.
        path: PathBuf,
        /// The data directory.
        directory: PathBuf,
    },
}

fn place(offset: Option<u64>) -> String {
    offset.map_or_else(String::new, |offset| format!(" at offset {offset}"))
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull => {
            "; no space left on the device: free some space and start the node again, nothing is lost"
        }
        io::ErrorKind::QuotaExceeded => {
            "; the disk quota is used up: free some space and start the node again, nothing is lost"
        }
        io::ErrorKind::PermissionDenied => "; the node's user needs to read and write its data directory",
        _ => "",
    }
}

impl StorageError {
    /// Wraps what the system said about an operation on `path`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StorageError {
        let path = path.to_owned();
        move |source| StorageError::Io { action, path, source }
    }

    /// Damage of `path`, a file of the data directory `directory`.
    pub(crate) fn damaged(
        directory: &Path,
        path: &Path,
        offset: impl Into<Option<u64>>,
        what: impl Into<String>,
    ) -> StorageError {
        StorageError::Damaged {
            path: path.to_owned(),
            offset: offset.into(),
            what: what.into(),
            directory: directory.to_owned(),
        }
    }

    /// What is damaged, without what to do about it.
    pub(crate) fn finding(&self) -> String {
        match self {
            StorageError::Damaged {
                path, offset, what, ..
            } => format!("{} is damaged{}: {what}", path.display(), place(*offset)),
            other => other.to_string(),
        }
    }

    /// The same damage, of a node that nobody can help.
    pub(crate) fn for_sole_voter(&self) -> StorageError {
        match self {
            StorageError::Damaged {
                path,
                offset,
                what,
                directory,
            } => StorageError::Irreparable {
                path: path.clone(),
                offset: *offset,
                what: what.clone(),
                directory: directory.clone(),
            },
            _ => unreachable!("a log is refused since it is damaged"),
        }
    }

    /// Whether the device or the quota is full.
    pub fn is_full(&self) -> bool {
        matches!(self, StorageError::Io { source, .. }
            if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }
}

impl From<StorageError> for DiskError {
    fn from(error: StorageError) -> DiskError {
        DiskError(error.to_string())
    }
}
