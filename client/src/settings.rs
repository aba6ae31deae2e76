//! Settings: sections of keys with JSON values.

use bytes::Bytes;
use http::Method;
use quorate_api::{
    ImportAnswer, SchemaChanged, SectionAnswer, SectionDocument, SectionsAnswer, SettingAnswer,
    SettingHistory, SettingsChange, SettingsChanged, SettingsDocument,
};
use serde_json::Value;

use crate::client::{Client, json};
use crate::listen::PROGRESS_MS;
use crate::watch::Watch;
use crate::{Error, Fresh, Parameters};

/// How settings are imported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Import {
    /// Whether what is not named is removed; otherwise it stays.
    pub replace: bool,
    /// Whether only to tell what would change.
    pub dry_run: bool,
    /// Only if the section is at this revision; 0 for a new one. For the import of one section.
    pub expected_revision: Option<u64>,
}

impl Client {
    /// The sections in short, by name.
    ///
    /// # Errors
    /// When no node answers, or with what it answers.
    pub async fn sections(&self, fresh: impl Into<Fresh>) -> Result<SectionsAnswer, Error> {
        let mut parameters = Parameters::of("/v1/settings".to_owned());
        fresh.into().add_to(&mut parameters);
        self.read(parameters).await
    }

    /// A section with its settings, as of a revision or the latest.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such section, when no node answers, or with what it answers.
    pub async fn section(
        &self,
        section: &str,
        revision: Option<u64>,
        fresh: impl Into<Fresh>,
    ) -> Result<SectionAnswer, Error> {
        let mut parameters = Parameters::of(path(section));
        parameters.add_number("revision", revision);
        fresh.into().add_to(&mut parameters);
        self.read(parameters).await
    }

    /// A setting, as of a revision or the latest.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such setting, when no node answers, or with what it answers.
    pub async fn setting(
        &self,
        section: &str,
        key: &str,
        revision: Option<u64>,
        fresh: impl Into<Fresh>,
    ) -> Result<SettingAnswer, Error> {
        let mut parameters = Parameters::of(path_of(section, key));
        parameters.add_number("revision", revision);
        fresh.into().add_to(&mut parameters);
        self.read(parameters).await
    }

    /// What a setting was before a revision, or until now, the latest first; at most `limit` versions.
    ///
    /// # Errors
    /// As [`Client::setting`].
    pub async fn setting_history(
        &self,
        section: &str,
        key: &str,
        before: Option<u64>,
        limit: Option<u64>,
    ) -> Result<SettingHistory, Error> {
        let mut parameters = Parameters::of(format!("{}/history", path_of(section, key)));
        parameters.add_number("before", before);
        parameters.add_number("limit", limit);
        self.read(parameters).await
    }

    /// Gives a setting a value, if it is at this revision; 0 for a new one.
    ///
    /// # Errors
    /// [`Error::Conflict`] when it is at another one, [`Error::Refused`] when the section would not fit its schema; otherwise
    /// as [`Client::put`].
    pub async fn set_setting(
        &self,
        section: &str,
        key: &str,
        value: &Value,
        expected_revision: Option<u64>,
    ) -> Result<SettingsChanged, Error> {
        let mut parameters = Parameters::of(path_of(section, key));
        parameters.add_number("revision", expected_revision);
        self.change(Method::PUT, parameters, json(value)).await
    }

    /// Removes a setting, if it is at this revision.
    ///
    /// # Errors
    /// As [`Client::set_setting`].
    pub async fn delete_setting(
        &self,
        section: &str,
        key: &str,
        expected_revision: Option<u64>,
    ) -> Result<SettingsChanged, Error> {
        let mut parameters = Parameters::of(path_of(section, key));
        parameters.add_number("revision", expected_revision);
        self.change(Method::DELETE, parameters, Bytes::new()).await
    }

