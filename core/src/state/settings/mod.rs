//! Settings: named sections, each a map of keys to values, with a schema if it wants one.
//!
//! A section is one document: it has a revision, that of the latest change of anything in it, and a schema describes it as
//! a whole, so that a key may be demanded or forbidden. What a value or a schema says is of no concern here; both are
//! bytes. Whether a document fits its schema is judged by the node that was asked, with a library whose next version may
//! judge otherwise, and such a thing must not decide replicated state. So a change comes with what it was judged by
//! ([`Judged`]), and is not made when that is out of date: the node looks again.
//!
//! Sections are kept as keys of a space of their own ([`Space`](super::Space)): they have revisions, history and watches
//! as keys have. A section is a run of neighbouring keys: its head under its name, its values under the name, a zero byte
//! and their keys, and its schema under the name and a byte of 1.
//!
//! Invariants: a section has a head exactly while it has a value or a schema; the head changes with every change of the
//! section, and says how many values it has and what they take; nothing of a section that has a schema changes but as
//! judged by the section as it is.

mod command;
mod read;
mod writer;

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use self::command::{
    Basis, Demand, Judged, NewSettings, Others, SchemaChange, SectionChange, SettingsChange, SettingsCommand,
    SettingsRefusal, SettingsReply,
};
pub use self::read::{Section, SectionSummary, Setting, SettingVersion, SettingsPart};
pub(super) use self::writer::SettingsWriter;
use super::KeyRange;
use crate::wire::{self, DecodeError, Kind};

/// How many sections there may be.
pub const SECTIONS_MAX: usize = 128;
/// How many settings a section may have.
pub const SECTION_SETTINGS_MAX: usize = 10_000;
/// How many bytes the keys and values of a section may have together.
pub const SECTION_BYTES_MAX: usize = 1 << 20;
/// How many bytes the name of a section may have.
pub const SECTION_NAME_BYTES_MAX: usize = 64;
/// How many bytes the key of a setting may have.
pub const SETTING_KEY_BYTES_MAX: usize = 256;
/// How many bytes the value of a setting may have.
pub const SETTING_VALUE_BYTES_MAX: usize = 256 << 10;
/// How many bytes the schema of a section may have.
pub const SCHEMA_BYTES_MAX: usize = 256 << 10;

/// Stands between the name of a section and the key of a value.
const VALUE: u8 = 0;
/// Stands behind the name of a section in the key of its schema.
const SCHEMA: u8 = 1;
/// Greater than what stands behind the name of a section, and less than what a name is made of.
const AFTER: u8 = 2;

/// Names a section: 1 to [`SECTION_NAME_BYTES_MAX`] letters and digits of ASCII and `-`, `_` and `.`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SectionName(Bytes);

/// Names a setting in its section: 1 to [`SETTING_KEY_BYTES_MAX`] bytes of UTF-8 without control characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SettingKey(Bytes);

impl SectionName {
    /// The name of this text; none when it is not one.
    pub fn new(text: &str) -> Option<SectionName> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let fits = (1..=SECTION_NAME_BYTES_MAX).contains(&text.len());
        // What is a step in the path of an address would not reach its handler.
        (fits && text.bytes().all(is_allowed) && !matches!(text, "." | ".."))
            .then(|| SectionName(Bytes::copy_from_slice(text.as_bytes())))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("the name of a section is text")
    }

    /// Everything of this section in [`Space::Settings`](super::Space::Settings).
    pub fn range(&self) -> KeyRange {
        KeyRange::between(self.0.clone(), self.followed_by(AFTER, &[]))
    }

    /// One of its settings in [`Space::Settings`](super::Space::Settings).
    pub fn range_of(&self, key: &SettingKey) -> KeyRange {
        KeyRange::only(self.value(key))
    }

    fn head(&self) -> &Bytes {
        &self.0
    }

    fn value(&self, key: &SettingKey) -> Bytes {
        self.followed_by(VALUE, &key.0)
    }

    fn values(&self) -> KeyRange {
        KeyRange::prefix(self.followed_by(VALUE, &[]))
    }

    fn schema(&self) -> Bytes {
        self.followed_by(SCHEMA, &[])
    }

    fn followed_by(&self, byte: u8, rest: &[u8]) -> Bytes {
        [&self.0, &[byte][..], rest].concat().into()
    }
}

impl SettingKey {
    /// The key of this text; none when it is not one.
    pub fn new(text: &str) -> Option<SettingKey> {
        let fits = (1..=SETTING_KEY_BYTES_MAX).contains(&text.len());
        // What is a step in the path of an address would not reach its handler.
        (fits && !text.contains(char::is_control) && !matches!(text, "." | ".."))
            .then(|| SettingKey(Bytes::copy_from_slice(text.as_bytes())))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("the key of a setting is text")
    }
}

macro_rules! text {
    ($name:ident, $otherwise:literal) => {
        impl TryFrom<String> for $name {
            type Error = &'static str;

            fn try_from(text: String) -> Result<$name, &'static str> {
                $name::new(&text).ok_or($otherwise)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.as_str().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(self.as_str())
            }
        }
    };
}

text!(SectionName, "the text is no name of a section");
text!(SettingKey, "the text is no key of a setting");

/// What is known of a section as a whole: the value of its head. Its encoding is part of the format of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    settings: u64,
    /// What their keys and values take.
    bytes: u64,
    schema: bool,
}

impl Head {
    fn encode(self) -> Bytes {
        wire::encode(Kind::Row, &self).into()
    }

    fn decode(value: &[u8]) -> Result<Head, DecodeError> {
        wire::decode(Kind::Row, value)
    }

    fn is_empty(self) -> bool {
        self.settings == 0 && !self.schema
    }
}
