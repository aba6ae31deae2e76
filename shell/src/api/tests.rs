//! The client port over real sockets, in front of a backend in memory.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use quorate_api::{KeyValue, Problem, ProblemCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::backend::BackendError;
use super::fake::FakeBackend;
use super::openapi::contract::{Exchange, contract};
use super::server::{Doors, Server};
use super::*;
use crate::planted::Planted;
use crate::port::Ports;
use crate::port::system::{ListenerOptions, ports};
use crate::transport::{Secret, listen_for_clients};

mod watch;

/// Nothing here takes this long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct Port {
    pub(super) backend: Arc<FakeBackend>,
    address: std::net::SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<()>,
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: http::HeaderMap,
    pub(super) body: Bytes,
    /// The id of the operation that answered, by the document, with which the answer agrees.
    pub(super) operation: Option<String>,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }

    #[track_caller]
    pub(super) fn problem(&self, status: u16, code: ProblemCode) -> Problem {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        assert_eq!(self.headers["content-type"], "application/problem+json");
        let problem: Problem = serde_json::from_slice(&self.body).expect("the body is a problem");
        assert_eq!((problem.code, problem.status), (code, status), "{problem:?}");
        assert!(
            !problem.detail.is_empty() && !problem.action.is_empty(),
            "{problem:?}"
        );
        problem
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().expect("the header is text")
    }
}

/// The node's router, over a backend of a test.
pub(super) fn router_over(backend: &Arc<FakeBackend>, clock: &Arc<dyn Clock>, limits: Limits) -> Router {
    let timeouts = Timeouts {
        request: Duration::from_millis(500),
        leader_wait: Duration::from_millis(200),
        shutdown: PATIENCE,
        ..Timeouts::default()
    };
    let backend = Arc::clone(backend) as Arc<dyn Backend>;
    router(backend, Arc::clone(clock), limits, timeouts)
}

/// A free port, with its UDP side when `quic` says so.
async fn doors(ports: &Ports, quic: bool) -> (Doors, std::net::SocketAddr) {
    let secret = Secret::generate(&*ports.entropy).expect("entropy");
    loop {
        let any = ([127, 0, 0, 1], 0).into();
        let listener = ports.network.listen(any).await.expect("a free port");
        let address = listener.local_address().expect("it listens");
        let mut doors = Doors {
            listeners: vec![listener],
            endpoints: Vec::new(),
        };
        if quic {
            // Somebody else may have the UDP side.
            let Ok(endpoint) = listen_for_clients(ports, &secret, "c", "1", address) else {
                continue;
            };
            doors.endpoints.push(endpoint);
        }
        return (doors, address);
    }
}

impl Port {
    pub(super) async fn open() -> Port {
        Port::with(100, Limits::default()).await
    }

    /// A port whose UDP side nobody has.
    pub(super) async fn without_quic() -> Port {
        Port::made(100, Limits::default(), false).await
    }

    pub(super) async fn with(max_connections: usize, limits: Limits) -> Port {
        Port::made(max_connections, limits, true).await
    }

    async fn made(max_connections: usize, limits: Limits, quic: bool) -> Port {
        let ports = ports(ListenerOptions {
            tcp_nodelay: true,
            keepalive: true,
        });
        let (doors, address) = doors(&ports, quic).await;
        let backend = Arc::new(FakeBackend::new());
        let server = Server {
            router: router_over(&backend, &ports.clock, limits),
            clock: ports.clock,
            max_connections,
            grace: PATIENCE,
            limits,
            planted: Planted::NONE,
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(server.serve(doors, async move {
            let _ = stopped.await;
        }));
        Port {
            backend,
            address,
            stop: Some(stop),
            server,
        }
    }

    pub(super) fn address(&self) -> std::net::SocketAddr {
        self.address
    }

    /// Asks the server to stop.
    pub(super) fn stop(&mut self) {
        self.stop
            .take()
            .expect("not stopped yet")
            .send(())
            .expect("the server runs");
    }

    /// Waits until the server has stopped.
    pub(super) async fn stopped(&mut self) {
        tokio::time::timeout(PATIENCE, &mut self.server)
            .await
            .expect("it stops in time")
            .expect("it does not panic");
    }

    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        self.exchange(method, path, headers, body, usize::MAX).await
    }

