//! Sessions: one owner under an epoch that only rises, placed by load and capacity, and moved in bounded steps; rule by
//! rule, and against a plain model through restarts.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorate_core::raft::{Index, NodeId, Position, Term};
use quorate_core::state::{
    CAPACITY_DEFAULT, Command, DeleteRange, Drain, Epoch, Interest, KeyRange, Kinds, MOVED_AT_ONCE, NodeLoad,
    PageLimits, Presence, Refusal, Reply, RequestId, Revision, Session, SessionCommand, SessionEvent,
    SessionId, SessionRefusal, SessionReply, SessionStatus, Space, StateMachine, Taken, WatchLimits, Watches,
};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::draws::Draws;
use super::{apply, at, bytes, merge, put, refused, reply, restored, stored_rows};

fn id(text: &str) -> SessionId {
    SessionId::new(text).expect("an id")
}

fn create(session: &str) -> Command {
    Command::Session(SessionCommand::Create {
        session: Some(id(session)),
        client: "client".to_owned(),
        payload: bytes(session),
        now_ms: 1_000,
    })
}

fn touch(session: &str, epoch: Option<Epoch>) -> Command {
    Command::Session(SessionCommand::Touch {
        session: id(session),
        epoch,
        payload: None,
        now_ms: 2_000,
    })
}

fn remove(session: &str, epoch: Option<Epoch>) -> Command {
    let session = id(session);
    Command::Session(SessionCommand::Delete { session, epoch })
}

fn sight(nodes: &[(u64, Presence)]) -> Command {
    let nodes = nodes.iter();
    Command::Session(SessionCommand::Sight {
        term: Term(1),
        nodes: nodes.map(|(node, presence)| (NodeId(*node), *presence)).collect(),
    })
}

fn capacity(node: u64, capacity: u32) -> Command {
    let node = NodeId(node);
    Command::Session(SessionCommand::SetCapacity { node, capacity })
}

fn drain(node: u64, drain: Drain) -> Command {
    let node = NodeId(node);
    Command::Session(SessionCommand::Drain { node, drain })
}

fn step() -> Command {
    Command::Session(SessionCommand::Step { term: Term(1) })
}

/// A state that knows so many nodes.
fn with_nodes(count: u64) -> StateMachine {
    let mut state = StateMachine::new();
    let nodes: Vec<_> = (1..=count).map(|node| (node, Presence::Present)).collect();
    reply(&mut state, sight(&nodes));
    state
}

fn session(state: &StateMachine, session: &str) -> Session {
    state.session(&id(session)).expect("it exists")
}

fn owner(state: &StateMachine, name: &str) -> u64 {
    session(state, name).owner.0
}

fn declined(state: &mut StateMachine, command: Command) -> SessionRefusal {
    match refused(state, command) {
        Refusal::Session(refusal) => refusal,
        refusal => panic!("{refusal:?} is not about sessions"),
    }
}

fn counts(state: &StateMachine) -> Vec<u64> {
    state.session_nodes().map(|load| load.sessions).collect()
}

#[test]
fn sessions_go_to_the_least_loaded_node_that_has_room() {
    let mut state = with_nodes(3);
    reply(&mut state, capacity(1, 4));
    reply(&mut state, capacity(2, 2));
    reply(&mut state, capacity(3, 1));
    for session in ["a", "b", "c", "d", "e", "f", "g"] {
        reply(&mut state, create(session));
    }
    assert_eq!(counts(&state), [4, 2, 1]);
    assert_eq!(declined(&mut state, create("h")), SessionRefusal::NoRoom);
    let freed = owner(&state, "c");
    reply(&mut state, remove("c", None));
    reply(&mut state, create("h"));
    assert_eq!(owner(&state, "h"), freed, "the only one with room");
}

#[test]
fn nobody_takes_a_session_before_the_leader_has_seen_a_node() {
    let mut state = StateMachine::new();
    assert_eq!(declined(&mut state, create("a")), SessionRefusal::NoRoom);
    reply(&mut state, capacity(1, 5));
    assert_eq!(declined(&mut state, create("a")), SessionRefusal::NoRoom);
    reply(&mut state, sight(&[(1, Presence::Present)]));
    reply(&mut state, create("a"));
    assert_eq!(owner(&state, "a"), 1);
}

