//! The static list of nodes, `cluster.nodes`.

use quorate_api::NodeName;

use super::mistake::{Origin, nearest};
use super::reader::{Reader, parse_boolean, parse_number, scalar_text};
use super::{StaticNode, host_and_port};
use crate::yaml::{Node, Value};

/// The ports of an entry that names none.
const CLIENT_PORT_DEFAULT: u16 = 9000;
const CLUSTER_PORT_DEFAULT: u16 = 9100;

const KEYS: [&str; 6] = [
    "id",
    "host",
    "client_port",
    "cluster_port",
    "http_port",
    "witness",
];

/// One entry of the list.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: NodeName,
    pub(super) host: String,
    pub(super) client_port: u16,
    pub(super) cluster_port: u16,
    pub(super) http_port: Option<u16>,
    pub(super) witness: bool,
    pub(super) origin: Origin,
}

impl Entry {
    pub(super) fn cluster_address(&self) -> String {
        host_and_port(&self.host, self.cluster_port)
    }

    pub(super) fn client_address(&self) -> String {
        host_and_port(&self.host, self.client_port)
    }

    pub(super) fn to_static(&self) -> StaticNode {
        StaticNode {
            name: self.name.clone(),
            cluster_address: self.cluster_address(),
            client_address: self.client_address(),
            witness: self.witness,
        }
    }
}

/// The entries of the list; empty when none was given. Checks that names and addresses are each used once.
pub(super) fn read(reader: &mut Reader) -> Vec<Entry> {
    let Some(raw) = reader.raw("cluster.nodes").cloned() else {
        return Vec::new();
    };
    let Value::List(items) = &raw.node.value else {
        reader.mistake(&raw.origin, "expected a list of nodes, each with `id` and `host`");
        return Vec::new();
    };
    let entries: Vec<Entry> = items
        .iter()
        .enumerate()
        .filter_map(|(index, item)| read_entry(reader, &raw.origin, index, item))
        .collect();
    check_unique(reader, &entries, "the id", |entry| entry.name.to_string());
    check_unique(reader, &entries, "the cluster address", Entry::cluster_address);
    check_unique(reader, &entries, "the client address", Entry::client_address);
    refuse_too_many_witnesses(reader, &raw.origin, &entries);
    warn_if_even(reader, entries.len());
    note(reader, &raw.origin, &entries);
    entries
}

/// The place of something inside the list.
fn place(base: &Origin, line: usize, key: &str) -> Origin {
    match base {
        Origin::File { path, .. } => Origin::File {
            path: path.clone(),
            line,
            key: key.to_owned(),
        },
        other => other.clone(),
    }
}

fn read_entry(reader: &mut Reader, base: &Origin, index: usize, item: &Node) -> Option<Entry> {
    let path = format!("cluster.nodes[{index}]");
    let here = place(base, item.line, &path);
    let Value::Map(fields) = &item.value else {
        reader.mistake(&here, "expected a node with `id` and `host`");
        return None;
    };
    let mut name = None;
    let mut host = None;
    let mut ports = [None; 3];
    let mut witness = None;
    for (key, value) in fields {
        let origin = place(base, key.line, &format!("{path}.{}", key.text));
        if !KEYS.contains(&key.text.as_str()) {
            let message = match nearest(&key.text, KEYS) {
                Some(known) => format!("unknown key; did you mean `{known}`?"),
                None => format!("unknown key; a node has {}", KEYS.join(", ")),
            };
            reader.mistake(&origin, message);
            continue;
        }
        let Some(text) = scalar_text(value) else {
            reader.mistake(&origin, "expected one value");
            continue;
        };
        match key.text.as_str() {
            "id" => {
                name = checked(
                    reader,
                    &origin,
                    NodeName::new(text).map_err(|error| error.to_string()),
                )
            }
            "host" => host = checked(reader, &origin, check_host(text)),
            "client_port" => ports[0] = checked(reader, &origin, parse_number(text, &(1..=u16::MAX))),
            "witness" => witness = checked(reader, &origin, parse_boolean(text)),
            "cluster_port" => ports[1] = checked(reader, &origin, parse_number(text, &(1..=u16::MAX))),
            _ => ports[2] = checked(reader, &origin, parse_number(text, &(0..=u16::MAX))),
        }
    }
    for (required, given) in [("id", name.is_some()), ("host", host.is_some())] {
        if !given && !fields.iter().any(|(key, _)| key.text == required) {
            reader.mistake(&here, format!("`{required}` is missing"));
        }
    }
    Some(Entry {
        name: name?,
        host: host?,
        client_port: ports[0].unwrap_or(CLIENT_PORT_DEFAULT),
        cluster_port: ports[1].unwrap_or(CLUSTER_PORT_DEFAULT),
        http_port: ports[2],
        witness: witness.unwrap_or_default(),
        origin: here,
    })
}

fn checked<T>(reader: &mut Reader, origin: &Origin, result: Result<T, String>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(message) => {
            reader.mistake(origin, message);
            None
        }
    }
}

/// A host is a name or an address, without a port.
pub(super) fn check_host(text: &str) -> Result<String, String> {
    if text.parse::<std::net::IpAddr>().is_ok() {
        return Ok(text.to_owned());
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if !text.is_empty() && text.len() <= 253 && text.bytes().all(plain) {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "expected a host name or an address without a port, found `{text}`"
        ))
    }
}

fn check_unique(reader: &mut Reader, entries: &[Entry], what: &str, of: impl Fn(&Entry) -> String) {
    for (index, entry) in entries.iter().enumerate() {
        let value = of(entry);
        if let Some(first) = entries[..index].iter().find(|other| of(other) == value) {
            let message = format!("{what} {value} is already that of {}", first.origin);
            reader.mistake(&entry.origin, message);
        }
    }
}

/// Every majority must contain a voter with data.
fn refuse_too_many_witnesses(reader: &mut Reader, origin: &Origin, entries: &[Entry]) {
    let witnesses = entries.iter().filter(|entry| entry.witness).count();
    if witnesses > entries.len() / 2 {
        let message = format!(
            "{witnesses} of {} nodes are witnesses, at most half of them can be: a majority without data would keep \
             nothing",
            entries.len()
        );
        reader.mistake(origin, message);
    }
}

fn warn_if_even(reader: &mut Reader, voters: usize) {
    if voters > 0 && voters.is_multiple_of(2) {
        let survived = (voters - 1) / 2;
        reader.warnings.push(format!(
            "cluster.nodes lists {voters} voters, an even number: the cluster survives the loss of {survived}, \
             no more than with {} of them; use 3, 5 or 7",
            voters - 1
        ));
    }
}

fn note(reader: &mut Reader, origin: &Origin, entries: &[Entry]) {
    let mut value = String::new();
    for entry in entries {
        value.push_str(&format!(
            "\n- {{id: {}, host: \"{}\", client_port: {}, cluster_port: {}",
            entry.name, entry.host, entry.client_port, entry.cluster_port
        ));
        if let Some(port) = entry.http_port {
            value.push_str(&format!(", http_port: {port}"));
        }
        if entry.witness {
            value.push_str(", witness: true");
        }
        value.push('}');
    }
    reader.note("cluster.nodes", value, origin);
}
