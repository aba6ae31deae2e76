//! What clients do with leases, and with requests that must be carried out once; and the duties of leaders about them.
//!
//! Leases are granted, kept alive now and then, and left to run out. A request is made several times, to whoever seems
//! to lead, whether or not an attempt was answered. What a leader's duty decides reaches consensus a moment later, at
//! times much later, and is handed on to another leader like any command: by then its term may be over.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use quorate_core::Instant;
use quorate_core::duties::{Host, Housekeeping, Leases, Placement, Retention, Trimming};
use quorate_core::raft::{Entry, Index, Input, Outcome, Payload, ReadMode, Role, Term, Token};
use quorate_core::state::{Attach, ClientId, Command, LeaseEvent, LeaseId, Put, Refusal, Reply, RequestId};

use super::checker::Verdict;
use super::checker::client::RequestKind;
use super::checker::once::serial_value;
use super::node::Run;
use super::schedule::{MILLISECOND, SECOND, Time};
use super::workload::Attempt;
use super::world::{Event, World};
use crate::random::Stream;
use crate::trace::Operation;

/// The mean time between two requests about leases or under a key.
const REQUEST_MEAN: Time = 30 * MILLISECOND;
/// How often leaders see to their duties about the state.
const TICK: Time = 25 * MILLISECOND;
/// How many leases there are.
const LEASES: u64 = 6;
/// Within how long all attempts of a request are made.
const ATTEMPTS_WITHIN: Time = 2 * SECOND;
/// How long things are kept: longer than requests are tried again, by the fastest clock.
const RETENTION: Retention = Retention {
    revisions: Duration::from_secs(2),
    revisions_max: 300,
    requests: Duration::from_secs(4),
};

/// Something that is going to happen to the data.
#[derive(Debug)]
pub(super) enum DataEvent {
    /// A client asks something.
    Request,
    /// A client or an owner asks something about sessions.
    Session,
    /// A client asks something about streams.
    StreamRequest,
    /// An attempt of a request.
    Attempt(Bytes),
    /// Leaders see to their duties.
    Tick,
    /// What a duty decided reaches consensus.
    Decided(Run, Bytes),
}

/// What the clients remember.
#[derive(Debug)]
pub(super) struct Data {
    random: Stream,
    serials: u64,
    client: Option<Client>,
}

/// A registered client.
#[derive(Debug)]
struct Client {
    id: ClientId,
    numbers: u64,
    /// The numbers that it has no answer to.
    open: BTreeSet<u64>,
}

/// What a node keeps for its duties while it runs.
#[derive(Debug)]
pub(super) struct DataDuties {
    leases: Leases,
    housekeeping: Housekeeping,
    placement: Placement,
    trimming: Trimming,
    /// Keep-alives that wait until it is confirmed that this node led when they came,
    asked: BTreeMap<Token, KeepAlive>,
    /// or until the state has caught up with the confirmed index.
    confirmed: Vec<(Index, KeepAlive)>,
}

#[derive(Clone, Copy, Debug)]
struct KeepAlive {
    lease: LeaseId,
    term: Term,
    received: Instant,
    asked: Time,
}

impl Data {
    pub(super) fn new(random: Stream) -> Data {
        Data {
            random,
            serials: 0,
            client: None,
        }
    }
}

impl DataDuties {
    pub(super) fn new(placement: Placement) -> DataDuties {
        DataDuties {
            leases: Leases::default(),
            housekeeping: Housekeeping::new(RETENTION),
            placement,
            trimming: Trimming::default(),
            asked: BTreeMap::new(),
            confirmed: Vec::new(),
        }
    }
}

impl World {
    pub(super) fn begin_data(&mut self) {
        self.schedule.after(REQUEST_MEAN, Event::Data(DataEvent::Request));
        self.begin_streams();
        self.schedule.after(TICK, Event::Data(DataEvent::Tick));
    }

    pub(super) fn data(&mut self, event: DataEvent) -> Verdict {
        match event {
            DataEvent::Request => self.data_request(),
            DataEvent::Session => self.session_request(),
            DataEvent::StreamRequest => self.stream_request(),
            DataEvent::Attempt(command) => self.data_attempt(command),
            DataEvent::Tick => self.data_tick(),
            DataEvent::Decided(run, command) => {
                if self.nodes.live(run).is_none() {
                    return Ok(());
                }
                self.put(run, Attempt::first(command))
            }
        }
    }

