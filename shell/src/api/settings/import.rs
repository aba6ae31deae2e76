//! Importing settings: whole sections at once, as one change.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode, Uri};
use quorate_api::{
    DifferenceKind, ImportAnswer, ProblemCode, SectionDocument, SettingDifference, SettingsDocument,
};
use quorate_core::state::{
    Demand, NewSettings, Others, Revision, SectionChange, SectionName, SettingsChange, SettingsReply,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::super::Shared;
use super::super::answer::{Failure, json};
use super::super::backend::Oversized;
use super::super::kv::Expected;
use super::super::openapi::parameters::{Carrying, Condition};
use super::super::openapi::problems::problems;
use super::super::query::Query;
use super::super::requests::Change;
use super::change::{Look, Present, after, emptied, judge};
use super::document::{self, Format};
use super::{canonical, section_name, setting_key};

/// What becomes of what an import does not name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Merge,
    Replace,
}

impl Mode {
    fn read(query: &Query<'_>) -> Result<Mode, Failure> {
        match query.bytes("mode") {
            None | Some(b"merge") => Ok(Mode::Merge),
            Some(b"replace") => Ok(Mode::Replace),
            Some(other) => Err(Failure::bad_request(
                format!("the parameter `mode` is `{}`", String::from_utf8_lossy(other)),
                "expected merge (what is not named stays) or replace (it is removed)",
            )),
        }
    }
}

problems! {
    ImportAllProblems = WRITE READ BODY [KeyTooLarge, ValueTooLarge, SectionChanged, SchemaMismatch, InvalidSchema];
}

/// Imports sections of settings as one change.
#[utoipa::path(
    put, path = "/v1/settings", operation_id = "importSettings", tag = "settings",
    params(
        ("mode" = Option<String>, Query, description = "What becomes of settings that are not named: `merge` (they stay, when it \
            is left out) or `replace` (they are removed)"),
        ("dry_run" = Option<bool>, Query, description = "Whether to say what would change, and to change nothing"),
        ("format" = Option<String>, Query, description = "The form of the body, `json` or `yaml`; what `Content-Type` says \
            when it is left out"),
        Carrying,
    ),
    request_body(content(
        (BTreeMap<String, BTreeMap<String, Value>> = "application/json"),
        (String = "application/yaml"),
    )),
    responses(
        (status = 200, description = "What changed, or would", body = ImportAnswer),
        ImportAllProblems,
    ),
)]
pub(super) async fn import_all(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failure> {
    let query = Query::parse(uri.query(), &["mode", "dry_run", "format", "redirect"])?;
    let (change, mode) = (Change::read(&query, &headers, &uri)?, Mode::read(&query)?);
    let limit = shared.limits.transaction_bytes;
    let (body, _admitted) = shared.body(body, &headers, Oversized::Body, limit).await?;
    let sections: SettingsDocument = parse(&body, Format::sent(&query, &headers)?)?;
    let mut request = SettingsChange {
        sections: Vec::with_capacity(sections.len()),
        others: match mode {
            Mode::Merge => Others::Stay,
            Mode::Replace => Others::Emptied,
        },
    };
    for (name, settings) in sections {
        let section = section_name(&name)?;
        request.sections.push(section_change(section, settings, mode)?);
    }
    shared
        .import(request, change, query.switch("dry_run")?, &uri)
        .await
}

problems! {
    ImportSectionProblems = WRITE READ BODY [
        KeyTooLarge, ValueTooLarge, RevisionConflict, RevisionConflict with 412, SectionChanged, SchemaMismatch, InvalidSchema,
    ];
}

/// Imports a section of settings as one change.
#[utoipa::path(
    put, path = "/v1/settings/{section}", operation_id = "importSection", tag = "settings",
    params(
        ("section" = String, Path, description = "The name of a section"),
        ("mode" = Option<String>, Query, description = "What becomes of settings that are not named: `merge` (they stay, when it \
            is left out) or `replace` (they are removed)"),
        ("dry_run" = Option<bool>, Query, description = "Whether to say what would change, and to change nothing"),
        ("format" = Option<String>, Query, description = "The form of the body, `json` or `yaml`; what `Content-Type` says \
            when it is left out"),
        Condition,
        Carrying,
    ),
    request_body(content(
        (BTreeMap<String, Value> = "application/json"),
        (String = "application/yaml"),
    )),
    responses(
        (status = 200, description = "What changed, or would", body = ImportAnswer),
        ImportSectionProblems,
    ),
)]
pub(super) async fn import_section(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
    Path(section): Path<String>,
    body: Body,
) -> Result<Response, Failure> {
    let query = Query::parse(
        uri.query(),
        &["mode", "dry_run", "format", "redirect", "revision"],
    )?;
    let (change, mode) = (Change::read(&query, &headers, &uri)?, Mode::read(&query)?);
    let expected = Expected::read(&query, &headers)?;
    let section = section_name(&section)?;
    let limit = shared.limits.transaction_bytes;
    let (body, _admitted) = shared.body(body, &headers, Oversized::Body, limit).await?;
    let settings: SectionDocument = parse(&body, Format::sent(&query, &headers)?)?;
    let request = SettingsChange::of(SectionChange {
        demand: expected.revision.map(Revision).map(Demand::Section),
        ..section_change(section, settings, mode)?
    });
    let answer = shared
        .import(request, change, query.switch("dry_run")?, &uri)
        .await;
    answer.map_err(|mut failure| {
        if failure.problem.code == ProblemCode::RevisionConflict && expected.precondition {
            failure.problem.status = StatusCode::PRECONDITION_FAILED.as_u16();
        }
        failure
    })
}

