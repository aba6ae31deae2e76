//! Lease reads: a leader that was promised not to be replaced for a while answers reads without asking anybody
//! (Raft dissertation, section 6.4.1; Gray and Cheriton, 1989). Off unless
//! [`Config::lease_reads`](super::Config::lease_reads) says how far clocks may drift apart.
//!
//! A heartbeat asks for a lease. A follower that answers it promises: until the lease is over by its own clock, counted
//! from when the heartbeat came, it votes for nobody else and does not campaign. The leader counts the same time from
//! when the heartbeat left, shortened by the drift. So while a majority's promises last in the leader's eyes, they last
//! in fact, no later leader can exist, and what the leader has committed is all there is.
//!
//! Invariants:
//! - a promise ends by time only. Neither a lost link, nor an operator, nor a later term shortens it; a node that
//!   restarts, and so forgets what it promised, promises nothing to anybody for the longest lease there can be;
//! - the leader alone can give its lease back: the word that lets its heir campaign names the last heartbeat round whose
//!   promises it waives, and it never again counts one of those. A late word finds promises of later rounds, which hold;
//! - while the leadership is handed over no lease is asked for, so that nothing stands in the heir's way;
//! - an answer to a heartbeat tells the follower's clock. No clock counts for a lease before it was compared; one that is
//!   seen to drift further than what was stated counts for none, until a whole [`WINDOW`] shows nothing of the kind. What a
//!   comparison cannot tell, since answers were long under way, is taken off a promise as if the clock did run so fast.
//!
//! Where there is no lease, a read asks for a majority's answer like any other: slower, never wrong.
//!
//! Who switches leases off on a node, or shortens its largest election time-out, lets a largest time-out of before pass
//! between its end and its start: what it promised is told to nobody.
//!
//! A clock is taken to keep its rate: what a window of [`WINDOW`] shows of it, or the beginning of the first one, is held to be
//! true of the next one, too, as long as that does not show the contrary.
//!
//! What no protocol can notice: a clock that stands still together with its machine, as that of a virtual machine that
//! its host pauses and resumes; a clock that counts the time for which a machine sleeps does not count that.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::quorum::reached_by_majority;
use super::role::{Leader, Part};
use super::{NodeId, PlantedBug, Raft, Term, TraceEvent};
use crate::time::Instant;

/// That leases are used, and what they may rely on. All members should have the same: one without it grants no lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseReads {
    /// How much faster or slower than another member's clock a clock may run, in parts per million.
    pub clock_drift_max: u32,
}

impl LeaseReads {
    /// Half: beyond it nothing would be left of a lease.
    pub const CLOCK_DRIFT_LIMIT: u32 = 500_000;
}

/// What a heartbeat asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRequest {
    /// When the heartbeat left, on its sender's clock, in nanoseconds. The answer repeats it.
    pub sent: u64,
    /// How long the promise is to last, in nanoseconds.
    pub duration: u64,
}

/// What the answer to a heartbeat promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseGrant {
    /// When the heartbeat left, as it said.
    pub sent: u64,
    /// What the follower's clock showed, in nanoseconds.
    pub clock: u64,
}

/// A follower's promise to vote for nobody else.
#[derive(Clone, Copy, Debug)]
pub(super) struct Promise {
    /// Whom it was given to, in which heartbeat round of its term; none when it is not known, and can be waived by
    /// nobody: this life of the node did not give it.
    given: Option<(Term, u64)>,
    until: Instant,
    /// Until then it can be waived by nobody, whatever was promised since: an earlier life may have promised as much for
    /// a later round.
    fixed_until: Instant,
}

/// A follower's clock and promise, as its leader sees them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Grant {
    /// When the last heartbeat left that was answered with a promise, and not waived since.
    sent: Option<Instant>,
    /// Where the comparison of clocks begins.
    window: Option<Sample>,
    /// By how much the follower's clock may at most be the faster one, in parts per million, after all that was seen of it
    /// since the link to it was made; none before they were compared.
    fastest: Option<u32>,
    /// Whether the clocks were seen to drift too far apart, in this window or the one before.
    drifts: (bool, bool),
}

