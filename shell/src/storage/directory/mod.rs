//! The data directory: who it belongs to, and that only one process uses it.
//!
//! The identity file is written whole: a temporary file is synced, renamed over the old one, and the directory is
//! synced, so that there is always exactly one valid identity. The blank log is created before the first identity: a
//! directory with an identity always has a log, and a log that is gone is noticed.

/// Decodes arbitrary bytes as an identity, as they are and as the body of one that verifies.
pub(super) fn feed(input: &[u8]) {
    let _ = decode_identity(input);
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&u32::try_from(input.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend_from_slice(input);
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    let _ = decode_identity(&bytes);
}

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use quorate_core::raft::{DirectoryId, Lineage, NodeId};
use quorate_core::wire::{self, DecodeError, Kind};
use serde::{Deserialize, Serialize};

use super::StorageError;
use super::log;
use crate::port::{OpenMode, Ports};

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
const MAGIC: [u8; 8] = *b"QUORIDEN";
/// Magic and length before the body, a checksum after it.
const HEADER_BYTES: usize = MAGIC.len() + 4;
const CHECKSUM_BYTES: usize = 4;
/// No identity is near this size; a bound for what is read from a damaged file.
const IDENTITY_BYTES_MAX: u64 = 64 << 10;

impl DataDirectory {
    /// Claims `path` for `owner`, and creates it with an identity and a blank log when it is new.
    ///
    /// # Errors
    /// When the directory is in use, belongs to another node or cluster, is damaged, was written by a newer version,
    /// or the disk fails.
    pub async fn open(ports: &Ports, path: &Path, owner: &Owner) -> Result<DataDirectory, StorageError> {
        create_durably(ports, path)?;
        let lock = ports.files.lock(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock => StorageError::Locked {
                directory: path.to_owned(),
            },
            _ => StorageError::io("lock", path)(error),
        })?;
        let identity = match read_identity(ports, path)? {
            Some(identity) => {
                check_owner(path, &identity, owner)?;
                identity
            }
            None => create(ports, path, owner).await?,
        };
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
        let identity = Identity {
            assignment: Some(assignment),
            ..self.identity.clone()
        };
        write_identity(&self.ports, &self.path, &identity).await?;
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
async fn create(ports: &Ports, path: &Path, owner: &Owner) -> Result<Identity, StorageError> {
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
    if !log::create(ports, path).await? {
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
    write_identity(ports, path, &identity).await?;
    Ok(identity)
}

/// Replaces the identity, atomically and durably.
async fn write_identity(ports: &Ports, directory: &Path, identity: &Identity) -> Result<(), StorageError> {
    replace(
        ports,
        directory,
        &directory.join(IDENTITY),
        &encode_identity(identity),
    )
    .await
}

/// Magic, length of the body (4), body, CRC32C of all of it (4).
pub(super) fn encode_identity(identity: &Identity) -> Vec<u8> {
    let body = wire::encode(Kind::Identity, identity);
    let length = u32::try_from(body.len()).expect("an identity is small");
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&body);
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    bytes
}

/// Writes a small file whole: all of it is there after a crash, or what was there before.
async fn replace(ports: &Ports, directory: &Path, path: &Path, bytes: &[u8]) -> Result<(), StorageError> {
    let files = &ports.files;
    let temporary = path.with_extension("tmp");
    if files
        .exists(&temporary)
        .map_err(StorageError::io("look for", &temporary))?
    {
        files
            .remove(&temporary)
            .map_err(StorageError::io("remove", &temporary))?;
    }
    let file = files
        .open(&temporary, OpenMode::CreateNew)
        .map_err(StorageError::io("create", &temporary))?;
    file.write_all_at(bytes, 0)
        .map_err(StorageError::io("write", &temporary))?;
    file.sync().await.map_err(StorageError::io("sync", &temporary))?;
    files
        .rename(&temporary, path)
        .map_err(StorageError::io("rename", &temporary))?;
    files
        .sync_directory(directory)
        .map_err(StorageError::io("sync", directory))
}

/// The identity of a directory, or nothing where there is none yet.
fn read_identity(ports: &Ports, directory: &Path) -> Result<Option<Identity>, StorageError> {
    let path = directory.join(IDENTITY);
    if !ports
        .files
        .exists(&path)
        .map_err(StorageError::io("look for", &path))?
    {
        return Ok(None);
    }
    let file = ports
        .files
        .open(&path, OpenMode::Read)
        .map_err(StorageError::io("open", &path))?;
    let length = file.length().map_err(StorageError::io("measure", &path))?;
    let damaged = |offset: u64, what: &str| StorageError::damaged(directory, &path, offset, what);
    if length > IDENTITY_BYTES_MAX {
        return Err(damaged(0, "it is too long for an identity"));
    }
    let mut bytes = vec![0; usize::try_from(length).expect("bounded above")];
    file.read_exact_at(&mut bytes, 0)
        .map_err(StorageError::io("read", &path))?;
    match decode_identity(&bytes) {
        Ok(identity) => Ok(Some(identity)),
        Err(Undecoded::Newer(found)) => Err(StorageError::Newer {
            path,
            found,
            supported: wire::VERSION,
        }),
        Err(Undecoded::Damaged(offset, what)) => Err(damaged(offset, &what)),
    }
}

enum Undecoded {
    Newer(u8),
    Damaged(u64, String),
}

fn decode_identity(bytes: &[u8]) -> Result<Identity, Undecoded> {
    let damaged = |offset: usize, what: &str| Undecoded::Damaged(offset as u64, what.to_owned());
    if !bytes.starts_with(&MAGIC) {
        return Err(damaged(0, "it does not begin like an identity"));
    }
    if bytes.len() < HEADER_BYTES + CHECKSUM_BYTES {
        return Err(damaged(bytes.len(), "it ends too early"));
    }
    let (covered, checksum) = bytes.split_at(bytes.len() - CHECKSUM_BYTES);
    if crc32c::crc32c(covered).to_le_bytes() != checksum {
        return Err(damaged(covered.len(), "the checksum does not match"));
    }
    let (header, body) = covered.split_at(HEADER_BYTES);
    if header[MAGIC.len()..] != u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes() {
        return Err(damaged(MAGIC.len(), "the length does not match"));
    }
    wire::decode(Kind::Identity, body).map_err(|error| match error {
        DecodeError::Newer { found, .. } => Undecoded::Newer(found),
        other => Undecoded::Damaged(HEADER_BYTES as u64, other.to_string()),
    })
}
