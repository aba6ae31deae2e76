//! What a client repeats and what it does not, against servers that follow a script.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use quorate_api::{Problem, ProblemCode};
use quorate_client::{Builder, Client, Consistency, Error, Put};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What a scripted server does with one request.
#[derive(Clone)]
enum Step {
    Answer(u16, &'static str, String),
    /// Read it and close the connection.
    HangUp,
    /// Read it and say nothing.
    Silence,
}

struct Scripted {
    endpoint: String,
    requests: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
}

impl Scripted {
    /// The last step is repeated.
    async fn start(steps: Vec<Step>) -> Scripted {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = listener.local_addr().unwrap().to_string();
        let requests = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&requests);
        let connections = Arc::new(AtomicUsize::new(0));
        let accepted = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                accepted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, steps.clone(), Arc::clone(&counter)));
            }
        });
        Scripted {
            endpoint,
            requests,
            connections,
        }
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

async fn serve(mut stream: TcpStream, steps: Vec<Step>, requests: Arc<AtomicUsize>) {
    while read_request(&mut stream).await {
        let number = requests.fetch_add(1, Ordering::SeqCst);
        match &steps[number.min(steps.len() - 1)] {
            Step::Answer(status, content_type, body) => {
                let answer = format!(
                    "HTTP/1.1 {status} X\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                );
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
            Step::HangUp => return,
            Step::Silence => std::future::pending().await,
        }
    }
}

/// Reads a request whose body, if any, is `v`.
async fn read_request(stream: &mut TcpStream) -> bool {
    let mut text = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return false,
            Ok(count) => text.extend_from_slice(&buffer[..count]),
        }
        let put = text.starts_with(b"PUT");
        if text.ends_with(if put { b"\r\n\r\nv".as_slice() } else { b"\r\n\r\n" }) {
            return true;
        }
    }
}

fn written() -> Step {
    Step::Answer(200, "application/json", r#"{"revision":7}"#.to_owned())
}

fn problem(code: ProblemCode) -> Step {
    let problem = Problem::new(code, "detail", "action");
    let body = serde_json::to_string(&problem).unwrap();
    Step::Answer(problem.status, "application/problem+json", body)
}

fn builder(endpoints: &str) -> Builder {
    Client::builder(endpoints)
        .unwrap()
        .timeout(Duration::from_secs(5))
}

async fn put(client: &Client) -> Result<u64, Error> {
    client
        .put(b"k", "v", Put::default())
        .await
        .map(|answer| answer.revision)
}

/// An endpoint at which nobody listens.
async fn dead() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().to_string()
}

#[tokio::test]
async fn a_dead_endpoint_is_left_for_the_next() {
    let server = Scripted::start(vec![written()]).await;
    let client = builder(&format!("{},{}", dead().await, server.endpoint)).build();
    assert_eq!(put(&client).await.unwrap(), 7);
    assert_eq!(put(&client).await.unwrap(), 7);
    assert_eq!(server.requests(), 2);
}

