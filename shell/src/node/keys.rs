//! Keys as the client port knows them, in the words of the replicated state and back.

use quorate_core::state::{
    Command, DeleteRange, KeyRange, KeyValue, Operation, Put, Query, Reply, Response, Revision, StateMachine,
    Transacted, Transaction,
};

use crate::api::backend::{BackendError, ListReply, Range, Write, WriteReply};

/// The command for a write. One that expects a revision is a transaction that reads the key otherwise.
pub(super) fn command(write: Write) -> Command {
    let (key, expected, operation) = match write {
        Write::Put { key, value, expected } => {
            let put = Put {
                previous: true,
                ..Put::new(key.clone(), value)
            };
            (key, expected, Operation::Put(put))
        }
        Write::Delete { key, expected } => {
            let delete = DeleteRange {
                range: KeyRange::only(key.clone()),
                previous: true,
            };
            (key, expected, Operation::Delete(delete))
        }
    };
    match (expected, operation) {
        (Some(expected), operation) => {
            Command::Transact(Transaction::guarded(key, Revision(expected), operation))
        }
        (None, Operation::Put(put)) => Command::Put(put),
        (None, Operation::Delete(delete)) => Command::Delete(delete),
        (None, operation) => Command::Transact(Transaction::new(Vec::new(), vec![operation], Vec::new())),
    }
}

/// What the reply to such a command means.
pub(super) fn write_reply(reply: Reply) -> Result<WriteReply, BackendError> {
    let done = |revision: Revision, previous: Option<KeyValue>, deleted| WriteReply::Done {
        revision: revision.0,
        previous: previous.map(key_value),
        deleted,
    };
    match reply {
        Reply::Put { revision, previous } => Ok(done(revision, previous, 0)),
        Reply::Deleted {
            revision,
            deleted,
            previous,
        } => Ok(done(revision, previous.into_iter().next(), deleted)),
        Reply::Transacted(Transacted { revision, blocks }) => {
            let response = blocks
                .into_iter()
                .next()
                .and_then(|mut block| block.responses.pop());
            match response {
                Some(Response::Put { previous }) => Ok(done(revision, previous, 0)),
                Some(Response::Deleted { deleted, previous }) => {
                    Ok(done(revision, previous.into_iter().next(), deleted))
                }
                Some(Response::Read(found)) => Ok(WriteReply::Conflict {
                    current: found.items.first().map_or(0, |pair| pair.mod_revision.0),
                }),
                Some(Response::Nested(_)) | None => Err(unexpected()),
            }
        }
        Reply::Refused(refusal) => Err(BackendError::Refused(refusal.to_string())),
        _ => Err(unexpected()),
    }
}

fn unexpected() -> BackendError {
    BackendError::Refused("the reply is one to another command".to_owned())
}

pub(crate) fn key_value(key_value: KeyValue) -> quorate_api::KeyValue {
    quorate_api::KeyValue {
        key: key_value.key,
        value: key_value.value,
        create_revision: key_value.create_revision.0,
        mod_revision: key_value.mod_revision.0,
        version: key_value.version,
    }
}

/// As many entries as fit into both limits, but at least one.
pub(super) fn list(state: &StateMachine, range: Range) -> ListReply {
    let keys = match range.end {
        Some(end) => KeyRange::between(range.start, end),
        None => KeyRange::from(range.start),
    };
    let query = Query {
        limit: Some(range.limit as u64),
        ..Query::new(keys)
    };
    let found = state
        .read(&query, range.bytes_max)
        .expect("the latest revision can be read");
    ListReply {
        revision: state.revision().0,
        entries: found.items.into_iter().map(key_value).collect(),
        more: found.more,
    }
}
