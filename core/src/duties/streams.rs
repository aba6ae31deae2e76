//! What streams need not keep: records beyond their retention, and message ids beyond their window.
//!
//! The leader looks now and then, by its wall clock, and what it finds is written into a command, which counts in its
//! term only. Nothing rests on clocks that agree: a leader whose clock is ahead drops records earlier by as much, and one
//! whose clock is behind keeps them longer.

use std::time::Duration;

use crate::raft::Term;
use crate::state::{Command, StateMachine, StreamCommand};
use crate::{Instant, WallTime};

/// How often the leader looks.
const LOOKS: Duration = Duration::from_millis(250);

/// The duty to drop what streams need not keep.
#[derive(Clone, Debug, Default)]
pub struct Trimming {
    looks_after: Instant,
}

impl Trimming {
    /// This node does not lead, or has just begun to.
    pub fn reset(&mut self) {
        self.looks_after = Instant::ORIGIN;
    }

    /// What the leader of `term` shall propose now. A proposal that is lost, or not applied yet, is found again.
    pub fn due(&mut self, now: Instant, wall: WallTime, term: Term, state: &StateMachine) -> Option<Command> {
        if now < self.looks_after {
            return None;
        }
        self.looks_after = now + LOOKS;
        let (cuts, forget) = state.streams_overdue(wall);
        let wanted = !cuts.is_empty() || !forget.is_empty();
        wanted.then_some(Command::Stream(StreamCommand::Trim { term, cuts, forget }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::{Index, Position};
    use crate::state::{Append, NewRecord, Offset, Policy, StreamRetention, StreamSettings};

    /// Up to which offsets records go and on whose account, and up to which entries ids go.
    type Found = (Vec<(u64, Policy)>, Vec<u64>);

    fn at(seconds: u64) -> Instant {
        Instant::ORIGIN + Duration::from_secs(seconds)
    }

    fn wall(seconds: u64) -> WallTime {
        WallTime(seconds * 1_000)
    }

    fn apply(state: &mut StateMachine, command: Command) {
        let position = Position {
            term: Term(1),
            index: state.applied().index.next(),
        };
        state.apply(position, &command.encode()).expect("a known command");
    }

    fn append(state: &mut StateMachine, seconds: u64, ids: &[&'static str]) {
        let record = |id: &&'static str| NewRecord {
            id: Some((*id).into()),
            ..NewRecord::new("value")
        };
        let append = Append {
            stream: "s".to_owned(),
            partition: None,
            time: wall(seconds),
            records: ids.iter().map(record).collect(),
        };
        apply(state, Command::Stream(StreamCommand::Append(append)));
    }

    fn with_stream(retention: StreamRetention) -> StateMachine {
        let mut state = StateMachine::new();
        let create = StreamCommand::Create {
            name: "s".to_owned(),
            settings: StreamSettings {
                retention,
                ..StreamSettings::new()
            },
        };
        apply(&mut state, Command::Stream(create));
        state
    }

    fn due(duty: &mut Trimming, seconds: u64, state: &StateMachine) -> Option<Found> {
        match duty.due(at(seconds), wall(seconds), Term(1), state)? {
            Command::Stream(StreamCommand::Trim { cuts, forget, .. }) => Some((
                cuts.iter().map(|cut| (cut.before.0, cut.policy)).collect(),
                forget.iter().map(|(_, before)| before.0).collect(),
            )),
            other => panic!("{other:?} trims nothing"),
        }
    }

    #[test]
    fn records_and_ids_go_when_they_are_too_old_and_not_before() {
        let mut state = with_stream(StreamRetention {
            age: Some(Duration::from_secs(100)),
            ..StreamRetention::default()
        });
        append(&mut state, 10, &["a", "b"]);
        append(&mut state, 60, &["c"]);
        let mut duty = Trimming::default();
        assert_eq!(due(&mut duty, 110, &state), None);
        assert_eq!(
            due(&mut duty, 111, &state),
            Some((vec![(2, Policy::Age)], vec![]))
        );
        assert_eq!(
            due(&mut duty, 200, &state),
            Some((vec![(3, Policy::Age)], vec![4])),
            "what was not applied is found again, and ids last 120 s"
        );
    }

    #[test]
    fn bytes_and_records_are_bounded_by_whole_batches() {
        let mut state = with_stream(StreamRetention {
            records: Some(4),
            bytes: Some(23),
            ..StreamRetention::default()
        });
        for second in 0..3 {
            let ids: &[&'static str] = [["a", "b"], ["c", "d"], ["e", "f"]][second as usize].as_slice();
            append(&mut state, second, ids);
        }
        let mut duty = Trimming::default();
        assert_eq!(
            due(&mut duty, 3, &state),
            Some((vec![(2, Policy::Bytes)], vec![]))
        );
        let command = duty
            .due(at(4), wall(4), Term(1), &state)
            .expect("it was not applied");
        apply(&mut state, command);
        let view = state.stream("s").expect("it exists");
        assert_eq!(
            (view.partitions[0].first, view.partitions[0].next),
            (Offset(2), Offset(6))
        );
        assert_eq!(view.partitions[0].dropped[1].records, 2);
        assert_eq!(
            due(&mut duty, 5, &state),
            None,
            "one batch less would be less than what is to be kept"
        );
    }

    #[test]
    fn what_a_deposed_leader_found_counts_no_more() {
        let mut state = with_stream(StreamRetention {
            records: Some(1),
            ..StreamRetention::default()
        });
        append(&mut state, 1, &["a"]);
        append(&mut state, 1, &["b"]);
        let command = Trimming::default()
            .due(at(1), wall(1), Term(1), &state)
            .expect("one too many");
        let position = Position {
            term: Term(2),
            index: Index(4),
        };
        let applied = state.apply(position, &command.encode()).expect("a known command");
        assert_eq!(
            applied.reply,
            crate::state::Reply::Refused(crate::state::Refusal::StaleTerm)
        );
        assert_eq!(
            state.stream("s").expect("it exists").partitions[0].first,
            Offset(0)
        );
    }
}
