//! Forcing a node that is stopped to start alone, in a new lineage (see [`ForcedStart`]).
//!
//! The data directory is claimed, so that no process runs on it, and opened as a node that starts would open it. One
//! write to the log makes the start; the identity follows, now or when the node starts ([`DataDirectory::follow`]).

use std::path::Path;

use quorate_core::raft::{self, Base, Boot, ForcedStart, ForcedStartError, Lineage, NodeId, Position};
use thiserror::Error;

use crate::port::Ports;
use crate::storage::{DataDirectory, Log, LogOptions, Recovered, Snapshots, StateStore, StorageError};

/// Why a start could not be forced. Nothing was changed then, unless the disk failed.
#[derive(Debug, Error)]
pub enum ForceError {
    /// The data directory cannot be used, or its node runs.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The directory belongs to no cluster.
    #[error(
        "the data directory {0} belongs to no cluster yet: there is nothing that a forced start could keep"
    )]
    Blank(String),
    /// The node cannot lead a cluster alone.
    #[error("the data directory {path} cannot be started alone: {source}")]
    Refused {
        /// The data directory.
        path: String,
        /// Why.
        source: ForcedStartError,
    },
    /// The write failed; whether the start is forced shows at the next start.
    #[error("the forced start could not be written: {0}")]
    Disk(#[from] raft::DiskError),
    /// The system has no entropy.
    #[error("no random bytes for the new lineage: {0}")]
    Entropy(std::io::Error),
}

/// A forced start that was prepared and not made yet. The data directory is claimed as long as it is held.
pub struct Prepared {
    directory: DataDirectory,
    log: Log,
    lineage: Lineage,
    start: ForcedStart,
    /// Where the log ended, at the most, before damage took its end.
    damaged: Option<Position>,
}

impl Prepared {
    /// Opens the data directory at `path` and finds out what a forced start of its node would keep and leave behind.
    ///
    /// # Errors
    /// When the node runs, its directory cannot be used, or it cannot lead a cluster alone.
    pub async fn open(ports: &Ports, path: &Path) -> Result<Prepared, ForceError> {
        let directory = DataDirectory::claim(ports, path)?;
        let shown = || path.display().to_string();
        let Some(assignment) = directory.identity().assignment else {
            return Err(ForceError::Blank(shown()));
        };
        let options = LogOptions {
            node: Some(assignment.node),
            ..LogOptions::default()
        };
        let (mut log, mut recovered) = Log::open(ports, directory.path(), options).await?;
        let Some(begin) = recovered.base.clone() else {
            return Err(ForceError::Blank(shown()));
        };
        let damaged = recovered.repair;
        let applied = if is_witness(&begin, assignment.node) {
            begin.position.index
        } else {
            let snapshots = Snapshots::open(ports, &directory.snapshots_path())?;
            let store =
                StateStore::open_behind(ports, &directory.state_path(), &snapshots, Some(&begin)).await?;
            let loaded = store.loaded();
            let position = loaded.applied;
            let state = loaded.membership.map(|membership| Base { position, membership });
            log.fit_to(state.as_ref().unwrap_or(&begin), &mut recovered)
                .await?;
            position.index
        };
        let boot = Boot {
            id: assignment.node,
            hard_state: recovered.hard_state,
            base: recovered.base.clone().unwrap_or(begin),
            terms: recovered.terms,
            memberships: recovered.memberships,
            last: recovered.last,
            tail: recovered.tail,
            applied,
            repair: recovered.repair,
        };
        let mut bytes = [0; 16];
        ports.entropy.fill(&mut bytes).map_err(ForceError::Entropy)?;
        let lineage = Lineage(u128::from_le_bytes(bytes));
        let start = boot
            .forced(lineage, &raft::Config::default())
            .map_err(|source| ForceError::Refused {
                path: shown(),
                source,
            })?;
        Ok(Prepared {
            directory,
            log,
            lineage,
            start,
            damaged,
        })
    }

    /// The name of the node.
    pub fn node(&self) -> &str {
        &self.directory.identity().name
    }

    /// The name of its cluster.
    pub fn cluster(&self) -> &str {
        &self.directory.identity().cluster
    }

    /// The lineage that will begin.
    pub fn lineage(&self) -> Lineage {
        self.lineage
    }

    /// What is kept and who is left out.
    pub fn start(&self) -> &ForcedStart {
        &self.start
    }

    /// Where the log ended, at the most, before damage took its end; none when it is whole.
    pub fn damaged(&self) -> Option<Position> {
        self.damaged
    }

    /// Forces the start. When this returns, the node begins its new lineage at its next start.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn make(self) -> Result<(), ForceError> {
        let Prepared {
            mut directory,
            mut log,
            lineage,
            start,
            ..
        } = self;
        log.append(&[start.write]).await?;
        log.close().await;
        directory.follow(lineage).await?;
        Ok(())
    }
}

fn is_witness(base: &Base, node: NodeId) -> bool {
    base.membership.is_witness(node)
}

/// The lineage that a node which was assigned to `assigned` was forced to begin since; none when it was not.
pub(super) fn lineage_since(recovered: &Recovered, assigned: Lineage) -> Option<Lineage> {
    let base = recovered.base.as_ref().map(|base| &base.membership);
    let last = recovered.memberships.last().map(|(_, membership)| membership);
    let in_force = last.or(base)?;
    in_force.fork_of(assigned).map(|_| in_force.lineage())
}
