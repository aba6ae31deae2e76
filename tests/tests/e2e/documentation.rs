//! The examples of the reference are true: each is run against a node that has just started.
//!
//! An example is a block of ```` ```console ````: a line that begins with `$ ` is run by a shell, and the lines up to the next
//! one are what it prints. `…` stands for anything.

use std::path::Path;
use std::process::Command;

use quorate_tests::{Cluster, Node};

/// Where the examples say that the node listens.
const ADDRESS: &str = "localhost:8000";

struct Example {
    command: String,
    expected: String,
}

fn examples(page: &str) -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    let mut inside = false;
    for line in page.lines() {
        match line.strip_prefix("$ ") {
            _ if line.starts_with("```") => inside = line == "```console",
            _ if !inside => {}
            Some(command) => examples.push(Example {
                command: command.to_owned(),
                expected: String::new(),
            }),
            None => {
                let example = examples.last_mut().expect("a block begins with a command");
                example.expected.push_str(line);
                example.expected.push('\n');
            }
        }
    }
    examples
}

/// Whether `found` is `expected`, in which `…` stands for anything.
fn fits(found: &str, expected: &str) -> bool {
    let mut parts = expected.split('…');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = found.strip_prefix(first) else {
        return false;
    };
    let Some(last) = parts.next_back() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last)
}

fn run(node: &Node, example: &Example) {
    let address = node.client_address().to_string();
    let command = example.command.replace(ADDRESS, &address);
    let programs = quorate_tests::quorate().parent().expect("it is in a directory");
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new("sh")
        .args(["-c", &command])
        .env("PATH", format!("{}:{path}", programs.display()))
        .env("QUORATE_ENDPOINT", &address)
        .output()
        .expect("a shell");
    let mut printed = String::from_utf8_lossy(&output.stdout).into_owned();
    printed.push_str(&String::from_utf8_lossy(&output.stderr));
    // A value is printed as it is, without the end of a line.
    if !printed.is_empty() && !printed.ends_with('\n') {
        printed.push('\n');
    }
    assert!(
        fits(&printed, &example.expected),
        "$ {}\nprints\n{printed}\nand the page says\n{}",
        example.command,
        example.expected
    );
}

#[track_caller]
fn check(page: &str, least: usize) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/src/reference");
    let text = std::fs::read_to_string(directory.join(page)).expect("the page");
    let examples = examples(&text);
    assert!(examples.len() >= least, "{} examples in {page}", examples.len());
    let mut cluster = Cluster::new();
    let place = cluster.add_with_flags("node1", &[]);
    cluster.start_all();
    cluster.wait_until_ready();
    for example in &examples {
        run(&cluster.nodes[place], example);
    }
}

#[test]
fn the_examples_for_keys_are_true() {
    check("kv.md", 20);
}

#[test]
fn the_examples_for_transactions_are_true() {
    check("txn.md", 6);
}

#[test]
fn the_examples_for_leases_are_true() {
    check("leases.md", 10);
}

#[test]
fn the_examples_for_watches_are_true() {
    check("watch.md", 8);
}

#[test]
fn the_examples_for_the_cluster_are_true() {
    check("cluster.md", 9);
}

#[test]
fn the_examples_for_the_native_protocol_are_true() {
    check("native.md", 3);
}

#[test]
fn the_examples_for_the_description_are_true() {
    check("http.md", 2);
}

#[test]
fn the_examples_for_streams_are_true() {
    check("streams.md", 25);
}

#[test]
fn the_examples_for_sessions_are_true() {
    check("sessions.md", 17);
}

#[test]
fn the_examples_for_settings_are_true() {
    check("settings.md", 30);
}

#[test]
fn the_examples_for_the_command_line_are_true() {
    check("cli.md", 15);
}

#[test]
fn an_ellipsis_stands_for_anything_and_nothing_else_does() {
    assert!(fits("{\"a\":1,\"b\":2}\n", "{\"a\":…,\"b\":2}\n"));
    assert!(fits("abc\n", "…b…\n"));
    assert!(!fits("abc\n", "…d…\n"));
    assert!(!fits("abcd\n", "abc\n"));
    assert!(!fits("abc\n", "abcd\n"));
}
