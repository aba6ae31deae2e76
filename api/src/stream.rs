//! Event streams in JSON.

use serde::{Deserialize, Serialize};

use crate::{NewRecord, StreamRecord};

/// The content type of a tail that is a line of JSON an event.
pub const LINES_CONTENT_TYPE: &str = "application/x-ndjson";

/// The kinds of events of a tail, as server-sent events or in the field `event` of a line.
pub mod tail_events {
    /// A batch of records: a [`TailBatch`](crate::TailBatch).
    pub const RECORDS: &str = "records";
    /// Nothing is new: a [`TailMark`](crate::TailMark).
    pub const PROGRESS: &str = "progress";
    /// The last one: a [`Problem`](crate::Problem) that says why.
    pub const CANCEL: &str = "cancel";
}

/// The body of `POST /v1/streams`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateStream {
    /// The name: letters, digits, dots, colons, dashes and underscores.
    pub name: String,
    /// How many partitions, 1 by default; never changes.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub partitions: u32,
    /// What is kept; everything without it.
    #[serde(default, skip_serializing_if = "StreamRetention::is_unbounded")]
    pub retention: StreamRetention,
    /// Within what a repeated message id is a duplicate; the last 65,536 ids of two minutes without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duplicates: Option<DuplicateWindow>,
}

fn one() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_one(number: &u32) -> bool {
    *number == 1
}

/// What a stream keeps, all partitions together. Whole batches go, the oldest first; for a bound on bytes or records, as
/// long as what is left reaches it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct StreamRetention {
    /// How old a record may become, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_ms: Option<u64>,
    /// How many bytes of records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// How many records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records: Option<u64>,
}

impl StreamRetention {
    /// Whether everything is kept.
    pub fn is_unbounded(&self) -> bool {
        *self == StreamRetention::default()
    }
}

/// Within what a repeated message id is a duplicate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct DuplicateWindow {
    /// How many ids are remembered; 0 for none.
    pub count: u32,
    /// For how long, in milliseconds.
    pub age_ms: u64,
}

/// A stream: what creating, describing and listing answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct StreamInfo {
    /// Its name.
    pub name: String,
    /// Tells it from earlier and later streams of this name.
    pub id: u64,
    /// What is kept.
    pub retention: StreamRetention,
    /// Within what a repeated message id is a duplicate.
    pub duplicates: DuplicateWindow,
    /// How many records it holds.
    pub records: u64,
    /// How many bytes they have.
    pub bytes: u64,
    /// The bytes of all records that were ever appended.
    pub bytes_in: u64,
    /// The bytes of records that the answering node has given to readers since it started.
    pub bytes_out: u64,
    /// What was dropped, by the bound of retention that wanted it.
    pub deleted: DeletedByPolicy,
    /// Its partitions.
    pub partitions: Vec<PartitionInfo>,
    /// The names of its consumer groups.
    pub groups: Vec<String>,
}

/// A partition of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct PartitionInfo {
    /// Its number, from 0.
    pub partition: u32,
    /// The first offset that is kept.
    pub first_offset: u64,
    /// The offset of the next record.
    pub next_offset: u64,
    /// The bytes of its records.
    pub bytes: u64,
    /// When the last record was appended, in milliseconds since 1970; 0 when there was none.
    pub last_time_ms: u64,
}

/// What retention dropped, by policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct DeletedByPolicy {
    /// Since it was too old.
    pub age: Deleted,
    /// Since there were too many bytes.
    pub bytes: Deleted,
    /// Since there were too many records.
    pub records: Deleted,
}

/// Records that are gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Deleted {
    /// How many.
    pub records: u64,
    /// How many bytes they had.
    pub bytes: u64,
}

/// The answer to `GET /v1/streams`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct StreamsAnswer {
    /// The streams, by name.
    pub streams: Vec<StreamInfo>,
    /// Whether there are more; go on with `after=` and the last name.
    pub more: bool,
}

/// The answer to `DELETE /v1/streams/{name}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct StreamDeleted {
    /// How many records it had.
    pub records: u64,
    /// How many bytes they had.
    pub bytes: u64,
}

/// The body of `POST /v1/streams/{name}/records`: records to append, all or none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct AppendRequest {
    /// The records, in order.
    pub records: Vec<NewRecord>,
    /// The partition of all of them; without it a record's key says it, and records without a key go where the fewest
    /// are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<u32>,
}