#[test]
fn an_owner_of_an_earlier_epoch_can_do_nothing_to_its_session() {
    let mut state = with_nodes(2);
    reply(&mut state, create("a"));
    let first = session(&state, "a");
    assert_eq!((first.owner, first.status), (NodeId(1), SessionStatus::Placed));
    reply(&mut state, touch("a", Some(first.epoch)));
    assert_eq!(session(&state, "a").status, SessionStatus::Active);
    reply(&mut state, sight(&[(1, Presence::Silent)]));
    reply(&mut state, step());
    let second = session(&state, "a");
    assert_eq!((second.owner, second.status), (NodeId(2), SessionStatus::Placed));
    assert_eq!(second.payload, bytes("a"), "the payload goes with it");
    assert!(second.epoch > first.epoch);
    let stale = SessionRefusal::StaleEpoch {
        current: second.epoch,
    };
    assert_eq!(declined(&mut state, touch("a", Some(first.epoch))), stale);
    assert_eq!(declined(&mut state, remove("a", Some(first.epoch))), stale);
    reply(&mut state, touch("a", None));
    assert_eq!(
        session(&state, "a").status,
        SessionStatus::Placed,
        "a client's touch"
    );
    reply(&mut state, remove("a", Some(second.epoch)));
    assert_eq!(
        declined(&mut state, remove("a", None)),
        SessionRefusal::NoSuchSession
    );
}

#[test]
fn a_session_of_an_id_that_was_used_before_has_a_higher_epoch() {
    let mut state = with_nodes(1);
    reply(&mut state, create("a"));
    let first = session(&state, "a").epoch;
    assert_eq!(declined(&mut state, create("a")), SessionRefusal::SessionExists);
    reply(&mut state, remove("a", None));
    reply(&mut state, create("a"));
    assert!(session(&state, "a").epoch > first);
}

#[test]
fn an_id_that_nobody_chose_is_free() {
    let mut state = with_nodes(1);
    reply(&mut state, create("session-3"));
    let any = Command::Session(SessionCommand::Create {
        session: None,
        client: String::new(),
        payload: Bytes::new(),
        now_ms: 0,
    });
    let Reply::Session(SessionReply::Session(made)) = reply(&mut state, any) else {
        panic!("no session");
    };
    assert_eq!(made.id, id("session-4"));
}

#[test]
fn what_a_stale_leader_saw_or_wanted_changes_nothing() {
    let mut state = with_nodes(2);
    reply(&mut state, create("a"));
    reply(&mut state, drain(1, Drain::Yes));
    let stale = |command| {
        let position = Position {
            term: Term(2),
            index: Index(4),
        };
        let mut state = state.clone();
        let applied = state.apply(position, &Command::encode(&command));
        let reply = applied.expect("a known command").reply;
        (reply, state.revision())
    };
    let nothing = (Reply::Refused(Refusal::StaleTerm), state.revision());
    assert_eq!(stale(step()), nothing);
    assert_eq!(stale(sight(&[(1, Presence::Silent)])), nothing);
}

#[test]
fn one_step_moves_a_bounded_number_of_sessions_each_once() {
    let mut state = with_nodes(1);
    for number in 0..250 {
        reply(&mut state, create(&format!("s{number}")));
    }
    reply(
        &mut state,
        sight(&[(2, Presence::Present), (3, Presence::Present)]),
    );
    reply(&mut state, drain(1, Drain::Yes));
    let mut moves = Vec::new();
    while state.wants_session_step() {
        let before = state.revision();
        let Reply::Session(SessionReply::Placement { revision, moved, .. }) = reply(&mut state, step())
        else {
            panic!("a step answers what it moved");
        };
        assert_eq!(revision, before.next(), "a step is one revision");
        moves.push(moved);
    }
    assert_eq!(moves, [MOVED_AT_ONCE as u64, 100, 50]);
    assert_eq!(counts(&state), [0, 125, 125]);
}

