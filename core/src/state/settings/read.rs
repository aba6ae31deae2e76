//! Reading settings.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Head, SCHEMA, SectionName, SettingKey, VALUE};
use crate::state::keys::KeySpace;
use crate::state::{KeyRange, KeyValue, Query, ReadError, Revision, Space, StateMachine};

/// A section in short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SectionSummary {
    /// Its name.
    pub section: SectionName,
    /// The latest change of anything in it.
    pub revision: Revision,
    /// How many settings it has.
    pub settings: u64,
    /// What their keys and values take, in bytes.
    pub bytes: u64,
    /// Whether it has a schema.
    pub schema: bool,
}

/// A section with all that is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Section {
    /// The latest change of anything in it; [`Revision::ABSENT`] when it does not exist.
    pub revision: Revision,
    /// Its schema, and the latest change of that.
    pub schema: Option<(Bytes, Revision)>,
    /// Its settings, by key.
    pub settings: Vec<Setting>,
}

/// A setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its key.
    pub key: SettingKey,
    /// Its value.
    pub value: Bytes,
    /// The change that made it.
    pub create_revision: Revision,
    /// Its latest change.
    pub mod_revision: Revision,
    /// How often it was changed since it exists, its making included.
    pub version: u64,
}

/// What a setting was made by one change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingVersion {
    /// The change.
    pub revision: Revision,
    /// The value; none when the change removed the setting.
    pub value: Option<Bytes>,
}

/// Which part of a section a key of [`Space::Settings`] is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingsPart {
    /// The head, which changes with every other part.
    Head(SectionName),
    /// A value.
    Value(SectionName, SettingKey),
    /// The schema.
    Schema(SectionName),
}

impl SettingsPart {
    /// The part that a key is; none when no key is so.
    pub fn of_key(key: &[u8]) -> Option<SettingsPart> {
        let end = key.iter().position(|byte| matches!(*byte, VALUE | SCHEMA));
        let (name, rest) = key.split_at(end.unwrap_or(key.len()));
        let section = SectionName::new(std::str::from_utf8(name).ok()?)?;
        match rest {
            [] => Some(SettingsPart::Head(section)),
            [SCHEMA] => Some(SettingsPart::Schema(section)),
            [VALUE, key @ ..] => {
                let key = SettingKey::new(std::str::from_utf8(key).ok()?)?;
                Some(SettingsPart::Value(section, key))
            }
            _ => None,
        }
    }
}

impl KeySpace {
    /// The sections with their heads, by name.
    pub(super) fn sections(&self) -> impl Iterator<Item = (SectionName, SectionSummary)> {
        let mut after: Option<Bytes> = None;
        std::iter::from_fn(move || {
            // The head is the first key of a section, and no key of another one stands among its others.
            let head = self.pairs_after(Space::Settings, after.as_deref()).next()?;
            let section = SectionName::new(std::str::from_utf8(&head.key).ok()?)?;
            after = Some(section.followed_by(super::AFTER, &[]));
            Some((section.clone(), summary(section, &head)?))
        })
    }

    pub(super) fn head(&self, section: &SectionName) -> Option<Head> {
        let pair = self.pair(Space::Settings, section.head())?;
        Some(
            Head::decode(pair.value)
                .expect("a head was written by this build, or checked when it was loaded"),
        )
    }

    /// The settings of a section, by key.
    pub(super) fn settings(&self, section: &SectionName) -> impl Iterator<Item = (SettingKey, KeyValue)> {
        let pairs: Vec<KeyValue> = self.pairs_in(Space::Settings, &section.values()).collect();
        pairs
            .into_iter()
            .filter_map(|pair| match SettingsPart::of_key(&pair.key)? {
                SettingsPart::Value(_, key) => Some((key, pair)),
                SettingsPart::Head(_) | SettingsPart::Schema(_) => None,
            })
    }
}

/// The sections that keys are parts of.
fn collect(pairs: Vec<KeyValue>) -> BTreeMap<SectionName, Section> {
    let mut sections: BTreeMap<SectionName, Section> = BTreeMap::new();
    for pair in pairs {
        match SettingsPart::of_key(&pair.key) {
            Some(SettingsPart::Head(name)) => sections.entry(name).or_default().revision = pair.mod_revision,
            Some(SettingsPart::Schema(name)) => {
                sections.entry(name).or_default().schema = Some((pair.value, pair.mod_revision));
            }
            Some(SettingsPart::Value(name, key)) => {
                let section = sections.entry(name).or_default();
                section.settings.push(Setting::of_pair(key, pair));
            }
            None => {}
        }
    }
    sections
}