    /// The first parts of an answer without an end.
    pub(super) async fn beginning(&self, path: &str, headers: &[(&str, &str)], frames: usize) -> Answer {
        self.exchange(Method::GET, path, headers, b"", frames).await
    }

    /// Sends a request, and holds the answer against the document.
    async fn exchange(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        frames_max: usize,
    ) -> Answer {
        let stream = TcpStream::connect(self.address).await.expect("it listens");
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .expect("it speaks HTTP");
        tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method.clone())
            .uri(path)
            .header("host", "test");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request
            .body(Full::new(Bytes::copy_from_slice(body)))
            .expect("a request");
        let answer = async {
            let response = sender.send_request(request).await.expect("an answer");
            let (head, mut rest) = response.into_parts();
            let mut body = Vec::new();
            let mut frames = 0;
            while frames < frames_max
                && let Some(frame) = rest.frame().await
            {
                let frame = frame.expect("the answer does not break off");
                body.extend_from_slice(&frame.into_data().unwrap_or_default());
                frames += 1;
            }
            (head.status, head.headers, body)
        };
        let (status, headers, answer) = tokio::time::timeout(PATIENCE, answer)
            .await
            .expect("an answer in time");
        let operation = contract().check(&Exchange {
            method: &method,
            path,
            request: body,
            status,
            headers: &headers,
            body: &answer,
        });
        Answer {
            status,
            headers,
            body: answer.into(),
            operation: operation.map(str::to_owned),
        }
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], b"").await
    }

    pub(super) async fn put(&self, path: &str, value: &[u8]) -> Answer {
        self.send(Method::PUT, path, &[], value).await
    }

    pub(super) async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, &[], b"").await
    }
}

/// Asks on a connection of its own, and waits for an answer.
pub(super) async fn ask_and_wait(address: std::net::SocketAddr, path: &str) {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    let request = format!("GET {path} HTTP/1.1\r\nhost: t\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("it reads");
    let _ = stream.read(&mut [0; 1]).await;
}

#[tokio::test]
async fn a_value_is_stored_as_it_is_and_read_raw_or_as_json() {
    let port = Port::open().await;
    let put = port
        .send(
            Method::PUT,
            "/v1/kv/a/b%20c",
            &[("content-type", "application/json")],
            b"{\"x\":1}",
        )
        .await;
    assert_eq!((put.status, put.json()), (StatusCode::OK, json!({"revision": 1})));
    port.put("/v1/kv/a/b%20c", b"\xff\x00").await;

    let raw = port.get("/v1/kv/a/b%20c").await;
    assert_eq!((raw.status, &*raw.body), (StatusCode::OK, b"\xff\x00".as_slice()));
    assert_eq!(raw.header("quorate-revision"), "2");
    assert_eq!(raw.header("quorate-create-revision"), "1");
    assert_eq!(raw.header("quorate-version"), "2");
    assert_eq!(raw.header("etag"), "\"2\"");

    let accept = [("accept", "application/json")];
    let read = port
        .send(
            Method::GET,
            "/v1/kv/a/b c".replace(' ', "%20").as_str(),
            &accept,
            b"",
        )
        .await;
    let entry: KeyValue = serde_json::from_slice(&read.body).expect("a key and value");
    assert_eq!(
        (&*entry.key, &*entry.value),
        (b"a/b c".as_slice(), b"\xff\x00".as_slice())
    );

    let head = port.send(Method::HEAD, "/v1/kv/a/b%20c", &[], b"").await;
    assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));
}

