//! Watches: `GET /v1/watch`, a stream of server-sent events (HTML standard, section 9.2).
//!
//! The id of an event is the revision up to which everything was told. A client that comes back with `Last-Event-ID`
//! goes on after it. What a client does not read is not made: a stream encodes a page of events when the connection has
//! room for it, and holds no more.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use quorate_api::{
    EVENT_STREAM_CONTENT_TYPE, KeyName, KeyValue, Problem, ProblemCode, WatchChange, WatchEvent, WatchMark,
    events,
};
use quorate_core::state::{
    self, Detail, Event, Interest, KeyRange, Kinds, Page, Query as StateQuery, Revision, Space,
};
use serde::Serialize;

use super::Shared;
use super::answer::Failure;
use super::openapi::parameters::Following;
use super::openapi::problems::problems;
use super::query::Query;
use super::requests::Read;
use crate::port::{BoxFuture, Clock};
use crate::watch::{WatchEnd, Watching};

/// How long nothing may be told before a mark of progress is.
const PROGRESS_DEFAULT: u64 = 10_000;
pub(super) const PROGRESS_MIN: u64 = 100;
pub(super) const PROGRESS_MAX: u64 = 3_600_000;
/// When a browser comes back after its stream broke, in milliseconds.
const RETRY: u64 = 500;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Tells proxies (nginx) not to wait for more of the answer before they pass on what there is.
const NO_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

const PARAMETERS: [&str; 8] = [
    "key",
    "prefix",
    "start",
    "end",
    "from_revision",
    "previous",
    "filter",
    "progress_ms",
];

problems! {
    WatchProblems = WATCH READ [FutureRevision];
}

/// Tells what becomes of keys.
///
/// Server-sent events: `open` and `progress` with a `WatchMark`, `change` with a `WatchChange`, and `cancel` with a
/// `Problem` at the end. The id of an event is the revision up to which everything was told.
#[utoipa::path(
    get, path = "/v1/watch", operation_id = "watchKeys", tag = "watches",
    extensions(("x-server-sent-events" = json!({"open": "WatchMark", "change": "WatchChange", "progress": "WatchMark", "cancel": "Problem"}))),
    params(
        ("key" = Option<String>, Query, description = "Only this key"),
        ("prefix" = Option<String>, Query, description = "Only keys that begin so; empty for all keys"),
        ("start" = Option<String>, Query, description = "Only keys from this one on"),
        ("end" = Option<String>, Query, description = "Only keys before this one"),
        ("previous" = Option<bool>, Query, description = "Whether to answer what was there before"),
        ("filter" = Option<String>, Query, description = "What not to tell: `no_puts` or `no_deletes`"),
        Following,
    ),
    responses(
        (status = 200, description = "Events, as they happen", content_type = "text/event-stream", body = String),
        WatchProblems,
    ),
)]
pub(super) async fn watch(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let query = Query::parse(uri.query(), &PARAMETERS)?;
    let interest = Interest {
        space: Space::Keys,
        range: range(&query)?,
        kinds: kinds(&query)?,
    };
    let previous = query.switch("previous")?;
    stream(&shared, &uri, interest, &query, &headers, KeyWords { previous }).await
}

/// A stream of what happens to `interest`, told in some words. Its query has the parameters `from_revision` and
/// `progress_ms`.
///
/// A watch from beyond the next revision that will be made would be silent until the revisions have come there, and then
/// leave out what nobody knows that it left out: who asks for it has a revision of another cluster, or of this one before
/// it was restored. It is refused as a read at a revision that was never made is. A node that merely lags asks the leader.
pub(super) async fn stream(
    shared: &Shared,
    uri: &Uri,
    interest: Interest,
    query: &Query<'_>,
    headers: &HeaderMap,
    words: impl Words,
) -> Result<Response, Failure> {
    let expected = format!("a number of milliseconds from {PROGRESS_MIN} to {PROGRESS_MAX}");
    let progress = query.value("progress_ms", &expected)?.unwrap_or(PROGRESS_DEFAULT);
    if !(PROGRESS_MIN..=PROGRESS_MAX).contains(&progress) {
        let detail = format!("the parameter `progress_ms` is {progress}");
        return Err(Failure::bad_request(detail, format!("expected {expected}")));
    }
    let from = from(query, headers)?;
    let watching = shared.backend.watch(interest, from)?;
    let before = from.map(|from| Revision(from.0.saturating_sub(1)));
    if let Some(before) = before.filter(|before| !watching.has(*before)) {
        shared.check_made(before, uri).await?;
    }
    let feed = Feed {
        mark: shared.clock.sleep_until(shared.clock.now()),
        clock: Arc::clone(&shared.clock),
        progress: Duration::from_millis(progress),
        stage: Stage::Beginning,
        watching,
        words,
    };
    let stream = futures_util::stream::unfold(feed, async |mut feed| {
        let text = feed.next().await?;
        Some((Ok::<_, std::convert::Infallible>(text), feed))
    });
    let mut response = Response::new(Body::from_stream(stream));
    let head = response.headers_mut();
    head.insert(CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM_CONTENT_TYPE));
    head.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    head.insert(NO_BUFFERING, HeaderValue::from_static("no"));
    Ok(response)
}

