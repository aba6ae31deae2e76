//! Transactions: compare, then do one thing or another, as one change with one revision.
//!
//! A transaction is a list of blocks. The first one is the transaction itself, the others are nested in it: an
//! operation names the block that it stands for. So a transaction has no recursive form, and reading one from untrusted
//! bytes takes bounded memory and depth.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Found, KeyRange, KeyValue, LeaseId, Malformed, Query, Revision};

/// How many comparisons and operations a transaction may have, over all its blocks.
pub const OPERATIONS_MAX: usize = 1024;
/// How deep blocks may be nested; 1 for a transaction without nested ones.
pub const DEPTH_MAX: usize = 8;

/// A transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction {
    /// The transaction itself, then the blocks nested in it, each after the one that names it.
    pub blocks: Vec<Block>,
}

/// Comparisons, and what to do when they hold and when not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// All of them must hold. They look at the state before the transaction, wherever the block stands.
    pub compare: Vec<Compare>,
    /// Done in order when all comparisons hold.
    pub then: Vec<Operation>,
    /// Done in order otherwise.
    pub otherwise: Vec<Operation>,
}

/// A comparison; it holds when it holds for every key of its range that exists. When none does, it is made with 0 as
/// versions and revisions and without a lease, and a comparison of the value fails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compare {
    /// The keys.
    pub range: KeyRange,
    /// How what is found must relate to what is given.
    pub relation: Relation,
    /// What is compared, and with what.
    pub with: Operand,
}

/// How two values must relate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Relation {
    /// They are equal.
    Equal,
    /// They are not equal.
    NotEqual,
    /// What is found is greater than what is given.
    Greater,
    /// What is found is less than what is given.
    Less,
}

/// What of a key is compared, and with what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operand {
    /// [`KeyValue::version`].
    Version(u64),
    /// [`KeyValue::create_revision`].
    CreateRevision(Revision),
    /// [`KeyValue::mod_revision`].
    ModRevision(Revision),
    /// The value, by its bytes.
    Value(Bytes),
    /// The lease; none is less than any.
    Lease(Option<LeaseId>),
}

/// One step of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// Reads; the latest revision includes what the transaction has done so far. An answer of more than
    /// [`READ_BYTES_MAX`] is cut, and says so.
    Read(Query),
    /// Gives a key a value.
    Put(Put),
    /// Removes keys.
    Delete(DeleteRange),
    /// Does the block of this number.
    Nested(u16),
}

/// How many bytes of keys and values the operations of a command answer together, and up to one pair more: further reads
/// find that there is more, and what keys were before is left out.
pub const READ_BYTES_MAX: usize = 1 << 20;

/// A key that gets a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Put {
    /// The key; not empty.
    pub key: Bytes,
    /// Its new value; none to keep the one that it has.
    pub value: Option<Bytes>,
    /// With which lease it goes.
    pub lease: Attach,
    /// Whether to answer what it was before.
    pub previous: bool,
}

/// With which lease a key goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Attach {
    /// With none.
    #[default]
    Nothing,
    /// With the one that it has.
    Keep,
    /// With this one.
    Lease(LeaseId),
}

/// Keys that are removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteRange {
    /// Which.
    pub range: KeyRange,
    /// Whether to answer what they were before.
    pub previous: bool,
}

/// What a transaction did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transacted {
    /// The revision after it: its own when it changed anything.
    pub revision: Revision,
    /// What each block did, in the order in which the blocks stand. Those that were not reached did nothing.
    pub blocks: Vec<BlockDone>,
}

/// What a block did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockDone {
    /// Whether its comparisons held.
    pub succeeded: bool,
    /// What its operations answer, in order.
    pub responses: Vec<Response>,
}

/// What an operation answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// What was read.
    Read(Found),
    /// The key has its value.
    Put {
        /// What it was before, when that was asked for and it existed.
        previous: Option<KeyValue>,
    },
    /// The keys are gone.
    Deleted {
        /// How many there were.
        deleted: u64,
        /// What they were, when that was asked for.
        previous: Vec<KeyValue>,
    },
    /// What the block of this number did is told there.
    Nested(u16),
}

