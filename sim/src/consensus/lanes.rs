//! What runs beside consensus on a node: the log's disk, the state machine and the state store. How snapshots travel: [`transfer`](super::transfer).

use quorate_core::raft::{
    Apply, Base, DiskError, Entry, Fetch, FetchError, Index, Input, NodeId, Payload, SnapshotEvent, Token,
};
use quorate_core::state::Command;

use super::PlantedBug;
use super::checker::{Breach, Verdict};
use super::disk::Done;
use super::marks::Mark;
use super::node::Run;
use super::plan::Boundary;
use super::schedule::{MILLISECOND, Time};
use super::store;
use super::world::{Event, World};
use crate::trace::Answer;

impl World {
    /// A sync of the log ends.
    pub(super) fn synced(&mut self, run: Run) -> Verdict {
        let now = self.schedule.now();
        let Some(live) = self.nodes.live(run) else {
            return Ok(());
        };
        if live.stalled_until > now {
            let until = live.stalled_until;
            self.schedule.at(until, Event::Sync(run));
            return Ok(());
        }
        if std::mem::take(live.disk_fails)
            && let Some((write, done)) = live.disk.fail_sync(&mut self.random.disk)
        {
            self.now_durable(run.node, &done)?;
            return self.disk_failed(run, write);
        }
        if let Some(down) = boundary_reached(live.crash_at, Boundary::BeforeSync) {
            return self.kill(run, down);
        }
        let mut writes = live.disk.end_sync();
        let voted = writes.iter().any(|done| {
            let vote = done.hard_state.and_then(|hard_state| hard_state.vote);
            vote.is_some()
        });
        let after_sync = boundary_reached(live.crash_at, Boundary::AfterSync);
        let after_vote = boundary_reached(live.crash_at, Boundary::AfterVote).filter(|_| voted);
        self.now_durable(run.node, &writes)?;
        if let Some(down) = after_sync {
            return self.kill(run, down);
        }
        if let Some(down) = after_vote {
            let delay = self.random.disk.around(2 * MILLISECOND);
            self.schedule.after(delay, Event::Kill(run, down));
        }
        self.sync(run);
        if self.random.drivers.chance(800_000) {
            // An acknowledgement covers all before it.
            writes = writes.split_off(writes.len().saturating_sub(1));
        }
        for Done { write, .. } in writes {
            self.input(
                run,
                Input::Persisted {
                    write,
                    result: Ok(()),
                },
            )?;
        }
        Ok(())
    }

    /// Notes the terms and votes that a disk holds now, one after the other.
    pub(super) fn now_durable(&mut self, node: NodeId, done: &[Done]) -> Verdict {
        if !self.conditions.checks {
            return Ok(());
        }
        done.iter()
            .filter_map(|done| done.hard_state)
            .try_for_each(|hard_state| self.checkers.promises.durable(node, hard_state))
    }

    /// A process that hears of a failed sync stops. What the disk holds of it is not known.
    fn disk_failed(&mut self, run: Run, write: quorate_core::raft::WriteId) -> Verdict {
        self.statistics.disk_errors += 1;
        let result = Err(DiskError("simulated input/output error".to_owned()));
        self.input(run, Input::Persisted { write, result })?;
        self.drain(run)?;
        self.crash(run.node)
    }

    /// Lets the state machine work soon.
    pub(super) fn apply_later(&mut self, run: Run) {
        let Some(live) = self.nodes.live(run) else {
            return;
        };
        if !std::mem::replace(&mut live.process.apply_scheduled, true) {
            let delay = self.random.drivers.around(self.knobs.apply_mean);
            self.schedule.after(delay, Event::Apply(run));
        }
    }

