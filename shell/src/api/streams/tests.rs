//! Streams over real sockets and in front of the real state machine.

use std::time::Duration;

use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use quorate_api::{ProblemCode, TailLine};
use quorate_core::raft::Term;
use quorate_core::state::{Command, Cut, Offset, Policy, StreamCommand, StreamId};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::super::backend::BackendError;
use super::super::tests::{Answer, Port};
use crate::config::Limits;

async fn post(port: &Port, path: &str, body: Value) -> Answer {
    port.send(Method::POST, path, &[], body.to_string().as_bytes())
        .await
}

async fn with_stream(body: Value) -> Port {
    let port = Port::open().await;
    let created = post(&port, "/v1/streams", body).await;
    assert_eq!(created.status, StatusCode::CREATED, "{created:?}");
    port
}

async fn append(port: &Port, values: &[&str]) -> Value {
    let records: Vec<Value> = values.iter().map(|value| json!({"value": value})).collect();
    let answer = post(port, "/v1/streams/s/records", json!({"records": records})).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    answer.json()
}

fn values(records: &Value) -> Vec<&str> {
    let records = records.as_array().expect("a list");
    records
        .iter()
        .filter_map(|record| record["value"].as_str())
        .collect()
}

/// Retention drops what is before an offset.
fn trim(port: &Port, before: u64) {
    port.backend.apply(&Command::Stream(StreamCommand::Trim {
        term: Term(1),
        cuts: vec![Cut {
            stream: StreamId(quorate_core::raft::Index(1)),
            partition: 0,
            before: Offset(before),
            policy: Policy::Age,
        }],
        forget: Vec::new(),
    }));
}

#[tokio::test]
async fn a_stream_is_created_listed_described_and_deleted() {
    let port = with_stream(json!({"name": "s", "partitions": 2, "retention": {"age_ms": 5000}})).await;
    let again = post(&port, "/v1/streams", json!({"name": "s"})).await;
    again.problem(409, ProblemCode::StreamExists);
    post(&port, "/v1/streams", json!({"name": "a/b"}))
        .await
        .problem(400, ProblemCode::BadRequest);
    post(&port, "/v1/streams", json!({"name": "t"})).await;
    append(&port, &["one", "two"]).await;
    let info = port.get("/v1/streams/s").await.json();
    assert_eq!(
        (&info["records"], &info["bytes"], &info["retention"]),
        (&json!(2), &json!(6), &json!({"age_ms": 5000}))
    );
    assert_eq!(info["partitions"][0]["next_offset"], 2);
    let listed = port.get("/v1/streams?limit=1").await.json();
    assert_eq!(
        (&listed["streams"][0]["name"], &listed["more"]),
        (&json!("s"), &json!(true))
    );
    let listed = port.get("/v1/streams?prefix=t&after=s").await.json();
    assert_eq!(
        (&listed["streams"][0]["name"], &listed["more"]),
        (&json!("t"), &json!(false))
    );
    assert_eq!(
        port.delete("/v1/streams/s").await.json(),
        json!({"records": 2, "bytes": 6})
    );
    port.delete("/v1/streams/s")
        .await
        .problem(404, ProblemCode::StreamNotFound);
    port.get("/v1/streams/s")
        .await
        .problem(404, ProblemCode::StreamNotFound);
    post(
        &port,
        "/v1/streams/s/records",
        json!({"records": [{"value": "v"}]}),
    )
    .await
    .problem(404, ProblemCode::StreamNotFound);
}

#[tokio::test]
async fn records_are_appended_once_and_read_from_an_offset() {
    let port = with_stream(json!({"name": "s"})).await;
    let records =
        json!({"records": [{"value": "a", "id": "1", "key": "k", "priority": 4}, {"value_base64": "/w=="}]});
    let placed = post(&port, "/v1/streams/s/records", records.clone()).await.json();
    assert_eq!(
        placed,
        json!({"placed": [{"partition": 0, "first_offset": 0, "count": 2, "duplicate": false}]})
    );
    let again = post(&port, "/v1/streams/s/records", records).await.json();
    assert_eq!(
        again["placed"][0],
        json!({"partition": 0, "first_offset": 0, "count": 1, "duplicate": true})
    );
    assert_eq!(again["placed"][1]["first_offset"], 2);
    let read = port.get("/v1/streams/s/records?from=0&limit=2").await.json();
    assert_eq!(
        (&read["next_offset"], &read["end_offset"]),
        (&json!(2), &json!(3))
    );
    let first = &read["records"][0];
    assert_eq!(
        (&first["value"], &first["id"], &first["key"], &first["priority"]),
        (&json!("a"), &json!("1"), &json!("k"), &json!(4))
    );
    assert_eq!(read["records"][1]["value_base64"], "/w==");
    let urgent = port.get("/v1/streams/s/records?priority=3").await.json();
    assert_eq!(
        (values(&urgent["records"]), &urgent["next_offset"]),
        (vec!["a"], &json!(3))
    );
    let end = port.get("/v1/streams/s/records?from=next").await.json();
    assert_eq!(
        (values(&end["records"]), &end["next_offset"]),
        (vec![], &json!(3))
    );
    let ahead = port.get("/v1/streams/s/records?from=4").await;
    assert_eq!(ahead.problem(409, ProblemCode::FutureOffset).next_offset, Some(3));
    let elsewhere = port.get("/v1/streams/s/records?partition=1").await;
    elsewhere.problem(404, ProblemCode::PartitionNotFound);
    assert_eq!(port.get("/v1/streams/s").await.json()["bytes_out"], 2 + 1 + 3 + 1);
}

