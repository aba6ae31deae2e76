//! Forced start: one node goes on alone when the others are lost for good.
//!
//! A cluster that has lost the majority of its voters cannot elect anybody, and no rule can tell that from a network
//! that is down. So an operator says it, to one node that is stopped: that node begins a new lineage, in which it is
//! the only voter. Its state and its log up to the end are kept; what is in its log and was never committed becomes so;
//! what only the lost nodes had is lost. Others join the new lineage with empty data directories, under new ids.
//!
//! **What is written** is one [`Write`] to the log, atomic like every other: a term above all that the node has seen,
//! without a vote, and one entry of that term at the end of the log, the membership of the new lineage. A crash before
//! the write is durable leaves the old lineage, a crash after it the new one; nothing else decides which it is. What a
//! driver keeps of the lineage elsewhere follows the log. With this membership in force the node elects itself, and
//! its first commit covers everything before.
//!
//! **Why one node and not several survivors:** logs of survivors differ, and only one of them can count; the others
//! take it over all the same. Were they voters at once, each could have applied what the chosen log lacks.
//!
//! **Lineages never mix.** Nodes greet each other with their lineage, and those of another one are refused, so that no
//! message and no snapshot crosses. Entries of an earlier lineage never leave the node either: until its log begins
//! with the new lineage ([`Raft::purge_behind`]), it takes in nobody ([`Raft::is_settled`]). So every node but this one
//! has memberships of one lineage only, and the lineage of the membership in force is that of the node.
//!
//! **Old nodes that come back** find out by asking: the new membership remembers the lineages that it descends from,
//! and how the log looked when each ended ([`Fork`](super::Fork)). A node of such a lineage is superseded
//! ([`Raft::superseded`]) and says which entries only it has.

use super::{Boot, Outline};
use super::{
    BootError, Config, Entry, Failure, HardState, Index, Lineage, Member, Membership, NodeId, Payload,
    Planted, PlantedBug, Position, Quarantine, Raft, TraceEvent, Write, WriteId,
};

/// A forced start that is about to be made: [`ForcedStart::write`] makes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForcedStart {
    /// To be appended to the log, durably, before the node starts again. The start is forced once it is durable.
    pub write: Write,
    /// The lineage that ends.
    pub from: Lineage,
    /// The end of the log that is kept.
    pub kept: Position,
    /// The last entry known to be committed; those after it become committed, whether they were or not.
    pub committed: Index,
    /// The members that are left out: what only they have is lost.
    pub left_out: Vec<(NodeId, Member)>,
}

/// Why a start cannot be forced.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForcedStartError {
    /// The node could not start either way.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// A witness has no data to go on with.
    #[error("this node is a witness and holds no data to go on with: force a node that holds data")]
    Witness,
    /// The node was removed, or has not caught up with the membership that took it in.
    #[error(
        "this node is no member in the last membership that it knows, since it was removed or has not caught up: force \
         a node that is a member"
    )]
    NotAMember,
}

impl Boot {
    /// A forced start of this node, which is stopped, with `lineage`, which was drawn for it and never used.
    ///
    /// # Errors
    /// When the node could not start with `config`, or cannot lead a cluster.
    pub fn forced(&self, lineage: Lineage, config: &Config) -> Result<ForcedStart, ForcedStartError> {
        self.check()?;
        let known = self.memberships.last().map(|(_, membership)| membership);
        let known = known.unwrap_or(&self.base.membership);
        if config.witness || known.is_witness(self.id) {
            return Err(ForcedStartError::Witness);
        }
        config.fits(self.id, known)?;
        let log = self.outline();
        let kept = log.last();
        let next = known
            .forced(lineage, self.id, log, config.planted)
            .ok_or(ForcedStartError::NotAMember)?;
        // Above the term of a log that was damaged, too: what is missing of it is given up with this start.
        let promised = self.repair.map_or(self.hard_state.term, |until| until.term);
        let term = self.hard_state.term.max(promised).next();
        let position = Position {
            term,
            index: kept.index.next(),
        };
        let entry = Entry {
            position,
            payload: Payload::Membership(Box::new(next)),
        };
        let others = known.members().iter().filter(|(id, _)| **id != self.id);
        Ok(ForcedStart {
            write: Write {
                id: WriteId(0),
                hard_state: Some(HardState { term, vote: None }),
                reset: None,
                entries: vec![entry].into(),
            },
            from: known.lineage(),
            kept,
            committed: self.applied,
            left_out: others.map(|(id, member)| (*id, member.clone())).collect(),
        })
    }
}

impl Membership {
    /// How many ended lineages a membership remembers; the oldest are forgotten first.
    const FORKS_MAX: usize = 8;

