//! Chance, drawn from a seed.
//!
//! Every concern has a stream of its own, so that drawing more for one (a fault more, a message less) does not shift
//! the others. Only integer arithmetic is used: the same seed gives the same draws on every machine.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// What a stream of chance is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Concern {
    /// The knobs of the whole run, and the kinds of its events.
    Plan = 1,
    /// Delays, losses and repetitions of messages, by link.
    Network = 2,
    /// Delays of disks, and what a crash leaves on them.
    Disk = 3,
    /// Which faults happen when.
    Faults = 4,
    /// What clients ask of whom.
    Clients = 5,
    /// What operators do.
    Operator = 6,
    /// How drivers batch and schedule.
    Drivers = 7,
    /// What a machine is like and what is done to it alone, by node, life and purpose: its clock, its binaries, when it
    /// starts and is switched off, the seed of its own randomness.
    Machines = 8,
    /// Faults and operations that come together.
    Moments = 9,
    /// What clients do with leases and with requests that must be carried out once.
    Data = 10,
    /// Whether all nodes but one are lost, and when.
    ForcedStart = 11,
    /// Which nodes are healed first, and what ails the others for good.
    Recovery = 12,
    /// What clients, owners and operators do with sessions.
    Sessions = 14,
    /// What clients do with streams.
    Streams = 13,
    /// What is so around production nodes alone: what clients speak, and which dates, addresses and sizes of packets break.
    Surroundings = 15,
}

/// An endless stream of draws.
#[derive(Clone, Debug)]
pub struct Stream(ChaCha8Rng);

/// Parts of a million, for probabilities.
pub type PartsPerMillion = u32;

impl Stream {
    /// The stream of `seed` for `concern`.
    pub fn new(seed: u64, concern: Concern) -> Stream {
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        generator.set_stream(concern as u64);
        Stream(generator)
    }

    /// The stream of `seed` for one of many things that `concern` is about, such as one node: drawing more for it does
    /// not shift the others of its kind.
    pub fn keyed(seed: u64, concern: Concern, key: u64) -> Stream {
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        generator.set_stream(concern as u64 | (key + 1) << 8);
        Stream(generator)
    }

    /// An even draw from `0..bound`.
    ///
    /// # Panics
    /// When `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "there is nothing to choose from");
        let product = u128::from(self.0.next_u64()) * u128::from(bound);
        u64::try_from(product >> 64).expect("the upper half of a product of two 64-bit numbers")
    }

    /// An even draw from `low..=high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// True in so many parts of a million.
    pub fn chance(&mut self, probability: PartsPerMillion) -> bool {
        self.below(1_000_000) < u64::from(probability)
    }

    /// A draw with the given mean that is mostly small and now and then several times as large: an exponential
    /// distribution whose curve is made of straight pieces, so that it needs no floating point.
    pub fn around(&mut self, mean: u64) -> u64 {
        let halvings = u128::from(self.0.next_u64().leading_zeros().min(20));
        let fraction = u128::from(self.0.next_u64() >> 32);
        let scaled = (halvings << 32) + fraction;
        u64::try_from((u128::from(mean) * scaled * 2 / 3) >> 32).unwrap_or(u64::MAX)
    }

    /// One of `choices`.
    ///
    /// # Panics
    /// When there is none.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        let place = self.below(choices.len() as u64);
        &choices[usize::try_from(place).expect("a place in a slice")]
    }

    /// 32 bytes, as the seed of another generator.
    pub fn seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        self.0.fill_bytes(&mut seed);
        seed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_of_one_seed_differ_and_repeat() {
        let draw = |seed, concern| {
            let mut stream = Stream::new(seed, concern);
            (0..4).map(|_| stream.below(1 << 40)).collect::<Vec<_>>()
        };
        assert_eq!(draw(1, Concern::Network), draw(1, Concern::Network));
        assert_ne!(draw(1, Concern::Network), draw(1, Concern::Disk));
        assert_ne!(draw(1, Concern::Network), draw(2, Concern::Network));
    }

    #[test]
    fn draws_stay_in_their_bounds_and_around_their_mean() {
        let mut stream = Stream::new(3, Concern::Plan);
        assert!((0..1_000).all(|_| (5..=7).contains(&stream.between(5, 7))));
        let sum: u64 = (0..10_000).map(|_| stream.around(1_000)).sum();
        assert!((9_000_000..11_000_000).contains(&sum), "{sum}");
        let hits = (0..10_000).filter(|_| stream.chance(250_000)).count();
        assert!((2_300..2_700).contains(&hits), "{hits}");
    }
}
