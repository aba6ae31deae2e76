//! Watchers hear of every change that they want: in order, once, whole, and up to where they were compacted away.

use quorate_core::state::{
    Event, Interest, KeyRange, Kinds, Page, PageLimits, Revision, Space, StateMachine, Taken, WatchError,
    WatchLimits, WatcherId, Watches,
};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::draws::Draws;
use super::model::Model;
use super::{apply, at, bytes, delete, pair, put, restored};

const LIMITS: WatchLimits = WatchLimits {
    watchers: 8,
    recent_bytes: 1 << 20,
    page: PageLimits {
        events: 100,
        bytes: 1 << 20,
    },
};

fn all() -> Interest {
    Interest {
        space: Space::Keys,
        range: KeyRange::all(),
        kinds: Kinds::ALL,
    }
}

/// A state with its watchers.
struct World {
    state: StateMachine,
    watches: Watches,
    /// Whether the last page came from the history.
    last_from_history: bool,
}

impl World {
    fn new(limits: WatchLimits) -> World {
        let state = StateMachine::new();
        let watches = Watches::new(&state, limits, 1);
        World {
            state,
            watches,
            last_from_history: false,
        }
    }

    /// Applies a command; returns who was woken.
    fn apply(&mut self, command: &quorate_core::state::Command) -> Vec<WatcherId> {
        apply(&mut self.state, command);
        self.follow()
    }

    fn follow(&mut self) -> Vec<WatcherId> {
        let mut woken = Vec::new();
        self.watches.follow(&self.state, &mut woken);
        woken
    }

    fn compact(&mut self, revision: u64) {
        let revision = Revision(revision);
        self.apply(&quorate_core::state::Command::Compact { revision });
    }

    fn watch(&mut self, interest: Interest, from: Option<u64>) -> Result<WatcherId, WatchError> {
        let from = from.map(Revision);
        let watcher = self.watches.watch(&self.state, interest, from)?;
        Ok(watcher.0)
    }

    /// The next page, from wherever it is to be had; none when there is nothing.
    fn page(&mut self, watcher: WatcherId) -> Result<Option<Page>, WatchError> {
        let taken = self.watches.take(watcher)?;
        self.last_from_history = matches!(taken, Taken::FromHistory(_));
        match taken {
            Taken::Nothing => Ok(None),
            Taken::Page(page) => Ok(Some(page)),
            Taken::FromHistory(query) => {
                let history = self.state.events(&query);
                self.watches.read(watcher, history).map(Some)
            }
        }
    }

    /// Everything that there is.
    fn events(&mut self, watcher: WatcherId) -> Result<Vec<Event>, WatchError> {
        let mut events = Vec::new();
        while let Some(page) = self.page(watcher)? {
            events.extend(page.events.iter().map(|event| (**event).clone()));
        }
        Ok(events)
    }
}

fn event(revision: u64, key: &str) -> Event {
    Event {
        revision: Revision(revision),
        order: 0,
        space: Space::Keys,
        key: bytes(key),
        current: None,
        previous: None,
    }
}

#[test]
fn a_watcher_hears_of_puts_and_removals_with_what_was_before() {
    let mut world = World::new(LIMITS);
    let watcher = world.watch(all(), None).expect("a watch");
    assert_eq!(world.apply(&put("k", "1")), [watcher]);
    assert_eq!(world.apply(&put("k", "2")), [], "it was woken already");
    world.apply(&delete("k"));
    let (one, two) = (pair("k", "1", 1, 1, 1), pair("k", "2", 1, 2, 2));
    assert_eq!(
        world.events(watcher),
        Ok(vec![
            Event {
                current: Some(one.clone()),
                ..event(1, "k")
            },
            Event {
                current: Some(two.clone()),
                previous: Some(one),
                ..event(2, "k")
            },
            Event {
                previous: Some(two),
                ..event(3, "k")
            },
        ])
    );
    assert_eq!(world.events(watcher), Ok(Vec::new()));
}

