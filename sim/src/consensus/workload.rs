//! What clients do: writes that can be told from each other, conditional writes, removals, and linearizable reads.

use bytes::Bytes;
use quorate_core::raft::{Input, NodeId, ReadMode, Role};
use quorate_core::state::{self, Command, Put, Revision, Transaction};

use super::PlantedBug;
use super::checker::Verdict;
use super::checker::client::{Request, RequestKind, Serial, value_of};
use super::node::Run;
use super::operator::Mood;
use super::schedule::{MILLISECOND, Time};
use super::words::command_in_words;
use super::world::{Event, World};
use crate::trace::Operation;

/// A command that was refused and is put to another node.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    serial: Option<Serial>,
    command: Bytes,
    attempt: u32,
}

impl Attempt {
    /// The first attempt of a command that no serial tells from others.
    pub(super) fn first(command: Bytes) -> Attempt {
        Attempt {
            serial: None,
            command,
            attempt: 1,
        }
    }
}

/// How often a refused command is tried.
const ATTEMPTS_MAX: u32 = 4;

impl World {
    /// A client asks something, and will ask more.
    pub(super) fn request(&mut self) -> Verdict {
        if self.recovery.is_some() {
            return Ok(());
        }
        self.request_later();
        self.statistics.requests += 1;
        let Some(run) = self.clients_choice() else {
            return Ok(());
        };
        if self.random.clients.chance(250_000) {
            return self.read(run);
        }
        let (serial, command) = self.invent_command();
        self.put(
            run,
            Attempt {
                serial,
                command,
                attempt: 1,
            },
        )
    }

    fn request_later(&mut self) {
        let (now, mean) = (self.schedule.now(), self.knobs.request_mean);
        let (mean, wait) = match self.operator.mood {
            Mood::Burst { times, until } if now < until => (mean / times.max(1), 0),
            _ => (mean, self.quiet_for()),
        };
        let delay = wait + self.random.clients.around(mean);
        self.schedule.after(delay, Event::Request);
    }

    /// How long clients still ask nothing.
    pub(super) fn quiet_for(&self) -> Time {
        match self.operator.mood {
            Mood::Quiet { until } => until.saturating_sub(self.schedule.now()),
            _ => 0,
        }
    }

    /// A client writes a value of its own to a node; returns what names it.
    pub(super) fn write_fresh(&mut self, run: Run) -> Result<Serial, super::checker::Breach> {
        let serial = self.checkers.clients.new_write();
        let command = self.plain_put(serial);
        let serial_named = Some(serial);
        self.put(
            run,
            Attempt {
                serial: serial_named,
                command,
                attempt: ATTEMPTS_MAX,
            },
        )?;
        Ok(serial)
    }

    /// A refused command is put to the node that is said to lead.
    pub(super) fn ask_again(&mut self, attempt: Attempt) -> Verdict {
        if self.recovery.is_some() {
            return Ok(());
        }
        match self.clients_choice() {
            Some(run) => self.put(run, attempt),
            None => Ok(()),
        }
    }

    /// A refused command is tried again a moment later, some times.
    pub(super) fn try_elsewhere(&mut self, request: &Request) {
        if let RequestKind::Command {
            serial,
            command,
            attempt,
        } = &request.kind
            && *attempt < ATTEMPTS_MAX
        {
            let delay = self.random.clients.around(2 * MILLISECOND);
            let again = Attempt {
                serial: *serial,
                command: command.clone(),
                attempt: attempt + 1,
            };
            self.schedule.after(delay, Event::Again(again));
        }
    }

    pub(super) fn put(&mut self, run: Run, attempt: Attempt) -> Verdict {
        let Attempt {
            serial,
            command,
            attempt,
        } = attempt;
        let kind = RequestKind::Command {
            serial,
            command: command.clone(),
            attempt,
        };
        let token = self.checkers.clients.ask(run, kind);
        self.tell_asked(run, token, Operation::Write, || {
            command_in_words(&command, serial, attempt)
        });
        self.input(run, Input::Propose { token, command })
    }

