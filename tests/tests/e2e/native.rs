//! The native client over QUIC against a cluster whose nodes die, stop, and have no QUIC at all.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use quorate_api::{AppendRequest, CreateStream, NewRecord, StreamRetention};
use quorate_client::{
    Client, Consistency, Error, Keys, List, Protocol, Put, Range, ReadFrom, TailFrom, TailRequest, Tailed,
    WatchRequest, Watched,
};
use quorate_tests::{Cluster, SETTLE, quorate, wait_until};

const ROUNDS: usize = 3;
/// How many do something at a time, all over the same connections.
const WORKERS: usize = 16;
/// How often one waits for an answer.
const TRIES: usize = 6;

fn client(cluster: &Cluster, protocol: Protocol) -> Client {
    let endpoints: Vec<String> = cluster.addresses().iter().map(ToString::to_string).collect();
    let builder = Client::builder(&endpoints.join(",")).expect("endpoints");
    builder
        .protocol(protocol)
        .timeout(Duration::from_secs(10))
        .build()
}

fn create_stream() -> CreateStream {
    CreateStream {
        name: "events".to_owned(),
        partitions: 1,
        retention: StreamRetention::default(),
        duplicates: None,
    }
}

/// Runs a future on a thread of its own.
fn on_a_thread<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    std::thread::spawn(move || block_on(future))
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(future)
}

/// What workers share.
#[derive(Clone, Default)]
struct Shared {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
}

impl Shared {
    fn stops(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    #[track_caller]
    fn wait_for_more(&self, more: usize) {
        let target = self.done.load(Ordering::Relaxed) + more;
        wait_until(SETTLE, &format!("{target} writes are done"), || {
            self.done.load(Ordering::Relaxed) >= target
        });
    }
}

/// Writes keys and records, each once, until told to stop; returns how many.
async fn write_once(client: Client, worker: usize, shared: Shared) -> usize {
    for number in 0.. {
        if shared.stops() {
            return number;
        }
        let name = format!("{worker}/{number}");
        let key = format!("once/{name}");
        let put = client.once(format!("put-{name}"));
        until_known(|| put.put(key.as_bytes(), "v", Put::default())).await;
        let append = client.once(format!("append-{name}"));
        let records = AppendRequest {
            records: vec![NewRecord::new(name.clone())],
            partition: None,
        };
        until_known(|| append.append("events", &records)).await;
        shared.done.fetch_add(1, Ordering::Relaxed);
    }
    0
}

/// What a write comes to that its caller repeats.
async fn until_known<T, F: Future<Output = Result<T, Error>>>(write: impl Fn() -> F) -> T {
    let mut last = None;
    for _ in 0..TRIES {
        match write().await {
            Ok(done) => return done,
            Err(error) => last = Some(error),
        }
    }
    panic!("a write does not come through: {last:?}")
}

/// Kills the leader again and again while `shared` counts what is done.
fn kill_leaders(cluster: &mut Cluster, shared: &Shared) {
    for _ in 0..ROUNDS {
        shared.wait_for_more(100);
        let victim = cluster.leader();
        cluster.nodes[victim].kill();
        shared.wait_for_more(100);
        cluster.nodes[victim].start();
        let node = &cluster.nodes[victim];
        wait_until(SETTLE, &format!("node {} is back", node.name), || node.is_ready());
    }
}

#[test]
fn every_put_and_append_over_quic_happens_once_through_kills_of_the_leader() {
    let mut cluster = Cluster::started(3);
    let client = client(&cluster, Protocol::Quic);
    let shared = Shared::default();
    let writers = on_a_thread({
        let (client, shared) = (client.clone(), shared.clone());
        async move {
            client.create_stream(&create_stream()).await.expect("a stream");
            let mut workers = tokio::task::JoinSet::new();
            for worker in 0..WORKERS {
                workers.spawn(write_once(client.clone(), worker, shared.clone()));
            }
            workers.join_all().await.into_iter().sum::<usize>()
        }
    });
    kill_leaders(&mut cluster, &shared);
    shared.stop.store(true, Ordering::Relaxed);
    let written = writers.join().expect("no writer panics");
    let (keys, records) = block_on(async {
        // The connections of the first runtime ended with it.
        let client = self::client(&cluster, Protocol::Quic);
        (keys(&client).await, records(&client).await)
    });
    assert_eq!((keys.len(), records.len()), (written, written));
    let twice: Vec<_> = keys.iter().filter(|(_, version)| *version != 1).collect();
    assert!(twice.is_empty(), "written more than once: {twice:?}");
    let mut distinct = records.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), written, "every record is there once");
    println!("{written} keys and records");
}

