//! Watches: whoever wants to hear of changes does, in order, once, whole, and without a gap.
//!
//! Nothing is queued for a watcher. It has a position, and takes events from there when it has room for them: from the
//! latest ones, which all watchers share, or from the history that the state keeps until it is compacted. So a watcher
//! that is slow, or begins at an old revision, costs no memory and holds nobody up; when what it has not taken is compacted
//! away, it ends and is told so.
//!
//! A driver calls [`Watches::follow`] after every change of the state, tells those whom it names that there is
//! something to take, and takes with [`Watches::take`], and with [`StateMachine::events`] where that asks for it.
//!
//! Guarantees, those of etcd's v3 API:
//! - ordered: a watcher hears of changes in the order of their revisions, and of none twice;
//! - atomic: the changes of one revision come together, or marked as torn ([`Page::torn`]);
//! - reliable: between the first change that it hears of and the last one none is left out;
//! - resumable: a watch from any revision that is not compacted hears of everything from there on;
//! - bookmarkable: a mark of progress says that everything up to a revision was heard, and comes after it.

mod event;
mod index;
mod page;
mod recent;

use std::collections::BTreeMap;
use std::sync::Arc;

use thiserror::Error;

pub use self::event::{Event, Interest, Kinds};
use self::index::RangeIndex;
pub use self::page::{Page, PageLimits};
use self::recent::Recent;
use super::space::Space;
use super::version::Place;
use super::{Revision, StateMachine};

/// Names a watcher; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WatcherId(u64);

/// How much watching may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchLimits {
    /// Watchers at a time.
    pub watchers: usize,
    /// The latest events that are kept for all watchers together, in bytes.
    pub recent_bytes: usize,
    /// What is taken at a time.
    pub page: PageLimits,
}

/// Why there is no watch, or why it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WatchError {
    /// Changes that the watcher did not hear of are no longer known.
    #[error("the changes from revision {from} on are compacted: a watch can begin at revision {oldest}")]
    Compacted {
        /// What the watcher would have heard of next.
        from: Revision,
        /// The oldest revision that a watch can begin with.
        oldest: Revision,
    },
    /// The state was replaced by one that is behind what the watcher may have heard of.
    #[error(
        "the state was replaced by one of revision {revision}, which is behind what was told: read the keys again"
    )]
    Replaced {
        /// The revision of the state now.
        revision: Revision,
    },
    /// There are as many watchers as there may be.
    #[error("there are {limit} watchers already, as many as there may be")]
    TooMany {
        /// How many.
        limit: usize,
    },
    /// There is no such watcher, or it has ended.
    #[error("the watch has ended")]
    Ended,
}

/// What a watcher takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Nothing: it has heard of everything.
    Nothing,
    /// These events. There may be more; a page may also be empty.
    Page(Page),
    /// What comes next is in the history of the state: read it with [`StateMachine::events`], then call
    /// [`Watches::read`].
    FromHistory(HistoryQuery),
}

/// Which part of the history a watcher needs next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryQuery {
    interest: Arc<Interest>,
    from: Place,
    limits: PageLimits,
}

/// A part of the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryPage {
    page: Page,
    /// The revision of the state that was read.
    revision: Revision,
}

/// All watchers of one state.
///
/// Invariants: `latest` is the revision of the state that was followed last; every watcher in `watchers` is in `index`
/// with its range, and nobody else is.
#[derive(Clone, Debug)]
pub struct Watches {
    watchers: BTreeMap<WatcherId, Watcher>,
    /// One a space.
    index: [RangeIndex; Space::COUNT],
    recent: Recent,
    latest: Revision,
    next: WatcherId,
    limits: WatchLimits,
}

#[derive(Clone, Debug)]
struct Watcher {
    interest: Arc<Interest>,
    /// It wants nothing before this revision, which may be in the future.
    start: Revision,
    /// The revision of the state when it came: [`Recent`] has all that it wants of later ones only.
    came: Revision,
    standing: Standing,
}

/// How far a watcher is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It took everything up to the latest revision.
    Synced,
    /// It took everything before this place, and there may be something from there on.
    Behind(Place),
    /// It cannot go on.
    Ended(WatchError),
}

