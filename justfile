# The habits of this repository. `just` alone lists them.

default:
    @just --list

# A whole cluster on this machine: `just dev --nodes 5 --fresh`
dev *arguments:
    cargo run --release -- dev {{arguments}}

# Every test; more arguments go to cargo: `just test -p quorate-core`
test *arguments:
    cargo test --workspace {{arguments}}

# Consensus alone under seeded faults
sim nodes="3" seeds="1..1000":
    cargo run --release -p quorate-sim -- core --nodes {{nodes}} --seeds {{seeds}}

# Production nodes under seeded faults
sim-nodes nodes="3" seeds="1..100":
    cargo run --release -p quorate-sim -- run --nodes {{nodes}} --seeds {{seeds}}

# Stories of failure, measured against what they allow: `just scenarios --only leader`
scenarios *arguments:
    cargo run --release -p quorate-sim -- scenario {{arguments}}

# How long failovers take becomes what CI compares with
failovers:
    cargo run --release -p quorate-sim -- scenario sim/scenarios --only leader- --only transfer --seeds 1..20 --json sim/baseline/failovers.json

# Consensus alone, beside raft-rs, and its memory, then three nodes beside peers: `just bench --only put --rounds 1`
bench *arguments:
    cargo bench -p quorate-benches --bench core
    cargo bench -p quorate-benches --bench consensus -- --quick
    cargo bench -p quorate-benches --bench memory
    cargo build --release -p quorate
    cargo run --release -p quorate-benches --bin compare -- {{arguments}}

# Format everything
fmt:
    cargo fmt --all

# What CI refuses, apart from failing tests
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings

# The documentation of the crates
docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

# All that CI does
ci:
    bash .ci/run
