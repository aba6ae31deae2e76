//! From what was given to a [`Config`].

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use quorate_api::NodeName;

use super::addresses::{Addresses, is_loopback};
use super::layers::Layers;
use super::mistake::{Mistake, Mistakes, Origin};
use super::nodes::{self, Entry, check_host};
use super::options::{limits, log_options, network_options, raft_timing, storage, timeouts};
use super::reader::{Reader, Sourced, scalar_text};
use super::{Config, Formation, Sizes};
use crate::transport::Secret;
use crate::yaml::Value;

/// Everything that a configuration is made of.
pub struct Source<'a> {
    /// The file named by `--config`.
    pub config_path: Option<String>,
    /// The environment.
    pub environment: BTreeMap<String, String>,
    /// The flags that were given, with their values; a switch has the value `true`.
    pub flags: Vec<(&'static str, String)>,
    /// Reads a file: the configuration, the secret.
    pub read: &'a dyn Fn(&str) -> io::Result<String>,
    /// The machine's own name.
    pub host_name: String,
    /// An address of the machine that others can reach.
    pub host_address: Option<IpAddr>,
}

/// Puts the layers on top of each other and checks the result.
///
/// # Errors
/// With every mistake that was found.
pub fn load(source: &Source) -> Result<Config, Mistakes> {
    let mut reader = Reader::new(layers(source));
    let cluster_name = reader.parsed("cluster.name", "quorate".to_owned(), |text| {
        NodeName::new(text)
            .map(|name| name.to_string())
            .map_err(|_| "expected 1 to 64 letters, digits, dots, dashes and underscores".to_owned())
    });
    reader.note("cluster.name", &cluster_name.value, &cluster_name.origin);
    let nodes = nodes::read(&mut reader);
    let addresses = Addresses::read(&mut reader, &nodes, source);
    let formation = formation(&mut reader, &nodes, &addresses);
    let witness = witness(&mut reader, &nodes, &addresses.node_name, &formation);
    let learner = learner(&mut reader, &formation, witness);
    let storage = storage(&mut reader);
    let network = network_options(&mut reader);
    let raft = raft_timing(&mut reader);
    let limits = limits(&mut reader);
    let timeouts = timeouts(&mut reader);
    let log = log_options(&mut reader);
    let secret = match secret(&mut reader, source) {
        Some(secret) if reader.mistakes.is_empty() => secret,
        _ => return Err(Mistakes(reader.mistakes)),
    };
    Ok(Config {
        node_name: addresses.node_name,
        cluster_name: cluster_name.value,
        formation,
        witness,
        learner,
        client_listen: addresses.client_listen,
        cluster_listen: addresses.cluster_listen,
        client_address: addresses.client_address,
        cluster_address: addresses.cluster_address,
        raft,
        storage,
        sizes: Sizes::default(),
        network,
        limits,
        timeouts,
        log,
        secret,
        warnings: reader.warnings,
        effective: reader.effective,
    })
}

fn layers(source: &Source) -> Layers {
    let mut layers = Layers::default();
    let path = source
        .config_path
        .clone()
        .or_else(|| source.environment.get("QUORATE_CONFIG").cloned());
    if let Some(path) = path {
        match (source.read)(&path) {
            Ok(text) => layers.add_file(&path, &text),
            Err(error) => layers.mistakes.push(Mistake {
                origin: None,
                message: format!("{path}: the configuration file cannot be read: {error}"),
            }),
        }
    }
    layers.add_environment(&source.environment);
    layers.add_flags(&source.flags);
    layers
}

fn formation(reader: &mut Reader, nodes: &[Entry], addresses: &Addresses) -> Formation {
    let peers = peers(reader);
    if !peers.value.is_empty() && !nodes.is_empty() {
        let message = "peers to join and cluster.nodes to found a cluster with are both given: leave one out";
        reader.mistake(&peers.origin, message);
    }
    let others_beyond = nodes.iter().any(|entry| !is_loopback(&entry.host))
        || peers.value.iter().any(|peer| !is_loopback(host_of(peer)));
    if others_beyond && is_loopback(&addresses.cluster_listen.host) {
        reader.warnings.push(format!(
            "this node listens on {} only, where nodes of other machines cannot reach it; name an address of this \
             machine, or 0.0.0.0, with --host",
            addresses.cluster_listen.host
        ));
    }
    let is_own = |peer: &String| addresses.is_own(peer);
    if !peers.value.is_empty() && peers.value.iter().all(is_own) {
        reader.warnings.push(format!(
            "the peers ({}) are this node alone ({}), so there is nobody to join: name another node, or leave the \
             peers out to found a cluster",
            peers.origin,
            peers.value.join(",")
        ));
    }
    if !nodes.is_empty() {
        Formation::Static(nodes.iter().map(Entry::to_static).collect())
    } else if !peers.value.is_empty() {
        Formation::Join(peers.value)
    } else {
        Formation::First
    }
}

