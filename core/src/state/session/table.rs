//! Sessions by their owners, and the commands about them.
//!
//! Who has what follows from the sessions and is built again when a state is loaded. What is known of nodes has rows of its
//! own, and no history: it takes part in no revision, so that whoever has no sessions never sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bytes::Bytes;

use super::placement::{choose, count_moves, next_move};
use super::{
    Drain, Epoch, MOVED_AT_ONCE, NodeLoad, Place, Presence, Record, SESSIONS_MAX, Session, SessionCommand,
    SessionId, SessionRefusal, SessionReply, SessionStatus,
};
use crate::raft::{Index, NodeId, Position, Term};
use crate::state::keys::{Change, KeySpace};
use crate::state::{Refusal, Revision, Row, Space};

/// Moves that are counted for an answer.
const COUNTED_MAX: u64 = 100_000;

/// Who has which sessions.
#[derive(Clone, Debug, Default)]
pub(in crate::state) struct SessionTable {
    nodes: BTreeMap<NodeId, Node>,
    rebalancing: bool,
}

#[derive(Clone, Debug, Default)]
struct Node {
    place: Place,
    sessions: BTreeSet<Bytes>,
}

/// One command at work on sessions.
pub(in crate::state) struct SessionWriter<'a> {
    keys: &'a mut KeySpace,
    table: &'a mut SessionTable,
    change: Change,
    /// The rows of nodes that changed.
    rows: Vec<Row>,
}

impl SessionTable {
    /// The nodes with what they have, by id.
    pub(in crate::state) fn loads(&self) -> impl Iterator<Item = NodeLoad> {
        self.nodes.iter().map(|(id, node)| NodeLoad {
            node: *id,
            place: node.place,
            sessions: node.sessions.len() as u64,
        })
    }

    /// Whether a step would move a session.
    pub(in crate::state) fn wants_step(&self) -> bool {
        let loads: Vec<NodeLoad> = self.loads().collect();
        self.rebalancing || next_move(&loads, false).is_some()
    }

    /// How many moves are due, as far as they are counted.
    pub(in crate::state) fn moves_due(&self) -> u64 {
        count_moves(self.loads().collect(), self.rebalancing, COUNTED_MAX)
    }

    /// The ids of a node's sessions from one on, ascending.
    pub(in crate::state) fn owned_from<'a>(
        &'a self,
        node: NodeId,
        start: Bound<&Bytes>,
    ) -> impl Iterator<Item = &'a Bytes> + use<'a> {
        let sessions = self.nodes.get(&node).map(|node| &node.sessions);
        let range = (start.cloned(), Bound::Unbounded);
        sessions
            .into_iter()
            .flat_map(move |sessions| sessions.range(range.clone()))
    }

    /// The first session of a node that is none of these.
    fn first_owned(&self, node: NodeId, but: &BTreeSet<Bytes>) -> Option<Bytes> {
        let mut owned = self.owned_from(node, Bound::Unbounded);
        owned.find(|session| !but.contains(*session)).cloned()
    }

    /// What is known of nodes, as rows.
    pub(in crate::state) fn rows(&self) -> impl Iterator<Item = Row> {
        let rebalancing = self.rebalancing.then(Row::rebalancing);
        let places = self.nodes.iter().map(|(id, node)| Row::place(*id, node.place));
        rebalancing.into_iter().chain(places)
    }

    /// A node that was stored.
    pub(in crate::state) fn load_place(&mut self, id: NodeId, place: Place) {
        let sessions = BTreeSet::new();
        self.nodes.insert(id, Node { place, sessions });
    }

    /// That sessions were being rebalanced was stored.
    pub(in crate::state) fn load_rebalancing(&mut self) {
        self.rebalancing = true;
    }

    /// Finds out who has what, when all nodes were loaded; the key that makes no sense otherwise.
    pub(in crate::state) fn load_owners(&mut self, keys: &KeySpace) -> Result<(), Bytes> {
        for pair in keys.pairs_after(Space::Sessions, None) {
            let session = Session::of_pair(&pair);
            let owner = session.and_then(|session| self.nodes.get_mut(&session.owner));
            match owner {
                // A copy: the key of the pair would keep all of it in memory.
                Some(owner) => owner.sessions.insert(Bytes::copy_from_slice(&pair.key)),
                None => return Err(pair.key),
            };
        }
        Ok(())
    }

    fn give(&mut self, session: &Bytes, to: NodeId) {
        let node = self.nodes.get_mut(&to).expect("a node that is chosen is known");
        assert!(node.sessions.insert(session.clone()), "a session has one owner");
    }

    fn take(&mut self, session: &Bytes, from: NodeId) {
        let node = self.nodes.get_mut(&from).expect("an owner is known");
        assert!(node.sessions.remove(session), "an owner has its sessions");
    }
}