impl Shared {
    /// Makes sure that the cluster has made a revision.
    async fn check_made(&self, revision: Revision, uri: &Uri) -> Result<(), Failure> {
        let nothing = StateQuery {
            detail: Detail::Nothing,
            ..StateQuery::new(KeyRange::only(Bytes::from_static(b"\0")))
        };
        let made = self.read(nothing, 0, Read::with(revision, uri)).await;
        made.map(drop).map_err(|mut failure| {
            if let (ProblemCode::FutureRevision, Some(latest)) =
                (failure.problem.code, failure.problem.latest_revision)
            {
                failure.problem.detail = format!(
                    "the watch would begin after revision {revision}, which nobody has made yet: the latest is {latest}"
                );
            }
            failure
        })
    }
}

/// The keys to watch: one, or those of a range.
fn range(query: &Query<'_>) -> Result<KeyRange, Failure> {
    let bytes = |name| query.bytes(name).map(Bytes::copy_from_slice);
    match (bytes("key"), bytes("prefix"), bytes("start"), bytes("end")) {
        (Some(key), None, None, None) if key.is_empty() => Err(Failure::bad_request(
            "the key is empty",
            "name a key, or watch all with an empty `prefix=`",
        )),
        (Some(key), None, None, None) => Ok(KeyRange::only(key)),
        (None, Some(prefix), None, None) => Ok(KeyRange::prefix(prefix)),
        (None, None, Some(start), None) => Ok(KeyRange::from(start)),
        (None, None, start, Some(end)) => Ok(KeyRange::between(start.unwrap_or_default(), end)),
        (None, None, None, None) => Err(Failure::bad_request(
            "the watch does not say what to watch",
            "give `key=`, or `prefix=` (empty for all keys), or `start=` and `end=`",
        )),
        _ => Err(Failure::bad_request(
            "the watch says in several ways what to watch",
            "give `key=`, or `prefix=`, or `start=` and `end=`",
        )),
    }
}

fn kinds(query: &Query<'_>) -> Result<Kinds, Failure> {
    match query.bytes("filter") {
        None => Ok(Kinds::ALL),
        Some(b"no_puts") => Ok(Kinds {
            puts: false,
            ..Kinds::ALL
        }),
        Some(b"no_deletes") => Ok(Kinds {
            deletes: false,
            ..Kinds::ALL
        }),
        Some(other) => {
            let found = String::from_utf8_lossy(other).into_owned();
            Err(Failure::bad_request(
                format!("the parameter `filter` is `{found}`"),
                "expected no_puts or no_deletes",
            ))
        }
    }
}

/// The revision to begin with. A browser that comes back names the same address as before, and where it is in a header.
fn from(query: &Query<'_>, headers: &HeaderMap) -> Result<Option<Revision>, Failure> {
    let Some(last) = headers.get(LAST_EVENT_ID) else {
        let first: Option<u64> = query.value("from_revision", "the number of a revision, from 1")?;
        return match first {
            Some(0) => Err(Failure::bad_request(
                "the parameter `from_revision` is 0",
                "the first revision is 1; leave it out to watch what is yet to come",
            )),
            first => Ok(first.map(Revision)),
        };
    };
    let last = last.to_str().ok();
    let last: Option<u64> = last.and_then(|text| text.trim().parse().ok());
    let next = last.and_then(|last| last.checked_add(1));
    next.map(|next| Some(Revision(next))).ok_or_else(|| {
        Failure::bad_request(
            "the header Last-Event-ID is no revision",
            "send the id of the last event as it came",
        )
    })
}

/// How events are told to the client of a stream.
pub(super) trait Words: Send + 'static {
    /// What is told of one revision, or of a part of it. Its parts are told one after the other.
    type Change: Serialize;

    /// The change of a revision; none when nothing of it is told.
    fn change(&self, revision: Revision, events: &[Arc<Event>], partial: bool) -> Option<Self::Change>;
}

/// What becomes of keys.
struct KeyWords {
    /// Whether what was there before is told.
    previous: bool,
}

impl Words for KeyWords {
    type Change = WatchChange;

    fn change(&self, revision: Revision, events: &[Arc<Event>], partial: bool) -> Option<WatchChange> {
        Some(WatchChange {
            revision: revision.0,
            events: events.iter().map(|event| self.event(event)).collect(),
            partial,
        })
    }
}

