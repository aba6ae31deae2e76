//! Contact: a leader that no majority reaches steps down (check-quorum, Raft dissertation, section 6.2).

use std::collections::{BTreeMap, BTreeSet};

use quorate_core::raft::{Membership, NodeId, Term};

use super::{Verdict, demand};
use crate::consensus::node::Run;
use crate::consensus::schedule::{MILLISECOND, Time};

/// When a running node heard of its peers, and since when it leads.
#[derive(Debug, Default)]
pub(in crate::consensus) struct Contact {
    heard: BTreeMap<NodeId, Time>,
    /// The term that it leads, and since when.
    leads: Option<(Term, Time)>,
}

impl Contact {
    /// A message arrives.
    pub(in crate::consensus) fn hears(&mut self, from: NodeId, now: Time) {
        self.heard.insert(from, now);
    }

    /// The node leads `term`, and its timer has just fired: it has heard a majority within `bound`.
    pub(in crate::consensus) fn leads(
        &mut self,
        now: Time,
        bound: Time,
        run: Run,
        term: Term,
        membership: &Membership,
    ) -> Verdict {
        let led = self.leads.filter(|(led, _)| *led == term);
        let (_, since) = *self.leads.insert(led.unwrap_or((term, now)));
        for id in membership.voters() {
            // A new voter is given as much time as a new leader gives to all.
            self.heard.entry(*id).or_insert(now);
        }
        for half in [membership.voters(), membership.outgoing()] {
            let silence = self.silence(now, since, run.node, half);
            demand(silence <= bound, "a leader without a majority steps down", || {
                format!(
                    "{run} leads, and has heard no majority of {half:?} for {} ms",
                    silence / MILLISECOND
                )
            })?;
        }
        Ok(())
    }

    /// How long a majority of `half` has been silent.
    fn silence(&self, now: Time, since: Time, own: NodeId, half: &BTreeSet<NodeId>) -> Time {
        let heard = |id: &NodeId| match self.heard.get(id) {
            _ if *id == own => now,
            Some(time) => (*time).max(since),
            None => since,
        };
        let mut times: Vec<Time> = half.iter().map(heard).collect();
        times.sort_unstable_by(|one, other| other.cmp(one));
        times.get(half.len() / 2).map_or(0, |time| now - time)
    }
}
