//! The table of known faults names scripts and planted bugs that exist, and leaves none of the planted ones out.

use std::collections::BTreeSet;
use std::path::Path;

use quorate_core::raft::PlantedBug;

const TABLE: &str = include_str!("../../docs/src/design/pitfalls.md");

/// What stands between backticks in the rows of the tables.
fn names() -> impl Iterator<Item = &'static str> {
    TABLE
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
fn every_scenario_that_the_table_names_exists() {
    let scenarios = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let named: Vec<&str> = names().filter(|name| consists_of(name, '_')).collect();
    assert!(named.len() > 40, "the table names scenarios");
    for name in named {
        assert!(
            scenarios.join(name).with_extension("txt").is_file(),
            "the table names the scenario `{name}`, which does not exist"
        );
    }
}

#[test]
fn table_names_the_planted_bugs_all_of_them_and_no_others() {
    let named: BTreeSet<&str> = names().filter(|name| consists_of(name, '-')).collect();
    let planted: BTreeSet<&str> = PlantedBug::ALL.iter().map(|bug| bug.name()).collect();
    assert_eq!(named, planted);
}
