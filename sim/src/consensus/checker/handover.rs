//! Hand-overs that leaders begin of their own accord: the leadership does not go to and fro.

use quorate_core::raft::{HandoverReason, Term};

use super::{Verdict, demand};
use crate::consensus::node::Run;
use crate::consensus::plan::Knobs;
use crate::consensus::schedule::{MILLISECOND, Time};

/// When the last one began, and in which term.
#[derive(Debug, Default)]
pub(in crate::consensus) struct Handovers {
    last: Option<(Time, Term)>,
}

impl Handovers {
    /// A clock went ahead at once: its node believes that more time has passed.
    pub(in crate::consensus) fn clock_steps(&mut self) {
        self.last = None;
    }

    /// A leader begins to hand over.
    pub(in crate::consensus) fn begins(
        &mut self,
        now: Time,
        leader: Run,
        term: Term,
        reason: HandoverReason,
        knobs: &Knobs,
    ) -> Verdict {
        let interval = knobs.handover_interval();
        if self.last.is_some_and(|(_, last)| term < last) {
            // Another one leads by now, and nothing comes of what this one wants.
            return Ok(());
        }
        let before = self.last.replace((now, term));
        let passed = before.map_or(Time::MAX, |(before, _)| now - before);
        demand(passed >= interval, "hand-overs are seldom", || {
            let (passed, interval) = (passed / MILLISECOND, interval / MILLISECOND);
            format!(
                "{leader} hands over {passed} ms after the last one, {interval} ms is the least: {reason:?}"
            )
        })?;
        let groundless = knobs.evenly_slow_disks && reason == HandoverReason::SlowDisk;
        demand(!groundless, "disks that are all slow end no leadership", || {
            format!("{leader} hands over")
        })
    }
}
