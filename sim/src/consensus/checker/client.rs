//! What clients may rely on: one answer a request, nothing acknowledged lost or doubled, nothing refused done, and
//! reads that see everything acknowledged before they began.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_core::raft::{Entry, Index, Outcome, Payload, Token};
use quorate_core::state::{Command, Operation};

use super::{Breach, Verdict, demand};
use crate::consensus::node::Run;

/// Names a write across its attempts; carried in its value.
pub(in crate::consensus) type Serial = u64;

/// A request that has no answer yet.
#[derive(Clone, Debug)]
pub(in crate::consensus) struct Request {
    /// Whom it was put to.
    pub(in crate::consensus) run: Run,
    /// What was asked.
    pub(in crate::consensus) kind: RequestKind,
}

/// What was asked.
#[derive(Clone, Debug)]
pub(in crate::consensus) enum RequestKind {
    /// A command; a write with a serial can be told from every other.
    Command {
        serial: Option<Serial>,
        command: Bytes,
        attempt: u32,
    },
    /// A read that began when everything up to this index had been acknowledged or seen.
    Read {
        floor: Index,
        /// Whether the leader that was asked held a lease.
        lease: bool,
    },
    /// A change of the membership.
    Change,
    /// A hand-over of the leadership.
    Transfer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Under way, or lost from sight.
    Open,
    /// Every attempt was refused without being appended.
    Refused,
    /// Acknowledged.
    Acknowledged,
}

#[derive(Clone, Copy, Debug)]
struct Write {
    fate: Fate,
    committed: Option<Index>,
}

/// What clients asked and heard.
#[derive(Debug)]
pub(in crate::consensus) struct Clients {
    /// Whether committed entries are looked at.
    checks: bool,
    last_token: Token,
    open: BTreeMap<Token, Request>,
    writes: Vec<Write>,
    /// The highest index that was acknowledged to a writer or seen by a reader.
    seen: Index,
    pub(in crate::consensus) acknowledged: u64,
    pub(in crate::consensus) reads: u64,
}

impl Clients {
    /// Nothing was asked yet.
    pub(in crate::consensus) fn new(checks: bool) -> Clients {
        Clients {
            checks,
            last_token: Token::default(),
            open: BTreeMap::new(),
            writes: Vec::new(),
            seen: Index::default(),
            acknowledged: 0,
            reads: 0,
        }
    }

    /// A new serial.
    pub(in crate::consensus) fn new_write(&mut self) -> Serial {
        self.writes.push(Write {
            fate: Fate::Open,
            committed: None,
        });
        self.writes.len() as u64 - 1
    }

    /// A client puts a request to a node.
    pub(in crate::consensus) fn ask(&mut self, run: Run, kind: RequestKind) -> Token {
        if let RequestKind::Command {
            serial: Some(serial), ..
        } = kind
        {
            self.write(serial).fate = Fate::Open;
        }
        self.last_token = self.last_token.next();
        self.open.insert(self.last_token, Request { run, kind });
        self.last_token
    }

    /// The index that a read which begins now must see.
    pub(in crate::consensus) fn floor(&self) -> Index {
        self.seen
    }

    /// Every node that had the entries from `index` on is lost. Returns how many writes were, and may be done again.
    pub(in crate::consensus) fn lost_from(&mut self, index: Index) -> u64 {
        self.seen = self.seen.min(index.previous());
        let mut lost = 0;
        for write in &mut self.writes {
            if write.committed.take_if(|committed| *committed >= index).is_some() {
                write.fate = Fate::Open;
                lost += 1;
            }
        }
        lost
    }

    /// A node stopped: its requests are never answered, and what became of them is not known.
    pub(in crate::consensus) fn stopped(&mut self, run: Run) {
        self.open.retain(|_, request| request.run != run);
    }

    /// The requests that have no answer yet, the oldest first.
    pub(in crate::consensus) fn open(&self) -> impl Iterator<Item = (Token, &Request)> {
        self.open.iter().map(|(token, request)| (*token, request))
    }

    /// Whether a write was acknowledged.
    pub(in crate::consensus) fn is_acknowledged(&self, serial: Serial) -> bool {
        usize::try_from(serial)
            .ok()
            .and_then(|place| self.writes.get(place))
            .is_some_and(|write| write.fate == Fate::Acknowledged)
    }

    /// Whether a write was seen committed.
    pub(in crate::consensus) fn is_committed(&self, serial: Serial) -> bool {
        usize::try_from(serial)
            .ok()
            .and_then(|place| self.writes.get(place))
            .is_some_and(|write| write.committed.is_some())
    }

