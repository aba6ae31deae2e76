//! Event streams: `/v1/streams`.
//!
//! - here: creating, listing, describing and deleting streams;
//! - [`records`]: appending records, and reading them from an offset or a time;
//! - [`groups`]: consumer groups;
//! - [`tail`]: following streams as records come;
//! - [`words`]: streams as the API writes them.

mod groups;
mod records;
mod tail;
#[cfg(test)]
mod tests;
mod words;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode, Uri};
use quorate_api::{CreateStream, Problem, ProblemCode, StreamDeleted, StreamInfo, StreamsAnswer};
use quorate_core::state::{
    ALL_PARTITIONS_MAX, Command, DuplicateWindow, GROUPS_MAX, Reply, StreamCommand, StreamId, StreamRefusal,
    StreamReply, StreamRetention, StreamSettings, StreamView,
};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::answer::{Failure, json, json_with};
use super::backend::ReadOptions;
use super::openapi::parameters::{Carrying, Freshness};
use super::openapi::problems::problems;
use super::query::Query;
use super::requests::{Change, Read, misdirected};

/// Streams in a listing that names no limit, and the most it may name.
const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 1_000;
/// For how many streams it is counted what readers got; a node that saw more begins anew.
const COUNTED_MAX: usize = 20_000;

/// How many bytes of each stream this node has given to readers.
#[derive(Default)]
pub(super) struct BytesOut(Mutex<BTreeMap<StreamId, u64>>);

impl BytesOut {
    fn add(&self, stream: StreamId, bytes: u64) {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counted.len() >= COUNTED_MAX && !counted.contains_key(&stream) {
            counted.clear();
        }
        *counted.entry(stream).or_default() += bytes;
    }

    fn of(&self, stream: StreamId) -> u64 {
        let counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counted.get(&stream).copied().unwrap_or_default()
    }
}

/// The paths of streams.
pub(super) fn routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(show, delete))
        .routes(routes!(records::read, records::append))
        .routes(routes!(groups::list, groups::create))
        .routes(routes!(groups::show, groups::delete))
        .routes(routes!(groups::fetch))
        .routes(routes!(groups::commit))
        .routes(routes!(groups::pause))
        .routes(routes!(groups::resume))
        .routes(routes!(tail::tail))
}

problems! {
    CreateProblems = WRITE BODY [StreamExists];
}

/// Creates a stream.
#[utoipa::path(
    post, path = "/v1/streams", operation_id = "createStream", tag = "streams",
    params(
        Carrying,
    ),
    request_body(content = CreateStream),
    responses(
        (status = 201, description = "The stream", body = StreamInfo),
        CreateProblems,
    ),
)]
pub(super) async fn create(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let query = Query::parse(uri.query(), &["redirect"])?;
    let change = Change::read(&query, &headers, &uri)?;
    let request: CreateStream = shared.read_json(&headers, body, r#"{"name": "orders"}"#).await?;
    let settings = settings(&request);
    let name = request.name;
    let command = StreamCommand::Create {
        name: name.clone(),
        settings,
    };
    let _admitted = shared.admit(0)?;
    match shared.change(Command::Stream(command), change).await? {
        Reply::Stream(StreamReply::Created { id }) => {
            let created = StreamView {
                id,
                name,
                settings,
                partitions: (0..settings.partitions).map(|_| words::new_partition()).collect(),
                groups: Vec::new(),
                ids: 0,
            };
            Ok(json_with(StatusCode::CREATED, &shared.stream_info(created)))
        }
        _ => Err(Failure::unexpected_reply()),
    }
}

fn settings(request: &CreateStream) -> StreamSettings {
    let retention = &request.retention;
    let usual = DuplicateWindow::default();
    StreamSettings {
        partitions: request.partitions,
        retention: StreamRetention {
            age: retention.age_ms.map(Duration::from_millis),
            bytes: retention.bytes,
            records: retention.records,
        },
        duplicates: request.duplicates.map_or(usual, |window| DuplicateWindow {
            count: window.count,
            age: Duration::from_millis(window.age_ms),
        }),
    }
}

problems! {
    ListProblems = READ [];
}

/// Lists streams.
#[utoipa::path(
    get, path = "/v1/streams", operation_id = "listStreams", tag = "streams",
    params(
        ("prefix" = Option<String>, Query, description = "Only those whose names begin so"),
        ("after" = Option<String>, Query, description = "Only streams after this name"),
        ("limit" = Option<u64>, Query, description = "How many at the most; 100 when it is left out",
            minimum = 1, maximum = 1000),
        Freshness,
    ),
    responses(
        (status = 200, description = "The streams", body = StreamsAnswer),
        ListProblems,
    ),
)]
pub(super) async fn list(State(shared): State<Arc<Shared>>, uri: Uri) -> Result<Response, Failure> {
    let known = ["prefix", "after", "limit", "consistency", "min_revision"];
    let query = Query::parse(uri.query(), &known)?;
    let limit = query.limit(LIMIT_DEFAULT, LIMIT_MAX)?;
    let prefix = text(&query, "prefix")?.unwrap_or_default();
    let after = text(&query, "after")?;
    let options = shared.read_options(Read::of(&query, &uri)?);
    let _admitted = shared.admit(0)?;
    let found = shared
        .until_leader(options.deadline, false, || {
            shared
                .backend
                .streams(&prefix, after.as_deref(), limit + 1, options)
        })
        .await
        .map_err(|error| misdirected(error, &uri))?;
    Ok(json(&StreamsAnswer {
        more: found.len() > limit,
        streams: found
            .into_iter()
            .take(limit)
            .map(|view| shared.stream_info(view))
            .collect(),
    }))
}