#[tokio::test]
async fn when_all_are_dead_the_error_names_one_and_comes_after_the_rounds() {
    let endpoint = dead().await;
    let client = builder(&endpoint).rounds_max(2).build();
    let error = put(&client).await.unwrap_err();
    assert!(
        matches!(&error, Error::Connection { endpoint: named, .. } if *named == endpoint),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_write_that_was_not_appended_is_repeated() {
    for code in [
        ProblemCode::NoLeader,
        ProblemCode::Busy,
        ProblemCode::TooManyConnections,
        ProblemCode::Unavailable,
    ] {
        let server = Scripted::start(vec![problem(code), problem(code), written()]).await;
        assert_eq!(put(&builder(&server.endpoint).build()).await.unwrap(), 7);
        assert_eq!(server.requests(), 3);
    }
}

#[tokio::test]
async fn a_write_of_unknown_outcome_is_not_repeated() {
    let proxy = Step::Answer(502, "text/html", "<h1>Bad gateway</h1>".to_owned());
    for step in [problem(ProblemCode::UnknownOutcome), Step::HangUp, proxy] {
        let server = Scripted::start(vec![step, written()]).await;
        let error = put(&builder(&server.endpoint).build()).await.unwrap_err();
        assert!(matches!(error, Error::UnknownOutcome { .. }), "{error:?}");
        assert_eq!(server.requests(), 1);
    }
}

#[tokio::test]
async fn a_write_with_a_key_is_repeated_until_its_outcome_is_known() {
    let proxy = Step::Answer(502, "text/html", String::new());
    let steps = vec![
        problem(ProblemCode::UnknownOutcome),
        Step::HangUp,
        proxy,
        problem(ProblemCode::NoLeader),
        written(),
    ];
    let server = Scripted::start(steps).await;
    let client = builder(&server.endpoint).build();
    assert_eq!(put(&client.once("6ba7b810")).await.unwrap(), 7);
    assert_eq!(server.requests(), 5);
}

#[tokio::test]
async fn a_write_with_a_key_stays_unknown_when_later_attempts_fail_otherwise() {
    let server = Scripted::start(vec![Step::HangUp, problem(ProblemCode::NoLeader)]).await;
    let client = builder(&server.endpoint).rounds_max(3).build();
    let error = put(&client.once("6ba7b810")).await.unwrap_err();
    assert!(matches!(error, Error::UnknownOutcome { .. }), "{error:?}");
    assert_eq!(server.requests(), 3);
}

#[tokio::test]
async fn a_read_is_repeated_whatever_happened_to_it() {
    let entry = r#"{"key":"k","value":"v","create_revision":1,"mod_revision":2,"version":2}"#;
    let answer = Step::Answer(200, "application/json", entry.to_owned());
    let proxy = Step::Answer(502, "text/html", String::new());
    let server = Scripted::start(vec![Step::HangUp, proxy, problem(ProblemCode::NoLeader), answer]).await;
    let client = builder(&server.endpoint).build();
    let entry = client.get(b"k", Consistency::Linearizable).await.unwrap();
    assert_eq!(entry.map(|entry| entry.mod_revision), Some(2));
    assert_eq!(server.requests(), 4);
}

#[tokio::test]
async fn silence_leaves_a_write_unknown_and_a_read_timed_out() {
    let server = Scripted::start(vec![Step::Silence]).await;
    let client = Client::builder(&server.endpoint)
        .unwrap()
        .timeout(Duration::from_millis(100))
        .build();
    let error = put(&client).await.unwrap_err();
    assert!(matches!(error, Error::UnknownOutcome { .. }), "{error:?}");
    let error = client.status().await.unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }), "{error:?}");
}

#[tokio::test]
async fn a_read_leaves_a_silent_endpoint_for_the_next() {
    let entry = r#"{"key":"k","value":"v","create_revision":1,"mod_revision":2,"version":2}"#;
    let answer = Step::Answer(200, "application/json", entry.to_owned());
    let silent = Scripted::start(vec![Step::Silence]).await;
    let server = Scripted::start(vec![answer]).await;
    let client = Client::builder(&format!("{},{}", silent.endpoint, server.endpoint))
        .unwrap()
        .timeout(Duration::from_millis(500))
        .rounds_max(2)
        .build();
    for _ in 0..2 {
        let entry = client.get(b"k", Consistency::Linearizable).await.unwrap();
        assert_eq!(entry.map(|entry| entry.mod_revision), Some(2));
    }
    assert_eq!(
        (silent.requests(), server.requests()),
        (1, 2),
        "the second read goes to the one that answered"
    );
}

#[tokio::test]
async fn when_all_are_silent_a_read_takes_all_its_time_and_no_more() {
    let (first, second) = (
        Scripted::start(vec![Step::Silence]).await,
        Scripted::start(vec![Step::Silence]).await,
    );
    let client = Client::builder(&format!("{},{}", first.endpoint, second.endpoint))
        .unwrap()
        .timeout(Duration::from_millis(300))
        .rounds_max(1)
        .build();
    let started = std::time::Instant::now();
    let error = client.status().await.unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }), "{error:?}");
    assert!(started.elapsed() >= Duration::from_millis(300));
    assert_eq!((first.requests(), second.requests()), (1, 1));
}