#[tokio::test]
async fn the_same_append_under_a_key_is_carried_out_once_whenever_it_comes() {
    let port = with_stream(json!({"name": "s"})).await;
    let body = json!({"records": [{"value": "v"}]}).to_string();
    let key = [("idempotency-key", "k")];
    let path = "/v1/streams/s/records";
    let first = port.send(Method::POST, path, &key, body.as_bytes()).await.json();
    tokio::time::sleep(Duration::from_millis(3)).await;
    assert_eq!(
        port.send(Method::POST, path, &key, body.as_bytes()).await.json(),
        first
    );
    let other = json!({"records": [{"value": "w"}]}).to_string();
    port.send(Method::POST, path, &key, other.as_bytes())
        .await
        .problem(422, ProblemCode::IdempotencyKeyReused);
    assert_eq!(port.get("/v1/streams/s").await.json()["records"], 1);
}

#[tokio::test]
async fn an_offset_that_retention_dropped_is_told_with_the_first_one_that_is_kept() {
    let port = with_stream(json!({"name": "s"})).await;
    append(&port, &["a", "b"]).await;
    append(&port, &["c"]).await;
    trim(&port, 2);
    let gone = port.get("/v1/streams/s/records?from=1").await;
    assert_eq!(
        gone.problem(410, ProblemCode::OffsetDeleted).first_offset,
        Some(2)
    );
    let read = port.get("/v1/streams/s/records").await.json();
    assert_eq!(values(&read["records"]), ["c"]);
    let info = port.get("/v1/streams/s").await.json();
    assert_eq!(info["deleted"]["age"], json!({"records": 2, "bytes": 2}));
}

#[tokio::test]
async fn records_are_read_from_a_time() {
    let port = with_stream(json!({"name": "s"})).await;
    append(&port, &["a"]).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    append(&port, &["b"]).await;
    let all = port.get("/v1/streams/s/records").await.json();
    let time = all["records"][1]["time_ms"].as_u64().expect("a time");
    let read = port
        .get(&format!("/v1/streams/s/records?from_time_ms={time}"))
        .await
        .json();
    assert_eq!(values(&read["records"]), ["b"]);
    let later = time + 1;
    let read = port
        .get(&format!("/v1/streams/s/records?from_time_ms={later}"))
        .await
        .json();
    assert_eq!(
        (values(&read["records"]), &read["next_offset"]),
        (vec![], &json!(2))
    );
    port.get("/v1/streams/s/records?from=0&from_time_ms=5")
        .await
        .problem(400, ProblemCode::BadRequest);
}

#[tokio::test]
async fn an_append_that_is_too_large_or_none_is_refused() {
    let limits = Limits {
        value_bytes: 10,
        transaction_bytes: 200,
        ..Limits::default()
    };
    let port = Port::with(100, limits).await;
    post(&port, "/v1/streams", json!({"name": "s"})).await;
    let path = "/v1/streams/s/records";
    let value = post(&port, path, json!({"records": [{"value": "x".repeat(11)}]})).await;
    assert_eq!(value.problem(413, ProblemCode::ValueTooLarge).limit, Some(10));
    let body = post(&port, path, json!({"records": vec![json!({"value": "x"}); 50]})).await;
    assert_eq!(body.problem(413, ProblemCode::BodyTooLarge).limit, Some(200));
    post(&port, path, json!({"records": []}))
        .await
        .problem(400, ProblemCode::BadRequest);
    post(&port, path, json!({"records": [{"value": "x", "priority": 5}]}))
        .await
        .problem(400, ProblemCode::BadRequest);
    post(&port, path, json!({"records": [{"value": "x"}], "partition": 1}))
        .await
        .problem(404, ProblemCode::PartitionNotFound);
    port.backend.fail_next(BackendError::QuotaReached { limit: 7 });
    post(&port, path, json!({"records": [{"value": "x"}]}))
        .await
        .problem(507, ProblemCode::QuotaReached);
}

