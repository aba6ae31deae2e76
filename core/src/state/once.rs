//! Requests that are carried out once, however often they are made.
//!
//! A client that hears nothing asks again, and the first attempt may have been carried out. So the answer to a request
//! is kept under what tells the request from others: a key of the client's choice, or the number that a registered
//! client gives it (Raft dissertation, section 6.3). The table is part of the state: it goes through the log, into the
//! rows and into every snapshot, and what is forgotten is forgotten by a command, on all nodes alike.
//!
//! It is bounded: in age, by what the leader's duties propose ([`duties::Ages`](crate::duties::Ages)); in count and in
//! bytes, by what was used least lately giving way.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::row::Row;
use super::{Malformed, Refusal};
use crate::raft::Index;

/// A registered client: the index of the entry that registered it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClientId(pub Index);

impl fmt::Display for ClientId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// What tells a request from others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RequestId {
    /// A key that the client made up, and uses for this request only.
    Key(Bytes),
    /// The number that a registered client gives it.
    Numbered {
        /// The client.
        client: ClientId,
        /// The number; a client uses each for one request.
        number: u64,
        /// The client has the answers to all requests below this number, and will not ask for them again.
        acknowledged: u64,
    },
}

/// How long the key of a request may be, in bytes.
pub const REQUEST_KEY_BYTES_MAX: usize = 128;
/// How many answers of a client are kept that it has not acknowledged.
pub const ANSWERS_MAX: usize = 1024;
/// How many bytes of answers a client may leave unacknowledged, about: one more is kept in any case.
pub const CLIENT_ANSWER_BYTES_MAX: usize = 4 << 20;
/// How many keys of requests and clients are kept.
pub const HOLDERS_MAX: usize = 1 << 16;
/// How many bytes of answers are kept, about.
pub const ANSWER_BYTES_MAX: usize = 64 << 20;
/// What an answer takes in memory beside its bytes, about.
const OVERHEAD: usize = 200;
/// How many keys and clients one command forgets at the most; what is left is forgotten by the next.
const FORGOTTEN_AT_ONCE: usize = 10_000;

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Answer {
    /// The entry that carried it out.
    pub(super) index: Index,
    /// A hash of the command.
    pub(super) digest: u64,
    /// The encoded reply.
    pub(super) reply: Bytes,
}

/// A registered client as its row tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ClientRow {
    /// The last entry that it caused.
    pub(super) used: Index,
    /// It has the answers to all requests below this number.
    pub(super) acknowledged: u64,
}

#[derive(Clone, Debug)]
struct Client {
    row: ClientRow,
    answers: BTreeMap<u64, Answer>,
    /// What those take.
    bytes: usize,
}

/// Who holds a place in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Holder {
    Key(Bytes),
    Client(ClientId),
}

/// All answers that are kept.
#[derive(Clone, Debug, Default)]
pub(super) struct OnceTable {
    keys: BTreeMap<Bytes, Answer>,
    clients: BTreeMap<ClientId, Client>,
    /// Every holder, by the entry that used it last.
    by_use: BTreeMap<Index, Holder>,
    bytes: usize,
}

/// What is known of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// It was not carried out.
    New,
    /// It was carried out, with this encoded reply.
    Answered(Bytes),
}

/// How much was forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Dropped {
    pub(super) answers: u64,
    pub(super) clients: u64,
}

impl OnceTable {
    /// How many keys of requests and clients are kept.
    pub(super) fn holders(&self) -> usize {
        self.by_use.len()
    }

    /// The entry that used what was used least lately.
    pub(super) fn oldest(&self) -> Option<Index> {
        self.by_use.first_key_value().map(|(index, _)| *index)
    }

    pub(super) fn register(&mut self, index: Index, rows: &mut Vec<Row>) -> ClientId {
        let id = ClientId(index);
        let row = ClientRow {
            used: index,
            acknowledged: 0,
        };
        rows.push(Row::client(id, row));
        self.load_client(id, row);
        self.make_room(index, rows);
        id
    }

    /// Looks a request up before it is carried out at `index`; a client of whom one is made is in use.
    pub(super) fn look_up(
        &mut self,
        request: &RequestId,
        digest: u64,
        index: Index,
        rows: &mut Vec<Row>,
    ) -> Result<Known, Refusal> {
        let known = match request {
            RequestId::Key(key) if key.is_empty() || key.len() > REQUEST_KEY_BYTES_MAX => {
                return Err(Malformed::RequestKey.into());
            }
            RequestId::Key(key) => self.keys.get(key),
            RequestId::Numbered {
                client: id,
                number,
                acknowledged,
            } => {
                let client = self.clients.get_mut(id).ok_or(Refusal::NoSuchClient(*id))?;
                self.by_use.remove(&client.row.used);
                self.by_use.insert(index, Holder::Client(*id));
                client.row.used = index;
                client.row.acknowledged = client.row.acknowledged.max(*acknowledged);
                rows.push(Row::client(*id, client.row));
                while let Some(first) = client.answers.first_entry()
                    && *first.key() < client.row.acknowledged
                {
                    rows.push(Row::client_answer_gone(*id, *first.key()));
                    let size = first.remove().size();
                    client.bytes -= size;
                    self.bytes -= size;
                }
                if *number < client.row.acknowledged {
                    return Err(Refusal::AnswerForgotten);
                }
                let is_full = client.answers.len() >= ANSWERS_MAX || client.bytes >= CLIENT_ANSWER_BYTES_MAX;
                if is_full && !client.answers.contains_key(number) {
                    return Err(Refusal::TooManyAnswers);
                }
                client.answers.get(number)
            }
        };
        match known {
            None => Ok(Known::New),
            Some(answer) if answer.digest == digest => Ok(Known::Answered(answer.reply.clone())),
            Some(_) => Err(Refusal::DifferentRequest),
        }
    }

