//! The native protocol over real sockets, in front of a backend in memory: with the client, and with bytes by hand.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quinn::{ApplicationClose, ConnectionError, VarInt};
use quorate_api::native::{Answer, EXCHANGE, PIPELINE, Request, close, take_frame};
use quorate_api::{AppendRequest, CreateStream, NewRecord, Problem, ProblemCode, StreamRetention};
use quorate_client::{Client, Consistency, Error, Keys, List, Protocol, Put, Range, WatchRequest, Watched};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::super::backend::BackendError;
use super::super::tests::Port;
use crate::config::Limits;
use crate::port::system::{ListenerOptions, ports};
use crate::transport::{Secret, listen_for_clients};

/// Nothing here takes this long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(10);

fn client(port: &Port, protocol: Protocol) -> Client {
    let builder = Client::builder(&port.address().to_string()).expect("an endpoint");
    builder.protocol(protocol).timeout(PATIENCE).build()
}

#[tokio::test]
async fn what_is_written_over_quic_is_read_over_http() {
    let port = Port::open().await;
    let (quic, http) = (client(&port, Protocol::Quic), client(&port, Protocol::Http));
    let written = quic
        .put(b"a key", "value", Put::default())
        .await
        .expect("it is written");
    let found = http.get(b"a key", Consistency::Linearizable).await;
    let found = found.expect("an answer").expect("the key");
    assert_eq!(
        (found.mod_revision, &*found.value),
        (written.revision, b"value".as_slice())
    );
    assert_eq!(
        quic.get(b"other", Consistency::Linearizable)
            .await
            .expect("an answer"),
        None
    );
}

#[tokio::test]
async fn a_value_of_a_megabyte_goes_and_comes_back() {
    let port = Port::open().await;
    let quic = client(&port, Protocol::Quic);
    let value: Bytes = (0..1 << 20).map(|number: u32| (number % 251) as u8).collect();
    quic.put(b"long", value.clone(), Put::default())
        .await
        .expect("it is written");
    let found = quic
        .get(b"long", Consistency::Linearizable)
        .await
        .expect("an answer");
    assert!(found.is_some_and(|found| found.value == value));
    let list = List {
        range: Range::prefix("l"),
        ..List::default()
    };
    let listed = quic.list(&list).await.expect("an answer");
    assert_eq!(listed.entries.len(), 1);
    let longer = [value.as_ref(), b"1"].concat();
    let refused = quic
        .put(b"long", longer, Put::default())
        .await
        .expect_err("it is too long");
    assert_eq!(
        refused.problem().map(|problem| problem.code),
        Some(ProblemCode::ValueTooLarge)
    );
}

#[tokio::test]
async fn problems_come_with_their_codes() {
    let port = Port::open().await;
    let quic = client(&port, Protocol::Quic);
    port.backend.fail_next(BackendError::UnknownOutcome);
    let error = quic.put(b"k", "v", Put::default()).await.expect_err("it failed");
    assert!(matches!(error, Error::UnknownOutcome { .. }), "{error}");
    port.backend.fail_next(BackendError::Busy);
    quic.put(b"k", "v", Put::default())
        .await
        .expect("what is busy is asked again");
}

#[tokio::test]
async fn a_thousand_requests_share_one_connection() {
    let port = Port::with(1, Limits::default()).await;
    let quic = client(&port, Protocol::Quic);
    let mut writes = JoinSet::new();
    for number in 0..1_000 {
        let quic = quic.clone();
        writes.spawn(async move {
            let key = format!("key/{number}");
            quic.put(key.as_bytes(), "v", Put::default()).await.map(drop)
        });
    }
    while let Some(written) = writes.join_next().await {
        written.expect("no panic").expect("it is written");
    }
}

#[tokio::test]
async fn answers_do_not_wait_for_each_other() {
    let port = Port::open().await;
    // Only this one needs a leader.
    port.backend.set_leader(false);
    let mut bytes = vec![PIPELINE];
    bytes.extend(frame(1, "PUT", "/v1/kv/k"));
    for id in 2..=100 {
        bytes.extend(frame(id, "GET", "/livez"));
    }
    let connection = by_hand(port.address()).await;
    let mut answers = say(&connection, &bytes).await.expect("answers");
    for id in (2..=100).chain([1]) {
        assert_eq!(answer(&mut answers).id, id);
    }
    assert!(answers.is_empty());
}

