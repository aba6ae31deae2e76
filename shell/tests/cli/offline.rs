//! What needs no cluster: help, usage, configuration, and a cluster that is not there.

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use crate::support::{finish, quorate, run};

const COMMANDS: [&[&str]; 17] = [
    &["serve"],
    &["config"],
    &["dev"],
    &["status"],
    &["nodes"],
    &["kv"],
    &["kv", "get"],
    &["kv", "put"],
    &["kv", "delete"],
    &["kv", "list"],
    &["members"],
    &["members", "add"],
    &["members", "remove"],
    &["step-down"],
    &["secret", "new"],
    &["bench"],
    &["version"],
];

#[test]
fn every_command_has_help_and_all_but_version_have_examples() {
    for command in COMMANDS {
        let ran = run(&[command, &["--help"]].concat());
        assert_eq!(ran.code, Some(0), "{command:?}: {}", ran.errors);
        let has_examples =
            ran.output.contains("Examples:\n  quorate ") || ran.output.contains("Examples:\n  A cluster");
        assert!(
            has_examples || command == ["version"],
            "{command:?}: {}",
            ran.output
        );
        assert!(
            !ran.output.contains('\u{1b}'),
            "colours without a terminal: {}",
            ran.output
        );
    }
}

#[test]
fn the_help_documents_the_exit_codes() {
    let ran = run(&["--help"]);
    for line in [
        "2  wrong usage",
        "3  no node",
        "4  the cluster refused",
        "5  not found",
        "6  the outcome",
    ] {
        assert!(ran.output.contains(line), "{line}");
    }
    assert_eq!(run(&[]).code, Some(2), "no command is a usage error");
    assert_eq!(run(&["frobnicate"]).code, Some(2));
    assert_eq!(run(&["kv", "put", "key"]).code, Some(2));
    for arguments in [
        &["kv", "get", ""][..],
        &["kv", "put", "", "v"],
        &["kv", "delete", ""],
    ] {
        let ran = run(arguments);
        assert_eq!(ran.code, Some(2));
        assert!(
            ran.errors.contains("a key has at least one character"),
            "{}",
            ran.errors
        );
    }
}

#[test]
fn a_cluster_that_is_not_there_is_told_with_the_endpoint() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = listener.local_addr().unwrap().to_string();
    drop(listener);
    for command in [
        &["status"][..],
        &["nodes"],
        &["kv", "get", "k"],
        &["kv", "put", "k", "v"],
        &["bench", "put"],
    ] {
        let ran = run(&[command, &["--endpoint", &endpoint]].concat());
        assert_eq!(ran.code, Some(3), "{command:?}: {}", ran.errors);
        assert!(ran.errors.contains(&endpoint), "{}", ran.errors);
        assert_eq!(ran.output, "");
    }
    let before = run(&["--endpoint", &endpoint, "status"]);
    assert_eq!(before.code, Some(3));
    assert!(before.errors.contains(&endpoint), "{}", before.errors);
    let by_variable = finish(quorate(&["status"]).env("QUORATE_ENDPOINT", &endpoint));
    assert_eq!(by_variable.code, Some(3));
    assert!(by_variable.errors.contains(&endpoint), "{}", by_variable.errors);
    assert_eq!(run(&["status", "--endpoint", "https://a:1"]).code, Some(2));
}

#[test]
fn serve_tells_all_mistakes_at_once_and_how_to_make_a_secret() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("cluster.yaml");
    fs::write(
        &file,
        "cluster:\n  raft:\n    heartbeat_interval: 500\n  nood_id: 1\n",
    )
    .unwrap();
    let file = file.to_str().unwrap();
    // Without a command, as event-stream-cluster.md writes it.
    for arguments in [
        &["serve", "--config", file, "--port", "x"][..],
        &[&format!("--config={file}"), "--port=x"],
        &["config", "--config", file, "--port", "x"],
    ] {
        let ran = run(arguments);
        assert_eq!(ran.code, Some(2), "{}", ran.errors);
        for part in [
            "the configuration has 4 mistakes:",
            &format!("{file}:4: cluster.nood_id: unknown key; did you mean `cluster.node_id`?"),
            "--port: expected a number from 1 to 65535, found `x`",
            &format!(
                "{file}:3: cluster.raft.heartbeat_interval: the heartbeat interval (500 ms) must be shorter"
            ),
            "quorate secret new",
        ] {
            assert!(ran.errors.contains(part), "`{part}` is missing in {}", ran.errors);
        }
    }
}

#[test]
fn the_configuration_in_force_is_shown_with_its_origins_and_without_the_secret() {
    let secret = run(&["secret", "new"]).output.trim().to_owned();
    let mut command = quorate(&["config", "--cluster", "--node-id", "node7", "--debug"]);
    let ran = finish(
        command
            .env("QUORATE_SECRET", &secret)
            .env("QUORATE_RAFT_PORT", "5001"),
    );
    assert_eq!(ran.code, Some(0), "{}", ran.errors);
    for (value, origin) in [
        ("node_id: node7", "--node-id"),
        ("cluster_port: 5001", "QUORATE_RAFT_PORT"),
        ("level: debug", "--log-level"),
        ("election_timeout_min: 150", "default"),
    ] {
        let origin = format!("# {origin}");
        let mut lines = ran.output.lines().map(str::trim_start);
        let shown = lines.any(|line| line.starts_with(&format!("{value} ")) && line.ends_with(&origin));
        assert!(shown, "{value} {origin}: {}", ran.output);
    }
    assert!(!ran.output.contains(&secret) && !ran.errors.contains(&secret));
}

#[test]
fn a_secret_is_new_each_time_and_its_file_is_private_and_never_overwritten() {
    let (first, second) = (run(&["secret", "new"]), run(&["secret", "new"]));
    assert_eq!((first.code, second.code), (Some(0), Some(0)));
    assert_ne!(first.output, second.output);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cluster.secret");
    let arguments = ["secret", "new", "--output", path.to_str().unwrap()];
    assert_eq!(run(&arguments).code, Some(0));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let text = fs::read(&path).unwrap();
    let again = run(&arguments);
    assert_eq!(again.code, Some(1));
    assert!(again.errors.contains("cluster.secret"), "{}", again.errors);
    assert_eq!(fs::read(&path).unwrap(), text);
}

#[test]
fn a_port_in_use_is_named_with_its_flag() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let directory = tempfile::tempdir().unwrap();
    let secret = run(&["secret", "new"]).output;
    let data = directory.path().join("data");
    let free = std::net::UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
        .to_string();
    let arguments = [
        "serve",
        "--port",
        &port,
        "--raft-port",
        &free,
        "--data-dir",
        data.to_str().unwrap(),
    ];
    let ran = finish(quorate(&arguments).env("QUORATE_SECRET", secret.trim()));
    assert_eq!(ran.code, Some(1), "{}", ran.errors);
    let told = format!("127.0.0.1:{port} is in use by another process: port {port} (from --port)");
    assert!(ran.errors.contains(&told), "{}", ran.errors);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child = quorate(&["config"])
        .env("QUORATE_SECRET", run(&["secret", "new"]).output.trim())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let status = child.wait().unwrap();
    let mut errors = String::new();
    child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert_eq!((status.code(), errors.as_str()), (Some(0), ""));
}
