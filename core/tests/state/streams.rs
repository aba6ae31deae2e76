//! Streams against a plain model that keeps every record: offsets, duplicates, retention, groups, and through restarts.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use quorate_core::WallTime;
use quorate_core::raft::{Index, Term};
use quorate_core::state::{
    Append, Command, Cut, DuplicateWindow, NewRecord, Offset, Policy, RecordBatch, Refusal, Reply, RequestId,
    RestoreError, Run, Start, StateMachine, StreamCommand, StreamId, StreamMalformed, StreamRefusal,
    StreamReply, StreamRetention, StreamSettings, is_stream_name,
};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::{apply, at, merge, refused, reply, stored_rows};

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

fn command(command: StreamCommand) -> Command {
    Command::Stream(command)
}

fn create_with(name: &str, settings: StreamSettings) -> Command {
    command(StreamCommand::Create {
        name: name.to_owned(),
        settings,
    })
}

fn create(name: &str, partitions: u32) -> Command {
    create_with(
        name,
        StreamSettings {
            partitions,
            ..StreamSettings::new()
        },
    )
}

fn append(name: &str, partition: Option<u32>, time: u64, records: Vec<NewRecord>) -> Command {
    command(StreamCommand::Append(Append {
        stream: name.to_owned(),
        partition,
        time: WallTime(time),
        records,
    }))
}

fn with_id(id: &str, value: &str) -> NewRecord {
    NewRecord {
        id: Some(Bytes::copy_from_slice(id.as_bytes())),
        ..NewRecord::new(value.to_owned())
    }
}

fn commit(offset: u64) -> Command {
    command(StreamCommand::Commit {
        stream: "s".to_owned(),
        group: "g".to_owned(),
        cursors: vec![(0, Offset(offset))],
    })
}

fn runs_of(reply: Reply) -> Vec<Run> {
    match reply {
        Reply::Stream(StreamReply::Appended { runs }) => runs,
        reply => panic!("{reply:?} appends nothing"),
    }
}

fn run(partition: u32, first: u64, count: u32, duplicate: bool) -> Run {
    Run {
        partition,
        first: Offset(first),
        count,
        duplicate,
    }
}

/// A stream as plainly as possible.
struct PlainStream {
    id: StreamId,
    settings: StreamSettings,
    /// Every record that was ever appended, by partition.
    records: Vec<Vec<NewRecord>>,
    /// The first that are kept, by partition.
    firsts: Vec<u64>,
    /// Every id that was ever seen and when, the latest place of each counting.
    ids: Vec<(Index, Bytes, u32, u64)>,
    groups: BTreeMap<String, (Vec<u64>, bool)>,
}

impl PlainStream {
    fn known(&self, id: &Bytes) -> Option<(u32, u64)> {
        let found = self.ids.iter().find(|(_, known, _, _)| known == id);
        found.map(|(_, _, partition, offset)| (*partition, *offset))
    }

    /// Where the records go, as the reply tells; keys are told by the machine, and must be told the same every time.
    fn append(&mut self, index: u64, records: &[NewRecord], runs: &[Run], keys: &mut BTreeMap<Bytes, u32>) {
        let mut told = runs.iter().flat_map(|run| {
            (0..run.count).map(|number| (run.partition, run.first.0 + u64::from(number), run.duplicate))
        });
        let mut new = Vec::new();
        for record in records {
            let (partition, offset, duplicate) = told.next().expect("every record has a place");
            let known = record.id.as_ref().and_then(|id| {
                let of_this = new.iter().find(|(_, known, _, _)| known == id);
                self.known(id)
                    .or(of_this
                        .map(|(_, _, partition, offset): &(Index, Bytes, u32, u64)| (*partition, *offset)))
            });
            assert_eq!(duplicate, known.is_some(), "{record:?}");
            if let Some(known) = known {
                assert_eq!((partition, offset), known, "{record:?}");
                continue;
            }
            let kept = &mut self.records[partition as usize];
            assert_eq!(offset, kept.len() as u64, "offsets are dense");
            kept.push(record.clone());
            if let Some(id) = &record.id {
                new.push((Index(index), id.clone(), partition, offset));
            }
            if let Some(key) = &record.key {
                assert_eq!(
                    *keys.entry(key.clone()).or_insert(partition),
                    partition,
                    "a key stays in its partition"
                );
            }
        }
        assert_eq!(told.next(), None);
        self.ids.extend(new);
        let count = self.settings.duplicates.count as usize;
        // Whole appends are forgotten while enough is left.
        while let Some((first, _, _, _)) = self.ids.first().cloned()
            && self.ids.iter().filter(|(index, ..)| *index != first).count() >= count
        {
            self.ids.retain(|(index, ..)| *index != first);
        }
    }
}

