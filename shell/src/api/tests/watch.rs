//! Watches as streams of server-sent events.

use hyper::body::Incoming;
use quorate_api::{SessionChange, SessionNews, WatchChange, WatchEvent, WatchMark, events};
use quorate_client::{EventParser, ServerEvent};
use quorate_core::raft::{NodeId, Term};
use quorate_core::state::{Command, DeleteRange, KeyRange, Presence, Revision, SessionCommand, SessionId};

use super::super::fake::WATCHERS_MAX;
use super::*;
use crate::watch::WatchEnd;

struct Stream {
    body: Incoming,
    parser: EventParser,
}

impl Stream {
    async fn next(&mut self) -> Option<ServerEvent> {
        let next = async {
            loop {
                if let Some(event) = self.parser.next_event() {
                    return Some(event);
                }
                let frame = self.body.frame().await?.expect("the stream does not break");
                let data = frame.into_data().unwrap_or_default();
                self.parser.feed(&data).expect("no endless event");
            }
        };
        tokio::time::timeout(PATIENCE, next)
            .await
            .expect("an event in time")
    }

    #[track_caller]
    fn mark(event: Option<ServerEvent>, kind: &str) -> u64 {
        let event = event.expect("an event");
        assert_eq!(event.kind, kind);
        let mark: WatchMark = serde_json::from_str(&event.data).expect("a mark");
        assert_eq!(event.id, Some(mark.revision.to_string()));
        mark.revision
    }

    async fn change(&mut self) -> WatchChange {
        let event = self.next().await.expect("an event");
        assert_eq!(event.kind, events::CHANGE);
        let change: WatchChange = serde_json::from_str(&event.data).expect("a change");
        let id = (!change.partial).then(|| change.revision.to_string());
        assert_eq!(event.id, id, "a torn revision has no id");
        change
    }
}

impl Port {
    async fn watch(&self, query: &str, headers: &[(&str, &str)]) -> Result<Stream, Answer> {
        self.stream(&format!("/v1/watch?{query}"), headers).await
    }

    async fn stream(&self, path: &str, headers: &[(&str, &str)]) -> Result<Stream, Answer> {
        let stream = TcpStream::connect(self.address).await.expect("it listens");
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .expect("it speaks HTTP");
        tokio::spawn(connection);
        let mut request = Request::get(path).header("host", "test");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::new())).expect("a request");
        let response = sender.send_request(request).await.expect("an answer");
        let (head, body) = response.into_parts();
        if head.status.is_success() {
            assert_eq!(head.headers["content-type"], "text/event-stream");
            let parser = EventParser::default();
            return Ok(Stream { body, parser });
        }
        Err(Answer {
            status: head.status,
            headers: head.headers,
            body: body.collect().await.expect("a whole answer").to_bytes(),
            operation: None,
        })
    }

    fn apply_put(&self, key: &'static str) {
        self.backend.apply(&Command::put(key, "v"));
    }
}

fn delete_all() -> Command {
    Command::Delete(DeleteRange {
        range: KeyRange::all(),
        previous: false,
    })
}

#[tokio::test]
async fn a_watch_tells_what_changes_from_now_on_and_may_be_resumed() {
    let port = Port::open().await;
    port.apply_put("a/1");
    let mut stream = port
        .watch("prefix=a/&previous=true", &[])
        .await
        .expect("a stream");
    assert_eq!(Stream::mark(stream.next().await, events::OPEN), 1);
    port.apply_put("b/1");
    port.apply_put("a/1");
    let change = stream.change().await;
    let [WatchEvent::Put { entry, previous }] = &*change.events else {
        panic!("{change:?} is not one put");
    };
    assert_eq!((change.revision, entry.mod_revision, entry.version), (3, 3, 2));
    assert_eq!(previous.as_ref().map(|previous| previous.mod_revision), Some(1));
    port.backend.apply(&delete_all());
    let change = stream.change().await;
    assert!(
        matches!(
            &*change.events,
            [WatchEvent::Delete {
                previous: Some(_),
                ..
            }]
        ),
        "{change:?}"
    );

    let mut resumed = port
        .watch("prefix=a/&from_revision=1", &[("last-event-id", "3")])
        .await
        .expect("a stream");
    assert_eq!(Stream::mark(resumed.next().await, events::OPEN), 3);
    let change = resumed.change().await;
    assert!(
        matches!(&*change.events, [WatchEvent::Delete { previous: None, .. }]),
        "{change:?}"
    );
    assert_eq!(change.revision, 4);
}

