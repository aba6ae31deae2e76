//! Consumer groups: `/v1/streams/{name}/groups`.
//!
//! A group fetches from its cursors, which move when it commits: what was fetched and not committed is fetched again.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode, Uri};
use quorate_api::{
    CommitRequest, CreateGroup, FetchAnswer, GroupChanged, GroupDeleted, GroupInfo, GroupStart, GroupsAnswer,
    TailBatch,
};
use quorate_core::WallTime;
use quorate_core::state::{
    Command, GroupView, Offset, Reply, Start, StreamCommand, StreamRefusal, StreamReply, StreamView,
};

use super::super::Shared;
use super::super::answer::{Failure, json, json_with};
use super::super::backend::{ReadOptions, StreamGroups};
use super::super::openapi::parameters::{Carrying, Freshness};
use super::super::openapi::problems::problems;
use super::super::query::Query;
use super::super::requests::{Change, Read, misdirected};
use super::records::{BYTES_MAX, Place, Wanted, partition_of, priority};
use super::{problem, words};

/// Records of a partition that a fetch answers which names no limit, and the most it may name.
const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 10_000;

problems! {
    ListProblems = READ [StreamNotFound];
}

/// Lists the consumer groups of a stream.
#[utoipa::path(
    get, path = "/v1/streams/{name}/groups", operation_id = "listGroups", tag = "streams",
    params(
        ("name" = String, Path, description = "The name of a stream"),
        Freshness,
    ),
    responses(
        (status = 200, description = "The groups", body = GroupsAnswer),
        ListProblems,
    ),
)]
pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    Path(name): Path<String>,
) -> Result<Response, Failure> {
    let query = Query::parse(uri.query(), &["consistency", "min_revision"])?;
    let options = shared.read_options(Read::of(&query, &uri)?);
    let _admitted = shared.admit(0)?;
    let (view, groups) = shared.groups(&name, options, &uri).await?;
    Ok(json(&GroupsAnswer {
        groups: groups
            .into_iter()
            .map(|group| words::group(&view, group))
            .collect(),
    }))
}

problems! {
    CreateProblems = WRITE BODY [StreamNotFound, GroupExists];
}

