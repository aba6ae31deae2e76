//! Nodes for the tests: a transport each, with the events that no test has asked for yet.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use quorate::port::Ports;
use quorate::port::system::{ListenerOptions, ports};
use quorate::transport::{
    Event, Events, Frame, Options, Peer, Protocols, Refusal, Secret, StartError, Transport,
};
use quorate_core::raft::{Body, DirectoryId, Index, Lineage, LinkEvent, Message, NodeId, Term};

/// How long a test waits for what must happen.
pub(crate) const SOON: Duration = Duration::from_secs(20);
pub(crate) const LINEAGE: Lineage = Lineage(7);

pub(crate) fn system() -> Ports {
    ports(ListenerOptions {
        tcp_nodelay: true,
        keepalive: false,
    })
}

pub(crate) fn new_secret() -> Secret {
    Secret::generate(system().entropy.as_ref()).unwrap()
}

/// Options of the node with this name and number: member `number` with directory `number`, on a free port.
pub(crate) fn options(name: &str, number: u64, secret: &Secret) -> Options {
    Options {
        cluster: "test".to_owned(),
        name: name.to_owned(),
        directory: DirectoryId(u128::from(number)),
        bind: SocketAddr::from(([127, 0, 0, 1], 0)),
        cluster_address: format!("{name}:1"),
        client_address: format!("{name}:2"),
        secrets: vec![secret.clone()],
        protocols: Protocols::CURRENT,
    }
}

pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) name: String,
    pub(crate) directory: DirectoryId,
    pub(crate) transport: Transport,
    events: Events,
    /// Events taken out and not asked for.
    waiting: VecDeque<Event>,
}

impl Node {
    pub(crate) fn start(options: Options, id: u64) -> Node {
        Node::start_on(&system(), options, id).unwrap()
    }

    pub(crate) fn start_on(ports: &Ports, options: Options, id: u64) -> Result<Node, StartError> {
        let (name, directory) = (options.name.clone(), options.directory);
        let (transport, events) = Transport::start(ports, options)?;
        Ok(Node {
            id: NodeId(id),
            name,
            directory,
            transport,
            events,
            waiting: VecDeque::new(),
        })
    }

    /// A member at an address that a node of this process is about to free.
    pub(crate) async fn member_when_free(options: Options, id: u64) -> Node {
        let starting = async {
            loop {
                match Node::start_on(&system(), options.clone(), id) {
                    Ok(node) => return node,
                    Err(StartError::Bind { .. }) => tokio::time::sleep(Duration::from_millis(1)).await,
                    Err(error) => panic!("{error}"),
                }
            }
        };
        let node = tokio::time::timeout(SOON, starting)
            .await
            .expect("the address becomes free");
        node.transport.set_identity(Some((LINEAGE, NodeId(id))));
        node
    }

    /// A member of the history [`LINEAGE`].
    pub(crate) fn member(options: Options, id: u64) -> Node {
        let node = Node::start(options, id);
        node.transport.set_identity(Some((LINEAGE, NodeId(id))));
        node
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.transport.local_address().unwrap()
    }

    pub(crate) fn as_peer(&self) -> Peer {
        Peer {
            id: self.id,
            name: self.name.clone(),
            directory: self.directory,
            cluster_address: self.address().to_string(),
        }
    }

    /// The first event, waiting or to come, that `pick` wants.
    pub(crate) async fn wait<T>(&mut self, what: &str, mut pick: impl FnMut(&Event) -> Option<T>) -> T {
        for place in 0..self.waiting.len() {
            if let Some(found) = pick(&self.waiting[place]) {
                self.waiting.remove(place);
                return found;
            }
        }
        let search = async {
            loop {
                let event = self.events.next().await.expect("the transport runs");
                match pick(&event) {
                    Some(found) => return found,
                    None => self.waiting.push_back(event),
                }
            }
        };
        let found = tokio::time::timeout(SOON, search).await.ok();
        found.unwrap_or_else(|| {
            panic!(
                "node {} waited in vain for {what}; it saw {:?}",
                self.name, self.waiting
            )
        })
    }

    pub(crate) async fn link(&mut self, peer: NodeId, wanted: LinkEvent) {
        self.wait(&format!("{wanted:?} of {peer}"), |event| match event {
            Event::Link { peer: from, event } if (*from, *event) == (peer, wanted) => Some(()),
            _ => None,
        })
        .await;
    }

    pub(crate) async fn refusal(&mut self) -> Refusal {
        self.wait("a refusal", |event| match event {
            Event::Refused(refusal) => Some(refusal.clone()),
            _ => None,
        })
        .await
    }

    pub(crate) async fn frame(&mut self) -> (NodeId, Frame) {
        self.wait("a frame", |event| match event {
            Event::Frame { peer, frame } => Some((*peer, frame.clone())),
            _ => None,
        })
        .await
    }

    /// The next event of any kind.
    pub(crate) async fn next(&mut self) -> Event {
        match self.waiting.pop_front() {
            Some(event) => event,
            None => self.events.next().await.expect("the transport runs"),
        }
    }

    /// An event that is there already.
    pub(crate) fn try_next(&mut self) -> Option<Event> {
        self.waiting.pop_front().or_else(|| self.events.try_next())
    }
}

/// Makes all nodes each other's peers.
pub(crate) fn introduce(nodes: &[&Node]) {
    let peers: Vec<Peer> = nodes.iter().map(|node| node.as_peer()).collect();
    for node in nodes {
        node.transport.set_peers(peers.clone());
    }
}

/// Two members, connected.
pub(crate) async fn pair() -> (Node, Node) {
    let secret = new_secret();
    let mut first = Node::member(options("a", 1, &secret), 1);
    let mut second = Node::member(options("b", 2, &secret), 2);
    introduce(&[&first, &second]);
    first.link(second.id, LinkEvent::Connected).await;
    second.link(first.id, LinkEvent::Connected).await;
    (first, second)
}

pub(crate) fn heartbeat(round: u64) -> Frame {
    Frame::Raft(Message {
        term: Term(1),
        body: Body::Heartbeat {
            commit: Index(0),
            round,
            lease: None,
        },
    })
}

pub(crate) fn round(frame: &Frame) -> Option<u64> {
    match frame {
        Frame::Raft(Message {
            body: Body::Heartbeat { round, .. },
            ..
        }) => Some(*round),
        _ => None,
    }
}

pub(crate) fn forward(request: u64, bytes: usize) -> Frame {
    Frame::Forward {
        request,
        deadline_ms: 1_000,
        command: Bytes::from(vec![request as u8; bytes]),
    }
}
