//! Three processes of etcd, and a client of its gRPC API.
//!
//! The client speaks HTTP/2 and encodes the two messages that it needs by hand: a code generator would weigh more than
//! they do.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::{BufMut as _, Bytes, BytesMut};
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tempfile::TempDir;
use tokio::net::TcpStream;

use super::metrics;
use super::process::{self, Process, free_ports};

const PROGRAM: &str = "etcd";
/// How long a cluster may take to serve.
const READY: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);

/// The first line of what it says of its version; none when it is not installed.
pub(crate) fn version() -> Option<String> {
    process::version(PROGRAM).map(|text| text.lines().next().unwrap_or_default().to_owned())
}

/// A cluster of etcd.
pub(crate) struct Etcd {
    pub(crate) short: bool,
    nodes: Vec<Node>,
    home: TempDir,
}

struct Node {
    client: SocketAddr,
    process: Process,
}

/// Where the node at a place keeps its data.
fn data(home: &Path, place: usize) -> PathBuf {
    home.join(format!("n{place}"))
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
            let data = data(home.path(), place);
            let mut arguments: Vec<OsString> = [
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
            .flat_map(|(flag, value)| [flag.into(), value.into()])
            .collect();
            if short {
                arguments.extend(["--election-timeout=150", "--heartbeat-interval=30"].map(OsString::from));
            }
            let log = home.path().join(format!("n{place}.log"));
            let mut process = Process::new(PROGRAM, arguments, log);
            process.start()?;
            nodes.push(Node { client, process });
        }
        let etcd = Etcd { short, nodes, home };
        etcd.wait_until_ready()?;
        Ok(etcd)
    }

    fn wait_until_ready(&self) -> Result<(), String> {
        let until = Instant::now() + READY;
        let ready = |node: &Node| {
            metrics::sample(node.client, "etcd_server_has_leader").is_some_and(|has| has == 1.0)
        };
        while !self.nodes.iter().all(ready) {
            if Instant::now() >= until {
                let log = self.nodes[0].process.log();
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
                node.process.id().is_some()
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
        self.nodes[place].process.kill();
    }

    pub(crate) fn restart(&mut self, place: usize) -> Result<(), String> {
        self.nodes[place].process.start()?;
        self.wait_until_ready()
    }

    /// The directory of each node, and which one in it has the log.
    pub(crate) fn data(&self) -> Vec<(PathBuf, PathBuf)> {
        let directories = (0..self.nodes.len()).map(|place| data(self.home.path(), place));
        directories
            .map(|data| (data.clone(), data.join("member/wal")))
            .collect()
    }

    pub(crate) fn process_ids(&self) -> Vec<u32> {
        self.nodes.iter().filter_map(|node| node.process.id()).collect()
    }
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

    /// `etcdserverpb.KV/Txn`: TxnRequest { success = 2: RequestOp { request_put = 2: PutRequest } }.
    pub(crate) async fn put_together(&mut self, keys: &[String], value: &[u8]) -> Result<(), String> {
        let mut message = BytesMut::new();
        for key in keys {
            let (mut put, mut operation) = (BytesMut::new(), BytesMut::new());
            bytes_field(&mut put, 1, key.as_bytes());
            bytes_field(&mut put, 2, value);
            bytes_field(&mut operation, 2, &put);
            bytes_field(&mut message, 2, &operation);
        }
        self.call("/etcdserverpb.KV/Txn", &message).await.map(drop)
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
