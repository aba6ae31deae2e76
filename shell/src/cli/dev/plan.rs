//! Which nodes, at which ports, in which directories.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::directory::{CONFIG_FILE, DATA, Directory, LOG_FILE, PLAN_FILE, SECRET_FILE, WRITTEN_BY, failed};
use super::ports::{Reservation, free, numbered};

use crate::cli::connect::DEFAULT_ENDPOINTS;
use crate::cli::error::CliError;
use crate::cli::secret::{new_secret, write_secret};

pub(super) const HOST: &str = "127.0.0.1";
const BASE_PORT: u16 = 8000;
/// As a base port: whichever ports are free.
const ANY_PORT: u16 = 0;

/// One node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) client_port: u16,
    pub(super) cluster_port: u16,
    /// Its own directory.
    #[serde(skip)]
    pub(super) home: PathBuf,
    /// Where it keeps its state.
    #[serde(skip)]
    pub(super) data: PathBuf,
}

impl Node {
    pub(super) fn new(name: String, client_port: u16, cluster_port: u16) -> Node {
        Node {
            name,
            client_port,
            cluster_port,
            home: PathBuf::new(),
            data: PathBuf::new(),
        }
    }

    pub(super) fn client_address(&self) -> String {
        format!("{HOST}:{}", self.client_port)
    }

    pub(super) fn cluster_address(&self) -> String {
        format!("{HOST}:{}", self.cluster_port)
    }

    pub(super) fn config_file(&self) -> PathBuf {
        self.home.join(CONFIG_FILE)
    }

    pub(super) fn log_file(&self) -> PathBuf {
        self.home.join(LOG_FILE)
    }
}

/// A cluster on this machine.
#[derive(Debug)]
pub(super) struct Plan {
    directory: Directory,
    nodes: Vec<Node>,
    _ports: Reservation,
}

impl Plan {
    /// Finds out what is there, chooses ports, and writes what the nodes need.
    pub(super) fn make(
        directory: &Path,
        count: u16,
        base_port: Option<u16>,
        fresh: bool,
    ) -> Result<Plan, CliError> {
        let directory = Directory::claim(directory)?;
        if fresh {
            directory.clear()?;
        }
        let (mut nodes, ports) = match read(directory.path())? {
            Some(nodes) => resumed(directory.path(), nodes, count, base_port)?,
            None => chosen(count, base_port)?,
        };
        for node in &mut nodes {
            node.home = directory.path().join(&node.name);
            node.data = node.home.join(DATA);
        }
        let plan = Plan {
            directory,
            nodes,
            _ports: ports,
        };
        plan.write()?;
        Ok(plan)
    }

    pub(super) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    pub(super) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(super) fn secret_file(&self) -> PathBuf {
        self.directory().join(SECRET_FILE)
    }

    pub(super) fn endpoints(&self) -> String {
        let addresses: Vec<String> = self.nodes.iter().map(Node::client_address).collect();
        addresses.join(",")
    }

    /// Whether commands find the cluster without --endpoint.
    pub(super) fn has_default_ports(&self) -> bool {
        let known: Vec<&str> = DEFAULT_ENDPOINTS.split(',').collect();
        self.nodes
            .iter()
            .any(|node| known.contains(&node.client_address().as_str()))
    }

    fn write(&self) -> Result<(), CliError> {
        let file = self.directory().join(PLAN_FILE);
        let text =
            serde_json::to_string_pretty(&self.nodes).map_err(|error| CliError::Other(error.to_string()))?;
        fs::write(&file, text).map_err(|error| failed("write", &file, error))?;
        let secret = self.secret_file();
        if !secret.exists() {
            write_secret(&secret, &new_secret()?).map_err(|error| failed("write", &secret, error))?;
        }
        for node in &self.nodes {
            fs::create_dir_all(&node.home).map_err(|error| failed("create", &node.home, error))?;
            let file = node.config_file();
            fs::write(&file, self.config(node)).map_err(|error| failed("write", &file, error))?;
        }
        Ok(())
    }

