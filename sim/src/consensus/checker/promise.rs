//! Promises: nothing durable is promised before the disk holds it, and no vote is given twice, crash or not.

use std::collections::BTreeMap;

use quorate_core::raft::{Body, HardState, Message, NodeId, Term};

use super::{Verdict, demand};
use crate::consensus::log::DiskLog;

/// Votes that disks held at any time.
#[derive(Debug, Default)]
pub(crate) struct Promises {
    votes: BTreeMap<(NodeId, Term), NodeId>,
    durable: BTreeMap<NodeId, HardState>,
}

impl Promises {
    /// A node has a blank disk now.
    pub(in crate::consensus) fn blank(&mut self, node: NodeId) {
        self.durable.remove(&node);
    }

    /// A node's disk holds this hard state now.
    pub(crate) fn durable(&mut self, node: NodeId, found: HardState) -> Verdict {
        let before = self.durable.insert(node, found).unwrap_or_default();
        if before == found {
            return Ok(());
        }
        demand(found.term >= before.term, "terms never fall", || {
            format!("the disk of {node} goes from {before:?} to {found:?}")
        })?;
        let Some(vote) = found.vote else {
            let kept = found.term > before.term || before.vote.is_none();
            return demand(kept, "votes never change", || {
                format!("{node} forgets its vote: {before:?} becomes {found:?}")
            });
        };
        let voted = *self.votes.entry((node, found.term)).or_insert(vote);
        demand(voted == vote, "votes never change", || {
            format!(
                "{node} votes for {vote} in term {}, and voted for {voted}",
                found.term
            )
        })
    }

    /// Whom a node's disk held as its vote in a term, or whom it promised it to and can give it to nobody else.
    pub(crate) fn durable_vote(&self, node: NodeId, term: Term) -> Option<NodeId> {
        self.votes.get(&(node, term)).copied()
    }

    /// A message leaves a node in `term` whose disk holds `durable`. `leader` is the log of the receiver if it leads
    /// the message's term right now.
    pub(in crate::consensus) fn leaves(
        &mut self,
        from: NodeId,
        to: NodeId,
        message: &Message,
        durable: &DiskLog,
        sender_term: Term,
        leader: Option<&DiskLog>,
    ) -> Verdict {
        match message.body {
            Body::VoteResponse { granted: true } => {
                demand(durable.repairing().is_none(), "a damaged log has no vote", || {
                    format!(
                        "{from} votes for {to} in term {}, and its log lacks what damage took",
                        message.term
                    )
                })?;
                // A disk that holds a later term keeps the promise too: no other vote in this one can follow.
                let vote = if durable.hard_state.term > message.term {
                    Some(*self.votes.entry((from, message.term)).or_insert(to))
                } else {
                    self.durable_vote(from, message.term)
                };
                demand(vote == Some(to), "no promise before it is durable", || {
                    format!(
                        "{from} votes for {to} in term {}; its disk holds {vote:?}",
                        message.term
                    )
                })
            }
            Body::VoteRequest { last, .. } => {
                let hard_state = durable.hard_state;
                let own = hard_state.term == message.term && hard_state.vote == Some(from);
                demand(
                    hard_state.term > message.term || (own && durable.last() >= last),
                    "no promise before it is durable",
                    || {
                        format!(
                            "{from} asks for votes in term {} for a log up to {last}; its disk holds {hard_state:?} and a \
                             log up to {}",
                            message.term,
                            durable.last()
                        )
                    },
                )
            }
            Body::AppendAccepted { matched } => {
                let (last, term) = (durable.last().index, durable.hard_state.term);
                let current = message.term == sender_term;
                demand(
                    term >= message.term && (last >= matched || !current),
                    "no promise before it is durable",
                    || {
                        format!(
                            "{from} accepts up to {matched} in term {}; its disk holds up to {last}, term {term}",
                            message.term
                        )
                    },
                )?;
                let Some(leader) = leader.filter(|_| current) else {
                    return Ok(());
                };
                let (own, wanted) = (durable.term_at(matched), leader.term_at(matched));
                let comparable = own.is_some() && wanted.is_some();
                demand(
                    !comparable || own == wanted,
                    "no acknowledgement of another log",
                    || {
                        format!(
                            "{from} accepts up to {matched} of the leader {to} of term {}: its disk has {own:?} there, \
                         the leader {wanted:?}",
                            message.term
                        )
                    },
                )
            }
            _ => Ok(()),
        }
    }
}