#[test]
fn only_those_who_watch_a_key_are_woken() {
    let mut world = World::new(LIMITS);
    let only = |kinds, range| Interest {
        space: Space::Keys,
        range,
        kinds,
    };
    let puts = Kinds {
        deletes: false,
        ..Kinds::ALL
    };
    let deletes = Kinds {
        puts: false,
        ..Kinds::ALL
    };
    let a = world
        .watch(only(puts, KeyRange::prefix("a/")), None)
        .expect("a watch");
    let b = world
        .watch(only(Kinds::ALL, KeyRange::prefix("b/")), None)
        .expect("a watch");
    let gone = world
        .watch(only(deletes, KeyRange::all()), None)
        .expect("a watch");
    assert_eq!(world.apply(&put("a/1", "")), [a]);
    assert_eq!(world.apply(&put("b/1", "")), [b]);
    assert_eq!(world.apply(&put("c", "")), []);
    assert_eq!(world.apply(&delete("a/1")), [gone]);
    let keys = |events: Vec<Event>| events.into_iter().map(|event| event.key).collect::<Vec<_>>();
    assert_eq!(world.events(a).map(keys), Ok(vec![bytes("a/1")]));
    assert_eq!(world.events(b).map(keys), Ok(vec![bytes("b/1")]));
    assert_eq!(world.events(gone).map(keys), Ok(vec![bytes("a/1")]));
}

#[test]
fn a_watch_of_a_compacted_revision_is_refused_with_the_oldest_that_is_kept() {
    let mut world = World::new(LIMITS);
    for value in ["1", "2", "3"] {
        world.apply(&put("k", value));
    }
    world.compact(2);
    let (from, oldest) = (Revision(2), Revision(3));
    assert_eq!(
        world.watch(all(), Some(2)),
        Err(WatchError::Compacted { from, oldest })
    );
    let watcher = world.watch(all(), Some(3)).expect("a watch");
    let events = world.events(watcher).expect("events");
    assert_eq!(events.len(), 1);
    assert_eq!(
        events[0].previous,
        Some(pair("k", "2", 1, 2, 2)),
        "what was before the oldest change is known"
    );
}

#[test]
fn a_compaction_takes_nothing_from_a_watcher_that_keeps_up() {
    let mut world = World::new(LIMITS);
    let watcher = world.watch(all(), None).expect("a watch");
    world.apply(&put("k", "1"));
    world.apply(&delete("k"));
    world.compact(2);
    assert_eq!(world.events(watcher).map(|events| events.len()), Ok(2));
    assert_eq!(world.watches.progress(watcher), Some(Revision(2)));
}

#[test]
fn a_slow_watcher_costs_nothing_goes_on_from_history_and_ends_when_that_is_compacted() {
    let limits = WatchLimits {
        recent_bytes: 2000,
        ..LIMITS
    };
    let mut world = World::new(limits);
    let watcher = world.watch(all(), None).expect("a watch");
    for number in 0..100 {
        world.apply(&put("k", &number.to_string()));
    }
    assert_eq!(world.watches.far_behind(), 1);
    assert_eq!(world.events(watcher).map(|events| events.len()), Ok(100));
    assert_eq!(world.watches.far_behind(), 0);
    for number in 0..100 {
        world.apply(&put("k", &number.to_string()));
    }
    world.compact(150);
    let (from, oldest) = (Revision(101), Revision(151));
    let ended = WatchError::Compacted { from, oldest };
    assert_eq!(world.events(watcher), Err(ended));
    assert_eq!(world.events(watcher), Err(ended), "it has ended for good");
}

#[test]
fn progress_is_told_only_when_everything_before_it_was_taken() {
    let mut world = World::new(LIMITS);
    let now = world.watch(all(), None).expect("a watch");
    let later = world.watch(all(), Some(3)).expect("a watch");
    assert_eq!(world.watches.progress(now), Some(Revision(0)));
    assert_eq!(
        world.watches.progress(later),
        None,
        "a mark before its beginning would make it begin there"
    );
    world.apply(&put("k", "1"));
    assert_eq!(world.watches.progress(now), None);
    world.events(now).expect("events");
    assert_eq!(world.watches.progress(now), Some(Revision(1)));
    world.apply(&put("k", "2"));
    assert_eq!(world.watches.progress(later), Some(Revision(2)));
    assert_eq!(
        world.apply(&put("k", "3")),
        [now, later].map(|watcher| watcher)[1..]
    );
    assert_eq!(world.events(later).map(|events| events.len()), Ok(1));
}

#[test]
fn a_revision_is_torn_only_when_it_does_not_fit_and_that_is_marked() {
    let page = PageLimits {
        events: 3,
        bytes: 1 << 20,
    };
    let mut world = World::new(WatchLimits { page, ..LIMITS });
    let watcher = world.watch(all(), None).expect("a watch");
    for key in ["a", "b", "c", "d", "e"] {
        world.apply(&put(key, ""));
    }
    let everything = quorate_core::state::DeleteRange {
        range: KeyRange::all(),
        previous: false,
    };
    world.apply(&quorate_core::state::Command::Delete(everything));
    world.apply(&put("a", ""));
    let from_history = world.watch(all(), Some(1)).expect("a watch");
    for watcher in [watcher, from_history] {
        let mut pages = Vec::new();
        while let Some(page) = world.page(watcher).expect("a page") {
            let revisions: Vec<u64> = page.events.iter().map(|event| event.revision.0).collect();
            pages.push((revisions, page.torn));
        }
        assert_eq!(
            pages,
            [
                (vec![1, 2, 3], false),
                (vec![4, 5], false),
                (vec![6, 6, 6], true),
                (vec![6, 6, 7], false)
            ]
        );
    }
}

