//! A fresh cluster of three nodes of either side; what was started ends with the value.

use std::net::SocketAddr;
use std::path::PathBuf;

use quorate_api::{CreateStream, StreamRetention};
use quorate_client::{Client, Consistency};

use super::etcd::Etcd;
use super::metrics;
use super::nats::Nats;

/// Nodes on each side.
const NODES: usize = 3;

/// Which product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    Quorate,
    Etcd {
        /// With election 150 ms and heartbeat 30 ms instead of its defaults.
        short: bool,
    },
    Nats {
        /// Syncing each message before it is acknowledged, instead of every two minutes.
        sync_always: bool,
    },
}

impl Side {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Side::Quorate => "quorate",
            Side::Etcd { short: false } => "etcd",
            Side::Etcd { short: true } => "etcd 150/30",
            Side::Nats { sync_always: false } => "nats",
            Side::Nats { sync_always: true } => "nats, sync always",
        }
    }
}

/// Three processes.
pub(crate) enum Cluster {
    Quorate(quorate_tests::Cluster),
    Etcd(Etcd),
    Nats(Nats),
}

impl Cluster {
    /// Starts it on empty directories and waits until it serves.
    pub(crate) fn start(side: Side) -> Result<Cluster, String> {
        match side {
            Side::Quorate => Ok(Cluster::Quorate(quorate_tests::Cluster::started(NODES))),
            Side::Etcd { short } => Etcd::start(NODES, short).map(Cluster::Etcd),
            Side::Nats { sync_always } => Nats::start(NODES, sync_always).map(Cluster::Nats),
        }
    }

    pub(crate) fn side(&self) -> Side {
        match self {
            Cluster::Quorate(_) => Side::Quorate,
            Cluster::Etcd(etcd) => Side::Etcd { short: etcd.short },
            Cluster::Nats(nats) => Side::Nats {
                sync_always: nats.sync_always,
            },
        }
    }

    /// Where clients reach its nodes.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        match self {
            Cluster::Quorate(cluster) => cluster.addresses(),
            Cluster::Etcd(etcd) => etcd.addresses(),
            Cluster::Nats(nats) => nats.addresses(),
        }
    }

    /// The place of the leader.
    pub(crate) fn leader(&self) -> Result<usize, String> {
        match self {
            Cluster::Quorate(cluster) => Ok(cluster.leader()),
            Cluster::Etcd(etcd) => etcd.leader(),
            Cluster::Nats(_) => Err("NATS has a leader for each stream only".to_owned()),
        }
    }

    /// Kills a node with SIGKILL.
    pub(crate) fn kill(&mut self, place: usize) {
        match self {
            Cluster::Quorate(cluster) => cluster.nodes[place].kill(),
            Cluster::Etcd(etcd) => etcd.kill(place),
            Cluster::Nats(nats) => nats.kill(place),
        }
    }

    /// Starts a killed node again and waits until all serve.
    pub(crate) fn restart(&mut self, place: usize) -> Result<(), String> {
        match self {
            Cluster::Quorate(cluster) => {
                cluster.nodes[place].start();
                cluster.wait_until_ready();
                Ok(())
            }
            Cluster::Etcd(etcd) => etcd.restart(place),
            Cluster::Nats(nats) => nats.restart(place),
        }
    }

    pub(crate) fn process_ids(&self) -> Vec<u32> {
        match self {
            Cluster::Quorate(cluster) => cluster
                .running()
                .filter_map(quorate_tests::Node::process_id)
                .collect(),
            Cluster::Etcd(etcd) => etcd.process_ids(),
            Cluster::Nats(nats) => nats.process_ids(),
        }
    }

    /// The directory of each node, and which one in it has the log.
    pub(crate) fn data(&self) -> Vec<(PathBuf, PathBuf)> {
        match self {
            Cluster::Quorate(cluster) => {
                let directories = cluster.nodes.iter().map(|node| node.data.clone());
                directories.map(|data| (data.clone(), data.join("log"))).collect()
            }
            Cluster::Etcd(etcd) => etcd.data(),
            // Its streams are their logs.
            Cluster::Nats(_) => Vec::new(),
        }
    }

    /// Makes a stream that keeps so many bytes of records, and returns the place of its leader.
    pub(crate) async fn create_stream(&self, name: &str, bytes_max: u64) -> Result<usize, String> {
        let leader = match self {
            Cluster::Nats(nats) => return nats.create_stream(name, bytes_max).await,
            Cluster::Etcd(_) => return Err("etcd has no streams".to_owned()),
            Cluster::Quorate(cluster) => cluster.leader(),
        };
        let stream = CreateStream {
            name: name.to_owned(),
            partitions: 1,
            retention: StreamRetention {
                bytes: Some(bytes_max),
                ..StreamRetention::default()
            },
            duplicates: None,
        };
        let created = self.client(leader)?.create_stream(&stream).await;
        created.map_err(|error| error.to_string())?;
        // Answered by a node when it has applied all that was committed.
        for place in 0..self.addresses().len() {
            let known = self.client(place)?.stream(name, Consistency::Linearizable).await;
            known.map_err(|error| error.to_string())?;
        }
        Ok(leader)
    }

    pub(crate) async fn delete_stream(&self, name: &str) -> Result<(), String> {
        match self {
            Cluster::Nats(nats) => nats.delete_stream(name).await,
            Cluster::Etcd(_) => Err("etcd has no streams".to_owned()),
            Cluster::Quorate(_) => {
                let deleted = self.client(0)?.delete_stream(name).await;
                deleted.map(drop).map_err(|error| error.to_string())
            }
        }
    }

    /// A client of the node at this place.
    fn client(&self, place: usize) -> Result<Client, String> {
        Client::new(&self.addresses()[place].to_string()).map_err(|error| error.to_string())
    }

    /// How often all nodes together have synced their logs to disk; none where they do not say.
    pub(crate) fn syncs(&self) -> Result<Option<f64>, String> {
        let name = match self {
            Cluster::Quorate(_) => "quorate_fsync_duration_seconds_count",
            Cluster::Etcd(_) => "etcd_disk_wal_fsync_duration_seconds_count",
            Cluster::Nats(_) => return Ok(None),
        };
        let samples = self.addresses().into_iter().map(|address| {
            metrics::sample(address, name).ok_or_else(|| format!("{address} shows no metric {name}"))
        });
        samples.sum::<Result<f64, String>>().map(Some)
    }
}
