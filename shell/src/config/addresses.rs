//! Who this node is, where it listens, and where others reach it.

use std::net::IpAddr;

use quorate_api::NodeName;

use super::load::{Source, host_of};
use super::mistake::Origin;
use super::nodes::{Entry, check_host};
use super::reader::{Reader, Sourced};
use super::{Listen, host_and_port};

const CLIENT_PORT: u16 = 8000;
const CLUSTER_PORT: u16 = 4321;
/// Served beside `client_port` by nodes of a static list, as long as each has a machine of its own.
const HTTP_PORT: u16 = 8080;

/// Who this node is and where it is reached.
pub(super) struct Addresses {
    pub(super) node_name: NodeName,
    pub(super) client_listen: Vec<Listen>,
    pub(super) cluster_listen: Listen,
    pub(super) client_address: String,
    pub(super) cluster_address: String,
}

impl Addresses {
    pub(super) fn read(reader: &mut Reader, nodes: &[Entry], source: &Source) -> Addresses {
        let own_cluster_port = reader.port("network.cluster_port", CLUSTER_PORT);
        let node_name = node_name(reader, nodes, &source.host_name, own_cluster_port.value);
        let own = nodes.iter().find(|entry| entry.name == node_name);
        let host = listen_host(reader, own);
        let cluster_port = or_listed(reader, "network.cluster_port", own_cluster_port, own, |own| {
            own.cluster_port
        });
        let client_port = reader.port("network.client_port", CLIENT_PORT);
        let client_port = or_listed(reader, "network.client_port", client_port, own, |own| {
            own.client_port
        });
        let http_port = http_port(reader, nodes, own);
        let insecure = reader.boolean("network.insecure", false);
        refuse_clear_text(reader, &host, insecure.value);
        let advertised = advertised_host(reader, own, &host, source);
        // Others dial the listed port, which may be mapped to another one here.
        let advertised_client = own.map_or(client_port.value, |entry| entry.client_port);
        let advertised_cluster = own.map_or(cluster_port.value, |entry| entry.cluster_port);
        let listen = |port: Sourced<u16>, flag| Listen {
            host: host.value.clone(),
            port: port.value,
            origin: port.origin,
            flag,
        };
        let mut client_listen = vec![listen(client_port, "--port")];
        if http_port.value != 0 && http_port.value != client_listen[0].port {
            client_listen.push(listen(http_port, "--http-port"));
        }
        Addresses {
            node_name,
            client_listen,
            cluster_listen: listen(cluster_port, "--raft-port"),
            client_address: host_and_port(&advertised, advertised_client),
            cluster_address: host_and_port(&advertised, advertised_cluster),
        }
    }
}

impl Addresses {
    /// Whether other nodes reach this node at `peer`, as far as its configuration tells.
    pub(super) fn is_own(&self, peer: &str) -> bool {
        let listen = &self.cluster_listen;
        let port = peer.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        let here = is_loopback(host_of(peer)) && (is_loopback(&listen.host) || is_unspecified(&listen.host));
        peer == self.cluster_address || port == Some(listen.port) && (here || host_of(peer) == listen.host)
    }
}

/// The port that was given, else the one of this node's entry in the list, else the default.
fn or_listed(
    reader: &mut Reader,
    key: &'static str,
    port: Sourced<u16>,
    own: Option<&Entry>,
    of: impl Fn(&Entry) -> u16,
) -> Sourced<u16> {
    match own {
        Some(entry) if port.origin == Origin::Default => {
            reader.note(key, of(entry), &entry.origin);
            Sourced {
                value: of(entry),
                origin: entry.origin.clone(),
            }
        }
        _ => port,
    }
}

fn node_name(reader: &mut Reader, nodes: &[Entry], host_name: &str, cluster_port: u16) -> NodeName {
    // A second node on the same machine has another port, and so another name.
    let automatic = if cluster_port == CLUSTER_PORT {
        host_name.to_owned()
    } else {
        format!("{host_name}-{cluster_port}")
    };
    let fallback = NodeName::new(automatic)
        .or_else(|_| NodeName::new("node"))
        .expect("`node` is a name");
    let given = reader.raw("cluster.node_id").is_some();
    let name = reader.parsed("cluster.node_id", fallback, |text| {
        NodeName::new(text).map_err(|error| error.to_string())
    });
    reader.note("cluster.node_id", &name.value, &name.origin);
    if !nodes.is_empty() && !nodes.iter().any(|entry| entry.name == name.value) {
        let listed: Vec<&str> = nodes.iter().map(|entry| entry.name.as_str()).collect();
        let listed = listed.join(", ");
        if given {
            // A malformed name was reported already, and its stand-in is nobody's mistake.
            if name.origin != Origin::Default {
                let message = format!(
                    "node {} is not in cluster.nodes, which lists {listed}: add an entry for it, or start it with \
                     --peers and without the list to join a running cluster",
                    name.value
                );
                reader.mistake(&name.origin, message);
            }
        } else {
            let message =
                format!("cluster.nodes lists {listed}: say which of them this node is with --node-id");
            reader.mistake(&Origin::Default, message);
        }
    }
    name.value
}

fn listen_host(reader: &mut Reader, own: Option<&Entry>) -> Sourced<String> {
    let default = match own {
        None => "127.0.0.1",
        Some(entry) if entry.host == "localhost" || entry.host.parse::<IpAddr>().is_ok() => &entry.host,
        // A name may stand for an address that this machine does not have itself, such as one of a container's host.
        Some(_) => "0.0.0.0",
    };
    let host = reader.parsed("network.host", default.to_owned(), check_host);
    reader.note("network.host", &host.value, &host.origin);
    host
}

fn http_port(reader: &mut Reader, nodes: &[Entry], own: Option<&Entry>) -> Sourced<u16> {
    let alone = |entry: &Entry| nodes.iter().filter(|other| other.host == entry.host).count() == 1;
    let default = match own {
        Some(entry) => match entry.http_port {
            Some(port) => port,
            None if nodes.iter().all(alone) => HTTP_PORT,
            None => 0,
        },
        None => 0,
    };
    reader.number("network.http_port", default, 0..=u16::MAX)
}

pub(super) fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn is_unspecified(host: &str) -> bool {
    host.parse::<IpAddr>()
        .is_ok_and(|address| address.is_unspecified())
}

fn refuse_clear_text(reader: &mut Reader, host: &Sourced<String>, insecure: bool) {
    if insecure || is_loopback(&host.value) {
        return;
    }
    let message = format!(
        "clients would be served at {} without encryption and without asking who they are: listen on loopback \
         (--host 127.0.0.1) behind a proxy, or accept it with --insecure (connections between nodes are always \
         encrypted)",
        host.value
    );
    reader.mistake(&host.origin, message);
}

fn advertised_host(
    reader: &mut Reader,
    own: Option<&Entry>,
    host: &Sourced<String>,
    source: &Source,
) -> String {
    let default = match own {
        Some(entry) => entry.host.clone(),
        None if !is_unspecified(&host.value) => host.value.clone(),
        None => match source.host_address {
            Some(address) => address.to_string(),
            None if check_host(&source.host_name).is_ok() => source.host_name.clone(),
            None => "127.0.0.1".to_owned(),
        },
    };
    let advertised = reader.parsed("network.advertise_host", default, |text| {
        let host = check_host(text)?;
        if is_unspecified(&host) {
            return Err(format!("{host} is no address that another node can reach"));
        }
        Ok(host)
    });
    reader.note("network.advertise_host", &advertised.value, &advertised.origin);
    advertised.value
}
