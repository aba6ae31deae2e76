//! Ranges of keys.

use std::ops::{Bound, RangeBounds};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Bounds as the search of an ordered map wants them.
pub(super) type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// A run of neighbouring keys, in the order of their bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRange {
    start: Bound<Bytes>,
    end: Bound<Bytes>,
}

impl KeyRange {
    /// Every key.
    pub fn all() -> KeyRange {
        KeyRange {
            start: Bound::Unbounded,
            end: Bound::Unbounded,
        }
    }

    /// This key alone.
    pub fn only(key: impl Into<Bytes>) -> KeyRange {
        let key = key.into();
        KeyRange {
            start: Bound::Included(key.clone()),
            end: Bound::Included(key),
        }
    }

    /// The keys from `start` up to but not including `end`.
    pub fn between(start: impl Into<Bytes>, end: impl Into<Bytes>) -> KeyRange {
        KeyRange {
            start: Bound::Included(start.into()),
            end: Bound::Excluded(end.into()),
        }
    }

    /// The keys that are `start` or come later.
    pub fn from(start: impl Into<Bytes>) -> KeyRange {
        KeyRange {
            start: Bound::Included(start.into()),
            end: Bound::Unbounded,
        }
    }

    /// The keys that begin with `prefix`.
    pub fn prefix(prefix: impl Into<Bytes>) -> KeyRange {
        let prefix = prefix.into();
        // The first key that no longer begins with the prefix: its last byte that can be raised is, the rest is cut.
        let end = prefix
            .iter()
            .rposition(|byte| *byte != u8::MAX)
            .map_or(Bound::Unbounded, |last| {
                let mut end = prefix[..=last].to_vec();
                end[last] += 1;
                Bound::Excluded(end.into())
            });
        KeyRange {
            start: Bound::Included(prefix),
            end,
        }
    }

    /// What of this range comes after `key`.
    #[must_use]
    pub fn after(&self, key: impl Into<Bytes>) -> KeyRange {
        KeyRange {
            start: Bound::Excluded(key.into()),
            end: self.end.clone(),
        }
    }

    /// The bounds for a search in an ordered map; none when no key can lie between them.
    pub(super) fn bounds(&self) -> Option<Bounds<'_>> {
        let start = self.start.as_ref().map(Bytes::as_ref);
        let end = self.end.as_ref().map(Bytes::as_ref);
        let empty = match (start, end) {
            (Bound::Included(start), Bound::Included(end)) => start > end,
            (Bound::Included(start) | Bound::Excluded(start), Bound::Excluded(end))
            | (Bound::Excluded(start), Bound::Included(end)) => start >= end,
            _ => false,
        };
        (!empty).then_some((start, end))
    }

    /// The first key of the range, and the first one after it; none when the range has no end.
    pub(super) fn half_open(&self) -> (Bytes, Option<Bytes>) {
        // No key lies between one and the same with a zero at its end.
        let successor = |key: &Bytes| Bytes::from([key, &[0][..]].concat());
        let start = match &self.start {
            Bound::Unbounded => Bytes::new(),
            Bound::Included(key) => key.clone(),
            Bound::Excluded(key) => successor(key),
        };
        let end = match &self.end {
            Bound::Unbounded => None,
            Bound::Included(key) => Some(successor(key)),
            Bound::Excluded(key) => Some(key.clone()),
        };
        (start, end)
    }

    /// Whether `key` lies in the range.
    pub fn contains(&self, key: &[u8]) -> bool {
        let contains = |bounds: Bounds<'_>| RangeBounds::<[u8]>::contains(&bounds, key);
        self.bounds().is_some_and(contains)
    }
}
