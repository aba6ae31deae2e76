//! Settings over real sockets and in front of the real state machine.

use http::{Method, StatusCode};
use quorate_api::{Problem, ProblemCode};
use quorate_core::state::{
    SCHEMA_BYTES_MAX, SECTION_NAME_BYTES_MAX, SECTIONS_MAX, SETTING_KEY_BYTES_MAX, SETTING_VALUE_BYTES_MAX,
};
use serde_json::{Value, json};

use super::super::tests::{Answer, Port};
use crate::config::Limits;

impl Port {
    async fn set(&self, path: &str, value: Value) -> Answer {
        self.send(
            Method::PUT,
            &format!("/v1/{path}"),
            &[],
            value.to_string().as_bytes(),
        )
        .await
    }

    async fn remove(&self, path: &str) -> Answer {
        self.send(Method::DELETE, &format!("/v1/{path}"), &[], b"").await
    }
}

/// A schema of links: each has a text as its `url`.
fn links() -> Value {
    json!({"additionalProperties": {
        "type": "object", "required": ["url"], "properties": {"url": {"type": "string", "pattern": "^https"}},
    }})
}

fn link(url: &str) -> Value {
    json!({"url": url})
}

#[tokio::test]
async fn a_setting_is_written_read_listed_and_deleted() {
    let port = Port::open().await;
    let written = port
        .set(
            "settings/links/docs",
            json!({"url": "https://a", "b": [1, 2.5, null]}),
        )
        .await;
    assert_eq!(written.json(), json!({"revision": 1, "written": 1, "deleted": 0}));
    let again = port
        .set(
            "settings/links/docs",
            json!({"b": [1, 2.5, null], "url": "https://a"}),
        )
        .await;
    assert_eq!(
        again.json()["written"],
        0,
        "the same value in another order of its keys"
    );
    port.set("settings/links/a%2Fb%20c", json!("text")).await;
    let read = port.get("/v1/settings/links/docs").await;
    let expected = json!({"section": "links", "key": "docs", "value": {"url": "https://a", "b": [1, 2.5, null]},
        "create_revision": 1, "mod_revision": 1, "version": 1});
    assert_eq!(read.json(), expected);
    assert_eq!(
        port.get("/v1/settings/links/a%2Fb%20c").await.json()["key"],
        "a/b c"
    );
    let section = port.get("/v1/settings/links").await.json();
    assert_eq!(
        (&section["revision"], &section["mod_revision"]),
        (&json!(2), &json!(2))
    );
    assert_eq!(section["settings"].as_array().map(Vec::len), Some(2));
    let listed = port.get("/v1/settings").await.json();
    let expected = json!({"revision": 2, "sections": [
        {"section": "links", "mod_revision": 2, "settings": 2, "bytes": 51, "schema": false},
    ]});
    assert_eq!(listed, expected);
    let deleted = port.remove("settings/links/docs").await.json();
    assert_eq!(deleted, json!({"revision": 3, "written": 0, "deleted": 1}));
    port.get("/v1/settings/links/docs")
        .await
        .problem(404, ProblemCode::SettingNotFound);
    let gone = port.remove("settings/links").await.json();
    assert_eq!(gone["deleted"], 1);
    port.get("/v1/settings/links")
        .await
        .problem(404, ProblemCode::SectionNotFound);
}

#[tokio::test]
async fn a_compare_and_set_is_told_the_revision_that_there_is() {
    let port = Port::open().await;
    port.set("settings/links/docs", json!(1)).await;
    let conflict = port.set("settings/links/docs?revision=0", json!(2)).await;
    let problem = conflict.problem(409, ProblemCode::RevisionConflict);
    assert_eq!(problem.current_revision, Some(1));
    for headers in [("if-none-match", "*"), ("if-match", "\"7\"")] {
        let conflict = port
            .send(Method::PUT, "/v1/settings/links/docs", &[headers], b"2")
            .await;
        conflict.problem(412, ProblemCode::RevisionConflict);
    }
    let conflict = port.remove("settings/links/home?revision=1").await;
    assert_eq!(
        conflict
            .problem(409, ProblemCode::RevisionConflict)
            .current_revision,
        Some(0)
    );
    let done = port.set("settings/links/docs?revision=1", json!(2)).await;
    assert_eq!(done.json()["revision"], 2);
    let conflict = port.set("settings/links?revision=1", json!({"docs": 3})).await;
    assert_eq!(
        conflict
            .problem(409, ProblemCode::RevisionConflict)
            .current_revision,
        Some(2)
    );
    let conflict = port.set("schemas/links?revision=7", json!(true)).await;
    conflict.problem(409, ProblemCode::RevisionConflict);
}