#[tokio::test]
async fn a_missing_key_is_a_problem_and_deleting_it_is_none() {
    let port = Port::open().await;
    port.get("/v1/kv/none")
        .await
        .problem(404, ProblemCode::KeyNotFound);
    let deleted = port.delete("/v1/kv/none").await;
    assert_eq!(
        (deleted.status, deleted.json()),
        (StatusCode::OK, json!({"revision": 0, "deleted": 0}))
    );
    port.put("/v1/kv/k", b"v").await;
    let deleted = port.delete("/v1/kv/k?previous").await.json();
    assert_eq!(
        (&deleted["deleted"], &deleted["previous"]["value"]),
        (&json!(1), &json!("v"))
    );
}

#[tokio::test]
async fn a_compare_and_set_that_fails_tells_the_current_revision() {
    let port = Port::open().await;
    assert_eq!(port.put("/v1/kv/k?revision=0", b"1").await.status, StatusCode::OK);
    let conflict = port
        .put("/v1/kv/k?revision=0", b"2")
        .await
        .problem(409, ProblemCode::RevisionConflict);
    assert_eq!(conflict.current_revision, Some(1));
    assert_eq!(port.put("/v1/kv/k?revision=1", b"2").await.status, StatusCode::OK);

    let with = |name: &'static str, value: &'static str| [(name, value)];
    let stale = port
        .send(Method::PUT, "/v1/kv/k", &with("if-match", "\"1\""), b"3")
        .await;
    assert_eq!(
        stale.problem(412, ProblemCode::RevisionConflict).current_revision,
        Some(2)
    );
    let exists = port
        .send(Method::PUT, "/v1/kv/k", &with("if-none-match", "*"), b"3")
        .await;
    exists.problem(412, ProblemCode::RevisionConflict);
    let fresh = port
        .send(Method::DELETE, "/v1/kv/k", &with("if-match", "\"2\""), b"")
        .await;
    assert_eq!(fresh.json()["deleted"], 1);
    let gone = port
        .delete("/v1/kv/k?revision=2")
        .await
        .problem(409, ProblemCode::RevisionConflict);
    assert_eq!(gone.current_revision, Some(0));

    let odd = port
        .send(Method::PUT, "/v1/kv/k", &with("if-match", "W/\"x\""), b"3")
        .await;
    assert!(
        odd.problem(400, ProblemCode::BadRequest)
            .detail
            .contains("If-Match")
    );
    let both = port
        .send(Method::PUT, "/v1/kv/k?revision=1", &with("if-match", "1"), b"3")
        .await;
    both.problem(400, ProblemCode::BadRequest);
}

#[tokio::test]
async fn a_listing_shows_a_prefix_page_by_page() {
    let port = Port::open().await;
    for key in ["a/1", "a/2", "a/%FF", "b/1"] {
        port.put(&format!("/v1/kv/{key}"), b"v").await;
    }
    let first = port.get("/v1/kv?prefix=a/&limit=2").await.json();
    let keys: Vec<&Value> = first["entries"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|entry| &entry["key"])
        .collect();
    assert_eq!(
        (keys, &first["more"]),
        (vec![&json!("a/1"), &json!("a/2")], &json!(true))
    );
    let next = first["next"].as_str().expect("a next page");
    let second = port
        .get(&format!("/v1/kv?prefix=a/&limit=2&start={next}"))
        .await
        .json();
    assert_eq!(second["entries"][0]["key_base64"], "YS//");
    assert_eq!((&second["more"], second.get("next")), (&json!(false), None));
    let all = port.get("/v1/kv/").await.json();
    assert_eq!(all["entries"].as_array().map(Vec::len), Some(4));
}

