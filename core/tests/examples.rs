//! The example that `docs/src/embedding.md` shows a part of does what it says.

#[path = "../examples/restart.rs"]
mod restart;

#[test]
fn a_node_goes_on_from_its_log() {
    restart::main();
}
