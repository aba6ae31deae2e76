//! Parameters and headers that many operations take.

use quorate_api::Consistency;
use quorate_core::state::REQUEST_KEY_BYTES_MAX;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{KnownFormat, RefOr, Required, Schema, SchemaFormat};
use utoipa::{IntoParams, PartialSchema};

use super::super::watch::{PROGRESS_MAX, PROGRESS_MIN};

/// How fresh a read must be.
pub(in crate::api) enum Freshness {}

impl IntoParams for Freshness {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![
            query(
                "consistency",
                "How fresh the read must be; `linearizable` when it is left out. `strong` and `eventual` are read as \
                 `linearizable` and `serializable`.",
                Consistency::schema(),
            ),
            query(
                "min_revision",
                "The node that answers has this revision, or waits until it has: reads of any node see what a write did \
                 whose answer named it.",
                number(),
            ),
        ]
    }
}

/// How a change is carried out.
pub(in crate::api) enum Carrying {}

impl IntoParams for Carrying {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let key = text().min_length(Some(1)).max_length(Some(REQUEST_KEY_BYTES_MAX));
        vec![
            query(
                "redirect",
                "Whether a node that does not lead answers where the leader is (307) instead of sending the request on.",
                switch(),
            ),
            header(
                "Idempotency-Key",
                "A key of the client's choice, different for each request, such as a UUID. The change is carried out once \
                 under it: sent again, it answers what it answered first.",
                key,
            ),
        ]
    }
}

/// A change that is made only at the expected revision.
pub(in crate::api) enum Condition {}

impl IntoParams for Condition {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![
            query(
                "revision",
                "Only if this is the revision of what is to change; 0 when it must not exist.",
                number(),
            ),
            header(
                "If-Match",
                "The same, as an HTTP precondition: the ETag of a read. Another revision is answered 412 then, not 409.",
                text(),
            ),
            header(
                "If-None-Match",
                "`*` alone: only if what is to change does not exist.",
                text(),
            ),
        ]
    }
}

/// From where on events are told, and how often nothing is.
pub(in crate::api) enum Following {}

impl IntoParams for Following {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![
            query(
                "from_revision",
                "The revision to begin with; what is yet to come when it is left out.",
                number(),
            ),
            query(
                "progress_ms",
                "How long nothing may be told before a mark of progress is, in milliseconds; 10,000 when it is left out.",
                number().minimum(Some(PROGRESS_MIN)).maximum(Some(PROGRESS_MAX)),
            ),
            header(
                "Last-Event-ID",
                "The id of the last event that was heard, after which the watch goes on; it counts, and not \
                 `from_revision`, when both are there.",
                number(),
            ),
        ]
    }
}

fn query(name: &str, description: &str, schema: impl Into<RefOr<Schema>>) -> Parameter {
    parameter(ParameterIn::Query, name, description, schema)
}

fn header(name: &str, description: &str, schema: impl Into<RefOr<Schema>>) -> Parameter {
    parameter(ParameterIn::Header, name, description, schema)
}

fn parameter(
    place: ParameterIn,
    name: &str,
    description: &str,
    schema: impl Into<RefOr<Schema>>,
) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(place)
        .required(Required::False)
        .description(Some(description))
        .schema(Some(schema))
        .build()
}

fn number() -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::Integer)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
        .minimum(Some(0_u8))
}

fn switch() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Boolean)
}

fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}