/// Creates a consumer group.
#[utoipa::path(
    post, path = "/v1/streams/{name}/groups", operation_id = "createGroup", tag = "streams",
    params(
        ("name" = String, Path, description = "The name of a stream"),
        Carrying,
    ),
    request_body(content = CreateGroup),
    responses(
        (status = 201, description = "The group", body = GroupChanged),
        CreateProblems,
    ),
)]
pub(super) async fn create(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
    Path(stream): Path<String>,
    body: Body,
) -> Result<Response, Failure> {
    let query = Query::parse(uri.query(), &["redirect"])?;
    let change = Change::read(&query, &headers, &uri)?;
    let request: CreateGroup = shared.read_json(&headers, body, r#"{"name": "billing"}"#).await?;
    let command = StreamCommand::CreateGroup {
        stream,
        group: request.name,
        start: match request.start {
            GroupStart::First => Start::First,
            GroupStart::Next => Start::Next,
        },
    };
    shared.change_group(command, change, StatusCode::CREATED).await
}

problems! {
    ShowProblems = READ [StreamNotFound, GroupNotFound];
}

/// Describes a consumer group.
#[utoipa::path(
    get, path = "/v1/streams/{name}/groups/{group}", operation_id = "getGroup", tag = "streams",
    params(
        ("name" = String, Path, description = "The name of a stream"),
        ("group" = String, Path, description = "The name of a consumer group"),
        Freshness,
    ),
    responses(
        (status = 200, description = "The group", body = GroupInfo),
        ShowProblems,
    ),
)]
pub(super) async fn show(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    Path((name, group)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let query = Query::parse(uri.query(), &["consistency", "min_revision"])?;
    let options = shared.read_options(Read::of(&query, &uri)?);
    let _admitted = shared.admit(0)?;
    let (view, group) = shared.group(&name, &group, options, &uri).await?;
    Ok(json(&words::group(&view, group)))
}

problems! {
    DeleteProblems = WRITE [StreamNotFound, GroupNotFound];
}

/// Deletes a consumer group.
#[utoipa::path(
    delete, path = "/v1/streams/{name}/groups/{group}", operation_id = "deleteGroup", tag = "streams",
    params(
        ("name" = String, Path, description = "The name of a stream"),
        ("group" = String, Path, description = "The name of a consumer group"),
        Carrying,
    ),
    responses(
        (status = 200, description = "The group is gone", body = GroupDeleted),
        DeleteProblems,
    ),
)]
pub(super) async fn delete(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
    Path((stream, group)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let query = Query::parse(uri.query(), &["redirect"])?;
    let change = Change::read(&query, &headers, &uri)?;
    let _admitted = shared.admit(0)?;
    let command = StreamCommand::DeleteGroup {
        stream,
        group: group.clone(),
    };
    match shared.change(Command::Stream(command), change).await? {
        Reply::Stream(StreamReply::GroupDeleted) => Ok(json(&GroupDeleted { deleted: group })),
        _ => Err(Failure::unexpected_reply()),
    }
}

problems! {
    CommitProblems = WRITE BODY [StreamNotFound, GroupNotFound, PartitionNotFound, FutureOffset];
}

/// Commits what a group has consumed: its cursors move.
#[utoipa::path(
    post, path = "/v1/streams/{name}/groups/{group}/commit", operation_id = "commitGroup", tag = "streams",
    params(
        ("name" = String, Path, description = "The name of a stream"),
        ("group" = String, Path, description = "The name of a consumer group"),
        Carrying,
    ),
    request_body(content = CommitRequest),
    responses(
        (status = 200, description = "The cursors", body = GroupChanged),
        CommitProblems,
    ),
)]
pub(super) async fn commit(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
    Path((stream, group)): Path<(String, String)>,
    body: Body,
) -> Result<Response, Failure> {
    let query = Query::parse(uri.query(), &["redirect"])?;
    let change = Change::read(&query, &headers, &uri)?;
    let example = r#"{"cursors": [{"partition": 0, "next_offset": 7}]}"#;
    let request: CommitRequest = shared.read_json(&headers, body, example).await?;
    let cursors = request.cursors.iter();
    let command = StreamCommand::Commit {
        stream,
        group,
        cursors: cursors
            .map(|cursor| (cursor.partition, Offset(cursor.next_offset)))
            .collect(),
    };
    shared.change_group(command, change, StatusCode::OK).await
}

problems! {
    PauseProblems = WRITE [StreamNotFound, GroupNotFound];
}

/// Pauses a group: it gets nothing for now.
#[utoipa::path(
    post, path = "/v1/streams/{name}/groups/{group}/pause", operation_id = "pauseGroup", tag = "streams",
    params(
        ("name" = String, Path, description = "The name of a stream"),
        ("group" = String, Path, description = "The name of a consumer group"),
        Carrying,
    ),
    responses(
        (status = 200, description = "The cursors", body = GroupChanged),
        PauseProblems,
    ),
)]
pub(super) async fn pause(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
    Path((stream, group)): Path<(String, String)>,
) -> Result<Response, Failure> {
    shared.set_paused(&uri, &headers, stream, group, true).await
}

problems! {
    ResumeProblems = WRITE [StreamNotFound, GroupNotFound];
}

/// Resumes a group that was paused.
#[utoipa::path(
    post, path = "/v1/streams/{name}/groups/{group}/resume", operation_id = "resumeGroup", tag = "streams",
    params(
        ("name" = String, Path, description = "The name of a stream"),
        ("group" = String, Path, description = "The name of a consumer group"),
        Carrying,
    ),
    responses(
        (status = 200, description = "The cursors", body = GroupChanged),
        ResumeProblems,
    ),
)]
pub(super) async fn resume(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
    Path((stream, group)): Path<(String, String)>,
) -> Result<Response, Failure> {
    shared.set_paused(&uri, &headers, stream, group, false).await
}

problems! {
    FetchProblems = READ [StreamNotFound, GroupNotFound, PartitionNotFound, OffsetDeleted];
}

