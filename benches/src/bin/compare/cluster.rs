//! A fresh cluster of three nodes of either side; what was started ends with the value.

use std::net::SocketAddr;

use super::etcd::Etcd;
use super::metrics;

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
}

impl Side {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Side::Quorate => "quorate",
            Side::Etcd { short: false } => "etcd",
            Side::Etcd { short: true } => "etcd 150/30",
        }
    }
}

/// Three processes.
pub(crate) enum Cluster {
    Quorate(quorate_tests::Cluster),
    Etcd(Etcd),
}

impl Cluster {
    /// Starts it on empty directories and waits until it serves.
    pub(crate) fn start(side: Side) -> Result<Cluster, String> {
        match side {
            Side::Quorate => Ok(Cluster::Quorate(quorate_tests::Cluster::started(NODES))),
            Side::Etcd { short } => Etcd::start(NODES, short).map(Cluster::Etcd),
        }
    }

    pub(crate) fn side(&self) -> Side {
        match self {
            Cluster::Quorate(_) => Side::Quorate,
            Cluster::Etcd(etcd) => Side::Etcd { short: etcd.short },
        }
    }

    /// Where clients reach its nodes.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        match self {
            Cluster::Quorate(cluster) => cluster.addresses(),
            Cluster::Etcd(etcd) => etcd.addresses(),
        }
    }

    /// The place of the leader.
    pub(crate) fn leader(&self) -> Result<usize, String> {
        match self {
            Cluster::Quorate(cluster) => Ok(cluster.leader()),
            Cluster::Etcd(etcd) => etcd.leader(),
        }
    }

    /// Kills a node with SIGKILL.
    pub(crate) fn kill(&mut self, place: usize) {
        match self {
            Cluster::Quorate(cluster) => cluster.nodes[place].kill(),
            Cluster::Etcd(etcd) => etcd.kill(place),
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
        }
    }

    pub(crate) fn process_ids(&self) -> Vec<u32> {
        match self {
            Cluster::Quorate(cluster) => cluster
                .running()
                .filter_map(quorate_tests::Node::process_id)
                .collect(),
            Cluster::Etcd(etcd) => etcd.process_ids(),
        }
    }

    /// How often all nodes together have synced their logs to disk.
    pub(crate) fn syncs(&self) -> Result<f64, String> {
        let name = match self {
            Cluster::Quorate(_) => "quorate_fsync_duration_seconds_count",
            Cluster::Etcd(_) => "etcd_disk_wal_fsync_duration_seconds_count",
        };
        self.addresses()
            .into_iter()
            .map(|address| {
                metrics::sample(address, name).ok_or_else(|| format!("{address} shows no metric {name}"))
            })
            .sum()
    }
}
