//! The last entries of the log, in memory.
//!
//! They are kept in segments, as they came: a batch of commands, or the entries of one append. What is handed on is
//! shared with the segment. Invariants: segments are not empty and follow each other without a gap; what is let go of is
//! whole segments, the oldest first; every count of bytes is a difference between places in the stream of all entries
//! that were ever here, so that none can leak (cockroach#31689).

use std::collections::VecDeque;
use std::fmt;

use super::{Entries, Entry, Index};

/// Bytes of entries from which on a batch is closed, so that what is let go of is small beside what is kept.
const SEGMENT_BYTES: u64 = 256 << 10;
/// Entries up to which batches are copied into one, so that a thousand batches of one make no thousand segments.
const JOINED_MAX: usize = 32;

#[derive(Clone)]
struct Segment {
    /// The index of the first entry.
    first: Index,
    entries: Entries,
    /// Bytes of all entries that were ever in the tail, up to the end of this segment.
    end: u64,
}

#[derive(Clone, Default)]
pub(super) struct Tail {
    segments: VecDeque<Segment>,
    /// Bytes of the entries that were ever in the tail and were let go of.
    start: u64,
    /// Bytes of the entries that were ever in the tail, up to the last settled one: it is committed, and on disk.
    settled: u64,
    /// Entries at the end that are in no segment yet; none after [`Tail::seal`].
    open: Vec<Entry>,
    open_bytes: u64,
}

impl Segment {
    fn last(&self) -> Index {
        Index(self.first.0 + self.entries.len() as u64 - 1)
    }

    /// The place of the entry at `index`, which is here or the next one.
    fn place(&self, index: Index) -> usize {
        usize::try_from(index.0 - self.first.0).unwrap_or(usize::MAX)
    }
}

impl Tail {
    /// Adds one entry, which is not shared yet.
    pub(super) fn push(&mut self, entry: Entry) {
        self.open_bytes += entry.size();
        self.open.push(entry);
        if self.open_bytes >= SEGMENT_BYTES {
            self.seal();
        }
    }

    /// Adds entries as they are.
    pub(super) fn extend(&mut self, entries: Entries) {
        self.seal();
        let bytes = entries.iter().map(Entry::size).sum();
        self.keep(entries, bytes);
    }

    /// Puts what was pushed into a segment, to be shared.
    pub(super) fn seal(&mut self) {
        if !self.open.is_empty() {
            let entries = self.open.drain(..).collect();
            let bytes = std::mem::take(&mut self.open_bytes);
            self.keep(entries, bytes);
        }
    }

    fn keep(&mut self, entries: Entries, bytes: u64) {
        let end = self.end() + bytes;
        if let Some(first) = entries.first().map(|entry| entry.position.index) {
            self.segments.push_back(Segment { first, entries, end });
        }
    }

    /// Removes the entries from `from` on.
    pub(super) fn truncate(&mut self, from: Index) {
        self.seal();
        while self
            .segments
            .pop_back_if(|segment| segment.first >= from)
            .is_some()
        {}
        let end = self.end_of(from.previous());
        if let Some(segment) = self.segments.back_mut().filter(|segment| segment.last() >= from) {
            segment.entries = segment.entries.slice(0..segment.place(from));
            segment.end = end;
        }
    }

    /// Removes every entry.
    pub(super) fn clear(&mut self) {
        self.seal();
        self.start = self.end();
        self.settled = self.start;
        self.segments.clear();
    }

    /// Removes the entries up to and including `index`.
    pub(super) fn forget(&mut self, index: Index) {
        self.seal();
        self.start = self.start.max(self.end_of(index));
        while self
            .segments
            .pop_front_if(|segment| segment.last() <= index)
            .is_some()
        {}
        if let Some(segment) = self.segments.front_mut().filter(|segment| segment.first <= index) {
            segment.entries = segment
                .entries
                .slice(segment.place(index.next())..segment.entries.len());
            segment.first = index.next();
        }
    }

    /// Lets go of whole segments up to `index`, while more than `bytes_max` are held.
    pub(super) fn shrink(&mut self, index: Index, bytes_max: u64) {
        while self.bytes() > bytes_max
            && let Some(segment) = self.segments.pop_front_if(|segment| segment.last() <= index)
        {
            self.start = segment.end;
        }
    }

    /// Everything up to `index` is committed and on disk.
    pub(super) fn settled(&mut self, index: Index) {
        self.seal();
        self.settled = self.settled.max(self.end_of(index));
    }

    /// Bytes of all entries here.
    pub(super) fn bytes(&self) -> u64 {
        self.end() + self.open_bytes - self.start
    }

