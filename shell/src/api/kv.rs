//! Single keys: `PUT|GET|DELETE /v1/kv/{key}`.
//!
//! A key is what stands after `/v1/kv/`, percent-decoded: it may hold slashes and any other bytes. The body of a put
//! is the value as it is, whatever its content type.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use http::header::{ACCEPT, ETAG, IF_MATCH, IF_NONE_MATCH};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use percent_encoding::percent_decode_str;
use quorate_api::{DeleteAnswer, KeyValue, ProblemCode, PutAnswer, headers};
use quorate_core::state::{
    Attach, Command, DeleteRange, KeyRange, LeaseId, Operation, Put, Query as StateQuery, Reply,
    Response as Done, Revision, Transaction,
};

use super::answer::{Failure, json, with_type};
use super::backend::Oversized;
use super::openapi::parameters::{Carrying, Condition, Freshness};
use super::openapi::problems::problems;
use super::query::Query;
use super::requests::{Change, Read};
use super::{Shared, words};

pub(super) const PATH: &str = "/v1/kv/";

problems! {
    PutProblems = WRITE [RequestTimeout, KeyTooLarge, ValueTooLarge, KeyNotFound, LeaseNotFound, RevisionConflict, RevisionConflict with 412];
}

/// Writes a key.
///
/// The body is the value as it is, whatever its content type.
#[utoipa::path(
    put, path = "/v1/kv/{*key}", operation_id = "putKey", tag = "keys",
    params(
        ("key" = String, Path, description = "The key, percent-encoded: it may hold slashes and any other bytes"),
        Condition,
        ("lease" = Option<String>, Query, description = "The id of a lease with which the key goes, or `keep` for \
            the one that it has"),
        ("previous" = Option<bool>, Query, description = "Whether to answer what was there before"),
        Carrying,
    ),
    request_body(content = Vec<u8>, description = "The value", content_type = "application/octet-stream"),
    responses(
        (status = 200, description = "The key has its value", body = PutAnswer),
        PutProblems,
    ),
)]
pub(super) async fn put(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let query = Query::parse(uri.query(), &["revision", "redirect", "previous", "lease"])?;
    let change = Change::read(&query, &headers, &uri)?;
    let expected = Expected::read(&query, &headers)?;
    let put = Put {
        key: key_of(&shared, &uri)?,
        value: None,
        lease: attach(&query)?,
        previous: query.switch("previous")?,
    };
    let (value, _admitted) = shared
        .body(body, &headers, Oversized::Value, shared.limits.value_bytes)
        .await?;
    let value = Some(value);
    let key = put.key.clone();
    let (revision, done) = expected
        .send(&shared, change, key, Operation::Put(Put { value, ..put }))
        .await?;
    let previous = match done {
        Done::Put { previous } => previous.map(words::key_value),
        _ => None,
    };
    Ok(json(&PutAnswer { revision, previous }))
}

problems! {
    DeleteProblems = WRITE [KeyTooLarge, RevisionConflict, RevisionConflict with 412];
}

/// Deletes a key.
///
/// It is no error when there is no such key.
#[utoipa::path(
    delete, path = "/v1/kv/{*key}", operation_id = "deleteKey", tag = "keys",
    params(
        ("key" = String, Path, description = "The key, percent-encoded: it may hold slashes and any other bytes"),
        Condition,
        ("previous" = Option<bool>, Query, description = "Whether to answer what was there before"),
        Carrying,
    ),
    responses(
        (status = 200, description = "The key is gone", body = DeleteAnswer),
        DeleteProblems,
    ),
)]
pub(super) async fn delete(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let query = Query::parse(uri.query(), &["revision", "redirect", "previous"])?;
    let change = Change::read(&query, &headers, &uri)?;
    let expected = Expected::read(&query, &headers)?;
    let key = key_of(&shared, &uri)?;
    let _admitted = shared.admit(0)?;
    let delete = DeleteRange {
        range: KeyRange::only(key.clone()),
        previous: query.switch("previous")?,
    };
    let (revision, done) = expected
        .send(&shared, change, key, Operation::Delete(delete))
        .await?;
    let (deleted, previous) = match done {
        Done::Deleted { deleted, previous } => (deleted, previous.into_iter().next()),
        _ => (0, None),
    };
    Ok(json(&DeleteAnswer {
        revision,
        deleted,
        previous: previous.map(words::key_value),
    }))
}