#[test]
fn a_drained_node_keeps_what_nobody_has_room_for_unless_that_is_forced() {
    let mut state = with_nodes(2);
    reply(&mut state, capacity(2, 1));
    for session in ["a", "b", "c", "d"] {
        reply(&mut state, create(session));
    }
    assert_eq!(counts(&state), [3, 1]);
    reply(&mut state, drain(1, Drain::Yes));
    assert!(!state.wants_session_step());
    assert_eq!(declined(&mut state, create("e")), SessionRefusal::NoRoom);
    reply(&mut state, drain(1, Drain::Forced));
    reply(&mut state, step());
    assert_eq!(counts(&state), [0, 4]);
    reply(&mut state, drain(1, Drain::No));
    reply(&mut state, create("e"));
    assert_eq!(counts(&state), [1, 4]);
}

#[test]
fn a_rebalance_goes_on_until_no_move_levels_the_nodes_and_then_is_over() {
    let mut state = with_nodes(1);
    for number in 0..300 {
        reply(&mut state, create(&format!("s{number}")));
    }
    reply(
        &mut state,
        sight(&[(2, Presence::Present), (3, Presence::Present)]),
    );
    assert!(!state.wants_session_step(), "nobody asked for it");
    let asked = reply(&mut state, Command::Session(SessionCommand::Rebalance));
    let Reply::Session(SessionReply::Placement {
        moved: 0, due: 200, ..
    }) = asked
    else {
        panic!("{asked:?}");
    };
    let mut steps = 0;
    while state.wants_session_step() {
        reply(&mut state, step());
        steps += 1;
    }
    assert_eq!((counts(&state), steps), (vec![100, 100, 100], 3));
}

#[test]
fn a_node_that_left_is_forgotten_when_it_has_nothing_left() {
    let mut state = with_nodes(2);
    reply(&mut state, create("a"));
    reply(&mut state, sight(&[(1, Presence::Removed)]));
    reply(&mut state, step());
    assert_eq!(owner(&state, "a"), 2);
    reply(&mut state, sight(&[(1, Presence::Removed)]));
    let nodes: Vec<NodeId> = state.session_nodes().map(|load| load.node).collect();
    assert_eq!(nodes, [NodeId(2)]);
}

#[test]
fn a_request_that_is_repeated_later_is_carried_out_once() {
    let mut state = with_nodes(2);
    let create = |now_ms, client: &str| Command::Once {
        request: RequestId::Key(bytes("request")),
        command: Command::Session(SessionCommand::Create {
            session: None,
            client: client.to_owned(),
            payload: Bytes::new(),
            now_ms,
        })
        .encode(),
    };
    let first = reply(&mut state, create(1_000, "ada"));
    assert_eq!(reply(&mut state, create(2_000, "ada")), first);
    assert_eq!(state.session_count(), 1);
    assert_eq!(
        refused(&mut state, create(2_000, "bob")),
        Refusal::DifferentRequest
    );
}

#[test]
fn sessions_are_out_of_reach_of_commands_about_keys() {
    let mut state = with_nodes(1);
    reply(&mut state, create("a"));
    reply(&mut state, put("a", "a key"));
    assert_eq!(state.len(), 1);
    let all = DeleteRange {
        range: KeyRange::all(),
        previous: false,
    };
    let Reply::Deleted { deleted, .. } = reply(&mut state, Command::Delete(all)) else {
        panic!("a removal answers a removal");
    };
    assert_eq!((deleted, state.session_count()), (1, 1));
    assert_eq!(owner(&state, "a"), 1);
}

