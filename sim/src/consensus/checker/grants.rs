//! Leases: one that is kept alive in time lasts, whoever leads.
//!
//! A lease is promised for its whole time from when its grant was applied, and from when a keep-alive was sent that was
//! answered. Only its owner may end it before. The time is measured by the fastest clock that a leader may have; a clock
//! that goes ahead at once ends all promises, since leases rely on clocks that do not.
//!
//! That leases end is seen to at the end of a run: no recovery is complete while there is one.

use std::collections::BTreeMap;

use quorate_core::raft::Index;
use quorate_core::state::{Command, LeaseEvent, LeaseId};

use super::{Verdict, demand};
use crate::consensus::schedule::{MICROSECOND, MILLISECOND, Time};

const CHECKER: &str = "a lease that is kept alive lasts";

/// The leases as their owners know them.
#[derive(Debug)]
pub(in crate::consensus) struct Grants {
    /// How many parts of a million a clock may run fast.
    clock_skew: u64,
    /// The last entry that was looked at; every node applies each.
    seen: Index,
    promised: BTreeMap<LeaseId, Promise>,
    /// When leases ran out last, and for how long they were granted.
    expired: BTreeMap<LeaseId, (Time, Time)>,
    stepped: Time,
}

#[derive(Clone, Copy, Debug)]
struct Promise {
    ttl: Time,
    until: Time,
}

impl Grants {
    pub(in crate::consensus) fn new(clock_skew: u64) -> Grants {
        Grants {
            clock_skew,
            seen: Index::default(),
            promised: BTreeMap::new(),
            expired: BTreeMap::new(),
            stepped: 0,
        }
    }

    /// The time that the fastest clock takes for `ttl`.
    fn at_least(&self, ttl: Time) -> Time {
        let shortest = u128::from(ttl) * 1_000_000 / u128::from(1_000_000 + self.clock_skew);
        Time::try_from(shortest)
            .unwrap_or(Time::MAX)
            .saturating_sub(MICROSECOND)
    }

    /// A clock went ahead at once.
    pub(in crate::consensus) fn clock_steps(&mut self, now: Time) {
        self.stepped = now;
        for promise in self.promised.values_mut() {
            promise.until = promise.until.min(now);
        }
    }

    /// What was applied at `index` and after it is lost with a lineage: which leases there are, and until when, is not known
    /// any more but for those that are granted from now on.
    pub(in crate::consensus) fn lost_from(&mut self, now: Time, index: Index) {
        self.seen = self.seen.min(index.previous());
        self.stepped = now;
        self.promised.clear();
        self.expired.clear();
    }

    /// A node applied an entry, maybe the first one to do so.
    pub(in crate::consensus) fn applied(
        &mut self,
        now: Time,
        index: Index,
        command: &Command,
        events: &[LeaseEvent],
    ) -> Verdict {
        if index <= self.seen {
            return Ok(());
        }
        self.seen = index;
        for event in events {
            match event {
                LeaseEvent::Granted(lease, grant) => {
                    let ttl = Time::try_from(grant.ttl.as_nanos()).unwrap_or(Time::MAX);
                    let until = now + self.at_least(ttl);
                    self.promised.insert(*lease, Promise { ttl, until });
                    self.expired.remove(lease);
                }
                LeaseEvent::Gone(lease, _) => {
                    let promise = self.promised.remove(lease);
                    let Some(Promise { ttl, until }) = promise else {
                        continue;
                    };
                    if !matches!(command, Command::Expire { .. }) {
                        continue;
                    }
                    self.expired.insert(*lease, (now, ttl));
                    demand(now >= until, CHECKER, || {
                        let early = (until - now) / MILLISECOND;
                        format!("lease {lease} ran out at {index}, {early} ms before its time")
                    })?;
                }
            }
        }
        Ok(())
    }

    /// A client heard that its keep-alive, sent at `asked`, was in time.
    pub(in crate::consensus) fn kept_alive(&mut self, asked: Time, lease: LeaseId) -> Verdict {
        if asked <= self.stepped {
            return Ok(());
        }
        if let Some(promise) = self.promised.get(&lease).copied() {
            let until = promise.until.max(asked + self.at_least(promise.ttl));
            self.promised.insert(lease, Promise { until, ..promise });
            return Ok(());
        }
        let Some((ended, ttl)) = self.expired.get(&lease).copied() else {
            return Ok(());
        };
        let until = asked + self.at_least(ttl);
        demand(ended >= until, CHECKER, || {
            let early = (until - ended) / MILLISECOND;
            format!("lease {lease} had run out {early} ms before the time that its keep-alive was promised")
        })
    }
}
