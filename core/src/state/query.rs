//! Reads of a range of keys: which keys, as of when, in which order, and how much of them.

use std::cmp::Ordering;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::version::Version;
use super::{KeyRange, KeyValue, Revision};

/// A read of a range of keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// Where to look.
    pub range: KeyRange,
    /// As of which revision; none for the latest.
    pub revision: Option<Revision>,
    /// Only keys whose last change was in this span.
    pub modified: Span,
    /// Only keys that have existed since a revision in this span.
    pub created: Span,
    /// In which order; none for the order of the keys.
    pub sort: Option<Sort>,
    /// How many keys to answer at the most, after they are sorted; none for all.
    pub limit: Option<u64>,
    /// What to answer of each key.
    pub detail: Detail,
    /// Whether to count the keys of the range, with or without those beyond the limit and outside of the spans. That
    /// takes time in proportion to the whole range.
    pub count: bool,
}

/// Revisions from one to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The first one; none for the beginning.
    pub first: Option<Revision>,
    /// The last one; none for the end.
    pub last: Option<Revision>,
}

impl Span {
    fn contains(self, revision: Revision) -> bool {
        self.first.is_none_or(|first| revision >= first) && self.last.is_none_or(|last| revision <= last)
    }
}

/// What of a key to answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Detail {
    /// Everything.
    #[default]
    All,
    /// Everything but the value.
    WithoutValue,
    /// Nothing; only the count is wanted.
    Nothing,
}

/// An order of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sort {
    /// By what; keys that are equal in it are in the order of their bytes.
    pub by: SortBy,
    /// The greatest first.
    pub descending: bool,
}

/// What keys are ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SortBy {
    /// The key.
    Key,
    /// [`KeyValue::version`].
    Version,
    /// [`KeyValue::create_revision`].
    CreateRevision,
    /// [`KeyValue::mod_revision`].
    ModRevision,
    /// The value, by its bytes.
    Value,
}

/// What a read found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// The keys, in the order that was asked for.
    pub items: Vec<KeyValue>,
    /// Whether there is more beyond the limit.
    pub more: bool,
    /// How many keys the range has, when that was asked for.
    pub count: Option<u64>,
}

/// Why nothing can be read at a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum ReadError {
    /// What the keys were at that revision is no longer known.
    #[error("revision {revision} is compacted: the oldest that can be read is {oldest}")]
    Compacted {
        /// The revision that was asked for.
        revision: Revision,
        /// The oldest one that can be read.
        oldest: Revision,
    },
    /// There is no such revision yet.
    #[error("revision {revision} is in the future: the latest is {latest}")]
    Future {
        /// The revision that was asked for.
        revision: Revision,
        /// The latest one.
        latest: Revision,
    },
}

impl Query {
    /// All keys of `range`, as they are now.
    pub fn new(range: KeyRange) -> Query {
        Query {
            range,
            revision: None,
            modified: Span::default(),
            created: Span::default(),
            sort: None,
            limit: None,
            detail: Detail::All,
            count: false,
        }
    }

    /// Chooses among the keys of the range that exist, ascending. `bytes_max` bounds the keys and values of the answer,
    /// which has at least one key.
    pub(super) fn choose<'a>(&self, mut keys: impl Iterator<Item = &'a Version>, bytes_max: usize) -> Found {
        let mut found = Found::default();
        if self.detail == Detail::Nothing {
            found.count = Some(keys.count() as u64);
            return found;
        }
        let mut counted = 0;
        let chosen = keys.by_ref().inspect(|_| counted += 1);
        let chosen = chosen.filter_map(|version| version.key_value().filter(|pair| self.wants(pair)));
        match self.sort.filter(|sort| *sort != Sort::BY_KEY) {
            Some(sort) => {
                let mut sorted: Vec<KeyValue> = chosen.collect();
                sort.apply(&mut sorted);
                self.cut(sorted.into_iter(), bytes_max, &mut found);
            }
            None => self.cut(chosen, bytes_max, &mut found),
        }
        if self.count {
            found.count = Some(counted + keys.count() as u64);
        }
        found
    }

    fn wants(&self, pair: &KeyValue) -> bool {
        self.modified.contains(pair.mod_revision) && self.created.contains(pair.create_revision)
    }

    /// Takes what fits.
    fn cut(&self, chosen: impl Iterator<Item = KeyValue>, bytes_max: usize, found: &mut Found) {
        let limit = self
            .limit
            .map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let mut bytes = 0;
        for mut pair in chosen {
            if self.detail == Detail::WithoutValue {
                pair.value = Bytes::new();
            }
            bytes += pair.key.len() + pair.value.len();
            if found.items.len() >= limit || (bytes > bytes_max && !found.items.is_empty()) {
                found.more = true;
                return;
            }
            found.items.push(pair);
        }
    }
}

impl Sort {
    /// The order in which keys are found.
    const BY_KEY: Sort = Sort {
        by: SortBy::Key,
        descending: false,
    };

    /// Sorts pairs that are in the order of their keys.
    fn apply(self, pairs: &mut [KeyValue]) {
        let ordered = |order: Ordering| if self.descending { order.reverse() } else { order };
        pairs.sort_by(|one, other| {
            ordered(match self.by {
                SortBy::Key => one.key.cmp(&other.key),
                SortBy::Version => one.version.cmp(&other.version),
                SortBy::CreateRevision => one.create_revision.cmp(&other.create_revision),
                SortBy::ModRevision => one.mod_revision.cmp(&other.mod_revision),
                SortBy::Value => one.value.cmp(&other.value),
            })
        });
    }
}
