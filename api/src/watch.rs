//! What a watch tells, as server-sent events.
//!
//! A stream has events of four kinds, each with JSON as its data. The id of an event is the revision up to which
//! everything was told with it, so that a client which comes back with it as `Last-Event-ID` goes on without a gap.

use serde::{Deserialize, Serialize};

use crate::{KeyName, KeyValue};

/// The content type of a stream of server-sent events (HTML standard, section 9.2).
pub const EVENT_STREAM_CONTENT_TYPE: &str = "text/event-stream";

/// The kinds of server-sent events of a watch.
pub mod events {
    /// The first one: a [`WatchMark`](crate::WatchMark) of the revision after which the watch begins.
    pub const OPEN: &str = "open";
    /// A [`WatchChange`](crate::WatchChange).
    pub const CHANGE: &str = "change";
    /// A [`WatchMark`](crate::WatchMark): everything up to the revision was told.
    pub const PROGRESS: &str = "progress";
    /// The last one: a [`Problem`](crate::Problem) that says why.
    pub const CANCEL: &str = "cancel";
}

/// A place in the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct WatchMark {
    /// Everything up to this revision was told.
    pub revision: u64,
}

/// What became of the watched keys at one revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct WatchChange {
    /// The revision.
    pub revision: u64,
    /// The changes, in the order in which they were made.
    pub events: Vec<WatchEvent>,
    /// Whether the revision is so large that it comes in parts, and this is not the last one. Such a part has no id: a
    /// client that comes back hears of the whole revision again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
}

/// A change of one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum WatchEvent {
    /// It has a value.
    Put {
        /// The key with its value.
        entry: KeyValue,
        /// What was there before, when that was asked for and there was something.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        previous: Option<KeyValue>,
    },
    /// It is gone.
    Delete {
        /// The key.
        entry: KeyName,
        /// What was there before, when that was asked for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        previous: Option<KeyValue>,
    },
}

impl WatchEvent {
    /// The key that changed.
    pub fn key(&self) -> &[u8] {
        match self {
            WatchEvent::Put { entry, .. } => &entry.key,
            WatchEvent::Delete { entry, .. } => &entry.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_change_is_written_with_its_kind_and_read_back() {
        let change = WatchChange {
            revision: 7,
            events: vec![
                WatchEvent::Put {
                    entry: KeyValue {
                        key: Bytes::from_static(b"a"),
                        value: Bytes::from_static(b"1"),
                        create_revision: 7,
                        mod_revision: 7,
                        version: 1,
                        lease: None,
                    },
                    previous: None,
                },
                WatchEvent::Delete {
                    entry: KeyName(Bytes::from_static(b"\xff")),
                    previous: None,
                },
            ],
            partial: false,
        };
        let json = serde_json::to_value(&change).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"revision": 7, "events": [
                {"type": "put", "entry": {"key": "a", "value": "1", "create_revision": 7, "mod_revision": 7, "version": 1}},
                {"type": "delete", "entry": {"key_base64": "/w=="}},
            ]})
        );
        assert_eq!(serde_json::from_value::<WatchChange>(json).unwrap(), change);
    }
}