impl Watches {
    /// No watchers of `state`. The seed decides how the search tree is balanced, and nothing else.
    pub fn new(state: &StateMachine, limits: WatchLimits, seed: u64) -> Watches {
        assert!(
            limits.page.events > 0,
            "a page has room for an event, or nobody comes on"
        );
        Watches {
            watchers: BTreeMap::new(),
            index: std::array::from_fn(|_| RangeIndex::new(seed)),
            recent: Recent::new(limits.recent_bytes, state.revision()),
            latest: state.revision(),
            next: WatcherId(0),
            limits,
        }
    }

    /// A watcher of changes from `from` on, or of all that are yet to come. Also says which revision it begins with.
    ///
    /// # Errors
    /// When that revision is compacted, or there are too many watchers.
    pub fn watch(
        &mut self,
        state: &StateMachine,
        interest: Interest,
        from: Option<Revision>,
    ) -> Result<(WatcherId, Revision), WatchError> {
        assert!(state.revision() == self.latest, "the state was followed");
        let limit = self.limits.watchers;
        if self.watchers.len() >= limit {
            return Err(WatchError::TooMany { limit });
        }
        let start = from.unwrap_or(self.latest.next());
        state.check_watchable(start)?;
        let standing = if start > self.latest {
            Standing::Synced
        } else {
            Standing::Behind(Place::first_of(start))
        };
        let id = self.next;
        self.next = WatcherId(id.0 + 1);
        self.index[interest.space.number()].insert(&interest.range, id);
        let watcher = Watcher {
            interest: Arc::new(interest),
            start,
            came: self.latest,
            standing,
        };
        self.watchers.insert(id, watcher);
        Ok((id, start))
    }

    /// The watcher goes.
    pub fn leave(&mut self, id: WatcherId) {
        let Some(watcher) = self.watchers.remove(&id) else {
            return;
        };
        self.index[watcher.interest.space.number()].remove(&watcher.interest.range, id);
        if self.watchers.is_empty() {
            self.recent.restart(self.latest);
        }
    }

    /// Takes note of what changed since the last call; to be called after every command and every installed snapshot.
    /// Adds to `woken` those who had taken everything and now have something to take.
    pub fn follow(&mut self, state: &StateMachine, woken: &mut Vec<WatcherId>) {
        let latest = state.revision();
        if latest == self.latest {
            return;
        }
        let before = std::mem::replace(&mut self.latest, latest);
        if latest < before {
            self.recent.restart(latest);
            let replaced = WatchError::Replaced { revision: latest };
            self.change_standings(woken, |_| Standing::Ended(replaced));
        } else if self.watchers.is_empty() {
            self.recent.restart(latest);
        } else if latest == before.next() && state.compacted() < latest {
            self.announce(state, latest, woken);
        } else {
            // A snapshot: what happened since is in the history that came with it, or compacted.
            self.recent.restart(latest);
            self.change_standings(woken, |watcher| match watcher.standing {
                Standing::Synced if watcher.start <= latest => {
                    Standing::Behind(Place::first_of(watcher.start.max(before.next())))
                }
                standing => standing,
            });
        }
    }

    /// Gives everyone a standing, and wakes those who had taken everything and now have something to take.
    fn change_standings(&mut self, woken: &mut Vec<WatcherId>, change: impl Fn(&Watcher) -> Standing) {
        for (id, watcher) in &mut self.watchers {
            let standing = change(watcher);
            let before = std::mem::replace(&mut watcher.standing, standing);
            if before == Standing::Synced && standing != Standing::Synced {
                woken.push(*id);
            }
        }
    }

    /// Keeps the events of a revision that somebody wants, and tells who.
    fn announce(&mut self, state: &StateMachine, revision: Revision, woken: &mut Vec<WatcherId>) {
        for version in state.keys.changes_of(revision) {
            let (place, is_put) = (version.place(), version.exists());
            let mut wanted = false;
            let watchers = &mut self.watchers;
            self.index[version.space().number()].visit(version.key(), &mut |id| {
                let watcher = watchers.get_mut(&id).expect("the index knows watchers only");
                if revision < watcher.start || !watcher.interest.wants_kind(is_put) {
                    return;
                }
                wanted = true;
                if watcher.standing == Standing::Synced {
                    watcher.standing = Standing::Behind(place);
                    woken.push(id);
                }
            });
            if wanted {
                self.recent.push(Arc::new(state.keys.event(version)));
            }
        }
    }

