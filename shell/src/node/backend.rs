//! The node as its client port sees it.
//!
//! Writes and linearizable reads go to the consensus lane; the state itself is read here, shared with the apply lane.
//! What the node knows of the cluster comes from the last published view, so that it can be asked while consensus is
//! stuck.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, TryLockError};
use std::time::Duration;

use quorate_api::{
    AddMember, ClusterStatus, Consistency, Leadership, MemberChanged, NodeName, NodeView, NodesAnswer,
    Readiness,
};
use quorate_core::raft::{Index, Membership, NodeId, ReadMode, Role};
use quorate_core::state::{
    Command, Grant, Interest, Lease, LeaseId, NodeLoad, Offset, Operation, Query, ReadError, RecordBatch,
    Reply, Revision, SectionName, SectionSummary, Session, SessionCommand, SessionId, Setting, SettingKey,
    SettingVersion, StateMachine, StreamCommand, StreamId, StreamView,
};
use quorate_core::{Instant, WallTime};
use tokio::sync::{mpsc, oneshot, watch};

use super::inbox::{AdminOutcome, LeaseOutcome, ReadOutcome, Request, WriteOutcome};
use super::lanes::apply::SharedState;
use super::lanes::records::RecordsOrder;
use super::show;
use super::view::View;
use crate::api::backend::{
    Backend, BackendError, Placement, ReadOptions, ReadReply, SectionsRead, Sessions, StreamChanges,
    StreamEnd, StreamGroups, WantedSections, WriteOptions,
};
use crate::config::Config;
use crate::metrics::Metrics;
use crate::planted::{Planted, PlantedBug};
use crate::port::{BoxFuture, Clock};
use crate::watch::{Hub, Watching};

/// The pause before a removal is asked for again that found something else under way.
const REMOVE_AGAIN: Duration = Duration::from_millis(20);
/// How long a step-down waits to name the next leader.
const NEXT_LEADER: Duration = Duration::from_secs(1);

/// What the client port holds of the node.
pub(super) struct NodeBackend {
    pub(super) config: Arc<Config>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) state: SharedState,
    pub(super) applied: watch::Receiver<Index>,
    pub(super) view: watch::Receiver<View>,
    /// What keys and values take, in bytes.
    pub(super) state_bytes: Arc<AtomicU64>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) watches: Arc<Hub>,
    /// Told by the apply lane, and when the node stops.
    pub(super) stream_changes: Arc<watch::Sender<StreamChanges>>,
    pub(super) record_reads: mpsc::Sender<RecordsOrder>,
    /// The mistake that the node makes.
    pub(super) planted: Planted,
}