#[tokio::test]
async fn a_malformed_query_names_the_parameter() {
    let port = Port::open().await;
    for (path, part, hint) in [
        (
            "/v1/kv/k?consistancy=serializable",
            "`consistancy`",
            "did you mean `consistency`",
        ),
        (
            "/v1/kv/k?consistency=strict",
            "`consistency` is `strict`",
            "linearizable, lease or serializable",
        ),
        ("/v1/kv?limit=many", "`limit` is `many`", "from 1 to"),
        ("/v1/kv?limit=0", "`limit` is 0", "from 1 to"),
        (
            "/v1/kv?limit=1&limit=2",
            "`limit` is given twice",
            "leave one out",
        ),
    ] {
        let problem = port.get(path).await.problem(400, ProblemCode::BadRequest);
        assert!(
            problem.detail.contains(part) && problem.action.contains(hint),
            "{problem:?}"
        );
    }
    let problem = port
        .put("/v1/kv/k?revision=-1", b"")
        .await
        .problem(400, ProblemCode::BadRequest);
    assert!(problem.detail.contains("`revision` is `-1`"));
    let problem = port
        .put("/v1/kv/k?redirect=perhaps", b"")
        .await
        .problem(400, ProblemCode::BadRequest);
    assert!(problem.detail.contains("`redirect`"));
    assert_eq!(port.backend.asked(), 0);
}

#[tokio::test]
async fn an_unknown_path_and_a_wrong_method_are_problems() {
    let port = Port::open().await;
    let problem = port.get("/v2/kv").await.problem(404, ProblemCode::NotFound);
    assert!(problem.detail.contains("/v2/kv"));
    let answer = port.send(Method::POST, "/v1/kv/k", &[], b"").await;
    answer.problem(405, ProblemCode::MethodNotAllowed);
    let allowed = answer.header("allow");
    assert!(
        ["GET", "PUT", "DELETE"]
            .iter()
            .all(|method| allowed.contains(method)),
        "{allowed}"
    );
    let problem = port
        .put("/v1/kv/", b"")
        .await
        .problem(400, ProblemCode::BadRequest);
    assert_eq!(problem.detail, "the key is empty");
}

#[tokio::test]
async fn what_is_too_large_is_refused_with_the_limit() {
    let limits = Limits {
        key_bytes: 8,
        value_bytes: 16,
        body_bytes: 32,
        ..Limits::default()
    };
    let port = Port::with(100, limits).await;
    let key = port
        .put("/v1/kv/123456789", b"")
        .await
        .problem(413, ProblemCode::KeyTooLarge);
    assert_eq!(key.limit, Some(8));
    assert_eq!(
        port.put("/v1/kv/%31234567%38", &[0; 16]).await.status,
        StatusCode::OK
    );
    let value = port
        .put("/v1/kv/k", &[0; 17])
        .await
        .problem(413, ProblemCode::ValueTooLarge);
    assert_eq!(value.limit, Some(16));
    let body = port
        .send(Method::POST, "/cluster/members", &[], &[b' '; 33])
        .await;
    assert_eq!(body.problem(413, ProblemCode::BodyTooLarge).limit, Some(32));

    // A body that does not say how long it is.
    let chunked = b"PUT /v1/kv/k HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n20\r\n";
    let mut stream = TcpStream::connect(port.address).await.unwrap();
    stream.write_all(chunked).await.unwrap();
    stream.write_all(&[b'x'; 0x20]).await.unwrap();
    let text = read_until(&mut stream, "value_too_large").await;
    assert!(text.starts_with("HTTP/1.1 413"), "{text}");
}

#[tokio::test]
async fn a_client_that_sends_too_much_reads_the_answer_and_goes_on() {
    let port = Port::open().await;
    let value = vec![b'x'; 8 << 20];
    let mut stream = TcpStream::connect(port.address).await.unwrap();
    for _ in 0..2 {
        let head = format!(
            "PUT /v1/kv/k HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n",
            value.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&value).await.unwrap();
        let text = read_until(&mut stream, "value_too_large").await;
        assert!(text.starts_with("HTTP/1.1 413"), "{text}");
        read_until_end_of_json(&mut stream, text).await;
    }
}

#[tokio::test]
async fn a_client_that_waits_for_leave_to_send_too_much_is_refused_at_once() {
    let port = Port::open().await;
    let mut stream = TcpStream::connect(port.address).await.unwrap();
    let head = b"PUT /v1/kv/k HTTP/1.1\r\nhost: t\r\ncontent-length: 8388608\r\nexpect: 100-continue\r\n\r\n";
    stream.write_all(head).await.unwrap();
    let text = read_until(&mut stream, "value_too_large").await;
    assert!(text.starts_with("HTTP/1.1 413"), "{text}");
}

