//! The consensus lane: feeds inputs to the core and hands its effects to the other lanes.
//!
//! One round of the loop takes in everything that waits (messages, completions, requests), steps the core for each,
//! and then carries out the combined effects once: one write, one append a peer, for the whole round. That is where
//! batching comes from; nothing ever waits in order to be batched. The loop itself never touches a disk, and never
//! waits for another lane.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_core::Instant;
use quorate_core::duties::Retention;
use quorate_core::raft::{
    Apply, Committed, Effects, Input, LinkEvent, NodeId, Operation, Raft, SnapshotOp, Token,
};
use tokio::sync::{mpsc, oneshot, watch};

use super::aside::Aside;
use super::clients::{Clients, Forwardable, Pending};
use super::duties::StateDuties;
use super::inbox::{AdminOutcome, Completion, Request};
use super::lanes::Lanes;
use super::lanes::apply::{ApplyOrder, SharedState, Waiter};
use super::lanes::log::LogOrder;
use super::lanes::snapshot::SnapshotOrder;
use super::leases::{Asker, Confirmed};
use super::measure::Measured;
use super::peers::Peers;
use super::repair::Patience;
use super::view::View;
use crate::metrics::Metrics;
use crate::port::Ports;
use crate::storage::DataDirectory;
use crate::transport::{Event, Events, ForwardResult, Frame, Refusal, RefusalCode, RefusedBy, Transport};

/// Inputs taken in before their effects are carried out.
const ROUND_MAX: usize = 512;
/// How often the leader looks at its duties, and every node at connections that do not stand.
const DUTIES_INTERVAL: Duration = Duration::from_millis(100);

/// Everything the consensus lane holds.
pub(super) struct Consensus {
    pub(super) raft: Raft,
    pub(super) transport: Transport,
    pub(super) clients: Clients,
    pub(super) peers: Peers,
    pub(super) ports: Ports,
    pub(super) metrics: Arc<Metrics>,
    pub(super) lanes: Lanes,
    pub(super) measured: Measured,
    pub(super) state_duties: StateDuties,
    pub(super) confirmed: Confirmed,
    effects: Effects,
    duties_due: Instant,
    pub(super) patience: Patience,
    /// Whether this node was set aside.
    pub(super) aside: Aside,
    /// For work beside the lane, which reports here.
    pub(super) completions: mpsc::UnboundedSender<Completion>,
    /// Whether a change of the membership is under way that this node proposed by itself.
    pub(super) duty_pending: bool,
    /// Why the node must stop.
    failure: Option<String>,
    view: watch::Sender<View>,
    /// Claimed for as long as the node runs.
    _directory: DataDirectory,
}

/// What the lane works with.
pub(super) struct Surroundings {
    pub(super) transport: Transport,
    pub(super) ports: Ports,
    pub(super) metrics: Arc<Metrics>,
    pub(super) lanes: Lanes,
    /// Where work beside the lane reports.
    pub(super) completions: mpsc::UnboundedSender<Completion>,
    pub(super) state: SharedState,
    /// How long is kept what can be forgotten.
    pub(super) retention: Retention,
    /// How long a node may be silent before its sessions go to others.
    pub(super) session_grace: Duration,
    /// Where readers see what this node knows.
    pub(super) view: watch::Sender<View>,
    pub(super) directory: DataDirectory,
}

/// Where the lane's inputs come from.
pub(super) struct Inputs {
    pub(super) completions: mpsc::UnboundedReceiver<Completion>,
    pub(super) events: Events,
    pub(super) requests: mpsc::Receiver<Request>,
}

#[allow(clippy::large_enum_variant, reason = "there is one at a time")]
enum Taken {
    Completion(Completion),
    Event(Event),
    Request(Request),
    Time,
    /// Every sender of requests is gone.
    Closed,
}

