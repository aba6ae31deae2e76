//! Changing settings.
//!
//! What a section would be is compared with its schema here and not where the change is applied. So the change names
//! what it was compared with, and is not made when that is no longer so; then it is compared anew, a few times. Changes of
//! one node that come to that take turns, so that they do not outdate each other.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode, Uri};
use quorate_api::{ProblemCode, SchemaChanged, SettingsChanged};
use quorate_core::state::{
    Basis, Command, Demand, Judged, NewSettings, Others, Reply, Revision, SCHEMA_BYTES_MAX,
    SETTING_VALUE_BYTES_MAX, SchemaChange, Section, SectionChange, SectionName, SettingsChange,
    SettingsCommand, SettingsReply,
};
use serde_json::Value;

use super::super::Shared;
use super::super::answer::{Failure, json};
use super::super::backend::{Oversized, WantedSections};
use super::super::kv::Expected;
use super::super::openapi::parameters::{Carrying, Condition};
use super::super::openapi::problems::problems;
use super::super::query::Query;
use super::super::requests::{Change, Read};
use super::document;
use super::read::EXPORT_BYTES_MAX;
use super::schema::Schema;
use super::{canonical, section_name, setting_key, value_of};

/// How often a change is compared with what there is, when that changes all the time.
const ATTEMPTS_MAX: usize = 8;

problems! {
    PutProblems = WRITE READ [
        RequestTimeout, KeyTooLarge, ValueTooLarge, RevisionConflict, RevisionConflict with 412, SectionChanged, SchemaMismatch, InvalidSchema,
    ];
}

/// Sets a setting.
#[utoipa::path(
    put, path = "/v1/settings/{section}/{key}", operation_id = "putSetting", tag = "settings",
    params(
        ("section" = String, Path, description = "The name of a section"),
        ("key" = String, Path, description = "The key of a setting, percent-encoded: a slash is `%2F`"),
        Condition,
        Carrying,
    ),
    request_body(content = Value, description = "The value, any JSON"),
    responses(
        (status = 200, description = "The setting has its value", body = SettingsChanged),
        PutProblems,
    ),
)]
pub(super) async fn put(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
    Path((section, key)): Path<(String, String)>,
    body: Body,
) -> Result<Response, Failure> {
    let (change, expected) = conditional(&uri, &headers)?;
    let (section, key) = (section_name(&section)?, setting_key(&key)?);
    let limit = SETTING_VALUE_BYTES_MAX.min(shared.limits.value_bytes);
    let (body, _admitted) = shared.body(body, &headers, Oversized::Value, limit).await?;
    let value = canonical(&parse(&body)?);
    let demand = expected
        .revision
        .map(|revision| Demand::Setting(key.clone(), Revision(revision)));
    let change_of_section = SectionChange {
        demand,
        ..SectionChange::settings(section, NewSettings::one(key, Some(value)))
    };
    shared
        .change_section(change_of_section, change, expected, &uri)
        .await
        .map(changed)
}

problems! {
    DeleteProblems = WRITE READ [KeyTooLarge, RevisionConflict, RevisionConflict with 412, SectionChanged, SchemaMismatch, InvalidSchema];
}

/// Removes a setting.
///
/// It is no error when there is no such setting.
#[utoipa::path(
    delete, path = "/v1/settings/{section}/{key}", operation_id = "deleteSetting", tag = "settings",
    params(
        ("section" = String, Path, description = "The name of a section"),
        ("key" = String, Path, description = "The key of a setting, percent-encoded: a slash is `%2F`"),
        Condition,
        Carrying,
    ),
    responses(
        (status = 200, description = "The setting is gone", body = SettingsChanged),
        DeleteProblems,
    ),
)]
pub(super) async fn delete(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
    Path((section, key)): Path<(String, String)>,
) -> Result<Response, Failure> {
    let (change, expected) = conditional(&uri, &headers)?;
    let (section, key) = (section_name(&section)?, setting_key(&key)?);
    let _admitted = shared.admit(0)?;
    let demand = expected
        .revision
        .map(|revision| Demand::Setting(key.clone(), Revision(revision)));
    let change_of_section = SectionChange {
        demand,
        ..SectionChange::settings(section, NewSettings::one(key, None))
    };
    shared
        .change_section(change_of_section, change, expected, &uri)
        .await
        .map(changed)
}

problems! {
    DeleteSectionProblems = WRITE READ [RevisionConflict, RevisionConflict with 412, SectionChanged];
}

