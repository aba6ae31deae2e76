//! What the log asks of streams, what is answered, and why something is refused.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::super::fingerprint::digest;
use super::super::{Command, Refusal};
use super::{Offset, StreamId};
use crate::raft::Term;
use crate::time::WallTime;

/// A change of streams. The order of the variants is part of the format: new ones go to the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StreamCommand {
    /// Make a stream.
    Create {
        /// Its name.
        name: String,
        /// How it is kept.
        settings: StreamSettings,
    },
    /// Remove a stream, its records and its groups.
    Delete {
        /// Its name.
        name: String,
    },
    /// Append records.
    Append(Append),
    /// Drop what retention no longer keeps, since a leader found it so by its clock; it counts in that leader's term only.
    Trim {
        /// The term of that leader.
        term: Term,
        /// What goes.
        cuts: Vec<Cut>,
        /// Streams that forget the message ids of appends before an entry.
        forget: Vec<(StreamId, crate::raft::Index)>,
    },
    /// Make a consumer group.
    CreateGroup {
        /// The stream.
        stream: String,
        /// The group's name.
        group: String,
        /// Where it begins.
        start: Start,
    },
    /// Remove a consumer group.
    DeleteGroup {
        /// The stream.
        stream: String,
        /// The group's name.
        group: String,
    },
    /// A group has done everything before some offsets. It may also go back.
    Commit {
        /// The stream.
        stream: String,
        /// The group's name.
        group: String,
        /// The next offset to consume, by partition; others stay.
        cursors: Vec<(u32, Offset)>,
    },
    /// A group gets nothing until it is resumed, or gets records again.
    Pause {
        /// The stream.
        stream: String,
        /// The group's name.
        group: String,
        /// Whether it pauses.
        paused: bool,
    },
}

/// How a stream is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamSettings {
    /// How many partitions it has, from 1 on; never changes.
    pub partitions: u32,
    /// What is dropped when.
    pub retention: StreamRetention,
    /// For how long message ids suppress duplicates.
    pub duplicates: DuplicateWindow,
}

/// What a stream keeps, all partitions together. Whole batches go, the oldest first; for a bound on bytes or records, as
/// long as what is left reaches it. None is without a bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamRetention {
    /// How old a record may become.
    pub age: Option<Duration>,
    /// How many bytes of records.
    pub bytes: Option<u64>,
    /// How many records.
    pub records: Option<u64>,
}

/// Within what a repeated message id is a duplicate: the last `count` ids, none older than `age`. Both bounds are kept
/// by whole appends, so that a few more may be remembered, and never fewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DuplicateWindow {
    /// How many ids; 0 for none.
    pub count: u32,
    /// How old they may become.
    pub age: Duration,
}

/// Records to append, all or none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Append {
    /// The stream.
    pub stream: String,
    /// The partition of all of them; none to place them by their keys, and those without a key where the fewest are.
    pub partition: Option<u32>,
    /// When the request came in, by the wall clock of the node that took it. A partition's time never goes back,
    /// whatever this says. It does not make a request another one.
    pub time: WallTime,
    /// The records, in order; at least one.
    pub records: Vec<NewRecord>,
}

/// A record to append.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewRecord {
    /// Records of one key are in one partition, in the order of their appends.
    pub key: Option<Bytes>,
    /// Tells the message from others; one that was seen is not appended again.
    pub id: Option<Bytes>,
    /// From 0 to [`PRIORITY_MAX`](super::PRIORITY_MAX).
    pub priority: u8,
    /// What it says.
    pub value: Bytes,
}

/// Where a group begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Start {
    /// With the first record that is kept.
    First,
    /// With the next record that is appended.
    Next,
}

/// Records that go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// The stream.
    pub stream: StreamId,
    /// The partition.
    pub partition: u32,
    /// All before this offset, as far as that is where a mark ends.
    pub before: Offset,
    /// What is to account for it.
    pub policy: Policy,
}

/// A bound of retention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Policy {
    /// [`StreamRetention::age`]
    Age,
    /// [`StreamRetention::bytes`]
    Bytes,
    /// [`StreamRetention::records`]
    Records,
}

/// What came of a change of streams. The order of the variants is part of the format: new ones go to the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StreamReply {
    /// There is a new stream.
    Created {
        /// Its id.
        id: StreamId,
    },
    /// The stream is gone.
    Deleted {
        /// How many records it had.
        records: u64,
        /// How many bytes they had.
        bytes: u64,
    },
    /// The records are in the stream.
    Appended {
        /// Where they are, in the order of the request.
        runs: Vec<Run>,
    },
    /// Records and message ids were dropped.
    Trimmed {
        /// How many records.
        records: u64,
        /// How many bytes they had.
        bytes: u64,
        /// How many message ids.
        ids: u64,
    },
    /// The group was made or changed, and is so now.
    Group {
        /// The next offset to consume of each partition.
        cursors: Vec<Offset>,
        /// Whether it is paused.
        paused: bool,
    },
    /// The group is gone.
    GroupDeleted,
}

