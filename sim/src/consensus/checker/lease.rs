//! Leases: while a leader may answer reads alone, nobody else is elected.

use quorate_core::Instant;
use quorate_core::raft::{Status, Term};

use super::{Verdict, demand};
use crate::consensus::node::Run;

/// A leader, whose clock shows `now`, holds no lease when somebody leads a later term.
pub(in crate::consensus) fn none_after(
    later: Option<(Term, Run)>,
    run: Run,
    now: Instant,
    status: &Status<'_>,
) -> Verdict {
    let Some((term, elected)) = later else {
        return Ok(());
    };
    over(term, elected, run, now, status)
}

/// `elected` begins to lead `term`: `other`, whose clock shows `now`, holds no lease of an earlier term.
pub(in crate::consensus) fn over(
    term: Term,
    elected: Run,
    other: Run,
    now: Instant,
    status: &Status<'_>,
) -> Verdict {
    let until = status
        .lease_until
        .filter(|until| status.term < term && now < *until);
    demand(until.is_none(), "no election within a lease", || {
        let left = until.map_or(0, |until| until.since(now).as_micros());
        format!("{elected} leads term {term}, and the lease of {other} lasts for another {left} us")
    })
}
