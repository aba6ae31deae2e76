//! Leaders do not flood the network: however messages are lost, repeated and overtaken, an entry is not sent to a
//! follower without end.
//!
//! A leader that takes something for lost probes with one append, and begins with [`WINDOW`] more when that is accepted.
//! So it is with at least one entry accepted that it sends so many again, or with a heartbeat in vain.

use super::{Verdict, demand};
use crate::consensus::schedule::{SECOND, Time};

/// A probe, the eight appends that a new pipeline holds, and one that its acceptances make room for.
const WINDOW: u64 = 10;
/// Times a second that something is taken for lost, without an entry that came through: once a heartbeat interval at the
/// most, of which a run has up to fifty, for each of two leaders that may be there.
const IN_VAIN: u64 = 100;

/// Looks at the appends of a whole run.
pub(in crate::consensus) fn none(appends: u64, followers: u64, entries: u64, time: Time) -> Verdict {
    let seconds = time.div_ceil(SECOND);
    let most = WINDOW * followers * (entries + IN_VAIN * seconds);
    demand(appends <= most, "leaders do not flood the network", || {
        format!("{appends} appends in {seconds} s to {followers} followers, for {entries} entries")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_is_more_than_a_window_an_entry() {
        // What a run sent whose leader answered every refusal with its whole window, and what it sends now.
        assert!(none(1_156_885, 2, 1_858, 21 * SECOND).is_err());
        assert!(none(12_903, 2, 1_465, 21 * SECOND).is_ok());
    }
}
