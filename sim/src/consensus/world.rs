//! One run: the nodes, what happens to them, and the loop over the events.

use std::collections::BTreeMap;

use quorate_core::raft::{
    Base, DirectoryId, Effects, FeatureLevel, Fetch, Input, Lineage, LinkEvent, Member, Membership, Message,
    NodeId, Role, Term, WriteId,
};

use super::checker::commit::CommittedLog;
use super::checker::{Breach, Checkers, Verdict, demand};
use super::network::{Cut, Network};
use super::node::{Nodes, Run};
use super::operator::Operator;
use super::plan::Plan;
use super::recovery::Recovery;
use super::rot::Rot;
use super::schedule::{MICROSECOND, SECOND, Schedule, Time};
use super::store::Snapshot;
use super::trace::Trace;
use super::workload::Attempt;
use super::{Options, Outcome, Statistics};
use crate::random::{Concern, PartsPerMillion, Stream};

/// Something that is going to happen.
#[derive(Debug)]
pub(super) enum Event {
    /// A message arrives.
    Deliver {
        from: NodeId,
        to: NodeId,
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
    /// The last byte of a snapshot leaves its sender.
    Transferred {
        from: Run,
        to: NodeId,
        term: Term,
        snapshot: Box<Snapshot>,
    },
    /// A snapshot is whole and durable at its receiver.
    Received {
        to: Run,
        from: NodeId,
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
    /// A removed node is switched off for good.
    SwitchOff(NodeId),
    /// The binary of a node has stopped since it is too old.
    TooOld(Run, FeatureLevel),
    /// A node that stood still moves again.
    Resume(NodeId),
    /// A client asks something.
    Request,
    /// A client asks again.
    Again(Attempt),
    /// An operator does something.
    Operation,
    /// Something breaks.
    Fault,
    /// A cut ends.
    Heal(Cut),
    /// Messages are lost at another rate.
    Loss(PartsPerMillion),
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
            Event::Timer(run, _)
            | Event::Drain(run)
            | Event::Sync(run)
            | Event::FalseAcknowledgement(run, _)
            | Event::Apply(run)
            | Event::Flush(run)
            | Event::Fetched(run, _)
            | Event::Transferred { from: run, .. }
            | Event::Received { to: run, .. }
            | Event::Sent { from: run, .. }
            | Event::Link { run, .. } => Some(run.node),
            _ => None,
        }
    }
}

/// Streams of chance, one a concern; the network has its own.
#[derive(Debug)]
pub(super) struct Streams {
    pub(super) disk: Stream,
    pub(super) faults: Stream,
    pub(super) clients: Stream,
    pub(super) operator: Stream,
    pub(super) node_seeds: Stream,
    pub(super) drivers: Stream,
    pub(super) clocks: Stream,
}

/// One run.
#[derive(Debug)]
pub(super) struct World {
    pub(super) options: Options,
    pub(super) plan: Plan,
    pub(super) schedule: Schedule<Event>,
    pub(super) nodes: Nodes,
    pub(super) network: Network,
    pub(super) checkers: Checkers,
    pub(super) random: Streams,
    /// Memory for what consensus wants done; empty between events.
    pub(super) effects: Effects,
    /// The membership that every node takes for the first.
    pub(super) first_membership: Membership,
    /// The last membership that was committed.
    pub(super) membership: Membership,
    /// The node that was elected last.
    pub(super) leader: Option<NodeId>,
    pub(super) operator: Operator,
    pub(super) rot: Rot,
    /// Set when the phase with faults is over.
    pub(super) recovery: Option<Recovery>,
    pub(super) statistics: Statistics,
    pub(super) trace: Trace,
}

impl World {
    pub(super) fn new(seed: u64, options: &Options) -> World {
        let mut plan = Plan::new(seed);
        plan.raft.planted = options.consensus;
        let stream = |concern| Stream::new(seed, concern);
        let members: BTreeMap<NodeId, Member> = (1..=options.nodes)
            .map(|number| (NodeId(number), member(&format!("n{number}"), number, &plan)))
            .collect();
        let membership = Membership::bootstrap(Lineage(u128::from(seed)), members);
        World {
            options: options.clone(),
            network: Network::new(stream(Concern::Network), &plan),
            plan,
            schedule: Schedule::new(),
            nodes: Nodes::default(),
            checkers: Checkers::default(),
            random: Streams {
                disk: stream(Concern::Disk),
                faults: stream(Concern::Faults),
                clients: stream(Concern::Clients),
                operator: stream(Concern::Operator),
                node_seeds: stream(Concern::NodeSeeds),
                drivers: stream(Concern::Drivers),
                clocks: stream(Concern::Clocks),
            },
            effects: Effects::default(),
            first_membership: membership.clone(),
            membership,
            leader: None,
            operator: Operator::default(),
            rot: Rot::new(seed),
            recovery: None,
            statistics: Statistics::default(),
            trace: Trace::default(),
        }
    }

    /// Where the run is: nanoseconds and steps.
    pub(super) fn moment(&self) -> (Time, u64) {
        (self.schedule.now(), self.statistics.steps)
    }

