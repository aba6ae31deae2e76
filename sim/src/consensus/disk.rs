//! The disk under a node's log: writes become durable in order, some time after they were handed over.
//!
//! Invariant: `written` is `durable` with every queued operation carried out. A crash keeps any number of the queued
//! operations from the front and perhaps the beginning of the next one, and loses the others.

use std::collections::VecDeque;

use quorate_core::raft::{Base, HardState, Index, Position, Write, WriteId};

use super::log::DiskLog;
use super::schedule::Time;
use crate::random::{PartsPerMillion, Stream};

#[derive(Clone, Debug)]
enum Operation {
    Write(Write),
    Purge(Base),
}

/// A write that is durable.
#[derive(Clone, Copy, Debug)]
pub(super) struct Done {
    pub(super) write: WriteId,
    /// The term and vote in it.
    pub(super) hard_state: Option<HardState>,
}

/// A disk with one log.
#[derive(Debug)]
pub(super) struct Disk {
    /// What is there after a crash at the least.
    pub(super) durable: DiskLog,
    /// What a reader of the running node sees.
    pub(super) written: DiskLog,
    /// What is not durable, with the time at which it was handed over.
    queue: VecDeque<(Time, Operation)>,
    /// How many operations from the front of the queue the sync under way covers.
    syncing: usize,
}

impl Disk {
    pub(super) fn new(log: DiskLog) -> Disk {
        Disk {
            written: log.clone(),
            durable: log,
            queue: VecDeque::new(),
            syncing: 0,
        }
    }

    /// Queues a write; says what is wrong with one that makes no sense.
    pub(super) fn write(&mut self, now: Time, write: Write) -> Result<(), String> {
        self.written.write(&write)?;
        self.queue.push_back((now, Operation::Write(write)));
        Ok(())
    }

    /// Queues a purge; says what is wrong with one that makes no sense.
    pub(super) fn purge(&mut self, now: Time, base: Base) -> Result<(), String> {
        self.written.purge(&base)?;
        self.queue.push_back((now, Operation::Purge(base)));
        Ok(())
    }

    /// When the oldest write that is not durable was handed over.
    pub(super) fn oldest_write(&self) -> Option<Time> {
        self.queue
            .iter()
            .find(|(_, operation)| matches!(operation, Operation::Write(_)))
            .map(|(since, _)| *since)
    }

    /// Begins a sync of everything queued; false when there is nothing to sync or a sync is under way.
    pub(super) fn begin_sync(&mut self) -> bool {
        if self.syncing > 0 || self.queue.is_empty() {
            return false;
        }
        self.syncing = self.queue.len();
        true
    }

    /// Ends the sync under way; returns what is durable now, in order.
    pub(super) fn end_sync(&mut self) -> Vec<Done> {
        let count = std::mem::take(&mut self.syncing);
        self.make_durable(count)
    }

    /// The sync under way fails: some of it is durable, the caller does not learn how much. Returns the first write
    /// of it, if it has one, and what is durable.
    pub(super) fn fail_sync(&mut self, random: &mut Stream) -> Option<(WriteId, Vec<Done>)> {
        let count = std::mem::take(&mut self.syncing);
        let first = self
            .queue
            .iter()
            .take(count)
            .find_map(|(_, operation)| match operation {
                Operation::Write(write) => Some(write.id),
                Operation::Purge(_) => None,
            });
        let kept = random.between(0, count as u64);
        let done = self.make_durable(usize::try_from(kept).unwrap_or(count));
        first.map(|first| (first, done))
    }

    /// The node stops: only what is durable remains. Returns what became durable without anyone hearing of it,
    /// and whether a write was torn.
    pub(super) fn crash(&mut self, random: &mut Stream) -> (Vec<Done>, bool) {
        self.syncing = 0;
        let mut done = Vec::new();
        if random.chance(500_000) {
            let kept = random.between(0, self.queue.len() as u64);
            done = self.make_durable(usize::try_from(kept).unwrap_or(0));
        }
        let torn = random.chance(500_000) && self.tear(random, &mut done);
        self.queue.clear();
        self.written = self.durable.clone();
        (done, torn)
    }

    /// The first write that is lost leaves its term and vote and some of its entries: records are durable or not each
    /// by itself, in order.
    fn tear(&mut self, random: &mut Stream, done: &mut Vec<Done>) -> bool {
        let Some((_, Operation::Write(write))) = self.queue.front_mut() else {
            return false;
        };
        if write.reset.is_some() || write.entries.is_empty() {
            return false;
        }
        let kept = random.below(write.entries.len() as u64);
        write.entries = write.entries.slice(0..usize::try_from(kept).unwrap_or(0));
        done.extend(self.make_durable(1));
        true
    }

    /// The log rots while the node is down; see [`DiskLog::rot`].
    pub(super) fn rot(
        &mut self,
        readable: PartsPerMillion,
        end_is_known: bool,
        applied: Position,
    ) -> Option<Index> {
        let from = self.durable.rot(readable, end_is_known, applied);
        self.written = self.durable.clone();
        from
    }

    /// Carries out a write while the node is down.
    pub(super) fn force(&mut self, write: &Write) -> Result<(), String> {
        self.durable.write(write)?;
        self.written = self.durable.clone();
        Ok(())
    }

    fn make_durable(&mut self, count: usize) -> Vec<Done> {
        let mut done = Vec::new();
        for (_, operation) in self.queue.drain(..count) {
            match operation {
                Operation::Write(write) => {
                    self.durable
                        .write(&write)
                        .expect("it was carried out on `written` from the same state");
                    done.push(Done {
                        write: write.id,
                        hard_state: write.hard_state,
                    });
                }
                Operation::Purge(base) => self
                    .durable
                    .purge(&base)
                    .expect("it was carried out on `written` from the same state"),
            }
        }
        done
    }
}

/// Disks that break their promise; planted to see whether the checkers notice.
impl Disk {
    /// Forgets the last entries, acknowledged or not.
    pub(super) fn lose_entries(&mut self, count: usize) {
        self.durable.lose_entries(count);
        self.written = self.durable.clone();
    }

    /// Forgets the vote.
    pub(super) fn lose_vote(&mut self) {
        self.durable.hard_state.vote = None;
        self.written = self.durable.clone();
    }
}
