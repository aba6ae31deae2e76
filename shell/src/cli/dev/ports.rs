//! Ports for the nodes.
//!
//! A node takes its ports some moments after they were chosen, and gives them up for seconds when it is killed. Two
//! things keep them free for it. Ports that `dev` chooses lie outside the range from which the system takes those of
//! outgoing connections. And each `dev` keeps, as long as it runs, a name for each of its ports among the abstract
//! names of Unix sockets: like a port such a name belongs to one holder in the network namespace, and it goes with the
//! process. Another `dev` leaves such ports alone.

use std::fs;
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::ops::RangeInclusive;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use super::plan::{HOST, Node};

/// From a node's port for clients to its port for other nodes.
const CLUSTER_PORT_OFFSET: u16 = 100;
/// Where ports are looked for when the usual ones are taken.
const CANDIDATES: RangeInclusive<u16> = 8010..=11_890;
/// Room for the nodes of one cluster.
const STEP: usize = 10;

/// The ports of the nodes of one cluster, kept from other `dev`s as long as this lives.
#[derive(Debug)]
pub(super) struct Reservation {
    _names: Vec<UnixListener>,
}

impl Reservation {
    /// Reserves all ports of the nodes, or tells which one cannot be had.
    pub(super) fn take(nodes: &[Node]) -> Result<Reservation, (u16, io::Error)> {
        let ports = || {
            nodes
                .iter()
                .flat_map(|node| [node.client_port, node.cluster_port])
        };
        let name = |port: u16| {
            let name = SocketAddr::from_abstract_name(format!("quorate-dev-port-{port}"));
            name.and_then(|name| UnixListener::bind_addr(&name))
                .map_err(|error| (port, error))
        };
        let names = ports().map(name).collect::<Result<_, _>>()?;
        for node in nodes {
            TcpListener::bind((HOST, node.client_port)).map_err(|error| (node.client_port, error))?;
            UdpSocket::bind((HOST, node.cluster_port)).map_err(|error| (node.cluster_port, error))?;
        }
        Ok(Reservation { _names: names })
    }
}

/// Nodes with ports from `base_port` on.
pub(super) fn numbered(count: u16, base_port: u16) -> Vec<Node> {
    (0..count)
        .map(|index| {
            let client_port = base_port + index;
            Node::new(
                format!("node{}", index + 1),
                client_port,
                client_port + CLUSTER_PORT_OFFSET,
            )
        })
        .collect()
}

/// Nodes at ports that nobody has. Those that connections could take come last.
pub(super) fn free(count: u16) -> Result<(Vec<Node>, Reservation), io::Error> {
    let outgoing = outgoing_ports();
    let is_lasting = |nodes: &Vec<Node>| {
        let mut ports = nodes
            .iter()
            .flat_map(|node| [node.client_port, node.cluster_port]);
        !ports.any(|port| outgoing.contains(&port))
    };
    // The ports for nodes of one base are skipped as bases.
    let bases = CANDIDATES
        .step_by(STEP)
        .filter(|base| base % (2 * CLUSTER_PORT_OFFSET) < CLUSTER_PORT_OFFSET);
    let (lasting, passing): (Vec<_>, Vec<_>) = bases.map(|base| numbered(count, base)).partition(is_lasting);
    let mut last_error = io::ErrorKind::AddrInUse.into();
    for nodes in lasting.into_iter().chain(passing) {
        match Reservation::take(&nodes) {
            Ok(reservation) => return Ok((nodes, reservation)),
            Err((_, error)) => last_error = error,
        }
    }
    Err(last_error)
}

/// The ports that the system gives to outgoing connections.
fn outgoing_ports() -> RangeInclusive<u16> {
    const USUAL: RangeInclusive<u16> = 32_768..=60_999;
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut numbers = text.split_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(first)), Some(Ok(last))) => first..=last,
        _ => USUAL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_clusters_that_choose_at_the_same_moment_get_different_ports() {
        let clusters: Vec<_> = (0..3).map(|_| free(3).unwrap()).collect();
        let mut ports: Vec<u16> = clusters
            .iter()
            .flat_map(|(nodes, _)| nodes)
            .flat_map(|node| [node.client_port, node.cluster_port])
            .collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 18);
        let (nodes, reservation) = clusters.into_iter().next().unwrap();
        let (port, error) = Reservation::take(&nodes).unwrap_err();
        assert_eq!(
            (port, error.kind()),
            (nodes[0].client_port, io::ErrorKind::AddrInUse)
        );
        drop(reservation);
    }

    #[test]
    fn chosen_ports_are_not_those_of_outgoing_connections() {
        let outgoing = outgoing_ports();
        let (nodes, _reservation) = free(9).unwrap();
        // A machine may give out every port; then there is no other choice.
        let everything = CANDIDATES.clone().all(|port| outgoing.contains(&port));
        for node in nodes {
            for port in [node.client_port, node.cluster_port] {
                assert!(everything || !outgoing.contains(&port), "{port}");
            }
        }
    }
}