/// One look at a follower's clock: it showed `clock` at some moment between the two.
#[derive(Clone, Copy, Debug)]
struct Sample {
    sent: Instant,
    received: Instant,
    clock: u64,
}

/// How long two clocks are compared before the comparison starts anew.
const WINDOW: Duration = Duration::from_secs(10);
/// Over less than this nothing is said of two clocks: their grain would weigh too much.
const COMPARED_MIN: Duration = Duration::from_millis(100);
const MILLION: u128 = 1_000_000;

impl Grant {
    /// Compares the clocks. Returns whether they were found, for the first time, to drift further apart than `bound`.
    fn compare(&mut self, sample: Sample, bound: u32) -> bool {
        let Some(first) = self.window else {
            self.window = Some(sample);
            return false;
        };
        // The least and the most that the leader's clock may have counted between the two looks.
        let least = sample.sent.since(first.received).as_nanos();
        let most = sample.received.since(first.sent).as_nanos();
        let theirs = u128::from(sample.clock.saturating_sub(first.clock));
        let bound = u128::from(bound);
        if most < COMPARED_MIN.as_nanos() {
            return false;
        }
        let fast = theirs * MILLION > most * (MILLION + bound);
        let slow = theirs * (MILLION + bound) < least * MILLION;
        let fastest = (theirs.saturating_sub(least) * MILLION)
            .checked_div(least)
            .map_or(u32::MAX, |ppm| u32::try_from(ppm).unwrap_or(u32::MAX));
        let (now, before) = &mut self.drifts;
        let news = (fast || slow) && !*now && !*before;
        *now |= fast || slow;
        if sample.received.since(first.received) >= WINDOW {
            *before = std::mem::take(now);
            self.window = Some(sample);
            self.fastest = Some(fastest);
        } else {
            self.fastest = Some(self.fastest.map_or(fastest, |known| known.min(fastest)));
        }
        news
    }

    /// Until when a promise of `duration` counts on the leader's clock, when clocks drift by at most `bound`; none when there
    /// is no promise, or the clock is not to be trusted: it drifts, or nothing is known of it yet.
    fn until(&self, duration: Duration, bound: u32) -> Option<Instant> {
        /// Millionths: a clock that fast leaves nothing of the promise.
        const WHOLE: u32 = 1_000_000;
        let drift = self.fastest?.max(bound).min(WHOLE);
        let sent = self.sent.filter(|_| self.drifts == (false, false))?;
        Some(sent + duration.saturating_sub(duration * drift / WHOLE))
    }

    /// The link to the follower broke or is new. Another life of it begins to count anew, and may have other settings;
    /// that its machine's clock was seen to drift holds for another whole window.
    pub(super) fn begin_anew(&mut self) {
        let (now, before) = self.drifts;
        *self = Grant {
            drifts: (false, now || before),
            ..Grant::default()
        };
    }

    /// Whether the follower's clock was seen to drift too far.
    pub(super) fn drifts(&self) -> bool {
        self.drifts != (false, false)
    }
}

impl Raft {
    /// What this node may have promised in an earlier life.
    pub(super) fn promise_of_earlier_life(&self) -> Option<Promise> {
        let lived = self.hard_state.term > Term(0);
        let keeps = !self.planted(PlantedBug::RestartForgetsPromise);
        let until = self.now + self.config.election_timeout_max;
        (self.config.lease_reads.is_some() && lived && keeps).then_some(Promise {
            given: None,
            until,
            fixed_until: until,
        })
    }

    /// Until when this node votes for nobody and does not campaign; none when it is free.
    pub(super) fn promised_until(&self) -> Option<Instant> {
        self.promise
            .map(|promise| promise.until)
            .filter(|until| self.now < *until)
    }

    /// Whether a promise forbids an election for `term`, for which the leader of the term before waives the promises of
    /// its rounds up to `released`.
    pub(super) fn promise_forbids(&self, term: Term, released: Option<u64>) -> bool {
        let Some(promise) = self.promise.filter(|promise| self.now < promise.until) else {
            return false;
        };
        let waived = match (promise.given, released) {
            _ if self.now < promise.fixed_until => false,
            (Some((given, round)), Some(released)) => {
                let late_counts = self.planted(PlantedBug::LateReleaseWaivesLaterPromises);
                given.next() == term && (round <= released || late_counts)
            }
            _ => false,
        };
        !waived
    }

