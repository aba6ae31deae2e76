//! Keys and values in JSON.

use std::borrow::Cow;
use std::str::FromStr;

use bytes::Bytes;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::text::{bytes_of, text_or_base64};

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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

impl FromStr for Consistency {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Consistency, &'static str> {
        match text {
            "linearizable" => Ok(Consistency::Linearizable),
            "lease" => Ok(Consistency::Lease),
            "serializable" => Ok(Consistency::Serializable),
            _ => Err("expected linearizable, lease or serializable"),
        }
    }
}

/// A key with its value and history.
///
/// In JSON: `key` and `value` as text, or `key_base64` and `value_base64` where the bytes are not UTF-8, then
/// `create_revision`, `mod_revision` and `version`.
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
}

/// How a [`KeyValue`] looks in JSON.
#[derive(Serialize, Deserialize)]
struct KeyValueJson<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    create_revision: u64,
    mod_revision: u64,
    version: u64,
}

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
        })
    }
}

/// The answer to a put.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutAnswer {
    /// The revision of the change, which is now the key's `mod_revision`.
    pub revision: u64,
    /// What was there before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<KeyValue>,
}

/// The answer to a delete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteAnswer {
    /// The store's revision after the delete.
    pub revision: u64,
    /// How many keys were deleted: 0 when there was none.
    pub deleted: u64,
    /// What was there before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<KeyValue>,
}

/// The answer to a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListAnswer {
    /// The store's revision that the listing shows.
    pub revision: u64,
    /// The keys, ascending.
    pub entries: Vec<KeyValue>,
    /// Whether there are more keys in the range than `entries`; go on from `next`.
    pub more: bool,
    /// The percent-encoded value for `start=` with which the next page begins, when there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
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