#[tokio::test]
async fn a_watch_and_an_append_go_over_quic() {
    let port = Port::open().await;
    let quic = client(&port, Protocol::Quic);
    let mut watch = quic.watch(WatchRequest::new(Keys::Prefix(b"w/".to_vec())));
    assert_eq!(
        watch.next().await.expect("it begins"),
        Watched::Progress { revision: 0 }
    );
    quic.put(b"w/1", "v", Put::default())
        .await
        .expect("it is written");
    loop {
        match timeout(PATIENCE, watch.next())
            .await
            .expect("in time")
            .expect("it goes on")
        {
            Watched::Change(change) => {
                assert_eq!(change.revision, 1);
                break;
            }
            Watched::Progress { .. } => {}
        }
    }
    let stream = CreateStream {
        name: "s".to_owned(),
        partitions: 1,
        retention: StreamRetention::default(),
        duplicates: None,
    };
    quic.create_stream(&stream).await.expect("it is made");
    let request = AppendRequest {
        records: vec![NewRecord::new("v"); 3],
        partition: None,
    };
    let placed = quic.append("s", &request).await.expect("they are appended");
    let count: u32 = placed.placed.iter().map(|run| run.count).sum();
    assert_eq!(count, 3);
}

#[tokio::test]
async fn what_is_under_way_is_answered_when_the_node_stops_and_no_more_is_taken() {
    let mut port = Port::open().await;
    let quic = client(&port, Protocol::Quic);
    quic.put(b"first", "v", Put::default())
        .await
        .expect("it is written");
    port.backend.set_leader(false);
    let slow = tokio::spawn({
        let quic = quic.clone();
        async move { quic.put(b"slow", "v", Put::default()).await }
    });
    let asked = async {
        while port.backend.asked() < 2 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, asked).await.expect("it came");
    port.stop();
    port.backend.set_leader(true);
    slow.await.expect("no panic").expect("it is answered");
    port.stopped().await;
    let builder = Client::builder(&port.address().to_string()).expect("an endpoint");
    let late = builder.protocol(Protocol::Quic).rounds_max(1).build();
    let error = late
        .put(b"late", "v", Put::default())
        .await
        .expect_err("nobody is there");
    assert!(matches!(error, Error::Connection { .. }), "{error}");
}

#[tokio::test]
async fn connections_over_quic_count_and_those_above_the_limit_are_refused() {
    let port = Port::with(1, Limits::default()).await;
    let first = client(&port, Protocol::Quic);
    first.put(b"k", "v", Put::default()).await.expect("it is written");
    let builder = Client::builder(&port.address().to_string()).expect("an endpoint");
    let second = builder.clone().protocol(Protocol::Quic).rounds_max(1).build();
    let error = second
        .put(b"k", "v", Put::default())
        .await
        .expect_err("there is no room");
    assert!(matches!(error, Error::Connection { .. }), "{error}");
    let third = builder.protocol(Protocol::Auto).rounds_max(1).build();
    let error = third
        .put(b"k", "v", Put::default())
        .await
        .expect_err("there is no room");
    assert_eq!(
        error.problem().map(|problem| problem.code),
        Some(ProblemCode::TooManyConnections)
    );
}

/// A connection that speaks by hand.
async fn by_hand(remote: SocketAddr) -> quinn::Connection {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(anyone::Anyone))
        .with_no_client_auth();
    tls.alpn_protocols = vec![quorate_api::native::ALPN.to_vec()];
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).expect("QUIC's suite");
    let endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).expect("a socket");
    let connecting = endpoint.connect_with(quinn::ClientConfig::new(Arc::new(crypto)), remote, "quorate");
    connecting.expect("it dials").await.expect("it connects")
}

mod anyone {
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::{DigitallySignedStruct, Error, SignatureScheme};