#[test]
fn a_watch_of_a_node_hears_what_it_is_given_and_what_it_loses_in_the_order_of_all_changes() {
    let mut state = with_nodes(2);
    let limits = WatchLimits {
        watchers: 4,
        recent_bytes: 1 << 20,
        page: PageLimits {
            events: 100,
            bytes: 1 << 20,
        },
    };
    let mut watches = Watches::new(&state, limits, 1);
    let interest = |space| Interest {
        space,
        range: KeyRange::all(),
        kinds: Kinds::ALL,
    };
    let (sessions, _) = watches
        .watch(&state, interest(Space::Sessions), None)
        .expect("a watch");
    let (keys, _) = watches
        .watch(&state, interest(Space::Keys), None)
        .expect("a watch");
    let commands = [
        create("a"),
        put("a", "a key"),
        create("b"),
        touch("a", None),
        sight(&[(1, Presence::Silent)]),
        step(),
        remove("b", None),
    ];
    for command in commands {
        reply(&mut state, command);
        watches.follow(&state, &mut Vec::new());
    }
    let mut take = |watcher| match watches.take(watcher) {
        Ok(Taken::Page(page)) => page.events,
        other => panic!("{other:?}"),
    };
    assert_eq!(take(keys).len(), 1);
    let events = take(sessions);
    let heard = |node| -> Vec<(u64, &str, String)> {
        let events = events.iter();
        let heard = events.filter_map(|event| {
            let (what, session) = match SessionEvent::of(event, node)? {
                SessionEvent::Given(session) => ("given", session),
                SessionEvent::Updated(session) => ("updated", session),
                SessionEvent::Lost { before, now: Some(_) } => ("moved", before),
                SessionEvent::Lost { before, now: None } => ("ended", before),
            };
            Some((event.revision.0, what, session.id.to_string()))
        });
        heard.collect()
    };
    let expected = |told: &[(u64, &'static str, &str)]| -> Vec<(u64, &str, String)> {
        let told = told.iter();
        told.map(|(revision, what, id)| (*revision, *what, (*id).to_owned()))
            .collect()
    };
    let first = [(1, "given", "a"), (4, "updated", "a"), (5, "moved", "a")];
    assert_eq!(heard(Some(NodeId(1))), expected(&first));
    let second = [(3, "given", "b"), (5, "given", "a"), (6, "ended", "b")];
    assert_eq!(heard(Some(NodeId(2))), expected(&second));
    assert_eq!(heard(None).len(), 5, "one a change for whoever watches all");
}

/// The rules as plainly as possible: no index by owner, fractions as such, one move after the other.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    sessions: BTreeMap<String, Known>,
    nodes: BTreeMap<u64, Host>,
    rebalancing: bool,
    revision: u64,
}

#[derive(Clone, Debug, PartialEq)]
struct Known {
    owner: u64,
    epoch: u64,
    active: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Host {
    capacity: u32,
    presence: Presence,
    drain: Drain,
}

impl Model {
    fn count(&self, node: u64) -> u64 {
        self.sessions
            .values()
            .filter(|session| session.owner == node)
            .count() as u64
    }

    fn open(&self) -> Vec<u64> {
        let open =
            |host: &Host| host.presence == Presence::Present && host.drain == Drain::No && host.capacity > 0;
        let nodes = self.nodes.iter().filter(|(_, host)| open(host));
        nodes.map(|(node, _)| *node).collect()
    }

    fn has_room(&self, node: u64) -> bool {
        self.count(node) < u64::from(self.nodes[&node].capacity)
    }

    /// Small numbers of sessions and capacities make different fractions differ by far more than rounding.
    fn load(&self, node: u64, more: u64) -> f64 {
        (self.count(node) + more) as f64 / f64::from(self.nodes[&node].capacity)
    }

    fn fuller(&self, one: u64, other: u64) -> bool {
        let key = |node| (self.count(node), node);
        let (a, b) = (self.load(one, 0), self.load(other, 0));
        if (a - b).abs() < 1e-9 {
            key(one) > key(other)
        } else {
            a > b
        }
    }

    fn emptiest(&self, beyond: bool) -> Option<u64> {
        let nodes = self.open().into_iter();
        nodes
            .filter(|node| beyond || self.has_room(*node))
            .reduce(|one, other| if self.fuller(one, other) { other } else { one })
    }