    /// The configuration file of one node.
    fn config(&self, own: &Node) -> String {
        let mut text = format!(
            "{WRITTEN_BY}\ncluster:\n  name: dev\n  node_id: {}\n  secret_file: {}\n  nodes:\n",
            own.name,
            quoted(&self.secret_file())
        );
        for node in &self.nodes {
            text.push_str(&format!(
                "    - id: {}\n      host: {HOST}\n      client_port: {}\n      cluster_port: {}\n",
                node.name, node.client_port, node.cluster_port
            ));
        }
        text.push_str(&format!(
            "  storage:\n    data_dir: {}\nnetwork:\n  http_port: 0\n",
            quoted(&own.data)
        ));
        text
    }
}

/// A path as a YAML string; JSON strings are YAML strings.
fn quoted(path: &Path) -> String {
    serde_json::Value::from(path.to_string_lossy().into_owned()).to_string()
}

fn read(directory: &Path) -> Result<Option<Vec<Node>>, CliError> {
    let file = directory.join(PLAN_FILE);
    let text = match fs::read(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("read", &file, error)),
    };
    let nodes = serde_json::from_slice(&text).map_err(|error| {
        CliError::Usage(format!(
            "{} is damaged ({error}): begin anew with --fresh",
            file.display()
        ))
    })?;
    Ok(Some(nodes))
}

/// The nodes of an earlier run, whose ports the others remember.
fn resumed(
    directory: &Path,
    nodes: Vec<Node>,
    count: u16,
    base_port: Option<u16>,
) -> Result<(Vec<Node>, Reservation), CliError> {
    let base_port = base_port.filter(|port| *port != ANY_PORT);
    let other_ports =
        base_port.is_some_and(|port| nodes.first().is_some_and(|node| node.client_port != port));
    if nodes.len() != usize::from(count) || other_ports {
        let first = nodes.first().map_or(0, |node| node.client_port);
        return Err(CliError::Usage(format!(
            "{} holds a cluster of {} nodes from port {first} on: begin anew with --fresh, or name another directory \
             with --data-dir",
            directory.display(),
            nodes.len()
        )));
    }
    match Reservation::take(&nodes) {
        Ok(ports) => Ok((nodes, ports)),
        Err((port, error)) => Err(CliError::Other(format!(
            "port {port} of this cluster is in use ({error}): stop the program that has it, or start another cluster \
             with --data-dir"
        ))),
    }
}

