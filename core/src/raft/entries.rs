//! Consecutive entries that are shared and never copied.
//!
//! An entry is in many hands at once: in memory for followers that lag, in a write, in an append to each follower, and
//! on its way to the state machine. Copying it for each was most of the work of consensus (measured with entries of 256 B
//! in batches of 64: three of four cycles went into moving entries and counting references to their payloads). So a batch
//! of entries is put into one allocation when it enters the log, and what is handed on are slices of it.

use std::ops::{Deref, Range};
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};

use super::Entry;

/// Entries, shared. Reads like a slice; a clone costs one count of a reference, however many entries there are.
#[derive(Clone, Default)]
pub struct Entries {
    /// None when there are no entries.
    shared: Option<Arc<[Entry]>>,
    start: u32,
    end: u32,
}

impl Entries {
    /// The entries at the places in `range`, in the same allocation.
    ///
    /// # Panics
    /// When the range is not within these entries.
    pub fn slice(&self, range: Range<usize>) -> Entries {
        assert!(
            range.start <= range.end && range.end <= self.len(),
            "a slice is within the entries"
        );
        if range.is_empty() {
            return Entries::default();
        }
        Entries {
            shared: self.shared.clone(),
            start: self.start + range.start as u32,
            end: self.start + range.end as u32,
        }
    }

    fn of(shared: Arc<[Entry]>) -> Entries {
        let end = u32::try_from(shared.len()).expect("entries are counted in 32 bits");
        Entries {
            shared: (end > 0).then_some(shared),
            start: 0,
            end,
        }
    }
}

impl Deref for Entries {
    type Target = [Entry];

    fn deref(&self) -> &[Entry] {
        match &self.shared {
            Some(shared) => &shared[self.start as usize..self.end as usize],
            None => &[],
        }
    }
}

impl From<Vec<Entry>> for Entries {
    fn from(entries: Vec<Entry>) -> Entries {
        Entries::of(entries.into())
    }
}

impl FromIterator<Entry> for Entries {
    fn from_iter<I: IntoIterator<Item = Entry>>(entries: I) -> Entries {
        Entries::of(entries.into_iter().collect())
    }
}

impl<'a> IntoIterator for &'a Entries {
    type Item = &'a Entry;
    type IntoIter = std::slice::Iter<'a, Entry>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl std::fmt::Debug for Entries {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self[..].fmt(formatter)
    }
}

impl PartialEq for Entries {
    fn eq(&self, other: &Entries) -> bool {
        self[..] == other[..]
    }
}

impl Eq for Entries {}

// On the wire they are a sequence of entries.
impl Serialize for Entries {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self[..].serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Entries, D::Error> {
        Vec::deserialize(deserializer).map(Entries::from)
    }
}
