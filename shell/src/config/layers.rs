//! File, environment and flags put on top of each other: the later wins.

use std::collections::BTreeMap;

use super::mistake::{Mistake, Origin, nearest};
use super::settings::{OTHER_VARIABLES, SETTINGS, by_flag, by_key};
use crate::yaml::{self, Node, Scalar, Value};

/// A value as it was given.
#[derive(Clone, Debug)]
pub(super) struct Raw {
    pub(super) node: Node,
    pub(super) origin: Origin,
}

/// The winning value of every setting that was given, and what was wrong on the way.
#[derive(Debug, Default)]
pub(super) struct Layers {
    values: BTreeMap<&'static str, Raw>,
    pub(super) mistakes: Vec<Mistake>,
    pub(super) warnings: Vec<String>,
}

impl Layers {
    pub(super) fn get(&self, key: &str) -> Option<&Raw> {
        self.values.get(key)
    }

    /// Adds the file, the lowest layer.
    pub(super) fn add_file(&mut self, path: &str, text: &str) {
        match yaml::parse(text) {
            Ok(root) => self.add_section(path, "", root),
            Err(error) => self.mistakes.push(Mistake {
                origin: Some(Origin::File {
                    path: path.to_owned(),
                    line: error.line,
                    key: "syntax".to_owned(),
                }),
                message: error.message,
            }),
        }
    }

    fn add_section(&mut self, path: &str, section: &str, node: Node) {
        let entries = match node.value {
            Value::Map(entries) => entries,
            Value::Null => return,
            Value::Scalar(_) | Value::List(_) => {
                let key = if section.is_empty() { "file" } else { section };
                let origin = origin(path, node.line, key);
                self.mistake(origin, "expected a section with keys of its own".to_owned());
                return;
            }
        };
        for (key, value) in entries {
            let full = join(section, &key.text);
            if let Some(setting) = by_key(&full) {
                let origin = origin(path, key.line, &full);
                // An empty value stands for nothing given.
                if value.value != Value::Null {
                    self.values.insert(setting.key, Raw { node: value, origin });
                }
            } else if is_section(&full) {
                self.add_section(path, &full, value);
            } else {
                self.mistake(origin(path, key.line, &full), unknown_key(section, &key.text));
            }
        }
    }

    /// Adds the environment. What begins with QUORATE_ and is no setting warns; the variables that Kubernetes makes
    /// for a service called `quorate` are left alone.
    pub(super) fn add_environment(&mut self, environment: &BTreeMap<String, String>) {
        for (name, text) in environment {
            if !name.starts_with("QUORATE_") || OTHER_VARIABLES.contains(&name.as_str()) {
                continue;
            }
            // An empty variable stands for nothing given, as in `docker run -e NAME`.
            if text.trim().is_empty() {
                continue;
            }
            let Some(setting) = SETTINGS.iter().find(|setting| setting.variable == name) else {
                if !is_service_link(name, text) {
                    self.warnings.push(unknown_variable(name));
                }
                continue;
            };
            let origin = Origin::Variable(setting.variable);
            // Lists of nodes are written as YAML; everything else is the text as it is.
            let node = if setting.key == "cluster.nodes" {
                match yaml::parse(text) {
                    Ok(node) => node,
                    Err(error) => {
                        self.mistake(origin, format!("not a YAML list of nodes: {}", error.message));
                        continue;
                    }
                }
            } else {
                scalar(text)
            };
            self.values.insert(setting.key, Raw { node, origin });
        }
    }

    /// Adds the flags, the highest layer: name with dashes, and value.
    pub(super) fn add_flags(&mut self, flags: &[(&'static str, String)]) {
        for (flag, text) in flags {
            let setting = by_flag(flag).expect("every flag of serve that carries a value is a setting");
            let origin = Origin::Flag(flag);
            self.values.insert(
                setting.key,
                Raw {
                    node: scalar(text),
                    origin,
                },
            );
        }
    }

    fn mistake(&mut self, origin: Origin, message: String) {
        self.mistakes.push(Mistake {
            origin: Some(origin),
            message,
        });
    }
}

fn scalar(text: &str) -> Node {
    Node {
        line: 1,
        value: Value::Scalar(Scalar {
            text: text.to_owned(),
            plain: false,
        }),
    }
}

fn origin(path: &str, line: usize, key: &str) -> Origin {
    Origin::File {
        path: path.to_owned(),
        line,
        key: key.to_owned(),
    }
}

fn join(section: &str, key: &str) -> String {
    if section.is_empty() {
        key.to_owned()
    } else {
        format!("{section}.{key}")
    }
}

fn is_section(path: &str) -> bool {
    SETTINGS.iter().any(|setting| {
        setting
            .key
            .strip_prefix(path)
            .is_some_and(|rest| rest.starts_with('.'))
    })
}

/// What to say of a key that is none: the neighbour in its section, or the section that it belongs in.
fn unknown_key(section: &str, key: &str) -> String {
    let prefix = if section.is_empty() {
        String::new()
    } else {
        format!("{section}.")
    };
    let siblings: Vec<&str> = SETTINGS
        .iter()
        .filter_map(|setting| setting.key.strip_prefix(&prefix))
        .map(|rest| rest.split('.').next().unwrap_or(rest))
        .collect();
    let elsewhere = SETTINGS
        .iter()
        .find(|setting| setting.key.rsplit('.').next() == Some(key))
        .map(|setting| setting.key);
    match (nearest(key, siblings), elsewhere) {
        (Some(sibling), _) => format!("unknown key; did you mean `{prefix}{sibling}`?"),
        (None, Some(other)) => format!("unknown key here; did you mean `{other}`?"),
        (None, None) => "unknown key".to_owned(),
    }
}

fn unknown_variable(name: &str) -> String {
    let known = SETTINGS
        .iter()
        .map(|setting| setting.variable)
        .chain(OTHER_VARIABLES.iter().copied());
    match nearest(name, known) {
        Some(variable) => format!("{name} is set and means nothing; did you mean {variable}?"),
        None => format!("{name} is set and means nothing"),
    }
}

fn is_service_link(name: &str, text: &str) -> bool {
    name.contains("_SERVICE_") || name.contains("_TCP") || text.starts_with("tcp://")
}
