//! The latest events, which all watchers share.
//!
//! A watcher that keeps up takes its events from here, so that a compaction right after a change takes nothing from
//! it, and so that the state is not asked. Bounded in bytes: whoever falls behind goes on from the history of the state.

use std::collections::VecDeque;
use std::sync::Arc;

use super::super::Revision;
use super::super::version::Place;
use super::Event;

/// Invariants: the events are ascending and not before `start`; from there on nothing is left out that was wanted by
/// a watcher when it happened.
#[derive(Clone, Debug)]
pub(super) struct Recent {
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    bytes_max: usize,
    start: Place,
}

impl Recent {
    /// Without any event up to `latest`.
    pub(super) fn new(bytes_max: usize, latest: Revision) -> Recent {
        Recent {
            events: VecDeque::new(),
            bytes: 0,
            bytes_max,
            start: Place::first_after(latest),
        }
    }

    /// Forgets everything up to `latest`.
    pub(super) fn restart(&mut self, latest: Revision) {
        *self = Recent::new(self.bytes_max, latest);
    }

    /// From where on events are kept.
    pub(super) fn start(&self) -> Place {
        self.start
    }

    /// An event after all others. Forgets the oldest ones when they are too many.
    pub(super) fn push(&mut self, event: Arc<Event>) {
        let last = self.events.back().map(|last| last.place());
        assert!(
            last.is_none_or(|last| last < event.place()),
            "events come in their order"
        );
        self.bytes += event.size();
        self.events.push_back(event);
        while self.bytes > self.bytes_max
            && let Some(forgotten) = self.events.pop_front()
        {
            self.bytes -= forgotten.size();
            self.start = Place {
                revision: forgotten.revision,
                order: forgotten.order + 1,
            };
        }
    }

    /// The events from a place on, which is not before the start.
    pub(super) fn from(&self, place: Place) -> impl Iterator<Item = (Place, &Arc<Event>)> {
        assert!(place >= self.start, "what was forgotten is not asked for");
        let first = self.events.partition_point(|event| event.place() < place);
        self.events.range(first..).map(|event| (event.place(), event))
    }
}
