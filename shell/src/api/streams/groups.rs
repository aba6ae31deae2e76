//! Consumer groups: `/v1/streams/{name}/groups`.
//!
//! A group fetches from its cursors, which move when it commits: what was fetched and not committed is fetched again.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode, Uri};
use quorate_api::{
    CommitRequest, CreateGroup, FetchAnswer, GroupDeleted, GroupStart, GroupsAnswer, TailBatch,
};
use quorate_core::WallTime;
use quorate_core::state::{
    Command, GroupView, Offset, Reply, Start, StreamCommand, StreamRefusal, StreamReply, StreamView,
};

use super::super::Shared;
use super::super::answer::{Failure, json, json_with};
use super::super::backend::{ReadOptions, StreamGroups};
use super::super::query::Query;
use super::super::requests::{Change, Read, misdirected};
use super::records::{BYTES_MAX, Place, Wanted, partition_of, priority};
use super::{problem, words};

/// Records of a partition that a fetch answers which names no limit, and the most it may name.
const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 10_000;

/// `GET /v1/streams/{name}/groups`
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

/// `POST /v1/streams/{name}/groups`
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

/// `GET /v1/streams/{name}/groups/{group}`
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

/// `DELETE /v1/streams/{name}/groups/{group}`
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

/// `POST /v1/streams/{name}/groups/{group}/commit`
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

/// `POST /v1/streams/{name}/groups/{group}/pause`
pub(super) async fn pause(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
    Path((stream, group)): Path<(String, String)>,
) -> Result<Response, Failure> {
    shared.set_paused(&uri, &headers, stream, group, true).await
}

/// `POST /v1/streams/{name}/groups/{group}/resume`
pub(super) async fn resume(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
    Path((stream, group)): Path<(String, String)>,
) -> Result<Response, Failure> {
    shared.set_paused(&uri, &headers, stream, group, false).await
}

/// `GET /v1/streams/{name}/groups/{group}/records`
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