fn summary(section: SectionName, pair: &KeyValue) -> Option<SectionSummary> {
    let head = Head::decode(&pair.value).ok()?;
    Some(SectionSummary {
        section,
        revision: pair.mod_revision,
        settings: head.settings,
        bytes: head.bytes,
        schema: head.schema,
    })
}

impl StateMachine {
    /// The sections, by name.
    pub fn sections(&self) -> impl Iterator<Item = SectionSummary> {
        self.keys.sections().map(|(_, summary)| summary)
    }

    /// A section in short, if it exists.
    pub fn section_summary(&self, section: &SectionName) -> Option<SectionSummary> {
        let head = self.keys.get(Space::Settings, section.head())?;
        summary(section.clone(), &head)
    }

    /// A section as it was at a revision, or is; empty when it does not exist. Shares the bytes.
    ///
    /// # Errors
    /// When it is not known what it was at the revision.
    pub fn section(&self, section: &SectionName, revision: Option<Revision>) -> Result<Section, ReadError> {
        let query = Query {
            revision,
            ..Query::new(section.range())
        };
        let found = self.keys.read(Space::Settings, &query, usize::MAX)?;
        let mut sections = collect(found.items);
        Ok(sections
            .pop_first()
            .map(|(_, section)| section)
            .unwrap_or_default())
    }

    /// All sections as they were at a revision, or are, by name; none when they have more than about `bytes_max` bytes.
    /// Shares the bytes.
    ///
    /// # Errors
    /// When it is not known what they were at the revision.
    pub fn all_sections(
        &self,
        revision: Option<Revision>,
        bytes_max: usize,
    ) -> Result<Option<BTreeMap<SectionName, Section>>, ReadError> {
        let query = Query {
            revision,
            ..Query::new(KeyRange::all())
        };
        let found = self.keys.read(Space::Settings, &query, bytes_max)?;
        Ok((!found.more).then(|| collect(found.items)))
    }

    /// A setting as it was at a revision, or is. Shares the bytes.
    ///
    /// # Errors
    /// When it is not known what it was at the revision.
    pub fn setting(
        &self,
        section: &SectionName,
        key: &SettingKey,
        revision: Option<Revision>,
    ) -> Result<Option<Setting>, ReadError> {
        let query = Query {
            revision,
            ..Query::new(KeyRange::only(section.value(key)))
        };
        let found = self.keys.read(Space::Settings, &query, usize::MAX)?;
        let pair = found.items.into_iter().next();
        Ok(pair.map(|pair| Setting::of_pair(key.clone(), pair)))
    }

    /// What a setting was at the revisions before one, or all, that can still be read, the latest first. Shares the bytes.
    pub fn setting_history(
        &self,
        section: &SectionName,
        key: &SettingKey,
        before: Option<Revision>,
    ) -> impl Iterator<Item = SettingVersion> + use<'_> {
        let versions = self.keys.versions_of(Space::Settings, &section.value(key));
        versions
            .map(|version| SettingVersion {
                revision: version.revision(),
                value: version.key_value().map(|pair| pair.value),
            })
            .filter(move |version| before.is_none_or(|before| version.revision < before))
    }

    /// Whether what is kept of sections makes sense; the key that does not otherwise.
    pub(in crate::state) fn check_sections(&self) -> Result<(), Bytes> {
        let mut open: Option<(SectionName, Head, Head)> = None;
        for pair in self.keys.pairs_after(Space::Settings, None) {
            match (SettingsPart::of_key(&pair.key), &mut open) {
                (Some(SettingsPart::Head(section)), open) => {
                    check_end(open)?;
                    let told = Head::decode(&pair.value).map_err(|_| pair.key.clone())?;
                    *open = Some((section, told, Head::default()));
                }
                (Some(SettingsPart::Value(section, key)), Some((name, _, counted))) if section == *name => {
                    counted.settings += 1;
                    counted.bytes += (key.0.len() + pair.value.len()) as u64;
                }
                (Some(SettingsPart::Schema(section)), Some((name, _, counted))) if section == *name => {
                    counted.schema = true;
                }
                _ => return Err(pair.key),
            }
        }
        check_end(&open)
    }
}

/// Whether a section has what its head tells.
fn check_end(section: &Option<(SectionName, Head, Head)>) -> Result<(), Bytes> {
    match section {
        Some((name, told, counted)) if told != counted || counted.is_empty() => Err(name.head().clone()),
        _ => Ok(()),
    }
}

impl Setting {
    /// The setting that a pair of [`Space::Settings`] holds under this key.
    fn of_pair(key: SettingKey, pair: KeyValue) -> Setting {
        Setting {
            key,
            value: pair.value,
            create_revision: pair.create_revision,
            mod_revision: pair.mod_revision,
            version: pair.version,
        }
    }
}
