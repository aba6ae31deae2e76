//! Appending records, and reading them: `/v1/streams/{name}/records`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use http::{HeaderMap, Uri};
use quorate_api::{AppendAnswer, AppendRequest, NewRecord, RecordsAnswer, StreamRecord};
use quorate_core::WallTime;
use quorate_core::state::{
    self, Append, Command, Offset, PRIORITY_MAX, PartitionView, Reply, StreamCommand, StreamRefusal,
    StreamReply, StreamView,
};

use super::super::Shared;
use super::super::answer::{Failure, json};
use super::super::backend::{BackendError, Oversized, ReadOptions};
use super::super::openapi::parameters::{Carrying, Freshness};
use super::super::openapi::problems::problems;
use super::super::query::Query;
use super::super::requests::{Change, Read};
use super::{offset_deleted, problem, words};
use crate::port::wall_time;

/// Records in an answer that names no limit, and the most it may name.
const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 10_000;
/// Bytes of records that one answer has, about; at least a batch.
pub(super) const BYTES_MAX: usize = 1 << 20;
/// The priority of a record that names none.
const PRIORITY_DEFAULT: u8 = 2;

problems! {
    AppendProblems = WRITE BODY [ValueTooLarge, StreamNotFound, PartitionNotFound];
}

/// Appends records, all or none.
///
/// They are on the disks of a majority when it answers. A message id that was appended already is a duplicate and is
/// not appended again.
#[utoipa::path(
    post, path = "/v1/streams/{name}/records", operation_id = "appendRecords", tag = "streams",
    params(
        ("name" = String, Path, description = "The name of a stream"),
        Carrying,
    ),
    request_body(content = AppendRequest),
    responses(
        (status = 200, description = "Where the records are", body = AppendAnswer),
        AppendProblems,
    ),
)]
pub(super) async fn append(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
    Path(name): Path<String>,
    body: Body,
) -> Result<Response, Failure> {
    let query = Query::parse(uri.query(), &["redirect"])?;
    let change = Change::read(&query, &headers, &uri)?;
    let limit = shared.limits.transaction_bytes;
    let (bytes, _admitted) = shared.body(body, &headers, Oversized::Body, limit).await?;
    let request: AppendRequest = serde_json::from_slice(&bytes).map_err(|error| {
        Failure::bad_request(
            format!("the body is not the expected JSON: {error}"),
            r#"expected {"records": [{"value": "hello"}]}, with key, id and priority for each as needed"#,
        )
    })?;
    drop(bytes);
    let most = shared.limits.value_bytes;
    if request.records.iter().any(|record| record.value.len() > most) {
        return Err(Failure::too_large(Oversized::Value, most));
    }
    let append = Append {
        stream: name,
        partition: request.partition,
        time: wall_time(&*shared.clock),
        records: request.records.into_iter().map(new_record).collect(),
    };
    let command = Command::Stream(StreamCommand::Append(append));
    match shared.change(command, change).await? {
        Reply::Stream(StreamReply::Appended { runs }) => Ok(json(&AppendAnswer {
            placed: runs.iter().map(words::placed).collect(),
        })),
        _ => Err(Failure::unexpected_reply()),
    }
}

fn new_record(record: NewRecord) -> state::NewRecord {
    state::NewRecord {
        key: record.key,
        id: record.id,
        priority: record.priority.unwrap_or(PRIORITY_DEFAULT),
        value: record.value,
    }
}

/// Where reading begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    First,
    Next,
    Offset(Offset),
    Time(WallTime),
}

