//! What is asked about settings, and the answers.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    SCHEMA_BYTES_MAX, SECTION_BYTES_MAX, SECTION_SETTINGS_MAX, SECTIONS_MAX, SETTING_VALUE_BYTES_MAX,
    SectionName, SettingKey,
};
use crate::state::Revision;
use crate::wire::{self, Kind};

/// A change of settings, and by what it was judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingsCommand {
    /// What the client asks.
    pub change: SettingsChange,
    /// What the change was found to fit, for every section that it changes. It is no part of what the client asks: a
    /// repetition may be judged by something else.
    pub judged: Vec<Judged>,
}

/// What a client asks about settings, all of which happens or nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingsChange {
    /// The sections that change, each once.
    pub sections: Vec<SectionChange>,
    /// What becomes of the others.
    pub others: Others,
}

/// What becomes of the sections that a change does not name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Others {
    /// Nothing.
    #[default]
    Stay,
    /// They lose all their values, and keep their schemas.
    Emptied,
}

/// A change of one section. What gets the value that it has stays at its revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SectionChange {
    /// The section.
    pub section: SectionName,
    /// What must be so, or else nothing changes.
    pub demand: Option<Demand>,
    /// What becomes of its schema.
    pub schema: SchemaChange,
    /// What becomes of its values.
    pub settings: NewSettings,
}

/// What a client says of a section as it must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Demand {
    /// The latest change of the section was at this revision; [`Revision::ABSENT`] when it is to be a new one.
    Section(Revision),
    /// The latest change of this value was at this revision; [`Revision::ABSENT`] when there must be none.
    Setting(SettingKey, Revision),
    /// The latest change of the schema was at this revision; [`Revision::ABSENT`] when there must be none.
    Schema(Revision),
}

/// What becomes of the schema of a section.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SchemaChange {
    /// Nothing.
    #[default]
    Stays,
    /// It is this one.
    Set(Bytes),
    /// There is none any more.
    Removed,
}

/// What becomes of the values of a section. A key is named once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NewSettings {
    /// Some get a value, or lose it; the others stay.
    Merged(Vec<(SettingKey, Option<Bytes>)>),
    /// These are all.
    Replaced(Vec<(SettingKey, Bytes)>),
}

/// As what a section was judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    /// The section.
    pub section: SectionName,
    /// What it was.
    pub basis: Basis,
}

/// What a section was when a change of it was judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Basis {
    /// It had no schema, so that every value fits.
    NoSchema,
    /// Its latest change was at this revision; [`Revision::ABSENT`] when it did not exist.
    At(Revision),
}

/// What the client of a command about settings hears.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingsReply {
    /// The revision after it: its own when anything changed.
    pub revision: Revision,
    /// How many values are new or other ones.
    pub written: u64,
    /// How many values are gone.
    pub deleted: u64,
    /// How many schemas are new, other ones or gone.
    pub schemas: u64,
}

/// Why a command about settings changed nothing.
///
/// The order of the variants is part of the format: new ones go to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum SettingsRefusal {
    /// A section is not what it was when the change was judged, or was not judged. The answer is not kept: the node that
    /// was asked judges anew, and asks again.
    #[error("the section has changed since its new values were compared with its schema")]
    NotAsJudged,
    /// The section, setting or schema is at another revision than the client demands.
    #[error("it is at revision {current}, not at the expected one")]
    Conflict {
        /// The revision; [`Revision::ABSENT`] when it does not exist.
        current: Revision,
    },
    /// A section or a key is named twice.
    #[error("a section or a key is named twice")]
    NamedTwice,
    /// A value is too large.
    #[error("a value has more than {SETTING_VALUE_BYTES_MAX} bytes")]
    ValueTooLarge,
    /// A schema is too large.
    #[error("a schema has more than {SCHEMA_BYTES_MAX} bytes")]
    SchemaTooLarge,
    /// A section would have too many settings.
    #[error("a section would have more than {SECTION_SETTINGS_MAX} settings")]
    TooManySettings,
    /// The settings of a section would be too large together.
    #[error("the keys and values of a section would have more than {SECTION_BYTES_MAX} bytes together")]
    SectionTooLarge,
    /// There would be too many sections.
    #[error("there would be more than {SECTIONS_MAX} sections")]
    TooManySections,
}

impl SettingsChange {
    /// The change of one section.
    pub fn of(change: SectionChange) -> SettingsChange {
        SettingsChange {
            sections: vec![change],
            others: Others::Stay,
        }
    }

    /// Whether it may add to what is kept.
    pub fn adds(&self) -> bool {
        let adds = |change: &SectionChange| {
            let mut entries = change.settings.entries();
            matches!(change.schema, SchemaChange::Set(_)) || entries.any(|(_, value)| value.is_some())
        };
        self.sections.iter().any(adds)
    }

    /// The bytes that tell it from other changes.
    pub(in crate::state) fn encode(&self) -> Vec<u8> {
        wire::encode(Kind::Command, self)
    }

    /// Whether the change could be made in some state: nothing is named twice, and nothing is too large by itself.
    ///
    /// # Errors
    /// With what is wrong.
    pub fn check(&self) -> Result<(), SettingsRefusal> {
        if self.sections.len() > SECTIONS_MAX {
            return Err(SettingsRefusal::TooManySections);
        }
        let mut named = BTreeSet::new();
        for change in &self.sections {
            if !named.insert(&change.section) {
                return Err(SettingsRefusal::NamedTwice);
            }
            change.check()?;
        }
        Ok(())
    }
}

impl SectionChange {
    /// A change of values.
    pub fn settings(section: SectionName, settings: NewSettings) -> SectionChange {
        SectionChange {
            section,
            demand: None,
            schema: SchemaChange::Stays,
            settings,
        }
    }

    /// A change of the schema.
    pub fn schema(section: SectionName, schema: SchemaChange) -> SectionChange {
        SectionChange {
            section,
            demand: None,
            schema,
            settings: NewSettings::nothing(),
        }
    }

    fn check(&self) -> Result<(), SettingsRefusal> {
        if matches!(&self.schema, SchemaChange::Set(schema) if schema.len() > SCHEMA_BYTES_MAX) {
            return Err(SettingsRefusal::SchemaTooLarge);
        }
        let mut named = BTreeSet::new();
        for (key, value) in self.settings.entries() {
            if !named.insert(key) {
                return Err(SettingsRefusal::NamedTwice);
            }
            if value.is_some_and(|value| value.len() > SETTING_VALUE_BYTES_MAX) {
                return Err(SettingsRefusal::ValueTooLarge);
            }
        }
        if named.len() > SECTION_SETTINGS_MAX {
            return Err(SettingsRefusal::TooManySettings);
        }
        Ok(())
    }
}

impl NewSettings {
    /// All stay.
    pub fn nothing() -> NewSettings {
        NewSettings::Merged(Vec::new())
    }

    /// One gets a value, or loses it.
    pub fn one(key: SettingKey, value: Option<Bytes>) -> NewSettings {
        NewSettings::Merged(vec![(key, value)])
    }

    /// The keys that are named, with their values.
    pub fn entries(&self) -> impl Iterator<Item = (&SettingKey, Option<&Bytes>)> {
        let (merged, replaced) = match self {
            NewSettings::Merged(merged) => (&merged[..], &[][..]),
            NewSettings::Replaced(replaced) => (&[][..], &replaced[..]),
        };
        let merged = merged.iter().map(|(key, value)| (key, value.as_ref()));
        merged.chain(replaced.iter().map(|(key, value)| (key, Some(value))))
    }
}
