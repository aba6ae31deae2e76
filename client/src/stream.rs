//! Event streams.

use bytes::Bytes;
use http::Method;
use quorate_api::{
    AppendAnswer, AppendRequest, CommitCursor, CommitRequest, CreateGroup, CreateStream, FetchAnswer,
    GroupChanged, GroupDeleted, GroupInfo, GroupStart, GroupsAnswer, RecordsAnswer, StreamDeleted,
    StreamInfo, StreamsAnswer,
};

use crate::client::{Client, json};
use crate::{Consistency, Error, Fresh, Parameters};

/// Where reading a partition begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadFrom {
    /// With the first record that is kept.
    #[default]
    First,
    /// After the last record.
    Next,
    /// With this offset.
    Offset(u64),
    /// With the first record of this time or later, in milliseconds since 1970.
    Time(u64),
}

impl ReadFrom {
    fn add_to(self, parameters: &mut Parameters) {
        match self {
            ReadFrom::First => {}
            ReadFrom::Next => parameters.add("from", "next"),
            ReadFrom::Offset(offset) => parameters.add("from", &offset.to_string()),
            ReadFrom::Time(time) => parameters.add("from_time_ms", &time.to_string()),
        }
    }
}

impl Client {
    /// Creates a stream.
    ///
    /// # Errors
    /// When there is a stream of this name; otherwise as [`Client::put`].
    pub async fn create_stream(&self, stream: &CreateStream) -> Result<StreamInfo, Error> {
        self.change(Method::POST, "/v1/streams", json(stream)).await
    }

    /// The streams whose names begin with `prefix` and come after `after`, by name, at most `limit` of them.
    ///
    /// # Errors
    /// When no node answers, or with what it answers.
    pub async fn streams(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: Option<u64>,
    ) -> Result<StreamsAnswer, Error> {
        let mut parameters = Parameters::of("/v1/streams".to_owned());
        if !prefix.is_empty() {
            parameters.add_bytes("prefix", prefix.as_bytes());
        }
        if let Some(after) = after {
            parameters.add_bytes("after", after.as_bytes());
        }
        parameters.add_number("limit", limit);
        self.read(parameters).await
    }

    /// A stream.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such stream, when no node answers, or with what it answers.
    pub async fn stream(&self, name: &str, consistency: Consistency) -> Result<StreamInfo, Error> {
        let mut parameters = Parameters::of(path(name, ""));
        Fresh::from(consistency).add_to(&mut parameters);
        self.read(parameters).await
    }

    /// Deletes a stream, its records and its groups.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such stream; otherwise as [`Client::put`].
    pub async fn delete_stream(&self, name: &str) -> Result<StreamDeleted, Error> {
        self.change(Method::DELETE, path(name, ""), Bytes::new()).await
    }

    /// Appends records, all or none. Records with ids may be appended again when the outcome is unknown: those that are
    /// there already are told as duplicates.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such stream; otherwise as [`Client::put`].
    pub async fn append(&self, stream: &str, records: &AppendRequest) -> Result<AppendAnswer, Error> {
        self.change(Method::POST, path(stream, "/records"), json(records))
            .await
    }

    /// Reads records of a partition, at most `limit` of them, of this priority or a higher one.
    ///
    /// # Errors
    /// [`Error::OffsetDeleted`] when retention dropped what was asked for, [`Error::NotFound`] when there is no such
    /// stream or partition, when no node answers, or with what it answers.
    pub async fn records(
        &self,
        stream: &str,
        partition: u32,
        from: ReadFrom,
        limit: Option<u64>,
        priority: Option<u8>,
    ) -> Result<RecordsAnswer, Error> {
        let mut parameters = Parameters::of(path(stream, "/records"));
        parameters.add_number("partition", Some(partition.into()));
        from.add_to(&mut parameters);
        parameters.add_number("limit", limit);
        parameters.add_number("priority", priority.map(u64::from));
        self.read(parameters).await
    }

    /// Makes a consumer group.
    ///
    /// # Errors
    /// When there is a group of this name; otherwise as [`Client::append`].
    pub async fn create_group(
        &self,
        stream: &str,
        group: &str,
        start: GroupStart,
    ) -> Result<GroupChanged, Error> {
        let body = json(&CreateGroup {
            name: group.to_owned(),
            start,
        });
        self.change(Method::POST, path(stream, "/groups"), body).await
    }

    /// The consumer groups of a stream.
    ///
    /// # Errors
    /// As [`Client::stream`].
    pub async fn groups(&self, stream: &str) -> Result<GroupsAnswer, Error> {
        self.read(path(stream, "/groups")).await
    }

    /// A consumer group.
    ///
    /// # Errors
    /// As [`Client::stream`].
    pub async fn group(&self, stream: &str, group: &str) -> Result<GroupInfo, Error> {
        self.read(group_path(stream, group, "")).await
    }

    /// Deletes a consumer group.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such stream or group; otherwise as [`Client::put`].
    pub async fn delete_group(&self, stream: &str, group: &str) -> Result<GroupDeleted, Error> {
        let path = group_path(stream, group, "");
        self.change(Method::DELETE, path, Bytes::new()).await
    }

    /// What comes next for a group, at most `limit` records, of one partition or of all. It comes again until it is
    /// committed.
    ///
    /// # Errors
    /// As [`Client::stream`].
    pub async fn fetch(
        &self,
        stream: &str,
        group: &str,
        partition: Option<u32>,
        limit: Option<u64>,
    ) -> Result<FetchAnswer, Error> {
        let mut parameters = Parameters::of(group_path(stream, group, "/records"));
        parameters.add_number("partition", partition.map(u64::from));
        parameters.add_number("limit", limit);
        self.read(parameters).await
    }

    /// Sets the next offsets that a group has to consume.
    ///
    /// # Errors
    /// When an offset is beyond the end; otherwise as [`Client::delete_group`].
    pub async fn commit(
        &self,
        stream: &str,
        group: &str,
        cursors: Vec<CommitCursor>,
    ) -> Result<GroupChanged, Error> {
        let path = group_path(stream, group, "/commit");
        self.change(Method::POST, path, json(&CommitRequest { cursors }))
            .await
    }

    /// Lets a group get nothing for now, or lets it go on.
    ///
    /// # Errors
    /// As [`Client::delete_group`].
    pub async fn pause_group(&self, stream: &str, group: &str, paused: bool) -> Result<GroupChanged, Error> {
        let path = group_path(stream, group, if paused { "/pause" } else { "/resume" });
        self.change(Method::POST, path, Bytes::new()).await
    }
}

fn path(stream: &str, rest: &str) -> String {
    format!("/v1/streams/{}{rest}", segment(stream))
}

fn group_path(stream: &str, group: &str, rest: &str) -> String {
    path(stream, &format!("/groups/{}{rest}", segment(group)))
}

/// A name as a part of a path.
pub(crate) fn segment(name: &str) -> String {
    percent_encoding::percent_encode(name.as_bytes(), percent_encoding::NON_ALPHANUMERIC).to_string()
}
