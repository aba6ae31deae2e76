//! What a process holds of its machine: tasks, connections, open files. A process that keeps what it does not need any
//! more ends some day, and not in a simulated minute; so it is counted.
//!
//! Everything is counted from outside, where the node takes it from its ports: QUIC asks a socket for one poller a
//! connection and keeps it until nobody holds the connection any more; lanes, sockets and files pass through the ports;
//! the runtime knows its tasks. Streams are not counted: QUIC lets two nodes have four on a connection, so a link on
//! which one is left behind stands still soon.
//!
//! When clients are gone and all members agree, each of them needs one connection to each other one, and what
//! [`allowed`] says besides.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Handle;

/// How many of something there are: as many as marks were given and not dropped.
#[derive(Debug, Default)]
pub(super) struct Tally(Arc<()>);

/// One of what a [`Tally`] counts; the thing keeps it as long as it lives.
#[derive(Debug)]
pub(super) struct Mark(#[expect(dead_code, reason = "it counts by being there")] Arc<()>);

impl Tally {
    pub(super) fn mark(&self) -> Mark {
        Mark(Arc::clone(&self.0))
    }

    fn count(&self) -> usize {
        Arc::strong_count(&self.0) - 1
    }
}

/// What one life of a node takes from its ports.
#[derive(Debug, Default)]
pub(super) struct Taken {
    runtime: Mutex<Option<Handle>>,
    pub(super) lanes: Tally,
    pub(super) connections: Tally,
    pub(super) probes: Tally,
    pub(super) clients: Tally,
    pub(super) files: Tally,
}

impl Taken {
    /// The process runs on the runtime that this is called on.
    pub(super) fn begin(&self) {
        *self.runtime.lock().unwrap_or_else(PoisonError::into_inner) = Some(Handle::current());
    }

    pub(super) fn holdings(&self) -> Holdings {
        let runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner);
        Holdings {
            tasks: runtime
                .as_ref()
                .map_or(0, |runtime| runtime.metrics().num_alive_tasks()),
            lanes: self.lanes.count(),
            connections: self.connections.count(),
            probes: self.probes.count(),
            clients: self.clients.count(),
            files: self.files.count(),
        }
    }
}

/// How much a process holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    /// Tasks of its runtime: those of QUIC, of the transport and of the client API.
    pub tasks: usize,
    /// Lanes.
    pub lanes: usize,
    /// QUIC connections with other nodes, also those that have ended and are still held.
    pub connections: usize,
    /// Sockets that ask whether the process of another node lives.
    pub probes: usize,
    /// Connections of clients.
    pub clients: usize,
    /// Open files, databases among them.
    pub files: usize,
}

impl Holdings {
    /// Whether nothing of it is more than in `allowed`.
    pub(super) fn are_within(&self, allowed: &Holdings) -> bool {
        self.tasks <= allowed.tasks
            && self.lanes <= allowed.lanes
            && self.connections <= allowed.connections
            && self.probes <= allowed.probes
            && self.clients <= allowed.clients
            && self.files <= allowed.files
    }
}

impl fmt::Display for Holdings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Holdings {
            tasks,
            lanes,
            connections,
            probes,
            clients,
            files,
        } = self;
        write!(
            formatter,
            "{tasks} tasks, {lanes} lanes, {connections} connections, {probes} probes, {clients} clients, {files} files"
        )
    }
}

/// Who is around a member when it rests.
#[derive(Clone, Copy, Debug)]
pub(super) struct Around {
    /// Other members.
    pub(super) members: usize,
    /// Machines that are no members and run: they knock again and again.
    pub(super) guests: usize,
    /// Connections that clients have opened to it and not closed.
    pub(super) clients: usize,
    /// How many of them may be over QUIC.
    pub(super) over_quic: usize,
}

/// Lanes of a node: for its log, the reader of that, entries to apply, records, snapshots, rows, and two for files.
const LANES: usize = 8;
/// The tasks of a node alone, with the two that wait for clients over QUIC.
const TASKS: usize = 10;
/// For each member: the one that keeps the connection to it, and the one that drives that.
const TASKS_A_MEMBER: usize = 2;
/// For each connection of a client.
const TASKS_A_CLIENT: usize = 2;
/// Besides for one over QUIC, which is itself, who serves it, its pipeline, and an exchange.
const TASKS_MORE_OVER_QUIC: usize = 2;
/// A guest that knocks: its connection, which lives on for three round trips when it has ended, and the next one.
const CONNECTIONS_A_GUEST: usize = 3;
/// Databases, the segment that is written, those that are being read, the snapshot, and a few small ones.
const FILES: usize = 10;

/// What a member that rests may hold.
pub(super) fn allowed(around: Around) -> Holdings {
    let guests = CONNECTIONS_A_GUEST * around.guests;
    Holdings {
        tasks: TASKS
            + TASKS_A_MEMBER * (around.members + guests)
            + TASKS_A_CLIENT * around.clients
            + TASKS_MORE_OVER_QUIC * around.over_quic,
        lanes: LANES,
        connections: around.members + guests,
        probes: around.members + guests,
        clients: around.clients,
        files: FILES,
    }
}