    /// What a heartbeat asks for, when leases are used and the leadership is not being handed over.
    pub(super) fn lease_request(&self) -> Option<LeaseRequest> {
        let leader = self.leading()?;
        if leader.transfer.is_some() {
            return None;
        }
        let duration = self.lease_duration()?;
        Some(LeaseRequest {
            sent: self.now.as_nanoseconds(),
            duration: u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX),
        })
    }

    fn lease_duration(&self) -> Option<Duration> {
        self.config.lease_reads.map(|_| self.config.election_timeout_min)
    }

    /// A heartbeat of the leader asks for a promise. It is given when leases are used here too, and when this node would
    /// keep it over a restart: when its disk knows that it has lived, and the promise is not longer than a node is silent
    /// that starts again.
    pub(super) fn grant_lease(&mut self, round: u64, request: LeaseRequest) -> Option<LeaseGrant> {
        self.config.lease_reads?;
        let duration = Duration::from_nanos(request.duration);
        let forgets = !self.durability.has_lived() && !self.planted(PlantedBug::FirstPromiseIsForgotten);
        if duration > self.config.election_timeout_max || forgets {
            return None;
        }
        let (term, until) = (self.hard_state.term, self.now + duration);
        let promise = self.promise.get_or_insert(Promise {
            given: None,
            until,
            fixed_until: self.now,
        });
        promise.until = promise.until.max(until);
        promise.given = match promise.given {
            Some((given, last)) if given == term => Some((term, round.max(last))),
            _ => Some((term, round)),
        };
        Some(LeaseGrant {
            sent: request.sent,
            clock: self.now.as_nanoseconds(),
        })
    }

    /// A follower answered heartbeat `round` with a promise.
    pub(super) fn lease_granted(&mut self, from: NodeId, round: u64, grant: LeaseGrant) {
        let Some(LeaseReads { clock_drift_max }) = self.config.lease_reads else {
            return;
        };
        let now = self.now;
        let from_receipt = self.planted(PlantedBug::LeaseCountsFromReceipt);
        let Part::Leader(leader) = &mut self.part else {
            return;
        };
        let sent = Instant::from_nanoseconds(grant.sent);
        let waived = round <= leader.released || sent < leader.elected || sent > now;
        let Some(peer) = leader.peers.get_mut(&from).filter(|_| !waived) else {
            return;
        };
        let counted = if from_receipt { now } else { sent };
        peer.grant.sent = peer.grant.sent.max(Some(counted));
        let sample = Sample {
            sent,
            received: now,
            clock: grant.clock,
        };
        if peer.grant.compare(sample, clock_drift_max) {
            self.output.trace.push(TraceEvent::ClockDrifts { peer: from });
        }
    }

    /// Waives all promises given so far, and returns the last round of them.
    pub(super) fn release_lease(&mut self) -> u64 {
        let keeps = self.planted(PlantedBug::ReleasedLeaseIsUsed);
        let Part::Leader(leader) = &mut self.part else {
            return 0;
        };
        if !keeps {
            leader.released = leader.round;
            for peer in leader.peers.values_mut() {
                peer.grant.sent = None;
            }
        }
        leader.round
    }

    /// Until when no other leader can exist; none without a lease.
    pub(super) fn lease_until(&self, leader: &Leader) -> Option<Instant> {
        let LeaseReads { clock_drift_max } = self.config.lease_reads?;
        let duration = self.lease_duration()?;
        let ignores_drift = self.planted(PlantedBug::LeaseIgnoresDrift);
        reached_by_majority(self.log.membership(), |id| {
            if id == self.id {
                return Some(self.now + duration);
            }
            let grant = &leader.peers.get(&id)?.grant;
            if ignores_drift {
                return grant.sent.map(|sent| sent + duration);
            }
            grant.until(duration, clock_drift_max)
        })
    }

    /// Whether the leader may answer a read at once.
    pub(super) fn holds_lease(&self) -> bool {
        self.leading().is_some_and(|leader| {
            self.commit >= leader.opened_at && self.lease_until(leader).is_some_and(|until| self.now < until)
        })
    }
}
