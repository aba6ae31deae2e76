//! A hash over everything that happens in a run: equal hashes, equal runs.

/// The hash so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Trace(u64);

const MULTIPLIER: u64 = 0x9fb2_1c65_1e98_df25;

impl Trace {
    /// Mixes in one number.
    pub(crate) fn note(&mut self, value: u64) {
        let mixed = (self.0 ^ value).wrapping_mul(MULTIPLIER);
        self.0 = mixed ^ (mixed >> 32);
    }

    /// The hash.
    pub(crate) fn value(self) -> u64 {
        self.0
    }
}

/// A hash of bytes.
pub(crate) fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let mut trace = Trace(seed);
    trace.note(bytes.len() as u64);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        trace.note(u64::from_le_bytes(*word));
    }
    for byte in rest {
        trace.note(u64::from(*byte));
    }
    trace.value()
}
