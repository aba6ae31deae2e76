//! Random commands give what a plain model gives, through restarts: every revision is kept whole, and every rule is
//! written as plainly as possible.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorate_core::raft::{Index, Term};
use quorate_core::state::{
    Attach, Block, BlockDone, Command, Compare, Detail, Event, Found, KeyRange, KeyValue, LeaseId, Operand,
    Operation, Query, ReadError, Refusal, Relation, Reply, RequestId, Response, Revision, SortBy, Space,
    Span, StateMachine, Transacted, Transaction,
};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::draws::Draws;
use super::{at, lease_id, merge, restored, stored_rows};

type Keys = BTreeMap<Vec<u8>, KeyValue>;

#[derive(Default)]
pub(super) struct Model {
    /// What the keys were at every revision.
    revisions: Vec<Keys>,
    compacted: u64,
    pub(super) leases: BTreeMap<LeaseId, Index>,
    pub(super) answers: BTreeMap<Bytes, (Bytes, Reply)>,
}

impl Model {
    pub(super) fn new() -> Model {
        Model {
            revisions: vec![Keys::new()],
            ..Model::default()
        }
    }

    pub(super) fn latest(&self) -> u64 {
        self.revisions.len() as u64 - 1
    }

    /// What became of keys at a revision, by key: the difference to the revision before.
    pub(super) fn changes(&self, revision: u64) -> Vec<Event> {
        let place = usize::try_from(revision).expect("few");
        let (before, after) = (&self.revisions[place - 1], &self.revisions[place]);
        let keys: BTreeSet<&Vec<u8>> = before.keys().chain(after.keys()).collect();
        keys.into_iter()
            .filter(|key| before.get(*key) != after.get(*key))
            .map(|key| Event {
                revision: Revision(revision),
                order: 0,
                space: Space::Keys,
                key: Bytes::copy_from_slice(key),
                current: after.get(key).cloned(),
                previous: before.get(key).cloned(),
            })
            .collect()
    }

    fn keys(&self) -> &Keys {
        self.revisions.last().expect("the beginning at least")
    }

    pub(super) fn apply(&mut self, index: u64, command: &Command) -> Reply {
        match command {
            Command::Once { request, command } => self.once(index, request, command),
            _ => self.carry_out(index, command).unwrap_or_else(Reply::Refused),
        }
    }

    fn once(&mut self, index: u64, request: &RequestId, command: &Bytes) -> Reply {
        let RequestId::Key(key) = request else {
            panic!("the model knows keys only");
        };
        match self.answers.get(key) {
            Some((same, reply)) if same == command => reply.clone(),
            Some(_) => Reply::Refused(Refusal::DifferentRequest),
            None => {
                let inner = Command::decode(command).expect("a command");
                let reply = self.carry_out(index, &inner).unwrap_or_else(Reply::Refused);
                self.answers.insert(key.clone(), (command.clone(), reply.clone()));
                reply
            }
        }
    }

    fn carry_out(&mut self, index: u64, command: &Command) -> Result<Reply, Refusal> {
        match command {
            Command::Put(put) => {
                let response = self.transact(&Transaction::new(
                    Vec::new(),
                    vec![Operation::Put(put.clone())],
                    Vec::new(),
                ))?;
                let Response::Put { previous } = response[0].responses[0].clone() else {
                    panic!("a put answers a put");
                };
                let revision = Revision(self.latest());
                Ok(Reply::Put { revision, previous })
            }
            Command::Delete(delete) => {
                let operation = Operation::Delete(delete.clone());
                let done = self.transact(&Transaction::new(Vec::new(), vec![operation], Vec::new()))?;
                let Response::Deleted { deleted, previous } = done[0].responses[0].clone() else {
                    panic!("a removal answers a removal");
                };
                let revision = Revision(self.latest());
                Ok(Reply::Deleted {
                    revision,
                    deleted,
                    previous,
                })
            }
            Command::Transact(transaction) => {
                let blocks = self.transact(transaction)?;
                let revision = Revision(self.latest());
                Ok(Reply::Transacted(Transacted { revision, blocks }))
            }
            Command::Compact { revision } => {
                if revision.0 <= self.compacted {
                    let oldest = Revision(self.compacted);
                    let revision = *revision;
                    return Err(ReadError::Compacted { revision, oldest }.into());
                }
                self.check_readable(*revision)?;
                self.compacted = revision.0;
                let revision = Revision(self.latest());
                Ok(Reply::Compacted { revision })
            }
            Command::Grant { lease, ttl } => {
                let lease = lease.unwrap_or_else(|| {
                    (index..)
                        .map(lease_id)
                        .find(|lease| !self.leases.contains_key(lease))
                        .expect("a free id")
                });
                if self.leases.contains_key(&lease) {
                    return Err(Refusal::LeaseExists(lease));
                }
                self.leases.insert(lease, Index(index));
                Ok(Reply::Granted { lease, ttl: *ttl })
            }
            Command::Revoke { lease } => {
                if !self.leases.contains_key(lease) {
                    return Err(Refusal::NoSuchLease(*lease));
                }
                Ok(self.revoke(&[*lease]))
            }
            Command::Expire { term, leases } => {
                if *term != Term(1) {
                    return Err(Refusal::StaleTerm);
                }
                let meant: Vec<LeaseId> = leases
                    .iter()
                    .filter(|(lease, granted)| self.leases.get(lease) == Some(granted))
                    .map(|(lease, _)| *lease)
                    .collect();
                Ok(self.revoke(&meant))
            }
            _ => panic!("the model does not know {command:?}"),
        }
    }

