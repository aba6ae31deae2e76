//! One run: the nodes, what happens to them, and the loop over the events.

use std::collections::BTreeMap;

use quorate_core::raft::{
    Base, Body, DirectoryId, Effects, FeatureLevel, Fetch, Index, Input, Lineage, LinkEvent, Member,
    Membership, Message, NodeId, Position, Role, Term, WriteId,
};

use super::checker::commit::CommittedLog;
use super::checker::{Breach, Checkers, Verdict, demand, lease, matching, queues};
use super::data::{Data, DataEvent};
use super::forced::Ended;
use super::marks::Marks;
use super::measured::Measuring;
use super::network::{Cut, Network};
use super::node::{Live, Nodes, Run};
use super::operator::{DUTIES_INTERVAL, Operator};
use super::plan::{Fault, Knobs, Operation, Plan};
use super::recovery::Recovery;
use super::schedule::{MICROSECOND, Schedule, Time};
use super::sessions::Sessions;
use super::streams::StreamClients;
use super::told::Told;
use super::trace::Trace;
use super::transfer::{Offer, Transfer};
use super::workload::Attempt;
use super::{Conditions, Outcome, Statistics};
use crate::random::{Concern, Stream};
use crate::trace::{self, Journal, Loss};

/// Something that is going to happen.
#[derive(Debug)]
pub(super) enum Event {
    /// A message arrives.
    Deliver {
        from: NodeId,
        to: NodeId,
        number: u64,
        message: Box<Message>,
    },
    /// A deadline of consensus has come, or had come at that time while the node stood still.
    Timer(Run, Time),
    /// A driver carries out what consensus wants.
    Drain(Run),
    /// A sync of the log ends.
    Sync(Run),
    /// A driver lies: the write is not durable.
    FalseAcknowledgement(Run, WriteId),
    /// The state machine works.
    Apply(Run),
    /// The state store has written.
    Flush(Run),
    /// Old entries were read.
    Fetched(Run, Fetch),
    /// Snapshots are offered to a member.
    Offered(Box<Offer>),
    /// A piece of a snapshot arrives.
    Piece(Box<Transfer>),
    /// A snapshot is whole and durable at its receiver.
    Received {
        to: Run,
        from: NodeId,
        number: u64,
        term: Term,
        base: Box<Base>,
    },
    /// The sender of a snapshot learns how its transfer went.
    Sent { from: Run, to: NodeId, complete: bool },
    /// A transport notices something.
    Link {
        run: Run,
        peer: NodeId,
        event: LinkEvent,
    },
    /// A process starts.
    Start(NodeId),
    /// A process is killed, and starts again after some time.
    Kill(Run, Time),
    /// A removed node is switched off for good.
    SwitchOff(NodeId),
    /// A node that was lost with a forced start comes back.
    ComesBack(Run),
    /// The binary of a node has stopped since it is too old.
    TooOld(Run, FeatureLevel),
    /// A node that stood still moves again.
    Resume(NodeId),
    /// A client asks something.
    Request,
    /// A client asks again.
    Again(Attempt),
    /// Something happens to leases, or to a request that must be carried out once.
    Data(DataEvent),
    /// The operation at this place in the plan is asked for.
    Operation(usize),
    /// Leaders see to their duties.
    Duties,
    /// The fault at this place in the plan happens.
    Fault(usize),
    /// A cut ends.
    Heal(Cut),
    /// A flapping link is cut, and will be so many times more.
    Flap { cut: Cut, period: Time, left: u32 },
    /// The phase with faults ends.
    Recover,
    /// Whether everything has recovered.
    Poll,
}

impl Event {
    /// The node that has to move for this to happen.
    fn node(&self) -> Option<NodeId> {
        match self {
            Event::Deliver { to, .. } => Some(*to),
            Event::Offered(offer) => Some(offer.to),
            Event::Piece(transfer) => Some(transfer.receiver()),
            Event::Timer(run, _)
            | Event::Drain(run)
            | Event::Sync(run)
            | Event::FalseAcknowledgement(run, _)
            | Event::Apply(run)
            | Event::Flush(run)
            | Event::Fetched(run, _)
            | Event::Received { to: run, .. }
            | Event::Sent { from: run, .. }
            | Event::Link { run, .. }
            | Event::Data(DataEvent::Decided(run, _)) => Some(run.node),
            _ => None,
        }
    }
}

