//! The document, held against the router and its handlers.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::sync::Arc;

use http::{Method, StatusCode};
use quorate_core::raft::{NodeId, Term};
use quorate_core::state::{Command, Presence, SessionCommand};
use serde_json::{Value, json};

use super::super::fake::FakeBackend;
use super::super::tests::{Answer, Port, router_over};
use super::contract::{IGNORE_PARAMETERS, contract, parameters};
use crate::config::Limits;
use crate::port::system::{ListenerOptions, ports};

/// Stands for any value in a path.
const EXAMPLE: &str = "7";

fn example_path(template: &str) -> String {
    let parts = template
        .split('/')
        .map(|part| if part.starts_with('{') { EXAMPLE } else { part });
    parts.collect::<Vec<_>>().join("/")
}

/// The paths of the node's router, as it prints its table.
fn paths_of_router() -> BTreeSet<String> {
    let ports = ports(ListenerOptions {
        tcp_nodelay: true,
        keepalive: true,
    });
    let backend = Arc::new(FakeBackend::new());
    let router = format!("{:?}", router_over(&backend, &ports.clock, Limits::default()));
    let (_, table) = router
        .split_once("node: Node { paths: {")
        .expect("the router prints its table");
    let (table, _) = table.split_once("} }").expect("the table has an end");
    let quoted = table.split('"').skip(1).step_by(2);
    quoted.map(super::described).collect()
}

#[tokio::test]
async fn the_routers_table_and_the_document_have_the_same_paths_and_methods() {
    let described: BTreeSet<String> = contract().paths().map(str::to_owned).collect();
    assert_eq!(paths_of_router(), described);
    assert!(described.len() > 30, "{described:?}");
    let port = Port::open().await;
    for template in &described {
        let answer = port
            .send(Method::OPTIONS, &example_path(template), &[], b"")
            .await;
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{template}");
        let allowed: BTreeSet<String> = answer.header("allow").split(',').map(str::to_owned).collect();
        let mut described: BTreeSet<String> = contract()
            .operations(template)
            .map(|(method, _)| method.to_string())
            .collect();
        if described.contains("GET") {
            described.insert("HEAD".to_owned());
        }
        assert_eq!(allowed, described, "{template}");
    }
}

#[tokio::test]
async fn a_handler_takes_the_parameters_that_the_document_names() {
    let port = Port::open().await;
    for template in contract().paths() {
        for (method, operation) in contract().operations(template) {
            let described: BTreeSet<&str> = parameters(operation, "query").collect();
            let path = format!("{}?zzzzzzzzzzzz=1", example_path(template));
            // Of bodies that begin so, some are too long to be sent when nobody wants them.
            let answer = port.send(method.clone(), &path, &[], b"").await;
            if answer.status != StatusCode::BAD_REQUEST {
                assert!(
                    IGNORE_PARAMETERS.contains(&template),
                    "{method} {template} does not read its parameters"
                );
                assert!(described.is_empty(), "{method} {template}");
                continue;
            }
            let answer = answer.json();
            assert_eq!(
                answer["detail"], "unknown parameter `zzzzzzzzzzzz`",
                "{method} {template}"
            );
            let action = answer["action"].as_str().expect("an action is text");
            let known: BTreeSet<&str> = match action.strip_prefix("there are ") {
                Some(names) if names != "no parameters here" => names.split(", ").collect(),
                _ => BTreeSet::new(),
            };
            assert_eq!(known, described, "{method} {template}: {action}");
        }
    }
}

