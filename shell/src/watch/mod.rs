//! Watchers of this node's state, as the client port serves them.
//!
//! The [`Hub`] stands between the apply lane, which tells it of every change while it holds the state, and the streams of
//! clients, which take events when they have room for them. The guarantees are those of
//! [`quorate_core::state::Watches`]; here are only locks and wake-ups.
//!
//! Invariants: whoever holds both locks took that of the state first; the hub has followed the state whenever the
//! state can be read; a stream that is not read holds a position and nothing else.

mod end;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use quorate_core::state::{
    Interest, Page, PageLimits, Revision, StateMachine, Taken, WatchError, WatchLimits, WatcherId, Watches,
};
use tokio::sync::Notify;

pub use self::end::WatchEnd;
pub(crate) use self::end::end_with_the_quorum;
use crate::metrics::Metrics;
use crate::planted::{Planted, PlantedBug};

/// The latest events that are kept for all watchers together, in bytes.
const RECENT_BYTES: usize = 8 << 20;
/// What a stream takes at a time, and so about what it holds.
const PAGE: PageLimits = PageLimits {
    events: 256,
    bytes: 64 << 10,
};

/// Watchers of one state.
pub struct Hub {
    state: Arc<RwLock<StateMachine>>,
    inner: Mutex<Inner>,
    metrics: Arc<Metrics>,
    planted: Planted,
}

struct Inner {
    watches: Watches,
    /// How each watcher is told that there is something to take.
    wakers: BTreeMap<WatcherId, Arc<Notify>>,
    /// Why this node serves no watches.
    closed: Option<WatchEnd>,
    /// Memory for the names of those to be woken; holds nothing between calls.
    woken: Vec<WatcherId>,
}

/// Those who have something to take now. To be told when the state is no longer held.
#[must_use]
#[derive(Default)]
pub struct Woken(Vec<Arc<Notify>>);

impl Woken {
    /// Tells them.
    pub fn wake(self) {
        self.0.iter().for_each(|waker| waker.notify_one());
    }
}

impl Hub {
    /// No watchers of `state`, and never more than `watchers_max`. The seed balances a search tree.
    pub fn new(
        state: Arc<RwLock<StateMachine>>,
        watchers_max: usize,
        seed: u64,
        metrics: Arc<Metrics>,
    ) -> Hub {
        let limits = WatchLimits {
            watchers: watchers_max,
            recent_bytes: RECENT_BYTES,
            page: PAGE,
        };
        let watches = {
            let state = state.read().unwrap_or_else(PoisonError::into_inner);
            Watches::new(&state, limits, seed)
        };
        let inner = Inner {
            watches,
            wakers: BTreeMap::new(),
            closed: None,
            woken: Vec::new(),
        };
        Hub {
            state,
            inner: Mutex::new(inner),
            metrics,
            planted: Planted::NONE,
        }
    }

    /// With the mistake that the node makes.
    pub(crate) fn planted_with(self, planted: Planted) -> Hub {
        Hub { planted, ..self }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of what changed in `state`, which the caller holds; to be called after every command and snapshot.
    pub fn follow(&self, state: &StateMachine, woken: &mut Woken) {
        let Inner {
            watches,
            wakers,
            woken: names,
            ..
        } = &mut *self.inner();
        watches.follow(state, names);
        woken.0.extend(
            names
                .drain(..)
                .filter_map(|watcher| wakers.get(&watcher).cloned()),
        );
    }

    /// A watch of changes from `from` on, or of all that are yet to come.
    ///
    /// # Errors
    /// When that revision is compacted, there are too many watchers, or this node serves no watches.
    pub fn watch(self: &Arc<Hub>, interest: Interest, from: Option<Revision>) -> Result<Watching, WatchEnd> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let mut inner = self.inner();
        if let Some(why) = &inner.closed {
            return Err(why.clone());
        }
        let (id, start) = inner.watches.watch(&state, interest, from)?;
        let waker = Arc::new(Notify::new());
        inner.wakers.insert(id, Arc::clone(&waker));
        self.metrics.set_watchers(inner.watches.len() as u64);
        Ok(Watching {
            hub: Arc::clone(self),
            id,
            start,
            waker,
        })
    }

