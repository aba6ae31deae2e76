//! Watches of settings: `GET /v1/watch/settings`, of all sections or one.
//!
//! It is a watch as of keys ([`watch`](super::super::watch)), of another space, told in other words.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, Uri};
use quorate_api::{SettingsChange, SettingsNews};
use quorate_core::state::{Event, Interest, KeyRange, Kinds, Revision, SettingsPart, Space};
use serde_json::Value;

use super::super::Shared;
use super::super::answer::Failure;
use super::super::openapi::parameters::Following;
use super::super::openapi::problems::problems;
use super::super::query::Query;
use super::super::watch::{Words, stream};
use super::{section_name, setting_key};

problems! {
    WatchProblems = WATCH READ [FutureRevision, KeyTooLarge];
}

/// Tells what becomes of settings.
///
/// Server-sent events: `open` and `progress` with a `WatchMark`, `change` with a `SettingsChange`, and `cancel` with a
/// `Problem` at the end. The id of an event is the revision up to which everything was told.
#[utoipa::path(
    get, path = "/v1/watch/settings", operation_id = "watchSettings", tag = "settings",
    extensions(("x-server-sent-events" = json!({"open": "WatchMark", "change": "SettingsChange", "progress": "WatchMark", "cancel": "Problem"}))),
    params(
        ("section" = Option<String>, Query, description = "Only this section"),
        ("key" = Option<String>, Query, description = "Only this setting of the section"),
        Following,
    ),
    responses(
        (status = 200, description = "Events, as they happen", content_type = "text/event-stream", body = String),
        WatchProblems,
    ),
)]
pub(super) async fn watch(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let query = Query::parse(uri.query(), &["section", "key", "from_revision", "progress_ms"])?;
    let section: Option<String> = query.value("section", "the name of a section")?;
    let section = section.as_deref().map(section_name).transpose()?;
    let key: Option<String> = query.value("key", "the key of a setting")?;
    let key = key.as_deref().map(setting_key).transpose()?;
    let range = match (&section, &key) {
        (None, None) => KeyRange::all(),
        (Some(section), None) => section.range(),
        (Some(section), Some(key)) => section.range_of(key),
        (None, Some(_)) => {
            return Err(Failure::bad_request(
                "the parameter `key` is given without a section",
                "add `section=`",
            ));
        }
    };
    let interest = Interest {
        space: Space::Settings,
        range,
        kinds: Kinds::ALL,
    };
    stream(&shared, &uri, interest, &query, &headers, SettingsWords).await
}

/// What becomes of settings.
struct SettingsWords;

impl Words for SettingsWords {
    type Change = SettingsChange;

    fn change(&self, revision: Revision, events: &[Arc<Event>], partial: bool) -> Option<SettingsChange> {
        let events: Vec<SettingsNews> = events.iter().filter_map(|event| news(event)).collect();
        (!events.is_empty()).then_some(SettingsChange {
            revision: revision.0,
            events,
            partial,
        })
    }
}

/// An event in the words of the API; none for the head of a section, which changes with everything else of it.
fn news(event: &Event) -> Option<SettingsNews> {
    // Values are written by this API, as JSON.
    let current = event.current.as_ref();
    let current = current.map(|pair| serde_json::from_slice(&pair.value).unwrap_or(Value::Null));
    match (SettingsPart::of_key(&event.key)?, current) {
        (SettingsPart::Head(_), _) => None,
        (SettingsPart::Value(section, key), Some(value)) => Some(SettingsNews::Set {
            section: section.into(),
            key: key.into(),
            value,
        }),
        (SettingsPart::Value(section, key), None) => Some(SettingsNews::Deleted {
            section: section.into(),
            key: key.into(),
        }),
        (SettingsPart::Schema(section), Some(schema)) => Some(SettingsNews::SchemaSet {
            section: section.into(),
            schema,
        }),
        (SettingsPart::Schema(section), None) => Some(SettingsNews::SchemaDeleted {
            section: section.into(),
        }),
    }
}