/// Reads records from the cursors of a group.
///
/// What was fetched and not committed is fetched again.
#[utoipa::path(
    get, path = "/v1/streams/{name}/groups/{group}/records", operation_id = "fetchRecords", tag = "streams",
    params(
        ("name" = String, Path, description = "The name of a stream"),
        ("group" = String, Path, description = "The name of a consumer group"),
        ("partition" = Option<u32>, Query, description = "Only this partition"),
        ("limit" = Option<u64>, Query, description = "How many at the most; 100 when it is left out",
            minimum = 1, maximum = 10_000),
        ("priority" = Option<u8>, Query, description = "The least priority of the records to tell", maximum = 4),
        Freshness,
    ),
    responses(
        (status = 200, description = "The records", body = FetchAnswer),
        FetchProblems,
    ),
)]
pub(super) async fn fetch(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    Path((name, group)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let known = ["partition", "limit", "priority", "consistency", "min_revision"];
    let query = Query::parse(uri.query(), &known)?;
    let only: Option<u32> = query.value("partition", "the number of a partition")?;
    let wanted = Wanted {
        limit: query.limit(LIMIT_DEFAULT, LIMIT_MAX)?,
        priority: priority(&query)?,
    };
    let options = shared.read_options(Read::of(&query, &uri)?);
    let _admitted = shared.admit(BYTES_MAX)?;
    let (view, group) = shared.group(&name, &group, options, &uri).await?;
    if let Some(partition) = only {
        partition_of(&view, partition)?;
    }
    let mut answer = FetchAnswer {
        batches: Vec::new(),
        paused: group.paused,
        missed: 0,
    };
    if group.paused {
        return Ok(json(&answer));
    }
    let mut left = wanted.limit;
    for (partition, cursor) in (0..).zip(&group.cursors) {
        if left == 0 || only.is_some_and(|only| only != partition) {
            continue;
        }
        let first = partition_of(&view, partition)?.first;
        answer.missed += first.since(*cursor);
        let place = Place {
            view: &view,
            partition,
            since: WallTime::default(),
        };
        let wanted = Wanted {
            limit: left,
            ..wanted
        };
        let page = shared.page(place, first.max(*cursor), wanted, options).await?;
        left -= page.records.len();
        if page.next > first.max(*cursor) {
            answer.batches.push(TailBatch {
                stream: view.name.clone(),
                stream_id: view.id.0.0,
                partition,
                records: page.records,
                next_offset: page.next.0,
            });
        }
    }
    Ok(json(&answer))
}

impl Shared {
    async fn groups(&self, stream: &str, options: ReadOptions, uri: &Uri) -> Result<StreamGroups, Failure> {
        self.until_leader(options.deadline, false, || {
            self.backend.stream_groups(stream, options)
        })
        .await
        .map_err(|error| misdirected(error, uri))?
        .ok_or_else(|| problem(StreamRefusal::NoSuchStream).into())
    }

    async fn group(
        &self,
        stream: &str,
        group: &str,
        options: ReadOptions,
        uri: &Uri,
    ) -> Result<(StreamView, GroupView), Failure> {
        let (view, groups) = self.groups(stream, options, uri).await?;
        let found = groups.into_iter().find(|found| found.name == group);
        let found = found.ok_or_else(|| Failure::from(problem(StreamRefusal::NoSuchGroup)))?;
        Ok((view, found))
    }

    async fn set_paused(
        &self,
        uri: &Uri,
        headers: &HeaderMap,
        stream: String,
        group: String,
        paused: bool,
    ) -> Result<Response, Failure> {
        let query = Query::parse(uri.query(), &["redirect"])?;
        let change = Change::read(&query, headers, uri)?;
        let command = StreamCommand::Pause {
            stream,
            group,
            paused,
        };
        self.change_group(command, change, StatusCode::OK).await
    }

    async fn change_group(
        &self,
        command: StreamCommand,
        change: Change<'_>,
        status: StatusCode,
    ) -> Result<Response, Failure> {
        let _admitted = self.admit(0)?;
        match self.change(Command::Stream(command), change).await? {
            Reply::Stream(StreamReply::Group { cursors, paused }) => {
                Ok(json_with(status, &words::group_changed(&cursors, paused)))
            }
            _ => Err(Failure::unexpected_reply()),
        }
    }
}
