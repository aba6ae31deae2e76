use std::sync::Arc;

use super::super::small::{CHECKSUM_BYTES, HEADER_BYTES};
use super::super::testing::{Disk, Random, ports, run};
use super::super::{Log, LogOptions};
use super::*;
use crate::port::system::{self, ListenerOptions};
use quorate_core::raft::{Base, HardState, Member, Membership, Position, Term, Write, WriteId};
use quorate_core::wire;

fn home() -> PathBuf {
    PathBuf::from("/data")
}

fn owner(name: &str, cluster: &str) -> Owner {
    Owner {
        name: name.to_owned(),
        cluster: cluster.to_owned(),
    }
}

async fn open(disk: &Disk) -> Result<DataDirectory, StorageError> {
    DataDirectory::open(&ports(disk), &home(), &owner("a", "c")).await
}

const ASSIGNMENT: Assignment = Assignment {
    lineage: Lineage(5),
    node: NodeId(2),
};

#[test]
fn an_identity_stays_and_takes_an_assignment() {
    run(async {
        let disk = Disk::default();
        let mut directory = open(&disk).await.expect("a new directory");
        let identity = directory.identity().clone();
        assert_eq!((identity.name.as_str(), identity.assignment), ("a", None));
        directory
            .expect_lineage(Lineage(1))
            .expect("it belongs to no cluster yet");
        directory.assign(ASSIGNMENT).await.expect("assigned");
        disk.power_cut(&mut Random::new(1));
        drop(directory);
        let directory = open(&disk).await.expect("it opens again");
        assert_eq!(directory.identity().directory, identity.directory);
        assert_eq!(directory.identity().assignment, Some(ASSIGNMENT));
        let error = directory.expect_lineage(Lineage(6)).expect_err("another lineage");
        assert!(error.to_string().contains("belongs to lineage"), "{error}");
    });
}

#[test]
fn a_directory_of_another_node_or_cluster_is_refused_with_the_way_out() {
    run(async {
        let disk = Disk::default();
        drop(open(&disk).await.expect("a new directory"));
        let ports = ports(&disk);
        let opened = DataDirectory::open(&ports, &home(), &owner("b", "c")).await;
        let text = opened.err().expect("another node").to_string();
        for part in [
            "/data",
            "node \"a\"",
            "node \"b\"",
            "give it a data directory of its own",
        ] {
            assert!(text.contains(part), "{text}");
        }
        let opened = DataDirectory::open(&ports, &home(), &owner("a", "d")).await;
        let text = opened.err().expect("another cluster").to_string();
        for part in [
            "/data",
            "cluster \"c\"",
            "cluster \"d\"",
            "data directory of its own",
        ] {
            assert!(text.contains(part), "{text}");
        }
    });
}

#[test]
fn every_flipped_byte_of_an_identity_is_noticed() {
    run(async {
        let disk = Disk::default();
        let mut directory = open(&disk).await.expect("a new directory");
        directory.assign(ASSIGNMENT).await.expect("assigned");
        drop(directory);
        let path = home().join(IDENTITY);
        let length = disk.content(&path).len();
        for offset in 0..length {
            for bit in 0..8 {
                let copy = disk.copy();
                copy.tamper(&path, |content| content[offset] ^= 1 << bit);
                let error = open(&copy).await.err().expect("it is noticed");
                assert!(matches!(error, StorageError::Damaged { .. }), "{error}");
                assert!(error.to_string().contains("/data/identity"), "{error}");
            }
            let copy = disk.copy();
            copy.tamper(&path, |content| content.truncate(offset));
            assert!(open(&copy).await.is_err(), "cut to {offset}");
        }
    });
}

#[test]
fn an_identity_of_a_newer_version_is_refused_untouched() {
    run(async {
        let disk = Disk::default();
        drop(open(&disk).await.expect("a new directory"));
        let path = home().join(IDENTITY);
        disk.tamper(&path, |content| {
            content[HEADER_BYTES + 1] = wire::VERSION + 1;
            let covered = content.len() - CHECKSUM_BYTES;
            let checksum = crc32c::crc32c(&content[..covered]);
            content[covered..].copy_from_slice(&checksum.to_le_bytes());
        });
        let before: Vec<_> = disk.paths().iter().map(|path| disk.content(path)).collect();
        let error = open(&disk).await.err().expect("newer");
        assert!(matches!(error, StorageError::Newer { found: 2, .. }), "{error}");
        let after: Vec<_> = disk.paths().iter().map(|path| disk.content(path)).collect();
        assert_eq!(before, after);
    });
}

