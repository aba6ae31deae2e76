//! What operators, and the duties of a leader, do to the cluster: changes of the membership and hand-overs.

use quorate_core::duties::{Learner, PromotionLimits, Situation, learner_to_promote};
use quorate_core::raft::{Change, Input, Membership, NodeId, Operation, Role};

use super::checker::Verdict;
use super::checker::client::RequestKind;
use super::node::Run;
use super::world::{Event, World, member};

/// What the operator remembers.
#[derive(Debug, Default)]
pub(super) struct Operator {
    /// Data directories that were given out beyond those of the first members.
    directories: u64,
}

impl World {
    /// An operator does something, and will do more.
    pub(super) fn operate(&mut self) -> Verdict {
        let Some(mean) = self.plan.operation_mean.filter(|_| self.recovery.is_none()) else {
            return Ok(());
        };
        let delay = self.random.operator.around(mean);
        self.schedule.after(delay, Event::Operation);
        self.promote_learners()?;
        let Some(run) = self.operators_choice() else {
            return Ok(());
        };
        let transfer = self.plan.transfers && self.random.operator.chance(300_000);
        if transfer || !self.plan.membership_changes {
            return if self.plan.transfers {
                self.transfer(run)
            } else {
                Ok(())
            };
        }
        let Some(node) = self.nodes.get(run.node) else {
            return Ok(());
        };
        let Some(process) = &node.process else {
            return Ok(());
        };
        let membership = process.raft.status().membership.clone();
        let changes = self.invent_changes(&membership);
        self.administer(run, RequestKind::Change, Operation::ChangeMembership(changes))
    }

    /// Whom an operator turns to: the leader, or now and then anyone.
    fn operators_choice(&mut self) -> Option<Run> {
        let now = self.schedule.now();
        let runs: Vec<Run> = self.nodes.moving(now).map(|(node, _)| node.run()).collect();
        let leader = self
            .nodes
            .moving(now)
            .filter(|(_, process)| process.raft.status().role == Role::Leader)
            .max_by_key(|(_, process)| process.progress.term())
            .map(|(node, _)| node.run());
        if runs.is_empty() {
            return None;
        }
        let anyone = *self.random.operator.pick(&runs);
        if self.random.operator.chance(100_000) {
            Some(anyone)
        } else {
            leader.or(Some(anyone))
        }
    }

    fn transfer(&mut self, run: Run) -> Verdict {
        let present = self.present();
        let target = self
            .random
            .operator
            .chance(600_000)
            .then(|| *self.random.operator.pick(&present));
        self.administer(run, RequestKind::Transfer, Operation::Transfer { target })
    }

    fn administer(&mut self, run: Run, kind: RequestKind, operation: Operation) -> Verdict {
        if matches!(kind, RequestKind::Change) && self.is_repairing() {
            return Ok(());
        }
        let token = self.checkers.clients.ask(run, kind);
        self.log(|_| format!("{run} is asked {token:?}: {operation:?}"));
        self.input(run, Input::Admin { token, operation })
    }

    /// The duty of every leader: a learner that caught up becomes a voter.
    fn promote_learners(&mut self) -> Verdict {
        let decisions: Vec<(Run, NodeId)> = self
            .nodes
            .moving(self.schedule.now())
            .filter_map(|(node, process)| {
                let status = process.raft.status();
                if status.role != Role::Leader || !self.plan.membership_changes {
                    return None;
                }
                let now = node.clock.shows(self.schedule.now());
                let learners: Vec<Learner> = status
                    .peers
                    .iter()
                    .filter(|peer| status.membership.learners().contains(&peer.id))
                    .map(|peer| Learner {
                        id: peer.id,
                        promote: status.membership.members()[&peer.id].promote,
                        matched: peer.matched,
                        reachable: now.since(peer.heard) < self.plan.raft.election_timeout_max,
                    })
                    .collect();
                let situation = Situation {
                    commit: status.commit,
                    last: status.last.index,
                    changing: status.membership.is_joint()
                        || status.membership_position.index > status.commit,
                    learners: &learners,
                };
                let chosen = learner_to_promote(&situation, &PromotionLimits::default())?;
                Some((node.run(), chosen))
            })
            .collect();
        for (run, learner) in decisions {
            self.statistics.promotions += 1;
            let operation = Operation::ChangeMembership(vec![Change::Promote(learner)]);
            self.administer(run, RequestKind::Change, operation)?;
        }
        Ok(())
    }

    fn invent_changes(&mut self, membership: &Membership) -> Vec<Change> {
        // A wiped node is replaced before anything else: the cluster cannot spare another one.
        let lost = membership
            .members()
            .iter()
            .find(|(id, _)| self.nodes.get(**id).is_some_and(|node| node.gone));
        if let Some((id, lost)) = lost {
            let name = lost.name.clone();
            return if self.random.operator.chance(700_000) {
                vec![self.newcomer(&name)]
            } else {
                vec![Change::Remove(*id)]
            };
        }
        let voters: Vec<NodeId> = membership.voters().iter().copied().collect();
        let learners: Vec<NodeId> = membership.learners().iter().copied().collect();
        let size_max = usize::try_from(self.options.nodes).unwrap_or(usize::MAX) + 2;
        let random = &mut self.random.operator;
        let voters_min = if random.chance(100_000) { 1 } else { 2 };
        let voter = *random.pick(&voters);
        let learner = (!learners.is_empty()).then(|| *random.pick(&learners));
        let dispensable = voters.len() > voters_min;
        let choice = random.below(8);
        match (choice, learner) {
            (0 | 1, _) if membership.members().len() < size_max => {
                let name = format!("n{}", 100 + self.operator.directories);
                vec![self.newcomer(&name)]
            }
            (0 | 2, _) if dispensable => vec![Change::Remove(voter)],
            (1 | 3, Some(learner)) => vec![Change::Promote(learner)],
            (4, Some(learner)) => vec![Change::Promote(learner), Change::Remove(voter)],
            (5, Some(learner)) => vec![Change::Promote(learner), Change::Demote(voter)],
            (6, Some(learner)) => vec![Change::Remove(learner)],
            (4 | 5, None) if dispensable => vec![Change::Demote(voter)],
            (6, None) if dispensable => {
                let name = format!("n{}", 100 + self.operator.directories);
                vec![Change::Remove(voter), self.newcomer(&name)]
            }
            (7, _) if self.plan.priorities.len() > 1 => vec![Change::Prioritise {
                id: voter,
                priority: *random.pick(&self.plan.priorities),
            }],
            _ => vec![Change::Update {
                id: voter,
                cluster_address: format!("address-{}:7000", self.operator.directories),
                client_address: "address:8080".to_owned(),
            }],
        }
    }

    fn newcomer(&mut self, name: &str) -> Change {
        self.operator.directories += 1;
        let mut member = member(name, 1_000 + self.operator.directories, &self.plan);
        member.features = self.some_binary();
        member.promote = self.random.operator.chance(800_000);
        Change::AddLearner(member)
    }
}