    /// Runs to the end.
    pub(super) fn run(&mut self) -> Result<Outcome, Breach> {
        self.log(|world| format!("{:?}", world.plan));
        for number in 1..=self.options.nodes {
            let id = NodeId(number);
            let binary = self.some_binary();
            self.create(id, binary);
            let delay = self.random.faults.around(5 * MICROSECOND);
            self.schedule.after(delay, Event::Start(id));
        }
        self.schedule.after(0, Event::Request);
        if self.plan.fault_mean.is_some() {
            self.schedule.after(SECOND / 2, Event::Fault);
        }
        if self.plan.operation_mean.is_some() {
            self.schedule.after(SECOND / 2, Event::Operation);
        }
        self.schedule.at(self.options.seconds * SECOND, Event::Recover);
        while !self.recovery.as_ref().is_some_and(|recovery| recovery.done) {
            let Some(event) = self.schedule.next() else {
                break;
            };
            self.handle(event)?;
        }
        self.check_end()?;
        self.statistics.nanoseconds = self.schedule.now();
        self.statistics.elections = self.checkers.elections.count();
        self.statistics.commits = self.checkers.committed.last().0;
        self.statistics.acknowledged = self.checkers.clients.acknowledged;
        self.statistics.reads = self.checkers.clients.reads;
        Ok(Outcome {
            statistics: self.statistics.clone(),
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
            Event::Deliver { from, to, message } => self.deliver(from, to, *message),
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
            Event::Transferred {
                from,
                to,
                term,
                snapshot,
            } => self.transferred(from, to, term, *snapshot),
            Event::Received { to, from, term, base } => self.received(to, from, term, *base),
            Event::Sent { from, to, complete } => self.sent(from, to, complete),
            Event::Link { run, peer, event } => self.input(run, Input::Link { peer, event }),
            Event::Start(id) => self.start(id),
            Event::SwitchOff(id) => self.switch_off(id),
            Event::TooOld(run, needed) => self.upgrade(run, needed),
            Event::Resume(id) => {
                self.resume(id);
                Ok(())
            }
            Event::Request => self.request(),
            Event::Again(attempt) => self.ask_again(attempt),
            Event::Operation => self.operate(),
            Event::Fault => self.fault(),
            Event::Heal(cut) => {
                self.heal(&cut);
                Ok(())
            }
            Event::Loss(loss) => {
                if self.recovery.is_none() {
                    self.network.set_loss(loss);
                }
                Ok(())
            }
            Event::Recover => self.recover(),
            Event::Poll => self.poll(),
        }
    }

    fn deliver(&mut self, from: NodeId, to: NodeId, message: Message) -> Verdict {
        match self.nodes.get(to) {
            Some(node) if node.process.is_some() => {
                let run = node.run();
                self.input(run, Input::Receive { from, message })
            }
            _ => Ok(()),
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
            Some(deadline) if live.clock.when(deadline) <= now => self.input(run, Input::Timeout),
            _ => {
                self.arm(run);
                Ok(())
            }
        }
    }

    /// Puts an input to a node, looks at the node, and carries out what it wants now or a moment later.
    pub(super) fn input(&mut self, run: Run, input: Input) -> Verdict {
        let now = self.schedule.now();
        let Some(live) = self.nodes.live(run) else {
            return Ok(());
        };
        let shown = live.clock.shows(now);
        live.process.raft.step(shown, input);
        self.statistics.steps += 1;
        let deadline = live.process.raft.deadline();
        demand(
            deadline.is_none_or(|deadline| deadline > shown),
            "every step leaves the next deadline in the future",
            || format!("{run} would be woken without end"),
        )?;
        self.observe(run)?;
        if self.plan.batching > 0 && self.random.drivers.chance(self.plan.batching) {
            self.drain_later(run);
            self.arm(run);
            return Ok(());
        }
        self.drain(run)
    }

    fn drain_later(&mut self, run: Run) {
        let delay = self.random.drivers.around(self.plan.batch_mean);
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

    /// Checks what can be seen of a node after a step.
    fn observe(&mut self, run: Run) -> Verdict {
        let Some(live) = self.nodes.live(run) else {
            return Ok(());
        };
        let status = live.process.raft.status();
        let committed_before = live.process.progress.commit();
        live.process.progress.see(&status)?;
        self.trace
            .note(status.term.0 << 40 ^ status.commit.0 << 20 ^ status.last.index.0);
        if status.role != Role::Leader {
            return Ok(());
        }
        let (term, commit) = (status.term, status.commit);
        self.checkers.elections.leads(term, run)?;
        if commit > committed_before {
            self.check_majority(run, commit)?;
        }
        Ok(())
    }

    fn check_majority(&self, run: Run, commit: quorate_core::raft::Index) -> Verdict {
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
        let position = quorate_core::raft::Position { term, index: commit };
        CommittedLog::on_a_majority(position, process.raft.status().membership, |id| {
            self.nodes.get(id).map(|node| &node.disk.durable)
        })
    }

    /// Prints what happens, when that is wanted.
    pub(super) fn log(&self, line: impl FnOnce(&World) -> String) {
        if self.options.verbose {
            let now = self.schedule.now();
            println!(
                "{:>4}.{:06} {}",
                now / SECOND,
                now % SECOND / MICROSECOND,
                line(self)
            );
        }
    }
}

/// A member record with addresses that nobody dials.
pub(super) fn member(name: &str, directory: u64, plan: &Plan) -> Member {
    Member {
        priority: plan.priority(directory),
        ..Member::new(
            name,
            DirectoryId(u128::from(directory)),
            &format!("{name}:7000"),
            &format!("{name}:8080"),
        )
    }
}
