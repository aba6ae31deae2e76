//! Arbitrary bytes for the decoders of this crate. Each must return whatever it is given, and make room for no more than
//! what it was given can need; `fuzz/` and its tests see to that.
//!
//! Where a format has a checksum, the bytes are fed as they are and with the right one: what is behind it must bear
//! arbitrary bytes too.

/// Decodes `input` as everything that comes over a connection, between nodes and of clients over QUIC.
pub fn wire(input: &[u8]) {
    crate::transport::feed(input);
    crate::api::native::feed(input);
}

/// Decodes `input` as everything that is in a file of a data directory.
pub fn files(input: &[u8]) {
    crate::storage::feed(input);
}