    /// An entry is committed that was not seen committed before.
    pub(in crate::consensus) fn committed(&mut self, index: Index, payload: &Payload) -> Verdict {
        let Payload::Command(command) = payload else {
            return Ok(());
        };
        if !self.checks {
            return Ok(());
        }
        let Some(serial) = serial_of(command) else {
            return Ok(());
        };
        demand(
            serial < self.writes.len() as u64,
            "nothing appears from nowhere",
            || format!("entry {index} holds write {serial}, which nobody asked for"),
        )?;
        let write = self.write(serial);
        let before = write.committed.replace(index);
        let fate = write.fate;
        demand(before.is_none(), "exactly once", || {
            format!("write {serial} is committed at {before:?} and at {index}")
        })?;
        demand(
            fate != Fate::Refused,
            "a refusal means that nothing was appended",
            || format!("write {serial} was refused and is committed at {index}"),
        )
    }

    /// A committed entry was applied by a node that owes a client the reply. Returns which attempt this was.
    pub(in crate::consensus) fn replied(
        &mut self,
        run: Run,
        token: Token,
        entry: &Entry,
    ) -> Result<u32, Breach> {
        let request = self.answer(run, token, "a reply")?;
        let RequestKind::Command {
            serial,
            command,
            attempt,
        } = request.kind
        else {
            return Err(wrong_answer(token, "a reply to something else than a command"));
        };
        let index = entry.position.index;
        let same = matches!(&entry.payload, Payload::Command(applied) if *applied == command);
        demand(same, "one answer a request", || {
            format!("{token:?} is answered with entry {index}, which holds another command")
        })?;
        self.seen = self.seen.max(index);
        self.acknowledged += 1;
        let Some(serial) = serial else {
            return Ok(attempt);
        };
        let write = self.write(serial);
        write.fate = Fate::Acknowledged;
        let found = write.committed;
        demand(
            !self.checks || found == Some(index),
            "nothing acknowledged is lost",
            || format!("write {serial} is acknowledged at {index}; it is committed at {found:?}"),
        )?;
        Ok(attempt)
    }

    /// Consensus answers a request.
    pub(in crate::consensus) fn outcome(
        &mut self,
        run: Run,
        token: Token,
        outcome: &Outcome,
    ) -> Result<Request, Breach> {
        let request = self.answer(run, token, "an outcome")?;
        match (&request.kind, outcome) {
            (RequestKind::Command { serial, .. }, Outcome::NotLeader { .. } | Outcome::Busy) => {
                if let Some(serial) = *serial {
                    self.refused(serial)?;
                }
            }
            (RequestKind::Read { floor, .. }, Outcome::ReadReady { index }) => {
                demand(index >= floor, "reads are linearizable", || {
                    format!("a read is ready at {index}; everything up to {floor} was seen before it began")
                })?;
            }
            (RequestKind::Command { .. }, Outcome::Unknown)
            | (RequestKind::Read { .. }, Outcome::NotLeader { .. } | Outcome::Busy) => {}
            (
                RequestKind::Change | RequestKind::Transfer,
                Outcome::Done | Outcome::Unknown | Outcome::Refused(_) | Outcome::NotLeader { .. },
            ) => {}
            _ => {
                return Err(wrong_answer(
                    token,
                    &format!("{:?} for {:?}", outcome, request.kind),
                ));
            }
        }
        Ok(request)
    }

    /// A reader looks at a state that reaches up to `applied`.
    pub(in crate::consensus) fn read(&mut self, applied: Index) {
        self.seen = self.seen.max(applied);
        self.reads += 1;
    }

    fn refused(&mut self, serial: Serial) -> Verdict {
        let write = self.write(serial);
        write.fate = Fate::Refused;
        let committed = write.committed;
        demand(
            committed.is_none(),
            "a refusal means that nothing was appended",
            || format!("write {serial} is refused and was committed at {committed:?}"),
        )
    }

    fn answer(&mut self, run: Run, token: Token, what: &str) -> Result<Request, Breach> {
        match self.open.remove(&token) {
            Some(request) if request.run == run => Ok(request),
            Some(request) => Err(wrong_answer(
                token,
                &format!("{what} by {run}, but it was put to {}", request.run),
            )),
            None => Err(wrong_answer(
                token,
                &format!("{what} by {run}, but it is answered already or was never asked"),
            )),
        }
    }

    fn write(&mut self, serial: Serial) -> &mut Write {
        let place = usize::try_from(serial).expect("a run has few writes");
        &mut self.writes[place]
    }
}

fn wrong_answer(token: Token, what: &str) -> Breach {
    Breach {
        checker: "one answer a request",
        seen: format!("{token:?} got {what}"),
    }
}

/// The value of a write with a serial.
pub(in crate::consensus) fn value_of(serial: Serial) -> Bytes {
    Bytes::copy_from_slice(&serial.to_le_bytes())
}

/// The serial in a command, if it has one: in a put, or in the put of a transaction.
fn serial_of(command: &[u8]) -> Option<Serial> {
    let put = match Command::decode(command).ok()? {
        Command::Put(put) => put,
        Command::Transact(mut transaction) => match transaction.blocks.first_mut()?.then.pop()? {
            Operation::Put(put) => put,
            _ => return None,
        },
        _ => return None,
    };
    put.value?.as_ref().try_into().ok().map(u64::from_le_bytes)
}
