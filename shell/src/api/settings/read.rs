//! Reading settings.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use http::header::ETAG;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use quorate_api::{
    ProblemCode, SectionAnswer, SectionInfo, SectionsAnswer, SettingAnswer, SettingEntry, SettingHistory,
    SettingVersion, headers,
};
use quorate_core::state::{Revision, Section, SectionName, Setting};

use super::super::Shared;
use super::super::answer::{Failure, json, with_type};
use super::super::backend::{SectionsRead, WantedSections};
use super::super::openapi::parameters::Freshness;
use super::super::openapi::problems::problems;
use super::super::query::Query;
use super::super::requests::{Read, misdirected};
use super::document::{self, Format, OrExport};
use super::{section_name, setting_key, value_of};

/// About how many bytes of settings are exported at once.
pub(super) const EXPORT_BYTES_MAX: usize = 8 << 20;
/// Versions in a history that names no limit, and the most it may name.
const LIMIT_DEFAULT: usize = 20;
const LIMIT_MAX: usize = 100;

// The descriptions name types without arguments.
type SectionsOrExport = OrExport<SectionsAnswer>;
type SectionOrExport = OrExport<SectionAnswer>;

problems! {
    ListProblems = READ [BodyTooLarge, Compacted, FutureRevision];
}

/// Lists the sections of settings, or exports them.
#[utoipa::path(
    get, path = "/v1/settings", operation_id = "listSections", tag = "settings",
    params(
        ("format" = Option<String>, Query, description = "`json` or `yaml` for an export: what an import takes"),
        ("Accept" = Option<String>, Header, description = "`application/yaml` for an export in YAML"),
        Freshness,
        ("revision" = Option<u64>, Query, description = "As of which revision to export; the latest when it is left out"),
    ),
    responses(
        (
            status = 200, description = "The sections, or an export of them",
            content((SectionsOrExport = "application/json"), (String = "application/yaml"))
        ),
        ListProblems,
    ),
)]
pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let query = Query::parse(
        uri.query(),
        &["consistency", "min_revision", "revision", "format"],
    )?;
    let read = Read::of(&query, &uri)?;
    let _admitted = shared.admit(0)?;
    if let Some(format) = Format::wanted(&query, &headers)? {
        let wanted = WantedSections::All(read.revision, EXPORT_BYTES_MAX);
        let sections = shared.sections(wanted, read).await?.sections;
        let sections = sections.ok_or_else(too_large)?;
        let mut document = BTreeMap::new();
        for (name, section) in sections {
            document.insert(name.to_string(), document::section(&section)?);
        }
        return Ok(format.write(&document));
    }
    if read.revision.is_some() {
        return Err(Failure::bad_request(
            "the parameter `revision` goes with an export",
            "add `format=json` or `format=yaml`, or read one section",
        ));
    }
    let options = shared.read_options(read);
    let listed = shared.until_leader(options.deadline, false, || shared.backend.sections(options));
    let (revision, sections) = listed.await.map_err(|error| misdirected(error, &uri))?;
    let info = |summary: quorate_core::state::SectionSummary| SectionInfo {
        section: summary.section.to_string(),
        mod_revision: summary.revision.0,
        settings: summary.settings,
        bytes: summary.bytes,
        schema: summary.schema,
    };
    Ok(json(&SectionsAnswer {
        revision: revision.0,
        sections: sections.into_iter().map(info).collect(),
    }))
}

fn too_large() -> Failure {
    Failure::too_large_answer(EXPORT_BYTES_MAX)
}

problems! {
    SectionProblems = READ [SectionNotFound, Compacted, FutureRevision];
}