/// Reads all records that rows hold.
fn records_of(rows: &Rows) -> BTreeMap<(StreamId, u32), Vec<(u64, NewRecord)>> {
    let mut found: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (key, value) in rows {
        if let Some(batch) = RecordBatch::of_row(key, value).expect("a row that was written") {
            let records = batch.records_from(Offset(0));
            let list = found.entry((batch.stream, batch.partition)).or_default();
            list.extend(records.map(|(offset, record)| (offset.0, record.clone())));
        }
    }
    found
}

fn check(seed: u64, state: &StateMachine, rows: &Rows, streams: &BTreeMap<String, PlainStream>) {
    let records = records_of(rows);
    assert_eq!(state.streams("", None).count(), streams.len());
    for (name, plain) in streams {
        let view = state.stream(name).expect("the stream exists");
        assert_eq!((view.id, view.settings), (plain.id, plain.settings));
        assert_eq!(view.ids, plain.ids.len(), "seed {seed}");
        for (number, partition) in view.partitions.iter().enumerate() {
            let all = &plain.records[number];
            let first = plain.firsts[number];
            assert_eq!(
                (partition.first.0, partition.next.0),
                (first, all.len() as u64),
                "seed {seed} {name}"
            );
            let kept = &all[usize::try_from(first).expect("few")..];
            let bytes: u64 = kept.iter().map(NewRecord::bytes).sum();
            let all_bytes: u64 = all.iter().map(NewRecord::bytes).sum();
            assert_eq!((partition.bytes, partition.bytes_in), (bytes, all_bytes));
            let dropped: u64 = partition.dropped.iter().map(|dropped| dropped.records).sum();
            assert_eq!(dropped, first, "every dropped record is accounted for");
            let number = u32::try_from(number).expect("few");
            let stored = records.get(&(plain.id, number)).cloned().unwrap_or_default();
            let expected: Vec<(u64, NewRecord)> = (first..).zip(kept.iter().cloned()).collect();
            assert_eq!(stored, expected, "seed {seed} {name}/{number}");
        }
        for (group, (cursors, paused)) in &plain.groups {
            let view = state.stream_group(name, group).expect("the group exists");
            let found: Vec<u64> = view.cursors.iter().map(|cursor| cursor.0).collect();
            assert_eq!((&found, view.paused), (cursors, *paused));
        }
    }
    let ids: Vec<StreamId> = streams.values().map(|plain| plain.id).collect();
    assert!(
        records.keys().all(|(id, _)| ids.contains(id)),
        "nothing is left of deleted streams"
    );
}

struct Draws(ChaCha8Rng);

impl Draws {
    fn below(&mut self, limit: u64) -> u64 {
        self.0.next_u64() % limit
    }

    fn name(&mut self) -> String {
        ["a", "ab", "b"][usize::try_from(self.below(3)).expect("small")].to_owned()
    }

    fn records(&mut self) -> Vec<NewRecord> {
        let text = |number: u64| Bytes::from(format!("{number}"));
        (0..1 + self.below(4))
            .map(|_| NewRecord {
                key: (self.below(2) == 0).then(|| text(self.below(5))),
                id: (self.below(2) == 0).then(|| text(self.below(40))),
                priority: u8::try_from(self.below(5)).expect("small"),
                value: text(self.below(1_000)),
            })
            .collect()
    }
}