    fn data_request(&mut self) -> Verdict {
        if self.recovery.is_some() {
            return Ok(());
        }
        let delay = self.quiet_for() + self.data.random.around(REQUEST_MEAN);
        self.schedule.after(delay, Event::Data(DataEvent::Request));
        let lease = LeaseId::new(1 + self.data.random.below(LEASES)).expect("a number from 1 on");
        let command = match self.data.random.below(100) {
            0..=39 => return self.keep_alive(lease),
            40..=54 => {
                let ttl = *self.data.random.pick(&[200, 500, 1_500]);
                Command::Grant {
                    lease: Some(lease),
                    ttl: Duration::from_millis(ttl),
                }
            }
            55..=64 => {
                let key = format!("leased-{lease}").into_bytes();
                Command::Put(Put {
                    lease: Attach::Lease(lease),
                    ..Put::new(key, &b"leased"[..])
                })
            }
            65..=67 => Command::Revoke { lease },
            _ => return self.request_once(),
        };
        self.data_attempt(command.encode())
    }

    /// A client makes a request, and will make it again.
    fn request_once(&mut self) -> Verdict {
        let data = &mut self.data;
        let serial = data.serials;
        data.serials += 1;
        let request = match &mut data.client {
            None if data.random.chance(500_000) => return self.data_attempt(Command::Register.encode()),
            Some(client) if data.random.chance(600_000) => {
                let number = client.numbers;
                client.numbers += 1;
                client.open.insert(number);
                RequestId::Numbered {
                    client: client.id,
                    number,
                    acknowledged: client.open.first().copied().unwrap_or(number),
                }
            }
            _ => RequestId::Key(format!("request-{serial}").into_bytes().into()),
        };
        let key = format!("once-{}", serial % 16).into_bytes();
        let command = Command::Once {
            request,
            command: Command::put(key, serial_value(serial)).encode(),
        };
        let command = command.encode();
        for _ in 0..data.random.below(4) {
            let mean = *data.random.pick(&[10 * MILLISECOND, 300 * MILLISECOND]);
            let delay = data.random.around(mean).min(ATTEMPTS_WITHIN);
            self.schedule
                .after(delay, Event::Data(DataEvent::Attempt(command.clone())));
        }
        self.data_attempt(command)
    }

    pub(super) fn data_attempt(&mut self, command: Bytes) -> Verdict {
        match self.data_choice() {
            Some(run) if self.recovery.is_none() => self.put(run, Attempt::first(command)),
            _ => Ok(()),
        }
    }

    /// Mostly the node that leads, or is said to.
    fn data_choice(&mut self) -> Option<Run> {
        let now = self.schedule.now();
        let moving: Vec<Run> = self.nodes.moving(now).map(|(node, _)| node.run()).collect();
        let leader = moving.iter().find(|run| Some(run.node) == self.leader);
        match leader.filter(|_| self.data.random.chance(850_000)) {
            Some(leader) => Some(*leader),
            None if moving.is_empty() => None,
            None => Some(*self.data.random.pick(&moving)),
        }
    }

    fn keep_alive(&mut self, lease: LeaseId) -> Verdict {
        let asked = self.schedule.now();
        let Some(run) = self.data_choice() else {
            return Ok(());
        };
        self.note_leadership(run);
        let Some(live) = self.nodes.live(run) else {
            return Ok(());
        };
        let Some(term) = live.process.data.leases.term() else {
            return Ok(());
        };
        let keep_alive = KeepAlive {
            lease,
            term,
            received: live.clock.shows(asked),
            asked,
        };
        let floor = self.checkers.clients.floor();
        let kind = RequestKind::Read { floor, lease: false };
        let token = self.checkers.clients.ask(run, kind);
        self.tell_asked(run, token, Operation::Read, || {
            format!("to keep lease {lease} alive")
        });
        if let Some(live) = self.nodes.live(run) {
            live.process.data.asked.insert(token, keep_alive);
        }
        let mode = ReadMode::ReadIndex;
        self.input(run, Input::Read { token, mode })
    }

    /// Consensus answered; it may be the answer to a keep-alive.
    pub(super) fn data_outcome(&mut self, run: Run, token: Token, outcome: &Outcome) -> Verdict {
        let Some(live) = self.nodes.live(run) else {
            return Ok(());
        };
        let data = &mut live.process.data;
        if let (Some(keep_alive), Outcome::ReadReady { index }) = (data.asked.remove(&token), outcome) {
            data.confirmed.push((*index, keep_alive));
            return self.renew_leases(run);
        }
        Ok(())
    }

    /// Renews the leases of keep-alives whose index the state has reached.
    pub(super) fn renew_leases(&mut self, run: Run) -> Verdict {
        let Some(live) = self.nodes.live(run) else {
            return Ok(());
        };
        let applied = live.process.machine.applied().index;
        let DataDuties {
            leases, confirmed, ..
        } = &mut live.process.data;
        let mut renewed = Vec::new();
        confirmed.retain(|(index, keep_alive)| {
            let ready = *index <= applied;
            let KeepAlive {
                lease,
                term,
                received,
                ..
            } = *keep_alive;
            if ready && leases.renew(term, received, lease).is_ok() {
                renewed.push(*keep_alive);
            }
            !ready
        });
        for KeepAlive { lease, asked, .. } in renewed {
            self.statistics.keep_alives += 1;
            self.log(|_| format!("{run} keeps lease {lease} alive"));
            self.checkers.grants.kept_alive(asked, lease)?;
        }
        Ok(())
    }