    fn revoke(&mut self, leases: &[LeaseId]) -> Reply {
        let mut keys = self.keys().clone();
        let count = leases
            .iter()
            .filter(|lease| self.leases.remove(lease).is_some())
            .count();
        keys.retain(|_, pair| !pair.lease.is_some_and(|lease| leases.contains(&lease)));
        let deleted = (self.keys().len() - keys.len()) as u64;
        if deleted > 0 {
            self.revisions.push(keys);
        }
        Reply::Revoked {
            revision: Revision(self.latest()),
            leases: count as u64,
            deleted,
        }
    }

    fn check_readable(&self, revision: Revision) -> Result<(), ReadError> {
        let (latest, oldest) = (Revision(self.latest()), Revision(self.compacted));
        if revision > latest {
            Err(ReadError::Future { revision, latest })
        } else if revision < oldest {
            Err(ReadError::Compacted { revision, oldest })
        } else {
            Ok(())
        }
    }

    fn read(&self, query: &Query, now: &Keys) -> Result<Found, ReadError> {
        let keys = match query.revision {
            Some(revision) => {
                self.check_readable(revision)?;
                &self.revisions[usize::try_from(revision.0).expect("few")]
            }
            None => now,
        };
        let inside = |span: Span, revision: Revision| {
            span.first.is_none_or(|first| first <= revision) && span.last.is_none_or(|last| revision <= last)
        };
        let all: Vec<&KeyValue> = keys
            .values()
            .filter(|pair| query.range.contains(&pair.key))
            .collect();
        if query.detail == Detail::Nothing {
            return Ok(Found {
                count: Some(all.len() as u64),
                ..Found::default()
            });
        }
        let mut items: Vec<KeyValue> = all
            .iter()
            .filter(|pair| inside(query.modified, pair.mod_revision))
            .filter(|pair| inside(query.created, pair.create_revision))
            .map(|pair| (*pair).clone())
            .collect();
        if let Some(sort) = query.sort {
            let weight = |pair: &KeyValue| match sort.by {
                SortBy::Key => (0, pair.key.clone()),
                SortBy::Version => (pair.version, Bytes::new()),
                SortBy::CreateRevision => (pair.create_revision.0, Bytes::new()),
                SortBy::ModRevision => (pair.mod_revision.0, Bytes::new()),
                SortBy::Value => (0, pair.value.clone()),
            };
            items.sort_by(|one, other| {
                let order = weight(one).cmp(&weight(other));
                let order = if sort.descending { order.reverse() } else { order };
                order.then(if sort.by == SortBy::Key {
                    std::cmp::Ordering::Equal
                } else {
                    one.key.cmp(&other.key)
                })
            });
        }
        let limit = query
            .limit
            .map_or(usize::MAX, |limit| usize::try_from(limit).expect("small"));
        let more = items.len() > limit;
        items.truncate(limit);
        if query.detail == Detail::WithoutValue {
            for item in &mut items {
                item.value = Bytes::new();
            }
        }
        let count = query.count.then_some(all.len() as u64);
        Ok(Found { items, more, count })
    }