    /// A client reads from a node.
    pub(super) fn read(&mut self, run: Run) -> Verdict {
        let leases = self.knobs.raft.lease_reads.is_some();
        let unconfirmed = self.conditions.driver() == Some(PlantedBug::UnconfirmedRead);
        let mode = if !unconfirmed && leases && self.random.clients.chance(700_000) {
            ReadMode::Lease
        } else {
            ReadMode::ReadIndex
        };
        let floor = self.checkers.clients.floor();
        let kind = RequestKind::Read {
            floor,
            lease: mode == ReadMode::Lease && self.holds_lease(run),
        };
        let token = self.checkers.clients.ask(run, kind);
        self.tell_asked(run, token, Operation::Read, || format!("at {floor} or later"));
        if unconfirmed && let Some(live) = self.nodes.live(run) {
            let index = live.process.raft.status().commit;
            let outcome = quorate_core::raft::Outcome::ReadReady { index };
            self.tell_outcome(token, &outcome);
            return self.checkers.clients.outcome(run, token, &outcome).map(drop);
        }
        self.input(run, Input::Read { token, mode })
    }

    fn holds_lease(&mut self, run: Run) -> bool {
        let now = self.schedule.now();
        self.nodes.live(run).is_some_and(|live| {
            let until = live.process.raft.status().lease_until;
            until.is_some_and(|until| live.clock.shows(now) < until)
        })
    }

    /// Mostly the node that leads or is said to, often any, and at times the one that led before: not every client has
    /// heard.
    fn clients_choice(&mut self) -> Option<Run> {
        let now = self.schedule.now();
        let place = self.random.clients.below(10);
        let leader = match place {
            0..7 => self.leader,
            7 => self.leader_before,
            _ => None,
        };
        let leader = leader
            .and_then(|leader| self.nodes.get(leader))
            .filter(|node| node.process.is_some() && node.paused_until <= now);
        if let Some(node) = leader {
            return Some(node.run());
        }
        let running = self.nodes.moving(now).count() as u64;
        if running == 0 {
            return None;
        }
        let place = usize::try_from(self.random.clients.below(running)).ok()?;
        self.nodes.moving(now).nth(place).map(|(node, _)| node.run())
    }

    /// The node that leads the latest term.
    pub(super) fn current_leader(&self) -> Option<NodeId> {
        self.leader_among(|_| true)
    }

    /// The one of some nodes that leads the latest term.
    pub(super) fn leader_among(&self, chosen: impl Fn(NodeId) -> bool) -> Option<NodeId> {
        self.nodes
            .processes()
            .filter(|(node, process)| chosen(node.id) && process.raft.status().role == Role::Leader)
            .max_by_key(|(_, process)| process.progress.term())
            .map(|(node, _)| node.id)
    }

    fn invent_command(&mut self) -> (Option<Serial>, Bytes) {
        let kind = self.random.clients.below(10);
        if kind == 0 {
            let key = self.some_key();
            return (None, Command::delete(key).encode());
        }
        let serial = self.checkers.clients.new_write();
        if kind > 2 {
            return (Some(serial), self.plain_put(serial));
        }
        let key = self.some_key();
        let expected = Revision(self.random.clients.below(self.checkers.clients.acknowledged + 2));
        let put = state::Operation::Put(Put::new(key.clone(), value_of(serial)));
        let command = Command::Transact(Transaction::guarded(key, expected, put));
        (Some(serial), command.encode())
    }

    fn plain_put(&mut self, serial: Serial) -> Bytes {
        Command::put(self.some_key(), value_of(serial)).encode()
    }

    fn some_key(&mut self) -> Bytes {
        let number = self.random.clients.below(self.knobs.keys);
        format!("key-{number}").into_bytes().into()
    }
}
