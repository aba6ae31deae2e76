//! The cluster secret: the one thing that the operator of a small cluster hands to every node.
//!
//! It is 256 random bits, written as text with a checksum so that a typing error is noticed. Everything that nodes
//! must have in common to trust each other is derived from it with HKDF-SHA256 (RFC 5869): the key of the certificate
//! authority, the key of QUIC's stateless resets, and the key of its address validation tokens. What is derived for
//! one purpose says nothing about another, and the secret itself never leaves the node.
//!
//! Invariant: neither `Debug` nor an error shows any part of a secret.

use std::fmt;
use std::io;

use ring::{digest, hkdf, hmac};
use thiserror::Error;

use crate::port::Entropy;

/// Bytes of a secret.
const LENGTH: usize = 32;
/// Bytes of the checksum behind it: enough that one typing error in four billion passes.
const CHECKSUM_LENGTH: usize = 4;
/// What the text of a secret begins with; the number is the version of the text and of the derivations.
const PREFIX: &str = "quorate-secret-1:";
/// What the text of a secret of any version begins with.
const ANY_PREFIX: &str = "quorate-secret-";
/// Characters behind the prefix: five bits each.
const CHARACTERS: usize = ((LENGTH + CHECKSUM_LENGTH) * 8).div_ceil(5);

/// Whose connections a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Those of other nodes.
    Nodes,
    /// Those of clients.
    Clients,
}

/// The secret that all nodes of a cluster share.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; LENGTH]);

/// Why a text is no cluster secret.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SecretError {
    /// There is no text.
    #[error(
        "the cluster secret is empty: make one with `quorate secret new` and give the same one to every node"
    )]
    Empty,
    /// The text does not look like a secret at all.
    #[error(
        "a cluster secret begins with `{PREFIX}`; this text does not: make one with `quorate secret new`"
    )]
    Prefix,
    /// The secret was made by a newer Quorate.
    #[error(
        "this cluster secret is of a newer form than `{PREFIX}`, the only one that this build knows: upgrade this node"
    )]
    Newer,
    /// Characters are missing or too many.
    #[error(
        "a cluster secret has {CHARACTERS} characters behind `{PREFIX}`, this one has {found}: copy it again, whole"
    )]
    Length {
        /// How many characters there were.
        found: usize,
    },
    /// A character that no secret contains.
    #[error(
        "character {position} behind `{PREFIX}` is not one of a to z and 2 to 7, so it was mistyped (0 for o, 1 for l?)"
    )]
    Character {
        /// Which character, counted from 1.
        position: usize,
    },
    /// Every character is possible, but together they are not a secret.
    #[error("the cluster secret was mistyped: its checksum does not fit; copy it again, whole")]
    Checksum,
}

impl Secret {
    /// A new secret.
    ///
    /// # Errors
    /// When the system has no entropy to give.
    pub fn generate(entropy: &dyn Entropy) -> io::Result<Secret> {
        let mut bytes = [0; LENGTH];
        entropy.fill(&mut bytes)?;
        Ok(Secret(bytes))
    }

    /// Reads a secret from its text; white space around it and the case of its letters do not matter.
    ///
    /// # Errors
    /// When the text is not the whole text of a secret.
    pub fn parse(text: &str) -> Result<Secret, SecretError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(SecretError::Empty);
        }
        let lower = text.to_ascii_lowercase();
        let Some(body) = lower.strip_prefix(PREFIX) else {
            return Err(if lower.starts_with(ANY_PREFIX) {
                SecretError::Newer
            } else {
                SecretError::Prefix
            });
        };
        let found = body.chars().count();
        if found != CHARACTERS {
            return Err(SecretError::Length { found });
        }
        let bytes = base32_decode(body)?;
        let (secret, sum) = bytes
            .split_first_chunk::<LENGTH>()
            .ok_or(SecretError::Length { found })?;
        if sum != checksum(secret) {
            return Err(SecretError::Checksum);
        }
        Ok(Secret(*secret))
    }

    /// The text of the secret, to be stored and handed to the other nodes. Whoever has it can join the cluster.
    pub fn reveal(&self) -> String {
        let mut bytes = self.0.to_vec();
        bytes.extend_from_slice(&checksum(&self.0));
        format!("{PREFIX}{}", base32(&bytes))
    }

    /// Eight characters that tell secrets apart and reveal nothing of them.
    pub fn fingerprint(&self) -> String {
        base32(&self.derive("fingerprint", &[])[..5])
    }

    /// The private key (RFC 8032 seed) of the certificate authority.
    pub(super) fn authority_seed(&self) -> [u8; 32] {
        self.derive("certificate authority", &[])
    }

    /// The key with which a node resets connections of its former process (RFC 9000, section 10.3). Each node has its
    /// own, so that no node can be made to reset the connections of another.
    pub(super) fn reset_key(&self, purpose: Purpose, cluster: &str, node: &str) -> hmac::Key {
        let purpose = match purpose {
            Purpose::Nodes => "stateless reset",
            Purpose::Clients => "stateless reset of clients",
        };
        let key = self.derive(purpose, &[cluster, node]);
        hmac::Key::new(hmac::HMAC_SHA256, &key)
    }

    /// The key of a node's address validation tokens (RFC 9000, section 8.1).
    pub(super) fn token_key(&self, purpose: Purpose, cluster: &str, node: &str) -> hkdf::Prk {
        let purpose = match purpose {
            Purpose::Nodes => "address validation",
            Purpose::Clients => "address validation of clients",
        };
        let key = self.derive(purpose, &[cluster, node]);
        hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&key)
    }

    fn derive(&self, purpose: &str, context: &[&str]) -> [u8; 32] {
        let mut info = Vec::new();
        for part in std::iter::once(&purpose).chain(context) {
            // The length in front keeps ("ab", "c") apart from ("a", "bc").
            info.extend_from_slice(&(part.len() as u64).to_be_bytes());
            info.extend_from_slice(part.as_bytes());
        }
        let mut output = [0; 32];
        hkdf::Salt::new(hkdf::HKDF_SHA256, PREFIX.as_bytes())
            .extract(&self.0)
            .expand(&[&info], hkdf::HKDF_SHA256)
            .and_then(|material| material.fill(&mut output))
            .expect("HKDF-SHA256 gives up to 8,160 bytes and 32 were asked for");
        output
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Secret({})", self.fingerprint())
    }
}

