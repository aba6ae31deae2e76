//! Three processes of etcd, and a client of its gRPC API.
//!
//! The client speaks HTTP/2 and encodes the two messages that it needs by hand: a code generator would weigh more than
//! they do.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::{BufMut as _, Bytes, BytesMut};
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tempfile::TempDir;
use tokio::net::TcpStream;

use super::metrics;

const PROGRAM: &str = "etcd";
/// How long a cluster may take to serve.
const READY: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);

pub(crate) fn is_installed() -> bool {
    Command::new(PROGRAM)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .is_ok_and(|output| output.status.success())
}

/// A cluster of etcd.
pub(crate) struct Etcd {
    pub(crate) short: bool,
    nodes: Vec<Node>,
    _home: TempDir,
}

struct Node {
    client: SocketAddr,
    arguments: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Etcd {
    pub(crate) fn start(count: usize, short: bool) -> Result<Etcd, String> {
        let home = tempfile::Builder::new()
            .prefix("compare-etcd-")
            .tempdir()
            .map_err(|error| format!("no directory for etcd: {error}"))?;
        let ports = free_ports(2 * count)?;
        let (clients, peers) = ports.split_at(count);
        let initial: Vec<String> = (0..count)
            .map(|place| format!("n{place}=http://{}", peers[place]))
            .collect();
        let mut nodes = Vec::new();
        for place in 0..count {
            let (client, peer) = (clients[place], peers[place]);
            let data = home.path().join(format!("n{place}"));
            let mut arguments: Vec<String> = [
                ("--name", format!("n{place}")),
                ("--data-dir", data.display().to_string()),
                ("--listen-client-urls", format!("http://{client}")),
                ("--advertise-client-urls", format!("http://{client}")),
                ("--listen-peer-urls", format!("http://{peer}")),
                ("--initial-advertise-peer-urls", format!("http://{peer}")),
                ("--initial-cluster", initial.join(",")),
                ("--initial-cluster-token", "compare".to_owned()),
                ("--log-level", "error".to_owned()),
            ]
            .into_iter()
            .flat_map(|(flag, value)| [flag.to_owned(), value])
            .collect();
            if short {
                arguments.extend(["--election-timeout=150", "--heartbeat-interval=30"].map(str::to_owned));
            }
            nodes.push(Node {
                client,
                arguments,
                log: home.path().join(format!("n{place}.log")),
                child: None,
            });
        }
        let mut etcd = Etcd {
            short,
            nodes,
            _home: home,
        };
        for place in 0..count {
            etcd.spawn(place)?;
        }
        etcd.wait_until_ready()?;
        Ok(etcd)
    }

    fn spawn(&mut self, place: usize) -> Result<(), String> {
        let node = &mut self.nodes[place];
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&node.log)
            .map_err(|error| format!("no log file for etcd: {error}"))?;
        let child = Command::new(PROGRAM)
            .args(&node.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| format!("etcd does not start: {error}"))?;
        node.child = Some(child);
        Ok(())
    }