    /// The first membership of `lineage`, with `own`, whose log looks like `log`, as its only member; none when it is
    /// no member of this one.
    fn forced(&self, lineage: Lineage, own: NodeId, log: Outline, planted: Planted) -> Option<Membership> {
        self.members().get(&own)?;
        let mut next = self.succeeded_by(lineage, log, Membership::FORKS_MAX);
        if planted.is(PlantedBug::ForcedStartKeepsLineage) {
            next = self.clone();
        }
        if !planted.is(PlantedBug::ForcedStartKeepsVoters) {
            next.keep_only(own);
        }
        Some(next)
    }

    /// Whether what it remembers of ended lineages is bounded.
    pub(super) fn has_sound_forks(&self) -> bool {
        self.forks().len() <= Membership::FORKS_MAX && self.forks().iter().all(|fork| fork.log.is_bounded())
    }
}

impl Raft {
    /// A node of the lineage `by` said that it descends from this node's. A node whose own lineage has a leader goes
    /// on: the majority lives, and whoever forced that start was wrong to take it for lost. Any other stops.
    pub(super) fn superseded(&mut self, by: Lineage) {
        if self.leader().is_none() && by != self.log.membership().lineage() {
            self.set_aside(Quarantine::Superseded { by });
        }
    }

    /// Takes no part any more, for a reason that only an operator can end.
    pub(super) fn set_aside(&mut self, quarantine: Quarantine) {
        let event = TraceEvent::Quarantined(Box::new(quarantine));
        self.output.trace.push(event);
        self.stop(Failure::Quarantined(quarantine));
    }