impl From {
    pub(super) const PARAMETERS: [&'static str; 2] = ["from", "from_time_ms"];

    pub(super) fn of(query: &Query<'_>, default: From) -> Result<From, Failure> {
        let time: Option<u64> = query.value("from_time_ms", "milliseconds since 1970-01-01 00:00 UTC")?;
        match (query.bytes("from"), time) {
            (Some(_), Some(_)) => Err(Failure::bad_request(
                "the request says in two ways where to begin",
                "give `from=` or `from_time_ms=`",
            )),
            (None, Some(time)) => Ok(From::Time(WallTime(time))),
            (None, None) => Ok(default),
            (Some(b"first"), None) => Ok(From::First),
            (Some(b"next"), None) => Ok(From::Next),
            (Some(_), None) => {
                let offset = query.value("from", "an offset, first or next")?;
                Ok(offset.map_or(default, |offset| From::Offset(Offset(offset))))
            }
        }
    }
}

/// The least priority of the records to tell.
pub(super) fn priority(query: &Query<'_>) -> Result<u8, Failure> {
    let expected = format!("a priority from 0 to {PRIORITY_MAX}");
    let found = query.value("priority", &expected)?.unwrap_or_default();
    if found > PRIORITY_MAX {
        let detail = format!("the parameter `priority` is {found}");
        return Err(Failure::bad_request(detail, format!("expected {expected}")));
    }
    Ok(found)
}

problems! {
    ReadProblems = READ [StreamNotFound, PartitionNotFound, OffsetDeleted, FutureOffset];
}

/// Reads records of a partition, from an offset or a time.
#[utoipa::path(
    get, path = "/v1/streams/{name}/records", operation_id = "readRecords", tag = "streams",
    params(
        ("name" = String, Path, description = "The name of a stream"),
        ("partition" = Option<u32>, Query, description = "The number of a partition; 0 when it is left out"),
        ("from" = Option<String>, Query, description = "An offset, `first` or `next`; `first` when it is left out"),
        ("from_time_ms" = Option<u64>, Query, description = "Only records appended at this time or later, in \
            milliseconds since 1970; not together with `from`"),
        ("limit" = Option<u64>, Query, description = "How many at the most; 100 when it is left out",
            minimum = 1, maximum = 10_000),
        ("priority" = Option<u8>, Query, description = "The least priority of the records to tell", maximum = 4),
        Freshness,
    ),
    responses(
        (status = 200, description = "The records", body = RecordsAnswer),
        ReadProblems,
    ),
)]
pub(super) async fn read(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    Path(name): Path<String>,
) -> Result<Response, Failure> {
    let [from, from_time] = From::PARAMETERS;
    let known = [
        "partition",
        from,
        from_time,
        "limit",
        "priority",
        "consistency",
        "min_revision",
    ];
    let query = Query::parse(uri.query(), &known)?;
    let partition = query
        .value("partition", "the number of a partition")?
        .unwrap_or(0);
    let wanted = Wanted {
        limit: query.limit(LIMIT_DEFAULT, LIMIT_MAX)?,
        priority: priority(&query)?,
    };
    let from = From::of(&query, From::First)?;
    let options = shared.read_options(Read::of(&query, &uri)?);
    let _admitted = shared.admit(BYTES_MAX)?;
    let view = shared.stream(&name, options, &uri).await?;
    let ends = partition_of(&view, partition)?;
    let (begins, since) = match from {
        From::First => (ends.first, WallTime::default()),
        From::Next => (ends.next, WallTime::default()),
        From::Offset(offset) => (offset, WallTime::default()),
        From::Time(time) => {
            let found = shared.backend.stream_offset_at(&name, partition, time);
            (found.unwrap_or(ends.next).clamp(ends.first, ends.next), time)
        }
    };
    let place = Place {
        view: &view,
        partition,
        since,
    };
    let mut page = shared.page(place, begins, wanted, options).await?;
    // Marks lead near a time, and not to it.
    while page.records.is_empty() && page.next < ends.next && since > WallTime::default() {
        if shared.clock.now() >= options.deadline {
            return Err(BackendError::TimedOut.into());
        }
        page = shared.page(place, page.next, wanted, options).await?;
    }
    Ok(json(&RecordsAnswer {
        records: page.records,
        next_offset: page.next.0,
        end_offset: ends.next.max(page.next).0,
    }))
}

/// What of the records of a page to tell.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    pub(super) limit: usize,
    pub(super) priority: u8,
}

/// Which records to read.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) view: &'a StreamView,
    pub(super) partition: u32,
    /// None that are older.
    pub(super) since: WallTime,
}

/// Records of a partition that follow each other, without those that nobody wants.
pub(super) struct PageOfRecords {
    pub(super) records: Vec<StreamRecord>,
    /// Where to go on.
    pub(super) next: Offset,
}

pub(super) fn partition_of(view: &StreamView, partition: u32) -> Result<PartitionView, Failure> {
    let found = view.partitions.get(partition as usize).copied();
    found.ok_or_else(|| {
        let partitions = view.settings.partitions;
        problem(StreamRefusal::NoSuchPartition {
            partition,
            partitions,
        })
        .into()
    })
}

impl Shared {
    /// Records from an offset on.
    pub(super) async fn page(
        &self,
        place: Place<'_>,
        from: Offset,
        wanted: Wanted,
        options: ReadOptions,
    ) -> Result<PageOfRecords, Failure> {
        let Place {
            view,
            partition,
            since,
        } = place;
        let ends = partition_of(view, partition)?;
        if from < ends.first {
            return Err(offset_deleted(&view.name, partition, from.0, ends.first.0).into());
        }
        if from > ends.next {
            let ahead = StreamRefusal::CursorAhead {
                partition,
                offset: from,
                next: ends.next,
            };
            return Err(problem(ahead).into());
        }
        let mut page = PageOfRecords {
            records: Vec::new(),
            next: from,
        };
        if from == ends.next {
            return Ok(page);
        }
        let read = self
            .backend
            .records(view.id, partition, from, BYTES_MAX, options.deadline);
        let batches = read.await?;
        match batches.first() {
            Some(batch) if batch.first <= from => {}
            Some(batch) => return Err(offset_deleted(&view.name, partition, from.0, batch.first.0).into()),
            // Retention dropped all of them after this node looked at the stream.
            None => return Err(offset_deleted(&view.name, partition, from.0, ends.next.0).into()),
        }
        let mut bytes = 0;
        for batch in &batches {
            for (offset, record) in batch.records_from(from) {
                if page.records.len() >= wanted.limit {
                    break;
                }
                page.next = offset.plus(1);
                if record.priority >= wanted.priority && batch.time >= since {
                    bytes += record.bytes();
                    page.records.push(words::record(batch, offset, record));
                }
            }
        }
        self.bytes_out.add(view.id, bytes);
        Ok(page)
    }
}
