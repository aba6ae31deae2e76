//! Keys and values in JSON.

use std::borrow::Cow;
use std::str::FromStr;

use bytes::Bytes;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::text::{bytes_of, text_or_base64};

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Consistency {
    /// Sees every write that was acknowledged before the read began; needs a leader with a majority.
    #[default]
    Linearizable,
    /// The same, by the leader alone while it holds a lease, which relies on clocks that drift no further than configured.
    /// Where leases are off, or the leader has none, as [`Consistency::Linearizable`].
    Lease,
    /// The state of the node that answers, which may be behind; needs nobody else.
    Serializable,
}

impl Consistency {
    /// The word for it in a query.
    pub fn as_str(self) -> &'static str {
        match self {
            Consistency::Linearizable => "linearizable",
            Consistency::Lease => "lease",
            Consistency::Serializable => "serializable",
        }
    }
}

/// Reads also the words of session-cluster-mode.md: `strong` and `eventual`.
impl FromStr for Consistency {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Consistency, &'static str> {
        match text {
            "linearizable" | "strong" => Ok(Consistency::Linearizable),
            "lease" => Ok(Consistency::Lease),
            "serializable" | "eventual" => Ok(Consistency::Serializable),
            _ => Err("expected linearizable, lease or serializable"),
        }
    }
}

/// A key with its value and history.
///
/// In JSON: `key` and `value` as text, or `key_base64` and `value_base64` where the bytes are not UTF-8, then
/// `create_revision`, `mod_revision`, `version`, and `lease` where there is one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// The revision that created the key.
    pub create_revision: u64,
    /// The revision that wrote this value; what a compare-and-set names.
    pub mod_revision: u64,
    /// How many times the key was written since it was created; 1 for a new key.
    pub version: u64,
    /// The lease with which the key goes, if any.
    pub lease: Option<u64>,
}

/// How a [`KeyValue`] looks in JSON.
#[derive(Serialize, Deserialize)]
#[cfg_attr(
    feature = "schema",
    derive(utoipa::ToSchema),
    schema(description = "A key with its value and history.")
)]
struct KeyValueJson<'a> {
    /// The key, when it is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<Cow<'a, str>>,
    /// The key as base64, when it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    /// The value, when it is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Cow<'a, str>>,
    /// The value as base64, when it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    /// The revision that created the key.
    create_revision: u64,
    /// The revision that wrote this value; what a compare-and-set names.
    mod_revision: u64,
    /// How many times the key was written since it was created; 1 for a new key.
    version: u64,
    /// The lease with which the key goes, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lease: Option<u64>,
}

looks_as!(KeyValue, KeyValueJson);

impl Serialize for KeyValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (key, key_base64) = text_or_base64(&self.key);
        let (value, value_base64) = text_or_base64(&self.value);
        KeyValueJson {
            key,
            key_base64,
            value,
            value_base64,
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
            version: self.version,
            lease: self.lease,
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for KeyValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<KeyValue, D::Error> {
        let json = KeyValueJson::deserialize(deserializer)?;
        Ok(KeyValue {
            key: bytes_of("key", json.key, json.key_base64).map_err(D::Error::custom)?,
            value: bytes_of("value", json.value, json.value_base64).map_err(D::Error::custom)?,
            create_revision: json.create_revision,
            mod_revision: json.mod_revision,
            version: json.version,
            lease: json.lease,
        })
    }
}

/// The answer to a put.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct PutAnswer {
    /// The revision of the change, which is now the key's `mod_revision`.
    pub revision: u64,
    /// What was there before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<KeyValue>,
}

/// The answer to a delete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct DeleteAnswer {
    /// The store's revision after the delete.
    pub revision: u64,
    /// How many keys were deleted: 0 when there was none.
    pub deleted: u64,
    /// What was there before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<KeyValue>,
}

/// The answer to a delete of a range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct DeleteRangeAnswer {
    /// The store's revision after the delete.
    pub revision: u64,
    /// How many keys were deleted.
    pub deleted: u64,
    /// What they were, when that was asked for: as many of them as fit into about 1 MiB.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub previous: Vec<KeyValue>,
}

/// The order of a listing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum SortBy {
    /// By the keys.
    #[default]
    Key,
    /// By how often the keys were written.
    Version,
    /// By the revision that created the keys.
    CreateRevision,
    /// By the revision that wrote the values.
    ModRevision,
    /// By the bytes of the values.
    Value,
}

impl SortBy {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            SortBy::Key => "key",
            SortBy::Version => "version",
            SortBy::CreateRevision => "create_revision",
            SortBy::ModRevision => "mod_revision",
            SortBy::Value => "value",
        }
    }
}

impl FromStr for SortBy {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<SortBy, &'static str> {
        let all = [
            SortBy::Key,
            SortBy::Version,
            SortBy::CreateRevision,
            SortBy::ModRevision,
            SortBy::Value,
        ];
        let found = all.into_iter().find(|sort| sort.as_str() == text);
        found.ok_or("expected key, version, create_revision, mod_revision or value")
    }
}

/// Which way an order goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// The smallest first.
    #[default]
    Ascending,
    /// The greatest first.
    Descending,
}

impl Order {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Order::Ascending => "ascending",
            Order::Descending => "descending",
        }
    }
}

impl FromStr for Order {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Order, &'static str> {
        match text {
            "ascending" => Ok(Order::Ascending),
            "descending" => Ok(Order::Descending),
            _ => Err("expected ascending or descending"),
        }
    }
}

/// The answer to a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ListAnswer {
    /// The store's revision when it was read.
    pub revision: u64,
    /// The keys, in the order that was asked for.
    pub entries: Vec<KeyValue>,
    /// Whether there are more keys in the range than `entries`; go on from `next`.
    pub more: bool,
    /// The percent-encoded value for `start=` with which the next page begins, or for `end=` when the keys descend. Absent
    /// on the last page, and where the order is not that of the keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// How many keys the range has, when that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

/// The body of `POST /v1/compact`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CompactRequest {
    /// The oldest revision that can still be read afterwards.
    pub revision: u64,
}

/// The answer to `POST /v1/compact`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct CompactAnswer {
    /// The store's revision.
    pub revision: u64,
    /// The oldest revision that can be read.
    pub compacted: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key_value(key: &[u8], value: &[u8]) -> KeyValue {
        KeyValue {
            key: Bytes::copy_from_slice(key),
            value: Bytes::copy_from_slice(value),
            create_revision: 3,
            mod_revision: 5,
            version: 2,
            lease: None,
        }
    }

    #[test]
    fn text_is_written_as_text_and_other_bytes_as_base64() {
        let json = serde_json::to_value(key_value(b"a/b", b"\xff\x00")).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "key": "a/b", "value_base64": "/wA=", "create_revision": 3, "mod_revision": 5, "version": 2
            })
        );
    }

    #[test]
    fn what_is_written_is_read_back() {
        for key in [b"plain".as_slice(), b"\xff", b"\"quoted\"", b""] {
            let written = serde_json::to_string(&key_value(key, b"x")).unwrap();
            let read: KeyValue = serde_json::from_str(&written).unwrap();
            assert_eq!(read, key_value(key, b"x"));
        }
    }

    #[test]
    fn a_value_in_both_forms_or_none_is_refused() {
        let tail = r#""create_revision":1,"mod_revision":1,"version":1}"#;
        for head in [
            r#"{"key":"k","value":"v","value_base64":"dg==","#,
            r#"{"key":"k","#,
        ] {
            assert!(serde_json::from_str::<KeyValue>(&format!("{head}{tail}")).is_err());
        }
    }
}
