//! Holds answers against the document: every answer that a test of the client port gets.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use http::{HeaderMap, Method, StatusCode};
use jsonschema::Validator;
use serde_json::{Value, json};

use super::super::routes;
use super::{Served, described};

/// The document, and what was made of it to check with.
pub(crate) struct Contract {
    pub(crate) document: Value,
    /// The paths as the router has them, in which `{*name}` is the rest of a path.
    templates: Vec<String>,
    /// By their places in the document.
    validators: Mutex<BTreeMap<String, Arc<Validator>>>,
}

/// What is asked by probes, scrapers and browsers, which may add parameters of their own.
pub(crate) const IGNORE_PARAMETERS: [&str; 8] = [
    "/docs",
    "/health",
    "/health/live",
    "/health/ready",
    "/livez",
    "/metrics",
    "/openapi.json",
    "/readyz",
];

/// A request and its answer.
pub(crate) struct Exchange<'a> {
    pub(crate) method: &'a Method,
    pub(crate) path: &'a str,
    pub(crate) request: &'a [u8],
    pub(crate) status: StatusCode,
    pub(crate) headers: &'a HeaderMap,
    /// The body of the answer; the beginning of one without an end.
    pub(crate) body: &'a [u8],
}

/// The contract of the routes as they are.
pub(crate) fn contract() -> &'static Contract {
    static CONTRACT: OnceLock<Contract> = OnceLock::new();
    CONTRACT.get_or_init(|| {
        let description = routes().split_for_parts().1;
        let templates = description.paths.paths.keys().cloned().collect();
        let served = Served::of(description);
        Contract {
            templates,
            document: serde_json::from_slice(&served.document).expect("the document is JSON"),
            validators: Mutex::default(),
        }
    })
}

