//! Events in portions that are bounded and do not tear a revision apart unnoticed.

use std::sync::Arc;

use super::super::version::Place;
use super::Event;

/// How many changes are looked at for one page.
pub(super) const LOOKED_AT_MAX: usize = 4096;

/// How large a page may become; one event always fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageLimits {
    /// Events.
    pub events: usize,
    /// Their sizes together, in bytes.
    pub bytes: usize,
}

/// Some events in their order.
///
/// Invariants: revisions are whole but for the last one, and that is torn only when it does not fit into a page; what
/// is left of it comes with the next page, which then begins with the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The events, ascending.
    pub events: Vec<Arc<Event>>,
    /// Whether the last revision goes on in the next page.
    pub torn: bool,
    /// Where the next page begins; none when there was nothing more.
    pub(super) next: Option<Place>,
    bytes: usize,
}

impl Page {
    /// Fills a page with what is `wanted` of the candidates, which are ascending.
    pub(super) fn fill<C>(
        candidates: impl Iterator<Item = (Place, C)>,
        limits: PageLimits,
        mut wanted: impl FnMut(Place, C) -> Option<Arc<Event>>,
    ) -> Page {
        let mut page = Page::default();
        for (looked_at, (place, candidate)) in candidates.enumerate() {
            let inside = page
                .events
                .last()
                .is_some_and(|last| last.revision == place.revision);
            // Inside of a revision that has begun it goes on to the end, or until the page is full.
            if looked_at >= LOOKED_AT_MAX && !inside {
                page.next = Some(place);
                return page;
            }
            let Some(event) = wanted(place, candidate) else {
                continue;
            };
            if !page.has_room_for(&event, limits) {
                page.end_before(place);
                return page;
            }
            page.bytes += event.size();
            page.events.push(event);
        }
        page
    }

    fn has_room_for(&self, event: &Event, limits: PageLimits) -> bool {
        self.events.is_empty()
            || (self.events.len() < limits.events && self.bytes + event.size() <= limits.bytes)
    }

    /// Ends the page before an event, so that no revision is torn unless it is the only one.
    fn end_before(&mut self, place: Place) {
        let whole = self
            .events
            .partition_point(|event| event.revision < place.revision);
        self.next = match self.events.get(whole) {
            Some(first) if whole > 0 => Some(first.place()),
            _ => Some(place),
        };
        if whole > 0 {
            self.events.truncate(whole);
        } else {
            self.torn = true;
        }
    }
}