/// Reads what is left of an answer of which `text` has come.
async fn read_until_end_of_json(stream: &mut TcpStream, text: String) {
    if !text.ends_with("}\n") {
        read_until(stream, "}\n").await;
    }
}

async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    let read = async {
        let mut buffer = [0; 4096];
        while !text.contains(end) {
            let count = stream.read(&mut buffer).await.expect("a readable socket");
            assert!(count > 0, "it closed after: {text}");
            text.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
    };
    tokio::time::timeout(PATIENCE, read)
        .await
        .expect("an answer in time");
    text
}

#[tokio::test]
async fn without_a_leader_writes_and_reads_are_refused_in_time_with_a_hint_when_to_try_again() {
    let port = Port::open().await;
    port.put("/v1/kv/k", b"v").await;
    port.backend.set_leader(false);
    for answer in [
        port.put("/v1/kv/k", b"v").await,
        port.get("/v1/kv/k").await,
        port.get("/v1/kv").await,
    ] {
        assert_eq!(answer.header("retry-after"), "1");
        let problem = answer.problem(503, ProblemCode::NoLeader);
        assert_eq!(problem.retry_after, Some(1));
        assert_eq!(problem.error.as_deref(), Some("No leader available"));
    }
    let stale = port.get("/v1/kv/k?consistency=serializable").await;
    assert_eq!((stale.status, &*stale.body), (StatusCode::OK, b"v".as_slice()));
}

#[tokio::test]
async fn a_write_during_a_failover_waits_for_the_new_leader() {
    let port = Port::open().await;
    port.backend.set_leader(false);
    let elected = async {
        while port.backend.asked() == 0 {
            tokio::task::yield_now().await;
        }
        port.backend.set_leader(true);
    };
    let (answer, ()) = tokio::join!(port.put("/v1/kv/k", b"v"), elected);
    assert_eq!(answer.json()["revision"], 1);
}

