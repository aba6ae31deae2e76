//! Whether a section fits a schema: JSON Schema, which describes the section as one object.
//!
//! A schema is taken as its `$schema` says, and as of draft 2020-12 without one. It refers to nothing outside of itself: no
//! network and no file is ever read for it. Patterns are matched in linear time. A schema that a value of the depth at hand
//! could lead through too many turns is refused, since references can make them double with every step.

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

/// How many references a schema may have.
const REFERENCES_MAX: usize = 256;
/// Through how many parts of a schema one part of a section may lead.
const TURNS_MAX: u64 = 100_000;
/// How deep the search for these may go.
const SEARCH_DEPTH_MAX: usize = 2_000;
/// What makes a part of a schema be about a part of the value.
const DESCENDING: [&str; 10] = [
    "properties",
    "patternProperties",
    "additionalProperties",
    "unevaluatedProperties",
    "propertyNames",
    "items",
    "prefixItems",
    "additionalItems",
    "unevaluatedItems",
    "contains",
];
/// What is no part that a value is led through, but by a reference.
const APART: [&str; 6] = ["$defs", "definitions", "enum", "const", "default", "examples"];

/// What the values of a section have to fit.
pub(super) struct Schema {
    source: Value,
    validator: Validator,
}

impl Schema {
    /// Reads a schema.
    ///
    /// # Errors
    /// With what is wrong with it.
    pub(super) fn new(schema: &Value) -> Result<Schema, Failure> {
        if references(schema) > REFERENCES_MAX {
            return Err(too_intricate(&format!(
                "it has more than {REFERENCES_MAX} references"
            )));
        }
        if Turns::new(schema, false).of(schema, 0, 0) > TURNS_MAX {
            return Err(too_intricate("its references lead through too many parts of it"));
        }
        // Something else than an object or a boolean is no schema in any draft.
        let built = jsonschema::options()
            .with_pattern_options(PatternOptions::regex())
            .build(schema);
        let validator = built.map_err(|error| {
            let place = place(&error.instance_path().to_string());
            Failure::new(
                ProblemCode::InvalidSchema,
                format!("this is no schema: {place}{}", shortened(&error.to_string())),
                "nothing changed; send a JSON Schema (json-schema.org) that refers to nothing outside of itself",
            )
        })?;
        let source = schema.clone();
        Ok(Schema { source, validator })
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
        let mut turns = Turns::new(&self.source, true);
        if turns.of(&self.source, depth(&settings), 0) > TURNS_MAX {
            return Err(too_intricate("its references lead through too many parts of it"));
        }
        let mut wrong: Vec<(String, String)> = self
            .validator
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

fn too_intricate(why: &str) -> Failure {
    Failure::new(
        ProblemCode::InvalidSchema,
        format!("the schema is too intricate: {why}"),
        "nothing changed; use fewer references (`$ref`)",
    )
}

fn references(schema: &Value) -> usize {
    match schema {
        Value::Object(map) => {
            let own = map.keys().filter(|key| is_reference(key)).count();
            own + map.values().map(references).sum::<usize>()
        }
        Value::Array(items) => items.iter().map(references).sum(),
        _ => 0,
    }
}

fn is_reference(key: &str) -> bool {
    matches!(key, "$ref" | "$dynamicRef" | "$recursiveRef")
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// Counts the parts of a schema that a value may be led through, at the most.
struct Turns<'a> {
    root: &'a Value,
    /// Whether to go on only as deep as the value goes, or through the whole schema.
    by_depth: bool,
    /// By the address of a part and how deep the value still is.
    known: BTreeMap<(usize, usize), u64>,
}

impl<'a> Turns<'a> {
    fn new(root: &'a Value, by_depth: bool) -> Turns<'a> {
        Turns {
            root,
            by_depth,
            known: BTreeMap::new(),
        }
    }

    fn of(&mut self, part: &'a Value, depth: usize, level: usize) -> u64 {
        if level > SEARCH_DEPTH_MAX {
            return u64::MAX;
        }
        let place = (std::ptr::from_ref(part).addr(), depth);
        if let Some(known) = self.known.get(&place) {
            return *known;
        }
        // What leads to itself without going deeper into the value comes to an end there.
        self.known.insert(place, 0);
        let mut turns: u64 = 1;
        match part {
            Value::Array(items) => {
                for item in items {
                    turns = turns.saturating_add(self.of(item, depth, level + 1));
                }
            }
            Value::Object(map) => {
                for (key, value) in map {
                    let more = match value {
                        _ if APART.contains(&key.as_str()) => 0,
                        Value::String(reference) if is_reference(key) => {
                            self.of(self.target(reference), depth, level + 1)
                        }
                        value if self.by_depth && DESCENDING.contains(&key.as_str()) => {
                            match depth.checked_sub(1) {
                                Some(deeper) => self.of(value, deeper, level + 1),
                                None => 0,
                            }
                        }
                        Value::Object(_) | Value::Array(_) => self.of(value, depth, level + 1),
                        _ => 0,
                    };
                    turns = turns.saturating_add(more);
                }
            }
            _ => {}
        }
        self.known.insert(place, turns);
        turns
    }

    /// What a reference means; the whole schema where that is not plain.
    fn target(&self, reference: &str) -> &'a Value {
        let pointer = reference.strip_prefix('#').unwrap_or_default();
        let pointer = percent_encoding::percent_decode_str(pointer).decode_utf8_lossy();
        self.root.pointer(&pointer).unwrap_or(self.root)
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
