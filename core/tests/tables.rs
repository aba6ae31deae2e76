//! The tables of features and of known faults name scripts, planted bugs and tests that exist, and leave no script and no
//! planted bug out.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use quorate_core::raft::PlantedBug;

const FAULTS: &str = include_str!("../../docs/src/design/pitfalls.md");
const FEATURES: &str = include_str!("../../docs/src/design/features.md");

/// What stands between backticks in the rows of a table.
fn names(table: &'static str) -> impl Iterator<Item = &'static str> {
    table
        .lines()
        .filter(|line| line.starts_with("| "))
        .flat_map(|line| line.split('`').skip(1).step_by(2))
}

fn consists_of(name: &str, separator: char) -> bool {
    name.contains(separator)
        && name
            .chars()
            .all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == separator)
}

#[test]
fn tables_name_the_scenarios_all_of_them_and_no_others() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let files = std::fs::read_dir(directory).expect("scenarios");
    let paths = files.map(|file| file.expect("a file").path());
    let scripts: BTreeSet<String> = paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned())
        .collect();
    let named: BTreeSet<String> = names(FAULTS)
        .chain(names(FEATURES))
        .filter(|name| consists_of(name, '_'))
        .map(str::to_owned)
        .collect();
    assert_eq!(named, scripts);
}

#[test]
fn table_names_the_planted_bugs_all_of_them_and_no_others() {
    let named: BTreeSet<&str> = names(FAULTS).filter(|name| consists_of(name, '-')).collect();
    let planted: BTreeSet<&str> = PlantedBug::ALL.iter().map(|bug| bug.name()).collect();
    assert_eq!(named, planted);
}

/// Every Rust file of the repository, by its path without the ending.
fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let crates = ["core", "shell", "sim", "tests"];
    let mut folders: Vec<PathBuf> = crates
        .iter()
        .flat_map(|part| [root.join(part).join("src"), root.join(part).join("tests")])
        .filter(|folder| folder.is_dir())
        .collect();
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for file in std::fs::read_dir(&folder).expect("a folder") {
            let path = file.expect("a file").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("a readable file");
                sources.push((path.with_extension(""), text));
            }
        }
    }
    sources
}

/// Whether the parts of a path contain `modules`, in this order.
fn is_in(path: &Path, modules: &[&str]) -> bool {
    let mut modules = modules.iter().peekable();
    for part in path.iter() {
        modules.next_if(|module| part == **module);
    }
    modules.peek().is_none()
}

/// Whether a source has a test called `name`.
fn has_test(text: &str, name: &str) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let head = format!("fn {name}(");
    lines.iter().enumerate().any(|(number, line)| {
        let attributes = lines[..number]
            .iter()
            .rev()
            .take_while(|line| line.starts_with("#["));
        (line.starts_with(&head) || line.starts_with(&format!("async {head}")))
            && attributes.into_iter().any(|attribute| attribute.contains("test"))
    })
}

/// Whether there is such a test, such as `storage::tests` (a module with tests) or `state::once::a_test`.
fn exists(name: &str, sources: &[(PathBuf, String)]) -> bool {
    let parts: Vec<&str> = name.split("::").collect();
    let Some((last, modules)) = parts.split_last() else {
        return false;
    };
    sources.iter().any(|(path, text)| {
        is_in(path, modules) && has_test(text, last) || is_in(path, &parts) && text.contains("#[test]")
    })
}

#[test]
fn tables_name_tests_that_exist() {
    let sources = sources();
    let tests = || {
        names(FAULTS)
            .chain(names(FEATURES))
            .filter(|name| name.contains("::"))
    };
    let missing: Vec<&str> = tests().filter(|name| !exists(name, &sources)).collect();
    assert!(
        missing.is_empty(),
        "the tables name tests that do not exist: {missing:?}"
    );
    assert!(tests().count() > 0, "the tables name tests");
    let files: Vec<&str> = names(FAULTS)
        .chain(names(FEATURES))
        .filter(|name| name.ends_with(".rs"))
        .collect();
    let lost = files.iter().filter(|name| {
        let modules: Vec<&str> = name.trim_end_matches(".rs").split('/').collect();
        !sources
            .iter()
            .any(|(path, text)| is_in(path, &modules) && text.contains("#[test]"))
    });
    assert_eq!(lost.count(), 0, "of {files:?} some do not exist or have no tests");
    assert!(
        !exists("state::once::no_such_test", &sources),
        "the search finds anything"
    );
}
