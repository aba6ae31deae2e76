//! What a leader takes a follower's disk to hold, it holds: commits are counted from nothing else.

use quorate_core::raft::{Index, NodeId, Term};

use super::{Verdict, demand};
use crate::consensus::log::DiskLog;

/// The leader of `term`, whose log is `own`, has heard from `peer` and takes its disk to agree up to `matched`.
pub(in crate::consensus) fn agrees(
    term: Term,
    own: &DiskLog,
    peer: NodeId,
    matched: Index,
    disk: &DiskLog,
) -> Verdict {
    // A follower of a later leader may have cut off what it accepted from this one. What damage took was there, and
    // the follower has no say in elections without it.
    let replaced = disk.hard_state.term > term || disk.repairing().is_some();
    let purged = matched <= disk.base.position.index || matched <= own.base.position.index;
    let (held, wanted) = (disk.term_at(matched), own.term_at(matched));
    demand(
        replaced || purged || held == wanted,
        "a leader knows what its followers hold",
        || {
            format!(
                "the leader of term {term} takes {peer} to hold {wanted:?} at {matched}; its disk holds {held:?} there"
            )
        },
    )
}