    /// Bytes of the entries here that are not committed, or not on disk.
    pub(super) fn unsettled_bytes(&self) -> u64 {
        self.end() + self.open_bytes - self.settled.max(self.start)
    }

    /// Whether the entry at `index`, which the log has, is here.
    pub(super) fn holds(&self, index: Index) -> bool {
        self.segments
            .front()
            .is_some_and(|segment| segment.first <= index)
    }

    /// Entries from `first` to at most `last` and their bytes: as many as came together and fit into `bytes_max`, but at
    /// least one.
    pub(super) fn piece(&self, first: Index, last: Index, bytes_max: u64) -> (Entries, u64) {
        assert!(self.open.is_empty(), "what is handed on is in a segment");
        assert!(self.holds(first), "the range begins in memory");
        let place = self.find(first);
        let segment = &self.segments[place];
        let start = segment.place(first);
        let end = segment.place(last.min(segment.last()).next());
        if end == segment.entries.len() {
            let bytes = segment.end - self.bytes_before(place, start);
            if bytes <= bytes_max {
                return (segment.entries.slice(start..end), bytes);
            }
        }
        let (count, bytes) = fitting(segment.entries[start..end].iter(), bytes_max);
        (segment.entries.slice(start..start + count), bytes)
    }

    /// Entries from `first` to at most `last` and their bytes: as many as fit into `bytes_max`, but at least one. What
    /// came together is shared; a follower that lags gets copies, rather than many small messages.
    pub(super) fn batch(&self, first: Index, last: Index, bytes_max: u64) -> (Entries, u64) {
        let (piece, bytes) = self.piece(first, last, bytes_max);
        let end = Index(first.0 + piece.len() as u64 - 1);
        if end >= last {
            return (piece, bytes);
        }
        let place = self.find(first);
        if end < self.segments[place].last() {
            return (piece, bytes);
        }
        let count = usize::try_from(last.0 + 1 - first.0).unwrap_or(usize::MAX);
        let start = self.segments[place].place(first);
        let later = self.segments.range(place..).flat_map(|segment| &segment.entries);
        let wanted = later.skip(start).take(count);
        let (count, bytes) = fitting(wanted.clone(), bytes_max);
        (wanted.take(count).cloned().collect(), bytes)
    }

    /// The entries from `first` on that came together. Small batches are joined: what follows shares them as one.
    pub(super) fn joined(&mut self, first: Index) -> Entries {
        self.seal();
        let place = self.find(first);
        let (mut count, mut end) = (self.segments[place].entries.len(), place + 1);
        while let Some(next) = self.segments.get(end)
            && count + next.entries.len() <= JOINED_MAX
        {
            (count, end) = (count + next.entries.len(), end + 1);
        }
        if end > place + 1 {
            let several = self
                .segments
                .range(place..end)
                .flat_map(|segment| &segment.entries);
            let joined = Segment {
                first: self.segments[place].first,
                entries: several.cloned().collect(),
                end: self.segments[end - 1].end,
            };
            self.segments.drain(place + 1..end);
            self.segments[place] = joined;
        }
        let segment = &self.segments[place];
        let start = segment.place(first);
        segment.entries.slice(start..segment.entries.len())
    }

    /// Bytes of the entries that were ever in a segment.
    fn end(&self) -> u64 {
        self.segments.back().map_or(self.start, |segment| segment.end)
    }

    /// Bytes of the entries that were ever here, up to `index`.
    fn end_of(&self, index: Index) -> u64 {
        let Some(last) = self.segments.back() else {
            return self.start;
        };
        if index >= last.last() {
            return last.end;
        }
        if !self.holds(index) {
            return self.start;
        }
        let place = self.find(index);
        let segment = &self.segments[place];
        self.bytes_before(place, segment.place(index.next()))
    }

    /// Bytes of the entries that were ever here, up to the one before `entry` of the segment at `place`.
    fn bytes_before(&self, place: usize, entry: usize) -> u64 {
        let segment = &self.segments[place];
        if entry > 0 {
            let rest = &segment.entries[entry..];
            return segment.end - rest.iter().map(Entry::size).sum::<u64>();
        }
        match place.checked_sub(1) {
            Some(before) => self.segments[before].end,
            None => self.start,
        }
    }