#[tokio::test]
async fn a_write_can_ask_to_be_redirected() {
    let port = Port::open().await;
    let answer = port.put("/v1/kv/a%20b?redirect=true&previous=true", b"v").await;
    assert_eq!(answer.status, StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(
        answer.header("location"),
        "http://10.0.0.2:9000/v1/kv/a%20b?redirect=true&previous=true"
    );
    let problem = answer.problem(307, ProblemCode::NotLeader);
    assert_eq!(problem.leader.as_deref(), Some("10.0.0.2:9000"));
}

#[tokio::test]
async fn every_failure_of_the_node_has_its_status_and_code() {
    let port = Port::open().await;
    let table = [
        (BackendError::Busy, 503, ProblemCode::Busy),
        (BackendError::UnknownOutcome, 504, ProblemCode::UnknownOutcome),
        (BackendError::TimedOut, 504, ProblemCode::TimedOut),
        (
            BackendError::Unavailable("stopping".to_owned()),
            503,
            ProblemCode::Unavailable,
        ),
        (BackendError::Refused("no".to_owned()), 409, ProblemCode::Refused),
    ];
    for (error, status, code) in table {
        port.backend.fail_next(error);
        port.put("/v1/kv/k", b"v").await.problem(status, code);
    }
}

#[tokio::test]
async fn a_node_that_never_answers_leaves_the_outcome_of_a_write_unknown() {
    let port = Port::open().await;
    port.backend.set_silent(true);
    port.put("/v1/kv/k", b"v")
        .await
        .problem(504, ProblemCode::UnknownOutcome);
    port.get("/v1/kv/k").await.problem(504, ProblemCode::TimedOut);
}

#[tokio::test]
async fn health_and_readiness_follow_the_leader() {
    let port = Port::open().await;
    let health = port.get("/health").await.json();
    let cluster = json!({"node_id": 1, "role": "leader", "leader": 1, "term": 1});
    assert_eq!(
        health,
        json!({"status": "healthy", "cluster": cluster, "mode": "read-write"})
    );
    assert_eq!(port.get("/readyz").await.status, StatusCode::OK);
    port.backend.set_leader(false);
    let health = port.get("/health").await;
    assert_eq!(
        (health.status, &health.json()["status"]),
        (StatusCode::OK, &json!("degraded"))
    );
    for path in ["/readyz", "/health/ready"] {
        let ready = port.get(path).await;
        assert_eq!(
            (ready.status, ready.header("retry-after")),
            (StatusCode::SERVICE_UNAVAILABLE, "1")
        );
        assert_eq!(ready.json(), json!({"ready": false, "reasons": ["no leader"]}));
    }
    for path in ["/livez", "/health/live"] {
        assert_eq!(port.get(path).await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn status_and_nodes_have_the_documented_fields() {
    let port = Port::open().await;
    let status = port.get("/cluster/status").await.json();
    assert_eq!(
        (&status["node_id"], &status["state"]),
        (&json!(1), &json!("leader"))
    );
    assert_eq!(
        (&status["term"], &status["commit_index"]),
        (&json!(1), &json!(42))
    );
    let peer = &status["peers"][0];
    assert_eq!(
        (&peer["id"], &peer["state"], &peer["match_index"]),
        (&json!(2), &json!("follower"), &json!(42))
    );
    let nodes = port.get("/cluster/nodes").await.json();
    assert_eq!(nodes["leader_id"], 1);
    let node = nodes["nodes"][0].as_object().expect("a node");
    for field in [
        "node_id",
        "api_address",
        "raft_address",
        "health",
        "role",
        "cpu_percent",
        "memory_percent",
        "active_sessions",
        "max_sessions",
        "available_capacity",
        "load_score",
        "last_heartbeat",
        "joined_at",
        "metadata",
    ] {
        assert!(node.contains_key(field), "{field} is missing");
    }
    let metrics = port.get("/metrics").await;
    assert!(
        metrics
            .header("content-type")
            .starts_with("application/openmetrics-text")
    );
    assert!(metrics.body.starts_with(b"raft_term 1"));
}

#[tokio::test]
async fn members_come_and_go_with_the_documented_bodies() {
    let port = Port::open().await;
    // curl -d sends this content type.
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let body = br#"{"id": 4, "host": "10.0.0.4", "port": 9100}"#;
    let added = port
        .send(Method::POST, "/cluster/members", &form, body)
        .await
        .json();
    assert_eq!((&added["success"], &added["id"]), (&json!(true), &json!(4)));
    let removed = port.delete("/cluster/members/4").await.json();
    assert_eq!((&removed["success"], &removed["id"]), (&json!(true), &json!(4)));
    port.delete("/cluster/members/9")
        .await
        .problem(404, ProblemCode::MemberNotFound);
    port.delete("/cluster/members/a%20b")
        .await
        .problem(400, ProblemCode::BadRequest);
    let odd = port
        .send(Method::POST, "/cluster/members", &[], b"{\"id\": 4}")
        .await;
    assert!(odd.problem(400, ProblemCode::BadRequest).detail.contains("host"));
    port.send(Method::POST, "/cluster/members", &[], b"")
        .await
        .problem(400, ProblemCode::BadRequest);
}

#[tokio::test]
async fn the_leadership_is_handed_over_with_and_without_a_target() {
    let port = Port::open().await;
    let any = port
        .send(Method::POST, "/cluster/step-down", &[], b"")
        .await
        .json();
    assert_eq!((&any["previous_leader"], &any["leader"]), (&json!(1), &json!(2)));
    let chosen = port
        .send(
            Method::POST,
            "/cluster/step-down",
            &[],
            br#"{"target_node": "node3"}"#,
        )
        .await
        .json();
    assert_eq!(chosen["leader"], "node3");
}

#[tokio::test]
async fn what_only_the_leader_does_is_sent_to_the_leader() {
    let port = Port::open().await;
    let body = br#"{"id": 4, "host": "10.0.0.4", "port": 9100}"#.as_slice();
    for (method, path, body) in [
        (Method::POST, "/cluster/step-down", b"".as_slice()),
        (Method::POST, "/cluster/members", body),
        (Method::DELETE, "/cluster/members/4", b""),
    ] {
        port.backend.fail_next(BackendError::NotLeader {
            leader: "10.0.0.2:9000".to_owned(),
        });
        let answer = port.send(method, path, &[], body).await;
        assert_eq!(answer.header("location"), format!("http://10.0.0.2:9000{path}"));
        answer.problem(307, ProblemCode::NotLeader);
    }
}

#[tokio::test]
async fn a_connection_above_the_limit_is_told_so() {
    let port = Port::with(1, Limits::default()).await;
    let mut first = TcpStream::connect(port.address).await.unwrap();
    first
        .write_all(b"GET /livez HTTP/1.1\r\nhost: t\r\n\r\n")
        .await
        .unwrap();
    read_until(&mut first, "ok\n").await;
    let mut second = TcpStream::connect(port.address).await.unwrap();
    let text = read_until(&mut second, "\"code\":\"too_many_connections\"").await;
    assert!(text.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{text}");
    drop(first);
    drop(second);
    // The place of the first one is free as soon as the server notices.
    let free = async { while !port.get("/livez").await.status.is_success() {} };
    tokio::time::timeout(PATIENCE, free)
        .await
        .expect("a free place in time");
}

#[tokio::test]
async fn stopping_finishes_the_request_in_flight_and_takes_no_more() {
    let mut port = Port::open().await;
    port.backend.set_silent(true);
    let mut busy = TcpStream::connect(port.address).await.unwrap();
    busy.write_all(b"GET /v1/kv/k HTTP/1.1\r\nhost: t\r\n\r\n")
        .await
        .unwrap();
    let mut idle = TcpStream::connect(port.address).await.unwrap();
    idle.write_all(b"GET /livez HTTP/1.1\r\nhost: t\r\n\r\n")
        .await
        .unwrap();
    read_until(&mut idle, "ok\n").await;
    while port.backend.asked() == 0 {
        tokio::task::yield_now().await;
    }
    port.stop
        .take()
        .expect("not stopped yet")
        .send(())
        .expect("it serves");
    let answer = read_until(&mut busy, "\"code\":\"timed_out\"").await;
    assert!(answer.contains("connection: close"), "{answer}");
    tokio::time::timeout(PATIENCE, &mut port.server)
        .await
        .expect("it stops in time")
        .expect("it does not panic");
    assert_eq!(
        idle.read(&mut [0; 16]).await.unwrap(),
        0,
        "idle connections are closed"
    );
    assert!(TcpStream::connect(port.address).await.is_err());
}

#[tokio::test]
async fn http2_is_served_on_the_same_port() {
    let port = Port::open().await;
    let stream = TcpStream::connect(port.address).await.unwrap();
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let uri = format!("http://{}/v1/kv/k", port.address);
    let request = Request::put(uri)
        .body(Full::new(Bytes::from_static(b"v")))
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(
        (response.status(), response.version()),
        (StatusCode::OK, http::Version::HTTP_2)
    );
}

#[tokio::test]
async fn a_port_in_use_is_named_with_its_flag() {
    let port = Port::open().await;
    let ports = ports(ListenerOptions {
        tcp_nodelay: true,
        keepalive: true,
    });
    let listen = crate::config::Listen {
        host: "127.0.0.1".to_owned(),
        port: port.address.port(),
        origin: crate::config::Origin::Default,
        flag: "--port",
    };
    let error = server::bind(&*ports.network, &[listen])
        .await
        .err()
        .expect("the port is taken");
    let text = error.to_string();
    assert!(text.contains("is in use") && text.contains("--port"), "{text}");
}
