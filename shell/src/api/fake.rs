//! A backend with the real state machine and nothing around it, which fails as it is told to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, RwLock, RwLockReadGuard};
use std::time::Duration;

use bytes::Bytes;
use quorate_api::{
    AddMember, ClusterHealth, ClusterStatus, Leadership, MemberChanged, Mode, NodeHealth, NodeName, NodeView,
    NodesAnswer, PeerStatus, Readiness, Role,
};
use quorate_core::raft::{DirectoryId, Lineage, Member, Membership, NodeId, Position, Term};
use quorate_core::state::{
    Command, Grant, Interest, Lease, LeaseId, Offset, Query, ReadError, RecordBatch, Reply, Revision, Row,
    RowChange, SectionName, SectionSummary, Session, SessionId, Setting, SettingKey, SettingVersion,
    StateMachine, StreamId, StreamView, record_key,
};
use quorate_core::{Instant, WallTime};
use tokio::sync::watch;

use super::backend::{
    Backend, BackendError, Placement, ReadOptions, ReadReply, SectionsRead, Sessions, StreamChanges,
    StreamEnd, StreamGroups, WantedSections, WriteOptions,
};
use crate::metrics::Metrics;
use crate::port::BoxFuture;
use crate::watch::{Hub, Watching, Woken};

pub(super) struct FakeBackend {
    store: Mutex<Store>,
    leader: watch::Sender<bool>,
    /// What is read, written and watched.
    state: Arc<RwLock<StateMachine>>,
    /// The records of streams.
    records: Mutex<BTreeMap<Vec<u8>, Bytes>>,
    stream_changes: watch::Sender<StreamChanges>,
    pub(super) hub: Arc<Hub>,
}

/// How many watchers there may be.
pub(super) const WATCHERS_MAX: usize = 4;

#[derive(Default)]
struct Store {
    /// Leases that were kept alive.
    kept_alive: BTreeSet<LeaseId>,
    /// What the next requests fail with.
    failures: Vec<BackendError>,
    /// Whether requests are answered at all.
    silent: bool,
    asked: u64,
}

impl FakeBackend {
    pub(super) fn new() -> FakeBackend {
        let state = Arc::new(RwLock::new(StateMachine::new()));
        let metrics = Arc::new(Metrics::new(&name("1"), true));
        FakeBackend {
            store: Mutex::default(),
            leader: watch::Sender::new(true),
            records: Mutex::default(),
            stream_changes: watch::Sender::default(),
            hub: Arc::new(Hub::new(Arc::clone(&state), WATCHERS_MAX, 1, metrics)),
            state,
        }
    }

    /// Applies a command, and tells those who watch.
    pub(super) fn apply(&self, command: &Command) -> Reply {
        let mut woken = Woken::default();
        let reply = {
            let mut state = self.state.write().expect("no test panics with the state");
            let position = Position {
                term: Term(1),
                index: state.applied().index.next(),
            };
            let applied = state.apply(position, &command.encode()).expect("a command");
            self.hub.follow(&state, &mut woken);
            self.store_records(applied.rows);
            applied.reply
        };
        woken.wake();
        self.stream_changes.send_modify(|changes| changes.applied += 1);
        reply
    }

    fn store_records(&self, rows: Vec<Row>) {
        let mut records = self.records.lock().expect("no test panics with the records");
        for row in rows.into_iter().filter(|row| Row::holds_records(&row.key)) {
            match row.change {
                RowChange::Written(value) => drop(records.insert(row.key, value)),
                RowChange::Gone => drop(records.remove(&row.key)),
                RowChange::RangeGone { last } => records.retain(|key, _| *key < row.key || *key > last),
            }
        }
    }

    /// Whoever follows streams is told that the node stops.
    pub(super) fn stop(&self) {
        self.stream_changes.send_modify(|changes| changes.stopping = true);
    }

    /// Whether a leader would have sessions moved.
    pub(super) fn wants_session_step(&self) -> bool {
        self.state().wants_session_step()
    }