    /// Keeps the answer to a new request.
    pub(super) fn keep(&mut self, request: RequestId, answer: Answer, rows: &mut Vec<Row>) {
        let index = answer.index;
        match request {
            RequestId::Key(key) => {
                rows.push(Row::request_key(&key, &answer));
                self.load_key(key, answer);
            }
            RequestId::Numbered { client, number, .. } => {
                rows.push(Row::client_answer(client, number, &answer));
                let kept = self.load_client_answer(client, number, answer);
                assert!(kept, "the client was looked up");
            }
        }
        self.make_room(index, rows);
    }

    /// Forgets what was last used before `before`, the oldest first.
    pub(super) fn forget(&mut self, before: Index, rows: &mut Vec<Row>) -> Dropped {
        let mut dropped = Dropped::default();
        for _ in 0..FORGOTTEN_AT_ONCE {
            if self.oldest().is_none_or(|oldest| oldest >= before) {
                break;
            }
            self.drop_oldest(&mut dropped, rows);
        }
        dropped
    }

    /// Lets what was used least lately give way, but not what is used at `index`.
    fn make_room(&mut self, index: Index, rows: &mut Vec<Row>) {
        while (self.by_use.len() > HOLDERS_MAX || self.bytes > ANSWER_BYTES_MAX)
            && self.oldest().is_some_and(|oldest| oldest < index)
        {
            self.drop_oldest(&mut Dropped::default(), rows);
        }
    }

    fn drop_oldest(&mut self, dropped: &mut Dropped, rows: &mut Vec<Row>) {
        match self.by_use.pop_first() {
            None => {}
            Some((_, Holder::Key(key))) => {
                rows.push(Row::request_key_gone(&key));
                dropped.answers += 1;
                self.bytes -= self.keys.remove(&key).map_or(0, |answer| answer.size());
            }
            Some((_, Holder::Client(id))) => {
                rows.push(Row::client_gone(id));
                dropped.clients += 1;
                let answers = self
                    .clients
                    .remove(&id)
                    .map_or(BTreeMap::new(), |client| client.answers);
                for (number, answer) in answers {
                    rows.push(Row::client_answer_gone(id, number));
                    dropped.answers += 1;
                    self.bytes -= answer.size();
                }
            }
        }
    }

    pub(super) fn load_key(&mut self, key: Bytes, answer: Answer) {
        self.bytes += answer.size();
        self.by_use.insert(answer.index, Holder::Key(key.clone()));
        self.keys.insert(key, answer);
    }

    pub(super) fn load_client(&mut self, id: ClientId, row: ClientRow) {
        self.by_use.insert(row.used, Holder::Client(id));
        let client = Client {
            row,
            answers: BTreeMap::new(),
            bytes: 0,
        };
        self.clients.insert(id, client);
    }

    /// An answer of a client; its own row comes before. False when there is no such client.
    pub(super) fn load_client_answer(&mut self, id: ClientId, number: u64, answer: Answer) -> bool {
        let Some(client) = self.clients.get_mut(&id) else {
            return false;
        };
        self.bytes += answer.size();
        client.bytes += answer.size();
        client.answers.insert(number, answer);
        true
    }

    /// Whether something was used last at `index`.
    pub(super) fn is_used_at(&self, index: Index) -> bool {
        self.by_use.contains_key(&index)
    }

    /// Whether every holder has a place of its own.
    pub(super) fn is_consistent(&self) -> bool {
        self.by_use.len() == self.keys.len() + self.clients.len()
    }

    /// All of it as rows, in the order of their keys.
    pub(super) fn rows(&self) -> impl Iterator<Item = Row> {
        let keys = self
            .keys
            .iter()
            .map(|(key, answer)| Row::request_key(key, answer));
        let clients = self
            .clients
            .iter()
            .map(|(id, client)| Row::client(*id, client.row));
        let answers = self.clients.iter().flat_map(|(id, client)| {
            let answers = client.answers.iter();
            answers.map(move |(number, answer)| Row::client_answer(*id, *number, answer))
        });
        keys.chain(clients).chain(answers)
    }
}

impl Answer {
    fn size(&self) -> usize {
        OVERHEAD + self.reply.len()
    }
}