impl KeyWords {
    fn event(&self, event: &Event) -> WatchEvent {
        let previous = event.previous.as_ref().filter(|_| self.previous).map(key_value);
        match &event.current {
            Some(pair) => WatchEvent::Put {
                entry: key_value(pair),
                previous,
            },
            None => WatchEvent::Delete {
                entry: KeyName(event.key.clone()),
                previous,
            },
        }
    }
}

/// One stream on its way to a client.
struct Feed<W> {
    watching: Watching,
    clock: Arc<dyn Clock>,
    words: W,
    progress: Duration,
    /// When a mark of progress is due.
    mark: BoxFuture<'static, ()>,
    stage: Stage,
}

enum Stage {
    Beginning,
    Running,
    Ended,
}

/// What a stream tells next.
enum Heard {
    Page(Page),
    Quiet,
    End(WatchEnd),
}

impl<W: Words> Feed<W> {
    /// The next part of the stream; none at its end.
    async fn next(&mut self) -> Option<Bytes> {
        let mut text = Vec::new();
        match self.stage {
            Stage::Ended => return None,
            Stage::Beginning => {
                let revision = self.watching.start().0.saturating_sub(1);
                text.extend_from_slice(format!("retry: {RETRY}\n").as_bytes());
                write_event(&mut text, events::OPEN, Some(revision), &WatchMark { revision });
                self.stage = Stage::Running;
            }
            Stage::Running => {
                let heard = tokio::select! {
                    biased;
                    page = self.watching.next() => page.map_or_else(Heard::End, Heard::Page),
                    () = &mut self.mark => Heard::Quiet,
                };
                match heard {
                    Heard::Page(page) => self.tell(&page, &mut text),
                    Heard::Quiet => self.tell_progress(&mut text),
                    Heard::End(why) => {
                        write_event(&mut text, events::CANCEL, None, &problem(&why));
                        self.stage = Stage::Ended;
                    }
                }
            }
        }
        self.mark = self.clock.sleep_until(self.clock.now() + self.progress);
        Some(text.into())
    }

    /// One event a revision.
    fn tell(&self, page: &Page, text: &mut Vec<u8>) {
        let last = page.events.last().map(|last| last.revision);
        for changes in page.events.chunk_by(|one, other| one.revision == other.revision) {
            let revision = changes[0].revision;
            let partial = page.torn && last == Some(revision);
            let Some(change) = self.words.change(revision, changes, partial) else {
                continue;
            };
            let id = (!partial).then_some(revision.0);
            write_event(text, events::CHANGE, id, &change);
        }
    }

    /// A mark, or a comment that shows that somebody is there.
    fn tell_progress(&self, text: &mut Vec<u8>) {
        match self.watching.progress() {
            Some(Revision(revision)) => {
                write_event(text, events::PROGRESS, Some(revision), &WatchMark { revision });
            }
            None => text.extend_from_slice(b": not there yet\n\n"),
        }
    }
}

fn write_event(text: &mut Vec<u8>, kind: &str, id: Option<u64>, data: &impl Serialize) {
    if let Some(id) = id {
        text.extend_from_slice(format!("id: {id}\n").as_bytes());
    }
    text.extend_from_slice(format!("event: {kind}\ndata: ").as_bytes());
    serde_json::to_writer(&mut *text, data)
        .expect("the types of the API have string keys and no failing parts");
    text.extend_from_slice(b"\n\n");
}

/// Why there is no watch, for clients.
pub(super) fn problem(why: &WatchEnd) -> Problem {
    let detail = why.to_string();
    match why {
        WatchEnd::Compacted { oldest, .. } => {
            let action = "read the keys again, and watch from the revision after the one that was read";
            let mut problem = Problem::new(ProblemCode::Compacted, detail, action);
            problem.oldest_revision = Some(oldest.0);
            problem
        }
        WatchEnd::Replaced { .. } => Problem::new(
            ProblemCode::StateReplaced,
            detail,
            "read the keys again, and watch from the revision after the one that was read",
        ),
        WatchEnd::TooMany { limit } => {
            let action = "watch at another node, or raise network.max_watchers";
            Problem::new(ProblemCode::TooManyWatchers, detail, action)
                .with_limit(*limit as u64)
                .with_retry_after(1)
        }
        WatchEnd::QuorumLost => {
            let action = "go on at another node, from the revision after the last one";
            Problem::new(ProblemCode::QuorumLost, detail, action).with_retry_after(1)
        }
        WatchEnd::SetAside(_) | WatchEnd::Stopping => {
            let action = "go on at another node, from the revision after the last one";
            Problem::new(ProblemCode::Unavailable, detail, action)
        }
    }
}

fn key_value(pair: &state::KeyValue) -> KeyValue {
    super::words::key_value(pair.clone())
}