/// Reads a section of settings, or exports it.
#[utoipa::path(
    get, path = "/v1/settings/{section}", operation_id = "getSection", tag = "settings",
    params(
        ("section" = String, Path, description = "The name of a section"),
        ("format" = Option<String>, Query, description = "`json` or `yaml` for an export: what an import takes"),
        ("Accept" = Option<String>, Header, description = "`application/yaml` for an export in YAML"),
        Freshness,
        ("revision" = Option<u64>, Query, description = "As of which revision; the latest when it is left out"),
    ),
    responses(
        (
            status = 200, description = "The section, or an export of it",
            content((SectionOrExport = "application/json"), (String = "application/yaml")),
            headers(
                ("ETag" = String, description = "The revision of its latest change, as an entity tag; not of an export"),
                ("Quorate-Revision" = u64, description = "The revision of its latest change; not of an export"),
            )
        ),
        SectionProblems,
    ),
)]
pub(super) async fn section(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
    Path(name): Path<String>,
) -> Result<Response, Failure> {
    let query = Query::parse(
        uri.query(),
        &["consistency", "min_revision", "revision", "format"],
    )?;
    let name = section_name(&name)?;
    let read = Read::of(&query, &uri)?;
    let format = Format::wanted(&query, &headers)?;
    let _admitted = shared.admit(0)?;
    let (revision, section) = shared.one_section(&name, read).await?;
    if let Some(format) = format {
        return Ok(format.write(&document::section(&section)?));
    }
    let mut settings = Vec::with_capacity(section.settings.len());
    for setting in section.settings {
        settings.push(entry(setting)?);
    }
    let answer = SectionAnswer {
        revision: revision.0,
        section: name.to_string(),
        mod_revision: section.revision.0,
        schema_revision: section.schema.map(|(_, revision)| revision.0),
        settings,
    };
    Ok(tagged(json(&answer), section.revision))
}

problems! {
    SettingProblems = READ [KeyTooLarge, SettingNotFound, Compacted, FutureRevision];
}

/// Reads a setting.
#[utoipa::path(
    get, path = "/v1/settings/{section}/{key}", operation_id = "getSetting", tag = "settings",
    params(
        ("section" = String, Path, description = "The name of a section"),
        ("key" = String, Path, description = "The key of a setting, percent-encoded: a slash is `%2F`"),
        Freshness,
        ("revision" = Option<u64>, Query, description = "As of which revision; the latest when it is left out"),
    ),
    responses(
        (
            status = 200, description = "The setting", body = SettingAnswer,
            headers(
                ("ETag" = String, description = "The revision of its latest change, as an entity tag"),
                ("Quorate-Revision" = u64, description = "The revision of its latest change"),
            )
        ),
        SettingProblems,
    ),
)]
pub(super) async fn setting(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    Path((section, key)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let query = Query::parse(uri.query(), &Read::PARAMETERS)?;
    let (section, key) = (section_name(&section)?, setting_key(&key)?);
    let read = Read::of(&query, &uri)?;
    let (revision, options) = (read.revision, shared.read_options(read));
    let _admitted = shared.admit(0)?;
    let found = shared
        .until_leader(options.deadline, false, || {
            shared
                .backend
                .setting(section.clone(), key.clone(), revision, options)
        })
        .await
        .map_err(|error| misdirected(error, &uri))?;
    let Some(setting) = found else {
        let detail = match revision {
            Some(revision) => format!("there was no setting {section}/{key} at revision {revision}"),
            None => format!("there is no setting {section}/{key}"),
        };
        let action = format!("GET /v1/settings/{section} shows the section");
        return Err(Failure::new(ProblemCode::SettingNotFound, detail, action));
    };
    let revision = setting.mod_revision;
    let answer = SettingAnswer {
        section: section.to_string(),
        setting: entry(setting)?,
    };
    Ok(tagged(json(&answer), revision))
}

problems! {
    HistoryProblems = READ [KeyTooLarge, SettingNotFound];
}

/// Tells what a setting was, the latest first, as far as that is still kept.
#[utoipa::path(
    get, path = "/v1/settings/{section}/{key}/history", operation_id = "getSettingHistory", tag = "settings",
    params(
        ("section" = String, Path, description = "The name of a section"),
        ("key" = String, Path, description = "The key of a setting, percent-encoded: a slash is `%2F`"),
        ("before" = Option<u64>, Query, description = "Only what it was made before this revision"),
        ("limit" = Option<u64>, Query, description = "How many at the most; 20 when it is left out", minimum = 1, maximum = 100),
        Freshness,
    ),
    responses(
        (status = 200, description = "What it was", body = SettingHistory),
        HistoryProblems,
    ),
)]
pub(super) async fn history(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    Path((section, key)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let query = Query::parse(uri.query(), &["consistency", "min_revision", "before", "limit"])?;
    let (section, key) = (section_name(&section)?, setting_key(&key)?);
    let limit = query.limit(LIMIT_DEFAULT, LIMIT_MAX)?;
    let before = query.revision("before")?;
    let options = shared.read_options(Read::of(&query, &uri)?);
    let _admitted = shared.admit(0)?;
    let mut found = shared
        .until_leader(options.deadline, false, || {
            let (section, key) = (section.clone(), key.clone());
            shared
                .backend
                .setting_history(section, key, before, limit + 1, options)
        })
        .await
        .map_err(|error| misdirected(error, &uri))?;
    if found.is_empty() && before.is_none() {
        return Err(Failure::new(
            ProblemCode::SettingNotFound,
            format!("there is no setting {section}/{key}, and nothing is kept of an earlier one"),
            format!("GET /v1/settings/{section} shows the section"),
        ));
    }
    let more = found.len() > limit;
    found.truncate(limit);
    let mut versions = Vec::with_capacity(found.len());
    for version in found {
        versions.push(SettingVersion {
            revision: version.revision.0,
            deleted: version.value.is_none(),
            value: match version.value {
                Some(value) => value_of(&value)?,
                None => serde_json::Value::Null,
            },
        });
    }
    Ok(json(&SettingHistory {
        section: section.to_string(),
        key: key.to_string(),
        versions,
        more,
    }))
}

problems! {
    SchemaProblems = READ [SchemaNotFound, Compacted, FutureRevision];
}

/// Reads what a section has to fit.
#[utoipa::path(
    get, path = "/v1/schemas/{section}", operation_id = "getSchema", tag = "settings",
    params(
        ("section" = String, Path, description = "The name of a section"),
        Freshness,
        ("revision" = Option<u64>, Query, description = "As of which revision; the latest when it is left out"),
    ),
    responses(
        (
            status = 200, description = "The JSON Schema", body = Value,
            headers(
                ("ETag" = String, description = "The revision of its latest change, as an entity tag"),
                ("Quorate-Revision" = u64, description = "The revision of its latest change"),
            )
        ),
        SchemaProblems,
    ),
)]
pub(super) async fn schema(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    Path(name): Path<String>,
) -> Result<Response, Failure> {
    let query = Query::parse(uri.query(), &Read::PARAMETERS)?;
    let name = section_name(&name)?;
    let read = Read::of(&query, &uri)?;
    let _admitted = shared.admit(0)?;
    let wanted = WantedSections::One(name.clone(), read.revision);
    let sections = shared.sections(wanted, read).await?.sections;
    let section = sections.and_then(|mut sections| sections.remove(&name));
    let Some((schema, revision)) = section.and_then(|section| section.schema) else {
        return Err(Failure::new(
            ProblemCode::SchemaNotFound,
            format!("section {name} has no schema: every value fits"),
            format!("PUT /v1/schemas/{name} gives it one"),
        ));
    };
    let mut schema = schema.to_vec();
    schema.push(b'\n');
    Ok(tagged(
        with_type(StatusCode::OK, "application/json", schema),
        revision,
    ))
}