problems! {
    ShowProblems = READ [StreamNotFound];
}

/// Describes a stream.
#[utoipa::path(
    get, path = "/v1/streams/{name}", operation_id = "getStream", tag = "streams",
    params(
        ("name" = String, Path, description = "The name of a stream"),
        Freshness,
    ),
    responses(
        (status = 200, description = "The stream", body = StreamInfo),
        ShowProblems,
    ),
)]
pub(super) async fn show(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    Path(name): Path<String>,
) -> Result<Response, Failure> {
    let query = Query::parse(uri.query(), &["consistency", "min_revision"])?;
    let options = shared.read_options(Read::of(&query, &uri)?);
    let _admitted = shared.admit(0)?;
    let view = shared.stream(&name, options, &uri).await?;
    Ok(json(&shared.stream_info(view)))
}

problems! {
    DeleteProblems = WRITE [StreamNotFound];
}

/// Deletes a stream with its records and groups.
#[utoipa::path(
    delete, path = "/v1/streams/{name}", operation_id = "deleteStream", tag = "streams",
    params(
        ("name" = String, Path, description = "The name of a stream"),
        Carrying,
    ),
    responses(
        (status = 200, description = "The stream is gone", body = StreamDeleted),
        DeleteProblems,
    ),
)]
pub(super) async fn delete(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
    Path(name): Path<String>,
) -> Result<Response, Failure> {
    let query = Query::parse(uri.query(), &["redirect"])?;
    let change = Change::read(&query, &headers, &uri)?;
    let _admitted = shared.admit(0)?;
    let command = Command::Stream(StreamCommand::Delete { name });
    match shared.change(command, change).await? {
        Reply::Stream(StreamReply::Deleted { records, bytes }) => Ok(json(&StreamDeleted { records, bytes })),
        _ => Err(Failure::unexpected_reply()),
    }
}

impl Shared {
    /// A stream that must be there.
    async fn stream(&self, name: &str, options: ReadOptions, uri: &Uri) -> Result<StreamView, Failure> {
        self.until_leader(options.deadline, false, || self.backend.stream(name, options))
            .await
            .map_err(|error| misdirected(error, uri))?
            .ok_or_else(|| problem(StreamRefusal::NoSuchStream).into())
    }

    fn stream_info(&self, view: StreamView) -> StreamInfo {
        let bytes_out = self.bytes_out.of(view.id);
        words::info(view, bytes_out)
    }
}

/// A parameter that is text.
fn text(query: &Query<'_>, name: &str) -> Result<Option<String>, Failure> {
    query.value(name, "text")
}

/// Why the state machine did not change a stream, or why there is nothing to read.
pub(super) fn problem(refusal: StreamRefusal) -> Problem {
    let detail = refusal.to_string();
    let problem = |code, action| Problem::new(code, detail, action);
    match refusal {
        StreamRefusal::Malformed(_) => problem(ProblemCode::BadRequest, "nothing changed; mend the request"),
        StreamRefusal::NoSuchStream => problem(
            ProblemCode::StreamNotFound,
            "GET /v1/streams lists the streams, POST /v1/streams creates one",
        ),
        StreamRefusal::StreamExists => problem(
            ProblemCode::StreamExists,
            "nothing changed; use it, or take another name",
        ),
        StreamRefusal::TooManyStreams => problem(
            ProblemCode::QuotaReached,
            "nothing changed; GET /v1/streams lists the streams, DELETE /v1/streams/{name} deletes one",
        )
        .with_limit(ALL_PARTITIONS_MAX as u64),
        StreamRefusal::NoSuchPartition { .. } => problem(
            ProblemCode::PartitionNotFound,
            "GET /v1/streams/{name} shows the partitions",
        ),
        StreamRefusal::NoSuchGroup => problem(
            ProblemCode::GroupNotFound,
            "GET /v1/streams/{name}/groups lists the groups, POST creates one",
        ),
        StreamRefusal::GroupExists => problem(
            ProblemCode::GroupExists,
            "nothing changed; use it, or take another name",
        ),
        StreamRefusal::TooManyGroups => problem(
            ProblemCode::QuotaReached,
            "nothing changed; DELETE /v1/streams/{name}/groups/{group} deletes a group",
        )
        .with_limit(GROUPS_MAX as u64),
        StreamRefusal::CursorAhead { next, .. } => {
            let action = "nothing changed; take the offset after the last record that was consumed";
            let mut problem = problem(ProblemCode::FutureOffset, action);
            problem.next_offset = Some(next.0);
            problem
        }
    }
}

/// An offset whose record retention dropped.
fn offset_deleted(stream: &str, partition: u32, offset: u64, first: u64) -> Problem {
    let mut problem = Problem::new(
        ProblemCode::OffsetDeleted,
        format!("offset {offset} of partition {partition} of stream {stream} was dropped by retention"),
        format!("the first one that is kept is {first}: go on from there"),
    );
    problem.first_offset = Some(first);
    problem
}