#[test]
fn a_lost_identity_or_a_lost_log_is_noticed() {
    run(async {
        let disk = Disk::default();
        let directory = open(&disk).await.expect("a new directory");
        let blank = disk.copy();
        let options = LogOptions::default();
        let (mut log, _) = Log::open(&ports(&disk), &home(), options.clone())
            .await
            .expect("it opens");
        let vote = Write {
            id: WriteId(1),
            hard_state: Some(HardState {
                term: Term(4),
                vote: Some(NodeId(1)),
            }),
            reset: None,
            entries: Vec::new().into(),
        };
        log.append(&[vote]).await.expect("written");
        drop((log, directory));

        let lost = disk.copy();
        lost.delete(&home().join(IDENTITY));
        let error = open(&lost).await.err().expect("a vote would be lost");
        assert!(matches!(error, StorageError::IdentityMissing { .. }), "{error}");

        for path in disk.paths() {
            if path.extension().is_some_and(|extension| extension == "log") {
                disk.delete(&path);
            }
        }
        disk.kill();
        drop(open(&disk).await.expect("the identity is there"));
        let error = Log::open(&ports(&disk), &home(), options)
            .await
            .err()
            .expect("the log is gone");
        assert!(error.to_string().contains("/data/log"), "{error}");

        // A power cut between the blank log and the identity.
        blank.delete(&home().join(IDENTITY));
        blank.kill();
        drop(open(&blank).await.expect("nothing is lost"));
    });
}

#[test]
fn a_first_start_cut_anywhere_is_repeated() {
    run(async {
        let mut finished = false;
        for fuel in (0..400).step_by(7) {
            let disk = Disk::default();
            disk.stop_after(fuel);
            finished = open(&disk).await.is_ok();
            disk.power_cut(&mut Random::new(fuel));
            drop(
                open(&disk)
                    .await
                    .unwrap_or_else(|error| panic!("cut after {fuel}: {error}")),
            );
            let opened = Log::open(&ports(&disk), &home(), LogOptions::default()).await;
            opened.unwrap_or_else(|error| panic!("cut after {fuel}: {error}"));
            if finished {
                break;
            }
        }
        assert!(finished, "the first start came to its end");
    });
}

#[test]
fn a_directory_in_use_is_refused() {
    run(async {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("deep").join("node");
        let ports = Ports {
            executor: ports(&Disk::default()).executor,
            ..system::ports(ListenerOptions {
                tcp_nodelay: true,
                keepalive: false,
            })
        };
        let owner = owner("a", "c");
        let directory = DataDirectory::open(&ports, &path, &owner)
            .await
            .expect("a new directory");
        let error = DataDirectory::open(&ports, &path, &owner)
            .await
            .err()
            .expect("it is in use");
        assert!(error.to_string().contains("in use by another process"), "{error}");
        drop(directory);
        DataDirectory::open(&ports, &path, &owner)
            .await
            .expect("it is free again");
    });
}

#[test]
fn a_log_on_a_real_disk_comes_back() {
    run(async {
        let root = tempfile::tempdir().expect("a directory");
        let ports = system::ports(ListenerOptions {
            tcp_nodelay: true,
            keepalive: false,
        });
        let owner = owner("a", "c");
        let directory = DataDirectory::open(&ports, root.path(), &owner)
            .await
            .expect("a new directory");
        let observed = Arc::new(std::sync::atomic::AtomicU64::new(0));
        let counter = Arc::clone(&observed);
        let options = LogOptions {
            observer: Some(Arc::new(move |_| {
                counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            })),
            ..LogOptions::default()
        };
        let (mut log, recovered) = Log::open(&ports, root.path(), options.clone())
            .await
            .expect("it opens");
        assert_eq!(recovered.base, None);
        let member = Member::new("a", directory.identity().directory, "127.0.0.1:1", "127.0.0.1:2");
        let base = Base {
            position: Position::default(),
            membership: Membership::bootstrap(Lineage(1), [(NodeId(1), member)].into()),
        };
        log.initialize(base.clone()).await.expect("written");
        assert_eq!(observed.load(std::sync::atomic::Ordering::Relaxed), 1);
        drop(log);
        let (_, recovered) = Log::open(&ports, root.path(), options)
            .await
            .expect("it opens again");
        assert_eq!(recovered.base, Some(base));
    });
}
