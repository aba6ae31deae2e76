//! What operators, and the duties of a leader, do to the cluster: changes of the membership, hand-overs, compaction;
//! and how often clients ask.

use quorate_core::duties::{Learner, Situation, learner_to_promote};
use quorate_core::raft::{self, Change, Input, Membership, NodeId, Role, SnapshotEvent};

use super::checker::Verdict;
use super::checker::client::RequestKind;
use super::marks::Mark;
use super::node::Run;
use super::plan::{Operation, OperationKind, Who, nth};
use super::schedule::{MILLISECOND, Time};
use super::told::operation_of;
use super::world::{Draws, Event, World, member};

/// How often leaders look for a learner to promote.
pub(super) const DUTIES_INTERVAL: Time = 250 * MILLISECOND;

/// What the operator remembers.
#[derive(Debug, Default)]
pub(super) struct Operator {
    /// Data directories that were given out beyond those of the first members.
    directories: u64,
    /// Addresses that were recorded.
    updates: u64,
    pub(super) mood: Mood,
    /// The members that there shall be again after a forced start.
    pub(super) wanted: usize,
}

/// How often clients ask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mood {
    /// As the knobs say.
    #[default]
    Usual,
    /// So many times as often until then.
    Burst { times: u64, until: Time },
    /// Not at all until then.
    Quiet { until: Time },
}

impl World {
    /// An operator does something.
    pub(super) fn operate(&mut self, operation: &Operation) -> Verdict {
        if self.recovery.is_some() {
            return Ok(());
        }
        let now = self.schedule.now();
        match operation.kind {
            OperationKind::Burst { times, duration } => {
                let until = now + duration;
                self.operator.mood = Mood::Burst { times, until };
                return Ok(());
            }
            OperationKind::Quiet { duration } => {
                let until = now + duration;
                self.operator.mood = Mood::Quiet { until };
                return Ok(());
            }
            OperationKind::ForceStart { survivor, back } => return self.force_start(survivor, back),
            _ => {}
        }
        let Some(run) = self.asked(operation.asked) else {
            return Ok(());
        };
        match operation.kind {
            OperationKind::Transfer { to } => self.transfer(run, to),
            OperationKind::Compact => self.compact(run),
            _ => {
                let Some(process) = self.nodes.get(run.node).and_then(|node| node.process.as_ref()) else {
                    return Ok(());
                };
                let membership = process.raft.status().membership.clone();
                let changes = self.changes(&operation.kind, &membership);
                self.administer(
                    run,
                    RequestKind::Change,
                    raft::Operation::ChangeMembership(changes),
                )
            }
        }
    }

    /// Whom an operator turns to: the leader, or whoever moves.
    fn asked(&self, who: Who) -> Option<Run> {
        let now = self.schedule.now();
        let runs: Vec<Run> = self.nodes.moving(now).map(|(node, _)| node.run()).collect();
        let leader = self
            .nodes
            .moving(now)
            .filter(|(_, process)| process.raft.status().role == Role::Leader)
            .max_by_key(|(_, process)| process.progress.term())
            .map(|(node, _)| node.run());
        match who {
            Who::Leader => leader.or(runs.first().copied()),
            Who::Place(place) => nth(&runs, place),
            Who::Follower(place) => {
                let others = runs.into_iter().filter(|run| Some(*run) != leader);
                nth(&others.collect::<Vec<_>>(), place).or(leader)
            }
        }
    }

    fn transfer(&mut self, run: Run, to: Option<u64>) -> Verdict {
        let target = to.and_then(|place| nth(&self.present(), place));
        self.administer(run, RequestKind::Transfer, raft::Operation::Transfer { target })
    }

    /// Stores the state at once; what keeps the log is then only what consensus wants to keep.
    fn compact(&mut self, run: Run) -> Verdict {
        let Some(live) = self.nodes.live(run) else {
            return Ok(());
        };
        live.store.flush(live.store.batches_behind());
        let index = live.store.applied.index;
        self.input(run, Input::Snapshot(SnapshotEvent::StateDurable { index }))
    }

    fn administer(&mut self, run: Run, kind: RequestKind, operation: raft::Operation) -> Verdict {
        if matches!(kind, RequestKind::Change) && self.is_repairing() {
            return Ok(());
        }
        let asked = operation_of(&kind);
        let token = self.checkers.clients.ask(run, kind);
        self.tell_asked(run, token, asked, || format!("{operation:?}"));
        self.input(run, Input::Admin { token, operation })
    }

    /// The duties of every leader, again and again.
    pub(super) fn duties(&mut self) -> Verdict {
        if self.recovery.is_some() {
            return Ok(());
        }
        self.schedule.after(DUTIES_INTERVAL, Event::Duties);
        self.grow_again()?;
        self.promote_learners()
    }