    fn wait_until_ready(&self) -> Result<(), String> {
        let until = Instant::now() + READY;
        let ready = |node: &Node| {
            metrics::sample(node.client, "etcd_server_has_leader").is_some_and(|has| has == 1.0)
        };
        while !self.nodes.iter().all(ready) {
            if Instant::now() >= until {
                let log = std::fs::read_to_string(&self.nodes[0].log).unwrap_or_default();
                return Err(format!("etcd was not ready within {READY:?}; its log:\n{log}"));
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.client).collect()
    }

    pub(crate) fn leader(&self) -> Result<usize, String> {
        let until = Instant::now() + READY;
        loop {
            let leads = |node: &Node| {
                node.child.is_some()
                    && metrics::sample(node.client, "etcd_server_is_leader").is_some_and(|is| is == 1.0)
            };
            if let Some(place) = self.nodes.iter().position(leads) {
                return Ok(place);
            }
            if Instant::now() >= until {
                return Err(format!("etcd had no leader within {READY:?}"));
            }
            std::thread::sleep(PAUSE);
        }
    }

    pub(crate) fn kill(&mut self, place: usize) {
        if let Some(mut child) = self.nodes[place].child.take() {
            child.kill().expect("an own child can be killed");
            child.wait().expect("an own child can be waited for");
        }
    }

    pub(crate) fn restart(&mut self, place: usize) -> Result<(), String> {
        self.spawn(place)?;
        self.wait_until_ready()
    }

    pub(crate) fn process_ids(&self) -> Vec<u32> {
        let children = self.nodes.iter().filter_map(|node| node.child.as_ref());
        children.map(Child::id).collect()
    }
}

/// Ports that are free at the moment, found while all of them are held.
fn free_ports(count: usize) -> Result<Vec<SocketAddr>, String> {
    let listeners: Result<Vec<TcpListener>, _> = (0..count)
        .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .collect();
    let addresses: Result<Vec<SocketAddr>, _> = listeners
        .map_err(|error| format!("no free port: {error}"))?
        .iter()
        .map(TcpListener::local_addr)
        .collect();
    addresses.map_err(|error| format!("no free port: {error}"))
}

/// One connection to one node.
pub(crate) struct Connection {
    address: SocketAddr,
    sender: SendRequest<Full<Bytes>>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Result<Connection, String> {
        let stream = TcpStream::connect(address)
            .await
            .map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        // How the connection ends shows in the requests on it.
        tokio::spawn(async { drop(connection.await) });
        Ok(Connection { address, sender })
    }

    /// `etcdserverpb.KV/Put`: PutRequest { key = 1, value = 2 }.
    pub(crate) async fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let mut message = BytesMut::new();
        bytes_field(&mut message, 1, key);
        bytes_field(&mut message, 2, value);
        self.call("/etcdserverpb.KV/Put", &message).await.map(drop)
    }

    /// `etcdserverpb.KV/Range` of one key, linearizable: RangeRequest { key = 1 }.
    pub(crate) async fn get(&mut self, key: &[u8]) -> Result<(), String> {
        let mut message = BytesMut::new();
        bytes_field(&mut message, 1, key);
        let answer = self.call("/etcdserverpb.KV/Range", &message).await?;
        // The frame's head, a response header, and the value: less means that the key is not there.
        if answer.len() > 100 {
            Ok(())
        } else {
            Err("the key is not there".to_owned())
        }
    }

    async fn call(&mut self, path: &str, message: &[u8]) -> Result<Bytes, String> {
        let mut frame = BytesMut::with_capacity(5 + message.len());
        frame.put_u8(0);
        frame.put_u32(u32::try_from(message.len()).expect("messages are small"));
        frame.put_slice(message);
        let request = Request::post(format!("http://{}{path}", self.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(frame.freeze()))
            .expect("the parts are valid");
        self.sender.ready().await.map_err(|error| error.to_string())?;
        let answer = self
            .sender
            .send_request(request)
            .await
            .map_err(|error| error.to_string())?;
        let (head, body) = answer.into_parts();
        let body = body.collect().await.map_err(|error| error.to_string())?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        let status = trailers.get("grpc-status").or(head.headers.get("grpc-status"));
        match status {
            Some(status) if status == "0" => Ok(body.to_bytes()),
            _ => {
                let text = trailers.get("grpc-message").or(head.headers.get("grpc-message"));
                Err(format!("gRPC status {status:?}, {text:?}"))
            }
        }
    }
}

/// A length-delimited protobuf field.
fn bytes_field(message: &mut BytesMut, number: u8, value: &[u8]) {
    message.put_u8(number << 3 | 2);
    let mut length = value.len();
    while length >= 0x80 {
        message.put_u8((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    message.put_u8(length as u8);
    message.put_slice(value);
}