#[tokio::test]
async fn settings_that_do_not_fit_the_schema_are_refused_wherever_they_come_from() {
    let port = Port::open().await;
    let changed = port.set("schemas/links", links()).await.json();
    assert_eq!(changed, json!({"revision": 1, "changed": true}));
    assert_eq!(port.set("schemas/links", links()).await.json()["changed"], false);
    assert_eq!(port.get("/v1/schemas/links").await.json(), links());
    let done = port.set("settings/links/docs", link("https://a")).await;
    assert_eq!(done.status, StatusCode::OK);
    for (path, body) in [
        ("settings/links/docs", link("http://a")),
        ("settings/links/home", json!({})),
        ("settings/links", json!({"home": 7})),
        ("settings/links?mode=replace&dry_run", json!({"home": 7})),
        ("settings", json!({"links": {"home": 7}, "other": {}})),
    ] {
        let refused = port.set(path, body).await;
        let problem = refused.problem(422, ProblemCode::SchemaMismatch);
        assert!(
            problem.detail.contains("links would not fit"),
            "{}",
            problem.detail
        );
    }
    let problem = port.set("settings/links/docs", link("x")).await;
    let problem = problem.problem(422, ProblemCode::SchemaMismatch);
    assert!(problem.detail.contains("at /docs/url: "), "{}", problem.detail);
    assert_eq!(port.get("/v1/settings/links").await.json()["mod_revision"], 2);
    let narrower = json!({"maxProperties": 0});
    let refused = port.set("schemas/links", narrower).await;
    refused.problem(422, ProblemCode::SchemaMismatch);
    let demanding = json!({"required": ["docs"]});
    port.set("schemas/links", demanding).await;
    let refused = port.remove("settings/links/docs").await;
    refused.problem(422, ProblemCode::SchemaMismatch);
    let refused = port.set("settings?mode=replace", json!({})).await;
    refused.problem(422, ProblemCode::SchemaMismatch);
    assert_eq!(
        port.remove("schemas/links").await.json(),
        json!({"revision": 4, "changed": true})
    );
    port.get("/v1/schemas/links")
        .await
        .problem(404, ProblemCode::SchemaNotFound);
    assert_eq!(port.remove("settings/links/docs").await.json()["deleted"], 1);
}

