//! Random commands and reads, drawn so that everything meets often.

use std::time::Duration;

use bytes::Bytes;
use quorate_core::raft::Term;
use quorate_core::state::{
    Attach, Block, Command, Compare, DeleteRange, Detail, KeyRange, LeaseId, Operand, Operation, Put, Query,
    Relation, RequestId, Revision, Sort, SortBy, Span, Transaction,
};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;

use super::lease_id;
use super::model::Model;

/// Draws commands in which everything meets often.
pub(super) struct Draws(pub(super) ChaCha8Rng);

impl Draws {
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0.next_u64() % limit
    }

    fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }

    fn key(&mut self) -> Bytes {
        let shortest = u64::from(!self.chance(30));
        let length = shortest + self.below(2);
        let key: Vec<u8> = (0..length)
            .map(|_| [0, b'a', 0xff][usize::try_from(self.below(3)).expect("small")])
            .collect();
        key.into()
    }

    fn value(&mut self) -> Bytes {
        let mut value = vec![0; usize::try_from(self.below(3)).expect("small")];
        value
            .iter_mut()
            .for_each(|byte| *byte = b'0' + u8::try_from(self.below(3)).expect("small"));
        value.into()
    }

    pub(super) fn range(&mut self) -> KeyRange {
        match self.below(5) {
            0 | 1 => KeyRange::only(self.key()),
            2 => KeyRange::prefix(self.key()),
            3 => KeyRange::between(self.key(), self.key()),
            _ => KeyRange::from(self.key()).after(self.key()),
        }
    }

    fn revision(&mut self, model: &Model) -> Revision {
        Revision(self.below(model.latest() + 3))
    }

    fn some_lease(&mut self) -> LeaseId {
        lease_id(1 + self.below(4))
    }

    fn put(&mut self) -> Put {
        let lease = match self.below(5) {
            0 => Attach::Keep,
            1 | 2 => Attach::Lease(self.some_lease()),
            _ => Attach::Nothing,
        };
        Put {
            key: self.key(),
            value: (!self.chance(6)).then(|| self.value()),
            lease,
            previous: self.chance(2),
        }
    }

    fn delete(&mut self) -> DeleteRange {
        DeleteRange {
            range: self.range(),
            previous: self.chance(2),
        }
    }

    fn span(&mut self, model: &Model) -> Span {
        Span {
            first: self.chance(4).then(|| self.revision(model)),
            last: self.chance(4).then(|| self.revision(model)),
        }
    }

    pub(super) fn query(&mut self, model: &Model) -> Query {
        let by = [
            SortBy::Key,
            SortBy::Version,
            SortBy::CreateRevision,
            SortBy::ModRevision,
            SortBy::Value,
        ][usize::try_from(self.below(5)).expect("small")];
        let descending = self.chance(2);
        Query {
            range: if self.chance(2) {
                KeyRange::all()
            } else {
                self.range()
            },
            revision: self.chance(2).then(|| self.revision(model)),
            modified: self.span(model),
            created: self.span(model),
            sort: self.chance(2).then_some(Sort { by, descending }),
            limit: self.chance(2).then(|| self.below(5)),
            detail: [Detail::All, Detail::WithoutValue, Detail::Nothing]
                [usize::try_from(self.below(3)).expect("small")],
            count: self.chance(2),
        }
    }

    fn compare(&mut self, model: &Model) -> Compare {
        let with = match self.below(5) {
            0 => Operand::Version(self.below(4)),
            1 => Operand::CreateRevision(self.revision(model)),
            2 => Operand::ModRevision(self.revision(model)),
            3 => Operand::Value(self.value()),
            _ => Operand::Lease(self.chance(2).then(|| self.some_lease())),
        };
        Compare {
            range: self.range(),
            relation: [
                Relation::Equal,
                Relation::NotEqual,
                Relation::Greater,
                Relation::Less,
            ][usize::try_from(self.below(4)).expect("small")],
            with,
        }
    }

    fn transaction(&mut self, model: &Model) -> Transaction {
        let mut blocks = vec![Block::default()];
        let mut next = 0;
        while next < blocks.len() {
            let compare = (0..self.below(3)).map(|_| self.compare(model)).collect();
            let sides = [self.below(4), self.below(4)].map(|count| {
                let operations: Vec<Operation> = (0..count)
                    .map(|_| match self.below(8) {
                        0 if blocks.len() < 4 => {
                            blocks.push(Block::default());
                            Operation::Nested(u16::try_from(blocks.len() - 1).expect("few"))
                        }
                        0..=2 => Operation::Read(self.query(model)),
                        3 | 4 => Operation::Delete(self.delete()),
                        _ => Operation::Put(self.put()),
                    })
                    .collect();
                operations
            });
            let [then, otherwise] = sides;
            blocks[next] = Block {
                compare,
                then,
                otherwise,
            };
            next += 1;
        }
        if self.chance(40) {
            blocks.swap_remove(0);
        }
        Transaction { blocks }
    }

    fn plain(&mut self, model: &Model) -> Command {
        match self.below(20) {
            0..=5 => Command::Put(self.put()),
            6..=8 => Command::Delete(self.delete()),
            9..=13 => Command::Transact(self.transaction(model)),
            14 => Command::Compact {
                revision: self.revision(model),
            },
            15 | 16 => Command::Grant {
                lease: (!self.chance(4)).then(|| self.some_lease()),
                ttl: Duration::from_secs(1 + self.below(5)),
            },
            17 => Command::Revoke {
                lease: self.some_lease(),
            },
            _ => Command::Expire {
                term: Term(u64::from(!self.chance(4))),
                leases: (0..self.below(3))
                    .map(|_| {
                        let lease = self.some_lease();
                        let granted = model.leases.get(&lease).copied();
                        (lease, granted.filter(|_| !self.chance(4)).unwrap_or_default())
                    })
                    .collect(),
            },
        }
    }

    pub(super) fn command(&mut self, model: &Model) -> Command {
        if !self.chance(5) {
            return self.plain(model);
        }
        let key = Bytes::from(format!("request {}", self.below(60)));
        let again = model.answers.get(&key).filter(|_| !self.chance(5));
        let command = again.map(|(command, _)| command.clone());
        Command::Once {
            command: command.unwrap_or_else(|| self.plain(model).encode()),
            request: RequestId::Key(key),
        }
    }
}
