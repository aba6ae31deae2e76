//! Whether a run has a forced start, and when.

use super::{Operation, OperationKind, Who};
use crate::consensus::schedule::{MILLISECOND, SECOND};
use crate::random::{Concern, Stream};

/// One run in twenty with voters to lose has one.
const CHANCE: u32 = 50_000;

pub(super) fn draw(seed: u64, nodes: u64) -> Option<Operation> {
    let mut random = Stream::new(seed, Concern::ForcedStart);
    if nodes < 2 || !random.chance(CHANCE) {
        return None;
    }
    Some(Operation {
        at: random.between(2 * SECOND, 8 * SECOND),
        asked: Who::Leader,
        kind: OperationKind::ForceStart {
            survivor: random.below(64),
            back: random.between(100 * MILLISECOND, 3 * SECOND),
        },
    })
}