    #[derive(Debug)]
    pub(super) struct Anyone;

    impl ServerCertVerifier for Anyone {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::ED25519]
        }
    }
}

fn frame(id: u64, method: &'static str, path: &'static str) -> BytesMut {
    let mut bytes = BytesMut::new();
    let request = Request {
        id,
        method: method.into(),
        path: path.into(),
        headers: Vec::new(),
        body: Bytes::new(),
    };
    request.encode(&mut bytes);
    bytes
}

#[tokio::test]
async fn a_request_takes_the_room_of_its_own_length_and_no_more() {
    let port = Port::open().await;
    port.backend.set_leader(false);
    let mut bytes = vec![PIPELINE];
    for id in 1..=1_000 {
        bytes.extend(frame(id, "PUT", "/v1/kv/k"));
    }
    let connection = by_hand(port.address()).await;
    let mut answers = say(&connection, &bytes).await.expect("answers");
    for _ in 1..=1_000 {
        let problem: Problem = serde_json::from_slice(&answer(&mut answers).body).expect("a problem");
        assert_eq!(
            problem.code,
            ProblemCode::NoLeader,
            "it waited for a leader like the others"
        );
    }
}

/// Sends bytes on a stream, ends it, and reads all that comes back.
async fn say(connection: &quinn::Connection, bytes: &[u8]) -> Result<BytesMut, String> {
    let (mut send, mut receive) = connection.open_bi().await.map_err(|error| error.to_string())?;
    send.write_all(bytes).await.map_err(|error| error.to_string())?;
    send.finish().map_err(|error| error.to_string())?;
    let read = timeout(PATIENCE, receive.read_to_end(1 << 20))
        .await
        .expect("in time");
    Ok(BytesMut::from(
        read.map_err(|error| error.to_string())?.as_slice(),
    ))
}

fn answer(unread: &mut BytesMut) -> Answer {
    let frame = take_frame(unread, 1 << 20).expect("a frame").expect("all of it");
    Answer::decode(frame).expect("an answer")
}

#[tokio::test]
async fn a_request_that_is_none_is_answered_so_and_others_go_on() {
    let port = Port::open().await;
    let connection = by_hand(port.address()).await;
    let mut bytes = vec![PIPELINE];
    for (id, method, path) in [
        (1, "G T", "/health"),
        (2, "GET", "no path"),
        (3, "GET", "/nowhere"),
        (4, "GET", "/v1/watch?prefix=a"),
        (5, "GET", "/livez"),
    ] {
        bytes.extend(frame(id, method, path));
    }
    // Too short for a request.
    bytes.extend([0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 6, 200]);
    let mut answers = say(&connection, &bytes).await.expect("answers");
    let mut found = Vec::new();
    while !answers.is_empty() {
        let answer = answer(&mut answers);
        let problem = serde_json::from_slice::<Problem>(&answer.body).ok();
        found.push((answer.id, answer.status, problem.map(|problem| problem.code)));
    }
    found.sort_by_key(|(id, ..)| *id);
    let bad = Some(ProblemCode::BadRequest);
    assert_eq!(
        found,
        [
            (0, 400, bad),
            (1, 400, bad),
            (2, 400, bad),
            (3, 404, Some(ProblemCode::NotFound)),
            (4, 400, bad),
            (5, 200, None)
        ]
    );
}

#[tokio::test]
async fn bytes_that_make_no_sense_end_the_connection_and_say_so() {
    let port = Port::open().await;
    let with_body = {
        let mut bytes = vec![EXCHANGE, 0, 0, 0, 15];
        bytes.extend([0, 0, 0, 0, 0, 0, 0, 0, 1, b'G', 0, 1, b'/', 0, b'x']);
        bytes
    };
    for bytes in [
        vec![7],
        [vec![PIPELINE], vec![0xff; 8]].concat(),
        vec![EXCHANGE, 0, 0, 0, 1],
        vec![EXCHANGE, 0, 0, 0, 1, 1],
        with_body,
    ] {
        let connection = by_hand(port.address()).await;
        let _ = say(&connection, &bytes).await;
        let closed = timeout(PATIENCE, connection.closed())
            .await
            .expect("it is closed");
        let ConnectionError::ApplicationClosed(ApplicationClose { error_code, .. }) = closed else {
            panic!("{closed:?} after {bytes:?}");
        };
        assert_eq!(error_code, VarInt::from_u32(close::MALFORMED), "{bytes:?}");
    }
    let quic = client(&port, Protocol::Quic);
    quic.put(b"k", "v", Put::default())
        .await
        .expect("others are served");
}