/// Plays one command against the model, and compares the reply.
fn play(draws: &mut Draws, index: u64, state: &mut StateMachine, rows: &mut Rows, model: &mut Model) -> bool {
    let name = draws.name();
    let time = index * 10 - draws.below(30).min(index * 10);
    let chosen = match draws.below(20) {
        0 => {
            let settings = StreamSettings {
                partitions: u32::try_from(1 + draws.below(3)).expect("small"),
                retention: StreamRetention {
                    age: (draws.below(2) == 0).then_some(Duration::from_millis(600)),
                    bytes: (draws.below(2) == 0).then_some(120),
                    records: (draws.below(2) == 0).then_some(20),
                },
                duplicates: DuplicateWindow {
                    count: u32::try_from(draws.below(12)).expect("small"),
                    age: Duration::from_millis(900),
                },
            };
            StreamCommand::Create { name, settings }
        }
        1 if draws.below(4) == 0 => StreamCommand::Delete { name },
        1 | 2 => StreamCommand::CreateGroup {
            stream: name,
            group: "g".to_owned(),
            start: if draws.below(2) == 0 {
                Start::First
            } else {
                Start::Next
            },
        },
        3 if draws.below(4) == 0 => StreamCommand::DeleteGroup {
            stream: name,
            group: "g".to_owned(),
        },
        3 => StreamCommand::Pause {
            stream: name,
            group: "g".to_owned(),
            paused: draws.below(2) == 0,
        },
        4 | 5 => StreamCommand::Commit {
            stream: name,
            group: "g".to_owned(),
            cursors: vec![(
                u32::try_from(draws.below(3)).expect("small"),
                Offset(draws.below(60)),
            )],
        },
        6..=8 => {
            let (cuts, forget) = state.streams_overdue(WallTime(index * 10));
            let term = Term(1 + u64::from(draws.below(8) == 0));
            StreamCommand::Trim { term, cuts, forget }
        }
        _ => StreamCommand::Append(Append {
            stream: name,
            partition: (draws.below(4) == 0).then(|| u32::try_from(draws.below(4)).expect("small")),
            time: WallTime(time),
            records: draws.records(),
        }),
    };
    let applied = state
        .apply(at(index), &Command::Stream(chosen.clone()).encode())
        .expect("a known command");
    merge(rows, applied.rows);
    model.follow(index, chosen, applied.reply)
}

#[derive(Default)]
struct Model {
    streams: BTreeMap<String, PlainStream>,
    keys: BTreeMap<StreamId, BTreeMap<Bytes, u32>>,
}

impl Model {
    /// What the command does, and whether the reply is right; tells whether something changed.
    fn follow(&mut self, index: u64, command: StreamCommand, reply: Reply) -> bool {
        if let Reply::Refused(refusal) = reply {
            assert!(
                self.refuses(&command, refusal),
                "{command:?} is refused: {refusal}"
            );
            return false;
        }
        let Reply::Stream(reply) = reply else {
            panic!("{reply:?} is no reply about streams");
        };
        match (command, reply) {
            (StreamCommand::Create { name, settings }, StreamReply::Created { id }) => {
                let partitions = settings.partitions as usize;
                let stream = PlainStream {
                    id,
                    settings,
                    records: vec![Vec::new(); partitions],
                    firsts: vec![0; partitions],
                    ids: Vec::new(),
                    groups: BTreeMap::new(),
                };
                assert!(
                    self.streams.insert(name, stream).is_none(),
                    "names are taken once"
                );
            }
            (StreamCommand::Delete { name }, StreamReply::Deleted { .. }) => {
                assert!(self.streams.remove(&name).is_some());
            }
            (StreamCommand::Append(append), StreamReply::Appended { runs }) => {
                let stream = self.streams.get_mut(&append.stream).expect("it exists");
                let mut explicit = BTreeMap::new();
                let keys = match append.partition {
                    None => self.keys.entry(stream.id).or_default(),
                    Some(_) => &mut explicit,
                };
                stream.append(index, &append.records, &runs, keys);
            }
            (StreamCommand::Trim { cuts, forget, .. }, StreamReply::Trimmed { .. }) => {
                self.trim(&cuts, &forget)
            }
            (StreamCommand::CreateGroup { stream, group, start }, StreamReply::Group { cursors, paused }) => {
                let stream = self.streams.get_mut(&stream).expect("it exists");
                let nexts = stream.records.iter().map(|records| records.len() as u64);
                let expected: Vec<u64> = match start {
                    Start::First => stream.firsts.clone(),
                    Start::Next => nexts.collect(),
                };
                let found: Vec<u64> = cursors.iter().map(|cursor| cursor.0).collect();
                assert_eq!((&found, paused), (&expected, false));
                assert!(stream.groups.insert(group, (found, false)).is_none());
            }
            (StreamCommand::DeleteGroup { stream, group }, StreamReply::GroupDeleted) => {
                let stream = self.streams.get_mut(&stream).expect("it exists");
                assert!(stream.groups.remove(&group).is_some());
            }
            (
                StreamCommand::Commit {
                    stream,
                    group,
                    cursors,
                },
                StreamReply::Group { .. },
            ) => {
                let stream = self.streams.get_mut(&stream).expect("it exists");
                let group = stream.groups.get_mut(&group).expect("it exists");
                for (partition, offset) in cursors {
                    assert!(
                        offset.0 <= stream.records[partition as usize].len() as u64,
                        "no cursor is ahead"
                    );
                    group.0[partition as usize] = offset.0;
                }
            }
            (
                StreamCommand::Pause {
                    stream,
                    group,
                    paused,
                },
                StreamReply::Group { .. },
            ) => {
                let stream = self.streams.get_mut(&stream).expect("it exists");
                stream.groups.get_mut(&group).expect("it exists").1 = paused;
            }
            (command, reply) => panic!("{command:?} has the reply {reply:?}"),
        }
        true
    }

