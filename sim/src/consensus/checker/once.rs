//! Requests that are made several times are carried out once, and every attempt has the same answer.
//!
//! What is carried out is seen by its revision: a second execution would have another one. Answers may be forgotten, but
//! not while their client may still ask: that ends with clocks that go ahead at once, on which ages rely.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_core::raft::Index;
use quorate_core::state::{ClientId, Command, Refusal, Reply, RequestId, Revision};

use super::{Verdict, demand};
use crate::consensus::schedule::{SECOND, Time};

const CHECKER: &str = "a request is carried out once";
/// Within which a client that did something is not forgotten.
const KEPT_AT_LEAST: Time = 3 * SECOND;
const MARK: &[u8] = b"request ";

/// The requests that were carried out.
#[derive(Debug, Default)]
pub(in crate::consensus) struct Requests {
    /// The last entry that was looked at; every node applies each.
    seen: Index,
    done: BTreeMap<u64, Revision>,
    clients: BTreeMap<ClientId, Time>,
    stepped: bool,
}

impl Requests {
    /// A clock went ahead at once.
    pub(in crate::consensus) fn clock_steps(&mut self) {
        self.stepped = true;
    }

    /// A node applied an entry, maybe the first one to do so.
    pub(in crate::consensus) fn applied(
        &mut self,
        now: Time,
        index: Index,
        command: &Command,
        reply: &Reply,
    ) -> Verdict {
        if index <= self.seen || self.stepped {
            return Ok(());
        }
        self.seen = index;
        if let Reply::Registered { client } = reply {
            self.clients.insert(*client, now);
        }
        let Command::Once { request, command } = command else {
            return Ok(());
        };
        let Some(serial) = serial_of(command) else {
            return Ok(());
        };
        let used = match request {
            // A client that is refused for being forgotten has done nothing.
            RequestId::Numbered { client, .. } if is_forgotten(reply) => self.clients.get(client).copied(),
            RequestId::Numbered { client, .. } => self.clients.insert(*client, now),
            RequestId::Key(_) => None,
        };
        let done = self.done.get(&serial).copied();
        match reply {
            Reply::Put { revision, .. } => {
                self.done.insert(serial, *revision);
                demand(done.is_none_or(|done| done == *revision), CHECKER, || {
                    format!("request {serial} has revision {revision} at {index}, and had {done:?} before")
                })
            }
            Reply::Refused(Refusal::AnswerForgotten) => demand(done.is_some(), CHECKER, || {
                format!("request {serial} counts as acknowledged at {index}, and was never carried out")
            }),
            Reply::Refused(Refusal::NoSuchClient(client)) => {
                let idle = used.map_or(Time::MAX, |used| now - used);
                demand(idle >= KEPT_AT_LEAST, CHECKER, || {
                    format!("client {client} is forgotten at {index}, {idle} ns after it did something")
                })
            }
            reply => demand(false, CHECKER, || {
                format!("request {serial} is answered with {reply:?} at {index}")
            }),
        }
    }
}

fn is_forgotten(reply: &Reply) -> bool {
    matches!(reply, Reply::Refused(Refusal::NoSuchClient(_)))
}

/// A value that names a request.
pub(in crate::consensus) fn serial_value(serial: u64) -> Bytes {
    [MARK, &serial.to_le_bytes()].concat().into()
}

fn serial_of(command: &[u8]) -> Option<u64> {
    let Ok(Command::Put(put)) = Command::decode(command) else {
        return None;
    };
    let serial = put.value?.strip_prefix(MARK)?.try_into().ok()?;
    Some(u64::from_le_bytes(serial))
}
