//! Where decisions come from.

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Decisions out of a seed, or out of bytes.
pub(crate) enum Dice {
    /// Without an end.
    Seeded(Box<ChaCha12Rng>),
    /// Until the bytes are used up; nothing but zeros after that.
    Bytes(Vec<u8>),
}

impl Dice {
    /// Decisions out of a seed.
    pub(crate) fn seeded(seed: u64) -> Dice {
        Dice::Seeded(Box::new(ChaCha12Rng::seed_from_u64(seed)))
    }

    /// Decisions out of bytes.
    #[allow(dead_code, reason = "only the fuzzer has bytes")]
    pub(crate) fn of(bytes: &[u8]) -> Dice {
        Dice::Bytes(bytes.iter().rev().copied().collect())
    }

    /// Whether there is nothing left to decide with.
    pub(crate) fn is_spent(&self) -> bool {
        matches!(self, Dice::Bytes(bytes) if bytes.is_empty())
    }

    /// Any number.
    pub(crate) fn any(&mut self) -> u64 {
        self.bits(8)
    }

    /// A number out of so many bytes, where bytes are counted.
    fn bits(&mut self, count: usize) -> u64 {
        match self {
            Dice::Seeded(random) => random.next_u64(),
            Dice::Bytes(bytes) => (0..count).fold(0, |number, _| {
                number << 8 | u64::from(bytes.pop().unwrap_or_default())
            }),
        }
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        let count = if bound <= 256 { 1 } else { 8 };
        self.bits(count) % bound
    }

    /// True one time in `bound`.
    pub(crate) fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }

    /// A number near `center`, or far from everything.
    pub(crate) fn near(&mut self, center: u64) -> u64 {
        match self.below(12) {
            0 => 0,
            1 => u64::MAX - self.below(3),
            2 => u64::MAX / 2 + self.below(3),
            3 => self.any(),
            4 => (1 << 32) + self.below(3),
            _ => center.saturating_add(self.below(5)).saturating_sub(2),
        }
    }
}
