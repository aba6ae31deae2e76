//! The benchmarks are in `benches/`; `cargo bench -p quorate-benches` runs them.
