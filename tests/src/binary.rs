//! Where the program under test is.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The program `quorate` of the profile that the tests were built with. It is built first where it is missing or older
/// than its sources, as after `cargo test -p quorate-tests`; `cargo test --workspace` builds it anyway.
pub fn quorate() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let test = std::env::current_exe().expect("the path of the test's program");
        // target/<profile>/deps/<test>, or target/<profile>/<program> for a benchmark
        let profile = test
            .ancestors()
            .skip(1)
            .find(|directory| !directory.ends_with("deps"))
            .expect("cargo runs tests from below the profile's directory");
        let binary = profile.join("quorate");
        let lock = File::create(profile.join("quorate.lock")).expect("a lock file beside the program");
        lock.lock().expect("the lock of the program's build");
        if !is_fresh(&binary) {
            build(profile);
        }
        binary
    })
}

/// Whether the program is newer than each of the sources that cargo noted for it.
fn is_fresh(binary: &Path) -> bool {
    let modified = |path: &Path| path.metadata().and_then(|metadata| metadata.modified()).ok();
    let Some(built) = modified(binary) else {
        return false;
    };
    let Ok(noted) = std::fs::read_to_string(binary.with_extension("d")) else {
        return false;
    };
    let sources = noted.split_once(": ").map_or("", |(_, sources)| sources);
    sources
        .split_whitespace()
        .all(|source| modified(Path::new(source)).is_some_and(|changed| changed <= built))
}

fn build(profile: &Path) {
    let mut command = Command::new(env!("CARGO"));
    command
        .args(["build", "--workspace", "--bin", "quorate", "--target-dir"])
        .arg(
            profile
                .parent()
                .expect("the profile's directory is in the target directory"),
        )
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    // What cargo tells this test of its own package; build scripts that watch it would compile their crates again.
    for (name, _) in std::env::vars_os() {
        let told = name.to_string_lossy();
        if told.starts_with("CARGO_PKG_") || told.starts_with("CARGO_MANIFEST_") {
            command.env_remove(name);
        }
    }
    match profile.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => {}
        Some(name) => {
            command.args(["--profile", name]);
        }
    }
    let status = command.status().expect("cargo runs");
    assert!(status.success(), "cargo could not build quorate");
}