    fn state(&self) -> RwLockReadGuard<'_, StateMachine> {
        self.state.read().expect("no test panics with the state")
    }

    pub(super) fn set_leader(&self, known: bool) {
        self.leader.send_replace(known);
    }

    pub(super) fn fail_next(&self, error: BackendError) {
        self.store().failures.push(error);
    }

    pub(super) fn set_silent(&self, silent: bool) {
        self.store().silent = silent;
    }

    /// Which leases were kept alive.
    pub(super) fn kept_alive(&self) -> Vec<u64> {
        self.store().kept_alive.iter().map(|lease| lease.get()).collect()
    }

    /// How many requests arrived.
    pub(super) fn asked(&self) -> u64 {
        self.store().asked
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store
            .lock()
            .expect("no test panics while it holds the store")
    }

    /// Answers with what `act` does to the store, unless told otherwise.
    fn answer<T: Send + 'static>(
        &self,
        needs_leader: bool,
        act: impl FnOnce(&mut Store) -> Result<T, BackendError> + Send,
    ) -> BoxFuture<'_, Result<T, BackendError>> {
        let mut store = self.store();
        store.asked += 1;
        if store.silent {
            return Box::pin(std::future::pending());
        }
        let result = if !store.failures.is_empty() {
            Err(store.failures.remove(0))
        } else if needs_leader && !*self.leader.borrow() {
            Err(BackendError::NoLeader)
        } else {
            act(&mut store)
        };
        Box::pin(std::future::ready(result))
    }
}

fn name(text: &str) -> NodeName {
    NodeName::new(text).expect("a name")
}

