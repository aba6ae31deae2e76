//! The state machine: commands in, replies and changed rows out.
//!
//! Invariants: `applied` rises by one index with every call; every `mod_revision` is at most the revision, and
//! `create_revision <= mod_revision`; a key that names a lease is attached to it, and no other key is.

use bytes::Bytes;
use thiserror::Error;

use super::fingerprint::{Fingerprint, digest};
use super::keys::KeySpace;
use super::lease::{LEASES_MAX, LeaseTable, TTL_MAX};
use super::once::{Answer, Known, OnceTable};
use super::row::{Row, Summary};
use super::session::{SessionTable, SessionWriter};
use super::settings::SettingsWriter;
use super::space::Space;
use super::stream::StreamTable;
use super::writer::Writer;
use super::{
    Command, Cut, Found, Grant, GroupView, KeyValue, Lease, LeaseEvent, LeaseId, Malformed, Offset,
    PartitionEnds, Put, Query, ReadError, Refusal, Reply, RequestId, Revision, SettingsCommand,
    SettingsRefusal, StreamCommand, StreamId, StreamView, Transacted, Transaction,
};
use crate::raft::{Index, Planted, PlantedBug, Position, Term};
use crate::time::WallTime;
use crate::wire::DecodeError;

/// The whole replicated state, in memory.
#[derive(Clone, Debug)]
pub struct StateMachine {
    pub(super) keys: KeySpace,
    pub(super) leases: LeaseTable,
    pub(super) sessions: SessionTable,
    pub(super) once: OnceTable,
    pub(super) streams: StreamTable,
    pub(super) applied: Position,
    pub(super) fingerprint: Fingerprint,
    /// The index of the last command, which wrote the summary row; 0 before the first.
    pub(super) summary_index: Index,
    /// Memory for the fingerprint to work in; holds nothing between calls.
    scratch: Vec<u8>,
    planted: Planted,
    /// Where the state was loaded, after a restart or from a snapshot; only a planted mistake looks at it.
    pub(super) loaded_at: Index,
}

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// For the client.
    pub reply: Reply,
    /// What changed, for the state store: together with the applied position, all or nothing.
    pub rows: Vec<Row>,
    /// What became of leases, for the leader's duties.
    pub leases: Vec<LeaseEvent>,
}

/// Why an entry cannot be applied. The node must stop: to skip the entry would make it differ from the others.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ApplyError {
    /// The bytes are not a command that this build knows.
    #[error("the command at {position} cannot be applied, and must not be skipped: {source}")]
    Undecodable {
        /// Where the command stands.
        position: Position,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// The driver left out an entry, or repeats one.
    #[error("the entry {position} cannot be applied: the state ends at {applied}")]
    OutOfOrder {
        /// Where the entry stands.
        position: Position,
        /// Up to where the state was applied.
        applied: Position,
    },
}

/// How often the planted mistake of a node that forgets on its own is made, in entries.
const LOCAL_EXPIRY: u64 = 16;

/// What a command changes, as it is carried out.
#[derive(Debug, Default)]
struct Effects {
    rows: Vec<Row>,
    leases: Vec<LeaseEvent>,
}

impl Default for StateMachine {
    fn default() -> StateMachine {
        StateMachine::new()
    }
}

impl StateMachine {
    /// A state that nothing was applied to.
    pub fn new() -> StateMachine {
        StateMachine {
            keys: KeySpace::default(),
            leases: LeaseTable::default(),
            sessions: SessionTable::default(),
            once: OnceTable::default(),
            streams: StreamTable::default(),
            applied: Position::default(),
            fingerprint: Fingerprint::EMPTY,
            summary_index: Index::default(),
            scratch: Vec::new(),
            planted: Planted::NONE,
            loaded_at: Index::default(),
        }
    }

    /// Makes a mistake on purpose from now on.
    pub fn plant(&mut self, planted: Planted) {
        self.planted = planted;
    }