fn checksum(secret: &[u8; LENGTH]) -> [u8; CHECKSUM_LENGTH] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(PREFIX.as_bytes());
    context.update(secret);
    let mut sum = [0; CHECKSUM_LENGTH];
    sum.copy_from_slice(&context.finish().as_ref()[..CHECKSUM_LENGTH]);
    sum
}

/// The alphabet of RFC 4648, section 6, in lower case.
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// `bytes` as text of five bits a character, without padding.
pub(super) fn base32(bytes: &[u8]) -> String {
    let mut text = String::with_capacity((bytes.len() * 8).div_ceil(5));
    let (mut bits, mut count) = (0_u32, 0);
    for byte in bytes {
        bits = (bits << 8) | u32::from(*byte);
        count += 8;
        while count >= 5 {
            count -= 5;
            text.push(ALPHABET[(bits >> count) as usize & 31] as char);
        }
        bits &= (1 << count) - 1;
    }
    if count > 0 {
        text.push(ALPHABET[(bits << (5 - count)) as usize & 31] as char);
    }
    text
}

fn base32_decode(text: &str) -> Result<Vec<u8>, SecretError> {
    let mut bytes = Vec::with_capacity(text.len() * 5 / 8);
    let (mut bits, mut count) = (0_u32, 0);
    for (place, character) in text.chars().enumerate() {
        let value = ALPHABET
            .iter()
            .position(|letter| *letter as char == character)
            .ok_or(SecretError::Character { position: place + 1 })?;
        bits = (bits << 5) | value as u32;
        count += 5;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    // The bits that no byte needs are zero in every text that `base32` makes.
    if bits != 0 {
        return Err(SecretError::Checksum);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Counting;

    impl Entropy for Counting {
        fn fill(&self, buffer: &mut [u8]) -> io::Result<()> {
            for (place, byte) in buffer.iter_mut().enumerate() {
                *byte = (place * 7 + 3) as u8;
            }
            Ok(())
        }
    }

    fn secret() -> Secret {
        Secret::generate(&Counting).unwrap()
    }

    #[test]
    fn text_of_a_secret_is_read_back_in_any_case_and_with_white_space() {
        let text = secret().reveal();
        assert_eq!(Secret::parse(&text), Ok(secret()));
        assert_eq!(
            Secret::parse(&format!("  {}\n", text.to_uppercase())),
            Ok(secret())
        );
    }

    #[test]
    fn text_and_derivations_of_version_1_never_change() {
        // Computed with another implementation of SHA-256, HKDF and base 32.
        assert_eq!(
            secret().reveal(),
            "quorate-secret-1:amfbcga7eywtio2cjfifoxtfnrzxvamir6lj3jflwk44br6o2xolsylv3u"
        );
        assert_eq!(secret().fingerprint(), "khj5tkjr");
        let seed: String = secret()
            .authority_seed()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(
            seed,
            "76da79368f6f6e9ea74513b19ef178183748dd100c5af9e2a92f40eb272c8d44"
        );
    }

    #[test]
    fn every_single_mistyped_character_is_noticed() {
        let text = secret().reveal();
        for place in PREFIX.len()..text.len() {
            for letter in ALPHABET {
                let mut mistyped = text.clone().into_bytes();
                if mistyped[place] == *letter {
                    continue;
                }
                mistyped[place] = *letter;
                let mistyped = String::from_utf8(mistyped).unwrap();
                assert_eq!(Secret::parse(&mistyped), Err(SecretError::Checksum), "{mistyped}");
            }
        }
    }

    #[test]
    fn each_kind_of_wrong_text_has_its_own_error() {
        let text = secret().reveal();
        assert_eq!(Secret::parse(" \n"), Err(SecretError::Empty));
        assert_eq!(Secret::parse("hunter2"), Err(SecretError::Prefix));
        assert_eq!(Secret::parse("quorate-secret-2:abc"), Err(SecretError::Newer));
        assert_eq!(
            Secret::parse(&text[..text.len() - 1]),
            Err(SecretError::Length {
                found: CHARACTERS - 1
            })
        );
        let zero = format!("{}0{}", &text[..20], &text[21..]);
        assert_eq!(
            Secret::parse(&zero),
            Err(SecretError::Character {
                position: 21 - PREFIX.len()
            })
        );
    }

    #[test]
    fn debug_shows_no_part_of_a_secret() {
        let shown = format!("{:?}", secret());
        let body = secret().reveal()[PREFIX.len()..].to_owned();
        assert!(
            body.as_bytes()
                .windows(6)
                .all(|part| { !shown.contains(std::str::from_utf8(part).unwrap()) })
        );
    }

    #[test]
    fn keys_differ_by_purpose_and_node() {
        let secret = secret();
        assert_ne!(secret.derive("a", &["bc"]), secret.derive("a", &["b", "c"]));
        assert_ne!(secret.derive("ab", &["c"]), secret.derive("a", &["bc"]));
        assert_ne!(secret.derive("a", &["x"]), secret.derive("b", &["x"]));
    }
}