impl Inputs {
    async fn next(&mut self, timer: crate::port::BoxFuture<'static, ()>) -> Taken {
        tokio::select! {
            biased;
            Some(completion) = self.completions.recv() => Taken::Completion(completion),
            Some(event) = self.events.next() => Taken::Event(event),
            request = self.requests.recv() => request.map_or(Taken::Closed, Taken::Request),
            () = timer => Taken::Time,
        }
    }

    fn waiting(&mut self) -> Option<Taken> {
        if let Ok(completion) = self.completions.try_recv() {
            return Some(Taken::Completion(completion));
        }
        if let Some(event) = self.events.try_next() {
            return Some(Taken::Event(event));
        }
        self.requests.try_recv().ok().map(Taken::Request)
    }
}

impl Consensus {
    pub(super) fn new(raft: Raft, clients: Clients, peers: Peers, surroundings: Surroundings) -> Consensus {
        let Surroundings {
            transport,
            ports,
            metrics,
            lanes,
            completions,
            state,
            retention,
            session_grace,
            view,
            directory,
        } = surroundings;
        let now = ports.clock.now();
        Consensus {
            raft,
            transport,
            clients,
            peers,
            ports,
            metrics,
            lanes,
            measured: Measured::default(),
            state_duties: StateDuties::new(state, retention, session_grace),
            confirmed: Confirmed::default(),
            effects: Effects::default(),
            duties_due: now,
            patience: Patience::default(),
            aside: Aside::default(),
            completions,
            duty_pending: false,
            failure: None,
            view,
            _directory: directory,
        }
    }

    pub(super) fn fail(&mut self, message: String) {
        self.failure.get_or_insert(message);
    }

    /// Shows readers what this node knows.
    pub(super) fn publish(&mut self) {
        let view = self.view();
        self.view.send_replace(view);
    }

    /// Runs until the node is told to stop.
    ///
    /// # Errors
    /// With the reason when the node cannot go on.
    pub(super) async fn run(mut self, mut inputs: Inputs) -> Result<(), String> {
        self.meet_members();
        loop {
            let timer = self.ports.clock.sleep_until(self.deadline());
            let mut next = Some(inputs.next(timer).await);
            let mut stop = false;
            for _ in 0..ROUND_MAX {
                let Some(taken) = next.take().or_else(|| inputs.waiting()) else {
                    break;
                };
                stop |= self.take_in(taken);
            }
            self.run_due();
            self.carry_out();
            self.settle_membership();
            if let Some(message) = self.failure.take() {
                self.transport.close("the node failed").await;
                return Err(message);
            }
            if stop {
                self.transport.close("the node stops").await;
                return Ok(());
            }
        }
    }

    fn deadline(&self) -> Instant {
        [self.raft.deadline(), self.clients.deadline()]
            .into_iter()
            .flatten()
            .fold(self.duties_due, Instant::min)
    }

    /// Handles one input; returns whether the node is to stop.
    fn take_in(&mut self, taken: Taken) -> bool {
        match taken {
            Taken::Completion(completion) => self.completed(completion),
            Taken::Event(event) => self.happened(event),
            Taken::Request(Request::Stop) | Taken::Closed => return true,
            Taken::Request(request) => self.requested(request),
            Taken::Time => {}
        }
        false
    }

    pub(super) fn step(&mut self, input: Input) {
        self.raft.step(self.ports.clock.now(), input);
    }

    /// Looks after everything in the next round.
    pub(super) fn duties_are_due(&mut self) {
        self.duties_due = self.ports.clock.now();
    }

    fn run_due(&mut self) {
        let now = self.ports.clock.now();
        if self.raft.deadline().is_some_and(|deadline| now >= deadline) {
            self.step(Input::Timeout);
        }
        self.clients.tick(now);
        if now >= self.duties_due {
            self.duties_due = now + DUTIES_INTERVAL;
            self.record_moves();
            self.promote_learners();
            self.look_after_state(now);
            self.look_after_peers();
            self.watch_repair(now);
            self.find_out_what_only_it_has();
            self.show_gauges();
            self.publish();
        }
    }

