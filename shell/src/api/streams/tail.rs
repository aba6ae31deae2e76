//! Following streams as records come: `GET /v1/tail`, as server-sent events or as a line of JSON an event.
//!
//! A tail follows one stream, or all whose names have a prefix, those included that come later. It has a position in each
//! partition and reads on from there whenever streams changed, so nothing is queued for a client that is slow. When
//! retention passes a position the tail ends and says so: it never leaves anything out without a word.
//!
//! A client that comes back says where it was (`at=`, or `Last-Event-ID`), at this node or another one, and hears
//! everything from there on, and nothing before.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use quorate_api::{
    EVENT_STREAM_CONTENT_TYPE, LINES_CONTENT_TYPE, Problem, ProblemCode, TailBatch, TailLine, TailMark,
    TailPosition, tail_events,
};
use quorate_core::raft::Index;
use quorate_core::state::{Offset, StreamId, StreamRefusal};
use serde::Serialize;
use tokio::sync::watch;

use super::super::Shared;
use super::super::answer::Failure;
use super::super::backend::{BackendError, StreamChanges, StreamEnd};
use super::super::openapi::problems::problems;
use super::super::query::Query;
use super::records::priority;
use super::{offset_deleted, problem, text, words};
use crate::port::BoxFuture;

/// Bytes of records of one event, about; at least a batch.
const PAGE_BYTES: usize = 256 << 10;
/// How long nothing may be told before a mark of progress is.
const PROGRESS_DEFAULT: u64 = 10_000;
const PROGRESS_MIN: u64 = 100;
const PROGRESS_MAX: u64 = 3_600_000;
/// When a browser comes back after its stream broke, in milliseconds.
const RETRY: u64 = 500;
/// So many partitions are named in the id of an event; a browser that follows more cannot go on by itself.
const ID_PARTITIONS_MAX: usize = 64;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Tells proxies (nginx) not to wait for more of the answer before they pass on what there is.
const NO_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

const PARAMETERS: [&str; 7] = [
    "stream",
    "prefix",
    "partition",
    "from",
    "at",
    "priority",
    "progress_ms",
];

problems! {
    TailProblems = WATCH [StreamNotFound, PartitionNotFound, OffsetDeleted];
}

/// Follows streams as records come.
///
/// One stream, or all whose names have a prefix, those included that come later. A line of JSON an event
/// (`TailLine`), or server-sent events for a request that accepts `text/event-stream`: `records` with a `TailBatch`,
/// `progress` with a `TailMark`, and `cancel` with a `Problem` at the end.
#[utoipa::path(
    get, path = "/v1/tail", operation_id = "tailStreams", tag = "streams",
    extensions(("x-server-sent-events" = json!({"records": "TailBatch", "progress": "TailMark", "cancel": "Problem"}))),
    params(
        ("stream" = Option<String>, Query, description = "The stream to follow"),
        ("prefix" = Option<String>, Query, description = "Follow all streams whose names begin so; empty for all"),
        ("partition" = Option<u32>, Query, description = "Only this partition of the stream"),
        ("from" = Option<String>, Query, description = "`first`, `next`, or an offset of a single partition; `next` \
            when it is left out"),
        ("at" = Option<String>, Query, description = "Where to go on: `name/id/partition@offset` for each partition, \
            with commas between them"),
        ("priority" = Option<u8>, Query, description = "The least priority of the records to tell", maximum = 4),
        ("progress_ms" = Option<u64>, Query, description = "How long nothing may be told before a mark of progress \
            is, in milliseconds; 10,000 when it is left out", minimum = 100, maximum = 3_600_000),
        ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event that was heard; it \
            counts, and not `at`, when both are there"),
        ("Accept" = Option<String>, Header, description = "`text/event-stream` for server-sent events"),
    ),
    responses(
        (
            status = 200, description = "Events, as they happen",
            content((String = "text/event-stream"), (TailLine = "application/x-ndjson"))
        ),
        TailProblems,
    ),
)]
pub(super) async fn tail(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let query = Query::parse(uri.query(), &PARAMETERS)?;
    let expected = format!("a number of milliseconds from {PROGRESS_MIN} to {PROGRESS_MAX}");
    let progress = query.value("progress_ms", &expected)?.unwrap_or(PROGRESS_DEFAULT);
    if !(PROGRESS_MIN..=PROGRESS_MAX).contains(&progress) {
        let detail = format!("the parameter `progress_ms` is {progress}");
        return Err(Failure::bad_request(detail, format!("expected {expected}")));
    }
    let followed = Followed::of(&query)?;
    let form = Form::of(&headers);
    let positions = begin(&shared, &query, &headers, &followed)?;
    let tail = Tail {
        changes: shared.backend.stream_changes(),
        mark: shared.clock.sleep_until(shared.clock.now()),
        progress: Duration::from_millis(progress),
        priority: priority(&query)?,
        stage: Stage::Beginning,
        shared,
        followed,
        positions,
        form,
    };
    let stream = futures_util::stream::unfold(tail, async |mut tail| {
        let bytes = tail.next().await?;
        Some((Ok::<_, std::convert::Infallible>(bytes), tail))
    });
    let mut response = Response::new(Body::from_stream(stream));
    let head = response.headers_mut();
    head.insert(CONTENT_TYPE, HeaderValue::from_static(form.content_type()));
    head.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    head.insert(NO_BUFFERING, HeaderValue::from_static("no"));
    Ok(response)
}