/// Ports for a new cluster: those that were asked for, the usual ones, or free ones.
fn chosen(count: u16, base_port: Option<u16>) -> Result<(Vec<Node>, Reservation), CliError> {
    let any = || free(count).map_err(|error| CliError::io("find free ports", error));
    if base_port == Some(ANY_PORT) {
        return any();
    }
    let nodes = numbered(count, base_port.unwrap_or(BASE_PORT));
    match Reservation::take(&nodes) {
        Ok(ports) => Ok((nodes, ports)),
        Err((port, error)) if base_port.is_some() => Err(CliError::Other(format!(
            "port {port} is in use ({error}): choose others with --base-port"
        ))),
        Err(_) => any(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::config::{Formation, Source, load};

    fn plan(directory: &Path, fresh: bool) -> Result<Plan, CliError> {
        Plan::make(directory, 3, Some(ANY_PORT), fresh)
    }

    #[test]
    fn the_written_configurations_are_ones_that_serve_takes() {
        let directory = tempfile::tempdir().unwrap();
        let plan = plan(&directory.path().join("a b"), false).unwrap();
        for node in plan.nodes() {
            let config = load(&Source {
                config_path: Some(node.config_file().display().to_string()),
                environment: Default::default(),
                flags: Vec::new(),
                read: &|path| fs::read_to_string(path),
                host_name: String::new(),
                host_address: None,
            })
            .unwrap();
            assert_eq!(config.node_name.as_str(), node.name);
            assert_eq!(config.storage.data_dir, node.data);
            assert_eq!(config.client_address, node.client_address());
            assert!(matches!(config.formation, Formation::Static(nodes) if nodes.len() == 3));
        }
        let mode = fs::metadata(plan.secret_file()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_second_run_resumes_and_a_fresh_one_begins_anew() {
        let directory = tempfile::tempdir().unwrap();
        let home = directory.path().join("dev");
        let first = plan(&home, false).unwrap();
        let secret = fs::read(first.secret_file()).unwrap();
        let port = first.nodes()[0].client_port;
        drop(first);
        let again = plan(&home, false).unwrap();
        assert_eq!(again.nodes()[0].client_port, port);
        assert_eq!(fs::read(again.secret_file()).unwrap(), secret);
        drop(again);
        assert!(Plan::make(&home, 5, Some(ANY_PORT), false).is_err());
        let fresh = Plan::make(&home, 5, Some(ANY_PORT), true).unwrap();
        assert_ne!(fs::read(fresh.secret_file()).unwrap(), secret);
    }

    #[test]
    fn a_directory_of_somebody_else_is_neither_taken_nor_removed() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("thesis"), "x").unwrap();
        for fresh in [false, true] {
            assert!(matches!(plan(directory.path(), fresh), Err(CliError::Usage(_))));
            let names = fs::read_dir(directory.path()).unwrap();
            assert_eq!(names.count(), 1, "nothing came or went");
        }
    }

    #[test]
    fn a_fresh_run_removes_only_what_an_earlier_one_made() {
        let directory = tempfile::tempdir().unwrap();
        let first = plan(directory.path(), false).unwrap();
        let node = first.nodes()[0].clone();
        fs::create_dir(&node.data).unwrap();
        fs::write(node.data.join("state"), "old").unwrap();
        let own = [
            directory.path().join("thesis"),
            directory.path().join("node4/notes"),
            node.home.join("notes"),
        ];
        fs::create_dir(directory.path().join("node4")).unwrap();
        for path in &own {
            fs::write(path, "x").unwrap();
        }
        drop(first);
        let _fresh = plan(directory.path(), true).unwrap();
        assert!(!node.data.exists());
        for path in &own {
            assert!(path.exists(), "{}", path.display());
        }
    }

    #[test]
    fn a_cluster_that_runs_is_neither_resumed_nor_removed() {
        let directory = tempfile::tempdir().unwrap();
        let running = plan(directory.path(), false).unwrap();
        let secret = fs::read(running.secret_file()).unwrap();
        for fresh in [false, true] {
            let error = plan(directory.path(), fresh).unwrap_err();
            let CliError::Other(message) = error else {
                panic!("another error: {error:?}");
            };
            let process = format!("process {}", std::process::id());
            assert!(
                message.contains("runs already") && message.contains(&process),
                "{message}"
            );
        }
        assert_eq!(fs::read(running.secret_file()).unwrap(), secret);
    }

    #[test]
    fn a_node_that_outlives_its_cluster_keeps_its_data() {
        let directory = tempfile::tempdir().unwrap();
        let first = plan(directory.path(), false).unwrap();
        let data = first.nodes()[1].data.clone();
        drop(first);
        fs::create_dir(&data).unwrap();
        let lock = fs::File::create(data.join("lock")).unwrap();
        lock.lock().unwrap();
        assert!(matches!(plan(directory.path(), true), Err(CliError::Other(_))));
        assert!(data.exists() && directory.path().join("node1").exists());
        drop(lock);
        assert!(plan(directory.path(), true).is_ok());
        assert!(!data.exists());
    }

    #[test]
    fn a_port_in_use_is_named_with_the_flag() {
        let taken = TcpListener::bind((HOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let directory = tempfile::tempdir().unwrap();
        let error = Plan::make(&directory.path().join("dev"), 1, Some(port), false).unwrap_err();
        let CliError::Other(message) = error else {
            panic!("another error: {error:?}");
        };
        assert!(
            message.contains(&format!("port {port} is in use")) && message.contains("--base-port"),
            "{message}"
        );
    }
}
