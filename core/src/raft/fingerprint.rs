//! A number for what a node is, apart from when it became so.
//!
//! Two nodes that differ only in the times they noted, in their random stream or in their settings have the same
//! fingerprint: an explorer that lets every timer fire at any moment need not visit both.

use std::fmt::{self, Write as _};

use super::Raft;

impl Raft {
    /// The fingerprint: equal for nodes in the same state, and unequal but for chance (one in 2^64) for others.
    ///
    /// Effects that were not drained are not part of it.
    pub fn fingerprint(&self) -> u64 {
        // Every field is named, so that a new one is thought about.
        let Raft {
            config: _,
            id,
            hard_state,
            log,
            commit,
            cursor,
            part,
            election_due: _,
            eager_until,
            precedence,
            promise,
            // For those who ask; decides nothing.
            quorum: _,
            durability,
            owed,
            owed_until,
            handed_over,
            reads,
            fetches,
            next_fetch: _,
            failed,
            repair,
            random: _,
            now,
            output: _,
        } = self;
        let mut hash = Masked::default();
        // Hashing cannot fail.
        let _ = write!(
            hash,
            "{id:?} {hard_state:?} {log:?} {commit:?} {cursor:?} {part:?} {precedence:?} {promise:?} {durability:?} {owed:?} {reads:?} \
             {fetches:?} {failed:?} {repair:?} {} {} {} {} {}",
            self.is_undisturbed(),
            self.promised_until().is_some(),
            now < eager_until,
            owed_until.is_some(),
            handed_over.is_some(),
        );
        hash.value
    }
}

/// What stands for a time or a measurement of time in the text of a node: the number after it does not count.
const MASKS: [&str; 3] = ["Instant", "nanoseconds", "writes"];

/// FNV-1a over a text, without the numbers that stand for times.
struct Masked {
    value: u64,
    masking: bool,
}

impl Default for Masked {
    fn default() -> Masked {
        Masked {
            value: 0xcbf2_9ce4_8422_2325,
            masking: false,
        }
    }
}

impl fmt::Write for Masked {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if self.masking && byte.is_ascii_digit() {
                continue;
            }
            self.value = (self.value ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        // The derived text of a field hands its name over as one piece, and then what lies between it and the number.
        if MASKS.contains(&text) {
            self.masking = true;
        } else if text
            .bytes()
            .any(|byte| byte.is_ascii_alphabetic() || byte == b',' || byte == b'}')
        {
            self.masking = false;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::{Boot, Config, DirectoryId, Input, Lineage, Member, Membership, NodeId, Raft, Token};
    use crate::Instant;

    fn node(now: u64, seed: u8) -> Raft {
        let member = Member::named("1".to_owned(), DirectoryId(1));
        let membership = Membership::bootstrap(Lineage(1), BTreeMap::from([(NodeId(1), member)]));
        let now = Instant::from_nanoseconds(now);
        Raft::new(
            Config::default(),
            Boot::blank(NodeId(1), membership),
            [seed; 32],
            now,
        )
        .unwrap()
    }

    #[test]
    fn time_and_chance_do_not_count() {
        assert_eq!(node(0, 1).fingerprint(), node(77_000, 2).fingerprint());
    }

    #[test]
    fn what_a_node_holds_counts() {
        let mut leader = node(0, 1);
        leader.step(Instant::from_nanoseconds(400_000_000), Input::Timeout);
        assert_ne!(leader.fingerprint(), node(0, 1).fingerprint());
        let before = leader.fingerprint();
        let propose = Input::Propose {
            token: Token(1),
            command: vec![1].into(),
        };
        leader.step(Instant::from_nanoseconds(400_000_001), propose);
        let refused = leader.fingerprint();
        assert_eq!(before, refused, "a candidate takes nothing on");
    }
}