/// Streams of chance, one a concern; the network has its own, and so has every machine for what it is like.
#[derive(Debug)]
pub(super) struct Streams {
    pub(super) disk: Stream,
    pub(super) clients: Stream,
    pub(super) drivers: Stream,
}

/// What is drawn for machines, each from a stream of its own.
#[derive(Clone, Copy, Debug)]
pub(super) enum Draws {
    /// Its clock, and what it takes for the membership.
    Character,
    /// The binary that it begins with.
    FirstBinary,
    /// When it starts for the first time.
    FirstStart,
    /// Whether and when it is switched off after it was let go.
    SwitchOff,
    /// The binary that it changes to when it starts.
    Binary,
    /// When it starts again after its binary was too old.
    Upgrade,
    /// The seed of its own randomness.
    Seed,
    /// Whether a newcomer is a witness.
    Part,
}

/// One run.
#[derive(Debug)]
pub(super) struct World {
    pub(super) conditions: Conditions,
    pub(super) knobs: Knobs,
    faults: Vec<Fault>,
    operations: Vec<Operation>,
    /// Voters at the beginning.
    pub(super) nodes_first: u64,
    /// How long the phase with faults lasts.
    duration: Time,
    pub(super) noise: u64,
    pub(super) schedule: Schedule<Event>,
    pub(super) nodes: Nodes,
    pub(super) network: Network,
    pub(super) checkers: Checkers,
    pub(super) random: Streams,
    /// Memory for what consensus wants done; empty between events.
    pub(super) effects: Effects,
    /// The membership that every node takes for the first.
    pub(super) first_membership: Membership,
    /// The last membership that was committed,
    pub(super) membership: Membership,
    /// and where it stands in the log.
    pub(super) membership_at: Position,
    /// The node that was elected last.
    pub(super) leader: Option<NodeId>,
    /// The one that was elected before it.
    pub(super) leader_before: Option<NodeId>,
    pub(super) operator: Operator,
    /// Lineages that ended with a forced start.
    pub(super) ended: Ended,
    pub(super) data: Data,
    pub(super) sessions: Sessions,
    pub(super) stream_clients: StreamClients,
    /// Set when the phase with faults is over.
    pub(super) recovery: Option<Recovery>,
    pub(super) statistics: Statistics,
    pub(super) marks: Marks,
    /// The last campaign that asked for votes.
    pub(super) campaigned: Option<(Term, NodeId)>,
    pub(super) measuring: Measuring,
    pub(super) trace: Trace,
    pub(super) told: Told,
    pub(super) journal: Journal,
}

impl World {
    pub(super) fn new(plan: &Plan, conditions: &Conditions, journal: Journal) -> World {
        let mut knobs = plan.knobs.clone();
        knobs.raft.planted = conditions.planted();
        let stream = |concern| Stream::new(plan.noise, concern);
        let members: BTreeMap<NodeId, Member> = (1..=plan.nodes)
            .map(|number| {
                let mut first = member(&format!("n{number}"), number, &knobs);
                // Fewer than half, so that disks can be spared.
                first.witness = number > plan.nodes - knobs.witnesses.min((plan.nodes - 1) / 2);
                (NodeId(number), first)
            })
            .collect();
        let membership = Membership::bootstrap(Lineage(u128::from(plan.seed)), members);
        World {
            conditions: *conditions,
            network: Network::new(plan.noise, &knobs),
            knobs,
            faults: plan.faults.clone(),
            operations: plan.operations.clone(),
            nodes_first: plan.nodes,
            duration: plan.duration,
            noise: plan.noise,
            schedule: Schedule::new(),
            nodes: Nodes::default(),
            checkers: Checkers::new(conditions.checks, plan.knobs.clock_skew),
            data: Data::new(stream(Concern::Data)),
            sessions: Sessions::new(stream(Concern::Sessions)),
            stream_clients: StreamClients::new(stream(Concern::Streams)),
            random: Streams {
                disk: stream(Concern::Disk),
                clients: stream(Concern::Clients),
                drivers: stream(Concern::Drivers),
            },
            effects: Effects::default(),
            first_membership: membership.clone(),
            membership,
            membership_at: Position::default(),
            leader: None,
            leader_before: None,
            operator: Operator::default(),
            ended: Ended::default(),
            recovery: None,
            statistics: Statistics::default(),
            marks: Marks::default(),
            campaigned: None,
            measuring: Measuring::default(),
            trace: Trace::default(),
            told: Told::default(),
            journal,
        }
    }