#[tokio::test]
async fn an_exchange_has_its_body_to_the_end_of_the_stream() {
    let port = Port::open().await;
    let connection = by_hand(port.address()).await;
    let mut bytes = vec![EXCHANGE];
    bytes.extend(frame(0, "PUT", "/v1/kv/k"));
    bytes.extend(b"the value");
    let mut told = say(&connection, &bytes).await.expect("an answer");
    assert_eq!(answer(&mut told).status, 200);
    let mut bytes = vec![EXCHANGE];
    bytes.extend(frame(0, "GET", "/v1/kv/k"));
    let mut told = say(&connection, &bytes).await.expect("an answer");
    let head = answer(&mut told);
    assert_eq!(
        head.header("quorate-revision").map(|value| &**value),
        Some(b"1".as_slice())
    );
    assert_eq!(told, "the value");
}

#[tokio::test]
async fn an_exchange_has_no_more_of_a_body_than_it_said() {
    let port = Port::open().await;
    let connection = by_hand(port.address()).await;
    let mut bytes = BytesMut::from([EXCHANGE].as_slice());
    let request = Request {
        id: 0,
        method: "PUT".into(),
        path: "/v1/kv/k".into(),
        headers: vec![("content-length".into(), "3".into())],
        body: Bytes::new(),
    };
    request.encode(&mut bytes);
    bytes.extend(b"the value");
    let mut told = say(&connection, &bytes).await.expect("an answer");
    assert_eq!(answer(&mut told).status, 413);
}

#[tokio::test]
async fn half_a_request_does_nothing() {
    let port = Port::open().await;
    let connection = by_hand(port.address()).await;
    let (mut send, mut receive) = connection.open_bi().await.expect("a stream");
    let mut bytes = vec![EXCHANGE];
    bytes.extend(frame(0, "PUT", "/v1/kv/half"));
    bytes.extend(b"half of the val");
    send.write_all(&bytes).await.expect("it is sent");
    send.reset(VarInt::from_u32(close::BROKEN)).expect("it is open");
    // The node is done with it when it has said so, in whichever way.
    let done = timeout(PATIENCE, receive.read_to_end(1 << 16)).await;
    assert!(done.is_ok(), "the node lets the stream go");
    let quic = client(&port, Protocol::Quic);
    quic.put(b"whole", "v", Put::default())
        .await
        .expect("it is written");
    assert_eq!(
        quic.get(b"half", Consistency::Linearizable)
            .await
            .expect("an answer"),
        None
    );
}

#[tokio::test]
async fn a_node_without_udp_is_spoken_with_over_http() {
    let system = ports(ListenerOptions {
        tcp_nodelay: true,
        keepalive: true,
    });
    let secret = Secret::generate(&*system.entropy).expect("entropy");
    // Somebody else has the UDP side, and answers nothing that a client understands.
    let other = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let taken = other.local_addr().expect("an address");
    assert!(listen_for_clients(&system, &secret, "c", "1", taken).is_err());
    let port = Port::without_quic().await;
    let auto = client(&port, Protocol::Auto);
    let begun = std::time::Instant::now();
    auto.put(b"k", "v", Put::default())
        .await
        .expect("it is written over HTTP");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    let builder = Client::builder(&port.address().to_string()).expect("an endpoint");
    let alone = builder.protocol(Protocol::Quic).rounds_max(1).build();
    let error = alone
        .put(b"k", "v", Put::default())
        .await
        .expect_err("there is no QUIC");
    assert!(matches!(error, Error::Connection { .. }), "{error}");
}
