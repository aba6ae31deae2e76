//! Sessions over real sockets and in front of the real state machine, with a leader whose duty is done by hand.

use http::{Method, StatusCode};
use quorate_api::ProblemCode;
use quorate_core::raft::{NodeId, Term};
use quorate_core::state::{Command, Presence, SessionCommand};
use serde_json::{Value, json};

use super::tests::{Answer, Port};
use crate::config::Limits;

impl Port {
    async fn session(&self, method: Method, path: &str, body: Value) -> Answer {
        self.send(method, path, &[], body.to_string().as_bytes()).await
    }

    fn sight(&self, nodes: &[(u64, Presence)]) {
        let nodes = nodes.iter().map(|(id, presence)| (NodeId(*id), *presence));
        self.backend.apply(&Command::Session(SessionCommand::Sight {
            term: Term(1),
            nodes: nodes.collect(),
        }));
    }

    fn step(&self) {
        let term = Term(1);
        self.backend
            .apply(&Command::Session(SessionCommand::Step { term }));
    }
}

async fn with_nodes() -> Port {
    let port = Port::open().await;
    port.sight(&[1, 2].map(|id| (id, Presence::Present)));
    port
}

#[tokio::test]
async fn a_session_is_made_read_touched_routed_and_ended_under_both_paths() {
    let port = with_nodes().await;
    for (base, id) in [("/v1/sessions", "one"), ("/sessions", "two")] {
        let request = json!({"session_id": id, "client": "ada", "payload": "p"});
        let made = port.session(Method::POST, base, request).await.json();
        assert_eq!(
            (&made["session_id"], &made["status"]),
            (&json!(id), &json!("placed"))
        );
        assert_eq!(made.get("payload"), None, "the client has it");
        let path = format!("{base}/{id}");
        let touch = json!({"epoch": made["epoch"], "payload_base64": "/w=="});
        let touched = port.session(Method::POST, &format!("{path}/touch"), touch).await;
        assert_eq!(touched.json()["status"], "active");
        let read = port.get(&path).await.json();
        assert_eq!(
            (&read["payload_base64"], &read["client"]),
            (&json!("/w=="), &json!("ada"))
        );
        let route = port.get(&format!("{path}/route")).await.json();
        let node = made["node_id"].as_u64().expect("a number as a name");
        assert_eq!(route["node_address"], format!("10.0.0.{node}:9000"));
        assert_eq!(
            route["redirect_url"],
            format!("http://10.0.0.{node}:9000/v1/sessions/{id}")
        );
        let ended = port.session(Method::DELETE, &path, json!(null)).await;
        assert_eq!(ended.status, StatusCode::OK);
        port.get(&path).await.problem(404, ProblemCode::SessionNotFound);
    }
}

#[tokio::test]
async fn what_cannot_be_done_to_a_session_says_why() {
    let port = Port::with(
        100,
        Limits {
            value_bytes: 4,
            ..Limits::default()
        },
    )
    .await;
    let create = json!({"session_id": "one"});
    let no_room = port.session(Method::POST, "/v1/sessions", create.clone()).await;
    no_room.problem(507, ProblemCode::NoRoom);
    port.sight(&[(1, Presence::Present)]);
    let made = port.session(Method::POST, "/v1/sessions", create.clone()).await;
    assert_eq!(made.status, StatusCode::OK);
    let again = port.session(Method::POST, "/v1/sessions", create).await;
    again.problem(409, ProblemCode::SessionExists);
    let epoch = made.json()["epoch"].as_u64().expect("an epoch");
    let stale = json!({"epoch": epoch + 7});
    let stale = port.session(Method::POST, "/v1/sessions/one/touch", stale).await;
    assert_eq!(
        stale.problem(409, ProblemCode::StaleEpoch).current_revision,
        Some(epoch)
    );
    let stale = port
        .session(Method::DELETE, "/v1/sessions/one?epoch=99", json!(null))
        .await;
    stale.problem(409, ProblemCode::StaleEpoch);
    for body in [
        json!({"session_id": "a/b"}),
        json!({"session_id": ""}),
        json!({"client": "c".repeat(1025)}),
        json!({"payload": "p", "payload_base64": "/w=="}),
        json!({"payload_base64": "?"}),
        json!({"id": "one"}),
    ] {
        let refused = port.session(Method::POST, "/v1/sessions", body).await;
        refused.problem(400, ProblemCode::BadRequest);
    }
    let large = port
        .session(Method::POST, "/v1/sessions", json!({"payload": "large"}))
        .await;
    large.problem(413, ProblemCode::ValueTooLarge);
    let unknown = port.get("/v1/sessions?node=7").await;
    unknown.problem(404, ProblemCode::MemberNotFound);
}

