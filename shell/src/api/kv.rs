//! Keys: `PUT|GET|DELETE /v1/kv/{key}` and `GET /v1/kv`.
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
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use quorate_api::{DeleteAnswer, KeyValue, ListAnswer, ProblemCode, PutAnswer, headers};

use super::Shared;
use super::answer::{Failure, json, with_type};
use super::backend::{BackendError, Oversized, Range, ReadOptions, Write, WriteReply};
use super::query::Query;

/// Entries in a listing that names no limit, and the most it may name.
const LIST_LIMIT_DEFAULT: usize = 1000;
const LIST_LIMIT_MAX: usize = 10_000;
/// About how many bytes a listing holds.
pub(super) const LIST_BYTES_MAX: usize = 1 << 20;

pub(super) const PATH: &str = "/v1/kv/";

/// `PUT /v1/kv/{key}`
pub(super) async fn put(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let request = WriteParameters::read(&shared, &uri, &headers)?;
    let (value, _admitted) = shared
        .body(body, &headers, Oversized::Value, shared.limits.value_bytes)
        .await?;
    let previous = request.previous;
    let write = Write::Put {
        key: request.key.clone(),
        value,
        expected: request.expected,
    };
    let (revision, before, _) = request.send(&shared, &uri, write).await?;
    Ok(json(&PutAnswer {
        revision,
        previous: before.filter(|_| previous),
    }))
}

/// `DELETE /v1/kv/{key}`
pub(super) async fn delete(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let request = WriteParameters::read(&shared, &uri, &headers)?;
    let _admitted = shared.admit(0)?;
    let previous = request.previous;
    let write = Write::Delete {
        key: request.key.clone(),
        expected: request.expected,
    };
    let (revision, before, deleted) = request.send(&shared, &uri, write).await?;
    Ok(json(&DeleteAnswer {
        revision,
        deleted,
        previous: before.filter(|_| previous),
    }))
}

/// `GET /v1/kv/{key}`
pub(super) async fn get(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let query = Query::parse(uri.query(), &["consistency"])?;
    let consistency = query.consistency()?;
    let key = key_of(&shared, &uri)?;
    let _admitted = shared.admit(0)?;
    let deadline = shared.deadline();
    let options = ReadOptions {
        consistency,
        deadline,
    };
    let reply = shared
        .until_leader(deadline, false, || shared.backend.get(key.clone(), options))
        .await
        .map_err(|error| misdirected(error, &uri))?;
    let Some(entry) = reply.entry else {
        let shown = String::from_utf8_lossy(&key).into_owned();
        return Err(Failure::new(
            ProblemCode::KeyNotFound,
            format!("there is no key `{shown}`"),
            "GET /v1/kv?prefix= lists keys",
        ));
    };
    if wants_json(&headers) {
        Ok(json(&entry))
    } else {
        Ok(raw(entry))
    }
}

/// `GET /v1/kv`
pub(super) async fn list(State(shared): State<Arc<Shared>>, uri: Uri) -> Result<Response, Failure> {
    let query = Query::parse(uri.query(), &["prefix", "start", "end", "limit", "consistency"])?;
    let expected = format!("a number from 1 to {LIST_LIMIT_MAX}");
    let limit: usize = query.value("limit", &expected)?.unwrap_or(LIST_LIMIT_DEFAULT);
    if !(1..=LIST_LIMIT_MAX).contains(&limit) {
        return Err(Failure::bad_request(
            format!("the parameter `limit` is {limit}"),
            format!("expected {expected}"),
        ));
    }
    let consistency = query.consistency()?;
    let (start, end) = bounds(query.bytes("prefix"), query.bytes("start"), query.bytes("end"));
    let range = Range {
        start,
        end,
        limit,
        bytes_max: LIST_BYTES_MAX,
    };
    let _admitted = shared.admit(LIST_BYTES_MAX)?;
    let deadline = shared.deadline();
    let options = ReadOptions {
        consistency,
        deadline,
    };
    let reply = shared
        .until_leader(deadline, false, || shared.backend.list(range.clone(), options))
        .await
        .map_err(|error| misdirected(error, &uri))?;
    // The next page begins with the smallest key after the last one shown.
    let next = reply.entries.last().filter(|_| reply.more).map(|last| {
        let mut key = last.key.to_vec();
        key.push(0);
        percent_encode(&key, NON_ALPHANUMERIC).to_string()
    });
    Ok(json(&ListAnswer {
        revision: reply.revision,
        entries: reply.entries,
        more: reply.more,
        next,
    }))
}

/// The problem, with the leader to turn to when another node has to do it.
fn misdirected(error: BackendError, uri: &Uri) -> Failure {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Failure::from(error).redirected(path)
}

/// The range of keys that begin with `prefix` and lie between `start` and `end`.
fn bounds(prefix: Option<&[u8]>, start: Option<&[u8]>, end: Option<&[u8]>) -> (Bytes, Option<Bytes>) {
    let prefix = prefix.unwrap_or_default();
    let first = start.unwrap_or_default().max(prefix);
    let after_prefix = after(prefix);
    let end = match (end.map(<[u8]>::to_vec), after_prefix) {
        (Some(end), Some(after)) => Some(end.min(after)),
        (end, after) => end.or(after),
    };
    (Bytes::copy_from_slice(first), end.map(Bytes::from))
}

/// The smallest key after all keys that begin with `prefix`; none when there is no such key.
fn after(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut key = prefix[..=last].to_vec();
    key[last] += 1;
    Some(key)
}

/// What every write says besides its value.
struct WriteParameters {
    key: Bytes,
    expected: Option<u64>,
    /// Whether the expectation came as an HTTP precondition.
    precondition: bool,
    redirect: bool,
    previous: bool,
}

impl WriteParameters {
    fn read(shared: &Shared, uri: &Uri, headers: &HeaderMap) -> Result<WriteParameters, Failure> {
        let query = Query::parse(uri.query(), &["revision", "redirect", "previous"])?;
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
        Ok(WriteParameters {
            key: key_of(shared, uri)?,
            expected: by_query.or(by_header),
            precondition: by_header.is_some(),
            redirect: query.switch("redirect")?,
            previous: query.switch("previous")?,
        })
    }

    /// Sends the write: the revision, what was there before, and how many keys were deleted.
    async fn send(
        self,
        shared: &Shared,
        uri: &Uri,
        write: Write,
    ) -> Result<(u64, Option<KeyValue>, u64), Failure> {
        match shared.write(write, !self.redirect).await {
            Ok(WriteReply::Done {
                revision,
                previous,
                deleted,
            }) => Ok((revision, previous, deleted)),
            Ok(WriteReply::Conflict { current }) => Err(Failure::conflict(current, self.precondition)),
            Err(error) => Err(misdirected(error, uri)),
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
    if let Ok(tag) = HeaderValue::try_from(format!("\"{}\"", entry.mod_revision)) {
        head.insert(ETAG, tag);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_the_next_one() {
        assert_eq!(after(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(after(b"a\xff\xff"), Some(b"b".to_vec()));
        assert_eq!(after(b"\xff"), None);
        assert_eq!(after(b""), None);
    }

    #[test]
    fn a_prefix_and_a_range_overlap() {
        let (start, end) = bounds(Some(b"a/"), Some(b"a/m"), Some(b"z"));
        assert_eq!(
            (&*start, end.as_deref()),
            (b"a/m".as_slice(), Some(b"a0".as_slice()))
        );
        let (start, end) = bounds(None, None, None);
        assert_eq!((&*start, end), (b"".as_slice(), None));
    }
}
