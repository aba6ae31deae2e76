//! Everything random that a simulated node draws: secrets, keys, and what TLS needs.
//!
//! TLS wants its random source and its key exchange as statics, so these draw from a stream of the thread; a world
//! lives on one thread and sets that stream when it begins.

use std::cell::RefCell;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use quorate::port::Entropy;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rustls::crypto::{
    ActiveKeyExchange, CryptoProvider, GetRandomFailed, SecureRandom, SharedSecret, SupportedKxGroup,
};
use rustls::{Error, NamedGroup, PeerMisbehaved};
use x25519_dalek::{X25519_BASEPOINT_BYTES, x25519};

/// The entropy port of one life of one machine.
pub(super) struct Seeded(Mutex<ChaCha8Rng>);

impl Seeded {
    pub(super) fn new(seed: [u8; 32]) -> Seeded {
        Seeded(Mutex::new(ChaCha8Rng::from_seed(seed)))
    }
}

impl Entropy for Seeded {
    fn fill(&self, buffer: &mut [u8]) -> io::Result<()> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .fill_bytes(buffer);
        Ok(())
    }
}

thread_local! {
    static HANDSHAKES: RefCell<ChaCha8Rng> = RefCell::new(ChaCha8Rng::from_seed([0; 32]));
}

/// From here on TLS on this thread draws from this seed.
pub(super) fn seed_handshakes(seed: [u8; 32]) {
    HANDSHAKES.with_borrow_mut(|random| *random = ChaCha8Rng::from_seed(seed));
}

/// TLS as in production (ring), but for what it draws on.
pub(super) fn tls() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        secure_random: &ThreadRandom,
        kx_groups: vec![&SeededX25519],
        ..rustls::crypto::ring::default_provider()
    })
}

#[derive(Debug)]
struct ThreadRandom;

impl SecureRandom for ThreadRandom {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), GetRandomFailed> {
        HANDSHAKES.with_borrow_mut(|random| random.fill_bytes(buffer));
        Ok(())
    }
}

/// X25519 (RFC 7748) with seeded private keys: ring draws its own from the system.
#[derive(Debug)]
struct SeededX25519;

impl SupportedKxGroup for SeededX25519 {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let mut private = [0; 32];
        HANDSHAKES.with_borrow_mut(|random| random.fill_bytes(&mut private));
        Ok(Box::new(Exchange {
            private,
            public: x25519(private, X25519_BASEPOINT_BYTES),
        }))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

struct Exchange {
    private: [u8; 32],
    public: [u8; 32],
}

impl ActiveKeyExchange for Exchange {
    fn complete(self: Box<Self>, theirs: &[u8]) -> Result<SharedSecret, Error> {
        let theirs = <[u8; 32]>::try_from(theirs).map_err(|_| PeerMisbehaved::InvalidKeyShare)?;
        Ok(SharedSecret::from(x25519(self.private, theirs).as_slice()))
    }

    fn pub_key(&self) -> &[u8] {
        &self.public
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}