/// The answer to an append.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct AppendAnswer {
    /// Where the records are, in the order of the request.
    pub placed: Vec<Placed>,
}

/// Some records of an append that follow each other in the request and in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Placed {
    /// The partition.
    pub partition: u32,
    /// The offset of the first one.
    pub first_offset: u64,
    /// How many there are.
    pub count: u32,
    /// They were in the stream already, by their message ids.
    pub duplicate: bool,
}

/// The answer to `GET /v1/streams/{name}/records`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct RecordsAnswer {
    /// The records.
    pub records: Vec<StreamRecord>,
    /// Where to go on.
    pub next_offset: u64,
    /// The offset of the next record that will be appended: there is more while `next_offset` is below it.
    pub end_offset: u64,
}

/// A consumer group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct GroupInfo {
    /// Its name.
    pub name: String,
    /// Whether it gets nothing for now.
    pub paused: bool,
    /// How far it is in each partition.
    pub cursors: Vec<GroupCursor>,
}

/// How far a group is in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct GroupCursor {
    /// The partition.
    pub partition: u32,
    /// The next offset to consume.
    pub next_offset: u64,
    /// How many records are kept that the group has not consumed.
    pub behind: u64,
}

/// The answer to `GET /v1/streams/{name}/groups`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct GroupsAnswer {
    /// The groups, by name.
    pub groups: Vec<GroupInfo>,
}

/// The body of `POST /v1/streams/{name}/groups`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CreateGroup {
    /// The name.
    pub name: String,
    /// Where it begins; with the first record that is kept by default.
    #[serde(default)]
    pub start: GroupStart,
}

/// Where a group begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum GroupStart {
    /// With the first record that is kept.
    #[default]
    First,
    /// With the next record that is appended.
    Next,
}

/// The body of `POST /v1/streams/{name}/groups/{group}/commit`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CommitRequest {
    /// The next offset to consume of some partitions; the others stay.
    pub cursors: Vec<CommitCursor>,
}

/// A part of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CommitCursor {
    /// The partition.
    pub partition: u32,
    /// The next offset to consume: one more than that of the last record that was.
    pub next_offset: u64,
}

/// The answer to a group's `commit`, `pause` and `resume`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct GroupChanged {
    /// The next offset to consume of each partition.
    pub cursors: Vec<CommitCursor>,
    /// Whether it gets nothing for now.
    pub paused: bool,
}

/// The answer to `DELETE /v1/streams/{name}/groups/{group}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct GroupDeleted {
    /// Its name.
    pub deleted: String,
}

/// The answer to `GET /v1/streams/{name}/groups/{group}/records`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct FetchAnswer {
    /// Records of each partition that has some, from the group's cursor on. Fetching again gives them again, until they
    /// are committed.
    pub batches: Vec<TailBatch>,
    /// Whether the group is paused, and therefore gets nothing.
    pub paused: bool,
    /// How many records retention dropped that the group had not consumed.
    pub missed: u64,
}

/// Records of a partition that follow each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct TailBatch {
    /// The stream.
    pub stream: String,
    /// Its id: another stream of the same name has another.
    pub stream_id: u64,
    /// The partition.
    pub partition: u32,
    /// The records; those that a filter leaves out are missing.
    pub records: Vec<StreamRecord>,
    /// Where to go on.
    pub next_offset: u64,
}

/// Where a tail is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct TailMark {
    /// Where to go on, for all partitions that are followed.
    pub positions: Vec<TailPosition>,
}

/// Where a tail is in a partition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct TailPosition {
    /// The stream.
    pub stream: String,
    /// Its id.
    pub stream_id: u64,
    /// The partition.
    pub partition: u32,
    /// The next offset to tell.
    pub next_offset: u64,
}

/// A line of a tail as JSON lines: what happened, and its data beside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum TailLine {
    /// New records.
    Records(TailBatch),
    /// Nothing is new.
    Progress(TailMark),
    /// The tail ends.
    Cancel(crate::Problem),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_it_is() {
        let line = TailLine::Records(TailBatch {
            stream: "s".to_owned(),
            stream_id: 9,
            partition: 0,
            records: Vec::new(),
            next_offset: 3,
        });
        let json = serde_json::to_value(&line).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"event": "records", "stream": "s", "stream_id": 9, "partition": 0, "records": [], "next_offset": 3})
        );
        assert_eq!(serde_json::from_value::<TailLine>(json).unwrap(), line);
    }
}
