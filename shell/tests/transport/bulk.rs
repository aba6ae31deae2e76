//! Big transfers beside heartbeats.

use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate::transport::{BulkStream, ConnectError, Event};
use quorate_core::raft::NodeId;

use crate::support::{Node, SOON, heartbeat, pair, round};

async fn arrival(node: &mut Node) -> (NodeId, Vec<u8>, BulkStream) {
    let search = async {
        loop {
            if let Event::Bulk { peer, header, stream } = node.next().await {
                return (peer, header, stream);
            }
        }
    };
    tokio::time::timeout(SOON, search)
        .await
        .expect("a transfer comes")
}

#[tokio::test]
async fn transfer_carries_header_bytes_and_answers() {
    let (first, mut second) = pair().await;
    let (id, target) = (first.id, second.id);
    let sending = async {
        let mut stream = first.transport.open_bulk(target, b"snapshot 7").await.unwrap();
        stream
            .sender
            .write_chunk(Bytes::from(vec![5; 3 << 20]))
            .await
            .unwrap();
        stream.sender.finish();
        let progress = stream.receiver.read_message().await.unwrap();
        let done = stream.receiver.read_message().await.unwrap();
        (progress, done)
    };
    let receiving = async {
        let (peer, header, mut stream) = arrival(&mut second).await;
        assert_eq!((peer, header.as_slice()), (id, b"snapshot 7".as_slice()));
        let mut received = 0;
        while let Some(chunk) = stream.receiver.read_chunk().await.unwrap() {
            assert!(chunk.iter().all(|byte| *byte == 5));
            if received == 0 {
                stream.sender.write_message(b"have 1").await.unwrap();
            }
            received += chunk.len();
        }
        assert_eq!(received, 3 << 20);
        stream.sender.write_message(b"done").await.unwrap();
        // Dropped here: what was sent still arrives, since the other side closes.
    };
    let ((progress, done), ()) = tokio::join!(sending, receiving);
    assert_eq!(
        (progress.as_slice(), done.as_slice()),
        (b"have 1".as_slice(), b"done".as_slice())
    );
}

#[tokio::test]
async fn receiver_that_gives_up_fails_the_sender() {
    let (first, mut second) = pair().await;
    let target = second.id;
    let sending = async {
        let mut stream = first.transport.open_bulk(target, b"").await.unwrap();
        let chunk = Bytes::from(vec![0; 1 << 20]);
        // More than all windows together hold, so that it ends with an error or never.
        loop {
            if let Err(error) = stream.sender.write_chunk(chunk.clone()).await {
                return error;
            }
        }
    };
    let dropping = async { drop(arrival(&mut second).await) };
    let both = async { tokio::join!(sending, dropping) };
    tokio::time::timeout(SOON, both)
        .await
        .expect("the sender notices");
}

#[tokio::test]
async fn transfer_to_an_unknown_peer_is_an_error() {
    let (first, _second) = pair().await;
    let error = first.transport.open_bulk(NodeId(9), b"").await.unwrap_err();
    assert!(matches!(error, ConnectError::NoSuchPeer(NodeId(9))), "{error}");
}

#[tokio::test]
async fn heartbeats_keep_flowing_beside_a_big_transfer() {
    const TOTAL: usize = 256 << 20;
    let (mut first, mut second) = pair().await;
    let target = second.id;
    let transport = first.transport.clone();
    let sending = tokio::spawn(async move {
        let mut stream = transport.open_bulk(target, b"big").await.unwrap();
        let chunk = Bytes::from(vec![1; 256 << 10]);
        for _ in 0..TOTAL / chunk.len() {
            stream.sender.write_chunk(chunk.clone()).await.unwrap();
        }
        stream.sender.finish();
        assert_eq!(stream.receiver.read_message().await.unwrap(), b"done");
    });
    let back = first.id;
    let began = Instant::now();
    let (done_sender, mut done) = tokio::sync::oneshot::channel();
    let mut done_sender = Some(done_sender);
    // The second node echoes heartbeats and takes the transfer.
    let echoing = tokio::spawn(async move {
        loop {
            match second.next().await {
                Event::Frame { frame, .. } => {
                    let _ = second.transport.send(back, &frame);
                }
                Event::Bulk { mut stream, .. } => {
                    let finished = done_sender.take();
                    tokio::spawn(async move {
                        let mut received = 0;
                        while let Some(chunk) = stream.receiver.read_chunk().await.unwrap() {
                            received += chunk.len();
                        }
                        assert_eq!(received, TOTAL);
                        stream.sender.write_message(b"done").await.unwrap();
                        let _ = finished.unwrap().send(());
                        let _ = stream.receiver.read_chunk().await;
                    });
                }
                Event::Greeted { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    });
    let mut delays = Vec::new();
    for number in 0.. {
        let sent = Instant::now();
        first.transport.send(target, &heartbeat(number)).unwrap();
        assert_eq!(round(&first.frame().await.1), Some(number));
        delays.push(sent.elapsed());
        if done.try_recv().is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let elapsed = began.elapsed();
    sending.await.unwrap();
    echoing.abort();
    delays.sort();
    let (median, worst) = (delays[delays.len() / 2], delays[delays.len() - 1]);
    eprintln!(
        "{} heartbeats beside {} MiB in {elapsed:?} ({:.0} MiB/s): round trip median {median:?}, worst {worst:?}",
        delays.len(),
        TOTAL >> 20,
        (TOTAL >> 20) as f64 / elapsed.as_secs_f64()
    );
    assert!(
        delays.len() >= 5,
        "the transfer was over before heartbeats could be measured"
    );
    assert!(worst < Duration::from_millis(500), "a heartbeat took {worst:?}");
}
