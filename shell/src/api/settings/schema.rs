//! Whether a section fits a schema: JSON Schema, which describes the section as one object.
//!
//! A schema is taken as its `$schema` says, and as of draft 2020-12 without one. It refers to nothing outside of itself: no
//! network and no file is ever read for it. Patterns are matched in linear time.

use std::collections::BTreeMap;

use jsonschema::{PatternOptions, Validator};
use quorate_api::ProblemCode;
use quorate_core::state::SectionName;
use serde_json::{Map, Value};

use super::super::answer::Failure;

/// How many of the places that do not fit are told.
const TOLD_MAX: usize = 5;
/// How much is told of each, in characters.
const TOLD_CHARACTERS: usize = 200;

/// What the values of a section have to fit.
pub(super) struct Schema(Validator);

impl Schema {
    /// Reads a schema.
    ///
    /// # Errors
    /// With what is wrong with it.
    pub(super) fn new(schema: &Value) -> Result<Schema, Failure> {
        // Something else than an object or a boolean is no schema in any draft.
        let built = jsonschema::options()
            .with_pattern_options(PatternOptions::regex())
            .build(schema);
        built.map(Schema).map_err(|error| {
            let place = place(&error.instance_path().to_string());
            Failure::new(
                ProblemCode::InvalidSchema,
                format!("this is no schema: {place}{}", shortened(&error.to_string())),
                "nothing changed; send a JSON Schema (json-schema.org) that refers to nothing outside of itself",
            )
        })
    }

    /// Whether the settings of a section fit.
    ///
    /// # Errors
    /// With the first places that do not.
    pub(super) fn check(
        &self,
        section: &SectionName,
        settings: &BTreeMap<String, Value>,
    ) -> Result<(), Failure> {
        let settings: Map<String, Value> = settings.clone().into_iter().collect();
        let settings = Value::Object(settings);
        let mut wrong: Vec<(String, String)> = self
            .0
            .iter_errors(&settings)
            .take(1_000)
            .map(|error| (error.instance_path().to_string(), error.to_string()))
            .collect();
        if wrong.is_empty() {
            return Ok(());
        }
        wrong.sort();
        let told = wrong.iter().take(TOLD_MAX);
        let told: Vec<String> = told
            .map(|(path, what)| format!("{}{}", place(path), shortened(what)))
            .collect();
        let more = match wrong.len().saturating_sub(TOLD_MAX) {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        Err(Failure::new(
            ProblemCode::SchemaMismatch,
            format!(
                "section {section} would not fit its schema: {}{more}",
                told.join("; ")
            ),
            format!("nothing changed; GET /v1/schemas/{section} shows the schema"),
        ))
    }
}

fn place(path: &str) -> String {
    if path.is_empty() {
        String::new()
    } else {
        format!("at {}: ", shortened(path))
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(TOLD_CHARACTERS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}