impl Put {
    /// Gives `key` this value, with no lease.
    pub fn new(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Put {
        Put {
            key: key.into(),
            value: Some(value.into()),
            lease: Attach::Nothing,
            previous: false,
        }
    }
}

impl Compare {
    /// Holds when the last change of `key` was at `revision`; [`Revision::ABSENT`] when it does not exist.
    pub fn unchanged_since(key: impl Into<Bytes>, revision: Revision) -> Compare {
        Compare {
            range: KeyRange::only(key),
            relation: Relation::Equal,
            with: Operand::ModRevision(revision),
        }
    }
}

impl Transaction {
    /// A transaction of one block.
    pub fn new(compare: Vec<Compare>, then: Vec<Operation>, otherwise: Vec<Operation>) -> Transaction {
        let block = Block {
            compare,
            then,
            otherwise,
        };
        Transaction { blocks: vec![block] }
    }

    /// Does `operation` when the last change of `key` was at `expected`; reads the key otherwise.
    pub fn guarded(key: Bytes, expected: Revision, operation: Operation) -> Transaction {
        Transaction::new(
            vec![Compare::unchanged_since(key.clone(), expected)],
            vec![operation],
            vec![Operation::Read(Query::new(KeyRange::only(key)))],
        )
    }

    /// Whether the transaction makes sense: the limits are kept, every block but the first is named once, by an earlier
    /// one, and no key can be changed twice.
    ///
    /// # Errors
    /// With what is wrong.
    pub fn check(&self) -> Result<(), Malformed> {
        let size: usize = self.blocks.iter().map(Block::size).sum();
        if size > OPERATIONS_MAX {
            return Err(Malformed::TooManyOperations);
        }
        if self.blocks.is_empty() || self.blocks.len() > OPERATIONS_MAX {
            return Err(Malformed::Nesting);
        }
        self.check_nesting()?;
        self.writes(0).map(drop)
    }

    fn check_nesting(&self) -> Result<(), Malformed> {
        let mut depths = vec![0; self.blocks.len()];
        depths[0] = 1;
        for (number, block) in self.blocks.iter().enumerate() {
            if depths[number] == 0 {
                return Err(Malformed::Nesting);
            }
            for operation in block.then.iter().chain(&block.otherwise) {
                let Operation::Nested(nested) = operation else {
                    continue;
                };
                let nested = usize::from(*nested);
                if nested <= number || depths.get(nested).is_none_or(|depth| *depth != 0) {
                    return Err(Malformed::Nesting);
                }
                depths[nested] = depths[number] + 1;
                if depths[nested] > DEPTH_MAX {
                    return Err(Malformed::TooDeep);
                }
            }
        }
        Ok(())
    }

    /// What a block may change: what is done otherwise may touch the same keys as what is done then.
    fn writes(&self, number: usize) -> Result<Writes<'_>, Malformed> {
        let block = &self.blocks[number];
        let mut then = self.writes_of(&block.then)?;
        let otherwise = self.writes_of(&block.otherwise)?;
        then.puts.extend(otherwise.puts);
        then.deletes.extend(otherwise.deletes);
        Ok(then)
    }

    fn writes_of<'a>(&'a self, operations: &'a [Operation]) -> Result<Writes<'a>, Malformed> {
        let mut all = Writes::default();
        for operation in operations {
            let more = match operation {
                Operation::Read(_) => continue,
                Operation::Put(put) if put.key.is_empty() => return Err(Malformed::EmptyKey),
                Operation::Put(put) => Writes {
                    puts: BTreeSet::from([put.key.as_ref()]),
                    deletes: Vec::new(),
                },
                Operation::Delete(delete) => Writes {
                    puts: BTreeSet::new(),
                    deletes: vec![&delete.range],
                },
                Operation::Nested(nested) => self.writes(usize::from(*nested))?,
            };
            all.add(more)?;
        }
        Ok(all)
    }
}

impl Block {
    fn size(&self) -> usize {
        self.compare.len() + self.then.len() + self.otherwise.len()
    }
}

/// What operations change.
#[derive(Default)]
struct Writes<'a> {
    puts: BTreeSet<&'a [u8]>,
    deletes: Vec<&'a KeyRange>,
}

impl<'a> Writes<'a> {
    /// Adds what is done beside this. A key may be removed by several ranges: it is removed once.
    fn add(&mut self, more: Writes<'a>) -> Result<(), Malformed> {
        let twice = more
            .puts
            .iter()
            .any(|key| self.puts.contains(key) || self.deletes.iter().any(|range| range.contains(key)));
        let removed = more
            .deletes
            .iter()
            .any(|range| self.puts.iter().any(|key| range.contains(key)));
        if twice || removed {
            return Err(Malformed::ChangedTwice);
        }
        self.puts.extend(more.puts);
        self.deletes.extend(more.deletes);
        Ok(())
    }
}