#[tokio::test]
async fn what_is_no_schema_is_refused_and_reads_no_other_place() {
    let port = Port::open().await;
    for wrong in [
        json!({"type": "objekt"}),
        json!({"pattern": "("}),
        json!({"$schema": "https://example.com/none"}),
        json!({"$ref": "https://example.com/schema.json"}),
        json!({"$ref": "file:///etc/passwd"}),
        json!({"$ref": "#/$defs/none"}),
        json!(7),
    ] {
        let refused = port.set("schemas/links", wrong.clone()).await;
        let problem = refused.problem(422, ProblemCode::InvalidSchema);
        assert!(!problem.detail.contains("root:"), "{wrong}: {}", problem.detail);
    }
    for fine in [
        json!(true),
        json!({"$ref": "#"}),
        json!({"$schema": "http://json-schema.org/draft-07/schema#", "type": "object"}),
    ] {
        let taken = port.set("schemas/links", fine).await;
        assert_eq!(taken.status, StatusCode::OK);
        let written = port.set("settings/links/docs", json!(1)).await;
        assert_eq!(written.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_schema_that_would_take_for_ever_is_refused() {
    let port = Port::open().await;
    let doubled = |number: usize| {
        let next = json!({"$ref": format!("#/$defs/d{}", number + 1)});
        (format!("d{number}"), json!({"anyOf": [next, next]}))
    };
    let mut parts: serde_json::Map<String, Value> = (0..60).map(doubled).collect();
    parts.insert("d60".to_owned(), json!(false));
    let doubling = json!({"$defs": parts, "$ref": "#/$defs/d0"});
    port.set("schemas/links", doubling)
        .await
        .problem(422, ProblemCode::InvalidSchema);
    let chain: Value = (0..300)
        .map(|number| {
            (
                format!("d{number}"),
                json!({"$ref": format!("#/$defs/d{}", number + 1)}),
            )
        })
        .collect::<serde_json::Map<_, _>>()
        .into();
    port.set("schemas/links", json!({"$defs": chain}))
        .await
        .problem(422, ProblemCode::InvalidSchema);
    // One that doubles with each step into the value is fine until a value goes deep.
    let deeper = json!({"additionalProperties": {"$ref": "#"}});
    let branching = json!({"anyOf": [deeper, deeper]});
    assert_eq!(port.set("schemas/links", branching).await.status, StatusCode::OK);
    assert_eq!(
        port.set("settings/links/flat", json!({"a": 1})).await.status,
        StatusCode::OK
    );
    let deep = (0..40).fold(json!(1), |value, _| json!({"a": value}));
    port.set("settings/links/deep", deep)
        .await
        .problem(422, ProblemCode::InvalidSchema);
}

#[tokio::test]
async fn an_import_is_one_change_that_can_be_tried_first() {
    let port = Port::open().await;
    port.set("settings/links/docs", json!(1)).await;
    port.set("settings/links/home", json!(1)).await;
    port.set("settings/users/ada", json!({})).await;
    let document = json!({"links": {"docs": 2, "new": true}});
    let tried = port
        .set("settings?mode=replace&dry_run", document.clone())
        .await
        .json();
    let changes = json!([
        {"section": "links", "key": "docs", "type": "MODIFIED", "before": 1, "after": 2},
        {"section": "links", "key": "home", "type": "REMOVED", "before": 1, "after": null},
        {"section": "links", "key": "new", "type": "ADDED", "before": null, "after": true},
        {"section": "users", "key": "ada", "type": "REMOVED", "before": {}, "after": null},
    ]);
    assert_eq!((&tried["dry_run"], &tried["changes"]), (&json!(true), &changes));
    assert_eq!(port.get("/v1/settings").await.json()["revision"], 3);
    let done = port.set("settings?mode=replace", document.clone()).await.json();
    let expected = json!({"revision": 4, "dry_run": false, "written": 2, "deleted": 2, "changes": changes});
    assert_eq!(done, expected);
    let exported = port.get("/v1/settings?format=json").await.json();
    assert_eq!(exported, document);
    let before = port.get("/v1/settings?format=json&revision=3").await.json();
    assert_eq!(before["users"], json!({"ada": {}}));
    let merged = port.set("settings/links", json!({"home": 3})).await.json();
    assert_eq!((&merged["written"], &merged["deleted"]), (&json!(1), &json!(0)));
    let replaced = port.set("settings/links?mode=replace", json!({})).await.json();
    assert_eq!(replaced["deleted"], 3);
}

#[tokio::test]
async fn yaml_goes_in_and_comes_out_again() {
    let port = Port::open().await;
    let yaml = "links:\n  docs:\n    url: \"https://example.com\"\nproperties:\n  retries: 3\n";
    let imported = port
        .send(
            Method::PUT,
            "/v1/settings",
            &[("content-type", "application/yaml")],
            yaml.as_bytes(),
        )
        .await;
    assert_eq!(imported.json()["written"], 2);
    let exported = port.get("/v1/settings?format=yaml").await;
    assert_eq!(std::str::from_utf8(&exported.body), Ok(yaml));
    let accept = [("accept", "application/yaml")];
    let section = port
        .send(Method::GET, "/v1/settings/properties", &accept, b"")
        .await;
    assert_eq!(&*section.body, b"retries: 3\n");
    let wrong = port
        .send(Method::PUT, "/v1/settings?format=yaml", &[], b"links:\n  - a\n")
        .await;
    wrong.problem(400, ProblemCode::BadRequest);
}

#[tokio::test]
async fn history_tells_what_is_kept_and_old_revisions_are_read() {
    let port = Port::open().await;
    for value in 1..=3 {
        port.set("settings/links/docs", json!(value)).await;
    }
    port.remove("settings/links/docs").await;
    let first = port.get("/v1/settings/links/docs/history?limit=2").await.json();
    let expected = json!({"section": "links", "key": "docs", "more": true, "versions": [
        {"revision": 4, "deleted": true, "value": null}, {"revision": 3, "value": 3},
    ]});
    assert_eq!(first, expected);
    let rest = port.get("/v1/settings/links/docs/history?before=3").await.json();
    assert_eq!(
        (rest["versions"].as_array().map(Vec::len), &rest["more"]),
        (Some(2), &json!(false))
    );
    let old = port.get("/v1/settings/links/docs?revision=2").await.json();
    assert_eq!(old["value"], 2);
    let old = port.get("/v1/settings/links?revision=1").await.json();
    assert_eq!(
        (&old["mod_revision"], &old["settings"][0]["value"]),
        (&json!(1), &json!(1))
    );
    port.send(Method::POST, "/v1/compact", &[], br#"{"revision": 2}"#)
        .await;
    for path in ["links?revision=1", "links/docs?revision=1"] {
        let gone = port.get(&format!("/v1/settings/{path}")).await;
        gone.problem(410, ProblemCode::Compacted);
    }
    port.get("/v1/settings/links/none/history")
        .await
        .problem(404, ProblemCode::SettingNotFound);
}

#[tokio::test]
async fn a_request_under_a_key_is_answered_as_the_first_time() {
    let port = Port::open().await;
    let key = [("idempotency-key", "one")];
    let put = async |body: &'static [u8]| {
        port.send(Method::PUT, "/v1/settings/links/docs", &key, body)
            .await
    };
    let first = put(b"1").await.json();
    port.remove("settings/links/docs").await;
    port.set("schemas/links", json!({"maxProperties": 0})).await;
    assert_eq!(put(b"1").await.json(), first, "although it would not fit by now");
    let other = [("idempotency-key", "two")];
    for _ in 0..2 {
        let misfit = port
            .send(Method::PUT, "/v1/settings/links/docs", &other, b"2")
            .await;
        misfit.problem(422, ProblemCode::SchemaMismatch);
    }
    port.get("/v1/settings/links/docs")
        .await
        .problem(404, ProblemCode::SettingNotFound);
    port.remove("schemas/links").await;
    put(b"2").await.problem(422, ProblemCode::IdempotencyKeyReused);
}

#[tokio::test]
async fn writers_of_one_section_with_a_schema_all_get_through() {
    let port = Port::open().await;
    port.set("schemas/links", links()).await;
    let writes = (0..12).map(|number| {
        let path = format!("settings/links/{number}");
        let port = &port;
        async move { port.set(&path, link("https://a")).await.status }
    });
    let statuses = futures_util::future::join_all(writes).await;
    assert!(
        statuses.iter().all(|status| *status == StatusCode::OK),
        "{statuses:?}"
    );
    let section = port.get("/v1/settings/links").await.json();
    assert_eq!(section["settings"].as_array().map(Vec::len), Some(12));
}

#[tokio::test]
async fn what_is_over_a_bound_or_malformed_says_so() {
    let limits = Limits {
        transaction_bytes: 2 << 20,
        ..Limits::default()
    };
    let port = Port::with(100, limits).await;
    let text = |length: usize| "x".repeat(length);
    let long_name = text(SECTION_NAME_BYTES_MAX + 1);
    let bad = |answer: Answer| answer.problem(400, ProblemCode::BadRequest);
    bad(port.set(&format!("settings/{long_name}/a"), json!(1)).await);
    bad(port.set("settings/a%20b/c", json!(1)).await);
    bad(port.set("settings/a/%00", json!(1)).await);
    bad(port.send(Method::PUT, "/v1/settings/a/b", &[], b"text").await);
    bad(port.set("settings/a?mode=mirror", json!({})).await);
    bad(port.set("settings/a", json!([1])).await);
    bad(port.set("settings", json!({"a": 1})).await);
    bad(port.get("/v1/settings?revision=1").await);
    bad(port.get("/v1/settings/a?format=xml").await);
    bad(port.get("/v1/watch/settings?key=a").await);
    let long_key = text(SETTING_KEY_BYTES_MAX + 1);
    let limit = |problem: Problem| problem.limit;
    let refused = port.set(&format!("settings/a/{long_key}"), json!(1)).await;
    let problem = refused.problem(413, ProblemCode::KeyTooLarge);
    assert_eq!(limit(problem), Some(SETTING_KEY_BYTES_MAX as u64));
    let refused = port
        .set("settings/a/b", json!(text(SETTING_VALUE_BYTES_MAX)))
        .await;
    let problem = refused.problem(413, ProblemCode::ValueTooLarge);
    assert_eq!(limit(problem), Some(SETTING_VALUE_BYTES_MAX as u64));
    let refused = port
        .set("schemas/a", json!({"description": text(SCHEMA_BYTES_MAX)}))
        .await;
    refused.problem(413, ProblemCode::ValueTooLarge);
    let large = text(SETTING_VALUE_BYTES_MAX - 2);
    let many: Value = (0..5)
        .map(|key| (key.to_string(), json!(large)))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let refused = port.set("settings/a", many).await;
    refused.problem(507, ProblemCode::QuotaReached);
    let refused = port.set("settings/a", json!({"key": text(2 << 20)})).await;
    let problem = refused.problem(413, ProblemCode::BodyTooLarge);
    assert_eq!(limit(problem), Some(2 << 20));
    let sections: Value = (0..=SECTIONS_MAX)
        .map(|number| (format!("s{number}"), json!({"a": 1})))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let refused = port.set("settings", sections).await;
    let problem = refused.problem(507, ProblemCode::QuotaReached);
    assert_eq!(limit(problem), Some(SECTIONS_MAX as u64));
    assert_eq!(port.get("/v1/settings").await.json()["revision"], 0);
}
