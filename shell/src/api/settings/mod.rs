//! Settings: named sections, each a JSON object that may have a schema.
//!
//! - here: the paths, names, and why a change was refused;
//! - [`read`]: sections, single settings and their history;
//! - [`change`]: changes, each compared with the schema in force and made only while that and the section stay;
//! - [`import`]: whole sections at once, and what an import would change;
//! - [`schema`]: whether a section fits a schema;
//! - [`document`]: settings as YAML and JSON;
//! - [`watch`]: what becomes of settings, as it happens.

mod change;
mod document;
mod import;
mod read;
mod schema;
#[cfg(test)]
mod tests;
mod watch;

use std::sync::Arc;

use bytes::Bytes;
use quorate_api::{Problem, ProblemCode};
use quorate_core::state::{
    Revision, SCHEMA_BYTES_MAX, SECTION_BYTES_MAX, SECTION_NAME_BYTES_MAX, SECTION_SETTINGS_MAX,
    SECTIONS_MAX, SETTING_KEY_BYTES_MAX, SETTING_VALUE_BYTES_MAX, SectionName, SettingKey, SettingsRefusal,
};
use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use super::answer::Failure;
use super::backend::Oversized;

/// The paths of settings.
pub(super) fn routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new()
        .routes(routes!(read::list, import::import_all))
        .routes(routes!(
            read::section,
            import::import_section,
            change::delete_section
        ))
        .routes(routes!(read::setting, change::put, change::delete))
        .routes(routes!(read::history))
        .routes(routes!(read::schema, change::put_schema, change::delete_schema))
        .routes(routes!(watch::watch))
}

/// Why the state machine changed no settings.
pub(super) fn problem(refusal: SettingsRefusal) -> Problem {
    let detail = refusal.to_string();
    let problem = |code, action: &str| Problem::new(code, detail.clone(), action);
    let quota = |limit: usize| {
        let action =
            "nothing changed; remove settings that nobody needs (GET /v1/settings lists the sections)";
        problem(ProblemCode::QuotaReached, action).with_limit(limit as u64)
    };
    let too_large = |limit: usize| {
        problem(ProblemCode::ValueTooLarge, "nothing changed; send less").with_limit(limit as u64)
    };
    match refusal {
        SettingsRefusal::NotAsJudged => {
            let action = "nothing changed; try again, more slowly";
            problem(ProblemCode::SectionChanged, action).with_retry_after(1)
        }
        SettingsRefusal::Conflict {
            current: Revision(current),
        } => {
            let action = "nothing changed; read it again and decide anew";
            let mut problem = problem(ProblemCode::RevisionConflict, action);
            problem.current_revision = Some(current);
            problem
        }
        SettingsRefusal::NamedTwice => problem(ProblemCode::BadRequest, "nothing changed; leave one out"),
        SettingsRefusal::ValueTooLarge => too_large(SETTING_VALUE_BYTES_MAX),
        SettingsRefusal::SchemaTooLarge => too_large(SCHEMA_BYTES_MAX),
        SettingsRefusal::TooManySettings => quota(SECTION_SETTINGS_MAX),
        SettingsRefusal::SectionTooLarge => quota(SECTION_BYTES_MAX),
        SettingsRefusal::TooManySections => quota(SECTIONS_MAX),
    }
}

fn section_name(text: &str) -> Result<SectionName, Failure> {
    SectionName::new(text).ok_or_else(|| {
        Failure::bad_request(
            format!("`{text}` is no name of a section"),
            format!("expected 1 to {SECTION_NAME_BYTES_MAX} letters, digits, `-`, `_` and `.`"),
        )
    })
}

fn setting_key(text: &str) -> Result<SettingKey, Failure> {
    if text.len() > SETTING_KEY_BYTES_MAX {
        return Err(Failure::too_large(Oversized::Key, SETTING_KEY_BYTES_MAX));
    }
    SettingKey::new(text).ok_or_else(|| {
        Failure::bad_request(
            format!("`{}` is no key of a setting", text.escape_debug()),
            format!(
                "expected 1 to {SETTING_KEY_BYTES_MAX} bytes of text without control characters; `/` is written as %2F"
            ),
        )
    })
}

/// A value as it is kept: JSON with the keys of objects in order, and without blanks.
fn canonical(value: &Value) -> Bytes {
    serde_json::to_vec(value)
        .expect("a value of JSON has string keys and no failing parts")
        .into()
}

/// A value that was kept.
fn value_of(bytes: &[u8]) -> Result<Value, Failure> {
    serde_json::from_slice(bytes).map_err(|error| {
        Failure::new(
            ProblemCode::Internal,
            format!("a value or a schema that is kept is no JSON: {error}"),
            "this is a mistake in Quorate; please report it",
        )
    })
}