#[tokio::test]
async fn a_write_that_broke_off_in_the_middle_did_certainly_not_happen() {
    // More than sockets hold: the connection is reset while most of it is not sent.
    let value = vec![b'v'; 64 << 20];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 1024];
            let _ = stream.read(&mut head).await;
        }
    });
    let client = builder(&endpoint).rounds_max(1).build();
    let error = client.put(b"k", value, Put::default()).await.unwrap_err();
    assert!(matches!(error, Error::Connection { .. }), "{error:?}");
}

#[tokio::test]
async fn answers_become_typed_errors() {
    let mut conflict = Problem::new(ProblemCode::RevisionConflict, "d", "a");
    conflict.current_revision = Some(9);
    let body = serde_json::to_string(&conflict).unwrap();
    let steps = vec![
        Step::Answer(409, "application/problem+json", body),
        problem(ProblemCode::ValueTooLarge),
        problem(ProblemCode::KeyNotFound),
        problem(ProblemCode::MemberNotFound),
        Step::Answer(200, "application/json", "no JSON".to_owned()),
    ];
    let server = Scripted::start(steps).await;
    let client = builder(&server.endpoint).build();
    assert!(matches!(
        put(&client).await,
        Err(Error::Conflict {
            current_revision: 9,
            ..
        })
    ));
    let refused = put(&client).await.unwrap_err();
    assert!(
        matches!(&refused, Error::Refused(_)) && refused.kind() == "value_too_large",
        "{refused:?}"
    );
    assert_eq!(client.get(b"k", Consistency::Linearizable).await.unwrap(), None);
    let missing = client.remove_member(&"9".parse().unwrap()).await;
    assert!(matches!(missing, Err(Error::NotFound(_))));
    assert!(matches!(client.status().await, Err(Error::Protocol { .. })));
    assert_eq!(server.requests(), 5);
}

/// A node's word that `leader` leads.
fn not_leader(leader: &str) -> Step {
    let mut problem = Problem::new(ProblemCode::NotLeader, "d", "a");
    problem.leader = Some(leader.to_owned());
    let body = serde_json::to_string(&problem).unwrap();
    Step::Answer(307, "application/problem+json", body)
}

#[tokio::test]
async fn a_node_that_names_the_leader_is_followed() {
    let leader = Scripted::start(vec![written()]).await;
    let follower = Scripted::start(vec![not_leader(&leader.endpoint)]).await;
    let client = builder(&follower.endpoint).rounds_max(1).build();
    assert_eq!(put(&client).await.unwrap(), 7);
    assert_eq!((follower.requests(), leader.requests()), (1, 1));
}

#[tokio::test]
async fn nodes_that_name_each_other_are_not_followed_in_circles() {
    let second = Scripted::start(vec![not_leader("127.0.0.1:1")]).await;
    let first = Scripted::start(vec![not_leader(&second.endpoint)]).await;
    let client = builder(&first.endpoint).rounds_max(2).build();
    let error = put(&client).await.unwrap_err();
    assert_eq!(error.kind(), "not_leader", "{error:?}");
    assert_eq!((first.requests(), second.requests()), (2, 2));
}

#[tokio::test]
async fn connections_are_kept_and_their_number_is_bounded() {
    let server = Scripted::start(vec![written()]).await;
    let client = builder(&server.endpoint).connections_max(2).build();
    let puts: Vec<_> = (0..50)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { put(&client).await })
        })
        .collect();
    for task in puts {
        assert_eq!(task.await.unwrap().unwrap(), 7);
    }
    assert_eq!(server.requests(), 50);
    assert!(server.connections.load(Ordering::SeqCst) <= 2);
}
