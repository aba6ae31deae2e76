//! A running hash over everything that was applied.
//!
//! Two nodes that applied the same commands at the same indexes have the same fingerprint, and a node that once
//! differed differs for ever. It guards against mistakes and damage, not against an adversary who crafts collisions.

use super::{Reply, Row, RowChange};
use crate::raft::Index;
use crate::wire::{self, Kind};

/// The hash so far. Its meaning is part of the format, since it is kept in a row and compared between nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint(pub(super) u64);

/// Fractional digits of the square roots of 2 and 3, made odd: any odd constant without a pattern would do.
const INITIAL: u64 = 0x6a09_e667_f3bc_c909;
const MULTIPLIER: u64 = 0xbb67_ae85_84ca_a73b;

/// A hash of some bytes, which is part of the format as well.
pub(super) fn digest(bytes: &[u8]) -> u64 {
    Fingerprint::EMPTY.bytes(bytes).0
}

impl Fingerprint {
    /// Of a state that nothing was applied to.
    pub(super) const EMPTY: Fingerprint = Fingerprint(INITIAL);

    /// The fingerprint after the command at `index` gave `reply` and changed `rows`. `scratch` only lends its memory.
    pub(super) fn after(
        self,
        index: Index,
        reply: &Reply,
        rows: &[Row],
        scratch: &mut Vec<u8>,
    ) -> Fingerprint {
        let mut hash = self.word(index.0);
        scratch.clear();
        wire::encode_into(Kind::Reply, reply, scratch);
        hash = hash.bytes(scratch);
        for row in rows {
            hash = hash.bytes(&row.key);
            hash = match &row.change {
                RowChange::Written(value) => hash.word(1).bytes(value),
                RowChange::Gone => hash.word(0),
                RowChange::RangeGone { last } => hash.word(2).bytes(last),
            };
        }
        hash
    }

    /// Mixes in a length and so many bytes.
    fn bytes(self, bytes: &[u8]) -> Fingerprint {
        let mut hash = self.word(bytes.len() as u64);
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            hash = hash.word(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            let mut word = [0; 8];
            word[..rest.len()].copy_from_slice(rest);
            hash = hash.word(u64::from_le_bytes(word));
        }
        hash
    }

    /// Mixes in one word: a full multiplication whose halves are folded together spreads every bit over the result.
    fn word(self, word: u64) -> Fingerprint {
        let product = u128::from(self.0 ^ word) * u128::from(MULTIPLIER);
        #[expect(clippy::cast_possible_truncation, reason = "the two halves of the product")]
        let folded = (product as u64) ^ ((product >> 64) as u64);
        Fingerprint(folded.rotate_left(29).wrapping_add(INITIAL))
    }
}
