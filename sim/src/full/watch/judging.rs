//! What a round of consensus shows, and what is demanded of it.

use quorate_core::raft::{Apply, Body, Effects, HardState, NodeId, Role, Status, StepDown, Term, TraceEvent};

use super::{Inner, Moment, Promised, witnesses};
use crate::consensus::checker::progress::Progress;
use crate::consensus::checker::{Verdict, demand};
use crate::consensus::node::Run;

impl Inner {
    pub(super) fn stepped(&mut self, run: Run, status: &Status<'_>, effects: &Effects) -> Verdict {
        self.note(run, status, effects);
        self.remembers(run, status)?;
        let seen = self.seen.entry(run.node).or_default();
        if seen.id != status.id {
            seen.id = status.id;
            self.links.is_called(run.node, status.id);
        }
        seen.progress.see(status)?;
        (seen.role, seen.leader) = (Some(status.role), status.leader);
        (seen.last, seen.repairing) = (status.last.index, status.repairing.is_some());
        seen.level = Some(status.membership.level());
        (seen.witness, seen.durable) = (status.membership.is_witness(status.id), status.durable);
        if seen.witness {
            witnesses::takes_part(run, effects)?;
        }
        if status.role == Role::Leader {
            self.elections.leads(status.term, run)?;
        }
        if effects
            .trace
            .iter()
            .any(|event| matches!(event, TraceEvent::MembershipChanged { .. }))
        {
            self.is_kept_out(status)?;
        }
        for event in &effects.trace {
            self.happened(run.node, status.id, event);
        }
        for (to, message) in &effects.send {
            self.promises(run.node, (status.id, *to), message.term, &message.body)?;
            if status.membership.is_witness(*to) {
                self.sent_to_witness(status, *to, &message.body)?;
            }
        }
        for step in &effects.apply {
            match step {
                Apply::Committed(committed) => {
                    for (entry, _) in committed.iter() {
                        self.committed.committed(entry, status.term)?;
                    }
                }
                Apply::Install(base) => self.committed.covers(base.position, "a snapshot")?,
            }
        }
        Ok(())
    }

    /// No node of another cluster is a member.
    fn is_kept_out(&self, status: &Status<'_>) -> Verdict {
        let members = status.membership.members().values();
        let stranger = members
            .map(|member| &member.name)
            .find(|name| self.strangers.contains(name));
        demand(
            stranger.is_none(),
            "no node of another cluster is a member",
            || {
                format!(
                    "{stranger:?} is, in the membership at {}",
                    status.membership_position
                )
            },
        )
    }

    fn note(&mut self, run: Run, status: &Status<'_>, effects: &Effects) {
        self.statistics.steps += 1;
        self.statistics.messages += effects.send.len() as u64;
        self.trace.note(run.node.0 << 32 | u64::from(run.life));
        self.trace.note(status.term.0 << 40 ^ status.last.index.0);
        self.trace
            .note(status.commit.0 << 32 ^ status.durable.0 ^ (status.role as u64) << 60);
        self.trace
            .note((effects.send.len() as u64) << 32 | effects.write.len() as u64);
    }

    /// A node that starts again finds what it had promised.
    fn remembers(&mut self, run: Run, status: &Status<'_>) -> Verdict {
        let seen = self.seen.entry(run.node).or_default();
        if !std::mem::take(&mut seen.fresh) {
            return Ok(());
        }
        seen.progress = Progress::starting(HardState {
            term: Term(0),
            vote: None,
        });
        let Promised {
            term,
            matched,
            rotten,
        } = seen.promised;
        let (last, repairing) = (status.last.index, status.repairing);
        demand(
            repairing.is_none() || rotten,
            "only a damaged log is repaired",
            || format!("{run} finds its log damaged up to {repairing:?}, which nobody has touched"),
        )?;
        let voted = self.votes.get(&(status.id, term)).copied();
        let keeps_vote = status.term > term || voted.is_none() || status.vote == voted;
        demand(
            status.term >= term && (last >= matched && keeps_vote || repairing.is_some()),
            "what was promised is there after a crash",
            || {
                format!(
                    "{run} starts in term {} with a vote for {:?} and a log up to {last}; it had promised something in \
                     term {term}, a vote for {voted:?}, and to hold everything up to {matched}",
                    status.term, status.vote
                )
            },
        )
    }

    fn promises(&mut self, node: NodeId, (from, to): (NodeId, NodeId), term: Term, body: &Body) -> Verdict {
        let promised = &mut self.seen.entry(node).or_default().promised;
        match body {
            // Whoever asks for votes has given itself its own.
            Body::VoteRequest { .. } => {
                promised.term = promised.term.max(term);
                let voted = *self.votes.entry((from, term)).or_insert(from);
                demand(voted == from, "votes never change", || {
                    format!("{from} asks for votes in term {term}, and voted for {voted}")
                })
            }
            Body::VoteResponse { granted: true } => {
                promised.term = promised.term.max(term);
                self.moments.push((Moment::Vote, node));
                let voted = *self.votes.entry((from, term)).or_insert(to);
                demand(voted == to, "votes never change", || {
                    format!("{from} votes for {to} in term {term}, and voted for {voted}")
                })
            }
            Body::AppendAccepted { matched } => {
                promised.term = promised.term.max(term);
                promised.matched = promised.matched.max(*matched);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn happened(&mut self, node: NodeId, id: NodeId, event: &TraceEvent) {
        let statistics = &mut self.statistics;
        match event {
            TraceEvent::Elected { term } => {
                statistics.elections += 1;
                *self.elected.entry(node).or_default() += 1;
                if self.leader.is_none_or(|(known, ..)| known < *term) {
                    self.leader = Some((*term, node, id));
                    self.reigns += 1;
                }
            }
            TraceEvent::Campaign { pre_vote: false, .. } => statistics.campaigns += 1,
            TraceEvent::Truncated { from } => {
                statistics.truncations += 1;
                let promised = &mut self.seen.entry(node).or_default().promised;
                promised.matched = promised.matched.min(from.previous());
            }
            TraceEvent::SteppedDown {
                reason: StepDown::DiskStalled,
                ..
            } => statistics.stalled_leaders += 1,
            TraceEvent::SnapshotNeeded { to } => {
                statistics.snapshots_sent += 1;
                let receiver = self.seen.iter().find(|(_, seen)| seen.id == *to && seen.life > 0);
                self.moments
                    .extend(receiver.map(|(machine, _)| (Moment::Snapshot, *machine)));
            }
            TraceEvent::SnapshotAccepted { .. } => {
                statistics.snapshots += 1;
                self.moments.push((Moment::Snapshot, node));
            }
            TraceEvent::HandsOver { .. } => statistics.slow_leaders += 1,
            _ => {}
        }
    }
}
