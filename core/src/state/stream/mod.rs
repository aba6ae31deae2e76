//! Event streams: append-only records with dense offsets, kept until retention drops them.
//!
//! A stream has one or more partitions; a partition is a sequence of records whose offsets begin at 0 and have no gap.
//! The records themselves are never held in memory: an append yields one [row](RecordBatch) a partition, which a driver
//! writes behind and reads again from its disk. What is here is what decides: where partitions begin and end, how many
//! bytes they have, which message ids were seen lately, and how far consumer groups are.
//!
//! | file | what it is |
//! |---|---|
//! | [`command`] | what the log asks, what is answered, and why something is refused |
//! | [`record`] | records as rows |
//! | [`partition`] | where a partition begins and ends, and its marks |
//! | [`duplicates`] | the message ids that were seen lately |
//! | [`table`] | all streams, and the commands at work on them |
//! | [`view`] | what a reader sees of them |
//! | [`restore`] | streams made of their rows |
//!
//! Invariants:
//! - offsets of a partition are dense: `first <= next`, every record from `first` to `next` is in one row, and no offset
//!   is given twice;
//! - marks cover a partition from `first` to `next` without a gap, and begin and end where rows do;
//! - the times of a partition's records do not go back;
//! - the cursor of a group is never beyond `next`.

mod command;
mod duplicates;
mod partition;
mod record;
mod restore;
mod table;
mod view;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::raft::Index;

pub use command::{
    Append, Cut, DuplicateWindow, NewRecord, Policy, Run, Start, StreamCommand, StreamMalformed,
    StreamRefusal, StreamReply, StreamRetention, StreamSettings,
};
pub use partition::Dropped;
pub(super) use partition::{Mark, PartitionRow};
pub use record::{Record, RecordBatch, record_key};
pub(super) use record::{TABLE_RECORDS, is_record_key, split_record_key};
pub(super) use table::{GroupRow, IdsRow, StreamRow, StreamTable};
pub use view::{GroupView, PartitionEnds, PartitionView, StreamView};

/// Names a stream for ever: the index of the entry that created it. A name may be used again, an id never is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StreamId(pub Index);

impl fmt::Display for StreamId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// The place of a record in its partition, from 0 on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Offset(pub u64);

impl Offset {
    /// The offset so many records later.
    #[must_use]
    pub fn plus(self, records: u64) -> Offset {
        Offset(self.0.saturating_add(records))
    }

    /// How many records lie between `earlier` and this offset; none when it is later.
    pub fn since(self, earlier: Offset) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// How many streams there may be.
pub const STREAMS_MAX: usize = 10_000;
/// How many partitions a stream may have.
pub const PARTITIONS_MAX: u32 = 256;
/// How many partitions all streams may have together.
pub const ALL_PARTITIONS_MAX: usize = 65_536;
/// How many consumer groups a stream may have.
pub const GROUPS_MAX: usize = 1_024;
/// How many records one append may have.
pub const APPEND_RECORDS_MAX: usize = 10_000;
/// How long the name of a stream or a group may be, in bytes.
pub const STREAM_NAME_BYTES_MAX: usize = 128;
/// How long a message id may be, in bytes.
pub const MESSAGE_ID_BYTES_MAX: usize = 128;
/// How long the key of a record may be, in bytes.
pub const RECORD_KEY_BYTES_MAX: usize = 1_024;
/// The highest priority; 0 is the lowest.
pub const PRIORITY_MAX: u8 = 4;
/// How many message ids a stream remembers at the most.
pub const DUPLICATES_MAX: u32 = 1 << 20;

/// Whether a stream or a group may have this name: it stands in paths and in lists.
pub fn is_stream_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:".contains(&byte);
    (1..=STREAM_NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(plain)
        && name != "."
        && name != ".."
}