/// Removes a section: all of its settings, and its schema.
#[utoipa::path(
    delete, path = "/v1/settings/{section}", operation_id = "deleteSection", tag = "settings",
    params(
        ("section" = String, Path, description = "The name of a section"),
        Condition,
        Carrying,
    ),
    responses(
        (status = 200, description = "The section is gone", body = SettingsChanged),
        DeleteSectionProblems,
    ),
)]
pub(super) async fn delete_section(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
    Path(section): Path<String>,
) -> Result<Response, Failure> {
    let (change, expected) = conditional(&uri, &headers)?;
    let _admitted = shared.admit(0)?;
    let change_of_section = SectionChange {
        section: section_name(&section)?,
        demand: expected.revision.map(Revision).map(Demand::Section),
        schema: SchemaChange::Removed,
        settings: NewSettings::Replaced(Vec::new()),
    };
    shared
        .change_section(change_of_section, change, expected, &uri)
        .await
        .map(changed)
}

problems! {
    PutSchemaProblems = WRITE READ [
        RequestTimeout, ValueTooLarge, RevisionConflict, RevisionConflict with 412, SectionChanged, SchemaMismatch, InvalidSchema,
    ];
}

/// Says what a section has to fit.
///
/// What it has by now has to fit already.
#[utoipa::path(
    put, path = "/v1/schemas/{section}", operation_id = "putSchema", tag = "settings",
    params(
        ("section" = String, Path, description = "The name of a section"),
        Condition,
        Carrying,
    ),
    request_body(content = Value, description = "A JSON Schema, by which the section is one object"),
    responses(
        (status = 200, description = "The section has the schema", body = SchemaChanged),
        PutSchemaProblems,
    ),
)]
pub(super) async fn put_schema(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
    Path(section): Path<String>,
    body: Body,
) -> Result<Response, Failure> {
    let (change, expected) = conditional(&uri, &headers)?;
    let section = section_name(&section)?;
    let limit = SCHEMA_BYTES_MAX.min(shared.limits.value_bytes);
    let (body, _admitted) = shared.body(body, &headers, Oversized::Value, limit).await?;
    let schema = SchemaChange::Set(canonical(&parse(&body)?));
    let change_of_section = SectionChange {
        demand: expected.revision.map(Revision).map(Demand::Schema),
        ..SectionChange::schema(section, schema)
    };
    shared
        .change_section(change_of_section, change, expected, &uri)
        .await
        .map(schema_changed)
}

problems! {
    DeleteSchemaProblems = WRITE READ [RevisionConflict, RevisionConflict with 412, SectionChanged];
}

/// Removes the schema of a section: every value fits then.
#[utoipa::path(
    delete, path = "/v1/schemas/{section}", operation_id = "deleteSchema", tag = "settings",
    params(
        ("section" = String, Path, description = "The name of a section"),
        Condition,
        Carrying,
    ),
    responses(
        (status = 200, description = "The section has no schema", body = SchemaChanged),
        DeleteSchemaProblems,
    ),
)]
pub(super) async fn delete_schema(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
    Path(section): Path<String>,
) -> Result<Response, Failure> {
    let (change, expected) = conditional(&uri, &headers)?;
    let _admitted = shared.admit(0)?;
    let change_of_section = SectionChange {
        demand: expected.revision.map(Revision).map(Demand::Schema),
        ..SectionChange::schema(section_name(&section)?, SchemaChange::Removed)
    };
    shared
        .change_section(change_of_section, change, expected, &uri)
        .await
        .map(schema_changed)
}

/// What the parameters and headers of a change say that may name a revision.
fn conditional<'a>(uri: &'a Uri, headers: &HeaderMap) -> Result<(Change<'a>, Expected), Failure> {
    let query = Query::parse(uri.query(), &["revision", "redirect"])?;
    Ok((
        Change::read(&query, headers, uri)?,
        Expected::read(&query, headers)?,
    ))
}

fn changed(reply: SettingsReply) -> Response {
    json(&SettingsChanged {
        revision: reply.revision.0,
        written: reply.written,
        deleted: reply.deleted,
    })
}

fn schema_changed(reply: SettingsReply) -> Response {
    json(&SchemaChanged {
        revision: reply.revision.0,
        changed: reply.schemas > 0,
    })
}

fn parse(body: &[u8]) -> Result<Value, Failure> {
    serde_json::from_slice(body).map_err(|error| {
        Failure::bad_request(
            format!("the body is no JSON: {error}"),
            "mend the body; a text is written with quotes: \"text\"",
        )
    })
}

/// What there is of the sections that a change is about.
pub(super) type Present = BTreeMap<SectionName, Section>;

impl Shared {
    async fn change_section(
        &self,
        section: SectionChange,
        change: Change<'_>,
        expected: Expected,
        uri: &Uri,
    ) -> Result<SettingsReply, Failure> {
        let request = SettingsChange::of(section);
        let (reply, _) = self
            .change_settings(&request, change, uri, Look::AtSchemas)
            .await
            .map_err(|mut failure| {
                if failure.problem.code == ProblemCode::RevisionConflict && expected.precondition {
                    failure.problem.status = StatusCode::PRECONDITION_FAILED.as_u16();
                }
                failure
            })?;
        Ok(reply)
    }