/// Some records of an append that follow each other in the request and in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The partition.
    pub partition: u32,
    /// The offset of the first one.
    pub first: Offset,
    /// How many there are.
    pub count: u32,
    /// They were in the stream already, by their message ids.
    pub duplicate: bool,
}

/// Why streams did not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum StreamRefusal {
    /// The command makes no sense.
    #[error(transparent)]
    Malformed(#[from] StreamMalformed),
    /// There is no such stream.
    #[error("there is no stream of this name")]
    NoSuchStream,
    /// A stream of this name exists.
    #[error("there is a stream of this name already")]
    StreamExists,
    /// There are as many streams or partitions as there may be.
    #[error("there are too many streams or partitions: delete some that nobody needs")]
    TooManyStreams,
    /// The stream has fewer partitions.
    #[error("there is no partition {partition}: the stream has {partitions}, counted from 0")]
    NoSuchPartition {
        /// The one that was named.
        partition: u32,
        /// How many there are.
        partitions: u32,
    },
    /// There is no such group.
    #[error("the stream has no consumer group of this name")]
    NoSuchGroup,
    /// A group of this name exists.
    #[error("the stream has a consumer group of this name already")]
    GroupExists,
    /// The stream has as many groups as it may have.
    #[error("the stream has too many consumer groups: delete some that nobody needs")]
    TooManyGroups,
    /// A cursor cannot be beyond the end of its partition.
    #[error("offset {offset} of partition {partition} was not appended yet: the next one is {next}")]
    CursorAhead {
        /// The partition.
        partition: u32,
        /// The offset that was named.
        offset: Offset,
        /// The next offset that will be appended.
        next: Offset,
    },
}

/// Why a change of streams makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum StreamMalformed {
    /// A name that cannot be one.
    #[error(
        "the name of a stream or a group has 1 to {} letters, digits, dots, colons, dashes and underscores",
        super::STREAM_NAME_BYTES_MAX
    )]
    Name,
    /// A stream has at least one partition and not too many.
    #[error("a stream has 1 to {} partitions", super::PARTITIONS_MAX)]
    Partitions,
    /// A bound of retention keeps something.
    #[error("a bound of retention is more than 0")]
    Retention,
    /// Too many message ids would be remembered.
    #[error("a stream remembers at most {} message ids", super::DUPLICATES_MAX)]
    Duplicates,
    /// Nothing to append, or too much at once.
    #[error("an append has 1 to {} records", super::APPEND_RECORDS_MAX)]
    Records,
    /// There is no such priority.
    #[error("the priority of a record is 0 to {}", super::PRIORITY_MAX)]
    Priority,
    /// A message id that cannot be one.
    #[error("a message id has 1 to {} bytes", super::MESSAGE_ID_BYTES_MAX)]
    MessageId,
    /// The key of a record is too long.
    #[error("the key of a record has at most {} bytes", super::RECORD_KEY_BYTES_MAX)]
    Key,
}

impl Append {
    /// A hash of what the client asked for, whenever it asked.
    pub(in crate::state) fn digest(&self) -> u64 {
        let timeless = Append {
            time: WallTime::default(),
            ..self.clone()
        };
        digest(&Command::Stream(StreamCommand::Append(timeless)).encode())
    }
}

impl NewRecord {
    /// A record of this value, with the lowest priority that is not a batch's.
    pub fn new(value: impl Into<Bytes>) -> NewRecord {
        NewRecord {
            key: None,
            id: None,
            priority: 2,
            value: value.into(),
        }
    }

    /// The bytes of its parts, which retention and accounts count.
    pub fn bytes(&self) -> u64 {
        let part = |part: &Option<Bytes>| part.as_ref().map_or(0, Bytes::len);
        (part(&self.key) + part(&self.id) + self.value.len()) as u64
    }
}

impl StreamSettings {
    /// One partition, kept for ever, with the usual window for duplicates.
    pub fn new() -> StreamSettings {
        StreamSettings {
            partitions: 1,
            retention: StreamRetention::default(),
            duplicates: DuplicateWindow::default(),
        }
    }
}

impl Default for StreamSettings {
    fn default() -> StreamSettings {
        StreamSettings::new()
    }
}

impl Default for DuplicateWindow {
    /// The last 65,536 ids of the last two minutes, within which a client has given up.
    fn default() -> DuplicateWindow {
        DuplicateWindow {
            count: 1 << 16,
            age: Duration::from_secs(120),
        }
    }
}

impl From<StreamMalformed> for Refusal {
    fn from(malformed: StreamMalformed) -> Refusal {
        Refusal::Stream(malformed.into())
    }
}