/// Which partitions to follow.
#[derive(Clone, Debug)]
struct Followed {
    prefix: String,
    /// The name is the whole of the prefix.
    only: bool,
    partition: Option<u32>,
}

impl Followed {
    fn of(query: &Query<'_>) -> Result<Followed, Failure> {
        let partition = query.value("partition", "the number of a partition")?;
        match (text(query, "stream")?, text(query, "prefix")?) {
            (Some(name), None) => Ok(Followed {
                prefix: name,
                only: true,
                partition,
            }),
            (None, Some(prefix)) if partition.is_none() => Ok(Followed {
                prefix,
                only: false,
                partition,
            }),
            (None, Some(_)) => Err(Failure::bad_request(
                "the request names a partition, and no stream",
                "leave `partition` out, or name a stream with `stream=`",
            )),
            _ => Err(Failure::bad_request(
                "the request does not say in one way what to follow",
                "give `stream=`, or `prefix=` (empty for all streams)",
            )),
        }
    }

    fn wants(&self, end: &StreamEnd) -> bool {
        (!self.only || end.name == self.prefix)
            && self.partition.is_none_or(|partition| partition == end.partition)
    }
}

/// How the tail is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Events,
    Lines,
}

impl Form {
    /// Server-sent events for whoever asks for them, lines for everybody else.
    fn of(headers: &HeaderMap) -> Form {
        let accepted = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
        match accepted {
            Some(types) if types.contains(EVENT_STREAM_CONTENT_TYPE) => Form::Events,
            _ => Form::Lines,
        }
    }

    fn content_type(self) -> &'static str {
        match self {
            Form::Events => EVENT_STREAM_CONTENT_TYPE,
            Form::Lines => LINES_CONTENT_TYPE,
        }
    }
}

/// The next offset to tell of each partition.
type Positions = BTreeMap<(String, u32), (StreamId, Offset)>;

/// Where a tail begins: where its client was, or with `from`.
fn begin(
    shared: &Shared,
    query: &Query<'_>,
    headers: &HeaderMap,
    followed: &Followed,
) -> Result<Positions, Failure> {
    let ends = shared.backend.stream_ends(&followed.prefix)?;
    let ends: Vec<StreamEnd> = ends.into_iter().filter(|end| followed.wants(end)).collect();
    if followed.only && ends.is_empty() {
        let exists = shared.backend.stream_ends(&followed.prefix)?;
        let partitions = exists.iter().filter(|end| end.name == followed.prefix).count();
        let refusal = match (followed.partition, u32::try_from(partitions)) {
            (Some(partition), Ok(partitions)) if partitions > 0 => StreamRefusal::NoSuchPartition {
                partition,
                partitions,
            },
            _ => StreamRefusal::NoSuchStream,
        };
        return Err(problem(refusal).into());
    }
    let last = headers
        .get(LAST_EVENT_ID)
        .map(|value| value.to_str().unwrap_or("?").to_owned());
    if let Some(at) = last.or(text(query, "at")?) {
        return read_positions(&at);
    }
    let from = query.bytes("from").unwrap_or(b"next");
    let offset = match from {
        b"first" | b"next" => None,
        _ => query.value("from", "first, next, or an offset")?.map(Offset),
    };
    if offset.is_some() && ends.len() != 1 {
        return Err(Failure::bad_request(
            "the parameter `from` is an offset, and several partitions are followed",
            "name a stream and a partition, or say where to begin with `at=`",
        ));
    }
    let place = |end: StreamEnd| {
        let begins = match from {
            b"first" => end.first,
            _ => offset.unwrap_or(end.next),
        };
        ((end.name, end.partition), (end.stream, begins))
    };
    Ok(ends.into_iter().map(place).collect())
}