    fn next_move(&self) -> Option<(u64, u64)> {
        for (node, host) in &self.nodes {
            let must = host.presence != Presence::Present || host.drain != Drain::No;
            let beyond = host.presence == Presence::Present && host.drain == Drain::Forced;
            if must && self.count(*node) > 0 && self.emptiest(beyond).is_some() {
                return Some((*node, self.emptiest(beyond)?));
            }
        }
        let nodes = self.open().into_iter();
        let from = nodes.reduce(|one, other| if self.fuller(one, other) { one } else { other })?;
        let to = self.emptiest(false)?;
        let levels = self.load(from, 0) - self.load(to, 1) > 1e-9;
        (self.rebalancing && levels).then_some((from, to))
    }

    fn apply(&mut self, command: &SessionCommand) {
        let before = self.clone();
        let next = self.revision + 1;
        match command {
            SessionCommand::Create { session, .. } => {
                let session = session.as_ref().expect("always chosen").to_string();
                if let (false, Some(owner)) = (self.sessions.contains_key(&session), self.emptiest(false)) {
                    let active = false;
                    let epoch = next;
                    self.sessions.insert(session, Known { owner, epoch, active });
                }
            }
            SessionCommand::Touch { session, epoch, .. } => {
                let known = self.sessions.get_mut(session.as_str());
                let wanted = epoch.map(|epoch| epoch.0.0);
                let known = known.filter(|known| wanted.is_none_or(|epoch| epoch == known.epoch));
                if let Some(known) = known {
                    known.active |= epoch.is_some();
                    self.revision = next;
                }
                return;
            }
            SessionCommand::Delete { session, epoch } => {
                let known = self.sessions.get(session.as_str());
                let wanted = epoch.map(|epoch| epoch.0.0);
                if known.is_some_and(|known| wanted.is_none_or(|epoch| epoch == known.epoch)) {
                    self.sessions.remove(session.as_str());
                }
            }
            SessionCommand::SetCapacity { node, capacity } => self.host(*node).capacity = *capacity,
            SessionCommand::Drain { node, drain } => self.host(*node).drain = *drain,
            SessionCommand::Rebalance => self.rebalancing = true,
            SessionCommand::Sight { nodes, .. } => {
                for (node, presence) in nodes {
                    if *presence == Presence::Removed && self.count(node.0) == 0 {
                        self.nodes.remove(&node.0);
                    } else {
                        self.host(*node).presence = *presence;
                    }
                }
            }
            SessionCommand::Step { .. } => self.step(next),
        }
        if self.sessions != before.sessions {
            self.revision = next;
        }
    }

    fn host(&mut self, node: NodeId) -> &mut Host {
        self.nodes.entry(node.0).or_insert(Host {
            capacity: CAPACITY_DEFAULT,
            presence: Presence::Removed,
            drain: Drain::No,
        })
    }

