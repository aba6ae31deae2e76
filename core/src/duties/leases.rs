//! When leases run out.
//!
//! The leader alone keeps the deadlines, in memory and by its own clock: a keep-alive costs no entry of the log. A new
//! leader knows nothing of them and starts all leases anew for their whole time. So a lease may last longer than it was
//! granted for, and never shorter, if two things hold (etcd#12528, etcd#15247):
//! - a keep-alive counts only when the leader was confirmed as such after it came: a leader that was deposed without
//!   knowing it must not promise what its successor does not keep. The driver reads an index for it, as for a
//!   linearizable read, and names the term in which it began;
//! - what a leader decided counts in its own term only: [`Command::Expire`] carries it.
//!
//! Once a lease was proposed to be expired there is no way back: it cannot be renewed while that is under way.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use thiserror::Error;

use crate::Instant;
use crate::raft::Term;
use crate::state::{Command, Grant, LeaseEvent, LeaseId};

/// How many leases one command expires.
const EXPIRED_AT_ONCE: usize = 100;
/// When an expiry is proposed again that has not been applied: the proposal may have been refused or lost.
const PROPOSED_AGAIN: Duration = Duration::from_secs(1);

/// The deadlines of all leases, while this node leads.
#[derive(Clone, Debug, Default)]
pub struct Leases {
    leading: Option<Leading>,
}

/// Why a lease is not renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NotRenewed {
    /// This node does not lead, or not in that term: another one may have to be asked.
    #[error("this node does not lead any more")]
    NotLeading,
    /// There is no such lease, or its time is over and its keys are about to go.
    #[error("there is no such lease, or its time is over")]
    Gone,
}

#[derive(Clone, Debug)]
struct Leading {
    term: Term,
    entries: BTreeMap<LeaseId, Entry>,
    /// Every lease once, at the time when it is to be looked at: its deadline, or a time before it since a renewal
    /// leaves its place here alone.
    queue: BTreeSet<(Instant, LeaseId)>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    grant: Grant,
    deadline: Instant,
    /// Where it stands in the queue.
    queued: Instant,
    /// Whether its expiry was proposed.
    ending: bool,
}

impl Leases {
    /// This node leads in `term`, and did not before: all leases that its state knows start anew. The state may be
    /// behind; what it learns later is told by [`Leases::see`].
    pub fn lead(&mut self, term: Term, now: Instant, leases: impl Iterator<Item = (LeaseId, Grant)>) {
        let mut leading = Leading {
            term,
            entries: BTreeMap::new(),
            queue: BTreeSet::new(),
        };
        for (lease, grant) in leases {
            leading.begin(now, lease, grant);
        }
        self.leading = Some(leading);
    }

    /// This node does not lead.
    pub fn follow(&mut self) {
        self.leading = None;
    }

    /// The term in which this node leads.
    pub fn term(&self) -> Option<Term> {
        self.leading.as_ref().map(|leading| leading.term)
    }

    /// The state machine of this node granted a lease or ended one. It may tell what is known already.
    pub fn see(&mut self, now: Instant, event: LeaseEvent) {
        let Some(leading) = &mut self.leading else {
            return;
        };
        match event {
            LeaseEvent::Granted(lease, grant) => {
                let known = leading.entries.get(&lease);
                if known.is_none_or(|entry| entry.grant.granted < grant.granted) {
                    leading.end(lease);
                    leading.begin(now, lease, grant);
                }
            }
            LeaseEvent::Gone(lease, grant) => {
                let known = leading.entries.get(&lease);
                if known.is_some_and(|entry| entry.grant.granted <= grant.granted) {
                    leading.end(lease);
                }
            }
        }
    }