#[tokio::test]
async fn the_first_session_of_a_cluster_waits_until_a_leader_has_seen_its_nodes() {
    let port = Port::open().await;
    let made = port.session(Method::POST, "/v1/sessions", json!({}));
    let leader = async {
        while port.backend.asked() == 0 {
            tokio::task::yield_now().await;
        }
        port.sight(&[(1, Presence::Present)]);
    };
    let (made, ()) = tokio::join!(made, leader);
    assert_eq!(made.json()["node_id"], 1);
}

#[tokio::test]
async fn a_session_that_is_made_twice_under_one_key_is_made_once() {
    let port = with_nodes().await;
    let make = |body: &'static [u8]| {
        let port = &port;
        async move {
            let headers = [("idempotency-key", "k")];
            port.send(Method::POST, "/v1/sessions", &headers, body).await
        }
    };
    let first = make(b"{}").await.json();
    assert_eq!(make(b"{}").await.json(), first);
    let other = make(b"{\"client\": \"bob\"}").await;
    other.problem(422, ProblemCode::IdempotencyKeyReused);
    let list = port.get("/v1/sessions").await.json();
    assert_eq!(list["sessions"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn sessions_are_listed_by_node_page_and_consistency() {
    let port = with_nodes().await;
    for id in ["a", "b", "c", "d"] {
        port.session(Method::POST, "/v1/sessions", json!({"session_id": id}))
            .await;
    }
    let ids = |answer: &Value| -> Vec<String> {
        let sessions = answer["sessions"].as_array().expect("a list").iter();
        let ids = sessions.filter_map(|session| session["session_id"].as_str());
        ids.map(str::to_owned).collect()
    };
    let first = port.get("/v1/sessions?limit=3").await.json();
    assert_eq!(
        (ids(&first), &first["more"]),
        (vec!["a".into(), "b".into(), "c".into()], &json!(true))
    );
    let rest = port
        .get("/cluster/sessions?after=c&consistency=eventual")
        .await
        .json();
    assert_eq!((ids(&rest), &rest["more"]), (vec!["d".into()], &json!(false)));
    let owned = port.get("/v1/sessions?node=2&consistency=strong").await.json();
    assert_eq!(ids(&owned), ["b", "d"]);
    assert_eq!(owned["revision"], 4);
}

#[tokio::test]
async fn a_drain_tells_what_moved_and_why_the_rest_stays() {
    let port = with_nodes().await;
    for id in ["a", "b", "c", "d"] {
        port.session(Method::POST, "/v1/sessions", json!({"session_id": id}))
            .await;
    }
    let capacity = json!({"max_sessions": 2});
    let set = port
        .session(Method::PUT, "/cluster/nodes/2/capacity", capacity)
        .await;
    assert_eq!(set.json()["success"], true);
    let drained = port
        .session(Method::POST, "/cluster/nodes/1/drain", json!({}))
        .await
        .json();
    assert_eq!(
        (&drained["success"], &drained["failed_sessions"]),
        (&json!(false), &json!(2))
    );
    assert_eq!(drained["errors"].as_array().map(Vec::len), Some(1));
    let forced = port.session(Method::POST, "/cluster/nodes/1/drain", json!({"force": true}));
    let leader = async {
        // The duty of the leader, as soon as the command is there.
        while !port.backend.wants_session_step() {
            tokio::task::yield_now().await;
        }
        port.step();
    };
    let (forced, ()) = tokio::join!(forced, leader);
    let expected = json!({"success": true, "migrated_sessions": 2, "failed_sessions": 0, "errors": []});
    assert_eq!(forced.json(), expected);
    let back = port
        .session(Method::POST, "/cluster/nodes/1/undrain", json!(null))
        .await;
    assert_eq!(back.status, StatusCode::OK);
    let unknown = port
        .session(Method::POST, "/cluster/nodes/7/drain", json!({}))
        .await;
    unknown.problem(404, ProblemCode::MemberNotFound);
    let rebalanced = port.session(Method::POST, "/cluster/rebalance", json!(null));
    let leader = async {
        while !port.backend.wants_session_step() {
            tokio::task::yield_now().await;
        }
        port.step();
    };
    let (rebalanced, ()) = tokio::join!(rebalanced, leader);
    // All of them on the node that takes 500 leave it emptier than one of them the node that takes 2.
    assert_eq!(rebalanced.json(), json!({"success": true, "sessions_moved": 4}));
}