/// Reads `name/id/partition@offset,..`.
fn read_positions(text: &str) -> Result<Positions, Failure> {
    let read = |part: &str| {
        let (place, offset) = part.split_once('@')?;
        let mut parts = place.split('/');
        let (name, id, partition) = (parts.next()?, parts.next()?, parts.next()?);
        if name.is_empty() || parts.next().is_some() {
            return None;
        }
        let id = StreamId(Index(id.parse().ok()?));
        Some((
            (name.to_owned(), partition.parse().ok()?),
            (id, Offset(offset.parse().ok()?)),
        ))
    };
    let parts = text.split(',').filter(|part| !part.is_empty());
    let positions: Option<Positions> = parts.map(read).collect();
    positions.ok_or_else(|| {
        Failure::bad_request(
            "the positions to go on from cannot be read",
            "send the id of the last event as it came, or `at=` with name/id/partition@offset for each partition",
        )
    })
}

fn write_positions(positions: &Positions) -> String {
    let parts = positions
        .iter()
        .map(|((name, partition), (id, offset))| format!("{name}/{id}/{partition}@{offset}"));
    parts.collect::<Vec<_>>().join(",")
}

/// A tail on its way to a client.
struct Tail {
    shared: Arc<Shared>,
    followed: Followed,
    positions: Positions,
    priority: u8,
    changes: watch::Receiver<StreamChanges>,
    progress: Duration,
    /// When a mark of progress is due.
    mark: BoxFuture<'static, ()>,
    form: Form,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Beginning,
    Running,
    Ended,
}

impl Tail {
    /// The next part of the answer; none at its end.
    async fn next(&mut self) -> Option<Bytes> {
        let mut output = Vec::new();
        match self.stage {
            Stage::Ended => return None,
            Stage::Beginning => {
                self.stage = Stage::Running;
                if self.form == Form::Events {
                    output.extend_from_slice(format!("retry: {RETRY}\n").as_bytes());
                }
                self.tell_mark(&mut output);
            }
            Stage::Running => {
                if let Err(why) = self.follow(&mut output).await {
                    self.write(&mut output, tail_events::CANCEL, None, TailLine::Cancel(why));
                    self.stage = Stage::Ended;
                }
            }
        }
        self.mark = self
            .shared
            .clock
            .sleep_until(self.shared.clock.now() + self.progress);
        Some(output.into())
    }

    /// Tells what is new, and waits for it when nothing is.
    async fn follow(&mut self, output: &mut Vec<u8>) -> Result<(), Problem> {
        loop {
            if self.changes.borrow_and_update().stopping {
                return Err(stopping());
            }
            self.tell_new(output).await?;
            if !output.is_empty() {
                return Ok(());
            }
            tokio::select! {
                biased;
                changed = self.changes.changed() => changed.map_err(|_| stopping())?,
                () = &mut self.mark => {
                    self.tell_mark(output);
                    return Ok(());
                }
            }
        }
    }

