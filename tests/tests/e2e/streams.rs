//! Streams under kills of the leader: no record is lost, none comes twice, and a tail goes on without a gap or a repeat.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use quorate_tests::{Cluster, SETTLE, http, quorate, wait_until};
use serde_json::{Value, json};

const ROUNDS: usize = 5;

/// What was acknowledged or told, as it comes.
type List<T> = Arc<Mutex<Vec<T>>>;

fn lock<T>(list: &List<T>) -> std::sync::MutexGuard<'_, Vec<T>> {
    list.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Appends batches, each again and again at one node after the other until it is acknowledged.
struct Appender {
    stop: Arc<AtomicBool>,
    acknowledged: List<String>,
    thread: Option<JoinHandle<()>>,
}

impl Appender {
    fn start(name: usize, addresses: Vec<SocketAddr>) -> Appender {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = List::default();
        let (stopped, list) = (Arc::clone(&stop), Arc::clone(&acknowledged));
        let thread = std::thread::spawn(move || {
            let mut turn = name;
            for batch in 0.. {
                let values: Vec<String> = (0..3).map(|number| format!("{name}-{batch}-{number}")).collect();
                let records: Vec<Value> = values
                    .iter()
                    .map(|value| json!({"value": value, "id": value}))
                    .collect();
                let body = json!({ "records": records }).to_string();
                loop {
                    if stopped.load(Ordering::Relaxed) {
                        return;
                    }
                    let address = addresses[turn % addresses.len()];
                    match http::request(address, "POST", "/v1/streams/events/records", body.as_bytes()) {
                        Ok(answer) if answer.status == 200 => break,
                        _ => turn += 1,
                    }
                }
                lock(&list).extend(values);
            }
        });
        Appender {
            stop,
            acknowledged,
            thread: Some(thread),
        }
    }

    fn stop(mut self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the appender does not panic");
        }
        lock(&self.acknowledged).clone()
    }
}

/// `quorate stream tail` from the first record on, as a process.
struct Tailer {
    process: Child,
    records: List<Value>,
}

impl Tailer {
    fn start(cluster: &Cluster) -> Tailer {
        let endpoints: Vec<String> = cluster.addresses().iter().map(ToString::to_string).collect();
        let mut process = Command::new(quorate())
            .args([
                "stream", "tail", "events", "--follow", "--from", "first", "-w", "json",
            ])
            .args(["--endpoint", &endpoints.join(",")])
            .stdout(Stdio::piped())
            .spawn()
            .expect("quorate starts");
        let output = BufReader::new(process.stdout.take().expect("its output is piped"));
        let records = List::default();
        let heard = Arc::clone(&records);
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let record = serde_json::from_str(&line).expect("a line is JSON");
                lock(&heard).push(record);
            }
        });
        Tailer { process, records }
    }

    fn told(&self) -> usize {
        lock(&self.records).len()
    }

    #[track_caller]
    fn wait_for_more(&self, count: usize) {
        let target = self.told() + count;
        wait_until(SETTLE, &format!("the tail tells of {target} records"), || {
            self.told() >= target
        });
    }
}

impl Drop for Tailer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn create(cluster: &Cluster, body: &Value) {
    let answer = cluster.nodes[0].request("POST", "/v1/streams", body.to_string().as_bytes());
    let answer = answer.expect("an answer");
    assert_eq!(answer.status, 201, "{}", answer.text());
}

/// Every record that a node has, in order.
fn read_all(address: SocketAddr) -> Vec<(u64, String)> {
    let (mut from, mut found) = (0, Vec::new());
    loop {
        let path = format!("/v1/streams/events/records?from={from}&limit=1000");
        let page = http::request(address, "GET", &path, b"").expect("an answer");
        assert_eq!(page.status, 200, "{}", page.text());
        let page = page.json();
        for record in page["records"].as_array().expect("records") {
            let offset = record["offset"].as_u64().expect("an offset");
            found.push((offset, record["value"].as_str().expect("text").to_owned()));
        }
        from = page["next_offset"].as_u64().expect("an offset");
        if page["next_offset"] == page["end_offset"] {
            return found;
        }
    }
}

