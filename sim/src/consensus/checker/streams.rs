//! Streams: offsets are dense, a message that is appended again is known, cursors are never ahead, and what a node has
//! stored of a stream is what was appended.
//!
//! Every record has a value of its own. A message may be appended again once its id was forgotten, but not while its
//! client may still repeat it: that ends with clocks that go ahead at once, on which ages rely.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_core::raft::{Index, NodeId};
use quorate_core::state::{
    Append, Command, Offset, RecordBatch, Refusal, Reply, RequestId, Run, StateMachine, StreamCommand,
    StreamId, StreamRefusal, StreamReply,
};

use super::{Verdict, demand};
use crate::consensus::store::Rows;

const OFFSETS: &str = "offsets of a stream are dense";
const DUPLICATES: &str = "a message is appended once";
const CURSORS: &str = "a cursor is never ahead";
const RECORDS: &str = "a node has the records of its streams";

/// What was appended.
#[derive(Debug, Default)]
pub(in crate::consensus) struct Streams {
    /// The last entry that was looked at; every node applies each.
    seen: Index,
    names: BTreeMap<String, StreamId>,
    /// Those that were deleted as well: nodes that are behind still have them.
    streams: BTreeMap<StreamId, Appended>,
    /// The answers to requests with a key.
    answered: BTreeMap<Bytes, Reply>,
    stepped: bool,
    ended: bool,
    /// Records that were appended, repeated messages that were known, and records that retention dropped.
    pub(in crate::consensus) counts: [u64; 3],
}

/// Everything that was ever appended to a stream.
#[derive(Debug, Default)]
struct Appended {
    partitions: BTreeMap<u32, Vec<Bytes>>,
    places: BTreeMap<Bytes, (u32, Offset)>,
}

impl Appended {
    fn next(&self, partition: u32) -> Offset {
        Offset(self.partitions.get(&partition).map_or(0, Vec::len) as u64)
    }
}

impl Streams {
    /// A clock went ahead at once.
    pub(in crate::consensus) fn clock_steps(&mut self) {
        self.stepped = true;
    }

    /// What was appended may be lost with a lineage; nothing is looked at any more.
    pub(in crate::consensus) fn lineage_ends(&mut self) {
        self.ended = true;
    }