    /// Makes a change that fits the schemas in force; returns also what there was before, as far as it was looked at.
    pub(super) async fn change_settings(
        &self,
        request: &SettingsChange,
        change: Change<'_>,
        uri: &Uri,
        look: Look,
    ) -> Result<(SettingsReply, Present), Failure> {
        let give_up = self.deadline();
        let mut turn = None;
        for attempt in 1.. {
            let present = self.look_at(request, uri, look).await?;
            let (judged, misfit) = match judge(request, &present, look) {
                Ok(judged) => (judged, None),
                // What was carried out before is answered again, whether or not it would fit by now; anything else is not
                // carried out without having been judged.
                Err(misfit) if change.is_once() => (Vec::new(), Some(misfit)),
                Err(misfit) => return Err(misfit),
            };
            let command = Command::Settings(SettingsCommand {
                change: request.clone(),
                judged,
            });
            let failure = match self.change(command, change.clone()).await {
                Ok(Reply::Settings(reply)) => return Ok((reply, present)),
                Ok(_) => return Err(Failure::unexpected_reply()),
                Err(failure) => failure,
            };
            if failure.problem.code != ProblemCode::SectionChanged {
                return Err(failure);
            }
            if let Some(misfit) = misfit {
                return Err(misfit);
            }
            if attempt >= ATTEMPTS_MAX || self.clock.now() >= give_up {
                return Err(failure);
            }
            if turn.is_none() {
                turn = tokio::select! {
                    biased;
                    turn = self.settings_turns.acquire() => turn.ok(),
                    () = self.clock.sleep_until(give_up) => return Err(failure),
                };
            }
        }
        unreachable!("attempts are counted without an end")
    }

    /// What there is of the sections that are to change.
    pub(super) async fn look_at(
        &self,
        request: &SettingsChange,
        uri: &Uri,
        look: Look,
    ) -> Result<Present, Failure> {
        let named = || request.sections.iter().map(|change| change.section.clone());
        let wanted = match (request.others, look) {
            (Others::Emptied, _) => WantedSections::All(None, EXPORT_BYTES_MAX),
            (Others::Stay, Look::AtSchemas) => WantedSections::Judged(named().collect()),
            (Others::Stay, Look::AtSettings) => match request.sections.as_slice() {
                [only] => WantedSections::One(only.section.clone(), None),
                _ => WantedSections::All(None, EXPORT_BYTES_MAX),
            },
        };
        let read = self.sections(wanted, Read::latest(uri)).await?;
        read.sections
            .ok_or_else(|| Failure::too_large_answer(EXPORT_BYTES_MAX))
    }
}

/// How much of the sections is looked at before they change.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// What schemas need.
    AtSchemas,
    /// All settings, to tell what changes.
    AtSettings,
}

/// Compares what sections would be with their schemas.
pub(super) fn judge(request: &SettingsChange, present: &Present, look: Look) -> Result<Vec<Judged>, Failure> {
    let mut judged = Vec::new();
    for change in request.sections.iter().chain(&emptied(request, present)) {
        let section = present.get(&change.section);
        judge_section(change, section)?;
        let plain =
            change.schema == SchemaChange::Stays && section.is_none_or(|section| section.schema.is_none());
        let basis = if plain && look == Look::AtSchemas {
            Basis::NoSchema
        } else {
            Basis::At(section.map_or(Revision::ABSENT, |section| section.revision))
        };
        let section = change.section.clone();
        judged.push(Judged { section, basis });
    }
    Ok(judged)
}

/// The sections that lose their settings since they are not named.
pub(super) fn emptied(request: &SettingsChange, present: &Present) -> Vec<SectionChange> {
    if request.others == Others::Stay {
        return Vec::new();
    }
    let is_named = |name: &SectionName| request.sections.iter().any(|change| change.section == *name);
    let others = present.keys().filter(|name| !is_named(name)).cloned();
    others
        .map(|name| SectionChange::settings(name, NewSettings::Replaced(Vec::new())))
        .collect()
}

fn judge_section(change: &SectionChange, section: Option<&Section>) -> Result<(), Failure> {
    let schema = match &change.schema {
        SchemaChange::Removed => return Ok(()),
        SchemaChange::Set(schema) => schema,
        SchemaChange::Stays => match section.and_then(|section| section.schema.as_ref()) {
            Some((schema, _)) => schema,
            None => return Ok(()),
        },
    };
    let schema = Schema::new(&value_of(schema)?)?;
    schema.check(&change.section, &after(change, section)?)
}

/// What the settings of a section would be.
pub(super) fn after(
    change: &SectionChange,
    section: Option<&Section>,
) -> Result<BTreeMap<String, Value>, Failure> {
    let mut settings = match (&change.settings, section) {
        (NewSettings::Merged(_), Some(section)) => document::section(section)?,
        _ => BTreeMap::new(),
    };
    for (key, value) in change.settings.entries() {
        match value {
            Some(value) => drop(settings.insert(key.to_string(), value_of(value)?)),
            None => drop(settings.remove(key.as_str())),
        }
    }
    Ok(settings)
}
