//! What a node knows of itself when it starts.

use thiserror::Error;

use super::{Base, Entry, FeatureLevel, HardState, Index, Membership, NodeId, Payload, Position, Term};

/// The durable state of a node, as its log recovered it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot {
    /// Who this node is.
    pub id: NodeId,
    /// Its term and vote.
    pub hard_state: HardState,
    /// Where its log begins.
    pub base: Base,
    /// The position of the first entry of each term in the log, ascending.
    pub terms: Vec<Position>,
    /// Every membership entry in the log, ascending.
    pub memberships: Vec<(Position, Membership)>,
    /// The last index of the log; the base's when the log is empty.
    pub last: Index,
    /// The last entries of the log, up to `last`, without a gap; as many as shall be kept in memory.
    pub tail: Vec<Entry>,
    /// The last index that the state machine holds.
    pub applied: Index,
    /// Where the log ended, at the most, before its end was lost to damage; none when it is whole. Until the log
    /// reaches that position again, the node takes part in no election. The term and vote must be those that it had.
    pub repair: Option<Position>,
}

impl Boot {
    /// A node that begins with an empty log, in the part that `membership` gives it.
    pub fn blank(id: NodeId, membership: Membership) -> Boot {
        Boot {
            id,
            hard_state: HardState::default(),
            base: Base {
                position: Position::default(),
                membership,
            },
            terms: Vec::new(),
            memberships: Vec::new(),
            last: Index::default(),
            tail: Vec::new(),
            applied: Index::default(),
            repair: None,
        }
    }
}

/// Passes when an invariant holds; names it when it does not.
fn demand(holds: bool, broken: &'static str) -> Result<(), BootError> {
    if holds {
        Ok(())
    } else {
        Err(BootError::Inconsistent(broken))
    }
}

/// Passes when a group can have agreed on a membership; names the rule that it breaks otherwise.
fn sound(membership: &Membership) -> Result<(), BootError> {
    match membership.broken_rule() {
        None => Ok(()),
        Some(rule) => Err(BootError::Inconsistent(rule)),
    }
}

impl Boot {
    /// Whether a node can have come to this state: each invariant of what is stored, by its name.
    pub(super) fn check(&self) -> Result<(), BootError> {
        let base = self.base.position;
        demand(self.last >= base.index, "the log ends before its base")?;
        demand(
            self.last.is_credible(),
            "the log ends where no log can have come to",
        )?;
        sound(&self.base.membership)?;
        self.check_terms()?;
        self.check_memberships()?;
        self.check_tail()?;
        let last = self.term_at(self.last);
        demand(
            last.is_some_and(|term| term <= self.hard_state.term),
            "the log has an entry of a later term than the node has seen",
        )?;
        demand(
            self.hard_state.term.is_credible_after(Term(1 << 62)),
            "the node has seen a term that no group can have come to",
        )?;
        demand(
            self.repair.is_none_or(|until| until.term <= self.hard_state.term),
            "the log that was damaged had an entry of a later term than the node has seen",
        )?;
        let (applied, last, base) = (self.applied, self.last, base.index);
        if applied < base {
            return Err(BootError::StateBehindLog { applied, base });
        }
        if applied > last {
            return Err(BootError::StateAheadOfLog { applied, last });
        }
        Ok(())
    }

