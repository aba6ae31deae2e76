//! `cargo +nightly fuzz run stored --features libfuzzer`
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| quorate_fuzz::stored(input));