/// Whether this node joins as a learner and stays one. Who founds a cluster is a voter.
fn learner(reader: &mut Reader, formation: &Formation, witness: bool) -> bool {
    let learner = reader.boolean("cluster.learner", false);
    let joins = matches!(formation, Formation::Join(_));
    if learner.value && !joins {
        let message =
            "a learner founds no cluster: name a cluster to join with --peers, and leave cluster.nodes out";
        reader.mistake(&learner.origin, message);
    }
    if learner.value && witness {
        reader.mistake(
            &learner.origin,
            "a learner never votes and a witness does: leave one out",
        );
    }
    learner.value
}

/// Whether this node is a witness: the list says it of every founder, a setting of its own of one that joins.
fn witness(reader: &mut Reader, nodes: &[Entry], name: &NodeName, formation: &Formation) -> bool {
    let listed = nodes.iter().find(|entry| entry.name == *name);
    let witness = reader.boolean("cluster.witness", listed.is_some_and(|entry| entry.witness));
    match listed {
        Some(entry) if witness.origin == Origin::Default => {
            reader.note("cluster.witness", entry.witness, &entry.origin);
        }
        Some(entry) if witness.value != entry.witness => {
            let message = format!(
                "the list of nodes says otherwise ({}), and the other founders go by the list: leave it out here",
                entry.origin
            );
            reader.mistake(&witness.origin, message);
        }
        None if witness.value && *formation == Formation::First => {
            let message = "a witness holds no data and cannot found a cluster alone: name a cluster to join with --peers";
            reader.mistake(&witness.origin, message);
        }
        _ => {}
    }
    witness.value
}

pub(super) fn host_of(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

/// The peers: a list, or one text with commas.
fn peers(reader: &mut Reader) -> Sourced<Vec<String>> {
    let none = Sourced {
        value: Vec::new(),
        origin: Origin::Default,
    };
    let Some(raw) = reader.raw("cluster.peers").cloned() else {
        return none;
    };
    let texts: Option<Vec<String>> = match &raw.node.value {
        Value::List(items) => items
            .iter()
            .map(|item| scalar_text(item).map(str::to_owned))
            .collect(),
        _ => scalar_text(&raw.node).map(|text| text.split(',').map(str::to_owned).collect()),
    };
    let Some(texts) = texts else {
        reader.mistake(
            &raw.origin,
            "expected addresses host:port, as a list or with commas between",
        );
        return none;
    };
    let mut value: Vec<String> = Vec::new();
    for text in texts
        .iter()
        .map(|text| text.trim())
        .filter(|text| !text.is_empty())
    {
        match check_address(text) {
            Ok(()) if value.iter().any(|other| other == text) => {}
            Ok(()) => value.push(text.to_owned()),
            Err(message) => reader.mistake(&raw.origin, message),
        }
    }
    reader.note("cluster.peers", format!("[{}]", quoted(&value)), &raw.origin);
    Sourced {
        value,
        origin: raw.origin,
    }
}

fn quoted(texts: &[String]) -> String {
    let quoted: Vec<String> = texts.iter().map(|text| format!("\"{text}\"")).collect();
    quoted.join(", ")
}

fn check_address(text: &str) -> Result<(), String> {
    let expected = || format!("expected host:port, found `{text}`");
    let (_, port) = text.rsplit_once(':').ok_or_else(expected)?;
    check_host(host_of(text)).map_err(|_| expected())?;
    match port.parse::<u16>() {
        Ok(port) if port > 0 => Ok(()),
        _ => Err(expected()),
    }
}

/// The secret: from a file, or from QUORATE_SECRET. As everywhere a later layer wins. Without one there is a mistake.
fn secret(reader: &mut Reader, source: &Source) -> Option<Secret> {
    const VARIABLE: Origin = Origin::Variable("QUORATE_SECRET");
    let variable = source
        .environment
        .get("QUORATE_SECRET")
        .filter(|text| !text.trim().is_empty());
    let file = reader.text("cluster.secret_file");
    if let Some(file) = &file {
        reader.note("cluster.secret_file", &file.value, &file.origin);
    }
    match (file, variable) {
        (Some(file), Some(_)) if file.origin.layer() == VARIABLE.layer() => {
            let message = "QUORATE_SECRET is set too: leave one of them out";
            reader.mistake(&file.origin, message);
            None
        }
        (Some(file), variable) if variable.is_none() || file.origin.layer() > VARIABLE.layer() => {
            let found = match (source.read)(&file.value) {
                Ok(text) if text.trim().is_empty() => {
                    Err("it is empty; fill it with `quorate secret new`".to_owned())
                }
                Ok(text) => Secret::parse(&text).map_err(|error| error.to_string()),
                Err(error) => Err(format!("it cannot be read: {error}")),
            };
            found
                .map_err(|message| reader.mistake(&file.origin, format!("{}: {message}", file.value)))
                .ok()
        }
        (_, Some(text)) => Secret::parse(text)
            .map_err(|error| reader.mistake(&VARIABLE, error.to_string()))
            .ok(),
        _ => {
            let message = "no cluster secret is given: every node of a cluster needs the same one. Make it once with \
                           `quorate secret new > cluster.secret`, copy it to each node, and start each with \
                           --secret-file cluster.secret (or set QUORATE_SECRET)";
            reader.mistake(&Origin::Default, message);
            None
        }
    }
}