    /// The duty of every leader: a learner that caught up becomes a voter.
    fn promote_learners(&mut self) -> Verdict {
        let decisions: Vec<(Run, NodeId)> = self
            .nodes
            .moving(self.schedule.now())
            .filter_map(|(node, process)| {
                let status = process.raft.status();
                if status.role != Role::Leader {
                    return None;
                }
                let learners: Vec<Learner> = status
                    .peers
                    .iter()
                    .filter(|peer| status.membership.learners().contains(&peer.id))
                    .map(|peer| Learner {
                        id: peer.id,
                        promote: status.membership.members()[&peer.id].promote,
                        matched: peer.matched,
                        caught_up: peer.caught_up,
                    })
                    .collect();
                let situation = Situation {
                    changing: status.membership.is_joint()
                        || status.membership_position.index > status.commit,
                    learners: &learners,
                };
                let chosen = learner_to_promote(&situation)?;
                Some((node.run(), chosen))
            })
            .collect();
        for (run, learner) in decisions {
            self.statistics.promotions += 1;
            self.marks.note(Mark::LearnerPromoted);
            let operation = raft::Operation::ChangeMembership(vec![Change::Promote(learner)]);
            self.administer(run, RequestKind::Change, operation)?;
        }
        Ok(())
    }

    /// What an operation means for a membership.
    fn changes(&mut self, kind: &OperationKind, membership: &Membership) -> Vec<Change> {
        // A lost node is replaced before anything else: the cluster cannot spare another one.
        let lost = membership
            .members()
            .iter()
            .find(|(id, _)| self.nodes.get(**id).is_some_and(|node| node.gone));
        if let Some((id, lost)) = lost {
            let (name, witness) = (lost.name.clone(), lost.witness);
            return match kind {
                OperationKind::Remove { .. } | OperationKind::RemoveLearner { .. } => {
                    vec![Change::Remove(*id)]
                }
                _ => vec![self.newcomer(&name, true, witness)],
            };
        }
        let voters: Vec<NodeId> = membership.voters().iter().copied().collect();
        let learners: Vec<NodeId> = membership.learners().iter().copied().collect();
        let nodes_max = usize::try_from(self.nodes_first).unwrap_or(usize::MAX) + 3;
        let room = membership.members().len() < nodes_max;
        let spare = voters.len() > self.knobs.voters_min;
        let voter = |place| nth(&voters, place).expect("a membership has voters");
        let learner = |place| nth(&learners, place);
        match *kind {
            OperationKind::AddLearner { promote } if room => vec![self.stranger(promote)],
            OperationKind::Remove { voter: place } if spare => vec![Change::Remove(voter(place))],
            OperationKind::Replace {
                voter: place,
                promote,
            } if spare => vec![Change::Remove(voter(place)), self.stranger(promote)],
            OperationKind::Demote { voter: place } if spare => vec![Change::Demote(voter(place))],
            OperationKind::Prioritise {
                voter: place,
                priority,
            } => vec![Change::Prioritise {
                id: voter(place),
                priority,
            }],
            OperationKind::Promote { learner: place }
            | OperationKind::PromoteAndRemove { learner: place, .. }
            | OperationKind::Swap { learner: place, .. }
            | OperationKind::RemoveLearner { learner: place }
                if let Some(learner) = learner(place) =>
            {
                match *kind {
                    OperationKind::PromoteAndRemove { voter: place, .. } => {
                        vec![Change::Promote(learner), Change::Remove(voter(place))]
                    }
                    OperationKind::Swap { voter: place, .. } => {
                        vec![Change::Promote(learner), Change::Demote(voter(place))]
                    }
                    OperationKind::RemoveLearner { .. } => vec![Change::Remove(learner)],
                    _ => vec![Change::Promote(learner)],
                }
            }
            OperationKind::ReplaceMajority { voter: place } if learners.len() > voters.len() / 2 => {
                let leaving =
                    (0..=voters.len() as u64 / 2).map(|next| Change::Demote(voter(place % 64 + next)));
                let coming = learners.iter().map(|id| Change::Promote(*id));
                coming.chain(leaving).collect()
            }
            OperationKind::ReplaceMajority { .. } if room => vec![self.stranger(true)],
            OperationKind::PromoteAndRemove { voter: place, .. } if spare => {
                vec![Change::Demote(voter(place))]
            }
            _ => {
                self.operator.updates += 1;
                vec![Change::Update {
                    id: voter(self.operator.updates),
                    cluster_address: format!("address-{}:7000", self.operator.updates),
                    client_address: "address:8080".to_owned(),
                }]
            }
        }
    }

    /// The leader is asked to take in a node that was never a member.
    pub(super) fn take_in_stranger(&mut self) -> Verdict {
        let Some(run) = self.asked(Who::Leader) else {
            return Ok(());
        };
        let changes = vec![self.stranger(true)];
        self.administer(
            run,
            RequestKind::Change,
            raft::Operation::ChangeMembership(changes),
        )
    }

    /// A learner that was never a member.
    fn stranger(&mut self, promote: bool) -> Change {
        let name = format!("n{}", 100 + self.operator.directories);
        // Where there are witnesses, some newcomers are.
        let directory = NodeId(1_001 + self.operator.directories);
        let witness = self.knobs.witnesses > 0 && self.machine(Draws::Part, directory).chance(300_000);
        self.newcomer(&name, promote, witness)
    }

    fn newcomer(&mut self, name: &str, promote: bool, witness: bool) -> Change {
        self.operator.directories += 1;
        let directory = 1_000 + self.operator.directories;
        let mut member = member(name, directory, &self.knobs);
        member.features = self.some_binary(Draws::FirstBinary, NodeId(directory));
        member.promote = promote;
        member.witness = witness;
        Change::AddLearner(member)
    }
}