    fn step(&mut self, revision: u64) {
        let mut moved = BTreeSet::new();
        loop {
            let Some((from, to)) = self.next_move() else {
                self.rebalancing = false;
                return;
            };
            let mut owned = self.sessions.iter_mut();
            let found = owned.find(|(id, known)| known.owner == from && !moved.contains(*id));
            let Some((id, known)) = found else {
                return;
            };
            moved.insert(id.clone());
            *known = Known {
                owner: to,
                epoch: revision,
                active: false,
            };
        }
    }
}

/// Sessions by id, and nodes with how many they have.
type Words = (BTreeMap<String, Known>, Vec<(u64, Host, u64)>);

/// What the state is, in the model's words.
fn words(state: &StateMachine) -> Words {
    let known = |session: Session| {
        let known = Known {
            owner: session.owner.0,
            epoch: session.epoch.0.0,
            active: session.status == SessionStatus::Active,
        };
        (session.id.to_string(), known)
    };
    let node = |load: NodeLoad| {
        let host = Host {
            capacity: load.place.capacity,
            presence: load.place.presence,
            drain: load.place.drain,
        };
        (load.node.0, host, load.sessions)
    };
    (
        state.sessions_after(None).map(known).collect(),
        state.session_nodes().map(node).collect(),
    )
}

fn draw(draws: &mut Draws, model: &Model) -> SessionCommand {
    let session = SessionId::new(&format!("s{}", draws.below(24))).expect("an id");
    let node = NodeId(1 + draws.below(4));
    let current = model
        .sessions
        .get(session.as_str())
        .map_or(1, |known| known.epoch);
    let epoch = match draws.below(4) {
        0 | 1 => None,
        2 => Some(Epoch(Revision(current))),
        _ => Some(Epoch(Revision(draws.below(model.revision + 1)))),
    };
    match draws.below(20) {
        0..=6 => SessionCommand::Create {
            session: Some(session),
            client: String::new(),
            payload: Bytes::new(),
            now_ms: draws.below(100),
        },
        7 | 8 => SessionCommand::Touch {
            session,
            epoch,
            payload: None,
            now_ms: draws.below(100),
        },
        9 => SessionCommand::Delete { session, epoch },
        10 | 11 => SessionCommand::SetCapacity {
            node,
            capacity: u32::try_from(draws.below(9)).expect("small"),
        },
        12 => {
            let drain = [Drain::No, Drain::Yes, Drain::Forced];
            let drain = drain[usize::try_from(draws.below(3)).expect("small")];
            SessionCommand::Drain { node, drain }
        }
        13 => SessionCommand::Rebalance,
        14..=16 => {
            let presence = [Presence::Present, Presence::Silent, Presence::Removed];
            let mut nodes = Vec::new();
            for _ in 0..=draws.below(3) {
                let presence = presence[usize::try_from(draws.below(6).saturating_sub(3)).expect("small")];
                let node = NodeId(1 + draws.below(4));
                nodes.retain(|(other, _)| *other != node);
                nodes.push((node, presence));
            }
            let term = Term(1);
            SessionCommand::Sight { term, nodes }
        }
        _ => SessionCommand::Step { term: Term(1) },
    }
}

#[test]
fn random_commands_give_what_a_plain_model_gives_and_epochs_only_rise() {
    let mut moved = 0;
    for seed in 0..120 {
        let mut draws = Draws(ChaCha8Rng::seed_from_u64(seed));
        let (mut model, mut state) = (Model::default(), StateMachine::new());
        let mut store = BTreeMap::new();
        let mut epochs: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        for index in 1..=250 {
            if draws.below(20) == 0 {
                state = StateMachine::restore(store.clone().into_iter(), state.applied()).expect("rows");
            }
            let command = draw(&mut draws, &model);
            model.apply(&command);
            let applied = state.apply(at(index), &Command::Session(command.clone()).encode());
            merge(&mut store, applied.expect("a known command").rows);
            let place = format!("seed {seed} index {index} {command:?}");
            assert_eq!(store, stored_rows(&state), "{place}");
            let nodes = model.nodes.iter();
            let expected = nodes.map(|(node, host)| (*node, *host, model.count(*node)));
            assert_eq!(
                words(&state),
                (model.sessions.clone(), expected.collect()),
                "{place}"
            );
            assert_eq!(state.revision().0, model.revision, "{place}");
            for (session, known) in &model.sessions {
                let (owner, epoch) = (known.owner, known.epoch);
                let (before, last) = epochs.insert(session.clone(), (owner, epoch)).unwrap_or_default();
                assert!(epoch > last || (epoch == last && owner == before), "{place}");
                moved += u64::from(before != owner && last > 0);
            }
        }
        assert_eq!(restored(&state).fingerprint(), state.fingerprint());
    }
    assert!(moved > 1_000, "{moved} moves");
}

#[test]
fn a_session_whose_node_is_not_known_is_no_state() {
    let mut state = with_nodes(1);
    apply(&mut state, &create("a"));
    let rows = stored_rows(&state);
    let mut torn = rows.clone();
    let (place, _) = torn.pop_last().expect("rows");
    assert_eq!(place, [6, 0, 0, 0, 0, 0, 0, 0, 1], "what is known of the node");
    assert!(StateMachine::restore(rows.into_iter(), state.applied()).is_ok());
    assert!(StateMachine::restore(torn.into_iter(), state.applied()).is_err());
}
