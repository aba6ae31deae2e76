//! What is fed with arbitrary input, and must neither panic nor make room without bound.
//!
//! Three doors: the decoders of everything that comes over the network or from a file; the inputs of a node in any
//! state that it can be in; and the state that it finds on its disk. cargo-fuzz drives them without an end
//! (`fuzz_targets/`), tests for a while (`tests/`; the node's are in `core/tests/arbitrary_inputs.rs`).

// The node under arbitrary inputs is a test of the core, where it runs with seeds.
#[allow(clippy::unwrap_used, dead_code)]
#[path = "../../core/tests/arbitrary/mod.rs"]
mod arbitrary;

use quorate_core::raft::{Base, Entry, HardState, Message, Position};
use quorate_core::state::{Command, Reply, StateMachine};
use quorate_core::wire::{self, Kind};

use arbitrary::{Bench, Dice, stored};

/// Steps of a node at most, for one input of a fuzzer.
const STEPS: u64 = 600;

/// Decodes `input` as everything that comes over the network or from a file.
pub fn decode(input: &[u8]) {
    let _ = wire::decode::<Message>(Kind::Message, input);
    let _ = wire::decode::<Entry>(Kind::Entry, input);
    let _ = wire::decode::<HardState>(Kind::HardState, input);
    let _ = wire::decode::<Base>(Kind::Base, input);
    let _ = Command::decode(input);
    let _ = Reply::decode(input);
    apply(input);
    quorate::fuzzing::wire(input);
    quorate::fuzzing::files(input);
}

/// Applies `input` as a command, and restores a state from it as the value of rows.
fn apply(input: &[u8]) {
    let position = Position::default();
    let next = Position {
        index: position.index.next(),
        ..position
    };
    let _ = StateMachine::new().apply(next, input);
    let rows = [vec![0], vec![1, b'k'], input.to_vec()].map(|key| (key, input.to_vec()));
    for row in &rows {
        let _ = StateMachine::restore([row.clone()].into_iter(), position);
    }
    let _ = StateMachine::restore(rows.into_iter(), position);
}

/// Drives a node with what `input` decides, from a state that it can have come to.
pub fn inputs(input: &[u8]) {
    let mut dice = Dice::of(input);
    let (boot, witness) = stored::sound(&mut dice);
    let mut bench = Bench::start(dice, boot, witness).expect("a sound state is accepted");
    bench.run(STEPS);
}

/// Starts a node from a damaged state, and drives it when it accepts that.
pub fn stored(input: &[u8]) {
    let mut dice = Dice::of(input);
    let (mut boot, witness) = stored::sound(&mut dice);
    for _ in 0..=dice.below(3) {
        stored::damage(&mut boot, witness, &mut dice);
    }
    let playable = stored::is_playable(&boot);
    if let Ok(mut bench) = Bench::start(dice, boot, witness)
        && playable
    {
        bench.run(STEPS);
    }
}