    /// Whether the log still has entries of the lineage before this one.
    pub(super) fn begins_before_its_lineage(&self) -> bool {
        self.log.fork().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{
        Apply, Base, Change, Comparison, DirectoryId, Effects, Input, SnapshotEvent, SnapshotOp, Term,
    };
    use super::*;
    use crate::Instant;

    const OLD: Lineage = Lineage(1);
    const NEW: Lineage = Lineage(2);

    fn at(term: u64, index: u64) -> Position {
        Position {
            term: Term(term),
            index: Index(index),
        }
    }

    fn member(id: u64) -> Member {
        Member::named(id.to_string(), DirectoryId(u128::from(id)))
    }

    fn three() -> Membership {
        Membership::bootstrap(OLD, (1..=3).map(|id| (NodeId(id), member(id))).collect())
    }

    /// Node 2 of three, with a log up to 4@2 of which the first two entries are applied.
    fn boot() -> Boot {
        Boot {
            hard_state: HardState {
                term: Term(3),
                vote: Some(NodeId(1)),
            },
            terms: vec![at(1, 1), at(2, 3)],
            last: Index(4),
            applied: Index(2),
            ..Boot::blank(NodeId(2), three())
        }
    }

    /// What the log holds after the write.
    fn after(boot: &Boot, write: &Write) -> Boot {
        let mut after = boot.clone();
        for entry in &write.entries {
            after.terms.push(entry.position);
            after.last = entry.position.index;
            if let Payload::Membership(membership) = &entry.payload {
                after.memberships.push((entry.position, (**membership).clone()));
            }
        }
        after.hard_state = write.hard_state.unwrap_or(after.hard_state);
        after
    }

    #[test]
    fn node_goes_on_alone_with_its_whole_log() {
        let boot = boot();
        let forced = boot.forced(NEW, &Config::default()).expect("a voter with data");
        assert_eq!((forced.from, forced.kept), (OLD, at(2, 4)));
        assert_eq!(forced.committed, Index(2));
        let left_out: Vec<NodeId> = forced.left_out.iter().map(|(id, _)| *id).collect();
        assert_eq!(left_out, [NodeId(1), NodeId(3)]);

        let entry = &forced.write.entries[0];
        assert_eq!(entry.position, at(4, 5), "a term above all that it has seen");
        let Payload::Membership(next) = &entry.payload else {
            panic!("a membership");
        };
        assert_eq!(next.lineage(), NEW);
        assert!(next.is_sound());
        assert_eq!(next.voters().iter().collect::<Vec<_>>(), [&NodeId(2)]);
        assert_eq!(next.members().len(), 1);
        assert_eq!(next.next_id(), NodeId(4), "ids are never reused");

        let after = after(&boot, &forced.write);
        assert_eq!(after.check(), Ok(()));
        let raft = Raft::new(Config::default(), after, [0; 32], Instant::ORIGIN).expect("it starts");
        assert_eq!(raft.status().membership.lineage(), NEW);
    }

    #[test]
    fn nothing_but_the_write_decides() {
        let boot = boot();
        let before = boot.clone();
        boot.forced(NEW, &Config::default()).expect("a voter with data");
        assert_eq!(
            boot, before,
            "a crash before the write leaves the old lineage whole"
        );
    }

    #[test]
    fn node_of_the_old_lineage_learns_which_entries_only_it_has() {
        let forced = boot().forced(NEW, &Config::default()).expect("a voter with data");
        let Payload::Membership(next) = &forced.write.entries[0].payload else {
            panic!("a membership");
        };
        let fork = next.fork_of(OLD).expect("it descends from it");
        assert_eq!(next.fork_of(NEW), None);
        let behind = Boot {
            last: Index(3),
            ..boot()
        };
        assert_eq!(behind.outline().compared_with(&fork.log), Comparison::Contained);
        let ahead = Boot {
            terms: vec![at(1, 1), at(2, 3), at(4, 5)],
            last: Index(6),
            ..boot()
        };
        // Its entry 5@4 is not the forced one, which has the same position: what comes after the fork is not compared.
        let Comparison::OnlyHere(only) = ahead.outline().compared_with(&fork.log) else {
            panic!("it is ahead");
        };
        assert_eq!((only.first, only.last, only.count()), (at(4, 5), at(4, 6), 2));
    }

    #[test]
    fn witness_and_strangers_are_refused() {
        let config = Config {
            witness: true,
            ..Config::default()
        };
        assert_eq!(boot().forced(NEW, &config), Err(ForcedStartError::Witness));
        let stranger = Boot {
            id: NodeId(9),
            ..boot()
        };
        assert_eq!(
            stranger.forced(NEW, &Config::default()),
            Err(ForcedStartError::NotAMember)
        );
    }

    #[test]
    fn learner_of_another_site_becomes_the_voter() {
        let membership = three()
            .changed(&[Change::AddLearner(member(4))])
            .expect("a learner");
        let boot = Boot {
            id: NodeId(4),
            base: Base {
                position: at(2, 2),
                membership,
            },
            terms: vec![at(2, 2)],
            ..boot()
        };
        let forced = boot.forced(NEW, &Config::default()).expect("a learner has data");
        let Payload::Membership(next) = &forced.write.entries[0].payload else {
            panic!("a membership");
        };
        assert!(next.is_voter(NodeId(4)) && next.learners().is_empty() && next.is_sound());
    }

    #[test]
    fn damaged_log_is_given_up_with_the_start() {
        let boot = Boot {
            hard_state: HardState {
                term: Term(7),
                vote: None,
            },
            repair: Some(at(7, 0)),
            ..boot()
        };
        let forced = boot.forced(NEW, &Config::default()).expect("a voter with data");
        assert!(forced.write.entries[0].position > at(7, 0));
        let after = after(&boot, &forced.write);
        let raft = Raft::new(Config::default(), after, [0; 32], Instant::ORIGIN).expect("it starts");
        assert_eq!(raft.status().repairing, None, "it votes");
    }

    #[test]
    fn log_begins_with_the_lineage_before_anybody_is_taken_in() {
        let boot = boot();
        let forced = boot.forced(NEW, &Config::default()).expect("a voter with data");
        let mut after = after(&boot, &forced.write);
        after.applied = Index(4);
        let entry = forced.write.entries[0].clone();
        let mut raft = Raft::new(Config::default(), after, [0; 32], Instant::ORIGIN).expect("it starts");
        let mut effects = Effects::default();
        let due = raft.deadline().expect("it campaigns");
        raft.step(due, Input::Timeout);
        // It votes for itself, then opens its term; both writes are made durable. What is committed is read back.
        let index = Index(6);
        while raft.status().applied < index {
            raft.drain(&mut effects);
            for write in std::mem::take(&mut effects.write) {
                let (write, result) = (write.id, Ok(()));
                raft.step(due, Input::Persisted { write, result });
            }
            for fetch in std::mem::take(&mut effects.fetch) {
                let (fetch, result) = (fetch.id, Ok(vec![entry.clone()]));
                raft.step(due, Input::Fetched { fetch, result });
            }
            for apply in std::mem::take(&mut effects.apply) {
                let Apply::Committed(committed) = apply else {
                    panic!("nothing is installed");
                };
                let index = committed.entries.last().expect("at least one").position.index;
                raft.step(due, Input::Applied { index });
            }
        }
        assert!(!raft.is_settled(), "entries of the old lineage could be sent");
        raft.step(due, Input::Snapshot(SnapshotEvent::StateDurable { index }));
        raft.drain(&mut effects);
        let purged = effects.snapshot.iter().map(|operation| match operation {
            SnapshotOp::Purge(base) => (base.position, base.membership.lineage()),
            SnapshotOp::Send { .. } => panic!("to nobody"),
        });
        assert_eq!(purged.collect::<Vec<_>>(), [(at(4, 5), NEW)]);
        assert!(raft.is_settled());
    }
}
