//! Changes of keys: puts, removals and transactions, and what they mean for leases.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::keys::{Change, KeySpace};
use super::lease::LeaseTable;
use super::row::Row;
use super::space::Space;
use super::transaction::READ_BYTES_MAX;
use super::{
    Attach, BlockDone, Compare, DeleteRange, KeyValue, Malformed, Operand, Operation, Put, Query, Refusal,
    Relation, Response, Revision, Transaction,
};

/// One command at work on the keys.
pub(super) struct Writer<'a> {
    keys: &'a mut KeySpace,
    leases: &'a mut LeaseTable,
    change: Change,
    /// How many bytes of keys and values the answer may still have.
    room: usize,
}

impl<'a> Writer<'a> {
    pub(super) fn new(keys: &'a mut KeySpace, leases: &'a mut LeaseTable) -> Writer<'a> {
        let change = keys.begin();
        Writer {
            keys,
            leases,
            change,
            room: READ_BYTES_MAX,
        }
    }

    /// Ends the change; returns the revision after it, and what changed.
    pub(super) fn end(self) -> (Revision, Vec<Row>) {
        let rows = self.keys.end(self.change);
        (self.keys.revision(), rows)
    }

    /// Whether a put can be done; nothing that a transaction did before it matters.
    pub(super) fn check_put(&self, put: &Put) -> Result<(), Refusal> {
        if put.key.is_empty() {
            return Err(Malformed::EmptyKey.into());
        }
        let keeps = put.value.is_none() || put.lease == Attach::Keep;
        if keeps && self.keys.pair(Space::Keys, &put.key).is_none() {
            return Err(Refusal::NothingToKeep);
        }
        match put.lease {
            Attach::Lease(lease) if !self.leases.contains(lease) => Err(Refusal::NoSuchLease(lease)),
            _ => Ok(()),
        }
    }

    /// A put that was checked; returns what the key was, when that is asked for and there is room.
    pub(super) fn put(&mut self, put: Put) -> Option<KeyValue> {
        let Put {
            key,
            value,
            lease,
            previous: wanted,
        } = put;
        let lease_before = self.keys.pair(Space::Keys, &key).and_then(|pair| pair.lease);
        let kept = || self.keys.get(Space::Keys, &key).map(|pair| pair.value);
        let value = value.or_else(kept);
        let value = value.expect("a put that keeps the value was checked");
        let lease = match lease {
            Attach::Nothing => None,
            Attach::Keep => lease_before,
            Attach::Lease(lease) => Some(lease),
        };
        let previous = self.keys.put(&mut self.change, Space::Keys, &key, &value, lease);
        if lease != lease_before {
            if let Some(before) = lease_before {
                self.leases.detach(before, &key);
            }
            if let Some(lease) = lease {
                let attached = self.leases.attach(lease, &key);
                assert!(attached, "the lease of a put was checked");
            }
        }
        previous.filter(|pair| wanted && self.takes_room(pair))
    }

    /// Whether the answer still has room for a pair, which takes it. The last one may take more than there is.
    fn takes_room(&mut self, pair: &KeyValue) -> bool {
        let had_room = self.room > 0;
        self.room = self.room.saturating_sub(pair.key.len() + pair.value.len());
        had_room
    }

    /// Removes the keys of a range; returns how many there were, and what they were as far as that is asked for and
    /// there is room.
    pub(super) fn delete(&mut self, delete: &DeleteRange) -> (u64, Vec<KeyValue>) {
        let keys = self.keys.keys_in(Space::Keys, &delete.range);
        let mut previous = Vec::new();
        for key in &keys {
            let Some(before) = self.keys.delete(&mut self.change, Space::Keys, key) else {
                continue;
            };
            if let Some(lease) = before.lease {
                self.leases.detach(lease, key);
            }
            if delete.previous && self.takes_room(&before) {
                previous.push(before);
            }
        }
        (keys.len() as u64, previous)
    }

    /// Removes the keys of a lease that is gone; returns how many there were.
    pub(super) fn delete_keys(&mut self, keys: impl IntoIterator<Item = Bytes>) -> u64 {
        let deleted = keys
            .into_iter()
            .filter_map(|key| self.keys.delete(&mut self.change, Space::Keys, &key));
        deleted.count() as u64
    }

    /// Carries a transaction out, or nothing of it.
    pub(super) fn transact(&mut self, transaction: Transaction) -> Result<Vec<BlockDone>, Refusal> {
        transaction.check()?;
        let mut taken = BTreeMap::new();
        self.choose(&transaction, 0, &mut taken)?;
        let mut blocks: Vec<Option<(bool, Vec<Operation>)>> = (0..)
            .zip(transaction.blocks)
            .map(|(number, block)| {
                let succeeded = *taken.get(&number)?;
                let operations = if succeeded { block.then } else { block.otherwise };
                Some((succeeded, operations))
            })
            .collect();
        let mut done = vec![BlockDone::default(); blocks.len()];
        self.carry_out(&mut blocks, 0, &mut done);
        Ok(done)
    }

    /// Decides which way each block goes that is reached, and whether all that it does can be done.
    fn choose(
        &self,
        transaction: &Transaction,
        number: usize,
        taken: &mut BTreeMap<usize, bool>,
    ) -> Result<(), Refusal> {
        let block = &transaction.blocks[number];
        let succeeded = block.compare.iter().all(|compare| self.holds(compare));
        taken.insert(number, succeeded);
        let operations = if succeeded { &block.then } else { &block.otherwise };
        for operation in operations {
            match operation {
                Operation::Read(Query {
                    revision: Some(revision),
                    ..
                }) => self.keys.check_readable(*revision)?,
                Operation::Read(_) | Operation::Delete(_) => {}
                Operation::Put(put) => self.check_put(put)?,
                Operation::Nested(nested) => self.choose(transaction, usize::from(*nested), taken)?,
            }
        }
        Ok(())
    }

    fn carry_out(
        &mut self,
        blocks: &mut Vec<Option<(bool, Vec<Operation>)>>,
        number: usize,
        done: &mut Vec<BlockDone>,
    ) {
        let (succeeded, operations) = blocks[number].take().expect("a block is reached once");
        let mut responses = Vec::with_capacity(operations.len());
        for operation in operations {
            responses.push(match operation {
                Operation::Read(query) => self.read(&query),
                Operation::Put(put) => Response::Put {
                    previous: self.put(put),
                },
                Operation::Delete(delete) => {
                    let (deleted, previous) = self.delete(&delete);
                    Response::Deleted { deleted, previous }
                }
                Operation::Nested(nested) => {
                    self.carry_out(blocks, usize::from(nested), done);
                    Response::Nested(nested)
                }
            });
        }
        done[number] = BlockDone { succeeded, responses };
    }

    fn read(&mut self, query: &Query) -> Response {
        let limit = if self.room > 0 { query.limit } else { Some(0) };
        let query = Query {
            limit,
            ..query.clone()
        };
        let found = self
            .keys
            .read(Space::Keys, &query, self.room)
            .expect("the revision was checked");
        let bytes: usize = found
            .items
            .iter()
            .map(|pair| pair.key.len() + pair.value.len())
            .sum();
        self.room = self.room.saturating_sub(bytes);
        Response::Read(found)
    }

    fn holds(&self, compare: &Compare) -> bool {
        let mut found = self.keys.pairs_in(Space::Keys, &compare.range).peekable();
        if found.peek().is_none() {
            return !matches!(compare.with, Operand::Value(_)) && compare.holds_for(None);
        }
        found.all(|pair| compare.holds_for(Some(&pair)))
    }
}

impl Compare {
    /// Whether it holds for a key, or for one that does not exist.
    fn holds_for(&self, pair: Option<&KeyValue>) -> bool {
        let revision = |of: fn(&KeyValue) -> Revision| pair.map_or(Revision::ABSENT, of);
        let order = match &self.with {
            Operand::Version(version) => pair.map_or(0, |pair| pair.version).cmp(version),
            Operand::CreateRevision(with) => revision(|pair| pair.create_revision).cmp(with),
            Operand::ModRevision(with) => revision(|pair| pair.mod_revision).cmp(with),
            Operand::Value(value) => pair
                .map_or(&[][..], |pair| pair.value.as_ref())
                .cmp(value.as_ref()),
            Operand::Lease(lease) => pair.and_then(|pair| pair.lease).cmp(lease),
        };
        match self.relation {
            Relation::Equal => order.is_eq(),
            Relation::NotEqual => order.is_ne(),
            Relation::Greater => order.is_gt(),
            Relation::Less => order.is_lt(),
        }
    }
}
