//! Transactions: `POST /v1/txn`.
//!
//! In JSON a transaction is nested in another one; in the state it is a list of blocks that name each other.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, Uri};
use quorate_api::{
    ProblemCode, TxnAnswer, TxnCompare, TxnDeleted, TxnFound, TxnGet, TxnKeys, TxnOperand, TxnOperation,
    TxnPut, TxnPutDone, TxnRelation, TxnRequest, TxnResponse, TxnTaken,
};
use quorate_core::state::{
    Attach, Block, BlockDone, Command, Compare, DeleteRange, KeyRange, LeaseId, Malformed, OPERATIONS_MAX,
    Operand, Operation, Put, Query as StateQuery, READ_BYTES_MAX, Relation, Reply, Response as Done,
    Revision, Transaction,
};

use super::answer::{Failure, json};
use super::backend::{BackendError, Oversized};
use super::openapi::parameters::Carrying;
use super::openapi::problems::problems;
use super::query::Query;
use super::ranges::detail;
use super::requests::Change;
use super::{Shared, words};
use crate::config::Limits;

problems! {
    TransactProblems = WRITE BODY [MalformedTransaction, KeyTooLarge, ValueTooLarge, LeaseNotFound, Compacted, FutureRevision];
}

/// Compares, then does one thing or another, as one change.
///
/// Each part may be left out. Transactions nest.
#[utoipa::path(
    post, path = "/v1/txn", operation_id = "transact", tag = "transactions",
    params(
        Carrying,
    ),
    request_body(content = TxnRequest),
    responses(
        (status = 200, description = "What was done", body = TxnAnswer),
        TransactProblems,
    ),
)]
pub(super) async fn transact(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let query = Query::parse(uri.query(), &["redirect"])?;
    let change = Change::read(&query, &headers, &uri)?;
    let limit = shared.limits.transaction_bytes;
    let (body, _admitted) = shared.body(body, &headers, Oversized::Transaction, limit).await?;
    // A list of its fields would be taken for it, too.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(malformed("the body is no JSON object"));
    }
    let request: TxnRequest = serde_json::from_slice(&body).map_err(|error| malformed(error.to_string()))?;
    let transaction = Reader::read(request, shared.limits)?;
    transaction
        .check()
        .map_err(|reason| Failure::from(BackendError::Declined(reason.into())))?;
    let _answer = shared.admit(READ_BYTES_MAX)?;
    match shared.change(Command::Transact(transaction), change).await? {
        Reply::Transacted(done) => {
            let revision = done.revision.0;
            let TxnTaken { succeeded, responses } =
                taken(&mut done.blocks.into_iter().map(Some).collect(), 0);
            Ok(json(&TxnAnswer {
                revision,
                succeeded,
                responses,
            }))
        }
        _ => Err(Failure::unexpected_reply()),
    }
}

fn malformed(detail: impl Into<String>) -> Failure {
    Failure::new(
        ProblemCode::MalformedTransaction,
        detail,
        "nothing changed; expected {\"compare\": [..], \"then\": [..], \"else\": [..]}, each of which may be left out",
    )
}

/// Lays out a nested transaction as blocks.
struct Reader {
    limits: Limits,
    blocks: Vec<Block>,
}

impl Reader {
    fn read(request: TxnRequest, limits: Limits) -> Result<Transaction, Failure> {
        let mut reader = Reader {
            limits,
            blocks: Vec::new(),
        };
        reader.block(request, "")?;
        let blocks = reader.blocks;
        Ok(Transaction { blocks })
    }

    /// Adds a block and those nested in it; `place` is where it stands. The depth of the recursion is bounded by that of
    /// JSON.
    fn block(&mut self, request: TxnRequest, place: &str) -> Result<u16, Failure> {
        let number = self.blocks.len();
        if number >= OPERATIONS_MAX {
            return Err(BackendError::Declined(Malformed::TooManyOperations.into()).into());
        }
        self.blocks.push(Block::default());
        let block = Block {
            compare: request
                .compare
                .into_iter()
                .enumerate()
                .map(|(at, compare)| self.compare(compare, &format!("{place}compare[{at}]")))
                .collect::<Result<_, _>>()?,
            then: self.operations(request.then, &format!("{place}then"))?,
            otherwise: self.operations(request.otherwise, &format!("{place}else"))?,
        };
        self.blocks[number] = block;
        Ok(u16::try_from(number).expect("there are at most OPERATIONS_MAX blocks"))
    }