problems! {
    GetProblems = READ [KeyTooLarge, KeyNotFound, Compacted, FutureRevision];
}

/// Reads a key.
///
/// The answer is the value as it is with its history in headers, or all of it as JSON for a request that accepts
/// `application/json`.
#[utoipa::path(
    get, path = "/v1/kv/{*key}", operation_id = "getKey", tag = "keys",
    params(
        ("key" = String, Path, description = "The key, percent-encoded: it may hold slashes and any other bytes"),
        Freshness,
        ("revision" = Option<u64>, Query, description = "As of which revision; the latest when it is left out"),
        ("Accept" = Option<String>, Header, description = "`application/json` for JSON"),
    ),
    responses(
        (
            status = 200, description = "The key",
            content((KeyValue = "application/json"), (Vec<u8> = "application/octet-stream")),
            headers(
                ("ETag" = String, description = "The revision that wrote the value, as an entity tag; of a raw value \
                    only"),
                ("Quorate-Revision" = u64, description = "The revision that wrote the value"),
                ("Quorate-Create-Revision" = u64, description = "The revision that created the key"),
                ("Quorate-Version" = u64, description = "How many times the key was written since it was created"),
                ("Quorate-Lease" = u64, description = "The lease with which the key goes, if any"),
            )
        ),
        GetProblems,
    ),
)]
pub(super) async fn get(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let query = Query::parse(uri.query(), &Read::PARAMETERS)?;
    let read = Read::of(&query, &uri)?;
    let key = key_of(&shared, &uri)?;
    let _admitted = shared.admit(0)?;
    let wanted = StateQuery {
        revision: read.revision,
        ..StateQuery::new(KeyRange::only(key.clone()))
    };
    let reply = shared.read(wanted, shared.limits.value_bytes, read).await?;
    let Some(entry) = reply.found.items.into_iter().next() else {
        let shown = String::from_utf8_lossy(&key).into_owned();
        let detail = match query.revision("revision")? {
            Some(revision) => format!("there was no key `{shown}` at revision {revision}"),
            None => format!("there is no key `{shown}`"),
        };
        return Err(Failure::new(
            ProblemCode::KeyNotFound,
            detail,
            "GET /v1/kv?prefix= lists keys",
        ));
    };
    let entry = words::key_value(entry);
    if wants_json(&headers) {
        Ok(json(&entry))
    } else {
        Ok(raw(entry))
    }
}

/// The parameter `lease`: an id, or `keep` for the one that the key has.
fn attach(query: &Query) -> Result<Attach, Failure> {
    if query.bytes("lease") == Some(b"keep") {
        return Ok(Attach::Keep);
    }
    let expected = "the id of a lease, or `keep` for the one that the key has";
    let Some(number) = query.value("lease", expected)? else {
        return Ok(Attach::Nothing);
    };
    let lease = LeaseId::new(number)
        .ok_or_else(|| Failure::bad_request("the parameter `lease` is 0", format!("expected {expected}")))?;
    Ok(Attach::Lease(lease))
}

/// What a write says of the key as it must be.
#[derive(Clone, Copy)]
pub(super) struct Expected {
    pub(super) revision: Option<u64>,
    /// Whether it came as an HTTP precondition.
    pub(super) precondition: bool,
}

impl Expected {
    pub(super) fn read(query: &Query, headers: &HeaderMap) -> Result<Expected, Failure> {
        let by_query = query.value(
            "revision",
            "the number of a revision, or 0 for a key that must not exist",
        )?;
        let by_header = precondition(headers)?;
        if by_query.is_some() && by_header.is_some() {
            return Err(Failure::bad_request(
                "the expected revision is given twice, as a parameter and as a header",
                "leave one out",
            ));
        }
        Ok(Expected {
            revision: by_query.or(by_header),
            precondition: by_header.is_some(),
        })
    }

