//! The `quorate` binary.

use std::process::ExitCode;

// Whoever turned the feature on: the node, or any other crate of the same build.
const _: () = assert!(
    !quorate_core::HAS_PLANTED_BUGS,
    "the feature `planted-bugs` is for the simulation alone: build the node without it"
);

fn main() -> ExitCode {
    quorate::cli::main()
}