#[test]
fn every_operation_says_what_it_is_and_what_its_path_holds() {
    let mut ids = BTreeSet::new();
    for template in contract().paths() {
        for (method, operation) in contract().operations(template) {
            let id = operation["operationId"].as_str().expect("an operation has an id");
            assert!(ids.insert(id), "{id} is there twice");
            let summary = operation["summary"].as_str().unwrap_or_default();
            assert!(
                summary.ends_with('.') && !summary.contains('`'),
                "{id}: {summary}"
            );
            let held: BTreeSet<&str> = template
                .split('/')
                .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
                .collect();
            let described: BTreeSet<&str> = parameters(operation, "path").collect();
            assert_eq!(held, described, "{method} {template}");
        }
    }
    assert_eq!(contract().document["openapi"], "3.1.0");
    let text = contract().document.to_string();
    assert!(
        !text.contains("[`"),
        "a link of the code's documentation leads nowhere here"
    );
}

/// The names of the schemas that a part of the document refers to, and of those that these refer to.
fn referred(part: &Value, found: &mut BTreeSet<String>) {
    match part {
        Value::Object(fields) => {
            let name = fields
                .get("$ref")
                .and_then(|reference| reference.as_str()?.rsplit('/').next());
            if let Some(name) = name
                && found.insert(name.to_owned())
            {
                referred(&contract().document["components"]["schemas"][name], found);
            }
            fields.values().for_each(|field| referred(field, found));
        }
        Value::Array(items) => items.iter().for_each(|item| referred(item, found)),
        _ => {}
    }
}

#[test]
fn a_misspelt_field_of_a_body_is_refused() {
    let mut bodies = BTreeSet::new();
    for template in contract().paths() {
        for (_, operation) in contract().operations(template) {
            referred(&operation["requestBody"], &mut bodies);
        }
    }
    assert!(bodies.contains("NewRecord"), "{bodies:?}");
    for name in bodies {
        let schema = &contract().document["components"]["schemas"][&name];
        assert!(
            schema["properties"].is_null() || schema["additionalProperties"] == json!(false),
            "{name} takes fields that it does not know"
        );
    }
}

#[tokio::test]
async fn the_document_is_served_without_a_cluster() {
    let port = Port::open().await;
    port.backend.set_leader(false);
    let answer = port.get("/openapi.json").await;
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (StatusCode::OK, "application/json")
    );
    assert_eq!(answer.json(), contract().document);
}

/// One request of an operation.
async fn ask(port: &Port, method: &str, path: &str, body: Value) -> Answer {
    let method: Method = method.parse().expect("a method");
    let bytes = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let answer = port.send(method.clone(), path, &[], bytes.as_bytes()).await;
    assert!(answer.status.is_success(), "{method} {path}: {answer:?}");
    answer
}

