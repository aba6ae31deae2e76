//! Situations that should have come about in so many seeds.

use quorate_sim::batch::Batch;
use quorate_sim::consensus::{Engine, enough_seeds};

/// With fewer nodes some marks are rare.
pub(super) const NODES: u64 = 3;
/// Simulated seconds with faults in a run; in shorter ones some marks are rare.
pub(super) const SECONDS: u64 = 20;

/// Whether no mark is missing, as far as there were seeds enough to say; says which one is.
pub(super) fn came_about(batch: &Batch, engine: Engine, nodes: u64) -> bool {
    let missing = batch.missing_marks(engine, nodes);
    if batch.done < enough_seeds(engine) || missing.is_empty() {
        return true;
    }
    for mark in missing {
        eprintln!(
            "NEVER SEEN in {} seeds: {}: {}",
            batch.done,
            mark.name(),
            mark.sentence()
        );
    }
    eprintln!("The plans are blind to these: see sim/src/consensus/plan/draw.rs");
    false
}