    /// The term of the entry at `index`, which is in the log or its base.
    pub(super) fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.base.position.index {
            return Some(self.base.position.term);
        }
        let after = self.terms.partition_point(|start| start.index <= index);
        after.checked_sub(1).map(|run| self.terms[run].term)
    }

    fn check_terms(&self) -> Result<(), BootError> {
        let base = self.base.position;
        let ascends = |pair: &[Position]| pair[0].term < pair[1].term && pair[0].index < pair[1].index;
        demand(self.terms.windows(2).all(ascends), "terms do not ascend")?;
        demand(
            self.terms.last().is_none_or(|start| start.index <= self.last),
            "a term begins after the end of the log",
        )?;
        demand(
            self.last == base.index || self.term_at(base.index.next()).is_some(),
            "the term of the first entry is not known",
        )?;
        let sound = |start: &Position| match start.index > base.index {
            true => start.term >= base.term,
            false => start.term <= base.term,
        };
        demand(
            self.terms.iter().all(sound),
            "the terms do not fit that of the base",
        )
    }

    fn check_memberships(&self) -> Result<(), BootError> {
        let base = self.base.position.index;
        let ascends = |pair: &[(Position, Membership)]| pair[0].0.index < pair[1].0.index;
        demand(
            self.memberships.windows(2).all(ascends),
            "memberships do not ascend",
        )?;
        for (position, membership) in &self.memberships {
            let within = position.index > base && position.index <= self.last;
            demand(within, "a membership is not within the log")?;
            let term = self.term_at(position.index);
            demand(
                term == Some(position.term),
                "a membership is not of the term that the log has at its index",
            )?;
            sound(membership)?;
        }
        Ok(())
    }

    fn check_tail(&self) -> Result<(), BootError> {
        let Some(first) = self.tail.first().map(|entry| entry.position.index) else {
            return Ok(());
        };
        let follows =
            |pair: &[Entry]| pair[0].position.index.0.checked_add(1) == Some(pair[1].position.index.0);
        demand(self.tail.windows(2).all(follows), "the last entries have a gap")?;
        let last = self.tail.last().map(|entry| entry.position.index);
        demand(
            last == Some(self.last),
            "the last entries do not reach the end of the log",
        )?;
        demand(
            first > self.base.position.index,
            "the last entries begin before the log does",
        )?;
        let of_term = |entry: &Entry| self.term_at(entry.position.index) == Some(entry.position.term);
        demand(
            self.tail.iter().all(of_term),
            "an entry is not of the term that the log has at its index",
        )?;
        let held = self.tail.iter().filter_map(|entry| match &entry.payload {
            Payload::Membership(membership) => Some((entry.position, &**membership)),
            Payload::Empty | Payload::Omitted | Payload::Command(_) => None,
        });
        let told = self
            .memberships
            .iter()
            .filter(|(position, _)| position.index >= first);
        demand(
            held.eq(told.map(|(position, membership)| (*position, membership))),
            "the last entries hold other memberships than the log",
        )
    }
}

/// Why a node cannot start from what it knows.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BootError {
    /// The state machine holds more than the log.
    #[error(
        "the state holds everything up to index {applied}, but the log ends at {last}: the log lost entries"
    )]
    StateAheadOfLog {
        /// What the state machine holds.
        applied: Index,
        /// Where the log ends.
        last: Index,
    },
    /// The log was purged beyond what the state machine holds.
    #[error("the log begins after index {base}, but the state ends at {applied}: the state lost changes")]
    StateBehindLog {
        /// What the state machine holds.
        applied: Index,
        /// The last purged index.
        base: Index,
    },
    /// The log was written by a cluster that uses features which this binary lacks.
    #[error(
        "the cluster uses features of level {needed} and this binary supports level {supported}: start a newer binary"
    )]
    FeaturesLacking {
        /// The highest level in the log.
        needed: FeatureLevel,
        /// What this binary supports.
        supported: FeatureLevel,
    },
    /// The cluster knows this node as a witness and it was started as none, or the other way round.
    #[error(
        "the cluster knows this node as {}, and it was started as {}: what a node is never changes; remove it from \
         the cluster and let it join with an empty data directory",
        part(*.recorded), part(!*.recorded)
    )]
    OtherPart {
        /// Whether the cluster knows it as a witness.
        recorded: bool,
    },
    /// The parts contradict each other.
    #[error("the recovered log contradicts itself: {0}")]
    Inconsistent(&'static str),
    /// A setting makes no sense.
    #[error("the configuration of consensus makes no sense: {0}")]
    Configuration(&'static str),
}

fn part(witness: bool) -> &'static str {
    if witness {
        "a witness"
    } else {
        "one that holds data"
    }
}