/// Every operation once. [`Port::send`] holds each answer against the document.
#[tokio::test]
async fn every_operation_answers_what_the_document_says() {
    let port = Port::open().await;
    let mut asked = BTreeSet::new();
    let nodes = [(NodeId(1), Presence::Present), (NodeId(2), Presence::Present)];
    port.backend.apply(&Command::Session(SessionCommand::Sight {
        term: Term(1),
        nodes: nodes.into(),
    }));
    let group = "/v1/streams/s/groups/g";
    let requests = [
        ("PUT", "/v1/kv/a/b", json!("value")),
        ("GET", "/v1/kv/a/b", Value::Null),
        ("GET", "/v1/kv?prefix=a&count&limit=1", Value::Null),
        (
            "POST",
            "/v1/txn",
            json!({"compare": [{"key": "a/b", "version": 1}], "then": [
                {"put": {"key": "c", "value": "d", "previous": true}}, {"get": {"prefix": ""}}, {"delete": {"key": "x"}},
                {"txn": {"else": [{"get": {"key": "a"}}]}},
            ]}),
        ),
        ("DELETE", "/v1/kv/a/b?previous", Value::Null),
        ("DELETE", "/v1/kv?prefix=c&previous", Value::Null),
        ("POST", "/v1/compact", json!({"revision": 2})),
        ("POST", "/v1/leases", json!({"ttl_ms": 60_000, "id": 7})),
        ("GET", "/v1/leases?limit=1", Value::Null),
        ("PUT", "/v1/kv/leased?lease=7", json!("value")),
        ("GET", "/v1/leases/7", Value::Null),
        ("POST", "/v1/leases/7/keep-alive", Value::Null),
        ("POST", "/v1/leases/keep-alive", json!({"leases": [7, 8]})),
        ("DELETE", "/v1/leases/7", Value::Null),
        (
            "POST",
            "/v1/sessions",
            json!({"session_id": "one", "client": "ada", "payload": "p"}),
        ),
        ("GET", "/v1/sessions", Value::Null),
        ("GET", "/v1/sessions/one", Value::Null),
        ("GET", "/v1/sessions/one/route", Value::Null),
        (
            "POST",
            "/v1/sessions/one/touch",
            json!({"payload_base64": "/w=="}),
        ),
        ("POST", "/cluster/nodes/1/drain", json!({"force": false})),
        ("POST", "/cluster/nodes/1/undrain", Value::Null),
        ("PUT", "/cluster/nodes/1/capacity", json!({"max_sessions": 10})),
        ("POST", "/cluster/rebalance", Value::Null),
        ("DELETE", "/v1/sessions/one", Value::Null),
        (
            "POST",
            "/v1/streams",
            json!({"name": "s", "partitions": 2, "retention": {"age_ms": 60_000}}),
        ),
        (
            "POST",
            "/v1/streams/s/records",
            json!({"partition": 0, "records": [{"value": "v", "key": "k", "id": "1", "priority": 4}]}),
        ),
        ("GET", "/v1/streams", Value::Null),
        ("GET", "/v1/streams/s", Value::Null),
        ("GET", "/v1/streams/s/records?from=first", Value::Null),
        (
            "POST",
            "/v1/streams/s/groups",
            json!({"name": "g", "start": "first"}),
        ),
        ("GET", "/v1/streams/s/groups", Value::Null),
        ("GET", group, Value::Null),
        ("GET", "/v1/streams/s/groups/g/records", Value::Null),
        (
            "POST",
            "/v1/streams/s/groups/g/commit",
            json!({"cursors": [{"partition": 0, "next_offset": 1}]}),
        ),
        ("POST", "/v1/streams/s/groups/g/pause", Value::Null),
        ("POST", "/v1/streams/s/groups/g/resume", Value::Null),
        ("PUT", "/v1/schemas/flows", json!({"type": "object"})),
        ("GET", "/v1/schemas/flows", Value::Null),
        ("PUT", "/v1/settings/flows/a%2Fb", json!({"on": true})),
        ("GET", "/v1/settings/flows/a%2Fb", Value::Null),
        ("GET", "/v1/settings/flows/a%2Fb/history", Value::Null),
        ("PUT", "/v1/settings/flows?mode=merge", json!({"c": 1})),
        ("PUT", "/v1/settings?dry_run", json!({"users": {"ada": {}}})),
        ("GET", "/v1/settings", Value::Null),
        ("GET", "/v1/settings?format=json", Value::Null),
        ("GET", "/v1/settings/flows", Value::Null),
        ("GET", "/v1/settings/flows?format=json", Value::Null),
        ("DELETE", "/v1/settings/flows/c", Value::Null),
        ("GET", "/health", Value::Null),
        ("GET", "/livez", Value::Null),
        ("GET", "/readyz", Value::Null),
        ("GET", "/metrics", Value::Null),
        ("GET", "/cluster/status", Value::Null),
        ("GET", "/cluster/nodes", Value::Null),
        (
            "POST",
            "/cluster/members",
            json!({"id": 4, "host": "10.0.0.4", "port": 9100}),
        ),
        ("DELETE", "/cluster/members/4", Value::Null),
        ("POST", "/cluster/step-down", json!({"target_node": 2})),
        ("GET", "/openapi.json", Value::Null),
        ("GET", "/docs", Value::Null),
    ];
    for (method, path, body) in requests {
        let answer = ask(&port, method, path, body).await;
        asked.extend(answer.operation);
    }
    for (path, accept) in [
        ("/v1/watch?prefix=&from_revision=4", "*/*"),
        ("/v1/watch/sessions?from_revision=4", "*/*"),
        ("/v1/watch/settings?from_revision=4", "*/*"),
        ("/v1/tail?prefix=&from=first", "*/*"),
        ("/v1/tail?prefix=&from=first", "text/event-stream"),
    ] {
        let answer = port.beginning(path, &[("accept", accept)], 2).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {answer:?}");
        asked.extend(answer.operation);
    }
    for (method, path) in [
        ("DELETE", group),
        ("DELETE", "/v1/streams/s"),
        ("DELETE", "/v1/schemas/flows"),
        ("DELETE", "/v1/settings/flows"),
    ] {
        asked.extend(ask(&port, method, path, Value::Null).await.operation);
    }
    let described = contract()
        .paths()
        .flat_map(|template| contract().operations(template));
    // An id with an underscore is that of the same operation at another path.
    let described: BTreeSet<String> = described
        .filter_map(|(_, operation)| operation["operationId"].as_str())
        .filter(|id| !id.contains('_'))
        .map(str::to_owned)
        .collect();
    assert_eq!(asked, described);
}