    /// Carries out the write of `key`: the revision after it, and what it did. One that expects a revision is a
    /// transaction that reads the key otherwise.
    async fn send(
        self,
        shared: &Shared,
        change: Change<'_>,
        key: Bytes,
        operation: Operation,
    ) -> Result<(u64, Done), Failure> {
        let command = match (self.revision, operation) {
            (Some(expected), operation) => {
                Command::Transact(Transaction::guarded(key, Revision(expected), operation))
            }
            (None, Operation::Put(put)) => Command::Put(put),
            (None, Operation::Delete(delete)) => Command::Delete(delete),
            (None, operation) => Command::Transact(Transaction::new(Vec::new(), vec![operation], Vec::new())),
        };
        match shared.change(command, change).await? {
            Reply::Put { revision, previous } => Ok((revision.0, Done::Put { previous })),
            Reply::Deleted {
                revision,
                deleted,
                previous,
            } => Ok((revision.0, Done::Deleted { deleted, previous })),
            Reply::Transacted(mut done) => {
                let revision = done.revision.0;
                let response = done.blocks.first_mut().and_then(|block| block.responses.pop());
                match response {
                    Some(Done::Read(found)) => {
                        let current = found.items.first().map_or(0, |pair| pair.mod_revision.0);
                        Err(Failure::conflict(current, self.precondition))
                    }
                    Some(response) => Ok((revision, response)),
                    None => Err(Failure::unexpected_reply()),
                }
            }
            _ => Err(Failure::unexpected_reply()),
        }
    }
}

/// The expected revision, from `If-Match: "12"` or `If-None-Match: *` (RFC 9110, section 13.1).
fn precondition(headers: &HeaderMap) -> Result<Option<u64>, Failure> {
    let text = |name: &HeaderName| headers.get(name).map(HeaderValue::as_bytes);
    if let Some(value) = text(&IF_NONE_MATCH) {
        if value != b"*" || headers.contains_key(IF_MATCH) {
            return Err(Failure::bad_request(
                "the header If-None-Match says something else than `*`",
                "`If-None-Match: *` alone writes only a key that does not exist",
            ));
        }
        return Ok(Some(0));
    }
    let Some(value) = text(&IF_MATCH) else {
        return Ok(None);
    };
    let digits = std::str::from_utf8(value)
        .unwrap_or_default()
        .trim()
        .trim_matches('"');
    digits.parse().map(Some).map_err(|_| {
        Failure::bad_request(
            "the header If-Match is no revision",
            "write it as in the ETag of a read: `If-Match: \"12\"`",
        )
    })
}

fn key_of(shared: &Shared, uri: &Uri) -> Result<Bytes, Failure> {
    let encoded = uri.path().strip_prefix(PATH).unwrap_or_default();
    let key: Bytes = match percent_decode_str(encoded).into() {
        std::borrow::Cow::Borrowed(plain) => Bytes::copy_from_slice(plain),
        std::borrow::Cow::Owned(decoded) => decoded.into(),
    };
    if key.is_empty() {
        return Err(Failure::bad_request(
            "the key is empty",
            "name a key: /v1/kv/{key}",
        ));
    }
    if key.len() > shared.limits.key_bytes {
        return Err(Failure::too_large(Oversized::Key, shared.limits.key_bytes));
    }
    Ok(key)
}

fn wants_json(headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    accept.is_some_and(|accept| accept.contains("application/json"))
}

/// The value as it is, with its history in headers.
fn raw(entry: KeyValue) -> Response {
    let mut response = with_type(StatusCode::OK, "application/octet-stream", entry.value);
    let head = response.headers_mut();
    for (name, number) in [
        (headers::REVISION, entry.mod_revision),
        (headers::CREATE_REVISION, entry.create_revision),
        (headers::VERSION, entry.version),
    ] {
        head.insert(HeaderName::from_static(name), HeaderValue::from(number));
    }
    if let Some(lease) = entry.lease {
        head.insert(HeaderName::from_static(headers::LEASE), HeaderValue::from(lease));
    }
    if let Ok(tag) = HeaderValue::try_from(format!("\"{}\"", entry.mod_revision)) {
        head.insert(ETAG, tag);
    }
    response
}