#[test]
fn a_snapshot_makes_no_gap_unless_it_is_compacted_and_that_is_told() {
    let mut world = World::new(LIMITS);
    let watcher = world.watch(all(), None).expect("a watch");
    world.apply(&put("k", "1"));
    let mut ahead = world.state.clone();
    for value in ["2", "3", "4"] {
        apply(&mut ahead, &put("k", value));
    }
    let compacted = {
        let mut ahead = ahead.clone();
        let revision = Revision(3);
        apply(&mut ahead, &quorate_core::state::Command::Compact { revision });
        restored(&ahead)
    };
    world.state = restored(&ahead);
    assert_eq!(world.follow(), [], "it had something to take already");
    assert_eq!(world.events(watcher).map(|events| events.len()), Ok(4));
    world.apply(&put("k", "5"));
    world.events(watcher).expect("events");
    let slow = world.watch(all(), Some(2)).expect("a watch");
    assert_eq!(world.page(slow).map(|page| page.is_some()), Ok(true));
    // The state of another life, which is behind.
    world.state = compacted;
    assert_eq!(world.follow().len(), 2);
    let revision = Revision(4);
    assert_eq!(world.events(watcher), Err(WatchError::Replaced { revision }));
}

#[test]
fn watchers_are_bounded_in_number() {
    let mut world = World::new(WatchLimits {
        watchers: 2,
        ..LIMITS
    });
    let first = world.watch(all(), None).expect("a watch");
    world.watch(all(), None).expect("a watch");
    assert_eq!(world.watch(all(), None), Err(WatchError::TooMany { limit: 2 }));
    world.watches.leave(first);
    assert_eq!(world.watches.take(first), Err(WatchError::Ended));
    world.watch(all(), None).expect("a watch");
}

/// A watcher as its client sees it, which goes on elsewhere when its node goes.
struct Client {
    interest: Interest,
    /// None while it is not connected.
    watcher: Option<WatcherId>,
    /// It wants what comes from here on.
    next: u64,
    /// What came of a revision that is not whole yet.
    torn: Vec<Event>,
}

/// What random runs have met; each must occur.
#[derive(Debug, Default)]
struct Met {
    pages_from_recent: u64,
    pages_from_history: u64,
    torn: u64,
    marks: u64,
    compacted: u64,
    refused: u64,
    resumed: u64,
    snapshots: u64,
}

/// Which events the model expects of the revisions `from..=to`.
fn expected(model: &Model, interest: &Interest, from: u64, to: u64) -> Vec<Event> {
    (from.max(1)..=to)
        .flat_map(|revision| model.changes(revision))
        .filter(|event| interest.range.contains(&event.key))
        .filter(|event| {
            if event.current.is_some() {
                interest.kinds.puts
            } else {
                interest.kinds.deletes
            }
        })
        .collect()
}