impl NodeBackend {
    /// Hands a request to consensus; a full queue is answered at once.
    pub(super) fn request(&self, request: Request) -> Result<(), BackendError> {
        self.requests.try_send(request).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => BackendError::Busy,
            mpsc::error::TrySendError::Closed(_) => {
                BackendError::Unavailable("the node is stopping".to_owned())
            }
        })
    }

    /// Hands a request about data to consensus, unless the room that is left is kept for keep-alives and the control of
    /// the cluster.
    fn request_data(&self, request: Request) -> Result<(), BackendError> {
        if self.requests.capacity() <= super::REQUESTS_RESERVED {
            return Err(BackendError::Busy);
        }
        self.request(request)
    }

    /// Says at once that no leader will answer, when this node has lost the quorum.
    fn check_quorum(&self) -> Result<(), BackendError> {
        if self.view.borrow().read_only {
            Err(BackendError::QuorumLost)
        } else {
            Ok(())
        }
    }

    /// Waits for the answer to a request; `late` when none comes in time.
    pub(super) async fn answer<T>(
        &self,
        reply: oneshot::Receiver<T>,
        deadline: Instant,
        late: BackendError,
    ) -> Result<T, BackendError> {
        tokio::select! {
            biased;
            // A request that is dropped without an answer was under way when the node stopped.
            answer = reply => answer.map_err(|_| late),
            () = self.clock.sleep_until(deadline) => Err(late),
        }
    }

    async fn replicate(&self, command: Command, options: WriteOptions) -> Result<Reply, BackendError> {
        if self.planted.is(PlantedBug::LostForwardIsRepeated) {
            let first = self.replicate_once(command.clone(), options).await;
            if !matches!(first, Err(BackendError::UnknownOutcome)) {
                return first;
            }
        }
        self.replicate_once(command, options).await
    }

    async fn replicate_once(
        &self,
        mut command: Command,
        options: WriteOptions,
    ) -> Result<Reply, BackendError> {
        if self.planted.is(PlantedBug::FirstComparisonCounts)
            && let Command::Transact(transaction) = &mut command
        {
            transaction
                .blocks
                .iter_mut()
                .for_each(|block| block.compare.truncate(1));
        }
        self.membership()?;
        self.check_quorum()?;
        self.check_quota(&command)?;
        let command = command.encode();
        let (reply, answer) = oneshot::channel();
        let WriteOptions { deadline, forward } = options;
        self.request_data(Request::Write {
            command,
            deadline,
            forward,
            reply,
        })?;
        match self
            .answer(answer, deadline, BackendError::UnknownOutcome)
            .await?
        {
            WriteOutcome::Applied(reply) => match Reply::decode(&reply) {
                Ok(Reply::Refused(refusal)) => Err(refusal.into()),
                Ok(reply) => Ok(reply),
                Err(error) => Err(BackendError::Refused(error.to_string())),
            },
            WriteOutcome::NoLeader => Err(BackendError::NoLeader),
            WriteOutcome::NotLeader(leader) => Err(BackendError::NotLeader { leader }),
            WriteOutcome::Busy => Err(BackendError::Busy),
            WriteOutcome::Unknown => Err(BackendError::UnknownOutcome),
            WriteOutcome::Refused(reason) => Err(BackendError::Refused(reason)),
        }
    }

    /// Refuses what would add to a state that is as large as it may be. What this node knows of the size is behind by
    /// what is under way, which is bounded.
    fn check_quota(&self, command: &Command) -> Result<(), BackendError> {
        let limit = self.config.limits.state_bytes;
        if self.state_bytes.load(Ordering::Relaxed) >= limit && adds(command) {
            Err(BackendError::QuotaReached { limit })
        } else {
            Ok(())
        }
    }

    /// Asks the leader about leases, or to keep them alive.
    async fn ask_of_leases(
        &self,
        leases: Vec<LeaseId>,
        renew: bool,
        deadline: Instant,
    ) -> Result<Vec<Option<Duration>>, BackendError> {
        self.membership()?;
        self.check_quorum()?;
        let (reply, answer) = oneshot::channel();
        self.request(Request::Leases {
            leases,
            renew,
            deadline,
            reply,
        })?;
        match self.answer(answer, deadline, BackendError::TimedOut).await? {
            LeaseOutcome::Times(times) => Ok(times),
            LeaseOutcome::NoLeader => Err(BackendError::NoLeader),
            LeaseOutcome::Busy => Err(BackendError::Busy),
        }
    }

    /// Reads the state when it is as fresh as the reader wants.
    async fn read_state<T>(
        &self,
        options: ReadOptions,
        read: impl FnOnce(&StateMachine) -> T,
    ) -> Result<T, BackendError> {
        self.membership()?;
        if options.consistency != Consistency::Serializable {
            self.check_quorum()?;
        }
        if self.config.witness {
            return Err(self.refuse_read(options.consistency));
        }
        let mode = match options.consistency {
            Consistency::Linearizable if self.planted.is(PlantedBug::ReadWithoutIndex) => None,
            Consistency::Linearizable => Some(ReadMode::ReadIndex),
            Consistency::Lease if self.leads_by_itself() => None,
            Consistency::Lease => Some(ReadMode::Lease),
            Consistency::Serializable => None,
        };
        if let Some(mode) = mode {
            let (reply, answer) = oneshot::channel();
            self.request_data(Request::Read { mode, reply })?;
            let index = match self
                .answer(answer, options.deadline, BackendError::TimedOut)
                .await?
            {
                ReadOutcome::Ready(index) => index,
                ReadOutcome::NoLeader => return Err(BackendError::NoLeader),
                ReadOutcome::Busy => return Err(BackendError::Busy),
            };
            let mut applied = self.applied.clone();
            let at_once = self.planted.is(PlantedBug::ReadBeforeApplied);
            tokio::select! {
                biased;
                reached = applied.wait_for(|applied| *applied >= index || at_once) => {
                    reached.map_err(|_| BackendError::Unavailable("the node is stopping".to_owned()))?;
                }
                () = self.clock.sleep_until(options.deadline) => return Err(BackendError::TimedOut),
            }
        }
        self.read_from(options, read).await
    }

    /// Whether this node last saw itself lead and lets a lease be: a mistake that can be planted.
    fn leads_by_itself(&self) -> bool {
        self.planted.is(PlantedBug::LeaseIsNotChecked) && self.view.borrow().role == Role::Leader
    }

    /// Reads the state once it has come to the revision that the reader wants to see. After a read that is linearizable a
    /// later revision is one that nobody has made yet.
    async fn read_from<T>(
        &self,
        options: ReadOptions,
        read: impl FnOnce(&StateMachine) -> T,
    ) -> Result<T, BackendError> {
        let mut wanted = options.min_revision;
        if self.planted.is(PlantedBug::MinRevisionIsIgnored) {
            wanted = Revision(0);
        }
        let mut applied = self.applied.clone();
        loop {
            applied.borrow_and_update();
            let reached = {
                let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
                if state.revision() >= wanted {
                    return Ok(read(&state));
                }
                state.revision()
            };
            if options.consistency != Consistency::Serializable {
                let (revision, latest) = (wanted, reached);
                return Err(ReadError::Future { revision, latest }.into());
            }
            tokio::select! {
                biased;
                changed = applied.changed() => {
                    changed.map_err(|_| BackendError::Unavailable("the node is stopping".to_owned()))?;
                }
                () = self.clock.sleep_until(options.deadline) => {
                    return Err(BackendError::Behind { wanted, reached });
                }
            }
        }
    }

    /// A witness names the leader to a reader, or says that it cannot serve one that wants what this node holds.
    fn refuse_read(&self, consistency: Consistency) -> BackendError {
        if consistency == Consistency::Serializable {
            return BackendError::Witness;
        }
        let view = self.view.borrow();
        let members = view.membership.as_ref().map(Membership::members);
        let leader = view.leader.and_then(|leader| members?.get(&leader));
        leader.map_or(BackendError::NoLeader, |leader| BackendError::NotLeader {
            leader: leader.client_address.clone(),
        })
    }

    async fn administer(
        &self,
        request: Request,
        answer: oneshot::Receiver<AdminOutcome>,
        deadline: Instant,
    ) -> Result<(), BackendError> {
        self.check_quorum()?;
        self.request(request)?;
        let outcome = self
            .answer(answer, deadline, BackendError::UnknownOutcome)
            .await?;
        administered(outcome)
    }

    /// Lets a member go; asks again while something else is under way.
    async fn remove(&self, id: NodeId, deadline: Instant) -> Result<(), BackendError> {
        loop {
            let (reply, answer) = oneshot::channel();
            self.request(Request::Remove { id, reply })?;
            let outcome = self
                .answer(answer, deadline, BackendError::UnknownOutcome)
                .await?;
            let again = self.clock.now() + REMOVE_AGAIN;
            if !matches!(outcome, AdminOutcome::Pending(_)) || again >= deadline {
                return administered(outcome);
            }
            self.clock.sleep_until(again).await;
        }
    }

    /// The membership that this node knows.
    ///
    /// # Errors
    /// When it belongs to no cluster, or was set aside.
    pub(super) fn membership(&self) -> Result<Membership, BackendError> {
        let view = self.view.borrow();
        if let Some(aside) = &view.aside {
            return Err(BackendError::Unavailable(aside.clone()));
        }
        view.membership.clone().ok_or(BackendError::NoCluster)
    }

    /// Shows what the state of this node says of sessions, unless it is being changed at the moment: whoever looks at the
    /// cluster never waits.
    fn show_sessions(&self, nodes: &mut [NodeView]) {
        let state = match self.state.try_read() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(state)) => state.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        let view = self.view.borrow();
        let Some(membership) = &view.membership else {
            return;
        };
        let loads: BTreeMap<NodeId, NodeLoad> = state.session_nodes().map(|load| (load.node, load)).collect();
        for node in nodes {
            let member = membership.by_name(node.node_id.as_str());
            if let Some(load) = member.and_then(|(id, _)| loads.get(&id)) {
                show::sessions(node, load);
            }
        }
    }

    fn shown(&self) -> show::Shown<'_> {
        show::Shown {
            config: &self.config,
            now: self.clock.wall(),
        }
    }
}