    fn trim(&mut self, cuts: &[Cut], forget: &[(StreamId, Index)]) {
        for cut in cuts {
            let stream = self.streams.values_mut().find(|stream| stream.id == cut.stream);
            let stream = stream.expect("a stream of now");
            let first = &mut stream.firsts[cut.partition as usize];
            assert!(cut.before.0 > *first, "{cut:?} drops something");
            *first = cut.before.0;
            let kept: usize = stream
                .records
                .iter()
                .zip(&stream.firsts)
                .map(|(records, first)| records.len() - usize::try_from(*first).expect("few"))
                .sum();
            let bound = stream.settings.retention.records.unwrap_or_default();
            assert!(
                cut.policy != Policy::Records || kept as u64 >= bound,
                "enough is kept"
            );
        }
        for (id, before) in forget {
            let stream = self.streams.values_mut().find(|stream| stream.id == *id);
            stream
                .expect("a stream of now")
                .ids
                .retain(|(index, ..)| index >= before);
        }
    }

    fn refuses(&self, command: &StreamCommand, refusal: Refusal) -> bool {
        let Refusal::Stream(refusal) = refusal else {
            return matches!(command, StreamCommand::Trim { term: Term(2), .. });
        };
        let has = |name: &str| self.streams.contains_key(name);
        match (command, refusal) {
            (StreamCommand::Create { name, .. }, StreamRefusal::StreamExists) => has(name),
            (
                StreamCommand::Append(append),
                StreamRefusal::NoSuchPartition {
                    partition,
                    partitions,
                },
            ) => append.partition == Some(partition) && partition >= partitions,
            (StreamCommand::Append(append), StreamRefusal::NoSuchStream) => !has(&append.stream),
            (StreamCommand::Delete { name }, StreamRefusal::NoSuchStream) => !has(name),
            (StreamCommand::CreateGroup { stream, group, .. }, StreamRefusal::GroupExists) => {
                self.streams[stream].groups.contains_key(group)
            }
            (
                StreamCommand::CreateGroup { stream, .. }
                | StreamCommand::DeleteGroup { stream, .. }
                | StreamCommand::Commit { stream, .. }
                | StreamCommand::Pause { stream, .. },
                StreamRefusal::NoSuchStream,
            ) => !has(stream),
            (
                StreamCommand::DeleteGroup { stream, group }
                | StreamCommand::Commit { stream, group, .. }
                | StreamCommand::Pause { stream, group, .. },
                StreamRefusal::NoSuchGroup,
            ) => !self.streams[stream].groups.contains_key(group),
            (StreamCommand::Commit { cursors, .. }, StreamRefusal::NoSuchPartition { .. }) => {
                cursors[0].0 > 0
            }
            (StreamCommand::Commit { stream, cursors, .. }, StreamRefusal::CursorAhead { next, .. }) => {
                let (partition, offset) = cursors[0];
                let end = self.streams[stream].records[partition as usize].len() as u64;
                offset.0 > end && next.0 == end
            }
            _ => false,
        }
    }
}

