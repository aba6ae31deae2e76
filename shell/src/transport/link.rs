//! One connection of two members while it holds.
//!
//! It has two streams in each direction: consensus with high priority, everything else with low priority, so that a
//! big frame of the second does not delay a heartbeat. A connection ends as a whole: the first of its parts that ends
//! ends the others.

use std::fmt;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use quinn::{Connection, ConnectionError, RecvStream, SendStream};
use quorate_core::raft::LinkEvent;

use super::dial::close;
use super::event::FrameBudget;
use super::frame::{FrameError, FrameReader};
use super::hello::{MessageError, RefusalCode};
use super::peer::{Counts, PeerHandle};
use super::queue::Queue;
use super::shared::Shared;
use crate::port::BoxFuture;

/// The priority of consensus; other streams have 0.
const CONSENSUS_PRIORITY: i32 = 10;
/// The byte that opens the second stream: QUIC tells the other side of a stream only when there is data on it.
const SECOND_STREAM: u8 = 2;
/// How often a peer that is watched closely is asked whether its process lives.
const CLOSE_WATCH: Duration = Duration::from_millis(10);
/// How often any other peer is asked.
const WATCH: Duration = Duration::from_millis(250);

/// A connection on which both sides have greeted each other and opened both streams.
pub(super) struct Link {
    pub(super) connection: Connection,
    pub(super) consensus: (SendStream, RecvStream),
    pub(super) other: (SendStream, RecvStream),
    /// The epoch of this node's identity under which it was made.
    pub(super) epoch: u64,
}

/// How a connection of two members ended.
#[derive(Debug)]
pub(super) enum Ending {
    /// QUIC ended it.
    Broken(ConnectionError),
    /// A stream ended alone, which no member does.
    StreamEnded,
    /// The peer sent what is no frame.
    Malformed(FrameError),
    /// The peer's machine says that nobody listens.
    NobodyListens,
    /// A newer connection takes over.
    Replaced,
    /// The peer was let go, or this node changed its identity.
    Unwanted,
    /// This node stops, and why.
    Stopping(String),
}

impl Ending {
    /// What consensus is told. A reset shows that the process has ended even though another runs in its place.
    pub(super) fn event(&self) -> LinkEvent {
        match self {
            Ending::NobodyListens | Ending::Broken(ConnectionError::Reset) => LinkEvent::Refused,
            Ending::Broken(ConnectionError::ApplicationClosed(end))
                if end.error_code.into_inner() == u64::from(close::STOPPING) =>
            {
                LinkEvent::Refused
            }
            _ => LinkEvent::Lost,
        }
    }

    /// What the other side is told, where it can still hear it.
    pub(super) fn close_code(&self) -> (u32, String) {
        match self {
            Ending::Malformed(error) => {
                let code = close::REFUSED + RefusalCode::Malformed as u32;
                (
                    code,
                    format!("not understood: {error}: run the same version of Quorate on both nodes"),
                )
            }
            Ending::StreamEnded => {
                let code = close::REFUSED + RefusalCode::Malformed as u32;
                (code, "a stream ended before its connection".to_owned())
            }
            Ending::NobodyListens => (close::DEAD, String::new()),
            Ending::Replaced => (close::REPLACED, "replaced by a newer connection".to_owned()),
            Ending::Unwanted => (close::CHANGED, "no longer a peer under this identity".to_owned()),
            Ending::Stopping(reason) => (close::STOPPING, reason.clone()),
            Ending::Broken(_) => (close::DONE, String::new()),
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ending::Broken(ConnectionError::Reset) => formatter.write_str("the peer's process was restarted"),
            Ending::Broken(ConnectionError::TimedOut) => formatter.write_str("the peer has fallen silent"),
            Ending::Broken(error) => error.fmt(formatter),
            Ending::StreamEnded => formatter.write_str("a stream ended"),
            Ending::Malformed(error) => error.fmt(formatter),
            Ending::NobodyListens => formatter.write_str("nobody listens there any more"),
            Ending::Replaced => formatter.write_str("the peer has dialled anew"),
            Ending::Unwanted => formatter.write_str("this node has let it go"),
            Ending::Stopping(_) => formatter.write_str("this node stops"),
        }
    }
}

