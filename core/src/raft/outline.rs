//! What a log looks like from afar: its terms. By them two nodes find out which entries only one of them holds.
//!
//! Two logs of one lineage that have an entry of the same term at the same index agree on everything up to it (Log
//! Matching, Raft paper, section 5.3). So they differ from one index on to their ends, and the terms tell which.
//! Entries are compared without being read or sent.

use serde::{Deserialize, Serialize};

use super::{Boot, Index, Lineage, Position, Raft, Term};

/// The terms of a log: where it begins, where each term begins in it, and where it ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outline {
    /// The last entry before the log; what was before it is not known.
    base: Position,
    /// The position of the first entry of each term, ascending. The first may lie before the base.
    terms: Vec<Position>,
    /// The last entry; the base when there is none.
    last: Position,
}

/// A lineage that ended with a forced start: the log, as the one node had it with which the next lineage began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fork {
    /// The lineage that ended.
    pub lineage: Lineage,
    /// Its log, on the node that was forced to start; everything in it belongs to the next lineage too.
    pub log: Outline,
}

/// Entries at the end of a log that another log lacks, or has others in place of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnlyHere {
    /// The first of them.
    pub first: Position,
    /// The last of them, which is the end of the log.
    pub last: Position,
    /// Whether earlier ones may be missing there as well: one of the logs does not go back far enough to tell.
    pub at_least: bool,
}

/// How a log stands to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Comparison {
    /// The other log has every entry of this one.
    Contained,
    /// The other log lacks these.
    OnlyHere(OnlyHere),
    /// The other log begins after the end of this one, so nothing can be told.
    Unknown,
}

impl OnlyHere {
    /// How many they are, at the least.
    pub fn count(&self) -> u64 {
        (self.last.index.0 + 1).saturating_sub(self.first.index.0)
    }
}

impl Outline {
    /// The newest terms that are kept of a lineage that ended, and sent to a node that asks.
    pub const TERMS_MAX: usize = 64;

    /// The outline of a log from `base` to `last` whose terms begin at `terms`. Of very many terms only the newest are
    /// kept, as if the log began with them.
    pub(super) fn new(base: Position, terms: &[Position], last: Position) -> Outline {
        let surplus = terms.len().saturating_sub(Outline::TERMS_MAX);
        let (older, kept) = terms.split_at(surplus);
        let cut = older.last().zip(kept.first()).map(|(older, first)| Position {
            term: older.term,
            index: first.index.previous(),
        });
        Outline {
            base: cut.filter(|cut| cut.index > base.index).unwrap_or(base),
            terms: kept.to_vec(),
            last,
        }
    }

    /// Where the log ends.
    pub fn last(&self) -> Position {
        self.last
    }

    /// Whether it is no longer than what nodes keep; what is in it is believed for a report only.
    pub(super) fn is_bounded(&self) -> bool {
        self.terms.len() <= Outline::TERMS_MAX && self.last.index.is_credible()
    }

    /// The term of the entry at `index`; none before the base and after the end.
    fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        if index < self.base.index || index > self.last.index {
            return None;
        }
        let after = self.terms.partition_point(|start| start.index <= index);
        after.checked_sub(1).map(|run| self.terms[run].term)
    }

    /// Which entries of this log `other`, of the same lineage, does not have.
    pub fn compared_with(&self, other: &Outline) -> Comparison {
        let lowest = self.base.index.max(other.base.index);
        let highest = self.last.index.min(other.last.index);
        if self.last.index < other.base.index {
            return Comparison::Unknown;
        }
        if highest < lowest {
            // The other one ends before this log begins.
            let first = self.base.index.next().min(self.last.index);
            return self.only_from(first, true);
        }
        let agree = |index: u64| self.term_at(Index(index)) == other.term_at(Index(index));
        if agree(highest.0) {
            return if self.last.index > highest {
                self.only_from(highest.next(), false)
            } else {
                Comparison::Contained
            };
        }
        // The logs agree up to some index and nowhere after it: `end` is known to differ.
        let (mut start, mut end) = (lowest.0, highest.0);
        while start < end {
            let middle = start + (end - start) / 2;
            if agree(middle) {
                start = middle + 1;
            } else {
                end = middle;
            }
        }
        self.only_from(Index(end), end == lowest.0 && lowest > Index(0))
    }

    fn only_from(&self, first: Index, at_least: bool) -> Comparison {
        let term = self.term_at(first).unwrap_or(self.base.term);
        Comparison::OnlyHere(OnlyHere {
            first: Position { term, index: first },
            last: self.last,
            at_least,
        })
    }
}

impl Boot {
    /// What the log looks like from afar.
    pub fn outline(&self) -> Outline {
        let base = self.base.position;
        let term = self.term_at(self.last).unwrap_or(base.term);
        let last = Position {
            term,
            index: self.last,
        };
        Outline::new(base, &self.terms, last)
    }
}

