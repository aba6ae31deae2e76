//! Settings as people write them, in JSON and YAML.

use std::borrow::Cow;
use std::marker::PhantomData;

use axum::response::Response;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, StatusCode};
use quorate_api::SectionDocument;
use quorate_core::state::Section;
use serde::Serialize;
use serde_json::Value;
use utoipa::openapi::schema::{AnyOfBuilder, ObjectBuilder};
use utoipa::openapi::{Ref, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::super::answer::{Failure, json, with_type};
use super::super::query::Query;
use super::value_of;
use crate::yaml::SyntaxError;
use crate::yaml::json::{from_yaml, to_yaml};

/// A form of settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Yaml,
}

impl Format {
    /// The form of an answer, by the parameter `format` or the header `Accept`; none for the answer of the API itself.
    pub(super) fn wanted(query: &Query<'_>, headers: &HeaderMap) -> Result<Option<Format>, Failure> {
        let by_header = is_yaml(headers, ACCEPT).then_some(Format::Yaml);
        Ok(Format::parameter(query)?.or(by_header))
    }

    /// The form of a body, by the parameter `format` or the header `Content-Type`.
    pub(super) fn sent(query: &Query<'_>, headers: &HeaderMap) -> Result<Format, Failure> {
        let by_header = if is_yaml(headers, CONTENT_TYPE) {
            Format::Yaml
        } else {
            Format::Json
        };
        Ok(Format::parameter(query)?.unwrap_or(by_header))
    }

    fn parameter(query: &Query<'_>) -> Result<Option<Format>, Failure> {
        match query.bytes("format") {
            None => Ok(None),
            Some(b"json") => Ok(Some(Format::Json)),
            Some(b"yaml") => Ok(Some(Format::Yaml)),
            Some(other) => Err(Failure::bad_request(
                format!("the parameter `format` is `{}`", String::from_utf8_lossy(other)),
                "expected json or yaml",
            )),
        }
    }

    /// Reads a body.
    pub(super) fn read(self, body: &[u8]) -> Result<Value, Failure> {
        let mend =
            |detail: String| Failure::bad_request(detail, "mend the body, or say `format=` yaml or json");
        match self {
            Format::Json => {
                serde_json::from_slice(body).map_err(|error| mend(format!("the body is no JSON: {error}")))
            }
            Format::Yaml => {
                let text =
                    std::str::from_utf8(body).map_err(|_| mend("the body is no UTF-8 text".to_owned()))?;
                from_yaml(text).map_err(|SyntaxError { line, message }| {
                    mend(format!(
                        "the body is not the expected YAML: line {line}: {message}"
                    ))
                })
            }
        }
    }

    /// An answer in this form.
    pub(super) fn write(self, document: &impl Serialize) -> Response {
        match self {
            Format::Json => json(document),
            Format::Yaml => {
                let value = serde_json::to_value(document).expect("settings have string keys");
                with_type(StatusCode::OK, "application/yaml", Bytes::from(to_yaml(&value)))
            }
        }
    }
}

/// The schema of what is answered as a `T` or as an export, whose names are those of sections or of settings.
pub(super) struct OrExport<T>(PhantomData<T>);

impl<T: ToSchema> PartialSchema for OrExport<T> {
    fn schema() -> RefOr<Schema> {
        AnyOfBuilder::new()
            .item(Ref::from_schema_name(T::name()))
            .item(ObjectBuilder::new().description(Some("An export")))
            .into()
    }
}

impl<T: ToSchema> ToSchema for OrExport<T> {
    fn name() -> Cow<'static, str> {
        format!("{}OrExport", T::name()).into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((T::name().into_owned(), T::schema()));
        T::schemas(schemas);
    }
}

fn is_yaml(headers: &HeaderMap, name: HeaderName) -> bool {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.is_some_and(|value| value.contains("yaml"))
}

/// The settings of a section.
pub(super) fn section(section: &Section) -> Result<SectionDocument, Failure> {
    let settings = section.settings.iter();
    settings
        .map(|setting| Ok((setting.key.to_string(), value_of(&setting.value)?)))
        .collect()
}
