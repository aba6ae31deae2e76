//! Simulated time: a heap of events.
//!
//! Events at the same instant happen in the order in which they were put in.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Nanoseconds of simulated time since the run began.
pub(crate) type Time = u64;

/// A microsecond.
pub(crate) const MICROSECOND: Time = 1_000;
/// A millisecond.
pub(crate) const MILLISECOND: Time = 1_000_000;
/// A second.
pub(crate) const SECOND: Time = 1_000_000_000;

/// Events to come. They lie in slots of their own, so that the heap moves only small keys.
#[derive(Debug)]
pub(crate) struct Schedule<E> {
    heap: BinaryHeap<Reverse<(Time, u64, usize)>>,
    slots: Vec<Option<E>>,
    free: Vec<usize>,
    sequence: u64,
    now: Time,
}

impl<E> Schedule<E> {
    pub(crate) fn new() -> Schedule<E> {
        Schedule {
            heap: BinaryHeap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            sequence: 0,
            now: 0,
        }
    }

    /// The instant of the event that was taken last.
    pub(crate) fn now(&self) -> Time {
        self.now
    }

    /// Puts in an event; an instant that has passed means now.
    pub(crate) fn at(&mut self, time: Time, event: E) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[slot] = Some(event);
        self.heap.push(Reverse((time.max(self.now), self.sequence, slot)));
        self.sequence += 1;
    }

    /// Puts in an event that happens `delay` from now.
    pub(crate) fn after(&mut self, delay: Time, event: E) {
        self.at(self.now + delay, event);
    }

    /// What is going to happen, in no particular order.
    pub(super) fn pending(&self) -> impl Iterator<Item = &E> {
        self.slots.iter().flatten()
    }

    /// When the next event is.
    pub(crate) fn next_time(&self) -> Option<Time> {
        let Reverse((time, ..)) = self.heap.peek()?;
        Some(*time)
    }

    /// Takes the next event and moves time to it.
    pub(crate) fn next(&mut self) -> Option<E> {
        let Reverse((time, _, slot)) = self.heap.pop()?;
        self.now = time;
        self.free.push(slot);
        self.slots[slot].take()
    }

    /// Takes out the events that are not to be kept.
    pub(crate) fn retain(&mut self, keep: impl Fn(&E) -> bool) {
        let (slots, free) = (&mut self.slots, &mut self.free);
        self.heap.retain(|Reverse((_, _, slot))| {
            let kept = slots[*slot].as_ref().is_some_and(&keep);
            if !kept {
                slots[*slot] = None;
                free.push(*slot);
            }
            kept
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_the_order_of_time_and_then_of_entry() {
        let mut schedule = Schedule::new();
        schedule.at(20, "c");
        schedule.at(10, "a");
        schedule.at(20, "d");
        schedule.at(10, "b");
        assert_eq!(schedule.next(), Some("a"));
        schedule.at(5, "late");
        assert_eq!(schedule.next(), Some("b"));
        assert_eq!(schedule.next(), Some("late"));
        assert_eq!(schedule.now(), 10);
        schedule.at(20, "e");
        schedule.retain(|event| *event != "d");
        assert_eq!(
            (schedule.next(), schedule.next(), schedule.next()),
            (Some("c"), Some("e"), None)
        );
    }
}
