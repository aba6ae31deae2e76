//! The commands about settings. A command is looked at as a whole before anything changes.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{
    Basis, Demand, Head, Judged, NewSettings, Others, SECTION_BYTES_MAX, SECTION_SETTINGS_MAX, SECTIONS_MAX,
    SchemaChange, SectionChange, SectionName, SettingKey, SettingsCommand, SettingsRefusal, SettingsReply,
};
use crate::state::keys::{Change, KeySpace};
use crate::state::{Revision, Row, Space};

/// One command at work on settings.
pub(in crate::state) struct SettingsWriter<'a> {
    keys: &'a mut KeySpace,
    change: Change,
}

/// What becomes of one section: only what is other than before.
struct Plan {
    section: SectionName,
    head: Head,
    schema: SchemaChange,
    /// What gets a value, or loses it.
    settings: Vec<(SettingKey, Option<Bytes>)>,
}

impl<'a> SettingsWriter<'a> {
    pub(in crate::state) fn new(keys: &'a mut KeySpace) -> SettingsWriter<'a> {
        let change = keys.begin();
        SettingsWriter { keys, change }
    }

    /// Carries out a command, or nothing of it.
    pub(in crate::state) fn carry_out(
        mut self,
        command: SettingsCommand,
    ) -> Result<(SettingsReply, Vec<Row>), SettingsRefusal> {
        let SettingsCommand { change, judged } = command;
        change.check()?;
        let mut sections = change.sections;
        if change.others == Others::Emptied {
            self.empty_others(&mut sections);
        }
        let mut plans = Vec::with_capacity(sections.len());
        for change in sections {
            self.check_demand(&change)?;
            self.check_judged(&change, &judged)?;
            plans.push(self.plan(change)?);
        }
        self.check_count(&plans)?;
        let mut reply = SettingsReply::default();
        for plan in plans {
            self.carry_out_plan(plan, &mut reply);
        }
        let rows = self.keys.end(self.change);
        reply.revision = self.keys.revision();
        Ok((reply, rows))
    }

    /// The sections that are not named lose their values.
    fn empty_others(&self, sections: &mut Vec<SectionChange>) {
        let others: Vec<SectionName> = self
            .keys
            .sections()
            .filter(|(section, _)| sections.iter().all(|change| change.section != *section))
            .map(|(section, _)| section)
            .collect();
        let emptied = |section| SectionChange::settings(section, NewSettings::Replaced(Vec::new()));
        sections.extend(others.into_iter().map(emptied));
    }

    fn check_demand(&self, change: &SectionChange) -> Result<(), SettingsRefusal> {
        let section = &change.section;
        let (current, expected) = match &change.demand {
            None => return Ok(()),
            Some(Demand::Section(expected)) => (self.revision_of(section.head()), *expected),
            Some(Demand::Setting(key, expected)) => (self.revision_of(&section.value(key)), *expected),
            Some(Demand::Schema(expected)) => (self.revision_of(&section.schema()), *expected),
        };
        if current == expected {
            Ok(())
        } else {
            Err(SettingsRefusal::Conflict { current })
        }
    }

    /// Whether the section is what it was when the change was judged. A schema that goes away cannot be violated.
    fn check_judged(&self, change: &SectionChange, judged: &[Judged]) -> Result<(), SettingsRefusal> {
        if change.schema == SchemaChange::Removed {
            return Ok(());
        }
        let basis = judged.iter().find(|judged| judged.section == change.section);
        let holds = match basis.map(|judged| judged.basis) {
            None => false,
            Some(Basis::At(revision)) => self.revision_of(change.section.head()) == revision,
            // A schema is set by looking at what is there.
            Some(Basis::NoSchema) => {
                change.schema == SchemaChange::Stays
                    && self
                        .keys
                        .pair(Space::Settings, &change.section.schema())
                        .is_none()
            }
        };
        if holds {
            Ok(())
        } else {
            Err(SettingsRefusal::NotAsJudged)
        }
    }

    fn revision_of(&self, key: &[u8]) -> Revision {
        let pair = self.keys.get(Space::Settings, key);
        pair.map_or(Revision::ABSENT, |pair| pair.mod_revision)
    }

    /// What becomes of a section, if that is within its bounds.
    fn plan(&self, change: SectionChange) -> Result<Plan, SettingsRefusal> {
        let section = change.section;
        let mut head = self.keys.head(&section).unwrap_or_default();
        let schema = self.plan_schema(&section, change.schema, &mut head);
        let wanted: BTreeMap<SettingKey, Option<Bytes>> = match change.settings {
            NewSettings::Merged(settings) => settings.into_iter().collect(),
            NewSettings::Replaced(settings) => {
                let present = self.keys.settings(&section);
                let mut wanted: BTreeMap<_, _> = present.map(|(key, _)| (key, None)).collect();
                wanted.extend(settings.into_iter().map(|(key, value)| (key, Some(value))));
                wanted
            }
        };
        let size = |key: &SettingKey, value: &[u8]| (key.0.len() + value.len()) as u64;
        let mut settings = Vec::new();
        for (key, value) in wanted {
            let present = self.keys.pair(Space::Settings, &section.value(&key));
            let present = present.map(|pair| pair.value);
            if present == value.as_deref() {
                continue;
            }
            if let Some(present) = present {
                head.settings -= 1;
                head.bytes -= size(&key, present);
            }
            if let Some(value) = &value {
                head.settings += 1;
                head.bytes += size(&key, value);
            }
            settings.push((key, value));
        }
        if head.settings > SECTION_SETTINGS_MAX as u64 {
            return Err(SettingsRefusal::TooManySettings);
        }
        if head.bytes > SECTION_BYTES_MAX as u64 {
            return Err(SettingsRefusal::SectionTooLarge);
        }
        Ok(Plan {
            section,
            head,
            schema,
            settings,
        })
    }

    fn plan_schema(&self, section: &SectionName, wanted: SchemaChange, head: &mut Head) -> SchemaChange {
        let present = self.keys.pair(Space::Settings, &section.schema());
        match wanted {
            SchemaChange::Set(schema) if present.is_none_or(|pair| pair.value != schema) => {
                head.schema = true;
                SchemaChange::Set(schema)
            }
            SchemaChange::Removed if present.is_some() => {
                head.schema = false;
                SchemaChange::Removed
            }
            _ => SchemaChange::Stays,
        }
    }

    fn check_count(&self, plans: &[Plan]) -> Result<(), SettingsRefusal> {
        let is_new = |plan: &&Plan| self.keys.head(&plan.section).is_none() && !plan.head.is_empty();
        let is_gone = |plan: &&Plan| self.keys.head(&plan.section).is_some() && plan.head.is_empty();
        let made = plans.iter().filter(is_new).count();
        if made == 0 {
            return Ok(());
        }
        let gone = plans.iter().filter(is_gone).count();
        if self.keys.sections().count() + made - gone > SECTIONS_MAX {
            return Err(SettingsRefusal::TooManySections);
        }
        Ok(())
    }

    fn carry_out_plan(&mut self, plan: Plan, reply: &mut SettingsReply) {
        let Plan {
            section,
            head,
            schema,
            settings,
        } = plan;
        if settings.is_empty() && schema == SchemaChange::Stays {
            return;
        }
        for (key, value) in settings {
            match &value {
                Some(_) => reply.written += 1,
                None => reply.deleted += 1,
            }
            self.set(&section.value(&key), value);
        }
        match schema {
            SchemaChange::Stays => {}
            SchemaChange::Set(schema) => {
                reply.schemas += 1;
                self.set(&section.schema(), Some(schema));
            }
            SchemaChange::Removed => {
                reply.schemas += 1;
                self.set(&section.schema(), None);
            }
        }
        self.set(section.head(), (!head.is_empty()).then(|| head.encode()));
    }

    fn set(&mut self, key: &Bytes, value: Option<Bytes>) {
        match value {
            Some(value) => {
                self.keys
                    .put(&mut self.change, Space::Settings, key, &value, None);
            }
            None => {
                self.keys.delete(&mut self.change, Space::Settings, key);
            }
        }
    }
}