fn parse<T: DeserializeOwned>(body: &[u8], format: Format) -> Result<T, Failure> {
    let value = format.read(body)?;
    serde_json::from_value(value).map_err(|error| {
        Failure::bad_request(
            format!("the body is not of the expected form: {error}"),
            "expected what an export gives: `{\"section\": {\"key\": value}}`, or `{\"key\": value}` for one section",
        )
    })
}

fn section_change(
    section: SectionName,
    settings: SectionDocument,
    mode: Mode,
) -> Result<SectionChange, Failure> {
    let mut named = Vec::with_capacity(settings.len());
    for (key, value) in settings {
        named.push((setting_key(&key)?, canonical(&value)));
    }
    let settings = match mode {
        Mode::Merge => {
            NewSettings::Merged(named.into_iter().map(|(key, value)| (key, Some(value))).collect())
        }
        Mode::Replace => NewSettings::Replaced(named),
    };
    Ok(SectionChange::settings(section, settings))
}

impl Shared {
    async fn import(
        &self,
        request: SettingsChange,
        change: Change<'_>,
        dry_run: bool,
        uri: &Uri,
    ) -> Result<Response, Failure> {
        request
            .check()
            .map_err(|refusal| Failure::from(super::problem(refusal)))?;
        let (reply, present) = if dry_run {
            let present = self.look_at(&request, uri, Look::AtSettings).await?;
            judge(&request, &present, Look::AtSettings)?;
            let latest = present.values().map(|section| section.revision.0).max();
            let reply = SettingsReply {
                revision: Revision(latest.unwrap_or_default()),
                ..SettingsReply::default()
            };
            (reply, present)
        } else {
            self.change_settings(&request, change, uri, Look::AtSettings)
                .await?
        };
        let changes = differences(&request, &present)?;
        let count = |gone| {
            let gone = changes
                .iter()
                .filter(|change| (change.kind == DifferenceKind::Removed) == gone);
            gone.count() as u64
        };
        let (written, deleted) = match dry_run {
            true => (count(false), count(true)),
            false => (reply.written, reply.deleted),
        };
        Ok(json(&ImportAnswer {
            revision: reply.revision.0,
            dry_run,
            written,
            deleted,
            changes,
        }))
    }
}

/// What becomes of settings.
fn differences(request: &SettingsChange, present: &Present) -> Result<Vec<SettingDifference>, Failure> {
    let mut differences = Vec::new();
    for change in request.sections.iter().chain(&emptied(request, present)) {
        let section = present.get(&change.section);
        let mut before = match section {
            Some(section) => document::section(section)?,
            None => SectionDocument::new(),
        };
        let difference = |key: String, kind, before, after| SettingDifference {
            section: change.section.to_string(),
            key,
            kind,
            before,
            after,
        };
        for (key, value) in after(change, section)? {
            match before.remove(&key) {
                None => differences.push(difference(key, DifferenceKind::Added, Value::Null, value)),
                Some(was) if was != value => {
                    differences.push(difference(key, DifferenceKind::Modified, was, value));
                }
                Some(_) => {}
            }
        }
        let removed = before.into_iter();
        differences
            .extend(removed.map(|(key, was)| difference(key, DifferenceKind::Removed, was, Value::Null)));
    }
    differences.sort_by(|one, other| (&one.section, &one.key).cmp(&(&other.section, &other.key)));
    Ok(differences)
}
