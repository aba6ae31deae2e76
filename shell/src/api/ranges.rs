//! Many keys at once: `GET|DELETE /v1/kv`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, Uri};
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use quorate_api::{DeleteRangeAnswer, ListAnswer, Order, SortBy};
use quorate_core::state::{Command, DeleteRange, Detail, Found, KeyRange, Query as StateQuery, Reply, Span};

use super::answer::{Failure, json};
use super::openapi::parameters::{Carrying, Freshness};
use super::openapi::problems::problems;
use super::query::Query;
use super::requests::{Change, Read};
use super::{Shared, words};

/// Entries in a listing that names no limit, and the most it may name.
const LIMIT_DEFAULT: usize = 1000;
const LIMIT_MAX: usize = 10_000;
/// About how many bytes a listing holds.
const BYTES_MAX: usize = 1 << 20;

problems! {
    ListProblems = READ [Compacted, FutureRevision];
}

/// Lists keys.
///
/// Without `prefix`, `start` and `end` they are all keys.
#[utoipa::path(
    get, path = "/v1/kv", operation_id = "listKeys", tag = "keys",
    params(
        ("prefix" = Option<String>, Query, description = "Only keys that begin so, percent-encoded"),
        ("start" = Option<String>, Query, description = "Only keys from this one on"),
        ("end" = Option<String>, Query, description = "Only keys before this one"),
        ("limit" = Option<u64>, Query, description = "How many at the most; 1,000 when it is left out",
            minimum = 1, maximum = 10_000),
        ("sort" = Option<SortBy>, Query, description = "What the keys are sorted by"),
        ("order" = Option<Order>, Query, description = "Which way the order goes"),
        ("keys_only" = Option<bool>, Query, description = "Whether to leave out the values"),
        ("count" = Option<bool>, Query, description = "Whether to count all keys of the range"),
        ("count_only" = Option<bool>, Query, description = "Whether to count the keys and answer nothing else"),
        ("min_mod_revision" = Option<u64>, Query, description = "Only keys written at this revision or later"),
        ("max_mod_revision" = Option<u64>, Query, description = "Only keys written at this revision or before"),
        ("min_create_revision" = Option<u64>, Query, description = "Only keys created at this revision or later"),
        ("max_create_revision" = Option<u64>, Query, description = "Only keys created at this revision or before"),
        Freshness,
        ("revision" = Option<u64>, Query, description = "As of which revision; the latest when it is left out"),
    ),
    responses(
        (status = 200, description = "The keys", body = ListAnswer),
        ListProblems,
    ),
)]
pub(super) async fn list(State(shared): State<Arc<Shared>>, uri: Uri) -> Result<Response, Failure> {
    let own = [
        "prefix",
        "start",
        "end",
        "limit",
        "sort",
        "order",
        "keys_only",
        "count",
        "count_only",
        "min_mod_revision",
        "max_mod_revision",
        "min_create_revision",
        "max_create_revision",
    ];
    let query = Query::parse(uri.query(), &[own.as_slice(), &Read::PARAMETERS].concat())?;
    let read = Read::of(&query, &uri)?;
    let sort: SortBy = query
        .value("sort", "key, version, create_revision, mod_revision or value")?
        .unwrap_or_default();
    let order: Order = query
        .value("order", "ascending or descending")?
        .unwrap_or_default();
    let wanted = StateQuery {
        range: range(query.bytes("prefix"), query.bytes("start"), query.bytes("end")),
        revision: read.revision,
        modified: span(&query, "min_mod_revision", "max_mod_revision")?,
        created: span(&query, "min_create_revision", "max_create_revision")?,
        sort: words::sort(sort, order),
        limit: Some(query.limit(LIMIT_DEFAULT, LIMIT_MAX)? as u64),
        detail: detail(query.switch("keys_only")?, query.switch("count_only")?),
        count: query.switch("count")?,
    };
    let _admitted = shared.admit(BYTES_MAX)?;
    let reply = shared.read(wanted, BYTES_MAX, read).await?;
    let next = next_page(&reply.found, sort, order);
    Ok(json(&ListAnswer {
        revision: reply.revision.0,
        more: reply.found.more,
        count: reply.found.count,
        entries: reply.found.items.into_iter().map(words::key_value).collect(),
        next,
    }))
}

problems! {
    DeleteProblems = WRITE [];
}

/// Deletes many keys.
///
/// One of `prefix`, `start` and `end` says which; an empty `prefix=` is all keys.
#[utoipa::path(
    delete, path = "/v1/kv", operation_id = "deleteKeys", tag = "keys",
    params(
        ("prefix" = Option<String>, Query, description = "Only keys that begin so, percent-encoded"),
        ("start" = Option<String>, Query, description = "Only keys from this one on"),
        ("end" = Option<String>, Query, description = "Only keys before this one"),
        ("previous" = Option<bool>, Query, description = "Whether to answer what was there before"),
        Carrying,
    ),
    responses(
        (status = 200, description = "The keys are gone", body = DeleteRangeAnswer),
        DeleteProblems,
    ),
)]
pub(super) async fn delete(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let query = Query::parse(uri.query(), &["prefix", "start", "end", "previous", "redirect"])?;
    let change = Change::read(&query, &headers, &uri)?;
    let bounds = ["prefix", "start", "end"].map(|name| query.bytes(name));
    if bounds.iter().all(Option::is_none) {
        return Err(Failure::bad_request(
            "a delete of many keys does not say which",
            "name them by prefix=, start= or end=; `prefix=` alone is all keys",
        ));
    }
    let [prefix, start, end] = bounds;
    let delete = DeleteRange {
        range: range(prefix, start, end),
        previous: query.switch("previous")?,
    };
    let _admitted = shared.admit(if delete.previous { BYTES_MAX } else { 0 })?;
    match shared.change(Command::Delete(delete), change).await? {
        Reply::Deleted {
            revision,
            deleted,
            previous,
        } => Ok(json(&DeleteRangeAnswer {
            revision: revision.0,
            deleted,
            previous: previous.into_iter().map(words::key_value).collect(),
        })),
        _ => Err(Failure::unexpected_reply()),
    }
}

pub(super) fn detail(keys_only: bool, count_only: bool) -> Detail {
    match (keys_only, count_only) {
        (_, true) => Detail::Nothing,
        (true, false) => Detail::WithoutValue,
        (false, false) => Detail::All,
    }
}

/// Where the next page begins or ends: the smallest key after the last one that is shown, or that one itself when the
/// keys descend.
fn next_page(found: &Found, sort: SortBy, order: Order) -> Option<String> {
    let last = found.items.last().filter(|_| found.more && sort == SortBy::Key)?;
    let mut key = last.key.to_vec();
    if order == Order::Ascending {
        key.push(0);
    }
    Some(percent_encode(&key, NON_ALPHANUMERIC).to_string())
}

fn span(query: &Query, first: &str, last: &str) -> Result<Span, Failure> {
    Ok(Span {
        first: query.revision(first)?,
        last: query.revision(last)?,
    })
}

fn range(prefix: Option<&[u8]>, start: Option<&[u8]>, end: Option<&[u8]>) -> KeyRange {
    match bounds(prefix, start, end) {
        (start, Some(end)) => KeyRange::between(start, end),
        (start, None) => KeyRange::from(start),
    }
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