impl Client {
    fn connect(&mut self, world: &mut World, met: &mut Met) {
        match world.watch(self.interest.clone(), Some(self.next)) {
            Ok(watcher) => self.watcher = Some(watcher),
            Err(WatchError::Compacted { from, oldest }) => {
                assert_eq!((from.0, oldest), (self.next, world.state.compacted().next()));
                met.refused += 1;
                self.next = oldest.0;
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn disconnect(&mut self, world: &mut World) {
        if let Some(watcher) = self.watcher.take() {
            world.watches.leave(watcher);
            self.torn.clear();
        }
    }

    /// Takes one page and compares it with what the model expects.
    fn take(&mut self, world: &mut World, model: &Model, met: &mut Met) {
        let Some(watcher) = self.watcher else {
            self.connect(world, met);
            met.resumed += 1;
            return;
        };
        match world.page(watcher) {
            Ok(Some(page)) => {
                if world.last_from_history {
                    met.pages_from_history += 1;
                } else {
                    met.pages_from_recent += 1;
                }
                self.heard(&page, model, met);
            }
            Ok(None) => self.heard_everything(world, model),
            Err(WatchError::Compacted { from, oldest }) => {
                assert_eq!(oldest, world.state.compacted().next());
                assert!(
                    self.next <= from.0 && from < oldest,
                    "what it needs next is there"
                );
                met.compacted += 1;
                self.disconnect(world);
                self.next = oldest.0;
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn heard(&mut self, page: &Page, model: &Model, met: &mut Met) {
        let events = page.events.iter().map(|event| Event::clone(event));
        self.torn.extend(events);
        if page.torn {
            met.torn += 1;
            let revision = self.torn[0].revision;
            assert!(self.torn.iter().all(|event| event.revision == revision));
            return;
        }
        let mut heard = std::mem::take(&mut self.torn);
        let Some(last) = heard.last().map(|last| last.revision.0) else {
            return;
        };
        let places: Vec<_> = heard.iter().map(|event| (event.revision, event.order)).collect();
        assert!(
            places.is_sorted_by(|one, other| one < other),
            "events come in their order"
        );
        // The model does not know the order within a revision.
        heard.sort_by(|one, other| (one.revision, &one.key).cmp(&(other.revision, &other.key)));
        heard.iter_mut().for_each(|event| event.order = 0);
        assert_eq!(heard, expected(model, &self.interest, self.next, last));
        self.next = last + 1;
    }

    /// The watcher was told that there is nothing more: then it goes on from the mark, wherever it goes on.
    fn heard_everything(&mut self, world: &World, model: &Model) {
        let latest = model.latest();
        let missed = expected(model, &self.interest, self.next, latest);
        assert_eq!(missed, [], "the watcher was told that there is nothing more");
        let mark = world.watches.progress(self.watcher.expect("connected"));
        assert!(mark.is_none_or(|mark| mark.0 == latest));
        self.next = self.next.max(latest + 1);
    }
}

fn run(seed: u64, met: &mut Met) {
    let mut draws = Draws(ChaCha8Rng::seed_from_u64(seed));
    let limits = WatchLimits {
        watchers: 100,
        recent_bytes: 1500 + usize::try_from(draws.below(8000)).expect("small"),
        page: PageLimits {
            events: 1 + usize::try_from(draws.below(6)).expect("small"),
            bytes: 3000,
        },
    };
    let mut world = World::new(limits);
    let mut model = Model::new();
    let mut clients: Vec<Client> = (0..6)
        .map(|_| Client {
            interest: Interest {
                space: Space::Keys,
                range: draws.range(),
                kinds: Kinds {
                    puts: draws.below(4) > 0,
                    deletes: draws.below(4) > 0,
                },
            },
            watcher: None,
            next: 1 + draws.below(4),
            torn: Vec::new(),
        })
        .collect();
    let mut lagging = 0;
    for index in 1..=400 {
        let command = draws.command(&model);
        model.apply(index, &command);
        world
            .state
            .apply(at(index), &command.encode())
            .expect("a known command");
        if lagging > 0 {
            // Many commands at once, as from a snapshot.
            lagging -= 1;
            continue;
        }
        if draws.below(40) == 0 {
            met.snapshots += 1;
            lagging = draws.below(20);
            continue;
        }
        world.state = if draws.below(20) == 0 {
            restored(&world.state)
        } else {
            world.state
        };
        if draws.below(60) == 0 {
            // The node starts again; its watchers come back.
            world.state = restored(&world.state);
            world.watches = Watches::new(&world.state, limits, seed);
            clients.iter_mut().for_each(|client| {
                client.watcher = None;
                client.torn.clear();
            });
        }
        world.follow();
        for client in &mut clients {
            match draws.below(12) {
                0 => client.disconnect(&mut world),
                1..=4 => client.take(&mut world, &model, met),
                _ => {}
            }
            if client
                .watcher
                .is_some_and(|watcher| world.watches.progress(watcher).is_some())
            {
                met.marks += 1;
                client.heard_everything(&world, &model);
            }
        }
    }
    world.follow();
    for client in &mut clients {
        for _ in 0..2000 {
            client.take(&mut world, &model, met);
        }
        let watcher = client.watcher.expect("connected in the end");
        assert_eq!(
            world.page(watcher),
            Ok(None),
            "everybody has everything in the end"
        );
        client.heard_everything(&world, &model);
    }
}

#[test]
fn random_watchers_hear_what_a_plain_model_says() {
    let mut met = Met::default();
    for seed in 0..120 {
        run(seed, &mut met);
    }
    let Met {
        pages_from_recent,
        pages_from_history,
        torn,
        marks,
        compacted,
        refused,
        resumed,
        snapshots,
    } = met;
    for count in [
        pages_from_recent,
        pages_from_history,
        torn,
        marks,
        compacted,
        refused,
        resumed,
        snapshots,
    ] {
        assert!(count > 20, "{met:?}");
    }
}