    /// The state machine works through what was handed to it.
    pub(super) fn apply(&mut self, run: Run) -> Verdict {
        let Some(live) = self.nodes.live(run) else {
            return Ok(());
        };
        live.process.apply_scheduled = false;
        let mut applied = None;
        while let Some(apply) = self
            .nodes
            .live(run)
            .and_then(|live| live.process.to_apply.pop_front())
        {
            match apply {
                Apply::Committed(committed) => {
                    for (entry, token) in committed.iter() {
                        self.apply_entry(run, entry, token)?;
                        applied = Some(entry.position.index);
                    }
                }
                Apply::Install(base) => {
                    let index = base.position.index;
                    self.install(run, *base)?;
                    applied = None;
                    self.input(run, Input::Snapshot(SnapshotEvent::Installed { index }))?;
                }
            }
        }
        self.finish_reads(run);
        self.renew_leases(run)?;
        self.flush_later(run);
        match applied {
            Some(index) => self.input(run, Input::Applied { index }),
            None => Ok(()),
        }
    }

    fn apply_entry(&mut self, run: Run, entry: &Entry, token: Option<Token>) -> Verdict {
        let (planted, checks) = (self.conditions.driver(), self.conditions.checks);
        let Some(live) = self.nodes.live(run) else {
            return Ok(());
        };
        let position = entry.position;
        let machine = &mut live.process.machine;
        let mut told = None;
        let rows = match &entry.payload {
            Payload::Command(command) => {
                let diverges = planted == Some(PlantedBug::DivergentApply) && run.node == NodeId(1);
                let altered = diverges.then(|| altered(command));
                let command = altered.as_deref().unwrap_or(command);
                machine.apply(position, command).map(|applied| {
                    told = Some((applied.reply, applied.leases));
                    applied.rows
                })
            }
            Payload::Membership(membership) => {
                live.process.membership = (**membership).clone();
                machine.apply_empty(position).map(|()| Vec::new())
            }
            Payload::Empty => machine.apply_empty(position).map(|()| Vec::new()),
            Payload::Omitted => {
                return Err(Breach {
                    checker: "commands are left out for witnesses only",
                    seen: format!("{run} is to apply {position}, and does not know what it says"),
                });
            }
        };
        let rows = rows.map_err(|error| Breach {
            checker: "committed entries can be applied",
            seen: format!("{run}: {error}"),
        })?;
        if checks {
            self.checkers.states.reached(run.node, machine)?;
        }
        live.store.applied(position, rows);
        if let Some((reply, leases)) = told {
            self.data_applied(run, entry, token.is_some(), &reply, &leases)?;
            if checks {
                self.sessions_applied(run, entry, &reply)?;
            }
        }
        let Some(token) = token else {
            return Ok(());
        };
        let attempt = self.checkers.clients.replied(run, token, entry)?;
        self.tell_answer(token, Answer::Acknowledged, || format!("at {position}").into());
        let elsewhere = attempt > 1 && self.recovery.is_none();
        self.marks.note_if(elsewhere, Mark::RefusedThenDone);
        if planted == Some(PlantedBug::DoubleReply) {
            self.checkers.clients.replied(run, token, entry)?;
        }
        Ok(())
    }

    fn install(&mut self, run: Run, base: Base) -> Verdict {
        let Some(live) = self.nodes.live(run) else {
            return Ok(());
        };
        let switched = live.disk.durable.base.position.index >= base.position.index;
        let snapshot = live.store.snapshot(base.position).filter(|_| switched);
        let Some(rows) = snapshot.map(|snapshot| snapshot.rows.clone()) else {
            return Err(Breach {
                checker: "a state is installed from a snapshot that the log has switched to",
                seen: format!(
                    "{run} installs {}, log base {}",
                    base.position, live.disk.durable.base.position
                ),
            });
        };
        live.process.machine = store::restore(&rows, base.position).map_err(|error| Breach {
            checker: "snapshots can be loaded",
            seen: format!("{run}: {error}"),
        })?;
        live.process.machine.plant(self.knobs.raft.planted);
        live.process.membership = base.membership;
        live.store.installed(base.position, rows);
        self.checkers.states.reached(run.node, &live.process.machine)?;
        self.check_records(run)
    }

