//! The spaces of keys that share one counter of revisions, one history and one compaction.
//!
//! What clients put is in [`Space::Keys`]. The other spaces hold what the state machine itself keeps as keys, so that
//! sessions and settings have revisions, a history, watches, rows and snapshots by the same machinery as keys, and
//! their changes stand in one order with those of keys. No read, transaction or removal of keys reaches another space.

use serde::{Deserialize, Serialize};

/// One of the spaces. The order of the variants is part of the format: new ones go to the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Space {
    /// The keys of clients.
    #[default]
    Keys,
    /// Sessions, by their ids.
    Sessions,
    /// Settings: the heads, values and schemas of sections.
    Settings,
}

impl Space {
    pub(super) const COUNT: usize = Space::ALL.len();
    pub(super) const ALL: [Space; 3] = [Space::Keys, Space::Sessions, Space::Settings];

    pub(super) const fn number(self) -> usize {
        self as usize
    }
}
