//! What clients and owners do with sessions, and the duty of leaders to place them.
//!
//! A few sessions are made, touched and ended again and again. A node's application touches what its own state says
//! that the node owns, in the epoch that it knows: the state may be far behind, and then the touch must be refused. Nodes
//! are drained and taken back, and balance is asked for.

use std::time::Duration;

use bytes::Bytes;
use quorate_core::duties::{Host, Placement};
use quorate_core::raft::{Entry, NodeId, Payload, Role};
use quorate_core::state::{
    Command, Drain, Presence, Reply, Session, SessionCommand, SessionId, SessionReply, StateMachine,
};

use super::checker::Verdict;
use super::data::DataEvent;
use super::node::Run;
use super::plan::Knobs;
use super::schedule::{MILLISECOND, Time};
use super::world::{Event, World};
use crate::random::Stream;

/// The mean time between two requests about sessions.
const REQUEST_MEAN: Time = 60 * MILLISECOND;
/// How many ids sessions have.
const SESSIONS: u64 = 12;

/// What the clients of sessions remember.
#[derive(Debug)]
pub(super) struct Sessions {
    random: Stream,
}

impl Sessions {
    pub(super) fn new(random: Stream) -> Sessions {
        Sessions { random }
    }
}

/// The duty of a node that may lead.
pub(super) fn placement(knobs: &Knobs) -> Placement {
    // Beyond what a leader takes to find out that it leads no more.
    Placement::new(Duration::from_nanos(3 * knobs.election_timeout()))
}

impl World {
    pub(super) fn begin_sessions(&mut self) {
        self.schedule.after(REQUEST_MEAN, Event::Data(DataEvent::Session));
    }

    pub(super) fn session_request(&mut self) -> Verdict {
        if self.recovery.is_some() {
            return Ok(());
        }
        let random = &mut self.sessions.random;
        let delay = random.around(REQUEST_MEAN);
        let number = random.below(SESSIONS);
        let session = SessionId::new(&format!("session-{number}")).expect("letters and digits");
        let now_ms = self.schedule.now() / MILLISECOND;
        let command = match random.below(100) {
            0..=29 => SessionCommand::Create {
                session: Some(session),
                client: "client".to_owned(),
                payload: Bytes::from_static(b"payload"),
                now_ms,
            },
            30..=69 => {
                self.schedule.after(delay, Event::Data(DataEvent::Session));
                return self.owner_touches(now_ms);
            }
            70..=77 => SessionCommand::Delete { session, epoch: None },
            78..=85 => SessionCommand::Drain {
                node: NodeId(1 + random.below(self.nodes_first)),
                drain: *random.pick(&[Drain::No, Drain::No, Drain::Yes, Drain::Forced]),
            },
            86..=91 => SessionCommand::Rebalance,
            _ => SessionCommand::SetCapacity {
                node: NodeId(1 + random.below(self.nodes_first)),
                capacity: *random.pick(&[2, 8, 100]),
            },
        };
        self.schedule.after(delay, Event::Data(DataEvent::Session));
        self.data_attempt(Command::Session(command).encode())
    }

    /// The application of some node touches a session that it takes for its own.
    fn owner_touches(&mut self, now_ms: u64) -> Verdict {
        let now = self.schedule.now();
        let moving: Vec<Run> = self.nodes.moving(now).map(|(node, _)| node.run()).collect();
        if moving.is_empty() {
            return Ok(());
        }
        let run = *self.sessions.random.pick(&moving);
        let owned: Vec<Session> = match self.nodes.live(run) {
            Some(live) => live.process.machine.sessions_of(run.node, None).collect(),
            None => return Ok(()),
        };
        if owned.is_empty() {
            return Ok(());
        }
        let Session { id, epoch, .. } = self.sessions.random.pick(&owned).clone();
        let touch = SessionCommand::Touch {
            session: id,
            epoch: Some(epoch),
            payload: None,
            now_ms,
        };
        self.data_attempt(Command::Session(touch).encode())
    }

    /// A node applied a command that may have changed sessions.
    pub(super) fn sessions_applied(&mut self, run: Run, entry: &Entry, reply: &Reply) -> Verdict {
        let Payload::Command(command) = &entry.payload else {
            return Ok(());
        };
        let Ok(Command::Session(command)) = Command::decode(command) else {
            return Ok(());
        };
        let Some(live) = self.nodes.live(run) else {
            return Ok(());
        };
        let index = entry.position.index;
        if !self.checkers.sessions.is_new(index) {
            return Ok(());
        }
        if let Reply::Session(SessionReply::Placement { moved, .. }) = reply {
            self.statistics.session_moves += moved;
        }
        let machine = &live.process.machine;
        self.checkers.sessions.applied(index, &command, reply, machine)
    }

    /// What the placement of sessions lacks, as the leader's state has it: every host is there, and nothing is to move.
    pub(super) fn what_sessions_want(&self, leader: NodeId) -> Option<String> {
        let process = self.nodes.get(leader)?.process.as_ref()?;
        let status = process.raft.status();
        if status.role != Role::Leader {
            return None;
        }
        let machine = &process.machine;
        let presence = |id: NodeId| known_presence(machine, id);
        let hosts = Host::all(&status);
        if let Some(host) = hosts
            .iter()
            .filter(|host| self.nodes.get(host.id).is_some_and(|node| !node.gone))
            .find(|host| presence(host.id) != Some(Presence::Present))
        {
            return Some(format!("no sessions are placed on {}, which is there", host.id));
        }
        machine
            .wants_session_step()
            .then(|| "sessions are to be moved".to_owned())
    }

    /// A session of a node that is down for good, and that others could have.
    pub(super) fn forsaken_session(&self, leader: NodeId) -> Option<String> {
        let machine = &self.nodes.get(leader)?.process.as_ref()?.machine;
        let is_down = |id: NodeId| {
            let node = self.nodes.get(id);
            !self.is_healed(id) && node.is_none_or(|node| node.process.is_none())
        };
        let has_room = machine.session_nodes().any(|load| {
            load.is_open() && load.sessions < u64::from(load.place.capacity) && !is_down(load.node)
        });
        let down = machine
            .session_nodes()
            .find(|load| is_down(load.node) && load.sessions > 0)?;
        has_room.then(|| {
            format!(
                "{} is down for good and has {} sessions",
                down.node, down.sessions
            )
        })
    }
}

fn known_presence(machine: &StateMachine, id: NodeId) -> Option<Presence> {
    let mut nodes = machine.session_nodes();
    nodes.find(|load| load.node == id).map(|load| load.place.presence)
}
