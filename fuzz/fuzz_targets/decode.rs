//! `cargo +nightly fuzz run decode --features libfuzzer`
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| quorate_fuzz::decode(input));