    fn operations(&mut self, operations: Vec<TxnOperation>, place: &str) -> Result<Vec<Operation>, Failure> {
        let mut read = Vec::with_capacity(operations.len());
        for (at, operation) in operations.into_iter().enumerate() {
            let place = format!("{place}[{at}]");
            read.push(match operation {
                TxnOperation::Get(get) => Operation::Read(self.get(get, &place)?),
                TxnOperation::Put(put) => Operation::Put(self.put(put, &place)?),
                TxnOperation::Delete(delete) => Operation::Delete(DeleteRange {
                    range: self.range(delete.keys, &place)?,
                    previous: delete.previous,
                }),
                TxnOperation::Txn(nested) => Operation::Nested(self.block(nested, &format!("{place}.txn."))?),
            });
        }
        Ok(read)
    }

    fn range(&self, keys: TxnKeys, place: &str) -> Result<KeyRange, Failure> {
        let longest = match &keys {
            TxnKeys::Key(key) if key.is_empty() => {
                return Err(malformed(format!("{place}: the key is empty")));
            }
            TxnKeys::Key(key) | TxnKeys::Prefix(key) | TxnKeys::Range(key, None) => key.len(),
            TxnKeys::Range(start, Some(end)) => start.len().max(end.len()),
        };
        self.check_size(longest, Oversized::Key, self.limits.key_bytes, place)?;
        Ok(match keys {
            TxnKeys::Key(key) => KeyRange::only(key),
            TxnKeys::Prefix(prefix) => KeyRange::prefix(prefix),
            TxnKeys::Range(start, Some(end)) => KeyRange::between(start, end),
            TxnKeys::Range(start, None) => KeyRange::from(start),
        })
    }

    fn check_size(&self, size: usize, what: Oversized, limit: usize, place: &str) -> Result<(), Failure> {
        if size <= limit {
            return Ok(());
        }
        let mut failure = Failure::too_large(what, limit);
        failure.problem.detail = format!("{place}: {}", failure.problem.detail);
        Err(failure)
    }

    fn compare(&self, compare: TxnCompare, place: &str) -> Result<Compare, Failure> {
        Ok(Compare {
            range: self.range(compare.keys, place)?,
            relation: match compare.relation {
                TxnRelation::Equal => Relation::Equal,
                TxnRelation::NotEqual => Relation::NotEqual,
                TxnRelation::Greater => Relation::Greater,
                TxnRelation::Less => Relation::Less,
            },
            with: match compare.with {
                TxnOperand::Version(version) => Operand::Version(version),
                TxnOperand::CreateRevision(revision) => Operand::CreateRevision(Revision(revision)),
                TxnOperand::ModRevision(revision) => Operand::ModRevision(Revision(revision)),
                TxnOperand::Value(value) => Operand::Value(value),
                TxnOperand::Lease(lease) => Operand::Lease(LeaseId::new(lease)),
            },
        })
    }

    fn get(&self, get: TxnGet, place: &str) -> Result<StateQuery, Failure> {
        Ok(StateQuery {
            revision: get.revision.map(Revision),
            sort: words::sort(get.sort, get.order),
            limit: get.limit,
            detail: detail(get.keys_only, get.count_only),
            ..StateQuery::new(self.range(get.keys, place)?)
        })
    }

    fn put(&self, put: TxnPut, place: &str) -> Result<Put, Failure> {
        if put.key.is_empty() {
            return Err(malformed(format!("{place}: the key is empty")));
        }
        self.check_size(put.key.len(), Oversized::Key, self.limits.key_bytes, place)?;
        self.check_size(put.value.len(), Oversized::Value, self.limits.value_bytes, place)?;
        let lease = match put.lease.map(LeaseId::new) {
            None => Attach::Nothing,
            Some(Some(lease)) => Attach::Lease(lease),
            Some(None) => {
                return Err(malformed(format!(
                    "{place}: no lease is called 0; leave it out for none"
                )));
            }
        };
        Ok(Put {
            key: put.key,
            value: Some(put.value),
            lease,
            previous: put.previous,
        })
    }
}

/// What the block of this number did, and those nested in it.
fn taken(blocks: &mut Vec<Option<BlockDone>>, number: usize) -> TxnTaken {
    let done = blocks.get_mut(number).and_then(Option::take).unwrap_or_default();
    let responses = done.responses.into_iter().map(|response| match response {
        Done::Read(found) => TxnResponse::Get(TxnFound {
            entries: found.items.into_iter().map(words::key_value).collect(),
            more: found.more,
            count: found.count,
        }),
        Done::Put { previous } => TxnResponse::Put(TxnPutDone {
            previous: previous.map(words::key_value),
        }),
        Done::Deleted { deleted, previous } => TxnResponse::Delete(TxnDeleted {
            deleted,
            previous: previous.into_iter().map(words::key_value).collect(),
        }),
        Done::Nested(nested) => TxnResponse::Txn(taken(blocks, usize::from(nested))),
    });
    TxnTaken {
        succeeded: done.succeeded,
        responses: responses.collect(),
    }
}