    /// Removes a section with its schema, if it is at this revision.
    ///
    /// # Errors
    /// As [`Client::set_setting`].
    pub async fn delete_section(
        &self,
        section: &str,
        expected_revision: Option<u64>,
    ) -> Result<SettingsChanged, Error> {
        let mut parameters = Parameters::of(path(section));
        parameters.add_number("revision", expected_revision);
        self.change(Method::DELETE, parameters, Bytes::new()).await
    }

    /// The schema of a section.
    ///
    /// # Errors
    /// [`Error::NotFound`] when it has none, when no node answers, or with what it answers.
    pub async fn schema(&self, section: &str, fresh: impl Into<Fresh>) -> Result<Value, Error> {
        let mut parameters = Parameters::of(schema_path(section));
        fresh.into().add_to(&mut parameters);
        self.read(parameters).await
    }

    /// Gives a section a schema, which it must fit as it is.
    ///
    /// # Errors
    /// [`Error::Refused`] when it does not, or when this is no schema; otherwise as [`Client::put`].
    pub async fn set_schema(&self, section: &str, schema: &Value) -> Result<SchemaChanged, Error> {
        self.change(Method::PUT, schema_path(section), json(schema)).await
    }

    /// Removes the schema of a section; its settings stay.
    ///
    /// # Errors
    /// As [`Client::put`].
    pub async fn delete_schema(&self, section: &str) -> Result<SchemaChanged, Error> {
        self.change(Method::DELETE, schema_path(section), Bytes::new())
            .await
    }

    /// All settings, as of a revision or the latest, as [`Client::import_settings`] takes them.
    ///
    /// # Errors
    /// When they are too many for one answer, when no node answers, or with what it answers.
    pub async fn export_settings(&self, revision: Option<u64>) -> Result<SettingsDocument, Error> {
        let mut parameters = Parameters::of("/v1/settings".to_owned());
        parameters.add("format", "json");
        parameters.add_number("revision", revision);
        self.read(parameters).await
    }

    /// Writes sections as one change.
    ///
    /// # Errors
    /// As [`Client::set_setting`].
    pub async fn import_settings(
        &self,
        settings: &SettingsDocument,
        import: Import,
    ) -> Result<ImportAnswer, Error> {
        let parameters = import.parameters("/v1/settings".to_owned());
        self.change(Method::PUT, parameters, json(settings)).await
    }

    /// Writes a section as one change.
    ///
    /// # Errors
    /// As [`Client::set_setting`].
    pub async fn import_section(
        &self,
        section: &str,
        settings: &SectionDocument,
        import: Import,
    ) -> Result<ImportAnswer, Error> {
        let parameters = import.parameters(path(section));
        self.change(Method::PUT, parameters, json(settings)).await
    }

    /// Watches a section of settings, or all, from a revision on or as it is yet to come. Nothing is sent before
    /// [`Watch::next`] is called.
    pub fn watch_settings(&self, section: Option<&str>, from_revision: Option<u64>) -> Watch<SettingsChange> {
        let mut parameters = Parameters::of("/v1/watch/settings".to_owned());
        parameters.add_number("progress_ms", Some(PROGRESS_MS));
        if let Some(section) = section {
            parameters.add_bytes("section", section.as_bytes());
        }
        self.watch_at(parameters.into(), from_revision)
    }
}

impl Import {
    fn parameters(self, path: String) -> Parameters {
        let mut parameters = Parameters::of(path);
        parameters.add("mode", if self.replace { "replace" } else { "merge" });
        parameters.add_switch("dry_run", self.dry_run);
        parameters.add_number("revision", self.expected_revision);
        parameters
    }
}

fn path(section: &str) -> String {
    format!("/v1/settings/{}", encoded(section))
}

fn path_of(section: &str, key: &str) -> String {
    format!("/v1/settings/{}/{}", encoded(section), encoded(key))
}

fn schema_path(section: &str) -> String {
    format!("/v1/schemas/{}", encoded(section))
}

fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}