#[tokio::test]
async fn a_watch_may_name_a_key_a_range_and_the_kinds_of_changes() {
    let port = Port::open().await;
    for key in ["a", "b", "c"] {
        port.apply_put(key);
    }
    port.backend.apply(&delete_all());
    for (query, expected) in [
        ("key=b", vec![2, 4]),
        ("start=b&end=c", vec![2, 4]),
        ("end=b", vec![1, 4]),
        ("start=c", vec![3, 4]),
        ("prefix=&filter=no_deletes", vec![1, 2, 3]),
        ("prefix=&filter=no_puts", vec![4]),
    ] {
        let query = format!("{query}&from_revision=1");
        let mut stream = port.watch(&query, &[]).await.expect("a stream");
        assert_eq!(Stream::mark(stream.next().await, events::OPEN), 0);
        for revision in expected {
            assert_eq!(stream.change().await.revision, revision, "{query}");
        }
    }
}

#[tokio::test]
async fn a_large_revision_comes_in_marked_parts() {
    let port = Port::open().await;
    for number in 0..600 {
        port.backend.apply(&Command::put(format!("{number:03}"), ""));
    }
    let mut stream = port.watch("prefix=", &[]).await.expect("a stream");
    assert_eq!(Stream::mark(stream.next().await, events::OPEN), 600);
    port.backend.apply(&delete_all());
    let mut keys = Vec::new();
    loop {
        let change = stream.change().await;
        assert_eq!(change.revision, 601);
        keys.extend(change.events.iter().map(|event| event.key().to_vec()));
        if !change.partial {
            break;
        }
    }
    let expected: Vec<Vec<u8>> = (0..600)
        .map(|number| format!("{number:03}").into_bytes())
        .collect();
    assert_eq!(keys, expected);
}

#[tokio::test]
async fn a_quiet_watch_tells_how_far_it_is() {
    let port = Port::open().await;
    let mut stream = port.watch("key=a&progress_ms=100", &[]).await.expect("a stream");
    assert_eq!(Stream::mark(stream.next().await, events::OPEN), 0);
    assert_eq!(Stream::mark(stream.next().await, events::PROGRESS), 0);
    port.apply_put("b");
    loop {
        if Stream::mark(stream.next().await, events::PROGRESS) == 1 {
            break;
        }
    }
}

#[tokio::test]
async fn a_watch_that_cannot_begin_is_a_problem() {
    let port = Port::open().await;
    for key in ["a", "b", "c"] {
        port.apply_put(key);
    }
    let revision = Revision(2);
    port.backend.apply(&Command::Compact { revision });
    let refused = async |query: &str| port.watch(query, &[]).await.err().expect("a refusal");
    let problem = refused("key=a&from_revision=2")
        .await
        .problem(410, ProblemCode::Compacted);
    assert_eq!(problem.oldest_revision, Some(3));
    for query in [
        "",
        "key=",
        "key=a&prefix=b",
        "key=a&from_revision=0",
        "key=a&filter=none",
        "key=a&progress_ms=1",
        "key=a&since=4",
    ] {
        refused(query).await.problem(400, ProblemCode::BadRequest);
    }
    for id in ["x", "18446744073709551615"] {
        let bad = port.watch("key=a", &[("last-event-id", id)]).await.err();
        bad.expect("a refusal").problem(400, ProblemCode::BadRequest);
    }
    let mut streams = Vec::new();
    for _ in 0..WATCHERS_MAX {
        streams.push(port.watch("key=a", &[]).await.expect("a stream"));
    }
    let problem = refused("key=a").await.problem(503, ProblemCode::TooManyWatchers);
    assert_eq!(problem.limit, Some(WATCHERS_MAX as u64));
}