    /// Applies the command of the entry at `position`, the one after [`applied`](StateMachine::applied).
    ///
    /// # Errors
    /// When the command is not known to this build or the position is not the next one. Nothing changed then, and the
    /// node must stop.
    pub fn apply(&mut self, position: Position, command: &[u8]) -> Result<Applied, ApplyError> {
        self.check_next(position)?;
        let undecodable = |source| ApplyError::Undecodable { position, source };
        let command = Command::decode(command).map_err(undecodable)?;
        let inner = match &command {
            Command::Once { command, .. } => Some(Command::decode(command).map_err(undecodable)?),
            _ => None,
        };
        if self.planted.is(PlantedBug::SessionExpiresLocally) && position.index.0.is_multiple_of(LOCAL_EXPIRY)
        {
            self.once.forget(self.loaded_at, &mut Vec::new());
        }
        let mut effects = Effects::default();
        let outcome = match (command, inner) {
            (Command::Once { request, command }, Some(inner)) => {
                self.carry_out_once(position, request, &command, inner, &mut effects)
            }
            (command, _) => self.carry_out(position, command, &mut effects),
        };
        let reply = outcome.unwrap_or_else(Reply::Refused);
        let compaction = matches!(reply, Reply::Compacted { .. })
            || matches!(
                reply,
                Reply::Refused(Refusal::Unreadable(ReadError::Compacted { .. }))
            );
        let Effects { mut rows, leases } = effects;
        self.keys.scavenge(compaction, &mut rows);
        self.fingerprint = self
            .fingerprint
            .after(position.index, &reply, &rows, &mut self.scratch);
        self.applied = position;
        self.summary_index = position.index;
        rows.push(self.summary_row());
        Ok(Applied { reply, rows, leases })
    }

    /// Moves past the entry at `position`, which holds no command. No row changes: the state store learns of it with
    /// the next command, or by storing the position alone.
    ///
    /// # Errors
    /// When the position is not the next one. Nothing changed then, and the node must stop.
    pub fn apply_empty(&mut self, position: Position) -> Result<(), ApplyError> {
        self.check_next(position)?;
        self.applied = position;
        Ok(())
    }

    /// The whole state as rows, for a snapshot; in the order of their keys. The records of streams come after them, from
    /// the driver.
    pub fn rows(&self) -> impl Iterator<Item = Row> {
        let summary = (self.summary_index > Index::default()).then(|| self.summary_row());
        let mut versions: Vec<_> = self.keys.versions().collect();
        versions.sort_by_key(|version| version.place());
        let leases = self.leases.grants().map(|(id, grant)| Row::lease(id, grant));
        let forgets = self.planted.is(PlantedBug::DuplicatesAreNotInTheSnapshot);
        let once = self.once.rows().filter(move |_| !forgets);
        summary
            .into_iter()
            .chain(versions.into_iter().map(Row::version))
            .chain(leases)
            .chain(once)
            .chain(self.sessions.rows())
            .chain(self.streams.rows())
    }

    /// What `key` is, if it exists. Shares the bytes.
    pub fn get(&self, key: &[u8]) -> Option<KeyValue> {
        self.keys.get(Space::Keys, key)
    }

    /// Reads a range of keys, and answers at most about `bytes_max` bytes of keys and values, but at least one key.
    /// Shares the bytes.
    ///
    /// # Errors
    /// When it is not known what the keys were at the revision that is asked for.
    pub fn read(&self, query: &Query, bytes_max: usize) -> Result<Found, ReadError> {
        self.keys.read(Space::Keys, query, bytes_max)
    }

    /// How many keys exist.
    pub fn len(&self) -> usize {
        self.keys.live(Space::Keys)
    }

    /// Whether no key exists.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What keys and values take in memory, in bytes and about, with the revisions of them that are kept, and what is
    /// known of streams. It shrinks when what was compacted is removed.
    pub fn bytes(&self) -> u64 {
        self.keys.bytes() + self.streams.bytes()
    }

    /// The last entry that was applied.
    pub fn applied(&self) -> Position {
        self.applied
    }

    /// The revision of the last change.
    pub fn revision(&self) -> Revision {
        self.keys.revision()
    }

    /// The oldest revision that can be read.
    pub fn compacted(&self) -> Revision {
        self.keys.counters().compacted
    }

    /// How many changes wait to be looked at for superseded versions, although they are compacted.
    pub fn compaction_backlog(&self) -> usize {
        self.keys.backlog()
    }

    /// A lease, if it exists.
    pub fn lease(&self, lease: LeaseId) -> Option<Lease> {
        self.leases.get(lease)
    }

    /// All leases, by id.
    pub fn leases(&self) -> impl Iterator<Item = (LeaseId, Grant)> {
        self.leases.grants()
    }

    /// The leases whose ids come after this one, by id.
    pub fn leases_after(&self, lease: Option<LeaseId>) -> impl Iterator<Item = (LeaseId, Grant)> {
        self.leases.grants_after(lease)
    }

    /// How many keys of requests and registered clients are kept.
    pub fn requests_kept(&self) -> usize {
        self.once.holders()
    }

    /// The entry that used the request key or the client that was used least lately.
    pub fn oldest_request(&self) -> Option<Index> {
        self.once.oldest()
    }