    fn finish_reads(&mut self, run: Run) {
        let Some(live) = self.nodes.live(run) else {
            return;
        };
        let applied = live.process.machine.applied().index;
        let before = live.process.reads.len();
        live.process.reads.retain(|index| *index > applied);
        for _ in live.process.reads.len()..before {
            self.checkers.clients.read(applied);
        }
    }

    fn flush_later(&mut self, run: Run) {
        let Some(live) = self.nodes.live(run) else {
            return;
        };
        if live.store.is_behind() && !std::mem::replace(&mut live.process.flush_scheduled, true) {
            let delay = MILLISECOND + self.random.disk.around(self.knobs.flush_mean);
            self.schedule.after(delay, Event::Flush(run));
        }
    }

    /// The state store has written some of what it is behind.
    pub(super) fn flushed(&mut self, run: Run) -> Verdict {
        let Some(live) = self.nodes.live(run) else {
            return Ok(());
        };
        live.process.flush_scheduled = false;
        let behind = live.store.batches_behind() as u64;
        let count = if self.random.disk.chance(300_000) {
            self.random.disk.between(behind.min(1), behind)
        } else {
            behind
        };
        live.store.flush(usize::try_from(count).unwrap_or(usize::MAX));
        let index = live.store.applied.index;
        self.flush_later(run);
        self.input(run, Input::Snapshot(SnapshotEvent::StateDurable { index }))
    }

    /// Old entries were read from the log.
    pub(super) fn fetched(&mut self, run: Run, fetch: Fetch) -> Verdict {
        let Some(live) = self.nodes.live(run) else {
            return Ok(());
        };
        let read = live.disk.written.read(fetch.first, fetch.last, fetch.bytes_max);
        let result = match read {
            Some(mut entries) => {
                if self.random.disk.chance(300_000) {
                    let kept = self.random.disk.between(1, entries.len() as u64);
                    entries.truncate(usize::try_from(kept).unwrap_or(1));
                }
                Ok(entries)
            }
            None => Err(FetchError::Purged),
        };
        let fetch = fetch.id;
        self.input(run, Input::Fetched { fetch, result })
    }

    /// How far every node's state is, in words.
    pub(super) fn picture(&self) -> String {
        let nodes: Vec<String> = self
            .nodes
            .iter()
            .map(|node| match &node.process {
                None if node.gone => format!("{} gone", node.id),
                None => format!("{} down", node.id),
                Some(process) => {
                    let status = process.raft.status();
                    format!(
                        "{} {:?} term {} leader {:?} base {} applied {} commit {} durable {} last {} peers {:?}",
                        node.id,
                        status.role,
                        status.term,
                        status.leader.map_or(Index(0).0, |id| id.0),
                        status.base.position.index,
                        process.machine.applied().index,
                        status.commit,
                        status.durable,
                        status.last,
                        status
                            .peers
                            .iter()
                            .map(|peer| (peer.id.0, peer.matched.0, peer.next.0, peer.state))
                            .collect::<Vec<_>>(),
                    )
                }
            })
            .collect();
        let members = &self.membership;
        format!(
            "voters {:?} outgoing {:?} learners {:?}; {}",
            members.voters(),
            members.outgoing(),
            members.learners(),
            nodes.join("; ")
        )
    }
}

/// How long a process stays down that is killed at this boundary; none when it is not.
fn boundary_reached(crash_at: &Option<(Boundary, Time)>, reached: Boundary) -> Option<Time> {
    crash_at
        .filter(|(boundary, _)| *boundary == reached)
        .map(|(_, down)| down)
}

/// The command with another value.
fn altered(command: &[u8]) -> Vec<u8> {
    match Command::decode(command) {
        Ok(Command::Put(put)) => Command::put(put.key, &b"another value"[..]).encode().to_vec(),
        _ => command.to_vec(),
    }
}