    fn holds(&self, compare: &Compare) -> bool {
        let pairs: Vec<Option<&KeyValue>> = self
            .keys()
            .values()
            .filter(|pair| compare.range.contains(&pair.key))
            .map(Some)
            .collect();
        if pairs.is_empty() && matches!(compare.with, Operand::Value(_)) {
            return false;
        }
        let pairs = if pairs.is_empty() { vec![None] } else { pairs };
        pairs.into_iter().all(|pair| {
            let number = |of: &dyn Fn(&KeyValue) -> u64| pair.map_or(0, of);
            let order = match &compare.with {
                Operand::Version(with) => number(&|pair| pair.version).cmp(with),
                Operand::CreateRevision(with) => number(&|pair| pair.create_revision.0).cmp(&with.0),
                Operand::ModRevision(with) => number(&|pair| pair.mod_revision.0).cmp(&with.0),
                Operand::Value(with) => pair.expect("a key").value.cmp(with),
                Operand::Lease(with) => {
                    number(&|pair| pair.lease.map_or(0, LeaseId::get)).cmp(&with.map_or(0, LeaseId::get))
                }
            };
            match compare.relation {
                Relation::Equal => order.is_eq(),
                Relation::NotEqual => !order.is_eq(),
                Relation::Greater => order.is_gt(),
                Relation::Less => order.is_lt(),
            }
        })
    }

    /// The operations that are done, each with its block, in order; and which way the blocks go.
    fn path(
        &self,
        transaction: &Transaction,
        block: usize,
        path: &mut Vec<(usize, Operation)>,
        way: &mut BTreeMap<usize, bool>,
    ) {
        let Block {
            compare,
            then,
            otherwise,
        } = &transaction.blocks[block];
        let succeeded = compare.iter().all(|compare| self.holds(compare));
        way.insert(block, succeeded);
        for operation in if succeeded { then } else { otherwise } {
            path.push((block, operation.clone()));
            if let Operation::Nested(nested) = operation {
                self.path(transaction, usize::from(*nested), path, way);
            }
        }
    }

    fn transact(&mut self, transaction: &Transaction) -> Result<Vec<BlockDone>, Refusal> {
        transaction.check()?;
        let (mut path, mut way) = (Vec::new(), BTreeMap::new());
        self.path(transaction, 0, &mut path, &mut way);
        for (_, operation) in &path {
            match operation {
                Operation::Read(query) => query
                    .revision
                    .map_or(Ok(()), |revision| self.check_readable(revision))?,
                Operation::Put(put) => {
                    let keeps = put.value.is_none() || put.lease == Attach::Keep;
                    if keeps && !self.keys().contains_key(put.key.as_ref()) {
                        return Err(Refusal::NothingToKeep);
                    }
                    if let Attach::Lease(lease) = put.lease
                        && !self.leases.contains_key(&lease)
                    {
                        return Err(Refusal::NoSuchLease(lease));
                    }
                }
                _ => {}
            }
        }
        let mut keys = self.keys().clone();
        let revision = Revision(self.latest() + 1);
        let mut done = vec![BlockDone::default(); transaction.blocks.len()];
        for (block, succeeded) in way {
            done[block].succeeded = succeeded;
        }
        let mut changed = false;
        for (block, operation) in path {
            let response = match operation {
                Operation::Read(query) => Response::Read(self.read(&query, &keys).expect("checked")),
                Operation::Put(put) => {
                    changed = true;
                    let before = keys.get(put.key.as_ref()).cloned();
                    let lease = match put.lease {
                        Attach::Nothing => None,
                        Attach::Keep => before.as_ref().and_then(|pair| pair.lease),
                        Attach::Lease(lease) => Some(lease),
                    };
                    let value = put
                        .value
                        .unwrap_or_else(|| before.clone().expect("checked").value);
                    let pair = KeyValue {
                        key: put.key.clone(),
                        value,
                        create_revision: before.as_ref().map_or(revision, |pair| pair.create_revision),
                        mod_revision: revision,
                        version: before.as_ref().map_or(0, |pair| pair.version) + 1,
                        lease,
                    };
                    keys.insert(put.key.to_vec(), pair);
                    let previous = before.filter(|_| put.previous);
                    Response::Put { previous }
                }
                Operation::Delete(delete) => {
                    let gone: Vec<KeyValue> = keys
                        .values()
                        .filter(|pair| delete.range.contains(&pair.key))
                        .cloned()
                        .collect();
                    changed |= !gone.is_empty();
                    keys.retain(|key, _| !delete.range.contains(key));
                    Response::Deleted {
                        deleted: gone.len() as u64,
                        previous: if delete.previous { gone } else { Vec::new() },
                    }
                }
                Operation::Nested(nested) => Response::Nested(nested),
            };
            done[block].responses.push(response);
        }
        if changed {
            self.revisions.push(keys);
        }
        Ok(done)
    }
}