    /// A node applied an entry, maybe the first one to do so.
    pub(in crate::consensus) fn applied(
        &mut self,
        index: Index,
        command: &Command,
        reply: &Reply,
    ) -> Verdict {
        if index <= self.seen || self.ended {
            return Ok(());
        }
        self.seen = index;
        let inner = match command {
            Command::Once {
                request: RequestId::Key(key),
                command,
            } => {
                // A later attempt has the answer of the first one.
                if self.answered.insert(key.clone(), reply.clone()).as_ref() == Some(reply) {
                    return Ok(());
                }
                Command::decode(command).ok()
            }
            _ => None,
        };
        let Command::Stream(command) = inner.as_ref().unwrap_or(command) else {
            return Ok(());
        };
        match (command, reply) {
            (StreamCommand::Create { name, .. }, Reply::Stream(StreamReply::Created { id })) => {
                self.names.insert(name.clone(), *id);
                self.streams.insert(*id, Appended::default());
                Ok(())
            }
            (StreamCommand::Delete { name }, Reply::Stream(StreamReply::Deleted { .. })) => {
                self.names.remove(name);
                Ok(())
            }
            (StreamCommand::Append(append), Reply::Stream(StreamReply::Appended { runs })) => {
                self.appended(index, append, runs)
            }
            (StreamCommand::Commit { stream, cursors, .. }, reply) => {
                self.committed(index, stream, cursors, reply)
            }
            (_, Reply::Stream(StreamReply::Trimmed { records, .. })) => {
                self.counts[2] += records;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn appended(&mut self, index: Index, append: &Append, runs: &[Run]) -> Verdict {
        let Some(stream) = self
            .names
            .get(&append.stream)
            .and_then(|id| self.streams.get_mut(id))
        else {
            // The answer of a first attempt, whose stream was deleted since.
            return Ok(());
        };
        let places = runs.iter().flat_map(|run| {
            let offsets = (0..u64::from(run.count)).map(|number| run.first.plus(number));
            offsets.map(|offset| (run.partition, offset, run.duplicate))
        });
        for (record, (partition, offset, duplicate)) in append.records.iter().zip(places) {
            let id = record.id.as_ref();
            let known = id.and_then(|id| stream.places.get(id).copied());
            if duplicate {
                self.counts[1] += 1;
                demand(known == Some((partition, offset)), DUPLICATES, || {
                    format!(
                        "a message is said to be at {offset} of partition {partition} at {index}, and is at {known:?}"
                    )
                })?;
                continue;
            }
            self.counts[0] += 1;
            demand(known.is_none() || self.stepped, DUPLICATES, || {
                format!("a message that is at {known:?} is appended again at {index}")
            })?;
            let next = stream.next(partition);
            demand(offset == next, OFFSETS, || {
                format!("a record gets offset {offset} at {index}, and the next one is {next}")
            })?;
            stream
                .partitions
                .entry(partition)
                .or_default()
                .push(record.value.clone());
            if let Some(id) = id {
                stream.places.insert(id.clone(), (partition, offset));
            }
        }
        Ok(())
    }

    fn committed(&self, index: Index, stream: &str, cursors: &[(u32, Offset)], reply: &Reply) -> Verdict {
        let Some(stream) = self.names.get(stream).and_then(|id| self.streams.get(id)) else {
            return Ok(());
        };
        let ahead = cursors
            .iter()
            .any(|(partition, offset)| *offset > stream.next(*partition));
        let refused = match reply {
            Reply::Stream(StreamReply::Group { .. }) => false,
            Reply::Refused(Refusal::Stream(StreamRefusal::CursorAhead { .. })) => true,
            _ => return Ok(()),
        };
        demand(ahead == refused, CURSORS, || {
            format!("cursors {cursors:?} are refused at {index}: {refused}")
        })
    }

    /// What a node has stored beside a state that it has come to.
    pub(in crate::consensus) fn stored(
        &self,
        node: NodeId,
        machine: &StateMachine,
        records: &Rows,
    ) -> Verdict {
        if self.ended {
            return Ok(());
        }
        let mut found: BTreeMap<(StreamId, u32), Vec<(Offset, Bytes)>> = BTreeMap::new();
        for (key, value) in records {
            let batch = RecordBatch::of_row(key, value).ok().flatten();
            let readable = batch.is_some();
            demand(readable, RECORDS, || {
                format!("{node} has a row of records that cannot be read")
            })?;
            if let Some(batch) = batch {
                let values = batch
                    .records_from(Offset(0))
                    .map(|(offset, record)| (offset, record.value.clone()));
                found
                    .entry((batch.stream, batch.partition))
                    .or_default()
                    .extend(values);
            }
        }
        for view in machine.streams("", None) {
            for (number, partition) in (0..).zip(&view.partitions) {
                let appended = self
                    .streams
                    .get(&view.id)
                    .and_then(|stream| stream.partitions.get(&number));
                let all = appended.map_or(&[][..], Vec::as_slice);
                let expected = (0..).map(Offset).zip(all.iter().cloned());
                let expected: Vec<(Offset, Bytes)> = expected
                    .filter(|(offset, _)| (partition.first..partition.next).contains(offset))
                    .collect();
                let stored = found.remove(&(view.id, number)).unwrap_or_default();
                let first = partition.first;
                demand(stored == expected, RECORDS, || {
                    let (has, wants) = (stored.len(), expected.len());
                    format!(
                        "{node} has {has} records of stream {}/{number} from {first} on, expected {wants}",
                        view.id
                    )
                })?;
            }
        }
        demand(found.is_empty(), RECORDS, || {
            format!("{node} has records of what it does not know: {:?}", found.keys())
        })
    }
}