impl Raft {
    /// What this node's log looks like from afar.
    pub fn outline(&self) -> Outline {
        self.log.outline()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(term: u64, index: u64) -> Position {
        Position {
            term: Term(term),
            index: Index(index),
        }
    }

    /// The outline of a log after `base` with entries of these terms.
    fn log(base: Position, terms: &[u64]) -> Outline {
        let mut starts = Vec::new();
        let mut last = base;
        for term in terms {
            last = at(*term, last.index.0 + 1);
            if starts
                .last()
                .is_none_or(|start: &Position| start.term < last.term)
            {
                starts.push(last);
            }
        }
        Outline::new(base, &starts, last)
    }

    fn only(first: Position, last: Position, at_least: bool) -> Comparison {
        Comparison::OnlyHere(OnlyHere {
            first,
            last,
            at_least,
        })
    }

    #[test]
    fn first_entry_that_differs_is_found() {
        let origin = Position::default();
        let here = log(origin, &[1, 1, 2, 2, 5]);
        let contained = Comparison::Contained;
        for (other, expected) in [
            (log(origin, &[1, 1, 2, 2, 5]), contained),
            (log(origin, &[1, 1, 2, 2, 5, 6]), contained),
            (log(origin, &[1, 1, 2, 2]), only(at(5, 5), at(5, 5), false)),
            (log(origin, &[1, 1, 2, 2, 6, 6]), only(at(5, 5), at(5, 5), false)),
            (log(origin, &[1, 1, 2, 3]), only(at(2, 4), at(5, 5), false)),
            (log(origin, &[1, 4]), only(at(1, 2), at(5, 5), false)),
            (log(origin, &[3]), only(at(1, 1), at(5, 5), false)),
            (log(origin, &[]), only(at(1, 1), at(5, 5), false)),
        ] {
            assert_eq!(here.compared_with(&other), expected, "{other:?}");
        }
    }

    #[test]
    fn what_was_purged_is_not_guessed() {
        let here = log(at(2, 4), &[3, 3]);
        let unknown = Comparison::Unknown;
        for (other, expected) in [
            (log(at(2, 3), &[2, 3, 3]), Comparison::Contained),
            (log(at(3, 6), &[4]), Comparison::Contained),
            (log(at(4, 6), &[4]), only(at(3, 6), at(3, 6), true)),
            (log(at(4, 7), &[4]), unknown),
            (log(at(1, 2), &[1]), only(at(3, 5), at(3, 6), true)),
            (log(at(1, 3), &[1]), only(at(2, 4), at(3, 6), true)),
        ] {
            assert_eq!(here.compared_with(&other), expected, "{other:?}");
        }
        let empty = log(at(2, 4), &[]);
        assert_eq!(empty.compared_with(&here), Comparison::Contained);
        let behind = log(Position::default(), &[1]);
        assert_eq!(empty.compared_with(&behind), only(at(2, 4), at(2, 4), true));
    }

    #[test]
    fn comparison_agrees_with_that_of_the_entries() {
        // All logs of up to four entries whose terms ascend to at most three, against each other.
        let mut logs: Vec<Vec<u64>> = vec![Vec::new()];
        for length in 0..4 {
            let longest: Vec<Vec<u64>> = logs.iter().filter(|log| log.len() == length).cloned().collect();
            for log in longest {
                let least = log.last().copied().unwrap_or(1);
                logs.extend((least..=3).map(|term| [&log[..], &[term]].concat()));
            }
        }
        for one in &logs {
            for other in &logs {
                // Logs of one lineage with the same term at the same index agree up to it.
                let same = one
                    .iter()
                    .zip(other)
                    .rposition(|(a, b)| a == b)
                    .map_or(0, |last| last + 1);
                if one[..same] != other[..same] {
                    continue;
                }
                let expected = match one.len() - same {
                    0 => Comparison::Contained,
                    _ => only(
                        at(one[same], same as u64 + 1),
                        at(*one.last().expect("it is longer"), one.len() as u64),
                        false,
                    ),
                };
                let origin = Position::default();
                let compared = log(origin, one).compared_with(&log(origin, other));
                assert_eq!(compared, expected, "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn only_the_newest_terms_are_kept() {
        let terms: Vec<u64> = (1..=200).collect();
        let long = log(Position::default(), &terms);
        assert!(long.is_bounded());
        assert_eq!(long.term_at(Index(200)), Some(Term(200)));
        assert_eq!(long.term_at(Index(136)), Some(Term(136)), "the base that it got");
        assert_eq!(long.term_at(Index(135)), None);
        let short = log(Position::default(), &terms[..100]);
        assert_eq!(short.compared_with(&long), Comparison::Unknown);
        assert_eq!(long.compared_with(&short), only(at(137, 137), at(200, 200), true));
    }
}