#[tokio::test]
async fn a_group_gets_records_again_until_it_commits_and_nothing_while_it_pauses() {
    let port = with_stream(json!({"name": "s"})).await;
    append(&port, &["a", "b"]).await;
    append(&port, &["c"]).await;
    let groups = "/v1/streams/s/groups";
    let created = post(&port, groups, json!({"name": "g"})).await;
    assert_eq!(created.status, StatusCode::CREATED);
    post(&port, groups, json!({"name": "g"}))
        .await
        .problem(409, ProblemCode::GroupExists);
    for _ in 0..2 {
        let fetched = port.get("/v1/streams/s/groups/g/records?limit=2").await.json();
        assert_eq!(values(&fetched["batches"][0]["records"]), ["a", "b"]);
    }
    let commit = |offset| json!({"cursors": [{"partition": 0, "next_offset": offset}]});
    let path = "/v1/streams/s/groups/g/commit";
    assert_eq!(
        post(&port, path, commit(1)).await.json()["cursors"][0]["next_offset"],
        1
    );
    let ahead = post(&port, path, commit(4)).await;
    assert_eq!(ahead.problem(409, ProblemCode::FutureOffset).next_offset, Some(3));
    let group = port.get("/v1/streams/s/groups/g").await.json();
    assert_eq!(
        group["cursors"][0],
        json!({"partition": 0, "next_offset": 1, "behind": 2})
    );
    post(&port, "/v1/streams/s/groups/g/pause", json!(null)).await;
    let paused = port.get("/v1/streams/s/groups/g/records").await.json();
    assert_eq!(paused, json!({"batches": [], "paused": true, "missed": 0}));
    post(&port, "/v1/streams/s/groups/g/resume", json!(null)).await;
    trim(&port, 2);
    let fetched = port.get("/v1/streams/s/groups/g/records").await.json();
    assert_eq!(
        (values(&fetched["batches"][0]["records"]), &fetched["missed"]),
        (vec!["c"], &json!(1))
    );
    assert_eq!(port.get(groups).await.json()["groups"][0]["name"], "g");
    assert_eq!(
        port.delete("/v1/streams/s/groups/g").await.json(),
        json!({"deleted": "g"})
    );
    port.get("/v1/streams/s/groups/g")
        .await
        .problem(404, ProblemCode::GroupNotFound);
}

/// A tail as lines of JSON.
struct Lines {
    body: Incoming,
    left: Vec<u8>,
}

impl Lines {
    async fn open(port: &Port, query: &str) -> Result<Lines, Answer> {
        let stream = TcpStream::connect(port.address()).await.expect("it listens");
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .expect("it speaks HTTP");
        tokio::spawn(connection);
        let request = Request::get(format!("/v1/tail?{query}"))
            .header("host", "test")
            .body(Full::new(Bytes::new()))
            .expect("a request");
        let (head, body) = sender
            .send_request(request)
            .await
            .expect("an answer")
            .into_parts();
        if head.status.is_success() {
            assert_eq!(head.headers["content-type"], "application/x-ndjson");
            return Ok(Lines {
                body,
                left: Vec::new(),
            });
        }
        Err(Answer {
            status: head.status,
            headers: head.headers,
            body: body.collect().await.expect("a whole answer").to_bytes(),
            operation: None,
        })
    }