/// Opens the second stream, on the side that dialled.
pub(super) async fn open_second(connection: &Connection) -> Result<(SendStream, RecvStream), MessageError> {
    let ended = |error: String| MessageError::Ended(error);
    let (mut send, receive) = connection
        .open_bi()
        .await
        .map_err(|error| ended(error.to_string()))?;
    send.write_all(&[SECOND_STREAM])
        .await
        .map_err(|error| ended(error.to_string()))?;
    Ok((send, receive))
}

/// Accepts the second stream, on the side that was dialled. The dialler opens it once it is satisfied with the answer
/// to its greeting.
pub(super) async fn accept_second(connection: &Connection) -> Result<(SendStream, RecvStream), MessageError> {
    let ended = |error: String| MessageError::Ended(error);
    let (send, mut receive) = connection
        .accept_bi()
        .await
        .map_err(|error| ended(error.to_string()))?;
    let mut first = [0];
    receive
        .read_exact(&mut first)
        .await
        .map_err(|error| ended(error.to_string()))?;
    if first != [SECOND_STREAM] {
        return Err(MessageError::Ended("an unknown stream was opened".to_owned()));
    }
    Ok((send, receive))
}

/// Carries frames in both directions until the connection ends.
pub(super) async fn run(link: Link, peer: &PeerHandle, shared: &Shared) -> Ending {
    let Link {
        connection,
        consensus: (consensus_send, consensus_receive),
        other: (other_send, other_receive),
        ..
    } = link;
    // A failure means that the connection has ended, which the parts report.
    let _ = consensus_send.set_priority(CONSENSUS_PRIORITY);
    // Each part has a waker of its own, so that a datagram wakes only the part that it is for.
    let mut parts: FuturesUnordered<BoxFuture<'_, Ending>> = FuturesUnordered::new();
    parts.push(Box::pin(write(&connection, consensus_send, &peer.consensus)));
    parts.push(Box::pin(write(&connection, other_send, &peer.other)));
    parts.push(Box::pin(read(
        &connection,
        consensus_receive,
        peer,
        &peer.consensus_budget,
        shared,
    )));
    parts.push(Box::pin(read(
        &connection,
        other_receive,
        peer,
        &peer.other_budget,
        shared,
    )));
    parts.push(Box::pin(async { Ending::Broken(connection.closed().await) }));
    parts.push(Box::pin(watch(&connection, peer, shared)));
    parts.next().await.unwrap_or(Ending::StreamEnded)
}

async fn write(connection: &Connection, mut stream: SendStream, queue: &Queue) -> Ending {
    loop {
        let mut buffers = queue.take().await;
        let bytes = buffers.iter().map(Bytes::len).sum();
        if stream.write_all_chunks(&mut buffers).await.is_err() {
            return ended(connection);
        }
        queue.written(bytes);
    }
}

async fn read(
    connection: &Connection,
    mut stream: RecvStream,
    peer: &PeerHandle,
    budget: &FrameBudget,
    shared: &Shared,
) -> Ending {
    let mut reader = FrameReader::default();
    loop {
        let mut input = match stream.read_chunk(usize::MAX, true).await {
            Ok(Some(chunk)) => chunk.bytes,
            Ok(None) | Err(_) => return ended(connection),
        };
        loop {
            match reader.next(&mut input) {
                Ok(Some((frame, bytes))) => {
                    Counts::add(&peer.counters.frames_received, 1);
                    Counts::add(&peer.counters.bytes_received, bytes);
                    budget.put(&shared.events, peer.peer.id, frame, bytes).await;
                }
                Ok(None) => break,
                Err(error) => return Ending::Malformed(error),
            }
        }
    }
}

fn ended(connection: &Connection) -> Ending {
    connection
        .close_reason()
        .map_or(Ending::StreamEnded, Ending::Broken)
}

/// Asks the peer's machine again and again whether its process lives: QUIC itself notices a killed process only by
/// its silence.
async fn watch(connection: &Connection, peer: &PeerHandle, shared: &Shared) -> Ending {
    let Ok(mut probe) = shared.ports.network.probe(connection.remote_address()) else {
        // Without a probe the idle time-out remains.
        return std::future::pending().await;
    };
    loop {
        let closely = peer.watched.load(Ordering::Relaxed);
        let interval = if closely { CLOSE_WATCH } else { WATCH };
        tokio::select! {
            biased;
            refused = shared.is_refused(probe.as_mut(), interval) => {
                if refused {
                    return Ending::NobodyListens;
                }
            }
            () = peer.watch_changed.notified() => {}
        }
    }
}