#[tokio::test]
async fn a_watch_from_a_revision_beyond_the_next_one_is_refused_as_a_read_is() {
    let port = Port::open().await;
    for key in ["a", "b", "c"] {
        port.apply_put(key);
    }
    let next = port.watch("prefix=&from_revision=4", &[]).await;
    assert_eq!(
        Stream::mark(next.expect("a stream").next().await, events::OPEN),
        3
    );
    port.watch("prefix=", &[("last-event-id", "3")])
        .await
        .expect("a stream");
    for (query, headers) in [
        ("prefix=&from_revision=5", &[][..]),
        ("prefix=&from_revision=18446744073709551615", &[]),
        ("prefix=", &[("last-event-id", "4")]),
    ] {
        let refused = port.watch(query, headers).await.err().expect("a refusal");
        let problem = refused.problem(409, ProblemCode::FutureRevision);
        assert_eq!(problem.latest_revision, Some(3), "{query}");
    }
    let read = port.get("/v1/kv?revision=4").await;
    read.problem(409, ProblemCode::FutureRevision);
}

#[tokio::test]
async fn a_stopping_node_ends_its_watches_with_a_reason() {
    let mut port = Port::open().await;
    let mut stream = port.watch("key=a", &[]).await.expect("a stream");
    assert_eq!(Stream::mark(stream.next().await, events::OPEN), 0);
    port.backend.hub.close(WatchEnd::Stopping);
    let event = stream.next().await.expect("an event");
    assert_eq!((&*event.kind, event.id), (events::CANCEL, None));
    let problem: Problem = serde_json::from_str(&event.data).expect("a problem");
    assert_eq!(problem.code, ProblemCode::Unavailable);
    assert_eq!(stream.next().await, None);
    drop(port.stop.take().expect("it runs"));
    tokio::time::timeout(PATIENCE, &mut port.server)
        .await
        .expect("the server ends at once")
        .expect("no panic");
}

#[tokio::test]
async fn a_watch_of_a_node_tells_what_it_is_given_and_loses_and_marks_everything_else() {
    let port = Port::open().await;
    let apply = |command| port.backend.apply(&Command::Session(command));
    let term = Term(1);
    let sight = |presence| SessionCommand::Sight {
        term,
        nodes: vec![(NodeId(1), presence), (NodeId(2), Presence::Present)],
    };
    let create = |id: &str| SessionCommand::Create {
        session: SessionId::new(id),
        client: String::new(),
        payload: Bytes::new(),
        now_ms: 0,
    };
    apply(sight(Presence::Present));
    let path = "/v1/watch/sessions?node=1&from_revision=1&progress_ms=100";
    let mut stream = port.stream(path, &[]).await.expect("a stream");
    assert_eq!(Stream::mark(stream.next().await, events::OPEN), 0);
    apply(create("a"));
    apply(create("b"));
    apply(sight(Presence::Silent));
    apply(SessionCommand::Step { term });
    let mut heard = Vec::new();
    while heard.len() < 2 {
        let event = stream.next().await.expect("an event");
        if event.kind == events::PROGRESS {
            continue;
        }
        let change: SessionChange = serde_json::from_str(&event.data).expect("a change");
        assert_eq!(event.id, Some(change.revision.to_string()));
        heard.push((change.revision, change.events));
    }
    let [(1, given), (3, lost)] = &heard[..] else {
        panic!("{heard:?}");
    };
    assert!(
        matches!(&given[..], [SessionNews::Given { session }] if session.epoch == 1),
        "{given:?}"
    );
    let [
        SessionNews::Lost {
            session_id,
            epoch: 1,
            node_id: Some(node),
        },
    ] = &lost[..]
    else {
        panic!("{lost:?}");
    };
    assert_eq!((session_id.as_str(), node.as_str()), ("a", "2"));
}