    /// A stream, if it exists.
    pub fn stream(&self, name: &str) -> Option<StreamView> {
        self.streams.view(name)
    }

    /// The streams whose names begin with `prefix` and come after `after`, by name.
    pub fn streams<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
    ) -> impl Iterator<Item = StreamView> {
        self.streams.views(prefix, after)
    }

    /// Where the partitions of streams begin and end whose names begin with `prefix`, by name.
    pub fn stream_ends<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = PartitionEnds<'a>> {
        self.streams.ends(prefix)
    }

    /// An offset of a partition that no record of `time` or later comes before; near the first one. None when there is
    /// no such stream or partition.
    pub fn stream_offset_at(&self, stream: &str, partition: u32, time: WallTime) -> Option<Offset> {
        self.streams.offset_at(stream, partition, time)
    }

    /// A consumer group of a stream, if it exists.
    pub fn stream_group(&self, stream: &str, group: &str) -> Option<GroupView> {
        self.streams.group(stream, group)
    }

    /// The consumer groups of a stream, by name.
    pub fn stream_groups(&self, stream: &str) -> Vec<GroupView> {
        self.streams.groups(stream)
    }

    /// What retention no longer keeps at this time of a leader's wall clock, and up to which entries streams need not
    /// remember message ids; a part of it when there is much.
    pub fn streams_overdue(&self, now: WallTime) -> (Vec<Cut>, Vec<(StreamId, Index)>) {
        self.streams.overdue(now)
    }

    /// A hash over every index, reply and changed row so far: the same on all nodes that have applied the same
    /// index. Entries without a command do not change it.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint.0
    }

    fn carry_out(
        &mut self,
        position: Position,
        command: Command,
        effects: &mut Effects,
    ) -> Result<Reply, Refusal> {
        match command {
            Command::Put(put) => self.put(put, effects),
            Command::Delete(delete) => {
                let mut writer = Writer::new(&mut self.keys, &mut self.leases);
                let (deleted, previous) = writer.delete(&delete);
                let (revision, rows) = writer.end();
                effects.rows.extend(rows);
                Ok(Reply::Deleted {
                    revision,
                    deleted,
                    previous,
                })
            }
            Command::Transact(transaction) => self.transact(transaction, effects),
            Command::Compact { revision } => {
                self.keys.compact(revision)?;
                let revision = self.keys.revision();
                Ok(Reply::Compacted { revision })
            }
            Command::Grant { lease, ttl } => {
                if ttl.is_zero() || ttl > TTL_MAX {
                    return Err(Malformed::TimeToLive.into());
                }
                let granted = position.index;
                self.grant(lease, Grant { ttl, granted }, effects)
            }
            Command::Revoke { lease } if !self.leases.contains(lease) => Err(Refusal::NoSuchLease(lease)),
            Command::Revoke { lease } => Ok(self.revoke([lease], effects)),
            Command::Expire { term, leases } => self.expire(position.term, term, &leases, effects),
            Command::Register => {
                let client = self.once.register(position.index, &mut effects.rows);
                Ok(Reply::Registered { client })
            }
            Command::Once { .. } => Err(Malformed::NotOnce.into()),
            Command::Forget { before } => {
                let dropped = self.once.forget(before, &mut effects.rows);
                Ok(Reply::Forgotten {
                    answers: dropped.answers,
                    clients: dropped.clients,
                })
            }
            Command::Session(command) => {
                let writer = SessionWriter::new(&mut self.keys, &mut self.sessions);
                let (reply, rows) = writer.carry_out(position, command)?;
                effects.rows.extend(rows);
                Ok(Reply::Session(reply))
            }
            Command::Stream(command) => {
                let reply = self.streams.carry_out(position, command, &mut effects.rows)?;
                Ok(Reply::Stream(reply))
            }
            Command::Settings(command) => {
                let (reply, rows) = SettingsWriter::new(&mut self.keys).carry_out(command)?;
                effects.rows.extend(rows);
                Ok(Reply::Settings(reply))
            }
        }
    }

    fn put(&mut self, put: Put, effects: &mut Effects) -> Result<Reply, Refusal> {
        let mut writer = Writer::new(&mut self.keys, &mut self.leases);
        writer.check_put(&put)?;
        let previous = writer.put(put);
        let (revision, rows) = writer.end();
        effects.rows.extend(rows);
        Ok(Reply::Put { revision, previous })
    }

    fn transact(&mut self, transaction: Transaction, effects: &mut Effects) -> Result<Reply, Refusal> {
        let mut writer = Writer::new(&mut self.keys, &mut self.leases);
        let blocks = writer.transact(transaction)?;
        let (revision, rows) = writer.end();
        effects.rows.extend(rows);
        Ok(Reply::Transacted(Transacted { revision, blocks }))
    }

    fn grant(
        &mut self,
        wanted: Option<LeaseId>,
        grant: Grant,
        effects: &mut Effects,
    ) -> Result<Reply, Refusal> {
        let lease = match wanted {
            Some(lease) if self.leases.contains(lease) => return Err(Refusal::LeaseExists(lease)),
            _ if self.leases.len() >= LEASES_MAX => return Err(Refusal::TooManyLeases),
            Some(lease) => lease,
            // The index names no other entry, so a client that chose it for a lease of its own is the only obstacle.
            None => self
                .leases
                .free_from(grant.granted.0)
                .ok_or(Refusal::TooManyLeases)?,
        };
        self.leases.insert(lease, grant);
        effects.rows.push(Row::lease(lease, grant));
        effects.leases.push(LeaseEvent::Granted(lease, grant));
        let ttl = grant.ttl;
        Ok(Reply::Granted { lease, ttl })
    }

    /// Expiry that a leader decided on, in a term that is the entry's own: leases start anew with every leader, so what
    /// an earlier one knew counts no more.
    fn expire(
        &mut self,
        term: Term,
        decided: Term,
        leases: &[(LeaseId, Index)],
        effects: &mut Effects,
    ) -> Result<Reply, Refusal> {
        if decided != term && !self.planted.is(PlantedBug::StaleLeaderRevokes) {
            return Err(Refusal::StaleTerm);
        }
        let meant = |(lease, granted): &(LeaseId, Index)| {
            let grant = self.leases.grant_of(*lease)?;
            (grant.granted == *granted).then_some(*lease)
        };
        let leases: Vec<LeaseId> = leases.iter().filter_map(meant).collect();
        Ok(self.revoke(leases, effects))
    }

    /// Ends leases and removes their keys, in one revision.
    fn revoke(&mut self, leases: impl IntoIterator<Item = LeaseId>, effects: &mut Effects) -> Reply {
        let (mut ended, mut keys) = (0, Vec::new());
        for lease in leases {
            if let Some((grant, attached)) = self.leases.remove(lease) {
                ended += 1;
                keys.extend(attached);
                effects.rows.push(Row::lease_gone(lease));
                effects.leases.push(LeaseEvent::Gone(lease, grant));
            }
        }
        let mut writer = Writer::new(&mut self.keys, &mut self.leases);
        let deleted = writer.delete_keys(keys);
        let (revision, rows) = writer.end();
        effects.rows.extend(rows);
        Reply::Revoked {
            revision,
            leases: ended,
            deleted,
        }
    }

    fn carry_out_once(
        &mut self,
        position: Position,
        request: RequestId,
        encoded: &Bytes,
        command: Command,
        effects: &mut Effects,
    ) -> Result<Reply, Refusal> {
        if matches!(command, Command::Once { .. } | Command::Register) {
            return Err(Malformed::NotOnce.into());
        }
        // A repetition comes at another time.
        let digest = match &command {
            Command::Session(session) => digest(&Command::Session(session.without_time()).encode()),
            Command::Stream(StreamCommand::Append(append)) => append.digest(),
            // And by then it is judged by something else.
            Command::Settings(SettingsCommand { change, .. }) => digest(&change.encode()),
            _ => digest(encoded),
        };
        let index = position.index;
        match self.once.look_up(&request, digest, index, &mut effects.rows)? {
            Known::Answered(reply) => {
                Ok(Reply::decode(&reply).expect("an answer that was kept is one of this build"))
            }
            Known::New => {
                let reply = self
                    .carry_out(position, command, effects)
                    .unwrap_or_else(Reply::Refused);
                if let Reply::Refused(Refusal::Settings(SettingsRefusal::NotAsJudged)) = reply {
                    return Ok(reply);
                }
                let answer = Answer {
                    index,
                    digest,
                    reply: reply.encode(),
                };
                self.once.keep(request, answer, &mut effects.rows);
                Ok(reply)
            }
        }
    }

    fn check_next(&self, position: Position) -> Result<(), ApplyError> {
        if position.index == self.applied.index.next() && position.term >= self.applied.term {
            Ok(())
        } else {
            Err(ApplyError::OutOfOrder {
                position,
                applied: self.applied,
            })
        }
    }

    fn summary_row(&self) -> Row {
        let counters = self.keys.counters();
        Row::summary(Summary {
            revision: counters.revision,
            compacted: counters.compacted,
            scavenged: counters.scavenged,
            fingerprint: self.fingerprint.0,
            index: self.summary_index,
        })
    }
}