    /// The next events for a watcher.
    ///
    /// # Errors
    /// When the watch has ended; the watcher is to [leave](Watches::leave) then.
    pub fn take(&mut self, id: WatcherId) -> Result<Taken, WatchError> {
        let watcher = self.watchers.get_mut(&id).ok_or(WatchError::Ended)?;
        let from = match watcher.standing {
            Standing::Synced => return Ok(Taken::Nothing),
            Standing::Ended(why) => return Err(why),
            Standing::Behind(from) => from,
        };
        let limits = self.limits.page;
        if from < self.recent.start().max(Place::first_after(watcher.came)) {
            let interest = Arc::clone(&watcher.interest);
            return Ok(Taken::FromHistory(HistoryQuery {
                interest,
                from,
                limits,
            }));
        }
        let page = Page::fill(self.recent.from(from), limits, |_, event| {
            watcher.interest.wants(event).then(|| Arc::clone(event))
        });
        watcher.standing = page.next.map_or(Standing::Synced, Standing::Behind);
        Ok(Taken::Page(page))
    }

    /// Takes note that a watcher was given what it needed of the history.
    ///
    /// # Errors
    /// When that is compacted, or the watch has ended meanwhile.
    pub fn read(
        &mut self,
        id: WatcherId,
        history: Result<HistoryPage, WatchError>,
    ) -> Result<Page, WatchError> {
        let latest = self.latest;
        let watcher = self.watchers.get_mut(&id).ok_or(WatchError::Ended)?;
        if let Standing::Ended(why) = watcher.standing {
            return Err(why);
        }
        let HistoryPage { page, revision } = match history {
            Ok(history) => history,
            Err(why) => {
                watcher.standing = Standing::Ended(why);
                return Err(why);
            }
        };
        assert!(revision <= latest, "what was read was followed");
        watcher.standing = match page.next {
            Some(next) => Standing::Behind(next),
            None if revision < latest => Standing::Behind(Place::first_after(revision)),
            None => Standing::Synced,
        };
        Ok(page)
    }

    /// A mark of progress: the watcher took everything that it wants up to this revision. None when there may be
    /// something that it did not take, or when it begins later.
    pub fn progress(&self, id: WatcherId) -> Option<Revision> {
        let watcher = self.watchers.get(&id)?;
        (watcher.standing == Standing::Synced && watcher.start <= self.latest.next()).then_some(self.latest)
    }

    /// How many watchers there are.
    pub fn len(&self) -> usize {
        self.watchers.len()
    }

    /// Whether nobody watches.
    pub fn is_empty(&self) -> bool {
        self.watchers.is_empty()
    }

    /// How many watchers are so far behind that they go on from the history.
    pub fn far_behind(&self) -> usize {
        let start = self.recent.start();
        let far = |watcher: &&Watcher| match watcher.standing {
            Standing::Behind(from) => from < start.max(Place::first_after(watcher.came)),
            Standing::Synced | Standing::Ended(_) => false,
        };
        self.watchers.values().filter(far).count()
    }
}

impl StateMachine {
    /// The part of the history that a watcher asked for.
    ///
    /// # Errors
    /// When it is compacted.
    pub fn events(&self, query: &HistoryQuery) -> Result<HistoryPage, WatchError> {
        self.check_watchable(query.from.revision)?;
        let interest = &query.interest;
        let changes = self.keys.changes_from(query.from);
        let candidates = changes.map(|version| (version.place(), version));
        let page = Page::fill(candidates, query.limits, |_, version| {
            let wanted = interest.space == version.space()
                && interest.range.contains(version.key())
                && interest.wants_kind(version.exists());
            wanted.then(|| Arc::new(self.keys.event(version)))
        });
        Ok(HistoryPage {
            page,
            revision: self.revision(),
        })
    }

    /// Changes of the revision up to which was compacted are partly forgotten, and what was before them is.
    fn check_watchable(&self, from: Revision) -> Result<(), WatchError> {
        let oldest = self.compacted().next();
        if from < oldest {
            Err(WatchError::Compacted { from, oldest })
        } else {
            Ok(())
        }
    }
}
