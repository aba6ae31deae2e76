//! `cargo +nightly fuzz run inputs --features libfuzzer`
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| quorate_fuzz::inputs(input));
