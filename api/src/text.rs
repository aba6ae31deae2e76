//! Bytes in JSON: text where they are UTF-8, base64 under the field's name with `_base64` at its end where not.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The bytes for the field itself, or for the one with `_base64` at its end.
pub(crate) fn text_or_base64(bytes: &[u8]) -> (Option<Cow<'_, str>>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(Cow::Borrowed(text)), None),
        Err(_) => (None, Some(STANDARD.encode(bytes))),
    }
}

/// The bytes of a field that must be there, in one form.
pub(crate) fn bytes_of(
    field: &str,
    text: Option<Cow<'_, str>>,
    base64: Option<String>,
) -> Result<Bytes, String> {
    optional_bytes_of(field, text, base64)?
        .ok_or_else(|| format!("expected either `{field}` or `{field}_base64`"))
}

/// The bytes of a field that may be left out.
pub(crate) fn optional_bytes_of(
    field: &str,
    text: Option<Cow<'_, str>>,
    base64: Option<String>,
) -> Result<Option<Bytes>, String> {
    match (text, base64) {
        (None, None) => Ok(None),
        (Some(text), None) => Ok(Some(text.into_owned().into_bytes().into())),
        (None, Some(base64)) => match STANDARD.decode(base64) {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(error) => Err(format!("`{field}_base64`: {error}")),
        },
        (Some(_), Some(_)) => Err(format!("expected either `{field}` or `{field}_base64`")),
    }
}

/// A key alone: `{"key": ..}` or `{"key_base64": ..}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyName(pub Bytes);

#[derive(Serialize, Deserialize)]
#[cfg_attr(
    feature = "schema",
    derive(utoipa::ToSchema),
    schema(description = "A key alone.")
)]
#[serde(deny_unknown_fields)]
struct KeyNameJson<'a> {
    /// The key, when it is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<Cow<'a, str>>,
    /// The key as base64, when it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
}

looks_as!(KeyName, KeyNameJson);

impl Serialize for KeyName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (key, key_base64) = text_or_base64(&self.0);
        KeyNameJson { key, key_base64 }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for KeyName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<KeyName, D::Error> {
        let json = KeyNameJson::deserialize(deserializer)?;
        bytes_of("key", json.key, json.key_base64)
            .map(KeyName)
            .map_err(serde::de::Error::custom)
    }
}