impl Backend for NodeBackend {
    fn write(&self, command: Command, options: WriteOptions) -> BoxFuture<'_, Result<Reply, BackendError>> {
        Box::pin(self.replicate(command, options))
    }

    fn read(
        &self,
        query: Query,
        bytes_max: usize,
        options: ReadOptions,
    ) -> BoxFuture<'_, Result<ReadReply, BackendError>> {
        Box::pin(async move {
            let read = |state: &StateMachine| {
                let found = state.read(&query, bytes_max)?;
                let revision = state.revision();
                Ok(ReadReply { revision, found })
            };
            self.read_state(options, read).await?
        })
    }

    fn lease(
        &self,
        lease: LeaseId,
        options: ReadOptions,
    ) -> BoxFuture<'_, Result<Option<Lease>, BackendError>> {
        Box::pin(self.read_state(options, move |state| state.lease(lease)))
    }

    fn leases(
        &self,
        after: Option<LeaseId>,
        limit: usize,
        options: ReadOptions,
    ) -> BoxFuture<'_, Result<Vec<(LeaseId, Grant)>, BackendError>> {
        let read = move |state: &StateMachine| state.leases_after(after).take(limit).collect();
        Box::pin(self.read_state(options, read))
    }

    fn lease_times(
        &self,
        leases: Vec<LeaseId>,
        renew: bool,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<Vec<Option<Duration>>, BackendError>> {
        Box::pin(self.ask_of_leases(leases, renew, deadline))
    }

    fn sections(
        &self,
        options: ReadOptions,
    ) -> BoxFuture<'_, Result<(Revision, Vec<SectionSummary>), BackendError>> {
        let read = |state: &StateMachine| (state.revision(), state.sections().collect());
        Box::pin(self.read_state(options, read))
    }

    fn settings(
        &self,
        wanted: WantedSections,
        options: ReadOptions,
    ) -> BoxFuture<'_, Result<SectionsRead, BackendError>> {
        let read = move |state: &StateMachine| SectionsRead::read(state, &wanted);
        Box::pin(async move { self.read_state(options, read).await? })
    }

    fn setting(
        &self,
        section: SectionName,
        key: SettingKey,
        revision: Option<Revision>,
        options: ReadOptions,
    ) -> BoxFuture<'_, Result<Option<Setting>, BackendError>> {
        let read = move |state: &StateMachine| state.setting(&section, &key, revision);
        Box::pin(async move { Ok(self.read_state(options, read).await??) })
    }

    fn setting_history(
        &self,
        section: SectionName,
        key: SettingKey,
        before: Option<Revision>,
        limit: usize,
        options: ReadOptions,
    ) -> BoxFuture<'_, Result<Vec<SettingVersion>, BackendError>> {
        let read = move |state: &StateMachine| {
            let history = state.setting_history(&section, &key, before);
            history.take(limit).collect()
        };
        Box::pin(self.read_state(options, read))
    }

    fn session(
        &self,
        session: SessionId,
        options: ReadOptions,
    ) -> BoxFuture<'_, Result<Option<Session>, BackendError>> {
        Box::pin(self.read_state(options, move |state| state.session(&session)))
    }

    fn sessions(
        &self,
        after: Option<SessionId>,
        owner: Option<NodeId>,
        limit: usize,
        bytes_max: usize,
        options: ReadOptions,
    ) -> BoxFuture<'_, Result<Sessions, BackendError>> {
        let read = move |state: &StateMachine| Sessions::read(state, after.as_ref(), owner, limit, bytes_max);
        Box::pin(self.read_state(options, read))
    }

    fn placement(&self, options: ReadOptions) -> BoxFuture<'_, Result<Placement, BackendError>> {
        Box::pin(self.read_state(options, Placement::read))
    }

    fn knows_hosts(&self) -> bool {
        if self.config.witness || self.membership().is_err() {
            return true;
        }
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.session_nodes().next().is_some()
    }

    fn members(&self) -> Result<Membership, BackendError> {
        self.membership()
    }

    fn watch(&self, interest: Interest, from: Option<Revision>) -> Result<Watching, BackendError> {
        self.membership()?;
        self.check_quorum()?;
        if self.config.witness {
            return Err(BackendError::Witness);
        }
        let from = if self.planted.is(PlantedBug::WatchGoesOnTooLate) {
            from.map(Revision::next)
        } else if self.planted.is(PlantedBug::WatchRepeatsLast) {
            from.map(|from| Revision(from.0.saturating_sub(1).max(1)))
        } else {
            from
        };
        Ok(self.watches.watch(interest, from)?)
    }

    fn stream(
        &self,
        name: &str,
        options: ReadOptions,
    ) -> BoxFuture<'_, Result<Option<StreamView>, BackendError>> {
        let name = name.to_owned();
        Box::pin(self.read_state(options, move |state| state.stream(&name)))
    }

    fn streams(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        options: ReadOptions,
    ) -> BoxFuture<'_, Result<Vec<StreamView>, BackendError>> {
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        let read = move |state: &StateMachine| state.streams(&prefix, after.as_deref()).take(limit).collect();
        Box::pin(self.read_state(options, read))
    }

    fn stream_groups(
        &self,
        name: &str,
        options: ReadOptions,
    ) -> BoxFuture<'_, Result<Option<StreamGroups>, BackendError>> {
        let name = name.to_owned();
        let read = move |state: &StateMachine| Some((state.stream(&name)?, state.stream_groups(&name)));
        Box::pin(self.read_state(options, read))
    }

    fn stream_offset_at(&self, name: &str, partition: u32, time: WallTime) -> Option<Offset> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.stream_offset_at(name, partition, time)
    }

    fn records(
        &self,
        stream: StreamId,
        partition: u32,
        from: Offset,
        bytes_max: usize,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<Vec<RecordBatch>, BackendError>> {
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            let order = RecordsOrder {
                stream,
                partition,
                from,
                bytes_max,
                reply,
            };
            self.record_reads.try_send(order).map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => BackendError::Busy,
                mpsc::error::TrySendError::Closed(_) => {
                    BackendError::Unavailable("the node is starting or stopping".to_owned())
                }
            })?;
            let found = self.answer(answer, deadline, BackendError::TimedOut).await?;
            found.map_err(|error| BackendError::Unavailable(error.to_string()))
        })
    }

    fn stream_ends(&self, prefix: &str) -> Result<Vec<StreamEnd>, BackendError> {
        self.membership()?;
        self.check_quorum()?;
        if self.config.witness {
            return Err(BackendError::Witness);
        }
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        Ok(state.stream_ends(prefix).map(StreamEnd::from).collect())
    }

    fn stream_changes(&self) -> watch::Receiver<StreamChanges> {
        self.stream_changes.subscribe()
    }

    fn leader_known(&self) -> BoxFuture<'_, ()> {
        let mut view = self.view.clone();
        Box::pin(async move {
            // When the view ends the node is stopping, and the next request says so.
            let _ = view
                .wait_for(|view| view.leader.is_some() || view.read_only)
                .await;
        })
    }

    fn status(&self) -> ClusterStatus {
        let mut status = self.shown().status(&self.view.borrow());
        self.show_sessions(&mut status.nodes);
        status
    }

    fn nodes(&self) -> NodesAnswer {
        let mut answer = self.shown().nodes(&self.view.borrow());
        self.show_sessions(&mut answer.nodes);
        answer
    }

    fn readiness(&self) -> Readiness {
        let view = self.view.borrow();
        let reasons: Vec<String> = view.waiting_for.iter().cloned().collect();
        Readiness {
            ready: reasons.is_empty(),
            reasons,
        }
    }

    fn add_member(
        &self,
        request: AddMember,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<MemberChanged, BackendError>> {
        Box::pin(self.take_in(request, deadline))
    }

    fn remove_member(
        &self,
        name: NodeName,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<MemberChanged, BackendError>> {
        Box::pin(async move {
            let found = self.membership()?.by_name(name.as_str()).map(|(id, _)| id);
            let Some(id) = found else {
                return Err(BackendError::NoSuchMember(name));
            };
            self.remove(id, deadline).await?;
            let message = "it is no member any more; stop it".to_owned();
            Ok(MemberChanged {
                success: true,
                id: name,
                message,
            })
        })
    }

    fn step_down(
        &self,
        target: Option<NodeName>,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<Leadership, BackendError>> {
        Box::pin(async move {
            self.membership()?;
            let leader = |view: &View| view.leader_name().and_then(|name| NodeName::new(name).ok());
            let previous_leader = leader(&self.view.borrow());
            let (reply, answer) = oneshot::channel();
            let leads_already = target.is_some() && target == previous_leader;
            let target = target.map(|name| name.as_str().to_owned());
            self.administer(Request::StepDown { target, reply }, answer, deadline)
                .await?;
            if leads_already {
                return Ok(Leadership {
                    success: true,
                    leader: previous_leader.clone(),
                    previous_leader,
                });
            }
            // The next leader is known a moment after this one has given up.
            let mut view = self.view.clone();
            let next = view.wait_for(|view| {
                leader(view).is_some_and(|leader| Some(&leader) != previous_leader.as_ref())
            });
            let until = (self.clock.now() + NEXT_LEADER).min(deadline);
            let leader = tokio::select! {
                biased;
                view = next => view.ok().and_then(|view| leader(&view)),
                () = self.clock.sleep_until(until) => None,
            };
            Ok(Leadership {
                success: true,
                previous_leader,
                leader,
            })
        })
    }

    fn metrics_text(&self) -> String {
        self.metrics.set_watchers_behind(self.watches.far_behind() as u64);
        let own = self.view.borrow().id;
        let sessions = {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            let mut loads = state.session_nodes();
            loads
                .find(|load| Some(load.node) == own)
                .map_or(0, |load| load.sessions)
        };
        self.metrics.set_sessions_active(sessions);
        self.metrics.encode()
    }
}

fn administered(outcome: AdminOutcome) -> Result<(), BackendError> {
    match outcome {
        AdminOutcome::Done => Ok(()),
        AdminOutcome::NotLeader(Some(leader)) => Err(BackendError::NotLeader { leader }),
        AdminOutcome::NotLeader(None) => Err(BackendError::NoLeader),
        AdminOutcome::Pending(reason) | AdminOutcome::Refused(reason) => Err(BackendError::Refused(reason)),
        AdminOutcome::Unknown => Err(BackendError::UnknownOutcome),
    }
}

/// Whether a command may add to what is kept. What is undecodable is for the state machine to judge.
fn adds(command: &Command) -> bool {
    match command {
        Command::Put(_) | Command::Grant { .. } => true,
        Command::Transact(transaction) => transaction.blocks.iter().any(|block| {
            let mut operations = block.then.iter().chain(&block.otherwise);
            operations.any(|operation| matches!(operation, Operation::Put(_)))
        }),
        Command::Session(command) => matches!(
            command,
            SessionCommand::Create { .. } | SessionCommand::Touch { payload: Some(_), .. }
        ),
        Command::Once { command, .. } => Command::decode(command).is_ok_and(|inner| adds(&inner)),
        Command::Delete(_)
        | Command::Compact { .. }
        | Command::Revoke { .. }
        | Command::Expire { .. }
        | Command::Register
        | Command::Forget { .. } => false,
        Command::Settings(command) => command.change.adds(),
        Command::Stream(command) => matches!(
            command,
            StreamCommand::Create { .. } | StreamCommand::Append(_) | StreamCommand::CreateGroup { .. }
        ),
    }
}