impl<'a> SessionWriter<'a> {
    pub(in crate::state) fn new(keys: &'a mut KeySpace, table: &'a mut SessionTable) -> SessionWriter<'a> {
        let change = keys.begin();
        SessionWriter {
            keys,
            table,
            change,
            rows: Vec::new(),
        }
    }

    /// Carries out a command; `position` is where it stands in the log.
    pub(in crate::state) fn carry_out(
        mut self,
        position: Position,
        command: SessionCommand,
    ) -> Result<(SessionReply, Vec<Row>), Refusal> {
        let mut moved = 0;
        match command {
            SessionCommand::Create {
                session,
                client,
                payload,
                now_ms,
            } => {
                let id = self.new_id(session, position.index)?;
                let reply = self.create(id, client, payload, now_ms)?;
                return Ok((reply, self.end().1));
            }
            SessionCommand::Touch {
                session,
                epoch,
                payload,
                now_ms,
            } => {
                let reply = self.touch(&session, epoch, payload, now_ms)?;
                return Ok((reply, self.end().1));
            }
            SessionCommand::Delete { session, epoch } => {
                let record = self.record(&session, epoch)?;
                self.table.take(session.key(), record.owner);
                self.keys.delete(&mut self.change, Space::Sessions, session.key());
                let (revision, rows) = self.end();
                return Ok((SessionReply::Deleted { revision }, rows));
            }
            SessionCommand::SetCapacity { node, capacity } => {
                self.set_place(node, |place| place.capacity = capacity);
            }
            SessionCommand::Drain { node, drain } => self.set_place(node, |place| place.drain = drain),
            SessionCommand::Rebalance => self.set_rebalancing(true),
            SessionCommand::Sight { term, nodes } => {
                check_term(position, term)?;
                self.sight(nodes);
            }
            SessionCommand::Step { term } => {
                check_term(position, term)?;
                moved = self.step();
            }
        }
        let due = self.table.moves_due();
        let (revision, rows) = self.end();
        let reply = SessionReply::Placement { revision, moved, due };
        Ok((reply, rows))
    }

    fn end(self) -> (Revision, Vec<Row>) {
        let mut rows = self.keys.end(self.change);
        rows.extend(self.rows);
        (self.keys.revision(), rows)
    }

    /// The id of a new session.
    fn new_id(&self, wanted: Option<SessionId>, index: Index) -> Result<SessionId, SessionRefusal> {
        let is_free = |id: &SessionId| self.keys.pair(Space::Sessions, id.key()).is_none();
        match wanted {
            Some(id) if is_free(&id) => Ok(id),
            Some(_) => Err(SessionRefusal::SessionExists),
            // The index names no other entry, so a client that chose such an id is the only obstacle.
            None => Ok((index.0..=u64::MAX)
                .filter_map(|number| SessionId::new(&format!("session-{number}")))
                .find(is_free)
                .expect("there are fewer sessions than numbers")),
        }
    }

    fn create(
        &mut self,
        id: SessionId,
        client: String,
        payload: Bytes,
        now_ms: u64,
    ) -> Result<SessionReply, SessionRefusal> {
        if self.keys.live(Space::Sessions) >= SESSIONS_MAX {
            return Err(SessionRefusal::TooManySessions);
        }
        let owner = choose(self.table.loads(), false).ok_or(SessionRefusal::NoRoom)?;
        self.table.give(id.key(), owner);
        let record = Record {
            owner,
            epoch: Epoch(self.change.revision()),
            status: SessionStatus::Placed,
            client,
            payload,
            created_ms: now_ms,
            active_ms: now_ms,
        };
        Ok(self.write(&id, &record))
    }

    fn touch(
        &mut self,
        session: &SessionId,
        epoch: Option<Epoch>,
        payload: Option<Bytes>,
        now_ms: u64,
    ) -> Result<SessionReply, SessionRefusal> {
        let mut record = self.record(session, epoch)?;
        if epoch.is_some() {
            record.status = SessionStatus::Active;
        }
        if let Some(payload) = payload {
            record.payload = payload;
        }
        // The clocks of nodes differ, and activity does not go back.
        record.active_ms = record.active_ms.max(now_ms);
        Ok(self.write(session, &record))
    }

    /// What a session is, if it is in this epoch.
    fn record(&self, session: &SessionId, epoch: Option<Epoch>) -> Result<Record, SessionRefusal> {
        let pair = self.keys.pair(Space::Sessions, session.key());
        let pair = pair.ok_or(SessionRefusal::NoSuchSession)?;
        let record = Record::decode(pair.value).expect("the state holds sessions of this build only");
        match epoch {
            Some(epoch) if epoch != record.epoch => Err(SessionRefusal::StaleEpoch {
                current: record.epoch,
            }),
            _ => Ok(record),
        }
    }

    fn write(&mut self, session: &SessionId, record: &Record) -> SessionReply {
        let key = session.key();
        self.keys
            .put(&mut self.change, Space::Sessions, key, &record.encode(), None);
        let pair = self.keys.get(Space::Sessions, key).expect("it was written");
        let session = Session::of_pair(&pair).expect("it was just made");
        SessionReply::Session(Session {
            payload: Bytes::new(),
            ..session
        })
    }

    /// Changes what is known of a node, or learns of it.
    fn set_place(&mut self, id: NodeId, change: impl FnOnce(&mut Place)) {
        let known = self.table.nodes.contains_key(&id);
        let node = self.table.nodes.entry(id).or_default();
        let before = node.place;
        change(&mut node.place);
        if !known || node.place != before {
            self.rows.push(Row::place(id, node.place));
        }
    }

    fn set_rebalancing(&mut self, rebalancing: bool) {
        if std::mem::replace(&mut self.table.rebalancing, rebalancing) == rebalancing {
            return;
        }
        self.rows.push(if rebalancing {
            Row::rebalancing()
        } else {
            Row::rebalancing_over()
        });
    }

    /// What the leader sees of nodes, each once. One that is gone is forgotten when nobody needs it any more.
    fn sight(&mut self, nodes: Vec<(NodeId, Presence)>) {
        let nodes: BTreeMap<NodeId, Presence> = nodes.into_iter().collect();
        for (id, presence) in nodes {
            let known = self.table.nodes.get(&id);
            let is_empty = known.is_none_or(|node| node.sessions.is_empty());
            if presence == Presence::Removed && is_empty {
                if self.table.nodes.remove(&id).is_some() {
                    self.rows.push(Row::place_gone(id));
                }
            } else {
                self.set_place(id, |place| place.presence = presence);
            }
        }
    }

    /// Moves a few sessions; returns how many.
    fn step(&mut self) -> u64 {
        let mut moved: BTreeSet<Bytes> = BTreeSet::new();
        let mut loads: Vec<NodeLoad> = self.table.loads().collect();
        while moved.len() < MOVED_AT_ONCE {
            let Some((from, to)) = next_move(&loads, self.table.rebalancing) else {
                self.set_rebalancing(false);
                break;
            };
            // A session changes once a revision, so what came in this step goes on with the next one.
            let Some(session) = self.table.first_owned(from, &moved) else {
                break;
            };
            self.relocate(&session, from, to);
            for node in &mut loads {
                node.sessions = node.sessions + u64::from(node.node == to) - u64::from(node.node == from);
            }
            moved.insert(session);
        }
        moved.len() as u64
    }

    fn relocate(&mut self, key: &Bytes, from: NodeId, to: NodeId) {
        let pair = self.keys.pair(Space::Sessions, key);
        let pair = pair.expect("what an owner has exists");
        let mut record = Record::decode(pair.value).expect("the state holds sessions of this build only");
        let epoch = Epoch(self.change.revision());
        assert!(record.owner == from, "an owner has its sessions");
        assert!(record.epoch < epoch, "epochs rise");
        record.owner = to;
        record.epoch = epoch;
        record.status = SessionStatus::Placed;
        self.table.take(key, from);
        self.table.give(key, to);
        self.keys
            .put(&mut self.change, Space::Sessions, key, &record.encode(), None);
    }
}

/// What a leader saw or wanted counts while it leads: another one may see something else.
fn check_term(position: Position, decided: Term) -> Result<(), Refusal> {
    if decided == position.term {
        Ok(())
    } else {
        Err(Refusal::StaleTerm)
    }
}

impl Drain {
    /// Whether the node gives its sessions away.
    pub fn is_on(self) -> bool {
        self != Drain::No
    }
}