/// All keys with their versions.
async fn keys(client: &Client) -> Vec<(Vec<u8>, u64)> {
    let mut found = Vec::new();
    let mut list = List {
        range: Range::prefix("once/"),
        limit: Some(1_000),
        ..List::default()
    };
    loop {
        let page = client.list(&list).await.expect("a page of keys");
        found.extend(
            page.entries
                .into_iter()
                .map(|entry| (entry.key.to_vec(), entry.version)),
        );
        match found.last() {
            // The key right after the last one.
            Some((last, _)) if page.more => list.range.start = Some([last.as_slice(), &[0]].concat()),
            _ => return found,
        }
    }
}

/// The values of all records.
async fn records(client: &Client) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    loop {
        let from = ReadFrom::Offset(found.len() as u64);
        let page = client.records("events", 0, from, Some(1_000), None).await;
        let page = page.expect("a page of records");
        if page.records.is_empty() {
            return found;
        }
        found.extend(page.records.into_iter().map(|found| found.record.value.to_vec()));
    }
}

/// What a watch and a tail have told so far: keys, and records.
#[derive(Clone, Default)]
struct Heard {
    keys: Arc<AtomicUsize>,
    records: Arc<AtomicUsize>,
}

/// Checks that the keys of the only writer come in the order in which they were written.
async fn watch_all(client: Client, heard: Heard, stop: Arc<AtomicBool>) {
    let mut watch = client.watch(WatchRequest {
        from_revision: Some(1),
        ..WatchRequest::new(Keys::Prefix(b"once/".to_vec()))
    });
    let mut next = 0;
    while !stop.load(Ordering::Relaxed) {
        match watch.next().await {
            Ok(Watched::Change(change)) => {
                for event in change.events {
                    let expected = format!("once/0/{next}");
                    assert_eq!(event.key(), expected.as_bytes(), "no gap and no repeat");
                    next += 1;
                }
                heard.keys.store(next, Ordering::Relaxed);
            }
            Ok(Watched::Progress { .. }) => {}
            Err(error) => assert!(error.is_temporary(), "{error}"),
        }
    }
}

/// Checks that each record follows the one before.
async fn tail_all(client: Client, heard: Heard, stop: Arc<AtomicBool>) {
    let mut tail = client.tail(TailRequest {
        from: TailFrom::First,
        ..TailRequest::new("events")
    });
    let mut next = 0;
    while !stop.load(Ordering::Relaxed) {
        match tail.next().await {
            Ok(Tailed::Records(batch)) => {
                for record in batch.records {
                    assert_eq!(record.offset, next, "no gap and no repeat");
                    next += 1;
                }
                heard.records.store(next as usize, Ordering::Relaxed);
            }
            Ok(Tailed::Progress) => {}
            Err(error) => assert!(error.is_temporary(), "{error}"),
        }
    }
}

#[test]
fn a_watch_and_a_tail_over_quic_go_on_without_a_gap_or_a_repeat_when_nodes_die() {
    let mut cluster = Cluster::started(3);
    let endpoint = |place: usize| cluster.nodes[place].client_address().to_string();
    let follower = (cluster.leader() + 1) % 3;
    // Those who listen begin at the node that is killed first.
    let mut endpoints: Vec<String> = (0..3).map(|turn| endpoint((follower + turn) % 3)).collect();
    let listener = Client::builder(&endpoints.join(",")).expect("endpoints");
    let listener = listener.protocol(Protocol::Quic).build();
    endpoints.rotate_left(1);
    let writer = Client::builder(&endpoints.join(",")).expect("endpoints");
    let writer = writer.protocol(Protocol::Quic).build();
    let (shared, heard, deaf) = (
        Shared::default(),
        Heard::default(),
        Arc::new(AtomicBool::new(false)),
    );
    let writes = on_a_thread({
        let shared = shared.clone();
        async move {
            writer.create_stream(&create_stream()).await.expect("a stream");
            write_once(writer, 0, shared).await
        }
    });
    shared.wait_for_more(1);
    let listeners = on_a_thread({
        let (heard, deaf) = (heard.clone(), Arc::clone(&deaf));
        async move {
            let mut tasks = tokio::task::JoinSet::new();
            tasks.spawn(watch_all(listener.clone(), heard.clone(), Arc::clone(&deaf)));
            tasks.spawn(tail_all(listener, heard, deaf));
            tasks.join_all().await;
        }
    });
    let follow = |what: &str| {
        let targets = (
            heard.keys.load(Ordering::Relaxed) + 50,
            heard.records.load(Ordering::Relaxed) + 50,
        );
        wait_until(SETTLE, &format!("{what}: {targets:?} are heard of"), || {
            heard.keys.load(Ordering::Relaxed) >= targets.0
                && heard.records.load(Ordering::Relaxed) >= targets.1
        });
    };
    for round in 0..ROUNDS {
        follow("before a kill");
        let victim = if round == 0 { follower } else { cluster.leader() };
        cluster.nodes[victim].kill();
        follow("after a kill");
        cluster.nodes[victim].start();
        let node = &cluster.nodes[victim];
        wait_until(SETTLE, &format!("node {} is back", node.name), || node.is_ready());
    }
    shared.stop.store(true, Ordering::Relaxed);
    let written = writes.join().expect("the writer does not panic");
    wait_until(SETTLE, "every record is heard of", || {
        heard.records.load(Ordering::Relaxed) == written
    });
    deaf.store(true, Ordering::Relaxed);
    listeners.join().expect("those who listen do not panic");
}

