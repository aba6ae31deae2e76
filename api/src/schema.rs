//! What the types look like in JSON, as schemas for the node's OpenAPI document.
//!
//! Most of them derive theirs. Here are those that are written otherwise than their fields say.

use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Type};
use utoipa::openapi::{KnownFormat, RefOr, Schema, SchemaFormat};
use utoipa::{PartialSchema, ToSchema};

use crate::name::NAME_LENGTH_MAX;
use crate::{NodeName, ProblemCode};

impl PartialSchema for NodeName {
    fn schema() -> RefOr<Schema> {
        let text = ObjectBuilder::new()
            .schema_type(Type::String)
            .pattern(Some("^[A-Za-z0-9._-]+$"))
            .min_length(Some(1))
            .max_length(Some(NAME_LENGTH_MAX));
        let number = ObjectBuilder::new()
            .schema_type(Type::Integer)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
            .minimum(Some(0_u8));
        OneOfBuilder::new()
            .item(text)
            .item(number)
            .description(Some(
                "The name an operator gave a node: 1 to 64 letters, digits, dots, dashes and underscores. A name that is \
                 a number in its shortest decimal form is written as a number (`1`), every other one as a string \
                 (`\"node1\"`, `\"01\"`). Both forms are read.",
            ))
            .into()
    }
}

impl ToSchema for NodeName {}

impl PartialSchema for ProblemCode {
    fn schema() -> RefOr<Schema> {
        let codes = ProblemCode::ALL.iter().map(|code| code.as_str());
        let lines = ProblemCode::ALL
            .iter()
            .map(|code| format!("\n- `{code}`: {}", code.meaning()));
        let introduction =
            "The stable code of a problem, for programs. Later versions may have more of them.\n";
        ObjectBuilder::new()
            .schema_type(Type::String)
            .enum_values(Some(codes))
            .description(Some(introduction.to_owned() + &lines.collect::<String>()))
            .extensions(Some(
                Extensions::builder()
                    .add(
                        "x-enumDescriptions",
                        ProblemCode::ALL
                            .iter()
                            .map(|code| (code.as_str().to_owned(), code.meaning().into()))
                            .collect::<serde_json::Map<_, _>>(),
                    )
                    .build(),
            ))
            .into()
    }
}

impl ToSchema for ProblemCode {}