    /// What is drawn for one machine.
    pub(super) fn machine(&self, draws: Draws, id: NodeId) -> Stream {
        self.life_of_machine(draws, Run { node: id, life: 0 })
    }

    /// What is drawn for one life of a machine.
    pub(super) fn life_of_machine(&self, draws: Draws, run: Run) -> Stream {
        let key = (draws as u64) << 44 | run.node.0 << 20 | u64::from(run.life);
        Stream::keyed(self.noise, Concern::Machines, key)
    }

    /// Where the run is: nanoseconds, steps, and the hash over all of it.
    pub(super) fn moment(&self) -> (Time, u64, u64) {
        (self.schedule.now(), self.statistics.steps, self.trace.value())
    }

    /// Runs to the end, or to the end of the phase with faults when nothing is to recover.
    pub(super) fn run(&mut self, recovers: bool) -> Result<Outcome, Breach> {
        for number in 1..=self.nodes_first {
            let id = NodeId(number);
            let binary = self.some_binary(Draws::FirstBinary, id);
            let first = self.first_membership.members()[&id].clone();
            let first = Member {
                features: binary,
                ..first
            };
            self.create(id, &first);
            let delay = self.machine(Draws::FirstStart, id).around(5 * MICROSECOND);
            self.schedule.after(delay, Event::Start(id));
        }
        self.schedule.after(0, Event::Request);
        self.schedule.after(DUTIES_INTERVAL, Event::Duties);
        self.begin_data();
        self.begin_sessions();
        for (place, fault) in self.faults.iter().enumerate() {
            self.schedule.at(fault.at, Event::Fault(place));
        }
        for (place, operation) in self.operations.iter().enumerate() {
            self.schedule.at(operation.at, Event::Operation(place));
        }
        self.schedule.at(self.duration, Event::Recover);
        while !self.recovery.as_ref().is_some_and(|recovery| recovery.done) {
            let Some(event) = self.schedule.next() else {
                break;
            };
            if !recovers && matches!(event, Event::Recover) {
                break;
            }
            self.handle(event)?;
        }
        if recovers {
            self.check_end()?;
        }
        self.statistics.nanoseconds = self.schedule.now();
        self.statistics.commits = self.checkers.committed.last().0;
        self.statistics.acknowledged = self.checkers.clients.acknowledged;
        self.statistics.reads = self.checkers.clients.reads;
        Ok(Outcome {
            statistics: self.statistics.clone(),
            marks: self.marks,
            measurements: self.measuring.done.clone(),
            trace: self.trace.value(),
        })
    }

    fn handle(&mut self, event: Event) -> Verdict {
        if let Some(node) = event.node().and_then(|id| self.nodes.get_mut(id))
            && node.paused_until > self.schedule.now()
        {
            node.waiting.push(event);
            return Ok(());
        }
        self.trace.note(self.schedule.now());
        match event {
            Event::Deliver {
                from,
                to,
                number,
                message,
            } => self.deliver(from, to, number, *message),
            Event::Timer(run, due) => self.timer(run, due),
            Event::Drain(run) => self.drain_scheduled(run),
            Event::Sync(run) => self.synced(run),
            Event::FalseAcknowledgement(run, write) => self.input(
                run,
                Input::Persisted {
                    write,
                    result: Ok(()),
                },
            ),
            Event::Apply(run) => self.apply(run),
            Event::Flush(run) => self.flushed(run),
            Event::Fetched(run, fetch) => self.fetched(run, fetch),
            Event::Offered(offer) => self.offered(*offer),
            Event::Piece(transfer) => self.piece(*transfer),
            Event::Received {
                to,
                from,
                number,
                term,
                base,
            } => self.received(to, from, number, term, base),
            Event::Sent { from, to, complete } => self.sent(from, to, complete),
            Event::Link { run, peer, event } => self.input(run, Input::Link { peer, event }),
            Event::Start(id) => self.start(id),
            Event::Kill(run, down) => self.kill(run, down),
            Event::SwitchOff(id) => self.switch_off(id),
            Event::TooOld(run, needed) => self.upgrade(run, needed),
            Event::Resume(id) => {
                self.resume(id);
                Ok(())
            }
            Event::Request => self.request(),
            Event::Again(attempt) => self.ask_again(attempt),
            Event::Data(event) => self.data(event),
            Event::Operation(place) => {
                let operation = self.operations[place].clone();
                self.operate(&operation)
            }
            Event::Duties => self.duties(),
            Event::Fault(place) => {
                let fault = self.faults[place].kind.clone();
                self.fault(fault)
            }
            Event::Heal(cut) => {
                self.heal(&cut);
                Ok(())
            }
            Event::Flap { cut, period, left } => {
                self.flap(cut, period, left);
                Ok(())
            }
            Event::ComesBack(run) => self.comes_back(run),
            Event::Recover => self.recover(),
            Event::Poll => self.poll(),
        }
    }

