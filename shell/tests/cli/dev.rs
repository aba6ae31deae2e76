//! `quorate dev`, and the commands against the cluster that it runs.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Ran, finish, quorate, run};

/// Nothing here takes this long unless it hangs; the machine may be busy with builds.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often a condition is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

struct Dev {
    process: Child,
    lines: Receiver<String>,
    /// What was printed so far.
    seen: Vec<String>,
    endpoints: String,
}

impl Dev {
    /// Starts a cluster at free ports and waits for its introduction.
    fn start(directory: &Path, arguments: &[&str]) -> Dev {
        // The usual ports would be taken by tests at the same time.
        let mut process = quorate(&[
            "dev",
            "--base-port",
            "0",
            "--data-dir",
            directory.to_str().unwrap(),
        ])
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
        let output = process.stdout.take().unwrap();
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            let mut lines = BufReader::new(output).lines();
            while lines
                .next()
                .is_some_and(|line| line.is_ok_and(|line| sender.send(line).is_ok()))
            {}
        });
        let mut dev = Dev {
            process,
            lines,
            seen: Vec::new(),
            endpoints: String::new(),
        };
        dev.wait_for("Ctrl-C stops the cluster");
        let addresses: Vec<String> = dev.rows().into_iter().map(|row| row[2].clone()).collect();
        dev.endpoints = addresses.join(",");
        dev
    }

    /// The first line from here on that contains `part`.
    fn wait_for(&mut self, part: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left);
            let line = line.unwrap_or_else(|_| panic!("no `{part}` in {:#?}", self.seen));
            self.seen.push(line.clone());
            if line.contains(part) {
                return line;
            }
        }
    }

    /// The table of nodes: name, role, client address, cluster address, process, directory.
    fn rows(&self) -> Vec<Vec<String>> {
        let cells = |line: &String| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let rows = self.seen.iter().map(cells);
        rows.filter(|row| row.len() == 6 && row[0].starts_with("node"))
            .collect()
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        finish(quorate(arguments).env("QUORATE_ENDPOINT", &self.endpoints))
    }

    fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let ran = self.run(&[arguments, &["-w", "json"]].concat());
        assert_eq!(ran.code, Some(0), "{arguments:?}: {}", ran.errors);
        serde_json::from_str(&ran.output).unwrap()
    }

    /// Stops it as Ctrl-C does, and waits for its end.
    fn stop(mut self) -> Option<i32> {
        signal(self.process.id(), Signal::INT);
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "it does not stop");
            std::thread::sleep(POLL_INTERVAL);
        }
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // Its nodes end with it.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

fn is_alive(pid: u32) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    state.is_ok_and(|state| !state.contains(") Z "))
}

fn pid_of(row: &[String]) -> u32 {
    row[4].parse().unwrap()
}

#[test]
fn a_newcomer_writes_a_key_kills_the_leader_and_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path().join("dev");
    let mut dev = Dev::start(&home, &[]);
    let rows = dev.rows();
    assert_eq!(rows.len(), 3);
    assert_eq!(
        rows.iter().filter(|row| row[1] == "leader").count(),
        1,
        "{rows:?}"
    );

    let status = dev.run(&["status"]);
    assert_eq!(status.code, Some(0), "{}", status.errors);
    assert!(
        status
            .output
            .starts_with("Cluster Status\n==============\nLeader: node"),
        "{}",
        status.output
    );
    assert!(
        status.output.contains("Nodes: 3\n\nNode Details:\n  node1: "),
        "{}",
        status.output
    );
    assert!(
        status.output.ends_with("Cluster health: HEALTHY\n"),
        "{}",
        status.output
    );

    assert_eq!(dev.run(&["kv", "put", "greeting", "hello"]).code, Some(0));
    let leader = rows.iter().find(|row| row[1] == "leader").unwrap();
    let printed = dev.seen.iter().find(|line| line.contains("kill -9")).unwrap();
    assert!(
        printed.ends_with(&leader[4]),
        "the printed command kills the leader: {printed}"
    );
    signal(pid_of(leader), Signal::KILL);
    dev.wait_for(&format!(
        "{} (pid {}) was killed (signal 9)",
        leader[0], leader[4]
    ));
    let read = dev.run(&["kv", "get", "greeting"]);
    assert_eq!(
        (read.code, read.output.as_str()),
        (Some(0), "hello\n"),
        "{}",
        read.errors
    );
    let restarted = dev.wait_for(&format!("{} started again, pid ", leader[0]));
    let restarted: u32 = restarted.rsplit(' ').next().unwrap().parse().unwrap();

    let pids: Vec<u32> = rows.iter().map(|row| pid_of(row)).collect();
    assert_eq!(dev.stop(), Some(0));
    for pid in pids.into_iter().chain([restarted]) {
        assert!(!is_alive(pid), "node {pid} runs on");
    }

    let again = Dev::start(&home, &[]);
    assert_eq!(
        again.run(&["kv", "get", "greeting"]).output,
        "hello\n",
        "the data is still there"
    );
    assert_eq!(again.stop(), Some(0));
}