    /// A node applied a command.
    pub(super) fn data_applied(
        &mut self,
        run: Run,
        entry: &Entry,
        answered: bool,
        reply: &Reply,
        leases: &[LeaseEvent],
    ) -> Verdict {
        let now = self.schedule.now();
        let index = entry.position.index;
        self.note_leadership(run);
        if let Some(live) = self.nodes.live(run) {
            let shown = live.clock.shows(now);
            for event in leases {
                live.process.data.leases.see(shown, *event);
            }
        }
        let Payload::Command(command) = &entry.payload else {
            return Ok(());
        };
        let Ok(command) = Command::decode(command) else {
            return Ok(());
        };
        self.client_hears(answered, &command, reply);
        if !self.conditions.checks {
            return Ok(());
        }
        if let Reply::Refused(Refusal::StaleTerm) = reply {
            self.statistics.stale_expiries += 1;
        }
        self.checkers.grants.applied(now, index, &command, leases)?;
        self.checkers.once.applied(now, index, &command, reply)?;
        self.checkers.streams.applied(index, &command, reply)?;
        let [records, known, dropped] = self.checkers.streams.counts;
        self.statistics.records = records;
        self.statistics.known_messages = known;
        self.statistics.dropped_records = dropped;
        Ok(())
    }

    /// What the client learns from a reply, if it hears it.
    fn client_hears(&mut self, answered: bool, command: &Command, reply: &Reply) {
        let client = &mut self.data.client;
        match (command, reply) {
            (Command::Register, Reply::Registered { client: id }) if answered => {
                *client = Some(Client {
                    id: *id,
                    numbers: 0,
                    open: BTreeSet::new(),
                });
            }
            (_, Reply::Refused(Refusal::NoSuchClient(id)))
                if answered && client.as_ref().is_some_and(|client| client.id == *id) =>
            {
                *client = None;
            }
            (
                Command::Once {
                    request:
                        RequestId::Numbered {
                            client: id, number, ..
                        },
                    ..
                },
                _,
            ) if answered => {
                if let Some(client) = client.as_mut().filter(|client| client.id == *id) {
                    client.open.remove(number);
                }
            }
            _ => {}
        }
    }

    /// The duties of a node learn whether it leads.
    fn note_leadership(&mut self, run: Run) {
        let now = self.schedule.now();
        let Some(live) = self.nodes.live(run) else {
            return;
        };
        let shown = live.clock.shows(now);
        let status = live.process.raft.status();
        let leads = (status.role == Role::Leader).then_some(status.term);
        let process = live.process;
        if process.data.leases.term() == leads {
            return;
        }
        process.data.housekeeping.reset();
        process.data.trimming.reset();
        match leads {
            Some(term) => process.data.leases.lead(term, shown, process.machine.leases()),
            None => {
                process.data.leases.follow();
                process.data.placement.follow();
            }
        }
    }

    fn data_tick(&mut self) -> Verdict {
        self.schedule.after(TICK, Event::Data(DataEvent::Tick));
        let now = self.schedule.now();
        let runs: Vec<Run> = self.nodes.moving(now).map(|(node, _)| node.run()).collect();
        for run in runs {
            self.note_leadership(run);
            for command in self.decide(run) {
                let mean =
                    *self
                        .data
                        .random
                        .pick(&[MILLISECOND, MILLISECOND, MILLISECOND, 300 * MILLISECOND]);
                let delay = self.data.random.around(mean);
                let command = command.encode();
                self.schedule
                    .after(delay, Event::Data(DataEvent::Decided(run, command)));
            }
        }
        Ok(())
    }

    fn decide(&mut self, run: Run) -> Vec<Command> {
        let now = self.schedule.now();
        let recovering = self.recovery.is_some();
        let wall = self.wall_time(run.node);
        let Some(live) = self.nodes.live(run) else {
            return Vec::new();
        };
        let shown = live.clock.shows(now);
        let process = live.process;
        let Some(term) = process.data.leases.term() else {
            return Vec::new();
        };
        let mut decided: Vec<Command> = std::iter::from_fn(|| process.data.leases.due(shown)).collect();
        let hosts = Host::all(&process.raft.status());
        decided.extend(process.data.placement.due(shown, term, &hosts, &process.machine));
        if !recovering {
            decided.extend(process.data.housekeeping.due(shown, &process.machine));
            decided.extend(process.data.trimming.due(shown, wall, term, &process.machine));
        }
        decided
    }

    /// A lease that the leader has not ended.
    pub(super) fn lasting_lease(&self) -> Option<LeaseId> {
        let leader = self.nodes.get(self.current_leader()?)?;
        let process = leader.process.as_ref()?;
        process.machine.leases().next().map(|(lease, _)| lease)
    }
}