    fn deliver(&mut self, from: NodeId, to: NodeId, number: u64, message: Message) -> Verdict {
        let now = self.schedule.now();
        if self.only_quorum_is_healed() && !self.network.is_open(from, to) {
            self.tell(|_| trace::Event::Lost {
                message: number,
                why: Loss::Cut,
            });
            return Ok(());
        }
        match self.nodes.get(to) {
            Some(node) if node.process.is_some() => {
                let run = node.run();
                self.tell(|_| trace::Event::Arrived { message: number });
                if self.conditions.checks
                    && let Some(live) = self.nodes.live(run)
                {
                    live.process.contact.hears(from, now);
                }
                self.input(run, Input::Receive { from, message })
            }
            _ => {
                self.tell(|_| trace::Event::Lost {
                    message: number,
                    why: Loss::Down,
                });
                Ok(())
            }
        }
    }

    fn timer(&mut self, run: Run, due: Time) -> Verdict {
        let now = self.schedule.now();
        let Some(live) = self.nodes.live(run) else {
            return Ok(());
        };
        if live.process.timer != Some(due) {
            return Ok(());
        }
        live.process.timer = None;
        match live.process.raft.deadline() {
            Some(deadline) if live.clock.when(deadline) <= now => {
                self.input(run, Input::Timeout)?;
                self.check_contact(run)
            }
            _ => {
                self.arm(run);
                Ok(())
            }
        }
    }

    /// Puts an input to a node, looks at the node, and carries out what it wants now or a moment later.
    pub(super) fn input(&mut self, run: Run, input: Input) -> Verdict {
        let now = self.schedule.now();
        self.sight_input(run, &input);
        let Some(live) = self.nodes.live(run) else {
            return Ok(());
        };
        let shown = live.clock.shows(now);
        let heard = answers_of(&input);
        live.process.raft.step(shown, input);
        self.statistics.steps += 1;
        let deadline = live.process.raft.deadline();
        demand(
            deadline.is_none_or(|deadline| deadline > shown),
            "every step leaves the next deadline in the future",
            || format!("{run} would be woken without end"),
        )?;
        self.observe(run, heard)?;
        if self.knobs.batching > 0 && self.random.drivers.chance(self.knobs.batching) {
            self.drain_later(run);
            self.arm(run);
            return Ok(());
        }
        self.drain(run)
    }

    fn drain_later(&mut self, run: Run) {
        let delay = self.random.drivers.around(self.knobs.batch_mean);
        if let Some(live) = self.nodes.live(run)
            && !std::mem::replace(&mut live.process.drain_scheduled, true)
        {
            self.schedule.after(delay, Event::Drain(run));
        }
    }

    fn drain_scheduled(&mut self, run: Run) -> Verdict {
        if let Some(live) = self.nodes.live(run) {
            live.process.drain_scheduled = false;
        }
        self.drain(run)
    }

    /// Sees to it that the node wakes up at its deadline.
    pub(super) fn arm(&mut self, run: Run) {
        let now = self.schedule.now();
        let Some(live) = self.nodes.live(run) else {
            return;
        };
        let Some(deadline) = live.process.raft.deadline() else {
            return;
        };
        let time = live.clock.when(deadline).max(now + MICROSECOND);
        if live.process.timer.is_none_or(|timer| time < timer) {
            live.process.timer = Some(time);
            self.schedule.at(time, Event::Timer(run, time));
        }
    }

