//! Settings in JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Settings as people write them: for each section its keys with their values.
pub type SettingsDocument = BTreeMap<String, SectionDocument>;
/// A section as people write it: its keys with their values.
pub type SectionDocument = BTreeMap<String, Value>;

/// The answer to `GET /v1/settings`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct SectionsAnswer {
    /// The revision of the state that was read: a watch goes on from the one after it.
    pub revision: u64,
    /// The sections, by name.
    pub sections: Vec<SectionInfo>,
}

/// A section in short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct SectionInfo {
    /// Its name.
    pub section: String,
    /// The latest change of anything in it.
    pub mod_revision: u64,
    /// How many settings it has.
    pub settings: u64,
    /// What their keys and values take, in bytes.
    pub bytes: u64,
    /// Whether it has a schema.
    pub schema: bool,
}

/// The answer to `GET /v1/settings/{section}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct SectionAnswer {
    /// The revision of the state that was read: a watch goes on from the one after it.
    pub revision: u64,
    /// The section.
    pub section: String,
    /// The latest change of anything in it.
    pub mod_revision: u64,
    /// The latest change of its schema; left out when it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_revision: Option<u64>,
    /// Its settings, by key.
    pub settings: Vec<SettingEntry>,
}

/// A setting of a section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct SettingEntry {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: Value,
    /// The revision that made it.
    pub create_revision: u64,
    /// The revision of its latest change.
    pub mod_revision: u64,
    /// How often it was changed since it exists, its making included.
    pub version: u64,
}

/// The answer to `GET /v1/settings/{section}/{key}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct SettingAnswer {
    /// The section.
    pub section: String,
    /// The setting.
    #[serde(flatten)]
    pub setting: SettingEntry,
}

/// The answer to `GET /v1/settings/{section}/{key}/history`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct SettingHistory {
    /// The section.
    pub section: String,
    /// The key.
    pub key: String,
    /// What it was, the latest first, as far as that is still kept.
    pub versions: Vec<SettingVersion>,
    /// Whether there are earlier ones; go on with `before=` and the last revision.
    pub more: bool,
}

/// What a setting was made by one change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct SettingVersion {
    /// The revision of that change.
    pub revision: u64,
    /// Whether it removed the setting.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
    /// The value; null when it was removed.
    #[serde(default)]
    pub value: Value,
}

/// The answer to a change of settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct SettingsChanged {
    /// The revision after it: its own when anything changed.
    pub revision: u64,
    /// How many values are new or other ones.
    pub written: u64,
    /// How many values are gone.
    pub deleted: u64,
}

/// The answer to a change of the schema of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct SchemaChanged {
    /// The revision after it: its own when anything changed.
    pub revision: u64,
    /// Whether the schema is another one than before.
    pub changed: bool,
}

/// The answer to `PUT /v1/settings` and `PUT /v1/settings/{section}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ImportAnswer {
    /// The revision after it: its own when anything changed.
    pub revision: u64,
    /// Whether nothing was changed, since only what would change was asked for.
    pub dry_run: bool,
    /// How many values are new or other ones.
    pub written: u64,
    /// How many values are gone.
    pub deleted: u64,
    /// What changed or would, by section and key. When a request is repeated under its key: what that would have changed.
    pub changes: Vec<SettingDifference>,
}

/// How a setting differs from what it was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct SettingDifference {
    /// The section.
    pub section: String,
    /// The key.
    pub key: String,
    /// What became of it.
    #[serde(rename = "type")]
    pub kind: DifferenceKind,
    /// What it was; null when it is new.
    #[serde(default)]
    pub before: Value,
    /// What it is; null when it is gone.
    #[serde(default)]
    pub after: Value,
}

/// What became of a setting. The words are those of fleet-leader-member.md's comparison of configurations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "UPPERCASE")]
pub enum DifferenceKind {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It has another value.
    Modified,
}

impl DifferenceKind {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            DifferenceKind::Added => "ADDED",
            DifferenceKind::Removed => "REMOVED",
            DifferenceKind::Modified => "MODIFIED",
        }
    }
}

/// What became of settings at one revision, in a watch of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct SettingsChange {
    /// The revision.
    pub revision: u64,
    /// The changes, in the order in which they were made.
    pub events: Vec<SettingsNews>,
    /// Whether the revision is so large that it comes in parts, and this is not the last one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
}

/// What became of one setting, or of the schema of a section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum SettingsNews {
    /// A setting has a value.
    Set {
        /// The section.
        section: String,
        /// The key.
        key: String,
        /// The value.
        value: Value,
    },
    /// A setting is gone.
    Deleted {
        /// The section.
        section: String,
        /// The key.
        key: String,
    },
    /// A section has a schema.
    SchemaSet {
        /// The section.
        section: String,
        /// The schema.
        schema: Value,
    },
    /// A section has no schema any more.
    SchemaDeleted {
        /// The section.
        section: String,
    },
}