    async fn next(&mut self) -> Option<TailLine> {
        let line = async {
            loop {
                if let Some(end) = self.left.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = self.left.drain(..=end).collect();
                    return Some(serde_json::from_slice(&line).expect("a line of JSON"));
                }
                let frame = self.body.frame().await?.expect("the answer does not break");
                self.left
                    .extend_from_slice(&frame.into_data().unwrap_or_default());
            }
        };
        tokio::time::timeout(Duration::from_secs(10), line)
            .await
            .expect("a line in time")
    }

    /// The values of the next records, with their stream.
    async fn values(&mut self) -> (String, Vec<String>) {
        loop {
            match self.next().await.expect("the tail goes on") {
                TailLine::Records(batch) => {
                    let values = batch.records.iter().map(|record| record.record.value.clone());
                    let text = values.map(|value| String::from_utf8_lossy(&value).into_owned());
                    return (batch.stream, text.collect());
                }
                TailLine::Progress(_) => {}
                TailLine::Cancel(problem) => panic!("{problem}"),
            }
        }
    }

    async fn end(&mut self) -> ProblemCode {
        loop {
            match self.next().await.expect("the tail says why it ends") {
                TailLine::Cancel(problem) => return problem.code,
                TailLine::Progress(_) => {}
                TailLine::Records(batch) => panic!("{batch:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_tail_tells_what_comes_and_goes_on_where_it_was() {
    let port = with_stream(json!({"name": "s"})).await;
    append(&port, &["before"]).await;
    let mut tail = Lines::open(&port, "stream=s").await.expect("a tail");
    let Some(TailLine::Progress(mark)) = tail.next().await else {
        panic!("it begins with where it is");
    };
    assert_eq!(
        (&*mark.positions[0].stream, mark.positions[0].next_offset),
        ("s", 1)
    );
    append(&port, &["a", "b"]).await;
    assert_eq!(
        tail.values().await,
        ("s".to_owned(), vec!["a".to_owned(), "b".to_owned()])
    );
    append(&port, &["c"]).await;
    assert_eq!(tail.values().await.1, ["c"]);
    let mut resumed = Lines::open(&port, "stream=s&at=s/1/0@2").await.expect("a tail");
    assert_eq!(resumed.values().await.1, ["b", "c"]);
    let mut first = Lines::open(&port, "stream=s&from=first").await.expect("a tail");
    assert_eq!(first.values().await.1, ["before", "a", "b", "c"]);
    port.backend.stop();
    assert_eq!(first.end().await, ProblemCode::Unavailable);
}

#[tokio::test]
async fn a_tail_by_prefix_hears_of_streams_that_come_and_of_those_made_anew() {
    let port = with_stream(json!({"name": "app.a"})).await;
    let mut tail = Lines::open(&port, "prefix=app.&progress_ms=100")
        .await
        .expect("a tail");
    tail.next().await;
    let send = async |stream: &str, value: &str| {
        let path = format!("/v1/streams/{stream}/records");
        let answer = post(&port, &path, json!({"records": [{"value": value}]})).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    };
    post(&port, "/v1/streams", json!({"name": "other"})).await;
    send("other", "unheard").await;
    post(&port, "/v1/streams", json!({"name": "app.b"})).await;
    send("app.b", "1").await;
    assert_eq!(tail.values().await, ("app.b".to_owned(), vec!["1".to_owned()]));
    send("app.a", "2").await;
    assert_eq!(tail.values().await.0, "app.a");
    port.delete("/v1/streams/app.a").await;
    post(&port, "/v1/streams", json!({"name": "app.a"})).await;
    send("app.a", "3").await;
    assert_eq!(tail.values().await, ("app.a".to_owned(), vec!["3".to_owned()]));
}

#[tokio::test]
async fn a_tail_never_leaves_anything_out_without_a_word() {
    let port = with_stream(json!({"name": "s"})).await;
    append(&port, &["a"]).await;
    append(&port, &["b"]).await;
    trim(&port, 1);
    let mut tail = Lines::open(&port, "stream=s&from=0").await.expect("a tail");
    assert_eq!(tail.end().await, ProblemCode::OffsetDeleted);
    let mut tail = Lines::open(&port, "stream=s&progress_ms=100")
        .await
        .expect("a tail");
    tail.next().await;
    port.delete("/v1/streams/s").await;
    assert_eq!(tail.end().await, ProblemCode::StreamNotFound);
    for (query, code) in [
        ("stream=s", ProblemCode::StreamNotFound),
        ("", ProblemCode::BadRequest),
        ("stream=s&prefix=s", ProblemCode::BadRequest),
        ("prefix=s&partition=1", ProblemCode::BadRequest),
        ("prefix=s&at=nonsense", ProblemCode::BadRequest),
    ] {
        let refused = Lines::open(&port, query).await.err().expect("no tail");
        refused.problem(code_status(code), code);
    }
}

fn code_status(code: ProblemCode) -> u16 {
    code.status()
}

#[tokio::test]
async fn a_browser_hears_events_and_says_with_the_last_id_where_it_was() {
    let port = with_stream(json!({"name": "s"})).await;
    append(&port, &["a", "b"]).await;
    let stream = TcpStream::connect(port.address()).await.expect("it listens");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .expect("it speaks HTTP");
    tokio::spawn(connection);
    let request = Request::get("/v1/tail?stream=s")
        .header("host", "test")
        .header("accept", "text/event-stream")
        .header("last-event-id", "s/1/0@1")
        .body(Full::new(Bytes::new()))
        .expect("a request");
    let mut body = sender.send_request(request).await.expect("an answer").into_body();
    let mut text = String::new();
    while !text.contains("event: records") {
        let frame = tokio::time::timeout(Duration::from_secs(10), body.frame()).await;
        let frame = frame
            .expect("in time")
            .expect("it goes on")
            .expect("it does not break");
        text.push_str(&String::from_utf8_lossy(&frame.into_data().unwrap_or_default()));
    }
    assert!(
        text.starts_with("retry: 500\nid: s/1/0@1\nevent: progress\n"),
        "{text}"
    );
    assert!(
        text.contains("id: s/1/0@2\nevent: records\ndata: {\"stream\":\"s\""),
        "{text}"
    );
    assert!(
        text.contains("\"value\":\"b\"") && !text.contains("\"value\":\"a\""),
        "{text}"
    );
}