#[test]
fn random_stream_commands_give_what_a_plain_model_gives_through_restarts() {
    let mut done = [0; 2];
    for seed in 0..60 {
        let mut draws = Draws(ChaCha8Rng::seed_from_u64(seed));
        let (mut model, mut state, mut rows) = (Model::default(), StateMachine::new(), Rows::new());
        for index in 1..=300 {
            if draws.below(20) == 0 {
                // With the records or without: they are not part of the state in memory.
                let stored = rows.clone().into_iter();
                let without = draws.below(2) == 0;
                let stored =
                    stored.filter(|(key, _)| !without || !quorate_core::state::Row::holds_records(key));
                let again = StateMachine::restore(stored, state.applied()).expect("stored rows");
                assert_eq!(again.fingerprint(), state.fingerprint());
                state = again;
            }
            done[usize::from(play(&mut draws, index, &mut state, &mut rows, &mut model))] += 1;
            check(seed, &state, &rows, &model.streams);
            let mut memory = rows.clone();
            memory.retain(|key, _| !quorate_core::state::Row::holds_records(key));
            assert_eq!(
                memory,
                stored_rows(&state),
                "written rows are the state: seed {seed} index {index}"
            );
        }
    }
    assert!(done.iter().all(|count| *count > 1_000), "{done:?}");
}

#[test]
fn a_message_that_is_appended_again_is_answered_with_where_it_is() {
    let mut state = StateMachine::new();
    reply(&mut state, create("s", 1));
    let first = vec![with_id("x", "1"), NewRecord::new("2"), with_id("x", "3")];
    assert_eq!(
        runs_of(reply(&mut state, append("s", None, 1, first))),
        [run(0, 0, 2, false), run(0, 0, 1, true)]
    );
    let again = vec![NewRecord::new("4"), with_id("x", "5")];
    let answer = apply(&mut state, &append("s", None, 2, again));
    assert_eq!(runs_of(answer.reply), [run(0, 2, 1, false), run(0, 0, 1, true)]);
    let only_known = apply(&mut state, &append("s", None, 3, vec![with_id("x", "6")]));
    assert_eq!(runs_of(only_known.reply), [run(0, 0, 1, true)]);
    assert_eq!(only_known.rows.len(), 1, "nothing but the summary changes");
}

#[test]
fn the_same_request_is_known_again_whenever_it_came_in() {
    let mut state = StateMachine::new();
    reply(&mut state, create("s", 1));
    let once = |time, value: &str| Command::Once {
        request: RequestId::Key(Bytes::from_static(b"request")),
        command: append("s", None, time, vec![NewRecord::new(value.to_owned())]).encode(),
    };
    let first = reply(&mut state, once(1, "v"));
    assert_eq!(reply(&mut state, once(2, "v")), first);
    assert_eq!(refused(&mut state, once(1, "w")), Refusal::DifferentRequest);
    assert_eq!(
        state.stream("s").expect("it exists").partitions[0].next,
        Offset(1)
    );
}

#[test]
fn a_clock_that_goes_back_does_not_take_the_partition_with_it() {
    let mut state = StateMachine::new();
    reply(&mut state, create("s", 1));
    let mut rows = Rows::new();
    for time in [5_000, 1_000, 6_000] {
        merge(
            &mut rows,
            apply(&mut state, &append("s", None, time, vec![NewRecord::new("v")])).rows,
        );
    }
    let batches = rows
        .iter()
        .filter_map(|(key, value)| RecordBatch::of_row(key, value).expect("rows"));
    let times: Vec<u64> = batches.map(|batch| batch.time.0).collect();
    assert_eq!(times, [5_000, 5_000, 6_000]);
    let at = |time| {
        state
            .stream_offset_at("s", 0, WallTime(time))
            .map(|offset| offset.0)
    };
    assert_eq!([at(0), at(5_001), at(6_001)], [Some(0), Some(2), Some(3)]);
}

#[test]
fn marks_are_few_however_many_batches_there_are() {
    let mut state = StateMachine::new();
    reply(&mut state, create("s", 1));
    for time in 0..50_000 {
        reply(&mut state, append("s", None, time, vec![NewRecord::new("value")]));
    }
    let marks = state.rows().filter(|row| row.key[0] == 22).count();
    assert!((128..1_500).contains(&marks), "{marks} marks");
}

