//! The numbers that consensus speaks of.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$documentation:meta])* $name:ident) => {
        $(#[$documentation])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub u64);

        impl $name {
            /// The number after this one.
            #[must_use]
            pub const fn next(self) -> $name {
                $name(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(formatter)
            }
        }
    };
}

number! {
    /// The consensus id of a member. Ids are never reused: a node whose data was lost comes back under another id.
    NodeId
}
number! {
    /// A term: a span of time with at most one leader (Raft paper, section 5.1). Terms begin at 1; 0 means none.
    Term
}
number! {
    /// The place of an entry in the log. Indexes begin at 1; 0 means before the first entry.
    Index
}
number! {
    /// Names one request of the driver; its answer carries the same token.
    Token
}
number! {
    /// Names one write handed to the log writer. Later writes have greater numbers.
    WriteId
}
number! {
    /// Names one request for older entries of the log.
    FetchId
}

impl Term {
    /// Whether a group that this node last saw in term `seen` can have come to this one. Nothing counts four billion
    /// elections while a node is away: a term from beyond is damaged, and taking it over would use up all terms.
    pub(super) fn is_credible_after(self, seen: Term) -> bool {
        self.0.saturating_sub(seen.0) <= 1 << 32
    }
}

impl Index {
    /// Whether a log can have come so far: a million entries a second reach this after a hundred thousand years.
    pub(super) fn is_credible(self) -> bool {
        self.0 <= 1 << 62
    }

    /// The index before this one; 0 for 0.
    #[must_use]
    pub const fn previous(self) -> Index {
        Index(self.0.saturating_sub(1))
    }
}

/// Term and index of an entry. Two logs that have an entry at the same position agree on everything up to it
/// (Log Matching, Raft paper, section 5.3).
///
/// The order is the one in which logs are compared in an election: by term, then by index (section 5.4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The term in which a leader created the entry.
    pub term: Term,
    /// The place of the entry.
    pub index: Index,
}

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}@{}", self.index, self.term)
    }
}

/// Names one history of a cluster: made at its birth, changed only by a forced start. Nodes of different lineages
/// never talk to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Lineage(pub u128);

/// Names one data directory: made when the directory is first used, so that a wiped node is told from the old one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DirectoryId(pub u128);

impl fmt::Display for Lineage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", self.0)
    }
}

impl fmt::Display for DirectoryId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", self.0)
    }
}
