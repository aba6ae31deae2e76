//! Event frames over real sockets and in front of the real state machine.

use http::StatusCode;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::super::backend::BackendError;
use super::super::tests::Port;
use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

/// The bytes of a frame.
fn frame(priority: u8, topic: &str, payload: &[u8]) -> Vec<u8> {
    let length = HEAD_BYTES + topic.len() + payload.len();
    let mut bytes = u32::try_from(length).unwrap().to_be_bytes().to_vec();
    bytes.push(priority);
    bytes.extend(u16::try_from(topic.len()).unwrap().to_be_bytes());
    bytes.extend(topic.as_bytes());
    bytes.extend(payload);
    bytes
}

/// One that asks for an answer.
fn asking(topic: &str, payload: &[u8]) -> Vec<u8> {
    frame(WANTS_ANSWER | 2, topic, payload)
}

struct Publisher(TcpStream);

impl Publisher {
    async fn of(port: &Port) -> Publisher {
        Publisher(TcpStream::connect(port.address()).await.unwrap())
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    /// The next answer; none when the connection has ended.
    async fn answer(&mut self) -> Option<(u8, Vec<u8>)> {
        let read = async {
            let length = self.0.read_u32().await.ok()?;
            let mut answer = vec![0; length as usize];
            self.0.read_exact(&mut answer).await.ok()?;
            let body = answer.split_off(1);
            Some((answer[0], body))
        };
        timeout(PATIENCE, read).await.expect("an answer or an end")
    }

    /// Where the next frame is that was appended.
    async fn appended(&mut self) -> (u32, u64) {
        let (outcome, body) = self.answer().await.expect("an answer");
        assert_eq!(
            outcome,
            Outcome::Appended as u8,
            "{}",
            String::from_utf8_lossy(&body)
        );
        let mut body = &body[..];
        (body.get_u32(), body.get_u64())
    }

    async fn refused(&mut self) -> (u8, Value) {
        let (outcome, body) = self.answer().await.expect("an answer");
        (outcome, serde_json::from_slice(&body).expect("a problem"))
    }
}

async fn with_stream(partitions: u32) -> Port {
    with_limits(partitions, Limits::default()).await
}

async fn with_limits(partitions: u32, limits: Limits) -> Port {
    let port = Port::with(100, limits).await;
    let body = json!({"name": "s", "partitions": partitions}).to_string();
    let created = port.send(Method::POST, "/v1/streams", &[], body.as_bytes()).await;
    assert_eq!(created.status, StatusCode::CREATED, "{created:?}");
    port
}

async fn records(port: &Port) -> Value {
    port.get("/v1/streams/s/records").await.json()["records"].take()
}

#[tokio::test]
async fn frames_are_records_with_their_priority_in_the_order_in_which_they_came() {
    let port = with_stream(1).await;
    let mut publisher = Publisher::of(&port).await;
    let all: Vec<u8> = (0..2_500_u32)
        .flat_map(|number| asking("s", number.to_string().as_bytes()))
        .collect();
    publisher.send(&all).await;
    publisher.send(&frame(WANTS_ANSWER | 4, "s", &[0xff, 0])).await;
    for number in 0..=2_500 {
        assert_eq!(publisher.appended().await, (0, number));
    }
    let found = records(&port).await;
    assert_eq!(
        (&found[0]["value"], &found[99]["value"]),
        (&json!("0"), &json!("99"))
    );
    assert_eq!(found[0]["priority"], 2);
    let last = port.get("/v1/streams/s/records?from=2500").await.json()["records"].take();
    assert_eq!(
        (&last[0]["value_base64"], &last[0]["priority"]),
        (&json!("/wA="), &json!(4))
    );
}

#[tokio::test]
async fn frames_that_come_together_are_not_refused_for_being_many() {
    let limits = Limits {
        transaction_bytes: 1 << 10,
        ..Limits::default()
    };
    let port = with_limits(1, limits).await;
    let mut publisher = Publisher::of(&port).await;
    // Control characters take the most as JSON.
    let all = asking("s", &[1; 100]).repeat(100);
    publisher.send(&all).await;
    for number in 0..100 {
        assert_eq!(publisher.appended().await, (0, number));
    }
}

#[tokio::test]
async fn who_asks_for_no_answer_gets_none() {
    let port = with_stream(1).await;
    let mut publisher = Publisher::of(&port).await;
    publisher.send(&frame(0, "s", b"quiet")).await;
    publisher.send(&asking("s", b"loud")).await;
    assert_eq!(publisher.appended().await, (0, 1));
}

#[tokio::test]
async fn frame_may_come_in_pieces() {
    let port = with_stream(1).await;
    let mut publisher = Publisher::of(&port).await;
    for byte in asking("s", b"slow") {
        publisher.send(&[byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(publisher.appended().await, (0, 0));
}

#[tokio::test]
async fn each_frame_is_told_its_partition() {
    let port = with_stream(3).await;
    let mut publisher = Publisher::of(&port).await;
    let mut places = Vec::new();
    for _ in 0..9 {
        publisher.send(&asking("s", b"x")).await;
        places.push(publisher.appended().await);
    }
    places.sort_unstable();
    let expected = (0..3).flat_map(|partition| (0..3).map(move |offset| (partition, offset)));
    assert_eq!(places, expected.collect::<Vec<_>>());
}

#[tokio::test]
async fn refusal_is_an_answer_and_the_connection_goes_on() {
    let port = with_stream(1).await;
    let mut publisher = Publisher::of(&port).await;
    publisher.send(&asking("unknown", b"x")).await;
    publisher.send(&asking("no name", b"x")).await;
    publisher.send(&asking("s", b"x")).await;
    let (outcome, problem) = publisher.refused().await;
    assert_eq!((outcome, &problem["status"]), (1, &json!(404)), "{problem}");
    let (outcome, problem) = publisher.refused().await;
    assert_eq!((outcome, &problem["status"]), (1, &json!(400)), "{problem}");
    assert_eq!(publisher.appended().await, (0, 0));
}

#[tokio::test]
async fn refused_frame_that_asked_for_no_answer_ends_the_connection() {
    let port = with_stream(1).await;
    let mut publisher = Publisher::of(&port).await;
    let mut all = asking("s", b"first");
    all.extend(frame(2, "unknown", b"second"));
    all.extend(asking("s", b"third"));
    publisher.send(&all).await;
    assert_eq!(publisher.appended().await, (0, 0));
    let (outcome, problem) = publisher.refused().await;
    assert_eq!((outcome, &problem["status"]), (1, &json!(404)), "{problem}");
    assert_eq!(publisher.answer().await, None);
    assert_eq!(records(&port).await.as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn unknown_outcome_is_told_from_a_refusal() {
    let port = with_stream(1).await;
    port.backend.fail_next(BackendError::UnknownOutcome);
    let mut publisher = Publisher::of(&port).await;
    publisher.send(&asking("s", b"x")).await;
    let (outcome, problem) = publisher.refused().await;
    assert_eq!(
        (outcome, &problem["type"]),
        (2, &json!("urn:quorate:problem:unknown_outcome"))
    );
}

#[tokio::test]
async fn frames_that_make_no_sense_end_the_connection_after_those_before_them() {
    let port = with_stream(1).await;
    let long = u32::try_from(HEAD_BYTES + usize::from(u16::MAX) + (1 << 20) + 1).unwrap();
    let nonsense: [Vec<u8>; 4] = [
        vec![0, 0, 0, 2, 2, 0],
        long.to_be_bytes().to_vec(),
        frame(5, "s", b"x"),
        vec![0, 0, 0, 4, 2, 0, 9, b's'],
    ];
    for (number, bytes) in (0..).zip(nonsense) {
        let mut publisher = Publisher::of(&port).await;
        let mut all = asking("s", b"before");
        all.extend(&bytes);
        publisher.send(&all).await;
        assert_eq!(publisher.appended().await, (0, number));
        let (outcome, problem) = publisher.refused().await;
        assert_eq!(
            (outcome, &problem["status"]),
            (1, &json!(400)),
            "{bytes:?}: {problem}"
        );
        assert_eq!(publisher.answer().await, None);
    }
}

#[tokio::test]
async fn publisher_that_goes_in_the_middle_of_a_frame_leaves_nothing() {
    let port = with_stream(1).await;
    let mut publisher = Publisher::of(&port).await;
    let half = asking("s", b"half");
    publisher.send(&half[..half.len() - 1]).await;
    publisher.0.shutdown().await.unwrap();
    assert_eq!(publisher.answer().await, None);
    assert_eq!(records(&port).await.as_array().map(Vec::len), Some(0));
}

#[tokio::test]
async fn publishers_leave_when_the_node_stops() {
    let port = with_stream(1).await;
    let mut publisher = Publisher::of(&port).await;
    publisher.send(&asking("s", b"x")).await;
    assert_eq!(publisher.appended().await, (0, 0));
    drop(port);
    assert_eq!(publisher.answer().await, None);
}