#[test]
fn a_cursor_is_never_ahead_and_may_go_back() {
    let mut state = StateMachine::new();
    reply(&mut state, create("s", 1));
    reply(
        &mut state,
        append("s", None, 1, vec![NewRecord::new("1"), NewRecord::new("2")]),
    );
    let group = command(StreamCommand::CreateGroup {
        stream: "s".to_owned(),
        group: "g".to_owned(),
        start: Start::First,
    });
    reply(&mut state, group.clone());
    assert_eq!(refused(&mut state, group), StreamRefusal::GroupExists.into());
    let moved = |offset| {
        Reply::Stream(StreamReply::Group {
            cursors: vec![Offset(offset)],
            paused: false,
        })
    };
    assert_eq!(reply(&mut state, commit(2)), moved(2));
    assert_eq!(reply(&mut state, commit(1)), moved(1));
    let ahead = StreamRefusal::CursorAhead {
        partition: 0,
        offset: Offset(3),
        next: Offset(2),
    };
    assert_eq!(refused(&mut state, commit(3)), ahead.into());
}

#[test]
fn what_makes_no_sense_is_refused() {
    let mut state = StateMachine::new();
    let malformed = |refusal: StreamMalformed| Refusal::from(refusal);
    for name in ["", "a/b", "..", "a b", &"x".repeat(129)] {
        assert!(!is_stream_name(name));
        assert_eq!(
            refused(&mut state, create(name, 1)),
            malformed(StreamMalformed::Name)
        );
    }
    assert_eq!(
        refused(&mut state, create("s", 0)),
        malformed(StreamMalformed::Partitions)
    );
    assert_eq!(
        refused(&mut state, create("s", 257)),
        malformed(StreamMalformed::Partitions)
    );
    let empty = StreamRetention {
        bytes: Some(0),
        ..StreamRetention::default()
    };
    let settings = StreamSettings {
        retention: empty,
        ..StreamSettings::new()
    };
    assert_eq!(
        refused(&mut state, create_with("s", settings)),
        malformed(StreamMalformed::Retention)
    );
    reply(&mut state, create("s", 1));
    assert_eq!(
        refused(&mut state, create("s", 1)),
        StreamRefusal::StreamExists.into()
    );
    assert_eq!(
        refused(&mut state, append("s", None, 0, vec![])),
        malformed(StreamMalformed::Records)
    );
    let urgent = NewRecord {
        priority: 5,
        ..NewRecord::new("v")
    };
    assert_eq!(
        refused(&mut state, append("s", None, 0, vec![urgent])),
        malformed(StreamMalformed::Priority)
    );
    assert_eq!(
        refused(&mut state, append("s", None, 0, vec![with_id("", "v")])),
        malformed(StreamMalformed::MessageId)
    );
    let elsewhere = StreamRefusal::NoSuchPartition {
        partition: 1,
        partitions: 1,
    };
    let record = || vec![NewRecord::new("v")];
    assert_eq!(
        refused(&mut state, append("s", Some(1), 0, record())),
        elsewhere.into()
    );
    assert_eq!(
        refused(&mut state, append("t", None, 0, record())),
        StreamRefusal::NoSuchStream.into()
    );
}

#[test]
fn rows_of_streams_that_contradict_each_other_are_refused() {
    let mut state = StateMachine::new();
    let mut rows = Rows::new();
    for command in [
        create("s", 2),
        append("s", Some(0), 1, vec![with_id("x", "1")]),
        append("s", Some(1), 1, vec![NewRecord::new("2")]),
    ] {
        merge(&mut rows, apply(&mut state, &command).rows);
    }
    let restore =
        |rows: Rows| StateMachine::restore(rows.into_iter(), at(3)).map(|state| state.fingerprint());
    assert_eq!(restore(rows.clone()), Ok(state.fingerprint()));
    let tables = [20_u8, 21, 22];
    for table in tables {
        let mut cut = rows.clone();
        let key = cut.keys().find(|key| key[0] == table).expect("a row").clone();
        cut.remove(&key);
        let error = restore(cut).expect_err("a row is missing");
        assert!(
            matches!(error, RestoreError::Contradiction { .. }),
            "table {table}: {error}"
        );
    }
    let mut beyond = rows.clone();
    let key = beyond.keys().next_back().expect("records").clone();
    let value = beyond[&key].clone();
    let mut later = key;
    *later.last_mut().expect("a key") += 1;
    beyond.insert(later, value);
    assert!(matches!(restore(beyond), Err(RestoreError::Contradiction { .. })));
}