    /// Tells some of what is new in each partition.
    async fn tell_new(&mut self, output: &mut Vec<u8>) -> Result<(), Problem> {
        let ends = self
            .shared
            .backend
            .stream_ends(&self.followed.prefix)
            .map_err(failed)?;
        let ends: Vec<StreamEnd> = ends.into_iter().filter(|end| self.followed.wants(end)).collect();
        if self.followed.only && ends.is_empty() {
            return Err(problem(StreamRefusal::NoSuchStream));
        }
        if self.positions.len() > ends.len() {
            let there: Vec<(&str, u32)> = ends.iter().map(|end| (&*end.name, end.partition)).collect();
            self.positions
                .retain(|(name, partition), _| there.contains(&(&**name, *partition)));
        }
        for end in &ends {
            if output.len() >= PAGE_BYTES {
                break;
            }
            let key = (end.name.clone(), end.partition);
            // A stream that is new, or was made anew, is told from its beginning.
            let known = self.positions.get(&key).filter(|(id, _)| *id == end.stream);
            let from = known.map_or(end.first, |(_, offset)| *offset);
            if from < end.first {
                return Err(offset_deleted(&end.name, end.partition, from.0, end.first.0));
            }
            self.positions.insert(key, (end.stream, from));
            // A node that is behind the one before it has these later.
            if from < end.next {
                self.tell_partition(end, from, output).await?;
            }
        }
        Ok(())
    }

    async fn tell_partition(
        &mut self,
        end: &StreamEnd,
        from: Offset,
        output: &mut Vec<u8>,
    ) -> Result<(), Problem> {
        let deadline = self.shared.deadline();
        let read = self
            .shared
            .backend
            .records(end.stream, end.partition, from, PAGE_BYTES, deadline);
        let batches = read.await.map_err(failed)?;
        match batches.first() {
            // It was dropped, or deleted, since: the next look tells.
            None => return Ok(()),
            Some(batch) if batch.first > from => {
                return Err(offset_deleted(&end.name, end.partition, from.0, batch.first.0));
            }
            Some(_) => {}
        }
        let (mut records, mut next, mut bytes) = (Vec::new(), from, 0);
        for batch in &batches {
            for (offset, record) in batch.records_from(from) {
                next = offset.plus(1);
                if record.priority >= self.priority {
                    bytes += record.bytes();
                    records.push(words::record(batch, offset, record));
                }
            }
        }
        self.shared.bytes_out.add(end.stream, bytes);
        let key = (end.name.clone(), end.partition);
        self.positions.insert(key, (end.stream, next));
        if records.is_empty() {
            return Ok(());
        }
        let told = TailBatch {
            stream: end.name.clone(),
            stream_id: end.stream.0.0,
            partition: end.partition,
            records,
            next_offset: next.0,
        };
        let id = self.id();
        self.write(output, tail_events::RECORDS, id, TailLine::Records(told));
        Ok(())
    }

    fn tell_mark(&self, output: &mut Vec<u8>) {
        let positions = self.positions.iter();
        let mark = TailMark {
            positions: positions
                .map(|((name, partition), (id, offset))| TailPosition {
                    stream: name.clone(),
                    stream_id: id.0.0,
                    partition: *partition,
                    next_offset: offset.0,
                })
                .collect(),
        };
        self.write(output, tail_events::PROGRESS, self.id(), TailLine::Progress(mark));
    }

    /// What a browser that comes back sends.
    fn id(&self) -> Option<String> {
        let few = self.form == Form::Events && self.positions.len() <= ID_PARTITIONS_MAX;
        few.then(|| write_positions(&self.positions))
    }

    fn write(&self, output: &mut Vec<u8>, kind: &str, id: Option<String>, line: TailLine) {
        match (self.form, line) {
            (Form::Lines, line) => {
                write_json(output, &line);
                output.push(b'\n');
            }
            (Form::Events, line) => {
                if let Some(id) = id {
                    output.extend_from_slice(format!("id: {id}\n").as_bytes());
                }
                output.extend_from_slice(format!("event: {kind}\ndata: ").as_bytes());
                match line {
                    TailLine::Records(batch) => write_json(output, &batch),
                    TailLine::Progress(mark) => write_json(output, &mark),
                    TailLine::Cancel(problem) => write_json(output, &problem),
                }
                output.extend_from_slice(b"\n\n");
            }
        }
    }
}

fn write_json(output: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(output, value).expect("the types of the API have string keys and no failing parts");
}

fn failed(error: BackendError) -> Problem {
    *Failure::from(error).problem
}

fn stopping() -> Problem {
    let action = "go on at another node, from where this one ended";
    Problem::new(ProblemCode::Unavailable, "the node is stopping", action)
}