    /// The place of the segment with the entry at `index`. Most that is asked for is near the end.
    fn find(&self, index: Index) -> usize {
        let mut end = self.segments.len();
        let (mut start, mut step) = (end.saturating_sub(1), 1);
        while start > 0 && self.segments[start].first > index {
            (start, end, step) = (start.saturating_sub(step), start, step * 2);
        }
        while end - start > 1 {
            let middle = start + (end - start) / 2;
            if self.segments[middle].first <= index {
                start = middle;
            } else {
                end = middle;
            }
        }
        start
    }
}

/// Shows the entries and not how they came: nodes that hold the same are in the same state.
impl fmt::Debug for Tail {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = self.segments.iter().flat_map(|segment| &segment.entries);
        formatter.debug_list().entries(entries.chain(&self.open)).finish()
    }
}

/// How many of `entries` fit into `bytes_max`, but at least one, and how many bytes they are.
fn fitting<'a>(entries: impl Iterator<Item = &'a Entry>, bytes_max: u64) -> (usize, u64) {
    let (mut count, mut bytes) = (0, 0);
    for entry in entries {
        let size = entry.size();
        if count > 0 && bytes + size > bytes_max {
            break;
        }
        (count, bytes) = (count + 1, bytes + size);
    }
    (count, bytes)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::{Payload, Position, Term};
    use super::*;

    fn entry(index: u64) -> Entry {
        Entry {
            position: Position {
                term: Term(1),
                index: Index(index),
            },
            payload: Payload::Command(Bytes::from(vec![7; (index % 5) as usize])),
        }
    }

    /// What a list of entries would say.
    struct Model {
        first: u64,
        last: u64,
        committed: u64,
    }

    impl Model {
        fn bytes(&self, from: u64) -> u64 {
            (from.max(self.first)..=self.last)
                .map(|index| entry(index).size())
                .sum()
        }

        fn check(&self, tail: &Tail) {
            assert_eq!(tail.bytes(), self.bytes(self.first));
            assert_eq!(tail.unsettled_bytes(), self.bytes(self.committed + 1));
            for first in self.first..=self.last {
                for last in [first, first + 1, self.last] {
                    let last = Index(last.min(self.last));
                    for bytes_max in [1, 80, u64::MAX] {
                        let (batch, bytes) = tail.batch(Index(first), last, bytes_max);
                        assert_eq!(batch[0], entry(first));
                        assert!(batch.len() == 1 || bytes <= bytes_max);
                        assert_eq!(bytes, batch.iter().map(Entry::size).sum::<u64>());
                        let end = first + batch.len() as u64 - 1;
                        assert!(end <= last.0);
                        let next = bytes + entry(end + 1).size();
                        assert!(end == last.0 || next > bytes_max, "as many as fit");
                        let (piece, bytes) = tail.piece(Index(first), last, bytes_max);
                        assert_eq!(piece[..], batch[..piece.len()]);
                        assert_eq!(bytes, piece.iter().map(Entry::size).sum::<u64>());
                    }
                }
            }
        }
    }

    #[test]
    fn segments_hold_what_a_list_would_hold() {
        for seed in 0..200u64 {
            let mut tail = Tail::default();
            let mut model = Model {
                first: 1,
                last: 0,
                committed: 0,
            };
            let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1;
            for _ in 0..60 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let count = state % 4;
                match (state >> 8) % 9 {
                    0 | 1 => (model.last + 1..=model.last + count).for_each(|index| tail.push(entry(index))),
                    2 | 3 => tail.extend((model.last + 1..=model.last + count).map(entry).collect()),
                    4 if model.last > model.committed => {
                        model.last = model.committed + state % (model.last - model.committed);
                        tail.truncate(Index(model.last + 1));
                    }
                    5 if model.last > model.committed => {
                        model.committed += 1;
                        tail.settled(Index(model.committed));
                    }
                    6 if model.committed > model.first => {
                        tail.forget(Index(model.first));
                        model.first += 1;
                    }
                    7 if model.last > model.committed => {
                        let first = model.committed.max(model.first) + 1;
                        let first = first.min(model.last);
                        let joined = tail.joined(Index(first));
                        let expected: Vec<Entry> = (first..=model.last).map(entry).collect();
                        assert_eq!(joined[..], expected[..joined.len()]);
                        assert!(!joined.is_empty());
                    }
                    8 => {
                        let before = tail.bytes();
                        tail.seal();
                        tail.shrink(Index(model.committed), 100);
                        while model.bytes(model.first) > tail.bytes() {
                            model.first += 1;
                        }
                        assert!(tail.bytes() == before || model.first <= model.committed + 1);
                    }
                    _ => {}
                }
                if matches!((state >> 8) % 9, 0..=3) {
                    model.last += count;
                }
                tail.seal();
                model.check(&tail);
            }
        }
    }
}
