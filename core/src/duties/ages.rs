//! What is old enough to be forgotten: superseded revisions, answers to requests, clients that do nothing.
//!
//! The state knows no time. The leader notes now and then how far the state is, and so knows how far it was so long ago;
//! what it proposes names that point, and is true whoever applies it and whenever. A new leader starts to note anew, so
//! things may be kept longer than wanted, never shorter.

use std::collections::VecDeque;
use std::time::Duration;

use crate::Instant;
use crate::raft::Index;
use crate::state::{Command, Revision, StateMachine};

/// How many notes cover the time that something is kept.
const NOTES: u32 = 32;
/// When a command is proposed again that has not been applied: the proposal may have been refused or lost.
const PROPOSED_AGAIN: Duration = Duration::from_secs(1);

/// What a number that only rises was some time ago.
#[derive(Clone, Debug)]
pub struct Ages {
    keep: Duration,
    notes: VecDeque<(Instant, u64)>,
}

impl Ages {
    /// Knows what the number was `keep` ago.
    pub fn new(keep: Duration) -> Ages {
        Ages {
            keep,
            notes: VecDeque::new(),
        }
    }

    /// Notes what the number is now; returns what it was `keep` ago or a little earlier, when that is known.
    pub fn note(&mut self, now: Instant, number: u64) -> Option<u64> {
        let due = |(last, _): &(Instant, u64)| now.since(*last) >= self.keep / NOTES;
        if self.notes.back().is_none_or(due) {
            self.notes.push_back((now, number));
        }
        while let Some((next, _)) = self.notes.get(1)
            && now.since(*next) >= self.keep
        {
            self.notes.pop_front();
        }
        self.notes
            .front()
            .filter(|(since, _)| now.since(*since) >= self.keep)
            .map(|(_, number)| *number)
    }

    /// Forgets the notes: nobody saw what happened since.
    pub fn clear(&mut self) {
        self.notes.clear();
    }
}

/// How long things are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// How long old revisions can be read.
    pub revisions: Duration,
    /// How many old revisions can be read at the most.
    pub revisions_max: u64,
    /// How long the answer to a request is kept, and a client that does nothing.
    pub requests: Duration,
}

impl Default for Retention {
    /// An hour and a million revisions of history, and a day for requests.
    fn default() -> Retention {
        Retention {
            revisions: Duration::from_secs(3600),
            revisions_max: 1_000_000,
            requests: Duration::from_secs(24 * 3600),
        }
    }
}

/// The duty to forget what is old.
#[derive(Clone, Debug)]
pub struct Housekeeping {
    retention: Retention,
    revisions: Ages,
    requests: Ages,
    compacts_after: Instant,
    forgets_after: Instant,
}

impl Housekeeping {
    /// Keeps things so long.
    pub fn new(retention: Retention) -> Housekeeping {
        Housekeeping {
            retention,
            revisions: Ages::new(retention.revisions),
            requests: Ages::new(retention.requests),
            compacts_after: Instant::ORIGIN,
            forgets_after: Instant::ORIGIN,
        }
    }

    /// This node does not lead, or has just begun to.
    pub fn reset(&mut self) {
        self.revisions.clear();
        self.requests.clear();
        self.compacts_after = Instant::ORIGIN;
        self.forgets_after = Instant::ORIGIN;
    }

    /// What the leader shall propose now. To be asked several times in the time that anything is kept.
    pub fn due(&mut self, now: Instant, state: &StateMachine) -> Vec<Command> {
        let compaction = self.compaction(now, state);
        let forgetting = self.forgetting(now, state);
        compaction.into_iter().chain(forgetting).collect()
    }

    fn compaction(&mut self, now: Instant, state: &StateMachine) -> Option<Command> {
        let (latest, compacted) = (state.revision(), state.compacted());
        let aged = self.revisions.note(now, latest.0).unwrap_or_default();
        let surplus = latest.0.saturating_sub(self.retention.revisions_max);
        let revision = Revision(aged.max(surplus)).max(compacted);
        // Even a compaction that is done already goes on with what it left.
        let wanted = revision > compacted || state.compaction_backlog() > 0;
        if !wanted || now < self.compacts_after {
            return None;
        }
        self.compacts_after = now + PROPOSED_AGAIN;
        Some(Command::Compact { revision })
    }