/// Names that Chromium and its kin have.
const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// The browser of this machine; none when the test is to be skipped.
async fn browser() -> Option<&'static str> {
    for name in BROWSERS {
        let found = tokio::process::Command::new(name).arg("--version").output().await;
        if found.is_ok() {
            return Some(name);
        }
    }
    let is_ci = std::env::var_os("CI").is_some();
    assert!(!is_ci, "CI needs the Debian package chromium");
    eprintln!("skipped: no Chromium on this machine");
    None
}

/// What a page became in a browser: the document after its script ran, and what it complained of.
async fn look(browser: &str, address: &str, width: u32) -> (String, Vec<String>) {
    let profile = tempfile::tempdir().expect("a directory");
    let output = tokio::process::Command::new("timeout")
        .args(["120", browser, "--headless", "--disable-gpu", "--no-sandbox"])
        .args([
            "--enable-logging=stderr",
            "--virtual-time-budget=2000",
            "--dump-dom",
        ])
        .arg(format!("--window-size={width},900"))
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(address)
        .stdin(Stdio::null())
        .output()
        .await
        .expect("the browser starts");
    let log = String::from_utf8_lossy(&output.stderr);
    let complaints = log
        .lines()
        .filter(|line| line.contains("CONSOLE"))
        .map(str::to_owned);
    (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        complaints.collect(),
    )
}

#[tokio::test]
async fn the_page_shows_every_operation_and_all_of_one_that_is_opened() {
    let Some(browser) = browser().await else { return };
    let port = Port::open().await;
    let page = format!("http://{}/docs", port.address());
    let operations: usize = contract()
        .paths()
        .map(|path| contract().operations(path).count())
        .sum();
    for (address, shown, parts) in [
        (
            format!("{page}#putKey"),
            operations,
            &["curl -X PUT", "If-Match", "Idempotency-Key", "revision_conflict"][..],
        ),
        (
            format!("{page}#transact"),
            operations,
            &["TxnRequest", "malformed_transaction", "Writes a key."],
        ),
        (
            format!("{page}?search=keep-alive+post#watchKeys"),
            2,
            &["WatchChange", "state_replaced"],
        ),
    ] {
        for width in [360, 1300] {
            let (document, complaints) = look(browser, &address, width).await;
            assert_eq!(complaints, Vec::<String>::new(), "{address}");
            for part in [
                format!("data-operations=\"{operations}\""),
                format!("data-shown=\"{shown}\""),
            ] {
                assert!(document.contains(&part), "{address}: {part}");
            }
            // What the script made, without the document that it made it from.
            let (_, made) = document.split_once("<main>").expect("the page has a body");
            let (made, _) = made.split_once("</main>").expect("the page has an end");
            for part in parts {
                assert!(made.contains(part), "{address}: {part}");
            }
            assert!(!document.contains("data-wide"), "{address} is wider than {width}");
        }
    }
}
