//! Decoding arbitrary bytes: a bounded run of what `fuzz_targets/decode.rs` does without an end.
//!
//! Inputs are random bytes behind every head that a decoder accepts, and the golden files with parts of them changed.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use quorate_tests::allocation::{self, Counting};
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const INPUTS: u64 = 40_000;
/// Bytes that decoding may hold at most, beside a multiple of its input. A sequence that announces more elements than its
/// input can have makes a decoder reserve a mebibyte for them, and no more.
const BYTES_MAX: usize = 3 << 20;
/// An entry without a payload takes 48 bytes in memory and 3 on the wire; sequences grow by doubling, and are copied.
const FACTOR_MAX: usize = 64;

/// Everything that this build's golden files hold, as it would reach a decoder.
fn samples() -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut samples = Vec::new();
    for folder in ["core/tests/golden", "shell/tests/golden"] {
        for file in fs::read_dir(root.join(folder)).unwrap() {
            let path = file.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            if path.extension().is_none_or(|extension| extension != "hex") {
                samples.push(bytes);
                continue;
            }
            let text = String::from_utf8(bytes).unwrap();
            let digits = text.lines().filter_map(|line| line.split(' ').next_back());
            // What is no number is the word for a row that was removed.
            let is_number = |digits: &&str| digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            samples.extend(digits.filter(is_number).map(unhex));
        }
    }
    assert!(samples.len() > 20, "the golden files were found");
    samples
}

fn unhex(digits: &str) -> Vec<u8> {
    let byte = |place: usize| u8::from_str_radix(&digits[place..place + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(byte).collect()
}

struct Random(ChaCha12Rng);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0.next_u64() as usize % bound.max(1)
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.0.fill_bytes(&mut bytes);
        bytes
    }

    /// Random bytes behind the head of an encoded value, or behind a length.
    fn noise(&mut self) -> Vec<u8> {
        let length = self.below(300);
        let mut bytes = self.bytes(length);
        if let Some(head) = bytes.first_chunk_mut::<2>() {
            *head = [1 + self.below(11) as u8, 1];
        }
        if self.below(3) == 0 {
            // Numbers without end, in the encoding of lengths.
            let place = self.below(bytes.len());
            bytes.splice(place..place, [0xff; 9].into_iter().chain([1]));
        }
        bytes
    }

    /// A sample with something changed, cut out, put in or repeated.
    fn changed(&mut self, samples: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = samples[self.below(samples.len())].clone();
        for _ in 0..=self.below(3) {
            let place = self.below(bytes.len());
            let end = place + self.below((bytes.len() - place).min(20));
            match self.below(5) {
                0 if !bytes.is_empty() => bytes[place] = self.below(256) as u8,
                1 => bytes.truncate(place),
                2 => drop(bytes.drain(place..end)),
                3 => {
                    let again = bytes[place..end].to_vec();
                    bytes.splice(place..place, again);
                }
                _ => {
                    let endless = [0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
                    bytes.splice(place..place, endless);
                }
            }
        }
        bytes
    }
}

#[test]
fn arbitrary_bytes_neither_panic_a_decoder_nor_make_it_hold_much() {
    let samples = samples();
    for seed in 0..INPUTS {
        let mut random = Random(ChaCha12Rng::seed_from_u64(seed));
        let input = match seed % 4 {
            0 => random.noise(),
            _ => random.changed(&samples),
        };
        let before = allocation::live();
        allocation::reset_peak();
        let result = std::panic::catch_unwind(|| quorate_fuzz::decode(&input));
        let held = allocation::peak().saturating_sub(before);
        assert!(result.is_ok(), "seed {seed}: {input:02x?}");
        let bound = BYTES_MAX + FACTOR_MAX * input.len();
        assert!(
            held <= bound,
            "seed {seed}: {held} bytes for {} of {input:02x?}",
            input.len()
        );
    }
}
