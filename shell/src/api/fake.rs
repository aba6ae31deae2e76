//! A backend in memory, which fails as it is told to.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, RwLock};

use bytes::Bytes;
use quorate_api::{
    AddMember, ClusterHealth, ClusterStatus, KeyValue, Leadership, MemberChanged, Mode, NodeHealth, NodeName,
    NodeView, NodesAnswer, PeerStatus, Readiness, Role,
};
use quorate_core::Instant;
use quorate_core::raft::{Index, Position, Term};
use quorate_core::state::{Command, Interest, Revision, StateMachine};
use tokio::sync::watch;

use super::backend::{
    Backend, BackendError, GetReply, ListReply, Range, ReadOptions, Write, WriteOptions, WriteReply,
};
use crate::metrics::Metrics;
use crate::port::BoxFuture;
use crate::watch::{Hub, Watching, Woken};

pub(super) struct FakeBackend {
    store: Mutex<Store>,
    leader: watch::Sender<bool>,
    /// What is watched, apart from the keys that are read and written.
    watched: Arc<RwLock<StateMachine>>,
    pub(super) hub: Arc<Hub>,
}

/// How many watchers there may be.
pub(super) const WATCHERS_MAX: usize = 4;

#[derive(Default)]
struct Store {
    revision: u64,
    entries: BTreeMap<Vec<u8>, KeyValue>,
    /// What the next requests fail with.
    failures: Vec<BackendError>,
    /// Whether requests are answered at all.
    silent: bool,
    asked: u64,
}

impl FakeBackend {
    pub(super) fn new() -> FakeBackend {
        let watched = Arc::new(RwLock::new(StateMachine::new()));
        let metrics = Arc::new(Metrics::new(&name("1"), true));
        FakeBackend {
            store: Mutex::default(),
            leader: watch::Sender::new(true),
            hub: Arc::new(Hub::new(Arc::clone(&watched), WATCHERS_MAX, 1, metrics)),
            watched,
        }
    }

    /// Applies a command to what is watched.
    pub(super) fn apply(&self, command: &Command) {
        let mut woken = Woken::default();
        {
            let mut state = self.watched.write().expect("no test panics with the state");
            let position = Position {
                term: Term(1),
                index: Index(state.applied().index.0 + 1),
            };
            state.apply(position, &command.encode()).expect("a command");
            self.hub.follow(&state, &mut woken);
        }
        woken.wake();
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
        act: impl FnOnce(&mut Store) -> T + Send,
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
            Ok(act(&mut store))
        };
        Box::pin(std::future::ready(result))
    }
}

impl Store {
    fn write(&mut self, write: Write) -> WriteReply {
        let (key, expected) = match &write {
            Write::Put { key, expected, .. } | Write::Delete { key, expected } => (key.to_vec(), *expected),
        };
        let previous = self.entries.get(&key).cloned();
        let current = previous.as_ref().map_or(0, |entry| entry.mod_revision);
        if expected.is_some_and(|expected| expected != current) {
            return WriteReply::Conflict { current };
        }
        let mut deleted = 0;
        match write {
            Write::Put { value, .. } => {
                self.revision += 1;
                let entry = KeyValue {
                    key: key.clone().into(),
                    value,
                    create_revision: previous
                        .as_ref()
                        .map_or(self.revision, |entry| entry.create_revision),
                    mod_revision: self.revision,
                    version: previous.as_ref().map_or(1, |entry| entry.version + 1),
                };
                self.entries.insert(key, entry);
            }
            Write::Delete { .. } => {
                if self.entries.remove(&key).is_some() {
                    self.revision += 1;
                    deleted = 1;
                }
            }
        }
        WriteReply::Done {
            revision: self.revision,
            previous,
            deleted,
        }
    }

    fn list(&self, range: &Range) -> ListReply {
        let end = range
            .end
            .as_ref()
            .map_or(Bound::Unbounded, |end| Bound::Excluded(end.to_vec()));
        let mut found = self.entries.range((Bound::Included(range.start.to_vec()), end));
        let entries: Vec<KeyValue> = found
            .by_ref()
            .take(range.limit)
            .map(|(_, entry)| entry.clone())
            .collect();
        ListReply {
            revision: self.revision,
            entries,
            more: found.next().is_some(),
        }
    }
}

fn name(text: &str) -> NodeName {
    NodeName::new(text).expect("a name")
}

impl Backend for FakeBackend {
    fn write(&self, write: Write, options: WriteOptions) -> BoxFuture<'_, Result<WriteReply, BackendError>> {
        if !options.forward {
            self.fail_next(BackendError::NotLeader {
                leader: "10.0.0.2:9000".to_owned(),
            });
        }
        self.answer(true, |store| store.write(write))
    }

    fn get(&self, key: Bytes, options: ReadOptions) -> BoxFuture<'_, Result<GetReply, BackendError>> {
        let linearizable = options.consistency == quorate_api::Consistency::Linearizable;
        self.answer(linearizable, move |store| GetReply {
            revision: store.revision,
            entry: store.entries.get(&*key).cloned(),
        })
    }

    fn list(&self, range: Range, options: ReadOptions) -> BoxFuture<'_, Result<ListReply, BackendError>> {
        let linearizable = options.consistency == quorate_api::Consistency::Linearizable;
        self.answer(linearizable, move |store| store.list(&range))
    }

    fn watch(&self, interest: Interest, from: Option<Revision>) -> Result<Watching, BackendError> {
        Ok(self.hub.watch(interest, from)?)
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
        self.answer(true, |_| MemberChanged {
            success: true,
            id: request.id,
            message: format!("{}:{} may join", request.host, request.port),
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
        self.answer(true, |_| MemberChanged {
            success: true,
            id: name,
            message: "removed".to_owned(),
        })
    }

    fn step_down(
        &self,
        target: Option<NodeName>,
        _: Instant,
    ) -> BoxFuture<'_, Result<Leadership, BackendError>> {
        self.answer(true, |_| Leadership {
            success: true,
            previous_leader: Some(name("1")),
            leader: target.or(Some(name("2"))),
        })
    }

    fn metrics_text(&self) -> String {
        "raft_term 1\n# EOF\n".to_owned()
    }
}
