//! Records of event streams in JSON: `value`, `key` and `id` as text, or with `_base64` at the end of their names.

use std::borrow::Cow;

use bytes::Bytes;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::text::{bytes_of, optional_bytes_of, text_or_base64};

/// A record to append.
///
/// In JSON: `value`, `key` and `id` as text, or with `_base64` at the end of their names; `priority` from 0 (batch) to 4
/// (critical), 2 when it is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewRecord {
    /// What it says.
    pub value: Bytes,
    /// Records of one key are in one partition, in the order of their appends.
    pub key: Option<Bytes>,
    /// Tells the message from others: a message that was appended already is not appended again.
    pub id: Option<Bytes>,
    /// From 0 to 4; none for 2.
    pub priority: Option<u8>,
}

impl NewRecord {
    /// A record of this value alone.
    pub fn new(value: impl Into<Bytes>) -> NewRecord {
        NewRecord {
            value: value.into(),
            ..NewRecord::default()
        }
    }
}

/// A record of a stream: a [`NewRecord`] in JSON, with `offset` and `time_ms`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamRecord {
    /// Its place in its partition.
    pub offset: u64,
    /// When it was appended, in milliseconds since 1970; never less than the record before it.
    pub time_ms: u64,
    /// What was appended.
    pub record: NewRecord,
}

/// Declares how a record looks in JSON: the fields that the stream gives it, and then those that it is appended with.
macro_rules! record_json {
    ($(#[$attribute:meta])* $name:ident { $($(#[$documentation:meta])* $given:ident: $type:ty,)* }) => {
        #[derive(Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
        $(#[$attribute])*
        struct $name<'a> {
            $($(#[$documentation])* $given: $type,)*
            /// What it says, when that is UTF-8.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            value: Option<Cow<'a, str>>,
            /// What it says as base64, when it is not.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            value_base64: Option<String>,
            /// Records of one key are in one partition, in the order of their appends.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            key: Option<Cow<'a, str>>,
            /// The key as base64, when it is not UTF-8.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            key_base64: Option<String>,
            /// Tells the message from others: a message that was appended already is not appended again.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            id: Option<Cow<'a, str>>,
            /// The id as base64, when it is not UTF-8.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            id_base64: Option<String>,
            /// From 0 (batch) to 4 (critical); 2 when it is left out.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            #[cfg_attr(feature = "schema", schema(maximum = 4))]
            priority: Option<u8>,
        }

        impl $name<'_> {
            fn of(record: &NewRecord, $($given: $type),*) -> $name<'_> {
                let (value, value_base64) = text_or_base64(&record.value);
                let (key, key_base64) = record.key.as_deref().map_or((None, None), text_or_base64);
                let (id, id_base64) = record.id.as_deref().map_or((None, None), text_or_base64);
                let priority = record.priority;
                $name { $($given,)* value, value_base64, key, key_base64, id, id_base64, priority }
            }

            fn record(self) -> Result<NewRecord, String> {
                Ok(NewRecord {
                    value: bytes_of("value", self.value, self.value_base64)?,
                    key: optional_bytes_of("key", self.key, self.key_base64)?,
                    id: optional_bytes_of("id", self.id, self.id_base64)?,
                    priority: self.priority,
                })
            }
        }
    };
}

record_json! {
    #[cfg_attr(feature = "schema", schema(description = "A record to append."))]
    #[serde(deny_unknown_fields)]
    NewRecordJson {}
}

record_json! {
    #[cfg_attr(feature = "schema", schema(description = "A record of a stream."))]
    StreamRecordJson {
        /// Its place in its partition.
        offset: u64,
        /// When it was appended, in milliseconds since 1970; never less than the record before it.
        time_ms: u64,
    }
}

looks_as!(NewRecord, NewRecordJson);
looks_as!(StreamRecord, StreamRecordJson);

impl Serialize for NewRecord {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        NewRecordJson::of(self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for NewRecord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<NewRecord, D::Error> {
        let json = NewRecordJson::deserialize(deserializer)?;
        json.record().map_err(D::Error::custom)
    }
}

impl Serialize for StreamRecord {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        StreamRecordJson::of(&self.record, self.offset, self.time_ms).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for StreamRecord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<StreamRecord, D::Error> {
        let json = StreamRecordJson::deserialize(deserializer)?;
        Ok(StreamRecord {
            offset: json.offset,
            time_ms: json.time_ms,
            record: json.record().map_err(D::Error::custom)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_text_where_they_can_be_and_base64_where_not() {
        let record = StreamRecord {
            offset: 7,
            time_ms: 1_700_000_000_000,
            record: NewRecord {
                value: Bytes::from_static(b"\xff"),
                key: Some(Bytes::from_static(b"k")),
                id: None,
                priority: Some(4),
            },
        };
        let json = serde_json::to_value(&record).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"offset": 7, "time_ms": 1_700_000_000_000_u64, "value_base64": "/w==", "key": "k", "priority": 4})
        );
        assert_eq!(serde_json::from_value::<StreamRecord>(json).unwrap(), record);
    }

    #[test]
    fn a_record_to_append_has_a_value_and_no_offset() {
        let read = |text: &str| serde_json::from_str::<NewRecord>(text);
        assert_eq!(read(r#"{"value": "v"}"#).unwrap(), NewRecord::new("v"));
        assert!(read(r#"{"key": "k"}"#).is_err());
        assert!(read(r#"{"value": "v", "offset": 3}"#).is_err());
    }

    #[test]
    fn a_misspelt_field_of_a_record_to_append_is_named() {
        let error = serde_json::from_str::<NewRecord>(r#"{"value": "v", "prority": 3}"#).unwrap_err();
        assert!(
            error.to_string().starts_with("unknown field `prority`"),
            "{error}"
        );
    }
}
