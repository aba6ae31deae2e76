//! The core does no I/O, reads no clock and draws no entropy, and neither does anything that it depends on.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Every crate that the core is built from, looked at for what it does: encoding, a cipher used as a random stream,
/// byte buffers, and macros. A new one is looked at before it stands here.
const DEPENDENCIES: [&str; 18] = [
    "bytes",
    "cobs",
    "postcard",
    "ppv-lite86",
    "proc-macro2",
    "quorate-core",
    "quote",
    "rand_chacha",
    "rand_core",
    "serde",
    "serde_core",
    "serde_derive",
    "syn",
    "thiserror",
    "thiserror-impl",
    "unicode-ident",
    "zerocopy",
    "zerocopy-derive",
];

/// Memory that is shared and never changes is no way to wait or to race.
const SHARED_MEMORY: &str = "use std::sync::Arc;";

/// A length of time is no clock.
const LENGTH_OF_TIME: &str = "use std::time::Duration;";

/// What the core's own code must not mention outside of comments. Nor may it import several things of the standard library at
/// once, among which one of these could hide.
const FORBIDDEN: [&str; 18] = [
    "HashMap",
    "HashSet",
    "SystemTime",
    "async ",
    "dbg!",
    "print!",
    "println!",
    "std::env",
    "std::fs",
    "std::io",
    "std::net",
    "std::process",
    "std::sync",
    "std::thread",
    "std::time",
    "std::{",
    "thread_local!",
    "unsafe ",
];

#[test]
fn core_depends_on_nothing_that_does_io_reads_a_clock_or_draws_entropy() {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--package",
            "quorate-core",
            "--edges",
            "normal",
            "--prefix",
            "none",
        ])
        .args(["--format", "{p}", "--target", "all", "--offline", "--locked"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let found: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.split(' ').next())
        .filter(|name| !name.is_empty())
        .collect();
    assert!(found.contains("quorate-core"), "cargo showed the tree:\n{text}");
    let unknown: Vec<&&str> = found.iter().filter(|name| !DEPENDENCIES.contains(name)).collect();
    assert!(
        unknown.is_empty(),
        "the core has dependencies that nobody looked at: {unknown:?}"
    );
}

#[test]
fn core_mentions_no_clock_file_socket_thread_or_hash_map() {
    let mut files = Vec::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    assert!(files.len() > 20, "the sources were found");
    for file in files {
        let text = fs::read_to_string(&file).expect("a source file");
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let found = FORBIDDEN.iter().find(|word| code.contains(**word));
            let found = found.filter(|_| ![SHARED_MEMORY, LENGTH_OF_TIME].contains(&code.trim()));
            assert!(
                found.is_none(),
                "{}:{}: the core must not use {found:?}",
                file.display(),
                number + 1
            );
        }
    }
}

/// Where the feature may be named; of these the simulation's is the only one that a command can turn on without naming
/// another crate's. The binary of the node does not compile with it (`shell/src/main.rs`).
const PLANTED_BUGS: [(&str, &str); 3] = [
    ("core", "planted-bugs = []"),
    ("shell", r#"planted-bugs = ["quorate-core/planted-bugs"]"#),
    (
        "sim",
        r#"planted-bugs = ["quorate-core/planted-bugs", "quorate/planted-bugs"]"#,
    ),
];

#[test]
fn nothing_turns_planted_bugs_on_but_a_feature_of_the_simulation() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let manifest = |folder: &Path| fs::read_to_string(folder.join("Cargo.toml")).ok();
    let mut named = BTreeSet::new();
    let mut manifests = 0;
    for entry in fs::read_dir(&root).expect("the repository") {
        let folder = entry.expect("an entry").path();
        let Some(text) = manifest(&folder) else { continue };
        manifests += 1;
        let name = folder.file_name().expect("a name").to_string_lossy().into_owned();
        let lines = text.lines().filter(|line| line.contains("planted-bugs"));
        named.extend(lines.map(|line| (name.clone(), line.trim().to_owned())));
    }
    assert!(manifests >= 8, "the crates were found");
    let workspace = manifest(&root).expect("the manifest of the workspace");
    assert!(!workspace.contains("planted-bugs"), "no dependency turns it on");
    let allowed = PLANTED_BUGS.map(|(name, line)| (name.to_owned(), line.to_owned()));
    assert_eq!(named, BTreeSet::from(allowed));
}

#[test]
fn example_is_short_enough_to_be_read() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/counter.rs");
    let text = fs::read_to_string(example).expect("the example");
    assert!(
        text.lines().count() <= 100,
        "it has {} lines",
        text.lines().count()
    );
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}
