//! The data directory: who it belongs to, and that only one process uses it.
//!
//! The identity file is written whole: a temporary file is synced, renamed over the old one, and the directory is
//! synced, so that there is always exactly one valid identity. The blank log is created before the first identity: a
//! directory with an identity always has a log, and a log that is gone is noticed.

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use quorate_core::raft::{DirectoryId, Lineage, NodeId};
use quorate_core::wire::Kind;
use serde::{Deserialize, Serialize};

use super::SEGMENT_BYTES;
use super::StorageError;
use super::log;
use super::small::{self, Format};
use crate::port::Ports;

/// The part a node was given in a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The history of the cluster.
    pub lineage: Lineage,
    /// The node's consensus id in it.
    pub node: NodeId,
}

/// Whose directory it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Made when the directory was first used.
    pub directory: DirectoryId,
    /// The name of the node.
    pub name: String,
    /// The name of the cluster.
    pub cluster: String,
    /// Set once the node belongs to a cluster.
    pub assignment: Option<Assignment>,
}

/// Who wants to use a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The configured name of the node.
    pub name: String,
    /// The configured name of the cluster.
    pub cluster: String,
}

/// A claimed data directory. Another process can claim it once this is dropped.
pub struct DataDirectory {
    ports: Ports,
    path: PathBuf,
    identity: Identity,
    _lock: Box<dyn Send + Sync>,
}

const IDENTITY: &str = "identity";
const STATE: &str = "state.redb";
const SNAPSHOTS: &str = "snapshots";
/// The format of the identity file.
pub(super) const FORMAT: Format = Format {
    magic: *b"QUORIDEN",
    kind: Kind::Identity,
    what: "an identity",
};

impl DataDirectory {
    /// Claims `path` for `owner`, and creates it with an identity and a blank log when it is new.
    ///
    /// # Errors
    /// When the directory is in use, belongs to another node or cluster, is damaged, was written by a newer version,
    /// or the disk fails.
    pub async fn open(ports: &Ports, path: &Path, owner: &Owner) -> Result<DataDirectory, StorageError> {
        DataDirectory::open_with(ports, path, owner, SEGMENT_BYTES).await
    }

    /// As [`DataDirectory::open`]; the log of a new directory begins with a segment of `segment_bytes`.
    ///
    /// # Errors
    /// As [`DataDirectory::open`].
    pub async fn open_with(
        ports: &Ports,
        path: &Path,
        owner: &Owner,
        segment_bytes: u64,
    ) -> Result<DataDirectory, StorageError> {
        create_durably(ports, path)?;
        let lock = lock(ports, path)?;
        let identity = match small::read(ports, path, &path.join(IDENTITY), &FORMAT)? {
            Some(identity) => {
                check_owner(path, &identity, owner)?;
                identity
            }
            None => create(ports, path, owner, segment_bytes).await?,
        };
        Ok(DataDirectory {
            ports: ports.clone(),
            path: path.to_owned(),
            identity,
            _lock: lock,
        })
    }

    /// Claims the directory of a node that is stopped, whoever it belongs to. Nothing is created.
    ///
    /// # Errors
    /// When it is in use, no data directory, damaged, was written by a newer version, or the disk fails.
    pub fn claim(ports: &Ports, path: &Path) -> Result<DataDirectory, StorageError> {
        let identity = path.join(IDENTITY);
        let found = ports
            .files
            .exists(&identity)
            .map_err(StorageError::io("look for", &identity))?;
        if !found {
            return Err(StorageError::NoDirectory {
                directory: path.to_owned(),
            });
        }
        let lock = lock(ports, path)?;
        let identity = small::read(ports, path, &identity, &FORMAT)?.ok_or(StorageError::NoDirectory {
            directory: path.to_owned(),
        })?;
        Ok(DataDirectory {
            ports: ports.clone(),
            path: path.to_owned(),
            identity,
            _lock: lock,
        })
    }

    /// Where the directory is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whose it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The database of the state machine's rows.
    pub fn state_path(&self) -> PathBuf {
        self.path.join(STATE)
    }

    /// Where snapshots are kept.
    pub fn snapshots_path(&self) -> PathBuf {
        self.path.join(SNAPSHOTS)
    }

    /// Records, durably, which part the node has in which cluster. Repeating the same assignment does nothing.
    ///
    /// # Errors
    /// When the directory was assigned to another lineage, or the disk fails.
    pub async fn assign(&mut self, assignment: Assignment) -> Result<(), StorageError> {
        if self.identity.assignment == Some(assignment) {
            return Ok(());
        }
        self.expect_lineage(assignment.lineage)?;
        self.record(assignment).await
    }