    /// Checks what can be seen of a node after a step, in which it may have `heard` of a follower's log.
    fn observe(&mut self, run: Run, heard: Option<NodeId>) -> Verdict {
        self.tell_state(run);
        let now = self.schedule.now();
        let Some(live) = self.nodes.live(run) else {
            return Ok(());
        };
        let shown = live.clock.shows(now);
        let status = live.process.raft.status();
        let (committed_before, purged_before) =
            (live.process.progress.commit(), live.process.progress.base());
        let seen = live.process.progress.see(&status);
        let voters = live.process.voters.see(&status);
        self.trace
            .note(status.term.0 << 40 ^ status.commit.0 << 20 ^ status.last.index.0);
        if !self.conditions.checks {
            return Ok(());
        }
        seen?;
        voters?;
        let purged = status.base.position;
        if purged.index > purged_before && !live.witness {
            demand(
                live.store.reaches(purged),
                "nothing is purged before its effect is on disk",
                || {
                    format!(
                        "{run} purged up to {purged}, its state ends at {}",
                        live.store.applied
                    )
                },
            )?;
        }
        // What is held lasts for more than a step.
        if self.statistics.steps.is_multiple_of(8) {
            let others = status.membership.members().len();
            queues::bounded(
                &live.process.raft.load(),
                others,
                self.knobs.raft.append_bytes_max,
            )?;
        }
        let (term, commit) = (status.term, status.commit);
        // A leader that commits its own removal leads no more at the end of the step.
        let led = self.checkers.elections.leader_of(term) == Some(run);
        if status.role != Role::Leader {
            return if led && commit > committed_before {
                self.check_majority(run, commit)
            } else {
                Ok(())
            };
        }
        self.checkers.elections.leads(term, run)?;
        let later = self.checkers.elections.after(term).next();
        lease::none_after(later, run, shown, &status)?;
        let peer = status.peers.iter().find(|peer| Some(peer.id) == heard);
        let matched = peer.map(|peer| (peer.id, peer.matched));
        if commit > committed_before {
            self.check_majority(run, commit)?;
            self.sight_commit(run, committed_before, commit, term);
        }
        match matched {
            Some((peer, matched)) => self.check_matched(run, term, peer, matched),
            None => Ok(()),
        }
    }

    fn check_matched(&self, run: Run, term: Term, peer: NodeId, matched: Index) -> Verdict {
        match (self.nodes.get(run.node), self.nodes.get(peer)) {
            (Some(own), Some(node)) => {
                matching::agrees(term, &own.disk.written, peer, matched, &node.disk.durable)
            }
            _ => Ok(()),
        }
    }

    fn check_contact(&mut self, run: Run) -> Verdict {
        let (now, bound) = (self.schedule.now(), self.knobs.silence_endured());
        if !self.conditions.checks {
            return Ok(());
        }
        let Some(Live { process, .. }) = self.nodes.live(run) else {
            return Ok(());
        };
        let status = process.raft.status();
        match status.role {
            Role::Leader => process
                .contact
                .leads(now, bound, run, status.term, status.membership),
            _ => Ok(()),
        }
    }

    fn check_majority(&mut self, run: Run, commit: Index) -> Verdict {
        let Some(node) = self.nodes.get(run.node) else {
            return Ok(());
        };
        let Some(process) = &node.process else {
            return Ok(());
        };
        let Some(term) = node.disk.written.term_at(commit) else {
            return Err(Breach {
                checker: "committed entries are on the disks of a majority",
                seen: format!("{run} commits {commit}, which it has not written"),
            });
        };
        let own_term = process.raft.status().term;
        demand(
            term == own_term,
            "a leader commits by an entry of its own term",
            || {
                format!(
                    "{run} of term {own_term} commits {commit}, an entry of term {term} (Raft paper, figure 8)"
                )
            },
        )?;
        let position = Position { term, index: commit };
        let written = &node.disk.written;
        self.checkers
            .committed
            .decided(commit, |index| written.term_at(index))?;
        CommittedLog::on_a_majority(position, process.raft.status().membership, |id| {
            self.nodes.get(id).map(|node| &node.disk.durable)
        })
    }

    /// Ends the journal.
    pub(super) fn into_journal(self) -> Journal {
        self.journal
    }
}

/// Whose log the input tells a leader of.
fn answers_of(input: &Input) -> Option<NodeId> {
    match input {
        Input::Receive { from, message } => matches!(
            message.body,
            Body::AppendAccepted { .. } | Body::HeartbeatResponse { .. }
        )
        .then_some(*from),
        _ => None,
    }
}

/// A member record with addresses that nobody dials.
pub(super) fn member(name: &str, directory: u64, knobs: &Knobs) -> Member {
    Member {
        priority: knobs.priority(directory),
        ..Member::new(
            name,
            DirectoryId(u128::from(directory)),
            &format!("{name}:7000"),
            &format!("{name}:8080"),
        )
    }
}