impl Backend for FakeBackend {
    fn write(&self, command: Command, options: WriteOptions) -> BoxFuture<'_, Result<Reply, BackendError>> {
        if !options.forward {
            self.fail_next(BackendError::NotLeader {
                leader: "10.0.0.2:9000".to_owned(),
            });
        }
        self.answer(true, |_| match self.apply(&command) {
            Reply::Refused(refusal) => Err(refusal.into()),
            reply => Ok(reply),
        })
    }

    fn read(
        &self,
        query: Query,
        bytes_max: usize,
        options: ReadOptions,
    ) -> BoxFuture<'_, Result<ReadReply, BackendError>> {
        let linearizable = options.consistency == quorate_api::Consistency::Linearizable;
        self.answer(linearizable, |_| {
            let state = self.state();
            let (revision, latest) = (options.min_revision, state.revision());
            if revision > latest {
                return Err(ReadError::Future { revision, latest }.into());
            }
            Ok(ReadReply {
                revision: latest,
                found: state.read(&query, bytes_max)?,
            })
        })
    }

    fn lease(&self, lease: LeaseId, _: ReadOptions) -> BoxFuture<'_, Result<Option<Lease>, BackendError>> {
        self.answer(true, |_| Ok(self.state().lease(lease)))
    }

    fn leases(
        &self,
        after: Option<LeaseId>,
        limit: usize,
        _: ReadOptions,
    ) -> BoxFuture<'_, Result<Vec<(LeaseId, Grant)>, BackendError>> {
        self.answer(true, |_| {
            Ok(self.state().leases_after(after).take(limit).collect())
        })
    }

    fn lease_times(
        &self,
        leases: Vec<LeaseId>,
        renew: bool,
        _: Instant,
    ) -> BoxFuture<'_, Result<Vec<Option<Duration>>, BackendError>> {
        self.answer(true, |store| {
            if renew {
                store.kept_alive.extend(&leases);
            }
            let state = self.state();
            let ttl = |lease: LeaseId| Some(state.lease(lease)?.grant.ttl);
            Ok(leases.into_iter().map(ttl).collect())
        })
    }

    fn sections(
        &self,
        _: ReadOptions,
    ) -> BoxFuture<'_, Result<(Revision, Vec<SectionSummary>), BackendError>> {
        self.answer(true, |_| {
            let state = self.state();
            Ok((state.revision(), state.sections().collect()))
        })
    }

    fn settings(
        &self,
        wanted: WantedSections,
        _: ReadOptions,
    ) -> BoxFuture<'_, Result<SectionsRead, BackendError>> {
        self.answer(true, |_| SectionsRead::read(&self.state(), &wanted))
    }

    fn setting(
        &self,
        section: SectionName,
        key: SettingKey,
        revision: Option<Revision>,
        _: ReadOptions,
    ) -> BoxFuture<'_, Result<Option<Setting>, BackendError>> {
        self.answer(true, |_| Ok(self.state().setting(&section, &key, revision)?))
    }

    fn setting_history(
        &self,
        section: SectionName,
        key: SettingKey,
        before: Option<Revision>,
        limit: usize,
        _: ReadOptions,
    ) -> BoxFuture<'_, Result<Vec<SettingVersion>, BackendError>> {
        self.answer(true, |_| {
            let state = self.state();
            Ok(state
                .setting_history(&section, &key, before)
                .take(limit)
                .collect())
        })
    }

    fn session(
        &self,
        session: SessionId,
        _: ReadOptions,
    ) -> BoxFuture<'_, Result<Option<Session>, BackendError>> {
        self.answer(true, |_| Ok(self.state().session(&session)))
    }

    fn sessions(
        &self,
        after: Option<SessionId>,
        owner: Option<NodeId>,
        limit: usize,
        bytes_max: usize,
        _: ReadOptions,
    ) -> BoxFuture<'_, Result<Sessions, BackendError>> {
        self.answer(true, |_| {
            Ok(Sessions::read(
                &self.state(),
                after.as_ref(),
                owner,
                limit,
                bytes_max,
            ))
        })
    }

    fn placement(&self, _: ReadOptions) -> BoxFuture<'_, Result<Placement, BackendError>> {
        self.answer(true, |_| Ok(Placement::read(&self.state())))
    }

    fn knows_hosts(&self) -> bool {
        self.store().asked += 1;
        self.state().session_nodes().next().is_some()
    }

    fn members(&self) -> Result<Membership, BackendError> {
        let member = |number: u64| {
            let directory = DirectoryId(u128::from(number));
            let (cluster, client) = (format!("10.0.0.{number}:9100"), format!("10.0.0.{number}:9000"));
            (
                NodeId(number),
                Member::new(number.to_string(), directory, &cluster, &client),
            )
        };
        let members = [1, 2, 3].map(member);
        Ok(Membership::bootstrap(Lineage(1), members.into()))
    }

    fn watch(&self, interest: Interest, from: Option<Revision>) -> Result<Watching, BackendError> {
        Ok(self.hub.watch(interest, from)?)
    }

    fn stream(&self, name: &str, _: ReadOptions) -> BoxFuture<'_, Result<Option<StreamView>, BackendError>> {
        let found = self.state().stream(name);
        self.answer(true, |_| Ok(found))
    }

    fn streams(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        _: ReadOptions,
    ) -> BoxFuture<'_, Result<Vec<StreamView>, BackendError>> {
        let found = self.state().streams(prefix, after).take(limit).collect();
        self.answer(true, |_| Ok(found))
    }

    fn stream_groups(
        &self,
        name: &str,
        _: ReadOptions,
    ) -> BoxFuture<'_, Result<Option<StreamGroups>, BackendError>> {
        let state = self.state();
        let found = state
            .stream(name)
            .map(|stream| (stream, state.stream_groups(name)));
        drop(state);
        self.answer(true, |_| Ok(found))
    }

    fn stream_offset_at(&self, name: &str, partition: u32, time: WallTime) -> Option<Offset> {
        self.state().stream_offset_at(name, partition, time)
    }

    fn records(
        &self,
        stream: StreamId,
        partition: u32,
        from: Offset,
        bytes_max: usize,
        _: Instant,
    ) -> BoxFuture<'_, Result<Vec<RecordBatch>, BackendError>> {
        let records = self.records.lock().expect("no test panics with the records");
        let last = record_key(stream, partition, Offset(u64::MAX));
        let mut bytes = 0;
        let batches = records
            .range(record_key(stream, partition, from)..=last)
            .take_while(|(_, value)| {
                let more = bytes < bytes_max;
                bytes += value.len();
                more
            })
            .filter_map(|(key, value)| RecordBatch::of_row(key, value).expect("a row"))
            .collect();
        Box::pin(std::future::ready(Ok(batches)))
    }

    fn stream_ends(&self, prefix: &str) -> Result<Vec<StreamEnd>, BackendError> {
        Ok(self.state().stream_ends(prefix).map(StreamEnd::from).collect())
    }

    fn stream_changes(&self) -> watch::Receiver<StreamChanges> {
        self.stream_changes.subscribe()
    }

    fn leader_known(&self) -> BoxFuture<'_, ()> {
        let mut leader = self.leader.subscribe();
        Box::pin(async move {
            let _ = leader.wait_for(|known| *known).await;
        })
    }

    fn status(&self) -> ClusterStatus {
        let leader = *self.leader.borrow();
        ClusterStatus {
            cluster: "quorate".to_owned(),
            node_id: name("1"),
            state: Role::Leader,
            role: Role::Leader,
            leader: leader.then(|| name("1")),
            term: 1,
            commit_index: 42,
            applied_index: 42,
            last_index: 42,
            health: ClusterHealth::Healthy,
            mode: Mode::ReadWrite,
            voters: 3,
            quorum: 2,
            feature_level: 1,
            repairing: false,
            wal_sync: true,
            version: "0".to_owned(),
            reason: None,
            only_here: None,
            peers: vec![PeerStatus {
                id: name("2"),
                state: Role::Follower,
                match_index: Some(42),
                address: "10.0.0.2:9100".to_owned(),
                connected: true,
                last_contact_ms: Some(3),
            }],
            nodes: self.nodes().nodes,
        }
    }

    fn nodes(&self) -> NodesAnswer {
        NodesAnswer {
            nodes: vec![NodeView {
                node_id: name("1"),
                api_address: "10.0.0.1:9000".to_owned(),
                raft_address: "10.0.0.1:9100".to_owned(),
                health: NodeHealth::Healthy,
                role: Role::Leader,
                cpu_percent: Some(12.5),
                memory_percent: None,
                active_sessions: 0,
                max_sessions: 0,
                available_capacity: 0,
                draining: false,
                load_score: None,
                last_heartbeat: None,
                joined_at: None,
                metadata: BTreeMap::new(),
            }],
            leader_id: Some(name("1")),
        }
    }

    fn readiness(&self) -> Readiness {
        let ready = *self.leader.borrow();
        let reasons = if ready {
            Vec::new()
        } else {
            vec!["no leader".to_owned()]
        };
        Readiness { ready, reasons }
    }

    fn add_member(
        &self,
        request: AddMember,
        _: Instant,
    ) -> BoxFuture<'_, Result<MemberChanged, BackendError>> {
        self.answer(true, |_| {
            Ok(MemberChanged {
                success: true,
                id: request.id,
                message: format!("{}:{} may join", request.host, request.port),
            })
        })
    }

    fn remove_member(
        &self,
        name: NodeName,
        _: Instant,
    ) -> BoxFuture<'_, Result<MemberChanged, BackendError>> {
        if name.as_str() == "9" {
            self.fail_next(BackendError::NoSuchMember(name.clone()));
        }
        self.answer(true, |_| {
            Ok(MemberChanged {
                success: true,
                id: name,
                message: "removed".to_owned(),
            })
        })
    }

    fn step_down(
        &self,
        target: Option<NodeName>,
        _: Instant,
    ) -> BoxFuture<'_, Result<Leadership, BackendError>> {
        self.answer(true, |_| {
            Ok(Leadership {
                success: true,
                previous_leader: Some(name("1")),
                leader: target.or(Some(name("2"))),
            })
        })
    }

    fn metrics_text(&self) -> String {
        "raft_term 1\n# EOF\n".to_owned()
    }
}