    /// Records, durably, that the node was forced to start: its log began `lineage`, which counts.
    ///
    /// # Errors
    /// When the disk fails.
    ///
    /// # Panics
    /// When the directory belongs to no cluster.
    pub async fn follow(&mut self, lineage: Lineage) -> Result<(), StorageError> {
        let assignment = self.identity.assignment;
        let node = assignment
            .expect("a node that was forced to start belongs to a cluster")
            .node;
        self.record(Assignment { lineage, node }).await
    }

    async fn record(&mut self, assignment: Assignment) -> Result<(), StorageError> {
        let identity = Identity {
            assignment: Some(assignment),
            ..self.identity.clone()
        };
        small::write(&self.ports, &self.path.join(IDENTITY), &FORMAT, &identity).await?;
        self.identity = identity;
        Ok(())
    }

    /// Checks that the directory belongs to `lineage`, or to no cluster yet.
    ///
    /// # Errors
    /// When it belongs to another.
    pub fn expect_lineage(&self, lineage: Lineage) -> Result<(), StorageError> {
        match self.identity.assignment {
            Some(found) if found.lineage != lineage => Err(StorageError::OtherCluster {
                directory: self.path.clone(),
                found: format!("lineage {}", found.lineage),
                expected: format!("lineage {lineage}"),
            }),
            _ => Ok(()),
        }
    }
}

fn lock(ports: &Ports, path: &Path) -> Result<Box<dyn Send + Sync>, StorageError> {
    ports.files.lock(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock => StorageError::Locked {
            directory: path.to_owned(),
        },
        _ => StorageError::io("lock", path)(error),
    })
}

fn check_owner(directory: &Path, identity: &Identity, owner: &Owner) -> Result<(), StorageError> {
    if identity.name != owner.name {
        return Err(StorageError::OtherNode {
            directory: directory.to_owned(),
            found: identity.name.clone(),
            expected: owner.name.clone(),
        });
    }
    if identity.cluster != owner.cluster {
        return Err(StorageError::OtherCluster {
            directory: directory.to_owned(),
            found: format!("cluster {:?}", identity.cluster),
            expected: format!("cluster {:?}", owner.cluster),
        });
    }
    Ok(())
}

/// Makes a directory and its parents, and their names durable.
fn create_durably(ports: &Ports, path: &Path) -> Result<(), StorageError> {
    let files = &ports.files;
    let mut created = Vec::new();
    for ancestor in path.ancestors().filter(|ancestor| *ancestor != Path::new("")) {
        if files
            .exists(ancestor)
            .map_err(StorageError::io("look for", ancestor))?
        {
            break;
        }
        created.push(ancestor);
    }
    files
        .create_directory(path)
        .map_err(StorageError::io("create", path))?;
    for directory in created.into_iter().rev() {
        let parent = match directory.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        files
            .sync_directory(parent)
            .map_err(StorageError::io("sync", parent))?;
    }
    Ok(())
}

/// Makes the identity of a new directory, after its blank log.
async fn create(
    ports: &Ports,
    path: &Path,
    owner: &Owner,
    segment_bytes: u64,
) -> Result<Identity, StorageError> {
    let missing = || StorageError::IdentityMissing {
        path: path.join(IDENTITY),
        directory: path.to_owned(),
    };
    let state = path.join(STATE);
    if ports
        .files
        .exists(&state)
        .map_err(StorageError::io("look for", &state))?
    {
        return Err(missing());
    }
    // A power cut may have come between the log and the identity; such a log is blank.
    if !log::create(ports, path, segment_bytes).await? {
        return Err(missing());
    }
    let mut directory = [0; 16];
    ports
        .entropy
        .fill(&mut directory)
        .map_err(StorageError::io("draw an id for", path))?;
    let identity = Identity {
        directory: DirectoryId(u128::from_le_bytes(directory)),
        name: owner.name.clone(),
        cluster: owner.cluster.clone(),
        assignment: None,
    };
    small::write(ports, &path.join(IDENTITY), &FORMAT, &identity).await?;
    Ok(identity)
}

/// Decodes arbitrary bytes as an identity.
pub(super) fn feed(input: &[u8]) {
    small::feed::<Identity>(&FORMAT, input);
}