    fn forgetting(&mut self, now: Instant, state: &StateMachine) -> Option<Command> {
        let aged = self.requests.note(now, state.applied().index.0)?;
        let before = Index(aged).next();
        let wanted = state.oldest_request().is_some_and(|oldest| oldest < before);
        if !wanted || now < self.forgets_after {
            return None;
        }
        self.forgets_after = now + PROPOSED_AGAIN;
        Some(Command::Forget { before })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::{Position, Term};
    use crate::state::RequestId;

    fn at(seconds: u64) -> Instant {
        Instant::ORIGIN + Duration::from_secs(seconds)
    }

    fn apply(state: &mut StateMachine, command: &Command) {
        let position = Position {
            term: Term(1),
            index: state.applied().index.next(),
        };
        state.apply(position, &command.encode()).expect("a known command");
    }

    fn housekeeping() -> Housekeeping {
        Housekeeping::new(Retention {
            revisions: Duration::from_secs(100),
            revisions_max: 1_000,
            requests: Duration::from_secs(1_000),
        })
    }

    #[test]
    fn nothing_is_known_of_the_time_before_the_first_note() {
        let mut ages = Ages::new(Duration::from_secs(10));
        assert_eq!(ages.note(at(100), 5), None);
        assert_eq!(ages.note(at(109), 6), None);
        assert_eq!(ages.note(at(110), 7), Some(5));
        assert_eq!(ages.note(at(119), 8), Some(6));
        ages.clear();
        assert_eq!(ages.note(at(130), 9), None);
    }

    #[test]
    fn the_notes_are_few_however_often_they_are_made() {
        let mut ages = Ages::new(Duration::from_secs(1_000));
        for second in 0..100_000 {
            let found = ages.note(at(second), second);
            assert!(
                found.is_none_or(|found| found + 1_000 <= second && found + 1_040 > second),
                "{found:?}"
            );
        }
        assert!(ages.notes.len() <= 40, "{}", ages.notes.len());
    }

    #[test]
    fn revisions_are_compacted_when_they_are_old_or_many() {
        let (mut duty, mut state) = (housekeeping(), StateMachine::new());
        for _ in 0..10 {
            apply(&mut state, &Command::put("k", "v"));
        }
        assert_eq!(duty.due(at(0), &state), []);
        apply(&mut state, &Command::put("k", "v"));
        assert_eq!(duty.due(at(99), &state), []);
        let compact = |revision| Command::Compact {
            revision: Revision(revision),
        };
        assert_eq!(duty.due(at(100), &state), [compact(10)]);
        assert_eq!(duty.due(at(100), &state), [], "it is under way");
        assert_eq!(duty.due(at(101), &state), [compact(10)], "or was lost");
        apply(&mut state, &compact(10));
        assert_eq!(duty.due(at(103), &state), []);
        for _ in 0..1_100 {
            apply(&mut state, &Command::put("k", "v"));
        }
        assert_eq!(duty.due(at(105), &state), [compact(111)]);
    }

    #[test]
    fn a_compaction_that_left_something_goes_on() {
        let (mut duty, mut state) = (housekeeping(), StateMachine::new());
        for _ in 0..11_000 {
            apply(&mut state, &Command::put("k", "v"));
        }
        for second in 0..3 {
            for command in duty.due(at(second), &state) {
                apply(&mut state, &command);
            }
        }
        assert_eq!(state.compaction_backlog(), 0);
    }

    #[test]
    fn answers_are_forgotten_when_they_are_old() {
        let (mut duty, mut state) = (housekeeping(), StateMachine::new());
        let once = Command::Once {
            request: RequestId::Key("r".into()),
            command: Command::put("k", "v").encode(),
        };
        apply(&mut state, &once);
        assert_eq!(duty.due(at(0), &state), []);
        assert_eq!(
            duty.due(at(999), &state),
            [Command::Compact {
                revision: Revision(1)
            }]
        );
        let before = Index(2);
        let due = duty.due(at(1_000), &state);
        assert!(due.contains(&Command::Forget { before }), "{due:?}");
        apply(&mut state, &Command::Forget { before });
        assert_eq!(state.requests_kept(), 0);
    }
}