#[test]
fn commands_tell_refusals_and_missing_things_by_their_exit_codes() {
    let directory = tempfile::tempdir().unwrap();
    let dev = Dev::start(&directory.path().join("dev"), &["--nodes", "1"]);
    assert_eq!(dev.run(&["kv", "get", "none"]).code, Some(5));
    assert_eq!(dev.run(&["kv", "delete", "none"]).code, Some(5));
    assert_eq!(dev.run(&["members", "remove", "nobody"]).code, Some(5));
    assert_eq!(dev.run(&["kv", "put", "a/b c", "1", "--create"]).code, Some(0));
    let conflict = dev.run(&["kv", "put", "a/b c", "2", "--create"]);
    assert_eq!(conflict.code, Some(4));
    assert!(conflict.errors.contains("revision"), "{}", conflict.errors);
    let entry = dev.json(&["kv", "get", "a/b c"]);
    let revision = entry["mod_revision"].to_string();
    assert_eq!((&entry["key"], &entry["value"]), (&"a/b c".into(), &"1".into()));
    assert_eq!(
        dev.run(&["kv", "put", "a/b c", "2", "--revision", &revision])
            .code,
        Some(0)
    );
    let list = dev.json(&["kv", "list", "a/"]);
    assert_eq!(list["entries"][0]["value"], "2");
    assert_eq!(dev.run(&["kv", "list", "--keys-only"]).output, "a/b c\n");
    assert_eq!(dev.json(&["status"])["node_id"], "node1");
    assert_eq!(dev.json(&["nodes"])["nodes"][0]["role"], "leader");

    let file = directory.path().join("big");
    std::fs::write(&file, vec![b'x'; (1 << 20) + 1]).unwrap();
    for _ in 0..10 {
        let big = dev.run(&["kv", "put", "big", "--file", file.to_str().unwrap()]);
        assert_eq!(big.code, Some(4), "{}", big.errors);
        assert!(big.errors.contains("1048576"), "{}", big.errors);
    }
    let stepped = dev.run(&["step-down", "--target", "node1"]);
    assert_eq!(
        (stepped.code, stepped.output.as_str()),
        (Some(0), "node1 leads already\n"),
        "{}",
        stepped.errors
    );
    let home = directory.path().join("dev");
    let second = run(&["dev", "--fresh", "--data-dir", home.to_str().unwrap()]);
    assert_eq!(second.code, Some(1));
    assert!(second.errors.contains("runs already"), "{}", second.errors);
    assert_eq!(
        dev.run(&["kv", "get", "a/b c"]).code,
        Some(0),
        "it is still there"
    );

    let bench = dev.json(&[
        "bench",
        "put",
        "--clients",
        "4",
        "--keys",
        "10",
        "--seconds",
        "1",
        "--warmup",
        "0",
    ]);
    assert!(bench["operations"].as_u64() > Some(0), "{bench}");
    assert_eq!(bench["errors"], serde_json::json!({}), "{bench}");
    assert!(
        bench["latency_ms"]["p99"].as_f64() >= bench["latency_ms"]["p50"].as_f64(),
        "{bench}"
    );
    assert_eq!(dev.stop(), Some(0));
}

#[test]
fn a_frozen_node_keeps_no_read_from_the_others() {
    let directory = tempfile::tempdir().unwrap();
    let dev = Dev::start(&directory.path().join("dev"), &[]);
    assert_eq!(dev.run(&["kv", "put", "greeting", "hello"]).code, Some(0));
    let mut rows = dev.rows();
    // The leader last: an election is another matter.
    rows.sort_by_key(|row| row[1] == "leader");
    let frozen = pid_of(&rows[0]);
    let addresses: Vec<&str> = rows.iter().map(|row| row[2].as_str()).collect();
    let endpoints = addresses.join(",");
    signal(frozen, Signal::STOP);
    for command in [
        &["status"][..],
        &["nodes"],
        &["kv", "get", "greeting"],
        &["kv", "list"],
        &["kv", "put", "greeting", "hi"],
        &[
            "bench",
            "get",
            "--clients",
            "4",
            "--keys",
            "10",
            "--seconds",
            "1",
            "--warmup",
            "0",
        ],
    ] {
        let ran = run(&[command, &["--endpoint", &endpoints]].concat());
        assert_eq!(ran.code, Some(0), "{command:?}: {}", ran.errors);
    }
    signal(frozen, Signal::CONT);
    assert_eq!(dev.stop(), Some(0));
}

#[test]
fn the_nodes_end_when_dev_itself_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let mut dev = Dev::start(&directory.path().join("dev"), &[]);
    let pids: Vec<u32> = dev.rows().iter().map(|row| pid_of(row)).collect();
    signal(dev.process.id(), Signal::KILL);
    dev.process.wait().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while pids.iter().any(|pid| is_alive(*pid)) {
        assert!(Instant::now() < deadline, "a node runs on without `dev`");
        std::thread::sleep(POLL_INTERVAL);
    }
}
