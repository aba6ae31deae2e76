//! What clients do with streams: records with message ids, each request made several times, and groups that commit.
//!
//! Streams are created and deleted, so that their names come back under another id. Retention is short, so that leaders
//! always have something to drop.

use std::time::Duration;

use bytes::Bytes;
use quorate_core::WallTime;
use quorate_core::raft::NodeId;
use quorate_core::state::{
    Append, Command, DuplicateWindow, NewRecord, Offset, RequestId, Start, StreamCommand, StreamRetention,
    StreamSettings,
};

use super::checker::Verdict;
use super::data::DataEvent;
use super::node::Run;
use super::schedule::{MILLISECOND, SECOND, Time};
use super::world::{Event, World};
use crate::random::Stream;

/// The mean time between two requests about streams.
const REQUEST_MEAN: Time = 40 * MILLISECOND;
/// Within how long all attempts of an append are made.
const ATTEMPTS_WITHIN: Time = 2 * SECOND;
/// For how long message ids are remembered: longer than appends are tried again, by the fastest clock.
const REMEMBERED: Duration = Duration::from_secs(5);
/// What the wall clocks of two nodes differ by at the most, times the number of nodes.
const CLOCKS_DIFFER: u64 = 30;

/// What the clients of streams remember.
#[derive(Debug)]
pub(super) struct StreamClients {
    random: Stream,
    serials: u64,
}

impl StreamClients {
    pub(super) fn new(random: Stream) -> StreamClients {
        StreamClients { random, serials: 0 }
    }
}

impl World {
    pub(super) fn begin_streams(&mut self) {
        self.schedule
            .after(REQUEST_MEAN, Event::Data(DataEvent::StreamRequest));
    }

    /// What the wall clock of a node shows.
    pub(super) fn wall_time(&self, node: NodeId) -> WallTime {
        WallTime(self.schedule.now() / MILLISECOND + CLOCKS_DIFFER * (node.0 % 4))
    }

    pub(super) fn stream_request(&mut self) -> Verdict {
        if self.recovery.is_some() {
            return Ok(());
        }
        let random = &mut self.stream_clients.random;
        let delay = random.around(REQUEST_MEAN);
        let stream = format!("stream-{}", random.below(2));
        let group = format!("group-{}", random.below(2));
        let command = match random.below(100) {
            0..=7 => StreamCommand::Create {
                name: stream,
                settings: settings(random),
            },
            8 => StreamCommand::Delete { name: stream },
            9..=12 => StreamCommand::CreateGroup {
                stream,
                group,
                start: *random.pick(&[Start::First, Start::Next]),
            },
            13 => StreamCommand::DeleteGroup { stream, group },
            14..=15 => StreamCommand::Pause {
                stream,
                group,
                paused: random.chance(500_000),
            },
            16..=29 => StreamCommand::Commit {
                stream,
                group,
                cursors: vec![(0, Offset(random.below(200)))],
            },
            _ => {
                self.schedule.after(delay, Event::Data(DataEvent::StreamRequest));
                return self.append_to(stream);
            }
        };
        self.schedule.after(delay, Event::Data(DataEvent::StreamRequest));
        self.data_attempt(Command::Stream(command).encode())
    }

    /// A client appends, and will do so again: the same request under a key, or other requests with the same messages.
    fn append_to(&mut self, stream: String) -> Verdict {
        let time = self.wall_time(NodeId(0));
        let clients = &mut self.stream_clients;
        let with_ids = clients.random.chance(700_000);
        let records: Vec<NewRecord> = (0..=clients.random.below(4))
            .map(|_| {
                clients.serials += 1;
                let value = Bytes::from(format!("record {}", clients.serials));
                NewRecord {
                    key: clients.random.chance(500_000).then(|| value.slice(7..8)),
                    id: with_ids.then(|| value.clone()),
                    ..NewRecord::new(value)
                }
            })
            .collect();
        let append = |time| {
            Command::Stream(StreamCommand::Append(Append {
                stream: stream.clone(),
                partition: None,
                time,
                records: records.clone(),
            }))
        };
        let request = format!("append-{}", clients.serials);
        let once = |command: Command| match with_ids {
            true => command.encode(),
            false => Command::Once {
                request: RequestId::Key(request.clone().into()),
                command: command.encode(),
            }
            .encode(),
        };
        for _ in 0..clients.random.below(3) {
            let mean = *clients.random.pick(&[10 * MILLISECOND, 300 * MILLISECOND]);
            let delay = clients.random.around(mean).min(ATTEMPTS_WITHIN);
            let again = once(append(WallTime(time.0 + delay / MILLISECOND)));
            self.schedule.after(delay, Event::Data(DataEvent::Attempt(again)));
        }
        self.data_attempt(once(append(time)))
    }

    /// What a node has stored of streams is what was appended.
    pub(super) fn check_records(&self, run: Run) -> Verdict {
        let node = self
            .nodes
            .get(run.node)
            .filter(|node| node.run() == run && !node.witness);
        let process = node.and_then(|node| Some((node, node.process.as_ref()?)));
        match process.filter(|_| self.conditions.checks) {
            Some((node, process)) => {
                self.checkers
                    .streams
                    .stored(run.node, &process.machine, &node.store.records())
            }
            None => Ok(()),
        }
    }
}

fn settings(random: &mut Stream) -> StreamSettings {
    StreamSettings {
        partitions: *random.pick(&[1, 1, 3]),
        retention: StreamRetention {
            age: random.chance(500_000).then_some(Duration::from_secs(3)),
            bytes: random.chance(300_000).then_some(600),
            records: random.chance(300_000).then_some(50),
        },
        duplicates: DuplicateWindow {
            count: 10_000,
            age: REMEMBERED,
        },
    }
}