impl Shared {
    pub(super) async fn sections(
        &self,
        wanted: WantedSections,
        read: Read<'_>,
    ) -> Result<SectionsRead, Failure> {
        let options = self.read_options(read);
        self.until_leader(options.deadline, false, || {
            self.backend.settings(wanted.clone(), options)
        })
        .await
        .map_err(|error| misdirected(error, read.uri()))
    }

    /// A section that exists.
    async fn one_section(&self, name: &SectionName, read: Read<'_>) -> Result<(Revision, Section), Failure> {
        let wanted = WantedSections::One(name.clone(), read.revision);
        let SectionsRead { revision, sections } = self.sections(wanted, read).await?;
        let section = sections.and_then(|mut sections| sections.remove(name));
        let section = section.ok_or_else(|| {
            Failure::new(
                ProblemCode::SectionNotFound,
                format!("there is no section {name}"),
                "GET /v1/settings lists the sections",
            )
        })?;
        Ok((revision, section))
    }
}

fn entry(setting: Setting) -> Result<SettingEntry, Failure> {
    Ok(SettingEntry {
        value: value_of(&setting.value)?,
        key: setting.key.into(),
        create_revision: setting.create_revision.0,
        mod_revision: setting.mod_revision.0,
        version: setting.version,
    })
}

/// An answer with the revision that a compare-and-set names.
fn tagged(mut response: Response, revision: Revision) -> Response {
    let head = response.headers_mut();
    head.insert(
        HeaderName::from_static(headers::REVISION),
        HeaderValue::from(revision.0),
    );
    if let Ok(tag) = HeaderValue::try_from(format!("\"{revision}\"")) {
        head.insert(ETAG, tag);
    }
    response
}
