//! One node: a process, its ports, its directory and its log.

use std::fs::{File, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::http::{self, Answer};
use crate::ports::{self, Port};
use crate::wait::wait_for;

/// How long a process may take to end.
const ENDING: Duration = Duration::from_secs(20);

/// A node that a test starts and ends as it likes.
#[derive(Debug)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its data directory; with the cluster's home it is deleted.
    pub data: PathBuf,
    /// Flags besides the ones that every node gets.
    pub flags: Vec<String>,
    /// Its environment, besides what the test's process has; nothing of Quorate comes from there.
    pub environment: Vec<(String, String)>,
    log: PathBuf,
    client_port: Port,
    cluster_port: Port,
    child: Option<Child>,
}

impl Node {
    pub(crate) fn new(name: &str, home: &Path) -> Node {
        Node {
            name: name.to_owned(),
            data: home.join(name),
            flags: Vec::new(),
            environment: Vec::new(),
            log: home.join(format!("{name}.log")),
            client_port: ports::claim(),
            cluster_port: ports::claim(),
            child: None,
        }
    }

    /// Keeps its directory and log under another name than its own, which another node has.
    pub fn keep_files_as(&mut self, name: &str) {
        self.data.set_file_name(name);
        self.log.set_file_name(format!("{name}.log"));
    }

    /// Gives a node that is configured by flags other ports, as of its next start.
    pub fn move_to_other_ports(&mut self) {
        self.client_port = ports::claim();
        self.cluster_port = ports::claim();
        let (client, cluster) = (self.client_port.number, self.cluster_port.number);
        self.set_flag("--port", &client.to_string());
        self.set_flag("--raft-port", &cluster.to_string());
    }

    /// Sets a flag with a value, as of the next start.
    pub fn set_flag(&mut self, flag: &str, value: &str) {
        match self.flags.iter().position(|known| known == flag) {
            Some(place) => value.clone_into(&mut self.flags[place + 1]),
            None => self.flags.extend([flag, value].map(str::to_owned)),
        }
    }

    /// Where clients reach it.
    pub fn client_address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.client_port.number).into()
    }

    /// Where other nodes reach it.
    pub fn cluster_address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.cluster_port.number).into()
    }

    /// Starts the process.
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "node {} runs already", self.name);
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .expect("a log file");
        let errors = log.try_clone().expect("the log file a second time");
        self.child = Some(self.command(log, errors).spawn().expect("quorate starts"));
    }

    fn command(&self, log: File, errors: File) -> Command {
        let mut command = Command::new(crate::quorate());
        command.arg("serve").args(&self.flags);
        if !self
            .environment
            .iter()
            .any(|(name, _)| name == "QUORATE_DATA_DIR")
        {
            command.arg("--data-dir").arg(&self.data);
        }
        command.arg("--exit-with").arg(std::process::id().to_string());
        for (name, _) in std::env::vars_os() {
            let ours = name.to_string_lossy().starts_with("QUORATE_");
            if ours || name == "NOTIFY_SOCKET" {
                command.env_remove(&name);
            }
        }
        command
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors);
        command
    }

    /// Whether a process was started and not yet seen to end.
    pub fn is_started(&self) -> bool {
        self.child.is_some()
    }

    /// The id of its process, when it runs.
    pub fn process_id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Kills the process at once, without a chance to do anything (SIGKILL), and waits until it is gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("an own child can be killed");
            child.wait().expect("an own child can be waited for");
        }
    }

    /// Asks the process to stop (SIGTERM).
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Freezes the process (SIGSTOP).
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets a frozen process go on (SIGCONT).
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("the node runs");
        kill_process(Pid::from_child(child), signal).expect("an own child takes signals");
    }

    /// Waits until the process ended by itself.
    #[track_caller]
    pub fn wait_for_end(&mut self) -> ExitStatus {
        let what = format!("the end of node {}", self.name);
        let child = self.child.as_mut().expect("the node runs");
        let status = wait_for(ENDING, &what, || {
            child.try_wait().expect("an own child can be waited for")
        });
        self.child = None;
        status
    }

    /// Stops the process and expects it to end well.
    #[track_caller]
    pub fn stop(&mut self) {
        self.terminate();
        let status = self.wait_for_end();
        assert!(status.success(), "node {} ended with {status}", self.name);
    }

    /// Deletes all its data.
    pub fn wipe(&self) {
        assert!(self.child.is_none(), "node {} runs", self.name);
        std::fs::remove_dir_all(&self.data).expect("the data directory can be deleted");
    }

    /// All that it logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// How many bytes it logged; what comes later is `log()[mark..]`.
    pub fn log_mark(&self) -> usize {
        self.log().len()
    }

    /// Waits until its log has `words` after `mark`.
    #[track_caller]
    pub fn wait_for_log(&self, mark: usize, words: &str, limit: Duration) {
        let what = format!("`{words}` in the log of node {}", self.name);
        wait_for(limit, &what, || self.log()[mark..].contains(words).then_some(()));
    }

    /// Sends one request.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn request(&self, method: &str, path: &str, body: &[u8]) -> Result<Answer, http::Failure> {
        http::request(self.client_address(), method, path, body)
    }

    /// The answer to a GET, which is expected to come.
    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        match self.request("GET", path, b"") {
            Ok(answer) => answer,
            Err(error) => panic!("node {}: GET {path}: {error}", self.name),
        }
    }

    /// Writes a key and expects success.
    #[track_caller]
    pub fn put(&self, key: &str, value: &str) {
        let path = format!("/v1/kv/{key}");
        match self.request("PUT", &path, value.as_bytes()) {
            Ok(answer) if answer.status == 200 => {}
            Ok(answer) => panic!(
                "node {}: PUT {path}: {} {}",
                self.name,
                answer.status,
                answer.text()
            ),
            Err(error) => panic!("node {}: PUT {path}: {error}", self.name),
        }
    }

    /// The JSON of a GET; null when the node does not answer or answers something else.
    pub fn look(&self, path: &str) -> Value {
        self.request("GET", path, b"")
            .map(|answer| answer.json())
            .unwrap_or_default()
    }

    /// Whether it says that it serves.
    pub fn is_ready(&self) -> bool {
        self.request("GET", "/readyz", b"")
            .is_ok_and(|answer| answer.status == 200)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The last `lines` lines of a text.
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
