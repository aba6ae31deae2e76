//! What the transport tells its owner.
//!
//! Events wait in one channel in the order in which they happened. It is bounded: whoever adds an event first takes
//! room from a budget, which is given back when the owner takes the event out. Frames have a budget in bytes for each
//! stream of each peer, so that an owner who is slow stops the reading of that stream, and QUIC's flow control stops
//! the sender; everything else shares a budget in events.

use std::sync::Arc;

use quorate_core::raft::{Lineage, LinkEvent, NodeId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::bulk::BulkStream;
use super::frame::Frame;
use super::hello::{Answer, Ask, Hello, RefusalCode};

/// Something that happened on the network.
#[derive(Debug)]
pub enum Event {
    /// The connection to a peer changed.
    Link {
        /// The peer.
        peer: NodeId,
        /// What happened.
        event: LinkEvent,
    },
    /// A frame came from a peer.
    Frame {
        /// The peer.
        peer: NodeId,
        /// The frame.
        frame: Frame,
    },
    /// A blank or wiped node, or one that is no member, was met where a member was expected.
    Stranger {
        /// What it says of itself.
        hello: Hello,
    },
    /// This node has no data, or not the data that the others expect: its cluster lives, and it must join again.
    Invited {
        /// The history of the cluster.
        lineage: Lineage,
        /// Name and cluster address of every member.
        members: Vec<(String, String)>,
    },
    /// A node of this cluster said who and where it is; its name is verified. May be lost when much happens.
    Greeted {
        /// What it says of itself.
        hello: Hello,
    },
    /// A node asks something.
    Ask {
        /// Who asks; its name and cluster are verified.
        from: Hello,
        /// What it asks.
        ask: Ask,
        /// Takes the answer.
        answer: Responder,
    },
    /// A peer began a big transfer.
    Bulk {
        /// The peer.
        peer: NodeId,
        /// What it says of the transfer.
        header: Vec<u8>,
        /// The transfer, in both directions.
        stream: BulkStream,
    },
    /// A connection was refused, by this node or by the other. Logged already; reported at most once a minute for
    /// each node and code.
    Refused(Refusal),
}

/// Which side refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RefusedBy {
    /// This node.
    Us,
    /// The other.
    Them,
}

/// A connection that was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// Why, for the program.
    pub code: RefusalCode,
    /// Which side refused.
    pub by: RefusedBy,
    /// The name of the other node, as it says itself or as it was expected; none when it could not say.
    pub name: Option<String>,
    /// Where the other node is.
    pub address: String,
    /// Who, what was wrong and what to do.
    pub message: String,
}

/// Takes the answer to one question. Dropped without an answer, it ends the question.
#[derive(Debug)]
pub struct Responder(pub(super) oneshot::Sender<Answer>);

impl Responder {
    /// Answers; without effect when the other side has gone.
    pub fn answer(self, answer: Answer) {
        let _ = self.0.send(answer);
    }
}

/// Events that have not been taken out, other than frames.
const EVENTS_WAITING_MAX: usize = 1_024;

/// An event with the room that it takes.
type Waiting = (Event, OwnedSemaphorePermit);

/// Where the owner takes events out.
pub struct Events(mpsc::UnboundedReceiver<Waiting>);

impl Events {
    /// The next event; none after the transport has ended.
    pub async fn next(&mut self) -> Option<Event> {
        self.0.recv().await.map(|(event, _)| event)
    }

    /// The next event if one waits already.
    pub fn try_next(&mut self) -> Option<Event> {
        self.0.try_recv().ok().map(|(event, _)| event)
    }
}

/// Where the transport puts events in. Unbounded as a channel; the budgets bound it.
#[derive(Clone)]
pub(super) struct EventSender {
    channel: mpsc::UnboundedSender<Waiting>,
    rare: Arc<Semaphore>,
}

impl EventSender {
    pub(super) fn new() -> (EventSender, Events) {
        let (channel, receiver) = mpsc::unbounded_channel();
        let sender = EventSender {
            channel,
            rare: Arc::new(Semaphore::new(EVENTS_WAITING_MAX)),
        };
        (sender, Events(receiver))
    }

    /// Puts in an event other than a frame, as soon as there is room.
    pub(super) async fn put(&self, event: Event) {
        if let Ok(room) = Arc::clone(&self.rare).acquire_owned().await {
            // An owner who has dropped the receiving end wants no events.
            let _ = self.channel.send((event, room));
        }
    }

    /// Puts in an event if there is room, for reports that may be lost.
    pub(super) fn put_if_room(&self, event: Event) {
        if let Ok(room) = Arc::clone(&self.rare).try_acquire_owned() {
            let _ = self.channel.send((event, room));
        }
    }
}

/// Room for the frames of one stream of one peer.
#[derive(Clone)]
pub(super) struct FrameBudget {
    bytes: Arc<Semaphore>,
    limit: usize,
}

/// What a waiting frame costs besides its bytes on the wire.
const FRAME_OVERHEAD_BYTES: usize = 192;

impl FrameBudget {
    pub(super) fn new(limit: usize) -> FrameBudget {
        FrameBudget {
            bytes: Arc::new(Semaphore::new(limit)),
            limit,
        }
    }

    /// Puts in a frame that took `bytes` on the wire, as soon as there is room for it.
    pub(super) async fn put(&self, events: &EventSender, peer: NodeId, frame: Frame, bytes: usize) {
        // A frame larger than the whole budget waits until nothing else does.
        let cost = u32::try_from((bytes + FRAME_OVERHEAD_BYTES).min(self.limit)).unwrap_or(u32::MAX);
        if let Ok(room) = Arc::clone(&self.bytes).acquire_many_owned(cost).await {
            let _ = events.channel.send((Event::Frame { peer, frame }, room));
        }
    }
}
