//! The tables of features and of known faults name scripts and planted bugs that exist, and leave none out.

use std::collections::BTreeSet;
use std::path::Path;

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
