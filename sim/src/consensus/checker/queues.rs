//! Queues are bounded: however long a fault lasts, a node holds no more for others than its configuration allows.

use quorate_core::raft::Load;

use super::{Verdict, demand};

/// Bytes that a command takes in a log at the most, with the memberships of one change, which are never refused for
/// what they take.
const ENTRY_BYTES_MAX: u64 = 8 << 10;
/// Answers of one node to one other that wait for the same write: to an append, to a request for a vote, and to both of an
/// earlier term that was left before the write began.
const HELD_AN_OTHER: usize = 4;

/// Looks at a node that has so many others to answer, and whose appends hold so many bytes.
pub(in crate::consensus) fn bounded(load: &Load, others: usize, append_bytes_max: u64) -> Verdict {
    let bounded = load.reads <= load.reads_max
        // What comes when the bound is just reached still enters.
        && load.uncommitted_bytes <= load.uncommitted_bytes_max.saturating_add(ENTRY_BYTES_MAX)
        && load.in_flight_bytes
            <= load.in_flight_bytes_max.saturating_add(append_bytes_max.max(ENTRY_BYTES_MAX))
        && load.fetches <= others + 1
        && load.held <= HELD_AN_OTHER * others * (load.writes + 1);
    demand(bounded, "queues are bounded", || format!("{load:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_read_too_many_is_seen() {
        let mut load = Load {
            reads: 4,
            reads_max: 4,
            ..Load::default()
        };
        assert!(bounded(&load, 2, 500).is_ok());
        load.reads += 1;
        assert!(bounded(&load, 2, 500).is_err());
    }
}
