//! Forcing a node that is stopped to start alone, in a new lineage (see [`ForcedStart`]).
//!
//! The data directory is claimed, so that no process runs on it, and opened as a node that starts would open it. One
//! write to the log makes the start; the identity follows, now or when the node starts ([`DataDirectory::follow`]).
//!
//! Invariant: no snapshot outlives the start that holds more than the node's own state. The lineage that ends may have
//! sent it, and its entries are none of the one that begins.

use std::path::Path;

use quorate_core::raft::{self, Base, Boot, ForcedStart, ForcedStartError, Index, Lineage, NodeId, Position};
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
    /// Up to where the node's own state goes, and its snapshots; none of a witness.
    data: Option<(Index, Snapshots)>,
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
        let data = if is_witness(&begin, assignment.node) {
            None
        } else {
            let snapshots = Snapshots::open(ports, &directory.snapshots_path())?;
            let store =
                StateStore::open_behind(ports, &directory.state_path(), &snapshots, Some(&begin)).await?;
            let loaded = store.loaded();
            let position = loaded.applied;
            let state = loaded.membership.map(|membership| Base { position, membership });
            log.fit_to(state.as_ref().unwrap_or(&begin), &mut recovered)
                .await?;
            Some((position.index, snapshots))
        };
        let applied = data
            .as_ref()
            .map_or(begin.position.index, |(applied, _)| *applied);
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
            data,
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
            data,
            ..
        } = self;
        if let Some((applied, snapshots)) = data {
            for position in snapshots.list()? {
                if position.index > applied {
                    snapshots.remove(position)?;
                }
            }
        }
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use quorate_core::raft::{
        DirectoryId, Entry, HardState, Member, Membership, Payload, Term, Write, WriteId,
    };

    use super::*;
    use crate::storage::testing::{Disk, Random, ports, run};
    use crate::storage::{Assignment, Owner, SnapshotHeader};

    const HOME: &str = "/data";
    const OLD: Lineage = Lineage(9);

    fn owner() -> Owner {
        Owner {
            name: "b".to_owned(),
            cluster: "test".to_owned(),
        }
    }

    fn three() -> Membership {
        let member = |id: u64| Member::named(id.to_string(), DirectoryId(u128::from(id)));
        let members: BTreeMap<NodeId, Member> = (1..=3).map(|id| (NodeId(id), member(id))).collect();
        Membership::bootstrap(OLD, members)
    }

    fn at(term: u64, index: u64) -> Position {
        Position {
            term: Term(term),
            index: Index(index),
        }
    }

    /// The data directory of a member of three, with a log up to 5@2.
    async fn member_of_three(disk: &Disk) {
        let ports = ports(disk);
        let mut directory = DataDirectory::open(&ports, Path::new(HOME), &owner())
            .await
            .expect("a new directory");
        let (mut log, _) = Log::open(&ports, directory.path(), LogOptions::default())
            .await
            .expect("a blank log");
        let base = Base {
            position: Position::default(),
            membership: three(),
        };
        log.initialize(base).await.expect("it begins");
        let entry = |index| Entry {
            position: at(2, index),
            payload: Payload::Command(Bytes::from_static(b"x")),
        };
        let write = Write {
            id: WriteId(1),
            hard_state: Some(HardState {
                term: Term(2),
                vote: Some(NodeId(1)),
            }),
            reset: None,
            entries: (1..=5).map(entry).collect::<Vec<_>>().into(),
        };
        log.append(&[write]).await.expect("it is written");
        log.close().await;
        let assignment = Assignment {
            lineage: OLD,
            node: NodeId(2),
        };
        directory.assign(assignment).await.expect("it is recorded");
    }

    async fn force(disk: &Disk) -> Result<Lineage, ForceError> {
        let prepared = Prepared::open(&ports(disk), Path::new(HOME)).await?;
        let lineage = prepared.lineage();
        prepared.make().await.map(|()| lineage)
    }

    /// The last entry, the term, and the lineage that a node begins or goes on with when it starts.
    async fn found(disk: &Disk) -> (Position, Term, Lineage) {
        let ports = ports(disk);
        let mut directory = DataDirectory::open(&ports, Path::new(HOME), &owner())
            .await
            .expect("the directory of the node");
        let (log, recovered) = Log::open(&ports, directory.path(), LogOptions::default())
            .await
            .expect("the log is whole");
        log.close().await;
        let assigned = directory
            .identity()
            .assignment
            .expect("it belongs to a cluster")
            .lineage;
        if let Some(lineage) = lineage_since(&recovered, assigned) {
            directory.follow(lineage).await.expect("it is recorded");
        }
        let term = recovered.terms.last().map_or(Term(0), |start| start.term);
        let last = Position {
            term,
            index: recovered.last,
        };
        let lineage = directory
            .identity()
            .assignment
            .expect("it belongs to a cluster")
            .lineage;
        (last, recovered.hard_state.term, lineage)
    }

    #[test]
    fn power_cut_at_any_moment_leaves_the_old_lineage_or_the_new_one() {
        let template = Disk::default();
        run(member_of_three(&template));
        template.kill();
        let (mut old, mut new) = (0, 0);
        for operations in (0..).step_by(5) {
            let disk = template.copy();
            disk.stop_after(operations);
            let made = run(force(&disk));
            disk.power_cut(&mut Random::new(operations));
            let (last, term, lineage) = run(found(&disk));
            if lineage == OLD {
                assert!(made.is_err(), "a start that was forced is not forgotten");
                assert_eq!((last, term), (at(2, 5), Term(2)), "after {operations} operations");
                old += 1;
            } else {
                assert_eq!((last, term), (at(3, 6), Term(3)), "after {operations} operations");
                new += 1;
            }
            if let Ok(made) = made {
                assert_eq!(made, lineage);
                break;
            }
        }
        assert!(old > 5 && new > 1, "both were seen: {old} and {new}");
    }

    #[test]
    fn start_is_forced_again_and_every_lineage_before_is_remembered() {
        let disk = Disk::default();
        let (first, second, membership) = run(async {
            member_of_three(&disk).await;
            let first = force(&disk).await.expect("it is forced");
            let second = force(&disk).await.expect("it is forced again");
            let (log, recovered) = Log::open(&ports(&disk), Path::new(HOME), LogOptions::default())
                .await
                .expect("the log is whole");
            log.close().await;
            let (_, membership) = recovered.memberships.last().cloned().expect("the last one");
            (first, second, membership)
        });
        assert_eq!(membership.lineage(), second);
        assert!(membership.fork_of(OLD).is_some() && membership.fork_of(first).is_some());
    }

    #[test]
    fn snapshots_of_the_ended_lineage_that_go_beyond_the_state_are_removed() {
        let disk = Disk::default();
        let kept = run(async {
            member_of_three(&disk).await;
            let directory = DataDirectory::open(&ports(&disk), Path::new(HOME), &owner())
                .await
                .expect("the directory of the node");
            let path = directory.snapshots_path();
            drop(directory);
            let snapshots = Snapshots::open(&ports(&disk), &path).expect("a blank directory");
            for position in [at(0, 0), at(2, 5), at(7, 9)] {
                let membership = three();
                let base = Base { position, membership };
                let writer = snapshots.create(SnapshotHeader { base }).expect("it begins");
                writer.finish().await.expect("it is written");
            }
            force(&disk).await.expect("it is forced");
            snapshots.list().expect("it is read")
        });
        assert_eq!(kept, [at(0, 0)]);
    }
}
