//! Parameters and headers that many operations take.

use quorate_api::Consistency;
use quorate_core::state::REQUEST_KEY_BYTES_MAX;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{KnownFormat, RefOr, Required, Schema, SchemaFormat};
use utoipa::{IntoParams, PartialSchema};

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
            ParameterBuilder::new()
                .name("Idempotency-Key")
                .parameter_in(ParameterIn::Header)
                .required(Required::False)
                .description(Some(
                    "A key of the client's choice, different for each request, such as a UUID. The change is carried out \
                     once under it: sent again, it answers what it answered first.",
                ))
                .schema(Some(Schema::from(key.build())))
                .build(),
        ]
    }
}

fn query(name: &str, description: &str, schema: impl Into<RefOr<Schema>>) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Query)
        .required(Required::False)
        .description(Some(description))
        .schema(Some(schema))
        .build()
}

fn number() -> Schema {
    ObjectBuilder::new()
        .schema_type(Type::Integer)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
        .minimum(Some(0_u8))
        .build()
        .into()
}

fn switch() -> Schema {
    ObjectBuilder::new().schema_type(Type::Boolean).build().into()
}

fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}