#[test]
fn no_write_over_quic_fails_while_a_leader_stops_as_it_should() {
    let mut cluster = Cluster::started(3);
    let client = client(&cluster, Protocol::Quic);
    let shared = Shared::default();
    let writers = on_a_thread({
        let shared = shared.clone();
        async move {
            let mut workers = tokio::task::JoinSet::new();
            for worker in 0..WORKERS {
                workers.spawn(write_plainly(client.clone(), worker, shared.clone()));
            }
            workers.join_all().await
        }
    });
    for _ in 0..ROUNDS {
        shared.wait_for_more(500);
        let leader = cluster.leader();
        cluster.nodes[leader].stop();
        shared.wait_for_more(500);
        cluster.nodes[leader].start();
        let node = &cluster.nodes[leader];
        wait_until(SETTLE, &format!("node {} is back", node.name), || node.is_ready());
    }
    shared.stop.store(true, Ordering::Relaxed);
    writers.join().expect("every write succeeds");
}

/// Writes without a word on how often, and expects every write to succeed.
async fn write_plainly(client: Client, worker: usize, shared: Shared) {
    let key = format!("plain/{worker}");
    while !shared.stops() {
        let written = client.put(key.as_bytes(), "v", Put::default()).await;
        written.unwrap_or_else(|error| panic!("a write of worker {worker} failed: {error}"));
        shared.done.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_node_without_quic_is_spoken_with_over_http_and_nobody_waits_for_it() {
    let mut cluster = Cluster::new();
    let place = cluster.add_with_flags("node1", &[]);
    cluster.nodes[place].set_flag("--quic", "false");
    cluster.start_all();
    cluster.wait_until_ready();
    let address = cluster.nodes[place].client_address().to_string();
    let run = |arguments: &[&str]| {
        let output = Command::new(quorate())
            .args(arguments)
            .args(["--endpoint", &address])
            .output()
            .expect("quorate runs");
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let begun = Instant::now();
    assert_eq!(run(&["kv", "put", "k", "v"]), (true, String::new()));
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "it took {:?}",
        begun.elapsed()
    );
    assert!(run(&["kv", "get", "k", "--protocol", "http"]).0);
    let (found, error) = run(&["kv", "get", "k", "--protocol", "quic"]);
    assert!(!found && error.contains("refused"), "{error}");
    // Nobody answers there at all, and nothing says so.
    let silent = std::net::UdpSocket::bind(&address).expect("nobody has the UDP side of the port");
    let begun = Instant::now();
    assert_eq!(run(&["kv", "put", "k", "w"]), (true, String::new()));
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "it took {:?}",
        begun.elapsed()
    );
    drop(silent);
}

#[test]
fn a_client_turns_to_quic_where_a_node_has_it() {
    let cluster = Cluster::started(1);
    let client = client(&cluster, Protocol::Auto);
    block_on(async {
        client
            .put(b"k", "v", Put::default())
            .await
            .expect("it is written");
        let found = client
            .get(b"k", Consistency::Linearizable)
            .await
            .expect("an answer");
        assert!(found.is_some_and(|found| found.version == 1));
    });
}