#[test]
fn nothing_is_lost_or_repeated_through_kills_of_the_leader_under_appends_and_a_tail() {
    let mut cluster = Cluster::started(3);
    create(
        &cluster,
        &json!({"name": "events", "duplicates": {"count": 100_000, "age_ms": 600_000}}),
    );
    let addresses = cluster.addresses();
    let appenders: Vec<Appender> = (0..3)
        .map(|name| Appender::start(name, addresses.clone()))
        .collect();
    let tailer = Tailer::start(&cluster);
    for _ in 0..ROUNDS {
        tailer.wait_for_more(100);
        let victim = cluster.leader();
        cluster.nodes[victim].kill();
        tailer.wait_for_more(100);
        cluster.nodes[victim].start();
        let node = &cluster.nodes[victim];
        wait_until(SETTLE, &format!("node {} is back", node.name), || node.is_ready());
    }
    let acknowledged: Vec<String> = appenders.into_iter().flat_map(Appender::stop).collect();
    let all = read_all(addresses[0]);
    for (place, (offset, _)) in all.iter().enumerate() {
        assert_eq!(*offset, place as u64, "offsets are dense");
    }
    let values: BTreeSet<&str> = all.iter().map(|(_, value)| &**value).collect();
    assert_eq!(values.len(), all.len(), "no message was appended twice");
    for value in &acknowledged {
        assert!(values.contains(&**value), "{value} was acknowledged and is lost");
    }
    wait_until(SETTLE, "the tail has told everything", || {
        tailer.told() >= all.len()
    });
    let told = lock(&tailer.records).clone();
    assert_eq!(told.len(), all.len(), "the tail repeats nothing");
    for (record, (offset, value)) in told.iter().zip(&all) {
        assert_eq!(
            (record["offset"].as_u64(), record["value"].as_str()),
            (Some(*offset), Some(&**value))
        );
    }
    for address in &addresses {
        assert_eq!(read_all(*address), all, "every node has the same records");
    }
    println!("{} records, {} acknowledged", all.len(), acknowledged.len());
}

#[test]
fn records_cursors_and_message_ids_survive_a_restart_of_all_nodes() {
    let mut cluster = Cluster::started(3);
    create(&cluster, &json!({"name": "events"}));
    let send = |cluster: &Cluster, path: &str, body: Value| {
        let answer = cluster.nodes[0].request("POST", path, body.to_string().as_bytes());
        let answer = answer.expect("an answer");
        assert!(answer.status < 300, "{}", answer.text());
        answer.json()
    };
    for number in 0..50 {
        let record = json!({"value": format!("{number}"), "id": format!("{number}")});
        send(
            &cluster,
            "/v1/streams/events/records",
            json!({"records": [record]}),
        );
    }
    send(&cluster, "/v1/streams/events/groups", json!({"name": "g"}));
    let commit = json!({"cursors": [{"partition": 0, "next_offset": 20}]});
    send(&cluster, "/v1/streams/events/groups/g/commit", commit);
    let before = read_all(cluster.addresses()[0]);
    cluster.kill_all();
    cluster.start_all();
    cluster.wait_until_ready();
    assert_eq!(read_all(cluster.addresses()[1]), before);
    let again = send(
        &cluster,
        "/v1/streams/events/records",
        json!({"records": [{"value": "7", "id": "7"}]}),
    );
    assert_eq!(
        again["placed"][0],
        json!({"partition": 0, "first_offset": 7, "count": 1, "duplicate": true})
    );
    let group = cluster.nodes[2].get("/v1/streams/events/groups/g").json();
    assert_eq!(group["cursors"][0]["next_offset"], 20);
}

#[test]
fn retention_drops_old_records_and_accounts_for_them() {
    let cluster = Cluster::started(1);
    create(&cluster, &json!({"name": "events", "retention": {"records": 20}}));
    for number in 0..100 {
        let body = json!({"records": [{"value": format!("{number}")}]}).to_string();
        let answer = cluster.nodes[0].request("POST", "/v1/streams/events/records", body.as_bytes());
        assert_eq!(answer.expect("an answer").status, 200);
    }
    let look = || cluster.nodes[0].look("/v1/streams/events");
    wait_until(Duration::from_secs(20), "records go until 20 are left", || {
        look()["records"] == 20
    });
    let info = look();
    assert_eq!(info["deleted"]["records"]["records"], 80);
    assert_eq!(info["partitions"][0]["first_offset"], 80);
    let gone = cluster.nodes[0].request("GET", "/v1/streams/events/records?from=5", b"");
    let gone = gone.expect("an answer");
    assert_eq!(
        (gone.status, gone.json()["first_offset"].as_u64()),
        (410, Some(80))
    );
}