    /// A keep-alive that came at `received`, when this node led in `term`; that it did is confirmed since, and its state
    /// has caught up with the confirmed index. Returns how long the lease lasts from `received` on.
    ///
    /// # Errors
    /// When the client must not count on the lease.
    pub fn renew(&mut self, term: Term, received: Instant, lease: LeaseId) -> Result<Duration, NotRenewed> {
        let leading = self
            .leading
            .as_mut()
            .filter(|leading| leading.term == term)
            .ok_or(NotRenewed::NotLeading)?;
        let entry = leading
            .entries
            .get_mut(&lease)
            .filter(|entry| !entry.ending)
            .ok_or(NotRenewed::Gone)?;
        entry.deadline = entry.deadline.max(received + entry.grant.ttl);
        Ok(entry.grant.ttl)
    }

    /// How long a lease still lasts without a keep-alive; none when this node does not lead or know it.
    pub fn remaining(&self, now: Instant, lease: LeaseId) -> Option<Duration> {
        let entry = self.leading.as_ref()?.entries.get(&lease)?;
        Some(if entry.ending {
            Duration::ZERO
        } else {
            entry.deadline.since(now)
        })
    }

    /// When [`Leases::due`] has something to look at next.
    pub fn deadline(&self) -> Option<Instant> {
        let (first, _) = self.leading.as_ref()?.queue.first()?;
        Some(*first)
    }

    /// The next command that expires leases whose time is over; to be asked until there is none.
    pub fn due(&mut self, now: Instant) -> Option<Command> {
        let leading = self.leading.as_mut()?;
        let mut over = Vec::new();
        while over.len() < EXPIRED_AT_ONCE
            && let Some((queued, lease)) = leading.queue.first().copied()
            && queued <= now
        {
            leading.queue.pop_first();
            let entry = leading
                .entries
                .get_mut(&lease)
                .expect("every lease in the queue is known");
            if entry.deadline <= now {
                over.push((lease, entry.grant.granted));
                entry.ending = true;
                entry.queued = now + PROPOSED_AGAIN;
            } else {
                entry.queued = entry.deadline;
            }
            leading.queue.insert((entry.queued, lease));
        }
        let term = leading.term;
        (!over.is_empty()).then_some(Command::Expire { term, leases: over })
    }
}

impl Leading {
    fn begin(&mut self, now: Instant, lease: LeaseId, grant: Grant) {
        let deadline = now + grant.ttl;
        let entry = Entry {
            grant,
            deadline,
            queued: deadline,
            ending: false,
        };
        self.entries.insert(lease, entry);
        self.queue.insert((deadline, lease));
    }