    fn completed(&mut self, completion: Completion) {
        match completion {
            Completion::Persisted { write, result } => self.step(Input::Persisted { write, result }),
            Completion::Fetched { fetch, result } => {
                if !self.counted(fetch, &result) {
                    self.step(Input::Fetched { fetch, result });
                }
            }
            Completion::Applied { index } => {
                self.step(Input::Applied { index });
                self.settle_leases();
            }
            Completion::Leases(events) => self.leases_changed(&events),
            Completion::Snapshot(event) => self.step(Input::Snapshot(event)),
            Completion::Forwarded { node, request, reply } => {
                self.answer_forward(node, request, ForwardResult::Reply(reply));
            }
            Completion::History {
                node,
                membership,
                log,
            } => self.history_told(node, &membership, &log),
            Completion::Failed { message } => self.fail(message),
        }
    }

    fn happened(&mut self, event: Event) {
        match event {
            Event::Frame { peer, frame } => self.frame(peer, frame),
            Event::Link { peer, event } => self.link(peer, event),
            Event::Ask { from, ask, answer } => self.asked(&from, ask, answer),
            Event::Bulk { peer, header, stream } => {
                self.lanes
                    .snapshot(SnapshotOrder::Receive { peer, header, stream });
            }
            Event::Stranger { hello } => self.peers.met_stranger(&hello),
            Event::Invited { .. } => self.disowned(),
            Event::Greeted { hello } => self.greeted(&hello),
            Event::Refused(Refusal {
                code: RefusalCode::Removed,
                by: RefusedBy::Them,
                message,
                ..
            }) => self.dismissed(message),
            Event::Refused(Refusal {
                code: RefusalCode::Identity,
                by: RefusedBy::Them,
                ..
            }) => self.disowned(),
            Event::Refused(_) => {}
        }
    }

    fn frame(&mut self, peer: NodeId, frame: Frame) {
        match frame {
            Frame::Raft(message) => {
                self.message_received(peer, &message.body);
                self.ports.observer.received(peer, &message);
                self.step(Input::Receive { from: peer, message });
            }
            Frame::Forward { request, command, .. } => {
                // A client that no longer waits takes its answer from the node that forwarded.
                self.write(command, Waiter::Forwarded { node: peer, request }, None);
            }
            Frame::ForwardAnswer { request, answer } => {
                self.clients.forward_answered(peer, request, answer);
            }
            Frame::Report(report) => self.reported(peer, report),
            Frame::Leases {
                request,
                renew,
                leases,
            } => {
                let asker = Asker::Node { node: peer, request };
                self.confirm_for_leases(leases, renew, asker);
            }
            Frame::LeasesAnswer { request, answer } => self.clients.leases_answered(peer, request, answer),
        }
    }

    fn link(&mut self, peer: NodeId, event: LinkEvent) {
        self.peers.link(peer, event);
        self.step(Input::Link { peer, event });
        match event {
            LinkEvent::Connected => {
                let report = self.peers.own_report().clone();
                let _ = self.transport.send(peer, &Frame::Report(report));
            }
            LinkEvent::Lost | LinkEvent::Refused => self.clients.peer_lost(peer),
        }
    }

    fn requested(&mut self, request: Request) {
        match request {
            Request::Write {
                command,
                deadline,
                forward,
                reply,
            } => {
                let forward = forward.then(|| Forwardable {
                    command: command.clone(),
                    deadline,
                });
                self.write(command, Waiter::Local(reply), forward);
            }
            Request::Read { mode, reply } => {
                let token = self.clients.expect(Pending::Read(reply));
                self.step(Input::Read { token, mode });
            }
            Request::Leases {
                leases,
                renew,
                deadline,
                reply,
            } => self.ask_of_leases(leases, renew, deadline, reply),
            Request::Remove { id, reply } => self.remove(id, reply),
            Request::StepDown { target, reply } => self.hand_over(target, reply),
            Request::Invite { invitation, reply } => self.invite(invitation, reply),
            Request::Stop => {}
        }
    }

