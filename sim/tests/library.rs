//! The simulation as a library: what the guide shows compiles, runs, and is what the guide shows.

#[path = "../examples/partition.rs"]
#[allow(dead_code, reason = "the test calls what is an example's entry")]
mod partition;

const PAGE: &str = include_str!("../../docs/src/testing.md");
const CODE: &str = include_str!("../examples/partition.rs");

#[test]
fn the_example_of_the_guide_holds() {
    if let Err(error) = partition::main() {
        panic!("{error}");
    }
}

#[test]
fn the_guide_shows_the_example_as_it_is() {
    let shown = format!("```rust\n{CODE}```\n");
    assert!(
        PAGE.contains(&shown),
        "docs/src/testing.md shows another program than sim/examples/partition.rs"
    );
}