fn check(seed: u64, index: u64, state: &StateMachine, model: &Model, draws: &mut Draws) {
    assert_eq!(state.revision().0, model.latest());
    assert_eq!(state.compacted().0, model.compacted);
    assert_eq!(state.len(), model.keys().len());
    let leases: Vec<(LeaseId, Index)> = state
        .leases()
        .map(|(lease, grant)| (lease, grant.granted))
        .collect();
    assert_eq!(leases, model.leases.clone().into_iter().collect::<Vec<_>>());
    for (lease, _) in leases {
        let attached: BTreeSet<Bytes> = state
            .lease(lease)
            .expect("it is listed")
            .keys
            .into_iter()
            .collect();
        let named = model.keys().values().filter(|pair| pair.lease == Some(lease));
        assert_eq!(attached, named.map(|pair| pair.key.clone()).collect());
    }
    for revision in model.compacted..=model.latest() {
        let query = Query {
            revision: Some(Revision(revision)),
            ..Query::new(KeyRange::all())
        };
        let found = state.read(&query, usize::MAX).expect("a readable revision");
        let expected: Vec<KeyValue> = model.revisions[usize::try_from(revision).expect("few")]
            .values()
            .cloned()
            .collect();
        assert_eq!(
            found.items, expected,
            "seed {seed} index {index} revision {revision}"
        );
    }
    for _ in 0..4 {
        let query = draws.query(model);
        let expected = model.read(&query, model.keys());
        assert_eq!(
            state.read(&query, usize::MAX),
            expected,
            "seed {seed} index {index} {query:?}"
        );
    }
}

#[test]
fn random_commands_give_what_a_plain_model_gives_through_restarts() {
    let mut done = [0; 3];
    for seed in 0..80 {
        let mut draws = Draws(ChaCha8Rng::seed_from_u64(seed));
        let (mut model, mut state) = (Model::new(), StateMachine::new());
        let mut store = BTreeMap::new();
        for index in 1..=300 {
            match draws.below(20) {
                0 => {
                    state.apply_empty(at(index)).expect("the next index");
                    done[0] += 1;
                    continue;
                }
                1 => {
                    state = StateMachine::restore(store.clone().into_iter(), state.applied())
                        .expect("stored rows");
                }
                _ => {}
            }
            let before = state.fingerprint();
            let command = draws.command(&model);
            let applied = state
                .apply(at(index), &command.encode())
                .expect("a known command");
            let expected = model.apply(index, &command);
            assert_eq!(applied.reply, expected, "seed {seed} index {index} {command:?}");
            done[match expected {
                Reply::Refused(_) => 1,
                _ => 2,
            }] += 1;
            assert_ne!(
                state.fingerprint(),
                before,
                "every command shows in the fingerprint"
            );
            merge(&mut store, applied.rows);
            assert_eq!(
                store,
                stored_rows(&state),
                "written rows are the state: seed {seed} index {index}"
            );
            check(seed, index, &state, &model, &mut draws);
        }
    }
    assert!(done.iter().all(|count| *count > 1_000), "{done:?}");
}

#[test]
fn a_restored_state_goes_on_exactly_like_the_original() {
    let mut draws = Draws(ChaCha8Rng::seed_from_u64(7));
    let (mut original, mut model) = (StateMachine::new(), Model::new());
    for index in 1..=400 {
        let mut copy = restored(&original);
        assert_eq!(copy.fingerprint(), original.fingerprint());
        assert_eq!(copy.revision(), original.revision());
        assert_eq!(copy.applied(), original.applied());
        let command = draws.command(&model);
        model.apply(index, &command);
        let expected = original
            .apply(at(index), &command.encode())
            .expect("a known command");
        assert_eq!(copy.apply(at(index), &command.encode()), Ok(expected));
        assert_eq!(copy.fingerprint(), original.fingerprint());
    }
}
