//! Ranges, revisions, transactions, leases and requests that are carried out once, over real sockets and in front of the
//! real state machine.

use http::{Method, StatusCode};
use quorate_api::ProblemCode;
use serde_json::{Value, json};

use super::backend::BackendError;
use super::tests::{Answer, Port};
use crate::config::Limits;

impl Port {
    async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(Method::POST, path, &[], body.to_string().as_bytes())
            .await
    }

    /// Grants a lease; returns its id.
    async fn granted(&self) -> u64 {
        let granted = self.post("/v1/leases", json!({"ttl_ms": 10_000})).await.json();
        granted["id"].as_u64().expect("an id")
    }
}

fn keys(answer: &Value) -> Vec<&str> {
    let entries = answer["entries"].as_array().expect("a list");
    entries.iter().filter_map(|entry| entry["key"].as_str()).collect()
}

#[tokio::test]
async fn a_range_is_sorted_counted_and_filtered() {
    let port = Port::open().await;
    for (key, value) in [("a", "3"), ("b", "1"), ("c", "2"), ("a", "3")] {
        port.put(&format!("/v1/kv/{key}"), value.as_bytes()).await;
    }
    for (query, expected) in [
        ("order=descending", vec!["c", "b", "a"]),
        ("sort=value", vec!["b", "c", "a"]),
        ("sort=mod_revision&order=descending&limit=2", vec!["a", "c"]),
        ("sort=version&order=descending&limit=1", vec!["a"]),
        ("min_mod_revision=3&max_mod_revision=3", vec!["c"]),
        ("max_create_revision=2", vec!["a", "b"]),
        ("start=b&end=c", vec!["b"]),
        ("count_only", vec![]),
    ] {
        let answer = port.get(&format!("/v1/kv?{query}")).await.json();
        assert_eq!(keys(&answer), expected, "{query}: {answer}");
    }
    let counted = port.get("/v1/kv?count&limit=1").await.json();
    assert_eq!((&counted["count"], &counted["more"]), (&json!(3), &json!(true)));
    assert_eq!(port.get("/v1/kv?count_only").await.json()["count"], 3);
    let bare = port.get("/v1/kv?keys_only&limit=1").await.json();
    assert_eq!(
        (keys(&bare), &bare["entries"][0]["value"]),
        (vec!["a"], &json!(""))
    );
}

#[tokio::test]
async fn a_listing_goes_on_downwards_and_not_in_another_order() {
    let port = Port::open().await;
    for key in ["a", "b", "c"] {
        port.put(&format!("/v1/kv/{key}"), b"v").await;
    }
    let first = port.get("/v1/kv?order=descending&limit=2").await.json();
    let next = first["next"].as_str().expect("a next page");
    let path = format!("/v1/kv?order=descending&limit=2&end={next}");
    let second = port.get(&path).await.json();
    assert_eq!((keys(&first), keys(&second)), (vec!["c", "b"], vec!["a"]));
    assert_eq!((&second["more"], second.get("next")), (&json!(false), None));
    let other = port.get("/v1/kv?sort=version&limit=2").await.json();
    assert_eq!((&other["more"], other.get("next")), (&json!(true), None));
}

#[tokio::test]
async fn an_old_revision_is_read_until_it_is_compacted() {
    let port = Port::open().await;
    for value in ["1", "2", "3"] {
        port.put("/v1/kv/k", value.as_bytes()).await;
    }
    port.put("/v1/kv/later", b"x").await;
    assert_eq!(&*port.get("/v1/kv/k?revision=2").await.body, b"2");
    let listed = port.get("/v1/kv?revision=3").await.json();
    assert_eq!((keys(&listed), &listed["revision"]), (vec!["k"], &json!(4)));
    port.get("/v1/kv/later?revision=3")
        .await
        .problem(404, ProblemCode::KeyNotFound);

    let done = port.post("/v1/compact", json!({"revision": 3})).await.json();
    assert_eq!(done, json!({"revision": 4, "compacted": 3}));
    for path in ["/v1/kv/k?revision=2", "/v1/kv?revision=2"] {
        let problem = port.get(path).await.problem(410, ProblemCode::Compacted);
        assert_eq!(problem.oldest_revision, Some(3));
    }
    assert_eq!(&*port.get("/v1/kv/k?revision=3").await.body, b"3");
    let again = port.post("/v1/compact", json!({"revision": 3})).await;
    assert_eq!(
        again.problem(410, ProblemCode::Compacted).oldest_revision,
        Some(3)
    );
}

