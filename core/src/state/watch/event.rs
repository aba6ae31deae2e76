//! What watchers hear of.

use bytes::Bytes;

use super::super::space::Space;
use super::super::version::Place;
use super::super::{KeyRange, KeyValue, Revision};

/// A change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The revision of the command that made it.
    pub revision: Revision,
    /// Its place among the changes of that revision.
    pub order: u32,
    /// What kind of key it is.
    pub space: Space,
    /// The key.
    pub key: Bytes,
    /// What the key is now; none when it was removed.
    pub current: Option<KeyValue>,
    /// What the key was before, if it existed.
    pub previous: Option<KeyValue>,
}

impl Event {
    /// About how many bytes the event holds.
    pub fn size(&self) -> usize {
        let value = |pair: &Option<KeyValue>| pair.as_ref().map_or(0, |pair| pair.value.len());
        OVERHEAD + self.key.len() + value(&self.current) + value(&self.previous)
    }

    pub(super) fn place(&self) -> Place {
        Place {
            revision: self.revision,
            order: self.order,
        }
    }
}

/// What an event takes beside keys and values, in bytes.
const OVERHEAD: usize = 256;

/// Which kinds of events a watcher wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kinds {
    /// Keys that get a value.
    pub puts: bool,
    /// Keys that are removed.
    pub deletes: bool,
}

impl Kinds {
    /// Everything.
    pub const ALL: Kinds = Kinds {
        puts: true,
        deletes: true,
    };
}

/// What a watcher wants to hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interest {
    /// Changes in this space,
    pub space: Space,
    /// of these keys,
    pub range: KeyRange,
    /// and of these kinds.
    pub kinds: Kinds,
}

impl Interest {
    /// Whether a change of this kind is wanted, wherever it was made.
    pub(super) fn wants_kind(&self, is_put: bool) -> bool {
        if is_put {
            self.kinds.puts
        } else {
            self.kinds.deletes
        }
    }

    /// Whether the watcher hears of `event`.
    pub(super) fn wants(&self, event: &Event) -> bool {
        self.space == event.space
            && self.wants_kind(event.current.is_some())
            && self.range.contains(&event.key)
    }
}