    fn end(&mut self, lease: LeaseId) {
        if let Some(entry) = self.entries.remove(&lease) {
            self.queue.remove(&(entry.queued, lease));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::Index;

    fn id(number: u64) -> LeaseId {
        LeaseId::new(number).expect("a number that is not 0")
    }

    fn grant(index: u64) -> Grant {
        Grant {
            ttl: Duration::from_secs(10),
            granted: Index(index),
        }
    }

    fn at(seconds: u64) -> Instant {
        Instant::ORIGIN + Duration::from_secs(seconds)
    }

    fn leading(term: u64, since: u64) -> Leases {
        let mut leases = Leases::default();
        leases.lead(Term(term), at(since), [(id(7), grant(1))].into_iter());
        leases
    }

    fn expiry(term: u64, granted: u64) -> Option<Command> {
        Some(Command::Expire {
            term: Term(term),
            leases: vec![(id(7), Index(granted))],
        })
    }

    #[test]
    fn a_new_leader_renews_every_lease_for_its_whole_time() {
        let mut leases = leading(3, 100);
        assert_eq!(leases.due(at(109)), None);
        assert_eq!(leases.deadline(), Some(at(110)));
        assert_eq!(leases.due(at(110)), expiry(3, 1));
    }

    #[test]
    fn a_keep_alive_counts_from_when_it_came() {
        let mut leases = leading(3, 0);
        assert_eq!(leases.renew(Term(3), at(6), id(7)), Ok(Duration::from_secs(10)));
        assert_eq!(leases.remaining(at(9), id(7)), Some(Duration::from_secs(7)));
        assert_eq!(leases.due(at(15)), None);
        assert_eq!(
            leases.renew(Term(3), at(2), id(7)),
            Ok(Duration::from_secs(10)),
            "one that was confirmed late"
        );
        assert_eq!(leases.due(at(15)), None);
        assert_eq!(leases.due(at(16)), expiry(3, 1));
    }

    #[test]
    fn what_a_stale_leader_knows_counts_no_more() {
        let mut leases = leading(3, 0);
        assert_eq!(leases.renew(Term(2), at(1), id(7)), Err(NotRenewed::NotLeading));
        leases.follow();
        assert_eq!(leases.renew(Term(3), at(1), id(7)), Err(NotRenewed::NotLeading));
        assert_eq!((leases.due(at(100)), leases.deadline()), (None, None));
    }

    #[test]
    fn a_lease_whose_expiry_is_under_way_cannot_be_renewed() {
        let mut leases = leading(3, 0);
        assert_eq!(leases.due(at(10)), expiry(3, 1));
        assert_eq!(leases.renew(Term(3), at(9), id(7)), Err(NotRenewed::Gone));
        assert_eq!(leases.remaining(at(10), id(7)), Some(Duration::ZERO));
    }

    #[test]
    fn an_expiry_that_is_lost_is_proposed_again_and_not_before() {
        let mut leases = leading(3, 0);
        assert_eq!(leases.due(at(10)), expiry(3, 1));
        assert_eq!(leases.due(at(10)), None);
        assert_eq!(leases.due(at(11)), expiry(3, 1));
        leases.see(at(11), LeaseEvent::Gone(id(7), grant(1)));
        assert_eq!((leases.due(at(20)), leases.deadline()), (None, None));
    }

    #[test]
    fn late_news_of_an_earlier_lease_does_not_touch_one_of_the_same_id() {
        let mut leases = leading(3, 0);
        leases.see(at(5), LeaseEvent::Granted(id(7), grant(4)));
        leases.see(at(5), LeaseEvent::Gone(id(7), grant(1)));
        leases.see(at(5), LeaseEvent::Granted(id(7), grant(1)));
        assert_eq!(leases.due(at(14)), None);
        assert_eq!(leases.due(at(15)), expiry(3, 4));
    }

    #[test]
    fn many_leases_expire_a_hundred_at_a_time() {
        let mut leases = Leases::default();
        leases.lead(
            Term(1),
            at(0),
            (1..=250).map(|number| (id(number), grant(number))),
        );
        let counts: Vec<usize> = std::iter::from_fn(|| match leases.due(at(10))? {
            Command::Expire { leases, .. } => Some(leases.len()),
            command => panic!("{command:?}"),
        })
        .collect();
        assert_eq!(counts, [100, 100, 50]);
    }

    /// No look at the leases costs more than what is due: a hundred thousand that are kept alive are looked at once for
    /// every time that they last, and not at every tick.
    #[test]
    fn leases_that_are_kept_alive_are_seldom_looked_at() {
        const COUNT: u64 = 100_000;
        let mut leases = Leases::default();
        leases.lead(
            Term(1),
            at(0),
            (1..=COUNT).map(|number| (id(number), grant(number))),
        );
        let mut looks = 0;
        for second in 1..40 {
            for number in 1..=COUNT {
                if (number + second) % 5 == 0 {
                    leases
                        .renew(Term(1), at(second), id(number))
                        .expect("it is alive");
                }
            }
            let queue = |leases: &Leases| leases.leading.as_ref().map(|leading| leading.queue.clone());
            let before = queue(&leases).unwrap_or_default();
            assert_eq!(leases.due(at(second)), None);
            looks += queue(&leases).unwrap_or_default().difference(&before).count();
        }
        assert!(looks < 7 * 100_000, "{looks} looks");
    }
}
