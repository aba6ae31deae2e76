//! One node as a process: its log, and how it ends.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{quorate, run};

/// Nothing here takes this long unless it hangs; the machine may be busy with builds.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often a condition is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

struct Node {
    process: Child,
    client_address: String,
    _home: tempfile::TempDir,
}

impl Node {
    /// A first node, which writes its log to `log`.
    fn start(log: Stdio) -> Node {
        let home = tempfile::tempdir().unwrap();
        let client = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let cluster = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let process = quorate(&["serve", "--node-id", "node1", "--data-dir", "data"])
            .args(["--port", &client.port().to_string()])
            .args(["--raft-port", &cluster.port().to_string()])
            .env("QUORATE_SECRET", run(&["secret", "new"]).output.trim())
            .current_dir(home.path())
            .stderr(log)
            .spawn()
            .unwrap();
        Node {
            process,
            client_address: client.to_string(),
            _home: home,
        }
    }

    fn wait_until_ready(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.get("/readyz").starts_with("HTTP/1.1 200") {
            let ended = self.process.try_wait().unwrap();
            assert!(ended.is_none(), "the node ended with {ended:?}");
            assert!(Instant::now() < deadline, "the node is not ready");
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    /// The whole answer; nothing when there is none.
    fn get(&self, path: &str) -> String {
        let mut answer = String::new();
        if let Ok(mut stream) = TcpStream::connect(&self.client_address) {
            let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
            let _ = stream.write_all(request.as_bytes());
            let _ = stream.read_to_string(&mut answer);
        }
        answer
    }

    fn stop(mut self) -> Option<i32> {
        let pid = Pid::from_child(&self.process);
        kill_process(pid, Signal::TERM).unwrap();
        self.process.wait().unwrap().code()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_node_whose_log_cannot_be_written_goes_on_and_counts_the_lines() {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let (reader, gone) = std::io::pipe().unwrap();
    drop(reader);
    for log in [Stdio::from(full), Stdio::from(gone)] {
        let mut node = Node::start(log);
        node.wait_until_ready();
        let metrics = node.get("/metrics");
        let count = metrics
            .lines()
            .find_map(|line| line.strip_prefix("quorate_log_lines_dropped_total "));
        let count: u64 = count.expect(&metrics).parse().unwrap();
        assert!(count > 0);
        assert_eq!(node.stop(), Some(0));
    }
}

#[test]
fn the_first_line_tells_version_node_addresses_and_directory() {
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut node = Node::start(File::create(log.path()).unwrap().into());
    node.wait_until_ready();
    let text = std::fs::read_to_string(log.path()).unwrap();
    let first = text.lines().next().unwrap();
    for part in [
        "starting",
        &format!("version=\"{}\"", env!("CARGO_PKG_VERSION")),
        "node=node1",
        &format!("clients=\"{}\"", node.client_address),
        "cluster=\"127.0.0.1:",
        "data=data",
    ] {
        assert!(first.contains(part), "{part} is missing in {first}");
    }
    assert_eq!(node.stop(), Some(0));
}