impl Contract {
    /// The methods of a path, each with its operation.
    pub(crate) fn operations(&self, path: &str) -> impl Iterator<Item = (Method, &Value)> {
        let item = self.document["paths"][path]
            .as_object()
            .expect("a path has methods");
        item.iter().map(|(method, operation)| {
            let method = method.to_uppercase().parse().expect("the name of a method");
            (method, operation)
        })
    }

    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
        let paths = self.document["paths"].as_object().expect("there are paths");
        paths.keys().map(String::as_str)
    }

    /// The path of the document that leads to `path`: the one with the fewest parameters.
    fn path_of(&self, path: &str) -> Option<String> {
        let leads = |template: &&String| {
            let mut parts = path.split('/');
            let mut names = template.split('/');
            loop {
                match (names.next(), parts.next()) {
                    (None, None) => return true,
                    (Some(name), Some(part)) if name == part => {}
                    (Some(name), Some(rest)) if name.starts_with("{*") => return !rest.is_empty(),
                    (Some(name), Some(part)) if name.starts_with('{') && !part.is_empty() => {}
                    _ => return false,
                }
            }
        };
        let leading = self.templates.iter().filter(leads);
        leading
            .min_by_key(|template| template.matches('{').count())
            .map(|template| described(template))
    }

    /// Checks an exchange, and returns the id of its operation; none for one that there is none for.
    #[track_caller]
    pub(crate) fn check(&self, exchange: &Exchange<'_>) -> Option<&str> {
        let (path, query) = exchange.path.split_once('?').unwrap_or((exchange.path, ""));
        let template = self.path_of(path)?;
        let method = exchange.method.as_str().to_lowercase();
        let operation = self.document["paths"][&template].get(&method)?;
        let at = format!("/paths/{}/{method}", template.replace('/', "~1"));
        self.check_answer(exchange, operation, &at);
        if exchange.status.is_success() {
            let named: Vec<&str> = parameters(operation, "query").collect();
            let ignored = IGNORE_PARAMETERS.contains(&template.as_str());
            for part in query.split('&').filter(|part| !part.is_empty()) {
                let name = part.split('=').next().unwrap_or_default();
                assert!(
                    ignored || named.contains(&name),
                    "{} takes `{name}`",
                    exchange.path
                );
            }
            let body = &operation["requestBody"]["content"];
            // Settings may be sent as YAML, which has no schema here.
            let is_json = !body["application/json"].is_null()
                && (body["application/yaml"].is_null()
                    || serde_json::from_slice::<Value>(exchange.request).is_ok());
            if is_json && !exchange.request.trim_ascii().is_empty() {
                let place = format!("{at}/requestBody/content/application~1json/schema");
                self.validate(&place, exchange.request, "request");
            }
        }
        operation["operationId"].as_str()
    }

    #[track_caller]
    fn check_answer(&self, exchange: &Exchange<'_>, operation: &Value, at: &str) {
        let Exchange { status, path, .. } = exchange;
        let what = format!("{} {path}: {status}", exchange.method);
        let response = &operation["responses"][status.as_str()];
        assert!(!response.is_null(), "{what} is not described");
        let kind = exchange.headers["content-type"]
            .to_str()
            .expect("a content type is text");
        let kind = kind.split(';').next().unwrap_or_default();
        let content = &response["content"][kind];
        assert!(!content.is_null(), "{what}: {kind} is not described");
        let at = format!(
            "{at}/responses/{}/content/{}/schema",
            status.as_str(),
            kind.replace('/', "~1")
        );
        match kind {
            "application/json" | "application/problem+json" => self.validate(&at, exchange.body, &what),
            "application/x-ndjson" => {
                for line in exchange.body.split_inclusive(|byte| *byte == b'\n') {
                    // The last line of what was read may be a part of one.
                    if line.ends_with(b"\n") {
                        self.validate(&at, line, &what);
                    }
                }
            }
            "text/event-stream" => {
                self.check_events(exchange.body, &operation["x-server-sent-events"], &what)
            }
            _ => {}
        }
    }

    #[track_caller]
    fn check_events(&self, body: &[u8], kinds: &Value, what: &str) {
        let text = std::str::from_utf8(body).expect("events are text");
        for event in text
            .split_inclusive("\n\n")
            .filter(|event| event.ends_with("\n\n"))
        {
            let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
            let (Some(kind), Some(data)) = (field("event: "), field("data: ")) else {
                continue;
            };
            let schema = kinds[kind].as_str();
            let schema = schema.unwrap_or_else(|| panic!("{what}: the event `{kind}` is not described"));
            self.validate(&format!("/components/schemas/{schema}"), data.as_bytes(), what);
        }
    }

    /// Checks JSON with the schema at a place of the document.
    #[track_caller]
    pub(crate) fn validate(&self, place: &str, body: &[u8], what: &str) {
        let value: Value = serde_json::from_slice(body).expect("the body is JSON");
        if let Err(error) = self.validator(place).validate(&value) {
            panic!(
                "{what} does not fit {place}: {error}, at `{}`: {value:#}",
                error.instance_path()
            );
        }
    }

    fn validator(&self, place: &str) -> Arc<Validator> {
        let mut validators = self.validators.lock().unwrap_or_else(PoisonError::into_inner);
        let make = || {
            let mut schema = self.document.clone();
            schema["$ref"] = json!(format!("#{}", place.replace('{', "%7B").replace('}', "%7D")));
            Arc::new(jsonschema::draft202012::new(&schema).expect("the document has schemas"))
        };
        Arc::clone(validators.entry(place.to_owned()).or_insert_with(make))
    }
}

/// The names of an operation's parameters in one place of a request.
pub(crate) fn parameters<'a>(operation: &'a Value, place: &'a str) -> impl Iterator<Item = &'a str> {
    let all = operation["parameters"].as_array().map_or(&[][..], Vec::as_slice);
    let there = all.iter().filter(move |parameter| parameter["in"] == place);
    there.filter_map(|parameter| parameter["name"].as_str())
}