#[cfg(test)]
mod tests {
    use super::super::{DirectoryId, Lineage, Member};
    use super::*;

    fn membership(ids: &[u64]) -> Membership {
        let member = |id: u64| Member::named(id.to_string(), DirectoryId(u128::from(id)));
        Membership::bootstrap(
            Lineage(1),
            ids.iter().map(|id| (NodeId(*id), member(*id))).collect(),
        )
    }

    fn at(term: u64, index: u64) -> Position {
        Position {
            term: Term(term),
            index: Index(index),
        }
    }

    /// A log from 5 to 8, with a term that begins at 6 and a membership at 7.
    fn sound() -> Boot {
        let entry = |position, payload| Entry { position, payload };
        Boot {
            hard_state: HardState {
                term: Term(4),
                vote: None,
            },
            base: Base {
                position: at(2, 4),
                membership: membership(&[1, 2, 3]),
            },
            terms: vec![at(2, 3), at(4, 6)],
            memberships: vec![(at(4, 7), membership(&[1, 2]))],
            last: Index(8),
            tail: vec![
                entry(at(4, 7), Payload::Membership(Box::new(membership(&[1, 2])))),
                entry(at(4, 8), Payload::Empty),
            ],
            applied: Index(6),
            ..Boot::blank(NodeId(1), membership(&[1]))
        }
    }

    /// A membership whose ids are used up.
    fn impossible() -> Membership {
        membership(&[u64::MAX - 1])
    }

    #[test]
    fn each_broken_invariant_is_refused_by_its_name() {
        assert_eq!(sound().check(), Ok(()));
        type Damage = fn(&mut Boot);
        let cases: [(&str, Damage); 21] = [
            ("ends before its base", |boot| boot.last = Index(3)),
            ("ends where no log", |boot| boot.last = Index(u64::MAX)),
            ("whose id was never given", |boot| {
                boot.base.membership = impossible()
            }),
            ("terms do not ascend", |boot| boot.terms.reverse()),
            ("begins after the end", |boot| boot.terms.push(at(9, 9))),
            ("first entry is not known", |boot| boot.terms = vec![at(4, 6)]),
            ("do not fit that of the base", |boot| {
                boot.base.position.term = Term(5)
            }),
            ("memberships do not ascend", |boot| {
                boot.memberships.push(boot.memberships[0].clone())
            }),
            ("not within the log", |boot| boot.memberships[0].0 = at(2, 4)),
            ("a membership is not of the term", |boot| {
                boot.memberships[0].0 = at(2, 7)
            }),
            ("whose id was never given", |boot| {
                boot.memberships[0].1 = impossible()
            }),
            ("have a gap", |boot| boot.tail[0].position = at(4, 6)),
            ("do not reach the end", |boot| drop(boot.tail.pop())),
            ("begin before the log", |boot| {
                let early = (3..=6).map(|index| Entry {
                    position: at(2, index),
                    payload: Payload::Empty,
                });
                boot.tail.splice(0..0, early).for_each(drop);
            }),
            ("an entry is not of the term", |boot| {
                boot.tail[1].position = at(3, 8)
            }),
            ("other memberships", |boot| boot.tail[0].payload = Payload::Empty),
            ("a later term than the node", |boot| {
                boot.hard_state.term = Term(3)
            }),
            ("a term that no group", |boot| {
                boot.hard_state.term = Term(u64::MAX)
            }),
            ("the log that was damaged", |boot| boot.repair = Some(at(5, 9))),
            ("the state lost changes", |boot| boot.applied = Index(3)),
            ("the log lost entries", |boot| boot.applied = Index(9)),
        ];
        for (name, damage) in cases {
            let mut boot = sound();
            damage(&mut boot);
            let refusal = boot.check().map_err(|refusal| refusal.to_string());
            assert!(
                refusal.as_ref().is_err_and(|refusal| refusal.contains(name)),
                "{name}: {refusal:?}"
            );
        }
    }
}