    /// Ends every watch, and refuses new ones until [`Hub::reopen`].
    pub fn close(&self, why: WatchEnd) {
        let mut inner = self.inner();
        if inner.closed != Some(WatchEnd::Stopping) {
            inner.closed = Some(why);
        }
        inner.wakers.values().for_each(|waker| waker.notify_one());
    }

    /// Serves watches again, unless the node is stopping.
    pub fn reopen(&self) {
        let mut inner = self.inner();
        if inner.closed != Some(WatchEnd::Stopping) {
            inner.closed = None;
        }
    }

    /// How many watchers are so far behind that they read the history.
    pub fn far_behind(&self) -> usize {
        self.inner().watches.far_behind()
    }

    fn leave(&self, id: WatcherId) {
        let mut inner = self.inner();
        inner.watches.leave(id);
        inner.wakers.remove(&id);
        self.metrics.set_watchers(inner.watches.len() as u64);
    }

    /// The next page, if there is anything to take.
    fn take(&self, id: WatcherId) -> Result<Option<Page>, WatchEnd> {
        let query = {
            let mut inner = self.inner();
            if let Some(why) = &inner.closed {
                return Err(why.clone());
            }
            match inner.watches.take(id)? {
                Taken::Nothing => return Ok(None),
                Taken::Page(page) => return Ok(Some(page)),
                Taken::FromHistory(query) => query,
            }
        };
        let history = {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            state.events(&query)
        };
        Ok(Some(self.inner().watches.read(id, history)?))
    }
}

impl From<WatchError> for WatchEnd {
    fn from(error: WatchError) -> WatchEnd {
        match error {
            WatchError::Compacted { from, oldest } => WatchEnd::Compacted { from, oldest },
            WatchError::Replaced { revision } => WatchEnd::Replaced { revision },
            WatchError::TooMany { limit } => WatchEnd::TooMany { limit },
            // Its stream is what a watcher ends with.
            WatchError::Ended => WatchEnd::Stopping,
        }
    }
}

/// One watch. Ends when it is dropped.
pub struct Watching {
    hub: Arc<Hub>,
    id: WatcherId,
    start: Revision,
    waker: Arc<Notify>,
}

impl Watching {
    /// The revision that the watch begins with.
    pub fn start(&self) -> Revision {
        self.start
    }

    /// Whether this node has come to a revision. If not, it lags, or nobody has made that revision.
    pub fn has(&self, revision: Revision) -> bool {
        let state = self.hub.state.read().unwrap_or_else(PoisonError::into_inner);
        state.revision() >= revision
    }

    /// The next events, as soon as there are any. Nothing is lost when the future is dropped before it completes.
    ///
    /// # Errors
    /// When the watch has ended.
    pub async fn next(&mut self) -> Result<Page, WatchEnd> {
        loop {
            match self.hub.take(self.id)? {
                Some(page) if !page.events.is_empty() => {
                    self.hub.metrics.count_watch_events(page.events.len() as u64);
                    return Ok(page);
                }
                // A part of the history without anything for this watcher; others want to go on as well.
                Some(_) => tokio::task::yield_now().await,
                None => self.waker.notified().await,
            }
        }
    }

    /// A mark of progress: everything that this watcher wants up to this revision was taken. None when that is not so.
    pub fn progress(&self) -> Option<Revision> {
        let told = self.hub.inner().watches.progress(self.id);
        if self.hub.planted.is(PlantedBug::MarkComesTooEarly) {
            return told.map(Revision::next);
        }
        told
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.hub.leave(self.id);
    }
}

#[cfg(test)]
mod tests;
