//! Watches against servers that follow a script: they go on without a gap or a repeat.

#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use quorate_api::{Problem, ProblemCode};
use quorate_client::{Client, Error, Keys, Watch, WatchRequest, Watched};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

/// Nothing here takes this long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server that gives its answers in order, one a connection, and then hangs up. The last one is repeated.
struct Scripted {
    endpoint: String,
    /// The first lines of the requests.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Scripted {
    async fn start(answers: Vec<String>) -> Scripted {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let requests = Arc::clone(&asked);
        tokio::spawn(async move {
            let mut number = 0;
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut text = Vec::new();
                while !text.ends_with(b"\r\n\r\n") {
                    text.push(stream.read_u8().await.unwrap());
                }
                let line = String::from_utf8(text)
                    .unwrap()
                    .lines()
                    .next()
                    .unwrap()
                    .to_owned();
                requests.lock().unwrap().push(line);
                let answer: &String = &answers[number.min(answers.len() - 1)];
                number += 1;
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        Scripted { endpoint, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// A stream of events that breaks off at its end.
fn stream(events: &[(&str, &str)]) -> String {
    let mut text = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n".to_owned();
    for (kind, data) in events {
        text.push_str(&format!("event: {kind}\ndata: {data}\n\n"));
    }
    text
}

fn refusal(problem: &Problem) -> String {
    let body = serde_json::to_string(problem).unwrap();
    format!(
        "HTTP/1.1 {} X\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        problem.status,
        body.len()
    )
}

fn put(key: &str) -> String {
    format!(
        r#"{{"type":"put","entry":{{"key":"{key}","value":"","create_revision":1,"mod_revision":1,"version":1}}}}"#
    )
}

fn change(revision: u64, keys: &[&str], partial: bool) -> String {
    let events: Vec<String> = keys.iter().map(|key| put(key)).collect();
    let partial = if partial { r#","partial":true"# } else { "" };
    format!(
        r#"{{"revision":{revision},"events":[{}]{partial}}}"#,
        events.join(",")
    )
}

fn watch(endpoints: &[&Scripted]) -> Watch {
    let endpoints: Vec<&str> = endpoints.iter().map(|scripted| &*scripted.endpoint).collect();
    let client = Client::builder(&endpoints.join(","))
        .unwrap()
        .timeout(PATIENCE)
        .build();
    client.watch(WatchRequest::new(Keys::Prefix(b"a/".to_vec())))
}

async fn next(watch: &mut Watch) -> Result<Watched, Error> {
    timeout(PATIENCE, watch.next()).await.expect("in time")
}

/// Revision and keys of a change.
async fn changed(watch: &mut Watch) -> (u64, Vec<String>) {
    match next(watch).await.unwrap() {
        Watched::Change(change) => {
            let keys = change
                .events
                .iter()
                .map(|event| String::from_utf8(event.key().to_vec()).unwrap());
            (change.revision, keys.collect())
        }
        progress => panic!("{progress:?} is no change"),
    }
}

#[tokio::test]
async fn a_watch_goes_on_at_another_node_after_the_last_revision() {
    let first = Scripted::start(vec![stream(&[
        ("open", r#"{"revision":4}"#),
        ("change", &change(6, &["a/1"], false)),
        ("progress", r#"{"revision":8}"#),
    ])])
    .await;
    let second = Scripted::start(vec![stream(&[
        ("open", r#"{"revision":8}"#),
        ("change", &change(9, &["a/2"], false)),
    ])])
    .await;
    let mut watch = watch(&[&first, &second]);
    assert_eq!(next(&mut watch).await.unwrap(), Watched::Progress { revision: 4 });
    assert_eq!(changed(&mut watch).await, (6, vec!["a/1".to_owned()]));
    assert_eq!(next(&mut watch).await.unwrap(), Watched::Progress { revision: 8 });
    assert_eq!(changed(&mut watch).await, (9, vec!["a/2".to_owned()]));
    assert_eq!(watch.position(), Some(9));
    assert!(!first.asked()[0].contains("from_revision"), "{:?}", first.asked());
    assert!(
        second.asked()[0].contains("&from_revision=9"),
        "{:?}",
        second.asked()
    );
}

#[tokio::test]
async fn a_torn_revision_is_told_again_without_a_repeat() {
    let scripted = Scripted::start(vec![
        stream(&[
            ("open", r#"{"revision":0}"#),
            ("change", &change(1, &["a", "b", "c"], true)),
        ]),
        stream(&[
            ("open", r#"{"revision":0}"#),
            ("change", &change(1, &["a", "b"], true)),
            ("change", &change(1, &["c", "d"], true)),
        ]),
        stream(&[
            ("open", r#"{"revision":0}"#),
            ("change", &change(1, &["a", "b", "c", "d", "e"], false)),
            ("change", &change(2, &["a"], false)),
        ]),
    ])
    .await;
    let mut watch = watch(&[&scripted]);
    assert_eq!(next(&mut watch).await.unwrap(), Watched::Progress { revision: 0 });
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(changed(&mut watch).await, (1, words("a b c")));
    assert_eq!(changed(&mut watch).await, (1, words("d")));
    assert_eq!(changed(&mut watch).await, (1, words("e")));
    assert_eq!(changed(&mut watch).await, (2, words("a")));
}

#[tokio::test]
async fn a_compacted_position_is_an_error_of_its_own() {
    let mut problem = Problem::new(ProblemCode::Compacted, "detail", "action");
    problem.oldest_revision = Some(70);
    let scripted = Scripted::start(vec![refusal(&problem)]).await;
    let refused = next(&mut watch(&[&scripted])).await;
    assert!(
        matches!(
            refused,
            Err(Error::Compacted {
                oldest_revision: 70,
                ..
            })
        ),
        "{refused:?}"
    );
    let cancelled = stream(&[
        ("open", r#"{"revision":4}"#),
        ("cancel", &serde_json::to_string(&problem).unwrap()),
    ]);
    let scripted = Scripted::start(vec![cancelled]).await;
    let mut watch = watch(&[&scripted]);
    next(&mut watch).await.unwrap();
    let cancelled = next(&mut watch).await;
    assert!(matches!(cancelled, Err(Error::Compacted { .. })), "{cancelled:?}");
}

#[tokio::test]
async fn a_node_that_stops_or_refuses_is_left_for_another() {
    let stopping = Problem::new(
        ProblemCode::Unavailable,
        "this node is stopping",
        "go on elsewhere",
    );
    let stops = Scripted::start(vec![stream(&[
        ("open", r#"{"revision":4}"#),
        ("cancel", &serde_json::to_string(&stopping).unwrap()),
    ])])
    .await;
    let full = Problem::new(ProblemCode::TooManyWatchers, "full", "go on elsewhere");
    let refuses = Scripted::start(vec![refusal(&full)]).await;
    let serves = Scripted::start(vec![stream(&[
        ("open", r#"{"revision":4}"#),
        ("change", &change(5, &["a/1"], false)),
    ])])
    .await;
    let mut watch = watch(&[&stops, &refuses, &serves]);
    assert_eq!(next(&mut watch).await.unwrap(), Watched::Progress { revision: 4 });
    assert_eq!(changed(&mut watch).await.0, 5);
    assert_eq!(watch.endpoint(), Some(&*serves.endpoint));
}

#[tokio::test]
async fn a_node_that_tells_of_a_revision_twice_is_not_believed() {
    let scripted = Scripted::start(vec![stream(&[
        ("open", r#"{"revision":4}"#),
        ("change", &change(5, &["a/1"], false)),
        ("change", &change(5, &["a/1"], false)),
    ])])
    .await;
    let mut watch = watch(&[&scripted]);
    next(&mut watch).await.unwrap();
    next(&mut watch).await.unwrap();
    let again = next(&mut watch).await;
    assert!(matches!(again, Err(Error::Protocol { .. })), "{again:?}");
}