#[tokio::test]
async fn a_revision_that_nobody_has_made_yet_is_a_problem() {
    let port = Port::open().await;
    port.put("/v1/kv/k", b"v").await;
    for path in [
        "/v1/kv/k?revision=2",
        "/v1/kv?revision=2",
        "/v1/kv/k?min_revision=2",
        "/v1/kv?min_revision=2",
    ] {
        let problem = port.get(path).await.problem(409, ProblemCode::FutureRevision);
        assert_eq!(problem.latest_revision, Some(1), "{path}");
    }
    let compacted = port.post("/v1/compact", json!({"revision": 2})).await;
    let problem = compacted.problem(409, ProblemCode::FutureRevision);
    assert_eq!(problem.latest_revision, Some(1));
    assert_eq!(port.get("/v1/kv/k?min_revision=1").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_range_is_deleted_and_all_keys_only_when_that_is_said() {
    let port = Port::open().await;
    for key in ["a/1", "a/2", "b"] {
        port.put(&format!("/v1/kv/{key}"), b"v").await;
    }
    let problem = port.delete("/v1/kv").await.problem(400, ProblemCode::BadRequest);
    assert!(problem.action.contains("prefix="), "{problem:?}");
    let deleted = port.delete("/v1/kv?prefix=a/&previous").await.json();
    assert_eq!(
        (&deleted["revision"], &deleted["deleted"]),
        (&json!(4), &json!(2))
    );
    assert_eq!(deleted["previous"][1]["key"], "a/2");
    let rest = port.delete("/v1/kv?prefix=").await.json();
    assert_eq!(rest, json!({"revision": 5, "deleted": 1}));
}

#[tokio::test]
async fn a_put_answers_what_was_there_only_when_that_is_asked_for() {
    let port = Port::open().await;
    port.put("/v1/kv/k", b"1").await;
    assert_eq!(port.put("/v1/kv/k", b"2").await.json(), json!({"revision": 2}));
    let asked = port.put("/v1/kv/k?previous", b"3").await.json();
    assert_eq!(asked["previous"]["value"], "2");
    let guarded = port.put("/v1/kv/k?previous&revision=3", b"4").await.json();
    assert_eq!(guarded["previous"]["value"], "3");
}

#[tokio::test]
async fn a_transaction_compares_and_then_does_one_thing_or_the_other() {
    let port = Port::open().await;
    let lock = json!({
        "compare": [{"key": "lock", "version": 0}],
        "then": [{"put": {"key": "lock", "value": "me"}}, {"get": {"key": "lock"}}],
        "else": [{"get": {"key": "lock"}}]
    });
    let first = port.post("/v1/txn", lock.clone()).await.json();
    assert_eq!(
        (&first["revision"], &first["succeeded"]),
        (&json!(1), &json!(true)),
        "{first}"
    );
    assert_eq!(first["responses"][0], json!({"put": {}}));
    assert_eq!(first["responses"][1]["get"]["entries"][0]["value"], "me");
    let second = port.post("/v1/txn", lock).await.json();
    assert_eq!(
        (&second["revision"], &second["succeeded"]),
        (&json!(1), &json!(false))
    );
    assert_eq!(second["responses"][0]["get"]["entries"][0]["mod_revision"], 1);
}

#[tokio::test]
async fn a_nested_transaction_answers_where_it_stands() {
    let port = Port::open().await;
    port.put("/v1/kv/a/1", b"x").await;
    let body = json!({
        "then": [
            {"txn": {
                "compare": [{"prefix": "a/", "relation": ">", "mod_revision": 7}],
                "then": [{"delete": {"prefix": "a/"}}],
                "else": [
                    {"put": {"key": "b", "value_base64": "/w==", "previous": true}},
                    {"txn": {"compare": [{"key": "a/1", "value": "x"}], "then": [{"get": {"prefix": "", "count_only": true}}]}}
                ]
            }},
            {"delete": {"key": "a/1", "previous": true}}
        ]
    });
    let answer = port.post("/v1/txn", body).await.json();
    let nested = &answer["responses"][0]["txn"];
    assert_eq!(nested["succeeded"], false, "{answer}");
    assert_eq!(
        nested["responses"][1]["txn"],
        json!({"succeeded": true, "responses": [{"get": {"entries": [], "more": false, "count": 2}}]})
    );
    let deleted = &answer["responses"][1]["delete"];
    assert_eq!(
        (&deleted["deleted"], &deleted["previous"][0]["value"]),
        (&json!(1), &json!("x"))
    );
    assert_eq!(answer["revision"], 2);
    assert_eq!(&*port.get("/v1/kv/b").await.body, b"\xff");
}

#[tokio::test]
async fn a_malformed_transaction_is_told_what_is_wrong_and_where() {
    let limits = Limits {
        key_bytes: 8,
        value_bytes: 8,
        transaction_bytes: 40_000,
        ..Limits::default()
    };
    let port = Port::with(100, limits).await;
    let put = |key: &str| json!({"put": {"key": key, "value": "v"}});
    let mut deep = json!({});
    for _ in 0..8 {
        deep = json!({"then": [{"txn": deep}]});
    }
    for (body, part) in [
        (json!({"than": []}), "unknown field `than`"),
        (json!({"then": [{"put": {"key": "k"}}]}), "value"),
        (json!({"then": [put("a"), put("a")]}), "changes a key twice"),
        (
            json!({"then": [put("a"), {"txn": {"else": [{"delete": {"prefix": ""}}]}}]}),
            "changes a key twice",
        ),
        (json!({"else": [put("")]}), "else[0]: the key is empty"),
        (
            json!({"then": [put("a"), {"put": {"key": "b", "value": "v", "lease": 0}}]}),
            "then[1]: no lease is called 0",
        ),
        (deep, "nested more than 8 deep"),
        (
            json!({"then": vec![json!({"get": {"key": "k"}}); 1025]}),
            "more than 1024",
        ),
        (json!([]), "no JSON object"),
        (json!("x"), "no JSON object"),
    ] {
        let problem = port
            .post("/v1/txn", body)
            .await
            .problem(400, ProblemCode::MalformedTransaction);
        assert!(problem.detail.contains(part), "{problem:?}");
    }
    let cut = port.send(Method::POST, "/v1/txn", &[], b"{\"then\":").await;
    let problem = cut.problem(400, ProblemCode::MalformedTransaction);
    assert!(problem.detail.contains("line 1 column 8"), "{problem:?}");
    let long = json!({"then": [{"txn": {"then": [put("123456789")]}}]});
    let problem = port
        .post("/v1/txn", long)
        .await
        .problem(413, ProblemCode::KeyTooLarge);
    assert!(problem.detail.contains("then[0].txn.then[0]"), "{problem:?}");
    let huge = port.send(Method::POST, "/v1/txn", &[], &[b' '; 40_001]).await;
    assert_eq!(huge.problem(413, ProblemCode::BodyTooLarge).limit, Some(40_000));
    assert_eq!(port.backend.asked(), 0);
}

#[tokio::test]
async fn a_transaction_that_cannot_be_carried_out_changes_nothing() {
    let port = Port::open().await;
    let with_lease = json!({"then": [
        {"put": {"key": "a", "value": "1"}},
        {"put": {"key": "b", "value": "1", "lease": 99}}
    ]});
    port.post("/v1/txn", with_lease)
        .await
        .problem(404, ProblemCode::LeaseNotFound);
    let in_future =
        json!({"then": [{"put": {"key": "a", "value": "1"}}, {"get": {"key": "a", "revision": 7}}]});
    port.post("/v1/txn", in_future)
        .await
        .problem(409, ProblemCode::FutureRevision);
    assert_eq!(port.get("/v1/kv?count_only").await.json()["count"], 0);
}

#[tokio::test]
async fn a_lease_is_granted_kept_alive_shown_and_revoked_with_its_keys() {
    let port = Port::open().await;
    let id = port.granted().await;
    let put = port.put(&format!("/v1/kv/k?lease={id}"), b"v").await;
    assert_eq!(put.status, StatusCode::OK);
    let raw = port.get("/v1/kv/k").await;
    assert_eq!(raw.header("quorate-lease"), id.to_string());
    let shown = port.get(&format!("/v1/leases/{id}")).await.json();
    let expected = json!({"id": id, "ttl_ms": 10_000, "remaining_ms": 10_000, "keys": [{"key": "k"}]});
    assert_eq!(shown, expected);
    let shown = port
        .get(&format!("/v1/leases/{id}?consistency=serializable"))
        .await
        .json();
    assert_eq!(shown.get("remaining_ms"), None);
    let kept = port
        .post(&format!("/v1/leases/{id}/keep-alive"), json!(null))
        .await;
    assert_eq!(kept.json(), json!({"id": id, "ttl_ms": 10_000}));
    assert_eq!(port.backend.kept_alive(), [id]);
    let revoked = port.delete(&format!("/v1/leases/{id}")).await.json();
    assert_eq!(revoked, json!({"revision": 2, "deleted": 1}));
    port.get("/v1/kv/k").await.problem(404, ProblemCode::KeyNotFound);
}

#[tokio::test]
async fn a_put_keeps_the_lease_of_the_key_or_takes_it_away() {
    let port = Port::open().await;
    port.put("/v1/kv/k?lease=keep", b"v")
        .await
        .problem(404, ProblemCode::KeyNotFound);
    let id = port.granted().await;
    port.put(&format!("/v1/kv/k?lease={id}"), b"1").await;
    port.put("/v1/kv/k?lease=keep", b"2").await;
    assert_eq!(port.get("/v1/kv").await.json()["entries"][0]["lease"], id);
    port.put("/v1/kv/k", b"3").await;
    assert_eq!(port.get("/v1/kv").await.json()["entries"][0].get("lease"), None);
    for odd in ["0", "-1", "x"] {
        port.put(&format!("/v1/kv/k?lease={odd}"), b"3")
            .await
            .problem(400, ProblemCode::BadRequest);
    }
}

#[tokio::test]
async fn a_lease_that_is_gone_is_a_problem_wherever_it_is_named() {
    let port = Port::open().await;
    port.put("/v1/kv/k?lease=9", b"v")
        .await
        .problem(404, ProblemCode::LeaseNotFound);
    port.get("/v1/leases/9")
        .await
        .problem(404, ProblemCode::LeaseNotFound);
    port.delete("/v1/leases/9")
        .await
        .problem(404, ProblemCode::LeaseNotFound);
    port.post("/v1/leases/9/keep-alive", json!(null))
        .await
        .problem(404, ProblemCode::LeaseNotFound);
    let id = port.granted().await;
    let kept = port
        .post("/v1/leases/keep-alive", json!({"leases": [9, id]}))
        .await;
    assert_eq!(
        kept.json(),
        json!({"leases": [{"id": id, "ttl_ms": 10_000}], "gone": [9]})
    );
    for path in ["/v1/leases/0", "/v1/leases/x"] {
        port.get(path).await.problem(400, ProblemCode::BadRequest);
    }
}

#[tokio::test]
async fn leases_are_listed_page_by_page_and_have_one_id_each() {
    let port = Port::open().await;
    for id in [5, 3, 8] {
        port.post("/v1/leases", json!({"ttl_ms": 1000 * id, "id": id}))
            .await;
    }
    let first = port.get("/v1/leases?limit=2").await.json();
    assert_eq!(
        first,
        json!({"leases": [{"id": 3, "ttl_ms": 3000}, {"id": 5, "ttl_ms": 5000}], "more": true})
    );
    let second = port.get("/v1/leases?limit=2&after=5").await.json();
    assert_eq!(
        second,
        json!({"leases": [{"id": 8, "ttl_ms": 8000}], "more": false})
    );
    port.post("/v1/leases", json!({"ttl_ms": 1, "id": 5}))
        .await
        .problem(409, ProblemCode::LeaseExists);
    for body in [
        json!({"ttl_ms": 0}),
        json!({"ttl_ms": 9_000_000_001_000_u64}),
        json!({"ttl_ms": 1000, "id": 0}),
        json!({"ttl": 1000}),
    ] {
        port.post("/v1/leases", body)
            .await
            .problem(400, ProblemCode::BadRequest);
    }
    let many: Vec<u64> = (1..=1001).collect();
    port.post("/v1/leases/keep-alive", json!({"leases": many}))
        .await
        .problem(400, ProblemCode::BadRequest);
}

#[tokio::test]
async fn a_request_with_a_key_is_carried_out_once() {
    let port = Port::open().await;
    let once = [("idempotency-key", "6ba7b810")];
    let send = async |method: Method, path: &str, body: &[u8]| port.send(method, path, &once, body).await;
    let first = send(Method::PUT, "/v1/kv/k?previous", b"1").await;
    port.put("/v1/kv/k", b"2").await;
    let again = send(Method::PUT, "/v1/kv/k?previous", b"1").await;
    assert_eq!(
        (first.json(), again.json()),
        (json!({"revision": 1}), json!({"revision": 1}))
    );
    assert_eq!(&*port.get("/v1/kv/k").await.body, b"2");
    for (method, path, body) in [
        (Method::PUT, "/v1/kv/k?previous", b"other".as_slice()),
        (Method::PUT, "/v1/kv/other", b"1"),
        (Method::DELETE, "/v1/kv/k", b""),
        (Method::POST, "/v1/txn", b"{}"),
        (Method::POST, "/v1/leases", b"{\"ttl_ms\": 1000}"),
        (Method::POST, "/v1/compact", b"{\"revision\": 1}"),
    ] {
        let answer = send(method, path, body).await;
        answer.problem(422, ProblemCode::IdempotencyKeyReused);
    }
    for key in [String::new(), "x".repeat(129)] {
        let header = [("idempotency-key", key.as_str())];
        let answer = port.send(Method::PUT, "/v1/kv/k", &header, b"3").await;
        answer.problem(400, ProblemCode::BadRequest);
    }
}

#[tokio::test]
async fn a_refusal_is_the_answer_that_a_key_keeps() {
    let port = Port::open().await;
    port.put("/v1/kv/k", b"1").await;
    let once = [("idempotency-key", "a")];
    let conflict = port.send(Method::PUT, "/v1/kv/k?revision=9", &once, b"2").await;
    conflict.problem(409, ProblemCode::RevisionConflict);
    port.delete("/v1/kv/k").await;
    let again = port.send(Method::PUT, "/v1/kv/k?revision=9", &once, b"2").await;
    let problem = again.problem(409, ProblemCode::RevisionConflict);
    assert_eq!(problem.current_revision, Some(1), "what the first attempt found");
}

#[tokio::test]
async fn an_unknown_outcome_says_how_to_repeat_a_request_with_a_key() {
    let port = Port::open().await;
    port.backend.fail_next(BackendError::UnknownOutcome);
    let once = [("idempotency-key", "a")];
    let answer = port.send(Method::PUT, "/v1/kv/k", &once, b"2").await;
    let problem = answer.problem(504, ProblemCode::UnknownOutcome);
    assert!(problem.action.contains("same Idempotency-Key"), "{problem:?}");
}

#[tokio::test]
async fn a_state_at_its_quota_says_what_to_do() {
    let port = Port::open().await;
    port.backend
        .fail_next(BackendError::QuotaReached { limit: 1 << 20 });
    let problem = port
        .put("/v1/kv/k", b"v")
        .await
        .problem(507, ProblemCode::QuotaReached);
    assert_eq!(problem.limit, Some(1 << 20));
    assert!(problem.action.contains("/v1/compact"), "{problem:?}");
}

#[tokio::test]
async fn a_serializable_read_that_waits_in_vain_says_how_far_the_node_is() {
    let port = Port::open().await;
    let (wanted, reached) = (quorate_core::state::Revision(9), quorate_core::state::Revision(4));
    port.backend.fail_next(BackendError::Behind { wanted, reached });
    let answer = port.get("/v1/kv/k?consistency=serializable&min_revision=9").await;
    let problem = answer.problem(504, ProblemCode::TimedOut);
    assert!(problem.detail.contains("revision 4 only"), "{problem:?}");
}

#[tokio::test]
async fn keep_alives_and_cluster_control_have_room_when_data_has_none() {
    let port = Port::open().await;
    let id = port.granted().await;
    port.backend.set_silent(true);
    // Listings take a little more than 1 MiB of the room of 64 MiB each, and get no answer.
    let mut listings = Vec::new();
    for _ in 0..63 {
        let address = port.address();
        listings.push(tokio::spawn(async move {
            super::tests::ask_and_wait(address, "/v1/kv").await
        }));
    }
    while port.backend.asked() < 64 {
        tokio::task::yield_now().await;
    }
    port.backend.set_silent(false);
    let refused = port.put("/v1/kv/k", &[b'x'; 1 << 20]).await;
    assert_eq!(refused.header("retry-after"), "1");
    refused.problem(503, ProblemCode::Busy);
    let kept = port
        .post(&format!("/v1/leases/{id}/keep-alive"), json!(null))
        .await;
    assert_eq!(kept.status, StatusCode::OK);
    let stepped_down = port.send(Method::POST, "/cluster/step-down", &[], b"").await;
    assert_eq!(stepped_down.status, StatusCode::OK);
    for listing in listings {
        listing.abort();
    }
}
