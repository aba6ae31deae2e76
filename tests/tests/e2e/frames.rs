//! Event frames under kills of the leader: every record is where its publisher was told that it is.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use quorate_tests::{Cluster, SETTLE, http, wait_until};
use serde_json::{Value, json};

const ROUNDS: usize = 3;
/// Frames that are sent before the first answer is read.
const AHEAD: usize = 20;

fn frame(payload: &str) -> Vec<u8> {
    let topic = "events";
    let length = 3 + topic.len() + payload.len();
    let mut frame = u32::try_from(length)
        .expect("a short frame")
        .to_be_bytes()
        .to_vec();
    frame.push(0x80 | 2);
    frame.extend(u16::try_from(topic.len()).expect("a short topic").to_be_bytes());
    frame.extend(topic.as_bytes());
    frame.extend(payload.as_bytes());
    frame
}

/// The offset of the next frame; none when it was refused, or nobody knows what became of it.
fn answer(stream: &mut TcpStream) -> io::Result<Option<u64>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut answer)?;
    Ok(match answer.split_first() {
        Some((0, place)) => {
            let (partition, offset) = place.split_at(4);
            assert_eq!(partition, [0; 4], "there is one partition");
            Some(u64::from_be_bytes(offset.try_into().expect("an offset")))
        }
        Some((1 | 2, problem)) => {
            let problem: Value = serde_json::from_slice(problem).expect("a problem");
            assert!(
                problem["code"].is_string() || problem["type"].is_string(),
                "{problem}"
            );
            None
        }
        _ => panic!("{answer:?}"),
    })
}

/// Sends some frames at once, and adds to `told` which offset each got.
fn publish(stream: &mut TcpStream, payloads: &[String], told: &mut Vec<(u64, String)>) -> io::Result<()> {
    let all: Vec<u8> = payloads.iter().flat_map(|payload| frame(payload)).collect();
    stream.write_all(&all)?;
    for payload in payloads {
        if let Some(offset) = answer(stream)? {
            told.push((offset, payload.clone()));
        }
    }
    Ok(())
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    Ok(stream)
}

#[test]
fn every_record_is_where_its_publisher_was_told_through_kills_of_the_leader() {
    let mut cluster = Cluster::started(3);
    let body = json!({"name": "events"}).to_string();
    let created = cluster.nodes[0].request("POST", "/v1/streams", body.as_bytes());
    assert_eq!(created.expect("an answer").status, 201);
    let addresses = cluster.addresses();
    let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let publisher = std::thread::spawn({
        let (addresses, stop, count) = (addresses.clone(), Arc::clone(&stop), Arc::clone(&count));
        move || {
            let (mut told, mut stream) = (Vec::new(), None);
            for round in 0_usize.. {
                if stop.load(Ordering::Relaxed) {
                    return told;
                }
                let payloads: Vec<String> = (0..AHEAD).map(|number| format!("{round}-{number}")).collect();
                stream = stream.or_else(|| connect(addresses[round % addresses.len()]).ok());
                if let Some(open) = &mut stream
                    && publish(open, &payloads, &mut told).is_err()
                {
                    stream = None;
                }
                count.store(told.len(), Ordering::Relaxed);
            }
            told
        }
    });
    let wait_for_more = |more: usize| {
        let target = count.load(Ordering::Relaxed) + more;
        wait_until(SETTLE, &format!("{target} frames are appended"), || {
            count.load(Ordering::Relaxed) >= target
        });
    };
    for _ in 0..ROUNDS {
        wait_for_more(200);
        let victim = cluster.leader();
        cluster.nodes[victim].kill();
        wait_for_more(200);
        cluster.nodes[victim].start();
        let node = &cluster.nodes[victim];
        wait_until(SETTLE, &format!("node {} is back", node.name), || node.is_ready());
    }
    stop.store(true, Ordering::Relaxed);
    let told = publisher.join().expect("the publisher does not panic");
    assert!(
        told.windows(2).all(|pair| pair[0].0 < pair[1].0),
        "in the order in which they were sent"
    );
    for (offset, payload) in &told {
        let path = format!("/v1/streams/events/records?from={offset}&limit=1");
        let page = http::request(addresses[0], "GET", &path, b"")
            .expect("an answer")
            .json();
        assert_eq!(
            (&page["records"][0]["offset"], &page["records"][0]["value"]),
            (&json!(offset), &json!(payload))
        );
    }
    println!("{} frames", told.len());
}