    fn write(&mut self, command: Bytes, waiter: Waiter, forward: Option<Forwardable>) {
        let begun = self.ports.clock.now();
        let token = self.clients.expect(Pending::Write {
            waiter,
            forward,
            begun,
        });
        self.step(Input::Propose { token, command });
    }

    pub(super) fn administer(&mut self, pending: Pending, operation: Operation) {
        let token = self.clients.expect(pending);
        self.step(Input::Admin { token, operation });
    }

    fn hand_over(&mut self, target: Option<String>, reply: oneshot::Sender<AdminOutcome>) {
        let target = match target {
            None => None,
            Some(name) => match self.raft.status().membership.by_name(&name) {
                Some((id, _)) => Some(id),
                None => {
                    let _ = reply.send(AdminOutcome::Refused(format!("there is no node named {name}")));
                    return;
                }
            },
        };
        self.administer(Pending::Admin(reply), Operation::Transfer { target });
    }

    /// Hands everything that the core wants done to whoever does it, until it wants nothing more.
    fn carry_out(&mut self) {
        let mut effects = std::mem::take(&mut self.effects);
        loop {
            self.raft.drain(&mut effects);
            if effects.is_empty() {
                break;
            }
            self.ports.observer.stepped(&self.raft, &effects);
            self.hand_out(&mut effects);
        }
        self.effects = effects;
        self.show_progress();
    }

    fn hand_out(&mut self, effects: &mut Effects) {
        for (to, message) in effects.send.drain(..) {
            self.message_sent(to, &message.body);
            // What cannot be sent is lost, which consensus copes with.
            let _ = self.transport.send(to, &Frame::Raft(message));
        }
        for write in effects.write.drain(..) {
            self.lanes.log(LogOrder::Write(write));
        }
        for fetch in effects.fetch.drain(..) {
            self.lanes.fetch(fetch);
        }
        self.hand_to_apply(effects.apply.drain(..));
        for operation in effects.snapshot.drain(..) {
            match operation {
                SnapshotOp::Purge(base) => self.lanes.log(LogOrder::Purge(base)),
                SnapshotOp::Send { to, term } => {
                    let at_least = self.raft.status().base.position.index;
                    self.lanes.snapshot(SnapshotOrder::Send { to, term, at_least });
                }
            }
        }
        let changed = !effects.trace.is_empty();
        for event in effects.trace.drain(..) {
            self.traced(&event);
        }
        for (token, outcome) in effects.outcome.drain(..) {
            self.resolve(token, outcome);
        }
        if changed {
            self.publish();
        }
    }

    /// Whoever waits for the reply of a committed command.
    fn take_waiter(&mut self, token: Token) -> Option<Waiter> {
        match self.clients.take(token) {
            Some(Pending::Write { waiter, begun, .. }) => {
                self.metrics.commit.observe(self.ports.clock.now().since(begun));
                Some(waiter)
            }
            _ => None,
        }
    }

    fn hand_to_apply(&mut self, steps: impl Iterator<Item = Apply>) {
        let (mut batches, mut waiters) = (Vec::new(), Vec::new());
        for step in steps {
            match step {
                Apply::Committed(Committed { entries, tokens }) => {
                    let waiter = |(index, token)| self.take_waiter(token).map(|waiter| (index, waiter));
                    waiters.extend(tokens.into_iter().filter_map(waiter));
                    batches.push(entries);
                }
                Apply::Install(base) => {
                    if !batches.is_empty() {
                        let (batches, waiters) = (std::mem::take(&mut batches), std::mem::take(&mut waiters));
                        self.lanes.apply(ApplyOrder::Entries { batches, waiters });
                    }
                    self.lanes.apply(ApplyOrder::Install(base));
                }
            }
        }
        if !batches.is_empty() {
            self.lanes.apply(ApplyOrder::Entries { batches, waiters });
        }
    }
}
